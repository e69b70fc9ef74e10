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
use crate::log::{Change, GapReason, OffsetRange, Step, Undecodable};
use crate::model::{Instant, Offset, Partition, ShardId};

use super::health::Line;

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
const TOLD_FOR: Duration = Duration::from_secs(60);
/// The wait between two attempts to read again what had no room. The wait doubles, because values
/// that come and go around the limit must not cause endless reads of the log.
const REFILL_WAIT_MIN: Duration = Duration::from_secs(60);
const REFILL_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the projections of a topic lack.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    /// Whether the topic holds replies of commands.
    for_replies: bool,
    /// Whether slices or an index of replies are built from the topic. If not, its streams emit
    /// gaps, and nothing is incomplete.
    kept: bool,
    undecodable: Undecodable,
    /// Why ranges could not be decoded, by where they begin, oldest first.
    causes: Vec<(Partition, Offset, KafkaError)>,
    /// The gaps that slices have reported.
    slices: Vec<SliceGaps>,
    /// When a full cache was last reported, unless the report was withdrawn.
    full_told: Option<Instant>,
    left_out_told: bool,
    /// When the topic may be loaded again to fill its slices.
    reload: Pace,
}

/// What one slice lacks, and when records may be read again for it.
#[derive(Debug)]
struct SliceGaps {
    shard: ShardId,
    gaps: Gaps,
    refill: Pace,
}

/// When a retry is allowed.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    at: Instant,
    wait: Duration,
}

impl Pace {
    /// Records that a retry begins.
    fn on_try(&mut self, now: Instant) {
        let quiet = now.since(self.at) >= REFILL_WAIT_MAX;
        self.wait = if quiet || self.wait.is_zero() {
            REFILL_WAIT_MIN
        } else {
            (self.wait * 2).min(REFILL_WAIT_MAX)
        };
        self.at = now.after(self.wait);
    }
}

/// Offsets that a read can't decode. If `to` equals `from`, not even the batch's end is known, and
/// the read is stuck.
#[derive(Clone, Copy, Debug)]
pub(super) struct UndecodableRange<'a> {
    pub(super) partition: Partition,
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) error: &'a KafkaError,
}

impl UndecodableRange<'_> {
    pub(super) fn is_stuck(&self) -> bool {
        self.from == self.to
    }

    /// What the projections are told.
    pub(super) const fn change(&self) -> Change {
        let (partition, from, to) = (self.partition, self.from, self.to);
        if from.0 == to.0 {
            return Change::Stuck { partition, from };
        }
        Change::Gap {
            partition,
            from,
            to,
            reason: GapReason::Undecodable,
        }
    }
}

/// What is read again for slices that have room now.
#[derive(Debug)]
pub(super) enum Refill {
    /// The topic is loaded again.
    All,
    /// These partitions, each from this offset on.
    From(BTreeMap<Partition, Offset>),
}

impl Degraded {
    pub(super) fn new(for_replies: bool) -> Self {
        Self {
            for_replies,
            ..Self::default()
        }
    }

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

    /// Keeps why a range can't be decoded, before its step is made. Returns true if no other range
    /// is known.
    pub(super) fn on_undecodable(&mut self, met: &UndecodableRange<'_>) -> bool {
        let ranges = &self.undecodable;
        self.causes
            .retain(|(p, from, _)| ranges.iter().any(|it| it.partition == *p && it.to > *from));
        if self.causes.len() < CAUSES_MAX {
            let cause = (met.partition, met.from, met.error.clone());
            self.causes.push(cause);
        }
        self.undecodable.is_empty()
    }

    /// What to log of a range that can't be decoded, once its step is made. The text follows the
    /// topic's name. A topic with projections is reported once, until the log no longer has any of
    /// the ranges.
    pub(super) fn explain_range(&self, met: &UndecodableRange<'_>, first: bool) -> Option<String> {
        let UndecodableRange {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
            error,
        } = met;
        if self.kept {
            let described = self.describe_ranges().filter(|_| first)?;
            return Some(format!(": {described}"));
        }
        Some(if to == from {
            format!(
                ": partition {partition} from offset {from} on: {error}; nothing after it can be \
                 read"
            )
        } else {
            let last = to.saturating_sub(1);
            format!(": partition {partition} offsets {from} to {last}: {error}; skipped")
        })
    }

