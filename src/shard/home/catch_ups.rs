//! Shared reads of history. Clients that resume from before the window join one *catch-up read* per topic:
//! the home reads from the lowest place any member stands at to the live cut, encodes what it reads
//! once, and sends it to the shards with members. A thousand clients that come back at once cost
//! one read.
//!
//! A block goes out when every shard has taken the last: the reads are paused meanwhile, so a catch-up read
//! holds a fetch or two, never a topic. A member that is slower leaves and joins the next catch-up read.
//!
//! A catch-up read that gets nothing more is held up: a partition has no leader, or one that can't be read.
//! It ends *short*, and its members go on from what they hold: live, who lacks nothing any more;
//! the others in another catch-up read. From then on who lacks something of that partition and who does not
//! are in different catch-up reads, so that the one do not wait with the others. Who came first is next.

use std::collections::{BTreeMap, VecDeque};

use crate::kafka::{Client, Event, TopicHandle};
use crate::log::{Cut, GapReason, Seq};
use crate::model::{Instant, Partition, ShardId};
use crate::sse::{Encoder, Encoding};

use super::catch_up::{CatchUp, CatchUpContext, LOOK_EVERY, Piece, Share, history};
use super::partitions::log_start;
use crate::shard::message::{FeedMessage, ProjectionMessage, StreamQuestion};
use crate::shard::snapshot::TopicIndex;

/// CatchUps of one topic: at most one runs, the next gathers.
#[derive(Debug)]
pub(super) struct CatchUps {
    topic: TopicIndex,
    handle: TopicHandle,
    encodings: Vec<Encoding>,
    /// The topic's incarnation that is read.
    incarnation: u32,
    number: u32,
    running: Option<CatchUp>,
    /// Who waits for the next catch-up read: one entry a connection of a shard, so that those who came and
    /// left do not add up.
    waiting: BTreeMap<(ShardId, u32), Asker>,
    /// Partitions that held up a catch-up read and have brought nothing since.
    held_up: Vec<Partition>,
    /// How many have come to wait, ever.
    came: u64,
    /// How often reads of a partition were paused, for metrics.
    paused: BTreeMap<Partition, u64>,
}

/// One that waits.
#[derive(Debug)]
struct Asker {
    question: StreamQuestion,
    encoding: usize,
    /// Where it stands.
    from: Cut,
    /// Which it was to come: the first is next, with all of its kind.
    came: u64,
}

impl CatchUps {
    pub(super) const fn new(
        topic: TopicIndex,
        handle: TopicHandle,
        encodings: Vec<Encoding>,
    ) -> Self {
        Self {
            topic,
            handle,
            encodings,
            incarnation: 0,
            number: 0,
            running: None,
            waiting: BTreeMap::new(),
            held_up: Vec::new(),
            came: 0,
            paused: BTreeMap::new(),
        }
    }

    /// The log is another one: nobody waits, nothing is read. Numbers go on, so that what is said
    /// of an old catch-up read is not taken for a new one.
    pub(super) fn clear(&mut self, incarnation: u32, client: &mut Client) {
        self.incarnation = incarnation;
        for partition in self
            .running
            .take()
            .into_iter()
            .flat_map(|catch_up| catch_up.reading)
        {
            client.stop(history(self.handle, partition));
        }
        self.waiting.clear();
        self.held_up.clear();
    }

    /// A client waits for the next catch-up read, which starts at once if none runs.
    pub(super) fn join(
        &mut self,
        question: StreamQuestion,
        encoding: usize,
        from: Cut,
        at: &mut CatchUpContext<'_>,
    ) {
        let place = (question.exchange.shard, question.exchange.slot);
        self.came += 1;
        let asker = Asker {
            question,
            encoding,
            from,
            came: self.came,
        };
        self.waiting.insert(place, asker);
        if self.running.is_none() {
            self.start(at);
        }
    }

