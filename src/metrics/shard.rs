//! The metrics of one shard: the groups of the table for each of its names, their sum over shards,
//! and their text.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::RouteKind;
use super::table::{
    BrokerMetrics, CommandMetrics, General, KafkaMetrics, PartitionMetrics, ProcessMetrics,
    RouteMetrics, Row, StreamMetrics, TopicMetrics,
};
use super::text::{Exposition, Samples};
use crate::model::{Id, IdTable, RouteId, TopicId};

/// Most brokers with time series of their own.
pub const BROKERS_MAX: usize = 64;
/// Most partitions of a topic with time series of their own. A topic with more has none for its
/// partitions: ten thousand would be a megabyte per scrape.
pub const PARTITIONS_MAX: usize = 128;

/// Names that become labels: routes and topics that a config has named since the process started,
/// and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Kind and name of each route.
    pub routes: IdTable<RouteId, (RouteKind, String)>,
    /// The name of each topic.
    pub topics: IdTable<TopicId, String>,
}

impl Names {
    /// Adds the names of another snapshot. A number has one name for the life of the process, so
    /// nothing changes for the names that are known.
    pub fn add(&mut self, other: &Self) {
        for (route, name) in other.routes.iter() {
            self.routes.insert(route, name.clone());
        }
        for (topic, name) in other.topics.iter() {
            self.topics.insert(topic, name.clone());
        }
    }

    fn routes(&self, kind: RouteKind) -> impl Iterator<Item = (RouteId, &str)> {
        let routes = self.routes.iter();
        let of_kind = routes.filter(move |(_, (its, _))| *its == kind);
        of_kind.map(|(route, (_, name))| (route, &**name))
    }
}

/// The metrics of one shard, or a sum over shards. They take a few kilobytes, so a snapshot is a
/// clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardMetrics {
    names: Arc<Names>,
    /// Metrics without a route or topic.
    pub general: General,
    /// Metrics of requests to brokers.
    pub kafka: KafkaMetrics,
    /// Metrics per broker, by address. [`BrokerMetrics::of`] limits their number.
    pub brokers: BTreeMap<String, BrokerMetrics>,
    /// Metrics per route, by [`RouteId`].
    pub routes: Vec<RouteMetrics>,
    /// Metrics per route, by [`RouteId`]. Only those of command routes are used and exposed.
    pub commands: Vec<CommandMetrics>,
    /// Metrics per route, by [`RouteId`]. Only those of stream routes are used and exposed.
    pub streams: Vec<StreamMetrics>,
    /// Metrics per topic, by [`TopicId`].
    pub topics: Vec<TopicMetrics>,
    /// Metrics per topic and partition. [`Self::partition`] adds partitions as the home finds them.
    partitions: Vec<Vec<PartitionMetrics>>,
}

impl ShardMetrics {
    /// Creates metrics for these names, all zero.
    #[must_use]
    pub fn new(names: Arc<Names>) -> Self {
        let mut metrics = Self::default();
        metrics.add_names(names);
        metrics
    }

    /// Adds metrics for the names of another snapshot. Those that exist keep their counts.
    pub fn add_names(&mut self, names: Arc<Names>) {
        let (routes, topics) = (names.routes.end(), names.topics.end());
        self.routes.resize_with(routes, RouteMetrics::default);
        self.commands.resize_with(routes, CommandMetrics::default);
        self.streams.resize_with(routes, StreamMetrics::default);
        self.topics.resize_with(topics, TopicMetrics::default);
        self.partitions.resize_with(topics, Vec::new);
        self.names = names;
    }

    /// The names that have metrics.
    #[must_use]
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The metrics of a partition of the topic with number `topic`. `partition` counts from 0 and
    /// exists in the topic, so the table is no longer than the topic.
    pub fn partition(&mut self, topic: usize, partition: u32) -> &mut PartitionMetrics {
        let of_topic = &mut self.partitions[topic];
        let index = partition as usize;
        if of_topic.len() <= index {
            of_topic.resize_with(index + 1, PartitionMetrics::default);
        }
        &mut of_topic[index]
    }

