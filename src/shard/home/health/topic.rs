//! The health of one topic: whether it exists, fits its routes, is read, and is confirmed by
//! brokers.

use std::time::Duration;

use crate::kafka::{Client, Denial, Doing, MissingReason, TopicHandle, TopicView};
use crate::log::Progress;
use crate::metrics::{Check, CheckState};
use crate::model::{Instant, Now, Offset, Partition, u32_of};
use crate::route::{Failure, Refused};
use crate::shard::message::{Blocked, Standing};
use crate::shard::snapshot::Snapshot;
use crate::shard::topic_plan::TopicPlan;

use super::cluster::ClusterHealth;
use super::line::Line;
use super::staleness::{Staleness, fresh_for};
use super::stalls::StallReport;
use super::writes::{WriteHealth, without_leader};

/// How long brokers may not respond for a partition of a topic that loads before the check names
/// it: longer than an election takes.
const SILENT: Duration = Duration::from_secs(10);

/// How often a topic is judged at least, since its quiet steps depend on it.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How often a stale topic is judged: no event reports that a broker confirms it again.
const STALE_CHECK_EVERY: Duration = Duration::from_millis(100);

/// The health of one topic. The topic reports what its reads and the cluster's metadata bring; it
/// calls [`Self::poll`] once [`Self::next_check`] is reached.
#[derive(Debug, Default)]
pub(in crate::shard::home) struct TopicHealth {
    /// Whether the cluster has shown the topic.
    known: bool,
    missing: Option<MissingReason>,
    /// Why the topic can't serve its streams although it exists. Its other routes are served.
    misconfigured: Option<String>,
    /// What an operator should change although the topic is served.
    advice: Option<String>,
    writes: WriteHealth,
    /// Dense by number, for the partitions that are read.
    partitions: Vec<PartitionHealth>,
    stalls: StallReport,
    /// What the projections know of the topic.
    published: Standing,
    check_at: Instant,
}

/// The health of a partition that is read.
#[derive(Clone, Debug)]
struct PartitionHealth {
    /// Why it can't be read for now.
    failed: Option<Box<str>>,
    /// The same reason, if only an operator can end it.
    denied: Option<Denial>,
    /// When a broker last responded for it. [`TopicHealth::poll`] adds what the client knows of
    /// idle partitions.
    heard: Instant,
    staleness: Staleness,
}

/// How far a partition is read.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shard::home) struct ReadPosition {
    /// The next offset to read.
    pub(in crate::shard::home) next: Offset,
    /// The offset up to which it loads. `None`: its read has not started.
    pub(in crate::shard::home) loaded_at: Option<Offset>,
    /// The offset from which it loads.
    pub(in crate::shard::home) loaded_from: Offset,
    pub(in crate::shard::home) log_start: Offset,
    pub(in crate::shard::home) stable_end: Offset,
    pub(in crate::shard::home) high_watermark: Offset,
    /// When a broker last confirmed that nothing has changed since the last event of the read.
    pub(in crate::shard::home) confirmed: Option<Instant>,
}

/// The state of a topic's reads, for one call.
pub(in crate::shard::home) struct TopicReads<'a> {
    pub(in crate::shard::home) snapshot: &'a Snapshot,
    pub(in crate::shard::home) plan: &'a TopicPlan,
    pub(in crate::shard::home) client: &'a Client,
    pub(in crate::shard::home) handle: TopicHandle,
    /// Whether the topic is loaded.
    pub(in crate::shard::home) live: bool,
    pub(in crate::shard::home) paused: bool,
    /// `None` before the topic is loaded for the first time.
    pub(in crate::shard::home) position: &'a dyn Fn(Partition) -> Option<ReadPosition>,
    pub(in crate::shard::home) now: Now,
}

/// What is known of a topic elsewhere and belongs to its check.
#[derive(Debug, Default)]
pub(in crate::shard::home) struct Shortcomings {
    /// What projections lack, for the operator. `None` if they lack nothing.
    pub(in crate::shard::home) degraded: Option<String>,
    /// Why retries are recognized for a shorter time than configured.
    pub(in crate::shard::home) cut: Option<String>,
}

impl PartitionHealth {
    const fn new(now: Instant) -> Self {
        Self {
            failed: None,
            denied: None,
            heard: now,
            staleness: Staleness::since(now),
        }
    }