    /// A slice reports what it lacks. Returns lines for the log; each text follows the topic's
    /// name.
    pub(super) fn on_gaps(
        &mut self,
        shard: ShardId,
        gaps: Gaps,
        bytes_max: usize,
        now: Instant,
    ) -> [Option<Line>; 2] {
        let (was_full, left_out) = (self.is_full(), gaps.left_out);
        match self.slices.iter_mut().find(|it| it.shard == shard) {
            Some(known) => known.gaps = gaps,
            None => self.slices.push(SliceGaps {
                shard,
                gaps,
                refill: Pace::default(),
            }),
        }
        let left_out = left_out.filter(|_| !std::mem::replace(&mut self.left_out_told, true));
        let left_out = left_out.map(|left| {
            let (partition, offset, why) = (left.partition.0, left.offset.0, left.why);
            Line::Warn(format!(
                " partition {partition} offset {offset}: a value is not JSON ({why}) and is left \
                 out of collections; others of the topic are counted as \
                 sluicegate_cache_values_not_json"
            ))
        });
        [left_out, self.on_fullness(was_full, bytes_max, now)]
    }

    fn on_fullness(&mut self, was_full: bool, bytes_max: usize, now: Instant) -> Option<Line> {
        match (was_full, self.describe_full(bytes_max)) {
            (false, Some(full)) => {
                let told = self.full_told;
                if told.is_some_and(|told| now.since(told) < TOLD_FOR) {
                    return None;
                }
                self.full_told = Some(now);
                Some(Line::Warn(format!(": {full}")))
            }
            (true, None) => Some(Line::Info(
                ": the cache has room for all of it again".into(),
            )),
            _ => None,
        }
    }

    /// What to read again now that slices have room. Returns the whole topic at most once per
    /// pace.
    pub(super) fn next_refill(&mut self, now: Instant) -> Refill {
        if self.wants_reload() && now >= self.reload.at {
            self.reload.on_try(now);
            return Refill::All;
        }
        Refill::From(self.take_wanted(now))
    }

    pub(super) fn is_full(&self) -> bool {
        self.slices.iter().any(|it| it.gaps.full)
    }

    /// Whether only another loading helps, and would find room.
    fn wants_reload(&self) -> bool {
        self.slices.iter().any(|it| it.gaps.reload)
    }

    /// What slices want to read again and may: per partition, the lowest offset. Each slice has its
    /// own pace, since slices get room at different moments.
    fn take_wanted(&mut self, now: Instant) -> BTreeMap<Partition, Offset> {
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

    fn describe_range(&self, range: OffsetRange) -> String {
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

    /// What the projections of the topic lack, and what to do. `None`: nothing.
    pub(super) fn describe(&self, bytes_max: usize) -> Option<String> {
        let both = [self.describe_ranges(), self.describe_full(bytes_max)];
        both.into_iter()
            .flatten()
            .reduce(|one, other| format!("{one}; {other}"))
    }

    /// The undecodable ranges and what to do. `None` if there are none.
    fn describe_ranges(&self) -> Option<String> {
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
        let so = if self.for_replies {
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

    fn describe_full(&self, bytes_max: usize) -> Option<String> {
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
            degraded.on_undecodable(&UndecodableRange {
                partition: Partition(partition),
                from: Offset(from),
                to: Offset(to),
                error: &error.into(),
            });
            degraded.on_step(&gap(partition, from, to));
        }
        degraded
    }

    #[test]
    fn ranges_are_named_with_place_cause_and_setting() {
        let error = RecordError::TooLarge(1024);
        let one = with([(1, 5, 7)].into_iter(), error);
        let text = one.describe_ranges().expect("a range");
        for part in [
            "partition 1 offsets 5 to 6",
            "more than 1024 bytes",
            "raise kafka.batch_bytes_max",
            "`cache-degraded`",
        ] {
            assert!(text.contains(part), "no `{part}` in `{text}`");
        }
        let replies = Degraded {
            for_replies: true,
            ..one
        };
        let text = replies.describe_ranges().expect("a range");
        assert!(text.contains("count as unanswered"), "{text}");
        let many = with((0..50).map(|n| (n, 5, 6)), RecordError::Checksum);
        let text = many.describe_ranges().expect("ranges");
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
        assert_eq!(degraded.describe_ranges(), None);
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
        // The records found no room again, so the next reread waits. A slice that gets room later
        // does not wait for the others.
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
