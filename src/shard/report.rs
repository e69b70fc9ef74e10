//! What a shard reports to the control thread: readiness, metrics and status.

use crate::metrics::{Names, RouteKind, ShardReport, ShardStatus};
use crate::model::{Now, RouteId};

use super::serving::Serving;
use super::snapshot::Snapshot;

impl Serving {
    pub(super) fn report(&mut self, now: Now) -> ShardReport {
        self.count(now);
        let home = &self.home;
        ShardReport {
            checks: home.checks(now).chain(self.projections.checks()).collect(),
            status: ShardStatus {
                turns: self.metrics.general.turns.0,
                connections: self.edge.clients() as u64,
                streams: self.edge.streams() as u64,
                commands_open: home.open_commands() as u64,
                draining: self.draining,
                brokers: home.brokers(),
                topics: home.topics().collect(),
            },
            metrics: self.metrics.clone(),
        }
    }

    /// Brings the gauges up to date.
    fn count(&mut self, now: Now) {
        let topics = self.projections.indexed();
        for (topic, projection) in topics {
            let metrics = &mut self.metrics.topics[usize::from(topic.0)];
            let counted = projection.counted();
            metrics.stream_events.0 = counted.events;
            metrics.stream_gaps.0 = counted.gaps;
            metrics.cache_keys_refused.0 = counted.keys_refused;
            if let Some(slice) = projection.slice() {
                let stats = slice.stats();
                metrics.cache_entries.set(stats.entries as u64);
                metrics.cache_bytes.set(stats.bytes as u64);
                metrics.cache_tombstones.set(stats.tombstones as u64);
                metrics.cache_values_left_out.set(stats.unheld as u64);
                metrics.cache_values_not_json.set(stats.left_out as u64);
            }
        }
        self.home.count(now, &mut self.metrics);
    }
}

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
