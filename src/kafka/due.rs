//! Which reads may be part of a Fetch now, and which broker is asked for them.

use std::time::Duration;

use super::context::Context;
use super::epochs::{Epochs, OPEN_FOR};
use super::event::{Lane, ReadKey, TopicHandle};
use super::read::{Read, ReadPlace};
use super::silence::Silent;
use super::view::BrokerId;
use crate::log::Next;
use crate::model::{Instant, LeaderEpoch, Partition};

/// How often a read that waits for the end of an epoch asks again.
const EPOCHS_ASKED_EVERY: Duration = Duration::from_secs(2);

const _: () = {
    // A question stays open as long as a read waits for its answer.
    assert!(EPOCHS_ASKED_EVERY.as_millis() * 2 < OPEN_FOR.as_millis());
};

/// A read that may be part of a Fetch now.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueRead {
    pub(super) lane: Lane,
    /// The broker to ask, a leader or a replica.
    pub(super) node: BrokerId,
    pub(super) key: ReadKey,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) next: Next,
    pub(super) bytes_max: u32,
    pub(super) started: bool,
    /// Whether another broker than the leader may serve it.
    pub(super) any_replica: bool,
    /// See [`Read::asked_in`], which orders the reads of a Fetch.
    pub(super) asked_in: u64,
}

impl DueRead {
    /// What a request and its response name. A Fetch names each partition once.
    pub(super) const fn partition(&self) -> (TopicHandle, Partition) {
        (self.key.topic, self.key.partition)
    }

    /// Whether a session that has the one entry need not be sent the other.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let asks = |due: &Self| (due.leader_epoch, due.next, due.bytes_max);
        asks(self) == asks(other)
    }
}

/// The read as part of a Fetch, if it may be asked for now.
pub(super) fn due_read(
    key: ReadKey,
    read: &mut Read,
    epochs: &mut Epochs,
    cx: &mut Context<'_>,
) -> Option<DueRead> {
    let ReadPlace::At(next) = read.place else {
        return None;
    };
    if read.flight.is_some() || read.unpacking || read.paused {
        return None;
    }
    if read.not_before > cx.now.mono {
        cx.wake.at(read.not_before);
        return None;
    }
    let (leader, leader_epoch) = cx.leader(key.topic, key.partition)?;
    if read.checked != leader_epoch && !epochs.may_continue(key, read, next, leader_epoch, cx) {
        // The question is dropped unless it is repeated.
        cx.wake.at(cx.now.mono.after(EPOCHS_ASKED_EVERY));
        return None;
    }
    // A log that was cut back has moved it.
    let ReadPlace::At(next) = read.place else {
        return None;
    };
    Some(DueRead {
        lane: key.lane,
        node: read.replica(key.lane, cx).unwrap_or(leader),
        key,
        leader_epoch,
        next,
        bytes_max: read.bytes_max,
        started: read.started,
        any_replica: read.leader_until <= cx.now.mono,
        asked_in: read.asked_in,
    })
}

/// If a response of the broker in the client's rack is overdue, reads from the leader instead,
/// which has every record that the replica has. A late response is ignored.
pub(super) fn leave_silent_replica(read: &mut Read, cx: &Context<'_>) {
    if replica_silent_from(read, cx).is_some_and(|from| from <= cx.now.mono) {
        read.flight = None;
        read.leave_replica(cx);
    }
}

/// When the response of the replica that a read waits for will be overdue.
pub(super) fn replica_silent_from(read: &Read, cx: &Context<'_>) -> Option<Instant> {
    let link = read.flight.filter(|_| read.is_at_replica())?;
    cx.silence().link_from(link, Silent::Unavailable)
}
