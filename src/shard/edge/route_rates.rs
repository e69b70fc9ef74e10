//! Rate limits by route: how often one client may ask.

use std::time::Duration;

use crate::config::{Config, Rate, RouteEdge};
use crate::http::Quota;
use crate::metrics::ShardMetrics;
use crate::model::{Id as _, Instant, RouteId};
use crate::route::{Failure, Refused, RouteIndex};
use crate::shard::client_limits::{ClientCells, ClientLimits, Rates};
use crate::shard::gcra::{Allowance, Gcra, Verdict};

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

    /// Counts a request of a client against the rate of its route. `client` is called only if there
    /// is a rate.
    pub(super) fn count(
        &self,
        route: RouteIndex,
        client: impl FnOnce(&ClientLimits) -> ClientCells,
        cx: RateContext<'_>,
    ) -> Rated {
        self.decide(route, client, cx, |rates, limit, cells| {
            rates.decide(limit, cells, cx.now)
        })
    }

    /// Like [`Self::count`] for a request that is not complete yet: it is not counted.
    pub(super) fn preview(
        &self,
        route: RouteIndex,
        client: impl FnOnce(&ClientLimits) -> ClientCells,
        cx: RateContext<'_>,
    ) -> Rated {
        self.decide(route, client, cx, |rates, limit, cells| {
            limit.decide(rates.state(cells), cx.now)
        })
    }

    fn decide(
        &self,
        route: RouteIndex,
        client: impl FnOnce(&ClientLimits) -> ClientCells,
        cx: RateContext<'_>,
        verdict: impl FnOnce(&Rates, &Gcra, ClientCells) -> Verdict,
    ) -> Rated {
        let Some(rate) = self.of(route) else {
            return Rated {
                quota: None,
                wait: None,
            };
        };
        let (cells, rates) = (client(cx.clients), &cx.clients.rates);
        let verdict = verdict(rates, &rate.limit, cells);
        let due = rates.state(cells);
        Rated {
            quota: Some(rate.quota(rate.limit.allowance(due, cx.now))),
            wait: match verdict {
                Verdict::Pass { .. } => None,
                Verdict::Wait(wait) => Some(wait),
            },
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
