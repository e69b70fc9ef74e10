//! The open exchanges of a shard: requests that wait for another shard or whose response is sent in
//! pieces, and event streams. A request that is answered in the turn it arrives in has no exchange.
//!
//! Other shards know an exchange by its [`ExchangeId`] and answer to it. A slot that is used again
//! has another generation, so a late answer is dropped. An exchange knows its [`Carrier`]: a
//! connection of HTTP/1.1, which has one exchange at most, or a stream of HTTP/2.

use crate::config::{BODY_CHECKS_MAX, GZIP_COLLECTIONS_MAX, OneWayStatus};
use crate::http::{IfNoneMatch, ResponseContext};
use crate::model::{
    CommandKey, ExchangeId, Instant, RouteId, ShardId, TopicId, UnixMillis, u32_of,
};
use crate::shard::io::SocketId;
use crate::shard::message::{CommandRequest, HomeMessage, ProjectionMessage};
use crate::shard::outbox::Outbox;

use super::collection::Collection;

/// A stream of an HTTP/2 connection, by its place among the open ones of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamSlot(pub(super) u16);

/// What carries the response of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A whole connection.
    Http1(SocketId),
    /// One stream of a connection.
    Http2(SocketId, StreamSlot),
}

impl Carrier {
    /// The connection.
    pub(super) const fn socket(self) -> SocketId {
        match self {
            Self::Http1(socket) | Self::Http2(socket, _) => socket,
        }
    }
}

/// A request whose response is not complete.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) carrier: Carrier,
    pub(super) context: ResponseContext,
    /// When the request was handled.
    pub(super) began: Instant,
    pub(super) route: RouteId,
    /// The topic that the response comes from.
    pub(super) topic: TopicId,
    pub(super) wants: Wants,
}

/// What the client of a command receives once the command's record is appended.
#[derive(Debug, Default)]
pub(super) enum OnceAppended {
    /// Nothing yet: the client waits for the reply.
    #[default]
    Waits,
    /// 202 and this location: the client prefers an asynchronous answer.
    Location(Box<str>),
    /// This status: the route is one-way.
    OneWay(OneWayStatus),
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Wants {
    /// The outcome of a command, which its home decides.
    Outcome {
        home: ShardId,
        key: CommandKey,
        /// What its client receives once the record is appended.
        once_appended: OnceAppended,
    },
    /// The reply to an asynchronous command, at its location.
    Reply {
        home: ShardId,
        key: CommandKey,
        /// When the location was given.
        since: UnixMillis,
    },
    /// The verdict on the body of a command, which then goes to its home.
    BodyCheck {
        home: ShardId,
        command: Box<CommandRequest>,
        once_appended: OnceAppended,
    },
    /// The newest record of a key.
    Record {
        /// The shard that owns the key.
        owner: ShardId,
        /// The request's `If-None-Match`, for a 304 if it matches.
        condition: Option<Box<IfNoneMatch>>,
        /// Whether the client takes gzip.
        takes_gzip: bool,
    },
    /// Pages of a collection, one slice after another.
    Pages(Box<Collection>),
}

impl OpenRequest {
    /// Withdraws the question, because the client has disconnected: the place at the home or the
    /// slice is freed at once. A command that was produced stays in flight.
    pub(super) fn cancel(&self, id: ExchangeId, out: &mut Outbox) {
        match &self.wants {
            Wants::Outcome { home, key, .. } | Wants::Reply { home, key, .. } => {
                let cancel = HomeMessage::CancelCommand {
                    topic: self.topic,
                    key: *key,
                    exchange: id,
                };
                out.to_home(*home, cancel);
            }
            Wants::Record { owner, .. } => {
                out.to_projection(*owner, self.topic, ProjectionMessage::Cancel(id));
            }
            // The verdict will find no exchange, and nothing is produced.
            Wants::BodyCheck { .. } => {}
            Wants::Pages(collection) => collection.cancel(id, out),
        }
    }
}

/// A slot. Small, because an idle stream has one: the stream's state is with its connection, and a
/// request is in a table of its own.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    exchange: Exchange,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Exchange {
    #[default]
    None,
    /// The place among the requests.
    Request(u32),
    /// What carries an event stream.
    Stream(Carrier),
}

