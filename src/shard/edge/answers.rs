//! Answers that come from other shards, and pages of collections, for the exchanges that wait.

use std::time::Duration;

use bytes::Bytes;

use crate::cache::Page;
use crate::metrics::{CloseReason, CommandOutcome, RouteKind, StatusClass};
use crate::model::{ExchangeId, Id as _, Instant};
use crate::route::{Failure, Refused};
use crate::schema::Verdict;
use crate::shard::io::{Io, Remote};
use crate::shard::message::{Answer, EdgeMessage, Found, HomeMessage};

use super::clients::Asker;
use super::collection::{Collection, Written};
use super::context::EdgeContext;
use super::exchanges::{OnceAppended, OpenRequest, Wants};
use super::leaving::Leaving;
use super::responder::Responded;
use super::responses::{
    QueryContext, class, outcome_of, refuse_located, respond_accepted, respond_due, respond_found,
    respond_located, respond_reply,
};
use super::turns::Turns;

/// Answers the exchanges that wait.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Scratch: a piece of a collection, and the part of the array that it is compressed from.
    piece: Vec<u8>,
    plain: Vec<u8>,
}

impl Answers {
    /// Handles what another shard sends to an exchange. The exchange may be closed already.
    pub(super) fn on_message<I: Io>(
        &mut self,
        exchange: ExchangeId,
        message: EdgeMessage,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        match message {
            EdgeMessage::Answer(answer) => self.on_answer(exchange, answer, turns, cx),
            EdgeMessage::BodyChecked(verdict) => self.on_body_checked(exchange, verdict, turns, cx),
            EdgeMessage::Got(found) => self.on_got(exchange, &found, turns, cx),
            EdgeMessage::Scanned(page) => self.on_scanned(exchange, page, turns, cx),
        }
    }

    /// The outcome of a command.
    fn on_answer<I: Io>(
        &mut self,
        exchange: ExchangeId,
        answer: Answer,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((asker, request)) = turns.take_waiting(exchange) else {
            return;
        };
        if let Wants::Reply { since, .. } = request.wants {
            let age = cx.now.wall.0.saturating_sub(since.0).max(0).unsigned_abs();
            let age = Duration::from_millis(age);
            let (responder, context) = (&mut turns.responder, request.context);
            let responded = match answer {
                Answer::Reply { reply, .. } => respond_located(responder, context, &reply),
                Answer::Accepted => respond_due(responder, context, age),
                Answer::Refused(refused) => refuse_located(responder, context, &refused),
            };
            return self.done(asker, &request, None, responded, turns, cx);
        }
        let outcome = match &answer {
            Answer::Reply {
                replayed: false, ..
            } => CommandOutcome::Answered,
            Answer::Reply { replayed: true, .. } => CommandOutcome::Replayed,
            Answer::Accepted => CommandOutcome::Accepted,
            Answer::Refused(refused) => outcome_of(refused),
        };
        let commands = &mut cx.metrics.commands[request.route.index()].commands;
        commands.bump(outcome);
        let (responder, context) = (&mut turns.responder, request.context);
        let responded = match answer {
            Answer::Reply { reply, replayed } => {
                respond_reply(responder, context, &reply, replayed)
            }
            Answer::Accepted => {
                let once_appended = match &request.wants {
                    Wants::Outcome { once_appended, .. } => once_appended,
                    _ => &OnceAppended::Waits,
                };
                respond_accepted(responder, context, once_appended)
            }
            Answer::Refused(mut refused) => {
                if outcome == CommandOutcome::Unknown {
                    let topic = &turns.site.snapshot.topic(request.topic).name;
                    let waited = cx.now.mono.since(request.began).as_secs_f64();
                    // Say where to look: a misspelt correlation id has no other visible effect for
                    // a client.
                    let what = match &request.wants {
                        Wants::Outcome {
                            once_appended: OnceAppended::OneWay(_),
                            ..
                        } => format!("topic `{topic}` did not confirm the record"),
                        _ => format!("no reply came on topic `{topic}`"),
                    };
                    let what = format!("{what} in {waited:.1} s");
                    refused.detail = format!("{what}: {}", refused.detail).into();
                }
                responder.refuse(context, &refused)
            }
        };
        let kind = Some(RouteKind::Command);
        self.done(asker, &request, kind, responded, turns, cx);
    }

