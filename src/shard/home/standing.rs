//! How a topic stands, for whoever asks: readiness, `/status`, metrics.

use std::time::Duration;

use crate::kafka::{Client, MissingReason};
use crate::metrics::{Check, CheckState, PartitionStatus, ShardMetrics, TopicStatus};
use crate::model::{Now, Offset, Partition};
use crate::route::{Failure, Refused};

use super::Cluster;
use super::freshness::fresh_for;
use super::partitions::Part;
use super::topic::Topic;
use super::writes::without_leader;
use crate::shard::message::Blocked;
use crate::shard::snapshot::Snapshot;

/// For how long nobody may answer for a partition of a topic that loads before it is named: longer
/// than an election takes.
const SILENT: Duration = Duration::from_secs(10);

impl Topic {
    /// Whether the topic is ready, and what is missing. One that was live once is served from
    /// memory, whatever becomes of its brokers: it is degraded, never unready.
    pub(super) fn check(&self, snapshot: &Snapshot, cluster: &Cluster, now: Now) -> Check {
        let name = snapshot.topic_name(snapshot.topic(self.index));
        let wrong = match (&self.missing, &self.unfit) {
            (Some(reason), _) => Some(format!("{reason}; {}", reason.remedy())),
            (None, unfit) => unfit.clone().filter(|_| self.is_blocked(snapshot)),
        };
        let lacks = self.describe_degraded(snapshot.config.settings.cache.bytes_max);
        let stale = self.standing.stale_since.map(|since| {
            let seconds = now.mono.since(since).as_secs();
            let why = self.why_stale(cluster, snapshot, now);
            format!("not confirmed for {seconds} s: {why}; served from memory")
        });
        let denied = self.parts.iter().filter(|part| part.denied.is_some());
        let denied = denied.filter_map(|part| part.failed.as_deref()).next();
        // Without its replies no command can be answered, even if the topic is served from memory.
        let plan = snapshot.topic(self.index);
        let undescribed = self.missing.and_then(MissingReason::denial).is_some();
        let degraded_as = match denied.is_some() && plan.holds_replies
            || undescribed && (plan.holds_replies || plan.takes_commands)
        {
            true => CheckState::Blocked,
            false => CheckState::Degraded,
        };
        let degraded = [wrong.clone().or(stale).or(denied.map(str::to_owned)), lacks];
        let degraded = degraded.into_iter().flatten();
        let degraded = degraded.reduce(|one, other| format!("{one}; {other}"));
        let (state, detail) = match (self.live, wrong, degraded) {
            (true, _, Some(why)) => (degraded_as, why),
            (true, _, None) => {
                let cut = self.commands.as_ref().and_then(|it| it.explain_cut(now));
                let texts = ["live".into()]
                    .into_iter()
                    .chain(self.advice.clone())
                    .chain(cut);
                (CheckState::Ready, texts.collect::<Vec<_>>().join("; "))
            }
            (false, Some(wrong), _) => (CheckState::Blocked, wrong),
            (false, None, _) if self.view.is_none() => {
                let waits = format!("waiting for {}", snapshot.cluster_name(self.cluster));
                match cluster.trouble(now) {
                    None => (CheckState::Loading, waits),
                    // Told once, by the cluster's own check.
                    Some(_) if !cluster.is_known() => (CheckState::Blocked, waits),
                    Some(trouble) => (CheckState::Blocked, format!("{waits}: {trouble}")),
                }
            }
            (false, None, _) => match self.stuck(now) {
                Some(why) => (CheckState::Blocked, format!("{}; {why}", self.progress())),
                None => (CheckState::Loading, self.progress()),
            },
        };
        Check::new(name, state, detail)
    }

    /// Why the streams of the topic are refused while other routes of it are served. `None` if they
    /// are not refused, or if the topic's own check says why.
    pub(super) fn check_streams(&self, snapshot: &Snapshot) -> Option<Check> {
        let unfit = self.unfit.as_ref()?;
        let name = snapshot.streams_name(snapshot.topic(self.index));
        let own = !self.is_blocked(snapshot);
        own.then(|| Check::new(name, CheckState::Blocked, unfit.as_str()))
    }

    /// Why brokers do not confirm the topic, for its least recently confirmed partition.
    fn why_stale(&self, cluster: &Cluster, snapshot: &Snapshot, now: Now) -> String {
        let Some((p, part)) = self.stalest() else {
            return "nothing is read of it".into();
        };
        if let Some(failed) = &part.failed {
            return failed.to_string();
        }
        let fresh_for = fresh_for(&snapshot.config.settings);
        let held_up = self.held_up(&cluster.client, fresh_for, now);
        held_up.unwrap_or_else(|| match now.mono.since(part.heard) < fresh_for {
            true => format!(
                "partition {} is read {} offsets behind its end",
                p.0,
                part.high_watermark.0.saturating_sub(self.next(p).0)
            ),
            false => "its leaders do not answer".into(),
        })
    }

