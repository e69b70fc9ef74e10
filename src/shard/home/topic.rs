//! One topic at its home: from its name to a live order. A topic is *waiting* until the cluster
//! shows it, *loading* until what its users need is read, then *live*. Another log under the same
//! name starts over as a new incarnation.
//!
//! | type | owns |
//! |---|---|
//! | [`ShownTopic`] | what the cluster shows of the topic |
//! | [`TopicLog`] | one incarnation: reads of partitions, order, pause, loading |
//! | [`TopicHealth`] | whether it fits its routes, is read, written and confirmed |
//! | [`Degraded`] | what projections of the topic lack |
//! | [`Rereads`] | reads of records that slices had no room for |
//! | [`History`] | catch-up reads and epoch checks of streams |
//! | [`TopicCommands`] | commands that wait for replies of the topic, or for their append to it |
//! | [`Counts`] | what is counted over all incarnations |
//! | [`Topic`] | passes on what one of them learns and another must know |

use std::sync::Arc;

use crate::command::Expired;
use crate::kafka::{
    Client, Doing, Event, KafkaError, Lane, MissingReason, StartAt, TopicHandle, TopicView,
};
use crate::log::{Batch, BatchBuilder, Change, GapReason, Next, Seq, Step};
use crate::model::{ExchangeId, Instant, Now, Offset, Partition, ShardId, u32_of};

use super::commands::Commands;
use super::context::{HomeContext, note};
use super::counts::Counts;
use super::degraded::{Degraded, Refill, UndecodableRange};
use super::health::{Line, TopicHealth, TopicReads, WriteHealth};
use super::history::{History, HistoryContext};
use super::loading::since;
use super::order::Order;
use super::partitions::log_start;
use super::report::Report;
use super::rereads::{Rereads, reached};
use super::shown_topic::{ShownTopic, ViewChange};
use super::topic_commands::TopicCommands;
use super::topic_ids::TopicIds;
use super::topic_log::TopicLog;
use crate::route::Refused;
use crate::shard::message::{Level, ProjectionMessage, TopicMessage};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::{ClusterId, Snapshot, TopicId};
use crate::shard::topic_plan::TopicPlan;

/// One topic at its home shard.
#[derive(Debug)]
pub(super) struct Topic {
    ids: TopicIds,
    /// Whether records are read from the topic. Otherwise commands are only produced to it.
    is_read: bool,
    shown: ShownTopic,
    health: TopicHealth,
    /// The number of the present incarnation. 0: none has begun.
    incarnation: u32,
    /// The present incarnation.
    log: Option<TopicLog>,
    degraded: Degraded,
    rereads: Rereads,
    history: History,
    counts: Counts,
    commands: TopicCommands,
}

impl Topic {
    pub(super) fn new(
        index: TopicId,
        handle: TopicHandle,
        snapshot: &Snapshot,
        random: &ahash::RandomState,
    ) -> Self {
        let plan = snapshot.topic(index);
        let ids = TopicIds {
            index,
            cluster: plan.cluster,
            handle,
        };
        let streams_max = snapshot.config.settings.streams.streams_max;
        Self {
            ids,
            is_read: plan.is_read(),
            shown: ShownTopic::default(),
            health: TopicHealth::default(),
            incarnation: 0,
            log: None,
            degraded: Degraded::new(plan.holds_replies),
            rereads: Rereads::new(ids),
            history: History::new(plan.encodings.clone(), streams_max),
            counts: Counts::default(),
            commands: TopicCommands::new(plan, snapshot, handle, random),
        }
    }

    pub(super) const fn index(&self) -> TopicId {
        self.ids.index
    }

    pub(super) const fn cluster(&self) -> ClusterId {
        self.ids.cluster
    }

    pub(super) const fn handle(&self) -> TopicHandle {
        self.ids.handle
    }

    /// The number of the present incarnation.
    pub(super) const fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// What the cluster shows of the topic. `None`: it does not show it, or no longer.
    pub(super) fn view(&self) -> Option<&Arc<TopicView>> {
        self.shown.view().filter(|_| !self.health.is_missing())
    }

    /// The present incarnation. `None`: nothing is read from the topic yet.
    #[cfg(test)]
    pub(super) const fn log(&self) -> Option<&TopicLog> {
        self.log.as_ref()
    }

    /// Whether the topic's routes can be served.
    pub(super) fn is_live(&self) -> bool {
        if self.is_read {
            self.log.as_ref().is_some_and(TopicLog::is_live)
        } else {
            self.shown.view().is_some()
        }
    }

