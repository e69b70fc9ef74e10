//! The reader against `kafka-protocol`'s encoder, against cut and hostile bytes, and against
//! decompression bombs.

#![allow(clippy::unwrap_used)]

use std::io::Write;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::chunks::{Checked, Chunks};
use super::codec::Begun;
use super::encode::record_len_max;
use super::header::{Front, read_front};
use super::*;
use crate::kafka::ProduceRecord;
use crate::log::{Batch, Next};
use crate::model::{FastRandom, LeaderEpoch, Offset, Partition, UnixMillis};

const CAP: u32 = 1 << 20;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn pack(codec: Compression, plain: &[u8]) -> Vec<u8> {
    match codec {
        Compression::None => plain.to_vec(),
        Compression::Gzip => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            w.write_all(plain).unwrap();
            w.finish().unwrap()
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        Compression::Lz4 => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(plain).unwrap();
            w.finish().unwrap()
        }
        Compression::Zstd => zstd::stream::encode_all(plain, 1).unwrap(),
    }
}

fn xerial(plain: &[u8], block: usize) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for part in plain.chunks(block) {
        let packed = pack(Compression::Snappy, part);
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn encode_theirs(records: &[Record], compression: Compression) -> Bytes {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode_with_custom_compression(
        &mut out,
        records,
        &options,
        Some(|plain: &mut BytesMut, out: &mut BytesMut, codec| {
            out.extend_from_slice(&pack(codec, plain));
            Ok(())
        }),
    )
    .unwrap();
    out.freeze()
}

fn plain_record(offset: i64) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_000 + offset,
        key: Some(Bytes::from(format!("k{offset}"))),
        value: Some(Bytes::from_static(b"value")),
        headers: Default::default(),
    }
}

fn next(offset: u64) -> Next {
    Next {
        offset: Offset(offset),
        epoch: LeaderEpoch(None),
    }
}

#[derive(Default, Debug)]
struct Seen {
    batches: Vec<Batch>,
    bad: Vec<(u64, u64, RecordError)>,
}

impl Seen {
    fn offsets(&self) -> Vec<u64> {
        let each = self.batches.iter().flat_map(Batch::iter);
        each.map(|record| record.offset.0).collect()
    }
}

fn read(records: Bytes, from: u64, aborted: Vec<Aborted>) -> (Seen, WalkProgress) {
    let fetched = Fetched {
        partition: Partition(4),
        records,
        from: next(from),
        end: Offset(u64::MAX),
        aborted,
    };
    let mut seen = Seen::default();
    let mut budget = u64::from(CAP) * 8;
    let progress = walk(
        fetched,
        &mut Unpacker::new(),
        PieceLimits::new(CAP),
        &mut budget,
        |piece, _| match piece {
            Piece::Records(batch) => seen.batches.push(batch),
            Piece::Undecodable { from, to, error } => seen.bad.push((from.0, to.0, error)),
        },
    );
    (seen, progress)
}

/// The batch with the log-append attribute, which the encoder of `kafka-protocol` never sets.
fn stamped_by_the_log(batch: &[u8]) -> Bytes {
    let mut batch = batch.to_vec();
    batch[22] |= 8;
    let crc = crc32c::crc32c(&batch[21..]).to_be_bytes();
    batch[17..21].copy_from_slice(&crc);
    batch.into()
}

type Fields = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(String, Option<Vec<u8>>)>,
    i64,
    bool,
);

fn any_fields() -> impl Strategy<Value = Fields> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let headers = proptest::collection::vec(("[a-z]{0,9}", bytes()), 0..4);
    (bytes(), bytes(), headers, 0..1_i64 << 40, any::<bool>())
}

