//! What makes the projections of a topic incomplete: undecodable ranges of its log, and full
//! slices. Neither passes by itself, and neither may look like a healthy cache. This module
//! produces what `/readyz`, the log and the metrics report about it, and decides when a full cache
//! is loaded again.
//!
//! The answers to clients are decided at the slices: each slice knows the undecodable ranges from
//! the steps that it applies, and what it had no room for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cache::Gaps;
use crate::config::show_size;
use crate::kafka::{Client, Event, KafkaError, Lane, ReadKey, RecordError, StartAt};
use crate::log::{Change, GapReason, Next, OffsetRange, Step, Undecodable};
use crate::model::{Instant, Offset, Partition, ShardId};

use super::topic::Topic;
use super::{HomeContext, note};
use crate::shard::message::Level;

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
/// The wait between two attempts to read again what had no room. It doubles, because values that
/// come and go around the limit must not cause endless reads of the log.
const REFILL_WAIT_MIN: Duration = Duration::from_secs(60);
const REFILL_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the projections of a topic lack.
#[derive(Debug, Default)]
pub(super) struct Degraded {
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
    /// Reads of earlier records for slices that had no room, and where each ends.
    reading: Vec<(Partition, Offset)>,
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
        self.wait = match quiet || self.wait.is_zero() {
            true => REFILL_WAIT_MIN,
            false => (self.wait * 2).min(REFILL_WAIT_MAX),
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
    fn on_cause(&mut self, partition: Partition, from: Offset, error: KafkaError) {
        let ranges = &self.undecodable;
        self.causes
            .retain(|(p, from, _)| ranges.iter().any(|it| it.partition == *p && it.to > *from));
        if self.causes.len() < CAUSES_MAX {
            self.causes.push((partition, from, error));
        }
    }

    fn is_full(&self) -> bool {
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
    fn next_wanted(&self) -> Option<Instant> {
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
        match range.is_open() {
            true => format!(
                "partition {partition} from offset {} on{cause}",
                range.from.0
            ),
            false => format!(
                "partition {partition} offsets {} to {}{cause}",
                range.from.0,
                range.to.0 - 1
            ),
        }
    }

    /// The undecodable ranges and what to do, if there are any.
    fn describe_ranges(&self, replies: bool) -> Option<String> {
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
        let what_to_do = match self.causes.iter().any(|(_, _, error)| too_large(error)) {
            true => "raise kafka.batch_bytes_max and restart",
            false => "delete these records, or restore the broker's copy of them",
        };
        let so = match replies {
            true => {
                "commands that they answer count as unanswered: their clients get 504, and a retry \
                 is sent to the service again"
            }
            false => {
                "keys that may be in them, keys that are not found and collections are answered \
                 503 `cache-degraded`"
            }
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

impl Topic {
    /// What the projections of the topic lack, and what to do.
    pub(super) fn describe_degraded(&self, bytes_max: usize) -> Option<String> {
        let ranges = self.degraded.describe_ranges(self.commands.is_some());
        let full = self.degraded.describe_full(bytes_max);
        let both = [ranges, full].into_iter().flatten();
        both.reduce(|one, other| format!("{one}; {other}"))
    }

    /// Whether a slice of the topic is full.
    pub(super) fn is_full(&self) -> bool {
        self.degraded.is_full()
    }

    /// A read has met offsets that it can't decode. All projections of the topic learn of them in
    /// the topic's order. If `to` equals `from`, not even the batch's end is known, and the read is
    /// stuck.
    pub(super) fn on_undecodable(
        &mut self,
        (partition, from, to): (Partition, Offset, Offset),
        error: &KafkaError,
        cx: &mut HomeContext<'_>,
    ) {
        let first = self.degraded.undecodable.is_empty();
        self.degraded.on_cause(partition, from, error.clone());
        let change = match to == from {
            true => Change::Stuck { partition, from },
            false => Change::Gap {
                partition,
                from,
                to,
                reason: GapReason::Undecodable,
            },
        };
        self.change(change, cx);
        let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
        // A topic with projections is reported once, until the log no longer has any of the ranges.
        let text = match self.degraded.kept {
            true if first => self.degraded.describe_ranges(self.commands.is_some()),
            true => None,
            false if to == from => Some(format!(
                "partition {} from offset {} on: {error}; nothing after it can be read",
                partition.0, from.0
            )),
            false => Some(format!(
                "partition {} offsets {} to {}: {error}; skipped",
                partition.0,
                from.0,
                to.0.saturating_sub(1)
            )),
        };
        if let Some(text) = text {
            note(cx.out, Level::Warn, format!("{name}: {text}"));
        }
    }

    /// A slice reports what it lacks.
    pub(super) fn on_gaps(&mut self, shard: ShardId, gaps: Gaps, cx: &mut HomeContext<'_>) {
        let (was_full, left_out) = (self.is_full(), gaps.left_out);
        let slices = &mut self.degraded.slices;
        match slices.iter_mut().find(|it| it.shard == shard) {
            Some(known) => known.gaps = gaps,
            None => slices.push(SliceGaps {
                shard,
                gaps,
                refill: Pace::default(),
            }),
        }
        // All shards are notified at once, and the topic is checked for another loading.
        self.health.check_by(Instant::ZERO);
        let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
        if let Some(left) = left_out
            && !std::mem::replace(&mut self.degraded.left_out_told, true)
        {
            let (partition, offset, why) = (left.partition.0, left.offset.0, left.why);
            let text = format!(
                "{name} partition {partition} offset {offset}: a value is not JSON ({why}) and is \
                 left out of collections; others of the topic are counted as \
                 sluicegate_cache_values_not_json"
            );
            note(cx.out, Level::Warn, text);
        }
        let now = cx.now.mono;
        match (was_full, self.is_full()) {
            (false, true) => {
                let told = self.degraded.full_told;
                if told.is_none_or(|told| now.since(told) >= TOLD_FOR) {
                    self.degraded.full_told = Some(now);
                    let bytes_max = cx.snapshot.config.settings.cache.bytes_max;
                    let text = self.degraded.describe_full(bytes_max).expect("it is full");
                    note(cx.out, Level::Warn, format!("{name}: {text}"));
                }
            }
            (true, false) => {
                let text = format!("{name}: the cache has room for all of it again");
                note(cx.out, Level::Info, text);
            }
            _ => {}
        }
    }

    /// Reads again what slices had no room for, if there is room now. Only while brokers answer:
    /// otherwise the topic keeps serving what is in memory.
    pub(super) fn refill_if_room(&mut self, cx: &mut HomeContext<'_>) {
        let stale = self.health.is_stale() || self.health.is_missing();
        let due = self.degraded.next_wanted();
        let Some(due) = due.filter(|_| self.live && !stale && !self.is_reading_again()) else {
            return;
        };
        let now = cx.now.mono;
        if now < due {
            self.health.check_by(due);
            return;
        }
        let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
        let degraded = &mut self.degraded;
        if degraded.wants_reload() && now >= degraded.reload.at {
            degraded.reload.on_try(now);
            let text = format!("{name}: the cache has room again; the topic is loaded anew");
            note(cx.out, Level::Info, text);
            return self.load_anew(cx);
        }
        let wanted = degraded.take_wanted(now);
        let text = format!("{name}: the cache has room again; what it left out is read again");
        note(cx.out, Level::Info, text);
        let order = self.order.as_ref().expect("a topic that is live has one");
        for (partition, from) in wanted {
            let end = order.next(partition);
            if from < end {
                let read = self.again(partition);
                cx.client.read(read, StartAt::At(Next::at(from)));
                if self.paused {
                    cx.client.pause(read);
                }
                self.degraded.reading.push((partition, end));
            }
        }
    }

    /// Handles an event of a read of earlier records.
    pub(super) fn on_read_again(&mut self, event: Event, cx: &mut HomeContext<'_>) {
        let (partition, reached) = match event {
            Event::Batch {
                read, batch, next, ..
            } => {
                if !batch.is_empty() {
                    let order = self.order.as_mut().expect("reads belong to an order");
                    let step = order.on_again(batch);
                    self.send(step, cx);
                    self.pause_if_full(cx);
                }
                (read.partition, next.offset)
            }
            // The read is stuck: the records behind can't be read.
            Event::Undecodable { read, from, to, .. } if from == to => {
                (read.partition, Offset(u64::MAX))
            }
            Event::Undecodable { read, to, .. } => (read.partition, to),
            Event::OutOfRange {
                read, log_start, ..
            } => (read.partition, log_start),
            // The client retries a read that fails.
            _ => return,
        };
        let is_over = |it: &(Partition, Offset)| it.0 == partition && reached >= it.1;
        if let Some(at) = self.degraded.reading.iter().position(is_over) {
            self.degraded.reading.remove(at);
            cx.client.stop(self.again(partition));
            self.health.check_by(Instant::ZERO);
        }
    }

    /// Ends all reads of earlier records.
    pub(super) fn stop_reading_again(&mut self, client: &mut Client) {
        for (partition, _) in std::mem::take(&mut self.degraded.reading) {
            client.stop(self.again(partition));
        }
    }

    fn is_reading_again(&self) -> bool {
        !self.degraded.reading.is_empty()
    }

    const fn again(&self, partition: Partition) -> ReadKey {
        self.read(Lane::Again, partition)
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
