//! Answers that come from other shards, and pages of collections, for the exchanges that wait.

use std::time::Duration;

use crate::cache::Page;
use crate::metrics::{CloseReason, CommandOutcome, RouteKind, StatusClass};
use crate::model::{ExchangeId, Id as _};
use crate::route::{Failure, Refused};
use crate::schema::Verdict;
use crate::shard::io::{Io, Remote};
use crate::shard::message::{Answer, EdgeMessage, Found, HomeMessage};

use super::collection::Written;
use super::context::EdgeContext;
use super::exchanges::{OnceAppended, OpenRequest, Wants};
use super::http1::Http1;
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
        let Some((http1, request)) = turns.take_waiting(exchange) else {
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
            return self.done(http1, &request, None, responded, turns, cx);
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
        self.done(http1, &request, kind, responded, turns, cx);
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
        let Some((http1, request)) = turns.take_waiting(exchange) else {
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
        self.done(http1, &request, kind, responded, turns, cx);
    }

    /// Ends a request that was answered. `kind`: whose times it counts among. `None`: its client
    /// chose how long to wait.
    fn done<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
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
        if responded.framed.close {
            turns.end_after(&mut http1);
        } else {
            http1.on_response();
        }
        turns.resume(http1, cx);
    }

    /// No shard answered in time.
    pub(super) fn give_up<I: Io>(
        &mut self,
        http1: Box<Http1>,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        // Without an open exchange nothing can answer the client.
        let Some((id, request)) = turns.clients.request(&http1) else {
            return turns.close(http1, CloseReason::Timeout, cx);
        };
        match request.wants {
            // Not even the home answered: the command may have run.
            Wants::Outcome { .. } => {
                turns.put(http1);
                self.on_answer(
                    id,
                    Answer::Refused(Failure::OutcomeUnknown.into()),
                    turns,
                    cx,
                );
            }
            Wants::Reply { .. } => {
                turns.put(http1);
                let answer = Answer::Refused(Failure::NotReady.into());
                self.on_answer(id, answer, turns, cx);
            }
            // No verdict came in time, so nothing was produced.
            Wants::BodyCheck { .. } => {
                turns.put(http1);
                let refused = Failure::Overloaded.into();
                self.on_answer(id, Answer::Refused(refused), turns, cx);
            }
            Wants::Record { .. } => {
                turns.put(http1);
                self.on_got(id, &Found::Failed(Failure::NotReady), turns, cx);
            }
            // Half a collection can't be completed: its client sees that it was cut.
            Wants::Pages(_) => turns.close(http1, CloseReason::Timeout, cx),
        }
    }

    /// Continues a client's collection: writes the page that is there, or asks for the next.
    pub(super) fn send_pages<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let deadline = http1.deadline();
        let remote = cx.io.remote(http1.socket());
        let Some((id, collection)) = turns.clients.collection(&http1) else {
            // Without a collection no page can complete the body: its client sees that it was cut.
            return turns.close(http1, CloseReason::Refused, cx);
        };
        if let Some(page) = collection.take_page() {
            return self.write_page(http1, page, turns, cx);
        }
        collection.ask(id, deadline, cx.out);
        let wanted = match remote {
            Remote::Open => true,
            Remote::Ended => {
                let framed = collection.framed();
                let probe = collection.probe();
                probe.is_none_or(|probe| {
                    let mut piece = Vec::new();
                    framed.piece(&mut piece, &probe);
                    http1.send(&piece, cx.io)
                })
            }
            Remote::Gone => false,
        };
        if wanted {
            turns.put(http1);
        } else {
            turns.close(http1, CloseReason::Client, cx);
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
        let Some(http1) = turns.clients.take_connection(exchange) else {
            return;
        };
        let collection = turns.clients.collection(&http1);
        if !collection.is_some_and(|(_, collection)| collection.on_page()) {
            return turns.put(http1);
        }
        match page.filter(|page| !page.incomplete) {
            Some(page) => self.write_page(http1, page, turns, cx),
            // The array has begun, so only a cut connection shows that it is incomplete.
            None => turns.close(http1, CloseReason::Refused, cx),
        }
    }

    fn write_page<I: Io>(
        &mut self,
        mut http1: Box<Http1>,
        page: Page,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let full = http1.backlog() > 0;
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        let Some((id, collection)) = turns.clients.collection(&http1) else {
            return turns.put(http1);
        };
        if full {
            collection.keep(page);
            return turns.put(http1);
        }
        let written = collection.write_piece(page, &mut self.plain, &mut piece);
        let framed = collection.framed();
        if written == Written::Broken {
            return turns.close(http1, CloseReason::Refused, cx);
        }
        turns.responder.piece(framed, &piece);
        self.piece = piece;
        match written {
            Written::All => {
                turns.responder.end(framed);
                self.end_collection(&mut http1, id, turns, cx);
                if framed.close {
                    http1.on_last_response();
                } else {
                    http1.on_response();
                }
            }
            Written::More | Written::Broken => {
                // Each page has the write timeout of its own: a collection is bounded only by its
                // reader's patience.
                let timeout = turns.site.http().query_timeout;
                http1.extend_deadline(cx.now.mono.after(timeout));
            }
        }
        turns.resume(http1, cx);
    }

    /// Closes the exchange of a collection that is complete.
    fn end_collection<I: Io>(
        &mut self,
        http1: &mut Http1,
        id: ExchangeId,
        turns: &mut Turns,
        cx: &mut EdgeContext<'_, I>,
    ) {
        debug_assert_eq!(http1.exchange(), Some(id));
        let Some(request) = turns.clients.exchanges.close_request(id) else {
            return;
        };
        let took = cx.now.mono.since(request.began);
        let times = &mut cx.metrics.general.request_time;
        times.at(RouteKind::Query).record(took);
        let route = &mut cx.metrics.routes[request.route.index()];
        route.requests.bump(StatusClass::Success);
    }
}
