//! The metrics of one shard, declared once: the structs that are bumped, their merging, their
//! exposition and `docs/metrics.md` all come from the table below.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Histogram;
use super::family::{By, Counter, Family, Gauge, Seconds};
use super::labels::{
    CloseReason, CommandOutcome, KafkaApi, KafkaFailure, RouteKind, StatusClass, StreamEnd,
};
use super::text::{Exposition, Samples};

/// One row of the table, for a group of type `G`.
pub(super) struct Row<G> {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: fn() -> Vec<&'static str>,
    pub(super) help: &'static str,
    write: fn(&G, &mut Samples<'_>),
}

macro_rules! groups {
    ($( $(#[doc = $gdoc:literal])+ $Group:ident { $(
        $(#[doc = $doc:literal])+
        $field:ident : $ty:ty = $name:literal,
    )+ } )+) => { $(
        $(#[doc = $gdoc])+
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $Group { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl $Group {
            pub(super) const ROWS: &'static [Row<Self>] = &[$( Row {
                name: concat!("sluicegate_", $name),
                kind: <$ty as Family>::TYPE,
                labels: <$ty as Family>::labels,
                help: concat!($($doc),+),
                write: |group, out| group.$field.write(out),
            }, )+];

            /// Adds another shard's.
            pub fn merge(&mut self, other: &Self) {
                $( Family::merge(&mut self.$field, &other.$field); )+
            }
        }
    )+ };
}

