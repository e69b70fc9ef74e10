//! Panics that concern one connection: its bytes are decrypted or parsed, or a response is encoded.
//! Such work touches nothing but the connection and scratch that the next one clears, so the
//! connection is closed and the shard goes on. A panic anywhere else may leave shared state
//! inconsistent and ends the process.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

std::thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs work that concerns one connection only. `None`: it panicked, and the panic hook has logged
/// it. Without a panic this costs two writes.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    GUARDED.set(true);
    // What the work leaves behind is not used again: the caller closes the connection.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    done.ok()
}

/// Whether a panic of this thread closes one connection and not the process. For the panic hook,
/// which may then not keep the shard waiting for the log.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_within_is_caught_and_the_next_one_outside_is_not_guarded() {
        assert_eq!(guarded(is_guarded), Some(true));
        assert!(!is_guarded());
        assert_eq!(guarded(|| -> u8 { panic!("planted") }), None);
        assert!(!is_guarded());
    }
}
