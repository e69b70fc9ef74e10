//! Collections: a JSON array streamed piece by piece, slice after slice in the order of the key
//! hashes. A client holds one page at most; the next is asked for when its socket has taken the
//! last.

use crate::cache::{Page, Value};
use crate::metrics::{CloseReason, RouteKind, StatusClass};
use crate::model::{ExchangeId, Id as _, Instant, KeyHash, ShardId};
use crate::shard::io::Io;
use crate::shard::message::ProjectionMessage;

use super::client::{Client, Scan, State};
use super::{Edge, EdgeContext};

impl Edge {
    /// Goes on with a client's collection: writes the page that is there, or asks for the next.
    pub(super) fn scan<I: Io>(&mut self, mut client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        let (exchange, deadline) = (self.exchange(&client), client.deadline);
        let State::Scanning(scan) = &mut client.state else {
            return self.put(client);
        };
        if let Some(page) = scan.page.take() {
            return self.write_page(client, page, cx);
        }
        if !std::mem::replace(&mut scan.asked, true) {
            let message = scan.ask(exchange, deadline);
            cx.out.to_projection(scan.shard, scan.topic, message);
        }
        self.put(client);
    }

    /// A page, for the client that waits for it.
    pub(in crate::shard) fn on_scanned<I: Io>(
        &mut self,
        exchange: ExchangeId,
        page: Option<Page>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(mut client) = self.take_exchange(exchange) else {
            return;
        };
        let State::Scanning(scan) = &mut client.state else {
            return self.put(client);
        };
        if !std::mem::replace(&mut scan.asked, false) {
            return self.put(client);
        }
        let Some(page) = page.filter(|page| !page.incomplete) else {
            // The array began already: only a cut connection can say that it is not whole.
            return self.end(client, CloseReason::Refused, cx);
        };
        self.write_page(client, page, cx);
    }

    fn write_page<I: Io>(
        &mut self,
        mut client: Box<Client>,
        page: Page,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let full = client.backlog() > 0;
        let State::Scanning(scan) = &mut client.state else {
            return self.put(client);
        };
        if full {
            scan.page = Some(page);
            return self.put(client);
        }
        let mut unheld = false;
        self.piece.clear();
        for item in &page.items {
            match &item.value {
                Value::Held(value) if item.listed => {
                    self.piece.push(if scan.any { b',' } else { b'[' });
                    scan.any = true;
                    self.piece.extend_from_slice(value);
                }
                // A value that is not JSON is left out. It was counted when it was cached.
                Value::Held(_) | Value::Tombstone(_) => {}
                Value::Unheld(_) => unheld = true,
            }
        }
        if unheld {
            return self.end(client, CloseReason::Refused, cx);
        }
        let last = self.snapshot.layout.shards - 1;
        match page.next {
            Some(after) => scan.after = Some(after),
            None if scan.shard.0 < last => {
                scan.shard = ShardId(scan.shard.0 + 1);
                scan.after = None;
            }
            None => {
                let end: &[u8] = if scan.any { b"]\n" } else { b"[]\n" };
                self.piece.extend_from_slice(end);
                self.responder.piece(scan.framed, &self.piece);
                self.responder.end(scan.framed);
                let took = cx.now.mono.since(scan.began);
                cx.metrics
                    .general
                    .request_time
                    .at(RouteKind::Query)
                    .record(took);
                let route = &mut cx.metrics.routes[scan.route.index()];
                route.requests.bump(StatusClass::Success);
                let close = scan.framed.close;
                client.exchange = client.exchange.wrapping_add(1);
                client.state = if close {
                    State::Closing
                } else {
                    State::Reading
                };
                return self.resume(client, cx);
            }
        }
        self.responder.piece(scan.framed, &self.piece);
        // Each page has the write timeout anew; a collection's only bound is its reader's patience.
        client.deadline = cx
            .now
            .mono
            .after(self.snapshot.config.settings.http.query_timeout);
        self.resume(client, cx);
    }
}

impl Scan {
    fn ask(&self, exchange: ExchangeId, deadline: Instant) -> ProjectionMessage {
        let after: Option<(KeyHash, Box<[u8]>)> = self.after.clone();
        ProjectionMessage::Scan {
            exchange,
            incarnation: self.incarnation,
            seq: self.seq,
            deadline,
            after,
        }
    }
}
