//! What crosses between shards. A typed request or an immutable `Arc`; one shard never touches
//! another's state. Between two shards messages keep their order, so a step is never overtaken by
//! what was said after it.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{ChangeCursor, Changes, Gaps, Page};
use crate::command::{CommandRecord, Reply};
use crate::kafka::{ClusterView, Denial, Doing, SaltRequest, Salted};
use crate::log::{Block, Cut, Next, Notice, Seq, Step};
use crate::metrics::ShardReport;
use crate::model::{
    CommandKey, Etag, ExchangeId, Fingerprint, HashSecret, Instant, KeyHash, LogTag, Partition,
    Secret, ShardId,
};
use crate::route::{Failure, Refused};

use super::snapshot::{ClusterIndex, Snapshot, TopicIndex};
use crate::model::TopicId;

/// A question that a stream asks another shard. The number keeps the answer to an earlier question
/// of the same stream from being taken for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamQuestion {
    /// The stream that asks.
    pub exchange: ExchangeId,
    /// Which of its questions.
    pub number: u32,
}

/// Everything that crosses between shards, and between the control thread and a shard.
#[derive(Debug)]
pub enum Message {
    /// Control: serve this from now on. The first one is the start.
    Load(Arc<Snapshot>),
    /// Control: say how you are. Answered by [`Message::Report`] with the same number.
    Ask(u64),
    /// To control.
    Report(u64, Box<ShardReport>),
    /// To control: a change of state that an operator should read.
    Note(Note),
    /// Control: the process is about to stop. It is not ready from now on. Requests are executed,
    /// and each answer ends its connection.
    Leave,
    /// Control: stop in an orderly way. New requests, and commands that no broker has, are refused.
    /// Requests in flight are answered, and streams end, within this time.
    Drain {
        /// From now until everything has ended.
        within: std::time::Duration,
    },

    /// Control: the token for a cluster's brokers, or why there is none that holds.
    Token(ClusterIndex, Result<Secret, Arc<str>>),

    /// Home to control: salt the password for a cluster's brokers. This takes milliseconds, which a
    /// turn does not have.
    Salt(ClusterIndex, Box<SaltRequest>),
    /// Control to home: the salted password.
    Salted(ClusterIndex, Box<Salted>),

    /// Shard 0 to homes: the cluster as its metadata shows it.
    View(ClusterIndex, Arc<ClusterView>),
    /// A home to shard 0: the view is stale.
    RefreshView(ClusterIndex),

    /// Home to all: a topic's loading begins. What was of the topic before is void.
    Open(Arc<Instance>),
    /// Home to all, in order.
    Step(TopicIndex, Arc<Step>),
    /// Home to all: the topic is caught up with its log's end; serve it.
    Live {
        /// Which topic.
        topic: TopicIndex,
        /// The first offset of each partition that is still there.
        log_start: Cut,
    },
    /// Home to all: how the topic stands, where that is otherwise than before.
    Standing(TopicIndex, Standing),
    /// Shard to home: of this loading of the topic, these steps are applied.
    Applied(TopicIndex, u32, Seq),
    /// Shard to home: the gaps of the shard's slice in this loading of the topic, if they changed.
    Gaps(TopicIndex, u32, Gaps),

    /// To a command route's home.
    Command(Box<CommandRequest>),
    /// Its answer.
    Answer(ExchangeId, Answer),

    /// To a command route's home: a waiting client has disconnected. Its command stays in flight.
    WaiterLeft {
        /// The replies topic of the route.
        topic: TopicIndex,
        /// The command.
        key: CommandKey,
        /// The exchange that no longer waits.
        exchange: ExchangeId,
    },

    /// Control: nothing is left to do here.
    Stop,

