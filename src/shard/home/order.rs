//! The one order of a topic, made at its home: each batch gets the next `seq`, the cut it leads to
//! and, once the topic is live, its events in every encoding. What crosses is an `Arc<Step>`.
//!
//! Two things are bounded here: the window, which only the home trims (each step names the oldest
//! one kept), and the bytes in flight, counted from fetch to the last shard's apply.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::log::{Batch, Block, Change, Cut, Next, Seq, Step, WindowBudget};
use crate::model::{HashSecret, LogTag, Offset, Partition, ShardId, UnixMillis};
use crate::sse::{Encoder, Encoding};

/// Limits of one topic's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of blocks kept for subscribers, over all encodings.
    pub(super) window_bytes_max: usize,
    /// Bytes of batches and blocks not yet applied everywhere.
    pub(super) in_flight_bytes_max: usize,
}

/// One instance of a topic, as its home orders it.
#[derive(Debug)]
pub(super) struct Order {
    tag: LogTag,
    secret: HashSecret,
    in_flight_bytes_max: usize,
    encoders: Vec<Encoder>,
    live: bool,
    seq: Seq,
    cut: Cut,
    time: UnixMillis,
    window: WindowBudget,
    /// The oldest step that is in the window.
    oldest: Seq,
    /// Steps not yet applied everywhere, oldest first.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// Of the bytes those of each partition's records, by its number.
    in_flight_of: Vec<usize>,
    /// What each shard that gets the steps has applied.
    applied: Vec<(ShardId, Seq)>,
}

/// A step on its way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    seq: Seq,
    /// Whose records it has, if any.
    partition: Option<Partition>,
    bytes: usize,
}

type Blocks = SmallVec<[Option<Arc<Block>>; 2]>;

