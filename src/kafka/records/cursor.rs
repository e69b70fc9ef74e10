//! Reads varints from unchecked bytes.

use crate::model::{low_u8, u32_of};

/// Bytes of a varint of 32 bits, at most.
pub(super) const VARINT_LEN_MAX: usize = 5;

/// A position in bytes. Every read is bounded. `None` means that the bytes end or are invalid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    /// A zigzag varint of at most 5 bytes. Bits beyond the 32nd are dropped, as Kafka's own reader
    /// and [`crate::log::Headers`] do.
    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        let first = *self.bytes.get(self.at)?;
        if first & 0x80 == 0 {
            self.at += 1;
            return Some(i32::from(first >> 1) ^ -i32::from(first & 1));
        }
        let (mut raw, mut shift) = (0_u32, 0);
        for &byte in self.bytes.get(self.at..)?.iter().take(VARINT_LEN_MAX) {
            self.at += 1;
            raw |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((raw >> 1) as i32 ^ -((raw & 1) as i32));
            }
            shift += 7;
        }
        None
    }

    /// A zigzag varint of at most 10 bytes.
    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let (mut raw, mut shift) = (0_u64, 0);
        for &byte in self.bytes.get(self.at..)?.iter().take(10) {
            self.at += 1;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
            shift += 7;
        }
        None
    }

    /// Skips `len` bytes and returns their range.
    #[inline]
    pub(super) fn range(&mut self, len: i32) -> Option<(u32, u32)> {
        let len = usize::try_from(len).ok()?;
        let start = self.at;
        let end = start.checked_add(len).filter(|&e| e <= self.bytes.len())?;
        self.at = end;
        Some((u32_of(start), u32_of(len)))
    }

    /// A length and as many bytes. -1 is null, and a lower length is invalid.
    #[inline]
    pub(super) fn nullable(&mut self) -> Option<Option<(u32, u32)>> {
        match self.varint()? {
            -1 => Some(None),
            len => self.range(len).map(Some),
        }
    }
}

/// Appends a zigzag varint of up to 5 bytes.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Appends a zigzag varint of up to 10 bytes. Of a 32-bit value, the same bytes as its varint.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(low_u8(raw) | 0x80);
        raw >>= 7;
    }
    out.push(low_u8(raw));
}

/// The number of bytes that [`put_varlong`] appends.
pub(super) const fn varlong_len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (63 - (raw | 1).leading_zeros() as usize) / 7 + 1
}
