//! A whole shard between two others: what it asks them for a client, and that it withdraws every
//! question at once when the client disconnects.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use crate::cache::Page;
use crate::config::{BODY_CHECKS_MAX, ConfigFile, Sources, load};
use crate::http::StatusCode;
use crate::kafka::Entropy;
use crate::log::{Change, Cut, Next, Seq, Step};
use crate::model::{
    ExchangeId, HashSecret, Instant, LeaderEpoch, LogTag, Now, Offset, Partition, ShardId, TopicId,
    UnixMillis,
};
use crate::route::Failure;
use crate::schema::{BodySchema, Schemas, Verdict};
use crate::shard::io::{
    Inputs, Io, ListenerId, Outputs, Part, Read, Remote, SocketEvent, SocketId, Turn, Write,
};
use crate::shard::message::{
    Answer, ControlMessage, EdgeMessage, Found, HistoryMessage, HomeMessage, Incarnation, Message,
    ProjectionMessage, ShardMessage, TopicMessage,
};
use crate::shard::random::RandomKey;
use crate::shard::snapshot::{Layout, Snapshot};
use crate::shard::totals::ClientTotals;
use crate::shard::{ClusterSecurity, Registry, Shard, ShardSetup};

const CONFIG: &str = r#"
kafka.bootstrap = ["localhost:9092"]
[[command]]
name = "order"
route = "POST /orders"
topic = "orders"
replies = "replies"
[[query]]
route = "GET /items/{id}"
topic = "items"
key = "{path.id}"
[[query]]
route = "GET /items"
topic = "items"
[[stream]]
route = "GET /events"
topic = "events"
start = "earliest"
[[command]]
name = "pay"
route = "POST /payments/{id}"
topic = "orders"
replies = "replies"
schema = "payment.json"
params = { path.id = "integer", query.notify = "boolean" }
"#;

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {"amount": {"type": "integer", "minimum": 1}, "note": {"type": "string"}},
  "required": ["amount"]
}"#;

/// Shard 0 does Kafka's work, shards 1 and 2 own keys and serve clients. The test is shard 1.
const HOME: ShardId = ShardId(0);
const ME: ShardId = ShardId(1);
const OTHER: ShardId = ShardId(2);

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// The client has ended its side.
    ended: bool,
    /// Whether the connection is broken, so that the shard can't write to it.
    gone: bool,
}

#[derive(Default)]
struct Pipes {
    pipes: BTreeMap<SocketId, Pipe>,
    scratch: Vec<u8>,
}

impl Io for Pipes {
    fn read(&mut self, socket: SocketId) -> Read<'_> {
        let pipe = self.pipes.get_mut(&socket).expect("an open socket");
        self.scratch = pipe.input.drain(..).collect();
        if !self.scratch.is_empty() {
            Read::Bytes(&self.scratch)
        } else if pipe.gone {
            Read::Closed(None)
        } else {
            Read::Blocked
        }
    }

    fn write(&mut self, socket: SocketId, slices: &[IoSlice<'_>]) -> Write {
        let pipe = self.pipes.get_mut(&socket).expect("an open socket");
        if pipe.gone {
            return Write::Closed;
        }
        let before = pipe.output.len();
        slices
            .iter()
            .for_each(|slice| pipe.output.extend_from_slice(slice));
        Write::Taken(pipe.output.len() - before)
    }

    fn remote(&mut self, socket: SocketId) -> Remote {
        match &self.pipes[&socket] {
            Pipe { gone: true, .. } => Remote::Gone,
            Pipe { ended: true, .. } => Remote::Ended,
            _ => Remote::Open,
        }
    }

    fn spent(&mut self, _: Part) -> bool {
        false
    }
}

struct World {
    shard: Shard,
    now: Now,
    pipes: Pipes,
    topics: BTreeMap<String, TopicId>,
    closed: Vec<SocketId>,
    /// What the shard sent to the control thread in the last turn.
    control: Vec<ControlMessage>,
}

