//! What a subscriber is sent when: starts, gaps, history, heartbeats.

use std::time::Duration;

use super::model::{EPOCH, Peer, Pipe, Rec, TAG, at, batch, cut, exchange, rec, set, settings};
use super::parser::{Dispatch, Stream, parse};
use crate::log::{Change, Cut, EventId, GapReason, Notice, OffsetRange, Progress};
use crate::model::{Etag, LogTag, Offset, Partition, UnixMillis};
use crate::sse::{
    CatchUpId, Delivery, FeedSettings, Need, PageCursor, PageEntry, Slow, StartFrom,
    StreamQuestion, WaitsAt,
};

const WIDE: usize = 1 << 20;

fn peer(compacted: bool, window: usize, at: &[u64]) -> Peer {
    Peer::new(settings(compacted), window, cut(at))
}

fn id_of(cut: &Cut, seconds: u64) -> String {
    let (tag, time) = (TAG, at(seconds).wall);
    let cut = cut.clone();
    Progress { tag, time, cut }.encode() + "."
}

fn cut_of(block: &Dispatch) -> Option<Cut> {
    let id = EventId::parse(block.id.as_bytes()).expect("an id of ours");
    id.progress.map(|progress| progress.cut)
}

/// The cut in the stream's only position.
fn position_of(stream: &Stream) -> Cut {
    let positions = stream.blocks.iter().filter(|it| it.event == "position");
    let [position] = positions.collect::<Vec<_>>()[..] else {
        panic!("one position: {stream:?}");
    };
    assert_eq!(position.data, "{}", "readers with one handler parse JSON");
    assert!(
        position.id.ends_with('.'),
        "no record is shown: {position:?}"
    );
    cut_of(position).expect("a position is no start over")
}

fn offsets(cut: &Cut) -> Vec<u64> {
    cut.iter().map(|(_, next)| next.offset.0).collect()
}

/// Delivers to every pending subscriber, and parses what was sent.
fn read(peer: &mut Peer) -> Stream {
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    parse(&pipe.take_all())
}

fn said(stream: &Stream) -> Vec<(&str, &str)> {
    stream.events().map(|e| (&*e.event, &*e.data)).collect()
}

fn page_need(peer: &mut Peer) -> (StreamQuestion, Cut, Cut) {
    match peer.next_need().expect("a need") {
        Need::Page {
            question,
            since,
            below,
            ..
        } => (question, since, below),
        other => panic!("{other:?}"),
    }
}

fn catch_up_need(peer: &mut Peer) -> (StreamQuestion, Cut) {
    match peer.next_need().expect("a need") {
        Need::CatchUp { question, from, .. } => (question, from),
        other => panic!("{other:?}"),
    }
}

fn entry<'a>(key: &'a str, value: Option<&'a str>, offset: u64, etag: &'a Etag) -> PageEntry<'a> {
    PageEntry {
        key: key.as_bytes(),
        value: value.map(str::as_bytes),
        etag,
        partition: Partition(0),
        offset: Offset(offset),
    }
}

