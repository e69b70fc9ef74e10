//! A slice with a million keys of 200-byte values. Measures what a GET costs in `cache` and what a
//! record costs, and prints once how the memory that `cache` counts compares with the memory of the
//! process.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluicegate::cache::{Lookup, PageLimits, Slice, SliceSettings};
use sluicegate::log::{Batch, BatchBuilder, Change, Cut, RecordParts, Seq, Step};
use sluicegate::model::{
    HashSecret, KeyHash, LeaderEpoch, LogTag, Offset, Partition, ShardId, UnixMillis,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const SECRET: HashSecret = HashSecret::new([7; 16]);
const NOW: UnixMillis = UnixMillis(0);

fn key(n: u64) -> [u8; 20] {
    let mut key = *b"account-000000000000";
    let digits = n.to_string();
    key[20 - digits.len()..].copy_from_slice(digits.as_bytes());
    key
}

/// A batch of records with these keys and 200-byte values, at offsets from `offset` on.
fn batch(offset: u64, keys: impl Iterator<Item = u64>) -> Batch {
    let mut bytes = vec![b'v'; 200];
    let mut parts = Vec::new();
    for (index, n) in keys.enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(&key(n));
        parts.push(RecordParts {
            offset: Offset(offset + index as u64),
            timestamp: NOW,
            key: Some((start, 20)),
            value: Some((0, 200)),
            headers: (0, 0),
            header_count: 0,
        });
    }
    let mut builder = BatchBuilder::new(Partition(0));
    builder.buffer(Bytes::from(bytes), LeaderEpoch(Some(0)));
    parts.into_iter().for_each(|parts| builder.push(parts));
    let mut batch = builder.finish();
    batch.hash_keys(&SECRET);
    batch
}

fn step(batch: Batch) -> Step {
    Step {
        seq: Seq(1),
        cut: Cut::start(),
        time: NOW,
        oldest: Seq(0),
        change: Change::Records(batch),
        blocks: Default::default(),
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn full_slice() -> Slice {
    let mut slice = Slice::new(SliceSettings {
        me: ShardId(0),
        first: ShardId(0),
        slices: 1,
        bytes_max: 1 << 40,
        tag: LogTag([1, 2, 3, 4]),
        etag_header: "etag".into(),
        tombstone_keep: Duration::from_secs(86_400),
        listed: false,
    });
    let before = resident();
    for first in (0..KEYS).step_by(1000) {
        slice.apply(&step(batch(first, first..first + 1000)), NOW);
    }
    let (stats, held) = (slice.stats(), resident() - before);
    println!(
        "{} keys: {} bytes a key counted, {} resident",
        stats.entries,
        stats.bytes / stats.entries,
        held / stats.entries
    );
    slice
}

/// The next key of a walk over all keys in scattered order, so that CPU caches help as little as
/// they do for requests of many clients.
fn scattered(n: &mut u64) -> u64 {
    *n = (*n + 611_953) % KEYS;
    *n
}

fn get(c: &mut Criterion) {
    let mut slice = full_slice();
    let mut group = c.benchmark_group("cache");
    let mut n = 0;
    group.bench_function("get/hit", |b| {
        b.iter(|| {
            let key = key(scattered(&mut n));
            match slice.get(black_box(&key), SECRET.hash(&key)) {
                Lookup::Found(entry) => entry.offset(),
                other => panic!("{other:?}"),
            }
        });
    });
    group.bench_function("get/hot", |b| {
        let key = key(4711);
        b.iter(|| match slice.get(black_box(&key), SECRET.hash(&key)) {
            Lookup::Found(entry) => entry.etag(),
            other => panic!("{other:?}"),
        });
    });
    group.bench_function("get/miss", |b| {
        b.iter(|| {
            let key = key(KEYS + scattered(&mut n));
            matches!(
                slice.get(black_box(&key), SECRET.hash(&key)),
                Lookup::Absent
            )
        });
    });
    let mut from = KeyHash(0);
    group.bench_function("page/100", |b| {
        let limits = PageLimits {
            entries: 100,
            bytes: usize::MAX,
        };
        b.iter(|| {
            from = KeyHash(from.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
            slice.page(Some((from, b"")), limits)
        });
    });
    let mut offset = KEYS;
    group.bench_function("apply/1000 updates", |b| {
        b.iter_batched(
            || {
                offset += 1000;
                step(batch(offset, (0..1000).map(|_| scattered(&mut n))))
            },
            |step| slice.apply(&step, NOW),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, get);
criterion_main!(benches);
