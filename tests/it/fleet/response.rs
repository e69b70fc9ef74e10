//! A whole response, read from bytes that arrive in pieces. The fleet's own, strict parser: every
//! answer to a command has a length.

/// A body in a form short enough to print: its text, and its length with the trailing spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) text: String,
    length: usize,
}

impl Body {
    pub(super) fn new(body: &str) -> Self {
        Self {
            text: body.trim_end().to_owned(),
            length: body.len(),
        }
    }

    /// The original body with its trailing spaces.
    pub(super) fn whole(&self) -> String {
        format!("{:length$}", self.text, length = self.length)
    }
}

/// A complete response to a command.
#[derive(Clone, Debug, Default)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Header fields, with names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Body,
    /// The gateway closes the connection after it.
    pub(super) closes: bool,
}

impl Response {
    /// The value of a header that occurs at most once.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(it, _)| it == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert_eq!(values.next(), None, "{name} comes twice");
        value
    }
}

/// The bytes of a response so far.
#[derive(Default)]
pub(super) struct Reader(Vec<u8>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Reader {
    pub(super) fn take(&mut self, bytes: impl Iterator<Item = u8>) {
        self.0.extend(bytes);
    }

    /// The response, once it is complete.
    pub(super) fn response(&mut self) -> Option<Response> {
        let end = self.0.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.0[..end]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let first = lines.next().expect("a status line");
        let status = first.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
        let status = status[..3].parse().expect("three digits");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect("name and value");
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let mut response = Response {
            status,
            headers: headers.collect(),
            ..Response::default()
        };
        let length = response.header("content-length").expect("a length");
        let length: usize = length.parse().expect("a number");
        let body = &self.0[end + 4..];
        assert!(body.len() <= length, "bytes after the answer: {head}");
        if body.len() < length {
            return None;
        }
        response.body = Body::new(std::str::from_utf8(body).expect("bodies are text"));
        response.closes = response.header("connection") == Some("close");
        Some(response)
    }
}
