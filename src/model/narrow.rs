//! Conversions to smaller integers. A bare `as` drops bits silently, so the lint
//! `cast_possible_truncation` rejects it, and each function here says what happens to a number that
//! does not fit.

use std::time::Duration;

const _: () = {
    // A `u64` indexes memory without losing bits.
    assert!(size_of::<usize>() == size_of::<u64>());
};

/// A count or an index that a limit keeps below 2^32. More is a broken invariant, and panics.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
pub const fn u32_of(number: usize) -> u32 {
    assert!(number <= u32::MAX as usize, "a limit keeps it below 2^32");
    number as u32
}

/// A count or an index that a limit keeps below 2^31. More is a broken invariant, and panics.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
pub const fn i32_of(number: usize) -> i32 {
    assert!(number <= i32::MAX as usize, "a limit keeps it below 2^31");
    number as i32
}

/// A count or an index that a limit keeps below 2^16. More is a broken invariant, and panics.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
pub const fn u16_of(number: usize) -> u16 {
    assert!(number <= u16::MAX as usize, "a limit keeps it below 2^16");
    number as u16
}

/// A count or an index that a limit keeps below 2^8. More is a broken invariant, and panics.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
pub const fn u8_of(number: usize) -> u8 {
    assert!(number <= u8::MAX as usize, "a limit keeps it below 2^8");
    number as u8
}

/// A number as an index. Nothing is lost on the 64-bit machines that we build for.
#[must_use]
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion above: a usize has 64 bits"
)]
pub const fn index_of(number: u64) -> usize {
    number as usize
}

/// The low 8 bits, on purpose: of a checksum, or of a number that is written byte by byte.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the purpose")]
pub const fn low_u8(number: u64) -> u8 {
    number as u8
}

/// The low 16 bits, on purpose.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the purpose")]
pub const fn low_u16(number: u64) -> u16 {
    number as u16
}

/// The low 32 bits, on purpose: of a hash, or of a number that holds two.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the purpose")]
pub const fn low_u32(number: u64) -> u32 {
    number as u32
}

/// A number below `count`, in proportion to where `hash` lies among all hashes. It preserves order.
#[must_use]
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the high half of the product is below `count`"
)]
pub const fn in_proportion(hash: u64, count: usize) -> usize {
    ((hash as u128 * count as u128) >> 64) as usize
}

/// Whole milliseconds. A time of more than 584 million years becomes the longest.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds for a field of Kafka's protocol. A time of more than 24 days becomes the
/// longest.
#[must_use]
pub fn millis_i32(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_times_saturate() {
        assert_eq!(u32_of(7), 7);
        assert_eq!((low_u8(0x1ff), low_u32(u64::MAX)), (0xff, u32::MAX));
        assert_eq!(millis(Duration::from_micros(1_999)), 1);
        assert_eq!(millis(Duration::MAX), u64::MAX);
        assert_eq!(millis_i32(Duration::from_secs(1 << 32)), i32::MAX);
    }

    #[test]
    #[should_panic(expected = "below 2^8")]
    fn what_does_not_fit_panics() {
        let _ = u8_of(256);
    }

    #[test]
    fn a_proportion_is_in_order_and_below_the_count() {
        let places = [0, 1 << 62, 1 << 63, u64::MAX].map(|hash| in_proportion(hash, 4));
        assert_eq!(places, [0, 1, 2, 3]);
    }
}
