//! Stored replies whose bodies are no longer in memory, read again from their offsets: one read per
//! partition at a time, on the history connection, shared by all exchanges that wait for the same
//! reply. A reply is returned only if it answers the command that was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use crate::command::{Reply, ReplyHeaders};
use crate::kafka::{Client, Event, Lane, ReadId, ReadKey, StartAt, TopicHandle};
use crate::log::{Batch, Next};
use crate::model::{CorrelationId, ExchangeId, Instant, Offset, Partition};
use crate::route::{Failure, Refused};

use crate::shard::message::{Answer, EdgeMessage};
use crate::shard::outbox::Outbox;
use crate::shard::wait_queue::WaitQueue;

/// Replies of one partition that are queued or being read. The next request is refused.
const LOOKUPS_MAX: usize = 128;

/// Exchanges that wait for one reply. The next request is refused.
const WAITERS_MAX: usize = 64;

/// Exchanges that wait for replies of one topic, over all its partitions. The next request is
/// refused.
const WAITING_MAX: usize = 16 * 1024;

const _: () = {
    // A partition whose leader does not answer leaves room for the others.
    assert!(2 * LOOKUPS_MAX * WAITERS_MAX <= WAITING_MAX);
};

/// The lookups of one replies topic.
#[derive(Debug)]
pub(super) struct Lookups {
    topic: TopicHandle,
    /// The id of the last lookup. Each has an id of its own, so that an event of an earlier read is
    /// never taken for one of the next.
    last: ReadId,
    /// By partition, none empty. The first of each is being read.
    queues: BTreeMap<Partition, VecDeque<Lookup>>,
    /// The exchanges that wait, each for one lookup.
    waiting: WaitQueue<ExchangeId, ReadId, ExchangeId>,
}

/// A reply that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: CorrelationId,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
}

#[derive(Clone, Copy, Debug)]
struct Lookup {
    id: ReadId,
    wanted: Wanted,
}

impl Lookup {
    /// What its exchanges wait for.
    const fn met(&self) -> RangeInclusive<ReadId> {
        self.id..=self.id
    }
}

impl Lookups {
    pub(super) const fn new(topic: TopicHandle) -> Self {
        Self {
            topic,
            last: ReadId::LIVE,
            queues: BTreeMap::new(),
            waiting: WaitQueue::new(WAITING_MAX),
        }
    }

    /// Reads a reply for an exchange. False: too many are being read.
    #[must_use]
    pub(super) fn ask(
        &mut self,
        (exchange, deadline): (ExchangeId, Instant),
        wanted: Wanted,
        client: &mut Client,
    ) -> bool {
        if self.waiting.is_full() {
            return false; // Before a lookup is queued that no exchange could wait for.
        }
        let queue = self.queues.entry(wanted.partition).or_default();
        let known = queue.iter().find(|lookup| lookup.wanted == wanted);
        let (waiting, places) = match known {
            Some(lookup) => (self.waiting.count(&lookup.met()), WAITERS_MAX),
            None => (queue.len(), LOOKUPS_MAX),
        };
        if waiting >= places {
            return false;
        }
        let lookup = known.copied().unwrap_or_else(|| {
            self.last = ReadId(self.last.0.wrapping_add(1).max(1));
            let id = self.last;
            let lookup = Lookup { id, wanted };
            queue.push_back(lookup);
            if queue.len() == 1 {
                start(self.topic, lookup, client);
            }
            lookup
        });
        let id = lookup.id;
        self.waiting
            .insert(exchange, id, deadline, exchange)
            .is_ok()
    }

