//! What one call may do and hold, whatever the number of subscribers.

use super::model::{PAGE_BYTES, Peer, Pipe, TAG, at, batch, cut, exchange, rec, set, settings};
use super::parser::parse;
use crate::log::{Change, Cut, Next, Progress};
use crate::model::{Etag, Instant, LeaderEpoch, Offset, Partition, ShardId};
use crate::sse::{
    CatchUpId, Delivery, Need, PAGE_PATIENCE, PageCursor, PageEntry, Slow, StartFrom,
    StreamQuestion, WaitsAt,
};
use std::time::Duration;

const NEW: LeaderEpoch = LeaderEpoch(Some(4));

/// A peer at offset 5 with subscribers whose clients hold all below offset 9.
fn peer_with_clients_ahead(compacted: bool, window: usize, clients: u32) -> Peer {
    let mut peer = Peer::new(settings(compacted), window, cut(&[5]));
    let (tag, time, cut) = (TAG, at(0).wall, cut(&[9]));
    let id = Progress { tag, time, cut }.encode() + ".";
    for slot in 0..clients {
        peer.resume(slot, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    }
    peer.pump(&mut Pipe::open());
    peer
}

/// The cut at an offset of the new epoch.
fn cut_in_new_epoch(offset: u64) -> Cut {
    let mut cut = Cut::start();
    let (offset, epoch) = (Offset(offset), NEW);
    cut.set(Partition(0), Next { offset, epoch });
    cut
}

fn pending(peer: &mut Peer) -> usize {
    std::iter::from_fn(|| peer.feed.next_pending()).count()
}

fn checks(peer: &mut Peer) -> usize {
    let needs = std::iter::from_fn(|| peer.any_need());
    needs
        .filter(|need| matches!(need, Need::EpochCheck { .. }))
        .count()
}

#[test]
fn a_change_of_epoch_visits_a_bounded_number_of_subscribers_at_a_time() {
    let mut peer = peer_with_clients_ahead(false, 1 << 20, 3000);
    peer.step(Change::Nothing, None, cut_in_new_epoch(6));
    let mut visited = vec![pending(&mut peer)];
    while peer.feed.next_deadline() == Some(Instant::ZERO) {
        peer.feed.on_timeout(peer.now.mono);
        visited.push(pending(&mut peer));
    }
    assert_eq!(visited, [1024, 1024, 952]);
}

/// The walk has reached a third of them when the new epoch's first record is sent.
#[test]
fn a_subscriber_is_checked_before_it_is_sent_a_record_of_the_new_epoch() {
    let mut peer = peer_with_clients_ahead(false, 1 << 20, 3000);
    peer.vouches = false;
    peer.step(Change::Nothing, None, cut_in_new_epoch(6));
    let after = cut_in_new_epoch(10);
    let records = batch(0, &[rec(9, "a", "1")]);
    let block = peer
        .encoder
        .records(&records, &peer.cut, &after, peer.now.wall);
    peer.step(Change::Records(records), block, after);
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    assert_eq!(parse(&pipe.bytes).events().count(), 0);
    assert_eq!(checks(&mut peer), 3000);
}

/// A catch-up read that ends raises what its members hold. That must not hide what was cut off.
#[test]
fn a_member_is_checked_before_its_catch_up_read_ends() {
    // Two partitions: the clients are ahead in the first and lack records of the second.
    let mut peer = Peer::new(settings(false), 0, cut(&[5, 5]));
    peer.record(1, "a", "1");
    peer.record(1, "a", "2");
    let (tag, time, held) = (TAG, at(0).wall, cut(&[9, 5]));
    let id = Progress {
        tag,
        time,
        cut: held,
    }
    .encode()
        + ".";
    let members: Vec<StreamQuestion> = (0..1500)
        .map(|slot| {
            peer.resume(slot, StartFrom::Live, None, Some(&id), Slow::Disconnect);
            peer.pump(&mut Pipe::open());
            match peer.next_need() {
                Some(Need::CatchUp { question, .. }) => question,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    peer.feed
        .on_catch_up_joined(CatchUpId(1), &members, &Cut::start());
    peer.vouches = false;
    let mut after = cut_in_new_epoch(20);
    set(&mut after, 1, 7);
    peer.step(Change::Nothing, None, after.clone());
    peer.feed.on_catch_up_end(CatchUpId(1), peer.seq, &after);
    peer.pump(&mut Pipe::open());
    assert_eq!(checks(&mut peer), 1500);
}

#[test]
fn a_subscriber_in_doubt_cancels_the_question_that_it_waits_for() {
    // Waiting for a catch-up read.
    let mut log = Peer::new(settings(false), 0, cut(&[5, 5]));
    log.record(1, "a", "1");
    log.record(1, "a", "2");
    let (tag, time, held) = (TAG, at(0).wall, cut(&[9, 5]));
    let id = Progress {
        tag,
        time,
        cut: held,
    }
    .encode()
        + ".";
    log.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    log.pump(&mut Pipe::open());
    assert!(matches!(log.any_need(), Some(Need::CatchUp { .. })));
    let mut after = cut_in_new_epoch(6);
    set(&mut after, 1, 7);
    log.step(Change::Nothing, None, after.clone());
    let cancel = |at| {
        Some(Need::Cancel {
            exchange: exchange(1),
            at,
        })
    };
    assert_eq!(log.any_need(), cancel(WaitsAt::Home));
    // Waiting for a page.
    let mut table = Peer::new(settings(true), 0, cut(&[5, 5]));
    table.record(1, "a", "1");
    table.record(1, "a", "2");
    table.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
    table.pump(&mut Pipe::open());
    assert!(matches!(table.any_need(), Some(Need::Page { .. })));
    assert_eq!(table.feed.page_bytes(), PAGE_BYTES);
    table.step(Change::Nothing, None, after);
    let (after, key) = (None, None);
    assert_eq!(table.any_need(), cancel(WaitsAt::Slice { after, key }));
    assert_eq!(table.feed.page_bytes(), 0, "its memory is free again");
}

#[test]
fn a_credit_alone_makes_another_turn_due() {
    let mut peer = Peer::new(settings(false), 0, cut(&[5]));
    assert!(!peer.feed.has_work());
    let records = batch(0, &[rec(0, "a", "1")]);
    let block = peer
        .encoder
        .records(&records, &cut(&[0]), &cut(&[1]), peer.now.wall);
    let block = std::sync::Arc::new(block.expect("records"));
    // The members have left before the block came.
    peer.feed
        .on_catch_up_block(CatchUpId(1), &block, peer.now.mono);
    assert!(peer.feed.has_work(), "the home waits for the credit");
    assert_eq!(peer.feed.next_credit().map(|it| it.members), Some(0));
    assert!(!peer.feed.has_work());
}

/// Three subscribers on a compacted topic wait for pages, and there is memory for one at a time.
#[test]
fn pages_wait_in_order_and_count_until_their_socket_has_taken_them() {
    let mut peer = Peer::new(settings(true), 0, cut(&[5]));
    for slot in 0..3 {
        peer.subscribe(slot, StartFrom::Snapshot, None);
    }
    peer.pump(&mut Pipe::open());
    assert_eq!((peer.feed.pages_waiting(), peer.feed.page_bytes()), (3, 0));
    assert!(peer.feed.next_need().is_none(), "pages need memory first");
    let Some(Need::Page { question, .. }) = peer.feed.next_page(PAGE_BYTES) else {
        panic!("the first asks");
    };
    assert_eq!(question.exchange, exchange(0));
    assert_eq!(peer.feed.page_bytes(), PAGE_BYTES);
    // A large page arrives, and its socket takes a part.
    let (etag, value) = (
        Etag::from_position(TAG, Partition(0), Offset(0)),
        [b'x'; 3000],
    );
    let entry = PageEntry {
        key: b"a",
        value: Some(&value),
        etag: &etag,
        partition: Partition(0),
        offset: Offset(0),
    };
    let next = PageCursor {
        shard: ShardId(0),
        partition: Partition(0),
        offset: Offset(1),
    };
    peer.feed
        .on_page(question, [entry].into_iter(), Some(next), peer.now.mono);
    let held = peer.feed.page_bytes();
    assert!((3000..3200).contains(&held), "what it really takes: {held}");
    let mut pipe = Pipe {
        left: 1000,
        ..Pipe::default()
    };
    peer.pump(&mut pipe);
    assert_eq!(peer.feed.page_bytes(), held);
    // The second leaves before it has asked: nothing waits elsewhere for it.
    peer.feed.unsubscribe(exchange(1));
    assert_eq!(peer.feed.next_need(), None);
    pipe.left = usize::MAX;
    peer.feed.on_writable(exchange(0));
    peer.pump(&mut pipe);
    assert_eq!((peer.feed.pages_waiting(), peer.feed.page_bytes()), (2, 0));
    // The first waits behind the others with its next page.
    let order: Vec<_> = std::iter::from_fn(|| peer.feed.next_page(PAGE_BYTES))
        .map(|need| match need {
            Need::Page { question, .. } => question.exchange.slot,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [2, 0]);
    assert_eq!(peer.feed.page_bytes(), 2 * PAGE_BYTES);
    for slot in [0, 2] {
        peer.feed.unsubscribe(exchange(slot));
    }
    assert_eq!((peer.feed.page_bytes(), peer.feed.len()), (0, 0));
}

/// Two sockets have a page. One takes a part of it and then nothing more.
#[test]
fn a_page_that_its_socket_does_not_take_ends_its_stream() {
    let mut peer = Peer::new(settings(true), 0, cut(&[5]));
    for slot in [0, 1] {
        peer.subscribe(slot, StartFrom::Snapshot, None);
    }
    peer.pump(&mut Pipe::open());
    let (etag, value) = (
        Etag::from_position(TAG, Partition(0), Offset(0)),
        [b'x'; 3000],
    );
    let entry = PageEntry {
        key: b"a",
        value: Some(&value),
        etag: &etag,
        partition: Partition(0),
        offset: Offset(0),
    };
    while let Some(Need::Page { question, .. }) = peer.feed.next_page(PAGE_BYTES) {
        peer.feed
            .on_page(question, [entry].into_iter(), None, peer.now.mono);
    }
    let mut pipe = Pipe {
        left: 4000,
        ..Pipe::default()
    };
    peer.pump(&mut pipe);
    assert!((3000..3200).contains(&peer.feed.page_bytes()), "of one");
    let before = peer.now.mono.after(PAGE_PATIENCE - Duration::from_nanos(1));
    peer.feed.end_overdue_pages(before);
    assert!(!peer.feed.has_pending());
    let due = peer.now.mono.after(PAGE_PATIENCE);
    peer.feed.end_overdue_pages(due);
    assert_eq!(peer.feed.page_bytes(), 0, "free at once");
    pipe.left = usize::MAX;
    pipe.take_all();
    assert_eq!(peer.pump(&mut pipe), [(1, Delivery::Stalled)]);
    let after = (pipe.take_all().len(), peer.feed.len());
    assert_eq!(after, (0, 1), "no byte more, and the other stays");
}
