//! One incarnation of a topic at its home: the reads of its partitions, and the order that is made
//! of what they bring. Every step of the topic is made here; `Topic` passes it on.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{Client, Event, Lane, ReadKey, StartAt};
use crate::log::{Batch, Change, Next, Seq, Step};
use crate::metrics::{PartitionStatus, ShardMetrics};
use crate::model::{Instant, Now, Offset, Partition, ShardId, UnixMillis, u32_of};

use super::health::ReadPosition;
use super::loading::{Unread, skips};
use super::order::Order;
use super::partitions::{Part, Partitions};
use super::topic_ids::TopicIds;
use crate::shard::topic_plan::TopicPlan;

/// How long a quiet topic may go without a step that moves the time of its ids.
const QUIET: Duration = Duration::from_secs(10);

/// The partitions and the order of one incarnation.
///
/// A read brings records: [`Self::push`]. [`Self::next_step`] orders them, one bounded step at a
/// time. [`Self::go_live_if_loaded`] ends the loading. While the steps in flight hold too much
/// memory, the topic is paused: its partitions are neither fetched nor unpacked.
#[derive(Debug)]
pub(super) struct TopicLog {
    ids: TopicIds,
    /// The lane of the reads that follow the log's end.
    lane: Lane,
    order: Order,
    parts: Partitions,
    /// The number of partitions with which the incarnation began.
    opened_with: usize,
    live: bool,
    paused: bool,
    /// Whether [`Self::skip_to_fit`] has decided.
    fitted: bool,
    /// When the last step was made. A quiet topic makes a step for its time now and then.
    last_step: Instant,
}

impl TopicLog {
    /// An incarnation whose partitions are not read yet. `last_step` is when the incarnation before
    /// made its last step.
    pub(super) fn new(
        ids: TopicIds,
        plan: &TopicPlan,
        order: Order,
        opened_with: u32,
        last_step: Instant,
    ) -> Self {
        Self {
            ids,
            lane: lane(plan),
            order,
            parts: Partitions::default(),
            opened_with: opened_with as usize,
            live: false,
            paused: false,
            fitted: false,
            last_step,
        }
    }

    pub(super) const fn order(&self) -> &Order {
        &self.order
    }

    /// The partitions that are read, by number.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether all that the topic's users need is read.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether partitions were added since the incarnation began.
    pub(super) fn has_grown(&self) -> bool {
        self.parts.len() > self.opened_with
    }

    pub(super) const fn last_step(&self) -> Instant {
        self.last_step
    }

    /// How far a partition is read.
    pub(super) fn position(&self, partition: Partition, client: &Client) -> Option<ReadPosition> {
        let part = self.parts.get(partition.0 as usize)?;
        Some(ReadPosition {
            next: self.order.next(partition),
            loaded_at: part.loaded_at,
            loaded_from: part.loaded_from,
            log_start: part.log_start,
            stable_end: part.stable_end,
            high_watermark: part.high_watermark,
            confirmed: client.confirmed(self.ids.read(self.lane, partition)),
        })
    }

    // Reads.

    /// Begins to read the next partition. `from` is where.
    pub(super) fn read_next(&mut self, from: StartAt, client: &mut Client) {
        let read = self
            .ids
            .read(self.lane, Partition(u32_of(self.parts.len())));
        client.read(read, from);
        self.pause_new(read, client);
        self.parts.add();
    }

    /// Pauses a read that has just begun, if the topic is paused.
    pub(super) fn pause_new(&self, read: ReadKey, client: &mut Client) {
        if self.paused {
            client.pause(read);
        }
    }

    /// Pauses all reads if the steps in flight hold too much memory. Returns true if the topic was
    /// not paused before.
    #[must_use]
    pub(super) fn pause_if_full(&mut self, client: &mut Client) -> bool {
        if self.paused || !self.order.in_flight().is_full() {
            return false;
        }
        self.paused = true;
        self.reads().for_each(|read| client.pause(read));
        true
    }

    /// A shard has applied all up to `seq`. A paused topic is read again once there is room.
    pub(super) fn on_applied(&mut self, shard: ShardId, seq: Seq, client: &mut Client) {
        self.order.on_applied(shard, seq);
        if self.paused && self.order.in_flight().has_room() {
            self.paused = false;
            self.reads().for_each(|read| client.resume(read));
        }
    }

