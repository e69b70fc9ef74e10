//! The one order of a topic, made at its home. Records that a read brought wait until they are
//! ordered in steps of bounded size. Each step gets the next `seq`, the cut it leads to and, once
//! the topic is live, its events in every encoding. Shards receive it as an `Arc<Step>`.
//!
//! Three things are bounded: a step; the window, which only the home trims (each step names
//! the oldest one kept); and the memory of steps in flight, from ordering until the last shard has
//! applied them.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::log::{Batch, Block, Change, Cut, Next, OffsetRange, Seq, Step, WindowBudget};
use crate::model::{HashSecret, LogTag, Offset, Partition, ShardId, UnixMillis};
use crate::sse::{Encoder, Encoding};

use super::in_flight::InFlight;
use crate::shard::message::Incarnation;
use crate::shard::snapshot::Snapshot;
use crate::shard::topic_plan::TopicPlan;

/// Bytes of a step's blocks, over all encodings of the topic. A record whose events are larger is a
/// step of its own. Small enough that a step is encoded within a turn's budget, and large enough
/// that its fixed cost (a message to each shard, an entry in each window) does not count.
pub(super) const STEP_BYTES_MAX: usize = crate::config::STEP_BYTES_MAX;

/// Limits of one topic's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of blocks kept for subscribers, over all encodings.
    pub(super) window_bytes_max: usize,
    /// Bytes of batches and blocks not yet applied everywhere.
    pub(super) in_flight_bytes_max: usize,
    /// Bytes of the blocks of one step, over all encodings.
    pub(super) step_bytes_max: usize,
}

/// One incarnation of a topic, as its home orders it.
#[derive(Debug)]
pub(super) struct Order {
    tag: LogTag,
    secret: HashSecret,
    encoders: Vec<Encoder>,
    live: bool,
    seq: Seq,
    cut: Cut,
    time: UnixMillis,
    window: WindowBudget,
    /// The oldest step that is in the window.
    oldest: Seq,
    in_flight: InFlight,
    /// Records that are not ordered yet. A read brings the next piece only when the last one is
    /// ordered, so this is one piece, and empty ones behind it.
    waiting: VecDeque<Waiting>,
    step_bytes_max: usize,
}

/// What a read brought, or what is left of it.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    /// The place after the batch.
    next: Next,
}

type Blocks = SmallVec<[Option<Arc<Block>>; 2]>;

impl Order {
    /// The order of an incarnation, without a step.
    pub(super) fn open(
        incarnation: &Incarnation,
        plan: &TopicPlan,
        snapshot: &Snapshot,
        time: UnixMillis,
    ) -> Self {
        let settings = &snapshot.config.settings;
        let limits = Limits {
            window_bytes_max: settings.streams.window_bytes_max,
            in_flight_bytes_max: settings.kafka.topic_in_flight_bytes_max,
            step_bytes_max: snapshot.work.step_bytes_max,
        };
        let encodings = if incarnation.streamed {
            &plan.encodings[..]
        } else {
            &[]
        };
        let shared = plan.is_shared();
        let shards = snapshot.layout.slice_shards().filter(|_| shared);
        let (tag, secret) = (incarnation.tag, incarnation.secret);
        Self::new(tag, secret, limits, encodings, shards, time)
    }

    /// The order of a log from its start, shared with `shards`.
    pub(super) fn new(
        tag: LogTag,
        secret: HashSecret,
        limits: Limits,
        encodings: &[Encoding],
        shards: impl Iterator<Item = ShardId>,
        time: UnixMillis,
    ) -> Self {
        let encoders = encodings
            .iter()
            .map(|encoding| Encoder::new(encoding.clone(), tag));
        Self {
            tag,
            secret,
            encoders: encoders.collect(),
            live: false,
            seq: Seq(0),
            cut: Cut::start(),
            time,
            window: WindowBudget::new(limits.window_bytes_max),
            oldest: Seq(1),
            in_flight: InFlight::new(limits.in_flight_bytes_max, shards),
            waiting: VecDeque::new(),
            step_bytes_max: limits.step_bytes_max,
        }
    }

    /// Bytes of the blocks of one step. A larger record is a step of its own.
    pub(super) const fn step_bytes_max(&self) -> usize {
        self.step_bytes_max
    }

    /// Starts to encode events. Before the topic is live no stream is open.
    pub(super) const fn go_live(&mut self) {
        self.live = true;
    }

    /// The cut after the last step.
    pub(super) const fn cut(&self) -> &Cut {
        &self.cut
    }

    /// The identity of the log in short.
    pub(super) const fn tag(&self) -> LogTag {
        self.tag
    }

    /// Whether the window still has every step after `seq`.
    pub(super) fn holds_after(&self, seq: Seq) -> bool {
        self.oldest.0 <= seq.0 + 1
    }

    /// The key of ownership hashes.
    pub(super) const fn secret(&self) -> &HashSecret {
        &self.secret
    }

