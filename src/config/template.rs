//! Templates: text with holes that a request fills, such as `{path.id}`.
//!
//! A template is parsed against the path of its route, so a parsed template never names a parameter
//! the path lacks. `{{` and `}}` stand for the braces themselves.

use std::fmt;

use super::pattern::{PathPattern, TextError, is_name};

/// Bytes a template may have as text.
pub const TEMPLATE_BYTES_MAX: usize = 1024;

/// Literals and holes, in order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// No two literals stand side by side.
    pub parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands as it is.
    Literal(String),
    /// `{path.name}`: the parameter of the path, decoded.
    Path {
        /// Its place among [`PathPattern::params`].
        index: usize,
        /// Its name, for messages.
        name: String,
    },
    /// `{identity}`: issuer and subject of an authenticated client; empty for an anonymous one.
    Identity,
    /// `{header.name}`: a request header, name in lower case.
    Header(String),
    /// `{query.name}`: a parameter of the query string, decoded.
    Query(String),
    /// `{body:/json/pointer}`: a string, number or boolean of a JSON body (RFC 6901).
    Body {
        /// The pointer's reference tokens, unescaped. Not empty: a whole body is no key.
        pointer: Vec<String>,
    },
}

/// Where a template stands decides what it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of a command: everything.
    Command,
    /// Of a query or a stream: no body.
    Get,
}

impl Template {
    /// Reads a template that belongs to a route with `path`.
    ///
    /// # Errors
    /// Where and how `text` is no template, or asks for what its place does not have.
    pub fn parse(text: &str, path: &PathPattern, place: Place) -> Result<Self, TextError> {
        let whole = 0..text.len();
        if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
            let message = format!("a template has 1 to {TEMPLATE_BYTES_MAX} bytes");
            let help = "leave the setting out if it is not needed";
            return Err(TextError::new(whole, message, help));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|n| at + n) {
            literal.push_str(&text[at..brace]);
            let rest = &text[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                at = brace + 2;
                continue;
            }
            let end = match rest.find('}') {
                Some(n) if n > 0 => brace + n,
                _ => {
                    let message = format!("`{}` has no partner", &rest[..1]);
                    let help = "write `{{` or `}}` for a brace that is meant as text";
                    return Err(TextError::new(brace..brace + 1, message, help));
                }
            };
            let part = hole(&text[brace + 1..end], path, place)
                .map_err(|(message, help)| TextError::new(brace..end + 1, message, help))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
            at = end + 1;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// Names of the request headers it reads, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether any part reads the request's body, which must then be there whole.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        let body = |part: &Part| matches!(part, Part::Body { .. });
        self.parts.iter().any(body)
    }
}

/// What stands between two braces; or what is wrong with it, and what to do.
fn hole(inner: &str, path: &PathPattern, place: Place) -> Result<Part, (String, String)> {
    if inner == "identity" {
        return Ok(Part::Identity);
    }
    if let Some(name) = inner.strip_prefix("path.") {
        return path_part(name, path);
    }
    if let Some(name) = inner.strip_prefix("header.") {
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "authorization" | "cookie") {
            let message = format!("`{{{inner}}}` would put a credential on a record");
            return Err((message, "use `{identity}`".into()));
        }
        if is_token(&name) {
            return Ok(Part::Header(name));
        }
    }
    if let Some(name) = inner.strip_prefix("query.").filter(|name| is_name(name)) {
        return Ok(Part::Query(name.to_owned()));
    }
    if let Some(pointer) = inner.strip_prefix("body:") {
        if place == Place::Get {
            let message = format!("`{{{inner}}}`: a GET has no body");
            return Err((
                message,
                "use `{path.…}`, `{query.…}` or `{identity}`".into(),
            ));
        }
        let help = "write `{body:/name}` or `{body:/outer/inner}` (RFC 6901)";
        let Some(pointer) = json_pointer(pointer) else {
            return Err((format!("`{pointer}` is not a JSON pointer"), help.into()));
        };
        return Ok(Part::Body { pointer });
    }
    let help = "templates know `{path.name}`, `{identity}`, `{header.name}`, `{query.name}` and \
                `{body:/json/pointer}`";
    Err((format!("`{{{inner}}}` means nothing here"), help.into()))
}

fn path_part(name: &str, path: &PathPattern) -> Result<Part, (String, String)> {
    if let Some(index) = path.params().position(|param| param == name) {
        let name = name.to_owned();
        return Ok(Part::Path { index, name });
    }
    let message = format!("the path `{path}` has no `{{{name}}}`");
    let known: Vec<_> = path.params().map(|p| format!("`{{path.{p}}}`")).collect();
    let help = match known.as_slice() {
        [] => format!("put `{{{name}}}` into the route's path"),
        known => format!("it has {}", known.join(", ")),
    };
    Err((message, help))
}

/// A header's field name (RFC 9110 5.1), already in lower case.
pub(super) fn is_token(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(legal)
}

/// RFC 6901 3 and 4: tokens after slashes, `~1` a slash, `~0` a tilde.
fn json_pointer(text: &str) -> Option<Vec<String>> {
    let unescape = |token: &str| {
        let stray = token.replace("~0", "").replace("~1", "").contains('~');
        (!stray).then(|| token.replace("~1", "/").replace("~0", "~"))
    };
    text.strip_prefix('/')?.split('/').map(unescape).collect()
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Path { name, .. } => write!(f, "{{path.{name}}}")?,
                Part::Identity => f.write_str("{identity}")?,
                Part::Header(name) => write!(f, "{{header.{name}}}")?,
                Part::Query(name) => write!(f, "{{query.{name}}}")?,
                Part::Body { pointer } => {
                    f.write_str("{body:")?;
                    for token in pointer {
                        write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
                    }
                    f.write_str("}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path() -> PathPattern {
        PathPattern::parse("/accounts/{id}/x/{to}").expect("a good pattern")
    }

    #[test]
    fn a_template_reads_back_as_it_was_written() {
        for text in [
            "{path.id}",
            "a-{path.to}-{identity}",
            "{header.x-tenant}/{query.q}",
            "{body:/a~1b/0/~0}",
            "{{literal}}",
        ] {
            let template = Template::parse(text, &path(), Place::Command).expect("good");
            assert_eq!(template.to_string(), text);
        }
        let to = Template::parse("{path.to}", &path(), Place::Get).expect("good");
        let part = Part::Path {
            index: 1,
            name: "to".into(),
        };
        assert_eq!(to.parts, [part]);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, at) in [
            ("", 0..0),
            ("a{path.nope}", 1..12),
            ("a{b", 1..2),
            ("a}b", 1..2),
            ("{body:/x}", 0..9),
            ("{header.Authorization}", 0..22),
            ("{header.}", 0..9),
            ("{env.HOME}", 0..10),
        ] {
            let error = Template::parse(text, &path(), Place::Get).expect_err(text);
            assert_eq!(error.at, at, "{text}: {}", error.message);
        }
        let pointer = Template::parse("{body:x}", &path(), Place::Command);
        assert!(
            pointer.is_err(),
            "RFC 6901 3: a pointer starts with a slash"
        );
    }

    proptest! {
        /// Whatever the text: no panic, and what is pointed at lies in the text.
        #[test]
        fn any_text_is_a_template_or_a_placed_error(text in "[{}a-z.:/~ä]{0,40}") {
            match Template::parse(&text, &path(), Place::Command) {
                Ok(template) => {
                    let again = Template::parse(&template.to_string(), &path(), Place::Command);
                    prop_assert_eq!(again.expect("its own text"), template);
                }
                Err(error) => prop_assert!(text.get(error.at).is_some()),
            }
        }
    }
}
