//! Conditional requests (RFC 9110 13): entity tags of the client compared with the current one.
//!
//! Besides the RFC's quoted tags, two more spellings are accepted, because people copy them from
//! what they see: bare tags, and whole event ids, bare or quoted. An event id stands for the tag
//! that it contains. Every other tag is opaque: it is compared and forwarded byte for byte.

use smallvec::SmallVec;

use crate::model::Etag;

use super::headers::Headers;
use super::problem::{Fault, Refusal};
use super::split::split_once;

/// Tags in one condition. A client that holds more is refused.
const TAGS_MAX: usize = 64;

/// Reads the entity tag that an event id carries. Returns `None` if the text is not an event id.
/// This room may not import `log/`, which has this function.
pub type EventIds = fn(&[u8]) -> Option<Etag>;

/// `If-None-Match`: which representations the client has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfNoneMatch(Tags);

/// `If-Match`: the representations the client would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(Tags);

/// The tags of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    List(SmallVec<[Tag; 1]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// Whether the client has the content in gzip. The tag is kept without its mark.
    gzip: bool,
    opaque: SmallVec<[u8; 40]>,
}

/// The content that a client has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// As the record has it.
    Plain,
    /// In gzip.
    Gzip,
}

impl IfNoneMatch {
    /// Parses the condition of a request, if the request has one.
    ///
    /// # Errors
    /// The header breaks its grammar.
    pub fn parse(headers: &Headers<'_>, event_ids: EventIds) -> Result<Option<Self>, Refusal> {
        let wrong = "If-None-Match is not a list of entity tags";
        Ok(Tags::parse(headers, "if-none-match", wrong, event_ids)?.map(Self))
    }

    /// Whether the condition fails, so that the answer is 304: the client has what is current
    /// (`None`: nothing is). Weak comparison (RFC 9110 13.1.2).
    #[must_use]
    pub fn has(&self, current: Option<&Etag>) -> bool {
        self.0.contain(current, |_| true)
    }

    /// In which coding the client has what is current, if it has it: the answer is then 304 with
    /// the tag of that coding. Weak comparison, as [`Self::has`].
    #[must_use]
    pub fn representation(&self, current: &Etag) -> Option<Representation> {
        let tags = match &self.0 {
            Tags::Any => return Some(Representation::Plain),
            Tags::List(tags) => tags,
        };
        let same = |tag: &&Tag| tag.opaque.as_slice() == current.opaque();
        let tag = tags.iter().find(same)?;
        Some(if tag.gzip {
            Representation::Gzip
        } else {
            Representation::Plain
        })
    }

    /// The condition as a command's record carries it.
    #[must_use]
    pub fn for_record(&self) -> Vec<u8> {
        self.0.for_record()
    }
}

impl IfMatch {
    /// Parses the condition of a request, if the request has one.
    ///
    /// # Errors
    /// The header breaks its grammar.
    pub fn parse(headers: &Headers<'_>, event_ids: EventIds) -> Result<Option<Self>, Refusal> {
        let wrong = "If-Match is not a list of entity tags";
        Ok(Tags::parse(headers, "if-match", wrong, event_ids)?.map(Self))
    }

    /// Whether the condition is true of the current tag (`None`: there is none). Strong comparison:
    /// a weak tag never matches, and if there is no current tag, no tag matches (RFC 9110 13.1.1).
    #[must_use]
    pub fn holds(&self, current: Option<&Etag>) -> bool {
        match &self.0 {
            Tags::Any => current.is_some(),
            Tags::List(_) => {
                let strong = current.filter(|etag| !etag.is_weak());
                self.0.contain(strong, |tag| !tag.weak)
            }
        }
    }

    /// Whether anything at all could make it hold. If not, the answer is 412 without asking.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        match &self.0 {
            Tags::Any => true,
            Tags::List(tags) => tags.iter().any(|tag| !tag.weak),
        }
    }

    /// The condition as a command's record carries it.
    #[must_use]
    pub fn for_record(&self) -> Vec<u8> {
        self.0.for_record()
    }
}

impl Tags {
    fn parse(
        headers: &Headers<'_>,
        name: &str,
        wrong: &'static str,
        event_ids: EventIds,
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
                    // Do not keep more tags: the list is refused below.
                    Element::Tag { .. } if count > TAGS_MAX => {}
                    Element::Tag { weak, opaque } => tags.push(tag(weak, opaque, event_ids)),
                }
            }
        }
        // RFC 9110 13.1.2: `*` must be the only element. At least one element is required.
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
                .any(|tag| counts(tag) && tag.opaque.as_slice() == current.opaque()),
        }
    }

    /// A single strong tag is written without its quotes, as services write tags, and `*` as it is.
    /// Everything else is written as in RFC 9110, so that no tag can be mistaken for `*`, for no
    /// tag or for a list.
    fn for_record(&self) -> Vec<u8> {
        let tags = match self {
            Self::Any => return b"*".to_vec(),
            Self::List(tags) => tags.as_slice(),
        };
        if let [
            Tag {
                weak: false,
                opaque,
                ..
            },
        ] = tags
            && !matches!(opaque.as_slice(), b"" | b"*")
        {
            return opaque.to_vec();
        }
        let mut value = Vec::new();
        for tag in tags {
            let separator: &[u8] = if value.is_empty() { b"" } else { b", " };
            let open: &[u8] = if tag.weak { b"W/\"" } else { b"\"" };
            for piece in [separator, open, &tag.opaque, b"\""] {
                value.extend_from_slice(piece);
            }
        }
        value
    }
}

