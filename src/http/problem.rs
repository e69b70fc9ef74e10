//! Problem details (RFC 9457): the kinds that HTTP itself raises, and the JSON of every kind.

use ::http::StatusCode;

/// A kind of problem. Its path is stable and listed in `docs/http.md`; `route/` has more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemKind {
    /// `type` of RFC 9457: a path such as `/problems/overloaded`, never to change.
    pub path: &'static str,
    /// A short summary of the kind, the same in every response.
    pub title: &'static str,
    /// The status of the response.
    pub status: StatusCode,
}

/// An error of a request, or of the reply to it, that does not depend on the meaning of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The bytes are not one well-formed request (RFC 9112).
    MalformedRequest,
    /// The path or query could be read in more than one way.
    AmbiguousTarget,
    /// A header that is understood here breaks its own grammar, or is repeated.
    MalformedHeader,
    /// No route of this path takes the method. The answer lists those that do in `Allow`.
    MethodNotAllowed,
    /// The client accepts none of the media types that could be sent.
    NotAcceptable,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The request target is longer than the limit.
    UriTooLong,
    /// The body is compressed or otherwise coded.
    ContentCoding,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed,
    /// Request line and headers are larger than the limit, or too many.
    HeadTooLarge,
    /// The method is none of those served here.
    MethodNotImplemented,
    /// A reply record can't be written as a response.
    BadReply,
    /// The request is neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Fault {
    /// Every fault once, for the test of the docs.
    pub const ALL: [Self; 14] = [
        Self::MalformedRequest,
        Self::AmbiguousTarget,
        Self::MalformedHeader,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::ContentCoding,
        Self::ExpectationFailed,
        Self::HeadTooLarge,
        Self::MethodNotImplemented,
        Self::BadReply,
        Self::VersionNotSupported,
    ];

    /// The fault as a kind of problem.
    #[must_use]
    pub const fn kind(self) -> ProblemKind {
        let (path, title, status) = match self {
            Self::MalformedRequest => (
                "/problems/malformed-request",
                "The request is malformed",
                StatusCode::BAD_REQUEST,
            ),
            Self::AmbiguousTarget => (
                "/problems/ambiguous-target",
                "The request target is malformed or ambiguous",
                StatusCode::BAD_REQUEST,
            ),
            Self::MalformedHeader => (
                "/problems/malformed-header",
                "A request header is malformed",
                StatusCode::BAD_REQUEST,
            ),
            Self::MethodNotAllowed => (
                "/problems/method-not-allowed",
                "The method is not allowed here",
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            Self::NotAcceptable => (
                "/problems/not-acceptable",
                "Nothing acceptable can be answered",
                StatusCode::NOT_ACCEPTABLE,
            ),
            Self::RequestTimeout => (
                "/problems/request-timeout",
                "The request did not arrive in time",
                StatusCode::REQUEST_TIMEOUT,
            ),
            Self::BodyTooLarge => (
                "/problems/body-too-large",
                "The request body is too large",
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            Self::UriTooLong => (
                "/problems/uri-too-long",
                "The request target is too long",
                StatusCode::URI_TOO_LONG,
            ),
            Self::ContentCoding => (
                "/problems/content-encoding",
                "Coded request bodies are not accepted",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::ExpectationFailed => (
                "/problems/expectation-failed",
                "The expectation can't be met",
                StatusCode::EXPECTATION_FAILED,
            ),
            Self::HeadTooLarge => (
                "/problems/head-too-large",
                "The request head is too large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
            Self::MethodNotImplemented => (
                "/problems/method-not-implemented",
                "The method is not known here",
                StatusCode::NOT_IMPLEMENTED,
            ),
            Self::BadReply => (
                "/problems/bad-reply",
                "The reply can't be written as a response",
                StatusCode::BAD_GATEWAY,
            ),
            Self::VersionNotSupported => (
                "/problems/version-not-supported",
                "The HTTP version is not supported",
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            ),
        };
        ProblemKind {
            path,
            title,
            status,
        }
    }
}

/// Why a request was refused: the kind, and a sentence for the client. The sentence is fixed text,
/// so it cannot contain anything that the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The kind of the fault.
    pub fault: Fault,
    /// The rule that was broken.
    pub detail: &'static str,
}

impl Refusal {
    /// A refusal with this kind and sentence.
    #[must_use]
    pub const fn new(fault: Fault, detail: &'static str) -> Self {
        Self { fault, detail }
    }

    /// The refusal as problem details.
    #[must_use]
    pub const fn problem(self) -> Problem<'static> {
        Problem {
            kind: self.fault.kind(),
            detail: self.detail,
            instance: None,
            errors: &[],
            members: &[],
        }
    }
}

/// What is wrong at one place of a request's body, as in the example of RFC 9457 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointedError {
    /// The place's JSON pointer as a URI fragment: `#/items/0`.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// One problem. [`write_json`](Self::write_json) writes it as `application/problem+json`.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// The kind of the problem.
    pub kind: ProblemKind,
    /// The explanation of this occurrence. Omitted if empty.
    pub detail: &'a str,
    /// A URI reference of this occurrence: the request id, by which the log has more.
    pub instance: Option<&'a str>,
    /// The member `errors`: what is wrong in the body. Omitted if empty.
    pub errors: &'a [PointedError],
    /// Extension members (RFC 9457 3.2). Names are the caller's and differ from the standard five.
    pub members: &'a [(&'a str, Member<'a>)],
}

