//! What the edge derives from a snapshot: one value, so that another snapshot replaces it as a
//! whole.

use std::net::IpAddr;
use std::sync::Arc;

use crate::command::{CommandHeaders, HeaderNames};
use crate::config::{CORS_NAMES_BYTES_MAX, CommandRoute, Config, Http, ProxyHeader, Streams};
use crate::http::{Cors, ForwardedBy, Limits, Request, client_address};
use crate::model::{RouteId, Tenant};
use crate::route::{RouteIndex, Router};
use crate::shard::snapshot::Snapshot;

use super::inputs::identity_of;
use super::route_cors::RouteCors;
use super::route_rates::RouteRates;

/// Routes, limits and settings of one snapshot.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) cors: RouteCors,
    pub(super) rates: RouteRates,
    /// By the command route's place in the config: the headers of its records.
    pub(super) records: Vec<CommandHeaders>,
}

const _: () = {
    // The header names that a config may add to a preflight's answer fit beside the gateway's own.
    assert!(CORS_NAMES_BYTES_MAX + 1024 <= Cors::NAMES_BYTES_MAX);
};

impl Site {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        let config = &snapshot.config;
        let http = &config.settings.http;
        let limits = Limits {
            head_bytes_max: http.head_bytes_max,
            headers_max: http.headers_max,
            body_bytes_max: http.body_bytes_max,
            ..Limits::default()
        };
        let unchecked = config.commands.iter().zip(&snapshot.schemas);
        let unchecked =
            unchecked.filter(|(route, schema)| route.schema.is_some() && schema.is_none());
        assert_eq!(unchecked.count(), 0, "boot compiles every schema");
        Self {
            router: Router::new(config).expect("routes were checked with the config"),
            limits,
            cors: RouteCors::new(config),
            rates: RouteRates::new(config),
            records: records(config),
            snapshot,
        }
    }

    /// The address of the client that a request came from, for limits. `peer` is the other end of
    /// the connection, which may be a proxy.
    pub(super) fn client_address(&self, peer: IpAddr, request: &Request<'_>) -> IpAddr {
        let settings = &self.snapshot.config.settings;
        let by = match settings.proxy_header {
            ProxyHeader::XForwardedFor => ForwardedBy::XForwardedFor,
            ProxyHeader::Forwarded => ForwardedBy::Forwarded,
            ProxyHeader::None => return peer,
        };
        let is_proxy = |address| settings.proxies.iter().any(|it| it.contains(address));
        client_address(peer, &request.headers, by, is_proxy)
    }

    /// Whose limits a request counts against.
    pub(super) fn tenant(&self, peer: IpAddr, request: &Request<'_>) -> Tenant {
        let address = self.client_address(peer, request);
        Tenant::of(&identity_of(request), address)
    }

    /// The number of a route.
    pub(super) fn route_id(&self, route: RouteIndex) -> RouteId {
        match route {
            RouteIndex::Command(at) | RouteIndex::Location(at) => self.snapshot.commands[at].id,
            RouteIndex::Query(at) => self.snapshot.queries[at].id,
            RouteIndex::Stream(at) => self.snapshot.streams[at].id,
        }
    }

    pub(super) fn http(&self) -> &Http {
        &self.snapshot.config.settings.http
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.snapshot.config.settings.streams
    }
}

fn records(config: &Config) -> Vec<CommandHeaders> {
    let names = &config.headers;
    let names = HeaderNames {
        correlation_id: names.correlation_id.as_str().into(),
        reply_to: names.reply_to.as_str().into(),
        identity: names.identity.as_str().into(),
        if_match: names.if_match.as_str().into(),
        if_none_match: names.if_none_match.as_str().into(),
        idempotency_key: names.idempotency_key.as_str().into(),
        method: names.method.as_str().into(),
        path: names.path.as_str().into(),
    };
    let headers = |route: &CommandRoute| {
        let set = route.headers.iter().map(|(name, _)| name.as_str());
        CommandHeaders::new(&names, set, route.forward.iter().map(String::as_str))
    };
    config.commands.iter().map(headers).collect()
}
