//! Invariant I over many instances: each consumes the same log in its own order and batches, with
//! its own window and lag. Clients are cut at any byte and resume anywhere. Their view is what
//! counts: whole events, as a reader sees them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::model::{Peer, Pipe, Rec, TAG, batch, exchange, set, settings};
use super::parser::parse_from;
use super::view::{Log, View, get};
use crate::log::{Change, Cut, GapReason, Notice};
use crate::model::{Etag, ExchangeId, Offset, Partition, ShardId};
use crate::sse::{
    CatchUpId, Delivery, Encoder, Encoding, FeedCounts, Need, PageCursor, PageEntry, Slow,
    StartFrom, StreamQuestion,
};

/// A catch-up read that an instance's home runs.
struct CatchUp {
    id: CatchUpId,
    cut: Cut,
    encoder: Encoder,
    may_send: bool,
}

struct Node {
    peer: Peer,
    needs: VecDeque<Need>,
    catch_ups: Vec<CatchUp>,
    starts: Vec<u64>,
}

/// A client over all its connections.
struct Client {
    key: Option<&'static str>,
    start: StartFrom,
    slow: Slow,
    node: Option<usize>,
    pipe: Pipe,
    id: Option<String>,
    view: View,
}

struct World {
    log: Log,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    catch_ups: u32,
}

impl World {
    fn new(partitions: usize, compacted: bool, windows: &[usize], clients: &[u8]) -> Self {
        let log = Log {
            partitions: vec![Vec::new(); partitions],
            ends: vec![0; partitions],
            starts: vec![0; partitions],
            compacted,
        };
        let node = |&window: &usize| Node {
            peer: Peer::new(settings(compacted), window, Cut::start()),
            needs: VecDeque::new(),
            catch_ups: Vec::new(),
            starts: vec![0; partitions],
        };
        let client = |&kind: &u8| Client {
            key: [None, Some("a"), Some("b")][kind as usize % 3],
            start: [StartFrom::Live, StartFrom::Earliest, StartFrom::Snapshot]
                [kind as usize / 3 % 3],
            slow: [Slow::Disconnect, Slow::Conflate][kind as usize / 9 % 2],
            node: None,
            pipe: Pipe::default(),
            id: None,
            view: View::default(),
        };
        Self {
            log,
            nodes: windows.iter().map(node).collect(),
            clients: clients.iter().map(client).collect(),
            catch_ups: 0,
        }
    }

    fn act(&mut self, kind: u8, arg: u64) {
        let node = arg as usize % self.nodes.len();
        let arg = arg / self.nodes.len() as u64;
        match kind {
            0..=5 => self.log.append(arg),
            6..=11 => self.consume(node, arg),
            12..=17 => self.deliver(node, arg),
            18..=19 => self.reconnect(node, arg as usize % self.clients.len()),
            20..=22 => self.answer(node, arg),
            23..=25 => self.move_catch_up(node, arg),
            26 => self.retain(arg),
            _ => self.tell_time(node, arg),
        }
        self.ask(node);
    }

    /// An instance takes the next records of one partition, as many as a fetch happened to bring.
    fn consume(&mut self, node: usize, arg: u64) {
        let partition = arg as usize % self.log.ends.len();
        let node = &mut self.nodes[node];
        let (from, start) = (get(&node.peer.cut, partition), self.log.starts[partition]);
        if start > node.starts[partition] {
            node.starts[partition] = start;
            let offset = Offset(start);
            let change = Change::LogStart {
                partition: Partition(partition as u32),
                offset,
            };
            let cut = node.peer.cut.clone();
            node.peer.step(change, None, cut);
        }
        let count = 1 + (arg / 8) as usize % 5;
        let all: Vec<Rec> = self.log.range(partition, from, u64::MAX).cloned().collect();
        let records = &all[..count.min(all.len())];
        let next = match all.get(records.len()) {
            Some(after) if arg.is_multiple_of(3) => after.offset,
            Some(_) => records.last().map_or(from, |r| r.offset + 1),
            None => self.log.ends[partition],
        };
        if next > from {
            node.peer.records(partition as u32, records, next);
        }
    }

    /// One client's socket takes some bytes; every pending subscriber gets its turn.
    fn deliver(&mut self, node: usize, arg: u64) {
        let lucky = arg as usize % self.clients.len();
        let room = (arg / 4) as usize % 800;
        if self.clients[lucky].node == Some(node) {
            self.clients[lucky].pipe.left += room;
            self.clients[lucky].pipe.honest = arg.is_multiple_of(2);
            self.nodes[node]
                .peer
                .feed
                .on_writable(exchange(lucky as u32));
        }
        let turns = 1 + arg % 8;
        for _ in 0..turns {
            let Node { peer, .. } = &mut self.nodes[node];
            let Some(next) = peer.feed.next_pending() else {
                break;
            };
            let client = &mut self.clients[next.slot as usize];
            match peer.feed.deliver(next, &mut client.pipe, peer.now) {
                Delivery::Lagged | Delivery::Failed | Delivery::Stalled | Delivery::Closed => {
                    self.cut_off(next.slot as usize);
                }
                Delivery::Idle | Delivery::Full | Delivery::More => {}
            }
        }
    }

