//! Pages of *changes*: the memory that they take, and how one is written for its subscriber.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cursor::Cursor;
use super::encode::Encoding;
use super::ids::Ids;
use super::lines;
use super::request::{FeedCounts, PageCursor, PageEntry};
use super::source::Source;
use super::subscriber::{Own, Subscriber};
use crate::log::{GapReason, OffsetRange};
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
    pub(super) const fn reserve(&mut self, own: &mut Own, bytes: usize) {
        self.bytes += bytes;
        own.page.bytes += bytes;
    }

    /// Counts what a page takes now that it is here.
    pub(super) fn on_page(&mut self, subscriber: &mut Subscriber, now: Instant) {
        let of = subscriber.exchange;
        let own = subscriber.own();
        self.release(own);
        self.reserve(own, own.unsent.bytes_held());
        self.last += 1;
        own.page.number = Some(self.last);
        self.unsent.insert(self.last, UnsentPage { of, since: now });
    }

    /// Releases the page of a subscriber that has sent it, or does not wait for it any more.
    pub(super) fn on_sent(&mut self, own: &mut Own) {
        if own.unsent.is_empty() && !matches!(own.source, Source::AwaitingPage(_)) {
            self.release(own);
        }
    }

    /// Releases the page of a subscriber that leaves.
    pub(super) fn release(&mut self, own: &mut Own) {
        let HeldPage { bytes, number } = std::mem::take(&mut own.page);
        self.bytes -= bytes;
        if let Some(number) = number {
            self.unsent.remove(&number);
        }
    }

    /// The next stream whose socket has had a page for too long. It must be released.
    pub(super) fn overdue(&self, now: Instant) -> Option<ExchangeId> {
        let (_, oldest) = self.unsent.first_key_value()?;
        (oldest.since.after(PAGE_PATIENCE) <= now).then_some(oldest.of)
    }

    /// The sum over all subscribers of the feed.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Writes a page of *changes* for one subscriber that waits for it.
pub(super) struct PageWriter<'a> {
    pub(super) encoding: &'a Encoding,
    pub(super) ids: &'a mut Ids,
    pub(super) counts: &'a mut FeedCounts,
    /// Whether a position is an event, or an id without an event.
    pub(super) position_events: bool,
}

impl PageWriter<'_> {
    /// Writes the entries within the bounds that were asked for. `next`: where the next page
    /// starts. Returns false if the subscriber waits for no page.
    pub(super) fn put<'e>(
        &mut self,
        subscriber: &mut Subscriber,
        entries: impl Iterator<Item = PageEntry<'e>>,
        next: Option<PageCursor>,
    ) -> bool {
        let own = subscriber.own();
        let (Source::AwaitingPage(changes), Some(progress)) = (&own.source, &mut own.progress)
        else {
            return false;
        };
        let (out, id) = (own.unsent.out(), self.ids.text(progress));
        for entry in entries {
            let from = progress.cut.get(entry.partition).offset;
            let below = changes.below.get(entry.partition).offset;
            if (from..below).contains(&entry.offset) {
                self.encoding.put(out, Some(entry.key), entry.value);
                lines::put_id(out, id, &entry.etag.event_id_part());
                self.counts.page_entries += 1;
            }
        }
        match next {
            Some(next) => {
                own.source.on_page(next);
            }
            None => {
                progress.finish_snapshot(&changes.below, changes.time);
                subscriber.cursor = Cursor::after(changes.seq);
                let own = subscriber.own();
                own.source.on_last_page();
                own.put_position(self.position_events, self.ids);
            }
        }
        subscriber.own().unsent.shrink();
        true
    }

    /// Writes gaps for undecodable ranges of the log within the bounds that were asked for. They
    /// carry the client's present id, so that a client that disconnects before the last page
    /// receives them again.
    pub(super) fn put_gaps(&mut self, own: &mut Own, undecodable: &[OffsetRange]) {
        let (Source::AwaitingPage(changes), Some(progress)) = (&own.source, &own.progress) else {
            return;
        };
        let within = |range: &OffsetRange| {
            let from = range.from.max(progress.cut.get(range.partition).offset);
            let to = range.to.min(changes.below.get(range.partition).offset);
            (from < to).then_some((range.partition, from, to))
        };
        let missing: Vec<_> = undecodable.iter().filter_map(within).collect();
        for missing in missing {
            self.counts.gaps += 1;
            own.put_gap(Some(missing), GapReason::Undecodable, self.ids);
        }
    }
}
