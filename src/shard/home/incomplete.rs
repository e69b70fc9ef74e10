//! What a topic does about records that its projections lack: it reports them, and reads records
//! that had no room again once there is room. `degraded.rs` has what is known of them.

use crate::cache::Gaps;
use crate::kafka::{Client, Event, KafkaError, Lane, ReadKey, StartAt};
use crate::log::{Change, GapReason, Next};
use crate::model::{Instant, Offset, Partition, ShardId};

use super::context::{HomeContext, note};
use super::degraded::{Pace, SliceGaps, TOLD_FOR};
use super::topic::Topic;
use crate::shard::message::Level;

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
        let change = if to == from {
            Change::Stuck { partition, from }
        } else {
            Change::Gap {
                partition,
                from,
                to,
                reason: GapReason::Undecodable,
            }
        };
        self.change(change, cx);
        let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
        // A topic with projections is reported once, until the log no longer has any of the ranges.
        let text = if self.degraded.kept {
            if first {
                self.degraded.describe_ranges(self.commands.is_some())
            } else {
                None
            }
        } else if to == from {
            Some(format!(
                "partition {} from offset {} on: {error}; nothing after it can be read",
                partition.0, from.0
            ))
        } else {
            Some(format!(
                "partition {} offsets {} to {}: {error}; skipped",
                partition.0,
                from.0,
                to.0.saturating_sub(1)
            ))
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
