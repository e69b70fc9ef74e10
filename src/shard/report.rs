//! What a shard reports to the control thread: readiness, metrics and status.

use crate::metrics::{ShardReport, ShardStatus};
use crate::model::Now;

use super::serving::Serving;

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
                commands_waiting: home.waiting_commands() as u64,
                barriers: home.barriers(now.mono),
                draining: self.draining,
                brokers: home.brokers(),
                topics: home.topics(now).collect(),
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
        let (bytes, waiting) = self.projections.pages();
        let general = &mut self.metrics.general;
        general.stream_page_bytes.set(bytes as u64);
        general.streams_waiting_for_pages.set(waiting as u64);
        self.home.count(now, &mut self.metrics);
    }
}
