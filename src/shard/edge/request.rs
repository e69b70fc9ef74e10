//! One whole request: which route it is, and what that route does with it. What can be answered
//! here is; the rest goes to the shard that can.

use std::borrow::Cow;

use bytes::Bytes;

use crate::command::{Asked, CommandParts, IdempotencyHash, command_key, fingerprint};
use crate::config::{CommandRoute, Idempotency, Partitioner};
use crate::http::{
    Fault, Framed, IdempotencyKey, IfMatch, IfNoneMatch, JSON, Method, REVALIDATE, Refusal,
    Request, Response, ResponseContext, Status, is_preflight, last_event_id,
};
use crate::log::EventId;
use crate::metrics::{CommandOutcome, RouteKind, ShardMetrics};
use crate::model::{
    CorrelationId, ExchangeId, Id as _, Identity, Instant, KeyHash, RouteId, TopicId,
};
use crate::route::{Failure, Inputs, Methods, Params, Refused, RouteIndex, Routed, evaluate};
use crate::shard::message::{CommandRequest, HomeMessage, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::projection::Projections;
use crate::shard::snapshot::{QueryPlan, StreamPlan};

use super::answer::{class, grace};
use super::client::{Scan, Wait, What};
use super::responder::Responded;
use super::{Edge, Leaving};

/// What became of a request.
#[derive(Debug)]
pub(super) enum Handled {
    /// Its response is written.
    Done(Framed),
    /// Another shard answers it, until then.
    Wait(Wait, Instant),
    /// Its head is written; its pieces come, each until then.
    Scan(Box<Scan>, Instant),
    /// It becomes an event stream.
    Stream(Box<StreamStart>),
}

/// A request that becomes an event stream.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) plan: StreamPlan,
    /// The route's place in the config.
    pub(super) index: usize,
    pub(super) context: ResponseContext,
    pub(super) key: Option<(KeyHash, Vec<u8>)>,
    pub(super) last_event_id: Option<Vec<u8>>,
}

/// What every handler needs of a request.
struct Asking<'r, 'b> {
    request: &'r Request<'b>,
    id: ExchangeId,
    context: ResponseContext,
    now: Instant,
}

impl Edge {
    /// Handles a request.
    pub(super) fn handle(
        &mut self,
        request: &Request<'_>,
        id: ExchangeId,
        now: Instant,
        projections: &mut Projections,
        out: &mut Outbox,
        metrics: &mut ShardMetrics,
    ) -> Handled {
        let mut context = request.context();
        // Pipelined requests are answered before the connection ends.
        context.keep_alive &= request.pipelined || !self.is_leaving();
        context.cors = self.responder.grant(&request.headers);
        let asking = Asking {
            request,
            id,
            context,
            now,
        };
        let matched = match self.router.route(request.method, &request.path) {
            Routed::To(matched) => matched,
            Routed::MethodNotAllowed(methods) if request.method == Method::Options => {
                return Handled::Done(self.options(methods, &asking));
            }
            Routed::MethodNotAllowed(methods) => {
                metrics
                    .general
                    .unrouted
                    .bump(class(Status::METHOD_NOT_ALLOWED));
                return Handled::Done(self.not_allowed(methods, context).framed);
            }
            Routed::NotFound => {
                let refused = Failure::NoSuchRoute.into();
                let responded = self.responder.refuse(context, &refused);
                metrics.general.unrouted.bump(class(responded.status));
                return Handled::Done(responded.framed);
            }
        };
        let params = &matched.params;
        let (kind, route, outcome) = match matched.route {
            RouteIndex::Command(index) => {
                let route = self.snapshot.commands[index].id;
                let outcome = match self.leaving {
                    Leaving::Drain(_) => {
                        let commands = &mut metrics.commands[route.index()].commands;
                        commands.bump(CommandOutcome::Shed);
                        Err(Failure::Draining.into())
                    }
                    _ => self.command(index, params, &asking, out, metrics),
                };
                (RouteKind::Command, route, outcome)
            }
            RouteIndex::Query(index) => {
                let outcome = match self.leaving {
                    Leaving::Drain(_) => Err(Failure::Draining.into()),
                    _ => self.query(index, params, &asking, projections, out),
                };
                (RouteKind::Query, self.snapshot.queries[index].id, outcome)
            }
            RouteIndex::Stream(index) => (
                RouteKind::Stream,
                self.snapshot.streams[index].id,
                self.stream(index, params, &asking, projections),
            ),
        };
        let responded = match outcome {
            Ok(Outcome::Pending(handled)) => return handled,
            Ok(Outcome::Answered(responded)) => responded,
            Err(refused) => self.responder.refuse(context, &refused),
        };
        metrics.routes[route.index()]
            .requests
            .bump(class(responded.status));
        // Within one turn: less than a turn's budget, and no clock to say how much less.
        metrics
            .general
            .request_time
            .at(kind)
            .record(std::time::Duration::ZERO);
        Handled::Done(responded.framed)
    }

