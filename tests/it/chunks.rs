//! A parser of chunked bodies (RFC 9112 7.1), independent of the gateway so that a bug in its
//! framing cannot hide. It is stricter than the grammar and accepts only what the gateway writes:
//! lower-case sizes without leading zeros, no extensions, no trailers.

/// The most bytes in a stream's chunk, unless the chunk is one frame.
pub const STREAM_CHUNK_BYTES_MAX: usize = 16 * 1024;

/// A body that is being read. Give it all bytes after the head, in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    state: State,
    /// Bytes of the current line so far.
    line: Vec<u8>,
    /// The data of the present chunk, if the body is an event stream's.
    chunk: Option<Vec<u8>>,
    /// Complete chunks, without the last one.
    pub count: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(usize),
    /// CR LF after the data. After the chunk of size zero, the body's end.
    End {
        last: bool,
    },
    Whole,
}

impl Chunks {
    /// A body of any kind.
    pub fn new() -> Self {
        Self::default()
    }

    /// An event stream's body, of which each chunk must hold whole frames.
    pub fn of_stream() -> Self {
        let chunk = Some(Vec::new());
        Self {
            chunk,
            ..Self::default()
        }
    }

    /// Whether the body has ended with its last chunk.
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Reads bytes up to the body's end and appends their data to `out`. Returns the number of
    /// bytes read.
    pub fn read(&mut self, all: &[u8], out: &mut Vec<u8>) -> usize {
        let mut bytes = all;
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Data(left) => {
                    let (data, rest) = bytes.split_at(left.min(bytes.len()));
                    out.extend_from_slice(data);
                    self.chunk.iter_mut().for_each(|chunk| chunk.extend(data));
                    self.state = match left - data.len() {
                        0 => State::End { last: false },
                        left => State::Data(left),
                    };
                    bytes = rest;
                    continue;
                }
                State::Whole => break,
                State::Size | State::End { .. } => self.line.push(byte),
            }
            bytes = rest;
            assert!(self.line.len() <= 18, "no size: {:?}", lossy(&self.line));
            if byte == b'\n' {
                self.on_line();
            }
        }
        all.len() - bytes.len()
    }

    fn on_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n");
        let line = line.unwrap_or_else(|| panic!("a line ends in CR LF"));
        self.state = match self.state {
            State::Size => match size(line) {
                0 => State::End { last: true },
                size => State::Data(size),
            },
            State::End { last } => {
                assert!(line.is_empty(), "{:?} behind a chunk", lossy(line));
                if last {
                    State::Whole
                } else {
                    self.on_chunk();
                    State::Size
                }
            }
            State::Data(_) | State::Whole => unreachable!("they have no lines"),
        };
    }

    fn on_chunk(&mut self) {
        self.count += 1;
        let Some(chunk) = &mut self.chunk else {
            return;
        };
        let frames = chunk.windows(2).filter(|two| two == b"\n\n").count();
        assert!(
            chunk.ends_with(b"\n\n"),
            "a chunk with half a frame: {:?}",
            lossy(chunk)
        );
        assert!(
            chunk.len() <= STREAM_CHUNK_BYTES_MAX || frames == 1,
            "a chunk of {} bytes and {frames} frames",
            chunk.len()
        );
        chunk.clear();
    }
}

fn size(line: &[u8]) -> usize {
    let sound = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(
        !line.is_empty() && line.iter().all(sound) && (line == b"0" || line[0] != b'0'),
        "a chunk's size: {:?}",
        lossy(line)
    );
    let text = std::str::from_utf8(line).expect("it is hex digits");
    usize::from_str_radix(text, 16).expect("at most 16 digits")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut body: Chunks, bytes: &[u8]) -> (Vec<u8>, Chunks) {
        let mut out = Vec::new();
        for piece in bytes.chunks(3) {
            body.read(piece, &mut out);
        }
        (out, body)
    }

    #[test]
    fn whole_bodies_are_told_from_cut_ones() {
        let (out, body) = read(
            Chunks::new(),
            b"2\r\nab\r\n1f\r\n0123456789012345678901234567890",
        );
        assert_eq!((out.len(), body.is_whole()), (33, false));
        let (out, body) = read(Chunks::new(), b"1\r\na\r\n0\r\n\r\n");
        assert_eq!((&out[..], body.is_whole()), (&b"a"[..], true));
        let two = b"1a\r\ndata: one\n\nid: x\ndata: y\n\n\r\n";
        assert_eq!(read(Chunks::of_stream(), two).1.count, 1);
    }

    #[test]
    fn bad_framing_is_seen() {
        let large = format!("4e20\r\n{}\r\n", "data: x\n\n\n".repeat(2000));
        let any: [&[u8]; 7] = [
            b"+1\r\na\r\n",
            b"01\r\na\r\n",
            b"A\r\n0123456789\r\n",
            b"1;x\r\na\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"0\r\nTrailer: x\r\n\r\n",
        ];
        let stream: [&[u8]; 2] = [b"8\r\ndata: x\n\r\n", large.as_bytes()];
        let any = any.map(|bytes| (Chunks::new(), bytes));
        for (body, bytes) in any
            .into_iter()
            .chain(stream.map(|it| (Chunks::of_stream(), it)))
        {
            let seen = std::panic::catch_unwind(|| read(body, bytes));
            assert!(seen.is_err(), "{:?}", lossy(bytes));
        }
    }
}
