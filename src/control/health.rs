//! Interprets the shards' reports: live, ready, degraded. Pure functions over the reports.
//!
//! `/livez` fails slowly and means "restart this process": a shard makes no turns. `/readyz` fails
//! fast and means "send clients elsewhere": topics are loading, one was never there, or the process
//! drains. While brokers are unavailable, a process stays ready and is *degraded*. Other instances
//! lose the brokers at the same time, and failing would make data in memory unreachable too.

use std::time::Duration;

use serde::Serialize;

use crate::metrics::{Check, CheckState, Exposition, ShardReport, ShardStatus};

/// Time for a shard to answer. After it, the shard is stuck.
pub const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Reports in the order of the shards' numbers. `None`: the shard did not answer in time.
pub(super) type Reports = [Option<ShardReport>];

/// A response body, and whether its status is 200 or 503.
pub(super) struct HealthResponse {
    pub(super) good: bool,
    pub(super) json: String,
}

#[derive(Serialize)]
struct Live {
    live: bool,
    /// Numbers of shards that did not answer in time.
    stuck: Vec<usize>,
}

/// `/livez`: whether every shard answered. An unavailable Kafka does not matter here.
pub(super) fn live(reports: &Reports) -> HealthResponse {
    let stuck = stuck(reports);
    let live = stuck.is_empty();
    health_response(live, &Live { live, stuck })
}

/// A route with the checks that must hold for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteNeeds {
    /// The route's name in the config.
    pub route: String,
    /// Names of the checks that the route needs.
    pub checks: Vec<String>,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    degraded: bool,
    routes: Vec<Route<'a>>,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Route<'a> {
    route: &'a str,
    ready: bool,
    state: CheckState,
}

/// Merges the checks of all shards by name. Of several with one name, the worst state wins, and
/// among equals one that has a detail.
#[must_use]
pub fn merged(reports: &[Option<ShardReport>]) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for check in reports.iter().flatten().flat_map(|report| &report.checks) {
        let Some(known) = checks.iter_mut().find(|it| it.name == check.name) else {
            checks.push(check.clone());
            continue;
        };
        let worse = check.state > known.state;
        let explains = check.state == known.state && known.detail.is_empty();
        if worse || explains {
            *known = check.clone();
        }
    }
    checks
}

/// State of a route: the worst state of the checks that it needs.
#[must_use]
pub fn route_state(route: &RouteNeeds, checks: &[Check]) -> CheckState {
    let needed = checks.iter().filter(|it| route.checks.contains(&it.name));
    needed
        .map(|it| it.state)
        .max()
        .unwrap_or(CheckState::Loading)
}

/// `/readyz`: whether every check of every shard holds.
pub(super) fn ready(reports: &Reports, routes: &[RouteNeeds]) -> HealthResponse {
    let mut checks = merged(reports);
    let route = |route| {
        let state = route_state(route, &checks);
        Route {
            route: &route.route,
            ready: state <= CheckState::Degraded,
            state,
        }
    };
    let routes = routes.iter().map(route).collect();
    let draining = reports
        .iter()
        .flatten()
        .any(|report| report.status.draining);
    if draining {
        let detail = "the process takes no new work: it was told to stop";
        checks.push(failed("draining", detail.into()));
    }
    for shard in stuck(reports) {
        let detail = format!("no answer within {}s", ANSWER_WAIT.as_secs());
        checks.push(failed(&format!("shard {shard}"), detail));
    }
    let ready = checks.iter().all(|check| check.ok);
    let degraded = checks.iter().any(|it| it.state == CheckState::Degraded);
    let body = Ready {
        ready,
        degraded,
        routes,
        checks,
    };
    health_response(ready, &body)
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    shards: Vec<Shard<'a>>,
}

#[derive(Serialize)]
struct Shard<'a> {
    shard: usize,
    /// `None` if the shard did not answer in time.
    status: Option<&'a ShardStatus>,
    checks: &'a [Check],
}

/// `/status`: the report of each shard.
pub(super) fn status(reports: &Reports) -> HealthResponse {
    let shards = reports.iter().enumerate().map(|(shard, report)| Shard {
        shard,
        status: report.as_ref().map(|report| &report.status),
        checks: report.as_ref().map_or(&[], |report| &report.checks),
    });
    let shards = shards.collect();
    let version = env!("CARGO_PKG_VERSION");
    health_response(true, &Status { version, shards })
}

