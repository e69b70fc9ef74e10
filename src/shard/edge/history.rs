//! What streams need from elsewhere: pages of *changes* from the slices, catch-up reads of history from
//! the home.

use crate::cache::{ChangeCursor, Changes, Item, Value};
use crate::log::{Cut, Next};
use crate::metrics::{CloseReason, StreamEnd};
use crate::model::{Instant, Partition, ShardId};
use crate::shard::io::{Io, SocketId};
use crate::shard::message::{ChangesPiece, ChangesRequest, Message, Waiter};
use crate::shard::snapshot::TopicIndex;
use crate::sse::{CatchUpId, Need, PageCursor, PageEntry, Ticket};

use super::{Conn, Edge, EdgeContext};

impl Edge {
    /// Asks other shards and the home for what this shard's feeds need, and gives catch-up reads credit.
    pub(in crate::shard) fn pump_feeds<I: Io>(&mut self, cx: &mut EdgeContext<'_, I>) {
        let snapshot = self.snapshot.clone();
        for (topic, projection) in cx.projections.iter_mut() {
            let home = snapshot.topic(topic).home;
            let Some(feed) = &mut projection.feed else {
                continue;
            };
            feed.on_timeout(cx.now.mono);
            while let Some(need) = feed.next_need() {
                let (to, message) =
                    self.ask((topic, projection.instance.number), home, need, cx.now.mono);
                cx.out.push((to, message));
            }
            while let Some(credit) = feed.next_credit() {
                let (catch_up, members) = (credit.catch_up.0, credit.members as usize);
                cx.out.push((
                    home,
                    Message::CatchUpTaken {
                        topic,
                        catch_up,
                        members,
                    },
                ));
            }
        }
    }

    fn ask(
        &self,
        (topic, instance): (TopicIndex, u32),
        home: ShardId,
        need: Need,
        now: Instant,
    ) -> (ShardId, Message) {
        let layout = self.snapshot.layout;
        let waiter = |ticket: Ticket| {
            let generation = self.slots[ticket.token as usize].generation;
            let socket = SocketId {
                slot: ticket.token,
                generation,
            };
            Waiter {
                shard: self.me,
                socket,
                request: ticket.number,
            }
        };
        match need {
            Need::CatchUp {
                ticket,
                from,
                encoding,
            } => {
                let waiter = waiter(ticket);
                (
                    home,
                    Message::JoinCatchUp {
                        topic,
                        instance,
                        encoding,
                        waiter,
                        from,
                    },
                )
            }
            Need::Places { ticket, places } => {
                let waiter = waiter(ticket);
                (
                    home,
                    Message::CheckPlaces {
                        topic,
                        instance,
                        waiter,
                        places,
                    },
                )
            }
            Need::Page {
                ticket,
                since,
                below,
                seq,
                after,
                key,
            } => {
                let owner = key
                    .as_ref()
                    .map(|(hash, _)| hash.owner(layout.first_slice(), layout.slices()));
                let first = owner.unwrap_or(layout.first_slice());
                let to = after.map_or(first, |cursor| cursor.shard);
                let after = after.map(|cursor| ChangeCursor {
                    partition: cursor.partition,
                    offset: cursor.offset,
                });
                let waiter = waiter(ticket);
                let request = ChangesRequest {
                    waiter,
                    topic,
                    instance,
                    seq,
                    deadline: now.after(self.snapshot.config.settings.http.query_timeout),
                    since,
                    below,
                    after,
                    key,
                };
                (to, Message::Changes(Box::new(request)))
            }
        }
    }

    /// A piece of *changes* for a stream.
    pub(in crate::shard) fn on_changed<I: Io>(
        &mut self,
        waiter: Waiter,
        piece: Option<ChangesPiece>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(slot) = self.slot(waiter.socket) else {
            return;
        };
        let Conn::Stream(stream) = &slot.conn else {
            return;
        };
        let Some(ChangesPiece { changes, next }) = piece.filter(|p| is_whole(&p.changes)) else {
            // What can't be shown whole is not shown as if it were: the client comes back.
            return self.finish_stream(waiter.socket, StreamEnd::Failed, CloseReason::Served, cx);
        };
        let projection = cx.projections.get_mut(stream.topic);
        let undecodable = projection
            .as_ref()
            .map_or_else(Vec::new, |it| it.undecodable());
        let feed = projection.and_then(|projection| projection.feed.as_mut());
        // A stream that is ending may outlive its feed.
        let Some(feed) = feed else {
            return;
        };
        let ticket = Ticket {
            token: waiter.socket.slot,
            number: waiter.request,
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
        if next.is_none() && !undecodable.is_empty() {
            feed.on_page_gaps(ticket, &undecodable);
        }
        feed.on_page(ticket, entries, next);
    }

    /// What the home found of a stream's places.
    pub(in crate::shard) fn on_places_checked<I: Io>(
        &mut self,
        topic: TopicIndex,
        waiter: Waiter,
        ends: Option<&[(Partition, Next)]>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let known = self.slot(waiter.socket).is_some();
        let feed = cx
            .projections
            .get_mut(topic)
            .and_then(|projection| projection.feed.as_mut());
        if let Some(feed) = feed.filter(|_| known) {
            let ticket = Ticket {
                token: waiter.socket.slot,
                number: waiter.request,
            };
            feed.on_checked(ticket, ends, cx.now);
        }
    }

    /// Streams are in a catch-up read now. What is gone already is told.
    pub(in crate::shard) fn on_catch_up_joined<I: Io>(
        &mut self,
        topic: TopicIndex,
        catch_up: u32,
        members: &[(Waiter, Cut)],
        log_start: &Cut,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(feed) = cx
            .projections
            .get_mut(topic)
            .and_then(|projection| projection.feed.as_mut())
        else {
            return;
        };
        let ticket = |waiter: &Waiter| Ticket {
            token: waiter.socket.slot,
            number: waiter.request,
        };
        let tickets: Vec<_> = members.iter().map(|(waiter, _)| ticket(waiter)).collect();
        feed.on_catch_up_start(CatchUpId(catch_up), &tickets);
        for ((_, from), ticket) in members.iter().zip(tickets) {
            for (partition, start) in log_start.iter() {
                let held = from.get(partition).offset;
                if held < start.offset {
                    let reason = crate::log::GapReason::Retention;
                    feed.on_gap(ticket, partition, held, start.offset, reason);
                }
            }
        }
    }
}

/// Whether a piece of *changes* shows all that there is.
fn is_whole(changes: &Changes) -> bool {
    let held = |item: &Item| !matches!(item.value, Value::Unheld(_));
    !changes.incomplete && changes.items.iter().all(held)
}
