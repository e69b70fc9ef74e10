//! A home that is fed views and reads, without a broker behind it.

mod barriers;

use bytes::Bytes;

use super::*;
use crate::command::{CommandRecord, PartitionBy};
use crate::config::{ConfigFile, Dedupe, Sources, load};
use crate::kafka::{
    Address, BrokerId, BrokerView, ClusterView, Entropy, Lane, Leader, ReadId, ReadKey,
    TopicConfig, TopicEntry, TopicState, TopicView,
};
use crate::log::testing::{Draft, batch};
use crate::log::{Cut, Next};
use crate::model::{
    CommandKey, CorrelationId, ExchangeId, Fingerprint, HashSecret, LeaderEpoch, LogIdentity,
    Offset, Partition, Tenant, TopicName, UnixMillis,
};
use crate::route::{Failure, Refused};
use crate::shard::Registry;
use crate::shard::message::{
    Answer, CommandRequest, EdgeMessage, FeedMessage, HistoryMessage, Message, ProjectionMessage,
    TopicMessage,
};
use crate::shard::random::RandomKey;
use crate::shard::snapshot::Layout;
use std::time::Duration;

/// The second of two homes, which is fed its views. Topics go round the homes by their first
/// mention, so what is called `ours` is at home there.
const CONFIG: &str = r#"
kafka.bootstrap = ["localhost:9092"]
[[command]]
name = "other"
route = "POST /other"
topic = "other-commands"
replies = "other-replies"
[[command]]
name = "ours"
route = "POST /ours"
topic = "our-commands"
replies = "our-replies"
[[stream]]
route = "GET /other"
topic = "other-events"
[[stream]]
route = "GET /ours"
topic = "our-events"
"#;

const COMMANDS: &str = "our-commands";
const REPLIES: &str = "our-replies";
const EVENTS: &str = "our-events";
const TOPICS: [&str; 3] = [COMMANDS, EVENTS, REPLIES];
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    home: Home,
    now: Now,
    out: Outbox,
    /// Whether commands join the same request in flight.
    joins: bool,
}

impl World {
    /// Every topic has one partition, and no client has connected to it yet.
    fn new() -> Self {
        Self::showing("", Some((false, 7 * DAY)))
    }

    /// The cluster shows topics with these configs.
    fn showing(settings: &str, config: Option<(bool, Duration)>) -> Self {
        let mut world = Self::with(settings);
        world.shows_as(1, config);
        world
    }

    /// With these settings of `[kafka]` too.
    fn with(settings: &str) -> Self {
        Self::of_config(settings.to_owned() + CONFIG)
    }