groups! {
    /// What the control thread knows of the process.
    ProcessMetrics {
        /// Time since the start.
        uptime: Seconds = "uptime_seconds_total",
        /// CPU time, user and system, of all threads.
        cpu: Seconds = "process_cpu_seconds_total",
        /// Memory that is in RAM.
        resident_bytes: Gauge = "process_resident_bytes",
        /// Open files, sockets among them.
        open_files: Gauge = "process_open_files",
        /// Shards of the process.
        shards: Gauge = "shards",
        /// Shards that did not answer this scrape, and are missing from its sums.
        stuck: Gauge = "shards_stuck",
    }

    /// What has no route and no topic.
    General {
        /// Connections of clients accepted.
        connections_accepted: Counter = "connections_accepted_total",
        /// Connections of clients that stand.
        connections_open: Gauge = "connections_open",
        /// Connections of clients that ended, by why.
        connections_closed: By<CloseReason, Counter> = "connections_closed_total",
        /// Bytes read from clients.
        received_bytes: Counter = "received_bytes_total",
        /// Bytes written to clients.
        sent_bytes: Counter = "sent_bytes_total",
        /// Requests that matched no route, by status.
        unrouted: By<StatusClass, Counter> = "http_unrouted_requests_total",
        /// From the end of a request's head to the last byte of its response, by kind of route.
        request_time: By<RouteKind, Histogram> = "http_request_seconds",
        /// Connections to brokers that stand.
        kafka_connections_open: Gauge = "kafka_connections_open",
        /// Connections to brokers that failed or broke.
        kafka_connections_failed: Counter = "kafka_connections_failed_total",
        /// Commands whose reply is not there yet, at their homes.
        commands_open: Gauge = "commands_open",
        /// Turns of the shard.
        turns: Counter = "turns_total",
        /// Steps applied, over all topics.
        steps_applied: Counter = "steps_applied_total",
    }

    /// What every route has.
    RouteMetrics {
        /// Requests answered, by status. A stream counts when it starts.
        requests: By<StatusClass, Counter> = "http_requests_total",
    }

    /// What commands have besides.
    CommandMetrics {
        /// Commands, by what became of them.
        commands: By<CommandOutcome, Counter> = "commands_total",
    }

    /// What streams have besides.
    StreamMetrics {
        /// Streams that stand.
        open: Gauge = "streams_open",
        /// Streams that ended, by why.
        ended: By<StreamEnd, Counter> = "streams_ended_total",
        /// Subscribers that fell out of the window.
        lagged: Counter = "stream_lagged_total",
    }

    /// What is asked of brokers, over all of them.
    KafkaMetrics {
        /// From a request to its response, by API. A fetch waits at the broker for news.
        request_time: By<KafkaApi, Histogram> = "kafka_request_seconds",
        /// Requests that failed, or partitions of them, by API and what was wrong.
        failures: By<KafkaApi, By<KafkaFailure, Counter>> = "kafka_request_failures_total",
        /// Silence that brokers asked for (quotas), added up over connections.
        throttled: Seconds = "kafka_throttle_seconds_total",
    }

    /// What every broker has; 64 of them, by where they listen, and what is beyond as `other`.
    BrokerMetrics {
        /// Connections to it that stand.
        connections: Gauge = "kafka_broker_connections",
        /// Connections made to it: what is more than those that stand was made again.
        connected: Counter = "kafka_broker_connections_made_total",
        /// Connections to it that failed or broke.
        failed: Counter = "kafka_broker_connections_failed_total",
        /// From a Produce to its response: what replication takes is in it.
        produce_time: Histogram = "kafka_broker_produce_seconds",
        /// From a Fetch to its response, of those that brought records. The wait for news is in it
        /// where the broker had none to give, so a busy topic shows what the broker takes, and a
        /// quiet one the time between records.
        fetch_time: Histogram = "kafka_broker_fetch_seconds",
        /// How much longer than it was allowed to wait for news a broker took to answer a Fetch
        /// without records. Near 0 for a broker that keeps time, whatever the traffic.
        fetch_late: Histogram = "kafka_broker_fetch_late_seconds",
        /// From any other request to its response.
        request_time: Histogram = "kafka_broker_request_seconds",
        /// Requests that failed, or partitions of them, by what was wrong.
        failures: By<KafkaFailure, Counter> = "kafka_broker_request_failures_total",
    }

    /// What every topic has.
    TopicMetrics {
        /// Records fetched from brokers.
        fetched_records: Counter = "kafka_fetched_records_total",
        /// Bytes fetched from brokers, as they came.
        fetched_bytes: Counter = "kafka_fetched_bytes_total",
        /// Batches or records that could not be decoded, and were skipped.
        undecodable: Counter = "kafka_undecodable_total",
        /// Fetched bytes on their way to the shards.
        in_flight_bytes: Gauge = "kafka_in_flight_bytes",
        /// Times the topic was left out of fetches because too many bytes were on their way.
        paused: Counter = "kafka_paused_total",
        /// Records between what is applied here and the end of the log, over all partitions.
        lag: Gauge = "kafka_topic_lag_records",
        /// The same of the partition that is furthest behind.
        lag_max: Gauge = "kafka_topic_lag_records_max",
        /// Offsets between the last stable one and the high watermark, over all partitions: what
        /// open transactions keep from readers.
        unstable: Gauge = "kafka_topic_unstable_records",
        /// Keys in the cache.
        cache_entries: Gauge = "cache_entries",
        /// Bytes of keys and values in the cache.
        cache_bytes: Gauge = "cache_bytes",
        /// Events written to streams of the topic, gaps told to all of them among them.
        stream_events: Counter = "stream_events_total",
        /// Gaps told to single streams: an id that can't be read, what retention has taken.
        stream_gaps: Counter = "stream_gaps_total",
        /// Bytes of encoded events kept.
        window_bytes: Gauge = "stream_window_bytes",
        /// Replies that retries can find.
        reply_index_entries: Gauge = "reply_index_entries",
    }

    /// What every partition has, of topics with up to 128; `/status` has all.
    PartitionMetrics {
        /// Records between what is applied here and the end of the log.
        lag: Gauge = "kafka_lag_records",
        /// Offsets between the last stable one and the high watermark.
        unstable: Gauge = "kafka_unstable_records",
        /// Fetched bytes on their way to the shards.
        in_flight_bytes: Gauge = "kafka_partition_in_flight_bytes",
        /// Times it was left out of fetches: with its topic, because too many bytes were on their
        /// way, or because those who read its history are slower than it is read.
        paused: Counter = "kafka_partition_paused_total",
    }
}

