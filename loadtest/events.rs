//! A parser of Server-Sent Events by the rules of browsers (WHATWG HTML 9.2.6): lines end in LF, CR
//! or CRLF, a block ends at an empty line, and only a block with data is an event. It shares no
//! code with the gateway.

/// One event, borrowed for the call that receives it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The `event:` field; empty if there was none.
    pub(crate) name: &'a [u8],
    /// The `data:` lines, joined by LF.
    pub(crate) data: &'a [u8],
    /// This block's own `id:`. A browser would also remember the last one.
    pub(crate) id: Option<&'a [u8]>,
}

/// The parser of one stream.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Bytes of an incomplete line.
    kept: Vec<u8>,
    /// The last byte was a CR. An LF directly after it belongs to it.
    after_cr: bool,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    id: Vec<u8>,
    has_id: bool,
}

impl Events {
    /// Parses bytes and calls `show` with every complete event.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut show: impl FnMut(&Event<'_>)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.kept.extend_from_slice(bytes);
                return;
            };
            self.after_cr = bytes[at] == b'\r';
            if self.kept.is_empty() {
                self.line(&bytes[..at], &mut show);
            } else {
                let mut line = std::mem::take(&mut self.kept);
                line.extend_from_slice(&bytes[..at]);
                self.line(&line, &mut show);
                line.clear();
                self.kept = line;
            }
            bytes = &bytes[at + 1..];
        }
    }

    fn line(&mut self, line: &[u8], show: &mut impl FnMut(&Event<'_>)) {
        if line.is_empty() {
            return self.end_block(show);
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => {
                self.has_id = true;
                self.id.clear();
                self.id.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // Ignore comments, `retry` and unknown fields.
            _ => {}
        }
    }

    fn end_block(&mut self, show: &mut impl FnMut(&Event<'_>)) {
        if self.has_data {
            show(&Event {
                name: &self.name,
                data: &self.data,
                id: self.has_id.then_some(&self.id),
            });
        }
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.has_id = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(String, String, Option<String>)>;

    fn read(bytes: &[u8], step: usize) -> Seen {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for piece in bytes.chunks(step) {
            events.read(piece, |event| {
                let id = event.id.map(text);
                seen.push((text(event.name), text(event.data), id));
            });
        }
        seen
    }

    #[test]
    fn a_stream_reads_the_same_however_it_was_cut() {
        let bytes = b"retry: 10\n\nid: a\n\n: beat\n\ndata: 1\ndata:  2\nid: b\n\n\
            event: e\rdata\rid\r\rdata:x\r\n\r\nid: c\ndata: cut";
        let expected: Seen = vec![
            (String::new(), "1\n 2".into(), Some("b".into())),
            ("e".into(), String::new(), Some(String::new())),
            (String::new(), "x".into(), None),
        ];
        for step in 1..=bytes.len() {
            assert_eq!(read(bytes, step), expected, "in pieces of {step}");
        }
    }
}
