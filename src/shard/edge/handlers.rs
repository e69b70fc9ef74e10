//! Handlers: each finds the route of a request and answers it. If another shard has the answer, the
//! handler opens an exchange, sends the question, and the exchange waits.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::command::CommandLocation;
use crate::config::Partitioner;
use crate::http::{
    CorsGrant, Fault, Framed, GZIP, GZIP_BYTES_MIN, IfNoneMatch, JSON, Method, Prefer, Refusal,
    Representation, Request, Response, ResponseContext, StatusCode, VARY_ENCODING, accepts_gzip,
    is_preflight, last_event_id,
};
use crate::log::EventId;
use crate::metrics::{CommandOutcome, RouteKind, ShardMetrics};
use crate::model::{
    ExchangeId, Id as _, Instant, KeyHash, PanicAt, ShardId, Tenant, UnixMillis, panic_if_planted,
};
use crate::route::{Failure, Methods, Params, Refused, RouteIndex, Routed, check_params, evaluate};
use crate::schema::{BodyCheck, BodySchema};
use crate::shard::client_limits::{ClientCells, ClientLimits};
use crate::shard::message::{ControlMessage, Found, HomeMessage, PollRequest, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::projection::Projection;
use crate::shard::projections::Projections;
use crate::shard::snapshot::{QueryPlan, StreamPlan};

use super::body_check::{Checked, check_in_turn, check_type};
use super::collection::{Collection, Extent};
use super::commands::{CommandMaker, check_head};
use super::exchanges::{Carrier, Exchanges, OnceAppended, OpenRequest, Wants};
use super::gzip_cache::GzipCache;
use super::inputs::{identity_of, inputs};
use super::leaving::Leaving;
use super::responder::{Responded, Responder};
use super::responses::{QueryContext, class, refuse_located, respond_found, validated};
use super::route_rates::{RateContext, Rated};
use super::site::Site;

/// The result of handling a request.
#[derive(Debug)]
pub(super) enum Handled {
    /// The response is written completely.
    Done(Framed),
    /// The exchange waits for another shard, until then.
    Wait(ExchangeId, Instant),
    /// The head of the response is written. The first piece of its body comes before then.
    Pieces(ExchangeId, Instant),
    /// The response becomes an event stream.
    Stream(Box<StreamStart>),
}

/// A request whose response becomes an event stream.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) plan: StreamPlan,
    /// The route's place in the config.
    pub(super) index: usize,
    pub(super) context: ResponseContext,
    /// The client has used up the route's rate, and may ask again after this time.
    pub(super) wait: Option<Duration>,
    /// Whose streams it counts among, if these are limited.
    pub(super) tenant: Option<Tenant>,
    pub(super) key: Option<(KeyHash, Vec<u8>)>,
    pub(super) last_event_id: Option<Vec<u8>>,
}

/// What handlers use beside the site.
pub(super) struct HandlerContext<'a> {
    pub(super) me: ShardId,
    /// The other end of the connection, which may be a proxy.
    pub(super) peer: IpAddr,
    pub(super) now: Instant,
    pub(super) wall: UnixMillis,
    pub(super) leaving: Leaving,
    /// What single clients use, over all shards.
    pub(super) clients: &'a ClientLimits,
    pub(super) responder: &'a mut Responder,
    pub(super) gzip: &'a mut GzipCache,
    pub(super) exchanges: &'a mut Exchanges,
    pub(super) commands: &'a mut CommandMaker,
    pub(super) projections: &'a Projections,
    pub(super) out: &'a mut Outbox,
    pub(super) metrics: &'a mut ShardMetrics,
}

/// A request and what carries its response.
#[derive(Clone, Copy)]
struct Asked<'r, 'b, 'p> {
    request: &'r Request<'b>,
    params: &'r Params<'p>,
    carrier: Carrier,
    context: ResponseContext,
    rated: Rated,
}

impl HandlerContext<'_> {
    /// What requests are counted with.
    const fn rate(&self) -> RateContext<'_> {
        RateContext {
            clients: self.clients,
            now: self.now,
        }
    }
}

