//! Conditional requests (RFC 9110 13): entity tags that a client holds against the one that is.
//!
//! Beside the RFC's quoted tags three more spellings are taken, since people copy them from what
//! they see: bare tags, and whole event ids (`progress.etag`) either way, of which the part behind
//! the last dot counts. A tag of ours has no dot, so the two can't be confused.

use smallvec::SmallVec;

use crate::model::Etag;

use super::headers::Headers;
use super::problem::{Fault, Refusal};

/// Tags in one condition. A client that holds more is refused.
const TAGS_MAX: usize = 64;

/// `If-None-Match`: which representations the client has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfNoneMatch(Tags);

/// `If-Match`: the representations the client would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(Tags);

/// What a condition lists. Tags that can't be ours (too long) are left out: they match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    List(SmallVec<[Tag; 1]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: SmallVec<[u8; 40]>,
}

impl IfNoneMatch {
    /// The request's condition, if it has one.
    ///
    /// # Errors
    /// The header breaks its grammar.
    pub fn parse(headers: &Headers<'_>) -> Result<Option<Self>, Refusal> {
        let wrong = "If-None-Match is not a list of entity tags";
        Ok(Tags::parse(headers, "if-none-match", wrong)?.map(Self))
    }

    /// Whether the condition fails, so that the answer is 304: the client has what is current
    /// (`None`: nothing is). Weak comparison (RFC 9110 13.1.2).
    #[must_use]
    pub fn has(&self, current: Option<&Etag>) -> bool {
        self.0.contain(current, |_| true)
    }
}

impl IfMatch {
    /// The request's condition, if it has one.
    ///
    /// # Errors
    /// The header breaks its grammar.
    pub fn parse(headers: &Headers<'_>) -> Result<Option<Self>, Refusal> {
        let wrong = "If-Match is not a list of entity tags";
        Ok(Tags::parse(headers, "if-match", wrong)?.map(Self))
    }

    /// Whether the condition holds for what is current (`None`: nothing is). Strong comparison: a
    /// weak tag never matches (RFC 9110 13.1.1).
    #[must_use]
    pub fn holds(&self, current: Option<&Etag>) -> bool {
        self.0.contain(current, |tag| !tag.weak)
    }

    /// Whether anything at all could make it hold. If not, the answer is 412 without asking.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        match &self.0 {
            Tags::Any => true,
            Tags::List(tags) => tags.iter().any(|tag| !tag.weak),
        }
    }

    /// The one tag a command is conditional on, for its record: `*`, or the tag without quotes and
    /// without the progress of an event id. `None` if it lists several, or none that may hold.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        match &self.0 {
            Tags::Any => Some(b"*"),
            Tags::List(tags) => match tags.as_slice() {
                [tag] if !tag.weak => Some(&tag.opaque),
                _ => None,
            },
        }
    }
}

impl Tags {
    fn parse(
        headers: &Headers<'_>,
        name: &str,
        wrong: &'static str,
    ) -> Result<Option<Self>, Refusal> {
        let refusal = Refusal::new(Fault::MalformedHeader, wrong);
        let mut lines = headers.get_all(name).peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let (mut tags, mut any, mut count) = (SmallVec::new(), false, 0);
        for mut rest in lines {
            while let Some(element) = next_element(&mut rest).map_err(|()| refusal)? {
                count += 1;
                match element {
                    Element::Any => any = true,
                    Element::Tag(tag) => tags.extend(tag),
                }
            }
        }
        // RFC 9110 13.1.2: `*` stands alone. At least one element is asked for.
        match (any, count) {
            (true, 1) => Ok(Some(Self::Any)),
            (false, 1..=TAGS_MAX) => Ok(Some(Self::List(tags))),
            _ => Err(refusal),
        }
    }

    fn contain(&self, current: Option<&Etag>, counts: impl Fn(&Tag) -> bool) -> bool {
        let Some(current) = current else {
            return false;
        };
        match self {
            Self::Any => true,
            Self::List(tags) => tags
                .iter()
                .any(|tag| counts(tag) && tag.opaque.as_slice() == current.as_bytes()),
        }
    }
}

enum Element {
    Any,
    /// `None` if it can't be one of ours.
    Tag(Option<Tag>),
}

/// Takes the next element from a list; empty ones are skipped (RFC 9110 5.6.1.2).
fn next_element(rest: &mut &[u8]) -> Result<Option<Element>, ()> {
    while let [b' ' | b'\t' | b',', after @ ..] = *rest {
        *rest = after;
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let element = match *rest {
        [b'*', after @ ..] => {
            *rest = after;
            Element::Any
        }
        [b'W', b'/', b'"', after @ ..] => Element::Tag(quoted(rest, after, true)?),
        [b'"', after @ ..] => Element::Tag(quoted(rest, after, false)?),
        _ => Element::Tag(bare(rest)?),
    };
    let after = rest.trim_ascii_start();
    match after {
        [] | [b',', ..] => {
            *rest = after;
            Ok(Some(element))
        }
        _ => Err(()),
    }
}

/// RFC 9110 8.8.3: any visible byte but the quote, and no escapes.
fn quoted<'v>(rest: &mut &'v [u8], after: &'v [u8], weak: bool) -> Result<Option<Tag>, ()> {
    let end = memchr::memchr(b'"', after).ok_or(())?;
    let opaque = &after[..end];
    if opaque.iter().any(|b| matches!(b, 0..=b' ' | 0x7f)) {
        return Err(());
    }
    *rest = &after[end + 1..];
    Ok(tag(opaque, weak))
}