/// The shards' part of `/metrics`: the sum over all that answered. A stuck shard is missing from
/// it, which `sluicegate_shards_stuck` shows.
pub(super) fn expose(reports: &Reports, out: &mut Exposition) {
    let mut metrics = reports.iter().flatten().map(|report| &report.metrics);
    if let Some(first) = metrics.next() {
        let mut sum = first.clone();
        metrics.for_each(|other| sum.merge(other));
        sum.expose(out);
    }
}

pub(super) fn stuck(reports: &Reports) -> Vec<usize> {
    let silent = reports
        .iter()
        .enumerate()
        .filter(|(_, report)| report.is_none());
    silent.map(|(shard, _)| shard).collect()
}

fn failed(name: &str, detail: String) -> Check {
    Check::new(name, CheckState::Blocked, detail)
}

fn health_response(good: bool, body: &impl Serialize) -> HealthResponse {
    let json = serde_json::to_string(body).expect("plain structs and strings");
    HealthResponse { good, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[(&str, bool)]) -> Option<ShardReport> {
        let check = |(name, ok): &(&str, bool)| {
            let state = if *ok {
                CheckState::Ready
            } else {
                CheckState::Loading
            };
            Check::new(*name, state, "")
        };
        Some(ShardReport {
            checks: checks.iter().map(check).collect(),
            ..ShardReport::default()
        })
    }

    #[test]
    fn one_silent_shard_is_not_live_and_not_ready() {
        let reports = [report(&[]), None];
        assert!(!live(&reports).good);
        assert_eq!(live(&reports).json, r#"{"live":false,"stuck":[1]}"#);
        assert!(!ready(&reports, &[]).good);
        assert!(live(&[report(&[])]).good);
    }

    #[test]
    fn a_check_holds_only_if_it_holds_on_every_shard() {
        let reports = [report(&[("topic a", true)]), report(&[("topic a", false)])];
        let health_response = ready(&reports, &[]);
        assert!(!health_response.good && live(&reports).good);
        let json = concat!(
            r#"{"ready":false,"degraded":false,"routes":[],"checks":["#,
            r#"{"name":"topic a","ok":false,"state":"loading","detail":""}]}"#
        );
        assert_eq!(health_response.json, json);
        assert!(ready(&[report(&[("topic a", true)]), report(&[])], &[]).good);
    }

    #[test]
    fn the_shard_that_says_why_is_heard() {
        let mut home = report(&[("topic a", false)]);
        let why = "the cluster has no such topic";
        home.as_mut().expect("made above").checks[0].detail = why.into();
        let reports = [
            report(&[("topic a", false)]),
            home,
            report(&[("topic a", true)]),
        ];
        assert!(
            ready(&reports, &[]).json.contains(why),
            "{}",
            ready(&reports, &[]).json
        );
    }

    #[test]
    fn a_degraded_route_is_ready_and_says_so_and_a_blocked_one_is_not() {
        let check = |name: &str, state| Check::new(name, state, "why");
        let report = ShardReport {
            checks: vec![
                check("kafka", CheckState::Degraded),
                check("topic a", CheckState::Ready),
                check("topic b", CheckState::Blocked),
            ],
            ..ShardReport::default()
        };
        let needs = |route: &str, checks: &[&str]| RouteNeeds {
            route: route.into(),
            checks: checks.iter().map(|it| (*it).to_owned()).collect(),
        };
        let routes = [
            needs("read", &["topic a"]),
            needs("write", &["topic a", "kafka"]),
            needs("other", &["topic b"]),
        ];
        let health_response = ready(&[Some(report.clone())], &routes);
        assert!(!health_response.good);
        let json = concat!(
            r#""degraded":true,"routes":[{"route":"read","ready":true,"state":"ready"},"#,
            r#"{"route":"write","ready":true,"state":"degraded"},"#,
            r#"{"route":"other","ready":false,"state":"blocked"}]"#
        );
        assert!(
            health_response.json.contains(json),
            "{}",
            health_response.json
        );
        let mut report = report;
        report.checks.pop();
        assert!(ready(&[Some(report)], &routes[..2]).good);
    }

    #[test]
    fn a_draining_process_is_live_and_not_ready() {
        let mut draining = report(&[("listening", true)]);
        draining.as_mut().expect("made above").status.draining = true;
        let reports = [draining];
        assert!(live(&reports).good);
        assert!(!ready(&reports, &[]).good);
    }
}