/// A response that is written, or a request that is still pending.
enum Outcome {
    Responded(Responded),
    Pending(Handled),
}

impl Site {
    /// Handles a request. `carrier` is what carries its response.
    pub(super) fn handle(
        &self,
        request: &Request<'_>,
        carrier: Carrier,
        cx: &mut HandlerContext<'_>,
    ) -> Handled {
        panic_if_planted(PanicAt::Handle, request.path.as_str().as_bytes());
        let mut context = request.context();
        // Pipelined requests are answered before the connection ends.
        context.keep_alive &= request.pipelined || cx.leaving == Leaving::No;
        let matched = match self.router.route(request.method, &request.path) {
            Routed::To(matched) => matched,
            Routed::MethodNotAllowed(methods) if request.method == Method::Options => {
                return Handled::Done(self.options(methods, request, context, cx).framed);
            }
            Routed::MethodNotAllowed(methods) => {
                return Handled::Done(not_allowed(methods, request, context, cx).framed);
            }
            Routed::NotFound => return Handled::Done(not_found(request, context, cx).framed),
        };
        context.cors = self.cors.grant(matched.route, request);
        let client = self.client_of(matched.route, request, cx.peer);
        let rated = self.rates.count(matched.route, client, cx.rate());
        context.quota = rated.quota;
        let asked = Asked {
            request,
            params: &matched.params,
            carrier,
            context,
            rated,
        };
        let route = self.route_id(matched.route);
        let (kind, outcome) = match matched.route {
            RouteIndex::Command(index) => {
                let outcome = rated.check(route, cx.metrics);
                if outcome.is_err() {
                    let commands = &mut cx.metrics.commands[route.index()].commands;
                    commands.bump(CommandOutcome::Shed);
                }
                let outcome = outcome.and_then(|()| self.command(index, asked, cx));
                (RouteKind::Command, outcome)
            }
            RouteIndex::Query(index) => {
                let outcome = rated.check(route, cx.metrics);
                let outcome = outcome.and_then(|()| self.query(index, asked, cx));
                (RouteKind::Query, outcome)
            }
            RouteIndex::Stream(index) => (RouteKind::Stream, self.stream(index, asked, cx)),
            RouteIndex::Location(index) => {
                let outcome = self.poll(index, asked, cx);
                let outcome = outcome.or_else(|refused| {
                    let responded = refuse_located(cx.responder, context, &refused);
                    Ok(Outcome::Responded(responded))
                });
                (RouteKind::Query, outcome)
            }
        };
        let responded = match outcome {
            Ok(Outcome::Pending(handled)) => return handled,
            Ok(Outcome::Responded(responded)) => responded,
            Err(refused) => cx.responder.refuse(context, &refused),
        };
        let requests = &mut cx.metrics.routes[route.index()].requests;
        requests.bump(class(responded.status));
        // Within one turn: less than a turn's budget, and no clock to say how much less.
        let times = &mut cx.metrics.general.request_time;
        times.at(kind).record(Duration::ZERO);
        Handled::Done(responded.framed)
    }

