//! A block: the event-stream bytes of one step under one encoding, with an index of its frames. A
//! block knows nothing of a transport: plain HTTP sends the bytes as they lie.

use crate::model::{KeyHash, LeaderEpoch, Offset, Partition, u32_of};

use super::{Cut, GapReason, Next};

/// Encoded events of one step, immutable, made once at the home and shared by every shard.
#[derive(Debug)]
pub struct Block {
    before: Cut,
    notice: Option<Notice>,
    bytes: Vec<u8>,
    keys: Vec<u8>,
    frames: Vec<Frame>,
}

/// Offsets that no subscriber can receive. A block with a notice has one frame, a `gap` event, and
/// no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The partition of the offsets.
    pub partition: Partition,
    /// The lowest of the missing offsets.
    pub from: Offset,
    /// The first offset after them that exists.
    pub to: Offset,
    /// Why the offsets are missing.
    pub reason: GapReason,
}

/// One event within a [`Block`]: its bytes end where the next frame starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the frame begins in the block's bytes.
    pub start: u32,
    /// Where its `id:` line begins, its last line: a private send splices its own id there.
    pub id_start: u32,
    /// The partition of the frame's record.
    pub partition: Partition,
    /// The record's offset. For a notice: the offset at which its partition continues.
    pub offset: Offset,
    /// The epoch of the record's leader.
    pub epoch: LeaderEpoch,
    /// Hash of the record's key: the hash finds, the bytes decide.
    pub key_hash: KeyHash,
    /// The key's range in the block's keys, (start, length); `None` for a null key.
    key: Option<(u32, u32)>,
    /// The frame is a `gap` event, which every subscriber receives, whatever its filter.
    pub notice: bool,
    /// Where the etag part begins within the `id:` line (after the `.`), to keep it in a splice.
    pub etag_start: u32,
}

impl Block {
    /// The cut before the first frame.
    #[must_use]
    pub const fn before(&self) -> &Cut {
        &self.before
    }

    /// The cut after the last frame. Frames are in offset order within each partition, and of one
    /// partition if they come from one batch.
    #[must_use]
    pub fn end_cut(&self) -> Cut {
        let mut cut = self.before.clone();
        if let Some(last) = self.frames.last() {
            cut.set(last.partition, last.next());
        }
        cut
    }

    /// The missing offsets, if the block has a notice instead of records.
    #[must_use]
    pub const fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// The event-stream bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The index of the block's frames, in the order of their bytes.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Where frame `index` ends in the bytes.
    #[must_use]
    pub fn end(&self, index: usize) -> u32 {
        self.frames
            .get(index + 1)
            .map_or(u32_of(self.bytes.len()), |frame| frame.start)
    }

    /// The text of frame `index`'s progress, as its `id:` line has it.
    #[must_use]
    pub fn progress(&self, index: usize) -> &[u8] {
        let frame = &self.frames[index];
        // `id: ` before it, the dot after it.
        &self.bytes[frame.id_start as usize + 4..frame.etag_start as usize - 1]
    }

    /// The key of frame `index`; `None` for a null key.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        let (start, len) = self.frames[index].key?;
        Some(&self.keys[start as usize..(start + len) as usize])
    }

    /// Memory held: the bytes and their index.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.bytes.capacity()
            + self.keys.capacity()
            + self.frames.capacity() * size_of::<Frame>()
            + self.before.bytes_held()
            + size_of::<Self>()
    }
}

/// Makes a [`Block`] frame by frame.
#[derive(Debug)]
pub struct BlockBuilder {
    block: Block,
}

impl BlockBuilder {
    /// Starts a block with its first frame right after `before`.
    #[must_use]
    pub const fn new(before: Cut) -> Self {
        Self {
            block: Block {
                before,
                notice: None,
                bytes: Vec::new(),
                keys: Vec::new(),
                frames: Vec::new(),
            },
        }
    }

    /// Makes this the block of a notice.
    pub const fn notice(&mut self, notice: Notice) {
        self.block.notice = Some(notice);
    }

    /// The bytes so far, to append one frame's lines to. Call [`Self::frame`] once they are there.
    pub const fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.block.bytes
    }

    /// Indexes the bytes from `start` on as one frame. `id_start` and `etag_start` are positions in
    /// the block's bytes.
    pub fn frame(&mut self, frame: Frame, key: Option<&[u8]>) {
        let range = key.map(|key| {
            let start = u32_of(self.block.keys.len());
            self.block.keys.extend_from_slice(key);
            (start, u32_of(key.len()))
        });
        self.block.frames.push(Frame {
            key: range,
            ..frame
        });
    }

    /// The block, or `None` if it has no frame.
    #[must_use]
    pub fn finish(mut self) -> Option<Block> {
        self.block.bytes.shrink_to_fit();
        self.block.keys.shrink_to_fit();
        self.block.frames.shrink_to_fit();
        (!self.block.frames.is_empty()).then_some(self.block)
    }
}

impl Frame {
    /// A frame without a key; [`BlockBuilder::frame`] sets it.
    #[must_use]
    pub const fn new(start: u32, partition: Partition, offset: Offset, epoch: LeaderEpoch) -> Self {
        let (id_start, etag_start, key_hash, key) = (start, start, KeyHash(0), None);
        let notice = false;
        Self {
            start,
            id_start,
            partition,
            offset,
            epoch,
            key_hash,
            key,
            notice,
            etag_start,
        }
    }

    /// The place of the partition after this frame: what the frame's id says of it.
    #[must_use]
    pub const fn next(&self) -> Next {
        let (offset, epoch) = if self.notice {
            (self.offset, self.epoch)
        } else {
            (self.offset.next(), self.epoch)
        };
        Next { offset, epoch }
    }
}
