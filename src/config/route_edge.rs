//! What a route says about its clients: pages of which origins may use it, and how often a client
//! may ask.

use std::ops::Range;
use std::time::Duration;

use super::settings::Cors;
use super::{Config, Settings};

/// What a route says about its clients. Each part that is absent is as for all routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteEdge {
    /// What differs from `[cors]`.
    pub cors: Option<RouteCors>,
    /// How often one client may ask. `None`: as often as it wants.
    pub rate: Option<Rate>,
}

/// What a route's `cors` says. A key that is absent is that of `[cors]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCors {
    /// Exact origins that may use the route, or `*` alone.
    pub origins: Option<Vec<String>>,
    /// Whether pages may send cookies.
    pub credentials: Option<bool>,
    /// Further request headers that pages may send.
    pub allow_headers: Option<Vec<String>>,
    /// Further response headers that pages may read.
    pub expose_headers: Option<Vec<String>>,
    /// How long browsers may cache a preflight.
    pub max_age: Option<Duration>,
    /// Byte range of the table in the config file, for findings.
    pub at: Range<usize>,
}

impl RouteCors {
    /// The policy of the route: its own keys, and those of `[cors]`.
    #[must_use]
    pub fn over(&self, all: &Cors) -> Cors {
        Cors {
            origins: self.origins.as_ref().unwrap_or(&all.origins).clone(),
            credentials: self.credentials.unwrap_or(all.credentials),
            allow_headers: self
                .allow_headers
                .as_ref()
                .unwrap_or(&all.allow_headers)
                .clone(),
            expose_headers: self
                .expose_headers
                .as_ref()
                .unwrap_or(&all.expose_headers)
                .clone(),
            max_age: self.max_age.unwrap_or(all.max_age),
        }
    }
}

impl RouteEdge {
    /// The CORS policy of a route.
    #[must_use]
    pub fn cors(&self, settings: &Settings) -> Cors {
        match &self.cors {
            None => settings.cors.clone(),
            Some(own) => own.over(&settings.cors),
        }
    }
}

impl Config {
    /// What each route says about its clients.
    pub(super) fn route_edges(&self) -> impl Iterator<Item = &RouteEdge> {
        let commands = self.commands.iter().map(|it| &it.edge);
        let queries = self.queries.iter().map(|it| &it.edge);
        let streams = self.streams.iter().map(|it| &it.edge);
        commands.chain(queries).chain(streams)
    }
}

/// How often one client may ask: `requests` in each `per`, and at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests of one client in each `per`.
    pub requests: u32,
    /// The time in which a client that used up its requests gets all of them back.
    pub per: Duration,
    /// Requests that a client may send at once.
    pub burst: u32,
}