impl World {
    /// A shard with live, empty topics. The first five records of `events` have expired.
    fn new() -> Self {
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: CONFIG.to_owned(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 3,
            ..Sources::default()
        };
        let config = load(sources).map_err(|report| report.render(false));
        let layout = Layout {
            shards: 3,
            kafka_shards: 1,
        };
        let config = Arc::new(config.expect("it is right").config);
        let snapshot = Snapshot::new(1, config, layout, &mut Registry::default());
        let mut schemas = Schemas::default();
        let schema = BodySchema::compile(SCHEMA.as_bytes()).expect("a good schema");
        schemas.insert("payment.json".into(), schema);
        let snapshot = snapshot.expect("few topics").with_schemas(&schemas);
        let snapshot = Arc::new(snapshot);
        let topics = snapshot.indexed();
        let topics = topics.map(|(id, plan)| (plan.name.as_str().to_owned(), id));
        let topics: BTreeMap<_, _> = topics.collect();
        let (tls, sasl, entropy) = (None, None, Entropy([0; 32]));
        let shard = Shard::new(ShardSetup {
            me: ME,
            key: RandomKey::new([7; 32]),
            listeners: [].into(),
            tls: None,
            security: vec![ClusterSecurity { tls, sasl, entropy }],
            totals: Arc::new(ClientTotals::new([1, 2])),
        });
        let now = Now {
            mono: Instant::from_nanos(1_000_000_000),
            wall: UnixMillis(1_800_000_000_000),
        };
        let mut world = Self {
            shard,
            now,
            pipes: Pipes::default(),
            topics,
            closed: Vec::new(),
            control: Vec::new(),
        };
        let load = Message::Shard(ShardMessage::Load(snapshot));
        world.turn(vec![(ShardId::CONTROL, load)], Vec::new());
        world.open("items", true, 1);
        world.open("events", false, 1);
        world
    }

    /// An incarnation of a topic begins and is live.
    fn open(&mut self, name: &str, compacted: bool, number: u32) {
        let incarnation = Incarnation {
            number,
            tag: LogTag([1, 2, 3, 4]),
            secret: HashSecret::new([9; 16]),
            compacted,
            cached: compacted,
            partitions: 1,
            streamed: !compacted,
            delete_retention_ms: 86_400_000,
        };
        let mut cut = Cut::start();
        let (offset, epoch) = (Offset(5), LeaderEpoch(None));
        cut.set(Partition(0), Next { offset, epoch });
        let step = Step {
            seq: Seq(1),
            cut,
            time: self.now.wall,
            oldest: Seq(1),
            change: Change::Nothing,
            blocks: smallvec::SmallVec::new(),
        };
        let mut log_start = Cut::start();
        let (offset, epoch) = (Offset(0), LeaderEpoch(None));
        log_start.set(Partition(0), Next { offset, epoch });
        let topic = self.topics[name];
        let messages = [
            ProjectionMessage::Open(Arc::new(incarnation)),
            ProjectionMessage::Step(Arc::new(step)),
            ProjectionMessage::Live { log_start },
        ];
        let messages = messages.map(|it| (HOME, Message::Projection(topic, it)));
        self.turn(messages.into(), Vec::new());
    }

    /// One turn. Returns the messages to other shards.
    fn turn(
        &mut self,
        messages: Vec<(ShardId, Message)>,
        sockets: Vec<SocketEvent>,
    ) -> Vec<(ShardId, Message)> {
        let mut inputs = Inputs {
            sockets,
            messages: messages.into(),
            last_turn: None,
        };
        let mut outputs: Outputs<Message, ControlMessage> = Outputs::default();
        let (shard, io) = (&mut self.shard, &mut self.pipes);
        shard.turn(self.now, &mut inputs, io, &mut outputs);
        self.closed.append(&mut outputs.close);
        self.control = outputs.control;
        outputs.messages
    }

