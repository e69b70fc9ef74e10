//! When a leader counts as unavailable. A record that the leader would not answer is refused while
//! it certainly has not been appended, and no record is sent behind an overdue response. How long a
//! response may take depends on the broker's recent speed (`pace.rs`).

use std::time::Duration;

use super::batch::Queue;
use super::context::Context;
use super::event::TopicHandle;
use super::link::{LinkKey, Peer, Purpose};
use super::silence::Silent;
use super::view::BrokerId;
use crate::model::{Instant, Partition};

/// Whether a response of the broker is overdue for longer than a healthy broker takes.
pub(super) fn is_stalled(node: BrokerId, cx: &Context<'_>) -> bool {
    is_silent(node, Silent::Stalled, cx)
}

fn is_silent(node: BrokerId, silent: Silent, cx: &Context<'_>) -> bool {
    cx.silence().is(produce(node), silent)
}

fn limit(node: BrokerId, silent: Silent, cx: &Context<'_>) -> Duration {
    cx.silence().limit(produce(node), silent)
}

/// The connection on which records go to a broker.
const fn produce(node: BrokerId) -> LinkKey {
    LinkKey {
        peer: Peer::Node(node),
        purpose: Purpose::Produce,
    }
}

/// Whether the batch in flight makes no progress: a response of its broker is overdue, or its tries
/// have failed for as long. A batch that waits behind others that are being answered does progress.
fn is_stuck(queue: &Queue, leader: BrokerId, silent: Silent, cx: &Context<'_>) -> bool {
    let waiting = queue.waiting.front().and_then(|first| first.tried);
    let since = match &queue.sent {
        None => waiting,
        Some(sent) => match sent.flight {
            None => Some(sent.since),
            Some(link) => {
                let from = cx.silence().link_from(link, silent);
                return from.is_some_and(|from| from <= cx.now.mono);
            }
        },
    };
    let limit = limit(leader, silent, cx);
    since.is_some_and(|since| cx.now.mono.since(since) >= limit)
}

/// Whether a new record is refused at once: its leader is known to be unavailable, or the batch
/// before it has been stuck for longer than any record may wait.
pub(super) fn is_away(key: (TopicHandle, Partition), queue: &Queue, cx: &Context<'_>) -> bool {
    let Some((node, _)) = cx.topics.leader(key.0, key.1) else {
        return false; // A leader is elected within moments, and the record waits for it.
    };
    let stuck = queue.sent.is_some() && is_stuck(queue, node, Silent::Unavailable, cx);
    stuck || is_silent(node, Silent::Unavailable, cx)
}

/// Unsent records that were taken up to the returned moment have waited long enough. `None`: no
/// stall delays them. A batch that was certainly not appended waits with them. A broker that
/// throttles the client does respond, so records that wait for that keep their own deadline.
pub(super) fn late(
    key: (TopicHandle, Partition),
    queue: &mut Queue,
    no_producer: bool,
    cx: &mut Context<'_>,
) -> Option<Instant> {
    let now = cx.now.mono;
    let sent = queue.sent.as_ref();
    let certain = sent.is_some_and(|sent| !sent.doubtful && sent.flight.is_none());
    let leader = cx.topics.leader(key.0, key.1);
    let (behind, held_up, unsent_max) = match leader {
        None => {
            let since = sent.map(|sent| sent.since);
            let behind = since.is_some_and(|since| now.since(since) >= cx.settings.stall);
            (behind, true, cx.settings.unsent_max)
        }
        Some((node, _)) => {
            let behind = is_stuck(queue, node, Silent::Stalled, cx);
            let held_up = behind || no_producer || is_stalled(node, cx);
            // A failing connection gets only the limit of a fast leader.
            let failing = is_silent(node, Silent::Unavailable, cx);
            let limit = if failing || no_producer {
                cx.settings.unsent_max
            } else {
                limit(node, Silent::Unavailable, cx)
            };
            (behind, held_up, limit)
        }
    };
    if behind && certain && held_up {
        queue.take_back(false);
    }
    let first = queue.waiting.front()?;
    let due = first.since.after(unsent_max);
    if due > now {
        // The leader may begin to fail before `due`, which shortens the wait.
        cx.wake.at(due.min(
            first
                .since
                .after(cx.settings.unsent_max)
                .max(now.after(RECHECK)),
        ));
        return None;
    }
    if !held_up {
        // The response may be delayed later, without another event.
        cx.wake.at(now.after(cx.settings.stall));
        return None;
    }
    let unsent_max = u64::try_from(unsent_max.as_nanos()).unwrap_or(u64::MAX);
    Some(Instant::from_nanos(
        now.as_nanos().saturating_sub(unsent_max),
    ))
}

/// How often a record is checked again that waits longer than a fast leader's would.
const RECHECK: Duration = Duration::from_millis(50);