    /// A command: what it is called, what it asks, what is produced; then its home decides.
    fn command(
        &mut self,
        index: usize,
        params: &Params<'_>,
        asking: &Asking<'_, '_>,
        out: &mut Outbox,
        metrics: &mut ShardMetrics,
    ) -> Result<Outcome, Refused> {
        let plan = self.snapshot.commands[index];
        let made = self.make_command(index, params, asking);
        let (request, deadline) = made.inspect_err(|_| {
            let commands = &mut metrics.commands[plan.id.index()].commands;
            commands.bump(CommandOutcome::Invalid);
        })?;
        let what = What::Command(request.key);
        let home = self.snapshot.topic(plan.commands).home;
        out.to_home(home, HomeMessage::Command(Box::new(request)));
        let wait = Wait {
            context: asking.context,
            began: asking.now,
            route: plan.id,
            topic: plan.replies,
            what,
        };
        Ok(Outcome::Pending(Handled::Wait(wait, grace(deadline))))
    }

    fn make_command(
        &mut self,
        index: usize,
        params: &Params<'_>,
        asking: &Asking<'_, '_>,
    ) -> Result<(CommandRequest, Instant), Refused> {
        let request = asking.request;
        let snapshot = self.snapshot.clone();
        let route: &CommandRoute = &snapshot.config.commands[index];
        let idempotency = idempotency_key(route, request)?;
        let (if_match, if_none_match) = conditions(request)?;
        let (if_match, if_none_match) = (if_match.as_deref(), if_none_match.as_deref());
        let identity = Identity::ANONYMOUS;
        let inputs = inputs(params, request, &identity);
        let key = route
            .key
            .as_ref()
            .map(|template| evaluate(template, &inputs))
            .transpose()?;
        let headers = route
            .headers
            .iter()
            .map(|(_, template)| evaluate(template, &inputs));
        let headers = headers.collect::<Result<Vec<_>, _>>()?;
        let named = route.headers.iter().zip(&headers);
        let named: Vec<_> = named
            .map(|((name, _), value)| (name.as_str(), &value[..]))
            .collect();
        let x = match &idempotency {
            Some(key) => IdempotencyHash::of(key.as_bytes()),
            None => self.random.idempotency_hash(),
        };
        let path_and_query = match request.query.raw() {
            Some(query) => format!("{}?{query}", request.path.raw()),
            None => request.path.raw().to_owned(),
        };
        let fingerprint = fingerprint(&Asked {
            method: request.method.as_str(),
            path_and_query: &path_and_query,
            body: request.body,
            content_type: request.headers.get("content-type"),
            if_match,
            if_none_match,
            headers: &named,
        });
        let key_of_command = command_key(&route.name, &identity, x);
        let parts = CommandParts {
            method: request.method.as_str(),
            path_and_query: &path_and_query,
            identity: &identity,
            if_match,
            if_none_match,
            idempotency_key: idempotency.as_ref().map(IdempotencyKey::as_bytes),
            correlation: CorrelationId {
                key: key_of_command,
                fingerprint: fingerprint,
            },
            reply_to: route.replies.as_str(),
            // Two `traceparent` headers count as none (Trace Context 3.2): which of them counts
            // must not depend on the reader.
            traceparent: request.headers.one("traceparent").ok().flatten(),
            key: key.as_deref(),
            route_headers: &headers,
        };
        let record = self.records[index].record(&parts, request.headers.iter())?;
        let deadline = asking.now.after(route.timeout);
        let plan = snapshot.commands[index];
        let request = CommandRequest {
            exchange: asking.id,
            topic: plan.commands,
            replies: plan.replies,
            key: key_of_command,
            fingerprint,
            record,
            body: Bytes::copy_from_slice(request.body),
            deadline,
        };
        Ok((request, deadline))
    }

