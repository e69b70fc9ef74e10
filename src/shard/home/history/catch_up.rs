//! A catch-up read: what it reads, what it has sent to which shard, and where it ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::context::HistoryContext;
use crate::kafka::records::PieceLimits;
use crate::kafka::{Event, Lane, ReadId, ReadKey, StartAt, TopicHandle};
use crate::log::{Batch, Cut, GapReason, Next, Notice, Seq};
use crate::model::{Instant, Offset, Partition, ShardId, UnixMillis};
use crate::shard::home::order::STEP_BYTES_MAX;
use crate::shard::home::partitions::log_start;
use crate::shard::message::FeedMessage;
use crate::sse::{Encoder, StreamQuestion};

/// Pieces that a catch-up read may hold, of [`PieceLimits::BYTES`] each: its reads are paused while
/// it has more. More than one, so that members need not wait for a broker after each block.
const PIECES_MAX: usize = crate::config::CATCH_UP_PIECES_MAX;

const _: () = {
    // A piece makes one block, or few: what a topic's catch-up read holds is bounded by them.
    assert!(PieceLimits::BYTES <= STEP_BYTES_MAX);
};

/// Streams that one turn makes members, at the home and on their shard.
pub(super) const JOINS_MAX: usize = 512;

/// How long a catch-up read may bring nothing before it is checked for a stall, and how often then.
pub(super) const STALL_CHECK_EVERY: Duration = Duration::from_secs(2);

/// A catch-up read that runs.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Unique in its topic, over all incarnations.
    number: u32,
    shares: Vec<Share>,
    encoder: Encoder,
    /// What has been sent, per partition.
    reached: Cut,
    /// The step at which it ends, and that step's cut.
    target: (Seq, Cut),
    /// The partitions that are being read.
    reading: Vec<Partition>,
    paused: bool,
    pieces: VecDeque<HistoryPiece>,
    check_at: Instant,
}

/// What a read brought and no shard has been sent yet.
#[derive(Debug)]
enum HistoryPiece {
    /// Records, maybe none, and the position after them.
    Records(Batch, Next),
    /// Offsets that are no longer in the log, or can't be decoded.
    Missing(Notice),
}

/// The members on one shard, as far as the home knows.
#[derive(Clone, Copy, Debug)]
struct Share {
    shard: ShardId,
    members: usize,
    /// Blocks that were sent and are not taken yet: 0 or 1.
    owed: usize,
}

/// The streams that join a catch-up read.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Of each partition, the lowest position of any member.
    lowest: Option<Cut>,
    questions: BTreeMap<ShardId, Vec<StreamQuestion>>,
}

impl Members {
    /// Adds a stream whose client holds `from`. `live`: the cut of the order.
    pub(super) fn add(&mut self, question: StreamQuestion, from: &Cut, live: &Cut) {
        let of_shard = self.questions.entry(question.exchange.shard);
        of_shard.or_default().push(question);
        match &mut self.lowest {
            None => self.lowest = Some(from.clone()),
            Some(lowest) => {
                for (partition, _) in live.iter() {
                    let held = from.get(partition);
                    if held.offset < lowest.get(partition).offset {
                        lowest.set(partition, held);
                    }
                }
            }
        }
    }
}

/// What a catch-up read has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// The catch-up read waits for records, or for its members.
    Waiting,
    /// The catch-up read has no members any more.
    Abandoned,
    /// The catch-up read has met the order: the window has all that its members lack now.
    Met,
}