    fn of_config(text: String) -> Self {
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text,
        };
        let sources = Sources {
            file: Some(file),
            cpus: 2,
            ..Sources::default()
        };
        let config = load(sources).map_err(|report| report.render(false));
        let layout = Layout {
            shards: 2,
            kafka_shards: 0,
        };
        let config = Arc::new(config.expect("it is right").config);
        let snapshot = Snapshot::new(1, config, layout, &mut Registry::default());
        let snapshot = snapshot.expect("two topics have numbers");
        let now = Now {
            mono: Instant::from_nanos(1_000_000_000),
            wall: UnixMillis(1_800_000_000_000),
        };
        let mut random = SecureRandom::new(&RandomKey::new([7; 32]));
        let home = Home::new(
            ShardId(1),
            Arc::new(snapshot),
            &[security()],
            &mut random,
            now,
        );
        let out = Outbox::new(ShardId(1));
        Self {
            home,
            now,
            out,
            joins: true,
        }
    }

    /// The cluster shows the topics, with this `retention.ms`.
    fn shows(&mut self, retention: Duration) {
        self.shows_as(1, Some((false, retention)));
    }

    fn shows_as(&mut self, partitions: u32, config: Option<(bool, Duration)>) {
        let topic = |(i, name): (usize, &str)| {
            let name = TopicName::new(name).expect("a name");
            let view = TopicView {
                name: name.clone(),
                id: Some(LogIdentity([i as u8; 16])),
                partitions,
                config: config.map(|(compacted, retention)| TopicConfig {
                    compacted,
                    deleted: true,
                    retention: Some(retention),
                    delete_retention: DAY,
                    batch_bytes_max: 1 << 20,
                }),
                writable: None,
            };
            let leader = Leader {
                broker: Some(BrokerId(1)),
                epoch: LeaderEpoch(Some(0)),
            };
            let state = TopicState::Present {
                view: Arc::new(view),
                leaders: vec![leader; partitions as usize].into(),
            };
            TopicEntry { name, state }
        };
        let address = Address {
            host: "localhost".into(),
            port: 9092,
        };
        let view = ClusterView {
            cluster_id: Some("c".into()),
            brokers: vec![BrokerView {
                id: BrokerId(1),
                address,
                rack: None,
            }],
            topics: TOPICS.into_iter().enumerate().map(topic).collect(),
        };
        let view = ClusterMessage::View(Arc::new(view));
        let view = HomeMessage::Cluster(ClusterId::default(), view);
        let (now, out) = (self.now, &mut self.out);
        self.home.on_message(ShardId(0), view, now, out);
        self.home.turn(now, out);
    }

    fn catch_up(&mut self, time: Duration) {
        self.now.mono = self.now.mono.after(time);
        self.now.wall.0 += time.as_millis() as i64;
        self.home.turn(self.now, &mut self.out);
    }

    fn topic(&mut self, name: &str) -> &mut Topic {
        let snapshot = self.home.snapshot.clone();
        let named = |topic: &Topic| snapshot.topic(topic.index()).name.as_str() == name;
        let place = self.home.topics.iter().position(named);
        &mut self.home.topics[place.expect("it is here")]
    }

    /// The read of a topic's partition.
    fn key(&mut self, name: &str) -> ReadKey {
        let lane = match name {
            REPLIES | COMMANDS => Lane::Replies,
            _ => Lane::Streams,
        };
        let topic = self.topic(name).handle();
        let (partition, id) = (Partition(0), ReadId::LIVE);
        ReadKey {
            lane,
            topic,
            partition,
            id,
        }
    }

    fn happens(&mut self, event: Event) {
        let index = ClusterId::default();
        self.home.on_event(index, event, self.now, &mut self.out);
    }

    /// Its log has so many records, and these come.
    fn reads(&mut self, name: &str, end: u64, drafts: &[Draft]) {
        let read = self.key(name);
        let (from, end) = (Next::at(Offset(end - drafts.len() as u64)), Offset(end));
        self.happens(Event::Started { read, from, end });
        self.happens(Event::Batch {
            read,
            batch: batch(0, drafts, &HashSecret::new([0; 16])),
            next: Next::at(end),
            log_start: Offset(0),
            high_watermark: end,
            stable_end: end,
        });
        while self.home.ingest(self.now, &mut self.out) {}
        self.applied(name);
        assert!(self.topic(name).is_live());
        drop(self.out.drain());
    }

    /// Every shard has applied every step of a topic.
    fn applied(&mut self, name: &str) {
        let topic = self.topic(name);
        let (topic, incarnation, order) = (topic.index(), topic.incarnation(), topic.log());
        let seq = order.expect("it has an order").order().seq();
        for shard in [ShardId(0), ShardId(1)] {
            let message = HomeMessage::Topic {
                topic,
                incarnation,
                message: TopicMessage::Applied(seq),
            };
            self.home
                .on_message(shard, message, self.now, &mut self.out);
        }
    }

    /// A client sends our command, and waits for so long.
    fn sends(&mut self, request: u32, key: CommandKey, patience: Duration) {
        self.sends_as(request, key, Dedupe::Local, patience);
    }

    fn sends_as(&mut self, request: u32, key: CommandKey, dedupe: Dedupe, patience: Duration) {
        self.sends_request(request, (key, Fingerprint([0; 16])), dedupe, patience);
    }

    fn sends_request(
        &mut self,
        request: u32,
        (key, fingerprint): (CommandKey, Fingerprint),
        dedupe: Dedupe,
        patience: Duration,
    ) {
        let request = CommandRequest {
            exchange: exchange(request),
            topic: self.topic(COMMANDS).index(),
            replies: Some(self.topic(REPLIES).index()),
            key,
            fingerprint,
            tenant: Tenant::V4(request.into()),
            joins: self.joins,
            record: CommandRecord {
                key: Some(Bytes::from_static(b"k")),
                headers: Vec::new(),
                partition_by: PartitionBy::RecordKey,
            },
            value: Some(Bytes::from_static(b"{}")),
            deadline: self.now.mono.after(patience),
            accept_at: None,
            dedupe,
        };
        let message = HomeMessage::Command(Box::new(request));
        self.home
            .on_message(ShardId(0), message, self.now, &mut self.out);
    }

    /// The requests that were answered, and each answer.
    fn answers(&mut self) -> Vec<(u32, Result<Arc<crate::command::Reply>, Refused>)> {
        let answer = |(_, message)| match message {
            Message::Edge(exchange, EdgeMessage::Answer(Answer::Reply { reply, .. })) => {
                Some((exchange.generation, Ok(reply)))
            }
            Message::Edge(exchange, EdgeMessage::Answer(Answer::Refused(why))) => {
                Some((exchange.generation, Err(why)))
            }
            _ => None,
        };
        self.out.drain().into_iter().filter_map(answer).collect()
    }
}

