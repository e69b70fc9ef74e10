//! Reads: where they begin, continue, stop and fail.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProducerId;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};

use super::*;
use crate::kafka::records::{PieceLimits, Sequence, encode};
use crate::log::Next;
use crate::model::UnixMillis;

/// A batch for each offset, each with one record.
pub(super) fn batches(offsets: &[u64]) -> Bytes {
    let one = |&offset: &u64| {
        let record = ProduceRecord {
            key: None,
            value: Some(Bytes::from_static(b"v")),
            headers: vec![],
            timestamp: UnixMillis(0),
        };
        let sequence = Sequence {
            producer_id: 4,
            producer_epoch: 0,
            first: 0,
        };
        let mut batch = encode([record].iter(), sequence).to_vec();
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        batch
    };
    offsets.iter().flat_map(one).collect::<Vec<_>>().into()
}

pub(super) fn data(partition: i32, end: i64, offsets: &[u64]) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(end)
        .with_last_stable_offset(end)
        .with_log_start_offset(0)
        .with_records(Some(batches(offsets)))
}

pub(super) fn refused(partition: i32, code: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code)
}

/// The offset that the Fetch asks for in each partition.
fn wanted(world: &World) -> Vec<(i32, i64)> {
    let request = world.fetches[0].fetch();
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let mut wanted: Vec<_> = partitions.map(|p| (p.partition, p.fetch_offset)).collect();
    wanted.sort_unstable();
    wanted
}

#[test]
fn a_read_starts_shows_records_and_asks_for_the_next() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(3));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(fetch.version, 16);
    assert_eq!(
        fetch.fetch().max_wait_ms,
        0,
        "the first answer says where the end is"
    );
    assert_eq!(fetch.fetch().topics[0].topic_id.as_u128(), 77);
    world.fetched(&fetch, vec![data(0, 6, &[3, 5])]);
    let events = world.take();
    assert!(matches!(
        events[0],
        Event::Started {
            from: Next {
                offset: Offset(3),
                ..
            },
            end: Offset(6),
            ..
        }
    ));
    assert_eq!(offsets_of(&events), [3, 5]);
    let Event::Batch {
        next,
        high_watermark,
        ..
    } = &events[1]
    else {
        panic!("{events:?}");
    };
    assert_eq!((next.offset, *high_watermark), (Offset(6), Offset(6)));
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(fetch.fetch().max_wait_ms, 500);
    assert_eq!(fetch.fetch().topics[0].partitions[0].fetch_offset, 6);
    // A response without records emits an event too, because the log was read to its end.
    world.fetched(&fetch, vec![data(0, 6, &[])]);
    let events = world.take();
    assert!(matches!(&events[..], [Event::Batch { batch, .. }] if batch.is_empty()));
}

#[test]
fn whether_a_broker_is_asked_is_known() {
    let (mut world, handle) = known(&[(1, 0), (-1, 0)]);
    let (led, not_led) = (key(handle, 0), key(handle, 1));
    world.client.read(led, at(0));
    world.client.read(not_led, at(0));
    world.settle();
    let asked = |world: &World, of| world.client.is_asked(of);
    assert!(asked(&world, led));
    assert!(!asked(&world, not_led), "nobody leads it");
    world.frozen.insert(1);
    world.pass(std::time::Duration::from_secs(60));
    assert!(!asked(&world, led), "no answer, and no connection any more");
}

#[test]
fn earliest_and_latest_are_asked_for_first() {
    let (mut world, handle) = known(&[(1, 0), (1, 0)]);
    world.offsets = (11, 99, 0);
    world.client.read(key(handle, 0), StartAt::Earliest);
    world.client.read(key(handle, 1), StartAt::Latest);
    world.settle();
    assert_eq!(wanted(&world), [(0, 11), (1, 99)]);
}

#[test]
fn many_partitions_share_a_fetch_and_take_turns_to_be_first() {
    let leaders = [(1, 0); 5];
    let (mut world, handle) = known(&leaders);
    for partition in 0..5 {
        world.client.read(key(handle, partition), at(0));
    }
    world.settle();
    let mut firsts = BTreeSet::new();
    for _ in 0..5 {
        let fetch = world.fetches.pop_front().unwrap();
        assert!(world.fetches.is_empty(), "one in flight a broker and lane");
        firsts.insert(fetch.fetch().topics[0].partitions[0].partition);
        let all = (0..5).map(|p| data(p, 0, &[])).collect();
        world.fetched(&fetch, all);
    }
    assert_eq!(firsts.len(), 5);
}

