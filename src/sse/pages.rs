//! Pages of *changes*: how one is written for its subscriber.

use super::cursor::Cursor;
use super::encode::Encoding;
use super::ids::Ids;
use super::lines;
use super::request::{FeedCounts, PageCursor, PageEntry};
use super::source::Source;
use super::subscriber::{Own, Subscriber};
use crate::log::{GapReason, OffsetRange};

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