    /// To the owner of a key.
    Get {
        /// The exchange that gets the answer.
        exchange: ExchangeId,
        /// Whose records.
        topic: TopicIndex,
        /// The key's hash, by the topic's secret.
        hash: KeyHash,
        /// The key.
        key: Box<[u8]>,
        /// The partition with all of the key's records, if known.
        partition: Option<Partition>,
    },
    /// Its answer.
    Got(ExchangeId, Found),
    /// To the owner of a range of hashes: a piece of a collection.
    Scan {
        /// The exchange that gets the answer.
        exchange: ExchangeId,
        /// Whose records.
        topic: TopicIndex,
        /// Which loading of the topic `seq` belongs to.
        instance: u32,
        /// The first step that must be applied before it is answered.
        seq: Seq,
        /// When the exchange gives up.
        deadline: Instant,
        /// After which key; `None`: from the slice's start.
        after: Option<(KeyHash, Box<[u8]>)>,
    },
    /// Its answer; `None`: the topic is not live there.
    Scanned(ExchangeId, Option<Page>),
    /// To the owner of a range of hashes: a piece of *changes*.
    Changes(Box<ChangesRequest>),
    /// Its answer; `None`: the topic is not live there.
    Changed(StreamQuestion, Option<Box<ChangesPiece>>),

    /// To a topic's home: are these places of a stream's client still in the log?
    CheckPlaces {
        /// Whose.
        topic: TopicIndex,
        /// Which loading of the topic it is of.
        instance: u32,
        /// What the answer answers.
        question: StreamQuestion,
        /// Where it stands, with the epoch of the record before.
        places: Vec<(Partition, Next)>,
    },
    /// Its answer.
    PlacesChecked {
        /// Whose.
        topic: TopicIndex,
        /// The question.
        question: StreamQuestion,
        /// Where the log ends what the client holds, for partitions where that is less; `None`: it
        /// could not be had in time.
        ends: Option<Vec<(Partition, Next)>>,
    },
    /// To a topic's home: a stream needs history.
    JoinCatchUp {
        /// Whose.
        topic: TopicIndex,
        /// Which loading of the topic it is of.
        instance: u32,
        /// By which encoding.
        encoding: usize,
        /// What the answer answers.
        question: StreamQuestion,
        /// Where it stands.
        from: Cut,
    },
    /// Home to a shard: these clients of it are in the catch-up read.
    CatchUpJoined {
        /// Whose.
        topic: TopicIndex,
        /// Number of the catch-up read; unique in its topic.
        catch_up: u32,
        /// Their questions, and where each stood.
        members: Vec<(StreamQuestion, Cut)>,
        /// The first offset of each partition that is still there.
        log_start: Cut,
    },
    /// Home to shards with members. Each says [`Message::CatchUpTaken`] once its members have it.
    CatchUpBlock {
        /// Whose.
        topic: TopicIndex,
        /// Which catch-up read.
        catch_up: u32,
        /// The events.
        block: Arc<Block>,
    },
    /// Home to shards with members, while no block is on its way: what the catch-up read can't bring.
    CatchUpGap {
        /// Whose.
        topic: TopicIndex,
        /// Which catch-up read.
        catch_up: u32,
        /// What is missing.
        notice: Notice,
    },
    /// Shard to home: the members here took the last block; how many are left.
    CatchUpTaken {
        /// Whose.
        topic: TopicIndex,
        /// Which catch-up read.
        catch_up: u32,
        /// Members that stayed.
        members: usize,
    },
    /// Home to shards with members: the catch-up read has met the live cut.
    CatchUpEnd {
        /// Whose.
        topic: TopicIndex,
        /// Which loading of the topic it is of.
        instance: u32,
        /// Which catch-up read.
        catch_up: u32,
        /// The step after which its members go on.
        seq: Seq,
        /// The cut that step led to; the catch-up read has shown all below.
        cut: Cut,
    },
    /// Home to shards with members: the catch-up read ends without what partitions have that nobody answers
    /// for. Its members go on from what they hold.
    CatchUpStalled {
        /// Whose.
        topic: TopicIndex,
        /// Which catch-up read.
        catch_up: u32,
    },
}

/// How a topic stands at its home, beside its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When the brokers last confirmed all of it, if that was longer ago than usual.
    pub stale_since: Option<Instant>,
    /// Why only an operator can make the topic live, if so.
    pub blocked: Option<Blocked>,
    /// Whether a slice of the topic is full, so that no collection of it is complete.
    pub full: bool,
    /// Whether the topic has more partitions than when its loading began: a key's records may be in
    /// two of them.
    pub grown: bool,
}