#[test]
fn lanes_have_connections_of_their_own() {
    let (mut world, handle) = known(&[(1, 0)]);
    for lane in [Lane::Replies, Lane::Streams, Lane::History] {
        let read = ReadKey {
            lane,
            ..key(handle, 0)
        };
        world.client.read(read, at(0));
    }
    world.settle();
    let links: BTreeSet<_> = world.fetches.iter().map(|f| f.link).collect();
    assert_eq!(links.len(), 3);
}

#[test]
fn a_moved_leader_is_found_and_asked() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.pass(Duration::from_secs(1));
    world.topics[0].leaders[0] = (2, 1);
    world.fetched(&fetch, vec![refused(0, 6)]);
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(fetch.node, 2);
    assert_eq!(
        fetch.fetch().topics[0].partitions[0].current_leader_epoch,
        1
    );
    assert!(
        !world
            .take()
            .iter()
            .any(|e| matches!(e, Event::ReadFailed { .. })),
        "routine"
    );
}

#[test]
fn a_stale_leader_that_stays_is_asked_with_backoff_and_reported_once() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let (mut asked, mut told) = (0, 0);
    for _ in 0..300 {
        world.pass(Duration::from_millis(100));
        while let Some(fetch) = world.fetches.pop_front() {
            asked += 1;
            world.fetched(&fetch, vec![refused(0, 6)]);
        }
        let events = world.take();
        told += events
            .iter()
            .filter(|e| matches!(e, Event::ReadFailed { .. }))
            .count();
    }
    assert_eq!(told, 1);
    assert!((30..80).contains(&asked), "{asked} in 30 s");
    assert!(
        world.metadata_asked < 80,
        "{} in 30 s",
        world.metadata_asked
    );
}

#[test]
fn out_of_range_is_reported_and_continues_at_the_log_start() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.offsets = (50, 60, 0);
    world.client.read(key(handle, 0), at(7));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![refused(0, 1)]);
    let events = world.take();
    assert!(matches!(
        events[..],
        [Event::OutOfRange {
            wanted: Offset(7),
            log_start: Offset(50),
            ..
        }]
    ));
    assert_eq!(wanted(&world), [(0, 50)]);
}

#[test]
fn a_stopped_read_emits_nothing_more_and_a_new_one_restarts() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.client.stop(key(handle, 0));
    world.client.read(key(handle, 0), at(20));
    world.settle();
    world.fetched(&fetch, vec![data(0, 30, &[0, 1])]);
    assert!(world.take().is_empty());
    assert_eq!(wanted(&world), [(0, 20)]);
}

#[test]
fn a_paused_read_is_left_out_until_it_is_resumed() {
    let (mut world, handle) = known(&[(1, 0), (1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.client.read(key(handle, 1), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.client.pause(key(handle, 0));
    world.fetched(&fetch, vec![data(0, 2, &[0]), data(1, 2, &[0])]);
    let of = |world: &mut World, partition| {
        let mut events = world.take();
        events.retain(|event| event.read() == Some(key(handle, partition)));
        offsets_of(&events)
    };
    assert_eq!(of(&mut world, 1), [0]);
    assert_eq!(wanted(&world), [(1, 1)]);
    world.client.resume(key(handle, 0));
    world.settle();
    assert_eq!(of(&mut world, 0), [0], "what was on its way has waited");
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(1, 2, &[])]);
    assert_eq!(wanted(&world), [(0, 1), (1, 1)]);
}

#[test]
fn records_of_a_paused_read_are_dropped_for_those_of_others_and_fetched_again() {
    let (mut world, handle) = known(&[(1, 0), (1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.client.read(key(handle, 1), at(0));
    world.settle();
    world.client.pause(key(handle, 0));
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(0, 2, &[0]), data(1, 2, &[0])]);
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(1, 2, &[])]);
    assert!(
        world.client.is_asked(key(handle, 0)),
        "a response without records replaces nothing"
    );
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(1, 2, &[1])]);
    assert!(!world.client.is_asked(key(handle, 0)));
    assert!(offsets_of(&world.take()).len() == 2, "both of partition 1");
    world.client.resume(key(handle, 0));
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(1, 2, &[])]);
    assert_eq!(wanted(&world), [(0, 0), (1, 2)], "it starts where it was");
}

/// A partition of a response with one batch of a megabyte.
fn large(partition: i32) -> PartitionData {
    let record = ProduceRecord {
        key: None,
        value: Some(Bytes::from(vec![b'v'; 200])),
        headers: vec![],
        timestamp: UnixMillis(0),
    };
    let sequence = Sequence {
        producer_id: 4,
        producer_epoch: 0,
        first: 0,
    };
    let batch = encode(vec![record; 5000].iter(), sequence);
    data(partition, 5000, &[]).with_records(Some(batch))
}

