//! What a topic reports of its reads, for `/status` and metrics.

use crate::kafka::Client;
use crate::metrics::{PartitionStatus, ShardMetrics, TopicStatus};
use crate::model::{Now, Partition};

use super::topic::Topic;
use crate::shard::snapshot::Snapshot;

impl Topic {
    /// The state of the topic's reads. `None` if nothing is read from it.
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
                in_flight_bytes: order.in_flight().bytes_of(Partition(p as u32)) as u64,
                paused: self.paused_times(p),
                failed: self.counts.parts.get(p).map_or(0, |it| it.failed),
            }
        });
        Some(TopicStatus {
            topic: snapshot.topic_label(snapshot.topic(self.index)),
            seq: order.seq().0,
            loaded: self.live,
            window_bytes: order.window_bytes() as u64,
            partitions: partitions.collect(),
        })
    }

    /// Updates the topic's gauges in the shard's metrics.
    pub(super) fn count(
        &self,
        snapshot: &Snapshot,
        client: &Client,
        now: Now,
        metrics: &mut ShardMetrics,
    ) {
        let index = usize::from(self.index.0);
        // A commands topic is only written, and brokers may refuse that.
        for (p, counts) in (0..).zip(&self.counts.parts) {
            metrics.partition(index, p).failed.0 = counts.failed;
        }
        let topic = &mut metrics.topics[index];
        topic
            .leaderless
            .set(client.leaderless(self.handle).count() as u64);
        topic
            .writes_blocked
            .set(u64::from(self.health.writes.is_blocked()));
        let Some(order) = &self.order else { return };
        let (mut sum, mut most, mut unstable) = (0, 0, 0);
        for (p, part) in self.parts.iter().enumerate() {
            let end = part.stable_end.0;
            let lag = end.saturating_sub(order.next(Partition(p as u32)).0);
            let open = part.high_watermark.0.saturating_sub(end);
            let of_part = metrics.partition(index, p as u32);
            of_part.lag.set(lag);
            of_part.unstable.set(open);
            let bytes = order.in_flight().bytes_of(Partition(p as u32));
            of_part.in_flight_bytes.set(bytes as u64);
            of_part.paused.0 = self.paused_times(p);
            (sum, most, unstable) = (sum + lag, most.max(lag), unstable + open);
        }
        let topic = &mut metrics.topics[index];
        topic.fetched_records.0 = self.counts.records;
        topic.fetched_bytes.0 = self.counts.bytes;
        topic.undecodable.0 = self.counts.undecodable;
        let ranges = self.degraded.ranges();
        topic.undecodable_ranges.set(ranges as u64);
        let degraded = self.is_cached(snapshot) && (ranges > 0 || self.is_full());
        topic.cache_degraded.set(u64::from(degraded));
        topic.paused.0 = self.counts.paused;
        topic.lag.set(sum);
        topic.lag_max.set(most);
        topic.unstable.set(unstable);
        topic.window_bytes.set(order.window_bytes() as u64);
        topic.in_flight_bytes.set(order.in_flight().bytes() as u64);
        if let Some(commands) = &self.commands {
            commands.count(now, topic);
        }
    }

    /// How often the partition was left out of fetches, with its topic or by a catch-up read.
    fn paused_times(&self, partition: usize) -> u64 {
        let of_topic = self.counts.parts.get(partition).map_or(0, |it| it.paused);
        of_topic + self.history.pauses(Partition(partition as u32))
    }
}
