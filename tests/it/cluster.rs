//! Real Apache Kafka, from its released jars: KRaft with one or more nodes, each broker and
//! controller. Maven fetches the jars once. A node is a JVM of 150 MiB that is ready 2 to 3 s after
//! its start.
//!
//! Faults are real: SIGKILL, SIGTERM, SIGSTOP. Only processes started here are signalled, and none
//! outlives the tests (see `process.rs`).

pub mod security;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate::control::{BrokerSecurity, TopicSpec, ensure_topics};
use sluicegate::model::TopicName;

use super::ground::{block_on, random};
use super::process::{Cleaner, Guarded};
use security::{Certificates, Listener};

/// The release under test, unless a test names another.
pub const VERSION: &str = "4.3.1";
/// Kafka logs through this interface and brings no implementation.
const SLF4J: &str = "1.7.36";
/// Time for a cluster to become ready.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// Ports per node: the plain listener, the controller, and those of `security.rs`.
const PORTS_A_NODE: u16 = 8;

/// A cluster that the tests started.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    jars: PathBuf,
    first_port: u16,
    nodes: Vec<Option<Guarded>>,
    /// Certificates of the listeners of `security.rs`, if it has them.
    secured: Option<Certificates>,
    /// Additional lines for each node's properties.
    more: &'static str,
    _cleaner: Cleaner,
}

impl Cluster {
    /// Formats and starts `nodes` nodes on free ports and waits until all of them serve.
    pub fn start(nodes: usize) -> Self {
        Self::start_version(VERSION, nodes)
    }

    /// Like `start`, with another release.
    pub fn start_version(version: &str, nodes: usize) -> Self {
        let mut cluster = Self::prepare_as(version, nodes, false, "");
        cluster.start_all();
        cluster
    }

    /// Formats the nodes of a cluster without starting them.
    pub fn prepare(nodes: usize) -> Self {
        Self::prepare_as(VERSION, nodes, false, "")
    }

    /// Like `start`, with secured listeners besides the plain one.
    pub fn start_secured(nodes: usize) -> Self {
        let mut cluster = Self::prepare_as(VERSION, nodes, true, "");
        cluster.start_all();
        cluster
    }

    /// Like `start_secured`, but operations without an ACL are allowed only to anonymous users,
    /// which are the tests' own clients on the plain listener.
    pub fn start_with_rights(nodes: usize) -> Self {
        let mut cluster = Self::prepare_as(VERSION, nodes, true, security::RIGHTS);
        cluster.start_all();
        cluster
    }