    /// When `on_time` has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(|catch_up| catch_up.look_at)
    }

    /// Looks whether the catch-up read is held up.
    pub(super) fn on_time(&mut self, at: &mut CatchUpContext<'_>) {
        if let Some(catch_up) = &mut self.running
            && catch_up.look_at <= at.now
        {
            catch_up.look_at = at.now.after(LOOK_EVERY);
            if catch_up.is_held_up(self.handle, at) {
                let new = |partition: &&Partition| !self.held_up.contains(*partition);
                let new: Vec<_> = catch_up.reading.iter().filter(new).copied().collect();
                self.held_up.extend(new);
                self.end(false, at);
            }
        }
    }

    /// How often catch-up reads paused a partition's reads.
    pub(super) fn paused_times(&self, partition: Partition) -> u64 {
        self.paused.get(&partition).copied().unwrap_or_default()
    }

    /// Starts a catch-up read for who came first and all of its kind, from the lowest place any of them
    /// stands at. A kind waits for one encoding, and lacks something of what was held up, or not.
    fn start(&mut self, at: &mut CatchUpContext<'_>) {
        let (held_up, live) = (&self.held_up, at.order.cut());
        let lacks = |it: &Asker| {
            let lacks = |p: &Partition| it.from.get(*p).offset < live.get(*p).offset;
            held_up.iter().any(lacks)
        };
        let Some(first) = self.waiting.values().min_by_key(|it| it.came) else {
            return;
        };
        let (encoding, lacking) = (first.encoding, lacks(first));
        let takes =
            |_: &(ShardId, u32), it: &mut Asker| it.encoding == encoding && lacks(it) == lacking;
        let members: Vec<_> = self
            .waiting
            .extract_if(.., takes)
            .map(|(_, it)| it)
            .collect();
        let log_start = log_start(at.parts);
        self.number += 1;
        let mut catch_up = CatchUp {
            number: self.number,
            shards: Vec::new(),
            encoder: Encoder::new(self.encodings[encoding].clone(), at.order.tag()),
            reached: Cut::start(),
            target: (Seq(0), Cut::start()),
            reading: Vec::new(),
            paused: false,
            look_at: at.now.after(LOOK_EVERY),
            pieces: VecDeque::new(),
        };
        for (partition, live) in at.order.cut().iter() {
            let from = members.iter().map(|it| it.from.get(partition));
            let lowest = from.min_by_key(|next| next.offset).unwrap_or(live);
            let start = log_start.get(partition);
            let from = if start.offset > lowest.offset {
                start
            } else {
                lowest
            };
            catch_up.reached.set(partition, from);
        }
        catch_up.aim(self.handle, at);
        let mut shards: Vec<(ShardId, Vec<(StreamQuestion, Cut)>)> = Vec::new();
        for Asker { question, from, .. } in members {
            match shards
                .iter_mut()
                .find(|(shard, _)| *shard == question.exchange.shard)
            {
                Some((_, members)) => members.push((question, from)),
                None => shards.push((question.exchange.shard, vec![(question, from)])),
            }
        }
        for (shard, members) in shards {
            catch_up.shards.push(Share {
                shard,
                members: members.len(),
                owing: 0,
            });
            let joined = FeedMessage::CatchUpJoined {
                catch_up: self.number,
                members,
                log_start: log_start.clone(),
            };
            at.out
                .to_projection(shard, self.topic, ProjectionMessage::Feed(joined));
        }
        self.running = Some(catch_up);
        self.go_on(at);
    }

    /// Something about a history read.
    pub(super) fn on_read(&mut self, event: Event, at: &mut CatchUpContext<'_>) {
        let Some(catch_up) = &mut self.running else {
            return;
        };
        let brought = match event {
            Event::Batch {
                read,
                mut batch,
                next,
                ..
            } => {
                batch.hash_keys(at.order.secret());
                catch_up.on_piece(read, Piece::Records(batch, next), next.offset, at.client);
                read.partition
            }
            Event::Undecodable { read, from, to, .. } if from == to => {
                // Not even where the next batch begins is known: all up to the catch-up read's end is named,
                // or its members would wait behind it for ever.
                let end = catch_up.target.1.get(read.partition).offset;
                catch_up.on_gap(
                    read,
                    from,
                    end.max(from.next()),
                    GapReason::Undecodable,
                    at.client,
                );
                read.partition
            }
            Event::Undecodable { read, from, to, .. } => {
                catch_up.on_gap(read, from, to, GapReason::Undecodable, at.client);
                read.partition
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } if wanted < log_start => {
                catch_up.on_gap(read, wanted, log_start, GapReason::Retention, at.client);
                read.partition
            }
            // A read that fails is tried again by the client.
            _ => return,
        };
        self.held_up.retain(|partition| *partition != brought);
        catch_up.look_at = at.now.after(LOOK_EVERY);
        self.go_on(at);
    }

    /// A shard's members took a block, or left.
    pub(super) fn on_taken(
        &mut self,
        shard: ShardId,
        number: u32,
        members: usize,
        at: &mut CatchUpContext<'_>,
    ) {
        let Some(catch_up) = self
            .running
            .as_mut()
            .filter(|catch_up| catch_up.number == number)
        else {
            return;
        };
        if let Some(share) = catch_up
            .shards
            .iter_mut()
            .find(|share| share.shard == shard)
        {
            share.owing = share.owing.saturating_sub(1);
            share.members = members;
        }
        catch_up
            .shards
            .retain(|share| share.members > 0 || share.owing > 0);
        self.go_on(at);
    }

    /// Sends what was read as long as nobody owes a block, and ends the catch-up read where it is due.
    fn go_on(&mut self, at: &mut CatchUpContext<'_>) {
        let Some(catch_up) = &mut self.running else {
            return;
        };
        while !catch_up.is_owed()
            && let Some(piece) = catch_up.pieces.pop_front()
        {
            match piece {
                Piece::Records(batch, next) => catch_up.send(self.topic, &batch, next, at),
                Piece::Gap(notice) => catch_up.tell(self.topic, notice, at),
            }
        }
        let nobody = catch_up.shards.is_empty();
        let through = catch_up.reached.covers(&catch_up.target.1) && !catch_up.is_owed();
        let met = through && at.order.holds_after(catch_up.target.0);
        if through && !met {
            // The window has moved past the target meanwhile: aim at where it is now.
            catch_up.aim(self.handle, at);
        }
        catch_up.pace(self.handle, at.client, &mut self.paused);
        if nobody || met {
            self.end(met, at);
        }
    }

    /// Ends the catch-up read: it has met the order, or else it is short of it.
    fn end(&mut self, met: bool, at: &mut CatchUpContext<'_>) {
        let Some(catch_up) = self.running.take() else {
            return;
        };
        for &partition in &catch_up.reading {
            at.client.stop(history(self.handle, partition));
        }
        let (seq, cut) = catch_up.target;
        let (incarnation, number) = (self.incarnation, catch_up.number);
        for Share { shard, .. } in catch_up.shards {
            let end = match met {
                true => FeedMessage::CatchUpEnd {
                    incarnation,
                    catch_up: number,
                    seq,
                    cut: cut.clone(),
                },
                false => FeedMessage::CatchUpStalled { catch_up: number },
            };
            at.out
                .to_projection(shard, self.topic, ProjectionMessage::Feed(end));
        }
        self.start(at);
    }
}

#[cfg(test)]
#[path = "catch_ups_tests.rs"]
mod tests;
