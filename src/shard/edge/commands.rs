//! Commands as their home receives them: the command's key, its fingerprint, and the record to
//! produce.

use bytes::Bytes;

use crate::command::{
    CommandLocation, CommandParts, CommandRecord, FingerprintParts, IdempotencyHash, command_key,
    fingerprint,
};
use crate::config::{CommandRoute, Condition, Dedupe, Idempotency, InFlight};
use crate::http::{IdempotencyKey, IfMatch, IfNoneMatch, Request};
use crate::log::EventId;
use crate::model::{
    CommandKey, CorrelationId, ExchangeId, Fingerprint, Identity, Instant, Tenant, TopicName,
    UnixMillis,
};
use crate::route::{Failure, Inputs, Refused, check_params, evaluate, location_path};
use crate::shard::message::CommandRequest;
use crate::shard::random::SecureRandom;
use crate::shard::snapshot::CommandPlan;

use super::body_check::check_type;
use super::site::Site;

/// Turns requests into commands for their home.
#[derive(Debug)]
pub(super) struct CommandMaker {
    /// For commands without an idempotency key, whose hash must not be predictable.
    random: SecureRandom,
}

/// A command without the exchange that waits for it.
#[derive(Debug)]
pub(super) struct MadeCommand {
    pub(super) key: CommandKey,
    fingerprint: Fingerprint,
    record: CommandRecord,
    value: Option<Bytes>,
    identity: Identity,
    hash: IdempotencyHash,
    /// Whether no other client can guess the command's location.
    is_unguessable: bool,
    joins: bool,
    dedupe: Dedupe,
}

impl MadeCommand {
    /// The path at which the client can read the reply, on any instance. `None`: another client
    /// could guess it.
    pub(super) fn location(&self, route: &CommandRoute, now: UnixMillis) -> Option<Box<str>> {
        if !self.is_unguessable {
            return None;
        }
        let location = CommandLocation::new(self.hash, self.fingerprint, now);
        let path = location_path(&route.name) + &location.token(&route.name, &self.identity);
        Some(path.into())
    }

    /// The command as it goes to its home.
    pub(super) fn request(
        self,
        exchange: ExchangeId,
        plan: CommandPlan,
        deadline: Instant,
        accept_at: Option<Instant>,
        tenant: Tenant,
    ) -> CommandRequest {
        CommandRequest {
            exchange,
            topic: plan.commands,
            replies: plan.replies,
            key: self.key,
            fingerprint: self.fingerprint,
            tenant,
            joins: self.joins,
            record: self.record,
            value: self.value,
            deadline,
            accept_at,
            dedupe: self.dedupe,
        }
    }
}

impl CommandMaker {
    pub(super) const fn new(random: SecureRandom) -> Self {
        Self { random }
    }

