//! The data that goes into a feed and comes out of it: settings, subscriptions, needs, counts.

use std::time::Duration;

use super::Encoding;
use crate::log::{Cut, Next, Seq};
use crate::model::{Etag, ExchangeId, KeyHash, LogTag, Offset, Partition, ShardId};

/// Encodings that a topic may have. A step has a block for each.
pub const ENCODINGS_MAX: usize = 4;

/// The settings of one topic incarnation's streams. They do not change while the feed lives.
#[derive(Clone, Debug)]
pub struct FeedSettings {
    /// The tag of the topic incarnation, which ids carry.
    pub tag: LogTag,
    /// How events are written, in the order of `Step::blocks`. At most [`ENCODINGS_MAX`].
    pub encodings: Vec<Encoding>,
    /// Whether the topic keeps the newest record of each key (`cleanup.policy` has `compact`): then
    /// *changes* serve what the window does not hold, else catch-up reads of the log do.
    pub compacted: bool,
    /// `delete.retention.ms`: a client of a compacted topic that was away for longer (less 10 %)
    /// may have missed deletes.
    pub delete_retention: Duration,
    /// The log start of each partition when the feed is made; steps move it.
    pub log_start: Cut,
    /// How often a quiet client is sent a heartbeat. The phase differs by client.
    pub heartbeat: Duration,
    /// What `retry:` says, give or take a half.
    pub retry: Duration,
    /// Whether positions are sent as events (`position`) or as ids without an event.
    pub position_events: bool,
    /// How long a catch-up read waits for its slowest member before it continues without it.
    pub catch_up_patience: Duration,
    /// Seeds the jitter of `retry:` and of heartbeats, and nothing else.
    pub seed: u64,
}

/// One stream that a client asked for.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    /// Index into [`FeedSettings::encodings`], and into `Step::blocks`.
    pub encoding: usize,
    /// Which records it is sent.
    pub filter: Filter<'a>,
    /// Where it starts if it brings no id.
    pub start: StartFrom,
    /// `Last-Event-ID` as it came; an empty one counts as none.
    pub last_event_id: Option<&'a [u8]>,
    /// What happens once it falls out of the window.
    pub slow: Slow,
}

/// Which records a subscriber is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Only records with this key, given with its hash under the topic's secret. `None`: all.
    pub key: Option<(KeyHash, &'a [u8])>,
}

/// Where a stream without an id starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// With the next record that is appended.
    Live,
    /// With all that the log still has; on compacted topics with the newest record of each key.
    Earliest,
    /// With the newest record of each key; compacted topics only (else as `Earliest`).
    Snapshot,
}

/// What happens to a subscriber that falls out of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// The subscriber is closed, and its client resumes by its id.
    Disconnect,
    /// The subscriber is sent the newest record of each key that it missed; compacted topics only
    /// (else as `Disconnect`).
    Conflate,
}

/// A question that a stream asks another shard. The number distinguishes its answer from the answer
/// to an earlier question of the same stream, which may be about other positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamQuestion {
    /// The stream that receives the answer.
    pub exchange: ExchangeId,
    /// Counts the questions of its feed.
    pub number: u32,
}

/// What a subscriber needs from outside its feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// *changes*: the newest record of each key with `since` ≤ offset < `below`, tombstones too,
    /// from slices that have applied `seq`. Answer with [`super::Feed::on_page`].
    Page {
        /// Give it back with the answer.
        question: StreamQuestion,
        /// The client holds everything below.
        since: Cut,
        /// The cut at step `seq`: *changes* end there.
        below: Cut,
        /// A slice that has not applied this step holds the request until it has.
        seq: Seq,
        /// Where the page before ended. `None`: this is the first.
        after: Option<PageCursor>,
        /// Only this key, at its owner.
        key: Option<(KeyHash, Box<[u8]>)>,
    },
    /// Whether the log still has what a client holds. Answer with
    /// [`super::Feed::on_epochs_checked`].
    EpochCheck {
        /// Give it back with the answer.
        question: StreamQuestion,
        /// The positions in doubt, each with the epoch of the record before.
        positions: Vec<(Partition, Next)>,
    },
    /// A share in a catch-up read of the log. Answer with [`super::Feed::on_catch_up_joined`].
    CatchUp {
        /// Give it back with the answer.
        question: StreamQuestion,
        /// What the client holds. The epochs serve to notice that the log was cut back.
        from: Cut,
        /// The encoding of the blocks.
        encoding: usize,
    },
    /// The subscriber has left, and no longer needs what it waited for.
    Cancel {
        /// The stream of the subscriber that has left.
        exchange: ExchangeId,
        /// Where the subscriber's question waits for its answer.
        at: WaitsAt,
    },
}

/// Where a subscriber waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsAt {
    /// At the topic's home: an epoch check or a catch-up read.
    Home,
    /// At the slice that has the next page.
    Slice {
        /// Where the page before ended. `None`: it waits for the first.
        after: Option<PageCursor>,
        /// The key's hash, if it reads one key only.
        key: Option<KeyHash>,
    },
}

/// Where *changes* continue: a slice, and a position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    /// The shard that has the slice.
    pub shard: ShardId,
    /// The partition of `offset`. The slice has paged all lower partitions.
    pub partition: Partition,
    /// The first offset not yet paged.
    pub offset: Offset,
}

/// One record of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageEntry<'a> {
    /// The record's key, as in the log.
    pub key: &'a [u8],
    /// The record's value. `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The entity's etag, as a GET shows it.
    pub etag: &'a Etag,
    /// The partition that has the record.
    pub partition: Partition,
    /// The record's offset in its partition.
    pub offset: Offset,
}

/// Names a catch-up read of the topic. The home numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CatchUpId(pub u32);

/// Says that the home may send the next block of a catch-up read to this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The catch-up read that the credit is for.
    pub catch_up: CatchUpId,
    /// Members that it still has on this shard. 0: the shard needs no more blocks.
    pub members: u32,
}

/// What [`super::Feed::deliver`] did, and what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is left to send. [`super::Feed::next_pending`] returns the subscriber again once
    /// something is.
    Idle,
    /// The transport is full: call [`super::Feed::on_writable`] once it can take more.
    Full,
    /// More is left. The subscriber is pending again, behind the others.
    More,
    /// The subscriber fell out of the window and is removed. Close the stream: the client resumes
    /// by its id.
    Lagged,
    /// What the client needs is not available now, and the subscriber is removed. Close the stream:
    /// the client resumes by its id.
    Failed,
    /// The client has not taken a page of *changes* in time while other streams waited for memory,
    /// and the subscriber is removed. Close the connection: the rest of the page is gone.
    Stalled,
    /// The connection is closed, and the subscriber is removed.
    Closed,
}

/// Counters of a feed, for metrics. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Event-stream bytes taken by transports.
    pub bytes: u64,
    /// Frames sent from the window as they are.
    pub frames_shared: u64,
    /// Frames sent with an id of the subscriber's own, from the window or a catch-up read.
    pub frames_private: u64,
    /// Records sent by pages of *changes*.
    pub page_entries: u64,
    /// Heartbeats written for streams, with and without an id.
    pub heartbeats: u64,
    /// Gaps sent to single subscribers.
    pub gaps: u64,
    /// Subscribers removed because they fell out of the window.
    pub lagged: u64,
    /// How often a subscriber was conflated instead.
    pub conflated: u64,
}

impl FeedCounts {
    /// Events sent: from the window, catch-up reads and pages.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.frames_shared + self.frames_private + self.page_entries
    }
}