#[test]
fn the_first_bytes_say_where_the_client_is() {
    let mut s = settings(false);
    s.log_start = cut(&[3, 0]);
    let mut peer = Peer::new(s, WIDE, cut(&[5, 2]));
    peer.subscribe(1, StartFrom::Live, None);
    let stream = read(&mut peer);
    assert!((1000..3000).contains(&stream.retry.unwrap()));
    assert_eq!(stream.events().count(), 0);
    assert_eq!(position_of(&stream), cut(&[5, 2]));
    peer.subscribe(2, StartFrom::Earliest, None);
    let stream = read(&mut peer);
    assert_eq!(position_of(&stream), cut(&[3]));
    assert_eq!(catch_up_need(&mut peer).1, cut(&[3, 0]));
    // A client that brings an id has one.
    let id = id_of(&cut(&[5, 2]), 0);
    peer.resume(3, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    assert!(stream.retry.is_some() && stream.blocks[0].id.is_empty());
    let mut peer = self::peer(true, WIDE, &[5]);
    peer.subscribe(1, StartFrom::Snapshot, None);
    assert_eq!(read(&mut peer).last_id(), None);
}

/// Some readers store an id only with an event. Others have one handler for every event.
#[test]
fn a_position_without_an_event_has_the_same_id() {
    for compacted in [false, true] {
        let (mut texts, mut ids) = (Vec::new(), Vec::new());
        for position_events in [true, false] {
            let settings = settings(compacted);
            let settings = FeedSettings {
                position_events,
                ..settings
            };
            let mut peer = Peer::new(settings, WIDE, cut(&[5, 2]));
            let start = if compacted {
                StartFrom::Snapshot
            } else {
                StartFrom::Live
            };
            peer.subscribe(1, start, None);
            let mut pipe = Pipe::open();
            peer.pump(&mut pipe);
            if compacted {
                assert_eq!(parse(&pipe.take_all()).last_id(), None);
                let (question, ..) = page_need(&mut peer);
                peer.feed
                    .on_page(question, std::iter::empty(), None, peer.now.mono);
                peer.pump(&mut pipe);
            }
            let text = String::from_utf8(pipe.take_all()).expect("UTF-8");
            let text = match text.strip_prefix("retry: ") {
                Some(rest) => rest.split_once('\n').expect("a line").1.to_owned(),
                None => text,
            };
            ids.push(parse(text.as_bytes()).last_id().expect("an id").to_owned());
            texts.push(text);
        }
        assert_eq!(ids[0], ids[1]);
        let id = &ids[0];
        assert_eq!(
            texts[0],
            format!("event: position\ndata: {{}}\nid: {id}\n\n")
        );
        assert_eq!(texts[1], format!("id: {id}\n\n"));
    }
}

/// The resume id of a client that is cut off before its first event, whatever its library
/// remembers.
#[test]
fn every_start_says_where_it_is_with_an_event() {
    for (compacted, start) in [
        (false, StartFrom::Live),
        (false, StartFrom::Earliest),
        (true, StartFrom::Live),
        (true, StartFrom::Earliest),
        (true, StartFrom::Snapshot),
    ] {
        let mut peer = Peer::new(settings(compacted), 0, cut(&[3]));
        peer.record(0, "a", "1");
        peer.subscribe(1, start, None);
        let mut stream = read(&mut peer);
        if compacted && start != StartFrom::Live {
            // Until its pages are complete, the client may start again.
            assert_eq!(stream.last_id(), stream.last_dispatched_id());
            let (question, ..) = page_need(&mut peer);
            peer.feed
                .on_page(question, std::iter::empty(), None, peer.now.mono);
            stream = read(&mut peer);
        }
        assert!(
            stream.last_dispatched_id().is_some(),
            "{compacted} {start:?}"
        );
        assert_eq!(stream.last_id(), stream.last_dispatched_id());
    }
}

#[test]
fn what_cannot_be_resumed_is_reported() {
    for (compacted, start, next) in [
        (false, StartFrom::Live, cut(&[5])),
        (false, StartFrom::Earliest, cut(&[3])),
    ] {
        let mut s = settings(compacted);
        s.log_start = cut(&[3]);
        let mut peer = Peer::new(s, WIDE, cut(&[5]));
        peer.resume(1, start, None, Some("nonsense"), Slow::Disconnect);
        let stream = read(&mut peer);
        assert_eq!(said(&stream), [("gap", r#"{"reason":"unreadable"}"#)]);
        assert_eq!(cut_of(&stream.blocks[0]), Some(next));
    }
    let tag = LogTag(*b"old!");
    let (time, cut) = (UnixMillis(0), cut(&[9]));
    let id = Progress { tag, time, cut }.encode() + ".x";
    let mut peer = self::peer(false, WIDE, &[5]);
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("gap", r#"{"reason":"recreated"}"#)]);
    // All of the new log is new to it, though the route starts live.
    assert_eq!(catch_up_need(&mut peer).1, Cut::start());
    let mut peer = self::peer(true, WIDE, &[5]);
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("gap", r#"{"reason":"recreated"}"#)]);
    assert_eq!(cut_of(&stream.blocks[0]), None);
    assert_eq!(page_need(&mut peer).1, Cut::start());
}

#[test]
fn what_retention_removed_is_reported_once_and_skipped() {
    let mut peer = peer(false, WIDE, &[9, 4]);
    let (partition, offset) = (Partition(0), Offset(6));
    let change = Change::LogStart { partition, offset };
    peer.step(change, None, cut(&[9, 4]));
    let id = id_of(&cut(&[2, 4]), 0);
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    let gap = r#"{"partition":0,"from":2,"to":6,"reason":"retention"}"#;
    assert_eq!(said(&stream), [("gap", gap)]);
    assert_eq!(offsets(&cut_of(&stream.blocks[1]).unwrap()), [6, 4]);
    let (question, from) = catch_up_need(&mut peer);
    assert_eq!(offsets(&from), [6, 4]);
    // Meanwhile the home has found that more is lost.
    peer.feed
        .on_catch_up_joined(CatchUpId(1), &[question], &cut(&[8]));
    let stream = read(&mut peer);
    assert_eq!(offsets(&cut_of(&stream.blocks[0]).unwrap()), [8, 4]);
    assert_eq!(peer.feed.counts().gaps, 2);
}

#[test]
fn deletes_that_may_have_expired_start_a_snapshot() {
    let day = 24 * 3600;
    for (away, window, over) in [(day, 0, true), (day / 2, 0, false), (day, WIDE, false)] {
        let mut peer = peer(true, window, &[5]);
        peer.record(0, "a", "1");
        peer.record(0, "b", "2");
        peer.now = at(away);
        let id = id_of(&cut(&[5]), 0);
        peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
        let stream = read(&mut peer);
        if window == WIDE {
            // All that it missed is still here, deletes too.
            assert_eq!(said(&stream), [("message", "1"), ("message", "2")]);
        } else if over {
            assert_eq!(said(&stream), [("gap", r#"{"reason":"tombstones"}"#)]);
            assert_eq!(page_need(&mut peer).1, Cut::start());
        } else {
            assert_eq!(page_need(&mut peer).1, cut(&[5]));
        }
    }
}

/// A client without an id has seen no key, whatever the topic's time says. That time does not
/// advance while brokers are unavailable, and is up to 10 s behind on a quiet topic.
#[test]
fn a_start_without_an_id_misses_no_delete() {
    for (start, window) in [
        (StartFrom::Earliest, 0),
        (StartFrom::Earliest, WIDE),
        (StartFrom::Snapshot, 0),
        (StartFrom::Live, 0),
    ] {
        for delete_retention in [Duration::ZERO, Duration::from_secs(24 * 3600)] {
            let settings = FeedSettings {
                delete_retention,
                ..settings(true)
            };
            let mut peer = Peer::new(settings, window, cut(&[0]));
            peer.record(0, "a", "1");
            peer.record(0, "b", "2");
            peer.now = at(7 * 24 * 3600);
            peer.subscribe(1, start, None);
            let stream = read(&mut peer);
            let gaps = stream.events().filter(|it| it.event == "gap").count();
            assert_eq!(gaps, 0, "{start:?} {window} {delete_retention:?}");
            match (start, window) {
                (StartFrom::Live, _) => assert_eq!(peer.next_need(), None),
                (_, 0) => assert_eq!(page_need(&mut peer).1, Cut::start()),
                _ => assert_eq!(said(&stream), [("message", "1"), ("message", "2")]),
            }
        }
    }
}

#[test]
fn a_snapshot_is_pages_then_an_id_then_the_window() {
    let mut peer = peer(true, WIDE, &[0]);
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        peer.record(0, key, value);
    }
    peer.subscribe(1, StartFrom::Snapshot, None);
    read(&mut peer);
    let (question, since, below) = page_need(&mut peer);
    assert_eq!((since, below), (Cut::start(), cut(&[3])));
    peer.record(0, "a", "4");
    let etags: Vec<Etag> = (0..4)
        .map(|o| Etag::from_position(TAG, Partition(0), Offset(o)))
        .collect();
    let next = PageCursor {
        shard: crate::model::ShardId(0),
        partition: Partition(0),
        offset: Offset(2),
    };
    let first = [entry("b", Some("2"), 1, &etags[1])];
    peer.feed
        .on_page(question, first.into_iter(), Some(next), peer.now.mono);
    // A second answer, or an answer to another subscriber's question, changes nothing.
    peer.feed
        .on_page(question, first.into_iter(), None, peer.now.mono);
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("message", "2")]);
    let part = etags[1].event_id_part();
    let part = std::str::from_utf8(&part).expect("ASCII");
    assert_eq!(stream.blocks[0].id, format!("-.{part}"));
    let Some(Need::Page {
        question, after, ..
    }) = peer.next_need()
    else {
        panic!("the socket has taken the page, so the next is due");
    };
    assert_eq!(after, Some(next));
    let last = [
        entry("c", None, 2, &etags[2]),
        entry("a", Some("4"), 3, &etags[3]),
    ];
    peer.feed
        .on_page(question, last.into_iter(), None, peer.now.mono);
    let stream = read(&mut peer);
    assert_eq!(
        said(&stream),
        [("delete", r#"{"key":"c"}"#), ("message", "4")]
    );
    // The position comes between the pages and the window.
    assert_eq!(stream.blocks[1].event, "position");
    assert_eq!(position_of(&stream), cut(&[3]));
    assert_eq!(cut_of(&stream.blocks[2]), Some(cut(&[4])));
    assert_eq!(peer.feed.counts().frames_shared, 1);
}

#[test]
fn a_snapshot_that_outlasts_the_window_continues_from_where_it_was() {
    let mut peer = peer(true, 0, &[0]);
    peer.record(0, "a", "1");
    peer.subscribe(1, StartFrom::Snapshot, None);
    read(&mut peer);
    let (question, _, below) = page_need(&mut peer);
    peer.record(0, "b", "2");
    peer.record(0, "c", "3");
    peer.feed
        .on_page(question, std::iter::empty(), None, peer.now.mono);
    assert_eq!(position_of(&read(&mut peer)), below);
    let (_, since, below_now) = page_need(&mut peer);
    assert_eq!((since, below_now), (below, cut(&[3])));
    assert_eq!(peer.feed.counts().lagged, 0);
}

#[test]
fn private_ids_are_the_later_of_what_is_held_and_the_cut() {
    let mut peer = peer(false, WIDE, &[5, 5]);
    let before = peer.seq;
    peer.record(0, "a", "0/5");
    peer.record(1, "a", "1/5");
    assert_eq!(before.0 + 2, peer.seq.0);
    // Ahead in partition 1, behind in partition 0.
    let id = id_of(&cut(&[5, 7]), 0);
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("message", "0/5")]);
    assert_eq!(cut_of(&stream.blocks[1]), Some(cut(&[6, 7])));
    peer.record(1, "a", "1/6");
    peer.record(0, "a", "0/6");
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("message", "0/6")]);
    assert_eq!(cut_of(&stream.blocks[0]), Some(cut(&[7, 7])));
    // The cut has met it: it shares the window from here.
    let private = peer.feed.counts().frames_private;
    peer.record(1, "a", "1/7");
    assert_eq!(said(&read(&mut peer)), [("message", "1/7")]);
    assert_eq!(peer.feed.counts().frames_private, private);
}

#[test]
fn private_ids_count_what_the_filter_left_out() {
    let mut peer = peer(false, WIDE, &[5, 5]);
    peer.record(0, "b", "0/5");
    peer.record(1, "a", "1/5");
    let id = id_of(&cut(&[5, 5, 9]), 0);
    peer.resume(1, StartFrom::Live, Some("a"), Some(&id), Slow::Disconnect);
    let stream = read(&mut peer);
    assert_eq!(said(&stream), [("message", "1/5")]);
    assert_eq!(cut_of(&stream.blocks[1]), Some(cut(&[6, 6, 9])));
}

#[test]
fn what_a_catch_up_has_read_is_not_read_again() {
    let mut peer = peer(false, 0, &[0]);
    peer.record(0, "b", "v0");
    peer.record(0, "b", "v1");
    peer.subscribe(1, StartFrom::Earliest, Some("a"));
    read(&mut peer);
    let (question, _) = catch_up_need(&mut peer);
    peer.feed
        .on_catch_up_joined(CatchUpId(1), &[question], &Cut::start());
    let records = batch(0, &[rec(0, "b", "v0")]);
    let block = peer
        .encoder
        .records(&records, &cut(&[0]), &cut(&[1]), peer.now.wall);
    let block = std::sync::Arc::new(block.expect("records"));
    peer.feed
        .on_catch_up_block(CatchUpId(1), &block, peer.now.mono);
    read(&mut peer);
    // The read ends, but the window has moved on before the subscriber's turn.
    peer.feed
        .on_catch_up_end(CatchUpId(1), peer.seq, &cut(&[2]));
    peer.record(0, "a", "v2");
    peer.record(0, "a", "v3");
    read(&mut peer);
    assert_eq!(catch_up_need(&mut peer).1, cut(&[2]));
    // The same within a catch-up read: a subscriber that leaves resumes behind the last block.
    let (question, from) = {
        peer.subscribe(1, StartFrom::Earliest, Some("a"));
        read(&mut peer);
        catch_up_need(&mut peer)
    };
    assert_eq!(from, Cut::start());
    peer.feed
        .on_catch_up_joined(CatchUpId(2), &[question], &Cut::start());
    peer.feed
        .on_catch_up_block(CatchUpId(2), &block, peer.now.mono);
    read(&mut peer);
    assert_eq!(peer.feed.next_credit().unwrap().members, 1);
    peer.feed
        .on_catch_up_block(CatchUpId(2), &block, peer.now.mono);
    peer.feed
        .on_catch_up_block(CatchUpId(2), &block, peer.now.mono);
    read(&mut peer);
    assert_eq!(catch_up_need(&mut peer).1, cut(&[1]));
}

#[test]
fn a_catch_up_read_continues_without_its_slowest_member() {
    let mut peer = peer(false, 0, &[0]);
    let records: Vec<Rec> = (0..4).map(|o| rec(o, "a", &format!("v{o}"))).collect();
    peer.records(0, &records, 4);
    peer.record(0, "a", "v4");
    peer.subscribe(1, StartFrom::Earliest, None);
    peer.subscribe(2, StartFrom::Earliest, None);
    read(&mut peer);
    let questions = [catch_up_need(&mut peer).0, catch_up_need(&mut peer).0];
    let catch_up = CatchUpId(1);
    peer.feed
        .on_catch_up_joined(catch_up, &questions, &Cut::start());
    let time = peer.now.wall;
    let block = |peer: &mut Peer, from: usize, to: usize| {
        let after = cut(&[to as u64]);
        let batch = batch(0, &records[from..to]);
        let block = peer
            .encoder
            .records(&batch, &cut(&[from as u64]), &after, time);
        std::sync::Arc::new(block.expect("records"))
    };
    let first = block(&mut peer, 0, 2);
    peer.feed.on_catch_up_block(catch_up, &first, peer.now.mono);
    let (mut fast, mut slow) = (Pipe::open(), Pipe::default());
    slow.left = 3;
    for _ in 0..2 {
        let next = peer.feed.next_pending().unwrap();
        let pipe = if next.slot == 1 { &mut fast } else { &mut slow };
        peer.feed.deliver(next, pipe, peer.now);
    }
    assert_eq!(
        said(&parse(&fast.bytes)),
        [("message", "v0"), ("message", "v1")]
    );
    assert_eq!(peer.feed.next_credit(), None);
    let deadline = peer.feed.next_deadline().unwrap();
    assert_eq!(deadline, peer.now.mono.after(Duration::from_millis(250)));
    peer.feed.on_timeout(deadline);
    let credit = peer.feed.next_credit().unwrap();
    assert_eq!((credit.catch_up, credit.members), (catch_up, 2));
    let second = block(&mut peer, 2, 4);
    peer.feed
        .on_catch_up_block(catch_up, &second, peer.now.mono);
    peer.pump(&mut fast);
    assert_eq!(peer.feed.next_credit().unwrap().members, 1);
    peer.feed.on_catch_up_end(catch_up, peer.seq, &cut(&[5]));
    // The slow member had received half a frame. It receives the other half, and joins another
    // catch-up read from there.
    assert_eq!(peer.next_need(), None);
    slow.left = usize::MAX;
    peer.feed.on_writable(exchange(2));
    peer.pump(&mut slow);
    assert_eq!(said(&parse(&slow.bytes)), [("message", "v0")]);
    let (question, from) = catch_up_need(&mut peer);
    assert_eq!((question.exchange.slot, from), (2, cut(&[1])));
    // The fast one is in the window now, past what the catch-up read brought.
    peer.record(0, "a", "v5");
    peer.pump(&mut fast);
    let seen = parse(&fast.bytes);
    let last = seen.blocks.last().unwrap();
    assert_eq!((&*last.data, cut_of(last)), ("v5", Some(cut(&[6]))));
}

#[test]
fn members_still_reading_when_a_catch_up_ends_resume_from_what_they_have() {
    let mut peer = peer(false, 0, &[0]);
    peer.records(0, &[rec(0, "a", "v0"), rec(1, "a", "v1")], 2);
    peer.record(0, "a", "v2");
    peer.subscribe(1, StartFrom::Earliest, None);
    read(&mut peer);
    let (question, _) = catch_up_need(&mut peer);
    peer.feed
        .on_catch_up_joined(CatchUpId(1), &[question], &Cut::start());
    let records = batch(0, &[rec(0, "a", "v0"), rec(1, "a", "v1")]);
    let block = peer
        .encoder
        .records(&records, &cut(&[0]), &cut(&[2]), peer.now.wall);
    let block = std::sync::Arc::new(block.expect("records"));
    peer.feed
        .on_catch_up_block(CatchUpId(1), &block, peer.now.mono);
    peer.feed
        .on_catch_up_end(CatchUpId(1), peer.seq, &cut(&[3]));
    read(&mut peer);
    assert_eq!(catch_up_need(&mut peer).1, Cut::start());
}

#[test]
fn a_gap_ahead_of_a_slow_member_takes_nothing_from_it() {
    let mut peer = peer(false, 0, &[0]);
    let records = [rec(0, "a", "v0"), rec(1, "a", "v1")];
    peer.records(0, &records, 2);
    peer.records(0, &[], 7);
    peer.subscribe(1, StartFrom::Earliest, None);
    read(&mut peer);
    let (question, _) = catch_up_need(&mut peer);
    let catch_up = CatchUpId(1);
    peer.feed
        .on_catch_up_joined(catch_up, &[question], &Cut::start());
    let block = peer
        .encoder
        .records(&batch(0, &records), &cut(&[0]), &cut(&[2]), peer.now.wall);
    let block = std::sync::Arc::new(block.expect("records"));
    peer.feed.on_catch_up_block(catch_up, &block, peer.now.mono);
    let mut pipe = Pipe {
        left: 3,
        ..Pipe::default()
    };
    peer.pump(&mut pipe);
    // The catch-up read continues without the subscriber, and finds that the log begins at 5 now.
    peer.feed.on_timeout(peer.feed.next_deadline().unwrap());
    assert_eq!(peer.feed.next_credit().unwrap().members, 1);
    let notice = Notice {
        partition: Partition(0),
        from: Offset(2),
        to: Offset(5),
        reason: GapReason::Retention,
    };
    peer.feed.on_catch_up_gap(catch_up, notice);
    pipe.left = usize::MAX;
    peer.feed.on_writable(exchange(1));
    peer.pump(&mut pipe);
    assert_eq!(said(&parse(&pipe.bytes)), [("message", "v0")]);
    assert_eq!(catch_up_need(&mut peer).1, cut(&[1]));
}

#[test]
fn answers_to_a_subscriber_that_left_change_nothing() {
    let mut peer = peer(true, 0, &[4]);
    peer.subscribe(1, StartFrom::Snapshot, None);
    let (old, _, _) = page_need(&mut peer);
    peer.subscribe(1, StartFrom::Snapshot, None);
    let (new, _, _) = page_need(&mut peer);
    assert_ne!(old, new);
    let etag = Etag::from_position(TAG, Partition(0), Offset(0));
    let one = [entry("a", Some("1"), 0, &etag)];
    peer.feed.on_page(old, one.into_iter(), None, peer.now.mono);
    assert_eq!(read(&mut peer).events().count(), 0);
    peer.feed.unsubscribe(exchange(1));
    peer.feed.on_page(new, one.into_iter(), None, peer.now.mono);
    assert_eq!((peer.feed.next_pending(), peer.feed.len()), (None, 0));
    assert_eq!(peer.next_need(), None);
}

#[test]
fn a_gap_in_the_log_reaches_every_filter() {
    let mut peer = peer(false, WIDE, &[3]);
    peer.subscribe(1, StartFrom::Live, Some("x"));
    read(&mut peer);
    let (partition, from, to) = (Partition(0), Offset(3), Offset(4));
    let (reason, time) = (GapReason::Undecodable, peer.now.wall);
    let after = cut(&[4]);
    let range = OffsetRange {
        partition,
        from,
        to,
    };
    let block = peer.encoder.gap(range, reason, &cut(&[3]), &after, time);
    let change = Change::Gap {
        partition,
        from,
        to,
        reason,
    };
    peer.step(change, Some(block), after.clone());
    let stream = read(&mut peer);
    assert_eq!(stream.events().count(), 1);
    assert_eq!(cut_of(&stream.blocks[0]), Some(after));
}

#[test]
fn records_without_a_block_close_every_subscriber() {
    let mut peer = peer(false, WIDE, &[3]);
    peer.subscribe(1, StartFrom::Live, None);
    read(&mut peer);
    let records = batch(0, &[rec(3, "a", "1")]);
    peer.step(Change::Records(records), None, cut(&[4]));
    assert_eq!(peer.pump(&mut Pipe::open()), [(1, Delivery::Lagged)]);
    let id = id_of(&cut(&[3]), 0);
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    assert_eq!(catch_up_need(&mut peer).1, cut(&[3]));
}

#[test]
fn heartbeats_carry_an_id_where_it_matters() {
    let mut peer = peer(false, WIDE, &[3]);
    peer.subscribe(0, StartFrom::Live, None);
    peer.subscribe(1, StartFrom::Live, Some("x"));
    let id = id_of(&cut(&[3, 9]), 0);
    peer.resume(2, StartFrom::Live, Some("y"), Some(&id), Slow::Disconnect);
    read(&mut peer);
    peer.record(0, "a", "1");
    read(&mut peer);
    let (mut heartbeats, mut deadlines) = ([0; 3], 0);
    while let Some(deadline) = peer.feed.next_deadline()
        && deadline < at(150).mono
    {
        deadlines += 1;
        peer.now.mono = deadline;
        peer.feed.on_timeout(deadline);
        while let Some(next) = peer.feed.next_pending() {
            let token = next.slot;
            heartbeats[token as usize] += 1;
            let mut pipe = Pipe::open();
            let delivery = peer.feed.deliver(next, &mut pipe, peer.now);
            // A subscriber that is ahead is checked again: is what it holds still in the log?
            let ahead = token == 2;
            let wanted = if ahead {
                Delivery::More
            } else {
                Delivery::Idle
            };
            assert_eq!(delivery, wanted);
            if ahead {
                peer.pump(&mut Pipe::open());
            }
            let stream = parse(&pipe.bytes);
            assert_eq!(stream.events().count(), 0);
            match token {
                0 => assert_eq!(pipe.bytes, b":\n\n"),
                1 => assert_eq!(cut_of(&stream.blocks[0]), Some(cut(&[4]))),
                _ => assert_eq!(cut_of(&stream.blocks[0]), Some(cut(&[4, 9]))),
            }
        }
    }
    assert_eq!(heartbeats, [10, 10, 10]); // Every 15 s.
    assert!(deadlines <= 40, "no wakes for nobody: {deadlines}");
}

#[test]
fn a_subscriber_that_waits_for_history_gets_heartbeats() {
    let mut peer = peer(true, 0, &[3]);
    peer.subscribe(0, StartFrom::Snapshot, None);
    read(&mut peer);
    let due = peer.feed.next_deadline().unwrap();
    assert!(due <= at(15).mono);
    peer.feed.on_timeout(due);
    let mut pipe = Pipe::open();
    assert_eq!(peer.pump(&mut pipe), [(0, Delivery::Idle)]);
    assert_eq!(pipe.bytes, b":\n\n");
    let (question, _, _) = page_need(&mut peer);
    peer.feed
        .on_page(question, std::iter::empty(), None, peer.now.mono);
    assert_eq!(cut_of(&read(&mut peer).blocks[0]), Some(cut(&[3])));
}

#[test]
fn epochs_travel_in_ids() {
    let mut peer = peer(false, WIDE, &[3]);
    peer.subscribe(1, StartFrom::Live, None);
    read(&mut peer);
    peer.record(0, "a", "1");
    let stream = read(&mut peer);
    let mut expected = Cut::start();
    set(&mut expected, 0, 4);
    assert_eq!(expected.get(Partition(0)).epoch, EPOCH);
    assert_eq!(cut_of(&stream.blocks[0]), Some(expected));
}

/// What waits elsewhere for a stream is freed as soon as the stream ends.
#[test]
fn a_subscriber_that_leaves_while_it_waits_cancels_its_question() {
    let cancelled = |peer: &mut Peer| {
        peer.feed.unsubscribe(exchange(1));
        match peer.any_need() {
            Some(Need::Cancel { exchange, at }) => Some((exchange.slot, at)),
            _ => None,
        }
    };
    // A catch-up read.
    let mut log = peer(false, 0, &[5]);
    log.record(0, "a", "1");
    log.record(0, "a", "2");
    let id = id_of(&cut(&[5]), 0);
    log.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    read(&mut log);
    catch_up_need(&mut log);
    assert_eq!(cancelled(&mut log), Some((1, WaitsAt::Home)));
    // An epoch check.
    log.vouches = false;
    let id = id_of(&cut(&[50]), 0);
    log.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    read(&mut log);
    assert_eq!(cancelled(&mut log), Some((1, WaitsAt::Home)));
    // A page of one key, at its owner.
    let mut table = peer(true, WIDE, &[5]);
    table.subscribe(1, StartFrom::Snapshot, Some("k"));
    read(&mut table);
    page_need(&mut table);
    let (after, key) = (None, Some(super::model::hash("k")));
    let slice = WaitsAt::Slice { after, key };
    assert_eq!(cancelled(&mut table), Some((1, slice)));
    // A subscriber that reads the window has nothing left to cancel.
    log.vouches = true;
    log.subscribe(1, StartFrom::Live, None);
    read(&mut log);
    assert_eq!(cancelled(&mut log), None);
}
