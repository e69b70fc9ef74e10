//! Checkpoints: the ledger written in pages and restored from them, so that the journal may lose
//! its beginning.

use serde::{Deserialize, Serialize};

use super::entry::JournalEntry;
use super::ledger::{Holder, Ledger, Request};

/// Most rows of one page. A person takes at most about 300 bytes and a request 900, so a page stays
/// below the size at which a produce request stalls.
const ROWS_MAX: usize = 6;

/// A part of a checkpoint. The pages of a checkpoint follow each other in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Number of the page, from 0.
    number: usize,
    /// Number of pages of the checkpoint.
    of: usize,
    /// Next offset to read of each partition of the commands topic.
    next_offsets: Vec<(i32, i64)>,
    people: Vec<Holder>,
    requests: Vec<(Box<str>, Request)>,
}

impl Ledger {
    /// Writes the ledger in pages, except for the replies it remembers, which are in the journal's
    /// entries.
    pub(crate) fn checkpoint(&self) -> Vec<Page> {
        let people: Vec<Holder> = self.accounts().cloned().collect();
        let requests: Vec<_> = self.requests().collect();
        let mut pages: Vec<Page> = people
            .chunks(ROWS_MAX)
            .map(|people| Page {
                people: people.to_vec(),
                ..Page::default()
            })
            .chain(requests.chunks(ROWS_MAX).map(|requests| {
                let own = |(id, request): &(&str, &Request)| ((*id).into(), (*request).clone());
                Page {
                    requests: requests.iter().map(own).collect(),
                    ..Page::default()
                }
            }))
            .collect();
        let of = pages.len();
        for (number, page) in pages.iter_mut().enumerate() {
            page.number = number;
            page.of = of;
            page.next_offsets = self.next_offsets().collect();
        }
        pages
    }
}

/// A ledger while it is restored from a journal that may have lost its beginning.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    ledger: Ledger,
    /// Whether `ledger` is complete: restored from the first entry or from a whole checkpoint.
    is_whole: bool,
    pages: Vec<Page>,
}

impl Restore {
    /// Starts to restore. `from_first`: the journal has every entry since the first.
    pub(crate) fn new(from_first: bool) -> Self {
        Self {
            is_whole: from_first,
            ..Self::default()
        }
    }

    /// Applies an entry. Returns false if the ledger already has it.
    pub(crate) fn absorb(&mut self, entry: &JournalEntry) -> bool {
        self.pages.clear();
        if self.is_whole {
            self.ledger.absorb(entry)
        } else {
            // The next checkpoint has the entry's effects, but not its reply.
            self.ledger.recall(entry)
        }
    }

    /// Applies a page of a checkpoint.
    pub(crate) fn page(&mut self, page: Page) {
        if page.number == 0 {
            self.pages.clear();
        }
        // Out of order: a page that was written twice, or the rest of a checkpoint that has lost
        // its beginning.
        if self.is_whole || page.number != self.pages.len() {
            return;
        }
        self.pages.push(page);
        if self.pages.len() == self.pages[0].of {
            self.is_whole = true;
            for page in self.pages.drain(..) {
                self.ledger
                    .restore(page.next_offsets, page.people, page.requests);
            }
        }
    }

    /// The replies to all entries so far were readable at `at_ms`.
    pub(crate) fn on_relayed(&mut self, at_ms: i64) {
        self.ledger.on_relayed(at_ms);
    }

    /// Returns the ledger, if it is complete.
    pub(crate) fn done(self) -> Option<Ledger> {
        self.is_whole.then_some(self.ledger)
    }
}