impl Order {
    /// The order of a log from `cut` on, shared with `shards`.
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
            in_flight_bytes_max: limits.in_flight_bytes_max,
            encoders: encoders.collect(),
            live: false,
            seq: Seq(0),
            cut: Cut::start(),
            time,
            window: WindowBudget::new(limits.window_bytes_max),
            oldest: Seq(1),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            in_flight_of: Vec::new(),
            applied: shards.map(|shard| (shard, Seq(0))).collect(),
        }
    }

    /// From now on events are encoded: before, no stream can be open.
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

    /// The last step.
    pub(super) const fn seq(&self) -> Seq {
        self.seq
    }

    /// Orders what a fetch brought of one partition. `time` is now if the whole cut is at the
    /// log's end with it. `None`: nothing moved, nobody need know.
    pub(super) fn on_batch(
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
        let bytes = batch.bytes_held();
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
        Some(self.step(change, blocks, bytes))
    }

    /// Orders earlier records again, for slices that had no room for them.
    pub(super) fn on_again(&mut self, mut batch: Batch) -> Arc<Step> {
        let bytes = batch.bytes_held();
        batch.hash_keys(&self.secret);
        self.step(Change::Again(batch), Blocks::new(), bytes)
    }

    /// Says that time has passed at the log's end, so that ids of a quiet topic stay young.
    pub(super) fn on_quiet(&mut self, time: UnixMillis) -> Arc<Step> {
        self.time = time;
        self.step(Change::Nothing, Blocks::new(), 0)
    }

    /// Orders a change that shows no record. What streams must be told becomes a `gap` event.
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
                // Nobody has seen the record before it, so nobody knows its epoch.
                self.cut.set(partition, Next::at(to));
            }
            if self.live {
                let (after, time, place) = (&self.cut, self.time, (partition, from, to));
                let encoders = self.encoders.iter_mut();
                let gaps = encoders.map(|e| e.gap(place, reason, &before, after, time));
                blocks.extend(gaps.map(|block| Some(Arc::new(block))));
            }
        }
        self.step(change, blocks, 0)
    }

    /// A shard has applied all up to `seq`.
    pub(super) fn on_applied(&mut self, shard: ShardId, seq: Seq) {
        if let Some(entry) = self.applied.iter_mut().find(|(s, _)| *s == shard) {
            entry.1 = entry.1.max(seq);
        }
        let everywhere = self
            .applied
            .iter()
            .map(|(_, seq)| *seq)
            .min()
            .unwrap_or(self.seq);
        while let Some(step) = self.in_flight.front().copied()
            && step.seq <= everywhere
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= step.bytes;
            if let Some(partition) = step.partition {
                self.in_flight_of[partition.0 as usize] -= step.bytes;
            }
        }
    }

    /// Whether every shard has applied every step.
    pub(super) fn is_applied(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the topic's partitions must leave the Fetch until shards have caught up.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight_bytes >= self.in_flight_bytes_max
    }

    /// Whether they may come back.
    pub(super) const fn has_room(&self) -> bool {
        self.in_flight_bytes <= self.in_flight_bytes_max / 2
    }

    /// Bytes of the window.
    pub(super) const fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// Bytes not yet applied everywhere.
    pub(super) const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Of those the ones that hold a partition's records.
    pub(super) fn in_flight_bytes_of(&self, partition: Partition) -> usize {
        let bytes = self.in_flight_of.get(partition.0 as usize);
        bytes.copied().unwrap_or_default()
    }

    /// The first offset of `partition` that has not been ordered.
    pub(super) fn next(&self, partition: Partition) -> Offset {
        self.cut.get(partition).offset
    }

    fn step(&mut self, change: Change, blocks: Blocks, bytes: usize) -> Arc<Step> {
        self.seq = Seq(self.seq.0 + 1);
        let encoded: usize = blocks
            .iter()
            .flatten()
            .map(|block| block.bytes_held())
            .sum();
        let bytes = bytes + encoded + size_of::<Step>();
        let partition = match &change {
            Change::Records(batch) | Change::Again(batch) => Some(batch.partition()),
            _ => None,
        };
        self.in_flight.push_back(InFlight {
            seq: self.seq,
            partition,
            bytes,
        });
        self.in_flight_bytes += bytes;
        if let Some(Partition(number)) = partition {
            let number = number as usize;
            if self.in_flight_of.len() <= number {
                self.in_flight_of.resize(number + 1, 0);
            }
            self.in_flight_of[number] += bytes;
        }
        self.oldest = self.window.push(self.seq, &blocks);
        let (seq, cut, time) = (self.seq, self.cut.clone(), self.time);
        Arc::new(Step {
            seq,
            cut,
            time,
            oldest: self.oldest,
            change,
            blocks,
        })
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
        let limits = Limits {
            window_bytes_max: 1 << 20,
            in_flight_bytes_max: 1 << 20,
        };
        let shards = [ShardId(0), ShardId(1)].into_iter();
        Order::new(LogTag([1; 4]), secret, limits, &[], shards, UnixMillis(0))
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "only a new order goes back")]
    fn a_record_below_the_order_is_a_broken_read() {
        let secret = HashSecret::derived_from(b"c");
        let mut order = order(secret);
        let of = |offset| batch(0, &[Draft::new(offset, "k", Some("v"))], &secret);
        order.on_batch(of(4), Next::at(Offset(5)), None);
        order.on_batch(of(4), Next::at(Offset(6)), None);
    }

    #[test]
    fn bytes_in_flight_are_known_by_partition_until_every_shard_has_applied() {
        let secret = HashSecret::derived_from(b"c");
        let mut order = order(secret);
        let record = Draft::new(0, "k", Some("v"));
        let (none, some) = (batch(0, &[], &secret), batch(2, &[record], &secret));
        let held = some.bytes_held();
        let moved = order.on_batch(none, Next::at(Offset(5)), None);
        let brought = order.on_batch(some, Next::at(Offset(1)), None);
        let of = |order: &Order, partition| order.in_flight_bytes_of(Partition(partition));
        assert!(of(&order, 2) >= held && held > 0);
        assert_eq!(
            (of(&order, 0), of(&order, 7)),
            (0, 0),
            "they brought nothing"
        );
        assert!(
            order.in_flight_bytes() > of(&order, 2),
            "steps take room too"
        );
        let (moved, brought) = (moved.expect("a step"), brought.expect("a step"));
        order.on_applied(ShardId(0), brought.seq);
        order.on_applied(ShardId(1), moved.seq);
        assert!(of(&order, 2) >= held, "one shard has not applied it");
        order.on_applied(ShardId(1), brought.seq);
        assert_eq!((of(&order, 2), order.in_flight_bytes()), (0, 0));
    }
}
