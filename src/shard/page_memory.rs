//! Memory of a shard for pages of *changes*. A stream of a compacted topic that resumes reads such
//! pages, and each stays in memory until its socket has taken it. Without a limit, 10,000 clients
//! that return at once after a short outage would take a gigabyte. A client that does not read may
//! keep its page for [`PAGE_PATIENCE`] while others wait.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::PAGES_BYTES_MAX;
use crate::model::Instant;
use crate::sse::{PAGE_PATIENCE, page_bytes_max};

use super::active::ActiveSet;
use super::topic_feed::TopicFeed;
use super::work_limits::PAGE;

/// Most memory of one page. It is reserved when the page is asked for. A record larger than a page
/// is a page of its own, and then counts as what it takes.
pub(super) const PAGE_BYTES_MAX: usize = page_bytes_max(PAGE.entries, PAGE.bytes);

/// How often overdue pages are looked for while streams wait for memory.
const CHECK_EVERY: Duration = Duration::from_secs(1);

const _: () = {
    // Looking for overdue pages adds little to the time that they may take.
    assert!(CHECK_EVERY.as_secs() * 10 <= PAGE_PATIENCE.as_secs());
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
    /// The topics whose streams have pages.
    holding: BTreeSet<usize>,
    /// When to look for pages that sockets have had for too long. `None`: no stream waits.
    check_at: Option<Instant>,
}

impl PageMemory {
    /// `bytes_max`: at least [`PAGE_BYTES_MAX`], or no page fits.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: bytes_max.max(PAGE_BYTES_MAX),
            used: 0,
            waiting: ActiveSet::default(),
            holding: BTreeSet::new(),
            check_at: None,
        }
    }

    /// Counts what the pages of a topic take now.
    pub(super) fn recount(&mut self, place: usize, feed: &mut TopicFeed) {
        let (before, now) = feed.recount_pages();
        self.used = self.used - before + now;
        if now > 0 {
            self.holding.insert(place);
        } else {
            self.holding.remove(&place);
        }
        if feed.feed().pages_waiting() > 0 {
            self.waiting.insert(place);
        }
    }

    /// A topic's feed ends, with its pages.
    pub(super) fn release(&mut self, place: usize, feed: &TopicFeed) {
        self.used -= feed.pages_counted();
        self.holding.remove(&place);
    }

    /// The topic whose streams may ask for a page. `None`: none waits, or there is no memory.
    pub(super) fn next_topic(&mut self) -> Option<usize> {
        let room = self.used + PAGE_BYTES_MAX <= self.bytes_max;
        room.then(|| self.waiting.pop()).flatten()
    }

    /// Plans the next look for overdue pages. Call it when [`Self::next_topic`] has returned
    /// `None`.
    pub(super) fn plan_check(&mut self, now: Instant) {
        let waits = self.is_waited_for();
        self.check_at = waits.then(|| self.check_at.unwrap_or(now.after(CHECK_EVERY)));
    }

    /// When pages that sockets have had for too long must end. `None`: no stream waits for memory.
    pub(super) const fn next_check(&self) -> Option<Instant> {
        self.check_at
    }

    /// The topics whose streams have pages, if overdue ones must end now.
    pub(super) fn check(&mut self, now: Instant) -> Vec<usize> {
        if self.check_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.check_at = None;
        self.holding.iter().copied().collect()
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
