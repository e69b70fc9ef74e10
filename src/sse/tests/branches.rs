//! Ids of a branch of the log that an unclean election has cut off.

use super::model::{EPOCH, Peer, Pipe, TAG, at, cut, set, settings};
use super::parser::{Stream, parse};
use crate::log::{Change, Cut, EventId, Next, Progress};
use crate::model::{Etag, LeaderEpoch, Offset, Partition, ShardId};
use crate::sse::{Delivery, Need, PageCursor, PageEntry, Slow, StartFrom, StreamQuestion};

const OLD: LeaderEpoch = LeaderEpoch(Some(1));

fn peer(compacted: bool, at: &[u64]) -> Peer {
    let mut peer = Peer::new(settings(compacted), 1 << 20, cut(at));
    peer.vouches = false;
    peer
}

fn held(entries: &[(u64, LeaderEpoch)]) -> Cut {
    let mut cut = Cut::start();
    for (p, &(offset, epoch)) in entries.iter().enumerate() {
        let offset = Offset(offset);
        cut.set(Partition(p as u32), Next { offset, epoch });
    }
    cut
}

fn resume(peer: &mut Peer, cut: &Cut) {
    let (tag, time, cut) = (TAG, at(0).wall, cut.clone());
    let id = Progress { tag, time, cut }.encode() + ".";
    peer.resume(1, StartFrom::Live, None, Some(&id), Slow::Disconnect);
}

fn asked(peer: &mut Peer) -> Option<(StreamQuestion, Vec<(Partition, Next)>)> {
    match peer.next_need() {
        Some(Need::EpochCheck {
            question,
            positions,
        }) => Some((question, positions)),
        _ => None,
    }
}

fn read(peer: &mut Peer) -> Stream {
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    parse(&pipe.take_all())
}

fn ids(stream: &Stream) -> Vec<Option<Cut>> {
    let cut = |id: &str| {
        let id = EventId::parse(id.as_bytes()).expect("an id of ours");
        id.progress.map(|progress| progress.cut)
    };
    stream.events().map(|event| cut(&event.id)).collect()
}

#[test]
fn what_our_own_cut_has_passed_needs_no_question() {
    let mut peer = peer(false, &[5]);
    peer.record(0, "a", "1");
    let newer = held(&[(9, LeaderEpoch(Some(4)))]);
    peer.step(Change::Nothing, None, newer);
    for id in [(6, EPOCH), (3, EPOCH), (9, LeaderEpoch(Some(4)))] {
        resume(&mut peer, &held(&[id]));
        assert_eq!(asked(&mut peer).map(|(_, places)| places), None, "{id:?}");
    }
    // Beyond our cut, past our cut in its epoch, or of an epoch we never saw.
    for id in [(12, EPOCH), (7, EPOCH), (4, OLD)] {
        let id = held(&[id]);
        resume(&mut peer, &id);
        let places = asked(&mut peer).map(|(_, places)| places);
        assert_eq!(places, Some(id.iter().collect()));
    }
}

