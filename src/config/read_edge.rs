//! Reads what a route says about its clients: `cors` and `rate`.

use std::time::Duration;

use super::kind::{Count, ListOf, Switch, Text};
use super::read::{Reader, no_other_place};
use super::route_edge::{Rate, RouteCors, RouteEdge};
use super::section::Section;
use super::settings::{CORS_HEADERS_MAX, CORS_MAX_AGE_MAX, CORS_ORIGINS_MAX};
use super::unit::Time;

/// Bounds of `rate.requests` and `rate.burst`.
const REQUESTS_MAX: u32 = 1_000_000;
/// Longest `rate.per`.
const PER_MAX: Duration = Duration::from_secs(86_400);

impl<'a> Reader<'a, '_> {
    /// Reads `cors` and `rate` of a route. `kind` is that of the route, as in `[[query]]`.
    pub(super) fn edge(&mut self, section: &mut Section<'a>, kind: &str) -> RouteEdge {
        let title = format!("[{kind}.cors]");
        let cors = section.table("cors", &title, self.findings);
        let cors = cors.map(|table| self.route_cors(table));
        let title = format!("[{kind}.rate]");
        let rate = section.table("rate", &title, self.findings);
        let rate = rate.and_then(|table| self.rate(table));
        RouteEdge { cors, rate }
    }

    fn route_cors(&mut self, mut table: Section<'a>) -> RouteCors {
        let names = ListOf(Text(128), CORS_HEADERS_MAX);
        let origins = table.read(
            "origins",
            &ListOf(Text(255), CORS_ORIGINS_MAX),
            self.findings,
        );
        let credentials = table.read("credentials", &Switch, self.findings);
        let allow_headers = table.read("allow_headers", &names, self.findings);
        let expose_headers = table.read("expose_headers", &names, self.findings);
        let ages = Time(Duration::ZERO..=CORS_MAX_AGE_MAX);
        let max_age = table.read("max_age", &ages, self.findings);
        let at = table.at.clone();
        table.finish(no_other_place, self.findings);
        RouteCors {
            origins: origins.map(|it| it.value),
            credentials: credentials.map(|it| it.value),
            allow_headers: allow_headers.map(|it| it.value),
            expose_headers: expose_headers.map(|it| it.value),
            max_age: max_age.map(|it| it.value),
            at,
        }
    }

    fn rate(&mut self, mut table: Section<'a>) -> Option<Rate> {
        let count = Count(1..=REQUESTS_MAX);
        let requests = table.required("requests", &count, "100", self.findings);
        let pers = Time(Duration::from_secs(1)..=PER_MAX);
        let per = table.required("per", &pers, "\"1min\"", self.findings);
        let burst = table.read("burst", &count, self.findings);
        table.finish(no_other_place, self.findings);
        let requests = requests?.value;
        if let Some(burst) = burst.as_ref().filter(|it| it.value > requests) {
            let message = "`burst` is more than `requests`";
            let help = format!("a client may send at most {requests} at once");
            self.findings.error(burst.at.clone(), message, help);
        }
        Some(Rate {
            requests,
            per: per?.value,
            burst: burst.map_or(requests, |it| it.value),
        })
    }
}
