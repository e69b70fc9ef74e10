//! A blocking HTTP/1.1 client with a parser of its own, so that a bug in the gateway's codec cannot
//! be hidden by the same bug here. Every read has a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::chunks::Chunks;

/// Time for a response before a test fails: far more than any response needs, even on a busy
/// machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A byte stream with a read timeout: TCP or TLS.
pub trait Transport: Read + Write + Send {
    /// Sets the timeout of each read.
    fn wait_at_most(&mut self, time: Duration);
}

impl Transport for TcpStream {
    fn wait_at_most(&mut self, time: Duration) {
        let time = time.max(Duration::from_millis(1));
        self.set_read_timeout(Some(time))
            .expect("a bound for reads");
    }
}

/// A response that was received to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Header fields in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The only header of this name. A repeated one fails the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n == name);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} stands twice: {self:?}");
        first
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body that is text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// The last part of a problem's `type`, after checking that it is one (RFC 9457).
    pub fn problem(&self) -> String {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        let title = problem["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "a problem has a title: {problem}");
        let kind = problem["type"].as_str().unwrap_or_default();
        let name = kind.strip_prefix("/problems/");
        name.unwrap_or_else(|| panic!("a type of ours: {problem}"))
            .to_owned()
    }
}

/// A connection, with bytes that were read beyond the last response.
pub struct Connection {
    transport: Box<dyn Transport>,
    ahead: Vec<u8>,
}

/// How the end of a response's body is found.
enum Framing {
    Sized(usize),
    Chunked,
    Close,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        socket.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(Box::new(socket))
    }

    pub fn over(transport: Box<dyn Transport>) -> Self {
        let ahead = Vec::new();
        Self { transport, ahead }
    }

    /// Writes raw bytes. An error is ignored: tests of rejected requests check the response, which
    /// may arrive before the last byte was sent.
    pub fn send(&mut self, bytes: &[u8]) {
        let wrote = self.transport.write_all(bytes);
        if let Err(error) = wrote.and_then(|()| self.transport.flush()) {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "write: {error}");
        }
    }

    /// Sends one request on this connection and reads the response.
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response(request.method == "HEAD")
    }

    /// Reads the next response. `to_head`: it has no body.
    pub fn response(&mut self, to_head: bool) -> Response {
        let until = Instant::now() + PATIENCE;
        self.response_until(to_head, until)
            .unwrap_or_else(|| panic!("closed instead of an answer"))
    }

    /// The next response, or `None` if the connection is closed before its first byte.
    pub fn response_until(&mut self, to_head: bool, until: Instant) -> Option<Response> {
        let (status, headers) = self.head(until)?;
        if status == 100 {
            assert!(headers.is_empty(), "100 has no headers: {headers:?}");
            let body = Vec::new();
            return Some(Response {
                status,
                headers,
                body,
            });
        }
        let body = match framing(status, &headers, to_head) {
            Framing::Sized(length) => self.take(length, until),
            Framing::Chunked => self.chunks(until),
            Framing::Close => {
                while self.more(until) {}
                std::mem::take(&mut self.ahead)
            }
        };
        Some(Response {
            status,
            headers,
            body,
        })
    }

    /// Reads status line and headers, strictly by RFC 9112.
    pub fn head(&mut self, until: Instant) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at;
            }
            if !self.more(until) {
                assert!(
                    self.ahead.is_empty(),
                    "half a head: {:?}",
                    lossy(&self.ahead)
                );
                return None;
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let text = std::str::from_utf8(&head[..end]).expect("heads are ASCII here");
        assert!(
            !text.replace("\r\n", "").contains(['\r', '\n']),
            "a bare CR or LF: {text:?}"
        );
        let mut lines = text.split("\r\n");
        let line = lines.next().expect("split gives one at least");
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("a status line: {line:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header has a colon");
            assert!(!name.is_empty() && !name.contains(' '), "a name: {line:?}");
            (
                name.to_ascii_lowercase(),
                value.trim_matches(' ').to_owned(),
            )
        };
        Some((status, lines.map(header).collect()))
    }

    fn chunks(&mut self, until: Instant) -> Vec<u8> {
        let (mut chunks, mut body) = (Chunks::new(), Vec::new());
        loop {
            let used = chunks.read(&self.ahead, &mut body);
            self.ahead.drain(..used);
            if chunks.is_whole() {
                return body;
            }
            assert!(self.more(until), "closed within a chunked body");
        }
    }

    fn take(&mut self, length: usize, until: Instant) -> Vec<u8> {
        while self.ahead.len() < length {
            assert!(
                self.more(until),
                "closed {} bytes short",
                length - self.ahead.len()
            );
        }
        self.ahead.drain(..length).collect()
    }

    /// Takes the bytes that were read and not used yet.
    pub fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    /// Reads more bytes. Returns false at the end.
    pub fn more(&mut self, until: Instant) -> bool {
        match self.try_more(until) {
            Ok(more) => more,
            Err(said) => panic!("{said}; read so far: {:?}", lossy(&self.ahead)),
        }
    }

    /// Reads more bytes. Returns `Ok(false)` at the end.
    pub fn try_more(&mut self, until: Instant) -> Result<bool, String> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("nothing came in time".into());
        }
        self.transport.wait_at_most(left);
        let mut buffer = [0; 16 << 10];
        match self.transport.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.ahead.extend_from_slice(&buffer[..n]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("nothing came in time".into())
            }
            // rustls reports this for a connection that is closed without close_notify.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(format!("read: {error}")),
        }
    }

    /// Asserts that the server closes without sending another byte.
    pub fn expect_close(&mut self) {
        let until = Instant::now() + PATIENCE;
        let closed = loop {
            match self.try_more(until) {
                Ok(true) => {}
                Ok(false) => break true,
                // After the response, a reset counts as a close.
                Err(said) => break said.contains("reset"),
            }
        };
        assert!(closed, "it was not closed in time");
        assert!(
            self.ahead.is_empty(),
            "and says no more: {:?}",
            lossy(&self.ahead)
        );
    }
}

