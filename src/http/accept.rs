//! `Accept` (RFC 9110 12.5.1), reduced to one question: does the client accept this media type?

use super::headers::Headers;
use super::list;
use super::split::split_once;

/// Whether `type_name/subtype` is acceptable: no `Accept` at all, or the most specific range that
/// covers it has a weight above zero. Parameters other than `q` are ignored.
#[must_use]
pub fn accepts(headers: &Headers<'_>, type_name: &str, subtype: &str) -> bool {
    let mut ranges = headers.get_all("accept").flat_map(list::members).peekable();
    if ranges.peek().is_none() {
        return true;
    }
    let best = ranges.filter_map(|range| {
        let mut parts = list::parts(range, b';');
        let specific = specificity(parts.next()?, type_name, subtype)?;
        Some((specific, !parts.any(is_zero_weight)))
    });
    best.max_by_key(|(specific, _)| *specific)
        .is_some_and(|(_, acceptable)| acceptable)
}

/// How specific a range is for the type: 2 for `type/subtype`, 1 for `type/*`, 0 for `*/*`.
fn specificity(range: &[u8], type_name: &str, subtype: &str) -> Option<u8> {
    let (first, second) = split_once(range, b'/')?;
    let same = |part: &[u8], name: &str| part.eq_ignore_ascii_case(name.as_bytes());
    match (first, second) {
        (b"*", b"*") => Some(0),
        (first, b"*") if same(first, type_name) => Some(1),
        (first, second) if same(first, type_name) && same(second, subtype) => Some(2),
        _ => None,
    }
}

/// `q=0`, `q=0.0` and so on: not acceptable.
pub(super) fn is_zero_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => {
            !weight.is_empty() && weight.iter().all(|b| matches!(b, b'0' | b'.'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers_of;
    use super::*;

    // RFC 9110 12.5.1: the most specific range wins; q=0 is "not acceptable".
    #[test]
    fn the_most_specific_range_decides() {
        for (accept, acceptable) in [
            ("text/event-stream", true),
            ("Text/Event-Stream;q=0.1", true),
            ("application/json, text/*", true),
            ("*/*", true),
            ("", true),
            ("application/json", false),
            ("text/event-stream;q=0", false),
            ("*/*, text/event-stream; q=0.000", false),
            ("text/*;q=0, text/event-stream", true),
            ("text/*;q=0, */*", false),
            ("text", false),
            ("text/event-stream;p=\"q=0;\";q=1", true),
        ] {
            let head = headers_of(&[("Accept", accept)]);
            let got = accepts(&head.headers(), "text", "event-stream");
            assert_eq!(got, acceptable, "{accept}");
        }
        assert!(accepts(&headers_of(&[]).headers(), "text", "event-stream"));
    }
}
