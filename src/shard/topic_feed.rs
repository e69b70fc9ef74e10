//! The streams of one topic on this shard, and their way to the topic's home and to the slices: a
//! feed's needs become messages, and the answers go to the feed. The edge has no part in it.

use std::time::Duration;

use crate::cache::{ChangeCursor, Changes, Item, Value};
use crate::log::{Cut, OffsetRange, Seq};
use crate::model::{Instant, KeyHash, Now, ShardId, UnixMillis};
use crate::sse::{CatchUpId, Feed, FeedSettings, Need, PageCursor, PageEntry, StreamQuestion};
use crate::sse::{Credit, WaitsAt};

use super::message::{
    ChangesPiece, ChangesRequest, FeedMessage, HistoryMessage, HomeMessage, ProjectionMessage,
    TopicMessage,
};
use super::outbox::Outbox;
use super::snapshot::{Layout, TopicId};

/// Where a topic's streams send what they need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) topic: TopicId,
    pub(super) incarnation: u32,
    pub(super) home: ShardId,
    pub(super) layout: Layout,
    /// How long a slice may hold the request for a page.
    pub(super) page_timeout: Duration,
}

/// The feed of one incarnation of a topic.
#[derive(Debug)]
pub(super) struct TopicFeed {
    feed: Feed,
    route: Route,
    /// What the shard has counted for the feed's pages.
    pages_counted: usize,
}

impl TopicFeed {
    /// A feed after step `seq`, which led to `cut` at `time`.
    pub(super) fn new(
        settings: FeedSettings,
        route: Route,
        seq: Seq,
        cut: Cut,
        time: UnixMillis,
    ) -> Self {
        let feed = Feed::new(settings, seq, cut, time);
        Self {
            feed,
            route,
            pages_counted: 0,
        }
    }

    pub(super) const fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) const fn feed_mut(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// Hands an answer to the feed. `undecodable`: the ranges of the log that can't be decoded.
    pub(super) fn on_message(
        &mut self,
        message: FeedMessage,
        undecodable: impl FnOnce() -> Vec<OffsetRange>,
        now: Now,
    ) {
        let feed = &mut self.feed;
        match message {
            FeedMessage::Changed(question, piece) => {
                self.on_changed(question, piece.map(|it| *it), undecodable, now.mono);
            }
            FeedMessage::EpochsChecked { question, ends } => {
                feed.on_epochs_checked(question, ends.as_deref(), now);
            }
            FeedMessage::CatchUpJoined {
                catch_up,
                members,
                log_start,
            } => feed.on_catch_up_joined(CatchUpId(catch_up), &members, &log_start),
            FeedMessage::CatchUpBlock { catch_up, block } => {
                feed.on_catch_up_block(CatchUpId(catch_up), &block, now.mono);
            }
            FeedMessage::CatchUpGap { catch_up, notice } => {
                feed.on_catch_up_gap(CatchUpId(catch_up), notice);
            }
            FeedMessage::CatchUpEnd {
                catch_up, seq, cut, ..
            } => feed.on_catch_up_end(CatchUpId(catch_up), seq, &cut),
            FeedMessage::CatchUpStalled { catch_up } => {
                feed.on_catch_up_stalled(CatchUpId(catch_up));
            }
        }
    }

    fn on_changed(
        &mut self,
        question: StreamQuestion,
        piece: Option<ChangesPiece>,
        undecodable: impl FnOnce() -> Vec<OffsetRange>,
        now: Instant,
    ) {
        let Some(ChangesPiece { changes, next }) = piece.filter(|it| is_whole(&it.changes)) else {
            return self.feed.on_page_failed(question);
        };
        let next = next.map(|(shard, cursor)| PageCursor {
            shard,
            partition: cursor.partition,
            offset: cursor.offset,
        });
        let entries = changes.items.iter().map(|item| PageEntry {
            key: &item.key,
            value: match &item.value {
                Value::Held(value) => Some(&value[..]),
                Value::Tombstone(_) | Value::Unheld(_) => None,
            },
            etag: &item.etag,
            partition: item.partition,
            offset: item.offset,
        });
        if next.is_none() {
            self.feed.on_page_gaps(question, &undecodable());
        }
        self.feed.on_page(question, entries, next, now);
    }

    /// What the shard has counted for the feed's pages, and what it counts from now on.
    pub(super) const fn recount_pages(&mut self) -> (usize, usize) {
        let now = self.feed.page_bytes();
        (std::mem::replace(&mut self.pages_counted, now), now)
    }

    /// What the shard has counted for the feed's pages.
    pub(super) const fn pages_counted(&self) -> usize {
        self.pages_counted
    }

    /// Asks for the page that has waited longest for memory. `bytes`: the most that it may take.
    pub(super) fn ask_page(&mut self, bytes: usize, now: Instant, out: &mut Outbox) {
        if let Some(need) = self.feed.next_page(bytes) {
            self.route.send_need(need, now, out);
        }
    }

    /// Handles deadlines, and sends what the feed needs apart from pages.
    pub(super) fn pump(&mut self, now: Instant, out: &mut Outbox) {
        self.feed.on_timeout(now);
        while let Some(need) = self.feed.next_need() {
            self.route.send_need(need, now, out);
        }
        while let Some(Credit { catch_up, members }) = self.feed.next_credit() {
            let taken = HistoryMessage::Taken {
                catch_up: catch_up.0,
                members: members as usize,
            };
            self.route.to_home(taken, out);
        }
    }
}

