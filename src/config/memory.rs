//! The memory sum: every cap of the config added up, so that a limit on memory is a promise and not
//! a hope. Each line is what a setting allows, not what is used.

use std::collections::BTreeSet;

use super::Config;
use super::unit::{KIB, MIB, show_size};

/// Bytes of the process before the first client: code, tables, the control thread.
const BASE_BYTES: usize = 48 * MIB;
/// Bytes of the counters of what single clients use: a fixed number of cells. The shard asserts it.
pub const CLIENT_LIMITS_BYTES: usize = 2 * MIB;
/// Most bytes of compressed values, and of the values themselves, that one shard keeps.
pub const GZIP_CACHE_BYTES_MAX: usize = 4 * MIB;
/// Bytes of a large value that one shard compresses: the value, what it becomes, the encoder.
pub const GZIP_JOB_BYTES_MAX: usize = 2 * MIB;
/// Collections that one shard compresses at a time. Further ones are sent as they are.
pub const GZIP_COLLECTIONS_MAX: usize = 16;
/// Bytes of the tables with which a collection is compressed. The shard asserts it.
pub const GZIP_ENCODER_BYTES: usize = 512 * KIB;
/// Bytes of a shard's rings, scratch buffers and timers.
const SHARD_BYTES: usize = 8 * MIB;
/// Bytes of a connection with its state and an idle stream. Buffers in use are counted apart.
const CONNECTION_BYTES: usize = KIB;
/// What a TLS connection has beyond a plain one: rustls allocates 18 kB (`it alloc::an_idle_tls`),
/// of which 9 kB are resident with small requests, and aws-lc some more.
const TLS_SESSION_BYTES: usize = 24 * KIB;
/// What a connection of HTTP/2 has beyond one of HTTP/1.1: the buffers and tables of h2 for
/// reading, writing and compressing heads, and `http2.streams_max` streams.
const HTTP2_CONNECTION_BYTES: usize = 64 * KIB;
/// Most bytes of an in-flight command with two waiters: keys, deadlines, places in the tables. The
/// home asserts it.
pub const OPEN_COMMAND_BYTES: usize = 2 * KIB;

/// Most bytes of a piece of unpacked records with its index. The home asserts it.
pub const PIECE_BYTES_MAX: usize = 512 * KIB;
/// Most bytes of the events of one step, over all encodings. The home asserts it.
pub const STEP_BYTES_MAX: usize = 256 * KIB;
/// Pieces that a catch-up read holds until its members have taken the last. The home asserts it.
pub const CATCH_UP_PIECES_MAX: usize = 4;
/// Bodies of a shard that are checked against a schema outside of it at a time.
pub const BODY_CHECKS_MAX: usize = 16;
/// Most bytes of a body's tree for each byte of the body: `[{"":0},…]` is the worst.
const TREE_BYTES_PER_BYTE: usize = 100;
/// Most bytes of pages of *changes* that streams of one shard have in memory: the newest records of
/// a compacted topic, for clients that resume from before its window.
pub const PAGES_BYTES_MAX: usize = 16 * MIB;
/// Most bytes of records that one home shard produces to one cluster at a time.
pub const PENDING_PRODUCE_BYTES_MAX: usize = 64 * MIB;
/// Most bytes of commands that wait at a home shard to be decided, with their bodies: see
/// `home/barriers.rs`. Beyond it, commands get 503 before anything is produced.
pub const BARRIER_BYTES_MAX: usize = 16 * MIB;

/// Brokers of a cluster that are counted, as they are in the reserve of file descriptors.
const BROKERS: usize = 4;
/// Responses with records that a home shard has of one broker: one is unpacked, one arrives.
const RESPONSES_PER_BROKER: usize = 2;
/// Batches that a home shard unpacks of one cluster at a time: live records, history, records read
/// again for a cache. Replies have a lane of their own and are counted with the topics that have
/// them.
const LANES: usize = 3;
/// Copies of a record that is produced: the record, its batch, the request that is being sent.
const PRODUCE_COPIES: usize = 3;

/// One line of the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// What takes it: "windows of streams".
    pub what: String,
    /// Which setting bounds it; empty if none does.
    pub setting: &'static str,
    /// Number of things that the setting bounds.
    pub count: usize,
    /// Most bytes of each thing.
    pub each: usize,
}

impl Cap {
    /// Most bytes of all of them together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.count.saturating_mul(self.each)
    }
}

