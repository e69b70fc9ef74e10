//! One read: its position, the broker it asks, and when it is retried after a failure.

use super::KafkaError;
use super::bounds::Bounds;
use super::context::Context;
use super::event::{Event, Lane, LinkId, ReadKey, StartAt};
use super::link::{LinkKey, Peer, Purpose};
use super::offsets::SeekTime;
use super::silence::Silent;
use super::view::BrokerId;
use crate::log::Next;
use crate::model::{Instant, LeaderEpoch, Offset, UnixMillis};

/// The position of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadPlace {
    /// A place that the leader must name. `wanted`: the offset that was out of range.
    Sought { seek: Seek, wanted: Option<Offset> },
    /// The position of the next record.
    At(Next),
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) place: ReadPlace,
    /// Tells this read from an earlier one of the same key.
    pub(super) generation: u32,
    /// The epoch of the leader that has what was read. A leader of another epoch is asked first.
    pub(super) checked: LeaderEpoch,
    /// The link on which it waits for a response.
    pub(super) flight: Option<LinkId>,
    /// The number of the Fetch that asked for it last. Zero: none did.
    pub(super) asked_in: u64,
    /// When a broker last confirmed that it has nothing more. While a fetch session keeps the read
    /// in flight, the session knows a later moment.
    pub(super) confirmed: Option<Instant>,
    /// Records of the last response wait to be unpacked. The read is not asked for meanwhile.
    pub(super) unpacking: bool,
    pub(super) not_before: Instant,
    pub(super) paused: bool,
    pub(super) started: bool,
    pub(super) failures: u32,
    /// The last error that was reported as `ReadFailed` or as an undecodable header.
    pub(super) told: Option<KafkaError>,
    /// Grows if a broker responds with less than one batch.
    pub(super) bytes_max: u32,
    /// The broker in the client's rack that the leader named (KIP-392), and until when it is asked.
    replica: Option<(BrokerId, Instant)>,
    /// Until then only the leader is asked, because another broker has failed.
    pub(super) leader_until: Instant,
    /// Where the log begins and ends, as its leader reported last.
    leader_bounds: Option<Bounds>,
}

/// What the leader is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seek {
    Earliest,
    Latest,
    /// The log's end, and then the first record at or after this time. In this order, because a
    /// record that is appended between the two is then at or behind the end, or found by its time.
    EndBefore(UnixMillis),
    /// The first record at or after `time`. `end`: where the read begins if there is none.
    Since {
        time: UnixMillis,
        end: Next,
    },
}

impl Seek {
    pub(super) const fn time(self) -> SeekTime {
        match self {
            Self::Earliest => SeekTime::Earliest,
            Self::Latest | Self::EndBefore(_) => SeekTime::Latest,
            Self::Since { time, .. } => SeekTime::At(time),
        }
    }
}

impl ReadPlace {
    pub(super) const fn sought(seek: Seek) -> Self {
        let wanted = None;
        Self::Sought { seek, wanted }
    }
}

impl Read {
    pub(super) const fn new(from: StartAt, generation: u32, bytes_max: u32) -> Self {
        let place = match from {
            StartAt::Earliest => ReadPlace::sought(Seek::Earliest),
            StartAt::Latest => ReadPlace::sought(Seek::Latest),
            StartAt::Since(time) => ReadPlace::sought(Seek::EndBefore(time)),
            StartAt::At(next) => ReadPlace::At(next),
        };
        Self {
            place,
            generation,
            checked: LeaderEpoch(None),
            flight: None,
            asked_in: 0,
            confirmed: None,
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

    /// The bounds of the log, from those that a broker reports. A follower may lag, and has its own
    /// retention, so its bounds are corrected by the leader's last ones.
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

    /// The broker in the client's rack, while it exists and responds.
    pub(super) fn replica(&mut self, lane: Lane, cx: &mut Context<'_>) -> Option<BrokerId> {
        let (node, until) = self.replica?;
        let peer = Peer::Node(node);
        let purpose = Purpose::Fetch(lane);
        let to = LinkKey { peer, purpose };
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

    /// The leader names a broker in the client's rack that has the partition.
    pub(super) fn go_to(&mut self, node: BrokerId, cx: &mut Context<'_>) {
        self.replica = Some((node, cx.now.mono.after(cx.settings.metadata_refresh)));
        *cx.stale |= cx.view.address(node).is_none();
    }

    /// The read may continue under a leader of this epoch. The bounds that the last leader reported
    /// may be of a branch of the log that was cut off.
    pub(super) fn on_leader(&mut self, epoch: LeaderEpoch) {
        self.checked = epoch;
        (self.leader_bounds, self.replica) = (None, None);
    }

    /// Goes back to the leader until the next refresh of metadata. Returns false if the leader was
    /// asked already.
    pub(super) fn leave_replica(&mut self, cx: &Context<'_>) -> bool {
        let left = self.replica.take().is_some();
        if left {
            self.leader_until = cx.now.mono.after(cx.settings.metadata_refresh);
        }
        left
    }
}

/// A read can't continue for now. An error that newer metadata usually resolves is reported only if
/// it lasts, since leaders move all the time.
pub(super) fn fail(key: ReadKey, read: &mut Read, error: KafkaError, cx: &mut Context<'_>) {
    const ROUTINE_FAILURES: u32 = 3;
    if read.leave_replica(cx) {
        return; // The leader is asked at once.
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