    /// The verdict on the body of a command. The exchange may be closed already.
    fn on_body_checked<I: Io>(
        &mut self,
        exchange: ExchangeId,
        verdict: Verdict,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let exchanges = &mut turns.clients.exchanges;
        exchanges.give_back_body_check();
        let waiting = &mut cx.metrics.general.body_checks_waiting;
        waiting.set(exchanges.body_checks());
        let refused = match turns.leaving {
            Leaving::Drain(_) => Some(Failure::Draining.into()),
            Leaving::No | Leaving::Grace => Refused::of_verdict(verdict),
        };
        if let Some(refused) = refused {
            return self.on_answer(exchange, Answer::Refused(refused), turns, cx);
        }
        if let Some((home, command)) = exchanges.on_body_valid(exchange) {
            cx.out.to_home(home, HomeMessage::Command(command));
        }
    }

    /// The newest record of a key.
    fn on_got<I: Io>(
        &mut self,
        exchange: ExchangeId,
        found: &Found,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((asker, request)) = turns.take_waiting(exchange) else {
            return;
        };
        let (condition, takes_gzip) = match &request.wants {
            Wants::Record {
                condition,
                takes_gzip,
                ..
            } => (condition.as_deref(), *takes_gzip),
            Wants::Outcome { .. }
            | Wants::Reply { .. }
            | Wants::BodyCheck { .. }
            | Wants::Pages(_) => (None, false),
        };
        let age = cx.projections.age(request.topic, cx.now.mono);
        let compress = turns.site.http().compress;
        let query = QueryContext {
            condition,
            age,
            gzip: compress.then_some(&mut turns.gzip),
            takes_gzip,
        };
        let responded = respond_found(&mut turns.responder, request.context, found, query);
        let kind = Some(RouteKind::Query);
        self.done(asker, &request, kind, responded, turns, cx);
    }

    /// Ends a request that was answered. `kind`: whose times it counts among. `None`: its client
    /// chose how long to wait.
    fn done<I: Io>(
        &mut self,
        asker: Asker,
        request: &OpenRequest,
        kind: Option<RouteKind>,
        responded: Responded,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let route = &mut cx.metrics.routes[request.route.index()];
        route.requests.bump(class(responded.status));
        if let Some(kind) = kind {
            let took = cx.now.mono.since(request.began);
            cx.metrics.general.request_time.at(kind).record(took);
        }
        match asker {
            Asker::Http1(mut http1) => {
                if responded.framed.close {
                    turns.end_after(&mut http1);
                } else {
                    http1.on_response();
                }
                turns.resume(http1, cx);
            }
            Asker::Http2(mut http2, slot) => {
                http2.respond(slot, turns.responder.take_http2());
                turns.put_http2(http2);
            }
        }
    }

    /// No shard answered the exchange in time.
    pub(super) fn give_up<I: Io>(
        &mut self,
        id: ExchangeId,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(request) = turns.clients.exchanges.request(id) else {
            return;
        };
        match request.wants {
            // Not even the home answered: the command may have run.
            Wants::Outcome { .. } => {
                self.on_answer(
                    id,
                    Answer::Refused(Failure::OutcomeUnknown.into()),
                    turns,
                    cx,
                );
            }
            Wants::Reply { .. } => {
                let answer = Answer::Refused(Failure::NotReady.into());
                self.on_answer(id, answer, turns, cx);
            }
            // No verdict came in time, so nothing was produced.
            Wants::BodyCheck { .. } => {
                let refused = Failure::Overloaded.into();
                self.on_answer(id, Answer::Refused(refused), turns, cx);
            }
            Wants::Record { .. } => {
                self.on_got(id, &Found::Failed(Failure::NotReady), turns, cx);
            }
            Wants::Pages(_) => {
                if let Some(asker) = turns.clients.take_connection(id) {
                    break_off(asker, id, CloseReason::Timeout, turns, cx);
                }
            }
        }
    }

