//! The events of a client.

use std::sync::Arc;

use super::view::{BrokerId, ClusterView, MissingReason, TopicView};
use super::{Address, KafkaError, ProduceError};
use crate::log::{Batch, Next};
use crate::model::{Offset, Partition, UnixMillis};

/// A topic of one client, by the order of `watch`. Another client has other handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicHandle(pub u32);

/// A connection of one client. An id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// The connections that a read uses. Each lane has its own to every broker, so that a long poll or
/// a large response of one lane does not delay another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Topics that carry replies of commands.
    Replies,
    /// Topics of queries and streams.
    Streams,
    /// Catch-up reads and reads by offset. The caller bounds their number.
    History,
    /// Read records again that caches had no room for.
    Again,
}

/// The caller's number for one of several reads of a partition in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadId(pub u32);

impl ReadId {
    /// The read that follows a topic's end.
    pub const LIVE: Self = Self(0);
}

/// One read. A partition may be read several times at once: in several lanes, and in one lane under
/// several ids. A Fetch names a partition once, so the reads of one lane take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadKey {
    /// The connections that it uses.
    pub lane: Lane,
    /// The topic of the partition.
    pub topic: TopicHandle,
    /// The partition that it reads.
    pub partition: Partition,
    /// Its number among the partition's reads in this lane.
    pub id: ReadId,
}

/// The position from which a read returns records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record that is still there.
    Earliest,
    /// The last stable offset: records that are committed from now on.
    Latest,
    /// The first record whose timestamp is at or after this time. If there is none, the last stable
    /// offset.
    Since(UnixMillis),
    /// A known position. Offset 0 is right for a new partition. A position with an epoch is checked
    /// first, see [`Event::Truncated`].
    At(Next),
}

/// The end that `ends` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isolation {
    /// The last stable offset: below every open transaction.
    Committed,
    /// The high watermark: above every replicated record.
    HighWatermark,
}

/// The outcome of a produced record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Produced {
    /// The record is in the log. The offset is `None` in the rare case that the broker remembers
    /// the batch as a duplicate but not its offset (DUPLICATE_SEQUENCE_NUMBER).
    At(Partition, Option<Offset>),
    /// The record is certainly not in the log, and will not be.
    Refused(ProduceError),
    /// The record may be in the log, or may still be appended.
    Unknown(ProduceError),
}

impl Event {
    /// The read that the event belongs to, if any.
    #[must_use]
    pub const fn read(&self) -> Option<ReadKey> {
        match self {
            Self::Started { read, .. }
            | Self::Batch { read, .. }
            | Self::Undecodable { read, .. }
            | Self::OutOfRange { read, .. }
            | Self::Truncated { read, .. }
            | Self::ReadFailed { read, .. } => Some(*read),
            _ => None,
        }
    }
}

/// What happened. Events of one partition, and events of one broker, are in order.
#[derive(Debug)]
pub enum Event {
    /// The cluster's view has changed. Emitted only by the client with the directory, for the
    /// clients that are fed.
    View(Arc<ClusterView>),
    /// A fed client met a stale view: the client with the directory should `refresh`.
    RefreshWanted,
    /// A watched topic was found, or its properties have changed. Another id means another log: the
    /// reads of the topic have ended and emit nothing more, and its unanswered records are
    /// answered.
    Topic(TopicHandle, Arc<TopicView>),
    /// A watched topic can't be used. Emitted once per change. Reads wait until the topic can be
    /// used.
    Missing(TopicHandle, MissingReason),
    /// A read has its first answer.
    Started {
        /// The read that the event is about.
        read: ReadKey,
        /// Where it begins, with the epoch there as far as the broker said.
        from: Next,
        /// The last stable offset then: caught up once `next` is at or past it.
        end: Offset,
    },
    /// A broker's response about one partition, with or without records. A response without records
    /// still confirms the log's end. `next` moves past control batches, aborted records and gaps in
    /// the offsets. Within a fetch session a response names only partitions that have changed. The
    /// others emit no event: [`super::Client::confirmed`] returns when a broker confirmed them.
    Batch {
        /// The read that the event is about.
        read: ReadKey,
        /// The records. There may be none.
        batch: Batch,
        /// The position at which the read continues.
        next: Next,
        /// The first offset that is still there.
        log_start: Offset,
        /// The offset after the last replicated record.
        high_watermark: Offset,
        /// The offset after the last record that no open transaction may abort. A read with `next`
        /// here has caught up.
        stable_end: Offset,
    },
    /// Records that can't be decoded. The read continues at `to`. If even a batch's header is
    /// invalid, `to` is `from`: the read is stuck there and retries with backoff. Emitted once.
    Undecodable {
        /// The read that the event is about.
        read: ReadKey,
        /// The first offset that can't be decoded.
        from: Offset,
        /// The first offset after these.
        to: Offset,
        /// The cause, for the log.
        error: KafkaError,
    },
    /// The wanted offset is not in the log: below its start by retention (`wanted < log_start`), or
    /// beyond its end after an unclean election. The read continues at `log_start`.
    OutOfRange {
        /// The read that the event is about.
        read: ReadKey,
        /// The offset that it asked for.
        wanted: Offset,
        /// The offset at which it continues.
        log_start: Offset,
    },
    /// An unclean election has cut the log back below the read's position. Records that the read
    /// returned at or above `end` are no longer in the log. The read continues at `end`.
    Truncated {
        /// The read that the event is about.
        read: ReadKey,
        /// The offset at which it was.
        wanted: Offset,
        /// Where the log still has what it brought.
        end: Next,
    },
    /// The end of epochs of a topic is known now, or can be asked for again: see
    /// [`super::Client::epoch_end`].
    EpochEnds(TopicHandle),
    /// A read can't continue for now, and is retried with backoff. Emitted once per change. The
    /// next `Batch` ends it.
    ReadFailed {
        /// The read that the event is about.
        read: ReadKey,
        /// The cause, for the log.
        error: KafkaError,
    },
    /// The outcome of a record. Emitted once per ticket.
    Produced {
        /// The number that the caller gave.
        ticket: u64,
        /// The outcome of the record.
        outcome: Produced,
    },
    /// The ends of a topic's partitions, dense by number. Each was true at some moment after the
    /// `ends` call.
    Ends {
        /// The topic whose ends they are.
        topic: TopicHandle,
        /// The number that the caller gave.
        ticket: u64,
        /// The first offset after the last record, per partition.
        ends: Vec<Offset>,
    },
    /// The ends did not arrive in time, or can't.
    EndsFailed {
        /// The topic whose ends were asked for.
        topic: TopicHandle,
        /// The number that the caller gave.
        ticket: u64,
        /// The cause, for the log.
        error: KafkaError,
    },
    /// A broker responds again, or for the first time.
    BrokerUp {
        /// The broker's number. `None` for a bootstrap address.
        broker: Option<BrokerId>,
        /// The address that was tried.
        address: Address,
    },
    /// A broker failed. Emitted once per reason until it is up again.
    BrokerDown {
        /// The broker's number. `None` for a bootstrap address.
        broker: Option<BrokerId>,
        /// The address that was tried.
        address: Address,
        /// The reason. Repeats of it emit no event while the broker is down.
        error: KafkaError,
    },
}
