//! The clients of a shard: their connections, and the exchanges of those that wait.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::CloseReason;
use crate::model::{ExchangeId, Instant, ShardId};
use crate::shard::io::{Io, SocketId};
use crate::shard::totals::ClientTotals;

use super::collection::Collection;
use super::connections::Connections;
use super::context::EdgeContext;
use super::exchanges::{Carrier, Exchanges, OpenRequest, StreamSlot, Wants};
use super::http1::Http1;
use super::http2::Http2;
use super::http2_stream::Http2Stream;

/// The connection of an open exchange, taken out to answer the exchange.
#[derive(Debug)]
pub(super) enum Asker {
    Http1(Box<Http1>),
    Http2(Box<Http2>, StreamSlot),
}

impl Asker {
    pub(super) fn socket(&self) -> SocketId {
        match self {
            Self::Http1(http1) => http1.socket(),
            Self::Http2(http2, _) => http2.socket(),
        }
    }

    /// Whether bytes of earlier pieces still wait for the client.
    pub(super) fn is_behind(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.backlog() > 0,
            Self::Http2(http2, slot) => http2.stream(*slot).is_some_and(|it| it.rest() > 0),
        }
    }
}

/// Connections and exchanges, which end together: a client that disconnects cancels what it waits
/// for.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) connections: Connections,
    pub(super) exchanges: Exchanges,
}

impl Clients {
    pub(super) fn new(
        me: ShardId,
        totals: Arc<ClientTotals>,
        write_timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            connections: Connections::new(totals, write_timeout, now),
            exchanges: Exchanges::new(me),
        }
    }

    /// Closes a connection that was taken out, and cancels its exchange.
    pub(super) fn close<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        why: CloseReason,
        cx: &mut EdgeContext<'_, I>,
    ) {
        http1.close(cx.io);
        if let Some(id) = http1.exchange()
            && let Some(request) = self.exchanges.close_request(id)
        {
            request.cancel(id, cx.out);
        }
        let (close, metrics) = (&mut *cx.close, &mut *cx.metrics);
        self.connections.close(&http1, why, close, metrics);
    }

    /// Cancels the request of a stream whose client has reset it.
    pub(super) fn cancel<I: Io>(&mut self, stream: &Http2Stream, cx: &mut EdgeContext<'_, I>) {
        if let Some(id) = stream.request()
            && let Some(request) = self.exchanges.close_request(id)
        {
            request.cancel(id, cx.out);
        }
    }

    /// Closes the exchange of a request that waits, and takes out its connection. `None` if the
    /// client has disconnected.
    pub(super) fn take_waiting(&mut self, exchange: ExchangeId) -> Option<(Asker, OpenRequest)> {
        let request = self.exchanges.close_request(exchange)?;
        let asker = self.take(request.carrier)?;
        Some((asker, request))
    }

    /// Takes out the connection of a request that stays open.
    pub(super) fn take_connection(&mut self, exchange: ExchangeId) -> Option<Asker> {
        let carrier = self.exchanges.request(exchange)?.carrier;
        self.take(carrier)
    }

    fn take(&mut self, carrier: Carrier) -> Option<Asker> {
        Some(match carrier {
            Carrier::Http1(socket) => Asker::Http1(self.connections.take(socket)?),
            Carrier::Http2(socket, slot) => {
                Asker::Http2(self.connections.take_http2(socket)?, slot)
            }
        })
    }

    /// The collection of an exchange that sends one.
    pub(super) fn collection(&mut self, exchange: ExchangeId) -> Option<&mut Collection> {
        match &mut self.exchanges.request_mut(exchange)?.wants {
            Wants::Pages(collection) => Some(collection),
            Wants::Outcome { .. }
            | Wants::Reply { .. }
            | Wants::BodyCheck { .. }
            | Wants::Record { .. } => None,
        }
    }
}