    /// No shard applies the steps of a topic without projections: a step is done once it is made.
    pub(super) fn on_applied_here(&mut self, seq: Seq) {
        self.order.on_applied(ShardId(0), seq);
    }

    /// The reads that follow the log's end, and those of records that slices had no room for.
    fn reads(&self) -> impl Iterator<Item = ReadKey> + use<> {
        let (ids, lanes) = (self.ids, [self.lane, Lane::Again]);
        let parts = (0..u32_of(self.parts.len())).map(Partition);
        parts.flat_map(move |partition| lanes.map(|lane| ids.read(lane, partition)))
    }

    /// A read has begun at `from`. `end`: the last stable offset.
    pub(super) fn on_started(&mut self, partition: Partition, from: Offset, end: Offset) {
        self.parts.on_started(partition, from, end);
    }

    /// Skips the oldest records of a topic that loads, so that at most about `offsets_max` offsets
    /// are left to read. Called when a read has begun. Decides once, when all of them have: only
    /// then is it known how much there is. Returns the partitions whose reads begin again, and
    /// where.
    pub(super) fn skip_to_fit(
        &mut self,
        offsets_max: u64,
        client: &mut Client,
    ) -> Vec<(Partition, Offset)> {
        if self.live || self.fitted {
            return Vec::new();
        }
        let ranges: Option<Vec<Unread>> = (0..)
            .map(Partition)
            .zip(self.parts.iter())
            .map(|(partition, part)| {
                let (from, to) = (self.order.next(partition), part.loaded_at?);
                Some(Unread {
                    partition,
                    from,
                    to,
                })
            })
            .collect();
        let Some(ranges) = ranges else {
            return Vec::new();
        };
        self.fitted = true;
        let skips = skips(&ranges, offsets_max);
        for &(partition, offset) in &skips {
            let read = self.ids.read(self.lane, partition);
            client.read(read, StartAt::At(Next::at(offset)));
            self.pause_new(read, client);
        }
        skips
    }

    /// A broker has reported where a partition's log ends.
    pub(super) fn on_ends(
        &mut self,
        partition: Partition,
        stable_end: Offset,
        high_watermark: Offset,
    ) {
        self.parts.on_ends(partition, stable_end, high_watermark);
    }

    /// Whether the log no longer has what was ordered. Either the log no longer reaches the
    /// position of a read, or a catch-up read met a newer epoch below the order's end than the
    /// order has there.
    pub(super) fn was_cut_back(&self, event: &Event) -> bool {
        match event {
            Event::Truncated { .. } => true,
            Event::OutOfRange {
                wanted, log_start, ..
            } => wanted >= log_start,
            Event::Batch { read, next, .. } if read.lane == Lane::History => {
                let ours = self.order.cut().get(read.partition);
                let epochs = ours.epoch.0.zip(next.epoch.0);
                next.offset <= ours.offset && epochs.is_some_and(|(ours, next)| next > ours)
            }
            _ => false,
        }
    }

    // Steps.

    /// Queues what a read brought of a partition. Returns true if it is ordered at once: it holds
    /// no record, and nothing waits before it.
    #[must_use]
    pub(super) fn push(&mut self, batch: Batch, next: Next) -> bool {
        let at_once = batch.is_empty() && !self.has_waiting();
        self.order.push(batch, next);
        at_once
    }

    /// Whether records wait to be ordered.
    pub(super) fn has_waiting(&self) -> bool {
        self.order.next_place().is_some()
    }

    /// Orders one step of the records that wait. `None`: nothing changed.
    pub(super) fn next_step(&mut self, now: Now) -> Option<Arc<Step>> {
        let (partition, next) = self.order.next_place()?;
        let time = self.is_at_end(partition, next.offset).then_some(now.wall);
        let quiet = time.filter(|_| self.is_quiet(now));
        let step = self.order.next_step(time);
        let step = step.or_else(|| quiet.map(|time| self.order.on_quiet(time)))?;
        Some(self.made(step, now))
    }

