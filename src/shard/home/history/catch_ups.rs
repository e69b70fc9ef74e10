//! Shared reads of history. Clients that resume from before the window join one *catch-up read* per
//! topic: the home reads from the lowest position of any member to the live cut, encodes what it
//! reads once, and sends it to the shards with members. A thousand clients that return at once cost
//! one read.
//!
//! A block is sent once every shard has taken the one before. The reads are paused meanwhile, so a
//! catch-up read holds a few pieces, never a topic. A member that is slower leaves and joins the
//! next catch-up read.
//!
//! A catch-up read *stalls* when a partition has no leader that answers. The stalled read ends, and
//! each of its members continues from its own position: in the window if the window has all that
//! the member lacks, otherwise in another catch-up read. From then on, streams that lack records of
//! such a partition and streams that do not are in different catch-up reads, so that the latter do
//! not wait. The oldest waiter selects the next one.

use std::collections::BTreeMap;

use super::catch_up::{Advance, CatchUp, JOINS_MAX, Members};
use super::context::HistoryContext;
use crate::kafka::{Client, Event, TopicHandle};
use crate::log::Cut;
use crate::model::{ExchangeId, Instant, Partition, ShardId};
use crate::shard::home::partitions::log_start;
use crate::shard::message::FeedMessage;
use crate::shard::wait_queue::WaitQueue;
use crate::sse::{Encoder, Encoding, StreamQuestion};

/// The catch-up reads of one topic: at most one runs, and streams wait for the next.
#[derive(Debug)]
pub(super) struct CatchUps {
    encodings: Vec<Encoding>,
    /// The incarnation of the topic that is read.
    incarnation: u32,
    /// The number of the last catch-up read.
    last: u32,
    running: Option<CatchUp>,
    /// While none runs: the members of the next one.
    gathering: Option<Gathering>,
    /// The streams that wait, by the number of their arrival.
    waiting: WaitQueue<ExchangeId, u64, Waiter>,
    /// Partitions that have stalled a catch-up read and have brought nothing since.
    stalled: Vec<Partition>,
    /// How many streams have waited so far.
    arrivals: u64,
    /// How often reads of a partition were paused, for metrics.
    pauses: BTreeMap<Partition, u64>,
}

/// A stream that waits for a catch-up read.
#[derive(Debug)]
struct Waiter {
    question: StreamQuestion,
    encoding: usize,
    /// The cut that its client holds: every record below was delivered.
    from: Cut,
    /// Arrival number. The oldest waiter selects the next catch-up read; all waiters of its kind
    /// join it.
    arrival: u64,
}

/// Which waiters share a catch-up read: those with the same encoding that lack records of a stalled
/// partition, or those with the same encoding that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WaiterKind {
    encoding: usize,
    lacks_stalled: bool,
}

/// The members of the next catch-up read. Thousands may wait, so a turn looks at [`JOINS_MAX`].
#[derive(Debug)]
struct Gathering {
    kind: WaiterKind,
    /// The arrivals that were looked at, and the last one to look at. Later ones wait for the
    /// catch-up read after.
    looked: u64,
    last: u64,
    members: Members,
}

impl CatchUps {
    /// `streams_max`: streams that the process has at most.
    pub(super) const fn new(encodings: Vec<Encoding>, streams_max: usize) -> Self {
        Self {
            encodings,
            incarnation: 0,
            last: 0,
            running: None,
            gathering: None,
            // Streams that have ended may still be in it, until they are cancelled.
            waiting: WaitQueue::new(streams_max.saturating_mul(2)),
            stalled: Vec::new(),
            arrivals: 0,
            pauses: BTreeMap::new(),
        }
    }

    /// Another incarnation begins: no stream waits, and nothing is read. The numbers continue, so
    /// that a message about an old catch-up read is not taken for a message about a new one.
    pub(super) fn on_open(&mut self, incarnation: u32, topic: TopicHandle, client: &mut Client) {
        self.incarnation = incarnation;
        if let Some(running) = self.running.take() {
            running.stop(topic, client);
        }
        self.gathering = None;
        self.waiting.clear();
        self.stalled.clear();
    }

    /// A stream waits for the next catch-up read, which starts at once if none runs.
    pub(super) fn join(
        &mut self,
        question: StreamQuestion,
        encoding: usize,
        from: Cut,
        at: &mut HistoryContext<'_>,
    ) {
        self.arrivals += 1;
        let waiter = Waiter {
            question,
            encoding,
            from,
            arrival: self.arrivals,
        };
        let (exchange, arrival) = (question.exchange, waiter.arrival);
        if self
            .waiting
            .insert(exchange, arrival, None, waiter)
            .is_err()
        {
            return self.turn_away(question, at);
        }
        if self.running.is_none() && self.gathering.is_none() {
            self.gather(at);
        }
    }