/// The value of an extension member.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A JSON string, escaped when written.
    Text(&'a str),
    /// A JSON number without sign or fraction.
    Number(u64),
    /// A JSON `true` or `false`.
    Bool(bool),
}

impl Problem<'_> {
    /// The media type of what [`write_json`](Self::write_json) writes.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// Appends the problem as a JSON object (RFC 9457 3).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":");
        write_string(out, self.kind.path);
        out.extend_from_slice(b",\"title\":");
        write_string(out, self.kind.title);
        out.extend_from_slice(b",\"status\":");
        write_number(out, u64::from(self.kind.status.as_u16()));
        if !self.detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            write_string(out, self.detail);
        }
        if let Some(instance) = self.instance {
            out.extend_from_slice(b",\"instance\":");
            write_string(out, instance);
        }
        self.write_errors(out);
        for (name, member) in self.members {
            out.push(b',');
            write_string(out, name);
            out.push(b':');
            match *member {
                Member::Text(text) => write_string(out, text),
                Member::Number(number) => write_number(out, number),
                Member::Bool(true) => out.extend_from_slice(b"true"),
                Member::Bool(false) => out.extend_from_slice(b"false"),
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Problem<'_> {
    fn write_errors(&self, out: &mut Vec<u8>) {
        for (index, error) in self.errors.iter().enumerate() {
            let before: &[u8] = match index {
                0 => b",\"errors\":[{\"detail\":",
                _ => b",{\"detail\":",
            };
            out.extend_from_slice(before);
            write_string(out, &error.detail);
            out.extend_from_slice(b",\"pointer\":");
            write_string(out, &error.pointer);
            out.push(b'}');
        }
        if !self.errors.is_empty() {
            out.push(b']');
        }
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON and a Vec takes every write");
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9457 3: the members and their types.
    #[test]
    fn a_problem_is_json_whatever_its_texts_hold() {
        let problem = Problem {
            kind: Fault::BodyTooLarge.kind(),
            detail: "a \"quote\", a\nline, \u{1}, \u{2028}, ü",
            instance: Some("/requests/1"),
            errors: &[
                PointedError {
                    pointer: "#/a".into(),
                    detail: "a \"quote\"".into(),
                },
                PointedError {
                    pointer: "#".into(),
                    detail: String::new(),
                },
            ],
            members: &[
                ("limit", Member::Number(u64::MAX)),
                ("may \" have", Member::Text("\\")),
                ("retry", Member::Bool(true)),
            ],
        };
        let mut out = Vec::new();
        problem.write_json(&mut out);
        let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(read["type"], "/problems/body-too-large");
        assert_eq!(read["title"], "The request body is too large");
        assert_eq!(read["status"], 413);
        assert_eq!(read["detail"], problem.detail);
        assert_eq!(read["instance"], "/requests/1");
        let errors = serde_json::json!([
            {"pointer": "#/a", "detail": "a \"quote\""},
            {"pointer": "#", "detail": ""},
        ]);
        assert_eq!(read["errors"], errors);
        assert_eq!(read["limit"], u64::MAX);
        assert_eq!(read["may \" have"], "\\");
        assert_eq!(read["retry"], true);
    }

    #[test]
    fn every_fault_has_a_path_of_its_own_and_stands_in_the_docs() {
        let docs = include_str!("../../docs/http.md");
        let mut paths: Vec<_> = Fault::ALL.iter().map(|f| f.kind().path).collect();
        for fault in Fault::ALL {
            let kind = fault.kind();
            let row = format!("| `{}` | {} |", kind.path, kind.status.as_u16());
            assert!(docs.contains(&row), "{row} is missing in docs/http.md");
        }
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), Fault::ALL.len());
    }
}
