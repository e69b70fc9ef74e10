//! Texts of event ids, kept from one use to the next: rewriting a text is cheap when little of it
//! changes.

use super::lines;
use super::progress::ClientProgress;
use crate::log::{Cut, ProgressText};
use crate::model::{LogTag, UnixMillis};

/// Writes `id:` lines, and keeps their texts for the next use.
#[derive(Debug)]
pub(super) struct Ids {
    /// The text of the private subscriber that was served last.
    private: ProgressText,
    /// The text of the log's end, for all that share the window.
    shared: ProgressText,
}

impl Ids {
    pub(super) fn new(tag: LogTag, time: UnixMillis, cut: &Cut) -> Self {
        let shared = ProgressText::new(tag, time, cut);
        let private = shared.clone();
        Self { private, shared }
    }

    /// The progress part of a client's id.
    pub(super) fn text(&mut self, progress: &ClientProgress) -> &[u8] {
        if progress.starts_over() {
            lines::START_OVER
        } else {
            self.private(progress).as_bytes()
        }
    }

    /// The text of a client's progress, to move along with the frames that it is sent.
    pub(super) fn private(&mut self, progress: &ClientProgress) -> &mut ProgressText {
        self.private.reset(progress.time, &progress.cut);
        &mut self.private
    }

    /// Writes an `id:` line of a client's progress, and a blank line.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, progress: &ClientProgress) {
        lines::put_id(out, self.text(progress), b"");
    }

    /// Writes an `id:` line of the log's end, and a blank line.
    pub(super) fn put_shared(&mut self, out: &mut Vec<u8>, time: UnixMillis, cut: &Cut) {
        self.shared.reset(time, cut);
        lines::put_id(out, self.shared.as_bytes(), b"");
    }
}