    fn cut_off(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let Some(node) = this.node.take() else {
            return;
        };
        self.nodes[node]
            .peer
            .feed
            .unsubscribe(exchange(client as u32));
        let bytes = std::mem::take(&mut this.pipe).bytes;
        let stream = parse_from(this.id.as_deref().unwrap_or(""), &bytes);
        let mut connection = BTreeMap::new();
        for block in &stream.blocks {
            this.view.read(block, &mut connection, self.log.compacted);
            if !self.log.compacted {
                this.view.check(&self.log, this.key, &block.id);
            }
        }
        if let Some(id) = stream.last_id() {
            this.id = Some(id.to_owned());
        }
    }

    fn reconnect(&mut self, node: usize, client: usize) {
        self.cut_off(client);
        let this = &mut self.clients[client];
        if this.id.is_none() {
            this.view = View::default();
        }
        this.node = Some(node);
        let (token, id) = (client as u32, this.id.as_deref());
        let peer = &mut self.nodes[node].peer;
        peer.resume(token, this.start, this.key, id, this.slow);
    }

    /// Gathers what a feed asks for, and its credits.
    fn ask(&mut self, node: usize) {
        let Node {
            peer,
            needs,
            catch_ups,
            ..
        } = &mut self.nodes[node];
        while let Some(need) = peer.any_need() {
            match need {
                Need::Cancel { exchange, .. } => needs.retain(|it| asker(it) != Some(exchange)),
                need => needs.push_back(need),
            }
        }
        while let Some(credit) = peer.feed.next_credit() {
            match catch_ups
                .iter_mut()
                .find(|catch_up| catch_up.id == credit.catch_up)
            {
                Some(catch_up) if credit.members > 0 => catch_up.may_send = true,
                _ => catch_ups.retain(|catch_up| catch_up.id != credit.catch_up),
            }
        }
    }

    fn answer(&mut self, node: usize, arg: u64) {
        match self.nodes[node].needs.front() {
            Some(Need::Page { .. }) => self.page(node, arg),
            Some(Need::EpochCheck { .. }) => {
                let Node { peer, needs, .. } = &mut self.nodes[node];
                // There is one epoch, so nothing was cut off.
                if let Some(Need::EpochCheck { question, .. }) = needs.pop_front() {
                    peer.feed.on_epochs_checked(question, Some(&[]), peer.now);
                }
            }
            Some(Need::CatchUp { .. }) if self.nodes[node].catch_ups.len() < 2 => {
                self.start_catch_up(node);
            }
            _ => {}
        }
    }

    /// A slice's answer: the newest record of each key that the instance has applied.
    fn page(&mut self, node: usize, arg: u64) {
        let Node { peer, needs, .. } = &mut self.nodes[node];
        let Some(Need::Page {
            question,
            since,
            below,
            after,
            key,
            seq,
        }) = needs.pop_front()
        else {
            unreachable!("the caller looked");
        };
        assert!(seq <= peer.seq);
        let mut newest = BTreeMap::new();
        for (partition, _) in self.log.ends.iter().enumerate() {
            for record in self.log.range(partition, 0, get(&peer.cut, partition)) {
                newest.insert(record.key.clone(), (partition, record));
            }
        }
        let mut found: Vec<_> = newest.into_values().collect();
        found.sort_by_key(|(partition, record)| (*partition, record.offset));
        found.retain(|(p, r)| {
            // A slice may show more than was asked for; the feed leaves it out.
            let careless = arg.is_multiple_of(2);
            let within = r.offset >= get(&since, *p) && r.offset < get(&below, *p);
            let mine = key
                .as_ref()
                .is_none_or(|(_, key)| r.key.as_deref() == Some(key));
            let left = |c: PageCursor| (*p as u32, r.offset) >= (c.partition.0, c.offset.0);
            (careless || within) && mine && after.is_none_or(left)
        });
        let shown = found.len().min(1 + arg as usize % 3);
        let next = found.get(shown).map(|(partition, record)| PageCursor {
            shard: ShardId(0),
            partition: Partition(*partition as u32),
            offset: Offset(record.offset),
        });
        let etags: Vec<Etag> = found[..shown]
            .iter()
            .map(|(p, r)| position(*p, r))
            .collect();
        let entries = found[..shown]
            .iter()
            .zip(&etags)
            .map(|((p, r), etag)| PageEntry {
                key: r.key.as_deref().expect("compacted topics have keys"),
                value: r.value.as_deref(),
                etag,
                partition: Partition(*p as u32),
                offset: Offset(r.offset),
            });
        peer.feed.on_page(question, entries, next, peer.now.mono);
    }

