//! Frames with ids of one subscriber's own: max(V, cut). A frame's `id:` is its last line and the
//! block says where it starts and where its etag is, so all but the progress is copied.

use super::lines;
use super::offer::SCAN_FRAMES_MAX;
use super::subscriber::Cursor;
use super::subscriber_index::Group;
use crate::log::{Block, Next, ProgressText};
use crate::model::Partition;

/// Where a frame ends in the scratch buffer, and what one holds who has it.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) end: usize,
    pub(super) cursor: Cursor,
    pub(super) partition: Partition,
    pub(super) next: Next,
}

/// Writes frames with ids of one subscriber's own.
pub(super) struct Splice<'a> {
    pub(super) id: &'a mut ProgressText,
    out: &'a mut Vec<u8>,
    bounds: &'a mut Vec<Bound>,
    limit: usize,
    scanned: usize,
}

impl<'a> Splice<'a> {
    pub(super) fn new(
        id: &'a mut ProgressText,
        out: &'a mut Vec<u8>,
        bounds: &'a mut Vec<Bound>,
        limit: usize,
    ) -> Self {
        out.clear();
        bounds.clear();
        Self {
            id,
            out,
            bounds,
            limit,
            scanned: 0,
        }
    }

    /// Writes a block's frames from the cursor on, and moves it. `false`: a limit came first.
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
                if self.out.len() + bytes > self.limit && !self.out.is_empty() {
                    return false;
                }
                let before = self.out.len();
                let held = self.id.cut().get(frame.partition).offset;
                self.id.set(frame.partition, next);
                match block.notice().filter(|notice| notice.from < held) {
                    // It holds more than others do: less is missing.
                    Some(n) => lines::put_gap(self.out, Some((n.partition, held, n.to)), n.reason),
                    None => {
                        let lines = &block.bytes()[start..frame.id_start as usize];
                        self.out.extend_from_slice(lines);
                    }
                }
                self.out.extend_from_slice(b"id: ");
                self.out.extend_from_slice(self.id.as_bytes());
                // The dot, the etag and the blank line are the record's in any case.
                let tail = &block.bytes()[frame.etag_start as usize - 1..end];
                self.out.extend_from_slice(tail);
                if self.out.len() > self.limit && before > 0 {
                    // The subscriber's id is longer than the block's. The next call resets the id.
                    self.out.truncate(before);
                    return false;
                }
                self.bounds.push(Bound {
                    end: self.out.len(),
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
