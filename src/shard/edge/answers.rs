//! Answers that come from other shards, and pages of collections, for the exchanges that wait.

use crate::cache::Page;
use crate::metrics::{CloseReason, CommandOutcome, RouteKind, StatusClass};
use crate::model::{ExchangeId, Id as _};
use crate::route::Failure;
use crate::shard::io::{Io, Remote};
use crate::shard::message::{Answer, EdgeMessage, Found};

use super::collection::{Collection, Written};
use super::context::EdgeContext;
use super::exchanges::{OpenRequest, Wants};
use super::http1::Http1;
use super::lifecycle::Edge;
use super::responder::Responded;
use super::responses::{class, outcome_of, respond_found, respond_reply};

impl Edge {
    /// Handles what another shard sends to an exchange. The exchange may be closed already.
    pub(in crate::shard) fn on_message<I: Io>(
        &mut self,
        exchange: ExchangeId,
        message: EdgeMessage,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match message {
            EdgeMessage::Answer(answer) => self.on_answer(exchange, answer, cx),
            EdgeMessage::Got(found) => self.on_got(exchange, &found, cx),
            EdgeMessage::Scanned(page) => self.on_scanned(exchange, page, cx),
        }
    }

    /// The outcome of a command.
    fn on_answer<I: Io>(
        &mut self,
        exchange: ExchangeId,
        answer: Answer,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((http1, request)) = self.take_waiting(exchange) else {
            return;
        };
        let outcome = match &answer {
            Answer::Reply {
                replayed: false, ..
            } => CommandOutcome::Answered,
            Answer::Reply { replayed: true, .. } => CommandOutcome::Replayed,
            Answer::Refused(refused) => outcome_of(refused),
        };
        let commands = &mut cx.metrics.commands[request.route.index()].commands;
        commands.bump(outcome);
        let (responder, context) = (&mut self.responder, request.context);
        let responded = match answer {
            Answer::Reply { reply, replayed } => {
                respond_reply(responder, context, &reply, replayed)
            }
            Answer::Refused(mut refused) => {
                if outcome == CommandOutcome::Unknown {
                    let replies = &self.site.snapshot.topic(request.topic).name;
                    let waited = cx.now.mono.since(request.began).as_secs_f64();
                    // Say where to look: a misspelt correlation id has no other visible effect for
                    // a client.
                    let what = format!("no reply came on topic `{replies}` in {waited:.1} s");
                    refused.detail = format!("{what}: {}", refused.detail).into();
                }
                responder.refuse(context, &refused)
            }
        };
        self.done(http1, &request, RouteKind::Command, responded, cx);
    }

    /// The newest record of a key.
    fn on_got<I: Io>(&mut self, exchange: ExchangeId, found: &Found, cx: &mut EdgeContext<'_, I>) {
        let Some((http1, request)) = self.take_waiting(exchange) else {
            return;
        };
        let condition = match &request.wants {
            Wants::Record { condition, .. } => condition.as_deref(),
            Wants::Outcome(_) | Wants::Pages(_) => None,
        };
        let age = cx.projections.age(request.topic, cx.now.mono);
        let responder = &mut self.responder;
        let responded = respond_found(responder, request.context, found, condition, age);
        self.done(http1, &request, RouteKind::Query, responded, cx);
    }

    /// Closes the exchange of a request that waits, and takes out its connection. `None` if the
    /// client has disconnected.
    fn take_waiting(&mut self, exchange: ExchangeId) -> Option<(Box<Http1>, OpenRequest)> {
        let mut request = self.exchanges.close_request(exchange)?;
        let http1 = self.connections.take(request.connection)?;
        // The process may have begun to drain since the request came.
        request.context.keep_alive &= http1.has_pipelined() || !self.leaving.has_begun();
        Some((http1, request))
    }