enum Element<'v> {
    Any,
    Tag { weak: bool, opaque: &'v [u8] },
}

/// Takes the next element from a list; empty ones are skipped (RFC 9110 5.6.1.2).
fn next_element<'v>(rest: &mut &'v [u8]) -> Result<Option<Element<'v>>, ()> {
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
        [b'W', b'/', b'"', after @ ..] => Element::Tag {
            weak: true,
            opaque: quoted(rest, after)?,
        },
        [b'"', after @ ..] => Element::Tag {
            weak: false,
            opaque: quoted(rest, after)?,
        },
        _ => Element::Tag {
            weak: false,
            opaque: bare(rest)?,
        },
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
fn quoted<'v>(rest: &mut &'v [u8], after: &'v [u8]) -> Result<&'v [u8], ()> {
    let (opaque, behind) = split_once(after, b'"').ok_or(())?;
    if opaque.iter().any(|b| matches!(b, 0..=b' ' | 0x7f)) {
        return Err(());
    }
    *rest = behind;
    Ok(opaque)
}

/// A tag without quotes. It may contain only the characters of the gateway's own tags and event
/// ids.
fn bare<'v>(rest: &mut &'v [u8]) -> Result<&'v [u8], ()> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'=' | b'.');
    let end = rest.iter().position(|b| !legal(b)).unwrap_or(rest.len());
    if end == 0 {
        return Err(());
    }
    let (opaque, after) = rest.split_at(end);
    *rest = after;
    Ok(opaque)
}