    /// Whether it is compacted, if its config can be read.
    pub(super) fn compacted(&self) -> Option<bool> {
        self.shown.compacted()
    }

    /// The commands in flight that wait for the topic: for its replies, or for their append to it.
    /// `None`: none does.
    pub(super) fn commands(&self) -> Option<&Commands> {
        self.commands.waiting()
    }

    /// Like [`Self::commands`], for a change.
    pub(super) fn commands_mut(&mut self) -> Option<&mut Commands> {
        self.commands.waiting_mut()
    }

    /// Whether brokers accept what commands write to the topic.
    pub(super) const fn writes(&self) -> &WriteHealth {
        self.health.writes()
    }

    /// Like [`Self::writes`], for a change.
    pub(super) const fn writes_mut(&mut self) -> &mut WriteHealth {
        self.health.writes_mut()
    }

    #[cfg(test)]
    pub(super) const fn health(&self) -> &TopicHealth {
        &self.health
    }

    /// Whether records of the topic can't be read until an operator acts.
    pub(super) fn is_unreadable(&self) -> bool {
        self.health.is_missing() || self.health.read_denied().is_some()
    }

    /// The offset of a partition up to which all records are applied.
    pub(super) fn next_offset(&self, partition: Partition) -> Offset {
        let log = self.log.as_ref();
        log.map_or(Offset(0), |log| log.order().next(partition))
    }

    /// The answer to requests of the topic's routes while they can't be served.
    pub(super) fn refusal(&self, snapshot: &Snapshot) -> Refused {
        self.health.refusal(self.ids.plan(snapshot))
    }

    // What the cluster shows.

    /// The cluster shows the topic, for the first time or otherwise than before.
    pub(super) fn on_view(
        &mut self,
        view: Arc<TopicView>,
        cluster_id: &str,
        cx: &mut HomeContext<'_>,
    ) {
        let plan = self.ids.plan(cx.snapshot);
        let ViewChange {
            same_id,
            same_policy,
        } = self.shown.on_view(view);
        let Some(view) = self.shown.view().cloned() else {
            return;
        };
        let was_misconfigured = self.health.is_misconfigured();
        for line in self.health.on_view(plan, &view, !same_id, cx.now.mono) {
            self.log_line(Some(line), cx.snapshot, cx.out);
        }
        if !self.is_read {
            return;
        }
        // What is kept of a topic depends on its cleanup.policy, so another policy loads the topic
        // again. A topic that can't be served any more ends what it serves.
        let outgrown = !was_misconfigured && self.health.is_misconfigured();
        let same_log = same_id && (same_policy && !outgrown || !plan.is_shared());
        // What shards keep of deletes stays as the topic's config was when it was opened: slices
        // and ids go by the same time, so a config that changed makes neither miss one.
        self.commands.on_retention(&view);
        if !same_log {
            self.shown.on_cluster(cluster_id);
            if self.incarnation > 0 {
                let why = match (same_id, same_policy) {
                    (true, true) => "can't be served as it is now",
                    (true, false) => "has another cleanup.policy now",
                    (false, _) => "was made again",
                };
                self.note(Level::Warn, &format!(" {why}: its caches start over"), cx);
            }
            self.open(&view, cx);
        }
        self.read_new_partitions(&view, cx);
    }

    /// The cluster does not show it, or no longer.
    pub(super) fn on_missing(&mut self, reason: MissingReason, cx: &mut HomeContext<'_>) {
        // A broker that has just started may not know the topic yet. Keep what was read: if the
        // topic reappears as another log, its id shows that.
        let line = self.health.on_missing(reason);
        self.log_line(Some(line), cx.snapshot, cx.out);
    }

    /// Reads the partitions that are not read yet.
    fn read_new_partitions(&mut self, view: &TopicView, cx: &mut HomeContext<'_>) {
        let plan = self.ids.plan(cx.snapshot);
        let Some(log) = &mut self.log else { return };
        let known = u32_of(log.parts().len());
        // A partition that was added is read from its start: no client has seen any of it.
        let from = match self.commands.of_replies() {
            _ if known > 0 => StartAt::At(Next::default()),
            _ if self.shown.is_cached(plan) => StartAt::Earliest,
            Some(commands) => since(commands.reply_window(), cx.now.wall),
            None if plan.is_indexed() => {
                let open_limit = cx.snapshot.config.settings.commands.open_limit;
                since(Some(open_limit), cx.now.wall)
            }
            None => StartAt::Latest,
        };
        for _ in known..view.partitions {
            log.read_next(from, cx.client);
            self.health.add_partition(cx.now.mono);
        }
    }

