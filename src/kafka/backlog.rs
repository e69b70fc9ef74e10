//! Fetch responses that wait, still packed, until the shard has time for their records. Each call
//! of [`Backlog::advance`] is one bounded step.
//!
//! Memory is bounded three ways. A broker is not asked again in a lane while records of its last
//! response can be unpacked. If all of these belong to paused reads, the next response with records
//! replaces the old one, and the paused reads fetch their records again. The batches of a lane that
//! are no longer packed share the bytes that one batch may have.

use std::collections::VecDeque;

use super::bounds::Bounds;
use super::event::{Lane, LinkId, ReadKey, TopicHandle};
use super::link::Peer;
use super::records::{Advance, Fetched, Piece, PieceLimits, Unpacker, Walk, WalkProgress};
use crate::log::Next;

/// Fetch responses that wait to be unpacked in bounded steps.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// At most one of a lane and broker.
    responses: VecDeque<PackedResponse>,
    unpacker: Unpacker,
}

/// What waits of one response.
#[derive(Debug)]
pub(super) struct PackedResponse {
    link: LinkId,
    from: (Lane, Option<Peer>),
    /// Unpacked bytes that are allowed. Partitions that are not begun when it is used up are
    /// fetched again.
    budget: u64,
    parts: VecDeque<Part>,
}

/// The packed records of one read, and the bounds that came with them.
#[derive(Debug)]
struct Part {
    read: ReadKey,
    bounds: Bounds,
    walk: Walk,
}

/// What a step led to.
#[derive(Debug)]
pub(super) enum Unpacked {
    /// The step did work, and more work is left.
    Working,
    /// A piece of a partition, and the place after it.
    Piece(ReadKey, Bounds, Piece, Next),
    /// A partition's records are all unpacked. They were of this lane and broker.
    Done((Lane, Option<Peer>), ReadKey, WalkProgress),
    /// Records were dropped. The reader has to fetch them again.
    Dropped(Dropped),
}

/// Reads that lost their records, and the link that brought these records.
#[derive(Debug)]
#[must_use = "these reads wait until they are fetched again"]
pub(super) struct Dropped {
    pub(super) link: LinkId,
    pub(super) reads: Vec<ReadKey>,
}

impl PackedResponse {
    /// Creates a response without records. [`Self::push`] adds them.
    pub(super) const fn new(link: LinkId, from: (Lane, Option<Peer>), budget: u64) -> Self {
        Self {
            link,
            from,
            budget,
            parts: VecDeque::new(),
        }
    }

    /// Adds the records of one partition, still packed.
    pub(super) fn push(
        &mut self,
        read: ReadKey,
        bounds: Bounds,
        fetched: Fetched,
        limits: PieceLimits,
    ) {
        let walk = Walk::new(fetched, limits);
        self.parts.push_back(Part { read, bounds, walk });
    }

    /// Whether it brought no records.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn drop_all(&mut self) -> Dropped {
        let parts = self.parts.drain(..);
        Dropped {
            link: self.link,
            reads: parts.map(|part| part.read).collect(),
        }
    }
}

impl Backlog {
    /// Keeps a response with records. Returns what it replaces.
    pub(super) fn push(&mut self, response: PackedResponse) -> Option<Dropped> {
        let of = |it: &PackedResponse| it.from == response.from;
        let replaced = self.responses.iter().position(of);
        let replaced = replaced.and_then(|at| self.responses.remove(at));
        self.responses.push_back(response);
        replaced.map(|mut it| it.drop_all())
    }

    /// Whether a broker should not be asked in a lane, because records of its last response can be
    /// unpacked.
    pub(super) fn is_busy(
        &self,
        from: (Lane, Option<Peer>),
        is_paused: impl Fn(ReadKey) -> bool + Copy,
    ) -> bool {
        let mut responses = self.responses.iter();
        responses.any(|it| it.from == from && next_part(it, is_paused).is_some())
    }

    /// Whether [`Self::advance`] has records to unpack for a read that is not paused.
    pub(super) fn has_work(&self, is_paused: impl Fn(ReadKey) -> bool + Copy) -> bool {
        let mut responses = self.responses.iter();
        responses.any(|it| next_part(it, is_paused).is_some())
    }

