//! What is offered to a subscriber that shares the window: runs of frames as they are in their
//! blocks, one slice each.

use crate::model::u32_of;
use std::cmp::Ordering;
use std::io::IoSlice;

use smallvec::SmallVec;

use super::cursor::Cursor;
use super::log_view::LogView;
use super::progress::ClientProgress;
use super::sink::SINK_SLICES_MAX as SLICES_MAX;
use super::subscriber::Subscriber;
use super::subscriber_index::Group;
use crate::log::{Block, Frame, Seq};

/// Frames looked at in one call for a subscriber with a filter.
pub(super) const SCAN_FRAMES_MAX: usize = 4096;

/// A run of frames of one block: one slice.
#[derive(Clone, Copy)]
struct FrameRun<'a> {
    seq: Seq,
    block: &'a Block,
    from: u32,
    to: u32,
}

/// One offer of frames from the window.
pub(super) struct Offer<'a> {
    pub(super) slices: SmallVec<[IoSlice<'a>; SLICES_MAX]>,
    runs: SmallVec<[FrameRun<'a>; SLICES_MAX]>,
    pub(super) bytes: usize,
    pub(super) frames: u64,
    /// Where the subscriber continues once all is taken.
    pub(super) cursor: Cursor,
    /// Whether frames may be left then.
    pub(super) more: bool,
}

/// How much of an offer was taken.
pub(super) struct Reached<'a> {
    pub(super) cursor: Cursor,
    /// The rest of a frame that was taken in part.
    pub(super) rest: &'a [u8],
    /// The last frame that the client has or, with the rest, will have.
    last: Option<(&'a Block, usize)>,
}

impl<'a> Offer<'a> {
    pub(super) fn at(cursor: Cursor) -> Self {
        Self {
            slices: SmallVec::new(),
            runs: SmallVec::new(),
            bytes: 0,
            frames: 0,
            cursor,
            more: false,
        }
    }

    /// Adds frames of the window for one group, and moves the cursor. It fills the offer in place:
    /// the arrays are 3 KiB, mostly empty, and would be copied for each subscriber.
    pub(super) fn gather(&mut self, log: &'a LogView, group: &Group, limit: usize) {
        let mut scanned = 0;
        while self.cursor <= group.last {
            self.more = self.slices.len() == SLICES_MAX || scanned >= SCAN_FRAMES_MAX;
            if self.more {
                return;
            }
            let encoding = group.encoding as usize;
            let next = log.next_block(encoding, self.cursor.seq, group.last.seq);
            let Some((seq, block)) = next else {
                self.cursor = Cursor::after(group.last.seq);
                return;
            };
            if seq > self.cursor.seq {
                self.cursor = Cursor::at(seq);
            }
            let (from, to) = next_frames(group, block, self.cursor.frame, &mut scanned);
            if from == to {
                self.cursor = cursor_at(seq, block, to);
                continue;
            }
            let run = FrameRun {
                seq,
                block,
                from,
                to,
            };
            let (mut run, mut bytes) = (run, run.bytes());
            let room = limit.saturating_sub(self.bytes);
            if bytes.len() > room {
                run = match run.fit(room) {
                    Some(fitting) => fitting,
                    // The frame is larger than the limit: it is offered alone, and the transport
                    // splits it.
                    None if self.runs.is_empty() => {
                        let to = from + 1;
                        FrameRun { to, ..run }
                    }
                    None => {
                        self.more = true;
                        return;
                    }
                };
                bytes = run.bytes();
            }
            self.bytes += bytes.len();
            self.frames += u64::from(run.to - run.from);
            self.slices.push(IoSlice::new(bytes));
            self.cursor = cursor_at(seq, block, run.to);
            self.runs.push(run);
        }
    }

    pub(super) fn reached(&self, mut taken: usize) -> Reached<'a> {
        let mut last = None;
        for run in &self.runs {
            let len = run.bytes().len();
            if taken >= len {
                taken -= len;
                last = Some((run.block, run.to as usize - 1));
                continue;
            }
            let frames = run.block.frames();
            let at = frames[run.from as usize].start + u32_of(taken);
            let (from, to) = (run.from as usize, run.to as usize);
            let frame = from + frames[from..to].partition_point(|f| f.start <= at) - 1;
            let whole = frames[frame].start == at;
            if whole && frame > from {
                last = Some((run.block, frame - 1));
            } else if !whole {
                last = Some((run.block, frame));
            }
            let end = if whole { at } else { run.block.end(frame) };
            let next = if whole { frame } else { frame + 1 };
            return Reached {
                cursor: cursor_at(run.seq, run.block, u32_of(next)),
                rest: &run.block.bytes()[at as usize..end as usize],
                last,
            };
        }
        let (cursor, rest) = (self.cursor, &[][..]);
        Reached { cursor, rest, last }
    }

    /// How many frames of the offer are before a cursor.
    pub(super) fn frames_before(&self, cursor: Cursor) -> u64 {
        let count = |run: &FrameRun<'_>| match cursor.seq.cmp(&run.seq) {
            Ordering::Less => 0,
            Ordering::Equal => cursor.frame.clamp(run.from, run.to) - run.from,
            Ordering::Greater => run.to - run.from,
        };
        self.runs.iter().map(|run| u64::from(count(run))).sum()
    }
}

impl Reached<'_> {
    /// Notes what the client of a conflating subscriber holds. From here on the subscriber may fall
    /// out of the window, and the window no longer knows.
    pub(super) fn keep_progress(&self, subscriber: &mut Subscriber, offer: &Offer<'_>) {
        let progress = match self.last {
            Some((block, frame)) => ClientProgress::at_frame(block, frame),
            None if subscriber.own().progress.is_some() => return,
            None => ClientProgress::before(offer.runs[0].block),
        };
        subscriber.own().progress = progress;
    }
}

fn cursor_at(seq: Seq, block: &Block, frame: u32) -> Cursor {
    if (frame as usize) < block.frames().len() {
        Cursor { seq, frame }
    } else {
        Cursor::after(seq)
    }
}

/// The first run of frames for the group at or after `frame`. Empty if the limit of frames to look
/// at is reached first.
fn next_frames(group: &Group, block: &Block, frame: u32, scanned: &mut usize) -> (u32, u32) {
    let len = u32_of(block.frames().len());
    if group.key.is_none() {
        return (frame.min(len), len);
    }
    let mut from = frame;
    while from < len && !group.takes(block, from as usize) {
        if *scanned >= SCAN_FRAMES_MAX {
            return (from, from);
        }
        *scanned += 1;
        from += 1;
    }
    let mut to = from;
    while to < len && group.takes(block, to as usize) {
        *scanned += 1;
        to += 1;
    }
    (from, to)
}

impl<'a> FrameRun<'a> {
    fn bytes(&self) -> &'a [u8] {
        let start = self.block.frames()[self.from as usize].start;
        let end = self.block.end(self.to as usize - 1);
        &self.block.bytes()[start as usize..end as usize]
    }

    /// The longest prefix of its frames that fits `room`, given that not all of them fit. `None` if
    /// not even the first frame fits.
    fn fit(self, room: usize) -> Option<Self> {
        let frames = &self.block.frames()[self.from as usize..self.to as usize];
        let start = frames[0].start;
        // A frame ends where its next one starts.
        let ends_within = |next: &Frame| (next.start - start) as usize <= room;
        let fitting = u32_of(frames[1..].partition_point(ends_within));
        let to = self.from + fitting;
        (fitting > 0).then_some(Self { to, ..self })
    }
}
