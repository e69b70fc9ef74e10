//! Commands as their home receives them: the command's key, its fingerprint, and the record to
//! produce.

use bytes::Bytes;

use crate::command::{
    CommandParts, CommandRecord, FingerprintParts, IdempotencyHash, command_key, fingerprint,
};
use crate::config::{CommandRoute, Dedupe, Idempotency, InFlight};
use crate::http::{IdempotencyKey, IfMatch, IfNoneMatch, Request};
use crate::log::EventId;
use crate::model::{CommandKey, CorrelationId, ExchangeId, Fingerprint, Instant, Tenant};
use crate::route::{Failure, Params, Refused, check_params, evaluate};
use crate::shard::message::CommandRequest;
use crate::shard::random::SecureRandom;
use crate::shard::snapshot::CommandPlan;

use super::body_check::check_type;
use super::inputs::{identity_of, inputs};
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
    body: Bytes,
    joins: bool,
    dedupe: Dedupe,
}

impl MadeCommand {
    /// The command as it goes to its home.
    pub(super) fn request(
        self,
        exchange: ExchangeId,
        plan: CommandPlan,
        deadline: Instant,
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
            body: self.body,
            deadline,
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
        params: &Params<'_>,
        request: &Request<'_>,
    ) -> Result<MadeCommand, Refused> {
        let route: &CommandRoute = &site.snapshot.config.commands[index];
        let idempotency = idempotency_key(route, request)?;
        let (if_match, if_none_match) = conditions(request)?;
        let (if_match, if_none_match) = (if_match.as_deref(), if_none_match.as_deref());
        let identity = identity_of(request);
        let inputs = inputs(params, request, &identity);
        let key = route.key.as_ref();
        let key = key
            .map(|template| evaluate(template, &inputs))
            .transpose()?;
        let headers = route.headers.iter();
        let headers = headers.map(|(_, template)| evaluate(template, &inputs));
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
        let command_key = command_key(&route.name, &identity, hash);
        let parts = CommandParts {
            method: request.method.as_str(),
            path_and_query: &path_and_query,
            identity: &identity,
            if_match,
            if_none_match,
            idempotency_key: idempotency.as_ref().map(IdempotencyKey::as_bytes),
            correlation: CorrelationId {
                key: command_key,
                fingerprint,
            },
            reply_to: route.replies.as_str(),
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
            body: Bytes::copy_from_slice(request.body),
            joins: route.in_flight == InFlight::Join,
            // The hash of a command without a key is random: no other command has it.
            dedupe: idempotency.as_ref().map_or(Dedupe::Local, |_| route.dedupe),
        })
    }
}

/// The checks of a command that need no body.
pub(super) fn check_head(
    site: &Site,
    index: usize,
    params: &Params<'_>,
    request: &Request<'_>,
) -> Result<(), Refused> {
    let route = &site.snapshot.config.commands[index];
    check_params(&route.params, params, request.query)?;
    if route.schema.is_some() {
        check_type(request)?;
    }
    idempotency_key(route, request)?;
    let (if_match, if_none_match) = conditions(request)?;
    let identity = identity_of(request);
    let inputs = inputs(params, request, &identity);
    let headers = route.headers.iter().map(|(_, template)| template);
    for template in headers.chain(&route.key).filter(|it| !it.reads_body()) {
        evaluate(template, &inputs)?;
    }
    let conditions = [if_match.as_deref(), if_none_match.as_deref()];
    site.records[index].check(conditions, request.headers.end_to_end())?;
    Ok(())
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