    // Incarnations.

    /// Loads the topic again, because its log lost its end to an unclean election. State that was
    /// built from the lost records can't be separated from the rest. Each stream resumes with its
    /// id, which says what it holds of the lost branch.
    fn start_over(&mut self, cx: &mut HomeContext<'_>) {
        let text = ": an unclean election cut its log back; it is loaded anew";
        self.note(Level::Warn, text, cx);
        self.load_anew(cx);
    }

    /// Loads the topic again from its log.
    fn load_anew(&mut self, cx: &mut HomeContext<'_>) {
        let Some(view) = self.shown.view().cloned() else {
            return;
        };
        self.open(&view, cx);
        self.read_new_partitions(&view, cx);
    }

    /// Begins an incarnation: what was built from another log is void.
    fn open(&mut self, view: &TopicView, cx: &mut HomeContext<'_>) {
        let snapshot = cx.snapshot;
        let plan = self.ids.plan(snapshot);
        self.incarnation += 1;
        self.health.on_open();
        self.history
            .on_open(self.incarnation, self.ids.handle, cx.client);
        self.rereads.stop(cx.client);
        let cached = self.shown.is_cached(plan);
        self.degraded.on_open(cached || plan.holds_replies);
        self.commands.on_new_log(view, cx.client, cx.out);
        let streamed = self.is_streamed(plan);
        let incarnation = self
            .shown
            .incarnation(self.incarnation, streamed, view, plan, snapshot);
        let order = Order::open(&incarnation, plan, snapshot, cx.now.wall);
        if plan.is_shared() {
            let incarnation = Arc::new(incarnation);
            cx.to_projections(self.index(), || {
                ProjectionMessage::Open(incarnation.clone())
            });
        }
        let last_step = self.log.as_ref().map_or(Instant::ZERO, TopicLog::last_step);
        let log = TopicLog::new(self.ids, plan, order, view.partitions, last_step);
        self.log = Some(log);
    }

    /// Whether its events are encoded. Streams of a misconfigured topic are refused, while other
    /// routes of it are served.
    const fn is_streamed(&self, plan: &TopicPlan) -> bool {
        !plan.encodings.is_empty() && !self.health.is_misconfigured()
    }

    // Reads.

    /// Handles an event of one of the topic's reads.
    pub(super) fn on_read(&mut self, event: Event, cx: &mut HomeContext<'_>) {
        let (Some(read), Some(log)) = (event.read(), &mut self.log) else {
            return;
        };
        if log.was_cut_back(&event) {
            return self.start_over(cx);
        }
        match read.lane {
            Lane::Replies | Lane::Streams => self.on_live_read(event, cx),
            Lane::History => {
                if let Some(event) = self.commands.on_read(event, cx.client, cx.out)
                    && let Some((history, mut at)) = self.history(cx)
                {
                    history.on_read(event, &mut at);
                }
            }
            Lane::Again => self.on_read_again(event, cx),
        }
    }

    /// Handles an event of a read that follows the log's end.
    fn on_live_read(&mut self, event: Event, cx: &mut HomeContext<'_>) {
        let (now, Some(log)) = (cx.now, &mut self.log) else {
            return;
        };
        match event {
            Event::Started { read, from, end } => {
                log.on_started(read.partition, from.offset, end);
                self.health.on_readable(read.partition);
                let batch = BatchBuilder::new(read.partition).finish();
                self.on_batch(batch, from, cx);
                self.skip_old_replies(cx);
            }
            Event::Batch {
                read,
                batch,
                next,
                log_start,
                stable_end,
                high_watermark,
            } => {
                let step = log.on_log_start(read.partition, log_start, now);
                log.on_ends(read.partition, stable_end, high_watermark);
                self.send(step, cx);
                self.health.on_readable(read.partition);
                self.on_batch(batch, next, cx);
            }
            Event::Undecodable {
                read,
                from,
                to,
                error,
            } => {
                let met = UndecodableRange {
                    partition: read.partition,
                    from,
                    to,
                    error: &error,
                };
                self.on_undecodable(&met, cx);
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } => {
                let change = Change::Gap {
                    partition: read.partition,
                    from: wanted,
                    to: log_start,
                    reason: GapReason::Retention,
                };
                let step = log.change(change, now);
                self.send(Some(step), cx);
            }
            Event::ReadFailed { read, error } => self.on_failed(read.partition, &error, cx),
            _ => {} // It belongs to no read: `on_read` has looked.
        }
    }

