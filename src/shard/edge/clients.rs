//! The clients of a shard: their connections, and the exchanges of those that wait.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::CloseReason;
use crate::model::{ExchangeId, Instant, ShardId};
use crate::shard::io::Io;
use crate::shard::totals::ClientTotals;

use super::collection::Collection;
use super::connections::Connections;
use super::context::EdgeContext;
use super::exchanges::{Exchanges, OpenRequest, Wants};
use super::http1::Http1;

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

    /// Closes the exchange of a request that waits, and takes out its connection. `None` if the
    /// client has disconnected.
    pub(super) fn take_waiting(
        &mut self,
        exchange: ExchangeId,
    ) -> Option<(Box<Http1>, OpenRequest)> {
        let request = self.exchanges.close_request(exchange)?;
        let http1 = self.connections.take(request.connection)?;
        Some((http1, request))
    }

    /// Takes out the connection of a request that stays open.
    pub(super) fn take_connection(&mut self, exchange: ExchangeId) -> Option<Box<Http1>> {
        let request = self.exchanges.request(exchange)?;
        self.connections.take(request.connection)
    }

    /// The request that a connection waits for.
    pub(super) fn request(&self, http1: &Http1) -> Option<(ExchangeId, &OpenRequest)> {
        let id = http1.exchange()?;
        Some((id, self.exchanges.request(id)?))
    }

    /// The collection of a connection that sends one.
    pub(super) fn collection(&mut self, http1: &Http1) -> Option<(ExchangeId, &mut Collection)> {
        let id = http1.exchange()?;
        match &mut self.exchanges.request_mut(id)?.wants {
            Wants::Pages(collection) => Some((id, collection)),
            Wants::Outcome { .. }
            | Wants::Reply { .. }
            | Wants::BodyCheck { .. }
            | Wants::Record { .. } => None,
        }
    }
}
