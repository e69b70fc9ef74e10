//! Shared reads of history. Clients that resume from before the window join one *pass* per topic:
//! the home reads from the lowest place any member stands at to the live cut, encodes what it reads
//! once, and sends it to the shards with members. A thousand clients that come back at once cost
//! one read.
//!
//! A block goes out when every shard has taken the last: the reads are paused meanwhile, so a pass
//! holds a fetch or two, never a topic. A member that is slower leaves and joins the next pass.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::kafka::{Event, Lane, Plane, ReadKey, StartAt, TopicHandle};
use crate::log::{Batch, Cut, GapReason, Next, Notice, Seq};
use crate::model::{Offset, Partition, ShardId, UnixMillis};
use crate::sse::{Encoder, Encoding};

use super::Outbox;
use super::order::Order;
use crate::shard::message::{Message, Waiter};
use crate::shard::snapshot::TopicIndex;

/// Pieces a pass may hold: its reads pause while it has more.
const PIECES_MAX: usize = 4;

/// Passes of one topic: at most one runs, the next gathers.
#[derive(Debug)]
pub(super) struct Passes {
    topic: TopicIndex,
    handle: TopicHandle,
    encodings: Vec<Encoding>,
    /// Which loading of the topic is read.
    instance: u32,
    number: u32,
    running: Option<Pass>,
    /// Who waits for the next pass, with its encoding and where it stands: one entry a connection
    /// of a shard, so that those who came and left do not add up.
    waiting: BTreeMap<(ShardId, u32), (Waiter, usize, Cut)>,
    /// How often reads of a partition were paused, for metrics.
    paused: BTreeMap<Partition, u64>,
}

#[derive(Debug)]
struct Pass {
    number: u32,
    shards: Vec<Share>,
    encoder: Encoder,
    /// What has been sent, per partition.
    reached: Cut,
    /// Where the pass ends: a step whose cut it must reach.
    target: (Seq, Cut),
    /// Partitions being read, and whether they are paused.
    reading: Vec<Partition>,
    paused: bool,
    /// Read and not yet sent.
    pieces: VecDeque<Piece>,
}

/// What a read brought.
#[derive(Debug)]
enum Piece {
    /// Records, maybe none, and where the read goes on.
    Records(Batch, Next),
    /// Offsets that are gone, or can't be read.
    Gap(Notice),
}

/// Members at one shard, as far as the home knows.
#[derive(Clone, Copy, Debug)]
struct Share {
    shard: ShardId,
    members: usize,
    /// Blocks sent and not yet taken.
    owing: usize,
}

/// What a pass needs of its home for a moment.
pub(super) struct At<'a> {
    pub(super) order: &'a Order,
    pub(super) log_start: &'a Cut,
    pub(super) plane: &'a mut Plane,
    pub(super) out: &'a mut Outbox,
}

impl Passes {
    pub(super) const fn new(
        topic: TopicIndex,
        handle: TopicHandle,
        encodings: Vec<Encoding>,
    ) -> Self {
        Self {
            topic,
            handle,
            encodings,
            instance: 0,
            number: 0,
            running: None,
            waiting: BTreeMap::new(),
            paused: BTreeMap::new(),
        }
    }

    /// The log is another one: nobody waits, nothing is read. Numbers go on, so that what is said
    /// of an old pass is not taken for a new one.
    pub(super) fn clear(&mut self, instance: u32, plane: &mut Plane) {
        self.instance = instance;
        for partition in self
            .running
            .take()
            .into_iter()
            .flat_map(|pass| pass.reading)
        {
            plane.stop(self.read(partition));
        }
        self.waiting.clear();
    }

    /// A client waits for the next pass, which starts at once if none runs.
    pub(super) fn join(&mut self, waiter: Waiter, encoding: usize, from: Cut, at: &mut At<'_>) {
        let place = (waiter.shard, waiter.socket.slot);
        self.waiting.insert(place, (waiter, encoding, from));
        if self.running.is_none() {
            self.start(at);
        }
    }

    /// How often passes paused a partition's reads.
    pub(super) fn paused_times(&self, partition: Partition) -> u64 {
        self.paused.get(&partition).copied().unwrap_or_default()
    }

