//! One topic at its home: from its name to a live order. A topic is *waiting* until the cluster
//! shows it, *loading* until what its users need is read, then *live*. Another log under the same
//! name starts over as a new incarnation.

use std::sync::Arc;

use crate::command::Expired;
use crate::kafka::{Client, Lane, MissingReason, ReadId, ReadKey, StartAt, TopicHandle, TopicView};
use crate::log::{Next, Seq};
use crate::metrics::Check;
use crate::model::{ExchangeId, HashSecret, Instant, LogTag, Now, Partition, ShardId};

use super::cluster::Cluster;
use super::commands::Commands;
use super::context::{HomeContext, note};
use super::degraded::Degraded;
use super::health::{Line, ReadPosition, Shortcomings, TopicHealth, TopicReads, compacted};
use super::history::{History, HistoryContext};
use super::order::{Limits, Order};
use super::partitions::{Counts, Part, Partitions};
use crate::route::Refused;
use crate::shard::message::{Incarnation, Level, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::{ClusterId, Snapshot, TopicId};
use crate::shard::topic_plan::TopicPlan;

/// One topic at its home shard.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) index: TopicId,
    pub(super) cluster: ClusterId,
    /// The topic's handle in its cluster's client.
    pub(super) handle: TopicHandle,
    /// The facts, once the cluster showed them.
    pub(super) view: Option<Arc<TopicView>>,
    pub(super) health: TopicHealth,
    pub(super) incarnation: u32,
    /// The number of partitions with which the present incarnation began.
    pub(super) opened_with: usize,
    pub(super) cluster_id: String,
    pub(super) order: Option<Order>,
    pub(super) parts: Partitions,
    pub(super) live: bool,
    pub(super) paused: bool,
    /// When the last step was made. A quiet topic makes a step for its time now and then.
    pub(super) last_step: Instant,
    pub(super) history: History,
    pub(super) counts: Counts,
    /// Where it holds replies: the commands that wait for them.
    pub(super) commands: Option<Commands>,
    pub(super) degraded: Degraded,
}

impl Topic {
    pub(super) fn new(
        index: TopicId,
        handle: TopicHandle,
        snapshot: &Snapshot,
        random: &ahash::RandomState,
    ) -> Self {
        let plan = snapshot.topic(index);
        let commands = plan
            .holds_replies
            .then(|| Commands::new(&snapshot.config, handle, random.clone()));
        Self {
            index,
            cluster: plan.cluster,
            handle,
            view: None,
            health: TopicHealth::default(),
            incarnation: 0,
            opened_with: 0,
            cluster_id: String::new(),
            order: None,
            parts: Partitions::default(),
            live: false,
            paused: false,
            last_step: Instant::ZERO,
            history: History::new(plan.encodings.clone()),
            counts: Counts::default(),
            commands,
            degraded: Degraded::default(),
        }
    }

    pub(super) const fn index(&self) -> TopicId {
        self.index
    }

    pub(super) const fn handle(&self) -> TopicHandle {
        self.handle
    }

    /// Whether slices keep its newest records.
    pub(super) fn is_cached(&self, snapshot: &Snapshot) -> bool {
        let plan = snapshot.topic(self.index);
        self.view.as_ref().is_some_and(|view| cached(plan, view))
    }