impl CatchUp {
    /// Starts at the lowest position of its members.
    pub(super) fn start(
        number: u32,
        encoder: Encoder,
        members: Members,
        at: &mut HistoryContext<'_>,
    ) -> Self {
        let lowest = members.lowest.unwrap_or_default();
        let log_start = log_start(at.parts);
        let mut reached = Cut::start();
        for (partition, _) in at.order.cut().iter() {
            let (start, held) = (log_start.get(partition), lowest.get(partition));
            let first = if start.offset > held.offset {
                start
            } else {
                held
            };
            reached.set(partition, first);
        }
        let mut new = Self {
            number,
            shares: Vec::new(),
            encoder,
            reached,
            target: (Seq(0), Cut::start()),
            reading: Vec::new(),
            paused: false,
            pieces: VecDeque::new(),
            check_at: at.now.mono.after(STALL_CHECK_EVERY),
        };
        new.aim(at);
        for (shard, questions) in members.questions {
            new.shares.push(Share {
                shard,
                members: questions.len(),
                owed: 0,
            });
            for members in questions.chunks(JOINS_MAX) {
                let joined = FeedMessage::CatchUpJoined {
                    catch_up: number,
                    members: members.to_vec(),
                    log_start: log_start.clone(),
                };
                at.to_feed(shard, joined);
            }
        }
        new
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Moves the end to where the order is now, and reads what is missing.
    fn aim(&mut self, at: &mut HistoryContext<'_>) {
        self.target = (at.order.seq(), at.order.cut().clone());
        for (partition, live) in at.order.cut().iter() {
            let reached = self.reached.get(partition);
            if reached.offset < live.offset && !self.reading.contains(&partition) {
                self.reading.push(partition);
                let read = history(at.handle, partition, self.number);
                at.client.read(read, StartAt::At(reached));
            }
        }
    }

    /// Takes what a read brought. Returns its partition, unless the event is of no use here: it is
    /// about an earlier catch-up read, or about a failed read, which the client retries.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        at: &mut HistoryContext<'_>,
    ) -> Option<Partition> {
        if event.read().is_none_or(|read| read.id.0 != self.number) {
            return None;
        }
        let (read, piece, next) = match event {
            Event::Batch {
                read,
                mut batch,
                next,
                ..
            } => {
                batch.hash_keys(at.order.secret());
                (read, HistoryPiece::Records(batch, next), next.offset)
            }
            Event::Undecodable { read, from, to, .. } => {
                // If not even the start of the next batch is known, all up to the end is a gap.
                // Otherwise the members would wait for ever.
                let end = self.target.1.get(read.partition).offset;
                let to = if to == from { end.max(from.next()) } else { to };
                gap(read, from, to, GapReason::Undecodable)
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } if wanted < log_start => gap(read, wanted, log_start, GapReason::Retention),
            _ => return None,
        };
        self.pieces.push_back(piece);
        if next >= self.target.1.get(read.partition).offset {
            at.client.stop(read);
            self.reading.retain(|it| *it != read.partition);
        }
        self.check_at = at.now.mono.after(STALL_CHECK_EVERY);
        Some(read.partition)
    }

    /// The members on a shard have taken the last block, or left.
    pub(super) fn on_taken(&mut self, shard: ShardId, members: usize) {
        if let Some(share) = self.shares.iter_mut().find(|it| it.shard == shard) {
            share.owed = share.owed.saturating_sub(1);
            share.members = members;
        }
        self.shares.retain(|it| it.members > 0 || it.owed > 0);
    }

    /// Sends pieces as long as no shard owes a block. `pauses` counts by partition.
    pub(super) fn advance(
        &mut self,
        pauses: &mut BTreeMap<Partition, u64>,
        at: &mut HistoryContext<'_>,
    ) -> Advance {
        while !self.is_owed()
            && let Some(piece) = self.pieces.pop_front()
        {
            match piece {
                HistoryPiece::Records(batch, next) => self.send_next(batch, next, at),
                HistoryPiece::Missing(missing) => self.skip(missing, at),
            }
        }
        let complete = self.reached.covers(&self.target.1) && !self.is_owed();
        let met = complete && at.order.holds_after(self.target.0);
        if complete && !met {
            // Meanwhile the window has moved past the target.
            self.aim(at);
        }
        self.pace(pauses, at);
        match (self.shares.is_empty(), met) {
            (_, true) => Advance::Met,
            (true, false) => Advance::Abandoned,
            (false, false) => Advance::Waiting,
        }
    }

    fn is_owed(&self) -> bool {
        self.shares.iter().any(|share| share.owed > 0)
    }

    /// Sends as many records as fit a block. The others stay for the next block.
    fn send_next(&mut self, mut batch: Batch, next: Next, at: &mut HistoryContext<'_>) {
        let time = UnixMillis(0);
        let bytes_max = at.order.step_bytes_max();
        let fitting = self.encoder.fitting(&batch, &self.reached, time, bytes_max);
        let part = batch.split_to(fitting);
        match part.last_offset() {
            Some(last) if !batch.is_empty() => {
                self.pieces.push_front(HistoryPiece::Records(batch, next));
                let (offset, epoch) = (last.next(), part.epoch());
                self.send(&part, Next { offset, epoch }, at);
            }
            _ => self.send(&part, next, at),
        }
    }