/// A client that disconnects between two gaps must be sent the second gap when it resumes.
#[test]
fn each_gap_goes_back_in_its_own_partition_only() {
    let mut peer = peer(false, &[5, 5]);
    resume(&mut peer, &held(&[(5, OLD), (5, OLD)]));
    assert!(read(&mut peer).events().next().is_none(), "it waits");
    let (question, _) = asked(&mut peer).expect("a question");
    let ends = held(&[(3, OLD), (2, OLD)]);
    let ends: Vec<_> = ends.iter().collect();
    peer.feed.on_epochs_checked(question, Some(&ends), peer.now);
    let stream = read(&mut peer);
    let said: Vec<_> = stream.events().map(|it| it.data.clone()).collect();
    let gap = |p, from| format!(r#"{{"partition":{p},"from":{from},"to":5,"reason":"truncated"}}"#);
    assert_eq!(said, [gap(0, 3), gap(1, 2)]);
    let first = held(&[(3, OLD), (5, OLD)]);
    let second = held(&[(3, OLD), (2, OLD)]);
    assert_eq!(ids(&stream), [Some(first), Some(second)]);
}

#[test]
fn a_compacted_topic_starts_over_with_the_last_gap() {
    let mut peer = peer(true, &[5, 5]);
    let id = held(&[(5, OLD), (5, OLD)]);
    resume(&mut peer, &id);
    let (question, _) = asked(&mut peer).expect("a question");
    let ends = held(&[(3, OLD), (2, OLD)]);
    let ends: Vec<_> = ends.iter().collect();
    peer.feed.on_epochs_checked(question, Some(&ends), peer.now);
    assert_eq!(ids(&read(&mut peer)), [Some(id), None]);
    let need = peer.next_need();
    assert!(matches!(need, Some(Need::Page { since, .. }) if since == Cut::start()));
}

#[test]
fn a_client_whose_id_cannot_be_checked_is_closed() {
    let mut peer = peer(false, &[5]);
    resume(&mut peer, &held(&[(5, OLD)]));
    let (question, _) = asked(&mut peer).expect("a question");
    peer.feed.on_epochs_checked(question, None, peer.now);
    assert_eq!(peer.pump(&mut Pipe::open()), [(1, Delivery::Failed)]);
    // And at once where we are the ones on a lost branch.
    resume(&mut peer, &held(&[(4, LeaderEpoch(Some(9)))]));
    assert_eq!(peer.pump(&mut Pipe::open()), [(1, Delivery::Failed)]);
}

/// The client's id is valid at first. The log is cut back below it before this instance has read so
/// far.
#[test]
fn a_client_that_is_ahead_is_checked_again_when_an_epoch_changes() {
    let mut peer = peer(false, &[5]);
    let mut ahead = Cut::start();
    set(&mut ahead, 0, 9);
    resume(&mut peer, &ahead);
    let (question, _) = asked(&mut peer).expect("a question");
    peer.feed.on_epochs_checked(question, Some(&[]), peer.now);
    read(&mut peer);
    peer.step(Change::Nothing, None, held(&[(12, LeaderEpoch(Some(4)))]));
    read(&mut peer);
    let (_, places) = asked(&mut peer).expect("another question");
    assert_eq!(places, ahead.iter().collect::<Vec<_>>());
}

/// A client of a compacted topic that is behind in partition 0 and ahead in partition 1, after the
/// first of two pages. Then an election puts what it holds of partition 1 in doubt.
fn interrupted() -> (Peer, Pipe, Cut) {
    let mut peer = peer(true, &[5, 5]);
    let id = held(&[(2, EPOCH), (9, EPOCH)]);
    resume(&mut peer, &id);
    let (question, _) = asked(&mut peer).expect("it is ahead");
    peer.feed.on_epochs_checked(question, Some(&[]), peer.now);
    let mut pipe = Pipe::open();
    peer.pump(&mut pipe);
    let (question, after) = page_wanted(&mut peer, &id);
    assert_eq!(after, None);
    page(&mut peer, question, 2, Some(SECOND_PAGE));
    peer.pump(&mut pipe);
    let new = held(&[(5, EPOCH), (7, LeaderEpoch(Some(4)))]);
    peer.step(Change::Nothing, None, new);
    peer.pump(&mut pipe);
    (peer, pipe, id)
}

const SECOND_PAGE: PageCursor = PageCursor {
    shard: ShardId(0),
    partition: Partition(0),
    offset: Offset(3),
};

/// The page that is wanted next: its question, and where it starts.
fn page_wanted(peer: &mut Peer, since: &Cut) -> (StreamQuestion, Option<PageCursor>) {
    match peer.next_need() {
        Some(Need::Page {
            question,
            since: from,
            below,
            after,
            ..
        }) => {
            assert_eq!((&from, below.get(Partition(0)).offset), (since, Offset(5)));
            (question, after)
        }
        other => panic!("no page: {other:?}"),
    }
}

/// Answers with a page of one record of partition 0.
fn page(peer: &mut Peer, question: StreamQuestion, offset: u64, next: Option<PageCursor>) {
    let (partition, offset) = (Partition(0), Offset(offset));
    let etag = Etag::from_position(TAG, partition, offset);
    let value = offset.0.to_string();
    let entry = PageEntry {
        key: b"a",
        value: Some(value.as_bytes()),
        etag: &etag,
        partition,
        offset,
    };
    peer.feed
        .on_page(question, [entry].into_iter(), next, peer.now.mono);
}

#[test]
fn pages_continue_after_an_election_if_the_log_has_what_the_client_holds() {
    let (mut peer, mut pipe, id) = interrupted();
    let (question, places) = asked(&mut peer).expect("a doubt");
    assert_eq!(places, [(Partition(1), id.get(Partition(1)))]);
    peer.feed.on_epochs_checked(question, Some(&[]), peer.now);
    peer.pump(&mut pipe);
    let (question, after) = page_wanted(&mut peer, &id);
    assert_eq!(after, Some(SECOND_PAGE), "not the first again");
    page(&mut peer, question, 3, None);
    peer.pump(&mut pipe);
    let stream = parse(&pipe.take_all());
    let events: Vec<_> = stream.events().map(|it| it.data.clone()).collect();
    assert_eq!(events, ["2", "3"], "each once");
}

#[test]
fn pages_begin_again_after_an_election_that_has_cut_off_what_the_client_holds() {
    let (mut peer, mut pipe, _) = interrupted();
    let (question, _) = asked(&mut peer).expect("a doubt");
    let end = held(&[(0, LeaderEpoch(None)), (7, EPOCH)]).get(Partition(1));
    let ends = [(Partition(1), end)];
    peer.feed.on_epochs_checked(question, Some(&ends), peer.now);
    peer.pump(&mut pipe);
    let (_, after) = page_wanted(&mut peer, &Cut::start());
    assert_eq!(after, None);
    let stream = parse(&pipe.take_all());
    let events: Vec<_> = stream.events().map(|it| it.event.clone()).collect();
    assert_eq!(events, ["message", "gap"]);
}
