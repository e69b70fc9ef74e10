//! How a topic stands, for whoever asks: readiness, `/status`, metrics.

use crate::metrics::{Check, PartitionStatus, ShardMetrics, TopicStatus};
use crate::model::Partition;

use super::quoted;
use super::topic::Topic;
use crate::shard::snapshot::Snapshot;

impl Topic {
    /// Whether the topic is ready, and what is missing.
    pub(super) fn check(&self, snapshot: &Snapshot, trouble: Option<&str>) -> Check {
        let name = quoted(&snapshot.topic(self.index).name);
        let detail = match (&self.missing, &self.unfit, self.live) {
            (Some(reason), _, _) => reason.to_string(),
            (None, Some(unfit), _) => unfit.clone(),
            (None, None, true) => {
                return Check {
                    name,
                    ok: true,
                    detail: "live".into(),
                };
            }
            (None, None, false) if self.view.is_none() => {
                let trouble = trouble
                    .map(|trouble| format!(": {trouble}"))
                    .unwrap_or_default();
                format!("waiting for the cluster{trouble}")
            }
            (None, None, false) => self.progress(),
        };
        Check {
            name,
            ok: false,
            detail,
        }
    }

    /// How the topic stands; `None` if nothing is read from it.
    pub(super) fn status(&self, snapshot: &Snapshot) -> Option<TopicStatus> {
        let order = self.order.as_ref()?;
        let partitions = self.parts.iter().enumerate().map(|(p, part)| {
            let next = order.next(Partition(p as u32)).0;
            PartitionStatus {
                partition: p as u32,
                next_offset: next,
                last_stable_offset: part.stable_end.0,
                high_watermark: part.high_watermark.0,
                lag: part.stable_end.0.saturating_sub(next),
            }
        });
        Some(TopicStatus {
            topic: snapshot.topic(self.index).name.to_string(),
            seq: order.seq().0,
            loaded: self.live,
            window_bytes: order.window_bytes() as u64,
            partitions: partitions.collect(),
        })
    }

    /// Brings the topic's gauges up to date.
    pub(super) fn count(&self, metrics: &mut ShardMetrics) {
        let Some(order) = &self.order else { return };
        let index = usize::from(self.index.0);
        let (mut sum, mut most, mut unstable) = (0, 0, 0);
        for (p, part) in self.parts.iter().enumerate() {
            let end = part.stable_end.0;
            let lag = end.saturating_sub(order.next(Partition(p as u32)).0);
            let open = part.high_watermark.0.saturating_sub(end);
            let of_part = metrics.partition(index, p as u32);
            of_part.lag.set(lag);
            of_part.unstable.set(open);
            (sum, most, unstable) = (sum + lag, most.max(lag), unstable + open);
        }
        let topic = &mut metrics.topics[index];
        topic.fetched_records.0 = self.counts.records;
        topic.fetched_bytes.0 = self.counts.bytes;
        topic.undecodable.0 = self.counts.undecodable;
        topic.paused.0 = self.counts.paused;
        topic.lag.set(sum);
        topic.lag_max.set(most);
        topic.unstable.set(unstable);
        topic.window_bytes.set(order.window_bytes() as u64);
        topic.in_flight_bytes.set(order.in_flight_bytes() as u64);
        if let Some(commands) = &self.commands {
            topic.reply_index_entries.set(commands.known() as u64);
        }
    }

    fn progress(&self) -> String {
        let Some(order) = &self.order else {
            return "waiting for the cluster".into();
        };
        let (mut read, mut total) = (0, 0);
        for (p, part) in self.parts.iter().enumerate() {
            let end = part
                .loaded_at
                .unwrap_or_default()
                .0
                .saturating_sub(part.log_start.0);
            let next = order
                .next(Partition(p as u32))
                .0
                .saturating_sub(part.log_start.0);
            read += next.min(end);
            total += end;
        }
        format!("loading: {read} of {total} offsets")
    }
}