    /// Continues a client's collection: writes the page that is there, or asks for the next.
    pub(super) fn send_pages<I: Io>(
        &mut self,
        mut asker: Asker,
        id: ExchangeId,
        deadline: Instant,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let remote = cx.io.remote(asker.socket());
        let Some(collection) = turns.clients.collection(id) else {
            return break_off(asker, id, CloseReason::Refused, turns, cx);
        };
        if let Some(page) = collection.take_page() {
            return self.write_page(asker, id, page, turns, cx);
        }
        collection.ask(id, deadline, cx.out);
        let wanted = match (remote, &mut asker) {
            (Remote::Open, _) => true,
            (Remote::Gone, _) => false,
            // The session notices the end.
            (Remote::Ended, Asker::Http2(..)) => true,
            (Remote::Ended, Asker::Http1(http1)) => {
                let framed = collection.framed();
                let probe = collection.probe();
                probe.is_none_or(|probe| {
                    let mut piece = Vec::new();
                    framed.piece(&mut piece, &probe);
                    http1.send(&piece, cx.io)
                })
            }
        };
        match asker {
            Asker::Http1(http1) if !wanted => turns.close(http1, CloseReason::Client, cx),
            // Put back without a flush: nothing was written.
            Asker::Http2(http2, _) => {
                let settings = turns.site.http();
                turns.clients.connections.put_http2(http2, settings);
            }
            Asker::Http1(http1) => turns.put(http1),
        }
    }

    /// A page of a collection.
    fn on_scanned<I: Io>(
        &mut self,
        exchange: ExchangeId,
        page: Option<Page>,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some(asker) = turns.clients.take_connection(exchange) else {
            return;
        };
        let collection = turns.clients.collection(exchange);
        if !collection.is_some_and(Collection::on_page) {
            return turns.put_asker(asker);
        }
        match page.filter(|page| !page.incomplete) {
            Some(page) => self.write_page(asker, exchange, page, turns, cx),
            None => break_off(asker, exchange, CloseReason::Refused, turns, cx),
        }
    }

    fn write_page<I: Io>(
        &mut self,
        mut asker: Asker,
        id: ExchangeId,
        page: Page,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let is_behind = asker.is_behind();
        let Some(collection) = turns.clients.collection(id) else {
            return turns.put_asker(asker);
        };
        if is_behind {
            collection.keep(page);
            return turns.put_asker(asker);
        }
        self.piece.clear();
        let written = collection.write_piece(page, &mut self.plain, &mut self.piece);
        let framed = collection.framed();
        if written == Written::Broken {
            return break_off(asker, id, CloseReason::Refused, turns, cx);
        }
        let is_last = written == Written::All;
        if is_last {
            end_collection(id, turns, cx);
        }
        // Each page has the write timeout of its own: a collection is bounded only by its reader's
        // patience.
        let deadline = cx.now.mono.after(turns.site.http().query_timeout);
        match asker {
            Asker::Http1(mut http1) => {
                turns.responder.piece(framed, &self.piece);
                match (is_last, framed.close) {
                    (false, _) => http1.extend_deadline(deadline),
                    (true, close) => {
                        turns.responder.end(framed);
                        if close {
                            http1.on_last_response();
                        } else {
                            http1.on_response();
                        }
                    }
                }
                turns.resume(http1, cx);
            }
            Asker::Http2(mut http2, slot) => {
                let piece = Bytes::copy_from_slice(&self.piece);
                http2.push_piece(slot, piece, is_last, deadline);
                turns.put_http2(http2);
            }
        }
    }
}

/// Ends a collection that can't be completed. The array has begun, so only a connection or a stream
/// that is cut shows its client that it is incomplete.
fn break_off<I: Io>(
    asker: Asker,
    id: ExchangeId,
    why: CloseReason,
    turns: &mut Turns,
    cx: &mut EdgeContext<'_, I>,
) {
    match asker {
        Asker::Http1(http1) => turns.close(http1, why, cx),
        Asker::Http2(mut http2, slot) => {
            if let Some(request) = turns.clients.exchanges.close_request(id) {
                request.cancel(id, cx.out);
            }
            http2.break_off(slot);
            turns.put_http2(http2);
        }
    }
}

/// Closes the exchange of a collection that is complete.
fn end_collection<I: Io>(id: ExchangeId, turns: &mut Turns, cx: &mut EdgeContext<'_, I>) {
    let Some(request) = turns.clients.exchanges.close_request(id) else {
        return;
    };
    let took = cx.now.mono.since(request.began);
    let times = &mut cx.metrics.general.request_time;
    times.at(RouteKind::Query).record(took);
    let route = &mut cx.metrics.routes[request.route.index()];
    route.requests.bump(StatusClass::Success);
}
