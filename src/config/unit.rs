//! Sizes and durations. Both need a unit, in the file as in flags. A bare number is rejected with
//! both of its possible meanings, because a guess would be silently wrong by a factor of a
//! thousand.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::{Kind, Raw, within};

/// Bytes of a kibibyte: 1024.
pub const KIB: usize = 1024;
/// Bytes of a mebibyte: 1024 KiB.
pub const MIB: usize = 1024 * KIB;
/// Bytes of a gibibyte: 1024 MiB.
pub const GIB: usize = 1024 * MIB;

/// A number of bytes within these bounds, with a unit: `"64KiB"`.
pub struct Size(pub RangeInclusive<usize>);
/// A duration within these bounds, with a unit: `"10s"`.
pub struct Time(pub RangeInclusive<Duration>);

const SIZES: [(&str, usize); 7] = [
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Kind for Size {
    type Value = usize;

    fn read(&self, raw: &Raw) -> Result<usize, String> {
        let (number, unit) = with_unit(raw, "a size such as \"64KiB\"", "B", "KiB")?;
        let Some(&(_, scale)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let help = "sizes end in B, KiB, MiB, GiB, kB, MB or GB";
            return Err(format!("`{unit}` is not a unit of size: {help}"));
        };
        let bytes = number.saturating_mul(scale as u64);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        within(self, bytes, &self.0)
    }

    fn show(&self, value: &usize) -> String {
        show_size(*value)
    }

    fn describe(&self) -> String {
        format!(
            "{} to {}",
            show_size(*self.0.start()),
            show_size(*self.0.end())
        )
    }
}

/// Prints bytes in the largest binary unit that divides them: `64KiB`.
#[must_use]
pub fn show_size(bytes: usize) -> String {
    let binary = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
    match binary
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
    {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

const TIMES: [(&str, u64); 8] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("µs", 1),
];

impl Kind for Time {
    type Value = Duration;

    fn read(&self, raw: &Raw) -> Result<Duration, String> {
        let (number, unit) = with_unit(raw, "a duration such as \"10s\"", "s", "ms")?;
        let Some(&(_, scale)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            let help = "durations end in us, ms, s, min, h or d";
            return Err(format!("`{unit}` is not a unit of time: {help}"));
        };
        within(
            self,
            Duration::from_micros(number.saturating_mul(scale)),
            &self.0,
        )
    }

    fn show(&self, value: &Duration) -> String {
        show_time(*value)
    }

    fn describe(&self) -> String {
        format!(
            "{} to {}",
            show_time(*self.0.start()),
            show_time(*self.0.end())
        )
    }
}

/// Prints a duration in the largest unit that divides it: `10s`.
#[must_use]
pub fn show_time(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let exact = |scale: u64| micros > 0 && micros.is_multiple_of(scale);
    match TIMES.iter().find(|(_, scale)| exact(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", micros / scale),
        None => "0s".into(),
    }
}

/// Splits `64KiB` into number and unit. The error for a bare number shows both possible meanings.
fn with_unit<'a>(
    raw: &'a Raw,
    wanted: &str,
    one: &str,
    other: &str,
) -> Result<(u64, &'a str), String> {
    let readings =
        |n: &dyn Display| format!("`{n}` has no unit: write \"{n}{one}\" or \"{n}{other}\"");
    if let Raw::Integer(n) = raw {
        return Err(readings(n));
    }
    let text = raw.text(wanted)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    match number.parse::<u64>() {
        Ok(n) if unit.trim().is_empty() => Err(readings(&n)),
        Ok(n) => Ok((n, unit.trim())),
        Err(_) => Err(format!("expected {wanted}, found `{text}`")),
    }
}
