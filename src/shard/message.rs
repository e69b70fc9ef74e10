//! Messages between shards: typed requests and immutable `Arc`s. One shard never touches another's
//! state. Messages between two shards keep their order, so a step is never overtaken by a message
//! that was sent after it.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{ChangeCursor, Changes, Gaps, Page};
use crate::command::{CommandRecord, LocatedCommand, Reply};
use crate::config::Dedupe;
use crate::kafka::{ClusterView, Denial, Doing, SaltRequest, Salted};
use crate::log::{Block, Cut, Next, Notice, Seq, Step};
use crate::metrics::ShardReport;
use crate::model::{
    CommandKey, Etag, ExchangeId, Fingerprint, HashSecret, Instant, KeyHash, LogTag, Partition,
    Secret, ShardId, Tenant,
};
use crate::route::{Failure, Refused};
use crate::schema::{BodyCheck, Verdict};
use crate::sse::StreamQuestion;
use crate::tls::Acceptor;

use super::snapshot::{ClusterId, Snapshot, TopicId};

/// What a shard receives, by the part of it that receives it.
#[derive(Debug)]
pub enum Message {
    /// To the shard as a whole, from the control thread.
    Shard(ShardMessage),
    /// To the home of a topic, or to a shard's client of a cluster.
    Home(HomeMessage),
    /// To a shard's projection of the topic.
    Projection(TopicId, ProjectionMessage),
    /// To one exchange of the shard's clients.
    Edge(ExchangeId, EdgeMessage),
}

/// What the control thread sends to a shard.
#[derive(Debug)]
pub enum ShardMessage {
    /// Serve this from now on. The first one is the start.
    Load(Arc<Snapshot>),
    /// Accept TLS clients with this from now on.
    Tls(Acceptor),
    /// Report. Answered by [`ControlMessage::Report`] with the same number.
    Ask(u64),
    /// The process is about to stop and reports that it is not ready. Requests are still executed,
    /// and each answer ends its connection.
    Leave,
    /// Stop in an orderly way. New requests, and commands that no broker has, are refused. Requests
    /// in flight are answered, and streams end, within this time.
    Drain {
        /// From now until everything has ended.
        within: std::time::Duration,
    },
    /// Nothing is left to do here.
    Stop,
}

/// What a shard sends to the control thread.
#[derive(Debug)]
pub enum ControlMessage {
    /// The answer to [`ShardMessage::Ask`] with this number.
    Report(u64, Box<ShardReport>),
    /// A change of state that an operator should read.
    Note(Note),
    /// Salt the password for a cluster's brokers. This takes milliseconds, which a turn does not
    /// have. Answered by [`ClusterMessage::Salted`].
    Salt(ClusterId, Box<SaltRequest>),
    /// Check the body of a request against its route's schema, which takes longer than a turn.
    /// Answered by [`EdgeMessage::BodyChecked`].
    CheckBody(ExchangeId, BodyCheck),
}

/// A message to a shard's home side, from a shard or from the control thread.
#[derive(Debug)]
pub enum HomeMessage {
    /// A message to the shard's client of this cluster.
    Cluster(ClusterId, ClusterMessage),
    /// A command for a route whose topics are at home here. Answered by [`EdgeMessage::Answer`].
    Command(Box<CommandRequest>),
    /// A client asks for the reply to its asynchronous command. Answered by
    /// [`EdgeMessage::Answer`].
    Poll(Box<PollRequest>),
    /// A waiting client has disconnected. Its command stays in flight.
    CancelCommand {
        /// The topic whose home has the route's commands in flight.
        topic: TopicId,
        /// The command that the exchange waited for.
        key: CommandKey,
        /// The exchange that no longer waits.
        exchange: ExchangeId,
    },
    /// A message about one incarnation of a topic at home here. Ignored if that is not the present
    /// incarnation.
    Topic {
        /// The topic, which is at home on the receiving shard.
        topic: TopicId,
        /// The number of the incarnation.
        incarnation: u32,
        /// The message, which holds for this incarnation only.
        message: TopicMessage,
    },
}

/// What a shard's client of a cluster receives.
#[derive(Debug)]
pub enum ClusterMessage {
    /// Control: the token for the brokers, or why no token is valid.
    Token(Result<Secret, Arc<str>>),
    /// Control: the salted password that [`ControlMessage::Salt`] requested.
    Salted(Box<Salted>),
    /// Shard 0 to the other homes: the cluster as its metadata shows it.
    View(Arc<ClusterView>),
    /// A home to shard 0: the view is stale.
    RefreshView,
}

/// What the home of a topic receives from the shards that serve it.
#[derive(Debug)]
pub enum TopicMessage {
    /// The shard has applied all steps up to this one.
    Applied(Seq),
    /// The gaps of the shard's slice have changed.
    Gaps(Gaps),
    /// What the topic's streams on the shard need of its history.
    History(HistoryMessage),
}

