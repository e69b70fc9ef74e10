//! A parser of HTTP/1.1 responses that shares no code with the gateway. It is strict where it
//! matters (RFC 9112 6.3), and accepts input split at any byte.

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

/// Most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The next part of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The head, with this status.
    Head(u16),
    /// Bytes of the response's body.
    Body(&'a [u8]),
    /// The end of the response.
    End,
}

/// Parses the responses of one connection.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    state: State,
    /// An incomplete head, or an incomplete line of a chunk.
    kept: Vec<u8>,
    /// The head of the present response.
    head: Vec<u8>,
    /// Whether the server closes the connection after the present response.
    closes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Sized(u64),
    UntilClose,
    ChunkLine,
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    Trailers,
    Whole,
}

impl Responses {
    /// Parses the next part of `input` and advances `input` past it. `None`: more bytes are needed.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Part<'a>>> {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = self.until(b"\r\n\r\n", input)? else {
                        return Ok(None);
                    };
                    let read = read_head(&head)?;
                    self.state = read.state;
                    self.closes = read.closes;
                    let old = std::mem::replace(&mut self.head, head);
                    self.recycle(old);
                    return Ok(Some(Part::Head(read.status)));
                }
                State::Sized(0) | State::Whole => {
                    self.state = State::Head;
                    return Ok(Some(Part::End));
                }
                _ if input.is_empty() => return Ok(None),
                State::Sized(left) => {
                    let body = take(input, left);
                    self.state = State::Sized(left - body.len() as u64);
                    return Ok(Some(Part::Body(body)));
                }
                State::UntilClose => return Ok(Some(Part::Body(take(input, u64::MAX)))),
                State::ChunkLine => {
                    let Some(line) = self.until(b"\r\n", input)? else {
                        return Ok(None);
                    };
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                    self.recycle(line);
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => {
                    let body = take(input, left);
                    self.state = State::Chunk(left - body.len() as u64);
                    return Ok(Some(Part::Body(body)));
                }
                State::ChunkEnd => {
                    let Some(line) = self.until(b"\r\n", input)? else {
                        return Ok(None);
                    };
                    ensure!(line.len() == 2, "a chunk is longer than it says");
                    self.state = State::ChunkLine;
                    self.recycle(line);
                }
                State::Trailers => {
                    let Some(line) = self.until(b"\r\n", input)? else {
                        return Ok(None);
                    };
                    if line.len() == 2 {
                        self.state = State::Whole;
                    }
                    self.recycle(line);
                }
            }
        }
    }

    /// The value of a field of the present response. The name is in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        let lines = head.split_terminator("\r\n").skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// Whether the connection ends after the present response.
    pub(crate) fn closes(&self) -> bool {
        self.closes || self.state == State::UntilClose
    }

    /// Whether bytes of a response have arrived and others have not.
    pub(crate) fn is_within(&self) -> bool {
        self.state != State::Head || !self.kept.is_empty()
    }

    /// Everything up to and including `end`.
    fn until(&mut self, end: &[u8], input: &mut &[u8]) -> Result<Option<Vec<u8>>> {
        let before = self.kept.len();
        let from = before.saturating_sub(end.len() - 1);
        self.kept.extend_from_slice(input);
        match memmem::find(&self.kept[from..], end) {
            Some(at) => {
                let len = from + at + end.len();
                self.kept.truncate(len);
                *input = &input[len - before..];
                Ok(Some(std::mem::take(&mut self.kept)))
            }
            None => {
                ensure!(self.kept.len() <= HEAD_BYTES_MAX, "a head without end");
                *input = &[];
                Ok(None)
            }
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.kept = buffer;
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: u64) -> &'a [u8] {
    let len = usize::try_from(at_most)
        .unwrap_or(usize::MAX)
        .min(input.len());
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

/// What a head says about its response.
struct HeadRead {
    status: u16,
    /// How the body ends.
    state: State,
    closes: bool,
}

fn read_head(head: &[u8]) -> Result<HeadRead> {
    let head = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = head.split_terminator("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status: u16 = status
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("no HTTP/1.1 status line: `{}`", shown(first)))?;
    let (mut length, mut chunked, mut closes) = (None, false, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            bail!("a header without a colon: `{}`", shown(line));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let new: u64 = value.parse().with_context(|| line.to_owned())?;
            ensure!(length.replace(new).is_none(), "two lengths");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(value.eq_ignore_ascii_case("chunked"), "unknown: {line}");
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            closes |= value.eq_ignore_ascii_case("close");
        }
    }
    ensure!(!(chunked && length.is_some()), "chunked and a length");
    let state = match (status, length) {
        // RFC 9112 6.3: these have no body, whatever their head says.
        (100..=199 | 204 | 304, _) => State::Whole,
        _ if chunked => State::ChunkLine,
        (_, Some(length)) => State::Sized(length),
        (_, None) => State::UntilClose,
    };
    Ok(HeadRead {
        status,
        state,
        closes,
    })
}

/// Bytes of a server, safe for a terminal and short.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

/// Parses a chunk size (RFC 9112 7.1), ignoring extensions.
fn chunk_size(line: &[u8]) -> Result<u64> {
    let line = std::str::from_utf8(line)?.trim_end();
    let digits = line.split(';').next().unwrap_or_default();
    let sound = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(sound, "a chunk's size: `{line}`");
    u64::from_str_radix(digits, 16).with_context(|| format!("a chunk's size: `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses bytes in pieces of `step`. Returns the statuses and bodies.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<(u16, Vec<u8>, bool)>> {
        let (mut responses, mut seen) = (Responses::default(), Vec::new());
        for mut piece in bytes.chunks(step) {
            while let Some(part) = responses.next(&mut piece)? {
                match part {
                    Part::Head(status) => seen.push((status, Vec::new(), false)),
                    Part::Body(body) => {
                        seen.last_mut().expect("a head").1.extend_from_slice(body);
                    }
                    Part::End => seen.last_mut().expect("a head").2 = true,
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn responses_read_the_same_however_they_were_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            2;x=y\r\nde\r\n1\r\nf\r\n0\r\nTrailer: t\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
            HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n";
        for step in 1..bytes.len() {
            let seen = read(bytes, step).expect("they are well made");
            let bodies: Vec<_> = seen
                .iter()
                .map(|(status, body, whole)| (*status, &body[..], *whole))
                .collect();
            let expected: [(u16, &[u8], bool); 5] = [
                (200, b"abc", true),
                (304, b"", true),
                (200, b"def", true),
                (200, b"", true),
                (200, b"data: 1\n\n", false),
            ];
            assert_eq!(bodies, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn bad_framing_is_an_error() {
        for bytes in [
            &b"HTTP/2 200\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        ] {
            assert!(read(bytes, bytes.len()).is_err());
        }
    }
}
