//! When a leader counts as away: what nobody would answer is refused while it is still certain that
//! nothing was appended, and not sent behind what is stuck already.

use super::batch::Queue;
use super::context::Context;
use super::event::TopicHandle;
use super::link::{Peer, Purpose};
use super::view::BrokerId;
use crate::model::{Instant, Partition};

/// Whether a broker owes us an answer for longer than a healthy one takes.
pub(super) fn is_stalled(node: BrokerId, cx: &Context<'_>) -> bool {
    let silent = cx
        .links
        .silent_since(Peer::Node(node), Purpose::Produce, cx.now);
    silent.is_some_and(|since| cx.now.mono.since(since) >= cx.settings.stall)
}

/// Whether a record that comes now is refused at once: its leader is known to be away, or the batch
/// before it is stuck, for longer than any record may wait.
pub(super) fn is_away(key: (TopicHandle, Partition), queue: &Queue, cx: &Context<'_>) -> bool {
    let Some((node, _)) = cx.topics.leader(key.0, key.1) else {
        return false; // A leader is elected in moments; the record waits so long.
    };
    let silent = cx
        .links
        .silent_since(Peer::Node(node), Purpose::Produce, cx.now);
    let stuck = queue.sent.as_ref().map(|sent| sent.since);
    let longest = silent.into_iter().chain(stuck).min();
    longest.is_some_and(|since| cx.now.mono.since(since) >= cx.settings.unsent_max)
}

/// Records that were taken up to this moment, and not sent, have waited long enough; `None`: what
/// keeps them is no stall. A batch that was certainly not appended waits with them. A broker that
/// throttles us answers, so what waits for that keeps its own deadline.
pub(super) fn late(
    key: (TopicHandle, Partition),
    queue: &mut Queue,
    no_producer: bool,
    cx: &mut Context<'_>,
) -> Option<Instant> {
    let (now, unsent_max) = (cx.now.mono, cx.settings.unsent_max);
    let stuck = |since: Instant| now.since(since) >= cx.settings.stall;
    let sent = queue.sent.as_ref();
    let tried = sent.map(|sent| sent.since);
    let tried = tried.or_else(|| queue.waiting.front().and_then(|first| first.tried));
    let behind = tried.is_some_and(stuck);
    let certain = sent.is_some_and(|sent| !sent.doubtful && sent.flight.is_none());
    let leader = cx.topics.leader(key.0, key.1);
    let held_up = match leader {
        None => true,
        Some((node, _)) => behind || no_producer || is_stalled(node, cx),
    };
    if behind && certain && held_up {
        queue.take_back(false);
    }
    let first = queue.waiting.front()?;
    let due = first.since.after(unsent_max);
    if due > now {
        cx.wake.at(due);
        return None;
    }
    if !held_up {
        // It may be held up later; whoever moves it does not ask here.
        cx.wake.at(now.after(cx.settings.stall));
        return None;
    }
    let unsent_max = u64::try_from(unsent_max.as_nanos()).unwrap_or(u64::MAX);
    Some(Instant::from_nanos(
        now.as_nanos().saturating_sub(unsent_max),
    ))
}
