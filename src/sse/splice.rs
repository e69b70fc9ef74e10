//! Frames with ids of a private subscriber: max(progress, cut). A frame's `id:` is its last line,
//! and the block knows where that line and its etag start. So everything but the progress is copied
//! as it is.

use std::io::IoSlice;

use super::cursor::Cursor;
use super::lines;
use super::offer::SCAN_FRAMES_MAX;
use super::request::FeedCounts;
use super::sink::{Sink, Taken};
use super::subscriber::Own;
use super::subscriber_index::Group;
use crate::log::{Block, Next, ProgressText};
use crate::model::Partition;

/// Frames on their way to one subscriber. Kept empty between two calls, for its capacity.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    bounds: Vec<Bound>,
}

/// Where a frame ends in the scratch buffer, and what its client then holds.
#[derive(Debug)]
struct Bound {
    end: usize,
    cursor: Cursor,
    partition: Partition,
    next: Next,
}

/// How much of the scratch buffer was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent {
    /// The sink took all of it.
    All,
    /// A part. The cursor is behind the last frame that was taken, whole or cut. `None`: none was.
    Part(Option<Cursor>),
    /// Nothing: the connection is closed.
    Closed,
}

impl Scratch {
    /// Offers the frames. The client then holds those that were taken, a frame that was cut among
    /// them: the rest of that frame is due before anything else.
    pub(super) fn send(
        &self,
        own: &mut Own,
        sink: &mut impl Sink,
        counts: &mut FeedCounts,
    ) -> Sent {
        if self.bytes.is_empty() {
            return Sent::All;
        }
        let taken = match sink.take(&[IoSlice::new(&self.bytes)]) {
            Taken::Closed => return Sent::Closed,
            Taken::Bytes(taken) => taken,
        };
        counts.bytes += taken as u64;
        let (mut start, mut cursor) = (0, None);
        for bound in &self.bounds {
            if taken <= start {
                break;
            }
            cursor = Some(bound.cursor);
            own.progress_mut().cut.set(bound.partition, bound.next);
            if taken < bound.end {
                own.unsent.push(&self.bytes[taken..bound.end]);
            }
            start = bound.end;
            counts.frames_private += 1;
        }
        if taken < self.bytes.len() {
            Sent::Part(cursor)
        } else {
            Sent::All
        }
    }
}

/// Writes frames with ids of one subscriber's own.
pub(super) struct Splice<'a> {
    id: &'a mut ProgressText,
    scratch: &'a mut Scratch,
    limit: usize,
    scanned: usize,
}

impl<'a> Splice<'a> {
    /// `id`: what the client holds. Nothing is written past `limit` bytes, except one larger frame.
    pub(super) fn new(id: &'a mut ProgressText, scratch: &'a mut Scratch, limit: usize) -> Self {
        scratch.bytes.clear();
        scratch.bounds.clear();
        Self {
            id,
            scratch,
            limit,
            scanned: 0,
        }
    }

    /// Whether the window's own ids are right from this block on: the client holds nothing that the
    /// block's cut does not have.
    pub(super) fn is_shared_from(&self, block: &Block) -> bool {
        block.before().covers(self.id.cut())
    }

    /// Writes a block's frames from the cursor on, and moves the cursor. Returns false if a limit
    /// was reached first.
    pub(super) fn block(&mut self, group: &Group, block: &Block, cursor: &mut Cursor) -> bool {
        self.id.raise(block.before());
        while (cursor.frame as usize) < block.frames().len() {
            if self.scanned == SCAN_FRAMES_MAX {
                return false;
            }
            self.scanned += 1;
            let index = cursor.frame as usize;
            let frame = &block.frames()[index];
            let next = frame.next();
            let known = next.offset <= self.id.cut().get(frame.partition).offset;
            if !known && group.takes(block, index) {
                let (start, end) = (frame.start as usize, block.end(index) as usize);
                let bytes = end - start;
                if self.scratch.bytes.len() + bytes > self.limit && !self.scratch.bytes.is_empty() {
                    return false;
                }
                let before = self.scratch.bytes.len();
                let held = self.id.cut().get(frame.partition).offset;
                self.id.set(frame.partition, next);
                match block.notice().filter(|notice| notice.from < held) {
                    // The client holds more than others: less is missing.
                    Some(n) => lines::put_gap(
                        &mut self.scratch.bytes,
                        Some((n.partition, held, n.to)),
                        n.reason,
                    ),
                    None => {
                        let lines = &block.bytes()[start..frame.id_start as usize];
                        self.scratch.bytes.extend_from_slice(lines);
                    }
                }
                self.scratch.bytes.extend_from_slice(b"id: ");
                self.scratch.bytes.extend_from_slice(self.id.as_bytes());
                // The dot, the etag and the blank line do not depend on the subscriber.
                let tail = &block.bytes()[frame.etag_start as usize - 1..end];
                self.scratch.bytes.extend_from_slice(tail);
                if self.scratch.bytes.len() > self.limit && before > 0 {
                    // The subscriber's id is longer than the block's. The next call resets the id.
                    self.scratch.bytes.truncate(before);
                    return false;
                }
                self.scratch.bounds.push(Bound {
                    end: self.scratch.bytes.len(),
                    cursor: Cursor {
                        frame: cursor.frame + 1,
                        ..*cursor
                    },
                    partition: frame.partition,
                    next,
                });
            }
            cursor.frame += 1;
        }
        *cursor = Cursor::after(cursor.seq);
        true
    }
}
