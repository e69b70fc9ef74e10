//! How bytes are sent: offers, short writes, rotation, subscribers that fall out of the window.

use std::io::IoSlice;
use std::mem::size_of;

use super::model::{Peer, Pipe, Rec, TAG, cut, exchange, hash, rec, settings};
use super::parser::parse;
use crate::log::{Cut, EventId, Progress};
use crate::model::{Etag, Offset, Partition};
use crate::sse::subscriber::Subscriber;
use crate::sse::{Delivery, Filter, Need, PageEntry, Sink, Slow, StartFrom, Subscribe, Taken};

const WIDE: usize = 1 << 20;

fn live(compacted: bool, window: usize) -> Peer {
    let mut peer = Peer::new(settings(compacted), window, cut(&[0]));
    peer.subscribe(1, StartFrom::Live, None);
    peer.pump(&mut Pipe::open());
    peer
}

fn last_cut(bytes: &[u8]) -> Cut {
    let stream = parse(bytes);
    let id = EventId::parse(stream.last_id().unwrap().as_bytes()).unwrap();
    id.progress.unwrap().cut
}

#[test]
fn an_idle_subscriber_is_small() {
    assert!(size_of::<Subscriber>() <= 56, "{}", size_of::<Subscriber>());
    assert!(size_of::<crate::sse::subscriber_index::Group>() <= 72);
}

#[test]
fn a_subscriber_that_is_behind_gets_many_blocks_in_one_offer() {
    let mut peer = live(false, WIDE);
    for n in 0..100 {
        peer.record(0, "a", &n.to_string());
    }
    let mut pipe = Pipe::open();
    assert_eq!(
        peer.pump(&mut pipe),
        [(1, Delivery::More), (1, Delivery::Idle)]
    );
    let stream = parse(&pipe.bytes);
    let data: Vec<_> = stream
        .events()
        .map(|e| e.data.parse::<u32>().unwrap())
        .collect();
    assert_eq!(data, (0..100).collect::<Vec<_>>());
    assert_eq!(peer.feed.counts().frames_shared, 100);
}

/// Whatever byte a write stops at, what is read is the same, and no block is needed for the rest.
#[test]
fn a_frame_cut_anywhere_is_finished_from_its_own_copy() {
    let records: Vec<Rec> = (0..3).map(|o| rec(o, "a", "some value")).collect();
    let mut whole = Pipe::open();
    let mut peer = live(false, WIDE);
    peer.records(0, &records, 3);
    peer.pump(&mut whole);
    for at in 0..whole.bytes.len() {
        let mut peer = live(false, 0);
        peer.records(0, &records, 3);
        let mut pipe = Pipe {
            left: at,
            ..Pipe::default()
        };
        assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Full)]);
        assert_eq!(pipe.bytes.len(), at);
        assert_eq!(peer.feed.next_pending(), None);
        pipe.left = usize::MAX;
        peer.feed.on_writable(exchange(1));
        assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Idle)]);
        assert_eq!(pipe.bytes, whole.bytes);
    }
}

#[test]
fn an_honest_transport_is_offered_whole_frames() {
    let mut peer = live(false, WIDE);
    peer.records(
        0,
        &[rec(0, "a", "x"), rec(1, "a", "y"), rec(2, "a", "z")],
        3,
    );
    let mut whole = Pipe::open();
    let frame = {
        let mut peer = live(false, WIDE);
        peer.record(0, "a", "x");
        peer.pump(&mut whole);
        whole.bytes.len()
    };
    let mut pipe = Pipe::default();
    (pipe.honest, pipe.left) = (true, frame * 2 + frame / 2);
    let seen = peer.pump(&mut pipe);
    assert_eq!(seen[0], (1, Delivery::More));
    // The third does not fit: now it is cut, since nothing else is there to send.
    assert_eq!(seen[1], (1, Delivery::Full));
    assert_eq!(pipe.left, 0);
}

#[test]
fn a_subscriber_that_falls_out_of_the_window_is_closed() {
    let mut peer = live(false, 0);
    peer.record(0, "a", "1");
    let mut pipe = Pipe::default();
    assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Full)]);
    peer.record(0, "a", "2");
    pipe.left = usize::MAX;
    peer.feed.on_writable(exchange(1));
    assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Lagged)]);
    assert_eq!((peer.feed.len(), peer.feed.counts().lagged), (0, 1));
}

#[test]
fn an_idle_subscriber_cannot_lag() {
    let mut peer = live(false, 600);
    peer.subscribe(2, StartFrom::Live, Some("mine"));
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    for n in 0..100 {
        peer.record(0, "a", &n.to_string());
        assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Idle)]);
    }
    peer.record(0, "mine", "1");
    assert_eq!(
        peer.pump(&mut pipe),
        [(1, Delivery::Idle), (2, Delivery::Idle)]
    );
}