    /// A client connects and sends a request.
    fn ask(&mut self, slot: u32, request: &str) -> (SocketId, Vec<(ShardId, Message)>) {
        self.send(slot, &format!("{request} HTTP/1.1\r\nHost: a\r\n"), "")
    }

    /// A client connects and posts a body to a route with a schema.
    fn pay(&mut self, slot: u32, target: &str, body: &str) -> (SocketId, Vec<(ShardId, Message)>) {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n"
        );
        self.send(slot, &head, body)
    }

    /// What a client has received.
    fn received(&self, socket: SocketId) -> String {
        String::from_utf8_lossy(&self.pipes.pipes[&socket].output).into_owned()
    }

    fn send(&mut self, slot: u32, head: &str, body: &str) -> (SocketId, Vec<(ShardId, Message)>) {
        let generation = 0;
        let socket = SocketId { slot, generation };
        let input = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let pipe = Pipe {
            input: input.bytes().collect(),
            ..Pipe::default()
        };
        self.pipes.pipes.insert(socket, pipe);
        let accepted = SocketEvent::Accepted {
            socket,
            listener: ListenerId(0),
            peer: ([127, 0, 0, 1], 1).into(),
        };
        (socket, self.turn(Vec::new(), vec![accepted]))
    }

    /// A client asks for the collection. Returns what leaves for the next slice once this shard's
    /// slice is sent.
    fn ask_for_collection(&mut self) -> (SocketId, Vec<(ShardId, Message)>) {
        let (socket, messages) = self.ask(0, "GET /items");
        assert!(messages.is_empty(), "{messages:?}");
        (socket, self.turn(Vec::new(), Vec::new()))
    }

    /// The client disconnects, and the shard closes the socket at once.
    fn disconnect(&mut self, socket: SocketId) -> Vec<(ShardId, Message)> {
        let pipe = self.pipes.pipes.get_mut(&socket).expect("it connected");
        pipe.gone = true;
        let messages = self.turn(Vec::new(), vec![SocketEvent::Readable(socket)]);
        assert_eq!(self.closed, [socket], "its connection is closed at once");
        messages
    }

    /// An answer to a closed exchange is dropped.
    fn is_ignored(&mut self, exchange: ExchangeId, answer: EdgeMessage, socket: SocketId) {
        let written = self.pipes.pipes[&socket].output.len();
        let messages = self.turn(vec![(OTHER, Message::Edge(exchange, answer))], Vec::new());
        assert!(messages.is_empty(), "{messages:?}");
        assert_eq!(self.pipes.pipes[&socket].output.len(), written);
    }
}

/// Ending a stream writes to its socket, and a topic may have thousands.
#[test]
fn the_streams_of_a_topic_that_was_recreated_end_some_in_each_turn() {
    let mut world = World::new();
    for slot in 0..150 {
        world.ask(slot, "GET /events");
    }
    world.open("events", false, 2);
    let mut closed = vec![world.closed.len()];
    world.ask(150, "GET /events");
    while closed.last() != Some(&world.closed.len()) {
        closed.push(world.closed.len());
        world.turn(Vec::new(), Vec::new());
    }
    assert_eq!(closed, [64, 128, 150]);
    let slots: Vec<u32> = world.closed.iter().map(|socket| socket.slot).collect();
    assert_eq!(slots, (0..150).collect::<Vec<u32>>(), "not the new one");
}

#[test]
fn a_command_is_cancelled_at_its_home() {
    let mut world = World::new();
    let (socket, messages) = world.ask(0, "POST /orders");
    let [(HOME, Message::Home(HomeMessage::Command(command)))] = &messages[..] else {
        panic!("{messages:?}");
    };
    let (asked, replies) = (command.exchange, world.topics["replies"]);
    let messages = world.disconnect(socket);
    let [
        (
            HOME,
            Message::Home(HomeMessage::CancelCommand {
                topic,
                key,
                exchange,
            }),
        ),
    ] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!((*topic, *key, *exchange), (replies, command.key, asked));
    let late = Answer::Refused(Failure::OutcomeUnknown.into());
    world.is_ignored(asked, EdgeMessage::Answer(late), socket);
}

