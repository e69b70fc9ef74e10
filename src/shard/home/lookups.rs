//! Replies that are known but no longer in memory, read again from where they lie in the log: one
//! read a partition at a time, on the history connection, shared by everybody who waits for the
//! same reply.

use std::collections::VecDeque;

use crate::command::{Reply, ReplyHeaders};
use crate::kafka::{Event, Lane, Plane, ReadKey, StartAt, TopicHandle};
use crate::log::Batch;
use crate::model::{Instant, Offset, Partition};
use crate::route::{Failure, Refused};

use super::Outbox;
use crate::shard::message::{Answer, Message, Waiter};

/// Replies that may be asked for at one time; beyond it the client is told to come back.
const LOOKUPS_MAX: usize = 1024;

/// Clients that may wait for one reply.
const WAITERS_MAX: usize = 64;

/// The lookups of one replies topic.
#[derive(Debug)]
pub(super) struct Lookups {
    topic: TopicHandle,
    /// The first of each partition is being read.
    waiting: VecDeque<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    partition: Partition,
    offset: Offset,
    /// Who waits, and until when.
    waiters: Vec<(Waiter, Instant)>,
}

impl Lookups {
    pub(super) const fn new(topic: TopicHandle) -> Self {
        Self {
            topic,
            waiting: VecDeque::new(),
        }
    }

    /// Reads a reply for a waiter. False: too many are asked for.
    pub(super) fn ask(
        &mut self,
        waiter: (Waiter, Instant),
        partition: Partition,
        offset: Offset,
        plane: &mut Plane,
    ) -> bool {
        let same = |l: &&mut Lookup| l.partition == partition && l.offset == offset;
        if let Some(lookup) = self.waiting.iter_mut().find(same) {
            let room = lookup.waiters.len() < WAITERS_MAX;
            lookup.waiters.extend(room.then_some(waiter));
            return room;
        }
        if self.waiting.len() >= LOOKUPS_MAX {
            return false;
        }
        let idle = !self
            .waiting
            .iter()
            .any(|lookup| lookup.partition == partition);
        self.waiting.push_back(Lookup {
            partition,
            offset,
            waiters: vec![waiter],
        });
        if idle {
            plane.read(self.read(partition), StartAt::At(offset));
        }
        true
    }

    const fn read(&self, partition: Partition) -> ReadKey {
        ReadKey {
            lane: Lane::History,
            topic: self.topic,
            partition,
        }
    }

    /// Something about one of these reads.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        names: &ReplyHeaders,
        plane: &mut Plane,
        out: &mut Outbox,
    ) {
        match event {
            Event::Batch {
                read, batch, next, ..
            } => {
                let Some(offset) = self.first(read.partition) else {
                    return plane.stop(read);
                };
                let answer = find(&batch, offset, names);
                // An answer without the record that is not past it yet: the next one has it.
                if answer.is_some() || next.offset > offset {
                    let gone = Answer::Refused(Failure::ReplyUnavailable.into());
                    self.done(read.partition, &answer.unwrap_or(gone), plane, out);
                }
            }
            Event::Undecodable { read, .. } | Event::OutOfRange { read, .. } => {
                let gone = Answer::Refused(Failure::ReplyUnavailable.into());
                self.done(read.partition, &gone, plane, out);
            }
            // A read that fails is tried again by the plane; its waiters have deadlines.
            _ => {}
        }
    }

    /// Waiters past their deadline are told that the reply can't be had now.
    pub(super) fn on_time(&mut self, now: Instant, out: &mut Outbox) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        for lookup in &mut self.waiting {
            let late = lookup
                .waiters
                .extract_if(.., |(_, deadline)| *deadline <= now);
            let gone = || Answer::Refused(Failure::ReplyUnavailable.into());
            out.extend(late.map(|(waiter, _)| (waiter.shard, Message::Answer(waiter, gone()))));
        }
    }

    /// When [`Self::on_time`] has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiters = self.waiting.iter().flat_map(|lookup| &lookup.waiters);
        waiters.map(|(_, deadline)| *deadline).min()
    }

    fn first(&self, partition: Partition) -> Option<Offset> {
        let mut waiting = self.waiting.iter();
        waiting
            .find(|lookup| lookup.partition == partition)
            .map(|lookup| lookup.offset)
    }

    /// Answers whoever waits for the reply being read of a partition, and reads its next.
    fn done(&mut self, partition: Partition, answer: &Answer, plane: &mut Plane, out: &mut Outbox) {
        let Some(at) = self.waiting.iter().position(|l| l.partition == partition) else {
            return;
        };
        let lookup = self.waiting.remove(at).expect("found above");
        let told = lookup.waiters.into_iter();
        out.extend(told.map(|(waiter, _)| (waiter.shard, Message::Answer(waiter, answer.clone()))));
        match self.first(partition) {
            Some(offset) => plane.read(self.read(partition), StartAt::At(offset)),
            None => plane.stop(self.read(partition)),
        }
    }
}

/// The reply at an offset, if the batch has it.
fn find(batch: &Batch, offset: Offset, names: &ReplyHeaders) -> Option<Answer> {
    let record = batch.iter().find(|record| record.offset == offset)?;
    Some(match Reply::read(&record, names) {
        Ok(reply) => Answer::Reply {
            reply: reply.into(),
            replayed: true,
        },
        Err(error) => Answer::Refused(Refused::from(error)),
    })
}
