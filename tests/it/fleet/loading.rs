//! What a gateway reads of its replies at the start: no more than its index can use.

use bytes::Bytes;
use sluicegate::model::{CommandKey, CorrelationId, Fingerprint, Partition};

use super::records::{batch, record};
use super::world::{Scenario, World};

const REPLIES: &str = "replies";
const PARTITIONS: u32 = 3;
/// `retention.ms` of the replies topic.
const WINDOW_MS: i64 = 3_600_000;
/// Windows of replies in the log: brokers remove whole segments, and late.
const WINDOWS: i64 = 10;
/// Replies of one batch. Its records have one time.
const BATCH: u64 = 50;
/// Replies that `commands.dedupe_memory = "1MiB"` is sufficient for.
const STORED_MAX: u64 = (1 << 20) / 64;

/// Gateways that start, without clients.
struct Loading;

impl Scenario for Loading {
    fn disturb(&mut self, _world: &mut World) {}

    fn act(&mut self, _world: &mut World, _storm: bool) {}

    fn on_killed(&mut self, _gateway: usize, _world: &mut World) {}

    fn is_settled(&mut self, world: &mut World) -> bool {
        let mut gateways = world.gateways.iter();
        gateways.all(|it| it.process.as_ref().is_some_and(super::peer::Peer::is_ready))
    }

    fn unsettled(&self) -> String {
        "gateways load".into()
    }
}

/// What a gateway has read and stored of the replies.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    read: u64,
    stored: u64,
    window_seconds: Option<u64>,
    cut: bool,
}

/// Starts gateways on a log with `batches` batches in each partition, which span `span_ms`, and
/// restarts them by seed. Returns what each has read at the end.
fn load(seed: u64, batches: i64, span_ms: i64, retention_ms: i64) -> Vec<Loaded> {
    let mut world = World::new(seed, 2);
    world.faults.brokers = false;
    let retention = retention_ms.to_string();
    let configs = [("retention.ms", &*retention)];
    for (topic, configs) in [("orders", &[][..]), (REPLIES, &configs)] {
        let made = world.broker.create_topic(topic, PARTITIONS, configs);
        made.expect("a topic");
    }
    for partition in 0..PARTITIONS {
        let kept = kept(world.now.wall.0);
        let planted = world.broker.plant(REPLIES, Partition(partition), &kept);
        planted.expect("a sound batch");
    }
    let mut made = 0_u64;
    for n in 0..batches {
        let time = world.now.wall.0 - span_ms + span_ms * n / batches;
        for partition in 0..PARTITIONS {
            let records = (0..BATCH).map(|_| {
                made += 1;
                reply(made, time)
            });
            let records: Vec<_> = records.zip(0..).map(|(record, n)| at(record, n)).collect();
            let planted = world
                .broker
                .plant(REPLIES, Partition(partition), &batch(&records));
            planted.expect("a sound batch");
        }
    }
    world.add_gateways(|_| {
        "[kafka]\nbootstrap = [\"node:1\"]\nfetch_wait = \"50ms\"\n\
         fetch_partition_bytes_max = \"64KiB\"\n[commands]\ndedupe_memory = \"1MiB\"\n\
         [[command]]\nname = \"pay\"\nroute = \"POST /pay\"\ntopic = \"orders\"\nreplies = \"replies\"\n"
            .into()
    });
    world.live(&mut Loading);
    for partition in 0..PARTITIONS {
        let [start, ..] = world.bounds(REPLIES, partition);
        assert_eq!(start, 0, "the broker has removed nothing");
    }
    let gateways = world.gateways.iter_mut();
    gateways
        .map(|it| loaded(it.process.as_mut().expect("it runs")))
        .collect()
}

/// A batch that retention never removes, nor what is behind it, as in a segment of Kafka that is
/// still written: its head has a time far ahead, and its record an old one.
fn kept(now: i64) -> Vec<u8> {
    const CRC: std::ops::Range<usize> = 17..21;
    const MAX_TIMESTAMP: std::ops::Range<usize> = 35..43;
    let mut batch = batch(&[reply(0, now - 2 * WINDOWS * WINDOW_MS)]).to_vec();
    batch[MAX_TIMESTAMP].copy_from_slice(&(now + WINDOWS * WINDOW_MS).to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC.end..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn loaded(process: &mut super::peer::Peer) -> Loaded {
    let index = |metrics: &sluicegate::metrics::ShardMetrics| {
        let mut topics = metrics.names().topics.iter();
        let found = topics.find(|(_, name)| *name == REPLIES);
        usize::from(found.expect("it is read").0.0)
    };
    let read = process
        .metrics
        .iter()
        .map(|it| it.topics[index(it)].fetched_records.0);
    let read = read.sum();
    let topics = process.status.iter().flat_map(|it| &it.topics);
    let replies = topics.filter_map(|it| it.replies.as_ref()).next();
    let replies = replies.expect("it is at home on one shard");
    Loaded {
        read,
        stored: replies.stored,
        window_seconds: replies.window_seconds,
        cut: replies.cut,
    }
}

fn reply(n: u64, time: i64) -> kafka_protocol::records::Record {
    let id = CorrelationId {
        key: CommandKey(u128::from(n).to_be_bytes()),
        fingerprint: Fingerprint([1; 16]),
    };
    let mut made = record(0, time, None, Some(Bytes::from_static(b"{}")));
    let id = Bytes::from(id.to_string());
    made.headers.insert("correlation-id".into(), Some(id));
    made
}

/// The record at a place of its batch.
fn at(mut record: kafka_protocol::records::Record, n: i32) -> kafka_protocol::records::Record {
    (record.offset, record.sequence) = (n.into(), n);
    record
}

/// Replies from before the window are not read, although the log has them.
#[test]
fn replies_from_before_the_window_are_not_read() {
    let batches = 10 * WINDOWS;
    let of_window = (batches / WINDOWS) as u64 * BATCH * u64::from(PARTITIONS);
    for seed in 0..8 {
        for it in load(seed, batches, WINDOWS * WINDOW_MS, WINDOW_MS) {
            println!("seed {seed}: {of_window} replies within the window: {it:?}");
            assert!(it.read <= of_window * 11 / 10, "{it:?}");
            assert!(it.stored >= of_window * 9 / 10, "{it:?}");
            assert_eq!((it.window_seconds, it.cut), (Some(3_600), false));
        }
    }
}

/// Replies that memory is not sufficient for are not read, the oldest first. Offsets may be markers
/// of transactions, so twice as many are read as memory is sufficient for.
#[test]
fn replies_beyond_the_memory_are_not_read() {
    let batches = (10 * STORED_MAX / BATCH / u64::from(PARTITIONS)) as i64;
    for it in load(1, batches, WINDOW_MS, 2 * WINDOW_MS) {
        println!("{STORED_MAX} replies fit, of {}: {it:?}", 10 * STORED_MAX);
        // The first fetch of a partition shows how much there is.
        assert!(it.read <= STORED_MAX * 9 / 4, "{it:?}");
        assert!(
            (STORED_MAX * 8 / 10..=STORED_MAX).contains(&it.stored),
            "{it:?}"
        );
        assert!(it.cut, "and that is reported: {it:?}");
        let window = it.window_seconds.expect("it has one");
        assert!((300..=400).contains(&window), "a tenth of an hour: {it:?}");
    }
}