#[test]
fn a_get_is_cancelled_at_the_owner_of_its_key() {
    // The hash decides which keys are another shard's.
    for key in 0.. {
        let mut world = World::new();
        let (socket, messages) = world.ask(0, &format!("GET /items/{key}"));
        let Some((to, Message::Projection(_, ProjectionMessage::Get { exchange, .. }))) =
            messages.first()
        else {
            continue;
        };
        let (to, asked) = (*to, *exchange);
        assert_eq!(to, OTHER);
        let messages = world.disconnect(socket);
        let [(OTHER, Message::Projection(_, ProjectionMessage::Cancel(exchange)))] = &messages[..]
        else {
            panic!("{messages:?}");
        };
        assert_eq!(*exchange, asked);
        let late = Found::Failed(Failure::NotFound);
        world.is_ignored(asked, EdgeMessage::Got(late), socket);
        return;
    }
}

#[test]
fn a_collection_is_cancelled_at_the_slice_that_it_waits_for() {
    let mut world = World::new();
    let (socket, messages) = world.ask_for_collection();
    let [(OTHER, Message::Projection(_, ProjectionMessage::Scan { exchange, .. }))] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    let asked = *exchange;
    let messages = world.disconnect(socket);
    let [(OTHER, Message::Projection(_, ProjectionMessage::Cancel(exchange)))] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!(*exchange, asked);
    world.is_ignored(asked, EdgeMessage::Scanned(None), socket);
}

/// RFC 9112 9.6: a client may end its side after its request and still reads the response. A byte
/// of whitespace, which JSON allows, finds out whether it does.
#[test]
fn a_client_that_ended_its_side_is_probed_once_and_gets_its_collection() {
    let mut world = World::new();
    let (socket, messages) = world.ask_for_collection();
    let [(OTHER, Message::Projection(_, ProjectionMessage::Scan { exchange, .. }))] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    let exchange = *exchange;
    let head = world.pipes.pipes[&socket].output.len();
    for _ in 0..2 {
        let pipe = world.pipes.pipes.get_mut(&socket).expect("it connected");
        pipe.ended = true;
        let messages = world.turn(Vec::new(), vec![SocketEvent::Readable(socket)]);
        assert!(
            messages.is_empty() && world.closed.is_empty(),
            "{messages:?}"
        );
        assert_eq!(&world.pipes.pipes[&socket].output[head..], b"1\r\n\n\r\n");
    }
    let page = Page {
        items: Vec::new(),
        next: None,
        incomplete: false,
    };
    let page = EdgeMessage::Scanned(Some(page));
    world.turn(vec![(OTHER, Message::Edge(exchange, page))], Vec::new());
    let body = &world.pipes.pipes[&socket].output[head..];
    assert_eq!(body, b"1\r\n\n\r\n3\r\n[]\n\r\n0\r\n\r\n");
}

#[test]
fn a_stream_that_waits_for_history_is_cancelled_at_its_home() {
    let mut world = World::new();
    let (socket, messages) = world.ask(0, "GET /events");
    let history = |messages: &[(ShardId, Message)]| {
        let messages = messages.iter();
        let found: Vec<_> = messages
            .filter_map(|(to, message)| match message {
                Message::Home(HomeMessage::Topic {
                    message: TopicMessage::History(message),
                    ..
                }) => Some((*to, format!("{message:?}"), exchange_of(message))),
                _ => None,
            })
            .collect();
        found
    };
    let joined = history(&messages);
    assert_eq!(joined.len(), 1, "{messages:?}");
    assert!(joined[0].1.starts_with("Join"), "{joined:?}");
    let left = history(&world.disconnect(socket));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].1.starts_with("Cancel"), "{left:?}");
    assert_eq!((joined[0].0, joined[0].2), (HOME, left[0].2));
}