/// Brokers with series of their own.
pub const BROKERS_MAX: usize = 64;
/// Partitions of a topic with series of their own: all or none. Ten thousand would be a megabyte a
/// scrape.
pub const PARTITIONS_MAX: usize = 128;

/// Names that become labels: the routes and topics of the config, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Commands, in the order of the config.
    pub commands: Vec<String>,
    /// Queries, in the order of the config.
    pub queries: Vec<String>,
    /// Streams, in the order of the config.
    pub streams: Vec<String>,
    /// Topics, in an order the shards share.
    pub topics: Vec<String>,
}

impl Names {
    /// The place of a route among [`ShardMetrics::routes`]: commands first, then queries, then
    /// streams, each in the order of the config.
    #[must_use]
    pub fn route(&self, kind: RouteKind, index: usize) -> usize {
        index
            + match kind {
                RouteKind::Command => 0,
                RouteKind::Query => self.commands.len(),
                RouteKind::Stream => self.commands.len() + self.queries.len(),
            }
    }

    fn routes(&self) -> impl Iterator<Item = &str> {
        let all = self
            .commands
            .iter()
            .chain(&self.queries)
            .chain(&self.streams);
        all.map(String::as_str)
    }
}

/// One shard's metrics, or the sum of some. A few kilobytes and a clone is a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardMetrics {
    names: Arc<Names>,
    /// Without labels of routes or topics.
    pub general: General,
    /// What is asked of brokers.
    pub kafka: KafkaMetrics,
    /// By where they listen; what [`BrokerMetrics::of`] lets in.
    pub brokers: BTreeMap<String, BrokerMetrics>,
    /// By [`Names::route`].
    pub routes: Vec<RouteMetrics>,
    /// In the order of the config.
    pub commands: Vec<CommandMetrics>,
    /// In the order of the config.
    pub streams: Vec<StreamMetrics>,
    /// In the order of [`Names::topics`].
    pub topics: Vec<TopicMetrics>,
    /// By topic, then by partition; the home lets it grow with [`Self::partition`].
    partitions: Vec<Vec<PartitionMetrics>>,
}

impl ShardMetrics {
    /// Zeros for these names.
    #[must_use]
    pub fn new(names: Arc<Names>) -> Self {
        let routes = names.routes().count();
        Self {
            general: General::default(),
            kafka: KafkaMetrics::default(),
            brokers: BTreeMap::new(),
            routes: vec![RouteMetrics::default(); routes],
            commands: vec![CommandMetrics::default(); names.commands.len()],
            streams: vec![StreamMetrics::default(); names.streams.len()],
            topics: vec![TopicMetrics::default(); names.topics.len()],
            partitions: vec![Vec::new(); names.topics.len()],
            names,
        }
    }

    /// The names it was made for.
    #[must_use]
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The metrics of a partition of the topic at `topic`. `partition` counts from 0 and is one of
    /// those the topic has, so the table is no longer than the topic.
    pub fn partition(&mut self, topic: usize, partition: u32) -> &mut PartitionMetrics {
        let of_topic = &mut self.partitions[topic];
        let index = partition as usize;
        if of_topic.len() <= index {
            of_topic.resize_with(index + 1, PartitionMetrics::default);
        }
        &mut of_topic[index]
    }