    /// Skips the oldest replies if memory is not sufficient for all. A cached topic is read whole.
    fn skip_old_replies(&mut self, cx: &mut HomeContext<'_>) {
        let whole = self.shown.is_cached(self.ids.plan(cx.snapshot));
        let commands = self.commands.of_replies_mut();
        if let (Some(commands), Some(log), false) = (commands, &mut self.log, whole) {
            for (partition, offset) in log.skip_to_fit(commands.offsets_max(), cx.client) {
                commands.table.replies.on_skipped(partition, offset);
            }
        }
    }

    /// A broker has responded for a partition that is read up to `next`, with or without records.
    fn on_heard(&mut self, partition: Partition, next: Offset, now: Instant) {
        let parts = self.log.as_ref().map(TopicLog::parts);
        if let Some(part) = parts.and_then(|parts| parts.get(partition.0 as usize)) {
            let end = part.high_watermark;
            self.health.on_heard(partition, next, end, now);
        }
    }

    /// Takes what a read brought of a partition. Records wait for [`Self::order_next`].
    fn on_batch(&mut self, batch: Batch, next: Next, cx: &mut HomeContext<'_>) {
        self.on_heard(batch.partition(), next.offset, cx.now.mono);
        self.counts.on_batch(&batch);
        let at_once = self.log.as_mut().is_some_and(|log| log.push(batch, next));
        if at_once {
            self.order_next(cx);
        }
    }

    /// A read has met offsets that it can't decode. All projections of the topic learn of them in
    /// the topic's order.
    fn on_undecodable(&mut self, met: &UndecodableRange<'_>, cx: &mut HomeContext<'_>) {
        let (now, Some(log)) = (cx.now, &mut self.log) else {
            return;
        };
        self.counts.on_undecodable();
        let first = self.degraded.on_undecodable(met);
        let (partition, from) = (met.partition, met.from);
        let step = log.change(met.change(), now);
        self.send(Some(step), cx);
        if let Some(text) = self.degraded.explain_range(met, first) {
            self.note(Level::Warn, &text, cx);
        }
        if met.is_stuck() {
            let (number, from, error) = (partition.0, from.0, met.error);
            let text = format!("partition {number} from offset {from} on: {error}");
            self.health.on_stuck(partition, &text);
        } else {
            self.go_live_if_loaded(cx);
        }
    }

    /// A partition can't be read for now.
    fn on_failed(&mut self, partition: Partition, error: &KafkaError, cx: &mut HomeContext<'_>) {
        let denial = match error {
            KafkaError::Broker(code) => code.denial(),
            _ => None,
        };
        let mut text = format!("partition {}: {error}", partition.0);
        if let Some(denial) = denial {
            let (cause, remedy) = (denial.cause(), denial.remedy(Doing::Read));
            text.push_str(&format!(": {cause}; {remedy}"));
        }
        self.health.check_by(cx.now.mono);
        if self.health.on_failed(partition, &text, denial) {
            self.note(Level::Warn, &format!(" {text}"), cx);
        }
    }

    /// Handles an event of a read of earlier records.
    fn on_read_again(&mut self, event: Event, cx: &mut HomeContext<'_>) {
        let Some((partition, offset)) = reached(&event) else {
            return;
        };
        if let (Event::Batch { batch, .. }, Some(log)) = (event, &mut self.log)
            && !batch.is_empty()
        {
            let step = log.again(batch, cx.now);
            self.send(Some(step), cx);
            self.pause_if_full(cx);
        }
        if self.rereads.on_reached(partition, offset, cx.client) {
            self.health.check_by(Instant::ZERO);
        }
    }

    /// Errors in responses of brokers about a partition are counted for the metrics.
    pub(super) fn count_failed(&mut self, partition: Partition) {
        self.counts.on_failed(partition);
    }

    // Steps.

    /// Whether records wait to be ordered.
    pub(super) fn has_waiting(&self) -> bool {
        self.log.as_ref().is_some_and(TopicLog::has_waiting)
    }

    /// Whether [`Self::order_next`] has work: while the topic is paused, records wait.
    pub(super) fn is_ordering(&self) -> bool {
        let log = self.log.as_ref();
        log.is_some_and(|log| !log.is_paused() && log.has_waiting())
    }