    /// Why partitions stand still although brokers answer; `None`: none does.
    pub(super) fn held_up(&self, client: &Client, fresh_for: Duration, now: Now) -> Option<String> {
        let leaderless: Vec<Partition> = client.leaderless(self.handle).collect();
        if !leaderless.is_empty() {
            return Some(without_leader(&leaderless));
        }
        self.standing.stale_since?;
        let (p, part) = self.stalest()?;
        let answers = part.failed.is_none() && now.mono.since(part.heard) < fresh_for;
        (answers && self.next(p) >= part.stable_end).then(|| {
            format!(
                "partition {} is held back by a transaction that has been open since before \
                 offset {}; end it (kafka-transactions.sh find-hanging, abort)",
                p.0, part.stable_end.0
            )
        })
    }

    /// The partition whose log was read whole longest ago.
    fn stalest(&self) -> Option<(Partition, &Part)> {
        let parts = (0..).map(Partition).zip(&self.parts);
        parts.min_by_key(|(_, part)| part.freshness.as_of())
    }

    fn next(&self, partition: Partition) -> Offset {
        let order = self.order.as_ref();
        order.map(|it| it.next(partition)).unwrap_or_default()
    }

    /// The state of commands to the topic. `None` if no command route writes to it.
    pub(super) fn writes_check(
        &self,
        snapshot: &Snapshot,
        cluster: &Cluster,
        now: Now,
    ) -> Option<Check> {
        let plan = snapshot.topic(self.index);
        let leaderless = cluster.client.leaderless(self.handle);
        let (state, detail) = self.writes.check(leaderless, now.mono);
        plan.takes_commands
            .then(|| Check::new(snapshot.writes_name(plan), state, detail))
    }

    /// Why routes of the topic can't be served.
    pub(super) fn why_not(&self, snapshot: &Snapshot) -> Refused {
        let blocked = self.blocked(snapshot);
        blocked.map_or_else(|| Failure::NotReady.into(), Blocked::refused)
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
                in_flight_bytes: order.in_flight_bytes_of(Partition(p as u32)) as u64,
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

    /// Brings the topic's gauges up to date.
    pub(super) fn count(
        &self,
        snapshot: &Snapshot,
        client: &Client,
        now: Now,
        metrics: &mut ShardMetrics,
    ) {
        let index = usize::from(self.index.0);
        // A topic of commands is written only, and refused all the same.
        for (p, counts) in (0..).zip(&self.counts.parts) {
            metrics.partition(index, p).failed.0 = counts.failed;
        }
        let topic = &mut metrics.topics[index];
        topic
            .leaderless
            .set(client.leaderless(self.handle).count() as u64);
        topic
            .writes_blocked
            .set(u64::from(self.writes.is_blocked()));
        let Some(order) = &self.order else { return };
        let (mut sum, mut most, mut unstable) = (0, 0, 0);
        for (p, part) in self.parts.iter().enumerate() {
            let end = part.stable_end.0;
            let lag = end.saturating_sub(order.next(Partition(p as u32)).0);
            let open = part.high_watermark.0.saturating_sub(end);
            let of_part = metrics.partition(index, p as u32);
            of_part.lag.set(lag);
            of_part.unstable.set(open);
            let bytes = order.in_flight_bytes_of(Partition(p as u32));
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
        topic.in_flight_bytes.set(order.in_flight_bytes() as u64);
        if let Some(commands) = &self.commands {
            commands.count(now, topic);
        }
    }

    /// How often the partition was left out of fetches, with its topic or by a catch-up read.
    fn paused_times(&self, partition: usize) -> u64 {
        let of_topic = self.counts.parts.get(partition).map_or(0, |it| it.paused);
        of_topic + self.catch_ups.paused_times(Partition(partition as u32))
    }

    /// Why loading does not go on, of the first partition that holds it up.
    fn stuck(&self, now: Now) -> Option<String> {
        let silent = |heard| !self.paused && now.mono.since(heard) >= SILENT;
        (0..)
            .zip(&self.parts)
            .find_map(|(p, part)| match &part.failed {
                Some(why) => Some(why.to_string()),
                None if part.loaded_at.is_none() && silent(part.heard) => Some(format!(
                    "partition {p}: nobody leads it, or its leader does not answer; bring its \
                 replicas back"
                )),
                None => None,
            })
    }

    fn progress(&self) -> String {
        let Some(order) = &self.order else {
            return "loading".into();
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