    /// Adds another shard's. Both must be made for the same names; another snapshot's are left
    /// out, since their places mean other routes.
    pub fn merge(&mut self, other: &Self) {
        if self.names != other.names {
            return;
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

    /// Writes every family, each once.
    pub fn expose(&self, out: &mut Exposition) {
        let names = &*self.names;
        write_group(out, General::ROWS, [(&self.general, [])]);
        let routes = self.routes.iter().zip(names.routes());
        write_group(
            out,
            RouteMetrics::ROWS,
            routes.map(|(m, n)| (m, [("route", n)])),
        );
        let commands = self.commands.iter().zip(&names.commands);
        write_group(
            out,
            CommandMetrics::ROWS,
            commands.map(|(m, n)| (m, [("route", &**n)])),
        );
        let streams = self.streams.iter().zip(&names.streams);
        write_group(
            out,
            StreamMetrics::ROWS,
            streams.map(|(m, n)| (m, [("route", &**n)])),
        );
        write_group(out, KafkaMetrics::ROWS, [(&self.kafka, [])]);
        let brokers = self.brokers.iter();
        write_group(
            out,
            BrokerMetrics::ROWS,
            brokers.map(|(n, m)| (m, [("broker", &**n)])),
        );
        let topics = self.topics.iter().zip(&names.topics);
        write_group(
            out,
            TopicMetrics::ROWS,
            topics.map(|(m, n)| (m, [("topic", &**n)])),
        );
        let numbers: Vec<Vec<String>> = self.partitions.iter().map(|it| numbers(it)).collect();
        let partitions = self.partitions.iter().zip(&numbers).zip(&names.topics);
        let few = partitions.filter(|((of_topic, _), _)| of_topic.len() <= PARTITIONS_MAX);
        let partitions = few.flat_map(|((of_topic, numbers), topic)| {
            let labels = numbers
                .iter()
                .map(|n| [("topic", &**topic), ("partition", &**n)]);
            of_topic.iter().zip(labels)
        });
        write_group(out, PartitionMetrics::ROWS, partitions);
    }
}

impl BrokerMetrics {
    /// Those of the broker that listens there, or of all for which there is no room.
    pub fn of<'a>(all: &'a mut BTreeMap<String, Self>, address: &str) -> &'a mut Self {
        let room = all.len() < BROKERS_MAX || all.contains_key(address);
        let name = if room { address } else { "other" };
        // A broker is met once and counted often.
        if !all.contains_key(name) {
            all.insert(name.to_owned(), Self::default());
        }
        all.get_mut(name).expect("inserted above")
    }
}

impl ProcessMetrics {
    /// Writes every family, each once.
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

/// Families outside, members inside: the exposition wants all samples of a family together.
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
    use std::collections::HashSet;

    fn names() -> Arc<Names> {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Arc::new(Names {
            commands: list(&["pay"]),
            queries: list(&["GET /a"]),
            streams: list(&["GET /e"]),
            topics: list(&["payments", "balances"]),
        })
    }

    #[test]
    fn the_exposition_names_each_family_once_and_sums_shards() {
        let mut a = ShardMetrics::new(names());
        let mut b = ShardMetrics::new(names());
        let route = a.names().route(RouteKind::Stream, 0);
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
    fn a_counter_ends_in_total_and_nothing_else_does() {
        fn rule<G>(rows: &[Row<G>]) {
            for row in rows {
                let total = row.name.ends_with("_total");
                assert_eq!(total, row.kind == "counter", "{}", row.name);
                let seconds = row.name.ends_with("_seconds");
                assert_eq!(seconds, row.kind == "histogram", "{}", row.name);
            }
        }
        rule(ProcessMetrics::ROWS);
        rule(General::ROWS);
        rule(RouteMetrics::ROWS);
        rule(CommandMetrics::ROWS);
        rule(StreamMetrics::ROWS);
        rule(TopicMetrics::ROWS);
        rule(KafkaMetrics::ROWS);
        rule(BrokerMetrics::ROWS);
        rule(PartitionMetrics::ROWS);
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
        // Adding up shards keeps to it.
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
    fn another_snapshots_names_are_not_added_up() {
        let mut a = ShardMetrics::new(names());
        let mut other = ShardMetrics::new(Arc::default());
        other.general.turns.bump();
        a.merge(&other);
        assert_eq!(a.general.turns.0, 0);
    }
}