/// Everything that may be held at one time, with `shards` shards.
#[must_use]
pub fn memory_caps(config: &Config, shards: u16) -> Vec<Cap> {
    let s = &config.settings;
    let topics = config.topics();
    let cached = topics.iter().filter(|it| it.query || it.compacted).count();
    let streamed = topics.iter().filter(|it| it.stream).count();
    let read = topics.iter().filter(|it| it.is_read()).count();
    let replies = topics.iter().filter(|it| it.replies).count();
    let indexed = topics.iter().filter(|it| it.indexed).count();
    let cap = |what: &str, setting, count, each| Cap {
        what: what.to_owned(),
        setting,
        count,
        each,
    };
    let homes = match s.kafka_shards {
        0 => usize::from(shards),
        homes => usize::from(homes),
    };
    let clients = homes * config.cluster_indexes().count();
    let written = topics.iter().filter(|it| it.commands).count();
    let (readers, writers) = (clients.min(read), clients.min(written));
    // Routes that share a replies topic share a table, and so do routes without replies.
    let one_way = config.commands.iter().filter(|it| it.replies.is_none());
    let one_way: BTreeSet<_> = one_way.map(|it| (it.cluster, &it.topic)).collect();
    let tables = replies + one_way.len();
    let has_schema = config.commands.iter().any(|it| it.schema.is_some());
    let open = tables.saturating_mul(s.commands.open_max);
    vec![
        cap("the process itself", "", 1, BASE_BYTES),
        cap("counters of single clients", "", 1, CLIENT_LIMITS_BYTES),
        cap(
            "compressed answers to queries",
            "http.compress",
            if s.http.compress && !config.queries.is_empty() {
                usize::from(shards)
            } else {
                0
            },
            GZIP_CACHE_BYTES_MAX + GZIP_JOB_BYTES_MAX + GZIP_COLLECTIONS_MAX * GZIP_ENCODER_BYTES,
        ),
        cap("shards", "shards", usize::from(shards), SHARD_BYTES),
        cap(
            "connections",
            "http.connections_max",
            s.http.connections_max,
            CONNECTION_BYTES,
        ),
        cap(
            "connections of HTTP/2",
            "http2.connections_max",
            if s.http2.enabled {
                s.http2.connections_max.min(s.http.connections_max)
            } else {
                0
            },
            HTTP2_CONNECTION_BYTES,
        ),
        cap(
            "TLS sessions",
            "http.connections_max",
            if s.tls.listen.is_empty() {
                0
            } else {
                s.http.connections_max
            },
            TLS_SESSION_BYTES,
        ),
        cap(
            "request bodies",
            "http.bodies_bytes_max",
            1,
            s.http.bodies_bytes_max,
        ),
        cap(
            "bodies being checked against a schema",
            "http.body_bytes_max",
            if has_schema {
                usize::from(shards) * BODY_CHECKS_MAX + TREE_BYTES_PER_BYTE
            } else {
                0
            },
            s.http.body_bytes_max,
        ),
        cap(
            "responses",
            "http.responses_bytes_max",
            1,
            s.http.responses_bytes_max,
        ),
        cap(
            "topics being read",
            "kafka.topic_in_flight_bytes_max",
            read,
            s.kafka.topic_in_flight_bytes_max,
        ),
        cap(
            "responses of brokers with records",
            "kafka.fetch_bytes_max",
            readers * BROKERS * RESPONSES_PER_BROKER,
            s.kafka.fetch_bytes_max,
        ),
        cap(
            "record batches being unpacked",
            "kafka.batch_bytes_max",
            readers * LANES + clients.min(replies),
            s.kafka.batch_bytes_max,
        ),
        cap("records waiting for their order", "", read, PIECE_BYTES_MAX),
        cap(
            "catch-up reads of streams",
            "",
            streamed,
            CATCH_UP_PIECES_MAX * PIECE_BYTES_MAX + STEP_BYTES_MAX,
        ),
        cap(
            "records being produced",
            "",
            writers,
            PENDING_PRODUCE_BYTES_MAX * PRODUCE_COPIES,
        ),
        cap(
            "commands waiting for a barrier",
            "",
            homes.min(written),
            BARRIER_BYTES_MAX.max(s.http.body_bytes_max),
        ),
        cap(
            "windows of streams",
            "streams.window_bytes_max",
            streamed,
            s.streams.window_bytes_max,
        ),
        cap(
            "pages of resuming streams",
            "",
            if streamed == 0 { 0 } else { shards.into() },
            PAGES_BYTES_MAX,
        ),
        cap(
            "send buffers of streams, in the kernel",
            "streams.send_buffer_bytes",
            if config.streams.is_empty() {
                0
            } else {
                s.streams.streams_max.min(s.http.connections_max)
            },
            // The kernel doubles the value, for its own overhead of each segment.
            s.streams.send_buffer_bytes.saturating_mul(2),
        ),
        cap("caches", "cache.bytes_max", cached, s.cache.bytes_max),
        cap(
            "open commands",
            "commands.open_max",
            open,
            OPEN_COMMAND_BYTES,
        ),
        cap(
            "indexes of replies",
            "commands.dedupe_memory",
            replies,
            s.commands.dedupe_memory,
        ),
        cap(
            "indexes of unanswered commands",
            "commands.unanswered_memory",
            indexed,
            s.commands.unanswered_memory,
        ),
        cap(
            "bodies of replies",
            "commands.replies_bytes_max",
            replies,
            s.commands.replies_bytes_max,
        ),
    ]
}

/// The sum of all caps.
#[must_use]
pub fn memory_sum(caps: &[Cap]) -> usize {
    caps.iter()
        .fold(0, |sum, cap| sum.saturating_add(cap.bytes()))
}

/// The caps as a table for people, largest first, with the sum.
#[must_use]
pub fn memory_table(caps: &[Cap]) -> String {
    let mut sorted: Vec<_> = caps.iter().filter(|cap| cap.bytes() > 0).collect();
    sorted.sort_by_key(|cap| std::cmp::Reverse(cap.bytes()));
    let mut lines: Vec<_> = sorted.into_iter().map(line).collect();
    lines.push(format!("{:>12}  in all", rounded(memory_sum(caps))));
    lines.join("\n")
}

fn line(cap: &Cap) -> String {
    let times = match cap.count {
        1 => String::new(),
        n => format!(", {n} × {}", show_size(cap.each)),
    };
    let setting = match cap.setting {
        "" => String::new(),
        setting => format!(" ({setting})"),
    };
    format!("{:>12}  {}{times}{setting}", rounded(cap.bytes()), cap.what)
}

/// Whole MiB, rounded up, so that the sum is never understated.
fn rounded(bytes: usize) -> String {
    format!("{} MiB", bytes.div_ceil(MIB))
}