    /// Adds the metrics of another shard. One of the two may not have loaded the newest snapshot
    /// yet.
    pub fn merge(&mut self, other: &Self) {
        if self.names != other.names {
            let mut names = (*self.names).clone();
            names.add(&other.names);
            self.add_names(names.into());
        }
        self.general.merge(&other.general);
        self.kafka.merge(&other.kafka);
        for (address, theirs) in &other.brokers {
            BrokerMetrics::of(&mut self.brokers, address).merge(theirs);
        }
        each(&mut self.routes, &other.routes, RouteMetrics::merge);
        each(&mut self.commands, &other.commands, CommandMetrics::merge);
        each(&mut self.streams, &other.streams, StreamMetrics::merge);
        each(&mut self.topics, &other.topics, TopicMetrics::merge);
        for (topic, theirs) in other.partitions.iter().enumerate() {
            for (partition, theirs) in (0..).zip(theirs) {
                self.partition(topic, partition).merge(theirs);
            }
        }
    }

    /// Writes every family, each exactly once.
    pub fn expose(&self, out: &mut Exposition) {
        let names = &*self.names;
        write_group(out, General::ROWS, [(&self.general, [])]);
        let kinds = [RouteKind::Command, RouteKind::Query, RouteKind::Stream];
        let routes = kinds.into_iter().flat_map(|kind| names.routes(kind));
        write_group(
            out,
            RouteMetrics::ROWS,
            routes.map(|(id, n)| (&self.routes[id.index()], [("route", n)])),
        );
        write_group(
            out,
            CommandMetrics::ROWS,
            names
                .routes(RouteKind::Command)
                .map(|(id, n)| (&self.commands[id.index()], [("route", n)])),
        );
        write_group(
            out,
            StreamMetrics::ROWS,
            names
                .routes(RouteKind::Stream)
                .map(|(id, n)| (&self.streams[id.index()], [("route", n)])),
        );
        write_group(out, KafkaMetrics::ROWS, [(&self.kafka, [])]);
        let brokers = self.brokers.iter();
        write_group(
            out,
            BrokerMetrics::ROWS,
            brokers.map(|(n, m)| (m, [("broker", &**n)])),
        );
        let topics = names.topics.iter();
        write_group(
            out,
            TopicMetrics::ROWS,
            topics.map(|(id, n)| (&self.topics[id.index()], [("topic", &**n)])),
        );
        let numbers: Vec<Vec<String>> = self.partitions.iter().map(|it| numbers(it)).collect();
        let partitions = names.topics.iter().map(|(id, topic)| {
            let (of_topic, numbers) = (&self.partitions[id.index()], &numbers[id.index()]);
            (of_topic, numbers, topic)
        });
        let few = partitions.filter(|(of_topic, ..)| of_topic.len() <= PARTITIONS_MAX);
        let partitions = few.flat_map(|(of_topic, numbers, topic)| {
            let labels = numbers
                .iter()
                .map(|n| [("topic", &**topic), ("partition", &**n)]);
            of_topic.iter().zip(labels)
        });
        write_group(out, PartitionMetrics::ROWS, partitions);
    }
}

impl BrokerMetrics {
    /// The metrics of the broker at `address`, or of `other` if there are too many brokers.
    pub fn of<'a>(all: &'a mut BTreeMap<String, Self>, address: &str) -> &'a mut Self {
        let room = all.len() < BROKERS_MAX || all.contains_key(address);
        let name = if room { address } else { "other" };
        // Allocate the name only for a new broker.
        if !all.contains_key(name) {
            all.insert(name.to_owned(), Self::default());
        }
        all.get_mut(name).expect("inserted above")
    }
}

impl ProcessMetrics {
    /// Writes every family, each exactly once.
    pub fn expose(&self, out: &mut Exposition) {
        write_group(out, Self::ROWS, [(self, [])]);
    }
}

fn numbers(partitions: &[PartitionMetrics]) -> Vec<String> {
    (0..partitions.len()).map(|n| n.to_string()).collect()
}

fn each<G>(mine: &mut [G], theirs: &[G], merge: fn(&mut G, &G)) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        merge(mine, theirs);
    }
}