/// Reads that are paused in turn, as those of topics whose shards are slow.
#[test]
fn batches_of_paused_reads_are_not_unpacked_again() {
    let steps = |pausing: bool| {
        let (mut world, handle) = known(&[(1, 0), (1, 0)]);
        let reads = [key(handle, 0), key(handle, 1)];
        for read in reads {
            world.client.read(read, at(0));
        }
        world.settle();
        let fetch = world.fetches.pop_front().unwrap();
        world.respond(&fetch, vec![large(0), large(1)]);
        let (mut records, mut steps, now) = ([0, 0], 0, world.now);
        while records != [5000, 5000] {
            steps += usize::from(world.client.unpack(now));
            while let Some(event) = world.client.next_event() {
                if let Event::Batch { batch, .. } = event {
                    let this = batch.partition().0 as usize;
                    records[this] += batch.len();
                    if pausing && records[1 - this] < 5000 {
                        world.client.pause(reads[this]);
                        world.client.resume(reads[1 - this]);
                    }
                }
            }
        }
        steps
    };
    let (alone, pausing) = (steps(false), steps(true));
    assert!(
        pausing <= alone + 4,
        "{pausing} steps, {alone} without pauses"
    );
}

/// A broker is not asked in a lane while records of its last response can be unpacked, and each
/// step of unpacking is bounded.
#[test]
fn a_large_batch_comes_in_pieces_and_the_next_fetch_waits_for_the_last() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.respond(&fetch, vec![large(0)]);
    let (mut pieces, mut steps) = (Vec::new(), 0);
    let now = world.now;
    while world.client.unpack(now) {
        steps += 1;
        while let Some(event) = world.client.next_event() {
            if let Event::Batch { batch, next, .. } = event {
                assert!(batch.bytes_held() <= 2 * PieceLimits::BYTES);
                assert!(batch.len() <= PieceLimits::RECORDS);
                pieces.push((batch.len(), next.offset.0));
            }
        }
        assert!(world.fetches.is_empty());
    }
    assert!(
        pieces.len() >= 4 && steps > pieces.len(),
        "{steps} {pieces:?}"
    );
    assert_eq!(pieces.iter().map(|(len, _)| len).sum::<usize>(), 5000);
    world.settle();
    assert_eq!(wanted(&world), [(0, 5000)]);
}

#[test]
fn a_lost_connection_costs_nothing_but_time() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    // Half a response, then the connection ends.
    world
        .client
        .on_bytes(fetch.link, &[0, 0, 1, 0, 0, 0], world.now);
    world.cut(fetch.link);
    world.pass(Duration::from_millis(200));
    assert_eq!(wanted(&world), [(0, 0)]);
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(0, 1, &[0])]);
    assert_eq!(offsets_of(&world.take()), [0]);
}

/// TCP may split a response at any byte.
#[test]
fn an_answer_that_comes_byte_by_byte_reads_the_same() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let asked = world.fetches.pop_front().unwrap();
    let request = asked.fetch();
    let topic = kafka_protocol::messages::fetch_response::FetchableTopicResponse::default()
        .with_topic_id(request.topics[0].topic_id)
        .with_partitions(vec![data(0, 3, &[0, 1, 2])]);
    let response = kafka_protocol::messages::FetchResponse::default().with_responses(vec![topic]);
    let frame = world.frame::<kafka_protocol::messages::FetchRequest>(&asked, &response);
    for byte in frame {
        world.client.on_bytes(asked.link, &[byte], world.now);
    }
    world.settle();
    assert_eq!(offsets_of(&world.take()), [0, 1, 2]);
}

#[test]
fn aborted_records_are_hidden_and_the_offset_moves_past_them() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    let mut records = batches(&[0, 1]).to_vec();
    records[22] |= 0x10; // The first batch is in a transaction.
    let half = records.len() / 2;
    let crc = crc32c::crc32c(&records[21..half]).to_be_bytes();
    records[17..21].copy_from_slice(&crc);
    let aborted = AbortedTransaction::default()
        .with_producer_id(ProducerId(4))
        .with_first_offset(0);
    let partition = data(0, 2, &[])
        .with_records(Some(records.into()))
        .with_aborted_transactions(Some(vec![aborted]));
    world.fetched(&fetch, vec![partition]);
    assert_eq!(offsets_of(&world.take()), [1]);
    assert_eq!(wanted(&world), [(0, 2)]);
}