    /// When a broker last responded for a partition at this position.
    fn heard(&self, position: &ReadPosition) -> Instant {
        position
            .confirmed
            .map_or(self.heard, |at| self.heard.max(at))
    }

    /// Takes what the client knows of a partition without events.
    fn on_position(&mut self, position: &ReadPosition) {
        let heard = self.heard(position);
        if heard > self.heard {
            self.heard = heard;
            let ReadPosition {
                next,
                high_watermark,
                ..
            } = *position;
            self.staleness.confirm(next, high_watermark, heard);
        }
    }
}

impl TopicHealth {
    /// The cluster shows the topic, for the first time or with a change. `replaced`: it is another
    /// log than before. Returns what to log.
    pub(in crate::shard::home) fn on_view(
        &mut self,
        plan: &TopicPlan,
        view: &TopicView,
        replaced: bool,
        now: Instant,
    ) -> Vec<Line> {
        (self.known, self.missing) = (true, None);
        self.check_at = Instant::ZERO;
        let mut lines = Vec::new();
        let misconfigured = misconfigured(plan, view);
        if misconfigured != self.misconfigured || replaced {
            lines.extend(misconfigured.clone().map(Line::Warn));
        }
        self.misconfigured = misconfigured;
        if plan.takes_commands {
            lines.extend(self.writes.on_right(view.writable, now));
        }
        if plan.takes_keyless {
            lines.extend(self.writes.on_config(compacted(view), now));
        }
        let advice = advice(plan, view);
        if advice != self.advice {
            lines.extend(advice.clone().map(Line::Warn));
        }
        self.advice = advice;
        lines
    }

    /// The cluster does not show the topic, or no longer. Returns what to log.
    pub(in crate::shard::home) fn on_missing(&mut self, reason: MissingReason) -> Line {
        self.missing = Some(reason);
        self.check_at = Instant::ZERO;
        Line::Warn(format!("{reason}; {}", reason.remedy()))
    }

    /// The topic is loaded from the start: none of its partitions is read any more.
    pub(in crate::shard::home) fn on_open(&mut self) {
        self.partitions.clear();
    }

    /// The next partition is read from now on.
    pub(in crate::shard::home) fn add_partition(&mut self, now: Instant) {
        self.partitions.push(PartitionHealth::new(now));
    }

    fn partition(&mut self, partition: Partition) -> Option<&mut PartitionHealth> {
        self.partitions.get_mut(partition.0 as usize)
    }

    /// The read of a partition started, or brought records.
    pub(in crate::shard::home) fn on_readable(&mut self, partition: Partition) {
        if let Some(health) = self.partition(partition) {
            (health.failed, health.denied) = (None, None);
        }
    }

    /// A partition can't be read for now. Returns true if it could be until now.
    pub(in crate::shard::home) fn on_failed(
        &mut self,
        partition: Partition,
        why: &str,
        denied: Option<Denial>,
    ) -> bool {
        self.partition(partition).is_some_and(|health| {
            health.denied = denied;
            health.failed.replace(why.into()).is_none()
        })
    }

    /// The read of a partition is stuck at an offset that can't be decoded.
    pub(in crate::shard::home) fn on_stuck(&mut self, partition: Partition, why: &str) {
        if let Some(health) = self.partition(partition) {
            health.failed = Some(why.into());
        }
    }

    /// Whether brokers accept what commands write.
    pub(in crate::shard::home) const fn writes(&self) -> &WriteHealth {
        &self.writes
    }

    /// Like [`Self::writes`], for a change.
    pub(in crate::shard::home) const fn writes_mut(&mut self) -> &mut WriteHealth {
        &mut self.writes
    }

    /// A broker has responded for a partition that is read up to `next`, with or without records.
    /// Its log ends at `high_watermark`.
    pub(in crate::shard::home) fn on_heard(
        &mut self,
        partition: Partition,
        next: Offset,
        high_watermark: Offset,
        now: Instant,
    ) {
        if let Some(health) = self.partition(partition) {
            health.heard = now;
            health.staleness.confirm(next, high_watermark, now);
        }
        if self.is_stale() {
            self.check_at = now;
        }
    }

    /// When brokers last confirmed all partitions, as of the last [`Self::poll`]. `None`: none is
    /// read.
    pub(in crate::shard::home) fn confirmed(&self) -> Option<Instant> {
        self.partitions.iter().map(|it| it.heard).min()
    }