const _: () = {
    // An idle stream is to cost a few hundred bytes in all.
    assert!(size_of::<Slot>() <= 16);
};

/// The open exchanges of one shard. At most as many as its connections may have: with HTTP/1.1 one
/// each, with HTTP/2 `http2.streams_max`.
#[derive(Debug)]
pub(super) struct Exchanges {
    shard: ShardId,
    slots: Vec<Slot>,
    /// Slots without an exchange. The one freed last is used first.
    free: Vec<u32>,
    requests: Vec<Option<OpenRequest>>,
    free_requests: Vec<u32>,
    /// Bodies that are checked outside the shard, also those of clients that have disconnected.
    body_checks: usize,
    /// Collections that are compressed.
    gzips: usize,
}

impl Exchanges {
    pub(super) const fn new(shard: ShardId) -> Self {
        Self {
            shard,
            slots: Vec::new(),
            free: Vec::new(),
            requests: Vec::new(),
            free_requests: Vec::new(),
            body_checks: 0,
            gzips: 0,
        }
    }

    /// Opens an exchange for a request that must wait.
    pub(super) fn open_request(&mut self, request: OpenRequest) -> ExchangeId {
        let at = match self.free_requests.pop() {
            Some(at) => {
                self.requests[at as usize] = Some(request);
                at
            }
            None => {
                self.requests.push(Some(request));
                u32_of(self.requests.len() - 1)
            }
        };
        self.open(Exchange::Request(at))
    }

    /// The command of a request waits for the verdict on its body.
    pub(super) fn on_body_check(
        &mut self,
        id: ExchangeId,
        home: ShardId,
        command: Box<CommandRequest>,
    ) {
        if let Some(request) = self.request_mut(id)
            && let Wants::Outcome { once_appended, .. } = &mut request.wants
        {
            let once_appended = std::mem::take(once_appended);
            request.wants = Wants::BodyCheck {
                home,
                command,
                once_appended,
            };
        }
    }

    /// The body of a command is valid: the exchange now waits for the outcome. Returns the command
    /// and its home. `None`: the exchange was closed.
    pub(super) fn on_body_valid(
        &mut self,
        id: ExchangeId,
    ) -> Option<(ShardId, Box<CommandRequest>)> {
        let wants = &mut self.request_mut(id)?.wants;
        let Wants::BodyCheck {
            home,
            command,
            once_appended,
        } = wants
        else {
            return None;
        };
        let (home, key) = (*home, command.key);
        let outcome = Wants::Outcome {
            home,
            key,
            once_appended: std::mem::take(once_appended),
        };
        match std::mem::replace(wants, outcome) {
            Wants::BodyCheck { command, .. } => Some((home, command)),
            _ => None,
        }
    }

    /// Counts a body that is checked outside the shard. Returns false at [`BODY_CHECKS_MAX`].
    #[must_use]
    pub(super) const fn take_body_check(&mut self) -> bool {
        let free = self.body_checks < BODY_CHECKS_MAX;
        self.body_checks += free as usize;
        free
    }

    /// The number of bodies that are checked outside the shard.
    pub(super) const fn body_checks(&self) -> u64 {
        self.body_checks as u64
    }

    /// A verdict has arrived.
    pub(super) const fn give_back_body_check(&mut self) {
        self.body_checks = self.body_checks.saturating_sub(1);
    }

    /// Counts a collection that is compressed, until its request is closed. Returns false at
    /// [`GZIP_COLLECTIONS_MAX`].
    #[must_use]
    pub(super) const fn take_gzip(&mut self) -> bool {
        let free = self.gzips < GZIP_COLLECTIONS_MAX;
        self.gzips += free as usize;
        free
    }

    /// Opens an exchange for an event stream.
    pub(super) fn open_stream(&mut self, carrier: Carrier) -> ExchangeId {
        self.open(Exchange::Stream(carrier))
    }