/// A tag without quotes: only what our own tags and event ids consist of.
fn bare(rest: &mut &[u8]) -> Result<Option<Tag>, ()> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'=' | b'.');
    let end = rest.iter().position(|b| !legal(b)).unwrap_or(rest.len());
    if end == 0 {
        return Err(());
    }
    let (opaque, after) = rest.split_at(end);
    *rest = after;
    Ok(tag(opaque, false))
}

fn tag(opaque: &[u8], weak: bool) -> Option<Tag> {
    let part = match memchr::memrchr(b'.', opaque) {
        Some(dot) => &opaque[dot + 1..],
        None => opaque,
    };
    (part.len() <= Etag::LEN_MAX).then(|| Tag {
        weak,
        opaque: SmallVec::from_slice(part),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers_of;
    use super::*;

    fn etag(text: &str) -> Etag {
        Etag::from_header(text.as_bytes()).expect("legal")
    }

    // RFC 9110 13.1.2: weak comparison.
    #[test]
    fn if_none_match_compares_weakly() {
        for (header, has) in [
            ("\"v1\"", true),
            ("W/\"v1\"", true),
            ("v1", true),
            ("*", true),
            (" * ", true),
            ("\"v0\", \"v1\"", true),
            (",\"v0\",,W/\"v1\" ,", true),
            ("AbC-_.v1", true),
            ("\"AbC-_.v1\"", true),
            ("\"v2\"", false),
            ("\"V1\"", false),
            ("\"\"", false),
            ("\"v1.\"", false),
            ("\"v1,\"", false),
            ("\"\u{fc}\"", false),
        ] {
            let head = headers_of(&[("If-None-Match", header)]);
            let condition = IfNoneMatch::parse(&head.headers())
                .expect(header)
                .expect(header);
            assert_eq!(condition.has(Some(&etag("v1"))), has, "{header}");
            assert!(!condition.has(None), "{header}");
        }
    }

    // RFC 9110 13.1.1: strong comparison.
    #[test]
    fn if_match_compares_strongly() {
        for (header, holds, single) in [
            ("\"v1\"", true, Some("v1")),
            ("v1", true, Some("v1")),
            ("*", true, Some("*")),
            ("progress.v1", true, Some("v1")),
            ("\"a.b.v1\"", true, Some("v1")),
            ("W/\"v0\", \"v1\"", true, None),
            ("W/\"v1\"", false, None),
            ("\"v2\"", false, Some("v2")),
        ] {
            let head = headers_of(&[("if-match", header)]);
            let condition = IfMatch::parse(&head.headers())
                .expect(header)
                .expect(header);
            assert_eq!(condition.holds(Some(&etag("v1"))), holds, "{header}");
            assert_eq!(condition.single(), single.map(str::as_bytes), "{header}");
            assert_eq!(condition.may_hold(), holds || single.is_some(), "{header}");
            assert!(!condition.holds(None), "{header}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let head = headers_of(&[("if-none-match", "\"v0\""), ("If-None-Match", "\"v1\"")]);
        let condition = IfNoneMatch::parse(&head.headers()).expect("well-formed");
        assert!(condition.is_some_and(|c| c.has(Some(&etag("v1")))));
        assert_eq!(IfMatch::parse(&head.headers()), Ok(None));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for header in [
            "",
            ",",
            "\"",
            "\"v1",
            "v1\"",
            "\"a b\"",
            "*, \"v1\"",
            "\"v1\", *",
            "*,*",
            "**",
            "w/\"v1\"",
            "W/v1",
            "W/",
            "\"v1\" \"v2\"",
            "v1 v2",
            "\"v1\"x",
            "a;b",
            "'v1'",
            "\u{fc}",
        ] {
            let head = headers_of(&[("if-match", header)]);
            let refusal = IfMatch::parse(&head.headers()).expect_err(header);
            assert_eq!(refusal.fault, Fault::MalformedHeader, "{header}");
        }
    }

    #[test]
    fn a_condition_is_bounded() {
        let many = |n| vec!["\"x\""; n].join(",");
        let parse = |header: &str| {
            let head = headers_of(&[("if-none-match", header)]);
            IfNoneMatch::parse(&head.headers()).map(|c| c.is_some())
        };
        assert_eq!(parse(&many(TAGS_MAX)), Ok(true));
        assert!(parse(&many(TAGS_MAX + 1)).is_err());
        // Longer than any of ours: matches nothing, and is not kept.
        assert_eq!(parse(&format!("\"{}\"", "x".repeat(5000))), Ok(true));
    }
}