/// Why a topic that is not live needs an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The topic is missing, or does not meet its routes' needs.
    Misconfigured,
    /// The brokers refuse the operation on the topic.
    Denied(Doing, Denial),
}

impl Blocked {
    /// The client's answer.
    #[must_use]
    pub fn refused(self) -> Refused {
        match self {
            Self::Misconfigured => Failure::TopicUnavailable.into(),
            Self::Denied(doing, denial) => Refused::denied(doing, denial),
        }
    }
}

/// One loading of a topic, as all shards must know it.
#[derive(Debug)]
pub struct Instance {
    /// Which topic.
    pub topic: TopicIndex,
    /// Counts the loadings of the topic in this process.
    pub number: u32,
    /// The log's identity in short.
    pub tag: LogTag,
    /// The key of ownership hashes.
    pub secret: HashSecret,
    /// Whether the topic is compacted: snapshots and *changes* instead of catch-up reads.
    pub compacted: bool,
    /// Whether slices keep its newest records: a query reads them, or it is compacted and has
    /// streams.
    pub cached: bool,
    /// The number of partitions when the loading began.
    pub partitions: u32,
    /// Whether the topic has streams and event ids can name its partitions.
    pub streamed: bool,
    /// How long its tombstones stay, in milliseconds.
    pub delete_retention_ms: u64,
}

/// A command on its way to its home.
#[derive(Debug)]
pub struct CommandRequest {
    /// The exchange that gets the answer.
    pub exchange: ExchangeId,
    /// Where its record goes.
    pub topic: TopicId,
    /// Where its reply comes from. Both topics are at home there.
    pub replies: TopicId,
    /// K.
    pub key: CommandKey,
    /// F.
    pub fingerprint: Fingerprint,
    /// What to produce if it is new.
    pub record: CommandRecord,
    /// Its value: the request's body.
    pub body: Bytes,
    /// When the client gives up.
    pub deadline: Instant,
}

/// What became of a command.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The service's reply; `replayed` if it was there before this request.
    Reply {
        /// The reply.
        reply: Arc<Reply>,
        /// Whether it answers an earlier attempt.
        replayed: bool,
    },
    /// None, and why: what the client is told.
    Refused(Refused),
}

/// The newest record of a key, free of its slice.
#[derive(Clone, Debug)]
pub enum Found {
    /// There is one.
    Entry {
        /// The value.
        value: Arc<[u8]>,
        /// Its validator.
        etag: Etag,
        /// Its `content-type` header.
        content_type: Option<Arc<str>>,
    },
    /// None that can be shown, and why.
    Failed(Failure),
}

/// A piece of *changes*.
#[derive(Debug)]
pub struct ChangesPiece {
    /// The records.
    pub changes: Changes,
    /// Which slice goes on, and where; `None`: that was the last piece.
    pub next: Option<(ShardId, ChangeCursor)>,
}

/// A piece of *changes* to be had from a shard's slice.
#[derive(Debug)]
pub struct ChangesRequest {
    /// What the answer answers.
    pub question: StreamQuestion,
    /// Whose records.
    pub topic: TopicIndex,
    /// Which loading of the topic `seq` belongs to.
    pub instance: u32,
    /// The first step that must be applied before it is answered.
    pub seq: Seq,
    /// When the stream gives up.
    pub deadline: Instant,
    /// Offsets from here.
    pub since: Cut,
    /// Offsets below this.
    pub below: Cut,
    /// Where the last piece ended.
    pub after: Option<ChangeCursor>,
    /// One key only.
    pub key: Option<(KeyHash, Box<[u8]>)>,
}

/// A line for the log: states that changed, never each event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody should act.
    pub level: Level,
    /// What happened, and where it helps, what to do.
    pub text: String,
}

/// How much a [`Note`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Normal life.
    Info,
    /// Somebody should look.
    Warn,
}
