//! What makes the projections of a topic incomplete: undecodable ranges of its log, and full
//! slices. Neither ends by itself, and neither may look like a healthy cache. This module produces
//! what `/readyz`, the log and the metrics report about it, and decides when a full cache is loaded
//! again.
//!
//! The answers to clients are decided at the slices: each slice knows the undecodable ranges from
//! the steps that it applies, and what it had no room for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cache::Gaps;
use crate::config::show_size;
use crate::kafka::{KafkaError, RecordError};
use crate::log::{OffsetRange, Step, Undecodable};
use crate::model::{Instant, Offset, Partition, ShardId};

/// Ranges that `/readyz` names. Further ones are only counted.
const NAMED_MAX: usize = 4;
/// Ranges whose cause is kept: the named ones, and spare ones for when those end.
const CAUSES_MAX: usize = 64;
const _: () = {
    // Every range that is named can be named with its cause.
    assert!(NAMED_MAX <= CAUSES_MAX);
};

/// If a cache fills up again within this time of the last WARN, no further WARN is logged. Values
/// that come and go around the limit must not fill the log.
pub(super) const TOLD_FOR: Duration = Duration::from_secs(60);
/// The wait between two attempts to read again what had no room. The wait doubles, because values
/// that come and go around the limit must not cause endless reads of the log.
const REFILL_WAIT_MIN: Duration = Duration::from_secs(60);
const REFILL_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the projections of a topic lack.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    /// Whether slices or an index of replies are built from the topic. If not, its streams emit
    /// gaps, and nothing is incomplete.
    pub(super) kept: bool,
    pub(super) undecodable: Undecodable,
    /// Why ranges could not be decoded, by where they begin, oldest first.
    pub(super) causes: Vec<(Partition, Offset, KafkaError)>,
    /// The gaps that slices have reported.
    pub(super) slices: Vec<SliceGaps>,
    /// When a full cache was last reported, unless the report was withdrawn.
    pub(super) full_told: Option<Instant>,
    pub(super) left_out_told: bool,
    /// Reads of earlier records for slices that had no room, and where each ends.
    pub(super) reading: Vec<(Partition, Offset)>,
    /// When the topic may be loaded again to fill its slices.
    pub(super) reload: Pace,
}

/// What one slice lacks, and when records may be read again for it.
#[derive(Debug)]
pub(super) struct SliceGaps {
    pub(super) shard: ShardId,
    pub(super) gaps: Gaps,
    pub(super) refill: Pace,
}

/// When a retry is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) at: Instant,
    wait: Duration,
}

impl Pace {
    /// Records that a retry begins.
    pub(super) fn on_try(&mut self, now: Instant) {
        let quiet = now.since(self.at) >= REFILL_WAIT_MAX;
        self.wait = if quiet || self.wait.is_zero() {
            REFILL_WAIT_MIN
        } else {
            (self.wait * 2).min(REFILL_WAIT_MAX)
        };
        self.at = now.after(self.wait);
    }
}

impl Degraded {
    /// Another loading begins: forgets all. `kept`: see the field.
    pub(super) fn on_open(&mut self, kept: bool) {
        self.kept = kept;
        (self.undecodable, self.causes) = (Undecodable::default(), Vec::new());
        self.slices.clear();
        self.left_out_told = false;
    }

    /// Applies an ordered step. Returns true if it has ended the last undecodable range.
    pub(super) fn on_step(&mut self, step: &Step) -> bool {
        if !self.kept {
            return false;
        }
        let before = self.undecodable.is_empty();
        self.undecodable.on_step(step);
        !before && self.undecodable.is_empty()
    }

    /// Keeps why the offsets from `from` on can't be decoded.
    pub(super) fn on_cause(&mut self, partition: Partition, from: Offset, error: KafkaError) {
        let ranges = &self.undecodable;
        self.causes
            .retain(|(p, from, _)| ranges.iter().any(|it| it.partition == *p && it.to > *from));
        if self.causes.len() < CAUSES_MAX {
            self.causes.push((partition, from, error));
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slices.iter().any(|it| it.gaps.full)
    }

    /// Whether only another loading helps, and would find room.
    pub(super) fn wants_reload(&self) -> bool {
        self.slices.iter().any(|it| it.gaps.reload)
    }

    /// What slices want to read again and may: per partition, the lowest offset. Each slice has its
    /// own pace, since slices get room at different moments.
    pub(super) fn take_wanted(&mut self, now: Instant) -> BTreeMap<Partition, Offset> {
        let mut wanted = BTreeMap::new();
        for slice in &mut self.slices {
            if slice.gaps.reread.is_empty() || now < slice.refill.at {
                continue;
            }
            slice.refill.on_try(now);
            for (partition, from) in &slice.gaps.reread {
                let lowest = wanted.entry(*partition).or_insert(*from);
                *lowest = (*from).min(*lowest);
            }
        }
        wanted
    }

    /// When the next slice may read again.
    pub(super) fn next_wanted(&self) -> Option<Instant> {
        let wants = self.slices.iter().filter(|it| !it.gaps.reread.is_empty());
        let refills = wants.map(|it| it.refill.at);
        let reload = self.wants_reload().then_some(self.reload.at);
        refills.chain(reload).min()
    }

    /// Ranges that the log may still have.
    pub(super) fn ranges(&self) -> usize {
        self.undecodable.iter().len()
    }

    pub(super) fn describe_range(&self, range: OffsetRange) -> String {
        let Partition(partition) = range.partition;
        let cause = self
            .causes
            .iter()
            .find(|(p, from, _)| *p == range.partition && (range.from..range.to).contains(from));
        let cause = cause.map(|(_, _, error)| format!(" ({error})"));
        let cause = cause.unwrap_or_default();
        if range.is_open() {
            format!(
                "partition {partition} from offset {} on{cause}",
                range.from.0
            )
        } else {
            format!(
                "partition {partition} offsets {} to {}{cause}",
                range.from.0,
                range.to.0 - 1
            )
        }
    }

    /// The undecodable ranges and what to do. `None` if there are none.
    pub(super) fn describe_ranges(&self, replies: bool) -> Option<String> {
        if self.undecodable.is_empty() {
            return None;
        }
        let named = self.undecodable.iter().take(NAMED_MAX);
        let named: Vec<_> = named.map(|range| self.describe_range(range)).collect();
        let more = match self.ranges().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more ranges"),
        };
        let too_large =
            |error: &KafkaError| matches!(error, KafkaError::Records(RecordError::TooLarge(_)));
        let what_to_do = if self.causes.iter().any(|(_, _, error)| too_large(error)) {
            "raise kafka.batch_bytes_max and restart"
        } else {
            "delete these records, or restore the broker's copy of them"
        };
        let so = if replies {
            "commands that they answer count as unanswered: their clients get 504, and a retry \
                 is sent to the service again"
        } else {
            "keys that may be in them, keys that are not found and collections are answered \
                 503 `cache-degraded`"
        };
        let named = named.join(", ");
        Some(format!(
            "can't decode {named}{more}: {what_to_do}; until then {so}"
        ))
    }