    /// The seq of the last step.
    pub(super) const fn seq(&self) -> Seq {
        self.seq
    }

    /// Queues what a read brought of one partition. `next` is the place after it.
    /// [`Self::next_step`] orders it.
    pub(super) fn push(&mut self, batch: Batch, next: Next) {
        self.waiting.push_back(Waiting { batch, next });
    }

    /// The partition whose records are ordered next, and the place after them.
    pub(super) fn next_place(&self) -> Option<(Partition, Next)> {
        let waiting = self.waiting.front()?;
        Some((waiting.batch.partition(), waiting.next))
    }

    /// Orders what waits, one step at a time. `time` is now if the whole cut is at the log's end
    /// once all of the next records are ordered. `None`: nothing changed.
    pub(super) fn next_step(&mut self, time: Option<UnixMillis>) -> Option<Arc<Step>> {
        let waiting = self.waiting.front_mut()?;
        let mut records = waiting.batch.len();
        if self.live {
            let bytes_max = self.step_bytes_max / self.encoders.len().max(1);
            for encoder in &mut self.encoders {
                let fitting = encoder.fitting(&waiting.batch, &self.cut, self.time, bytes_max);
                records = records.min(fitting);
            }
        }
        let (part, next) = waiting.batch.split_with_place(records, waiting.next);
        let all = waiting.batch.is_empty();
        if all {
            self.waiting.pop_front();
        }
        self.on_batch(part, next, time.filter(|_| all))
    }

    fn on_batch(
        &mut self,
        mut batch: Batch,
        next: Next,
        time: Option<UnixMillis>,
    ) -> Option<Arc<Step>> {
        let partition = batch.partition();
        let held = self.next(partition);
        if batch.is_empty() && next.offset <= held {
            return None;
        }
        // A read brings nothing below its place, which is the order's; where it must go back, since
        // the log was cut, the topic starts over.
        debug_assert!(
            end_of(&batch, held).is_some_and(|end| end <= next.offset),
            "only a new order goes back"
        );
        batch.hash_keys(&self.secret);
        let before = self.cut.clone();
        self.cut.set(partition, next);
        self.time = time.unwrap_or(self.time);
        let mut blocks = Blocks::new();
        if self.live {
            let encoders = self.encoders.iter_mut();
            let encoded = encoders.map(|e| e.records(&batch, &before, &self.cut, self.time));
            blocks.extend(encoded.map(|block| block.map(Arc::new)));
        }
        let change = if batch.is_empty() {
            Change::Nothing
        } else {
            Change::Records(batch)
        };
        Some(self.step(change, blocks))
    }

    /// Orders earlier records again, for slices that had no room for them.
    pub(super) fn on_again(&mut self, mut batch: Batch) -> Arc<Step> {
        batch.hash_keys(&self.secret);
        self.step(Change::Again(batch), Blocks::new())
    }

    /// Orders a step that changes nothing but the time, so that ids of a quiet topic stay young.
    pub(super) fn on_quiet(&mut self, time: UnixMillis) -> Arc<Step> {
        self.time = time;
        self.step(Change::Nothing, Blocks::new())
    }

    /// Orders a change that shows no record. A gap becomes a `gap` event of every stream.
    pub(super) fn on_change(&mut self, change: Change) -> Arc<Step> {
        let mut blocks = Blocks::new();
        if let Change::Gap {
            partition,
            from,
            to,
            reason,
        } = change
        {
            let before = self.cut.clone();
            if self.next(partition) < to {
                // The record before it was never read, so its epoch is unknown.
                self.cut.set(partition, Next::at(to));
            }
            if self.live {
                let (after, time) = (&self.cut, self.time);
                let range = OffsetRange {
                    partition,
                    from,
                    to,
                };
                let encoders = self.encoders.iter_mut();
                let gaps = encoders.map(|e| e.gap(range, reason, &before, after, time));
                blocks.extend(gaps.map(|block| Some(Arc::new(block))));
            }
        }
        self.step(change, blocks)
    }

    /// A shard has applied all up to `seq`.
    pub(super) fn on_applied(&mut self, shard: ShardId, seq: Seq) {
        self.in_flight.on_applied(shard, seq, self.seq);
    }

    /// Steps that are not yet applied everywhere.
    pub(super) const fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Bytes of the blocks that the window keeps.
    pub(super) const fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// The first offset of `partition` that has not been ordered.
    pub(super) fn next(&self, partition: Partition) -> Offset {
        self.cut.get(partition).offset
    }

    fn step(&mut self, change: Change, blocks: Blocks) -> Arc<Step> {
        self.seq = Seq(self.seq.0 + 1);
        self.oldest = self.window.push(self.seq, &blocks);
        let step = Step {
            seq: self.seq,
            cut: self.cut.clone(),
            time: self.time,
            oldest: self.oldest,
            change,
            blocks,
        };
        self.in_flight.push(&step);
        Arc::new(step)
    }
}

