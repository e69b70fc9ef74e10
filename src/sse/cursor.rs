//! A position in the window.

use crate::log::Seq;

/// The next frame to read from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    /// The step of the block that has the frame.
    pub(super) seq: Seq,
    /// The frame's number in the block.
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