    /// Finds the client of a request, as the rate of a route counts it.
    fn client_of<'a>(
        &'a self,
        route: RouteIndex,
        request: &'a Request<'_>,
        peer: IpAddr,
    ) -> impl FnOnce(&ClientLimits) -> ClientCells + 'a {
        move |clients| {
            let tenant = self.tenant(peer, request);
            clients.cells_at(&tenant, self.route_id(route))
        }
    }

    /// Sends a command to its home, which decides it.
    fn command(
        &self,
        index: usize,
        asked: Asked<'_, '_, '_>,
        cx: &mut HandlerContext<'_>,
    ) -> Result<Outcome, Refused> {
        let plan = self.snapshot.commands[index];
        let commands = &mut cx.metrics.commands[plan.id.index()].commands;
        if let Leaving::Drain(_) = cx.leaving {
            commands.bump(CommandOutcome::Shed);
            return Err(Failure::Draining.into());
        }
        let page = self.cors.check_page(asked.request, asked.context.cors);
        let checked = page.and_then(|()| self.check(index, &asked));
        let schema = checked.inspect_err(|_| commands.bump(CommandOutcome::Invalid))?;
        let made = cx.commands.make(self, index, asked.params, asked.request);
        let made = made.inspect_err(|_| commands.bump(CommandOutcome::Invalid))?;
        if schema.is_some() {
            let general = &mut cx.metrics.general;
            if !cx.exchanges.take_body_check() {
                commands.bump(CommandOutcome::Shed);
                general.body_checks_refused.bump();
                return Err(Failure::Overloaded.into());
            }
            general.body_checks.bump();
            general.body_checks_waiting.set(cx.exchanges.body_checks());
        }
        let tenant = self.tenant(cx.peer, asked.request);
        let route = &self.snapshot.config.commands[index];
        let deadline = cx.now.after(route.timeout);
        let prefer = Prefer::parse(&asked.request.headers);
        let once_appended = match &route.replies {
            None => OnceAppended::OneWay(route.one_way_status),
            Some(_) if prefer.respond_async => {
                let location = made.location(route, cx.wall);
                location.map_or(OnceAppended::Waits, OnceAppended::Location)
            }
            Some(_) => OnceAppended::Waits,
        };
        let accept_at = match once_appended {
            OnceAppended::Waits => None,
            OnceAppended::Location(_) => Some(cx.now.after(prefer.wait())),
            OnceAppended::OneWay(_) => Some(cx.now),
        };
        let home = self.snapshot.topic(plan.commands).home;
        let exchange = cx.exchanges.open_request(OpenRequest {
            carrier: asked.carrier,
            context: asked.context,
            began: cx.now,
            route: plan.id,
            topic: plan.table(),
            wants: Wants::Outcome {
                home,
                key: made.key,
                once_appended,
            },
        });
        let command = made.request(exchange, plan, deadline, accept_at, tenant);
        let command = Box::new(command);
        match schema {
            None => cx.out.to_home(home, HomeMessage::Command(command)),
            Some(schema) => {
                let check = BodyCheck::new(schema, command.value.clone().unwrap_or_default());
                cx.out
                    .to_control(ControlMessage::CheckBody(exchange, check));
                cx.exchanges.on_body_check(exchange, home, command);
            }
        }
        Ok(Outcome::Pending(Handled::Wait(exchange, grace(deadline))))
    }

    /// A client asks for the reply to its asynchronous command.
    fn poll(
        &self,
        index: usize,
        asked: Asked<'_, '_, '_>,
        cx: &mut HandlerContext<'_>,
    ) -> Result<Outcome, Refused> {
        if let Leaving::Drain(_) = cx.leaving {
            return Err(Failure::Draining.into());
        }
        let plan = self.snapshot.commands[index];
        let replies = plan.replies.ok_or(Failure::NoSuchCommand)?;
        let route = &self.snapshot.config.commands[index];
        let identity = identity_of(asked.request);
        let token = asked.params.first().copied().unwrap_or_default();
        let command = CommandLocation::read(token, &route.name, &identity);
        let command = command.ok_or(Failure::NoSuchCommand)?;
        let http = self.http();
        let wait = Prefer::parse(&asked.request.headers).wait();
        let wait_until = cx.now.after(wait.min(POLL_WAIT_MAX));
        let deadline = wait_until.after(http.query_timeout);
        let home = self.snapshot.topic(replies).home;
        let exchange = cx.exchanges.open_request(OpenRequest {
            carrier: asked.carrier,
            context: asked.context,
            began: cx.now,
            route: plan.id,
            topic: replies,
            wants: Wants::Reply {
                home,
                key: command.id.key,
                since: command.since,
            },
        });
        let request = PollRequest {
            exchange,
            replies,
            command,
            wait_until,
            deadline,
        };
        cx.out.to_home(home, HomeMessage::Poll(Box::new(request)));
        Ok(Outcome::Pending(Handled::Wait(exchange, grace(deadline))))
    }

    /// Checks the parameters and the body of a command. Returns the schema if the body must be
    /// checked outside the shard.
    fn check(
        &self,
        index: usize,
        asked: &Asked<'_, '_, '_>,
    ) -> Result<Option<Arc<BodySchema>>, Refused> {
        let rules = &self.snapshot.config.commands[index].params;
        check_params(rules, asked.params, asked.request.query)?;
        let Some(schema) = &self.snapshot.schemas[index] else {
            return Ok(None);
        };
        check_type(asked.request)?;
        match check_in_turn(schema, asked.request.body)? {
            Checked::Valid => Ok(None),
            Checked::Undecided => Ok(Some(schema.clone())),
        }
    }

    /// Refuses a request of a client that waits for `100 Continue`, if the head is enough to refuse
    /// it: the body of a request that will be refused is not asked for (RFC 9110 10.1.1). The
    /// response ends the connection, since the client may send the body anyway. Returns false if
    /// the body is welcome.
    pub(super) fn refuse_expecting(
        &self,
        request: &Request<'_>,
        cx: &mut HandlerContext<'_>,
    ) -> bool {
        let mut context = request.context();
        context.keep_alive = false;
        let matched = match self.router.route(request.method, &request.path) {
            Routed::To(matched) => matched,
            Routed::MethodNotAllowed(_) if request.method == Method::Options => return false,
            Routed::MethodNotAllowed(methods) => {
                let _ = not_allowed(methods, request, context, cx);
                return true;
            }
            Routed::NotFound => {
                let _ = not_found(request, context, cx);
                return true;
            }
        };
        context.cors = self.cors.grant(matched.route, request);
        let client = self.client_of(matched.route, request, cx.peer);
        let rated = self.rates.preview(matched.route, client, cx.rate());
        context.quota = rated.quota;
        let RouteIndex::Command(index) = matched.route else {
            return false;
        };
        let route = self.snapshot.commands[index].id;
        let checked = rated
            .check(route, cx.metrics)
            .and_then(|()| self.cors.check_page(request, context.cors))
            .and_then(|()| check_head(self, index, &matched.params, request));
        let Err(refused) = checked else {
            return false;
        };
        let responded = cx.responder.refuse(context, &refused);
        let route = route.index();
        let commands = &mut cx.metrics.commands[route].commands;
        commands.bump(match rated.wait {
            Some(_) => CommandOutcome::Shed,
            None => CommandOutcome::Invalid,
        });
        let requests = &mut cx.metrics.routes[route].requests;
        requests.bump(class(responded.status));
        true
    }

    /// A query: one record by its key, or the collection.
    fn query(
        &self,
        index: usize,
        asked: Asked<'_, '_, '_>,
        cx: &mut HandlerContext<'_>,
    ) -> Result<Outcome, Refused> {
        if let Leaving::Drain(_) = cx.leaving {
            return Err(Failure::Draining.into());
        }
        let condition = IfNoneMatch::parse(&asked.request.headers, EventId::etag_in)?;
        let plan = self.snapshot.queries[index];
        let projections = cx.projections;
        let projection = projections
            .get(plan.topic)
            .filter(|projection| projection.is_live())
            .ok_or_else(|| projections.why_not_live(plan.topic))?;
        if self.snapshot.config.queries[index].key.is_some() {
            return self.get(index, projection, condition, asked, cx);
        }
        // Check before the head is written: an incomplete array must not begin, and no validator
        // may confirm an earlier one.
        if !projection.is_whole() || projections.is_full(plan.topic) {
            return Err(Failure::CacheDegraded.into());
        }
        Ok(self.collection(plan, projection, condition.as_ref(), asked, cx))
    }

    /// `OPTIONS`: a preflight, or the question which methods a path has.
    fn options(
        &self,
        methods: Methods,
        request: &Request<'_>,
        mut context: ResponseContext,
        cx: &mut HandlerContext<'_>,
    ) -> Responded {
        let allowed = listed(methods);
        let mut response = Response::new(StatusCode::NO_CONTENT);
        response.checked("allow", allowed.as_bytes());
        if is_preflight(request) {
            context.cors = self.cors.grant_preflight(&self.router, request);
            cx.responder
                .respond_to_preflight(context, &allowed, response)
        } else {
            context.cors = unrouted(request, cx);
            cx.responder.respond(context, response)
        }
    }

    /// The newest record of a key.
    fn get(
        &self,
        index: usize,
        projection: &Projection,
        condition: Option<IfNoneMatch>,
        asked: Asked<'_, '_, '_>,
        cx: &mut HandlerContext<'_>,
    ) -> Result<Outcome, Refused> {
        let QueryPlan { id, topic } = self.snapshot.queries[index];
        let route = &self.snapshot.config.queries[index];
        let template = route.key.as_ref().expect("the caller found it");
        let identity = identity_of(asked.request);
        let key = evaluate(template, &inputs(asked.params, asked.request, &identity))?;
        let incarnation = &projection.incarnation;
        let hash = incarnation.secret.hash(&key);
        let partitioner = route
            .partitioner
            .filter(|_| !cx.projections.has_grown(topic));
        let partition = partitioner
            .map(|Partitioner::Murmur2| crate::kafka::partition_of(&key, incarnation.partitions));
        let layout = self.snapshot.layout;
        let owner = hash.owner(layout.first_slice(), layout.slices());
        if owner == cx.me {
            let found = projection.find(hash, &key, partition);
            let age = cx.projections.age(topic, cx.now);
            let large = matches!(&found, Found::Entry { value, .. } if is_large(value));
            let query = QueryContext {
                condition: condition.as_ref(),
                age,
                gzip: self.http().compress.then_some(&mut *cx.gzip),
                takes_gzip: large && accepts_gzip(&asked.request.headers),
            };
            let responded = respond_found(cx.responder, asked.context, &found, query);
            return Ok(Outcome::Responded(responded));
        }
        let condition = condition.map(Box::new);
        let exchange = cx.exchanges.open_request(OpenRequest {
            carrier: asked.carrier,
            context: asked.context,
            began: cx.now,
            route: id,
            topic,
            wants: Wants::Record {
                owner,
                condition,
                takes_gzip: self.http().compress && accepts_gzip(&asked.request.headers),
            },
        });
        let get = ProjectionMessage::Get {
            exchange,
            hash,
            key: key.into_boxed_slice(),
            partition,
        };
        cx.out.to_projection(owner, topic, get);
        let deadline = cx.now.after(self.http().query_timeout);
        Ok(Outcome::Pending(Handled::Wait(exchange, deadline)))
    }

    fn collection(
        &self,
        QueryPlan { id, topic }: QueryPlan,
        projection: &Projection,
        condition: Option<&IfNoneMatch>,
        asked: Asked<'_, '_, '_>,
        cx: &mut HandlerContext<'_>,
    ) -> Outcome {
        let mut etag = projection.collection_etag();
        let age = cx.projections.age(topic, cx.now);
        let known = condition.and_then(|it| it.representation(&etag));
        let same = known.is_some();
        let compress = self.http().compress;
        let wanted = compress && !same && accepts_gzip(&asked.request.headers);
        // A HEAD announces what a GET would get, and takes no encoder for it.
        let gzip = wanted && (asked.context.head_only || cx.exchanges.take_gzip());
        if gzip || known == Some(Representation::Gzip) {
            etag = etag.in_gzip();
        }
        let status = match known {
            Some(_) => StatusCode::NOT_MODIFIED,
            None => StatusCode::OK,
        };
        let mut response = validated(&etag, age, status);
        if compress {
            response.fixed(&VARY_ENCODING);
        }
        if !same {
            response.fixed(&JSON).pieces();
        }
        if gzip {
            response.fixed(&GZIP);
        }
        let responded = cx.responder.respond(asked.context, response);
        if same || asked.context.head_only {
            return Outcome::Responded(responded);
        }
        let layout = self.snapshot.layout;
        let extent = Extent {
            topic,
            incarnation: projection.incarnation.number,
            seq: projection.seq(),
            first: layout.first_slice(),
            last: ShardId(layout.shards - 1),
        };
        let gzip = gzip.then(Box::default);
        let collection = Box::new(Collection::new(responded.framed, extent, gzip));
        let exchange = cx.exchanges.open_request(OpenRequest {
            carrier: asked.carrier,
            context: asked.context,
            began: cx.now,
            route: id,
            topic,
            wants: Wants::Pages(collection),
        });
        let deadline = cx.now.after(self.http().query_timeout);
        Outcome::Pending(Handled::Pieces(exchange, deadline))
    }

    /// A request for an event stream.
    fn stream(
        &self,
        index: usize,
        asked: Asked<'_, '_, '_>,
        cx: &HandlerContext<'_>,
    ) -> Result<Outcome, Refused> {
        let plan = self.snapshot.streams[index];
        // Streams of a topic that is not ready or can't be used are also answered 200: after any
        // other status a native `EventSource` would give up for good. The stream says when to
        // reconnect.
        let projection = cx.projections.get(plan.topic);
        let projection = projection.filter(|projection| projection.feed().is_some());
        let identity = identity_of(asked.request);
        let inputs = inputs(asked.params, asked.request, &identity);
        let template = self.snapshot.config.streams[index].filter.key.as_ref();
        let key = template
            .map(|template| evaluate(template, &inputs))
            .transpose()?;
        let key = key.zip(projection);
        let key = key.map(|(key, projection)| (projection.incarnation.secret.hash(&key), key));
        let last_event_id = last_event_id(asked.request)?.map(Cow::into_owned);
        let start = StreamStart {
            plan,
            index,
            context: asked.context,
            wait: asked.rated.wait,
            tenant: (self.streams().client_streams_max)
                .map(|_| self.tenant(cx.peer, asked.request)),
            key,
            last_event_id,
        };
        Ok(Outcome::Pending(Handled::Stream(Box::new(start))))
    }
}

