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

use super::catch_up::{Advance, CatchUp};
use super::context::HistoryContext;
use crate::kafka::{Client, Event, TopicHandle};
use crate::log::Cut;
use crate::model::{ExchangeId, Instant, Partition, ShardId};
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
    /// At most one entry per stream.
    waiting: BTreeMap<ExchangeId, Waiter>,
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

impl CatchUps {
    pub(super) const fn new(encodings: Vec<Encoding>) -> Self {
        Self {
            encodings,
            incarnation: 0,
            last: 0,
            running: None,
            waiting: BTreeMap::new(),
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
        self.waiting.insert(question.exchange, waiter);
        if self.running.is_none() {
            self.start(at);
        }
    }

    /// A stream has ended. Members of the running catch-up read are counted by their shard.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.waiting.remove(&exchange);
    }

    /// When [`Self::on_timeout`] next has work. `None`: no catch-up read runs.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.running.as_ref().map(CatchUp::check_at)
    }

    /// Ends the running catch-up read if it is stalled.
    pub(super) fn on_timeout(&mut self, at: &mut HistoryContext<'_>) {
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

    /// Starts a catch-up read for the oldest waiter and all of its kind: those that wait for the
    /// same encoding, and lack records of a stalled partition, or not, as it does.
    fn start(&mut self, at: &mut HistoryContext<'_>) {
        let (stalled, live) = (&self.stalled, at.order.cut());
        let lacks_stalled = |it: &Waiter| {
            let lacks = |p: &Partition| it.from.get(*p).offset < live.get(*p).offset;
            stalled.iter().any(lacks)
        };
        let Some(oldest) = self.waiting.values().min_by_key(|it| it.arrival) else {
            return;
        };
        let kind = (oldest.encoding, lacks_stalled(oldest));
        let same_kind = |_: &ExchangeId, it: &mut Waiter| (it.encoding, lacks_stalled(it)) == kind;
        let members = self.waiting.extract_if(.., same_kind);
        let members: Vec<_> = members.map(|(_, it)| (it.question, it.from)).collect();
        self.last += 1;
        let encoding = self.encodings[kind.0].clone();
        let encoder = Encoder::new(encoding, at.order.tag());
        self.running = Some(CatchUp::start(self.last, encoder, &members, at));
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
        self.start(at);
    }
}

#[cfg(test)]
#[path = "catch_ups_tests.rs"]
mod tests;