#[test]
fn a_subscriber_whose_connection_is_closed_is_removed() {
    let mut peer = live(false, WIDE);
    peer.record(0, "a", "1");
    let mut pipe = Pipe::open();
    pipe.closed = true;
    assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Closed)]);
    assert!(peer.feed.is_empty());
}

fn since(peer: &mut Peer) -> Cut {
    match peer.next_need() {
        Some(Need::Page { since, .. }) => since,
        other => panic!("{other:?}"),
    }
}

/// Cut anywhere in three records, then out of the window: the pages start at what it holds.
#[test]
fn conflation_starts_at_what_the_client_holds() {
    let records: Vec<Rec> = (0..3).map(|o| rec(o, "a", "some value")).collect();
    let mut held_seen = std::collections::BTreeSet::new();
    for at in (0..600).step_by(7) {
        let mut peer = Peer::new(settings(true), 0, cut(&[0]));
        peer.resume(1, StartFrom::Live, None, None, Slow::Conflate);
        let mut pipe = Pipe::open();
        peer.pump(&mut pipe);
        peer.records(0, &records, 3);
        pipe.left = at;
        if peer.pump(&mut pipe) != [(1, Delivery::Full)] {
            break;
        }
        peer.record(0, "b", "2");
        peer.record(0, "c", "3");
        pipe.left = usize::MAX;
        peer.feed.on_writable(exchange(1));
        assert_eq!(peer.pump(&mut pipe).last(), Some(&(1, Delivery::Idle)));
        let since = since(&mut peer);
        // The rest of a frame that was cut has followed.
        let offset = |cut: &Cut| cut.get(Partition(0)).offset;
        assert_eq!(offset(&since), offset(&last_cut(&pipe.bytes)));
        held_seen.insert(offset(&since));
        assert_eq!(peer.feed.counts().conflated, 1);
    }
    assert_eq!(held_seen.len(), 4, "{held_seen:?}");
}

/// The subscriber was woken, but the window had moved on before its turn came.
#[test]
fn conflation_knows_what_a_client_held_before_its_first_read() {
    let mut peer = Peer::new(settings(true), 0, cut(&[0]));
    peer.resume(1, StartFrom::Live, None, None, Slow::Conflate);
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    peer.record(0, "a", "1");
    peer.pump(&mut pipe);
    for n in 2..6 {
        peer.record(0, "a", &n.to_string());
    }
    assert_eq!(peer.pump(&mut pipe).last(), Some(&(1, Delivery::Idle)));
    assert_eq!(since(&mut peer), cut(&[1]));
    // The trail is bounded: a subscriber behind it is closed.
    let mut peer = Peer::new(settings(true), 0, cut(&[0]));
    peer.resume(1, StartFrom::Live, None, None, Slow::Conflate);
    peer.pump(&mut pipe);
    for n in 0..300 {
        peer.record(0, "a", &n.to_string());
    }
    assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Lagged)]);
}

#[test]
fn the_rotation_is_fair() {
    let mut peer = live(false, WIDE);
    peer.subscribe(2, StartFrom::Live, None);
    peer.pump(&mut Pipe::open());
    for n in 0..200 {
        peer.record(0, "a", &n.to_string());
    }
    let seen = peer.pump(&mut Pipe::open());
    let tokens: Vec<_> = seen.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [1, 2, 1, 2, 1, 2, 1, 2]);
}

/// Of 100,000 subscribers, a record wakes only the subscriber that it is for.
#[test]
fn a_record_wakes_the_subscribers_that_it_matches() {
    let mut peer = Peer::new(settings(false), WIDE, cut(&[0]));
    for token in 0..100_000 {
        let key = format!("user-{token}");
        let request = Subscribe {
            encoding: 0,
            filter: Filter {
                key: Some((hash(&key), key.as_bytes())),
            },
            start: StartFrom::Live,
            last_event_id: None,
            slow: Slow::Disconnect,
        };
        peer.feed.subscribe(exchange(token), &request, peer.now);
    }
    let mut pipe = Pipe::open();
    while let Some(next) = peer.feed.next_pending() {
        peer.feed.deliver(next, &mut pipe, peer.now);
    }
    peer.record(0, "user-77777", "x");
    assert_eq!(peer.pump(&mut pipe), [(77_777, Delivery::Idle)]);
    for token in 0..100_000 {
        peer.feed.unsubscribe(exchange(token));
    }
    peer.record(0, "user-77777", "x");
    assert_eq!(peer.feed.next_pending(), None);
}

