//! Replies that are known but no longer in memory, read again from where they lie in the log: one
//! read a partition at a time, on the history connection, shared by everybody who waits for the
//! same reply. A reply is handed on only if it answers the command that was asked for.

use std::collections::{BTreeMap, VecDeque};

use crate::command::{Reply, ReplyHeaders};
use crate::kafka::{Client, Event, Lane, ReadId, ReadKey, StartAt, TopicHandle};
use crate::log::{Batch, Next};
use crate::model::{CorrelationId, ExchangeId, Instant, Offset, Partition};
use crate::route::{Failure, Refused};

use super::Outbox;
use crate::shard::message::{Answer, EdgeMessage};

/// Replies of one partition that may be asked for at one time; beyond it the client is told to come
/// back.
const LOOKUPS_MAX: usize = 128;

/// Clients that may wait for one reply.
const WAITERS_MAX: usize = 64;

/// The lookups of one replies topic.
#[derive(Debug)]
pub(super) struct Lookups {
    topic: TopicHandle,
    /// By partition, none empty: the first of each is being read.
    waiting: BTreeMap<Partition, VecDeque<Lookup>>,
    /// No waiter's deadline is before it.
    next_deadline: Option<Instant>,
}

/// A reply that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: CorrelationId,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
}

#[derive(Debug)]
struct Lookup {
    wanted: Wanted,
    /// Who waits, and until when.
    waiters: Vec<(ExchangeId, Instant)>,
}

impl Lookups {
    pub(super) fn new(topic: TopicHandle) -> Self {
        let (waiting, next_deadline) = (BTreeMap::new(), None);
        Self {
            topic,
            waiting,
            next_deadline,
        }
    }

    /// Reads a reply for a waiter. False: too many are asked for.
    pub(super) fn ask(
        &mut self,
        (waiter, deadline): (ExchangeId, Instant),
        wanted: Wanted,
        client: &mut Client,
    ) -> bool {
        let read = self.read(wanted.partition);
        let queue = self.waiting.entry(wanted.partition).or_default();
        let full = queue.len() >= LOOKUPS_MAX;
        match queue.iter_mut().find(|lookup| lookup.wanted == wanted) {
            Some(lookup) if lookup.waiters.len() >= WAITERS_MAX => return false,
            Some(lookup) => lookup.waiters.push((waiter, deadline)),
            None if full => return false,
            None => {
                let waiters = vec![(waiter, deadline)];
                queue.push_back(Lookup { wanted, waiters });
                if queue.len() == 1 {
                    client.read(read, StartAt::At(Next::at(wanted.offset)));
                }
            }
        }
        let earliest = self
            .next_deadline
            .map_or(deadline, |next| next.min(deadline));
        self.next_deadline = Some(earliest);
        true
    }

    const fn read(&self, partition: Partition) -> ReadKey {
        ReadKey {
            lane: Lane::History,
            topic: self.topic,
            partition,
            id: ReadId::LIVE,
        }
    }

