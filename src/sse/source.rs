//! What a subscriber reads once its own bytes are sent: a state machine. Each event below names its
//! source and target states; `tests/source.rs` prints every state × event.

use super::request::{CatchUpId, PageCursor};
use crate::log::{Cut, Seq};
use crate::model::UnixMillis;

/// Where a subscriber's next bytes come from.
#[derive(Debug, Default)]
pub(super) enum Source {
    /// The window, from the subscriber's cursor on.
    #[default]
    Window,
    /// The window, right after history. If the window has meanwhile moved past the cursor, the
    /// subscriber is not slow: history was longer than the window, so it is `Undecided` again.
    Rejoining,
    /// To be decided by what the client holds. If pages of *changes* were interrupted, and the log
    /// has what the client holds, they continue.
    Undecided(Option<Box<Changes>>),
    /// Nothing, until the leaders have said whether the log still has what the client holds.
    AwaitingEpochCheck(Option<Box<Changes>>),
    /// Nothing, until the next page of *changes* is here.
    AwaitingPage(Box<Changes>),
    /// The page that is here, as unsent bytes. The next one is asked for once they are sent.
    SendingPage(Box<Changes>),
    /// Nothing, until the home has a catch-up read for it.
    AwaitingCatchUp,
    /// Nothing, until the catch-up read brings its next block, meets the window, or stalls.
    AwaitingBlock(CatchUpId),
    /// The present block of a catch-up read, from this frame on.
    ReadingBlock(CatchUpId, u32),
    /// Nothing more: the stream ends, and the client resumes by its id.
    Disconnecting,
    /// Nothing more: the client has not taken a page in time. The connection is closed.
    Stalled,
}

/// *changes(progress, seq)*: the newest record of each key, from the client's progress up to the
/// cut at step `seq`.
#[derive(Debug)]
pub(super) struct Changes {
    /// The step up to which the pages show changes.
    pub(super) seq: Seq,
    /// The cut at step `seq`.
    pub(super) below: Cut,
    /// The log's time at step `seq`.
    pub(super) time: UnixMillis,
    /// Where the next page starts. `None`: at the first slice.
    pub(super) after: Option<PageCursor>,
}