    /// Orders one step of the records that wait.
    pub(super) fn order_next(&mut self, cx: &mut HomeContext<'_>) {
        let Some(log) = self.log.as_mut().filter(|log| log.has_waiting()) else {
            return;
        };
        let step = log.next_step(cx.now);
        self.send(step, cx);
        self.go_live_if_loaded(cx);
        self.pause_if_full(cx);
    }

    /// Passes a step on to all that is built from the topic.
    fn send(&mut self, step: Option<Arc<Step>>, cx: &mut HomeContext<'_>) {
        let Some(step) = step else { return };
        if self.degraded.on_step(&step) {
            let text = ": the log has nothing more that can't be decoded";
            self.note(Level::Info, text, cx);
        }
        let live = self.is_live();
        for text in self.commands.on_step(&step, live, cx.now, cx.out) {
            self.note(Level::Warn, &text, cx);
        }
        if self.ids.plan(cx.snapshot).is_shared() {
            cx.to_projections(self.index(), || ProjectionMessage::Step(step.clone()));
        } else if let Some(log) = &mut self.log {
            log.on_applied_here(step.seq);
        }
    }

    fn go_live_if_loaded(&mut self, cx: &mut HomeContext<'_>) {
        let plan = self.ids.plan(cx.snapshot);
        if self.health.is_blocked(plan) {
            return;
        }
        let log = self.log.as_mut();
        let Some(step) = log.and_then(|log| log.go_live_if_loaded(cx.now)) else {
            return;
        };
        self.send(Some(step), cx);
        if let Some(log) = self.log.as_ref().filter(|_| plan.is_shared()) {
            let log_start = log_start(log.parts());
            cx.to_projections(self.index(), || ProjectionMessage::Live {
                log_start: log_start.clone(),
            });
        }
        self.note(Level::Info, " is live", cx);
    }

    fn pause_if_full(&mut self, cx: &mut HomeContext<'_>) {
        if let Some(log) = &mut self.log
            && log.pause_if_full(cx.client)
        {
            self.counts.on_paused(log.parts().len());
        }
    }

    /// Whether steps wait for the index of unanswered commands.
    pub(super) fn has_unindexed(&self) -> bool {
        self.commands.has_unindexed()
    }

    /// Moves the steps that the index of unanswered commands has not seen to `steps`.
    pub(super) fn take_unindexed(&mut self, steps: &mut Vec<Arc<Step>>) {
        self.commands.take_unindexed(steps);
    }

    // What other shards send.

    /// A message about the present incarnation.
    pub(super) fn on_message(
        &mut self,
        from: ShardId,
        message: TopicMessage,
        cx: &mut HomeContext<'_>,
    ) {
        match message {
            TopicMessage::Applied(seq) => self.on_applied(from, seq, cx),
            TopicMessage::Gaps(gaps) => {
                // All shards are notified at once, and the topic is checked for another loading.
                self.health.check_by(Instant::ZERO);
                let bytes_max = cx.snapshot.config.settings.cache.bytes_max;
                let lines = self.degraded.on_gaps(from, gaps, bytes_max, cx.now.mono);
                for line in lines.into_iter().flatten() {
                    let (level, text) = line.into_parts();
                    self.note(level, &text, cx);
                }
            }
            TopicMessage::History(message) => {
                if let Some((history, mut at)) = self.history(cx) {
                    history.on_message(from, message, &mut at);
                }
            }
        }
    }

    /// A shard has applied all up to `seq`.
    fn on_applied(&mut self, shard: ShardId, seq: Seq, cx: &mut HomeContext<'_>) {
        if let Some(log) = &mut self.log {
            log.on_applied(shard, seq, cx.client);
            self.go_live_if_loaded(cx);
        }
    }