    /// Handles an event of one of these reads.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        names: &ReplyHeaders,
        client: &mut Client,
        out: &mut Outbox,
    ) {
        let Some(read) = event.read() else { return };
        let first = self.queues.get(&read.partition).and_then(VecDeque::front);
        let Some(Lookup { wanted, .. }) = first.copied().filter(|it| it.id == read.id) else {
            return client.stop(read);
        };
        let answer = match event {
            Event::Batch { batch, next, .. } => {
                let found = find(&batch, wanted, names);
                // A batch that ends before the record: the next one has it.
                found.or_else(|| (next.offset > wanted.offset).then(unavailable))
            }
            Event::Undecodable { .. } | Event::OutOfRange { .. } => Some(unavailable()),
            // The client retries a read that fails, and the exchanges have deadlines.
            _ => None,
        };
        if let Some(answer) = answer {
            self.answer_first(read.partition, &answer, out);
            self.go_on(client);
        }
    }

    /// An exchange no longer waits. Its reply is not read if no other exchange waits for it.
    pub(super) fn cancel(&mut self, exchange: ExchangeId, client: &mut Client) {
        if self.waiting.cancel(exchange).is_some() {
            self.go_on(client);
        }
    }

    /// Answers the exchanges past their deadline that the reply is not available now.
    pub(super) fn on_time(&mut self, now: Instant, client: &mut Client, out: &mut Outbox) {
        let mut late = false;
        while let Some(exchange) = self.waiting.next_expired(now) {
            late = true;
            tell(exchange, unavailable(), out);
        }
        if late {
            self.go_on(client);
        }
    }

    /// When [`Self::on_time`] next has work. `None`: no exchange waits.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.next_deadline()
    }

    /// The topic is another log now, so the offsets of all lookups are void.
    pub(super) fn clear(&mut self, client: &mut Client, out: &mut Outbox) {
        let all = ReadId(0)..=ReadId(u32::MAX);
        while let Some(exchange) = self.waiting.next_met(&all) {
            tell(exchange, unavailable(), out);
        }
        self.go_on(client);
    }

    /// Answers the exchanges that wait for the reply being read of a partition.
    fn answer_first(&mut self, partition: Partition, answer: &Answer, out: &mut Outbox) {
        let queue = self.queues.get(&partition);
        let Some(first) = queue.and_then(VecDeque::front) else {
            return;
        };
        while let Some(exchange) = self.waiting.next_met(&first.met()) {
            tell(exchange, answer.clone(), out);
        }
    }

    /// Drops the lookups that no exchange waits for, and starts the next of each partition.
    fn go_on(&mut self, client: &mut Client) {
        let (topic, waiting) = (self.topic, &self.waiting);
        self.queues.retain(|_, queue| {
            let read = queue.front().copied();
            queue.retain(|lookup| waiting.count(&lookup.met()) > 0);
            let first = queue.front().copied();
            if read.map(|it| it.id) != first.map(|it| it.id) {
                read.iter().for_each(|it| client.stop(key(topic, *it)));
                first.iter().for_each(|it| start(topic, *it, client));
            }
            first.is_some()
        });
    }
}

const fn key(topic: TopicHandle, lookup: Lookup) -> ReadKey {
    ReadKey {
        lane: Lane::History,
        topic,
        partition: lookup.wanted.partition,
        id: lookup.id,
    }
}

fn start(topic: TopicHandle, lookup: Lookup, client: &mut Client) {
    let at = StartAt::At(Next::at(lookup.wanted.offset));
    client.read(key(topic, lookup), at);
}

fn tell(exchange: ExchangeId, answer: Answer, out: &mut Outbox) {
    out.to_edge(exchange, EdgeMessage::Answer(answer));
}

fn unavailable() -> Answer {
    Answer::Refused(Failure::ReplyUnavailable.into())
}