/// Plaintext without SASL, since no broker exists here.
const fn security() -> ClusterSecurity {
    ClusterSecurity {
        tls: None,
        sasl: None,
        entropy: Entropy([0; 32]),
    }
}

fn exchange(request: u32) -> ExchangeId {
    ExchangeId {
        shard: ShardId(0),
        slot: request,
        generation: request,
    }
}

fn question(request: u32) -> crate::sse::StreamQuestion {
    crate::sse::StreamQuestion {
        exchange: exchange(request),
        number: 1,
    }
}

/// The broker is unavailable, so the record was never sent: both commands may be retried at once.
#[test]
fn all_who_wait_for_one_unsent_command_are_told_the_same() {
    let mut world = World::new();
    world.reads(REPLIES, 0, &[]);
    let key = |n| CommandKey([n; 16]);
    let patience = Duration::from_millis(300);
    for request in 0..6 {
        // Their deadlines lie one beside the other.
        world.sends(request, key((request % 2) as u8), patience);
    }
    assert!(world.answers().is_empty());
    world.catch_up(patience);
    let mut answers = world.answers();
    answers.sort_unstable_by_key(|(request, _)| *request);
    let unsent = || Err(Refused::from(Failure::BrokerUnavailable));
    let expected: Vec<_> = (0..6).map(|request| (request, unsent())).collect();
    assert_eq!(answers, expected);
    // Nothing of it is left.
    assert_eq!(world.home.open_commands(), 0);
}

/// A record is withdrawn only with its last exchange. So the exchange that expires first gets 504.
#[test]
fn a_command_that_somebody_waits_for_is_not_taken_back() {
    let mut world = World::new();
    world.reads(REPLIES, 0, &[]);
    let key = CommandKey([1; 16]);
    world.sends(0, key, Duration::from_millis(300));
    world.sends(1, key, Duration::from_millis(500));
    world.catch_up(Duration::from_millis(300));
    let unknown = Refused::from(Failure::OutcomeUnknown);
    assert_eq!(world.answers(), [(0, Err(unknown))]);
    world.catch_up(Duration::from_millis(200));
    let unsent = Refused::from(Failure::BrokerUnavailable);
    assert_eq!(world.answers(), [(1, Err(unsent))]);
}

/// Replies are known for as long as the topic keeps them, as it is configured now.
#[test]
fn a_changed_retention_of_replies_is_taken_up() {
    let mut world = World::new();
    let key = CommandKey([1; 16]);
    let fingerprint = Fingerprint([0; 16]);
    let id = CorrelationId { key, fingerprint }.to_string();
    let reply = Draft {
        timestamp: world.now.wall.0,
        ..Draft::new(0, "k", Some("done")).header("correlation-id", id)
    };
    world.reads(REPLIES, 1, &[reply]);
    world.catch_up(2 * DAY);
    world.sends(0, key, DAY);
    assert!(matches!(world.answers()[..], [(0, Ok(_))]), "7 days");
    world.shows(DAY);
    assert!(world.topic(REPLIES).is_live(), "it is the same log");
    world.catch_up(Duration::ZERO);
    world.sends(1, key, DAY);
    let answers = world.answers();
    assert!(answers.is_empty(), "it is a new command: {answers:?}");
}

/// A home without other work frees all of them, a bounded piece per turn.
#[test]
fn replies_past_their_window_are_dropped_without_a_new_one() {
    let mut world = World::new();
    let reply = |n: u64| {
        let key = CommandKey(u128::from(n).to_be_bytes());
        let fingerprint = Fingerprint([0; 16]);
        let id = CorrelationId { key, fingerprint }.to_string();
        Draft {
            timestamp: world.now.wall.0,
            ..Draft::new(n, "k", Some("done")).header("correlation-id", id)
        }
    };
    let replies: Vec<_> = (0..2000).map(reply).collect();
    world.reads(REPLIES, 2000, &replies);
    let entry_bytes = |world: &mut World| {
        let commands = world.topic(REPLIES).commands();
        commands.expect("it has them").entry_bytes()
    };
    assert!(entry_bytes(&mut world) > 0);
    world.catch_up(8 * DAY);
    let mut turns = 1;
    while world.home.has_work() && turns < 10_000 {
        world.catch_up(Duration::ZERO);
        turns += 1;
    }
    assert_eq!(entry_bytes(&mut world), 0, "after {turns} turns");
    assert!(turns > 10, "{turns} turns: not all at once");
}