    /// Something has happened that [`Self::poll`] must look at by `at`.
    pub(in crate::shard::home) fn check_by(&mut self, at: Instant) {
        self.check_at = self.check_at.min(at);
    }

    /// When [`Self::poll`] next has work, unless an event comes before.
    pub(in crate::shard::home) const fn next_check(&self) -> Instant {
        self.check_at
    }

    /// Judges the topic again, if that is due. Returns what the projections must know, if it has
    /// changed, and what to log. `full`: a slice has no room. `grown`: partitions were added.
    pub(in crate::shard::home) fn poll(
        &mut self,
        reads: &TopicReads<'_>,
        full: bool,
        grown: bool,
    ) -> Option<(Option<Standing>, Option<Line>)> {
        let now = reads.now.mono;
        if now < self.check_at {
            return None;
        }
        for (partition, health) in (0..).map(Partition).zip(&mut self.partitions) {
            if let Some(position) = (reads.position)(partition) {
                health.on_position(&position);
            }
        }
        let fresh_for = fresh_for(&reads.snapshot.config.settings);
        let oldest = self.partitions.iter().map(|it| it.staleness.as_of()).min();
        let oldest = oldest.filter(|_| reads.live);
        let stale_since = oldest.filter(|&oldest| now.since(oldest) >= fresh_for);
        self.check_at = match stale_since {
            Some(_) => now.after(STALE_CHECK_EVERY),
            // The next partition to become stale does so then at the earliest.
            None => oldest
                .unwrap_or(now)
                .after(fresh_for)
                .min(now.after(CHECK_EVERY)),
        };
        let standing = Standing {
            stale_since,
            blocked: self.blocked(reads.plan).filter(|_| !reads.live),
            full,
            grown,
        };
        let before = std::mem::replace(&mut self.published, standing);
        let stalled = self.stalled(reads, fresh_for);
        let line = self.stalls.on_check(stalled, now);
        Some(((before != standing).then_some(standing), line))
    }

    /// Since when brokers have not confirmed the topic, if answers carry their age.
    pub(in crate::shard::home) const fn is_stale(&self) -> bool {
        self.published.stale_since.is_some()
    }

    pub(in crate::shard::home) const fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// Whether the topic can't serve its streams although it exists.
    pub(in crate::shard::home) const fn is_misconfigured(&self) -> bool {
        self.misconfigured.is_some()
    }

    /// Why the topic can't serve its streams although it exists.
    #[cfg(test)]
    pub(in crate::shard::home) fn misconfigured(&self) -> Option<&str> {
        self.misconfigured.as_deref()
    }

    /// What an operator should change although the topic is served.
    #[cfg(test)]
    pub(in crate::shard::home) fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// Whether nothing of the topic can be served, although it exists.
    pub(in crate::shard::home) const fn is_blocked(&self, plan: &TopicPlan) -> bool {
        self.misconfigured.is_some() && !has_other_users(plan)
    }

    /// Why the topic can't be read, if only an operator can end that.
    pub(in crate::shard::home) fn read_denied(&self) -> Option<Denial> {
        self.partitions.iter().find_map(|it| it.denied)
    }

    /// The problem that only an operator can end, if any.
    fn blocked(&self, plan: &TopicPlan) -> Option<Blocked> {
        let missing = self.missing.map(|reason| match reason.denial() {
            Some(denial) => Blocked::Denied(Doing::Describe, denial),
            None => Blocked::Misconfigured,
        });
        let misconfigured = self.is_blocked(plan).then_some(Blocked::Misconfigured);
        let denied = self.read_denied();
        let denied = denied.map(|denial| Blocked::Denied(Doing::Read, denial));
        missing.or(misconfigured).or(denied)
    }

    /// The answer to requests of the topic's routes while they can't be served.
    pub(in crate::shard::home) fn refusal(&self, plan: &TopicPlan) -> Refused {
        let blocked = self.blocked(plan);
        blocked.map_or_else(|| Failure::NotReady.into(), Blocked::refused)
    }

