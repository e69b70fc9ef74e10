//! Checks between routes and between settings, each of which is valid by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::cross_cors;
use super::cross_kafka;
use super::cross_listen;
use super::cross_tls;
use super::diagnose::Findings;
use super::memory::{memory_caps, memory_sum, memory_table};
use super::origin::Origins;
use super::read::{Claim, ReadRoute};
use super::sources::Sources;
use super::unit::{KIB, MIB, show_size, show_time};
use super::{
    ClusterIndex, CommandRoute, Config, Listen, OWN_SEGMENT, QueryRoute, Segment, Settings,
    StreamRoute,
};
use crate::model::{EventName, TopicName, overlap};

/// Most encodings of a topic. Each keeps another copy of the topic's window.
pub const ENCODINGS_MAX: usize = 4;

/// Most topics that a gateway reads or writes.
pub const TOPICS_MAX: usize = 256;

/// Bytes of a record besides its command's body: key, headers, framing.
const RECORD_OVERHEAD_BYTES: usize = 16 * KIB;

/// Help for a config without routes.
const NO_ROUTES_HELP: &str = "name a config with routes, `--config FILE`; docs/config.md shows \
                              [[command]], [[query]] and [[stream]]. To see it work: `sluicegate \
                              demo`";

/// The routes after each was read by itself.
pub(super) struct Routes {
    pub(super) claims: Vec<Claim>,
    pub(super) commands: Vec<ReadRoute<CommandRoute>>,
    pub(super) queries: Vec<ReadRoute<QueryRoute>>,
    pub(super) streams: Vec<ReadRoute<StreamRoute>>,
}

impl Routes {
    /// Runs every check between routes.
    pub(super) fn check(&self, settings: &Settings, findings: &mut Findings) {
        for (index, claim) in self.claims.iter().enumerate() {
            no_duplicates(&self.claims[..index], claim, findings);
            not_our_own(claim, findings);
        }
        for command in &self.commands {
            self.replies(command, findings);
            if let Some(at) = &command.timeout_at
                && command.route.timeout > settings.commands.open_limit
            {
                let limit = show_time(settings.commands.open_limit);
                let message = format!("the timeout is longer than `commands.open_limit`, {limit}");
                let help = "after that a command is forgotten; shorten the timeout";
                findings.error(at.clone(), message, help);
            }
        }
        self.encodings(findings);
        self.streams_of_replies(findings);
        let commands = self.commands.iter().map(|it| &it.route.edge);
        let queries = self.queries.iter().map(|it| &it.route.edge);
        let streams = self.streams.iter().map(|it| &it.route.edge);
        for edge in commands.chain(queries).chain(streams) {
            cross_cors::route(edge, settings, findings);
        }
    }

    /// Rejects streams of a replies topic. The reply index reads such a topic's history one record
    /// at a time, and a stream would need catch-up reads of its own.
    fn streams_of_replies(&self, findings: &mut Findings) {
        for stream in &self.streams {
            let (topic, cluster) = (&stream.route.topic, stream.route.cluster);
            let mut commands = self.commands.iter();
            let Some(command) = commands
                .find(|it| it.route.replies.as_ref() == Some(topic) && it.route.cluster == cluster)
            else {
                continue;
            };
            let message = format!("`{topic}` is a replies topic, which streams can't send");
            let help = "let the service write what clients may see to another topic";
            findings
                .error(stream.topic_at.clone(), message, help)
                .also(command.replies_at.clone(), "replies are read from it");
        }
    }

    /// Rejects a topic that has both commands and replies: the gateway would read its own commands
    /// as replies.
    fn replies(&self, command: &ReadRoute<CommandRoute>, findings: &mut Findings) {
        let Some(replies) = &command.route.replies else {
            return;
        };
        let mut commands = self.commands.iter();
        let Some(other) = commands
            .find(|it| it.route.topic == *replies && it.route.cluster == command.route.cluster)
        else {
            return;
        };
        let message = format!("`{replies}` is used for commands and for replies");
        let help = "give the replies a topic of their own";
        let at = command.replies_at.clone();
        findings
            .error(at, message, help)
            .also(Some(other.topic_at.clone()), "commands are written to it");
    }

    /// Limits the encodings of a topic: each event name needs one.
    fn encodings(&self, findings: &mut Findings) {
        type Events<'a> = Vec<&'a Option<EventName>>;
        let mut topics: BTreeMap<(ClusterIndex, &TopicName), Events<'_>> = BTreeMap::new();
        for stream in &self.streams {
            let (topic, event) = (&stream.route.topic, &stream.route.event);
            let events = topics.entry((stream.route.cluster, topic)).or_default();
            if events.contains(&event) {
                continue;
            }
            events.push(event);
            if events.len() == ENCODINGS_MAX + 1 {
                let message = format!("`{topic}` has more than {ENCODINGS_MAX} names of events");
                let help = "each keeps the topic's window once more; share names between streams";
                let at = stream.event_at.clone().unwrap_or(stream.at.clone());
                findings.error(at, message, help);
            }
        }
    }
}

