//! The lines of an event stream (WHATWG HTML, 9.2.6). The content of a line has no line end of its
//! own: data is split, keys are JSON or base64, ids are base64url and etags, and event names are
//! checked when they are made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::log::GapReason;
use crate::model::{Offset, Partition};

/// An empty comment and a blank line: keeps a connection alive, changes nothing.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// The end of a frame: the end of its last line, and an empty line.
const BLANK_LINE: &[u8] = b"\n\n";

/// The progress of an id that asks to start over.
pub(super) const START_OVER: &[u8] = b"-";

/// `data:` lines. A reader joins them with LF, so CR, LF and CRLF all become LF.
pub(super) fn put_data(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', text) else {
            break;
        };
        out.extend_from_slice(&text[..end]);
        out.push(b'\n');
        let line_end = if text[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        text = &text[end + line_end..];
    }
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Bytes that [`put_data`] appends, at most: a line end becomes LF and `data: `.
pub(super) fn data_len_max(text: &[u8]) -> usize {
    let line_ends = memchr::memchr2_iter(b'\r', b'\n', text).count();
    text.len() + (line_ends + 1) * b"data: \n".len()
}

/// One `data:` line of base64 (RFC 4648 4, padded).
pub(super) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"data: ");
    put_base64_text(out, bytes);
    out.push(b'\n');
}

fn put_base64_text(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("sized for it above");
}

pub(super) fn put_event(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
}

/// The lines of a tombstone's event. A key is any bytes: as a JSON string it can't break a line.
pub(super) fn put_delete(out: &mut Vec<u8>, key: Option<&[u8]>) {
    put_event(out, "delete");
    match key.map(|key| (key, std::str::from_utf8(key))) {
        None => out.extend_from_slice(b"data: {\"key\":null}\n"),
        Some((_, Ok(text))) => {
            out.extend_from_slice(b"data: {\"key\":");
            serde_json::to_writer(&mut *out, text).expect("a Vec takes what is written");
            out.extend_from_slice(b"}\n");
        }
        Some((bytes, Err(_))) => {
            out.extend_from_slice(b"data: {\"key_base64\":\"");
            put_base64_text(out, bytes);
            out.extend_from_slice(b"\"}\n");
        }
    }
}

/// Offsets of one partition that a stream can't show: from the first missing to the first that is
/// there again.
pub(super) type Missing = (Partition, Offset, Offset);

/// The lines of a gap. `missing` is not known when the client's id can't be read or is of another
/// log.
pub(super) fn put_gap(out: &mut Vec<u8>, missing: Option<Missing>, reason: GapReason) {
    put_event(out, "gap");
    out.extend_from_slice(b"data: {");
    if let Some((partition, from, to)) = missing {
        let mut number = itoa::Buffer::new();
        let numbers = [
            ("\"partition\":", u64::from(partition.0)),
            ("\"from\":", from.0),
            ("\"to\":", to.0),
        ];
        for (name, value) in numbers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(number.format(value).as_bytes());
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"reason\":\"");
    out.extend_from_slice(reason.as_str().as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// The last line of an event and the blank line. Without preceding lines it dispatches no event,
/// but sets a browser's last event id (WHATWG HTML 9.2.6, "dispatch the event", step 1). Other
/// readers may ignore it.
pub(super) fn put_id(out: &mut Vec<u8>, progress: &[u8], etag: &[u8]) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(progress);
    out.push(b'.');
    out.extend_from_slice(etag);
    out.extend_from_slice(b"\n\n");
}

/// The longest prefix of whole frames that fits `room`, or else the first frame alone. A blank line
/// occurs only at the end of a frame, because every line of a value begins with its field's name.
pub(super) fn whole_frames(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let within = memchr::memmem::rfind(&bytes[..room], BLANK_LINE);
    let end = within.or_else(|| memchr::memmem::find(bytes, BLANK_LINE));
    let end = end.map_or(bytes.len(), |at| at + BLANK_LINE.len());
    &bytes[..end]
}

/// The lines of a position except its `id:`. It has data, since many readers dispatch no event
/// without, and the data is JSON, since some readers have one handler for all events.
pub(super) fn put_position(out: &mut Vec<u8>) {
    put_event(out, "position");
    out.extend_from_slice(b"data: {}\n");
}

/// How long a reader waits before it connects again.
pub(super) fn put_retry(out: &mut Vec<u8>, millis: u64) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
    out.push(b'\n');
}