/// The wanted reply, if the batch has it. A reply to another request at its position is not
/// returned: the index was made from another log.
fn find(batch: &Batch, wanted: Wanted, names: &ReplyHeaders) -> Option<Answer> {
    let record = batch.iter().find(|record| record.offset == wanted.offset)?;
    let whose = record
        .headers
        .last(&names.correlation_id)
        .and_then(CorrelationId::parse);
    if whose != Some(wanted.id) {
        return Some(unavailable());
    }
    // Header flaws were reported when the record was indexed.
    Some(match Reply::read(&record, names, &mut Vec::new()) {
        Ok(reply) => Answer::Reply {
            reply: reply.into(),
            replayed: true,
        },
        Err(error) => Answer::Refused(Refused::from(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{DirectoryRole, Settings};
    use crate::log::Next;
    use crate::log::testing::{Draft, batch};
    use crate::model::{CommandKey, Fingerprint, HashSecret, Now, ShardId};
    use crate::shard::message::Message;

    fn names() -> ReplyHeaders {
        ReplyHeaders {
            correlation_id: "correlation-id".into(),
            status: ":status".into(),
            retry: "retry".into(),
            etag: "etag".into(),
            internal: Vec::new(),
            set_cookie: false,
        }
    }

    fn waiter(request: u32) -> ExchangeId {
        ExchangeId {
            shard: ShardId(0),
            slot: 0,
            generation: request,
        }
    }

    fn id(key: u8, fingerprint: u8) -> CorrelationId {
        CorrelationId {
            key: CommandKey([key; 16]),
            fingerprint: Fingerprint([fingerprint; 16]),
        }
    }

    fn wanted(key: u8, offset: u64) -> Wanted {
        Wanted {
            id: id(key, 0),
            partition: Partition(1),
            offset: Offset(offset),
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn lookups() -> (Lookups, Client, Outbox) {
        let client = Client::new(Settings::default(), 1, DirectoryRole::Fed, Now::default());
        (
            Lookups::new(TopicHandle(0)),
            client,
            Outbox::new(ShardId(1)),
        )
    }

    /// What the log has at `offset`: the reply of `key`.
    fn read(lookups: &Lookups, key: u8, offset: u64) -> Event {
        read_of(first(lookups), id(key, 0), offset)
    }

    /// The read of the partition.
    fn first(lookups: &Lookups) -> ReadId {
        let queue = lookups.queues.get(&Partition(1));
        queue.and_then(VecDeque::front).expect("a read").id
    }

    fn read_of(read: ReadId, id: CorrelationId, offset: u64) -> Event {
        let id = id.to_string();
        let draft = Draft::new(offset, "k", Some("done")).header("correlation-id", id.as_bytes());
        Event::Batch {
            read: ReadKey {
                lane: Lane::History,
                topic: TopicHandle(0),
                partition: Partition(1),
                id: read,
            },
            batch: batch(1, &[draft], &HashSecret::new([0; 16])),
            next: Next {
                offset: Offset(offset + 1),
                ..Next::default()
            },
            log_start: Offset(0),
            high_watermark: Offset(100),
            stable_end: Offset(100),
        }
    }

    fn answers(out: &mut Outbox) -> Vec<(u32, bool)> {
        let answer = |(_, message)| match message {
            Message::Edge(waiter, EdgeMessage::Answer(answer)) => {
                (waiter.generation, matches!(answer, Answer::Reply { .. }))
            }
            other => panic!("an unexpected {other:?}"),
        };
        out.drain().into_iter().map(answer).collect()
    }

    #[test]
    fn exchanges_that_wait_for_one_reply_share_its_read() {
        let (mut lookups, mut client, mut out) = lookups();
        for request in [1, 2] {
            assert!(lookups.ask((waiter(request), at(100)), wanted(7, 40), &mut client));
        }
        assert!(lookups.ask((waiter(3), at(100)), wanted(8, 41), &mut client));
        let event = read(&lookups, 7, 40);
        lookups.on_read(event, &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(1, true), (2, true)]);
        let event = read(&lookups, 8, 41);
        lookups.on_read(event, &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(3, true)]);
    }

    #[test]
    fn another_commands_reply_is_never_handed_on() {
        let (mut lookups, mut client, mut out) = lookups();
        assert!(lookups.ask((waiter(1), at(100)), wanted(7, 40), &mut client));
        let event = read(&lookups, 9, 40);
        lookups.on_read(event, &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(1, false)]);
        // Nor is that of another request under the same command key.
        assert!(lookups.ask((waiter(2), at(100)), wanted(7, 41), &mut client));
        let event = read_of(first(&lookups), id(7, 1), 41);
        lookups.on_read(event, &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(2, false)]);
    }

    #[test]
    fn a_deadline_ends_the_wait_and_frees_the_place() {
        let (mut lookups, mut client, mut out) = lookups();
        for n in 0..LOOKUPS_MAX as u32 {
            assert!(lookups.ask((waiter(n), at(50)), wanted(7, u64::from(n)), &mut client));
        }
        assert!(!lookups.ask((waiter(500), at(50)), wanted(7, 500), &mut client));
        lookups.on_time(at(49), &mut client, &mut out);
        assert!(answers(&mut out).is_empty());
        lookups.on_time(at(50), &mut client, &mut out);
        assert_eq!(answers(&mut out).len(), LOOKUPS_MAX);
        assert_eq!(lookups.next_deadline(), None);
        assert!(lookups.ask((waiter(500), at(90)), wanted(7, 500), &mut client));
        lookups.clear(&mut client, &mut out);
        assert_eq!(answers(&mut out), [(500, false)]);
    }

    #[test]
    fn a_cancelled_read_gives_way_and_its_late_events_mean_nothing() {
        let (mut lookups, mut client, mut out) = lookups();
        assert!(lookups.ask((waiter(1), at(100)), wanted(7, 40), &mut client));
        assert!(lookups.ask((waiter(2), at(100)), wanted(8, 41), &mut client));
        assert!(lookups.ask((waiter(3), at(100)), wanted(8, 41), &mut client));
        let late = read(&lookups, 7, 40);
        lookups.cancel(waiter(1), &mut client);
        lookups.cancel(waiter(2), &mut client);
        lookups.on_read(late, &names(), &mut client, &mut out);
        assert!(answers(&mut out).is_empty());
        let event = read(&lookups, 8, 41);
        lookups.on_read(event, &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(3, true)]);
        assert!(lookups.queues.is_empty());
    }
}