    pub(super) fn describe_full(&self, bytes_max: usize) -> Option<String> {
        let max = show_size(bytes_max);
        self.is_full().then(|| {
            format!(
                "the cache is full: the topic has outgrown cache.bytes_max ({max}); raise it and \
                 restart; what found no room and collections are answered 503 `cache-degraded`"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::step;
    use crate::log::{Change, GapReason};

    fn gap(partition: u32, from: u64, to: u64) -> Step {
        let change = Change::Gap {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
            reason: GapReason::Undecodable,
        };
        step(1, change)
    }

    fn with(ranges: impl Iterator<Item = (u32, u64, u64)>, error: RecordError) -> Degraded {
        let mut degraded = Degraded::default();
        degraded.on_open(true);
        for (partition, from, to) in ranges {
            degraded.on_cause(Partition(partition), Offset(from), error.into());
            degraded.on_step(&gap(partition, from, to));
        }
        degraded
    }

    #[test]
    fn ranges_are_named_with_place_cause_and_setting() {
        let error = RecordError::TooLarge(1024);
        let one = with([(1, 5, 7)].into_iter(), error);
        let text = one.describe_ranges(false).expect("a range");
        for part in [
            "partition 1 offsets 5 to 6",
            "more than 1024 bytes",
            "raise kafka.batch_bytes_max",
            "`cache-degraded`",
        ] {
            assert!(text.contains(part), "no `{part}` in `{text}`");
        }
        let text = one.describe_ranges(true).expect("a range");
        assert!(text.contains("count as unanswered"), "{text}");
        let many = with((0..50).map(|n| (n, 5, 6)), RecordError::Checksum);
        let text = many.describe_ranges(false).expect("ranges");
        assert!(text.contains("and 46 more ranges: delete these"), "{text}");
    }

    #[test]
    fn it_ends_with_the_last_range() {
        let mut degraded = with([(0, 1, 2), (1, 1, 2)].into_iter(), RecordError::Checksum);
        let start = |partition| {
            let (partition, offset) = (Partition(partition), Offset(2));
            step(2, Change::LogStart { partition, offset })
        };
        assert!(!degraded.on_step(&start(0)));
        assert!(degraded.on_step(&start(1)), "it has ended");
        assert!(!degraded.on_step(&start(1)), "it ends once");
        assert_eq!(degraded.describe_ranges(false), None);
    }

    #[test]
    fn a_topic_of_streams_alone_lacks_nothing() {
        let mut degraded = Degraded::default();
        degraded.on_open(false);
        degraded.on_step(&gap(0, 1, 2));
        assert_eq!(degraded.ranges(), 0);
    }

    #[test]
    fn what_slices_want_again_is_read_once() {
        let gaps = |reread: &[(u32, u64)]| Gaps {
            full: true,
            reread: reread
                .iter()
                .map(|(p, o)| (Partition(*p), Offset(*o)))
                .collect(),
            ..Gaps::default()
        };
        let slice = |shard, reread: &[(u32, u64)]| SliceGaps {
            shard: ShardId(shard),
            gaps: gaps(reread),
            refill: Pace::default(),
        };
        let mut degraded = Degraded {
            slices: vec![
                slice(0, &[(0, 7), (2, 5)]),
                slice(1, &[(2, 3)]),
                slice(2, &[]),
            ],
            ..Degraded::default()
        };
        let now = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let take = |degraded: &mut Degraded, at| -> Vec<(u32, u64)> {
            let wanted = degraded.take_wanted(now(at)).into_iter();
            wanted.map(|(p, o)| (p.0, o.0)).collect()
        };
        assert_eq!(take(&mut degraded, 1), [(0, 7), (2, 3)]);
        // The reading did not help, so the next one waits. A slice that gets room later does not
        // wait for the others.
        assert_eq!(degraded.next_wanted(), Some(now(61)));
        degraded.slices[2].gaps = gaps(&[(1, 1)]);
        assert_eq!(degraded.next_wanted(), Some(Instant::ZERO));
        assert_eq!(take(&mut degraded, 2), [(1, 1)]);
        assert_eq!(take(&mut degraded, 61), [(0, 7), (2, 3)]);
        assert_eq!(degraded.slices[0].refill.at, now(61 + 120));
        let text = degraded.describe_full(1 << 20).expect("full");
        assert!(text.contains("cache.bytes_max (1MiB)"), "{text}");
    }
}