    /// A shared catch-up read for all that wait, from the lowest of what they hold.
    fn start_catch_up(&mut self, node: usize) {
        let Node {
            peer,
            needs,
            catch_ups,
            ..
        } = &mut self.nodes[node];
        let mut members: Vec<(StreamQuestion, Cut)> = Vec::new();
        for need in needs.drain(..) {
            match need {
                Need::CatchUp { question, from, .. } => members.push((question, from)),
                Need::EpochCheck { question, .. } => {
                    peer.feed.on_epochs_checked(question, Some(&[]), peer.now);
                }
                Need::Page { .. } | Need::Cancel { .. } => {
                    unreachable!("the topic is not compacted, and no cancel is kept")
                }
            }
        }
        let (mut lowest, mut log_start) = (Cut::start(), Cut::start());
        for partition in 0..self.log.ends.len() {
            let start = self.log.starts[partition];
            set(&mut log_start, partition as u32, start);
            let low = members.iter().map(|(_, from)| get(from, partition));
            let low = low.min().unwrap_or(0).max(start);
            set(&mut lowest, partition as u32, low);
        }
        let questions: Vec<StreamQuestion> =
            members.iter().map(|(question, _)| *question).collect();
        let id = CatchUpId(self.catch_ups);
        self.catch_ups += 1;
        peer.feed.on_catch_up_joined(id, &questions, &log_start);
        catch_ups.push(CatchUp {
            id,
            cut: lowest,
            encoder: Encoder::new(Encoding::default(), TAG),
            may_send: true,
        });
    }

    /// A catch-up read sends its next block, meets the home's order, or ends short of it.
    fn move_catch_up(&mut self, node: usize, arg: u64) {
        let Node {
            peer, catch_ups, ..
        } = &mut self.nodes[node];
        if catch_ups.is_empty() {
            return;
        }
        let at = arg as usize % catch_ups.len();
        let catch_up = &mut catch_ups[at];
        if !catch_up.may_send {
            return;
        }
        if arg % 16 == 15 {
            peer.feed.on_catch_up_stalled(catch_up.id);
            catch_ups.remove(at);
            return;
        }
        let count = self.log.ends.len();
        let order = (0..count).map(|p| (p + arg as usize) % count);
        let mut open = order.filter(|p| get(&catch_up.cut, *p) < get(&peer.cut, *p));
        let Some(partition) = open.next() else {
            peer.feed.on_catch_up_end(catch_up.id, peer.seq, &peer.cut);
            catch_ups.remove(at);
            return;
        };
        let (from, end) = (get(&catch_up.cut, partition), get(&peer.cut, partition));
        let (start, mut after) = (self.log.starts[partition], catch_up.cut.clone());
        let block = if from < start {
            set(&mut after, partition as u32, start);
            let notice = Notice {
                partition: Partition(partition as u32),
                from: Offset(from),
                to: Offset(start),
                reason: GapReason::Retention,
            };
            peer.feed.on_catch_up_gap(catch_up.id, notice);
            None
        } else {
            let records = self.log.range(partition, from, end);
            let records: Vec<Rec> = records.take(1 + arg as usize % 4).cloned().collect();
            let next = records.last().map_or(end, |record| record.offset + 1);
            set(&mut after, partition as u32, next);
            let batch = batch(partition as u32, &records);
            let time = peer.now.wall;
            catch_up
                .encoder
                .records(&batch, &catch_up.cut, &after, time)
        };
        catch_up.cut = after;
        if let Some(block) = block {
            catch_up.may_send = false;
            let now = peer.now.mono;
            peer.feed
                .on_catch_up_block(catch_up.id, &Arc::new(block), now);
        }
    }

    fn retain(&mut self, arg: u64) {
        if self.log.compacted {
            return;
        }
        let partition = arg as usize % self.log.starts.len();
        let (start, end) = (self.log.starts[partition], self.log.ends[partition]);
        self.log.starts[partition] = (start + 1 + arg % 6).min(end);
    }

    fn tell_time(&mut self, node: usize, arg: u64) {
        let peer = &mut self.nodes[node].peer;
        let seconds = peer.now.mono.as_nanos() / 1_000_000_000 + 1 + arg % 9;
        peer.now = super::model::at(seconds);
        peer.feed.on_timeout(peer.now.mono);
    }