    /// Refuses a request whose client waits for `100 Continue`, if its head is enough to refuse it:
    /// the body of a request that will be refused is not asked for (RFC 9110 10.1.1). The answer
    /// ends the connection, since the client may send the body anyway. Returns false if the body is
    /// welcome.
    pub(super) fn refuse_expecting(
        &mut self,
        request: &Request<'_>,
        metrics: &mut ShardMetrics,
    ) -> bool {
        let mut context = request.context();
        context.keep_alive = false;
        context.cors = self.responder.grant(&request.headers);
        let matched = match self.router.route(request.method, &request.path) {
            Routed::To(matched) => matched,
            Routed::MethodNotAllowed(_) if request.method == Method::Options => return false,
            Routed::MethodNotAllowed(methods) => {
                let responded = self.not_allowed(methods, context);
                metrics.general.unrouted.bump(class(responded.status));
                return true;
            }
            Routed::NotFound => {
                let refused = Failure::NoSuchRoute.into();
                let responded = self.responder.refuse(context, &refused);
                metrics.general.unrouted.bump(class(responded.status));
                return true;
            }
        };
        let RouteIndex::Command(index) = matched.route else {
            return false;
        };
        let Err(refused) = self.check_head(index, &matched.params, request) else {
            return false;
        };
        let responded = self.responder.refuse(context, &refused);
        let route = self.snapshot.commands[index].id.index();
        let commands = &mut metrics.commands[route].commands;
        commands.bump(CommandOutcome::Invalid);
        metrics.routes[route].requests.bump(class(responded.status));
        true
    }

    /// The checks of a command that need no body.
    fn check_head(
        &self,
        index: usize,
        params: &Params<'_>,
        request: &Request<'_>,
    ) -> Result<(), Refused> {
        let route = &self.snapshot.config.commands[index];
        idempotency_key(route, request)?;
        let (if_match, if_none_match) = conditions(request)?;
        let identity = Identity::ANONYMOUS;
        let inputs = inputs(params, request, &identity);
        let headers = route.headers.iter().map(|(_, template)| template);
        for template in headers.chain(&route.key).filter(|it| !it.reads_body()) {
            evaluate(template, &inputs)?;
        }
        let conditions = [if_match.as_deref(), if_none_match.as_deref()];
        self.records[index].check(conditions, request.headers.iter())?;
        Ok(())
    }

    /// A query: one record by its key, or the collection.
    fn query(
        &mut self,
        index: usize,
        params: &Params<'_>,
        asking: &Asking<'_, '_>,
        projections: &Projections,
        out: &mut Outbox,
    ) -> Result<Outcome, Refused> {
        let request = asking.request;
        let condition = IfNoneMatch::parse(&request.headers, EventId::etag_in)?;
        let QueryPlan { id, topic } = self.snapshot.queries[index];
        let projection = projections
            .get(topic)
            .filter(|projection| projection.is_live())
            .ok_or_else(|| projections.why_not_live(topic))?;
        let age = projections.age(topic, asking.now);
        let route = &self.snapshot.config.queries[index];
        let Some(template) = &route.key else {
            // Check before the head is written: an incomplete array must not begin, and no
            // validator may confirm an earlier one.
            if !projection.is_whole() || projections.is_full(topic) {
                return Err(Failure::CacheDegraded.into());
            }
            let at = (id, topic, age);
            return Ok(self.collection(at, condition.as_ref(), asking, projection));
        };
        let identity = Identity::ANONYMOUS;
        let key = evaluate(template, &inputs(params, request, &identity))?;
        let hash = projection.incarnation.secret.hash(&key);
        let partitioner = route.partitioner.filter(|_| !projections.has_grown(topic));
        let partition = partitioner.map(|Partitioner::Murmur2| {
            crate::kafka::partition_of(&key, projection.incarnation.partitions)
        });
        let layout = self.snapshot.layout;
        let owner = hash.owner(layout.first_slice(), layout.slices());
        let context = asking.context;
        if owner == self.me {
            let found = projection.find(hash, &key, partition);
            let condition = condition.as_ref();
            let responded = self.write_found(&found, condition, age, context);
            return Ok(Outcome::Answered(responded));
        }
        let key = key.into_boxed_slice();
        let get = ProjectionMessage::Get {
            exchange: asking.id,
            hash,
            key,
            partition,
        };
        out.to_projection(owner, topic, get);
        let what = What::Get(condition.map(Box::new));
        let (began, route) = (asking.now, id);
        let wait = Wait {
            context,
            began,
            route,
            topic,
            what,
        };
        let deadline = asking
            .now
            .after(self.snapshot.config.settings.http.query_timeout);
        Ok(Outcome::Pending(Handled::Wait(wait, deadline)))
    }

