//! What a feed is told and what it asks for: settings, a subscription, needs that go outside.

use std::time::Duration;

use super::Encoding;
use crate::log::{Cut, Next, Seq};
use crate::model::{Etag, ExchangeId, KeyHash, LogTag, Offset, Partition, ShardId};

/// Encodings a topic may have: what `Step::blocks` holds.
pub const ENCODINGS_MAX: usize = 4;

/// What is fixed about one topic instance's streams.
#[derive(Clone, Debug)]
pub struct FeedSettings {
    /// The log's tag.
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
    /// How often a quiet client hears something. The phase differs by client.
    pub heartbeat: Duration,
    /// What `retry:` says, give or take a half.
    pub retry: Duration,
    /// Whether positions are sent as events (`position`) or as ids without an event.
    pub position_events: bool,
    /// How long a catch-up read waits for its slowest member before it goes on without it.
    pub catch_up_patience: Duration,
    /// For jitter only.
    pub seed: u64,
}

/// One stream that a client asked for.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    /// Index into [`FeedSettings::encodings`].
    pub encoding: usize,
    /// Which records it gets.
    pub filter: Filter<'a>,
    /// Where it starts if it brings no id.
    pub start: Start,
    /// `Last-Event-ID` as it came; an empty one counts as none.
    pub last_event_id: Option<&'a [u8]>,
    /// What happens once it falls out of the window.
    pub slow: Slow,
}

/// Which records a subscriber gets: equality, later also on header values and identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Only records with this key, and its hash under the fleet's secret; `None`: all.
    pub key: Option<(KeyHash, &'a [u8])>,
}

/// Where a stream without an id starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Live,
    /// With all the log still has; on compacted topics with the newest record of each key.
    Earliest,
    /// With the newest record of each key; compacted topics only (else as `Earliest`).
    Snapshot,
}

/// What becomes of a subscriber that falls out of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// It is closed and resumes by its id.
    Disconnect,
    /// It gets the newest record of each key it missed; compacted topics only (else as
    /// `Disconnect`).
    Conflate,
}

/// A question that a stream asks another shard. The number keeps the answer to an earlier question
/// of the same stream from being taken for this one's: it may be about other positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamQuestion {
    /// The stream that asks.
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
        /// To answer with.
        question: StreamQuestion,
        /// The client holds everything below.
        since: Cut,
        /// The cut at `seq`.
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
        /// To answer with.
        question: StreamQuestion,
        /// The positions in doubt, each with the epoch of the record before.
        positions: Vec<(Partition, Next)>,
    },
    /// A share in a catch-up read of the log. Answer with [`super::Feed::on_catch_up_joined`].
    CatchUp {
        /// To answer with.
        question: StreamQuestion,
        /// What the client holds. The epochs serve to notice that the log was cut back.
        from: Cut,
        /// The encoding of the blocks.
        encoding: usize,
    },
    /// The subscriber has left, and no longer needs what it waited for.
    Cancel {
        /// The subscriber.
        exchange: ExchangeId,
        /// Where it waits.
        at: WaitsAt,
    },
}

/// Where a subscriber waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsAt {
    /// At the topic's home.
    Home,
    /// At the slice that has the next page.
    Slice {
        /// Where the page before ended. `None`: it waits for the first.
        after: Option<PageCursor>,
        /// The key's hash, if it reads one key only.
        key: Option<KeyHash>,
    },
}

/// Where *changes* go on: the shard whose slice is being paged, and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    /// The slice's shard.
    pub shard: ShardId,
    /// The partition being paged.
    pub partition: Partition,
    /// The first offset not yet paged.
    pub offset: Offset,
}

/// One record of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageEntry<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its etag, as a GET shows it.
    pub etag: &'a Etag,
    /// Whose record.
    pub partition: Partition,
    /// Its position.
    pub offset: Offset,
}

/// A catch-up read, by the home's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CatchUpId(pub u32);

/// The home may send the catch-up read's next block, if anybody is left here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Which catch-up read.
    pub catch_up: CatchUpId,
    /// How many are still in it at this shard; 0: send no more blocks here.
    pub members: u32,
}

/// What became of a call to [`super::Feed::deliver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is left to send: [`super::Feed::next_pending`] names it again when there is.
    Idle,
    /// The transport is full: call [`super::Feed::on_writable`] once it can take more.
    Full,
    /// More is left; it is pending again, behind the others.
    More,
    /// It fell out of the window and must be closed: it resumes by its id. It is unsubscribed.
    Lagged,
    /// What the client needs can't be had now, so it must be closed: it resumes by its id. It is
    /// unsubscribed.
    Failed,
    /// The transport is gone. It is unsubscribed.
    Closed,
}

/// What a feed has done, for metrics. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Event-stream bytes taken by transports.
    pub bytes: u64,
    /// Frames sent from the window as they lie.
    pub frames_shared: u64,
    /// Frames sent with an id of the subscriber's own, from the window or a catch-up read.
    pub frames_private: u64,
    /// Records sent by pages.
    pub page_entries: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Gaps told to single subscribers.
    pub gaps: u64,
    /// Subscribers closed because they fell out of the window.
    pub lagged: u64,
    /// Times a subscriber was conflated instead.
    pub conflated: u64,
}

impl FeedCounts {
    /// Events written, whatever they were written from.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.frames_shared + self.frames_private + self.page_entries
    }
}
