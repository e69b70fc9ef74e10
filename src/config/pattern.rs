//! Path patterns of routes: `/accounts/{id}/payments`.
//!
//! A pattern is a list of segments, and a `{param}` is always a whole segment. Requests are matched
//! by their decoded segments, so a literal here is compared as it is written. Percent-encoding in a
//! pattern is rejected: it would never match.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use std::fmt;
use std::ops::Range;

/// Most segments of a pattern. It bounds the work of matching a request's path.
pub const SEGMENTS_MAX: usize = 16;

/// Longest pattern as text, in bytes.
pub const PATTERN_BYTES_MAX: usize = 512;

/// A path with parameters, from the root: no trailing slash, no empty segment, no `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// The segments in order; empty for `/`. At most [`SEGMENTS_MAX`].
    pub segments: Vec<Segment>,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Matches this text, byte for byte, after decoding.
    Literal(String),
    /// Matches any one non-empty segment and gives it this name.
    Param(String),
}

/// An error in one string of the config: where in that string, the problem, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Byte range of the error within the string.
    pub at: Range<usize>,
    /// The problem, as a sentence without a full stop.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl TextError {
    pub(super) fn new(
        at: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (message, help) = (message.into(), help.into());
        Self { at, message, help }
    }
}

impl PathPattern {
    /// Parses a pattern such as `/accounts/{id}`.
    ///
    /// # Errors
    /// `text` breaks the rules of the module or repeats a parameter.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let whole = 0..text.len();
        let Some(rest) = text.strip_prefix('/') else {
            let help = format!("write `/{text}`");
            return Err(TextError::new(whole, "a path starts with `/`", help));
        };
        if text.len() > PATTERN_BYTES_MAX {
            let message = format!("a path has at most {PATTERN_BYTES_MAX} bytes");
            return Err(TextError::new(whole, message, "shorten it"));
        }
        if rest.is_empty() {
            return Ok(Self { segments: vec![] });
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut start = 1;
        for part in rest.split('/') {
            let at = start..start + part.len();
            start = at.end + 1;
            let segment = Segment::parse(part, at.clone())?;
            let param = matches!(segment, Segment::Param(_));
            if param && segments.contains(&segment) {
                let message = format!("the path has `{part}` twice");
                return Err(TextError::new(at, message, "give each its own name"));
            }
            segments.push(segment);
        }
        if segments.len() > SEGMENTS_MAX {
            let message = format!("a path has at most {SEGMENTS_MAX} segments");
            return Err(TextError::new(whole, message, "shorten it"));
        }
        Ok(Self { segments })
    }

    /// Names of the parameters, in order. A template's [`Part::Path`](super::Part::Path) is an
    /// index into these.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Whether both patterns match the same paths: they are equal except for parameter names.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        let same = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Param(_), Segment::Param(_)) => true,
            (a, b) => a == b,
        };
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same)
    }
}

impl Segment {
    fn parse(text: &str, at: Range<usize>) -> Result<Self, TextError> {
        if let Some(inner) = text.strip_prefix('{') {
            return match inner.strip_suffix('}') {
                Some(name) if is_name(name) => Ok(Self::Param(name.to_owned())),
                _ => Err(TextError::new(
                    at,
                    format!("`{text}` is not a parameter"),
                    "a parameter is a whole segment, `{name}`: letters, digits and `_`, at most 64",
                )),
            };
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        if text.is_empty() {
            let help = "leave out doubled slashes and a slash at the end";
            return Err(TextError::new(at, "the path has an empty segment", help));
        }
        if text == "." || text == ".." {
            let message = "a path can't have `.` or `..`";
            return Err(TextError::new(at, message, "write the path it leads to"));
        }
        if let Some(bad) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(legal)) {
            let message = format!("{bad:?} is not allowed in a path");
            let help = "use letters, digits and -._~!$&'()*+,;=:@, or a `{name}` segment";
            return Err(TextError::new(at, message, help));
        }
        Ok(Self::Literal(text.to_owned()))
    }
}

/// Whether `text` may name a parameter: 1 to 64 letters, digits and `_`, not starting with a digit.
pub(super) fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=64).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reads_back_as_it_was_written() {
        for text in [
            "/",
            "/a",
            "/accounts/{id}/payments",
            "/{a}/{b}",
            "/v1.0/x:y",
        ] {
            let pattern = PathPattern::parse(text).expect("a good pattern");
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, at) in [
            ("a", 0..1),
            ("/a//b", 3..3),
            ("/a/", 3..3),
            ("/a/../b", 3..5),
            ("/a/x{id}", 3..8),
            ("/a/{id", 3..6),
            ("/a/{}", 3..5),
            ("/a/{1}", 3..6),
            ("/a/%2F", 3..6),
            ("/ä", 1..3),
            ("/{a}/{a}", 5..8),
        ] {
            let error = PathPattern::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {}", error.message);
        }
    }

    #[test]
    fn the_shape_forgets_names_only() {
        let pattern = |text| PathPattern::parse(text).expect("a good pattern");
        assert!(pattern("/a/{x}").same_shape(&pattern("/a/{y}")));
        assert!(!pattern("/a/{x}").same_shape(&pattern("/a/x")));
        assert!(!pattern("/a/{x}").same_shape(&pattern("/a")));
    }
}