    const fn read(&self, partition: Partition) -> ReadKey {
        ReadKey {
            lane: Lane::History,
            topic: self.handle,
            partition,
        }
    }

    /// Starts a pass for all who wait for one encoding, from the lowest place any of them stands
    /// at. Those of another encoding have the next.
    fn start(&mut self, at: &mut At<'_>) {
        let Some(encoding) = self.waiting.values().next().map(|(_, e, _)| *e) else {
            return;
        };
        let takes = |_: &(ShardId, u32), it: &mut (Waiter, usize, Cut)| it.1 == encoding;
        let members: Vec<_> = self
            .waiting
            .extract_if(.., takes)
            .map(|(_, it)| it)
            .collect();
        self.number += 1;
        let mut pass = Pass {
            number: self.number,
            shards: Vec::new(),
            encoder: Encoder::new(self.encodings[encoding].clone(), at.order.tag()),
            reached: Cut::start(),
            target: (at.order.seq(), at.order.cut().clone()),
            reading: Vec::new(),
            paused: false,
            pieces: VecDeque::new(),
        };
        for (partition, live) in at.order.cut().iter() {
            let from = members.iter().map(|(_, _, from)| from.get(partition));
            let lowest = from.min_by_key(|next| next.offset).unwrap_or(live);
            let start = at.log_start.get(partition);
            let from = if start.offset > lowest.offset {
                start
            } else {
                lowest
            };
            pass.reached.set(partition, from);
            if from.offset < live.offset {
                pass.reading.push(partition);
                at.plane.read(self.read(partition), StartAt::At(from));
            }
        }
        let mut shards: Vec<(ShardId, Vec<(Waiter, Cut)>)> = Vec::new();
        for (waiter, _, from) in members {
            match shards.iter_mut().find(|(shard, _)| *shard == waiter.shard) {
                Some((_, members)) => members.push((waiter, from)),
                None => shards.push((waiter.shard, vec![(waiter, from)])),
            }
        }
        for (shard, members) in shards {
            pass.shards.push(Share {
                shard,
                members: members.len(),
                owing: 0,
            });
            let (topic, pass, log_start) = (self.topic, self.number, at.log_start.clone());
            let joined = Message::PassJoined {
                topic,
                pass,
                members,
                log_start,
            };
            at.out.push((shard, joined));
        }
        self.running = Some(pass);
        self.go_on(at);
    }

    /// Something about a history read.
    pub(super) fn on_read(&mut self, event: Event, at: &mut At<'_>) {
        let Some(pass) = &mut self.running else {
            return;
        };
        match event {
            Event::Batch {
                read,
                mut batch,
                next,
                ..
            } => {
                batch.hash_keys(at.order.secret());
                pass.on_piece(read, Piece::Records(batch, next), next.offset, at.plane);
            }
            Event::Undecodable { read, from, to, .. } if from == to => {
                // Not even where the next batch begins is known: all up to the pass's end is named,
                // or its members would wait behind it for ever.
                let end = pass.target.1.get(read.partition).offset;
                pass.on_gap(
                    read,
                    from,
                    end.max(from.next()),
                    GapReason::Undecodable,
                    at.plane,
                );
            }
            Event::Undecodable { read, from, to, .. } => {
                pass.on_gap(read, from, to, GapReason::Undecodable, at.plane);
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } if wanted < log_start => {
                pass.on_gap(read, wanted, log_start, GapReason::Retention, at.plane);
            }
            // A read that fails is tried again by the plane.
            _ => {}
        }
        self.go_on(at);
    }

    /// A shard's members took a block, or left.
    pub(super) fn on_taken(
        &mut self,
        shard: ShardId,
        number: u32,
        members: usize,
        at: &mut At<'_>,
    ) {
        let Some(pass) = self.running.as_mut().filter(|pass| pass.number == number) else {
            return;
        };
        if let Some(share) = pass.shards.iter_mut().find(|share| share.shard == shard) {
            share.owing = share.owing.saturating_sub(1);
            share.members = members;
        }
        pass.shards
            .retain(|share| share.members > 0 || share.owing > 0);
        self.go_on(at);
    }

