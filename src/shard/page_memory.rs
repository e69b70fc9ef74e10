//! Memory of a shard for pages of *changes*. A stream of a compacted topic that resumes reads such
//! pages, and each stays in memory until its socket has taken it. Without a limit, 10,000 clients
//! that return at once after a short outage would take a gigabyte.

use crate::config::PAGES_BYTES_MAX;
use crate::sse::page_bytes_max;

use super::active::ActiveSet;
use super::topic_feed::TopicFeed;
use super::work_limits::PAGE;

/// Most memory of one page. It is reserved when the page is asked for. A record larger than a page
/// is a page of its own, and then counts as what it takes.
pub(super) const PAGE_BYTES_MAX: usize = page_bytes_max(PAGE.entries, PAGE.bytes);

const _: () = {
    // Pages of several streams are read at the same time.
    assert!(8 * PAGE_BYTES_MAX <= PAGES_BYTES_MAX);
};

/// What pages take on this shard, over all topics, and the topics whose streams wait for memory.
#[derive(Debug)]
pub(super) struct PageMemory {
    bytes_max: usize,
    used: usize,
    /// Each topic asks for one page, then the next topic does. So a topic with many streams that
    /// resume does not keep another topic's from resuming.
    waiting: ActiveSet,
}

impl PageMemory {
    /// `bytes_max`: at least [`PAGE_BYTES_MAX`], or no page fits.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: bytes_max.max(PAGE_BYTES_MAX),
            used: 0,
            waiting: ActiveSet::default(),
        }
    }

    /// Counts what the pages of a topic take now.
    pub(super) fn recount(&mut self, place: usize, feed: &mut TopicFeed) {
        let (before, now) = feed.recount_pages();
        self.used = self.used - before + now;
        if feed.feed().pages_waiting() > 0 {
            self.waiting.insert(place);
        }
    }

    /// A feed ends, with its pages.
    pub(super) const fn release(&mut self, feed: &TopicFeed) {
        self.used -= feed.pages_counted();
    }

    /// The topic whose streams may ask for a page. `None`: none waits, or there is no memory.
    pub(super) fn next_topic(&mut self) -> Option<usize> {
        let room = self.used + PAGE_BYTES_MAX <= self.bytes_max;
        room.then(|| self.waiting.pop()).flatten()
    }

    /// Whether streams wait for memory.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What all pages take.
    pub(super) const fn used(&self) -> usize {
        self.used
    }
}