    /// Whether the topic's routes can be served.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn lane(plan: &TopicPlan) -> Lane {
        if plan.holds_replies {
            Lane::Replies
        } else {
            Lane::Streams
        }
    }

    pub(super) const fn read(&self, lane: Lane, partition: Partition) -> ReadKey {
        ReadKey {
            lane,
            topic: self.handle,
            partition,
            id: ReadId::LIVE,
        }
    }

    /// The cluster shows the topic, for the first time or otherwise than before.
    pub(super) fn on_view(
        &mut self,
        view: Arc<TopicView>,
        cluster_id: &str,
        cx: &mut HomeContext<'_>,
    ) {
        let snapshot = cx.snapshot;
        let plan = snapshot.topic(self.index);
        let before = self.view.take();
        let same_id = before.as_ref().is_some_and(|known| known.id == view.id);
        let view = match before.as_ref().filter(|_| same_id) {
            Some(known) => with_known_config(view, known),
            None => view,
        };
        self.view = Some(view.clone());
        let was_misconfigured = self.health.is_misconfigured();
        for line in self.health.on_view(plan, &view, !same_id, cx.now.mono) {
            self.log(Some(line), snapshot, cx.out);
        }
        // What is kept of a topic depends on its cleanup.policy, so another policy loads the topic
        // again. A topic that can't be served any more ends what it serves.
        let same_policy = before.is_some_and(|known| compacted(&known) == compacted(&view));
        let outgrown = !was_misconfigured && self.health.is_misconfigured();
        let same_log = same_id && (same_policy && !outgrown || !plan.is_shared());
        let known = if same_log { self.parts.len() as u32 } else { 0 };
        if !plan.is_shared() && !plan.holds_replies {
            self.live = true; // Commands only go there; nothing is read.
            return;
        }
        // What shards keep of deletes stays as the topic's config was when it was opened: slices
        // and ids go by the same time, so a config that changed makes neither miss one.
        if let Some(commands) = &mut self.commands {
            commands.on_retention(&view);
        }
        if !same_log {
            cluster_id.clone_into(&mut self.cluster_id);
            if self.incarnation > 0 {
                let name = snapshot.topic_name(plan);
                let why = match (same_id, same_policy) {
                    (true, true) => "can't be served as it is now",
                    (true, false) => "has another cleanup.policy now",
                    (false, _) => "was made again",
                };
                let text = format!("{name} {why}: its caches start over");
                note(cx.out, Level::Warn, text);
            }
            self.open(&view, cx);
        }
        // A new partition is read from its start: no client has seen any of it.
        let late = same_log && known > 0;
        self.read_from(known, late, cx);
    }

    /// Reads the partitions from number `first` on.
    fn read_from(&mut self, first: u32, late: bool, cx: &mut HomeContext<'_>) {
        let snapshot = cx.snapshot;
        let plan = snapshot.topic(self.index);
        let view = self.view.clone().expect("a topic that is read was seen");
        let whole = plan.holds_replies || cached(plan, &view);
        for number in first..view.partitions {
            let from = match (late, whole) {
                (true, _) => StartAt::At(Next::default()),
                (false, true) => StartAt::Earliest,
                (false, false) => StartAt::Latest,
            };
            let read = self.read(Self::lane(plan), Partition(number));
            cx.client.read(read, from);
            if self.paused {
                cx.client.pause(read);
            }
            self.parts.add();
            self.health.add_partition(cx.now.mono);
        }
    }

    /// Loads the topic again, because its log lost its end to an unclean election. State that was
    /// built from the lost records can't be separated from the rest. Each stream resumes with its
    /// id, which says what it holds of the lost branch.
    pub(super) fn start_over(&mut self, cx: &mut HomeContext<'_>) {
        let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
        let text = format!("{name}: an unclean election cut its log back; it is loaded anew");
        note(cx.out, Level::Warn, text);
        self.load_anew(cx);
    }

    /// Loads the topic again from its log.
    pub(super) fn load_anew(&mut self, cx: &mut HomeContext<'_>) {
        let Some(view) = self.view.clone() else {
            return;
        };
        self.open(&view, cx);
        self.read_from(0, false, cx);
    }

    /// Begins an incarnation: what was built from another log is void.
    fn open(&mut self, view: &TopicView, cx: &mut HomeContext<'_>) {
        let snapshot = cx.snapshot;
        let plan = snapshot.topic(self.index);
        let settings = &snapshot.config.settings;
        self.incarnation += 1;
        self.opened_with = view.partitions as usize;
        self.live = false;
        self.paused = false;
        self.parts.clear();
        self.health.on_open();
        self.history
            .on_open(self.incarnation, self.handle, cx.client);
        let cached = cached(plan, view);
        self.stop_reading_again(cx.client);
        self.degraded.on_open(cached || plan.holds_replies);
        // Its own streams can't be encoded, but other routes of the topic are served.
        let encodings = if self.health.is_misconfigured() {
            &[]
        } else {
            &plan.encodings[..]
        };
        if let Some(commands) = &mut self.commands {
            commands.on_new_log(view, cx.client, cx.out);
        }
        let identity = snapshot.log_identity(plan).or(view.id);
        let secret = HashSecret::derived_from(self.cluster_id.as_bytes());
        // Without a topic id, cluster and name at least keep other topics' ids apart.
        let named = || LogTag((secret.hash(plan.name.as_str().as_bytes()).0 as u32).to_be_bytes());
        let tag = identity.map_or_else(named, crate::model::LogIdentity::tag);
        let limits = Limits {
            window_bytes_max: settings.streams.window_bytes_max,
            in_flight_bytes_max: settings.kafka.topic_in_flight_bytes_max,
        };
        let shared = plan.is_shared();
        let shards = snapshot.layout.slice_shards().filter(|_| shared);
        self.order = Some(Order::new(
            tag,
            secret,
            limits,
            encodings,
            shards,
            cx.now.wall,
        ));
        if shared {
            let config = view.config.as_ref();
            let incarnation = Arc::new(Incarnation {
                number: self.incarnation,
                tag,
                secret,
                compacted: config.is_some_and(|c| c.compacted),
                cached,
                partitions: view.partitions,
                streamed: !encodings.is_empty(),
                delete_retention_ms: config
                    .map_or(DAY_MS, |c| c.delete_retention.as_millis() as u64),
            });
            cx.to_projections(self.index, || ProjectionMessage::Open(incarnation.clone()));
        }
    }

    /// Whether it is compacted, if its config can be read.
    pub(super) fn compacted(&self) -> Option<bool> {
        self.view.as_deref().and_then(compacted)
    }

    /// Logs a line about the topic.
    pub(super) fn log(&self, line: Option<Line>, snapshot: &Snapshot, out: &mut Outbox) {
        let (level, text) = match line {
            None => return,
            Some(Line::Warn(text)) => (Level::Warn, text),
            Some(Line::Info(text)) => (Level::Info, text),
        };
        let name = snapshot.topic_name(snapshot.topic(self.index));
        note(out, level, format!("{name}: {text}"));
    }

    /// The cluster does not show it, or no longer.
    pub(super) fn on_missing(&mut self, reason: MissingReason, cx: &mut HomeContext<'_>) {
        // A broker that has just started may not know the topic yet. Keep what was read: if the
        // topic reappears as another log, its id shows that.
        let line = self.health.on_missing(reason);
        self.log(Some(line), cx.snapshot, cx.out);
    }

    /// The state of the topic's reads, for its health.
    fn reads<'a>(
        &self,
        (snapshot, client): (&'a Snapshot, &'a Client),
        position: &'a dyn Fn(Partition) -> Option<ReadPosition>,
        now: Now,
    ) -> TopicReads<'a> {
        TopicReads {
            snapshot,
            plan: snapshot.topic(self.index),
            client,
            handle: self.handle,
            live: self.live,
            paused: self.paused,
            position,
            now,
        }
    }

    /// Judges the topic's health, if that is due, and notifies the projections of a change.
    pub(super) fn poll_health(&mut self, cx: &mut HomeContext<'_>) {
        let (full, grown) = (self.is_full(), self.parts.len() > self.opened_with);
        let position = |partition| position(self.order.as_ref(), &self.parts, partition);
        let reads = self.reads((cx.snapshot, cx.client), &position, cx.now);
        let Some((standing, line)) = self.health.poll(&reads, (full, grown)) else {
            return;
        };
        let plan = cx.snapshot.topic(self.index);
        if let Some(standing) = standing.filter(|_| plan.is_shared()) {
            cx.to_projections(self.index, || ProjectionMessage::Standing(standing));
        }
        self.log(line, cx.snapshot, cx.out);
        self.refill_if_room(cx);
    }

    /// The answer to requests of the topic's routes while they can't be served.
    pub(super) fn refusal(&self, snapshot: &Snapshot) -> Refused {
        self.health.refusal(snapshot.topic(self.index))
    }

    /// The check of commands to the topic. `None` if no command route writes to it.
    pub(super) fn check_writes(
        &self,
        snapshot: &Snapshot,
        cluster: &Cluster,
        now: Now,
    ) -> Option<Check> {
        let plan = snapshot.topic(self.index);
        let leaderless = cluster.client.leaderless(self.handle);
        let (state, detail) = self.health.writes.check(leaderless, now.mono);
        plan.takes_commands
            .then(|| Check::new(snapshot.writes_name(plan), state, detail))
    }

    /// The checks of the topic and of its streams.
    pub(super) fn checks(
        &self,
        snapshot: &Snapshot,
        cluster: &Cluster,
        now: Now,
    ) -> [Option<Check>; 2] {
        let position = |partition| position(self.order.as_ref(), &self.parts, partition);
        let reads = self.reads((snapshot, &cluster.client), &position, now);
        let found = Shortcomings {
            degraded: self.describe_degraded(snapshot.config.settings.cache.bytes_max),
            cut: self.commands.as_ref().and_then(|it| it.explain_cut(now)),
        };
        [
            Some(self.health.check(&reads, &cluster.health, found)),
            self.health.check_streams(snapshot, reads.plan),
        ]
    }

    /// A shard has applied all up to `seq`.
    pub(super) fn on_applied(&mut self, shard: ShardId, seq: Seq, cx: &mut HomeContext<'_>) {
        let Some(order) = self.order.as_mut() else {
            return;
        };
        order.on_applied(shard, seq);
        if self.paused && order.in_flight().has_room() {
            self.paused = false;
            let lane = Self::lane(cx.snapshot.topic(self.index));
            for p in 0..self.parts.len() as u32 {
                cx.client.resume(self.read(lane, Partition(p)));
                cx.client.resume(self.read(Lane::Again, Partition(p)));
            }
        }
        if !self.live {
            self.go_live_if_loaded(cx);
        }
    }

    /// The topic's history, and the context of a call to it. `None`: nothing of the topic is read
    /// yet, so no stream is open.
    pub(super) fn history<'a>(
        &'a mut self,
        cx: &'a mut HomeContext<'_>,
    ) -> Option<(&'a mut History, HistoryContext<'a>)> {
        let at = HistoryContext {
            topic: self.index,
            handle: self.handle,
            order: self.order.as_ref()?,
            parts: &self.parts,
            now: cx.now,
            client: cx.client,
            out: cx.out,
        };
        Some((&mut self.history, at))
    }

    /// Handles the deadlines of waiting commands. Returns true if more is due at once.
    #[must_use]
    pub(super) fn on_time(
        &mut self,
        now: Now,
        expired: &mut Vec<Expired<ExchangeId>>,
        client: &mut Client,
        out: &mut Outbox,
    ) -> bool {
        let commands = self.commands.as_mut();
        commands.is_some_and(|it| it.on_time(now, expired, client, out))
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let commands = self.commands.as_ref().and_then(Commands::next_deadline);
        let health = self.health.next_check();
        let own = [Some(health), self.history.next_deadline()];
        commands.into_iter().chain(own.into_iter().flatten()).min()
    }
}

const DAY_MS: u64 = 86_400_000;

/// How far a partition is read. `None` before the topic is loaded for the first time.
fn position(order: Option<&Order>, parts: &[Part], partition: Partition) -> Option<ReadPosition> {
    let (order, part) = (order?, parts.get(partition.0 as usize)?);
    Some(ReadPosition {
        next: order.next(partition),
        loaded_at: part.loaded_at,
        log_start: part.log_start,
        stable_end: part.stable_end,
        high_watermark: part.high_watermark,
    })
}

/// A view whose config can't be read any more, with the one that was read last.
fn with_known_config(view: Arc<TopicView>, known: &TopicView) -> Arc<TopicView> {
    let config = view.config.or(known.config);
    if config == view.config {
        view
    } else {
        Arc::new(TopicView {
            config,
            ..(*view).clone()
        })
    }
}

/// Whether slices keep the topic's newest records.
fn cached(plan: &TopicPlan, view: &TopicView) -> bool {
    let compacted = view.config.as_ref().is_some_and(|config| config.compacted);
    plan.cached || compacted && !plan.encodings.is_empty()
}