fn their_records(base: u32, fields: &[Fields]) -> Vec<Record> {
    let mut offset = i64::from(base);
    let each = fields.iter().map(|(key, value, headers, timestamp, hole)| {
        offset += 1 + i64::from(*hole);
        let named = headers.iter();
        Record {
            timestamp: *timestamp,
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers: named
                .map(|(n, v)| (n.clone().into(), v.clone().map(Bytes::from)))
                .collect(),
            ..plain_record(offset)
        }
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    })]

    /// Every field of every record, in every codec, as another implementation wrote it.
    #[test]
    fn it_reads_what_kafka_protocol_writes(
        base in 0..1_u32 << 30,
        fields in proptest::collection::vec(any_fields(), 1..20),
        codec in 0..5_usize,
        log_append: bool,
    ) {
        let theirs = their_records(base, &fields);
        let batch = encode_theirs(&theirs, CODECS[codec]);
        let batch = if log_append { stamped_by_the_log(&batch) } else { batch };
        let (seen, progress) = read(batch, 0, vec![]);
        let last = theirs.last().unwrap().offset as u64;
        let newest = theirs.iter().map(|r| r.timestamp).max().unwrap();
        prop_assert_eq!(progress.next.offset, Offset(last + 1));
        prop_assert_eq!(progress.next.epoch, LeaderEpoch(Some(3)));
        prop_assert!(seen.bad.is_empty());
        prop_assert_eq!(seen.batches[0].partition(), Partition(4));
        prop_assert_eq!(seen.batches[0].len(), theirs.len());
        for (ours, theirs) in seen.batches[0].iter().zip(&theirs) {
            prop_assert_eq!(ours.offset.0 as i64, theirs.offset);
            let time = if log_append { newest } else { theirs.timestamp };
            prop_assert_eq!(ours.timestamp, UnixMillis(time));
            prop_assert_eq!(ours.key, theirs.key.as_deref());
            prop_assert_eq!(ours.value, theirs.value.as_deref());
            let headers: Vec<_> = ours.headers.collect();
            let expected: Vec<_> =
                theirs.headers.iter().map(|(n, v)| (n.as_bytes(), v.as_deref())).collect();
            prop_assert_eq!(headers, expected);
        }
    }

    /// A broker cuts its response at a byte limit, at any byte. Whole batches are read, and the
    /// rest comes with the next Fetch.
    #[test]
    fn a_cut_answer_gives_its_whole_batches(cut in 0..600_usize, codec in 0..5_usize) {
        let batch = |at: i64| {
            let records: Vec<_> = (at..at + 3).map(plain_record).collect();
            encode_theirs(&records, CODECS[codec])
        };
        let batches = [batch(0), batch(3), batch(6)];
        let all = batches.concat();
        let cut = cut.min(all.len());
        let (seen, progress) = read(Bytes::copy_from_slice(&all[..cut]), 0, vec![]);
        let (mut whole, mut end) = (0_u64, 0);
        for batch in &batches {
            end += batch.len();
            whole += u64::from(end <= cut);
        }
        prop_assert_eq!(seen.offsets(), (0..whole * 3).collect::<Vec<_>>());
        prop_assert_eq!(progress.next.offset.0, whole * 3);
        prop_assert_eq!(progress.cut_short, whole == 0 && cut > 0);
        prop_assert!(seen.bad.is_empty() && progress.stuck.is_none());
    }

    /// Another implementation reads what the writer encodes, except repeated headers. The reader
    /// reads repeats and nulls too.
    #[test]
    fn what_is_written_reads_back(fields in proptest::collection::vec(any_fields(), 1..20)) {
        let records: Vec<_> = fields.iter().map(our_record).collect();
        let sequence = Sequence { producer_id: 77, producer_epoch: 2, first: 1000 };
        let bytes = encode(records.iter(), sequence);
        let bound: usize = records.iter().map(record_len_max).sum();
        prop_assert!(bytes.len() <= 61 + bound);
        let theirs = RecordBatchDecoder::decode(&mut bytes.clone()).unwrap().records;
        prop_assert_eq!(theirs.len(), records.len());
        for (i, (theirs, ours)) in theirs.iter().zip(&records).enumerate() {
            prop_assert_eq!((theirs.producer_id, theirs.producer_epoch), (77, 2));
            prop_assert_eq!(theirs.sequence, 1000 + i as i32);
            prop_assert_eq!(theirs.timestamp, ours.timestamp.0);
            prop_assert_eq!((&theirs.key, &theirs.value), (&ours.key, &ours.value));
        }
        let (seen, _) = read(bytes, 0, vec![]);
        for (read, written) in seen.batches[0].iter().zip(&records) {
            let headers: Vec<_> = read.headers.collect();
            let expected: Vec<_> =
                written.headers.iter().map(|(n, v)| (&n[..], v.as_deref())).collect();
            prop_assert_eq!(headers, expected);
        }
    }

    /// Random bytes behind a plausible header.
    #[test]
    fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_any_bytes(&bytes);
    }

    /// Random bytes, once to unpack and once to pack.
    #[test]
    fn any_bytes_unpack_to_no_more_than_the_cap(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        check_any_codec(&bytes);
    }

    /// A valid batch with some bytes changed and its checksum corrected, so that decoding gets
    /// further.
    #[test]
    fn a_damaged_batch_is_safe(
        fields in proptest::collection::vec(any_fields(), 1..6),
        codec in 0..5_usize,
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let batch = encode_theirs(&their_records(0, &fields), CODECS[codec]);
        let mut bytes = batch.to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_any_bytes(&bytes);
        check_any_bytes(&bytes[..bytes.len() / 2]);
    }
}