/// Rejects routes below the gateway's own path.
fn not_our_own(claim: &Claim, findings: &mut Findings) {
    let own = |segment: &Segment| matches!(segment, Segment::Literal(text) if text == OWN_SEGMENT);
    if claim.path.segments.first().is_some_and(own) {
        let message = format!("paths below `/{OWN_SEGMENT}` are the gateway's own");
        let help = "let the path begin with another segment";
        findings.error(claim.route_at.clone(), message, help);
    }
}

/// Rejects a second route for the same requests, and a second route of the same name.
fn no_duplicates(before: &[Claim], claim: &Claim, findings: &mut Findings) {
    let same = |it: &&Claim| it.method == claim.method && it.path.same_shape(&claim.path);
    if let Some(first) = before.iter().find(same) {
        let (method, path) = (claim.method, &claim.path);
        let (one, two) = (first.line, claim.line);
        let message = format!("`{method} {path}` is defined twice (lines {one} and {two})");
        let help = "change the path of one, or remove it";
        let finding = findings.error(claim.route_at.clone(), message, help);
        finding.also(Some(first.route_at.clone()), "the first is here");
    }
    let Some(name) = &claim.name else { return };
    let mut names = before.iter().filter_map(|it| it.name.as_ref());
    if let Some(first) = names.find(|it| it.value == name.value) {
        let message = format!("two routes are named `{}`", name.value);
        let finding = findings.error(name.at.clone(), message, "give each its own name");
        finding.also(Some(first.at.clone()), "the first is here");
    }
}

/// Runs every check between settings.
pub(super) fn settings(s: &Settings, cpus: u16, from: &Origins, findings: &mut Findings) {
    listeners(s, from, findings);
    cross_listen::places(s, from, findings);
    if s.kafka.bootstrap.is_empty() {
        let message = format!("{} names no broker", from.name("kafka.bootstrap"));
        findings.error(from.at("kafka.bootstrap"), message, "name one, or more");
    }
    shards(s, cpus, from, findings);
    cross_cors::settings(s, from, findings);
    cross_kafka::connection(
        from.is_read("kafka.tls").then_some(&s.kafka_tls),
        from.is_read("kafka.sasl").then_some(&s.kafka_sasl),
        "kafka",
        &|key| from.at(key),
        findings,
    );
    let mut check = OrderCheck { from, findings };
    check.bytes(
        "http.body_bytes_max",
        s.http.body_bytes_max,
        "http.bodies_bytes_max",
        s.http.bodies_bytes_max,
    );
    let record = s.http.body_bytes_max + RECORD_OVERHEAD_BYTES;
    check.bytes(
        "http.body_bytes_max",
        record,
        "kafka.produce_bytes_max",
        s.kafka.produce_bytes_max,
    );
    check.bytes(
        "kafka.fetch_partition_bytes_max",
        s.kafka.fetch_partition_bytes_max,
        "kafka.fetch_bytes_max",
        s.kafka.fetch_bytes_max,
    );
    // If one step exceeded the topic's limit, the topic would pause forever.
    check.bytes(
        "kafka.batch_bytes_max",
        s.kafka.batch_bytes_max,
        "kafka.topic_in_flight_bytes_max",
        s.kafka.topic_in_flight_bytes_max,
    );
    check.times(
        "kafka.fetch_wait",
        s.kafka.fetch_wait,
        "kafka.request_timeout",
        s.kafka.request_timeout,
    );
    check.times(
        "commands.timeout",
        s.commands.timeout,
        "commands.open_limit",
        s.commands.open_limit,
    );
    check.times(
        "kafka.delivery_timeout",
        s.kafka.delivery_timeout,
        "commands.open_limit",
        s.commands.open_limit,
    );
}

/// Checks pairs of settings where the first must not exceed the second.
struct OrderCheck<'a> {
    from: &'a Origins,
    findings: &'a mut Findings,
}

impl OrderCheck<'_> {
    fn bytes(&mut self, key: &str, value: usize, bound: &str, limit: usize) {
        if value > limit {
            self.above(key, &show_size(value), bound, &show_size(limit));
        }
    }

    fn times(&mut self, key: &str, value: Duration, bound: &str, limit: Duration) {
        if value > limit {
            self.above(key, &show_time(value), bound, &show_time(limit));
        }
    }

    fn above(&mut self, key: &str, value: &str, bound: &str, limit: &str) {
        let (name, other) = (self.from.name(key), self.from.name(bound));
        let message = format!("{name} needs {value}, and {other} allows {limit}");
        let help = format!("lower {name} or raise {other}");
        let (at, also) = (self.from.at(key), self.from.at(bound));
        match at {
            Some(at) => self
                .findings
                .error(at, message, help)
                .also(also, "the bound"),
            None => self.findings.error(also, message, help),
        };
    }
}

