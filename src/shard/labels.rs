//! The names that become labels of metrics.

use crate::metrics::{Names, RouteKind};
use crate::model::RouteId;

use super::snapshot::Snapshot;

/// The names that become labels.
pub(super) fn names(snapshot: &Snapshot) -> Names {
    let (mut names, config) = (Names::default(), &snapshot.config);
    let mut add = |id: RouteId, kind: RouteKind, name: &String| {
        names.routes.insert(id, (kind, name.clone()));
    };
    for (plan, route) in snapshot.commands.iter().zip(&config.commands) {
        add(plan.id, RouteKind::Command, &route.name);
    }
    for (plan, route) in snapshot.queries.iter().zip(&config.queries) {
        add(plan.id, RouteKind::Query, &route.name);
    }
    for (plan, route) in snapshot.streams.iter().zip(&config.streams) {
        add(plan.id, RouteKind::Stream, &route.name);
    }
    for (topic, plan) in snapshot.indexed() {
        names.topics.insert(topic, snapshot.topic_label(plan));
    }
    names
}