/// Which pages may read a response that no route makes.
fn unrouted(request: &Request<'_>, cx: &HandlerContext<'_>) -> CorsGrant {
    let mut origins = request.headers.get_all("origin");
    let origin = origins.next().filter(|_| origins.next().is_none());
    cx.responder.grant_unrouted(origin)
}

fn not_allowed(
    methods: Methods,
    request: &Request<'_>,
    mut context: ResponseContext,
    cx: &mut HandlerContext<'_>,
) -> Responded {
    context.cors = unrouted(request, cx);
    let allowed = listed(methods);
    let detail = "this path has routes for the methods in Allow only";
    let refusal = Refusal::new(Fault::MethodNotAllowed, detail);
    let mut response = Response::problem(&refusal.problem());
    response.checked("allow", allowed.as_bytes());
    let responded = cx.responder.respond(context, response);
    cx.metrics.general.unrouted.bump(class(responded.status));
    responded
}

fn not_found(
    request: &Request<'_>,
    mut context: ResponseContext,
    cx: &mut HandlerContext<'_>,
) -> Responded {
    context.cors = unrouted(request, cx);
    let refused = Failure::NoSuchRoute.into();
    let responded = cx.responder.refuse(context, &refused);
    cx.metrics.general.unrouted.bump(class(responded.status));
    responded
}

/// Whether a value is large enough to be compressed.
const fn is_large(value: &[u8]) -> bool {
    value.len() >= GZIP_BYTES_MIN
}

/// The names of methods, as `Allow` lists them.
fn listed(methods: Methods) -> String {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

/// The longest that a client may wait at the location of a command (`Prefer: wait`). Proxies and
/// mobile networks cut connections that are silent for longer.
const POLL_WAIT_MAX: Duration = Duration::from_secs(60);

/// When the edge gives up a request that is decided elsewhere, if its own deadline was missed.
fn grace(deadline: Instant) -> Instant {
    deadline.after(Duration::from_secs(1))
}