    /// Whether the topic is ready, and what is missing. A topic that was live once is served from
    /// memory, whatever becomes of its brokers: it is degraded, never unready.
    pub(in crate::shard::home) fn check(
        &self,
        reads: &TopicReads<'_>,
        cluster: &ClusterHealth,
        found: Shortcomings,
    ) -> Check {
        let (snapshot, plan) = (reads.snapshot, reads.plan);
        let name = snapshot.topic_name(plan);
        let wrong = match (&self.missing, &self.misconfigured) {
            (Some(reason), _) => Some(format!("{reason}; {}", reason.remedy())),
            (None, misconfigured) => misconfigured.clone().filter(|_| self.is_blocked(plan)),
        };
        let (state, detail) = match (reads.live, wrong) {
            (true, wrong) => self.check_live(reads, wrong, found),
            (false, Some(wrong)) => (CheckState::Blocked, wrong),
            (false, None) if !self.known => {
                let waits = format!("waiting for {}", snapshot.cluster_name(plan.cluster));
                match cluster.problem(reads.client, reads.now) {
                    None => (CheckState::Loading, waits),
                    // The cluster's own check reports it.
                    Some(_) if !cluster.is_known() => (CheckState::Blocked, waits),
                    Some(problem) => (CheckState::Blocked, format!("{waits}: {problem}")),
                }
            }
            (false, None) => match self.stuck(reads) {
                Some(why) => {
                    let detail = format!("{}; {why}", self.describe_loading(reads));
                    (CheckState::Blocked, detail)
                }
                None => (CheckState::Loading, self.describe_loading(reads)),
            },
        };
        Check::new(name, state, detail)
    }

    fn check_live(
        &self,
        reads: &TopicReads<'_>,
        wrong: Option<String>,
        found: Shortcomings,
    ) -> (CheckState, String) {
        let stale = self.published.stale_since.map(|since| {
            let seconds = reads.now.mono.since(since).as_secs();
            let why = self.why_stale(reads);
            format!("not confirmed for {seconds} s: {why}; served from memory")
        });
        let denied = self.partitions.iter().filter(|it| it.denied.is_some());
        let denied = denied.filter_map(|it| it.failed.as_deref()).next();
        let main = wrong.or(stale).or(denied.map(str::to_owned));
        let all = [main, found.degraded].into_iter().flatten();
        let Some(why) = all.reduce(|one, other| format!("{one}; {other}")) else {
            let notes = self.advice.clone().into_iter().chain(found.cut);
            let texts: Vec<String> = ["live".into()].into_iter().chain(notes).collect();
            return (CheckState::Ready, texts.join("; "));
        };
        // Without its replies no command can be answered, even if the topic is served from memory.
        let plan = reads.plan;
        let undescribed = self.missing.and_then(MissingReason::denial).is_some();
        let blocks_commands = denied.is_some() && (plan.holds_replies || plan.is_indexed())
            || undescribed && (plan.holds_replies || plan.takes_commands);
        let state = if blocks_commands {
            CheckState::Blocked
        } else {
            CheckState::Degraded
        };
        // What is lost of memory stays lost while brokers are away.
        let why = [Some(why), found.cut].into_iter().flatten();
        let why: Vec<String> = why.collect();
        (state, why.join("; "))
    }

    /// Why the streams of the topic are refused while other routes of it are served. `None` if they
    /// are not refused, or if the topic's own check says why.
    pub(in crate::shard::home) fn check_streams(
        &self,
        snapshot: &Snapshot,
        plan: &TopicPlan,
    ) -> Option<Check> {
        let misconfigured = self.misconfigured.as_ref()?;
        let name = snapshot.streams_name(plan);
        let own = !self.is_blocked(plan);
        own.then(|| Check::new(name, CheckState::Blocked, misconfigured.as_str()))
    }

    /// Why brokers do not confirm the topic, for its least recently confirmed partition.
    fn why_stale(&self, reads: &TopicReads<'_>) -> String {
        let Some((partition, health)) = self.stalest() else {
            return "nothing is read of it".into();
        };
        if let Some(failed) = &health.failed {
            return failed.to_string();
        }
        let fresh_for = fresh_for(&reads.snapshot.config.settings);
        let stalled = self.stalled(reads, fresh_for);
        let position = (reads.position)(partition).unwrap_or_default();
        stalled.unwrap_or_else(|| {
            if reads.now.mono.since(health.heard(&position)) < fresh_for {
                format!(
                    "partition {} is read {} offsets behind its end",
                    partition.0,
                    position.high_watermark.0.saturating_sub(position.next.0)
                )
            } else {
                "its leaders do not answer".into()
            }
        })
    }

