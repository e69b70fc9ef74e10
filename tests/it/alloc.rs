//! The hot path does not allocate. The allocator of this test binary counts allocations per thread,
//! so that tests on other threads do not disturb it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record as KafkaRecord, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use sluicegate::command::{ReplyError, ReplyIndex, ReplyIndexSettings, ReplyRecord};
use sluicegate::kafka::records::{Fetched, Piece, PieceLimits, Unpacker, walk};
use sluicegate::log::{BatchBuilder, Change, Cut, Next, RecordParts, Seq, Step};
use sluicegate::model::{
    CommandKey, CorrelationId, ExchangeId, Fingerprint, HashSecret, Instant, LeaderEpoch, LogTag,
    Now, Offset, Partition, ShardId, UnixMillis,
};
use sluicegate::sse::{
    Encoder, Encoding, Feed, FeedSettings, Filter, Sink, Slow, StartFrom, Subscribe, Taken,
};

/// A shard with many streams, which `cargo bench --bench fanout` runs too.
#[allow(dead_code)]
#[path = "../../benches/fanout.rs"]
mod fanout;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated and not freed.
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counting each allocation.
struct Counting;

// SAFETY: every call is forwarded unchanged to the system's allocator. The counter is a
// thread-local cell that needs neither allocation nor drop.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _at_exit = BYTES.try_with(|n| n.set(n.get() - layout.size() as i64));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(taken: usize, freed: usize) {
    let _at_exit = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    let _at_exit = BYTES.try_with(|n| n.set(n.get() + taken as i64 - freed as i64));
}

/// Counts the allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const SUBSCRIBERS: u32 = 1_000;
const KEYS: usize = 100;
const SECRET: HashSecret = HashSecret::new([7; 16]);

/// A home that creates steps of one record each, encoded once.
struct Home {
    encoder: Encoder,
    cut: Cut,
    seq: u64,
}

impl Home {
    fn step(&mut self) -> Arc<Step> {
        let offset = Offset(self.seq);
        self.seq += 1;
        let (key, value) = (format!("k{}", offset.0 as usize % KEYS), "x".repeat(200));
        let (key_len, value_len) = (key.len() as u32, value.len() as u32);
        let mut batch = BatchBuilder::new(Partition(0));
        batch.buffer(Bytes::from(key + &value), LeaderEpoch(Some(0)));
        batch.push(RecordParts {
            offset,
            timestamp: UnixMillis(0),
            key: Some((0, key_len)),
            value: Some((key_len, value_len)),
            headers: (key_len + value_len, 0),
            header_count: 0,
        });
        let mut batch = batch.finish();
        batch.hash_keys(&SECRET);
        let before = self.cut.clone();
        let next = Next {
            offset: offset.next(),
            epoch: LeaderEpoch(Some(0)),
        };
        self.cut.set(Partition(0), next);
        let block = self
            .encoder
            .records(&batch, &before, &self.cut, UnixMillis(0));
        Arc::new(Step {
            seq: Seq(self.seq),
            cut: self.cut.clone(),
            time: UnixMillis(0),
            oldest: Seq(self.seq.saturating_sub(64)),
            change: Change::Records(batch),
            blocks: [block.map(Arc::new)].into_iter().collect(),
        })
    }
}

/// A socket that accepts all bytes.
struct TakesAll {
    sends: u64,
    bytes: u64,
}

impl Sink for TakesAll {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.sends += 1;
        self.bytes += bytes as u64;
        Taken::Bytes(bytes)
    }
}

