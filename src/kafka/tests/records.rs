//! Records of every kind, as a whole Fetch returns them: times set by the log, cut responses,
//! decompression bombs, unsupported formats.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::peer::settings;
use super::reading::{batches, data};
use super::*;
use crate::model::UnixMillis;

/// Bytes before a batch's records, and before the bytes that its checksum covers.
const HEADER: usize = 61;
const CHECKED_FROM: usize = 21;

/// A batch with one record, changed, and with a correct checksum.
fn changed(offset: u64, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut batch = batches(&[offset]).to_vec();
    change(&mut batch);
    let len = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&len.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CHECKED_FROM..]).to_be_bytes();
    batch[17..21].copy_from_slice(&crc);
    batch
}

/// Reads the records of one Fetch of partition 0, from offset 0 on.
fn fetched(records: Vec<u8>, end: i64) -> (World, Vec<Event>) {
    let mut with = settings();
    with.decompressed_bytes_max = 1 << 16;
    let mut world = World::with(with, DirectoryRole::Own, &[topic(&[(1, 0)])]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.client.read(key(handle, 0), at(0));
    let fetch = world.next_fetch();
    let partition = data(0, end, &[]).with_records(Some(Bytes::from(records)));
    world.fetched(&fetch, vec![partition]);
    let events = world.take();
    (world, events)
}

fn next_offset(world: &mut World) -> i64 {
    world.pass(Duration::from_millis(100));
    world.next_fetch().fetch().topics[0].partitions[0].fetch_offset
}

/// Bit 3 of the attributes: the batch's max timestamp is the time of every record. The producer's
/// times are ignored.
#[test]
fn times_that_the_log_sets_are_the_records_times() {
    let (_, events) = fetched(
        changed(0, |batch| {
            batch[22] |= 8;
            batch[35..43].copy_from_slice(&1_700_000_000_123_i64.to_be_bytes());
        }),
        1,
    );
    let times = events.iter().filter_map(|event| match event {
        Event::Batch { batch, .. } => batch.iter().next().map(|record| record.timestamp),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [UnixMillis(1_700_000_000_123)]);
}

/// Kafka cuts a response at its byte limit, at any byte.
#[test]
fn an_answer_may_end_anywhere_in_its_last_batch() {
    let whole = batches(&[0, 1]).to_vec();
    let half = whole.len() / 2;
    for cut in half..whole.len() {
        let (mut world, events) = fetched(whole[..cut].to_vec(), 2);
        assert_eq!(offsets_of(&events), [0], "cut at {cut}");
        let wrong = |e: &Event| matches!(e, Event::Undecodable { .. } | Event::ReadFailed { .. });
        assert!(!events.iter().any(wrong), "cut at {cut}");
        assert_eq!(next_offset(&mut world), 1, "cut at {cut}");
    }
}

/// With every codec and without: the batch is reported with its offsets, and the batches after it
/// are read.
#[test]
fn a_bomb_poisons_its_batch_and_nothing_else() {
    let zeros = vec![0; 1 << 20];
    for codec in 0..=4_u8 {
        let bomb = changed(0, |batch| {
            batch[22] |= codec;
            batch.truncate(HEADER);
            batch.extend(packed(codec, &zeros));
        });
        assert!(codec == 0 || bomb.len() < 1 << 16, "it looks small");
        let (mut world, events) = fetched([bomb, batches(&[1]).to_vec()].concat(), 2);
        assert_eq!(offsets_of(&events), [1], "codec {codec}");
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Undecodable {
                    from, to, error, ..
                } => Some((from.0, to.0, error.clone())),
                _ => None,
            })
            .collect();
        let error = KafkaError::Records(RecordError::TooLarge(1 << 16));
        assert_eq!(told, [(0, 1, error)], "codec {codec}");
        assert_eq!(next_offset(&mut world), 2, "codec {codec}");
    }
}

fn packed(codec: u8, plain: &[u8]) -> Vec<u8> {
    match codec {
        0 => plain.to_vec(),
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            gzip.write_all(plain).unwrap();
            gzip.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        3 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(plain).unwrap();
            lz4.finish().unwrap()
        }
        _ => zstd::bulk::compress(plain, 1).unwrap(),
    }
}

/// Formats before Kafka 0.11 are whole messages. They are reported and skipped.
#[test]
fn old_formats_are_refused_with_what_to_do_and_passed() {
    for magic in [0, 1] {
        let old = changed(0, |batch| batch[16] = magic);
        let (mut world, events) = fetched([old, batches(&[1]).to_vec()].concat(), 2);
        assert_eq!(offsets_of(&events), [1]);
        let text = undecodable(&events);
        assert!(text.contains(&format!("message format {magic}")), "{text}");
        assert!(text.contains("copy them"), "it says what to do: {text}");
        assert_eq!(next_offset(&mut world), 2);
    }
}

/// A future format: not even the end of the batch is known, so the read stays at its offset and
/// reports the error once.
#[test]
fn unknown_formats_are_refused_with_what_to_do() {
    let (mut world, events) = fetched(changed(0, |batch| batch[16] = 3), 1);
    let text = undecodable(&events);
    assert!(text.contains("message format 3"), "{text}");
    assert!(text.contains("newer Sluicegate"), "{text}");
    assert_eq!(next_offset(&mut world), 0, "nothing is skipped");
}

fn undecodable(events: &[Event]) -> String {
    let error = events.iter().find_map(|event| match event {
        Event::Undecodable { error, .. } => Some(error.to_string()),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("nothing was refused: {events:?}"))
}

/// KIP-219: records in a throttled response are read once. No request is sent before the throttle
/// ends.
#[test]
fn a_throttled_answer_counts_and_is_not_asked_for_again() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    let fetch = world.next_fetch();
    let request = fetch.fetch();
    let topic = kafka_protocol::messages::fetch_response::FetchableTopicResponse::default()
        .with_topic_id(request.topics[0].topic_id)
        .with_partitions(vec![data(0, 2, &[0, 1])]);
    let response = kafka_protocol::messages::FetchResponse::default()
        .with_throttle_time_ms(3_000)
        .with_responses(vec![topic]);
    world.answer::<kafka_protocol::messages::FetchRequest>(&fetch, &response);
    world.pass(Duration::from_millis(2_990));
    assert_eq!(offsets_of(&world.take()), [0, 1]);
    assert!(world.fetches.is_empty(), "it is to be silent");
    world.pass(Duration::from_millis(20));
    let fetch = world.next_fetch();
    assert_eq!(fetch.fetch().topics[0].partitions[0].fetch_offset, 2);
    assert!(world.fetches.is_empty());
}

/// Retention moves the log start during a read. Each response reports the log start, and a read
/// that it has overtaken reports the lost offsets.
#[test]
fn the_log_start_is_followed() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(5));
    let fetch = world.next_fetch();
    let moved = |start, offsets: &[u64]| data(0, 20, offsets).with_log_start_offset(start);
    world.fetched(&fetch, vec![moved(3, &[5])]);
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![moved(4, &[6])]);
    let events = world.take();
    let starts = events.iter().filter_map(|event| match event {
        Event::Batch { log_start, .. } => Some(log_start.0),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [3, 4]);
    world.offsets = (11, 20, 0);
    let fetch = world.next_fetch();
    world.fetched(&fetch, vec![super::reading::refused(0, 1)]);
    assert!(matches!(
        world.take()[..],
        [Event::OutOfRange {
            wanted: Offset(7),
            log_start: Offset(11),
            ..
        }]
    ));
    let fetch = world.next_fetch();
    assert_eq!(fetch.fetch().topics[0].partitions[0].fetch_offset, 11);
}