    /// Makes a step that moves the time of a quiet topic, if none was made for 10 s. `confirmed`:
    /// when brokers last confirmed all partitions, and so the time to which the step moves.
    pub(super) fn quiet_step_if_due(&mut self, confirmed: Instant, now: Now) -> Option<Arc<Step>> {
        let news = self.is_quiet(now) && confirmed > self.last_step;
        if !news || !self.parts.are_all_at_end(&self.order) {
            return None;
        }
        let age = i64::try_from(now.mono.since(confirmed).as_millis()).unwrap_or(i64::MAX);
        let step = self.order.on_quiet(UnixMillis(now.wall.0 - age));
        Some(self.made(step, now))
    }

    /// A broker reports where a partition's log starts. `None`: it has not moved.
    pub(super) fn on_log_start(
        &mut self,
        partition: Partition,
        offset: Offset,
        now: Now,
    ) -> Option<Arc<Step>> {
        let moved = self.parts.on_log_start(partition, offset);
        moved.then(|| self.change(Change::LogStart { partition, offset }, now))
    }

    /// Orders a change that shows no record.
    pub(super) fn change(&mut self, change: Change, now: Now) -> Arc<Step> {
        let step = self.order.on_change(change);
        self.made(step, now)
    }

    /// Orders earlier records again, for slices that had no room for them.
    pub(super) fn again(&mut self, batch: Batch, now: Now) -> Arc<Step> {
        let step = self.order.on_again(batch);
        self.made(step, now)
    }

    /// Goes live if every partition is loaded, and every shard has applied all of it: only then do
    /// slices know what they lack. Returns the first step of the live topic.
    pub(super) fn go_live_if_loaded(&mut self, now: Now) -> Option<Arc<Step>> {
        let applied = self.order.in_flight().is_empty();
        if self.live || !applied || !self.parts.are_loaded(&self.order) {
            return None;
        }
        self.live = true;
        self.order.go_live();
        Some(self.quiet_step(now))
    }

    fn quiet_step(&mut self, now: Now) -> Arc<Step> {
        let step = self.order.on_quiet(now.wall);
        self.made(step, now)
    }

    fn made(&mut self, step: Arc<Step>, now: Now) -> Arc<Step> {
        self.last_step = now.mono.max(self.last_step);
        step
    }

    fn is_quiet(&self, now: Now) -> bool {
        now.mono.since(self.last_step) >= QUIET
    }

    /// Whether every partition has been read to its end, if `partition` is read up to `next`.
    fn is_at_end(&self, partition: Partition, next: Offset) -> bool {
        self.parts.are_at_end(&self.order, partition, next)
    }

    // Reports.

    /// The state of each partition, for `/status`. What is counted over all incarnations is left
    /// for the topic to fill in.
    pub(super) fn partitions_status(&self) -> impl Iterator<Item = PartitionStatus> + '_ {
        (0..).zip(self.parts.iter()).map(|(number, part)| {
            let partition = Partition(number);
            let next = self.order.next(partition).0;
            PartitionStatus {
                partition: number,
                next_offset: next,
                last_stable_offset: part.stable_end.0,
                high_watermark: part.high_watermark.0,
                lag: part.stable_end.0.saturating_sub(next),
                in_flight_bytes: self.order.in_flight().bytes_of(partition) as u64,
                paused: 0,
                failed: 0,
            }
        })
    }

    /// Updates the topic's gauges in the shard's metrics.
    pub(super) fn count(&self, metrics: &mut ShardMetrics) {
        let index = usize::from(self.ids.index.0);
        let (mut sum, mut most, mut unstable) = (0, 0, 0);
        for status in self.partitions_status() {
            let open = status
                .high_watermark
                .saturating_sub(status.last_stable_offset);
            let of_part = metrics.partition(index, status.partition);
            of_part.lag.set(status.lag);
            of_part.unstable.set(open);
            of_part.in_flight_bytes.set(status.in_flight_bytes);
            sum += status.lag;
            most = most.max(status.lag);
            unstable += open;
        }
        let topic = &mut metrics.topics[index];
        topic.lag.set(sum);
        topic.lag_max.set(most);
        topic.unstable.set(unstable);
        topic.window_bytes.set(self.order.window_bytes() as u64);
        topic
            .in_flight_bytes
            .set(self.order.in_flight().bytes() as u64);
    }
}

/// The lane of the reads that follow the topic's end.
const fn lane(plan: &TopicPlan) -> Lane {
    // No stream may delay a decision about a command.
    if plan.holds_replies || plan.is_indexed() {
        Lane::Replies
    } else {
        Lane::Streams
    }
}