#[test]
fn a_damaged_batch_is_reported_with_its_offsets_and_skipped() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    let mut records = batches(&[0, 1, 2]).to_vec();
    let middle = records.len() / 2;
    records[middle + 10] ^= 1;
    world.fetched(
        &fetch,
        vec![data(0, 3, &[]).with_records(Some(records.into()))],
    );
    let events = world.take();
    assert_eq!(offsets_of(&events), [0, 2]);
    assert!(events.iter().any(|e| matches!(
        e,
        Event::Undecodable {
            from: Offset(1),
            to: Offset(2),
            ..
        }
    )));
    assert_eq!(wanted(&world), [(0, 3)]);
}

#[test]
fn nonsense_is_reported_once_and_retried_with_backoff() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let (mut asked, mut told) = (0, 0);
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        while let Some(fetch) = world.fetches.pop_front() {
            asked += 1;
            let junk = Bytes::from_static(&[0xff; 100]);
            world.fetched(&fetch, vec![data(0, 3, &[]).with_records(Some(junk))]);
        }
        let events = world.take();
        told += events
            .iter()
            .filter(|e| matches!(e, Event::Undecodable { .. }))
            .count();
    }
    assert_eq!(told, 1);
    assert!((8..30).contains(&asked), "{asked} in 10 s");
}

#[test]
fn a_partition_left_out_of_the_answer_is_asked_for_with_backoff() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let mut asked = 0;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        while let Some(fetch) = world.fetches.pop_front() {
            asked += 1;
            world.fetched(&fetch, vec![]);
        }
    }
    assert!((8..30).contains(&asked), "{asked} in 10 s");
}

/// Before KIP-74 a broker cut even the first batch. Only a Fetch with a larger limit returns this
/// batch whole.
#[test]
fn a_batch_larger_than_asked_for_is_asked_for_with_more_room() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    let room = fetch.fetch().topics[0].partitions[0].partition_max_bytes;
    let cut = batches(&[0]).slice(..50);
    world.fetched(&fetch, vec![data(0, 3, &[]).with_records(Some(cut))]);
    world.pass(Duration::from_millis(60));
    let fetch = world.fetches.pop_front().unwrap();
    assert_eq!(
        fetch.fetch().topics[0].partitions[0].partition_max_bytes,
        room * 2
    );
    world.fetched(&fetch, vec![data(0, 3, &[0])]);
    assert_eq!(offsets_of(&world.take()), [0]);
}

/// A Fetch names a partition once, so several reads of it in one lane take turns on one connection.
#[test]
fn reads_of_one_partition_take_turns() {
    let (mut world, handle) = known(&[(1, 0)]);
    let read = |id| ReadKey {
        id: ReadId(id),
        ..key(handle, 0)
    };
    let from = [10, 20, 30];
    for (id, from) in (1..).zip(from) {
        world.client.read(read(id), at(from));
    }
    world.settle();
    let mut turns = Vec::new();
    for _ in 0..6 {
        let offset = wanted(&world)[0].1;
        let fetch = world.fetches.pop_front().unwrap();
        assert!(world.fetches.is_empty(), "one Fetch in flight");
        assert_eq!(fetch.fetch().topics[0].partitions.len(), 1);
        world.fetched(&fetch, vec![data(0, 99, &[offset as u64])]);
        let events = world.take();
        let reads: BTreeSet<u32> = events
            .iter()
            .filter_map(Event::read)
            .map(|r| r.id.0)
            .collect();
        assert_eq!(reads.len(), 1, "{events:?}");
        assert_eq!(offsets_of(&events), [offset as u64]);
        turns.push((reads.into_iter().next().unwrap(), offset));
    }
    let expected = [(1, 10), (2, 20), (3, 30), (1, 11), (2, 21), (3, 31)];
    assert_eq!(turns, expected);
    world.client.stop(read(2));
    world.client.stop(read(3));
    let fetch = world.fetches.pop_front().unwrap();
    world.fetched(&fetch, vec![data(0, 99, &[12])]);
    assert_eq!(offsets_of(&world.take()), [12], "the others end alone");
}

/// The same for reads without an offset: ListOffsets names a partition once too.
#[test]
fn reads_of_one_partition_find_their_start() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.offsets = (11, 99, 0);
    for id in 1..=3 {
        let read = ReadKey {
            id: ReadId(id),
            ..key(handle, 0)
        };
        world.client.read(read, StartAt::Earliest);
    }
    world.settle();
    for _ in 0..3 {
        assert_eq!(wanted(&world), [(0, 11)]);
        let fetch = world.fetches.pop_front().unwrap();
        world.fetched(&fetch, vec![data(0, 99, &[])]);
    }
    let started = |event: &Event| matches!(event, Event::Started { .. });
    let events = world.take();
    assert_eq!(events.iter().filter(|it| started(it)).count(), 3);
}
