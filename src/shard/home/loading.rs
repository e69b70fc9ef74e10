//! Which part of a log is loaded. What an index would drop again is not read: records from before
//! its window, and those that its memory is not sufficient for.

use std::time::Duration;

use crate::kafka::StartAt;
use crate::model::{Offset, Partition, UnixMillis, millis};

/// By how much clocks of gateway instances may differ. Each dates the commands that it appends.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// Where the reads of a log begin whose records count for `window`. `None`: they count for as long
/// as the log keeps them.
pub(super) fn since(window: Option<Duration>, now: UnixMillis) -> StartAt {
    window.map_or(StartAt::Earliest, |window| {
        let window = i64::try_from(millis(window.saturating_add(SKEW_MAX))).unwrap_or(i64::MAX);
        StartAt::Since(UnixMillis(now.0.saturating_sub(window)))
    })
}

/// The offsets of a partition that are still to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) partition: Partition,
    /// The next offset to read.
    pub(super) from: Offset,
    /// The offset at which loading ends.
    pub(super) to: Offset,
}

/// Where reads continue so that they read at most about `offsets_max` offsets. Empty: they read no
/// more as it is. Each partition loses the same share of its offsets, since partitions receive
/// records side by side: then the records that are left begin at about the same time everywhere.
pub(super) fn skips(all: &[Unread], offsets_max: u64) -> Vec<(Partition, Offset)> {
    let unread = |it: &Unread| it.to.0.saturating_sub(it.from.0);
    let total: u64 = all.iter().map(unread).fold(0, u64::saturating_add);
    if total <= offsets_max {
        return Vec::new();
    }
    let share = |it: &Unread| {
        let left = u128::from(unread(it)) * u128::from(offsets_max) / u128::from(total);
        // The share of a part is no more than the part.
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        (it.partition, Offset(it.to.0.saturating_sub(left)))
    };
    let some = all.iter().filter(|it| unread(it) > 0);
    some.map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unread(partition: u32, from: u64, to: u64) -> Unread {
        Unread {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
        }
    }

    #[test]
    fn reads_begin_a_minute_before_the_window() {
        let now = UnixMillis(10_000_000);
        assert_eq!(since(None, now), StartAt::Earliest);
        let hour = Some(Duration::from_secs(3_600));
        assert_eq!(since(hour, now), StartAt::Since(UnixMillis(6_340_000)));
        let ever = Some(Duration::MAX);
        let StartAt::Since(from) = since(ever, now) else {
            panic!("a window has a start");
        };
        assert!(from.0 < 0);
    }

    #[test]
    fn what_fits_is_read_whole() {
        let all = [unread(0, 5, 105), unread(1, 7, 7)];
        assert_eq!(skips(&all, 100), []);
        assert_eq!(skips(&[], 0), []);
    }

    #[test]
    fn each_partition_loses_the_same_share() {
        let all = [
            unread(0, 1_000, 2_000),
            unread(1, 0, 0),
            unread(2, 0, 3_000),
        ];
        let expected = [(Partition(0), Offset(1_900)), (Partition(2), Offset(2_700))];
        assert_eq!(skips(&all, 400), expected);
        let huge = [unread(0, 0, u64::MAX), unread(1, 0, u64::MAX)];
        let left = u64::MAX / 4;
        let expected = [0, 1].map(|p| (Partition(p), Offset(u64::MAX - left)));
        assert_eq!(skips(&huge, u64::MAX / 4), expected);
    }
}
