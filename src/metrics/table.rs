//! The metrics, each declared once. The structs with the counters, their merging, their exposition
//! and `docs/metrics.md` all come from the table below.

use super::Histogram;
use super::family::{By, Counter, Family, Gauge, Seconds};
use super::labels::{
    AcceptRefusal, BarrierFailure, CloseReason, CommandLimit, CommandOutcome, GoAwayCause,
    IgnoredReply, KafkaApi, KafkaFailure, ResetBy, RouteKind, StatusClass, StreamEnd,
    StreamRefusal,
};
use super::text::Samples;

/// One row of the table, for a group of type `G`.
pub(super) struct Row<G> {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the page is generated from it, by a test")
    )]
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

            /// Adds the values of another shard.
            pub fn merge(&mut self, other: &Self) {
                $( Family::merge(&mut self.$field, &other.$field); )+
            }
        }
    )+ };
}

groups! {
    /// Metrics of the process, from the control thread.
    ProcessMetrics {
        /// Time since the start of the process.
        uptime: Seconds = "uptime_seconds_total",
        /// CPU time, user and system, of all threads.
        cpu: Seconds = "process_cpu_seconds_total",
        /// Resident memory of the process.
        resident_bytes: Gauge = "process_resident_bytes",
        /// Open file descriptors, including sockets.
        open_files: Gauge = "process_open_files",
        /// Number of shards of the process.
        shards: Gauge = "shards",
        /// Shards that did not answer this scrape. Its sums lack their values.
        stuck: Gauge = "shards_stuck",
        /// Log lines that were dropped because standard error was closed or full, or its reader was
        /// slow.
        log_lines_dropped: Counter = "log_lines_dropped_total",
        /// How often certificates, keys and authorities of TLS towards clients were renewed.
        tls_renewals: Counter = "tls_renewals_total",
        /// How often their files had changed and could not be used. The earlier ones stayed in use.
        tls_renewals_refused: Counter = "tls_renewals_refused_total",
        /// When the first certificate towards clients expires, in seconds since 1970. 0 without
        /// TLS.
        tls_certificate_expiry: Gauge = "tls_certificate_expiry_timestamp_seconds",
    }

    /// Metrics without a route or topic.
    General {
        /// Connections accepted from clients.
        connections_accepted: Counter = "connections_accepted_total",
        /// Open connections from clients.
        connections_open: Gauge = "connections_open",
        /// Open connections from clients that speak HTTP/2. They are also among the connections.
        http2_connections_open: Gauge = "http2_connections_open",
        /// Streams of HTTP/2 that were reset, by the end that reset them.
        http2_resets: By<ResetBy, Counter> = "http2_resets_total",
        /// GOAWAY frames that were sent to clients of HTTP/2, by cause.
        http2_goaways: By<GoAwayCause, Counter> = "http2_goaways_total",
        /// Connections from clients that ended, by reason.
        connections_closed: By<CloseReason, Counter> = "connections_closed_total",
        /// Connections from clients closed at once, before a byte was read, by limit.
        connections_refused: By<AcceptRefusal, Counter> = "connections_refused_total",
        /// How often accepting paused for 100 ms because no file descriptor or kernel memory was
        /// free.
        accepts_failed: Counter = "accepts_failed_total",
        /// Bytes that were received from clients.
        received_bytes: Counter = "received_bytes_total",
        /// Bytes that were sent to clients.
        sent_bytes: Counter = "sent_bytes_total",
        /// Requests that matched no route, by status.
        unrouted: By<StatusClass, Counter> = "http_unrouted_requests_total",
        /// Time from the end of a request's head to the last byte of its response, by kind of
        /// route.
        request_time: By<RouteKind, Histogram> = "http_request_seconds",
        /// Bodies that were checked against a schema outside of their shard, because they have more
        /// than 4 KiB or need many steps.
        body_checks: Counter = "body_checks_total",
        /// Commands that wait for such a check.
        body_checks_waiting: Gauge = "body_checks_waiting",
        /// Commands that got 503 because 16 others of their shard waited for such a check.
        body_checks_refused: Counter = "body_checks_refused_total",
        /// Open connections to brokers.
        kafka_connections_open: Gauge = "kafka_connections_open",
        /// Connections to brokers that failed, or could not be established.
        kafka_connections_failed: Counter = "kafka_connections_failed_total",
        /// Commands in flight: admitted and without a reply, counted at their homes.
        commands_open: Gauge = "commands_open",
        /// Requests that wait for the reply of a command in flight.
        commands_waiting: Gauge = "commands_waiting",
        /// Commands that wait until their home has read all replies that were readable when they
        /// arrived.
        barrier_waiting: Gauge = "barrier_commands_waiting",
        /// Milliseconds that the one of these has waited whose deadline is next: 1 s at most.
        barrier_longest_wait: Gauge = "barrier_longest_wait_milliseconds",
        /// Commands that began to wait so. A command whose request is answered or in flight here
        /// does not wait, nor does a command without an idempotency key.
        barrier_commands: Counter = "barrier_commands_total",
        /// Questions to all leaders of a topic for its end. All commands that wait share them.
        barrier_rounds: Counter = "barrier_rounds_total",
        /// Commands that waited and could not be decided, by cause. They got 503, and nothing was
        /// produced.
        barrier_failed: By<BarrierFailure, Counter> = "barrier_failures_total",
        /// Time that commands waited, until they could be decided.
        barrier_wait: Histogram = "barrier_wait_seconds",
        /// Memory of pages of changes: the newest records that clients lack that resume on a
        /// compacted topic. Bounded to 16 MiB a shard.
        stream_page_bytes: Gauge = "stream_page_bytes",
        /// Streams that wait for memory for their next page of changes.
        streams_waiting_for_pages: Gauge = "streams_waiting_for_pages",
        /// Panics while bytes of a client were parsed or a response was encoded. Each closed one
        /// connection, or over HTTP/2 ended one stream with 500, and the log has the place. A panic
        /// elsewhere ends the process.
        connection_panics: Counter = "connection_panics_total",
        /// Turns of the shards' loops.
        turns: Counter = "turns_total",
        /// Time that a turn of a shard took.
        turn_time: Histogram = "turn_seconds",
        /// Steps applied, over all topics and shards.
        steps_applied: Counter = "steps_applied_total",
    }

    /// Metrics that every route has.
    RouteMetrics {
        /// Completed requests, by status. A stream counts when it starts.
        requests: By<StatusClass, Counter> = "http_requests_total",
        /// Requests beyond the `rate` of the route. They got 429, or as a stream 200 and a close.
        rate_limited: Counter = "http_rate_limited_total",
    }

    /// Further metrics of command routes.
    CommandMetrics {
        /// Commands, by the result that was sent.
        commands: By<CommandOutcome, Counter> = "commands_total",
    }

    /// Further metrics of stream routes.
    StreamMetrics {
        /// Open streams of the route.
        open: Gauge = "streams_open",
        /// Streams that were closed at once, by cause.
        refused: By<StreamRefusal, Counter> = "streams_refused_total",
        /// Streams that ended, by reason.
        ended: By<StreamEnd, Counter> = "streams_ended_total",
        /// Subscribers that fell behind the window.
        lagged: Counter = "stream_lagged_total",
    }

    /// Metrics of requests to brokers, over all brokers.
    KafkaMetrics {
        /// Time from a request to its response, by API. A fetch may wait at the broker for new
        /// records.
        request_time: By<KafkaApi, Histogram> = "kafka_request_seconds",
        /// Failed requests, or failed partitions of requests, by API and error.
        failures: By<KafkaApi, By<KafkaFailure, Counter>> = "kafka_request_failures_total",
        /// Throttle time that brokers requested (quotas), summed over connections.
        throttled: Seconds = "kafka_throttle_seconds_total",
    }

    /// Metrics of each broker by address, for up to 64; all others are `other`.
    BrokerMetrics {
        /// Open connections to the broker.
        connections: Gauge = "kafka_broker_connections",
        /// Connections established to the broker. The excess over open connections is the number of
        /// reconnects.
        connected: Counter = "kafka_broker_connections_made_total",
        /// Failed connections to the broker.
        failed: Counter = "kafka_broker_connections_failed_total",
        /// Time from a Produce to its response, including replication.
        produce_time: Histogram = "kafka_broker_produce_seconds",
        /// Time from a Fetch to its response, for fetches that returned records. It includes the
        /// broker's wait for new records: a busy topic shows the broker's own time, a quiet one the
        /// time between records.
        fetch_time: Histogram = "kafka_broker_fetch_seconds",
        /// Time by which a broker exceeded its allowed wait for a Fetch without records. Near 0 for
        /// a broker that responds on time, whatever the traffic.
        fetch_late: Histogram = "kafka_broker_fetch_late_seconds",
        /// Time from any other request to its response.
        request_time: Histogram = "kafka_broker_request_seconds",
        /// Failed requests, or failed partitions of requests, by error.
        failures: By<KafkaFailure, Counter> = "kafka_broker_request_failures_total",
    }

    /// Metrics that every topic has.
    TopicMetrics {
        /// Records fetched from brokers.
        fetched_records: Counter = "kafka_fetched_records_total",
        /// Bytes fetched from brokers, before decompression.
        fetched_bytes: Counter = "kafka_fetched_bytes_total",
        /// Batches or records that could not be decoded, and were skipped.
        undecodable: Counter = "kafka_undecodable_total",
        /// Ranges of offsets that could not be decoded and that the log may still have, of topics
        /// that are cached or hold replies.
        undecodable_ranges: Gauge = "kafka_undecodable_ranges",
        /// Fetched bytes that the shards have not applied yet.
        in_flight_bytes: Gauge = "kafka_in_flight_bytes",
        /// How often the topic was paused because of too many unapplied bytes.
        paused: Counter = "kafka_paused_total",
        /// Records between what is applied here and the end of the log, over all partitions.
        lag: Gauge = "kafka_topic_lag_records",
        /// Records between what is applied here and the end of the log, of the partition that is
        /// furthest behind.
        lag_max: Gauge = "kafka_topic_lag_records_max",
        /// Offsets between the last stable offset and the high watermark, over all partitions:
        /// records that open transactions hide from readers.
        unstable: Gauge = "kafka_topic_unstable_records",
        /// Partitions without a leader, according to metadata.
        leaderless: Gauge = "kafka_topic_leaderless_partitions",
        /// 1 while brokers reject the topic's commands until an operator acts; else 0.
        writes_blocked: Gauge = "kafka_topic_writes_blocked",
        /// Number of keys in the cache.
        cache_entries: Gauge = "cache_entries",
        /// Bytes of keys and values in the cache.
        cache_bytes: Gauge = "cache_bytes",
        /// Deleted keys that the cache remembers for `delete.retention.ms`, for streams.
        cache_tombstones: Gauge = "cache_tombstones",
        /// Keys whose value did not fit in the cache. Their queries get 503.
        cache_values_left_out: Gauge = "cache_values_left_out",
        /// Records of keys that did not fit in the cache.
        cache_keys_refused: Counter = "cache_keys_left_out_total",
        /// 1 while queries of the topic may get 503 `cache-degraded`: the cache is full, or a range
        /// of offsets could not be decoded. `/readyz` has the reason.
        cache_degraded: Gauge = "cache_degraded",
        /// Values in the cache that are not JSON, of a topic with a collection, which omits them.
        cache_values_not_json: Gauge = "cache_values_not_json",
        /// Events sent to streams of the topic, including gaps that are sent to all streams.
        stream_events: Counter = "stream_events_total",
        /// Gaps sent to single streams, because of an unreadable id or of deleted records.
        stream_gaps: Counter = "stream_gaps_total",
        /// Bytes of encoded events in the window.
        window_bytes: Gauge = "stream_window_bytes",
        /// Number of stored replies that retries can find.
        reply_index_entries: Gauge = "reply_index_entries",
        /// Bytes of the reply index, which `commands.dedupe_memory` limits: 64 per reply,
        /// including forgotten replies that are not freed yet.
        reply_index_bytes: Gauge = "reply_index_bytes",
        /// Seconds for which the reply to a command is recognised: `retention.ms` of the topic, or
        /// less while `commands.dedupe_memory` holds fewer replies than that. Without
        /// `retention.ms`: 100 years.
        reply_window: Gauge = "reply_window_seconds",
        /// 1 while `commands.dedupe_memory` holds fewer replies than the topic keeps: a retry of an
        /// older command is executed again.
        reply_index_cut: Gauge = "reply_index_cut",
        /// How often the oldest sixteenth of the index was dropped for that reason.
        reply_index_cuts: Counter = "reply_index_cuts_total",
        /// Unanswered commands, of all instances, that a route with `dedupe = "strict"` does not
        /// append again. At the replies topic, or at the topic of commands without a reply.
        command_index_entries: Gauge = "command_index_entries",
        /// Bytes of the index of unanswered commands, which `commands.unanswered_memory` limits: 56
        /// per command, including forgotten commands that are not freed yet.
        command_index_bytes: Gauge = "command_index_bytes",
        /// Seconds for which the index knows a command without a reply: `commands.open_limit`, or
        /// less while `commands.unanswered_memory` holds fewer commands than that. 0 without a
        /// route that has `dedupe = "strict"`.
        command_index_window: Gauge = "command_index_window_seconds",
        /// 1 while `commands.unanswered_memory` holds fewer commands than have no reply: a retry of
        /// an older one at another instance may be appended again.
        command_index_cut: Gauge = "command_index_cut",
        /// How often the oldest sixteenth of the index was dropped for that reason.
        command_index_cuts: Counter = "command_index_cuts_total",
        /// Commands that were rejected because of a limit, before anything was produced.
        commands_limited: By<CommandLimit, Counter> = "commands_limited_total",
        /// Clients with a command in flight. Each has a share of `commands.open_max`.
        command_clients: Gauge = "command_clients",
        /// Commands that ended without a reply after `commands.open_limit`, or twice
        /// `kafka.delivery_timeout` if the append was not confirmed.
        commands_given_up: Counter = "commands_given_up_total",
        /// Records of a replies topic that completed no command here, by reason. While the topic is
        /// loaded, `repeated` and `not_in_flight` do not count.
        replies_ignored: By<IgnoredReply, Counter> = "replies_ignored_total",
        /// Replies without a readable status. Their clients got 502.
        replies_unreadable: Counter = "replies_unreadable_total",
        /// Headers of replies that were omitted because HTTP can't carry them.
        reply_headers_left_out: Counter = "reply_headers_left_out_total",
    }

    /// Metrics of every partition, for topics with up to 128. `/status` has all.
    PartitionMetrics {
        /// Records between what is applied here and the end of the partition's log.
        lag: Gauge = "kafka_lag_records",
        /// Offsets between the last stable offset and the high watermark.
        unstable: Gauge = "kafka_unstable_records",
        /// Fetched bytes that the shards have not applied yet.
        in_flight_bytes: Gauge = "kafka_partition_in_flight_bytes",
        /// How often the partition was paused: with its topic because of too many unapplied bytes,
        /// or because catch-up reads of its history are slower than fetching.
        paused: Counter = "kafka_partition_paused_total",
        /// Errors in brokers' responses to fetches and produces of the partition.
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
                let timed = row.kind == "histogram";
                assert!(seconds || !timed, "{}", row.name);
                // A gauge may be a time, too.
                assert!(!seconds || timed || row.kind == "gauge", "{}", row.name);
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