    /// The topic's history, and the context of a call to it. `None`: nothing of the topic is read
    /// yet, so no stream is open.
    fn history<'a>(
        &'a mut self,
        cx: &'a mut HomeContext<'_>,
    ) -> Option<(&'a mut History, HistoryContext<'a>)> {
        let log = self.log.as_ref()?;
        let at = HistoryContext {
            topic: self.ids.index,
            handle: self.ids.handle,
            order: log.order(),
            parts: log.parts(),
            now: cx.now,
            client: cx.client,
            out: cx.out,
        };
        Some((&mut self.history, at))
    }

    /// More is known of where the epochs of the log end.
    pub(super) fn on_epoch_ends(&mut self, cx: &mut HomeContext<'_>) {
        if let Some((history, mut at)) = self.history(cx) {
            history.on_epoch_ends(&mut at);
        }
    }

    // Time.

    /// Handles the deadlines of health and history.
    pub(super) fn on_timeout(&mut self, cx: &mut HomeContext<'_>) {
        self.poll_health(cx);
        self.make_quiet_step(cx);
        if let Some((history, mut at)) = self.history(cx) {
            history.on_timeout(&mut at);
        }
    }

    /// Moves commands past their deadline to `expired`. Returns true if more is due at once.
    #[must_use]
    pub(super) fn expire_commands(
        &mut self,
        now: Now,
        expired: &mut Vec<Expired<ExchangeId>>,
        client: &mut Client,
        out: &mut Outbox,
    ) -> bool {
        self.commands.expire(now, expired, client, out)
    }

    /// When a deadline of the topic passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let commands = self.commands.next_deadline();
        let health = self.health.next_check();
        let own = [Some(health), self.history.next_deadline()];
        commands.into_iter().chain(own.into_iter().flatten()).min()
    }

    /// Judges the topic's health, if that is due, and notifies the projections of a change.
    fn poll_health(&mut self, cx: &mut HomeContext<'_>) {
        let plan = self.ids.plan(cx.snapshot);
        let full = self.degraded.is_full();
        let grown = self.log.as_ref().is_some_and(TopicLog::has_grown);
        let log = self.log.as_ref();
        let client = &*cx.client;
        let position = |partition| log?.position(partition, client);
        let reads = TopicReads {
            snapshot: cx.snapshot,
            plan,
            client,
            handle: self.ids.handle,
            live: self.is_live(),
            paused: log.is_some_and(TopicLog::is_paused),
            position: &position,
            now: cx.now,
        };
        let Some((standing, line)) = self.health.poll(&reads, full, grown) else {
            return;
        };
        if let Some(standing) = standing.filter(|_| plan.is_shared()) {
            cx.to_projections(self.index(), || ProjectionMessage::Standing(standing));
        }
        self.log_line(line, cx.snapshot, cx.out);
        self.refill_if_room(cx);
    }

    /// A quiet topic makes a step now and then. It moves the time of the topic's ids to when
    /// brokers last confirmed all of its partitions.
    fn make_quiet_step(&mut self, cx: &mut HomeContext<'_>) {
        if let (Some(log), Some(confirmed)) = (&mut self.log, self.health.confirmed()) {
            let step = log.quiet_step_if_due(confirmed, cx.now);
            self.send(step, cx);
        }
    }

    /// Reads again what slices had no room for, if there is room now. Only while brokers answer:
    /// otherwise the topic keeps serving what is in memory.
    fn refill_if_room(&mut self, cx: &mut HomeContext<'_>) {
        let stale = self.health.is_stale() || self.health.is_missing();
        let may = self.is_live() && !stale && self.rereads.is_empty();
        let Some(due) = self.degraded.next_wanted().filter(|_| may) else {
            return;
        };
        let now = cx.now.mono;
        if now < due {
            return self.health.check_by(due);
        }
        match self.degraded.next_refill(now) {
            Refill::All => {
                let text = ": the cache has room again; the topic is loaded anew";
                self.note(Level::Info, text, cx);
                self.load_anew(cx);
            }
            Refill::From(wanted) => {
                let text = ": the cache has room again; what it left out is read again";
                self.note(Level::Info, text, cx);
                if let Some(log) = &self.log {
                    self.rereads.start(wanted, log, cx.client);
                }
            }
        }
    }

    // Reports.

    /// The topic, to report on it.
    pub(super) fn report<'a>(&'a self, snapshot: &'a Snapshot, client: &'a Client) -> Report<'a> {
        Report {
            ids: self.ids,
            plan: self.ids.plan(snapshot),
            snapshot,
            client,
            live: self.is_live(),
            shown: &self.shown,
            health: &self.health,
            log: self.log.as_ref(),
            degraded: &self.degraded,
            history: &self.history,
            counts: &self.counts,
            commands: self.commands(),
        }
    }

    /// Logs a line about the topic.
    pub(super) fn log_line(&self, line: Option<Line>, snapshot: &Snapshot, out: &mut Outbox) {
        if let Some((level, text)) = line.map(Line::into_parts) {
            note(out, level, format!("{}: {text}", self.ids.name(snapshot)));
        }
    }

    /// Logs a text that follows the topic's name.
    fn note(&self, level: Level, text: &str, cx: &mut HomeContext<'_>) {
        note(cx.out, level, self.ids.name(cx.snapshot) + text);
    }
}
