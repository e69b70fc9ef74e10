//! What a client holds, apart from any cursor: its progress.

use crate::log::{Block, Cut, Progress};
use crate::model::UnixMillis;

/// Everything below the cut was offered to the client, nothing at or above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientProgress {
    /// Of each partition, the first offset that was not offered to the client.
    pub(super) cut: Cut,
    /// The log's time, as the client's ids carry it.
    pub(super) time: UnixMillis,
    pub(super) ids: IdKind,
}

/// Which ids the client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdKind {
    /// Ids of this subscriber alone: max(progress, cut).
    Private,
    /// The window's ids. The progress is kept only to conflate from it.
    Shared,
    /// Ids that say "start over", until the snapshot is sent: nothing the client has counts yet.
    StartOver,
}

impl ClientProgress {
    pub(super) const fn private(cut: Cut, time: UnixMillis) -> Self {
        let ids = IdKind::Private;
        Self { cut, time, ids }
    }

    /// The progress of a client that has nothing that counts.
    pub(super) const fn start_over() -> Self {
        Self {
            cut: Cut::start(),
            time: UnixMillis(0),
            ids: IdKind::StartOver,
        }
    }

    /// The client's progress after frame `index` of a block, as the frame's id says. `None` if the
    /// topic has grown more partitions than an id can be read with.
    pub(super) fn at_frame(block: &Block, index: usize) -> Option<Self> {
        let Progress { cut, time, .. } = Progress::decode(block.progress(index)).ok()?;
        let ids = IdKind::Shared;
        Some(Self { cut, time, ids })
    }

    /// The client's progress before the first frame of a block.
    pub(super) fn before(block: &Block) -> Option<Self> {
        let cut = block.before().clone();
        Self::at_frame(block, 0).map(|first| Self { cut, ..first })
    }

    /// The same progress, with ids of the client's own.
    pub(super) fn into_private(self) -> Self {
        let ids = IdKind::Private;
        Self { ids, ..self }
    }

    /// Whether the client's ids are not the window's.
    pub(super) fn is_private(&self) -> bool {
        self.ids != IdKind::Shared
    }

    /// Whether nothing that the client has counts yet.
    pub(super) fn starts_over(&self) -> bool {
        self.ids == IdKind::StartOver
    }

    /// Everything below `cut` has been offered too; it was the log's end at `time`.
    pub(super) fn raise(&mut self, cut: &Cut, time: UnixMillis) {
        self.cut.raise(cut);
        self.time = self.time.max(time);
    }

    /// The snapshot, or what the client lacked of it, is sent up to `below`.
    pub(super) fn finish_snapshot(&mut self, below: &Cut, time: UnixMillis) {
        self.raise(below, time);
        self.ids = IdKind::Private;
    }
}
