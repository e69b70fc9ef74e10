//! Answers that come from elsewhere, as responses to the requests that wait for them.

use crate::command::Reply;
use crate::http::{
    IfNoneMatch, JSON, REPLAYED, REVALIDATE, ReplyRules, Response, ResponseContext, Status,
};
use crate::metrics::{CommandOutcome, RouteKind, StatusClass};
use crate::model::{ExchangeId, Id as _, Instant};
use crate::route::{Failure, Refused};
use crate::shard::io::Io;
use crate::shard::message::{Answer, Found};

use super::client::{Client, State, Wait, What};
use super::responder::Responded;
use super::{Edge, EdgeContext};

/// The hundreds of a status.
pub(super) fn class(status: Status) -> StatusClass {
    match status.code() / 100 {
        2 => StatusClass::Success,
        3 => StatusClass::Redirection,
        4 => StatusClass::ClientError,
        5 => StatusClass::ServerError,
        _ => StatusClass::Informational,
    }
}

impl Edge {
    /// A command's outcome, for the client that waits for it; late is normal.
    pub(in crate::shard) fn on_answer<I: Io>(
        &mut self,
        exchange: ExchangeId,
        answer: Answer,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((client, wait)) = self.waiting(exchange) else {
            return;
        };
        let outcome = match &answer {
            Answer::Reply {
                replayed: false, ..
            } => CommandOutcome::Answered,
            Answer::Reply { replayed: true, .. } => CommandOutcome::Replayed,
            Answer::Refused(refused) => outcome_of(refused),
        };
        cx.metrics.commands[wait.route.index()]
            .commands
            .bump(outcome);
        let responded = match answer {
            Answer::Reply { reply, replayed } => self.write_reply(&reply, replayed, wait.context),
            Answer::Refused(mut refused) => {
                if outcome == CommandOutcome::Unknown {
                    let replies = self.snapshot.topic(wait.topic);
                    let waited = cx.now.mono.since(wait.began).as_secs_f64();
                    // Say where to look: a misspelt correlation id has no other visible effect for
                    // a client.
                    let what =
                        format!("no reply came on topic `{}` in {waited:.1} s", replies.name);
                    refused.detail = format!("{what}: {}", refused.detail).into();
                }
                self.responder.refuse(wait.context, &refused)
            }
        };
        self.done(client, &wait, RouteKind::Command, responded, cx);
    }

    /// The newest record of a key, for the client that waits for it.
    pub(in crate::shard) fn on_got<I: Io>(
        &mut self,
        exchange: ExchangeId,
        found: Found,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let Some((client, wait)) = self.waiting(exchange) else {
            return;
        };
        let What::Get(condition) = &wait.what else {
            return;
        };
        let condition = condition.as_deref();
        let age = cx.projections.age(wait.topic, cx.now.mono);
        let responded = self.write_found(&found, condition, age, wait.context);
        self.done(client, &wait, RouteKind::Query, responded, cx);
    }

    /// Takes out the client that waits for an answer; `None` if it no longer does.
    fn waiting(&mut self, exchange: ExchangeId) -> Option<(Box<Client>, Wait)> {
        let mut client = self.take_exchange(exchange)?;
        if !matches!(client.state, State::Waiting(_)) {
            self.put(client);
            return None;
        }
        match std::mem::replace(&mut client.state, State::Reading) {
            State::Waiting(mut wait) => {
                // The process may have begun to drain since the request came.
                wait.context.keep_alive &= client.http.kept() > 0 || !self.is_leaving();
                Some((client, wait))
            }
            _ => None,
        }
    }

    fn done<I: Io>(
        &mut self,
        mut client: Box<Client>,
        wait: &Wait,
        kind: RouteKind,
        responded: Responded,
        cx: &mut EdgeContext<'_, I>,
    ) {
        let route = &mut cx.metrics.routes[wait.route.index()];
        route.requests.bump(class(responded.status));
        let took = cx.now.mono.since(wait.began);
        cx.metrics.general.request_time.at(kind).record(took);
        let mut out = self.responder.take();
        client.continue_answer(&mut out);
        self.responder.put_back(out);
        client.exchange = client.exchange.wrapping_add(1);
        client.state = match responded.framed.close {
            true => self.closing(),
            false => State::Reading,
        };
        self.resume(client, cx);
    }