    fn prepare_as(version: &str, nodes: usize, secured: bool, more: &'static str) -> Self {
        let jars = jars(version);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!(
            "kafka-{}-{:08x}",
            std::process::id(),
            random() as u32
        ));
        fs::create_dir_all(&folder).expect("a folder for the cluster");
        let cluster = Self {
            _cleaner: Cleaner::of(&folder),
            first_port: free_ports(PORTS_A_NODE * nodes as u16),
            nodes: (0..nodes).map(|_| None).collect(),
            secured: secured.then(|| Certificates::make(&folder)),
            more,
            folder,
            jars,
        };
        cluster.format();
        cluster
    }

    /// Starts all nodes and waits until they serve.
    pub fn start_all(&mut self) {
        for node in 1..=self.nodes.len() {
            self.spawn(node);
        }
        self.wait_ready();
    }

    /// The bootstrap list of all nodes.
    pub fn bootstrap(&self) -> String {
        let all = (1..=self.nodes.len()).map(|node| self.address(node));
        all.collect::<Vec<_>>().join(",")
    }

    /// Address of a node's plain listener.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.port(node))
    }

    /// The port of a node's secured listener.
    pub fn secured_port(&self, node: usize, listener: Listener) -> u16 {
        listener.port(self.port(node))
    }

    /// The certificates of a secured cluster.
    pub fn certificates(&self) -> &Certificates {
        self.secured.as_ref().expect("it was started secured")
    }

    /// Sends SIGKILL. The node's data remain, as after a crash.
    pub fn kill(&mut self, node: usize) {
        drop(self.nodes[node - 1].take());
    }

    /// Sends SIGTERM: the node moves its leaders, then ends.
    pub fn stop(&mut self, node: usize) {
        self.running(node).signal(Signal::TERM);
        self.running(node).wait_gone(START_TIME_MAX);
        self.nodes[node - 1] = None;
    }

    /// Starts a node that was killed or stopped, and waits until the cluster serves.
    pub fn start_node(&mut self, node: usize) {
        self.spawn(node);
        self.wait_ready();
    }

    /// Sends SIGSTOP: connections stay open and nothing responds.
    pub fn freeze(&self, node: usize) {
        self.running(node).signal(Signal::STOP);
    }

    /// Sends SIGCONT to a frozen node.
    pub fn thaw(&self, node: usize) {
        self.running(node).signal(Signal::CONT);
    }

    /// Starts stopped nodes, thaws frozen ones, and waits until the cluster serves.
    pub fn heal(&mut self) {
        for node in 1..=self.nodes.len() {
            match self.nodes[node - 1].as_ref().filter(|it| it.runs()) {
                Some(running) => running.signal(Signal::CONT),
                None => self.spawn(node),
            }
        }
        self.wait_ready();
    }

    /// Process id of a running node.
    pub fn pid(&self, node: usize) -> u32 {
        self.running(node).pid()
    }

    fn running(&self, node: usize) -> &Guarded {
        let running = self.nodes[node - 1].as_ref();
        running.unwrap_or_else(|| panic!("node {node} does not run"))
    }

    fn port(&self, node: usize) -> u16 {
        self.first_port + PORTS_A_NODE * (node as u16 - 1)
    }

    fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    fn spawn(&mut self, node: usize) {
        let folder = self.node_folder(node);
        let properties = folder.join("server.properties");
        let command = self.java(
            "384m",
            "kafka.Kafka",
            &[properties.to_str().expect("UTF-8")],
        );
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.nodes[node - 1] = Some(Guarded::spawn(&command, &folder.join("log"), &folder));
    }

    /// Waits until a topic with a replica on every node has a leader. Then all nodes are brokers.
    fn wait_ready(&self) {
        let up = self.nodes.iter().flatten().count();
        let bootstrap: Vec<_> = (1..=self.nodes.len())
            .filter(|node| self.nodes[node - 1].is_some())
            .map(|node| super::ground::broker_address(&self.address(node)))
            .collect();
        let plaintext = BrokerSecurity::default();
        let until = Instant::now() + START_TIME_MAX;
        let new_probe = || {
            [TopicSpec {
                name: TopicName::new(&format!("probe-{:08x}", random() as u32)).expect("a name"),
                partitions: 1,
                replication: up as u16,
                configs: vec![],
            }]
        };
        let mut probe = new_probe();
        loop {
            let ensured = ensure_topics(&bootstrap, &plaintext, &probe, Duration::from_secs(5));
            let error = match block_on(ensured) {
                // A node becomes leader shortly before it listens.
                Ok(_) if self.all_listen() => return,
                Ok(_) => "not all of its ports are open".to_owned(),
                Err(error) => {
                    // A topic that was placed on a node that has just died, and is not fenced yet,
                    // never gets a leader.
                    probe = new_probe();
                    error.to_string()
                }
            };
            let node = (1..=self.nodes.len()).find(|node| {
                let node = self.nodes[node - 1].as_ref();
                node.is_some_and(|node| !node.runs())
            });
            if let Some(node) = node {
                panic!("node {node} ended while starting:\n{}", self.log_tail(node));
            }
            if Instant::now() > until {
                panic!("the cluster is not ready: {error}\n{}", self.log_tail(1));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether every running node accepts connections on all its client ports.
    fn all_listen(&self) -> bool {
        let running = (1..=self.nodes.len()).filter(|node| self.nodes[node - 1].is_some());
        let secured = |node| {
            let all = self.secured.iter().flat_map(|_| Listener::ALL);
            all.map(move |listener| self.secured_port(node, listener))
        };
        let ports = running.flat_map(|node| secured(node).chain([self.port(node)]));
        let listens = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        ports.into_iter().all(listens)
    }

    fn log_tail(&self, node: usize) -> String {
        let log = fs::read_to_string(self.node_folder(node).join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Writes each node's properties and formats its folder. The folders differ only in two ids, so
    /// one is formatted and copied, which saves one JVM start per node.
    fn format(&self) {
        for node in 1..=self.nodes.len() {
            fs::create_dir_all(self.node_folder(node)).expect("a folder for the node");
            let path = self.node_folder(node).join("server.properties");
            fs::write(path, self.properties(node)).expect("write server.properties");
        }
        let properties = self.node_folder(1).join("server.properties");
        let properties = properties.to_str().expect("UTF-8");
        let (id, users) = (kafka_uuid(), security::users());
        let mut arguments = vec!["format", "-t", &id, "-c", properties];
        if self.secured.is_some() {
            arguments.extend(users.iter().map(String::as_str));
        }
        let command = self.java("128m", "kafka.tools.StorageTool", &arguments);
        let done = Command::new(&command[0]).args(&command[1..]).output();
        let done = done.expect("java, which tests/setup installs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "kafka.tools.StorageTool: {said}{why}"
        );
        let first = self.node_folder(1).join("data");
        let meta = fs::read_to_string(first.join("meta.properties")).expect("it was formatted");
        for node in 2..=self.nodes.len() {
            let data = self.node_folder(node).join("data");
            fs::create_dir_all(&data).expect("a folder for the node's data");
            let checkpoint = "bootstrap.checkpoint";
            fs::copy(first.join(checkpoint), data.join(checkpoint)).expect("copy the checkpoint");
            let mut lines: BTreeMap<_, _> = meta
                .lines()
                .filter_map(|line| line.split_once('='))
                .collect();
            let (number, uuid) = (node.to_string(), kafka_uuid());
            lines.insert("node.id", &number);
            lines.insert("directory.id", &uuid);
            let text: String = lines
                .iter()
                .map(|(key, value)| format!("{key}={value}\n"))
                .collect();
            fs::write(data.join("meta.properties"), text).expect("write meta.properties");
        }
    }

    fn properties(&self, node: usize) -> String {
        let nodes = self.nodes.len();
        let (client, controller) = (self.port(node), self.port(node) + 1);
        let voters = (1..=nodes).map(|n| format!("{n}@127.0.0.1:{}", self.port(n) + 1));
        let voters = voters.collect::<Vec<_>>().join(",");
        let replicas = nodes.min(3);
        let data = self.node_folder(node).join("data");
        let (bound, advertised, protocols) = match &self.secured {
            None => Default::default(),
            Some(_) => (
                security::listeners(client, false),
                security::listeners(client, true),
                security::protocols(),
            ),
        };
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id={node}\n\
             broker.rack=rack-{node}\n\
             controller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{client}{bound}\n\
             inter.broker.listener.name=PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{client}{advertised}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}\n\
             log.dirs={}\n",
            data.display()
        );
        let fixed = [
            ("auto.create.topics.enable", "false"),
            // Detect faults in seconds instead of tens of seconds.
            ("broker.heartbeat.interval.ms", "500"),
            ("broker.session.timeout.ms", "3000"),
            ("controller.quorum.election.timeout.ms", "500"),
            ("controller.quorum.fetch.timeout.ms", "1500"),
            ("controller.quorum.election.backoff.max.ms", "300"),
            ("replica.lag.time.max.ms", "3000"),
            (
                "replica.selector.class",
                "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            ),
            ("replica.fetch.wait.max.ms", "200"),
            // A new leader delays `acks=all` until followers fetch, so let them retry soon.
            ("replica.fetch.backoff.ms", "100"),
            ("group.initial.rebalance.delay.ms", "0"),
            // The cleaner's buffer alone takes 128 MiB by default.
            ("log.cleaner.dedupe.buffer.size", "4194304"),
            ("log.cleaner.backoff.ms", "500"),
            ("log.index.size.max.bytes", "1048576"),
            ("offsets.topic.num.partitions", "3"),
            ("transaction.state.log.num.partitions", "3"),
            ("num.network.threads", "2"),
            ("num.io.threads", "4"),
            ("background.threads", "2"),
        ];
        let counts = [
            ("default.replication.factor", replicas),
            ("min.insync.replicas", replicas.min(2)),
            ("offsets.topic.replication.factor", replicas),
            ("transaction.state.log.replication.factor", replicas),
            ("transaction.state.log.min.isr", replicas.min(2)),
        ];
        for (key, value) in fixed {
            let _ = writeln!(text, "{key}={value}");
        }
        for (key, value) in counts {
            let _ = writeln!(text, "{key}={value}");
        }
        if let Some(certificates) = &self.secured {
            text.push_str(&security::properties(certificates));
        }
        text.push_str(self.more);
        text
    }

    /// Serial collector and C1 compiler only, so that a test broker starts fast and stays small.
    fn java(&self, heap: &str, main: &str, arguments: &[&str]) -> Vec<String> {
        let home = std::env::var("JAVA_HOME").map(|home| format!("{home}/bin/java"));
        let mut command = vec![home.unwrap_or_else(|_| "java".to_owned())];
        command.push(format!("-Xmx{heap}"));
        let flags = [
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
        ];
        command.extend(flags.map(str::to_owned));
        command.push(format!("{}/*", self.jars.display()));
        command.push(main.to_owned());
        command.extend(arguments.iter().map(|it| (*it).to_owned()));
        command
    }
}

/// The folder with a release's jars. Maven fetches them the first time.
fn jars(version: &str) -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("$HOME")).join(".cache");
    let cache = cache.unwrap_or_else(home).join("sluicegate-kafka");
    let jars = cache.join(version);
    if jars.is_dir() {
        return jars;
    }
    fs::create_dir_all(&cache).expect("a cache folder");
    let work = tempfile::tempdir_in(&cache).expect("a folder to fetch into");
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>local</groupId><artifactId>kafka-jars</artifactId><version>1</version>\
         <dependencies>{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", version),
        dependency("org.slf4j", "slf4j-simple", SLF4J),
    );
    fs::write(work.path().join("pom.xml"), pom).expect("write pom.xml");
    let done = Command::new("mvn")
        .args(["-q", "-B", "-f", "pom.xml", "dependency:copy-dependencies"])
        .args(["-DincludeScope=runtime", "-DoutputDirectory=jars"])
        .current_dir(work.path())
        .output()
        .expect("mvn, which tests/setup installs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "Maven could not fetch Kafka {version}: {said}"
    );
    // Rename atomically, so that a folder of this name is always complete. Another process may have
    // been first.
    let renamed = fs::rename(work.path().join("jars"), &jars);
    assert!(renamed.is_ok() || jars.is_dir(), "{renamed:?}");
    jars
}

/// Finds adjacent free ports, below the kernel's range for clients.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = 20_000 + (random() % 12_000) as u16;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if first + count < 32_700 && (first..first + count).all(free) {
            return first;
        }
    }
}

/// A random id in Kafka's format: 16 bytes in base64url. The first byte is zero, so that it does
/// not start with a dash, which would make it an option.
fn kafka_uuid() -> String {
    use base64::Engine as _;
    let (high, low) = (random() >> 8, random());
    let bytes = [high.to_be_bytes(), low.to_be_bytes()].concat();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