    fn collection(
        &mut self,
        (route, topic, age): (RouteId, TopicId, Option<u64>),
        condition: Option<&IfNoneMatch>,
        asking: &Asking<'_, '_>,
        projection: &crate::shard::projection::Projection,
    ) -> Outcome {
        let etag = projection.collection_etag();
        let same = condition.is_some_and(|condition| condition.has(Some(&etag)));
        let status = if same {
            Status::NOT_MODIFIED
        } else {
            Status::OK
        };
        let mut response = Response::new(status);
        response.etag(&etag).fixed(&REVALIDATE);
        if let Some(age) = age {
            response.number("age", age);
        }
        if !same {
            response.fixed(&JSON).pieces();
        }
        let responded = self.responder.respond(asking.context, response);
        if same || asking.context.head_only {
            return Outcome::Answered(responded);
        }
        let scan = Box::new(Scan {
            framed: responded.framed,
            topic,
            began: asking.now,
            route,
            incarnation: projection.incarnation.number,
            seq: projection.seq(),
            shard: self.snapshot.layout.first_slice(),
            after: None,
            any: false,
            asked: false,
            page: None,
        });
        let deadline = asking
            .now
            .after(self.snapshot.config.settings.http.query_timeout);
        Outcome::Pending(Handled::Scan(scan, deadline))
    }

    /// An event stream.
    fn stream(
        &self,
        index: usize,
        params: &Params<'_>,
        asking: &Asking<'_, '_>,
        projections: &Projections,
    ) -> Result<Outcome, Refused> {
        let request = asking.request;
        let plan = self.snapshot.streams[index];
        // Streams of a topic that is not ready or can't be used are also answered 200: after any
        // other status a native `EventSource` would give up for good. The stream says when to
        // reconnect.
        let projection = projections
            .get(plan.topic)
            .filter(|projection| projection.feed().is_some());
        let identity = Identity::ANONYMOUS;
        let inputs = inputs(params, request, &identity);
        let template = self.snapshot.config.streams[index].filter.key.as_ref();
        let key = template
            .map(|template| evaluate(template, &inputs))
            .transpose()?;
        let key = key.zip(projection);
        let key = key.map(|(key, projection)| (projection.incarnation.secret.hash(&key), key));
        let last_event_id = last_event_id(request)?.map(Cow::into_owned);
        let start = StreamStart {
            plan,
            index,
            context: asking.context,
            key,
            last_event_id,
        };
        Ok(Outcome::Pending(Handled::Stream(Box::new(start))))
    }

    /// `OPTIONS`: a preflight, or the question which methods there are.
    fn options(&mut self, methods: Methods, asking: &Asking<'_, '_>) -> Framed {
        let allowed = listed(methods);
        let mut response = Response::new(Status::NO_CONTENT);
        response.checked("allow", allowed.as_bytes());
        let responder = &mut self.responder;
        let responded = match is_preflight(asking.request) {
            true => responder.respond_to_preflight(asking.context, &allowed, response),
            false => responder.respond(asking.context, response),
        };
        responded.framed
    }

    fn not_allowed(&mut self, methods: Methods, context: ResponseContext) -> Responded {
        let allowed = listed(methods);
        let detail = "this path has routes for the methods in Allow only";
        let refusal = Refusal::new(Fault::MethodNotAllowed, detail);
        let mut response = Response::problem(&refusal.problem());
        response.checked("allow", allowed.as_bytes());
        self.responder.respond(context, response)
    }
}

/// The request's idempotency key, if it has one or the route requires one.
fn idempotency_key<'b>(
    route: &CommandRoute,
    request: &Request<'b>,
) -> Result<Option<IdempotencyKey<'b>>, Refused> {
    let key = IdempotencyKey::parse(&request.headers)?;
    match route.idempotency {
        Idempotency::Required if key.is_none() => Err(Failure::IdempotencyKeyRequired.into()),
        Idempotency::Required | Idempotency::Optional => Ok(key),
    }
}

/// A command's conditions as its record carries them: `If-Match` and `If-None-Match`.
type Conditions = (Option<Vec<u8>>, Option<Vec<u8>>);

fn conditions(request: &Request<'_>) -> Result<Conditions, Refused> {
    let if_match = IfMatch::parse(&request.headers, EventId::etag_in)?;
    if if_match.as_ref().is_some_and(|it| !it.may_hold()) {
        return Err(Failure::PreconditionFailed.into());
    }
    let if_none_match = IfNoneMatch::parse(&request.headers, EventId::etag_in)?;
    let if_match = if_match.as_ref().map(IfMatch::for_record);
    let if_none_match = if_none_match.as_ref().map(IfNoneMatch::for_record);
    Ok((if_match, if_none_match))
}

fn inputs<'a>(
    params: &'a Params<'_>,
    request: &'a Request<'_>,
    identity: &'a Identity,
) -> Inputs<'a> {
    let Request {
        query,
        headers,
        body,
        ..
    } = request;
    Inputs {
        params,
        query: *query,
        headers,
        body,
        identity,
    }
}

/// What a handler made of a request.
enum Outcome {
    Answered(Responded),
    Pending(Handled),
}

/// The names of methods, as `Allow` lists them.
fn listed(methods: Methods) -> String {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}