    /// Nobody answered in time, not even the home: it may have run.
    pub(super) fn give_up<I: Io>(&mut self, client: Box<Client>, cx: &mut EdgeContext<'_, I>) {
        let exchange = self.exchange(&client);
        match &client.state {
            State::Waiting(Wait {
                what: What::Command(_),
                ..
            }) => {
                self.put(client);
                self.on_answer(
                    exchange,
                    Answer::Refused(Failure::OutcomeUnknown.into()),
                    cx,
                );
            }
            State::Waiting(_) => {
                self.put(client);
                self.on_got(exchange, Found::Failed(Failure::NotReady), cx);
            }
            // Half a collection can't be made whole: its client sees that it was cut.
            _ => self.end(client, crate::metrics::CloseReason::Timeout, cx),
        }
    }

    /// Writes a service's reply.
    fn write_reply(
        &mut self,
        reply: &Reply,
        replayed: bool,
        context: ResponseContext,
    ) -> Responded {
        match reply_response(reply, replayed) {
            Ok(response) => self.responder.respond(context, response),
            Err(refused) => self.responder.refuse(context, &refused),
        }
    }

    /// Writes the newest record of a key, or why there is none.
    pub(super) fn write_found(
        &mut self,
        found: &Found,
        condition: Option<&IfNoneMatch>,
        age: Option<u64>,
        context: ResponseContext,
    ) -> Responded {
        let (value, etag, content_type) = match found {
            Found::Entry {
                value,
                etag,
                content_type,
            } => (value, etag, content_type),
            Found::Failed(failure) => {
                return self.responder.refuse(context, &(*failure).into());
            }
        };
        let same = condition.is_some_and(|condition| condition.has(Some(etag)));
        let status = if same {
            Status::NOT_MODIFIED
        } else {
            Status::OK
        };
        let mut response = Response::new(status);
        response.etag(etag).fixed(&REVALIDATE);
        if let Some(age) = age {
            response.number("age", age);
        }
        if !same {
            match content_type {
                // Its characters were checked when the record was cached.
                Some(name) => response.checked("content-type", name.as_bytes()),
                None => response.fixed(&JSON),
            };
            response.body(value);
        }
        self.responder.respond(context, response)
    }
}

/// A service's reply as a response.
fn reply_response(reply: &Reply, replayed: bool) -> Result<Response<'_>, Refused> {
    let status = Status::new(reply.status).expect("a reply's status was checked");
    let mut response = Response::new(status);
    let rules = ReplyRules { set_cookie: false };
    for (name, value) in &reply.headers {
        response.reply_field(name, value, rules)?;
    }
    if replayed {
        response.fixed(&REPLAYED);
    }
    response.json_unless_typed().body(&reply.body);
    Ok(response)
}

/// What a command that got no reply counts as.
fn outcome_of(refused: &Refused) -> CommandOutcome {
    let is = |failure: Failure| refused.kind == failure.kind();
    match () {
        () if is(Failure::IdempotencyKeyReused) => CommandOutcome::Mismatch,
        () if is(Failure::OutcomeUnknown) => CommandOutcome::Unknown,
        () if is(Failure::BrokerUnavailable) => CommandOutcome::Refused,
        () if is(Failure::Overloaded) || is(Failure::NotReady) => CommandOutcome::Shed,
        () if is(Failure::Draining) => CommandOutcome::Shed,
        () if is(Failure::TopicUnavailable) => CommandOutcome::Refused,
        () if is(Failure::CommandTooLarge) || is(Failure::RecordRefused) => CommandOutcome::Invalid,
        () => CommandOutcome::Answered,
    }
}

/// When a request that is answered elsewhere is given up here, if its own deadline was missed.
pub(super) fn grace(deadline: Instant) -> Instant {
    deadline.after(std::time::Duration::from_secs(1))
}