    /// Encodes records once and sends them to every shard with members.
    fn send(&mut self, batch: &Batch, next: Next, at: &mut HistoryContext<'_>) {
        let before = self.reached.clone();
        let partition = batch.partition();
        if next.offset > before.get(partition).offset {
            self.reached.set(partition, next);
        }
        let block = self
            .encoder
            .records(batch, &before, &self.reached, UnixMillis(0));
        let Some(block) = block.map(Arc::new) else {
            return;
        };
        for share in &mut self.shares {
            share.owed += 1;
            let (catch_up, block) = (self.number, block.clone());
            at.to_feed(share.shard, FeedMessage::CatchUpBlock { catch_up, block });
        }
    }

    /// Reports to every shard with members that a range of offsets can't be read. The catch-up read
    /// continues after the range, and the shards write a `gap` event for the members that lack some
    /// of it.
    fn skip(&mut self, missing: Notice, at: &mut HistoryContext<'_>) {
        if missing.to > self.reached.get(missing.partition).offset {
            self.reached.set(missing.partition, Next::at(missing.to));
        }
        let catch_up = self.number;
        for share in &self.shares {
            let notice = missing;
            at.to_feed(share.shard, FeedMessage::CatchUpGap { catch_up, notice });
        }
    }

    /// Keeps the reads in step with the slowest shard.
    fn pace(&mut self, pauses: &mut BTreeMap<Partition, u64>, at: &mut HistoryContext<'_>) {
        let full = self.pieces.len() >= PIECES_MAX;
        if full == self.paused {
            return;
        }
        self.paused = full;
        for &partition in &self.reading {
            let read = history(at.handle, partition, self.number);
            if full {
                *pauses.entry(partition).or_default() += 1;
                at.client.pause(read);
            } else {
                at.client.resume(read);
            }
        }
    }

    /// When [`Self::stalled`] is to be called.
    pub(super) const fn check_at(&self) -> Instant {
        self.check_at
    }

    /// The partitions that stall the read, if nothing can be sent and no broker is being asked for
    /// what is missing. Between two tries of a read no broker is asked either, so check only after
    /// [`STALL_CHECK_EVERY`] without news. A read that is ended between tries loses no answer, and
    /// its members continue in the next catch-up read.
    pub(super) fn stalled(&mut self, at: &HistoryContext<'_>) -> Option<&[Partition]> {
        self.check_at = at.now.mono.after(STALL_CHECK_EVERY);
        let asked = |&p: &Partition| at.client.is_asked(history(at.handle, p, self.number));
        let waits = !self.pieces.is_empty() || self.is_owed() || self.reading.iter().any(asked);
        (!waits).then_some(&self.reading)
    }

    /// Stops the client's reads for this catch-up read.
    pub(super) fn stop(&self, topic: TopicHandle, client: &mut crate::kafka::Client) {
        for &partition in &self.reading {
            client.stop(history(topic, partition, self.number));
        }
    }

    /// Ends, and notifies the shards with members. `met`: as [`Advance::Met`] says.
    pub(super) fn end(self, met: bool, incarnation: u32, at: &mut HistoryContext<'_>) {
        self.stop(at.handle, at.client);
        let (catch_up, (seq, cut)) = (self.number, self.target);
        for Share { shard, .. } in self.shares {
            let end = if met {
                FeedMessage::CatchUpEnd {
                    incarnation,
                    catch_up,
                    seq,
                    cut: cut.clone(),
                }
            } else {
                FeedMessage::CatchUpStalled { catch_up }
            };
            at.to_feed(shard, end);
        }
    }
}

/// The read of a partition's history for one catch-up read.
const fn history(topic: TopicHandle, partition: Partition, catch_up: u32) -> ReadKey {
    ReadKey {
        lane: Lane::History,
        topic,
        partition,
        id: ReadId(catch_up),
    }
}

fn gap(
    read: ReadKey,
    from: Offset,
    to: Offset,
    reason: GapReason,
) -> (ReadKey, HistoryPiece, Offset) {
    let notice = Notice {
        partition: read.partition,
        from,
        to,
        reason,
    };
    (read, HistoryPiece::Missing(notice), to)
}