    fn open(&mut self, exchange: Exchange) -> ExchangeId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32_of(self.slots.len() - 1)
        });
        let place = &mut self.slots[slot as usize];
        debug_assert_eq!(
            place.exchange,
            Exchange::None,
            "a free slot has no exchange"
        );
        place.exchange = exchange;
        ExchangeId {
            shard: self.shard,
            slot,
            generation: place.generation,
        }
    }

    fn find(&self, id: ExchangeId) -> Exchange {
        match self.slots.get(id.slot as usize) {
            Some(slot) if slot.generation == id.generation => slot.exchange,
            _ => Exchange::None,
        }
    }

    /// A request, while it is open.
    pub(super) fn request(&self, id: ExchangeId) -> Option<&OpenRequest> {
        match self.find(id) {
            Exchange::Request(at) => self.requests[at as usize].as_ref(),
            Exchange::None | Exchange::Stream(_) => None,
        }
    }

    /// Like [`Self::request`], for a change.
    pub(super) fn request_mut(&mut self, id: ExchangeId) -> Option<&mut OpenRequest> {
        match self.find(id) {
            Exchange::Request(at) => self.requests[at as usize].as_mut(),
            Exchange::None | Exchange::Stream(_) => None,
        }
    }

    /// What carries a stream, while it is open.
    pub(super) fn stream(&self, id: ExchangeId) -> Option<Carrier> {
        match self.find(id) {
            Exchange::Stream(carrier) => Some(carrier),
            Exchange::None | Exchange::Request(_) => None,
        }
    }

    /// Closes the exchange of a request. `None`: it was closed before.
    pub(super) fn close_request(&mut self, id: ExchangeId) -> Option<OpenRequest> {
        let Exchange::Request(at) = self.find(id) else {
            return None;
        };
        self.close(id);
        self.free_requests.push(at);
        let request = self.requests[at as usize].take();
        if let Some(Wants::Pages(collection)) = request.as_ref().map(|it| &it.wants)
            && collection.is_compressed()
        {
            self.gzips -= 1;
        }
        request
    }

    /// Closes the exchange of a stream.
    pub(super) fn close_stream(&mut self, id: ExchangeId) {
        if self.stream(id).is_some() {
            self.close(id);
        }
    }

    fn close(&mut self, id: ExchangeId) {
        let slot = &mut self.slots[id.slot as usize];
        slot.exchange = Exchange::None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: Carrier = Carrier::Http1(SocketId {
        slot: 7,
        generation: 3,
    });

    fn request(route: u16) -> OpenRequest {
        OpenRequest {
            carrier: CONNECTION,
            context: ResponseContext::UNREAD,
            began: Instant::ZERO,
            route: RouteId(route),
            topic: TopicId(0),
            wants: Wants::Outcome {
                home: ShardId(0),
                key: CommandKey([0; 16]),
                once_appended: OnceAppended::Waits,
            },
        }
    }

    #[test]
    fn a_late_answer_finds_nobody() {
        let mut exchanges = Exchanges::new(ShardId(1));
        let first = exchanges.open_request(request(1));
        let closed = exchanges.close_request(first);
        assert_eq!(closed.map(|it| it.route), Some(RouteId(1)));
        let second = exchanges.open_stream(CONNECTION);
        assert_eq!((first.slot, second.slot), (0, 0), "the slot is used again");
        assert!(exchanges.request(first).is_none() && exchanges.request_mut(first).is_none());
        assert!(exchanges.stream(first).is_none() && exchanges.request(second).is_none());
        assert!(exchanges.close_request(first).is_none());
        exchanges.close_stream(first);
        assert_eq!(exchanges.stream(second), Some(CONNECTION));
    }

    /// As HTTP/2 has several exchanges per connection.
    #[test]
    fn a_connection_may_have_many() {
        let mut exchanges = Exchanges::new(ShardId(1));
        let ids: Vec<_> = (0..3)
            .map(|route| exchanges.open_request(request(route)))
            .collect();
        assert!(exchanges.close_request(ids[1]).is_some());
        let routes = [ids[0], ids[2]].map(|id| exchanges.request(id).map(|it| it.route));
        assert_eq!(routes, [Some(RouteId(0)), Some(RouteId(2))]);
        assert_eq!(exchanges.open_request(request(9)).slot, ids[1].slot);
        assert_eq!((exchanges.slots.len(), exchanges.requests.len()), (3, 3));
    }
}
