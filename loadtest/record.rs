//! The content of a generated record: the writer's run, the record's number in its lane (its
//! partition or key), and the time it was due. It is small JSON with padding, so that every record
//! has the requested size.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The smallest record size: all fields at their longest.
pub(crate) const SIZE_MIN: usize = 100;

/// The fields of a generated record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Identifies one run of a writer.
    pub(crate) writer: u64,
    /// The sequence that the record belongs to: its partition, or its key if there are many.
    pub(crate) lane: u32,
    /// Number of the record in its lane, from 0.
    pub(crate) number: u64,
    /// Time at which it was due, in µs since 1970, whenever it was written.
    pub(crate) due_us: u64,
}

impl Stamp {
    /// Appends the record, in exactly `size` bytes.
    pub(crate) fn write(&self, size: usize, into: &mut Vec<u8>) {
        debug_assert!(size >= SIZE_MIN);
        let start = into.len();
        let Self {
            writer,
            lane,
            number,
            due_us,
        } = self;
        write!(
            into,
            r#"{{"w":{writer},"p":{lane},"n":{number},"at":{due_us},"x":""#
        )
        .expect("a Vec takes all");
        into.resize(start + size - 2, b'x');
        into.extend_from_slice(b"\"}");
    }

    /// Parses a record. `None` if a writer did not generate it.
    pub(crate) fn read(mut text: &[u8]) -> Option<Self> {
        Some(Self {
            writer: field(&mut text, b"{\"w\":")?,
            lane: u32::try_from(field(&mut text, b",\"p\":")?).ok()?,
            number: field(&mut text, b",\"n\":")?,
            due_us: field(&mut text, b",\"at\":")?,
        })
    }
}

fn field(text: &mut &[u8], before: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(before)?;
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, rest) = digits.split_at(len);
    *text = rest;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The current time in µs since 1970. Writer and clients run on one host, so their clocks are the
/// same.
pub(crate) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or(Duration::ZERO).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_size_and_reads_back() {
        let stamp = Stamp {
            writer: u64::MAX,
            lane: 11,
            number: 1_000_000,
            due_us: 1_770_000_000_000_000,
        };
        for size in [SIZE_MIN, 200, 1000] {
            let mut text = b"before".to_vec();
            stamp.write(size, &mut text);
            let text = &text[6..];
            assert_eq!(text.len(), size);
            assert!(serde_json::from_slice::<serde_json::Value>(text).is_ok());
            assert_eq!(Stamp::read(text), Some(stamp));
        }
        assert_eq!(Stamp::read(b"{\"amount\":1}"), None);
    }
}