    fn done<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        request: &OpenRequest,
        kind: RouteKind,
        responded: Responded,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let route = &mut cx.metrics.routes[request.route.index()];
        route.requests.bump(class(responded.status));
        let took = cx.now.mono.since(request.began);
        cx.metrics.general.request_time.at(kind).record(took);
        if responded.framed.close {
            self.end_after(&mut http1);
        } else {
            http1.on_response();
        }
        self.resume(http1, cx);
    }

    /// No shard answered in time.
    pub(super) fn give_up<I: Io>(&mut self, http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        let id = http1.exchange();
        let request = id.and_then(|id| self.exchanges.request(id));
        let (Some(id), Some(request)) = (id, request) else {
            debug_assert!(false, "a connection that waits has an open exchange");
            return self.close(http1, CloseReason::Timeout, cx);
        };
        match request.wants {
            // Not even the home answered: the command may have run.
            Wants::Outcome(_) => {
                self.connections.put(http1);
                self.on_answer(id, Answer::Refused(Failure::OutcomeUnknown.into()), cx);
            }
            Wants::Record { .. } => {
                self.connections.put(http1);
                self.on_got(id, &Found::Failed(Failure::NotReady), cx);
            }
            // Half a collection can't be completed: its client sees that it was cut.
            Wants::Pages(_) => self.close(http1, CloseReason::Timeout, cx),
        }
    }

    /// The collection of a connection that sends one.
    fn collection(&mut self, http1: &Http1) -> Option<(ExchangeId, &mut Collection)> {
        let id = http1.exchange()?;
        match &mut self.exchanges.request_mut(id)?.wants {
            Wants::Pages(collection) => Some((id, collection)),
            Wants::Outcome(_) | Wants::Record { .. } => None,
        }
    }

    /// Continues a client's collection: writes the page that is there, or asks for the next.
    pub(super) fn send_pages<I: Io>(&mut self, mut http1: Box<Http1>, cx: &mut EdgeContext<'_, I>) {
        let deadline = http1.deadline();
        let remote = cx.io.remote(http1.socket());
        let Some((id, collection)) = self.collection(&http1) else {
            debug_assert!(false, "a connection that sends pieces has a collection");
            return self.close(http1, CloseReason::Refused, cx);
        };
        if let Some(page) = collection.take_page() {
            return self.write_page(http1, page, cx);
        }
        collection.ask(id, deadline, cx.out);
        let wanted = match remote {
            Remote::Open => true,
            Remote::Ended => {
                let framed = collection.framed();
                let probe = collection.probe();
                probe.is_none_or(|probe| {
                    let mut piece = Vec::new();
                    framed.piece(&mut piece, probe);
                    http1.send(&piece, cx.io)
                })
            }
            Remote::Gone => false,
        };
        if wanted {
            self.connections.put(http1);
        } else {
            self.close(http1, CloseReason::Client, cx);
        }
    }

    /// A page of a collection.
    fn on_scanned<I: Io>(
        &mut self,
        exchange: ExchangeId,
        page: Option<Page>,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let request = self.exchanges.request(exchange);
        let Some(connection) = request.map(|request| request.connection) else {
            return;
        };
        let Some(http1) = self.connections.take(connection) else {
            return;
        };
        let collection = self.collection(&http1);
        if !collection.is_some_and(|(_, collection)| collection.on_page()) {
            return self.connections.put(http1);
        }
        match page.filter(|page| !page.incomplete) {
            Some(page) => self.write_page(http1, page, cx),
            // The array has begun, so only a cut connection shows that it is incomplete.
            None => self.close(http1, CloseReason::Refused, cx),
        }
    }

    fn write_page<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        page: Page,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let full = http1.backlog() > 0;
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        let Some((id, collection)) = self.collection(&http1) else {
            return self.connections.put(http1);
        };
        if full {
            collection.keep(page);
            return self.connections.put(http1);
        }
        let written = collection.write_page(page, &mut piece);
        let framed = collection.framed();
        if written == Written::Broken {
            return self.close(http1, CloseReason::Refused, cx);
        }
        self.responder.piece(framed, &piece);
        self.piece = piece;
        match written {
            Written::All => {
                self.responder.end(framed);
                self.end_collection(&mut http1, id, cx);
                if framed.close {
                    http1.on_last_response();
                } else {
                    http1.on_response();
                }
            }
            Written::More | Written::Broken => {
                // Each page has the write timeout of its own: a collection is bounded only by its
                // reader's patience.
                let timeout = self.site.http().query_timeout;
                http1.extend_deadline(cx.now.mono.after(timeout));
            }
        }
        self.resume(http1, cx);
    }

    /// Closes the exchange of a collection that is complete.
    fn end_collection<I: Io>(
        &mut self,
        http1: &mut Http1,
        id: ExchangeId,
        cx: &mut EdgeContext<'_, I>,
    ) {
        debug_assert_eq!(http1.exchange(), Some(id));
        let Some(request) = self.exchanges.close_request(id) else {
            return;
        };
        let took = cx.now.mono.since(request.began);
        let times = &mut cx.metrics.general.request_time;
        times.at(RouteKind::Query).record(took);
        let route = &mut cx.metrics.routes[request.route.index()];
        route.requests.bump(StatusClass::Success);
    }
}