    /// Too many streams wait. The stream asks again, as a member of a catch-up read that stalls.
    fn turn_away(&mut self, question: StreamQuestion, at: &mut HistoryContext<'_>) {
        self.last += 1;
        let (catch_up, shard) = (self.last, question.exchange.shard);
        let joined = FeedMessage::CatchUpJoined {
            catch_up,
            members: vec![question],
            log_start: log_start(at.parts),
        };
        at.to_feed(shard, joined);
        at.to_feed(shard, FeedMessage::CatchUpStalled { catch_up });
    }

    /// A stream has ended. Members of the running catch-up read are counted by their shard.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.waiting.cancel(exchange);
    }

    /// When [`Self::on_timeout`] next has work. `None`: no catch-up read runs.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.gathering.is_some() {
            return Some(Instant::ZERO);
        }
        self.running.as_ref().map(CatchUp::check_at)
    }

    /// Looks at the next streams that wait, or ends the running catch-up read if it is stalled.
    pub(super) fn on_timeout(&mut self, at: &mut HistoryContext<'_>) {
        if self.gathering.is_some() {
            return self.gather(at);
        }
        let Some(running) = &mut self.running else {
            return;
        };
        if running.check_at() > at.now.mono {
            return;
        }
        if let Some(partitions) = running.stalled(at) {
            let new = partitions.iter().filter(|it| !self.stalled.contains(it));
            let new: Vec<_> = new.copied().collect();
            self.stalled.extend(new);
            self.end(false, at);
        }
    }

    /// How often reads of a partition were paused.
    pub(super) fn pauses(&self, partition: Partition) -> u64 {
        self.pauses.get(&partition).copied().unwrap_or_default()
    }

    /// Makes the oldest waiter and all of its kind members of the next catch-up read, a few in each
    /// turn, and starts it with the last one.
    fn gather(&mut self, at: &mut HistoryContext<'_>) {
        for _ in 0..JOINS_MAX {
            let gathering = self.gathering.as_ref();
            let (looked, last) = gathering.map_or((0, self.arrivals), |it| (it.looked, it.last));
            let left = looked < last; // An empty range has no first arrival.
            let waiter = left.then(|| self.waiting.next_met(&(looked + 1..=last)));
            let Some(waiter) = waiter.flatten() else {
                return self.start(at);
            };
            let kind = self.kind_of(&waiter, at);
            let gathering = self.gathering.get_or_insert_with(|| Gathering {
                kind,
                looked,
                last,
                members: Members::default(),
            });
            gathering.looked = waiter.arrival;
            if gathering.kind == kind {
                let live = at.order.cut();
                gathering.members.add(waiter.question, &waiter.from, live);
                continue;
            }
            let (question, arrival) = (waiter.question, waiter.arrival);
            let kept = self
                .waiting
                .insert(question.exchange, arrival, None, waiter);
            debug_assert!(kept.is_ok(), "it was in the queue above");
        }
    }

    fn kind_of(&self, waiter: &Waiter, at: &HistoryContext<'_>) -> WaiterKind {
        let live = at.order.cut();
        let lacks = |p: &Partition| waiter.from.get(*p).offset < live.get(*p).offset;
        WaiterKind {
            encoding: waiter.encoding,
            lacks_stalled: self.stalled.iter().any(lacks),
        }
    }

    /// Starts the catch-up read whose members are gathered. Without any, nothing starts.
    fn start(&mut self, at: &mut HistoryContext<'_>) {
        let Some(Gathering { kind, members, .. }) = self.gathering.take() else {
            return;
        };
        self.last += 1;
        let encoding = self.encodings[kind.encoding].clone();
        let encoder = Encoder::new(encoding, at.order.tag());
        self.running = Some(CatchUp::start(self.last, encoder, members, at));
        self.advance(at);
    }

    /// A read of history has brought something.
    pub(super) fn on_read(&mut self, event: Event, at: &mut HistoryContext<'_>) {
        let running = self.running.as_mut();
        if let Some(partition) = running.and_then(|it| it.on_read(event, at)) {
            self.stalled.retain(|it| *it != partition);
            self.advance(at);
        }
    }

    /// The members on a shard have taken the last block of a catch-up read, or left it.
    pub(super) fn on_taken(
        &mut self,
        shard: ShardId,
        number: u32,
        members: usize,
        at: &mut HistoryContext<'_>,
    ) {
        let running = self.running.as_mut();
        if let Some(running) = running.filter(|it| it.number() == number) {
            running.on_taken(shard, members);
            self.advance(at);
        }
    }

    fn advance(&mut self, at: &mut HistoryContext<'_>) {
        let Some(running) = &mut self.running else {
            return;
        };
        match running.advance(&mut self.pauses, at) {
            Advance::Waiting => {}
            Advance::Abandoned => self.end(false, at),
            Advance::Met => self.end(true, at),
        }
    }

    fn end(&mut self, met: bool, at: &mut HistoryContext<'_>) {
        if let Some(running) = self.running.take() {
            running.end(met, self.incarnation, at);
        }
        self.gather(at);
    }
}

#[cfg(test)]
#[path = "catch_ups_tests.rs"]
mod tests;
