//! The system under test during faults: topics, a service, two gateways, clients with commands,
//! readers that resume by their ids, and librdkafka at a similar rate. At the end the ledger is
//! compared with the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::account::{account, totals};
use super::beside::{self, Received};
use super::book::{self, Attempt, InLog};
use super::clients;
use super::felt::{self, Row, longest, millis, silence};
use crate::client::PATIENCE;
use crate::gateway::{self, Gateway};
use crate::ground::Ground;
use crate::kcat::{self, Record};
use crate::rdk::Producer;

pub const PARTITIONS: u32 = 3;
/// Time without faults before and after each fault.
const PEACE: Duration = Duration::from_millis(700);
/// Number of acknowledged or delivered records that show that a path works again.
const PROGRESS: usize = 20;
/// Time for a path to work again before the test fails.
const BACK_WITHIN: Duration = Duration::from_secs(90);

const LOG_TIME: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];

/// The clients' observations so far.
#[derive(Debug, Default)]
pub struct Happened {
    /// Attempts at commands, in order of their ends.
    pub attempts: Vec<(Instant, Attempt)>,
    pub asked: Vec<felt::Command>,
    /// When a thread of the tests had to wait for a CPU, and how long.
    pub held_up: Vec<(Instant, Duration)>,
    /// The events of each reader.
    pub given: Vec<Vec<(Instant, String)>>,
    /// Number of streams that a gateway closed.
    pub closed: usize,
    /// `gap` events that readers received.
    pub gaps: Vec<String>,
}

/// State shared by all threads of a run.
#[derive(Debug, Default)]
pub struct Shared {
    pub happened: Mutex<Happened>,
    /// Clients send no new commands, and the producer writes no new events.
    pub quiet: AtomicBool,
    /// Readers end at the next opportunity.
    pub over: AtomicBool,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Happened> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The topics of one run.
#[derive(Clone, Debug)]
pub struct Topics {
    pub commands: String,
    pub replies: String,
    pub events: String,
}

impl Topics {
    pub fn make(ground: &Ground) -> Self {
        Self {
            // The log's timestamp shows when a gateway's record was appended, whenever it was
            // answered.
            commands: ground.topic("commands", PARTITIONS, &LOG_TIME),
            replies: ground.topic("replies", PARTITIONS, &[]),
            events: ground.topic("events", PARTITIONS, &[]),
        }
    }

    pub fn all(&self) -> [&str; 3] {
        [&self.commands, &self.replies, &self.events]
    }
}

/// All running parts of the system under test.
pub struct World {
    bootstrap: String,
    pub topics: Topics,
    /// The gateways, which are killed when this is dropped.
    gateways: Vec<Gateway>,
    /// The gateway that the brokers reject. The ledger does not wait for its answers to commands.
    shut_out: Option<usize>,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    service: JoinHandle<()>,
    writer: JoinHandle<Vec<InLog>>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    /// librdkafka's producer to the commands topic, and the times of its acknowledgements.
    beside: beside::Written,
    beside_acknowledged: Arc<Mutex<Vec<Instant>>>,
    consumer: JoinHandle<()>,
    witness: JoinHandle<()>,
    received: Arc<Mutex<Vec<Received>>>,
    rows: Vec<Row>,
}

impl World {
    pub fn start(ground: &Ground) -> Self {
        Self::start_with(ground, &[])
    }

    /// Starts a run with flags for the gateways.
    pub fn start_with(ground: &Ground, flags: &[&str]) -> Self {
        let topics = Topics::make(ground);
        let config = gateway::settings(ground.bootstrap(), 2) + &routes(&topics, "");
        let gateways = (0..2).map(|_| Gateway::launch_with(&config, flags));
        Self::over(ground, topics, gateways.collect(), None)
    }

    /// Starts a run with gateways of the scenario. The brokers may reject one of them.
    pub fn over(
        ground: &Ground,
        topics: Topics,
        gateways: Vec<Gateway>,
        shut_out: Option<usize>,
    ) -> Self {
        gateways.iter().for_each(Gateway::wait_serving);
        let bootstrap = ground.bootstrap().to_owned();
        let peers: Vec<_> = gateways.iter().map(Gateway::address).collect();
        let shared = Arc::new(Shared::default());
        let service = clients::service(&bootstrap, &topics, shared.clone());
        let readers = clients::readers(&peers, &shared);
        let clients = clients::lanes(&peers, &shared);
        let producer = Producer::start(&bootstrap, &topics.events, &[]);
        let acknowledged = producer.acknowledged();
        let writer = beside::write_events(producer, shared.clone());
        let received = Arc::default();
        let consumer = beside::read_events(&bootstrap, &topics.events, &shared, &received);
        let producer = Producer::start(&bootstrap, &topics.commands, &[]);
        let beside_acknowledged = producer.acknowledged();
        let beside = beside::write_beside(producer, shared.clone());
        let witness = felt::witness(&shared);
        let mut world = Self {
            bootstrap,
            topics,
            gateways,
            shut_out,
            shared,
            clients,
            readers,
            service,
            writer,
            acknowledged,
            beside,
            beside_acknowledged,
            consumer,
            witness,
            received,
            rows: Vec::new(),
        };
        world.wait_progress(Instant::now());
        world.rows.clear();
        world
    }

