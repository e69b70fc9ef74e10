//! What a topic reports: its checks, its state for `/status`, and its metrics.

use crate::kafka::Client;
use crate::metrics::{Check, ShardMetrics, TopicStatus};
use crate::model::{Now, Partition, u32_of};

use super::commands::Commands;
use super::counts::Counts;
use super::degraded::Degraded;
use super::health::{ClusterHealth, Shortcomings, TopicHealth, TopicReads};
use super::history::History;
use super::shown_topic::ShownTopic;
use super::topic_ids::TopicIds;
use super::topic_log::TopicLog;
use crate::shard::snapshot::Snapshot;
use crate::shard::topic_plan::TopicPlan;

/// A topic as its parts are now.
pub(super) struct Report<'a> {
    pub(super) ids: TopicIds,
    pub(super) plan: &'a TopicPlan,
    pub(super) snapshot: &'a Snapshot,
    pub(super) client: &'a Client,
    pub(super) live: bool,
    pub(super) shown: &'a ShownTopic,
    pub(super) health: &'a TopicHealth,
    pub(super) log: Option<&'a TopicLog>,
    pub(super) degraded: &'a Degraded,
    pub(super) history: &'a History,
    pub(super) counts: &'a Counts,
    /// The commands in flight that wait for the topic: for its replies, or for their append to it.
    pub(super) commands: Option<&'a Commands>,
}

impl Report<'_> {
    /// The check of commands to the topic. `None` if no command route writes to it.
    pub(super) fn check_writes(&self, now: Now) -> Option<Check> {
        let leaderless = self.client.leaderless(self.ids.handle);
        let (state, detail) = self.health.writes().check(leaderless, now.mono);
        let name = || self.snapshot.writes_name(self.plan);
        self.plan
            .takes_commands
            .then(|| Check::new(name(), state, detail))
    }

    /// The checks of the topic and of its streams.
    pub(super) fn checks(&self, cluster: &ClusterHealth, now: Now) -> [Option<Check>; 2] {
        let position = |partition| self.log?.position(partition, self.client);
        let reads = TopicReads {
            snapshot: self.snapshot,
            plan: self.plan,
            client: self.client,
            handle: self.ids.handle,
            live: self.live,
            paused: self.log.is_some_and(TopicLog::is_paused),
            position: &position,
            now,
        };
        let bytes_max = self.snapshot.config.settings.cache.bytes_max;
        let found = Shortcomings {
            degraded: self.degraded.describe(bytes_max),
            cut: self.commands.and_then(|it| it.explain_cuts(now)),
        };
        [
            Some(self.health.check(&reads, cluster, found)),
            self.health.check_streams(self.snapshot, self.plan),
        ]
    }

    /// The state of the topic's reads. `None` if nothing is read from it.
    pub(super) fn status(&self, now: Now) -> Option<TopicStatus> {
        let log = self.log?;
        let partitions = log.partitions_status().map(|mut status| {
            let partition = Partition(status.partition);
            status.paused = self.paused_times(partition);
            status.failed = self.counts.of(partition).failed;
            status
        });
        Some(TopicStatus {
            topic: self.snapshot.topic_label(self.plan),
            seq: log.order().seq().0,
            loaded: self.live,
            window_bytes: log.order().window_bytes() as u64,
            replies: self.replies().map(|it| it.status(now)),
            unanswered: self.commands.and_then(|it| it.unanswered_status(now)),
            partitions: partitions.collect(),
        })
    }

    /// Updates the topic's gauges in the shard's metrics.
    pub(super) fn count(&self, now: Now, metrics: &mut ShardMetrics) {
        let index = usize::from(self.ids.index.0);
        // A commands topic is only written, and brokers may refuse that.
        for (Partition(number), counts) in self.counts.parts() {
            metrics.partition(index, number).failed.0 = counts.failed;
        }
        let topic = &mut metrics.topics[index];
        let leaderless = self.client.leaderless(self.ids.handle).count();
        topic.leaderless.set(leaderless as u64);
        let blocked = self.health.writes().is_blocked();
        topic.writes_blocked.set(u64::from(blocked));
        if let Some(commands) = self.commands {
            commands.count(now, topic);
        }
        let Some(log) = self.log else { return };
        log.count(metrics);
        for number in 0..u32_of(log.parts().len()) {
            let paused = self.paused_times(Partition(number));
            metrics.partition(index, number).paused.0 = paused;
        }
        let topic = &mut metrics.topics[index];
        self.counts.count(topic);
        let ranges = self.degraded.ranges();
        topic.undecodable_ranges.set(ranges as u64);
        let cached = self.shown.is_cached(self.plan);
        let degraded = cached && (ranges > 0 || self.degraded.is_full());
        topic.cache_degraded.set(u64::from(degraded));
        if let Some(replies) = self.replies() {
            replies.count_replies(now, topic);
        }
    }

    /// The commands that wait for the topic's replies. `None`: it holds none.
    fn replies(&self) -> Option<&Commands> {
        self.commands.filter(|_| self.plan.holds_replies)
    }

    /// How often the partition was left out of fetches, with its topic or by a catch-up read.
    fn paused_times(&self, partition: Partition) -> u64 {
        self.counts.of(partition).paused + self.history.pauses(partition)
    }
}