fn our_record((key, value, headers, timestamp, _): &Fields) -> ProduceRecord {
    let each = headers.iter().chain(headers);
    ProduceRecord {
        key: key.clone().map(Bytes::from),
        value: value.clone().map(Bytes::from),
        headers: each
            .map(|(n, v)| (Bytes::from(n.clone()), v.clone().map(Bytes::from)))
            .collect(),
        timestamp: UnixMillis(*timestamp),
    }
}

/// A batch of format v2 around any records section, with a correct checksum.
fn batch(base: i64, attributes: i16, deltas: i32, count: i32, body: &[u8]) -> Vec<u8> {
    let mut out = base.to_be_bytes().to_vec();
    out.extend_from_slice(&(49 + body.len() as i32).to_be_bytes());
    out.extend_from_slice(&3_i32.to_be_bytes());
    out.push(2);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&attributes.to_be_bytes());
    out.extend_from_slice(&deltas.to_be_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&9_i64.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[21..]).to_be_bytes();
    out[17..21].copy_from_slice(&crc);
    out
}

fn bare(count: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for delta in 0..count {
        let mut record = vec![0, 0];
        cursor::put_varlong(&mut record, delta);
        record.extend_from_slice(&[1, 1, 0]); // Null, null, no header.
        cursor::put_varlong(&mut body, record.len() as i64);
        body.extend_from_slice(&record);
    }
    body
}

fn marker(base: i64, kind: u8) -> Vec<u8> {
    // Length 8 (zigzag 16), attributes, deltas, key of 4 bytes, null value... then no header.
    let record = [0, 0, 0, 8, 0, 0, 0, kind, 1, 0];
    let mut body = vec![record.len() as u8 * 2];
    body.extend_from_slice(&record);
    batch(base, 0x30, 0, 1, &body)
}

#[test]
fn aborted_records_and_markers_are_passed_over() {
    let log = [
        batch(0, 0x10, 1, 2, &bare(2)), // Aborted.
        batch(2, 0, 0, 1, &bare(1)),    // The same producer without a transaction: shown.
        marker(3, 0),                   // Abort.
        batch(4, 0x10, 0, 1, &bare(1)), // Its next transaction...
        marker(5, 1),                   // ...is committed.
        batch(6, 0, 3, 0, &[]),         // Compacted away.
    ]
    .concat();
    let aborted = vec![Aborted {
        producer_id: 9,
        first_offset: 0,
    }];
    let (seen, progress) = read(log.clone().into(), 0, aborted);
    assert_eq!(seen.offsets(), [2, 4]);
    assert_eq!(progress.next.offset, Offset(10));
    let (seen, _) = read(log.into(), 0, vec![]);
    assert_eq!(seen.offsets(), [0, 1, 2, 4]);
}

#[test]
fn records_below_the_wanted_offset_are_left_out() {
    let (seen, progress) = read(batch(10, 0, 4, 5, &bare(5)).into(), 13, vec![]);
    assert_eq!(seen.offsets(), [13, 14]);
    assert_eq!(progress.next.offset, Offset(15));
    let (seen, progress) = read(batch(10, 0, 4, 5, &bare(5)).into(), 20, vec![]);
    assert!(seen.offsets().is_empty());
    assert_eq!(progress.next.offset, Offset(20), "next never goes back");
}

#[test]
fn a_bad_batch_is_named_and_passed_and_the_rest_is_read() {
    let mut flipped = batch(2, 0, 1, 2, &bare(2));
    *flipped.last_mut().unwrap() ^= 1;
    let mut old = batch(4, 0, 0, 1, &bare(1));
    old[16] = 1;
    let log = [
        batch(0, 0, 1, 2, &bare(2)),
        flipped,
        old,
        batch(5, 7, 1, 2, &bare(2)),
        batch(7, 0, 0, 2, &bare(2)), // A record beyond the last offset.
        batch(9, 1, 1, 2, &bare(2)), // Not gzip.
        batch(11, 0, 0, 1, &bare(1)),
    ]
    .concat();
    let (seen, progress) = read(log.into(), 0, vec![]);
    assert_eq!(seen.offsets(), [0, 1, 11]);
    assert_eq!(progress.next.offset, Offset(12));
    let malformed = RecordError::Malformed("a record's lengths do not fit");
    let expected = [
        (2, 4, RecordError::Checksum),
        (4, 5, RecordError::Magic(1)),
        (5, 7, RecordError::Codec(7)),
        (7, 8, malformed),
        // No header claims offset 8: the next batch begins at 9.
        (8, 11, RecordError::Compressed),
    ];
    assert_eq!(seen.bad, expected);
}