    /// Makes the command of a request to the route at `index`.
    pub(super) fn make(
        &mut self,
        site: &Site,
        index: usize,
        request: &Request<'_>,
        inputs: &Inputs<'_>,
    ) -> Result<MadeCommand, Refused> {
        let route: &CommandRoute = &site.snapshot.config.commands[index];
        let value = value(route, request)?;
        let idempotency = idempotency_key(route, request)?;
        let (if_match, if_none_match) = conditions(route, request)?;
        let (if_match, if_none_match) = (if_match.as_deref(), if_none_match.as_deref());
        let identity = &inputs.principal.identity;
        let key = route.key.as_ref();
        let key = key.map(|template| evaluate(template, inputs)).transpose()?;
        let headers = route.headers.iter();
        let headers = headers.map(|(_, template)| evaluate(template, inputs));
        let headers = headers.collect::<Result<Vec<_>, _>>()?;
        let named = route.headers.iter().zip(&headers);
        let named: Vec<_> = named
            .map(|((name, _), value)| (name.as_str(), &value[..]))
            .collect();
        let hash = match &idempotency {
            Some(key) => IdempotencyHash::of(key.as_bytes()),
            None => self.random.idempotency_hash(),
        };
        let path_and_query = match request.query.raw() {
            Some(query) => format!("{}?{query}", request.path.raw()),
            None => request.path.raw().to_owned(),
        };
        let fingerprint = fingerprint(&FingerprintParts {
            method: request.method.as_str(),
            path_and_query: &path_and_query,
            body: request.body,
            content_type: request.headers.get("content-type"),
            if_match,
            if_none_match,
            headers: &named,
        });
        let command_key = command_key(&route.name, identity, hash);
        // An identity is proved, and a hash without a key is random. What is left is a key that an
        // anonymous client has chosen.
        let long = |key: &IdempotencyKey<'_>| {
            key.as_bytes().len() >= CommandLocation::ANONYMOUS_KEY_BYTES_MIN
        };
        let is_unguessable = !identity.is_anonymous() || idempotency.as_ref().is_none_or(long);
        let parts = CommandParts {
            method: request.method.as_str(),
            path_and_query: &path_and_query,
            identity,
            claims: inputs.principal.claims.json(),
            if_match,
            if_none_match,
            idempotency_key: idempotency.as_ref().map(IdempotencyKey::as_bytes),
            correlation: CorrelationId {
                key: command_key,
                fingerprint,
            },
            reply_to: route.replies.as_ref().map(TopicName::as_str),
            // Two `traceparent` headers count as none (Trace Context 3.2): which of them counts
            // must not depend on the reader.
            traceparent: request.headers.one("traceparent").ok().flatten(),
            key: key.as_deref(),
            route_headers: &headers,
        };
        let record = site.records[index].record(&parts, request.headers.end_to_end())?;
        Ok(MadeCommand {
            key: command_key,
            fingerprint,
            record,
            value,
            identity: identity.clone(),
            hash,
            is_unguessable,
            dedupe: match (&idempotency, &route.replies, route.dedupe) {
                // The hash of a command without a key is random: no other command has it.
                (None, _, _) => Dedupe::Local,
                // There are no replies that could show that the command was sent before.
                (Some(_), None, Dedupe::Replies) => Dedupe::Local,
                (Some(_), _, dedupe) => dedupe,
            },
            joins: route.in_flight == InFlight::Join,
        })
    }
}

/// The checks of a command that need no body.
pub(super) fn check_head(
    site: &Site,
    index: usize,
    request: &Request<'_>,
    inputs: &Inputs<'_>,
) -> Result<(), Refused> {
    let route = &site.snapshot.config.commands[index];
    check_params(&route.params, inputs.params, request.query)?;
    if route.schema.is_some() {
        check_type(request)?;
    }
    idempotency_key(route, request)?;
    let (if_match, if_none_match) = conditions(route, request)?;
    let headers = route.headers.iter().map(|(_, template)| template);
    for template in headers.chain(&route.key).filter(|it| !it.reads_body()) {
        evaluate(template, inputs)?;
    }
    let conditions = [if_match.as_deref(), if_none_match.as_deref()];
    site.records[index].check(conditions, request.headers.end_to_end())?;
    Ok(())
}

/// The record's value. A request without a body is an empty value; only a route that says so writes
/// a null one, which deletes the key.
fn value(route: &CommandRoute, request: &Request<'_>) -> Result<Option<Bytes>, Refused> {
    match (route.tombstone, request.body) {
        (false, body) => Ok(Some(Bytes::copy_from_slice(body))),
        (true, []) => Ok(None),
        (true, _) => {
            let detail = "this route deletes its record and takes no body";
            Err(Refused::because(Failure::MalformedBody, detail))
        }
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

fn conditions(route: &CommandRoute, request: &Request<'_>) -> Result<Conditions, Refused> {
    let if_match = IfMatch::parse(&request.headers, EventId::etag_in)?;
    if if_match.as_ref().is_some_and(|it| !it.may_hold()) {
        return Err(Failure::PreconditionFailed.into());
    }
    let if_none_match = IfNoneMatch::parse(&request.headers, EventId::etag_in)?;
    if route.condition == Condition::Required && if_match.is_none() && if_none_match.is_none() {
        return Err(Failure::PreconditionRequired.into());
    }
    let if_match = if_match.as_ref().map(IfMatch::for_record);
    let if_none_match = if_none_match.as_ref().map(IfNoneMatch::for_record);
    Ok((if_match, if_none_match))
}