/// Streams of an earlier incarnation are closed. An answer about this log would be taken for one
/// about that log.
#[test]
fn what_was_asked_of_an_earlier_loading_is_not_answered() {
    let mut world = World::new();
    world.reads(EVENTS, 0, &[]);
    let topic = world.topic(EVENTS).index();
    let before = world.topic(EVENTS).incarnation();
    let read = world.key(EVENTS);
    let (wanted, end) = (Offset(1), Next::at(Offset(0)));
    world.happens(Event::Truncated { read, wanted, end });
    world.reads(EVENTS, 0, &[]);
    let now = world.topic(EVENTS).incarnation();
    assert_ne!(before, now);
    let ask = |world: &mut World, incarnation: u32, request: u32| {
        let join = HistoryMessage::Join {
            encoding: 0,
            question: question(request),
            from: Cut::start(),
        };
        let place = Next {
            offset: Offset(3),
            epoch: LeaderEpoch(Some(0)),
        };
        let check = HistoryMessage::CheckEpochs {
            question: question(request),
            positions: vec![(Partition(0), place)],
        };
        for message in [join, check] {
            let (now, out) = (world.now, &mut world.out);
            let message = HomeMessage::Topic {
                topic,
                incarnation,
                message: TopicMessage::History(message),
            };
            world.home.on_message(ShardId(0), message, now, out);
        }
        world.catch_up(Duration::from_secs(10)); // No client waits for leaders that long.
        let (mut joined, mut checked) = (0, 0);
        for (_, message) in world.out.drain() {
            let Message::Projection(_, ProjectionMessage::Feed(message)) = message else {
                continue;
            };
            joined += usize::from(matches!(message, FeedMessage::CatchUpJoined { .. }));
            checked += usize::from(matches!(message, FeedMessage::EpochsChecked { .. }));
        }
        (joined, checked)
    };
    assert_eq!(ask(&mut world, before, 1), (0, 0));
    assert_eq!(ask(&mut world, now, 2), (1, 1));
}

/// What the client's own tests run with is what it runs with, but for what is said of a cluster.
#[test]
fn a_clients_defaults_are_the_configs() {
    let (settings, snapshot) = (
        crate::kafka::Settings::default(),
        World::new().home.snapshot,
    );
    let index = ClusterId::default();
    let clients = cluster::client_settings(&snapshot, index, &security());
    let bootstrap = clients.bootstrap.clone();
    assert_eq!(
        clients,
        crate::kafka::Settings {
            bootstrap,
            ..settings
        }
    );
}

/// A response that was asked for is never too long: its connection would end, again and again.
#[test]
fn a_fetch_may_be_as_long_as_the_config_says() {
    let settings = "kafka.fetch_bytes_max = \"1GiB\"\n";
    let snapshot = World::with(settings).home.snapshot;
    let clients = cluster::client_settings(&snapshot, ClusterId::default(), &security());
    assert_eq!(clients.fetch_bytes_max, 1 << 30);
    assert!(clients.frame_bytes_max > clients.fetch_bytes_max);
}

#[test]
fn a_config_that_may_not_be_read_any_more_is_no_other_log() {
    let mut world = World::new();
    world.shows_as(1, Some((true, DAY)));
    world.reads(EVENTS, 1, &[Draft::new(0, "k", Some("v"))]);
    let before = world.topic(EVENTS).incarnation();
    world.shows_as(1, None);
    let topic = world.topic(EVENTS);
    assert_eq!((topic.incarnation(), topic.is_live()), (before, true));
}

#[test]
fn a_config_that_may_not_be_read_is_named() {
    let mut world = World::showing("", None);
    let health = world.topic(EVENTS).health();
    assert!(health.advice().is_some() || health.misconfigured().is_some());
}

#[test]
fn a_topic_that_outgrows_ids_is_not_served_with_ids_nobody_reads() {
    let mut world = World::new();
    world.reads(EVENTS, 1, &[Draft::new(0, "k", Some("v"))]);
    world.shows_as(129, Some((false, 7 * DAY)));
    let read = ReadKey {
        lane: Lane::Streams,
        topic: world.topic(EVENTS).handle(),
        partition: Partition(128),
        id: ReadId::LIVE,
    };
    let end = Offset(1);
    world.happens(Event::Started {
        read,
        from: Next::at(Offset(0)),
        end,
    });
    world.happens(Event::Batch {
        read,
        batch: batch(
            128,
            &[Draft::new(0, "k", Some("v"))],
            &HashSecret::new([0; 16]),
        ),
        next: Next::at(end),
        log_start: Offset(0),
        high_watermark: end,
        stable_end: end,
    });
    world.applied(EVENTS);
    let topic = world.topic(EVENTS);
    let order = topic.log().expect("it has one").order();
    let text = crate::log::ProgressText::new(order.tag(), UnixMillis(0), order.cut());
    let readable = crate::log::Progress::decode(text.as_bytes()).is_ok();
    assert!(
        !topic.is_live() || readable,
        "live with ids that nobody reads; {:?}",
        topic.health().misconfigured()
    );
}