fn exchange_of(message: &HistoryMessage) -> Option<ExchangeId> {
    match message {
        HistoryMessage::Join { question, .. } => Some(question.exchange),
        HistoryMessage::Cancel(exchange) => Some(*exchange),
        _ => None,
    }
}

/// The second request of a connection is another exchange: an answer to the first, which was given
/// up, is not taken for its own.
#[test]
fn a_late_answer_does_not_reach_the_next_request() {
    let mut world = World::new();
    let (socket, messages) = world.ask(0, "POST /orders");
    let [(_, Message::Home(HomeMessage::Command(first)))] = &messages[..] else {
        panic!("{messages:?}");
    };
    let first = first.exchange;
    let refused = || EdgeMessage::Answer(Answer::Refused(Failure::BrokerUnavailable.into()));
    world.turn(vec![(HOME, Message::Edge(first, refused()))], Vec::new());
    let pipe = world.pipes.pipes.get_mut(&socket).expect("open");
    let status = StatusCode::SERVICE_UNAVAILABLE.as_u16().to_string();
    assert!(
        pipe.output
            .starts_with(format!("HTTP/1.1 {status} ").as_bytes())
    );
    pipe.input = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        .bytes()
        .collect();
    let messages = world.turn(Vec::new(), vec![SocketEvent::Readable(socket)]);
    let [(_, Message::Home(HomeMessage::Command(second)))] = &messages[..] else {
        panic!("{messages:?}");
    };
    let second = second.exchange;
    assert_ne!(first, second);
    world.is_ignored(first, refused(), socket);
    world.turn(vec![(HOME, Message::Edge(second, refused()))], Vec::new());
    let output = String::from_utf8_lossy(&world.pipes.pipes[&socket].output).into_owned();
    assert_eq!(output.matches("HTTP/1.1 503 ").count(), 2, "{output}");
}

