//! One catch-up read over history: what it reads, what it has sent to whom, and where it ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{Client, Lane, ReadId, ReadKey, StartAt, TopicHandle};
use crate::log::{Batch, Cut, GapReason, Next, Notice, Seq};
use crate::model::{Instant, Offset, Partition, ShardId, UnixMillis};
use crate::sse::Encoder;

use super::Outbox;
use super::order::Order;
use super::partitions::Part;
use crate::shard::message::{FeedMessage, ProjectionMessage};
use crate::shard::snapshot::TopicIndex;

/// Pieces a catch-up read may hold: its reads pause while it has more.
const PIECES_MAX: usize = 4;

/// How long a catch-up read may bring nothing before it is looked whether it is held up, and how often then.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a catch-up read needs of its home for a moment.
pub(super) struct CatchUpContext<'a> {
    pub(super) order: &'a Order,
    pub(super) parts: &'a [Part],
    pub(super) now: Instant,
    pub(super) client: &'a mut Client,
    pub(super) out: &'a mut Outbox,
}

/// A catch-up read that runs.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Unique in its topic.
    pub(super) number: u32,
    /// The shards with members.
    pub(super) shards: Vec<Share>,
    pub(super) encoder: Encoder,
    /// What has been sent, per partition.
    pub(super) reached: Cut,
    /// Where the catch-up read ends: a step whose cut it must reach.
    pub(super) target: (Seq, Cut),
    /// Partitions being read, and whether they are paused.
    pub(super) reading: Vec<Partition>,
    pub(super) paused: bool,
    /// When to look whether it is held up.
    pub(super) look_at: Instant,
    /// Read and not yet sent.
    pub(super) pieces: VecDeque<Piece>,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Piece {
    /// Records, maybe none, and where the read goes on.
    Records(Batch, Next),
    /// Offsets that are gone, or can't be read.
    Gap(Notice),
}

/// Members at one shard, as far as the home knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) shard: ShardId,
    pub(super) members: usize,
    /// Blocks sent and not yet taken.
    pub(super) owing: usize,
}

/// The read of a partition's history.
pub(super) const fn history(topic: TopicHandle, partition: Partition) -> ReadKey {
    ReadKey {
        lane: Lane::History,
        topic,
        partition,
        id: ReadId::LIVE,
    }
}

impl CatchUp {
    pub(super) fn is_owed(&self) -> bool {
        self.shards.iter().any(|share| share.owing > 0)
    }

    /// Sets where the order is now as the catch-up read's end, and reads what it lacks of that.
    pub(super) fn aim(&mut self, topic: TopicHandle, at: &mut CatchUpContext<'_>) {
        self.target = (at.order.seq(), at.order.cut().clone());
        for (partition, live) in at.order.cut().iter() {
            let reached = self.reached.get(partition);
            if reached.offset < live.offset && !self.reading.contains(&partition) {
                self.reading.push(partition);
                at.client
                    .read(history(topic, partition), StartAt::At(reached));
            }
        }
    }

    /// Whether nothing is to be sent and no broker is being asked for what is missing. It is so
    /// between two tries as well, so look only where nothing has come for [`LOOK_EVERY`]; a catch-up read
    /// that ends between tries loses no answer, and its members go on in the next.
    pub(super) fn is_held_up(&self, topic: TopicHandle, at: &CatchUpContext<'_>) -> bool {
        let asked = |&p: &Partition| at.client.is_asked(history(topic, p));
        self.pieces.is_empty() && !self.is_owed() && !self.reading.iter().any(asked)
    }

    pub(super) fn on_piece(
        &mut self,
        read: ReadKey,
        piece: Piece,
        next: Offset,
        client: &mut Client,
    ) {
        self.pieces.push_back(piece);
        if next >= self.target.1.get(read.partition).offset {
            client.stop(read);
            self.reading
                .retain(|partition| *partition != read.partition);
        }
    }

    pub(super) fn on_gap(
        &mut self,
        read: ReadKey,
        from: Offset,
        to: Offset,
        reason: GapReason,
        client: &mut Client,
    ) {
        let notice = Notice {
            partition: read.partition,
            from,
            to,
            reason,
        };
        self.on_piece(read, Piece::Gap(notice), to, client);
    }

    /// Tells every member of what it will not get.
    pub(super) fn tell(&mut self, topic: TopicIndex, notice: Notice, at: &mut CatchUpContext<'_>) {
        let next = Next {
            offset: notice.to,
            ..Next::default()
        };
        if next.offset > self.reached.get(notice.partition).offset {
            self.reached.set(notice.partition, next);
        }
        let catch_up = self.number;
        for share in &self.shards {
            let gap = FeedMessage::CatchUpGap { catch_up, notice };
            let message = ProjectionMessage::Feed(gap);
            at.out.to_projection(share.shard, topic, message);
        }
    }

    /// Keeps the reads in step with the slowest shard.
    pub(super) fn pace(
        &mut self,
        topic: TopicHandle,
        client: &mut Client,
        paused: &mut BTreeMap<Partition, u64>,
    ) {
        let full = self.pieces.len() >= PIECES_MAX;
        if full == self.paused {
            return;
        }
        self.paused = full;
        for &partition in &self.reading {
            let read = history(topic, partition);
            if full {
                *paused.entry(partition).or_default() += 1;
                client.pause(read)
            } else {
                client.resume(read)
            }
        }
    }

    /// Encodes a batch once and sends it to every shard with members.
    pub(super) fn send(
        &mut self,
        topic: TopicIndex,
        batch: &Batch,
        next: Next,
        at: &mut CatchUpContext<'_>,
    ) {
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
        for share in &mut self.shards {
            share.owing += 1;
            let (catch_up, block) = (self.number, block.clone());
            let message = ProjectionMessage::Feed(FeedMessage::CatchUpBlock { catch_up, block });
            at.out.to_projection(share.shard, topic, message);
        }
    }
}
