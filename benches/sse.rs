//! What a record costs as an event, and what a subscriber costs as a cursor: encoding at the home,
//! moved ids compared with ids written in full, and the sweep of a window to 1,000 subscribers with
//! transports that accept every byte and do nothing with it.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use smallvec::SmallVec;

use sluicegate::log::{
    Batch, BatchBuilder, Block, Change, Cut, Next, Progress, ProgressText, RecordParts, Seq, Step,
    WindowBudget,
};
use sluicegate::model::{
    ExchangeId, HashSecret, LeaderEpoch, LogTag, Now, Offset, Partition, ShardId, UnixMillis,
};
use sluicegate::sse::{
    Encoder, Encoding, Feed, FeedSettings, Filter, Sink, Slow, StartFrom, Subscribe, Taken,
};

const TAG: LogTag = LogTag(*b"tag!");
const SECRET: HashSecret = HashSecret::new([7; 16]);
const TIME: UnixMillis = UnixMillis(1_764_000_000_000);
const VALUE_BYTES: usize = 200;

fn next(offset: u64) -> Next {
    let (offset, epoch) = (Offset(offset), LeaderEpoch(Some(3)));
    Next { offset, epoch }
}

fn cut(partitions: u32) -> Cut {
    let mut cut = Cut::start();
    for partition in 0..partitions {
        cut.set(Partition(partition), next(1_000_000_000));
    }
    cut
}

/// A batch of `count` records of `VALUE_BYTES` at the position of `cut` in the partition, with up
/// to 1,000 keys.
fn batch(cut: &Cut, partition: Partition, count: u64) -> Batch {
    let mut builder = BatchBuilder::new(partition);
    let start = cut.get(partition).offset.0;
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    for offset in start..start + count {
        let at = bytes.len() as u32;
        let key = format!("user-{:05}", offset % 1000);
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&[b'x'; VALUE_BYTES]);
        parts.push(RecordParts {
            offset: Offset(offset),
            timestamp: TIME,
            key: Some((at, key.len() as u32)),
            value: Some((at + key.len() as u32, VALUE_BYTES as u32)),
            headers: (0, 0),
            header_count: 0,
        });
    }
    builder.buffer(Bytes::from(bytes), LeaderEpoch(Some(3)));
    parts.into_iter().for_each(|parts| builder.push(parts));
    let mut batch = builder.finish();
    batch.hash_keys(&SECRET);
    batch
}

fn after(cut: &Cut, partition: Partition, count: u64) -> Cut {
    let mut after = cut.clone();
    after.set(partition, next(cut.get(partition).offset.0 + count));
    after
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (partitions, count) in [(1, 1), (1, 100), (12, 1), (12, 100)] {
        let before = cut(partitions);
        let batch = batch(&before, Partition(0), count);
        let after = after(&before, Partition(0), count);
        let mut encoder = Encoder::new(Encoding::default(), TAG);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{partitions} partitions, {count} records"), |b| {
            b.iter(|| black_box(encoder.records(&batch, &before, &after, TIME)));
        });
    }
    group.finish();
}

fn ids(c: &mut Criterion) {
    let mut group = c.benchmark_group("id of 12 partitions");
    let mut text = ProgressText::new(TAG, TIME, &cut(12));
    let mut offset = 1_000_000_000;
    group.bench_function("moved", |b| {
        b.iter(|| {
            offset += 1;
            text.set(Partition(5), next(offset));
            black_box(text.as_bytes().len())
        });
    });
    let mut whole = cut(12);
    group.bench_function("written whole", |b| {
        b.iter(|| {
            offset += 1;
            whole.set(Partition(5), next(offset));
            black_box(ProgressText::new(TAG, TIME, &whole).as_bytes().len())
        });
    });
    let id = ProgressText::new(TAG, TIME, &whole).as_bytes().to_vec();
    group.bench_function("read", |b| b.iter(|| Progress::decode(black_box(&id))));
    group.finish();
}

/// A transport that accepts every byte and keeps none. Counts the bytes.
struct Discard(usize);

impl Sink for Discard {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.0 += bytes;
        Taken::Bytes(bytes)
    }
}

/// A home, and a shard with its subscribers.
struct Peer {
    feed: Feed,
    encoder: Encoder,
    budget: WindowBudget,
    cut: Cut,
    seq: u64,
}

impl Peer {
    fn new(subscribers: u32, filtered: bool) -> Self {
        let settings = FeedSettings {
            tag: TAG,
            encodings: vec![Encoding::default()],
            compacted: false,
            delete_retention: Duration::from_secs(86_400),
            log_start: Cut::start(),
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(2),
            position_events: true,
            catch_up_patience: Duration::from_millis(250),
            seed: 1,
        };
        let cut = cut(12);
        let mut peer = Self {
            feed: Feed::new(settings, Seq(0), cut.clone(), TIME),
            encoder: Encoder::new(Encoding::default(), TAG),
            budget: WindowBudget::new(64 << 20),
            cut,
            seq: 0,
        };
        for slot in 0..subscribers {
            let exchange = ExchangeId {
                shard: ShardId(0),
                slot,
                generation: 0,
            };
            let key = format!("user-{slot:05}");
            let key = (SECRET.hash(key.as_bytes()), key.as_bytes());
            let request = Subscribe {
                encoding: 0,
                filter: Filter {
                    key: filtered.then_some(key),
                },
                start: StartFrom::Live,
                last_event_id: None,
                slow: Slow::Disconnect,
            };
            peer.feed.subscribe(exchange, &request, Now::default());
        }
        peer.sweep();
        peer
    }

    fn step(&mut self, count: u64) -> Arc<Step> {
        let partition = Partition((self.seq % 12) as u32);
        let batch = batch(&self.cut, partition, count);
        let after = after(&self.cut, partition, count);
        let block: Option<Block> = self.encoder.records(&batch, &self.cut, &after, TIME);
        let blocks: SmallVec<_> = [block.map(Arc::new)].into_iter().collect();
        self.cut = after.clone();
        self.seq += 1;
        let seq = Seq(self.seq);
        Arc::new(Step {
            seq,
            cut: after,
            time: TIME,
            oldest: self.budget.push(seq, &blocks),
            change: Change::Records(batch),
            blocks,
        })
    }

    fn sweep(&mut self) -> usize {
        let mut sink = Discard(0);
        while let Some(exchange) = self.feed.next_pending() {
            self.feed.deliver(exchange, &mut sink, Now::default());
        }
        sink.0
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("sweep to 1,000 subscribers");
    for (name, records, steps) in [("one event", 1, 1), ("16 events in 16 blocks", 1, 16)] {
        let peer = std::cell::RefCell::new(Peer::new(1000, false));
        group.throughput(Throughput::Elements(1000));
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    (0..steps)
                        .map(|_| peer.borrow_mut().step(records))
                        .collect::<Vec<_>>()
                },
                |steps| {
                    let mut peer = peer.borrow_mut();
                    steps.iter().for_each(|step| peer.feed.on_step(step));
                    peer.sweep()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    // One record for one of many subscribers: the number of subscribers must not change the time.
    let mut group = c.benchmark_group("16 keyed records");
    for subscribers in [1000, 100_000] {
        let peer = std::cell::RefCell::new(Peer::new(subscribers, true));
        group.throughput(Throughput::Elements(16));
        group.bench_function(format!("{subscribers} subscribers"), |b| {
            b.iter_batched(
                || peer.borrow_mut().step(16),
                |step| {
                    let mut peer = peer.borrow_mut();
                    peer.feed.on_step(&step);
                    peer.sweep()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encoding, ids, fan_out);
criterion_main!(benches);