fn listeners(s: &Settings, from: &Origins, findings: &mut Findings) {
    let mut seen: Vec<(SocketAddr, &str)> = Vec::new();
    let addresses = |all: &[Listen]| all.iter().flat_map(Listen::addresses).collect::<Vec<_>>();
    let plain = addresses(&s.listen).into_iter().map(|it| (it, "listen"));
    let secure = addresses(&s.tls.listen).into_iter();
    let secure = secure.map(|it| (it, "tls.listen"));
    let admin = s.admin.listen.iter().map(|it| (*it, "admin.listen"));
    let health = s.health.listen.iter().map(|it| (*it, "health.listen"));
    for (address, key) in plain.chain(secure).chain(admin).chain(health) {
        // Client listeners may overlap: the kernel chooses the most specific address. The admin and
        // the health listener must not share their ports, or clients could reach them.
        let clash = seen.iter().find(|(other, _)| {
            let same = other.ip().to_canonical() == address.ip().to_canonical();
            let is_own = matches!(key, "admin.listen" | "health.listen");
            (same || is_own) && overlap(other, &address)
        });
        if let Some((first, other)) = clash {
            let (other, name) = (from.name(other), from.name(key));
            let message = if *first == address {
                format!("{other} and {name} both have {address}")
            } else {
                format!("{other} {first} and {name} {address} overlap")
            };
            findings.error(from.at(key), message, "give each its own port");
        }
        seen.push((address, key));
        let open = !address.ip().is_loopback();
        if key == "health.listen" {
            continue; // It says too little to need authentication.
        }
        if key == "admin.listen" {
            if open && s.admin.token.is_none() {
                let message = format!("the admin port at {address} would be open to others");
                let help = "set admin.token = { file = \"…\" }, or listen on 127.0.0.1 or [::1]; \
                            for health checks from elsewhere use health.listen";
                findings.error(from.at(key), message, help);
            }
        } else if open && s.auth.is_none() {
            let message = format!(
                "{} {address} is open to others without authentication",
                from.name(key)
            );
            let help =
                "set auth = \"none\" (or --auth none) if that is meant, or listen on 127.0.0.1";
            findings.error(from.at(key), message, help);
        }
    }
    if s.listen.is_empty() && s.tls.listen.is_empty() {
        let help = "set listen = [\"127.0.0.1:8080\"]";
        findings.error(from.at("listen"), "there is no address to listen on", help);
    }
}

fn shards(s: &Settings, cpus: u16, from: &Origins, findings: &mut Findings) {
    let shards = s.shards_on(cpus);
    if s.kafka_shards >= shards {
        let (name, all) = (from.name("kafka_shards"), from.name("shards"));
        let message =
            format!("{name} takes all of the {shards} shards, and none is left for clients");
        findings.error(
            from.at("kafka_shards"),
            message,
            format!("lower it below {all}"),
        );
    }
    if let Some(cpus) = &s.cpus
        && cpus.len() < usize::from(shards)
    {
        let message = format!("{shards} shards on {} CPUs", cpus.len());
        let help = format!(
            "each shard has its own: lower {}, or name more",
            from.name("shards")
        );
        findings.error(from.at("cpus"), message, help);
    }
}

/// Checks the whole config: routes exist, the number of topics, CORS names, the memory sum.
pub(super) fn whole(config: &Config, sources: &Sources, from: &Origins, findings: &mut Findings) {
    cross_tls::server(&config.settings, &config.certificates, from, findings);
    if !config.has_routes() && !findings.any_error() {
        let (message, help) = ("there is nothing to serve: no routes", NO_ROUTES_HELP);
        if sources.to_serve {
            findings.error(None, message, help)
        } else {
            findings.warning(None, message, help)
        };
    }
    if config.topics().len() > TOPICS_MAX {
        let message = format!("the routes name more than {TOPICS_MAX} topics");
        findings.error(None, message, "split the routes over several gateways");
    }
    cross_cors::names(config, from, findings);
    let Some(memory) = config.settings.memory else {
        return;
    };
    let caps = memory_caps(config, config.settings.shards_on(sources.cpus));
    let sum = memory_sum(&caps);
    if sum > memory {
        let name = from.name("memory");
        let mib = sum.div_ceil(MIB);
        let message = format!(
            "the caps add up to {mib} MiB, and {name} allows {}",
            show_size(memory)
        );
        let help = format!("lower some, or raise {name}:\n{}", memory_table(&caps));
        findings.error(from.at("memory"), message, help);
    }
}