fn framing(status: u16, headers: &[(String, String)], to_head: bool) -> Framing {
    let one = |name: &str| {
        let mut all = headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str());
        let first = all.next();
        assert!(all.next().is_none(), "{name} stands twice: {headers:?}");
        first
    };
    let (length, coding) = (one("content-length"), one("transfer-encoding"));
    assert!(
        length.is_none() || coding.is_none(),
        "two framings: {headers:?}"
    );
    if status == 204 || status == 304 {
        assert!(coding.is_none(), "{status} has no body: {headers:?}");
        return Framing::Sized(0);
    }
    if to_head {
        return Framing::Sized(0);
    }
    match (length, coding) {
        (Some(length), _) => Framing::Sized(length.parse().expect("a length is a number")),
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked");
            Framing::Chunked
        }
        (None, None) => {
            assert_eq!(one("connection"), Some("close"), "unframed: {headers:?}");
            Framing::Close
        }
    }
}

/// A request that a test sends.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self {
            method,
            target,
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST request with a JSON body.
    pub fn post(target: &str, body: &str) -> Self {
        Self::new("POST", target).json(body)
    }

    pub fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json")
            .body(body.as_bytes())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    /// Method, target, header fields and body, for a client of another protocol.
    pub fn parts(&self) -> (&str, &str, &[(String, String)], &[u8]) {
        let body = self.body.as_deref().unwrap_or_default();
        (&self.method, &self.target, &self.headers, body)
    }

    /// The bytes of the request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// Sends one request on a connection of its own.
pub fn ask(address: SocketAddr, request: &Request) -> Response {
    Connection::open(address).ask(request)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn lossy(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(2000)];
    String::from_utf8_lossy(shown).into_owned()
}