/// What the streams of a topic on a shard send to its home.
#[derive(Debug)]
pub enum HistoryMessage {
    /// A stream needs history. Answered by [`FeedMessage::CatchUpJoined`].
    Join {
        /// The stream's question, which the answer repeats.
        question: StreamQuestion,
        /// The encoding of the blocks.
        encoding: usize,
        /// What the stream's client holds.
        from: Cut,
    },
    /// The members on the shard have taken the last block of a catch-up read, or left it.
    Taken {
        /// The number of the catch-up read.
        catch_up: u32,
        /// Members that stayed. 0: the shard needs no more blocks.
        members: usize,
    },
    /// Does the log still have what a stream's client holds? Answered by
    /// [`FeedMessage::EpochsChecked`].
    CheckEpochs {
        /// The stream's question, which the answer repeats.
        question: StreamQuestion,
        /// The positions in doubt, each with the epoch of the record before.
        positions: Vec<(Partition, Next)>,
    },
    /// The stream has ended and waits for nothing any more.
    Cancel(ExchangeId),
}

/// What a shard's projection of a topic receives.
#[derive(Debug)]
pub enum ProjectionMessage {
    /// Home to all: an incarnation of the topic begins to load. Everything about earlier ones is
    /// void.
    Open(Arc<Incarnation>),
    /// Home to all, in order.
    Step(Arc<Step>),
    /// Home to all: the end of the log is reached; serve the topic.
    Live {
        /// The first offset of each partition that is still there.
        log_start: Cut,
    },
    /// Home to all: the state of the topic, if that has changed.
    Standing(Standing),
    /// Edge to the owner of a key. Answered by [`EdgeMessage::Got`].
    Get {
        /// The exchange that gets the answer.
        exchange: ExchangeId,
        /// The key's hash, by the topic's secret.
        hash: KeyHash,
        /// The key itself, since different keys may share a hash.
        key: Box<[u8]>,
        /// The partition with all of the key's records, if known.
        partition: Option<Partition>,
    },
    /// Edge to the owner of a range of hashes: a piece of a collection. Answered by
    /// [`EdgeMessage::Scanned`].
    Scan {
        /// The exchange that gets the answer.
        exchange: ExchangeId,
        /// The topic's incarnation to which `seq` belongs.
        incarnation: u32,
        /// The first step that must be applied before it is answered.
        seq: Seq,
        /// When the exchange no longer waits.
        deadline: Instant,
        /// After which key; `None`: from the slice's start.
        after: Option<(KeyHash, Box<[u8]>)>,
    },
    /// Feed to the owner of a range of hashes: a piece of *changes*. Answered by
    /// [`FeedMessage::Changed`].
    Changes(Box<ChangesRequest>),
    /// To the topic's streams on the shard.
    Feed(FeedMessage),
    /// The exchange has ended: what it waits for here is dropped.
    Cancel(ExchangeId),
}

/// What the streams of a topic on a shard receive.
#[derive(Debug)]
pub enum FeedMessage {
    /// A piece of *changes*; `None`: the topic is not live there.
    Changed(StreamQuestion, Option<Box<ChangesPiece>>),
    /// Whether the log still has what a client holds.
    EpochsChecked {
        /// The stream's question that this message answers.
        question: StreamQuestion,
        /// Where the log ends what the client holds, for partitions where that is less; `None`: the
        /// leaders did not answer in time.
        ends: Option<Vec<(Partition, Next)>>,
    },
    /// These streams are in the catch-up read.
    CatchUpJoined {
        /// Number of the catch-up read; unique in its topic.
        catch_up: u32,
        /// The questions of the streams on the receiving shard that joined.
        members: Vec<StreamQuestion>,
        /// The first offset of each partition that is still there.
        log_start: Cut,
    },
    /// Events of a catch-up read. The shard answers with [`HistoryMessage::Taken`] once its members
    /// have taken them.
    CatchUpBlock {
        /// The number of the catch-up read that sends the events.
        catch_up: u32,
        /// The encoded events, shared by all members of the catch-up read.
        block: Arc<Block>,
    },
    /// What the catch-up read can't bring. Sent only while no block is in flight.
    CatchUpGap {
        /// The number of the catch-up read that met the gap.
        catch_up: u32,
        /// The offsets that can't be shown, and why.
        notice: Notice,
    },
    /// The catch-up read has reached the live cut.
    CatchUpEnd {
        /// The topic's incarnation to which `seq` belongs.
        incarnation: u32,
        /// The number of the catch-up read that ends.
        catch_up: u32,
        /// The step after which its members continue.
        seq: Seq,
        /// The cut of that step; the catch-up read has shown all below.
        cut: Cut,
    },
    /// The catch-up read ends early: some partitions have no leader that answers. Its members
    /// continue from what they hold.
    CatchUpStalled {
        /// The number of the catch-up read that ends.
        catch_up: u32,
    },
}

/// A message to one exchange: what its client's request waits for.
#[derive(Debug)]
pub enum EdgeMessage {
    /// The outcome of its command.
    Answer(Answer),
    /// Control: whether its body matches the schema of its route.
    BodyChecked(Verdict),
    /// The newest record of its key.
    Got(Found),
    /// A piece of its collection; `None`: the topic is not live there.
    Scanned(Option<Page>),
}

