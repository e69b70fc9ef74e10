//! The memory that pages of *changes* take, and since when their sockets have not taken them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ExchangeId, Instant};

/// How long a socket may take for a page while other streams wait for memory. Most of a page fits
/// into the socket's send buffer, so only a client that hardly reads needs that long.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(10);

/// Pages of *changes* in one feed, and the memory that they take. A page counts from the moment it
/// is asked for: first as the most that it may take, then as what it takes, until its socket has
/// taken it.
#[derive(Debug, Default)]
pub(super) struct HeldPages {
    bytes: usize,
    /// The pages that are here and that their sockets have not taken, by their number.
    unsent: BTreeMap<u64, UnsentPage>,
    /// The number of the last page that has arrived.
    last: u64,
}

/// A page that its socket has not taken.
#[derive(Debug)]
struct UnsentPage {
    of: ExchangeId,
    since: Instant,
}

/// The page of *changes* of one subscriber.
#[derive(Debug, Default)]
pub(super) struct HeldPage {
    /// Memory that is counted for it.
    bytes: usize,
    /// Its number among the pages that are not sent. `None`: it is not here yet.
    number: Option<u64>,
}

impl HeldPages {
    /// Counts a page that is asked for.
    pub(super) const fn reserve(&mut self, page: &mut HeldPage, bytes: usize) {
        self.bytes += bytes;
        page.bytes += bytes;
    }

    /// Counts what a page of a stream takes now that it is here.
    pub(super) fn on_page(
        &mut self,
        page: &mut HeldPage,
        of: ExchangeId,
        bytes: usize,
        now: Instant,
    ) {
        self.release(page);
        self.reserve(page, bytes);
        self.last += 1;
        page.number = Some(self.last);
        self.unsent.insert(self.last, UnsentPage { of, since: now });
    }

    /// Releases a page that is sent, or that its subscriber does not wait for any more.
    pub(super) fn release(&mut self, page: &mut HeldPage) {
        let HeldPage { bytes, number } = std::mem::take(page);
        self.bytes -= bytes;
        if let Some(number) = number {
            self.unsent.remove(&number);
        }
    }

    /// The next stream whose socket has had a page for too long. The page must be released.
    pub(super) fn overdue(&self, now: Instant) -> Option<ExchangeId> {
        let (_, oldest) = self.unsent.first_key_value()?;
        (oldest.since.after(PAGE_PATIENCE) <= now).then_some(oldest.of)
    }

    /// The sum over all subscribers of the feed.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
