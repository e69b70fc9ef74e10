//! The book in pages, and back: what lets a journal lose its beginning.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::ledger::{Ledger, Request, Standing};

/// Rows of one page. At most some 300 bytes each for a person and 900 for a request, so that a
/// page stays below the size at which a produce request stalls.
const ROWS_MAX: usize = 6;

/// A part of a checkpoint. Pages are written one after the other, with nothing between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// 0, 1, 2, …
    number: usize,
    /// How many there are.
    of: usize,
    /// Where each partition of the commands topic is to be read on.
    next_offsets: Vec<(i32, i64)>,
    people: Vec<Standing>,
    requests: Vec<(Box<str>, Request)>,
}

impl Ledger {
    /// The whole book but for the replies it remembers: those are in the journal's entries.
    pub(crate) fn checkpoint(&self) -> Vec<Page> {
        let people: Vec<Standing> = self.accounts().cloned().collect();
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

/// A book being restored from a journal that may have lost its beginning.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    ledger: Ledger,
    /// Whether `ledger` is the whole book: from the first entry, or from a whole checkpoint.
    is_whole: bool,
    pages: Vec<Page>,
}

impl Restore {
    /// Begins. `from_first`: nothing is lost, every entry since the first will come.
    pub(crate) fn new(from_first: bool) -> Self {
        Self {
            is_whole: from_first,
            ..Self::default()
        }
    }

    /// Takes an entry. False: it was there before.
    pub(crate) fn absorb(&mut self, entry: &Entry) -> bool {
        self.pages.clear();
        match self.is_whole {
            true => self.ledger.absorb(entry),
            // What it did is in the checkpoint to come; what it answered is not.
            false => self.ledger.recall(entry),
        }
    }

    /// Takes a page of a checkpoint.
    pub(crate) fn page(&mut self, page: Page) {
        if page.number == 0 {
            self.pages.clear();
        }
        // Out of turn: written twice, or the rest of a checkpoint whose beginning is lost.
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

    /// Replies to all entries so far could be read by then.
    pub(crate) fn on_relayed(&mut self, at_ms: i64) {
        self.ledger.on_relayed(at_ms);
    }

    /// The book, if it is whole.
    pub(crate) fn done(self) -> Option<Ledger> {
        self.is_whole.then_some(self.ledger)
    }
}