    /// Why partitions do not advance although brokers respond. `None`: all of them advance.
    fn stalled(&self, reads: &TopicReads<'_>, fresh_for: Duration) -> Option<String> {
        let leaderless: Vec<Partition> = reads.client.leaderless(reads.handle).collect();
        if !leaderless.is_empty() {
            return Some(without_leader(&leaderless));
        }
        self.published.stale_since?;
        let (partition, health) = self.stalest()?;
        let position = (reads.position)(partition).unwrap_or_default();
        let silent_for = reads.now.mono.since(health.heard(&position));
        let responds = health.failed.is_none() && silent_for < fresh_for;
        (responds && position.next >= position.stable_end).then(|| {
            format!(
                "partition {} is held back by a transaction that has been open since before \
                 offset {}; end it (kafka-transactions.sh find-hanging, abort)",
                partition.0, position.stable_end.0
            )
        })
    }

    /// The least recently confirmed partition.
    fn stalest(&self) -> Option<(Partition, &PartitionHealth)> {
        let partitions = (0..).map(Partition).zip(&self.partitions);
        partitions.min_by_key(|(_, health)| health.staleness.as_of())
    }

    /// Why loading does not advance, for the first partition that delays it.
    fn stuck(&self, reads: &TopicReads<'_>) -> Option<String> {
        let silent = |heard| !reads.paused && reads.now.mono.since(heard) >= SILENT;
        let mut partitions = (0..).map(Partition).zip(&self.partitions);
        partitions.find_map(|(partition, health)| {
            if let Some(why) = &health.failed {
                return Some(why.to_string());
            }
            let position = (reads.position)(partition).unwrap_or_default();
            (position.loaded_at.is_none() && silent(health.heard(&position))).then(|| {
                format!(
                    "partition {}: nobody leads it, or its leader does not answer; bring its \
                     replicas back",
                    partition.0
                )
            })
        })
    }

    fn describe_loading(&self, reads: &TopicReads<'_>) -> String {
        let (mut read, mut total) = (0, 0);
        for partition in (0..u32_of(self.partitions.len())).map(Partition) {
            let Some(position) = (reads.position)(partition) else {
                return "loading".into();
            };
            let start = position.log_start.max(position.loaded_from).0;
            let end = position
                .loaded_at
                .unwrap_or_default()
                .0
                .saturating_sub(start);
            read += position.next.0.saturating_sub(start).min(end);
            total += end;
        }
        format!("loading: {read} of {total} offsets")
    }
}

/// Whether the topic is compacted. `None` if its config can't be read.
pub(in crate::shard::home) fn compacted(view: &TopicView) -> Option<bool> {
    view.config.as_ref().map(|config| config.compacted)
}

/// What an operator should change of a topic that serves its routes all the same.
fn advice(plan: &TopicPlan, view: &TopicView) -> Option<String> {
    let read = plan.is_read();
    let Some(compacted) = compacted(view) else {
        let text = "its configuration can't be read, so it counts as not compacted, and its \
                    retention as endless; allow DescribeConfigs on it";
        return read.then(|| text.into());
    };
    let text = if compacted && plan.is_indexed() {
        "it is compacted, so a newer command hides an older one with its key, and a retry of the \
         older one may run again; set its cleanup.policy to delete"
    } else if compacted && plan.holds_replies {
        "it is compacted, so a newer reply hides an older one and its retries run again; set its \
         cleanup.policy to delete"
    } else if !compacted && plan.queried {
        "it is not compacted, so queries forget what retention takes; set its cleanup.policy to \
         compact if they should not"
    } else {
        return None;
    };
    Some(text.into())
}

/// Whether routes other than streams use the topic.
const fn has_other_users(plan: &TopicPlan) -> bool {
    plan.queried || plan.holds_replies || plan.takes_commands
}

/// Why an existing topic can't serve its streams.
fn misconfigured(plan: &TopicPlan, view: &TopicView) -> Option<String> {
    let most = Progress::PARTITIONS_MAX;
    if !plan.encodings.is_empty() && view.partitions as usize > most {
        let partitions = view.partitions;
        return Some(format!(
            "it has {partitions} partitions and event ids name {most}, so its streams are refused; \
             stream another topic"
        ));
    }
    let compacted = view.config.as_ref().is_none_or(|config| config.compacted);
    let why = plan.compacted_for.filter(|_| !compacted)?;
    Some(format!(
        "{why} needs a compacted topic; set its cleanup.policy to compact"
    ))
}
