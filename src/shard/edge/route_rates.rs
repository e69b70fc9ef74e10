//! Rate limits by route: how often one client may ask.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Config, Rate, RouteEdge};
use crate::http::{Quota, Request};
use crate::metrics::ShardMetrics;
use crate::model::{Id as _, Instant, RouteId, Tenant};
use crate::route::{Failure, Refused, RouteIndex};
use crate::shard::client_limits::{ClientCells, ClientLimits};
use crate::shard::gcra::{Allowance, Gcra, Verdict};

use super::inputs::identity_of;
use super::site::Site;

/// The rate limits of a snapshot, by the route's place in the config.
#[derive(Debug)]
pub(super) struct RouteRates {
    commands: Vec<Option<RouteRate>>,
    queries: Vec<Option<RouteRate>>,
    streams: Vec<Option<RouteRate>>,
}

/// The rate limit of one route.
#[derive(Clone, Copy, Debug)]
struct RouteRate {
    rate: Rate,
    limit: Gcra,
}

/// The result of counting a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rated {
    /// What the client has left. `None`: the route has no rate.
    pub(super) quota: Option<Quota>,
    /// The request is beyond the rate, and would be within it after this time.
    pub(super) wait: Option<Duration>,
}

/// What counts the requests of one turn.
#[derive(Clone, Copy)]
pub(super) struct RateContext<'a> {
    pub(super) clients: &'a ClientLimits,
    /// The other end of the connection, which may be a proxy.
    pub(super) peer: IpAddr,
    pub(super) now: Instant,
}

impl RouteRates {
    pub(super) fn new(config: &Config) -> Self {
        let rate = |edge: &RouteEdge| {
            let rate = edge.rate?;
            let limit = Gcra::new(rate);
            Some(RouteRate { rate, limit })
        };
        Self {
            commands: config.commands.iter().map(|it| rate(&it.edge)).collect(),
            queries: config.queries.iter().map(|it| rate(&it.edge)).collect(),
            streams: config.streams.iter().map(|it| rate(&it.edge)).collect(),
        }
    }

    fn of(&self, route: RouteIndex) -> Option<&RouteRate> {
        match route {
            RouteIndex::Command(at) => self.commands[at].as_ref(),
            RouteIndex::Query(at) => self.queries[at].as_ref(),
            RouteIndex::Stream(at) => self.streams[at].as_ref(),
            // Asking for the reply to a command is not another command.
            RouteIndex::Location(_) => None,
        }
    }
}

impl RouteRate {
    fn quota(
        &self,
        Allowance {
            requests,
            full_after,
        }: Allowance,
    ) -> Quota {
        Quota {
            requests: self.rate.requests,
            per_s: seconds(self.rate.per),
            left: requests,
            full_after_s: seconds(full_after),
        }
    }
}

impl Site {
    /// Counts a request against the rate of its route and client.
    pub(super) fn count_request(
        &self,
        route: RouteIndex,
        request: &Request<'_>,
        cx: RateContext<'_>,
    ) -> Rated {
        let Some(rate) = self.rates.of(route) else {
            return Rated {
                quota: None,
                wait: None,
            };
        };
        let cells = self.rate_cells(route, request, cx);
        let verdict = cx.clients.rates.decide(&rate.limit, cells, cx.now);
        let due = cx.clients.rates.state(cells);
        Rated {
            quota: Some(rate.quota(rate.limit.allowance(due, cx.now))),
            wait: match verdict {
                Verdict::Pass { .. } => None,
                Verdict::Wait(wait) => Some(wait),
            },
        }
    }

    /// Like [`Self::count_request`] for a request that is not complete yet: it is not counted.
    pub(super) fn preview_request(
        &self,
        route: RouteIndex,
        request: &Request<'_>,
        cx: RateContext<'_>,
    ) -> Rated {
        let Some(rate) = self.rates.of(route) else {
            return Rated {
                quota: None,
                wait: None,
            };
        };
        let due = cx.clients.rates.state(self.rate_cells(route, request, cx));
        Rated {
            quota: Some(rate.quota(rate.limit.allowance(due, cx.now))),
            wait: match rate.limit.decide(due, cx.now) {
                Verdict::Pass { .. } => None,
                Verdict::Wait(wait) => Some(wait),
            },
        }
    }

    fn rate_cells(
        &self,
        route: RouteIndex,
        request: &Request<'_>,
        cx: RateContext<'_>,
    ) -> ClientCells {
        let tenant = self.tenant(cx.peer, request);
        cx.clients.cells_at(&tenant, self.route_id(route))
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
}

impl Rated {
    /// The refusal of a request beyond the rate.
    pub(super) fn check(&self, route: RouteId, metrics: &mut ShardMetrics) -> Result<(), Refused> {
        let Some(wait) = self.wait else {
            return Ok(());
        };
        metrics.routes[route.index()].rate_limited.bump();
        let mut refused = Refused::from(Failure::TooManyRequests);
        refused.retry_after = Some(seconds(wait));
        Err(refused)
    }
}

/// Whole seconds, rounded up: a client that waits for them has waited long enough.
fn seconds(time: Duration) -> u32 {
    let more = u64::from(time.subsec_nanos() > 0);
    u32::try_from(time.as_secs() + more).unwrap_or(u32::MAX)
}