    pub fn gateway(&self, peer: usize) -> &Gateway {
        &self.gateways[peer]
    }

    /// Waits until a gateway has rejected some more commands.
    pub fn wait_refused(&self, peer: usize) {
        let since = Instant::now();
        let refusals = || {
            let happened = self.shared.lock();
            let later = happened.attempts.iter().filter(|(at, _)| *at > since);
            let refused = |it: &Attempt| matches!(it.outcome, book::Outcome::Refused(_));
            later
                .filter(|(_, it)| it.peer == peer && refused(it))
                .count()
        };
        while refusals() < PROGRESS {
            let found = refusals();
            assert!(since.elapsed() < BACK_WITHIN, "{found} commands refused");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// From now on both gateways must answer. Returns how many commands the rejected one has
    /// refused: every one, and each for certain.
    pub fn let_in(&mut self) -> usize {
        let peer = self.shut_out.take().expect("one is shut out");
        let happened = self.shared.lock();
        let tries = happened.attempts.iter().map(|(_, it)| it);
        let tries: Vec<_> = tries.filter(|it| it.peer == peer).collect();
        for it in &tries {
            assert_eq!(it.outcome, book::Outcome::Refused(503), "{it:?}");
        }
        tries.len()
    }

    /// Applies a fault to the cluster, waits until everything works again, and measures its
    /// effects.
    pub fn event<T>(&mut self, fault: &str, does: impl FnOnce(&Topics) -> T) -> T {
        std::thread::sleep(PEACE);
        let (from, from_ms) = (Instant::now(), millis());
        let done = does(&self.topics);
        self.wait_progress(Instant::now());
        std::thread::sleep(PEACE);
        let to = Instant::now();
        let happened = self.shared.lock();
        let dones = happened.attempts.iter().filter(|(_, it)| it.is_done());
        let answered = silence(dones.map(|(at, _)| *at), from, to);
        let received = lock(&self.received);
        let consumed = silence(received.iter().map(|it| it.at), from, to);
        let held_up = happened
            .held_up
            .iter()
            .filter(|it| it.0 >= from && it.0 <= to);
        let held_up = held_up.map(|it| it.1);
        let behind = felt::behind(&happened.given, &received, (from, to));
        self.rows.push(Row {
            fault: fault.to_owned(),
            window: (from_ms, millis()),
            ours: Duration::ZERO, // The log will tell.
            theirs: Duration::ZERO,
            answered,
            consumed,
            behind,
            held_up: held_up.max().unwrap_or_default(),
        });
        done
    }

    /// Waits until each gateway answers commands, events are written, and every reader has received
    /// one that was written after `since`.
    fn wait_progress(&self, since: Instant) {
        let after = |times: &mut dyn Iterator<Item = Instant>| times.filter(|&t| t > since).count();
        loop {
            let happened = self.shared.lock();
            let dones = happened.attempts.iter().filter(|(_, it)| it.is_done());
            let waited = (0..self.gateways.len()).filter(|&peer| Some(peer) != self.shut_out);
            let of = |peer| dones.clone().filter(move |(_, it)| it.peer == peer);
            let dones = waited.map(|peer| after(&mut of(peer).map(|(at, _)| *at)));
            let dones = dones.min().unwrap_or_default() * self.gateways.len();
            let given = happened.given.iter();
            let given = given.map(|it| after(&mut it.iter().map(|(at, _)| *at)));
            let given = given.min().unwrap_or_default();
            drop(happened);
            let produced = after(&mut lock(&self.acknowledged).iter().copied());
            let beside = after(&mut lock(&self.beside_acknowledged).iter().copied());
            let consumed = after(&mut lock(&self.received).iter().map(|it| it.at));
            let all = [dones, given, produced, beside, consumed];
            if all.iter().all(|&it| it >= PROGRESS) {
                return;
            }
            let what = "commands answered (by each, times their number), events given, produced, \
                        records beside the commands, events consumed";
            assert!(
                since.elapsed() < BACK_WITHIN,
                "not all is back: {what}: {all:?}"
            );
            let ended = self
                .clients
                .iter()
                .chain(&self.readers)
                .any(JoinHandle::is_finished);
            assert!(!ended, "a client has failed: see above");
            assert!(!self.service.is_finished(), "the service has failed");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the load, compares the ledger and prints the summary. Fails on any anomaly. Returns the
    /// measured effects of the faults.
    pub fn finish(mut self, story: &str) -> Vec<Row> {
        self.shared.quiet.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client's asserts hold");
        }
        let acknowledged = self.writer.join().expect("the producer goes on");
        let written = self.beside.join().expect("the producer beside goes on");
        let events = in_log(&kcat::read(&self.bootstrap, &self.topics.events), |it| {
            it.value.clone()
        });
        wait_given(&self.shared, &self.received, events.len());
        self.shared.over.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.join().expect("a reader's asserts hold");
        }
        self.consumer.join().expect("librdkafka's consumer goes on");
        self.service.join().expect("the service's asserts hold");
        self.witness.join().expect("the witness only waits");
        let commands = kcat::read(&self.bootstrap, &self.topics.commands);
        let (beside, commands): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(beside::is_beside);
        let (theirs, twice) = beside::waits(&written, &beside);

        let happened = self.shared.lock();
        let attempts: Vec<_> = happened.attempts.iter().map(|(_, it)| it.clone()).collect();
        let ours = felt::waits(&happened.asked, &appended(&attempts, &commands));
        for row in &mut self.rows {
            (row.ours, row.theirs) = (longest(&ours, row.window), longest(&theirs, row.window));
        }
        let commands = in_log(&commands, |it| {
            it.header("idempotency-key").map(str::to_owned)
        });
        let verdict = book::commands(&attempts, &commands);
        let mut anomalies = verdict.anomalies;
        let names = |all: &[(Instant, String)]| -> Vec<String> {
            all.iter().map(|(_, name)| name.clone()).collect()
        };
        for (n, given) in happened.given.iter().enumerate() {
            anomalies.extend(book::deliveries(
                &format!("reader {n}"),
                &names(given),
                &events,
            ));
        }
        let received = lock(&self.received);
        let received: Vec<_> = received.iter().map(|it| it.name.clone()).collect();
        anomalies.extend(book::deliveries("librdkafka", &received, &events));
        anomalies.extend(book::produced(&acknowledged, &events));
        let mut account = account(story, &attempts, commands.len(), verdict.twins);
        let given: usize = happened.given.iter().map(Vec::len).sum();
        let _ = writeln!(
            account,
            "  {} events to {} readers: {given} delivered, {} streams closed by a gateway; {} records \
             beside the commands, {twice} of them written twice by librdkafka",
            events.len(),
            happened.given.len(),
            happened.closed,
            written.len()
        );
        let _ = write!(account, "{}", totals(&anomalies));
        for row in &self.rows {
            let _ = write!(account, "\n{}", row.text());
        }
        eprintln!("{account}");
        assert_eq!(
            happened.gaps,
            Vec::<String>::new(),
            "nothing was lost in Kafka"
        );
        let shown: Vec<_> = anomalies.iter().take(20).collect();
        assert!(
            anomalies.is_empty(),
            "{} anomalies: {shown:#?}",
            anomalies.len()
        );
        drop(happened);
        self.rows
    }
}

/// Times at which commands were appended, with their clients.
fn appended(attempts: &[Attempt], commands: &[Record]) -> Vec<felt::Command> {
    let clients = attempts.iter().map(|it| (it.key.as_str(), it.lane));
    let clients: BTreeMap<_, _> = clients.collect();
    let one = |record: &Record| {
        let key = record.header("idempotency-key")?;
        Some((record.time, *clients.get(key)?, key.to_owned()))
    };
    commands.iter().filter_map(one).collect()
}

pub fn in_log(records: &[Record], name: impl Fn(&Record) -> Option<String>) -> Vec<InLog> {
    let one = |record: &Record| InLog {
        partition: record.partition,
        offset: record.offset,
        name: name(record).unwrap_or_else(|| "nameless".to_owned()),
    };
    records.iter().map(one).collect()
}

/// Waits until every reader has all events, and some more time for unexpected ones.
fn wait_given(shared: &Shared, received: &Mutex<Vec<Received>>, count: usize) {
    let until = Instant::now() + PATIENCE;
    let all = || {
        let given = shared.lock().given.iter().all(|it| it.len() >= count);
        given && lock(received).len() >= count
    };
    while !all() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
}

/// The routes of a run's gateways. `more` has additional keys for command routes.
pub fn routes(topics: &Topics, more: &str) -> String {
    let mut config = String::new();
    // Commands with a short timeout get "unknown" in any fault, and learn the result by their key.
    for (name, timeout) in [("patient", "20s"), ("quick", "2s")] {
        let _ = write!(
            config,
            "\n[[command]]\nname = \"{name}\"\nroute = \"POST /{name}/{{id}}\"\n\
             topic = \"{}\"\nreplies = \"{}\"\nkey = \"{{path.id}}\"\n\
             idempotency = \"required\"\ntimeout = \"{timeout}\"\n{more}",
            topics.commands, topics.replies
        );
    }
    let _ = write!(
        config,
        "\n[[stream]]\nroute = \"GET /events\"\ntopic = \"{}\"\nstart = \"earliest\"\n",
        topics.events
    );
    config
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