    /// Something about one of these reads.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        names: &ReplyHeaders,
        client: &mut Client,
        out: &mut Outbox,
    ) {
        match event {
            Event::Batch {
                read, batch, next, ..
            } => {
                let first = self.waiting.get(&read.partition).and_then(VecDeque::front);
                let Some(wanted) = first.map(|lookup| lookup.wanted) else {
                    return client.stop(read);
                };
                let answer = find(&batch, wanted, names);
                // An answer without the record that is not past it yet: the next one has it.
                if answer.is_some() || next.offset > wanted.offset {
                    self.done(read.partition, &answer.unwrap_or_else(gone), client, out);
                }
            }
            Event::Undecodable { read, .. } | Event::OutOfRange { read, .. } => {
                self.done(read.partition, &gone(), client, out);
            }
            // A read that fails is tried again by the client; its waiters have deadlines.
            _ => {}
        }
    }

    /// A waiting client has disconnected. The read continues without waiters, since another client
    /// may ask for the same reply.
    pub(super) fn on_left(&mut self, waiter: ExchangeId) {
        for lookup in self.waiting.values_mut().flatten() {
            lookup.waiters.retain(|(it, _)| *it != waiter);
        }
    }

    /// Waiters past their deadline are told that the reply can't be had now; what nobody waits for
    /// any more is not read.
    pub(super) fn on_time(&mut self, now: Instant, client: &mut Client, out: &mut Outbox) {
        if self.next_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let topic = self.topic;
        self.waiting.retain(|partition, queue| {
            let first = queue.front().map(|lookup| lookup.wanted);
            for lookup in queue.iter_mut() {
                let late = lookup
                    .waiters
                    .extract_if(.., |(_, deadline)| *deadline <= now);
                late.for_each(|(waiter, _)| out.to_edge(waiter, EdgeMessage::Answer(gone())));
            }
            queue.retain(|lookup| !lookup.waiters.is_empty());
            let read = ReadKey {
                lane: Lane::History,
                topic,
                partition: *partition,
                id: ReadId::LIVE,
            };
            match queue.front().map(|lookup| lookup.wanted) {
                None => client.stop(read),
                Some(next) if Some(next) != first => {
                    client.read(read, StartAt::At(Next::at(next.offset)));
                }
                Some(_) => {}
            }
            !queue.is_empty()
        });
        let waiters = self
            .waiting
            .values()
            .flatten()
            .flat_map(|lookup| &lookup.waiters);
        self.next_deadline = waiters.map(|(_, deadline)| *deadline).min();
    }

    /// When [`Self::on_time`] has work.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// The log is another one: the places mean nothing any more.
    pub(super) fn clear(&mut self, client: &mut Client, out: &mut Outbox) {
        for (partition, queue) in std::mem::take(&mut self.waiting) {
            client.stop(self.read(partition));
            let waiters = queue.into_iter().flat_map(|lookup| lookup.waiters);
            waiters.for_each(|(waiter, _)| out.to_edge(waiter, EdgeMessage::Answer(gone())));
        }
        self.next_deadline = None;
    }

    /// Answers whoever waits for the reply being read of a partition, and reads its next.
    fn done(
        &mut self,
        partition: Partition,
        answer: &Answer,
        client: &mut Client,
        out: &mut Outbox,
    ) {
        let read = self.read(partition);
        let Some(queue) = self.waiting.get_mut(&partition) else {
            return client.stop(read);
        };
        let told = queue
            .pop_front()
            .into_iter()
            .flat_map(|lookup| lookup.waiters);
        told.for_each(|(waiter, _)| out.to_edge(waiter, EdgeMessage::Answer(answer.clone())));
        match queue.front() {
            Some(next) => client.read(read, StartAt::At(Next::at(next.wanted.offset))),
            None => {
                self.waiting.remove(&partition);
                client.stop(read);
            }
        }
    }
}

fn gone() -> Answer {
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
        return Some(gone());
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
    fn read(key: u8, offset: u64) -> Event {
        read_of(id(key, 0), offset)
    }

    fn read_of(id: CorrelationId, offset: u64) -> Event {
        let id = id.to_string();
        let draft = Draft::new(offset, "k", Some("done")).header("correlation-id", id.as_bytes());
        Event::Batch {
            read: ReadKey {
                lane: Lane::History,
                topic: TopicHandle(0),
                partition: Partition(1),
                id: ReadId::LIVE,
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
    fn who_waits_for_one_reply_shares_its_read() {
        let (mut lookups, mut client, mut out) = lookups();
        for request in [1, 2] {
            assert!(lookups.ask((waiter(request), at(100)), wanted(7, 40), &mut client));
        }
        assert!(lookups.ask((waiter(3), at(100)), wanted(8, 41), &mut client));
        lookups.on_read(read(7, 40), &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(1, true), (2, true)]);
        lookups.on_read(read(8, 41), &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(3, true)]);
    }

    #[test]
    fn another_commands_reply_is_never_handed_on() {
        let (mut lookups, mut client, mut out) = lookups();
        assert!(lookups.ask((waiter(1), at(100)), wanted(7, 40), &mut client));
        lookups.on_read(read(9, 40), &names(), &mut client, &mut out);
        assert_eq!(answers(&mut out), [(1, false)]);
        // Nor is that of another request under the same command key.
        assert!(lookups.ask((waiter(2), at(100)), wanted(7, 41), &mut client));
        lookups.on_read(read_of(id(7, 1), 41), &names(), &mut client, &mut out);
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
}
