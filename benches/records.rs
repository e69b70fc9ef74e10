//! Decoding record batches, per record: without a key and headers, and with a key and three headers
//! of which one is looked up; uncompressed and in each codec. `kafka-protocol`'s decoder, measured
//! on the same bytes, is the base of the ratio.
//!
//! Under `cargo bench` the last step compares the CPU time of a record with the promised time. It
//! takes the median of several runs, which alternate with runs of `kafka-protocol`'s decoder. The
//! exit code is 1 if a promise is not kept. `cargo bench --all-features --bench records -- promise`
//! runs only this step.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use sluicegate::kafka::records::{Fetched, Piece, PieceLimits, Unpacker, walk};
use sluicegate::log::Next;
use sluicegate::model::{LeaderEpoch, Offset, Partition};

const RECORDS: u64 = 1000;
const CAP: u32 = 32 << 20;

fn batch(headers: usize, compression: Compression) -> Bytes {
    let record = |offset: i64| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_700_000_000_000 + offset,
        key: Some(Bytes::from(format!("key-{:08}", offset * 7919 % 10_000))),
        value: Some(Bytes::from(vec![b'a' + (offset % 23) as u8; 200])),
        headers: (0..headers)
            .map(|i| {
                (
                    format!("header-{i}").into(),
                    Some(Bytes::from_static(b"some value")),
                )
            })
            .collect(),
    };
    let records: Vec<_> = (0..RECORDS as i64).map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode_with_custom_compression(
        &mut out,
        &records,
        &options,
        Some(|plain: &mut BytesMut, out: &mut BytesMut, codec| {
            out.extend_from_slice(&pack(codec, plain)?);
            Ok(())
        }),
    )
    .expect("these records can be encoded");
    out.freeze()
}

fn pack(codec: Compression, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write;
    match codec {
        Compression::None => Ok(plain.to_vec()),
        Compression::Gzip => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            w.write_all(plain)?;
            w.finish()
        }
        Compression::Snappy => Ok(snap::raw::Encoder::new().compress_vec(plain)?),
        Compression::Lz4 => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(plain)?;
            Ok(w.finish()?)
        }
        Compression::Zstd => zstd::stream::encode_all(plain, 3),
    }
}

/// Reads a batch; looks up one header of each record if there are any.
fn ours(records: Bytes, unpacker: &mut Unpacker, headers: bool) -> usize {
    let fetched = Fetched {
        partition: Partition(0),
        records,
        from: Next {
            offset: Offset(0),
            epoch: LeaderEpoch(None),
        },
        end: Offset(RECORDS),
        aborted: Vec::new(),
    };
    let (mut seen, mut budget) = (0, u64::from(CAP));
    walk(
        fetched,
        unpacker,
        PieceLimits::new(CAP),
        &mut budget,
        |piece, _| {
            let Piece::Records(batch) = piece else {
                panic!("the batch is good");
            };
            seen += batch.len();
            if headers {
                for record in batch.iter() {
                    black_box(record.headers.last("header-1"));
                }
            }
            black_box(batch);
        },
    );
    assert_eq!(seen as u64, RECORDS);
    seen
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("records");
    group.throughput(Throughput::Elements(RECORDS));
    let mut unpacker = Unpacker::new();
    for (name, headers) in [("bare", 0), ("key-and-3-headers", 3)] {
        let bytes = batch(headers, Compression::None);
        group.bench_function(format!("{name}/ours"), |b| {
            b.iter(|| ours(bytes.clone(), &mut unpacker, headers > 0));
        });
        group.bench_function(format!("{name}/kafka-protocol"), |b| {
            b.iter_batched(
                || bytes.clone(),
                |mut bytes| RecordBatchDecoder::decode(&mut bytes).expect("the batch is good"),
                BatchSize::SmallInput,
            );
        });
    }
    let codecs = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for codec in codecs {
        let bytes = batch(3, codec);
        group.bench_function(format!("{codec:?}/ours").to_lowercase(), |b| {
            b.iter(|| ours(bytes.clone(), &mut unpacker, true));
        });
    }
    group.finish();
}

criterion_group!(benches, decode);

fn main() -> std::process::ExitCode {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // `cargo test` runs benches once. It judges no speed.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let kept = !measured || promises();
    std::process::ExitCode::from(u8::from(!kept))
}

/// Batches that one run decodes: so many that the scheduler's account of the CPU time is exact to a
/// percent.
const BATCHES: u64 = 2_000;
const RUNS: usize = 11;

/// Measures what we promise, and what `kafka-protocol` needs for the same bytes. Gives whether all
/// promises are kept.
fn promises() -> bool {
    let mut unpacker = Unpacker::new();
    let cases = [("bare", 0, 200.0), ("key and 3 headers", 3, 250.0)];
    let cases = cases.map(|case| (case, batch(case.1, Compression::None)));
    let mut figures = cases.each_ref().map(|_| (Vec::new(), Vec::new()));
    for _ in 0..RUNS {
        for (((_, headers, _), bytes), (we, they)) in cases.iter().zip(&mut figures) {
            we.push(ns_a_record(BATCHES, || {
                ours(bytes.clone(), &mut unpacker, *headers > 0);
            }));
            they.push(ns_a_record(BATCHES / 4, || {
                let decoded = RecordBatchDecoder::decode(&mut bytes.clone());
                black_box(decoded.expect("the batch is good"));
            }));
        }
    }
    println!("\nCPU ns a record, medians (best) of {RUNS} runs in turns:");
    let mut kept = true;
    for (((name, _, most), _), (we, they)) in cases.iter().zip(&mut figures) {
        let (we, they) = (spread(we), spread(they));
        let holds = we.0 <= *most;
        kept &= holds;
        println!(
            "{name:<18} ours {:.0} ({:.0}), kafka-protocol {:.0} ({:.0}); promised {most}: {}",
            we.0,
            we.1,
            they.0,
            they.1,
            if holds { "kept" } else { "NOT KEPT" },
        );
    }
    kept
}

/// The median and the least of the values, which it sorts.
fn spread(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0])
}

fn ns_a_record(batches: u64, mut work: impl FnMut()) -> f64 {
    work();
    let before = cpu_ns();
    (0..batches).for_each(|_| work());
    (cpu_ns() - before) as f64 / (batches * RECORDS) as f64
}

/// The CPU time that this thread has used.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let first = text.split(' ').next().and_then(|ns| ns.parse().ok());
    first.expect("the time on the CPU stands first")
}
