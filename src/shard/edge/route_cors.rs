//! CORS by route: the policies of a snapshot, and which of them is whose.

use crate::config::{Config, Cors as Settings, RouteEdge};
use crate::http::{
    Cors, CorsGrant, CorsPolicies, CorsPolicyId, Method, PageOrigin, Request, preflight_method,
};
use crate::route::{Failure, Refused, RouteIndex, Routed, Router};

/// The CORS policies of a snapshot. Equal ones are one.
#[derive(Debug)]
pub(super) struct RouteCors {
    policies: CorsPolicies,
    /// By the route's place in the config.
    commands: Vec<CorsPolicyId>,
    queries: Vec<CorsPolicyId>,
    streams: Vec<CorsPolicyId>,
}

impl RouteCors {
    pub(super) fn new(config: &Config) -> Self {
        let mut policies = CorsPolicies::default();
        policies.add(policy(config, &config.settings.cors));
        let mut add = |edge: &RouteEdge| policies.add(policy(config, &edge.cors(&config.settings)));
        Self {
            commands: config.commands.iter().map(|it| add(&it.edge)).collect(),
            queries: config.queries.iter().map(|it| add(&it.edge)).collect(),
            streams: config.streams.iter().map(|it| add(&it.edge)).collect(),
            policies,
        }
    }

    /// What responses are written with.
    pub(super) fn policies(&self) -> CorsPolicies {
        self.policies.clone()
    }

    fn policy_of(&self, route: RouteIndex) -> CorsPolicyId {
        match route {
            RouteIndex::Command(at) | RouteIndex::Location(at) => self.commands[at],
            RouteIndex::Query(at) => self.queries[at],
            RouteIndex::Stream(at) => self.streams[at],
        }
    }

    /// Which pages may read the response of a route.
    pub(super) fn grant(&self, route: RouteIndex, request: &Request<'_>) -> CorsGrant {
        self.policies.grant(self.policy_of(route), &request.headers)
    }

    /// Which pages may use the route that a preflight asks about. Nothing else is looked at, so a
    /// preflight costs what an unknown path costs.
    pub(super) fn grant_preflight(&self, router: &Router, request: &Request<'_>) -> CorsGrant {
        let method = preflight_method(request).filter(|method| *method != Method::Options);
        let routed = method.map(|method| router.route(method, &request.path));
        match routed {
            Some(Routed::To(matched)) => self.grant(matched.route, request),
            _ => CorsGrant::NONE,
        }
    }

    /// Refuses a command that a page of a foreign origin sends with cookies. Such a page can send a
    /// `text/plain` POST without a preflight, and whatever is in front of the gateway may take the
    /// cookies for the consent of their owner (CSRF).
    pub(super) fn check_page(
        &self,
        request: &Request<'_>,
        grant: CorsGrant,
    ) -> Result<(), Refused> {
        if request.headers.get("cookie").is_none() {
            return Ok(());
        }
        match self.policies.page_origin(request, grant) {
            PageOrigin::Foreign => Err(Failure::ForeignOrigin.into()),
            PageOrigin::Absent | PageOrigin::Own | PageOrigin::Granted { .. } => Ok(()),
        }
    }
}

/// The policy of some settings. `None`: no page of another origin.
fn policy(config: &Config, cors: &Settings) -> Option<Cors> {
    if cors.origins.is_empty() {
        return None;
    }
    let max_age = u32::try_from(cors.max_age.as_secs()).unwrap_or(u32::MAX);
    let allow: Vec<String> = config.cors_request_headers(cors).into_iter().collect();
    let expose = &cors.expose_headers;
    let policy = Cors::new(&cors.origins, cors.credentials, max_age, &allow, expose);
    Some(policy.expect("origins and names were checked with the config"))
}