/// The state of a topic at its home, beside its steps.
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
    /// The answer to requests that need the topic.
    #[must_use]
    pub fn refused(self) -> Refused {
        match self {
            Self::Misconfigured => Failure::TopicUnavailable.into(),
            Self::Denied(doing, denial) => Refused::denied(doing, denial),
        }
    }
}

/// One loading of a topic, as all shards must know it. A topic that was re-created or cut back is
/// loaded again as another incarnation.
#[derive(Debug)]
pub struct Incarnation {
    /// Counts the incarnations of the topic in this process.
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
    /// The topic that the record is produced to.
    pub topic: TopicId,
    /// The topic that the reply is read from. The receiver is the home of both. `None`: the command
    /// is one-way, so that [`Answer::Accepted`] answers it.
    pub replies: Option<TopicId>,
    /// The command key: the same for every retry of the command.
    pub key: CommandKey,
    /// The fingerprint, which distinguishes a retry from another request under the same key.
    pub fingerprint: Fingerprint,
    /// The client whose limits the request counts against.
    pub tenant: Tenant,
    /// Whether it waits for the same request if that is in flight. Otherwise it is rejected.
    pub joins: bool,
    /// What to produce if it is new.
    pub record: CommandRecord,
    /// The record's value: the request's body, or null for a tombstone.
    pub value: Option<Bytes>,
    /// When the client's exchange stops waiting.
    pub deadline: Instant,
    /// For a client that prefers an asynchronous answer: from when on it does not wait for the
    /// reply, so that [`Answer::Accepted`] answers it once the record is appended.
    pub accept_at: Option<Instant>,
    /// What the home must have read before it decides: what the route declares, or nothing for a
    /// command without an idempotency key, which is new in any case.
    pub dedupe: Dedupe,
}

impl CommandRequest {
    /// Memory that the request takes: its value, the key and the headers of its record, and itself.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let CommandRecord { key, headers, .. } = &self.record;
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let named = headers.iter().map(|(name, value)| name.len() + len(value));
        let rows = headers.capacity() * size_of::<(Bytes, Option<Bytes>)>();
        size_of::<Self>() + self.value_bytes() + len(key) + named.sum::<usize>() + rows
    }

    /// Bytes of the record's value.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// The question of a client at the location of its command.
#[derive(Clone, Copy, Debug)]
pub struct PollRequest {
    /// The exchange that gets the answer.
    pub exchange: ExchangeId,
    /// The topic that the reply is read from.
    pub replies: TopicId,
    /// The command and its time, from the location.
    pub command: LocatedCommand,
    /// The client waits for the reply until then. Without a wait, this is the time of the request.
    pub wait_until: Instant,
    /// When the edge gives up.
    pub deadline: Instant,
}

/// What became of a command.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The service's reply to the command.
    Reply {
        /// The reply, shared by all exchanges that wait for it.
        reply: Arc<Reply>,
        /// Whether the reply was stored before this request.
        replayed: bool,
    },
    /// The record is appended, and the client does not wait for the reply: 202.
    Accepted,
    /// There is no reply. The client receives this refusal.
    Refused(Refused),
}

/// The newest record of a key, free of its slice.
#[derive(Clone, Debug)]
pub enum Found {
    /// The key's newest record, which has a value.
    Entry {
        /// The record's value, shared with the slice.
        value: Arc<[u8]>,
        /// The validator that the response carries as `ETag`.
        etag: Etag,
        /// The record's `content-type` header, if it has one.
        content_type: Option<Arc<str>>,
    },
    /// No record can be shown, and why.
    Failed(Failure),
}

/// A piece of *changes*: a page of one slice.
#[derive(Debug)]
pub struct ChangesPiece {
    /// The page's records, tombstones included, by partition and offset.
    pub changes: Changes,
    /// The slice and the cursor of the next piece. `None`: this was the last one.
    pub next: Option<(ShardId, ChangeCursor)>,
}

/// A piece of *changes* to be had from a shard's slice.
#[derive(Debug)]
pub struct ChangesRequest {
    /// The stream's question, which the answer repeats.
    pub question: StreamQuestion,
    /// The topic's incarnation to which `seq` belongs.
    pub incarnation: u32,
    /// The first step that must be applied before it is answered.
    pub seq: Seq,
    /// When the stream stops waiting.
    pub deadline: Instant,
    /// The first offset of each partition that the piece may include.
    pub since: Cut,
    /// The offset of each partition at which the piece ends, exclusive.
    pub below: Cut,
    /// Where the last piece ended.
    pub after: Option<ChangeCursor>,
    /// The only key whose records are wanted. `None`: all keys.
    pub key: Option<(KeyHash, Box<[u8]>)>,
}

/// A line for the log: states that changed, never each event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How urgent the line is for an operator.
    pub level: Level,
    /// What happened, and where it helps, what to do.
    pub text: String,
}

/// How much a [`Note`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A normal change of state that needs no action.
    Info,
    /// A problem that an operator should look at.
    Warn,
}
