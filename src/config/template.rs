//! Templates: text with placeholders that a request expands, such as `{path.id}`.
//!
//! A template is parsed against its route's path, so a parsed template never names a parameter that
//! the path lacks. `{{` and `}}` are literal braces.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use std::fmt;

use super::pattern::{PathPattern, TextError, is_name};

/// Longest template as text, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1024;

/// Literals and placeholders, in order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The pieces in order; no two literals are adjacent.
    pub parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that is copied unchanged.
    Literal(String),
    /// `{path.name}`: the parameter of the path, decoded.
    Path {
        /// The parameter's index in `PathPattern::params`.
        index: usize,
        /// The parameter's name, which messages show.
        name: String,
    },
    /// `{identity}`: issuer and subject of an authenticated client. Empty for an anonymous one.
    Identity,
    /// `{claim.name}`: a claim of the client's credential that its issuer's `claims` lists.
    Claim(String),
    /// `{header.name}`: a request header, name in lower case.
    Header(String),
    /// `{query.name}`: a parameter of the query string, decoded.
    Query(String),
    /// `{body:/json/pointer}`: a string, number or boolean of a JSON body (RFC 6901).
    Body {
        /// The pointer's reference tokens, unescaped. Not empty, because a whole body is no key.
        pointer: Vec<String>,
    },
}

/// The kind of route a template belongs to, which decides the placeholders it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateContext {
    /// A command: every placeholder is allowed.
    Command,
    /// A query or a stream: a GET has no body.
    Get,
}

impl Template {
    /// Parses a template of a route with this `path`.
    ///
    /// # Errors
    /// `text` is not a template, or uses a placeholder that this kind of route does not have.
    pub fn parse(
        text: &str,
        path: &PathPattern,
        context: TemplateContext,
    ) -> Result<Self, TextError> {
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
            let part = placeholder(&text[brace + 1..end], path, context)
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

    /// Names of the request headers that the template reads, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Names of the claims that the template reads.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Claim(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether a placeholder reads the request's body, which must then be complete first.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        let body = |part: &Part| matches!(part, Part::Body { .. });
        self.parts.iter().any(body)
    }
}

/// Parses the text between two braces. The error is the message and what to do.
fn placeholder(
    inner: &str,
    path: &PathPattern,
    context: TemplateContext,
) -> Result<Part, (String, String)> {
    if inner == "identity" {
        return Ok(Part::Identity);
    }
    if let Some(name) = inner.strip_prefix("path.") {
        return path_part(name, path);
    }
    if let Some(name) = inner.strip_prefix("claim.").filter(|name| is_claim(name)) {
        return Ok(Part::Claim(name.to_owned()));
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
        if context == TemplateContext::Get {
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
    let help = "templates know `{path.name}`, `{identity}`, `{claim.name}`, `{header.name}`, \
                `{query.name}` and `{body:/json/pointer}`";
    Err((
        format!("`{{{inner}}}` is not a known placeholder"),
        help.into(),
    ))
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

/// Whether `name` is a header field name (RFC 9110 5.1), already in lower case.
pub(super) fn is_token(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(legal)
}

/// Whether `name` can name a claim in a template. Names may be URIs (RFC 7519 4.2).
fn is_claim(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// RFC 6901 3 and 4: each token follows a slash; `~1` encodes a slash and `~0` a tilde.
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
                Part::Claim(name) => write!(f, "{{claim.{name}}}")?,
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
            "{claim.tenant}/{claim.https://x.example/role}",
            "{header.x-tenant}/{query.q}",
            "{body:/a~1b/0/~0}",
            "{{literal}}",
        ] {
            let template = Template::parse(text, &path(), TemplateContext::Command).expect("good");
            assert_eq!(template.to_string(), text);
        }
        let to = Template::parse("{path.to}", &path(), TemplateContext::Get).expect("good");
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
            let error = Template::parse(text, &path(), TemplateContext::Get).expect_err(text);
            assert_eq!(error.at, at, "{text}: {}", error.message);
        }
        let pointer = Template::parse("{body:x}", &path(), TemplateContext::Command);
        assert!(
            pointer.is_err(),
            "RFC 6901 3: a pointer starts with a slash"
        );
    }

    proptest! {
        /// No text causes a panic, and every error's range lies within the text.
        #[test]
        fn any_text_is_a_template_or_a_placed_error(text in "[{}a-z.:/~ä]{0,40}") {
            match Template::parse(&text, &path(), TemplateContext::Command) {
                Ok(template) => {
                    let text = template.to_string();
                    let again = Template::parse(&text, &path(), TemplateContext::Command);
                    prop_assert_eq!(again.expect("its own text"), template);
                }
                Err(error) => prop_assert!(text.get(error.at).is_some()),
            }
        }
    }
}