    /// Sends what was read as long as nobody owes a block, and ends the pass where it is due.
    fn go_on(&mut self, at: &mut At<'_>) {
        let Some(pass) = &mut self.running else {
            return;
        };
        while !pass.is_owed()
            && let Some(piece) = pass.pieces.pop_front()
        {
            match piece {
                Piece::Records(batch, next) => pass.send(self.topic, &batch, next, at),
                Piece::Gap(notice) => pass.tell(self.topic, notice, at),
            }
        }
        let nobody = pass.shards.is_empty();
        let through = pass.reached.covers(&pass.target.1) && !pass.is_owed();
        let met = through && at.order.holds_after(pass.target.0);
        if through && !met {
            // The window has moved past the target meanwhile: aim at where it is now.
            pass.target = (at.order.seq(), at.order.cut().clone());
            for (partition, live) in at.order.cut().iter() {
                let reached = pass.reached.get(partition);
                if reached.offset < live.offset && !pass.reading.contains(&partition) {
                    pass.reading.push(partition);
                    let read = ReadKey {
                        lane: Lane::History,
                        topic: self.handle,
                        partition,
                    };
                    at.plane.read(read, StartAt::At(reached));
                }
            }
        }
        pass.pace(self.handle, at.plane, &mut self.paused);
        if nobody || met {
            self.end(at);
        }
    }

    fn end(&mut self, at: &mut At<'_>) {
        let Some(pass) = self.running.take() else {
            return;
        };
        for partition in &pass.reading {
            at.plane.stop(self.read(*partition));
        }
        let (seq, cut) = pass.target;
        let instance = self.instance;
        for share in &pass.shards {
            let (topic, pass, cut) = (self.topic, pass.number, cut.clone());
            at.out.push((
                share.shard,
                Message::PassEnd {
                    topic,
                    instance,
                    pass,
                    seq,
                    cut,
                },
            ));
        }
        self.start(at);
    }
}

impl Pass {
    fn is_owed(&self) -> bool {
        self.shards.iter().any(|share| share.owing > 0)
    }

    fn on_piece(&mut self, read: ReadKey, piece: Piece, next: Offset, plane: &mut Plane) {
        self.pieces.push_back(piece);
        if next >= self.target.1.get(read.partition).offset {
            plane.stop(read);
            self.reading
                .retain(|partition| *partition != read.partition);
        }
    }

    fn on_gap(
        &mut self,
        read: ReadKey,
        from: Offset,
        to: Offset,
        reason: GapReason,
        plane: &mut Plane,
    ) {
        let notice = Notice {
            partition: read.partition,
            from,
            to,
            reason,
        };
        self.on_piece(read, Piece::Gap(notice), to, plane);
    }

    /// Tells every member of what it will not get.
    fn tell(&mut self, topic: TopicIndex, notice: Notice, at: &mut At<'_>) {
        let next = Next {
            offset: notice.to,
            ..Next::default()
        };
        if next.offset > self.reached.get(notice.partition).offset {
            self.reached.set(notice.partition, next);
        }
        let pass = self.number;
        let gap = |share: &Share| {
            (
                share.shard,
                Message::PassGap {
                    topic,
                    pass,
                    notice,
                },
            )
        };
        at.out.extend(self.shards.iter().map(gap));
    }

    /// Keeps the reads in step with the slowest shard.
    fn pace(
        &mut self,
        topic: TopicHandle,
        plane: &mut Plane,
        paused: &mut BTreeMap<Partition, u64>,
    ) {
        let full = self.pieces.len() >= PIECES_MAX;
        if full == self.paused {
            return;
        }
        self.paused = full;
        for &partition in &self.reading {
            let read = ReadKey {
                lane: Lane::History,
                topic,
                partition,
            };
            if full {
                *paused.entry(partition).or_default() += 1;
                plane.pause(read)
            } else {
                plane.resume(read)
            }
        }
    }

    /// Encodes a batch once and sends it to every shard with members.
    fn send(&mut self, topic: TopicIndex, batch: &Batch, next: Next, at: &mut At<'_>) {
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
            let (pass, block) = (self.number, block.clone());
            at.out
                .push((share.shard, Message::PassBlock { topic, pass, block }));
        }
    }
}