/// The hash finds, the bytes decide.
#[test]
fn keys_of_one_hash_are_distinguished() {
    let mut peer = Peer::new(settings(false), WIDE, cut(&[0]));
    for (token, key) in [(1, "mine"), (2, "other"), (3, "mine")] {
        let request = Subscribe {
            encoding: 0,
            filter: Filter {
                key: Some((hash("mine"), key.as_bytes())),
            },
            start: StartFrom::Live,
            last_event_id: None,
            slow: Slow::Disconnect,
        };
        peer.feed.subscribe(exchange(token), &request, peer.now);
    }
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    peer.record(0, "mine", "x");
    assert_eq!(
        peer.pump(&mut pipe),
        [(1, Delivery::Idle), (3, Delivery::Idle)]
    );
    peer.feed.unsubscribe(exchange(2));
    peer.record(0, "mine", "y");
    peer.feed.unsubscribe(exchange(1)); // While it is in the rotation.
    assert_eq!(peer.pump(&mut pipe), [(3, Delivery::Idle)]);
}

/// A transport with its own framing: it needs whole frames within its room, or one alone.
struct Framing {
    room: usize,
    offers: Vec<Vec<u8>>,
}

impl Sink for Framing {
    fn room(&self) -> usize {
        self.room
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        let offer: Vec<u8> = bytes.collect();
        let frames = offer.windows(2).filter(|two| two == b"\n\n").count();
        assert!(
            offer.ends_with(b"\n\n") && (offer.len() <= self.room || frames == 1),
            "{} bytes of {}, {frames} frames: {:?}",
            offer.len(),
            self.room,
            String::from_utf8_lossy(&offer)
        );
        let len = offer.len();
        self.offers.push(offer);
        Taken::Bytes(len)
    }
}

/// From the window, with client-specific ids (longer than the block's), from a catch-up read's
/// block and from pages: the same bytes with every room.
#[test]
fn every_offer_is_whole_frames_within_the_room() {
    let value = |n: u64| "v".repeat(10 + (n as usize * 37) % 200);
    let records: Vec<Rec> = (0..40).map(|o| rec(o, "a", &value(o))).collect();
    let shared = |sink: &mut Framing| {
        let mut peer = live(false, WIDE);
        for n in 0..5 {
            peer.records(0, &records[n * 8..n * 8 + 8], n as u64 * 8 + 8);
        }
        drain(&mut peer, sink);
    };
    let private = |sink: &mut Framing| {
        let mut peer = Peer::new(settings(false), WIDE, cut(&[0]));
        let ahead: Vec<u64> = [0]
            .into_iter()
            .chain((1..100).map(|n| n * 1_000_000))
            .collect();
        let (tag, time, cut) = (TAG, peer.now.wall, cut(&ahead));
        let id = Progress { tag, time, cut }.encode() + ".";
        peer.records(0, &records, 40);
        peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
        drain(&mut peer, sink);
        assert_eq!(peer.feed.counts().frames_private, 40);
    };
    let pages = |sink: &mut Framing| {
        let mut peer = Peer::new(settings(true), 0, cut(&[0]));
        peer.records(0, &records, 40);
        peer.subscribe(1, StartFrom::Snapshot, None);
        let Some(Need::Page { question, .. }) = peer.next_need() else {
            panic!("a snapshot has pages");
        };
        let etag = Etag::from_position(TAG, Partition(0), Offset(0));
        let entries = records.iter().map(|record| PageEntry {
            key: record.key.as_deref().expect("it has one"),
            value: record.value.as_deref(),
            etag: &etag,
            partition: Partition(0),
            offset: Offset(record.offset),
        });
        peer.feed.on_page(question, entries, None, peer.now.mono);
        drain(&mut peer, sink);
        assert_eq!(peer.feed.counts().page_entries, 40);
    };
    let ways: [&dyn Fn(&mut Framing); 3] = [&shared, &private, &pages];
    for (number, way) in ways.into_iter().enumerate() {
        let read = |room| {
            let offers = Vec::new();
            let mut sink = Framing { room, offers };
            way(&mut sink);
            sink.offers
        };
        let whole = read(1 << 20).concat();
        assert_eq!(parse(&whole).events().count(), 40, "way {number}");
        for room in [1, 100, 300, 1000, 5000] {
            let offers = read(room);
            assert!(offers.len() > whole.len() / (room + 1000));
            assert_eq!(offers.concat(), whole, "way {number}, room {room}");
        }
    }
}

fn drain(peer: &mut Peer, sink: &mut Framing) {
    while let Some(next) = peer.feed.next_pending() {
        peer.feed.deliver(next, sink, peer.now);
        peer.vouch();
    }
}