/// Writes families in the outer loop and members in the inner one, because the exposition needs all
/// samples of a family together.
fn write_group<'a, G: 'a, const N: usize>(
    out: &mut Exposition,
    rows: &[Row<G>],
    members: impl IntoIterator<Item = (&'a G, [(&'a str, &'a str); N])>,
) {
    let members: Vec<_> = members.into_iter().collect();
    if members.is_empty() {
        return;
    }
    for row in rows {
        out.family(row.name, row.kind, row.help.trim(), |out| {
            for (group, labels) in &members {
                write_labelled(out, labels, &mut |out| (row.write)(group, out));
            }
        });
    }
}

fn write_labelled(
    out: &mut Samples<'_>,
    labels: &[(&str, &str)],
    samples: &mut dyn FnMut(&mut Samples<'_>),
) {
    match labels {
        [] => samples(out),
        [(name, value), rest @ ..] => {
            out.labelled(name, value, |out| write_labelled(out, rest, samples));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CommandOutcome, StatusClass};
    use std::collections::HashSet;

    const STREAM: RouteId = RouteId(2);

    fn names() -> Arc<Names> {
        let mut names = Names::default();
        let routes = [
            (RouteKind::Command, "pay"),
            (RouteKind::Query, "GET /a"),
            (RouteKind::Stream, "GET /e"),
        ];
        for (n, (kind, name)) in (0..).zip(routes) {
            names.routes.insert(RouteId(n), (kind, name.to_owned()));
        }
        for (n, name) in (0..).zip(["payments", "balances"]) {
            names.topics.insert(TopicId(n), name.to_owned());
        }
        Arc::new(names)
    }

    #[test]
    fn the_exposition_names_each_family_once_and_sums_shards() {
        let mut a = ShardMetrics::new(names());
        let mut b = ShardMetrics::new(names());
        let route = STREAM.index();
        a.routes[route].requests.bump(StatusClass::of(200));
        b.routes[route].requests.bump(StatusClass::of(204));
        a.commands[0].commands.bump(CommandOutcome::Replayed);
        b.partition(1, 2).lag.set(7);
        a.merge(&b);
        let mut out = Exposition::default();
        a.expose(&mut out);
        let text = out.into_text();
        for line in [
            "sluicegate_http_requests_total{route=\"GET /e\",status=\"2xx\"} 2",
            "sluicegate_commands_total{route=\"pay\",outcome=\"replayed\"} 1",
            "sluicegate_kafka_lag_records{topic=\"balances\",partition=\"2\"} 7",
            "sluicegate_turns_total 0",
        ] {
            assert!(text.lines().any(|it| it == line), "no `{line}` in\n{text}");
        }
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            assert!(seen.insert(line.to_owned()), "{line} twice");
        }
    }

    #[test]
    fn brokers_beyond_the_bound_are_one() {
        let mut metrics = ShardMetrics::new(names());
        for n in 0..BROKERS_MAX + 10 {
            BrokerMetrics::of(&mut metrics.brokers, &format!("b{n}:9092"))
                .connected
                .bump();
        }
        assert_eq!(metrics.brokers.len(), BROKERS_MAX + 1);
        assert_eq!(metrics.brokers["other"].connected.0, 10);
        // A sum over shards keeps the limit.
        let mut sum = ShardMetrics::new(names());
        sum.merge(&metrics);
        sum.merge(&metrics);
        assert_eq!(sum.brokers.len(), BROKERS_MAX + 1);
        let made: u64 = sum.brokers.values().map(|it| it.connected.0).sum();
        assert_eq!(made, 2 * (BROKERS_MAX as u64 + 10));
    }

    #[test]
    fn partitions_of_a_large_topic_are_left_to_the_status() {
        let mut metrics = ShardMetrics::new(names());
        metrics.partition(0, PARTITIONS_MAX as u32 - 1).lag.set(7);
        metrics.partition(1, PARTITIONS_MAX as u32).lag.set(7);
        let mut out = Exposition::default();
        metrics.expose(&mut out);
        let text = out.into_text();
        assert!(text.contains("kafka_lag_records{topic=\"payments\",partition=\"127\"} 7"));
        assert!(!text.contains("kafka_lag_records{topic=\"balances\""));
        assert!(text.contains("kafka_request_failures_total{api=\"fetch\",error=\"leader\"} 0"));
    }

    #[test]
    fn a_shard_with_another_snapshot_is_added_by_number() {
        let mut more = (*names()).clone();
        more.routes
            .insert(RouteId(4), (RouteKind::Stream, "GET /f".to_owned()));
        let mut a = ShardMetrics::new(names());
        let mut b = ShardMetrics::new(Arc::new(more));
        a.streams[STREAM.index()].open.set(3);
        b.streams[STREAM.index()].open.set(4);
        b.streams[4].open.set(5);
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        assert_eq!(ab, ba);
        let open: Vec<u64> = ab.streams.iter().map(|it| it.open.0).collect();
        assert_eq!(open, [0, 0, 7, 0, 5]);
    }
}
