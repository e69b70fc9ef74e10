//! One read: where it stands, which broker it asks, and when it tries again after a failure.

use super::KafkaError;
use super::bounds::Bounds;
use super::context::Context;
use super::event::{Event, Lane, LinkId, ReadKey, StartAt, TopicHandle};
use super::link::{Peer, Purpose};
use super::silence::Silent;
use super::view::BrokerId;
use crate::log::Next;
use crate::model::{Instant, LeaderEpoch, Offset, Partition};

/// Where a read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadPlace {
    /// The broker must say where this is. `wanted`: what turned out to be out of range.
    Sought {
        earliest: bool,
        wanted: Option<Offset>,
    },
    /// Here.
    At(Next),
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) place: ReadPlace,
    /// Tells this read from an earlier one of the same key.
    pub(super) generation: u32,
    /// The epoch of the leader that is known to have what was read: of another one it is asked.
    pub(super) checked: LeaderEpoch,
    /// The link whose answer it waits for.
    pub(super) flight: Option<LinkId>,
    /// The number of the Fetch that asked for it last. Zero: none did.
    pub(super) asked_in: u64,
    /// Records of its last response wait to be unpacked. It is not asked for meanwhile.
    pub(super) unpacking: bool,
    pub(super) not_before: Instant,
    pub(super) paused: bool,
    pub(super) started: bool,
    pub(super) failures: u32,
    /// What was last told as `ReadFailed` or as an undecodable header.
    pub(super) told: Option<KafkaError>,
    /// Grows where a broker answers with less than one batch.
    pub(super) bytes_max: u32,
    /// The broker in our rack that the leader named (KIP-392), and for how long it is asked.
    replica: Option<(BrokerId, Instant)>,
    /// Until then no other broker than the leader is asked: one has failed.
    pub(super) leader_until: Instant,
    /// Where the log begins and ends, as its leader said last.
    leader_bounds: Option<Bounds>,
}

impl ReadPlace {
    const fn sought(earliest: bool) -> Self {
        let wanted = None;
        Self::Sought { earliest, wanted }
    }
}

impl Read {
    pub(super) const fn new(from: StartAt, generation: u32, bytes_max: u32) -> Self {
        let place = match from {
            StartAt::Earliest => ReadPlace::sought(true),
            StartAt::Latest => ReadPlace::sought(false),
            StartAt::At(next) => ReadPlace::At(next),
        };
        Self {
            place,
            generation,
            checked: LeaderEpoch(None),
            flight: None,
            asked_in: 0,
            unpacking: false,
            not_before: Instant::ZERO,
            paused: false,
            started: false,
            failures: 0,
            told: None,
            bytes_max,
            replica: None,
            leader_until: Instant::ZERO,
            leader_bounds: None,
        }
    }

    /// The ends of the log, of which whoever was asked told its own. A follower may lag, and its
    /// retention is its own: what the leader had when it was asked last, the log has.
    pub(super) fn bounds(&mut self, told: Bounds) -> Bounds {
        match self.leader_bounds.filter(|_| self.replica.is_some()) {
            Some(leader) => told.beside(leader),
            None => *self.leader_bounds.insert(told),
        }
    }

    /// A response was read to its end.
    pub(super) fn on_whole(&mut self, cx: &Context<'_>) {
        self.failures = 0;
        self.told = None;
        self.bytes_max = cx.settings.partition_bytes_max;
    }

    /// The broker in the client's rack, while it exists and answers.
    pub(super) fn replica(&mut self, lane: Lane, cx: &mut Context<'_>) -> Option<BrokerId> {
        let (node, until) = self.replica?;
        let peer = Peer::Node(node);
        let to = (peer, Purpose::Fetch(lane));
        let silent = cx.silence().from(to, Silent::Unavailable);
        let answers = silent.is_none_or(|from| from > cx.now.mono);
        if let Some(from) = silent.filter(|_| answers) {
            cx.wake.at(from);
        }
        let brokers = cx.links.brokers();
        let trusted = brokers.is_trusted(peer) || brokers.not_before(peer) <= cx.now.mono;
        let serves = cx.view.address(node).is_some() && answers && trusted;
        if until > cx.now.mono && serves {
            return Some(node);
        }
        if !serves {
            self.leave_replica(cx);
        }
        self.replica = None;
        None
    }

    /// Whether a broker other than the leader is asked.
    pub(super) const fn is_at_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// The leader says who has the partition in our rack.
    pub(super) fn go_to(&mut self, node: BrokerId, cx: &mut Context<'_>) {
        self.replica = Some((node, cx.now.mono.after(cx.settings.metadata_refresh)));
        *cx.stale |= cx.view.address(node).is_none();
    }

    /// Another leader's epoch, under which the read may go on. What the last one said of the log's
    /// end may be of a branch that is cut off.
    pub(super) fn on_leader(&mut self, epoch: LeaderEpoch) {
        self.checked = epoch;
        (self.leader_bounds, self.replica) = (None, None);
    }

    /// Goes back to the leader, for as long as metadata is good for. False: it was there.
    pub(super) fn leave_replica(&mut self, cx: &Context<'_>) -> bool {
        let left = self.replica.take().is_some();
        if left {
            self.leader_until = cx.now.mono.after(cx.settings.metadata_refresh);
        }
        left
    }
}

/// A read that may be asked for now.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueRead {
    pub(super) lane: Lane,
    /// Whom to ask.
    pub(super) node: BrokerId,
    pub(super) key: ReadKey,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) next: Next,
    pub(super) bytes_max: u32,
    pub(super) started: bool,
    /// Another broker than the leader will do.
    pub(super) any_replica: bool,
    /// See [`Read::asked_in`].
    pub(super) asked_in: u64,
}

impl DueRead {
    /// What a request and its response name. A Fetch names each partition once.
    pub(super) const fn partition(&self) -> (TopicHandle, Partition) {
        (self.key.topic, self.key.partition)
    }

    /// Whether a broker that knows the one need not be told the other.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let asks = |due: &Self| (due.leader_epoch, due.next, due.bytes_max);
        asks(self) == asks(other)
    }
}

/// A read can't go on for now. What newer metadata mends is told only if it does not, since
/// leaders move all the time.
pub(super) fn fail(key: ReadKey, read: &mut Read, error: KafkaError, cx: &mut Context<'_>) {
    const ROUTINE_FAILURES: u32 = 3;
    if read.leave_replica(cx) {
        return; // Another broker is asked at once.
    }
    read.failures += 1;
    read.not_before = cx.retry_at(read.failures);
    let routine = match &error {
        KafkaError::Broker(code) => code.is_stale(),
        KafkaError::Closed | KafkaError::Timeout => true,
        _ => false,
    };
    let tell = !routine || read.failures > ROUTINE_FAILURES;
    if tell && read.told.as_ref() != Some(&error) {
        read.told = Some(error.clone());
        cx.events.push_back(Event::ReadFailed { read: key, error });
    }
}