/// Defines the events of [`Source`]. A line reads `states => state after the event`.
macro_rules! events {
    ($(
        $(#[$doc:meta])+
        $event:ident($($arg:ident: $type:ty),*) { $($from:pat $(if $guard:expr)? => $to:expr,)+ }
    )+) => {
        impl Source {
            $(
                $(#[$doc])+
                ///
                /// In every other state it changes nothing and returns false.
                pub(super) fn $event(&mut self $(, $arg: $type)*) -> bool {
                    match std::mem::take(self) {
                        $($from $(if $guard)? => *self = $to,)+
                        #[allow(unreachable_patterns)]
                        other => {
                            *self = other;
                            return false;
                        }
                    }
                    true
                }
            )+
        }

        /// The names of all events, for the test that prints them.
        #[cfg(test)]
        pub(super) const EVENTS: &[&str] = &[$(stringify!($event)),+];
    };
}

use Source::{
    AwaitingBlock, AwaitingCatchUp, AwaitingEpochCheck, AwaitingPage, Disconnecting, ReadingBlock,
    Rejoining, SendingPage, Stalled, Undecided, Window,
};

events! {
    /// The window has everything that the client lacks.
    on_window_reaches_back() { Undecided(None) => Rejoining, }

    /// A compacted topic's window does not reach back to what the client holds.
    on_changes_needed(changes: Box<Changes>) { Undecided(None) => AwaitingPage(changes), }

    /// Another topic's window does not reach back to what the client holds.
    on_catch_up_needed() { Undecided(None) => AwaitingCatchUp, }

    /// The log has what the client holds, so the pages continue where they were interrupted. What
    /// is left of the last one is sent first.
    on_changes_resumed() { Undecided(Some(changes)) => SendingPage(changes), }

    /// The log no longer has all that the client holds, so interrupted pages are of no use.
    on_cut_back() { Undecided(Some(_)) => Undecided(None), }

    /// Only the leaders know whether the log still has what the client holds.
    on_epoch_check_needed() { Undecided(changes) => AwaitingEpochCheck(changes), }

    /// The client holds records of a newer epoch than this instance has read beyond them. By the
    /// time the client resumes, this instance has read the newer epoch.
    on_diverged() { Undecided(_) => Disconnecting, }

    /// The leaders have answered: what the client holds is checked, and the source can be decided.
    on_epochs_checked() { AwaitingEpochCheck(changes) => Undecided(changes), }

    /// The leaders could not be asked in time.
    on_epoch_check_failed() { AwaitingEpochCheck(_) => Disconnecting, }

    /// A partition's epoch has changed below what the client holds.
    on_epoch_changed() {
        AwaitingPage(changes) | SendingPage(changes) => Undecided(Some(changes)),
        Undecided(changes) | AwaitingEpochCheck(changes) => Undecided(changes),
        Window | Rejoining | AwaitingCatchUp | AwaitingBlock(_) | ReadingBlock(..)
            => Undecided(None),
    }

    /// The subscriber reads at its cursor, or has read all that the window has.
    on_window_read() { Window | Rejoining => Window, }

    /// The cursor points to what has left the window.
    on_evicted() { Window | Rejoining => Undecided(None), }

    /// A heartbeat is sent to a client that is ahead of this instance.
    on_heartbeat_ahead() { Window => Undecided(None), }

    /// A page is here. `next`: where the page after it starts.
    on_page(next: PageCursor) {
        AwaitingPage(mut changes) => { changes.after = Some(next); SendingPage(changes) },
    }

    /// The last page is here. What the client then lacks is in the window.
    on_last_page() { AwaitingPage(_) => Rejoining, }

    /// A slice does not have all values of the page.
    on_page_failed() { AwaitingPage(_) => Disconnecting, }

    /// The socket has taken the page.
    on_page_sent() { SendingPage(changes) => AwaitingPage(changes), }

    /// The socket has not taken the page in time. While the last page is sent, the source is
    /// already the window, and an epoch change may come at any time.
    on_page_overdue() {
        SendingPage(_) | Rejoining | Window | Undecided(_) | AwaitingEpochCheck(_) | Disconnecting
            => Stalled,
    }

    /// The subscriber is a member of a catch-up read.
    on_joined(id: CatchUpId) { AwaitingCatchUp => AwaitingBlock(id), }

    /// The catch-up read has a block for its members.
    on_block(id: CatchUpId) { AwaitingBlock(of) if of == id => ReadingBlock(of, 0), }

    /// The subscriber has read the block up to this frame.
    on_frames_read(frame: u32) { ReadingBlock(id, _) => ReadingBlock(id, frame), }

    /// The subscriber has read the whole block.
    on_block_read() { ReadingBlock(id, _) => AwaitingBlock(id), }

    /// The catch-up read continues although the subscriber has not read the whole block.
    on_left_behind(id: CatchUpId) { ReadingBlock(of, _) if of == id => Undecided(None), }

    /// The catch-up read has met the window. A member that has not read the whole block would miss
    /// the rest of it.
    on_catch_up_ended(id: CatchUpId) {
        AwaitingBlock(of) if of == id => Rejoining,
        ReadingBlock(of, _) if of == id => Undecided(None),
    }

    /// The catch-up read ends without having met the window.
    on_catch_up_stalled(id: CatchUpId) {
        AwaitingBlock(of) | ReadingBlock(of, _) if of == id => Undecided(None),
    }
}

impl Source {
    /// Whether a question must be asked: nothing is sent until its answer is here.
    pub(super) const fn asks(&self) -> bool {
        matches!(
            self,
            AwaitingEpochCheck(_) | AwaitingPage(_) | AwaitingCatchUp
        )
    }

    /// The catch-up read of which the subscriber is a member, and whether it is still reading the
    /// present block.
    pub(super) const fn membership(&self) -> Option<(CatchUpId, bool)> {
        match self {
            AwaitingBlock(id) => Some((*id, false)),
            ReadingBlock(id, _) => Some((*id, true)),
            _ => None,
        }
    }
}