fn tag(weak: bool, opaque: &[u8], event_ids: EventIds) -> Tag {
    // The mark is the gateway's: a service never sees it.
    let plain = opaque.strip_suffix(Etag::GZIP_SUFFIX);
    let (gzip, opaque) = (plain.is_some(), plain.unwrap_or(opaque));
    match event_ids(opaque) {
        Some(etag) => Tag {
            weak: weak || etag.is_weak(),
            gzip,
            opaque: SmallVec::from_slice(etag.opaque()),
        },
        None => Tag {
            weak,
            gzip,
            opaque: SmallVec::from_slice(opaque),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers_of;
    use super::*;

    fn etag(text: &str) -> Etag {
        Etag::from_header(text.as_bytes()).expect("legal")
    }

    /// A client sends the tag that it got, in either coding. A service gets the one it wrote.
    #[test]
    fn a_tag_of_gzip_is_that_of_its_content() {
        let none = |_: &[u8]| None;
        for (sent, has) in [
            ("\"7\"", Some(Representation::Plain)),
            ("\"7;gzip\"", Some(Representation::Gzip)),
            ("W/\"7;gzip\"", Some(Representation::Gzip)),
            ("\"6;gzip\", \"7\"", Some(Representation::Plain)),
            ("*", Some(Representation::Plain)),
            ("\"8;gzip\"", None),
            ("\"7;gzip;gzip\"", None),
            ("\"7;br\"", None),
        ] {
            let head = headers_of(&[("If-None-Match", sent)]);
            let parsed = IfNoneMatch::parse(&head.headers(), none).expect("legal");
            let condition = parsed.expect("there is one");
            assert_eq!(condition.representation(&etag("7")), has, "{sent}");
            assert_eq!(condition.has(Some(&etag("7"))), has.is_some(), "{sent}");
        }
        let head = headers_of(&[("If-Match", "\"7;gzip\"")]);
        let parsed = IfMatch::parse(&head.headers(), none).expect("legal");
        let condition = parsed.expect("there is one");
        assert!(condition.holds(Some(&etag("7"))));
        assert_eq!(condition.for_record(), b"7");
    }

    /// A stand-in for the ids of `log/`: `ID` and a dot before an escaped tag.
    fn event_ids(text: &[u8]) -> Option<Etag> {
        Etag::from_event_id_part(text.strip_prefix(b"ID.")?)
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
            ("ID.v1", true),
            ("\"ID.v1\"", true),
            ("W/\"ID.v1\"", true),
            ("ID.W=2F=22v1=22", true),
            ("\"v2\"", false),
            ("\"V1\"", false),
            ("\"\"", false),
            ("\"v1.\"", false),
            ("\"x.v1\"", false),
            ("x.v1", false),
            ("\"v1,\"", false),
            ("\"=v1\"", false),
            ("\"\u{fc}\"", false),
        ] {
            let head = headers_of(&[("If-None-Match", header)]);
            let condition = IfNoneMatch::parse(&head.headers(), event_ids)
                .expect(header)
                .expect(header);
            for current in ["v1", "W/\"v1\""] {
                assert_eq!(condition.has(Some(&etag(current))), has, "{header}");
            }
            assert!(!condition.has(None), "{header}");
        }
    }

    // RFC 9110 13.1.1: strong comparison.
    #[test]
    fn if_match_compares_strongly() {
        for (header, holds, may_hold) in [
            ("\"v1\"", true, true),
            ("v1", true, true),
            ("ID.v1", true, true),
            ("\"ID.v1\"", true, true),
            ("W/\"v0\", \"v1\"", true, true),
            ("W/\"v1\"", false, false),
            ("ID.W=2F=22v1=22", false, false),
            ("\"a.b.v1\"", false, true),
            ("\"v2\"", false, true),
        ] {
            let head = headers_of(&[("if-match", header)]);
            let condition = IfMatch::parse(&head.headers(), event_ids)
                .expect(header)
                .expect(header);
            assert_eq!(condition.holds(Some(&etag("v1"))), holds, "{header}");
            assert_eq!(condition.may_hold(), may_hold, "{header}");
            assert!(!condition.holds(Some(&etag("W/\"v1\""))), "{header}");
            assert!(!condition.holds(None), "{header}");
        }
    }

    /// The service receives the tag that it wrote byte for byte.
    #[test]
    fn a_record_carries_a_tag_as_the_service_wrote_it() {
        for written in [
            "7", "1.2", "a.b.c", "Zm9v=", "+/==", "=2E", "a,b", "{x}", "W/7", "\u{fc}",
        ] {
            let shown = etag(written).to_string();
            let part = etag(written).event_id_part();
            let id = format!("ID.{}", std::str::from_utf8(&part).expect("ASCII"));
            for sent in [&shown, &id, &format!("\"{id}\"")] {
                for (name, carried) in both(&[sent]) {
                    assert_eq!(carried, written.as_bytes(), "{name}: {sent}");
                }
            }
        }
    }

    #[test]
    fn a_record_carries_what_is_no_single_tag_as_it_was_sent() {
        for (sent, carried) in [
            (&["*"][..], "*"),
            (&["\"*\""], "\"*\""),
            (&["\"\""], "\"\""),
            (&["\"a\",b"], "\"a\", \"b\""),
            (&["\"a\"", "W/\"b\""], "\"a\", W/\"b\""),
            (&["\"ID.1=2E2\", \"1.3\""], "\"1.2\", \"1.3\""),
            (&["W/\"a\""], "W/\"a\""),
        ] {
            for (name, value) in both(sent) {
                assert_eq!(value, carried.as_bytes(), "{name}: {sent:?}");
            }
        }
    }

    /// What a record carries of the lines, as either condition.
    fn both(lines: &[&str]) -> [(&'static str, Vec<u8>); 2] {
        let of =
            |name: &'static str| headers_of(&lines.iter().map(|l| (name, *l)).collect::<Vec<_>>());
        let (one, other) = (of("if-match"), of("if-none-match"));
        let one = IfMatch::parse(&one.headers(), event_ids);
        let other = IfNoneMatch::parse(&other.headers(), event_ids);
        let (one, other) = (one.expect("a list"), other.expect("a list"));
        [
            ("if-match", one.expect("there").for_record()),
            ("if-none-match", other.expect("there").for_record()),
        ]
    }

    #[test]
    fn several_lines_are_one_list() {
        let head = headers_of(&[("if-none-match", "\"v0\""), ("If-None-Match", "\"v1\"")]);
        let condition = IfNoneMatch::parse(&head.headers(), event_ids).expect("well-formed");
        assert!(condition.is_some_and(|c| c.has(Some(&etag("v1")))));
        assert_eq!(IfMatch::parse(&head.headers(), event_ids), Ok(None));
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
            let refusal = IfMatch::parse(&head.headers(), event_ids).expect_err(header);
            assert_eq!(refusal.fault, Fault::MalformedHeader, "{header}");
        }
    }

    #[test]
    fn a_condition_is_bounded() {
        let many = |n| vec!["\"x\""; n].join(",");
        let parse = |header: &str| {
            let head = headers_of(&[("if-none-match", header)]);
            IfNoneMatch::parse(&head.headers(), event_ids).map(|c| c.is_some())
        };
        assert_eq!(parse(&many(TAGS_MAX)), Ok(true));
        assert!(parse(&many(TAGS_MAX + 1)).is_err());
        // Longer than any tag of the gateway: matches nothing.
        assert_eq!(parse(&format!("\"{}\"", "x".repeat(5000))), Ok(true));
    }
}
