//! The `Date` header, formatted once a second.

use std::time::{Duration, UNIX_EPOCH};

use crate::model::UnixMillis;

/// Bytes of the whole line: `date: Sun, 06 Nov 1994 08:49:37 GMT` and its end.
const LINE_LEN: usize = 37;

/// Seconds after which a year has five digits and the format ends.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Formats the `Date` line once per second. Each shard has one.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: u64,
    line: [u8; LINE_LEN],
}

impl DateCache {
    /// A cache that has formatted the Unix epoch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            second: 0,
            line: format_line(0),
        }
    }

    /// The header line for `now`. Times before 1970 or after 9999 are clamped: the wall clock may
    /// be wrong, but every response needs a date.
    pub fn line(&mut self, now: UnixMillis) -> &[u8] {
        let second = u64::try_from(now.0.div_euclid(1000)).unwrap_or(0);
        if second != self.second {
            self.second = second;
            self.line = format_line(second.min(SECONDS_MAX));
        }
        &self.line
    }
}

impl Default for DateCache {
    fn default() -> Self {
        Self::new()
    }
}

fn format_line(second: u64) -> [u8; LINE_LEN] {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let line = format!("date: {date}\r\n");
    line.as_bytes()
        .try_into()
        .expect("RFC 9110 5.6.7: the format has a fixed length until the year 9999")
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9110 5.6.7, its own example.
    #[test]
    fn a_date_is_the_second_it_was_asked_for() {
        let mut cache = DateCache::new();
        let at = UnixMillis(784_111_777_999);
        assert_eq!(cache.line(at), b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let next = UnixMillis(784_111_778_000);
        assert_eq!(cache.line(next), b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
        // A wall clock that was set back is believed.
        assert_eq!(cache.line(at), b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }

    #[test]
    fn a_mad_clock_still_gives_a_date() {
        let mut cache = DateCache::new();
        let epoch = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        assert_eq!(cache.line(UnixMillis(0)), epoch);
        assert_eq!(cache.line(UnixMillis(-1)), epoch);
        assert_eq!(cache.line(UnixMillis(i64::MIN)), epoch);
        let end = b"date: Fri, 31 Dec 9999 23:59:59 GMT\r\n";
        assert_eq!(cache.line(UnixMillis(i64::MAX)), end);
    }
}