/// The place after a batch, if its records are in order and none is below `from`.
fn end_of(batch: &Batch, from: Offset) -> Option<Offset> {
    let mut offsets = batch.iter().map(|record| record.offset);
    offsets.try_fold(from, |at, offset| (at <= offset).then_some(offset.next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{Draft, batch};

    fn order(secret: HashSecret) -> Order {
        of_encodings(secret, &[])
    }

    fn of_encodings(secret: HashSecret, encodings: &[Encoding]) -> Order {
        let limits = Limits {
            window_bytes_max: 1 << 20,
            in_flight_bytes_max: 1 << 20,
            step_bytes_max: STEP_BYTES_MAX,
        };
        let shards = [ShardId(0), ShardId(1)].into_iter();
        let tag = LogTag([1; 4]);
        Order::new(tag, secret, limits, encodings, shards, UnixMillis(0))
    }

    /// The steps of records of partition 1 with values of this size.
    fn steps_of(count: u64, value: usize, encodings: usize) -> Vec<Arc<Step>> {
        let secret = HashSecret::derived_from(b"c");
        let mut order = of_encodings(secret, &vec![Encoding::default(); encodings]);
        order.go_live();
        let value = "v".repeat(value);
        let drafts: Vec<_> = (0..count)
            .map(|offset| Draft::new(offset, "k", Some(&value)))
            .collect();
        order.push(batch(1, &drafts, &secret), Next::at(Offset(count + 3)));
        let now = UnixMillis(5000);
        let mut steps = Vec::new();
        while order.next_place().is_some() {
            steps.extend(order.next_step(Some(now)));
        }
        steps
    }

    #[test]
    fn much_is_ordered_in_steps_within_the_limit_and_only_the_last_is_at_the_end() {
        for encodings in [1, 3] {
            let steps = steps_of(2000, 300, encodings);
            assert!(steps.len() > 2 * encodings, "{}", steps.len());
            let mut next = 0;
            for (i, step) in steps.iter().enumerate() {
                let blocks = step.blocks.iter().flatten();
                let bytes: usize = blocks.map(|block| block.bytes_held()).sum();
                assert!(bytes <= STEP_BYTES_MAX);
                assert!(
                    bytes > STEP_BYTES_MAX / 2 || i + 1 == steps.len(),
                    "{bytes}"
                );
                let Change::Records(batch) = &step.change else {
                    panic!("{step:?}");
                };
                assert!(batch.iter().all(|record| {
                    next += 1;
                    record.offset.0 + 1 == next && record.key == Some(b"k")
                }));
                let last = i + 1 == steps.len();
                let place = step.cut.get(Partition(1)).offset;
                assert_eq!(place, Offset(if last { 2003 } else { next }));
                assert_eq!(step.time, UnixMillis(if last { 5000 } else { 0 }));
            }
            assert_eq!(next, 2000);
        }
    }

    #[test]
    fn what_fits_is_one_step() {
        assert_eq!(steps_of(500, 200, 1).len(), 1);
        assert_eq!(steps_of(1, 200, 4).len(), 1);
    }

    #[test]
    fn a_record_larger_than_a_step_is_a_step_of_its_own() {
        assert_eq!(steps_of(3, STEP_BYTES_MAX, 1).len(), 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "only a new order goes back")]
    fn a_record_below_the_order_is_a_broken_read() {
        let secret = HashSecret::derived_from(b"c");
        let mut order = order(secret);
        let of = |offset| batch(0, &[Draft::new(offset, "k", Some("v"))], &secret);
        order.push(of(4), Next::at(Offset(5)));
        order.push(of(4), Next::at(Offset(6)));
        let _steps = (order.next_step(None), order.next_step(None));
    }

    #[test]
    fn bytes_in_flight_are_known_by_partition_until_every_shard_has_applied() {
        let secret = HashSecret::derived_from(b"c");
        let mut order = order(secret);
        let record = Draft::new(0, "k", Some("v"));
        let (none, some) = (batch(0, &[], &secret), batch(2, &[record], &secret));
        let held = some.bytes_held();
        order.push(none, Next::at(Offset(5)));
        order.push(some, Next::at(Offset(1)));
        let (moved, brought) = (order.next_step(None), order.next_step(None));
        let of = |order: &Order, partition| order.in_flight().bytes_of(Partition(partition));
        assert!(of(&order, 2) >= held && held > 0);
        assert_eq!(
            (of(&order, 0), of(&order, 7)),
            (0, 0),
            "they brought nothing"
        );
        assert!(
            order.in_flight().bytes() > of(&order, 2),
            "steps take room too"
        );
        let (moved, brought) = (moved.expect("a step"), brought.expect("a step"));
        order.on_applied(ShardId(0), brought.seq);
        order.on_applied(ShardId(1), moved.seq);
        assert!(of(&order, 2) >= held, "one shard has not applied it");
        order.on_applied(ShardId(1), brought.seq);
        assert_eq!((of(&order, 2), order.in_flight().bytes()), (0, 0));
    }
}