#[test]
fn a_damaged_header_does_not_lead_past_the_next_batch() {
    let mut lying = batch(0, 0, 1, 2, &bare(2));
    lying[23] = 0x40; // A last offset of a billion.
    let log = [lying, batch(2, 0, 0, 1, &bare(1))].concat();
    let (seen, progress) = read(log.into(), 0, vec![]);
    assert_eq!(seen.bad, [(0, 2, RecordError::Checksum)]);
    assert_eq!(seen.offsets(), [2]);
    assert_eq!(progress.next.offset, Offset(3));
}

#[test]
fn nonsense_stops_the_reader_without_moving_it() {
    let mut log = batch(0, 0, 0, 1, &bare(1));
    log.extend_from_slice(&[0xff; 80]);
    let (seen, progress) = read(log.into(), 0, vec![]);
    assert_eq!(seen.offsets(), [0]);
    assert_eq!(progress.next.offset, Offset(1));
    assert!(matches!(progress.stuck, Some(RecordError::Malformed(_))));
}

/// The Java client frames its snappy blocks, other clients do not.
#[test]
fn snappy_reads_raw_and_framed() {
    let body = bare(300);
    for packed in [xerial(&body, 100), xerial(&body, 1 << 20)] {
        let (seen, _) = read(batch(0, 2, 299, 300, &packed).into(), 0, vec![]);
        assert_eq!(seen.offsets().len(), 300);
        for cut in 16..packed.len() {
            let (seen, _) = read(batch(0, 2, 299, 300, &packed[..cut]).into(), 0, vec![]);
            assert!(
                seen.offsets().is_empty() && seen.bad.len() == 1,
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn compressed_bytes_that_end_early_are_an_error() {
    for (id, codec) in CODECS.into_iter().enumerate().skip(1) {
        let packed = pack(codec, &bare(100));
        for cut in 0..packed.len() {
            let (seen, _) = read(
                batch(0, id as i16, 99, 100, &packed[..cut]).into(),
                0,
                vec![],
            );
            // A missing footer loses no record: then all records are there.
            let whole = seen.offsets().len() == 100;
            assert!(whole || seen.bad.len() == 1, "{codec:?} cut at {cut}");
            assert!(whole == seen.bad.is_empty(), "{codec:?} cut at {cut}");
        }
    }
}

/// A small batch that unpacks to 64 MiB is rejected at the cap, in each codec. A batch that just
/// fits is accepted.
#[test]
fn a_bomb_is_stopped_at_the_cap() {
    let bomb = vec![0; 64 << 20];
    for (id, codec) in CODECS.into_iter().enumerate().skip(1) {
        let mut unpacker = Unpacker::new();
        let packed = Bytes::from(pack(codec, &bomb));
        let outcome = unpacker.unpack(id as u8, packed, CAP);
        assert_eq!(outcome, Err(RecordError::TooLarge(CAP)), "{codec:?}");
        let fits = Bytes::from(pack(codec, &bomb[..CAP as usize]));
        let out = unpacker.unpack(id as u8, fits, CAP).unwrap();
        assert_eq!(
            out.len(),
            CAP as usize,
            "{codec:?} still works after a bomb"
        );
        let over = Bytes::from(pack(codec, &bomb[..CAP as usize + 1]));
        let outcome = unpacker.unpack(id as u8, over, CAP);
        assert_eq!(outcome, Err(RecordError::TooLarge(CAP)), "{codec:?}");
    }
    let nested = Bytes::from(xerial(&bomb, 1 << 19));
    let outcome = Unpacker::new().unpack(2, nested, CAP);
    assert_eq!(outcome, Err(RecordError::TooLarge(CAP)));
    // A length that no snappy block of this size can have is not even allocated.
    let lie = Bytes::from_static(b"\xff\xff\xff\x7f\x00\x00");
    assert_eq!(
        Unpacker::new().unpack(2, lie, u32::MAX),
        Err(RecordError::Compressed)
    );
}

#[test]
fn a_fetch_stops_unpacking_when_its_budget_is_used_up() {
    let one = |base| batch(base, 4, 99, 100, &pack(Compression::Zstd, &bare(100)));
    let log: Bytes = [one(0), one(100), one(200)].concat().into();
    let fetched = Fetched {
        partition: Partition(0),
        records: log,
        from: next(0),
        end: Offset(300),
        aborted: vec![],
    };
    let limits = PieceLimits::new(CAP);
    let mut budget = bare(100).len() as u64 + 1;
    let progress = walk(
        fetched,
        &mut Unpacker::new(),
        limits,
        &mut budget,
        |_, _| {},
    );
    assert_eq!(
        progress.next.offset,
        Offset(200),
        "the second used it up, the third waits"
    );
    assert!(!progress.cut_short);
}

/// Reads one batch in small pieces and counts the steps that it took.
fn in_pieces(records: Bytes, limits: PieceLimits) -> (Vec<usize>, Vec<RecordError>, usize) {
    let fetched = Fetched {
        partition: Partition(0),
        records,
        from: next(0),
        end: Offset(u64::MAX),
        aborted: vec![],
    };
    let (mut walk, mut unpacker) = (Walk::new(fetched, limits), Unpacker::new());
    let (mut pieces, mut errors, mut steps) = (Vec::new(), Vec::new(), 0);
    let mut budget = u64::MAX;
    loop {
        steps += 1;
        match walk.advance(&mut unpacker, &mut budget) {
            Advance::Working => {}
            Advance::Piece(Piece::Records(batch), _) => pieces.push(batch.len()),
            Advance::Piece(Piece::Undecodable { error, .. }, _) => errors.push(error),
            Advance::Done(_) => return (pieces, errors, steps),
        }
    }
}

#[test]
fn a_large_batch_of_every_codec_is_read_in_bounded_steps() {
    let plain = bare(20_000);
    for (codec, id) in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]
    .into_iter()
    .zip(0..)
    {
        let records = batch(0, id, 19_999, 20_000, &pack(codec, &plain)).into();
        let (pieces, errors, steps) = in_pieces(records, PieceLimits::new(1 << 24));
        assert_eq!(pieces.iter().sum::<usize>(), 20_000);
        assert!(errors.is_empty());
        assert!(pieces.iter().all(|&len| len <= PieceLimits::RECORDS));
        assert!(steps > 2 * pieces.len(), "{codec:?}: {steps} steps");
    }
}

/// A batch costs something beside its bytes, so a step passes over a limited number of them.
#[test]
fn many_tiny_or_hidden_batches_are_passed_over_in_bounded_steps() {
    const BATCHES: i64 = 5000;
    let of = |one: &dyn Fn(i64) -> Vec<u8>| (0..BATCHES).flat_map(one).collect::<Vec<u8>>();
    let packed = pack(Compression::Zstd, &bare(1));
    let logs = [
        (of(&|at| batch(at, 0, 0, 1, &bare(1))), 15),
        (of(&|at| batch(at, 4, 0, 1, &packed)), 150),
        (of(&|at| batch(at, 0, 0, 0, &[])), 15),
        (of(&|at| marker(at, 1)), 15),
    ];
    for (log, steps_min) in logs {
        let (_, errors, steps) = in_pieces(log.into(), PieceLimits::new(1 << 24));
        assert!(errors.is_empty());
        assert!(steps > steps_min, "{steps} steps");
    }
}

/// While a large batch is unpacked, no buffer has much more than a piece: it would be copied as it
/// grows, and freed at once.
#[test]
fn a_large_batch_is_held_in_chunks() {
    let plain = bare(200_000);
    let zstd = pack(Compression::Zstd, &plain);
    let limits = PieceLimits::new(1 << 24);
    let Begun::Packed(mut unpacking) = Unpacker::new()
        .begin(4, zstd.into(), limits.batch_bytes)
        .unwrap()
    else {
        panic!("it is packed");
    };
    let header = match read_front(&batch(0, 4, 199_999, 200_000, &[])) {
        Front::Batch(header) => header,
        other => panic!("{other:?}"),
    };
    let (mut chunks, mut unpacker) = (Chunks::new(&header), Unpacker::new());
    let mut whole = false;
    while !whole {
        let bytes = unpacking.bytes();
        match chunks
            .check(&header, bytes, false, &limits, &mut 0)
            .unwrap()
        {
            Checked::Chunk(len) => chunks.push(unpacking.cut(len)),
            Checked::Partial => whole = unpacking.advance(&mut unpacker, 1 << 16).unwrap(),
            Checked::Spent => {}
            Checked::Whole => panic!("more may follow"),
        }
        assert!(unpacking.bytes().len() <= limits.bytes + (1 << 16));
    }
    let mut bytes = unpacking.bytes().len();
    while let Some(chunk) = chunks.pop() {
        assert!(chunk.body.len() <= limits.bytes);
        assert!(chunk.records as usize <= limits.records);
        bytes += chunk.body.len();
    }
    assert_eq!(bytes, plain.len());
}

/// Blocks too large for one call are unpacked by our own decoder. It agrees with the `snap` crate
/// on valid blocks and on damaged ones.
#[test]
fn large_blocks_of_snappy_unpack_as_the_snap_crate_unpacks_them() {
    let mut random = FastRandom::new(7);
    for round in 0..60 {
        let len = (64 << 10) + 1 + random.below(200_000) as usize;
        let mut plain: Vec<u8> = Vec::with_capacity(len + 1000);
        while plain.len() < len {
            let run = 1 + random.below(900) as usize;
            match random.below(3) {
                0 => plain.extend((0..run).map(|_| random.below(256) as u8)),
                1 => plain.extend(std::iter::repeat_n(random.below(256) as u8, run)),
                _ => {
                    let from = random.below(plain.len() as u64 + 1) as usize;
                    let to = plain.len().min(from + run);
                    plain.extend_from_within(from..to);
                }
            }
        }
        let mut packed = pack(Compression::Snappy, &plain);
        let mut unpacker = Unpacker::new();
        let out = unpacker.unpack(2, packed.clone().into(), CAP).unwrap();
        assert!(out == plain, "round {round}");
        let framed = unpacker.unpack(2, xerial(&plain, 100_000).into(), CAP);
        assert!(framed.unwrap() == plain, "framed, round {round}");
        for _ in 0..20 {
            // Behind the length, so that the block stays large.
            let at = 4 + random.below(packed.len() as u64 - 4) as usize;
            let was = std::mem::replace(&mut packed[at], random.below(256) as u8);
            let theirs = snap::raw::Decoder::new().decompress_vec(&packed);
            let ours = unpacker.unpack(2, packed.clone().into(), CAP);
            match (theirs, ours) {
                (Ok(theirs), Ok(ours)) => assert!(theirs == ours, "round {round} at {at}"),
                (Err(_), Err(RecordError::Compressed)) => {}
                (theirs, ours) => panic!("round {round} at {at}: {theirs:?} {ours:?}"),
            }
            packed[at] = was;
        }
    }
}

#[test]
fn half_of_a_large_batch_never_shows() {
    let mut plain = bare(5000);
    plain.truncate(plain.len() - 1);
    let records = batch(0, 4, 4999, 5000, &pack(Compression::Zstd, &plain));
    let (pieces, errors, _) = in_pieces(records.into(), PieceLimits::new(1 << 24));
    assert_eq!(pieces.iter().sum::<usize>(), 0);
    assert_eq!(errors.len(), 1);
}

#[test]
fn a_batch_that_is_packed_again_shows_nothing_twice() {
    let records: Bytes = batch(0, 4, 4999, 5000, &pack(Compression::Zstd, &bare(5000))).into();
    let fetched = Fetched {
        partition: Partition(0),
        records,
        from: next(0),
        end: Offset(u64::MAX),
        aborted: vec![],
    };
    let (mut walk, mut unpacker) = (
        Walk::new(fetched, PieceLimits::new(1 << 24)),
        Unpacker::new(),
    );
    let (mut offsets, mut budget) = (Vec::new(), u64::MAX);
    loop {
        match walk.advance(&mut unpacker, &mut budget) {
            Advance::Working => {}
            Advance::Piece(Piece::Records(batch), _) => {
                offsets.extend(batch.iter().map(|record| record.offset.0));
                walk.repack();
            }
            Advance::Piece(piece, _) => panic!("{piece:?}"),
            Advance::Done(progress) => {
                assert_eq!(progress.next.offset, Offset(5000));
                break;
            }
        }
    }
    assert_eq!(offsets, (0..5000).collect::<Vec<_>>());
}
