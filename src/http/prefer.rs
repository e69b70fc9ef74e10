//! `Prefer` (RFC 7240): how a client would like to be answered. A preference is never an error:
//! what is not known or not well-formed is ignored (RFC 7240 2).

use std::time::Duration;

use super::headers::Headers;
use super::list;

/// The preferences that the gateway knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N`: how many seconds the client would wait. The caller applies its own limit.
    pub wait_s: Option<u32>,
    /// `respond-async`: the client prefers 202 and a location to a long wait.
    pub respond_async: bool,
}

impl Prefer {
    /// How long the client would wait. Without `wait`: not at all.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_s.unwrap_or_default().into())
    }

    /// Parses a request's preferences. If a preference is repeated, the first counts.
    #[must_use]
    pub fn parse(headers: &Headers<'_>) -> Self {
        let mut prefer = Self::default();
        let mut seen_wait = false;
        for preference in headers.get_all("prefer").flat_map(list::members) {
            // Ignore parameters, which follow a semicolon: the known preferences have none.
            let pair = list::parts(preference, b';').next().unwrap_or(b"");
            let mut sides = list::parts(pair, b'=');
            let name = sides.next().unwrap_or(b"");
            if name.eq_ignore_ascii_case(b"respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case(b"wait") && !seen_wait {
                seen_wait = true;
                prefer.wait_s = sides.next().and_then(seconds);
            }
        }
        prefer
    }
}

/// RFC 7240 4.3: delta-seconds, also accepted as a quoted string. Saturates at `u32::MAX`.
fn seconds(word: &[u8]) -> Option<u32> {
    let word = match word {
        [b'"', inner @ .., b'"'] => inner,
        _ => word,
    };
    let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    digits.then(|| {
        word.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers_of;
    use super::*;

    // RFC 7240 2, 4.1 and 4.3.
    #[test]
    fn preferences_are_read_and_the_rest_ignored() {
        for (header, wait_s, respond_async) in [
            ("", None, false),
            ("respond-async", None, true),
            ("respond-async, wait=10", Some(10), true),
            ("Respond-Async;x=y, WAIT = \"5\"", Some(5), true),
            ("wait=10; foo, wait=20", Some(10), false),
            ("wait=x, wait=20", None, false),
            ("wait, handling=lenient", None, false),
            ("wait=-1", None, false),
            ("wait=99999999999999999999", Some(u32::MAX), false),
            ("foo=\"respond-async, wait=3\"", None, false),
            ("respond-asynchronously", None, false),
            (";;=,=;\",", None, false),
        ] {
            let head = headers_of(&[("Prefer", header)]);
            let expected = Prefer {
                wait_s,
                respond_async,
            };
            assert_eq!(Prefer::parse(&head.headers()), expected, "{header}");
        }
        let head = headers_of(&[("prefer", "wait=1"), ("Prefer", "respond-async")]);
        let expected = Prefer {
            wait_s: Some(1),
            respond_async: true,
        };
        assert_eq!(Prefer::parse(&head.headers()), expected);
    }
}
