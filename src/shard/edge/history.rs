//! What streams need from elsewhere: pages of *changes* from the slices, catch-up reads of history from
//! the home.

use crate::cache::{ChangeCursor, Changes, Item, Value};
use crate::log::{Cut, Next};
use crate::metrics::{CloseReason, StreamEnd};
use crate::model::{ExchangeId, Instant, Partition};
use crate::shard::io::{Io, SocketId};
use crate::shard::message::{
    ChangesPiece, ChangesRequest, HomeMessage, ProjectionMessage, StreamQuestion, TopicMessage,
};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::TopicIndex;
use crate::sse::{CatchUpId, Need, PageCursor, PageEntry, Ticket};

use super::{Conn, Edge, EdgeContext};

impl Edge {
    /// Asks other shards and the home for what this shard's feeds need, and gives catch-up reads credit.
    pub(in crate::shard) fn pump_feeds<I: Io>(&self, cx: &mut EdgeContext<'_, I>) {
        for (topic, projection) in cx.projections.iter_mut() {
            let incarnation = projection.incarnation.number;
            let Some(feed) = &mut projection.feed else {
                continue;
            };
            feed.on_timeout(cx.now.mono);
            while let Some(need) = feed.next_need() {
                self.ask((topic, incarnation), need, cx.now.mono, cx.out);
            }
            while let Some(credit) = feed.next_credit() {
                let taken = TopicMessage::CatchUpTaken {
                    catch_up: credit.catch_up.0,
                    members: credit.members as usize,
                };
                self.ask_home((topic, incarnation), taken, cx.out);
            }
        }
    }

    fn ask_home(
        &self,
        (topic, incarnation): (TopicIndex, u32),
        message: TopicMessage,
        out: &mut Outbox,
    ) {
        let home = self.snapshot.topic(topic).home;
        let message = HomeMessage::Topic {
            topic,
            incarnation,
            message,
        };
        out.to_home(home, message);
    }

    fn ask(&self, of: (TopicIndex, u32), need: Need, now: Instant, out: &mut Outbox) {
        let layout = self.snapshot.layout;
        let question = |ticket: Ticket| StreamQuestion {
            exchange: self.stream_exchange(ticket.token),
            number: ticket.number,
        };
        match need {
            Need::CatchUp {
                ticket,
                from,
                encoding,
            } => {
                let join = TopicMessage::JoinCatchUp {
                    question: question(ticket),
                    encoding,
                    from,
                };
                self.ask_home(of, join, out);
            }
            Need::Places { ticket, places } => {
                let question = question(ticket);
                self.ask_home(of, TopicMessage::CheckPlaces { question, places }, out);
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
                let (topic, incarnation) = of;
                let request = ChangesRequest {
                    question: question(ticket),
                    incarnation,
                    seq,
                    deadline: now.after(self.snapshot.config.settings.http.query_timeout),
                    since,
                    below,
                    after,
                    key,
                };
                out.to_projection(to, topic, ProjectionMessage::Changes(Box::new(request)));
            }
        }
    }

    /// The name of the stream in a slot.
    fn stream_exchange(&self, slot: u32) -> ExchangeId {
        // A stream is the last exchange of its connection, so no later one has a number yet.
        let generation = self.slots[slot as usize].next_exchange.wrapping_sub(1);
        let shard = self.me;
        ExchangeId {
            shard,
            slot,
            generation,
        }
    }

    /// The socket and the topic of a stream that is still open.
    fn open_stream(&self, exchange: ExchangeId) -> Option<(SocketId, TopicIndex)> {
        let slot = self.slots.get(exchange.slot as usize)?;
        let Conn::Stream(stream) = &slot.conn else {
            return None;
        };
        let socket = SocketId {
            slot: exchange.slot,
            generation: slot.generation,
        };
        (stream.exchange == exchange.generation).then_some((socket, stream.topic))
    }

    /// A piece of *changes* for a stream.
    pub(in crate::shard) fn on_changed<I: Io>(
        &mut self,
        question: StreamQuestion,
        piece: Option<ChangesPiece>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((socket, topic)) = self.open_stream(question.exchange) else {
            return;
        };
        let Some(ChangesPiece { changes, next }) = piece.filter(|p| is_whole(&p.changes)) else {
            // What can't be shown whole is not shown as if it were: the client comes back.
            return self.finish_stream(socket, StreamEnd::Failed, CloseReason::Served, cx);
        };
        let projection = cx.projections.get_mut(topic);
        let undecodable = projection
            .as_ref()
            .map_or_else(Vec::new, |it| it.undecodable());
        let feed = projection.and_then(|projection| projection.feed.as_mut());
        // A stream that is ending may outlive its feed.
        let Some(feed) = feed else {
            return;
        };
        let ticket = Ticket {
            token: question.exchange.slot,
            number: question.number,
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
        question: StreamQuestion,
        ends: Option<&[(Partition, Next)]>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let known = self.open_stream(question.exchange).is_some();
        let feed = cx
            .projections
            .get_mut(topic)
            .and_then(|projection| projection.feed.as_mut());
        if let Some(feed) = feed.filter(|_| known) {
            let ticket = Ticket {
                token: question.exchange.slot,
                number: question.number,
            };
            feed.on_checked(ticket, ends, cx.now);
        }
    }

    /// Streams are in a catch-up read now. What is gone already is told.
    pub(in crate::shard) fn on_catch_up_joined<I: Io>(
        &mut self,
        topic: TopicIndex,
        catch_up: u32,
        members: &[(StreamQuestion, Cut)],
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
        let ticket = |question: &StreamQuestion| Ticket {
            token: question.exchange.slot,
            number: question.number,
        };
        let tickets: Vec<_> = members
            .iter()
            .map(|(question, _)| ticket(question))
            .collect();
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
