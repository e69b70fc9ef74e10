//! What is known of one subscriber. An idle one that shares the window is this struct and nothing
//! else: what only few need at a time (unsent bytes, an id of its own, history) is boxed.

use crate::log::{Block, Cut, Progress, Seq};
use crate::model::UnixMillis;

use super::request::{CatchUpId, PageCursor, Slow};

/// Index into the slab of subscribers.
pub(super) type Slot = u32;

/// No slot, no group.
pub(super) const NONE: u32 = u32::MAX;

/// A place in the window: the next frame to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    /// Whose blocks.
    pub(super) seq: Seq,
    /// Which frame of the block.
    pub(super) frame: u32,
}

impl Cursor {
    /// Before the first frame of step `seq`.
    pub(super) const fn at(seq: Seq) -> Self {
        Self { seq, frame: 0 }
    }

    /// After the last frame of step `seq`.
    pub(super) const fn after(seq: Seq) -> Self {
        Self::at(Seq(seq.0 + 1))
    }

    /// Later than every frame of step `seq`, earlier than the next step.
    pub(super) const fn end_of(seq: Seq) -> Self {
        Self {
            seq,
            frame: u32::MAX,
        }
    }
}

/// Where a subscriber stands in the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its group's idle list, or in a run that was woken from it.
    Idle,
    /// In a run of its own.
    Queued,
    /// Just named by `next_pending`.
    Current,
    /// Its transport is full.
    Blocked,
    /// It waits for a page or a catch-up read.
    Waiting,
    /// Unsubscribed while in a run; the slot is free once the run has passed.
    Gone,
}

/// One subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The next frame to read from the window. Means nothing while idle.
    pub(super) cursor: Cursor,
    /// The shard's name for it.
    pub(super) token: u32,
    /// Its group: encoding and filter.
    pub(super) group: u32,
    /// Neighbours in the idle list or the run.
    pub(super) prev: Slot,
    pub(super) next: Slot,
    /// The group's epoch when it went idle: another one now means that it was woken.
    pub(super) epoch: u32,
    pub(super) place: Place,
    pub(super) slow: Slow,
    /// A heartbeat is due.
    pub(super) heartbeat: bool,
    pub(super) own: Option<Box<Own>>,
}

/// What a subscriber has beside the window.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Bytes due before anything else: first bytes, a page, the rest of a frame that was cut.
    pub(super) rest: Vec<u8>,
    /// How many of them are sent.
    pub(super) sent: usize,
    /// What the client holds, if not the cut at its cursor.
    pub(super) held: Option<Held>,
    /// What it reads.
    pub(super) source: Source,
    /// The number of its last question.
    pub(super) ticket: u32,
}

/// What a client holds, apart from any cursor: V of DESIGN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Everything below was offered.
    pub(super) cut: Cut,
    /// As its ids carry it.
    pub(super) time: UnixMillis,
    /// Its ids are its own. If not, it shares the window's, and this is kept only to conflate by.
    pub(super) private: bool,
    /// Nothing it has counts yet: ids say "start over" until the snapshot is through.
    pub(super) over: bool,
}

/// What a subscriber reads once its own bytes are sent.
#[derive(Debug, Default)]
pub(super) enum Source {
    /// The window.
    #[default]
    Window,
    /// The window, right after history: if it was too short to meet it, history goes on.
    Rejoining,
    /// Pages of *changes* up to `below`.
    Pages(Box<Pages>),
    /// A catch-up read over the log; `None` while it waits for one. `frame` is the next of the catch-up read's
    /// present block, `u32::MAX` once that is taken.
    CatchUp {
        catch_up: Option<CatchUpId>,
        frame: u32,
    },
    /// Nothing until the leaders have said whether what it holds is still in the log.
    AwaitingEpochCheck,
    /// To be decided by what it holds.
    Undecided,
    /// Nobody can say whether what it holds is in the log: it must come again.
    Disconnecting,
}

/// *changes(V, n)*: V is what the subscriber holds.
#[derive(Debug)]
pub(super) struct Pages {
    /// n.
    pub(super) seq: Seq,
    /// The cut at n.
    pub(super) below: Cut,
    /// The time at n.
    pub(super) time: UnixMillis,
    /// Where the next page starts; `None`: the first.
    pub(super) after: Option<PageCursor>,
    /// A page is being asked for.
    pub(super) asked: bool,
}

impl Held {
    pub(super) const fn private(cut: Cut, time: UnixMillis) -> Self {
        Self {
            cut,
            time,
            private: true,
            over: false,
        }
    }

    /// What one holds who got frame `index` of a block as it lies: its id says so. `None` if the
    /// topic has grown more partitions than an id can be read with.
    pub(super) fn at_frame(block: &Block, index: usize) -> Option<Self> {
        let id = Progress::decode(block.progress(index)).ok()?;
        let held = Self::private(id.cut, id.time);
        let private = false;
        Some(Self { private, ..held })
    }

    /// All below `cut`, which the log's end equalled at `time`, has been offered too.
    pub(super) fn raise(&mut self, cut: &Cut, time: UnixMillis) {
        self.cut.raise(cut);
        self.time = self.time.max(time);
    }
}

impl Subscriber {
    /// Whether its ids are its own.
    pub(super) fn is_private(&self) -> bool {
        let held = self.own.as_ref().and_then(|own| own.held.as_ref());
        held.is_some_and(|held| held.private)
    }

    /// Boxes what is its own.
    pub(super) fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    /// Lets the box go if nothing in it matters.
    pub(super) fn tidy(&mut self) {
        let empty = |own: &Own| {
            own.rest.is_empty() && own.held.is_none() && matches!(own.source, Source::Window)
        };
        if self.own.as_deref().is_some_and(empty) {
            self.own = None;
        }
    }
}