/// A valid body that is too large to be checked in the turn it arrives in.
fn large(amount: i64) -> String {
    format!(r#"{{"amount": {amount}, "note": "{}"}}"#, "x".repeat(5000))
}

#[test]
fn a_small_body_is_checked_in_its_turn() {
    let mut world = World::new();
    let (_, messages) = world.pay(0, "/payments/7?notify=true", r#"{"amount": 5}"#);
    assert!(
        matches!(
            messages[..],
            [(HOME, Message::Home(HomeMessage::Command(_)))]
        ),
        "{messages:?}"
    );
    for (slot, target, body, expected) in [
        (
            1,
            "/payments/7",
            r#"{"amount": 0}"#,
            &["422", "#/amount", "minimum of 1"][..],
        ),
        (2, "/payments/7", "{}", &["422", "\"#\"", "required"]),
        (
            3,
            "/payments/7",
            r#"{"amount": 5,}"#,
            &["400", "malformed-body", "line 1 column 14"],
        ),
        (
            4,
            "/payments/7",
            "",
            &["400", "malformed-body", "line 1 column 0"],
        ),
        (
            5,
            "/payments/x",
            r#"{"amount": 5}"#,
            &["400", "`id` must be an integer"],
        ),
        (
            6,
            "/payments/7?notify=1",
            "{}",
            &["400", "`notify` must be true or false"],
        ),
    ] {
        let (socket, messages) = world.pay(slot, target, body);
        assert!(
            messages.is_empty() && world.control.is_empty(),
            "{messages:?}"
        );
        let received = world.received(socket);
        for text in expected {
            assert!(received.contains(text), "{text} is not in {received}");
        }
    }
}

#[test]
fn a_body_that_is_not_sent_as_json_is_not_read() {
    let mut world = World::new();
    let types = [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/xml\r\n",
    ];
    for (slot, content_type) in (0..).zip(types) {
        let head = format!("POST /payments/7 HTTP/1.1\r\nHost: a\r\n{content_type}");
        let (socket, messages) = world.send(slot, &head, r#"{"amount": 5}"#);
        assert!(messages.is_empty(), "{messages:?}");
        let received = world.received(socket);
        assert!(received.starts_with("HTTP/1.1 415 "), "{received}");
        assert!(
            received.contains("accept: application/json, application/*+json"),
            "{received}"
        );
    }
    let head =
        "POST /payments/7 HTTP/1.1\r\nHost: a\r\nContent-Type: application/merge-patch+JSON\r\n";
    let (_, messages) = world.send(9, head, r#"{"amount": 5}"#);
    assert_eq!(messages.len(), 1, "{messages:?}");
}

#[test]
fn a_large_body_is_checked_outside_the_shard_before_its_command_leaves() {
    let mut world = World::new();
    for (slot, amount) in [(0, 5), (1, 0)] {
        let (socket, messages) = world.pay(slot, "/payments/7", &large(amount));
        assert!(
            messages.is_empty(),
            "nothing leaves before the verdict: {messages:?}"
        );
        let [ControlMessage::CheckBody(exchange, check)] = &world.control[..] else {
            panic!("{:?}", world.control);
        };
        let (exchange, verdict) = (*exchange, check.run());
        assert_eq!(verdict == Verdict::Valid, amount == 5, "{verdict:?}");
        let verdict = Message::Edge(exchange, EdgeMessage::BodyChecked(verdict));
        let messages = world.turn(vec![(ShardId::CONTROL, verdict)], Vec::new());
        if amount == 5 {
            let [(HOME, Message::Home(HomeMessage::Command(command)))] = &messages[..] else {
                panic!("{messages:?}");
            };
            assert_eq!(
                (command.exchange, command.value_bytes()),
                (exchange, large(5).len())
            );
            assert_eq!(world.received(socket), "");
        } else {
            assert!(messages.is_empty(), "{messages:?}");
            let received = world.received(socket);
            assert!(received.starts_with("HTTP/1.1 422 "), "{received}");
        }
    }
}

#[test]
fn a_client_that_leaves_before_the_verdict_produces_nothing() {
    let mut world = World::new();
    let (socket, _) = world.pay(0, "/payments/7", &large(5));
    let [ControlMessage::CheckBody(exchange, _)] = &world.control[..] else {
        panic!("{:?}", world.control);
    };
    let exchange = *exchange;
    let messages = world.disconnect(socket);
    assert!(
        messages.is_empty(),
        "no home knows the command: {messages:?}"
    );
    world.is_ignored(exchange, EdgeMessage::BodyChecked(Verdict::Valid), socket);
}

#[test]
fn bodies_that_wait_for_their_check_are_bounded() {
    let mut world = World::new();
    let slots = 0..BODY_CHECKS_MAX as u32;
    let mut waiting = Vec::new();
    for slot in slots.clone() {
        world.pay(slot, "/payments/7", &large(5));
        let [ControlMessage::CheckBody(exchange, _)] = &world.control[..] else {
            panic!("{:?}", world.control);
        };
        waiting.push(*exchange);
    }
    let (socket, messages) = world.pay(slots.end, "/payments/7", &large(5));
    assert!(messages.is_empty() && world.control.is_empty());
    let received = world.received(socket);
    assert!(received.starts_with("HTTP/1.1 503 "), "{received}");
    assert!(received.contains("retry-after: "), "{received}");
    let (_, messages) = world.pay(slots.end + 1, "/payments/7", r#"{"amount": 5}"#);
    assert_eq!(messages.len(), 1, "a small body waits for nobody");
    // Each verdict frees a place, also that of a client that has disconnected.
    let verdict = Message::Edge(waiting[0], EdgeMessage::BodyChecked(Verdict::Valid));
    let messages = world.turn(vec![(ShardId::CONTROL, verdict)], Vec::new());
    assert_eq!(messages.len(), 1, "{messages:?}");
    world.pay(slots.end + 2, "/payments/7", &large(5));
    assert_eq!(world.control.len(), 1);
}