/// Delivers steps to 1,000 subscribers. Returns (allocations of delivery, allocations of steps,
/// sends).
fn fan_out(filtered: bool, steps: usize) -> (u64, u64, u64) {
    let tag = LogTag([1, 2, 3, 4]);
    let settings = FeedSettings {
        tag,
        encodings: vec![Encoding::default()],
        compacted: false,
        delete_retention: Duration::from_secs(86_400),
        log_start: Cut::start(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(2),
        position_events: true,
        catch_up_patience: Duration::from_secs(1),
        seed: 1,
    };
    let encoder = Encoder::new(Encoding::default(), tag);
    let mut home = Home {
        encoder,
        cut: Cut::start(),
        seq: 0,
    };
    let mut feed = Feed::new(settings, Seq(0), Cut::start(), UnixMillis(0));
    let now = Now {
        mono: Instant::from_nanos(1),
        wall: UnixMillis(0),
    };
    for token in 0..SUBSCRIBERS {
        let key = format!("k{}", token as usize % KEYS).into_bytes();
        let filter = Filter {
            key: filtered.then(|| (SECRET.hash(&key), &key[..])),
        };
        let start = StartFrom::Live;
        let (encoding, last_event_id, slow) = (0, None, Slow::Disconnect);
        feed.subscribe(
            ExchangeId {
                shard: ShardId(0),
                slot: token,
                generation: 0,
            },
            &Subscribe {
                encoding,
                filter,
                start,
                last_event_id,
                slow,
            },
            now,
        );
    }
    let mut sink = TakesAll { sends: 0, bytes: 0 };
    let mut deliver = |feed: &mut Feed| {
        while let Some(exchange) = feed.next_pending() {
            feed.deliver(exchange, &mut sink, now);
        }
    };
    // Warm up, until every buffer has the size it needs.
    for _ in 0..2 * KEYS {
        feed.on_step(&home.step());
        deliver(&mut feed);
    }
    let all: Vec<_> = (0..steps).map(|_| home.step()).collect();
    let (mut delivering, mut applying) = (0, 0);
    for step in &all {
        applying += allocations(|| feed.on_step(step));
        delivering += allocations(|| deliver(&mut feed));
    }
    let wanted = if filtered {
        SUBSCRIBERS as usize / KEYS
    } else {
        SUBSCRIBERS as usize
    };
    let counts = feed.counts();
    let before = 2 * KEYS * wanted;
    assert_eq!(
        counts.frames_shared as usize,
        before + steps * wanted,
        "{counts:?}"
    );
    (delivering, applying, sink.sends)
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

/// A record batch as another implementation writes it.
fn record_batch(records: i64, value: usize, compression: Compression) -> Bytes {
    let record = |offset| KafkaRecord {
        transactional: false,
        control: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from(format!("key-{offset}"))),
        value: Some(Bytes::from(vec![b'v'; value])),
        headers: Default::default(),
        delete_horizon: false,
    };
    let records: Vec<_> = (0..records).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let pack = |plain: &mut BytesMut, out: &mut BytesMut, compression| {
        match compression {
            Compression::Zstd => out.extend_from_slice(&zstd::encode_all(&plain[..], 1)?),
            _ => out.extend_from_slice(plain),
        }
        Ok(())
    };
    RecordBatchEncoder::encode_with_custom_compression(&mut bytes, &records, &options, Some(pack))
        .expect("these can be encoded");
    bytes.freeze()
}

/// Bytes that a home counts as in flight for these records, and bytes that they occupy.
fn in_flight(records: i64, value: usize, compression: Compression) -> (i64, i64) {
    let mut encoder = Encoder::new(Encoding::default(), LogTag([1; 4]));
    let (mut steps, mut cut) = (Vec::with_capacity(10_000), Cut::start());
    let before = BYTES.get();
    let records = record_batch(records, value, compression);
    let fetched = Fetched {
        partition: Partition(0),
        records,
        from: Next::at(Offset(0)),
        end: Offset(u64::MAX),
        aborted: Vec::new(),
    };
    let (limits, mut budget) = (PieceLimits::new(16 << 20), u64::MAX);
    walk(
        fetched,
        &mut Unpacker::new(),
        limits,
        &mut budget,
        |piece, _| {
            let Piece::Records(mut batch) = piece else {
                panic!("the batch is good");
            };
            while !batch.is_empty() {
                let time = UnixMillis(0);
                let fitting = encoder.fitting(&batch, &cut, time, 256 << 10);
                let part = batch.split_to(fitting);
                let before = cut.clone();
                let last = part.last_offset().expect("at least one fits");
                cut.set(Partition(0), Next::at(last.next()));
                let block = encoder.records(&part, &before, &cut, time).map(Arc::new);
                steps.push(Arc::new(Step {
                    seq: Seq(0),
                    cut: cut.clone(),
                    time,
                    oldest: Seq(0),
                    change: Change::Records(part),
                    blocks: [block].into_iter().collect(),
                }));
            }
        },
    );
    let counted: usize = steps.iter().map(|step| step.bytes_held()).sum();
    (counted as i64, BYTES.get() - before)
}

#[test]
fn bytes_in_flight_are_what_the_process_holds() {
    for (records, value) in [
        (40_000, 20),
        (20_000, 200),
        (300, 20_000),
        (1, 20_000),
        (10, 200),
    ] {
        for compression in [Compression::None, Compression::Zstd] {
            let (counted, held) = in_flight(records, value, compression);
            let ratio = counted as f64 / held as f64;
            assert!(
                (0.9..1.1).contains(&ratio),
                "{records} values of {value} bytes: {counted} counted, {held} held"
            );
        }
    }
}

/// `commands.dedupe_memory` counts 64 bytes for each reply of the index. What the process holds for
/// the index is no more than that at any fill from an eighth on, while replies arrive and while the
/// oldest are dropped.
#[test]
fn a_stored_reply_takes_64_bytes_at_most() {
    const ENTRIES: u64 = 200_000;
    assert_eq!(ReplyIndexSettings::ENTRY_BYTES, 64);
    let settings = ReplyIndexSettings {
        window: Duration::from_secs(1_000_000),
        dedupe_bytes_max: ENTRIES as usize * ReplyIndexSettings::ENTRY_BYTES,
        body_bytes_max: 0,
    };
    let before = BYTES.get();
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let mut index = ReplyIndex::new(settings, hasher);
    let mut most = 0.0_f64;
    for n in 0..3 * ENTRIES {
        // As a digest, every key is another one, spread over all keys.
        let key = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let reply = ReplyRecord {
            id: CorrelationId {
                key: CommandKey(key.to_be_bytes()),
                fingerprint: Fingerprint([2; 16]),
            },
            partition: Partition(0),
            offset: Offset(n),
            timestamp: UnixMillis(n as i64),
            answer: &Err(ReplyError::Status),
        };
        index.on_reply(&reply, UnixMillis(n as i64));
        if n >= ENTRIES / 8 && n % 100 == 0 {
            let held = (BYTES.get() - before) as f64;
            let stats = index.stats();
            let counted = stats.entry_bytes as f64;
            assert!(held <= counted, "{n}: {held} held, {counted} counted");
            // What was dropped and is not freed yet is a small part.
            assert!(counted <= 1.01 * settings.dedupe_bytes_max as f64);
            most = most.max(held / counted * 64.0);
        }
    }
    let stats = index.stats();
    assert!(stats.entries as u64 >= ENTRIES * 15 / 16 - 1, "{stats:?}");
    println!("a stored reply takes {most:.1} bytes at most");
}

/// Delivery through a whole shard, with HTTP/1.1 framing: twice the clients cause no more
/// allocations.
#[test]
fn a_delivery_through_the_edge_allocates_nothing() {
    let cost = |clients| {
        let mut world = fanout::World::new();
        world.open(clients);
        let mut round = || {
            world.produce(4);
            fanout::measured(&mut world, clients, 4);
        };
        (0..20).for_each(|_| round());
        allocations(|| (0..50).for_each(|_| round()))
    };
    let (some, twice) = (cost(200), cost(400));
    let more = twice.saturating_sub(some);
    assert!(more < 50, "{some} for 200 clients, {twice} for 400");
}

/// R20: no allocation per event and client. A step allocates about twice on its shard, for one
/// client as for a thousand.
#[test]
fn a_warm_fan_out_allocates_nothing() {
    for filtered in [false, true] {
        let (delivering, applying, sends) = fan_out(filtered, 300);
        assert!(sends > 0);
        assert_eq!(delivering, 0, "filtered: {filtered}");
        assert!(
            applying <= 3 * 300,
            "filtered: {filtered}: {applying} in 300 steps"
        );
    }
}

/// Bytes that a TLS session of the gateway holds after its handshake, and after some data each way: by
/// the allocator of Rust, so without the state of ciphers that aws-lc allocates itself.
#[test]
fn an_idle_tls_session_holds_little() {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use sluicegate::tls::{Acceptor, Session, TicketKeys};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tickets = TicketKeys::new(&[7; 32]);
    let acceptor = Acceptor::from_pem(chain.as_bytes(), key.as_bytes(), tickets);
    let acceptor = acceptor.expect("they match");
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let now = Now {
        mono: Instant::ZERO,
        wall: UnixMillis(1_800_000_000_000),
    };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = rustls::ClientConnection::new(Arc::new(config), name);
        let mut client = client.expect("a client");
        // What the client holds is allocated before and freed after, or does not change.
        let mut plain = Vec::with_capacity(1 << 20);
        let (mut up, mut down) = (Vec::with_capacity(1 << 20), vec![0; 1 << 20]);
        let before = BYTES.with(Cell::get);
        let mut session = Session::new(&acceptor, true, now).expect("a session");
        let begun = BYTES.with(Cell::get) - before;
        let mut held = begun;
        let mut most = begun;
        for round in 0..20 {
            if round == 10 {
                let data = vec![b'x'; 16_000];
                std::io::Write::write_all(&mut client.writer(), &data).expect("room");
                let before = BYTES.with(Cell::get);
                while session.take(&[IoSlice::new(&data[..16_000])]) == 16_000 {}
                held += BYTES.with(Cell::get) - before;
            }
            up.clear();
            while client.wants_write() {
                client.write_tls(&mut up).expect("memory");
            }
            let before = BYTES.with(Cell::get);
            plain.clear();
            session.on_bytes(&up, &mut plain).expect("well-behaved");
            held += BYTES.with(Cell::get) - before;
            most = most.max(held);
            let sent = session.outgoing().len();
            down[..sent].copy_from_slice(session.outgoing());
            let before = BYTES.with(Cell::get);
            session.on_sent(sent);
            held += BYTES.with(Cell::get) - before;
            let mut rest = &down[..sent];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory");
                client.process_new_packets().expect("well-behaved");
                let mut got = Vec::new();
                let _blocked = std::io::Read::read_to_end(&mut client.reader(), &mut got);
            }
        }
        assert!(!session.is_handshaking());
        let own = size_of::<Session>();
        println!(
            "{version:?}: a session of {own} bytes holds {begun} when it begins, {most} at most, {held} \
             when it is idle"
        );
        // `check` counts 24 KiB, which must also have room for what aws-lc allocates.
        assert!((1..=20 * 1024).contains(&held), "{held}");
        // Full of data, it holds what waits for the socket (64 KiB), and its copy as it grows.
        assert!(most <= 256 * 1024, "{most}");
    }
}