    /// Everybody catches up: nothing may be owed then.
    fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            for partition in 0..self.log.ends.len() as u64 {
                while get(&self.nodes[node].peer.cut, partition as usize)
                    < self.log.ends[partition as usize]
                {
                    self.consume(node, partition);
                }
            }
        }
        for client in 0..self.clients.len() {
            let node = client % self.nodes.len();
            self.reconnect(node, client);
        }
        for round in 0..10_000 {
            let mut quiet = true;
            for node in 0..self.nodes.len() {
                self.ask(node);
                quiet &= self.nodes[node].needs.is_empty() && self.nodes[node].catch_ups.is_empty();
                self.answer(node, 0);
                self.move_catch_up(node, 0);
                self.tell_time(node, 0);
                for client in 0..self.clients.len() {
                    if self.clients[client].node.is_none() {
                        self.reconnect(node, client);
                    }
                    self.clients[client].pipe.left = 100_000;
                    self.deliver(node, client as u64);
                }
            }
            if quiet && round > 50 {
                break;
            }
            assert!(round < 9_999, "history ends");
        }
        for client in 0..self.clients.len() {
            self.cut_off(client);
            let this = &self.clients[client];
            if self.log.compacted {
                this.view.check_newest(&self.log, this.key, this.start);
            } else {
                this.view.check_whole(&self.log, this.key);
            }
        }
    }
}

fn asker(need: &Need) -> Option<ExchangeId> {
    match need {
        Need::Page { question, .. }
        | Need::EpochCheck { question, .. }
        | Need::CatchUp { question, .. } => Some(question.exchange),
        Need::Cancel { .. } => None,
    }
}

fn position(partition: usize, record: &Rec) -> Etag {
    Etag::from_position(TAG, Partition(partition as u32), Offset(record.offset))
}

fn run(seed: &(usize, Vec<usize>, Vec<u8>), compacted: bool, actions: &[(u8, u64)]) -> World {
    let (partitions, windows, clients) = seed;
    let mut world = World::new(*partitions, compacted, windows, clients);
    for (kind, arg) in actions {
        world.act(*kind, *arg);
    }
    world.settle();
    world
}

/// The properties below are worth what they reach: every way to be served, in plain numbers.
#[test]
fn the_fleet_reaches_every_way_to_be_served() {
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let (mut sum, mut catch_ups) = (FeedCounts::default(), 0);
    for round in 0..100 {
        let windows = (0..1 + round % 3)
            .map(|_| 200 + next(5000) as usize)
            .collect();
        let clients = (0..3).map(|_| next(18) as u8).collect();
        let seed = (1 + round % 3, windows, clients);
        let actions: Vec<_> = (0..400)
            .map(|_| (next(28) as u8, next(1_000_000)))
            .collect();
        let world = run(&seed, round % 2 == 0, &actions);
        catch_ups += world.catch_ups;
        for node in &world.nodes {
            let counts = node.peer.feed.counts();
            sum.frames_shared += counts.frames_shared;
            sum.frames_private += counts.frames_private;
            sum.page_entries += counts.page_entries;
            sum.heartbeats += counts.heartbeats;
            sum.gaps += counts.gaps;
            sum.lagged += counts.lagged;
            sum.conflated += counts.conflated;
        }
    }
    let ways = [sum.frames_shared, sum.frames_private, sum.page_entries];
    assert!(ways.iter().all(|n| *n > 300), "{sum:?}");
    let ends = [sum.heartbeats, sum.gaps, sum.lagged, sum.conflated];
    assert!(ends.iter().all(|n| *n > 10), "{sum:?}");
    assert!(catch_ups > 20, "{catch_ups} catch_ups");
}

fn any_seed() -> impl Strategy<Value = (usize, Vec<usize>, Vec<u8>)> {
    let windows = proptest::collection::vec(200_usize..6000, 1..4);
    let clients = proptest::collection::vec(0_u8..18, 1..4);
    (1_usize..4, windows, clients)
}

fn any_actions() -> impl Strategy<Value = Vec<(u8, u64)>> {
    proptest::collection::vec((0_u8..28, 0_u64..1_000_000), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every matching record comes once, in partition order, whichever instance a client resumes
    /// on. What retention deleted is reported by gaps.
    #[test]
    fn a_log_is_seen_whole_and_once(seed in any_seed(), actions in any_actions()) {
        run(&seed, false, &actions);
    }

    /// The newest record of each key, and none going back on one connection.
    #[test]
    fn a_table_is_seen_as_it_is(seed in any_seed(), actions in any_actions()) {
        run(&seed, true, &actions);
    }
}
