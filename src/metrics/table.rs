//! The metrics, declared once: the structs that are bumped, their merging, their exposition and
//! `docs/metrics.md` all come from the table below.

use super::Histogram;
use super::family::{By, Counter, Family, Gauge, Seconds};
use super::labels::{
    AcceptRefusal, CloseReason, CommandOutcome, IgnoredReply, KafkaApi, KafkaFailure, RouteKind,
    StatusClass, StreamEnd,
};
use super::text::Samples;

/// One row of the table, for a group of type `G`.
pub(super) struct Row<G> {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: fn() -> Vec<&'static str>,
    pub(super) help: &'static str,
    pub(super) write: fn(&G, &mut Samples<'_>),
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
        /// Log lines that standard error did not take: it was closed or full, or its reader was
        /// slow.
        log_lines_dropped: Counter = "log_lines_dropped_total",
    }

    /// What has no route and no topic.
    General {
        /// Connections of clients accepted.
        connections_accepted: Counter = "connections_accepted_total",
        /// Connections of clients that stand.
        connections_open: Gauge = "connections_open",
        /// Connections of clients that ended, by why.
        connections_closed: By<CloseReason, Counter> = "connections_closed_total",
        /// Connections of clients closed at once, before a byte was read, by limit.
        connections_refused: By<AcceptRefusal, Counter> = "connections_refused_total",
        /// How often accepting rested for 100 ms, as no file descriptor or kernel memory was left.
        accepts_failed: Counter = "accepts_failed_total",
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
        /// Ranges of offsets that could not be decoded and that the log may still have, of topics
        /// that are cached or hold replies.
        undecodable_ranges: Gauge = "kafka_undecodable_ranges",
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
        /// Partitions that have no leader, as far as metadata says.
        leaderless: Gauge = "kafka_topic_leaderless_partitions",
        /// 1 while brokers refuse what commands write to the topic, until an operator acts; else 0.
        writes_blocked: Gauge = "kafka_topic_writes_blocked",
        /// Keys in the cache.
        cache_entries: Gauge = "cache_entries",
        /// Bytes of keys and values in the cache.
        cache_bytes: Gauge = "cache_bytes",
        /// Deleted keys that the cache remembers for `delete.retention.ms`, for streams.
        cache_tombstones: Gauge = "cache_tombstones",
        /// Keys whose value found no room in the cache. Their queries get 503.
        cache_values_left_out: Gauge = "cache_values_left_out",
        /// Records of keys that found no room in the cache.
        cache_keys_refused: Counter = "cache_keys_left_out_total",
        /// 1 while queries of the topic may get 503 `cache-degraded`: the cache is full, or a range
        /// of offsets could not be decoded. `/readyz` says which.
        cache_degraded: Gauge = "cache_degraded",
        /// Values in the cache that are not JSON, of a topic with a collection: it leaves them out.
        cache_values_not_json: Gauge = "cache_values_not_json",
        /// Events written to streams of the topic, gaps told to all of them among them.
        stream_events: Counter = "stream_events_total",
        /// Gaps told to single streams: an id that can't be read, what retention has taken.
        stream_gaps: Counter = "stream_gaps_total",
        /// Bytes of encoded events kept.
        window_bytes: Gauge = "stream_window_bytes",
        /// Replies that retries can find.
        reply_index_entries: Gauge = "reply_index_entries",
        /// Bytes the index of replies counts for `commands.dedupe_memory`: 112 a reply, those that
        /// are forgotten and not yet freed among them.
        reply_index_bytes: Gauge = "reply_index_bytes",
        /// 1 while `commands.dedupe_memory` holds fewer replies than the topic keeps: a retry of an
        /// older command runs again.
        reply_index_cut: Gauge = "reply_index_cut",
        /// Times the oldest sixteenth of the index was dropped for that reason.
        reply_index_cuts: Counter = "reply_index_cuts_total",
        /// Records of a replies topic that answered no command here, by why. While the topic is
        /// loaded, `not_in_flight` does not count.
        replies_ignored: By<IgnoredReply, Counter> = "replies_ignored_total",
        /// Replies whose status can't be read: clients got 502.
        replies_unreadable: Counter = "replies_unreadable_total",
        /// Headers of replies that clients did not get, since HTTP can't carry them.
        reply_headers_left_out: Counter = "reply_headers_left_out_total",
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
        /// Errors that brokers answered to fetches and produces of it.
        failed: Counter = "kafka_partition_failures_total",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