    /// Unpacks a bounded step of the records that wait. `None`: there are none, or their reads are
    /// paused.
    pub(super) fn advance(
        &mut self,
        is_paused: impl Fn(ReadKey) -> bool + Copy,
    ) -> Option<Unpacked> {
        let (at, part) = self.next(is_paused)?;
        self.make_room(at, part);
        let response = &mut self.responses[at];
        let Part { read, bounds, walk } = &mut response.parts[part];
        if walk.is_new() && response.budget == 0 {
            let mut response = self.responses.remove(at)?;
            return Some(Unpacked::Dropped(response.drop_all()));
        }
        let read = *read;
        let unpacked = match walk.advance(&mut self.unpacker, &mut response.budget) {
            Advance::Working => Unpacked::Working,
            Advance::Piece(piece, next) => Unpacked::Piece(read, *bounds, piece, next),
            Advance::Done(progress) => {
                response.parts.remove(part);
                let from = response.from;
                // Other brokers and lanes take their turn.
                let response = self.responses.remove(at)?;
                if !response.is_empty() {
                    self.responses.push_back(response);
                }
                Unpacked::Done(from, read, progress)
            }
        };
        Some(unpacked)
    }

    /// Drops the records of a read that has ended or starts elsewhere.
    pub(super) fn forget(&mut self, read: ReadKey) {
        self.retain(|it| it != read);
    }

    /// Drops the records of a topic.
    pub(super) fn forget_topic(&mut self, topic: TopicHandle) {
        self.retain(|it| it.topic != topic);
    }

    fn retain(&mut self, keep: impl Fn(ReadKey) -> bool) {
        for response in &mut self.responses {
            response.parts.retain(|part| keep(part.read));
        }
        self.responses.retain(|response| !response.is_empty());
    }

    /// The response and partition to unpack next. Replies come first, since commands wait for them.
    fn next(&self, is_paused: impl Fn(ReadKey) -> bool + Copy) -> Option<(usize, usize)> {
        let waiting = |(at, it): (usize, &PackedResponse)| {
            let part = next_part(it, is_paused)?;
            let begun = it.parts[part].walk.is_within_batch();
            Some((it.from.0 != Lane::Replies, !begun, at, part))
        };
        let waiting = self.responses.iter().enumerate().filter_map(waiting);
        let (_, _, at, part) = waiting.min()?;
        Some((at, part))
    }

    /// Makes room for the next step of one partition, within what the lane may have unpacked. What
    /// paused reads have unpacked stays while it fits, so that it is not unpacked again each time
    /// they continue. A batch that is not unpacked whole does not stay, because its decoder has
    /// memory that is not counted.
    fn make_room(&mut self, at: usize, part: usize) {
        let response = &self.responses[at];
        let (lane, walk) = (response.from.0, &response.parts[part].walk);
        let room = walk.room();
        let mut held = 0;
        self.others(lane, (at, part), |other| {
            held += other.unpacked_bytes();
        });
        self.others(lane, (at, part), |other| {
            if held > room || other.is_unpacking() {
                other.repack();
            }
        });
    }

    /// The walks of a lane, except one.
    fn others(&mut self, lane: Lane, except: (usize, usize), mut each: impl FnMut(&mut Walk)) {
        for (i, response) in self.responses.iter_mut().enumerate() {
            if response.from.0 == lane {
                for (p, part) in response.parts.iter_mut().enumerate() {
                    if (i, p) != except {
                        each(&mut part.walk);
                    }
                }
            }
        }
    }
}

/// The partition to unpack next: the one with a partly unpacked batch, else the first. Whether a
/// read is paused is looked up for few of them, since a response may have thousands.
fn next_part(response: &PackedResponse, is_paused: impl Fn(ReadKey) -> bool) -> Option<usize> {
    let mut parts = response.parts.iter();
    let begun = |part: &Part| part.walk.is_within_batch() && !is_paused(part.read);
    let begun = parts.position(begun);
    begun.or_else(|| response.parts.iter().position(|part| !is_paused(part.read)))
}
