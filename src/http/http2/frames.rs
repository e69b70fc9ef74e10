//! The frames in a sequence of bytes: only their heads are read (RFC 9113 4.1). What h2 makes of a
//! frame it does not say; what a client sends, and whether it stopped within a head, is seen here.

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

/// Types of frames (RFC 9113 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flag of `DATA` and `HEADERS`: the stream ends with the frame.
const END_STREAM: u8 = 1;
/// Flag of `HEADERS` and `CONTINUATION`: the block of header fields ends with the frame.
const END_HEADERS: u8 = 4;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: u8,
    flags: u8,
    payload: u32,
}

impl FrameHead {
    fn of(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, ..] = bytes;
        Self {
            kind,
            flags,
            payload: u32::from_be_bytes([0, a, b, c]),
        }
    }

    /// Whether the frame carries neither a part of a request nor of a body.
    pub(super) const fn is_idle(self) -> bool {
        match self.kind {
            kind::HEADERS | kind::CONTINUATION => false,
            kind::DATA => self.payload == 0 && self.flags & END_STREAM == 0,
            _ => true,
        }
    }

    const fn ends_fields(self) -> bool {
        self.flags & END_HEADERS != 0
    }
}

/// Follows the frames of one direction, however its bytes are cut.
#[derive(Debug)]
pub(super) struct FrameWalker {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have come.
    have: usize,
    /// Bytes of the payload that are to come, or of a preface before the first frame.
    left: usize,
    /// Whether the present frame is part of a request's head.
    in_fields: bool,
    /// Whether a request's head has begun and more frames of it are to come.
    fields_open: bool,
}

impl FrameWalker {
    /// A walker for bytes that begin with a preface of this length.
    pub(super) const fn after(preface: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            left: preface,
            in_fields: false,
            fields_open: false,
        }
    }

    /// Whether the bytes so far end within the head of a request.
    pub(super) const fn is_within_fields(&self) -> bool {
        self.fields_open || self.have > 0 || (self.in_fields && self.left > 0)
    }

    /// Walks over more bytes and reports the head of each frame that begins in them.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let free = self.head.get_mut(self.have..).unwrap_or_default();
            let taken = free.len().min(bytes.len());
            for (to, from) in free.iter_mut().zip(bytes) {
                *to = *from;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            self.have += taken;
            if self.have == HEAD_BYTES {
                self.have = 0;
                let head = FrameHead::of(self.head);
                self.left = head.payload as usize;
                self.in_fields = matches!(head.kind, kind::HEADERS | kind::CONTINUATION);
                if self.in_fields {
                    self.fields_open = !head.ends_fields();
                }
                on_frame(head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// TCP may split frames at any byte, and the frames stay the same.
    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let bytes = [
            b"PRI".to_vec(),
            frame(4, 0, b"123456"),
            frame(kind::HEADERS, 0, b"ab"),
            frame(kind::CONTINUATION, END_HEADERS, b""),
            frame(kind::DATA, 0, b""),
            frame(kind::DATA, END_STREAM, b""),
            frame(kind::DATA, 0, &[0; 300]),
            frame(kind::RST_STREAM, 0, b"1234"),
        ]
        .concat();
        for piece in [1, 2, 8, 9, 10, bytes.len()] {
            let (mut walker, mut seen) = (FrameWalker::after(3), Vec::new());
            for part in bytes.chunks(piece) {
                walker.walk(part, |head| seen.push((head.kind, head.is_idle())));
            }
            let expected = [
                (4, true),
                (1, false),
                (9, false),
                (0, true),
                (0, false),
                (0, false),
                (3, true),
            ];
            assert_eq!(seen, expected, "in pieces of {piece}");
            assert!(!walker.is_within_fields() && walker.left == 0);
        }
    }

    /// RFC 9113 4.3: nothing may come between the frames of one block of fields.
    #[test]
    fn a_head_is_open_until_its_last_frame_has_come() {
        let head = frame(kind::HEADERS, 0, b"ab");
        let rest = frame(kind::CONTINUATION, END_HEADERS, b"cd");
        let mut walker = FrameWalker::after(0);
        assert!(!walker.is_within_fields());
        let bytes = [head, rest].concat();
        let (last, all) = bytes.split_last().expect("not empty");
        for byte in all {
            walker.walk(&[*byte], |_| {});
            assert!(walker.is_within_fields());
        }
        walker.walk(&[*last], |_| {});
        assert!(!walker.is_within_fields());
    }
}