impl Route {
    fn to_home(&self, message: HistoryMessage, out: &mut Outbox) {
        let message = HomeMessage::Topic {
            topic: self.topic,
            incarnation: self.incarnation,
            message: TopicMessage::History(message),
        };
        out.to_home(self.home, message);
    }

    /// The slice that has the next page: the one where the page before ended, else the owner of the
    /// key, else the first.
    fn slice(&self, after: Option<PageCursor>, key: Option<KeyHash>) -> ShardId {
        let (first, slices) = (self.layout.first_slice(), self.layout.slices());
        let start = key.map_or(first, |hash| hash.owner(first, slices));
        after.map_or(start, |cursor| cursor.shard)
    }

    fn send_need(&self, need: Need, now: Instant, out: &mut Outbox) {
        match need {
            Need::CatchUp {
                question,
                from,
                encoding,
            } => {
                let join = HistoryMessage::Join {
                    question,
                    encoding,
                    from,
                };
                self.to_home(join, out);
            }
            Need::EpochCheck {
                question,
                positions,
            } => {
                let check = HistoryMessage::CheckEpochs {
                    question,
                    positions,
                };
                self.to_home(check, out);
            }
            Need::Cancel {
                exchange,
                at: WaitsAt::Home,
            } => self.to_home(HistoryMessage::Cancel(exchange), out),
            Need::Cancel {
                exchange,
                at: WaitsAt::Slice { after, key },
            } => {
                let slice = self.slice(after, key);
                out.to_projection(slice, self.topic, ProjectionMessage::Cancel(exchange));
            }
            Need::Page {
                question,
                since,
                below,
                seq,
                after,
                key,
            } => {
                let slice = self.slice(after, key.as_ref().map(|(hash, _)| *hash));
                let after = after.map(|cursor| ChangeCursor {
                    partition: cursor.partition,
                    offset: cursor.offset,
                });
                let request = Box::new(ChangesRequest {
                    question,
                    incarnation: self.incarnation,
                    seq,
                    deadline: now.after(self.page_timeout),
                    since,
                    below,
                    after,
                    key,
                });
                out.to_projection(slice, self.topic, ProjectionMessage::Changes(request));
            }
        }
    }
}

/// Whether a piece of *changes* has every value. What is not whole is not shown as if it were.
fn is_whole(changes: &Changes) -> bool {
    let held = |item: &Item| !matches!(item.value, Value::Unheld(_));
    !changes.incomplete && changes.items.iter().all(held)
}
