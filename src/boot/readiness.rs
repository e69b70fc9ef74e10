//! Decides whether clients may connect, by the shards' checks of topics and clusters.

use crate::control::{RouteNeeds, merged, route_state};
use crate::metrics::{Check, CheckState, ShardReport};
use crate::shard::Snapshot;

/// Name of the check that clients can connect. It holds once all others do.
pub(super) const LISTENING: &str = "listening";

/// Describes the checks that do not hold, each reason once. `None` if all hold. A shard that does
/// not answer is not ready.
pub(super) fn open_checks(reports: &[Option<ShardReport>]) -> Option<String> {
    let busy = reports.iter().any(Option::is_none);
    let busy = busy.then(|| ("a shard".to_owned(), "is busy".to_owned()));
    let checks = merged(reports).into_iter();
    let open = checks.filter(|check| !check.ok && check.name != LISTENING);
    let open = open.map(|check| (check.name, check.detail));
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, detail) in busy.into_iter().chain(open) {
        match lines.iter_mut().find(|(_, known)| *known == detail) {
            Some((names, _)) => names.push_str(&format!(", {name}")),
            None => lines.push((name, detail)),
        }
    }
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(names, detail)| format!("{names}: {detail}"))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Whether clients may connect although some check does not hold: nothing more becomes ready
/// without an operator, and at least one route can be served.
pub(super) fn may_serve(reports: &[Option<ShardReport>], snapshot: &Snapshot) -> bool {
    let routes = needs(snapshot);
    let checks = merged(reports);
    let blocked = |name: &str| {
        let blocked = |check: &Check| check.state == CheckState::Blocked && check.name == name;
        checks.iter().any(blocked)
    };
    // A topic of a blocked cluster does not load, whatever its home reports.
    let waits: Vec<String> = snapshot
        .topics
        .values()
        .filter(|plan| blocked(&snapshot.cluster_name(plan.cluster)))
        .map(|plan| snapshot.topic_name(plan))
        .collect();
    let loading = |check: &Check| {
        let loading = check.state == CheckState::Loading && check.name != LISTENING;
        loading && !waits.contains(&check.name)
    };
    // A command that brokers reject is answered with the cause. So a route with no other problem
    // than such a rejection is served: otherwise its clients could not connect to receive the
    // cause.
    let writes = writes(snapshot);
    let read: Vec<Check> = checks
        .iter()
        .filter(|check| !writes.contains(&check.name))
        .cloned()
        .collect();
    let served = |route: &RouteNeeds| route_state(route, &read) <= CheckState::Degraded;
    let answered = reports.iter().all(Option::is_some);
    answered && !checks.iter().any(loading) && routes.iter().any(served)
}

/// Names of the checks of topics that commands write to.
fn writes(snapshot: &Snapshot) -> Vec<String> {
    let topics = snapshot
        .topics
        .values()
        .map(|plan| snapshot.writes_name(plan));
    let routes = (0..snapshot.commands.len()).filter_map(|n| snapshot.keyless_name(n));
    topics.chain(routes).collect()
}

/// The checks that each route needs. A command needs its cluster too; queries and streams continue
/// without it.
pub(super) fn needs(snapshot: &Snapshot) -> Vec<RouteNeeds> {
    let name = |topic| snapshot.topic_name(snapshot.topic(topic));
    let config = &snapshot.config;
    let commands = config.commands.iter().zip(&snapshot.commands).enumerate();
    let commands = commands.map(|(n, (route, plan))| {
        let mut checks = vec![
            name(plan.commands),
            snapshot.cluster_name(snapshot.topic(plan.commands).cluster),
            snapshot.writes_name(snapshot.topic(plan.commands)),
        ];
        checks.extend(plan.replies.map(name));
        checks.extend(snapshot.keyless_name(n));
        // These checks exist only while the ends of the topics can't be had.
        let ends = [plan.commands].into_iter().chain(plan.replies);
        checks.extend(ends.map(|topic| snapshot.barrier_name(snapshot.topic(topic))));
        RouteNeeds {
            route: route.name.clone(),
            checks,
        }
    });
    let queries = config.queries.iter().zip(&snapshot.queries);
    let queries = queries.map(|(route, plan)| RouteNeeds {
        route: route.name.clone(),
        checks: vec![name(plan.topic)],
    });
    let streams = config.streams.iter().zip(&snapshot.streams);
    let streams = streams.map(|(route, plan)| RouteNeeds {
        route: route.name.clone(),
        // The second check exists only while streams are rejected and other routes are served.
        checks: vec![
            name(plan.topic),
            snapshot.streams_name(snapshot.topic(plan.topic)),
        ],
    });
    commands.chain(queries).chain(streams).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_is_told_once_a_reason() {
        let check = |name: &str, state, detail: &str| Check::new(name, state, detail);
        let report = ShardReport {
            checks: vec![
                check("kafka", CheckState::Blocked, "no token"),
                check("topic a", CheckState::Blocked, "waiting for kafka"),
                check("topic b", CheckState::Ready, "live"),
                check("topic c", CheckState::Loading, "waiting for kafka"),
                check(LISTENING, CheckState::Loading, "when all else is ready"),
            ],
            ..ShardReport::default()
        };
        let told = open_checks(&[Some(report), None]);
        let expected = "a shard: is busy; kafka: no token; topic a, topic c: waiting for kafka";
        assert_eq!(told.as_deref(), Some(expected));
        assert_eq!(open_checks(&[Some(ShardReport::default())]), None);
    }
}
