//! One topic at its home: from its name to a live order. A topic is *waiting* until the cluster
//! shows it, *loading* until what its users need is read, then *live*. Another log under the same
//! name starts over as a new instance.

use std::sync::Arc;

use crate::kafka::{Event, Lane, MissingReason, Plane, ReadKey, StartAt, TopicHandle, TopicView};
use crate::log::{Batch, Change, Cut, GapReason, Next, Seq, Step};
use crate::model::{HashSecret, Instant, LogTag, Now, Offset, Partition, ShardId};

use super::commands::Commands;
use super::order::{Limits, Order};
use super::passes::{At, Passes};
use super::{Outbox, note, quoted};
use crate::metrics::{Check, PartitionStatus, ShardMetrics, TopicStatus};
use crate::shard::message::{Instance, Level, Message, Waiter};
use crate::shard::snapshot::{Snapshot, TopicIndex, TopicPlan};

/// How long the ids of a quiet topic may stay as old as they are.
const QUIET: std::time::Duration = std::time::Duration::from_secs(10);

/// One topic at home.
#[derive(Debug)]
pub(super) struct Topic {
    index: TopicIndex,
    handle: TopicHandle,
    /// The facts, once the cluster showed them.
    pub(super) view: Option<Arc<TopicView>>,
    missing: Option<MissingReason>,
    /// Why the topic can't serve its routes although it is there.
    unfit: Option<String>,
    instance: u32,
    cluster_id: String,
    order: Option<Order>,
    parts: Vec<Part>,
    live: bool,
    paused: bool,
    /// When the last step was made; a quiet topic says the time now and then.
    last_step: Instant,
    passes: Passes,
    counts: Counts,
    /// Where it holds replies: the commands that wait for them.
    pub(super) commands: Option<Commands>,
}

/// A partition as its reads show it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Where loading ends; `None`: the read has not begun.
    loaded_at: Option<Offset>,
    stable_end: Offset,
    log_start: Offset,
    /// A broker has said where its log starts and ends.
    known: bool,
    /// It can't be read for now; said once.
    failed: bool,
}

/// What a topic has done so far, for metrics.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    undecodable: u64,
    paused: u64,
}

impl Topic {
    pub(super) fn new(
        index: TopicIndex,
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
            handle,
            view: None,
            missing: None,
            unfit: None,
            instance: 0,
            cluster_id: String::new(),
            order: None,
            parts: Vec::new(),
            live: false,
            paused: false,
            last_step: Instant::ZERO,
            passes: Passes::new(index, handle, plan.encodings.clone()),
            counts: Counts::default(),
            commands,
        }
    }

    pub(super) const fn index(&self) -> TopicIndex {
        self.index
    }

    pub(super) const fn handle(&self) -> TopicHandle {
        self.handle
    }

    /// Whether its users can be served.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    fn lane(plan: &TopicPlan) -> Lane {
        if plan.holds_replies {
            Lane::Replies
        } else {
            Lane::Streams
        }
    }

    const fn read(&self, lane: Lane, partition: Partition) -> ReadKey {
        ReadKey {
            lane,
            topic: self.handle,
            partition,
        }
    }

    /// The cluster shows the topic, for the first time or otherwise than before.
    pub(super) fn on_view(
        &mut self,
        view: Arc<TopicView>,
        cluster_id: &str,
        snapshot: &Snapshot,
        plane: &mut Plane,
        now: Now,
        out: &mut Outbox,
    ) {
        let plan = snapshot.topic(self.index);
        self.missing = None;
        let same_log = self.view.as_ref().is_some_and(|known| known.id == view.id);
        let known = if same_log { self.parts.len() as u32 } else { 0 };
        self.unfit = unfit(plan, &view);
        if let Some(reason) = &self.unfit {
            note(
                out,
                Level::Warn,
                format!("{}: {reason}", quoted(&plan.name)),
            );
        }
        self.view = Some(view.clone());
        if !plan.is_shared() && !plan.holds_replies {
            self.live = true; // Commands only go there; nothing is read.
            return;
        }
        if !same_log {
            cluster_id.clone_into(&mut self.cluster_id);
            if self.instance > 0 {
                let name = quoted(&plan.name);
                let text = format!("{name} was made again: its caches start over");
                note(out, Level::Warn, text);
            }
            self.open(&view, snapshot, now, out);
        }
        // A partition that came later is read whole, whoever uses it: nobody saw any of it.
        let late = same_log && known > 0;
        self.read_from(known, late, snapshot, plane);
    }

    /// Reads the partitions from number `first` on.
    fn read_from(&mut self, first: u32, late: bool, snapshot: &Snapshot, plane: &mut Plane) {
        let plan = snapshot.topic(self.index);
        let view = self.view.clone().expect("a topic that is read was seen");
        let whole = plan.holds_replies || cached(plan, &view);
        for number in first..view.partitions {
            let from = match (late, whole) {
                (true, _) => StartAt::At(Offset(0)),
                (false, true) => StartAt::Earliest,
                (false, false) => StartAt::Latest,
            };
            plane.read(self.read(Self::lane(plan), Partition(number)), from);
            self.parts.push(Part::default());
        }
    }

    /// The log lost its end to an unclean election. What was built from it can't be told apart from
    /// what is gone, so the topic is loaded anew.
    fn start_over(&mut self, snapshot: &Snapshot, plane: &mut Plane, now: Now, out: &mut Outbox) {
        let name = quoted(&snapshot.topic(self.index).name);
        let text = format!("{name}: an unclean election cut its log back; it is loaded anew");
        note(out, Level::Warn, text);
        let Some(view) = self.view.clone() else {
            return;
        };
        self.open(&view, snapshot, now, out);
        self.read_from(0, false, snapshot, plane);
    }

    /// Begins an instance: what was built from another log is void.
    fn open(&mut self, view: &TopicView, snapshot: &Snapshot, now: Now, out: &mut Outbox) {
        let plan = snapshot.topic(self.index);
        let settings = &snapshot.config.settings;
        self.instance += 1;
        self.live = false;
        self.paused = false;
        self.parts.clear();
        self.passes = Passes::new(self.index, self.handle, plan.encodings.clone());
        if let Some(commands) = &mut self.commands {
            commands.on_new_log(view);
        }
        let tag = view
            .id
            .map_or(LogTag::default(), crate::model::LogIdentity::tag);
        let secret = HashSecret::derived_from(self.cluster_id.as_bytes());
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
            &plan.encodings,
            shards,
            now.wall,
        ));
        if shared {
            let config = view.config.as_ref();
            let instance = Arc::new(Instance {
                topic: self.index,
                number: self.instance,
                tag,
                secret,
                compacted: config.is_some_and(|c| c.compacted),
                cached: cached(plan, view),
                delete_retention_ms: config
                    .map_or(DAY_MS, |c| c.delete_retention.as_millis() as u64),
            });
            let shards = snapshot.layout.slice_shards();
            out.extend(shards.map(|shard| (shard, Message::Open(instance.clone()))));
        }
    }

    /// The cluster does not show it, or no longer.
    pub(super) fn on_missing(
        &mut self,
        reason: MissingReason,
        snapshot: &Snapshot,
        out: &mut Outbox,
    ) {
        let name = quoted(&snapshot.topic(self.index).name);
        let text = format!("{name}: {reason}; create it, or correct its name in the config");
        note(out, Level::Warn, text);
        self.missing = Some(reason);
        // Another log may come under this name; what the last one gave stays readable until then.
        self.view = None;
        self.parts.clear();
    }

    /// Something about a read of this topic.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        snapshot: &Snapshot,
        plane: &mut Plane,
        now: Now,
        out: &mut Outbox,
    ) {
        if let Event::Started { read, .. }
        | Event::Batch { read, .. }
        | Event::Undecodable { read, .. }
        | Event::OutOfRange { read, .. }
        | Event::ReadFailed { read, .. } = &event
            && read.lane == Lane::History
        {
            if let Some(commands) = &mut self.commands {
                return commands.on_read(event, plane, out);
            }
            let order = self.order.as_ref().expect("a pass belongs to an order");
            let log_start = &log_start(&self.parts);
            self.passes.on_read(
                event,
                &mut At {
                    order,
                    log_start,
                    plane,
                    out,
                },
            );
            return;
        }
        match event {
            Event::Started { read, from, end } => {
                if let Some(part) = self.parts.get_mut(read.partition.0 as usize) {
                    part.loaded_at = Some(end);
                    part.stable_end = end;
                }
                let next = Next {
                    offset: from,
                    ..Next::default()
                };
                let batch = crate::log::BatchBuilder::new(read.partition).finish();
                self.order_batch(batch, next, snapshot, now, out);
                self.go_live_if_loaded(snapshot, now, out);
            }
            Event::Batch {
                read,
                batch,
                next,
                log_start,
                stable_end,
                ..
            } => {
                self.on_log_start(read.partition, log_start, snapshot, now, out);
                if let Some(part) = self.parts.get_mut(read.partition.0 as usize) {
                    part.stable_end = stable_end;
                    part.known = true;
                    part.failed = false;
                }
                self.order_batch(batch, next, snapshot, now, out);
                self.go_live_if_loaded(snapshot, now, out);
                self.pause_if_full(snapshot, plane);
            }
            Event::Undecodable {
                read,
                from,
                to,
                error,
            } => {
                let name = quoted(&snapshot.topic(self.index).name);
                let partition = read.partition;
                let text = format!(
                    "{name} partition {} offsets {} to {}: {error}; skipped",
                    partition.0,
                    from.0,
                    to.0.saturating_sub(1),
                );
                note(out, Level::Warn, text);
                self.counts.undecodable += 1;
                if to == from {
                    return; // Not even the batch's end is known: the read stands there.
                }
                let reason = GapReason::Undecodable;
                self.change(
                    Change::Gap {
                        partition,
                        from,
                        to,
                        reason,
                    },
                    snapshot,
                    now,
                    out,
                );
                self.go_live_if_loaded(snapshot, now, out);
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } => {
                if wanted >= log_start {
                    return self.start_over(snapshot, plane, now, out);
                }
                let (partition, from, to) = (read.partition, wanted, log_start);
                let reason = GapReason::Retention;
                let change = Change::Gap {
                    partition,
                    from,
                    to,
                    reason,
                };
                self.change(change, snapshot, now, out);
            }
            Event::ReadFailed { read, error } => {
                let part = self.parts.get_mut(read.partition.0 as usize);
                if part.is_some_and(|part| !std::mem::replace(&mut part.failed, true)) {
                    let name = quoted(&snapshot.topic(self.index).name);
                    let text = format!("{name} partition {}: {error}", read.partition.0);
                    note(out, Level::Warn, text);
                }
            }
            _ => debug_assert!(false, "only reads come here"),
        }
    }

    fn order_batch(
        &mut self,
        batch: Batch,
        next: Next,
        snapshot: &Snapshot,
        now: Now,
        out: &mut Outbox,
    ) {
        let partition = batch.partition();
        self.counts.records += batch.len() as u64;
        self.counts.bytes += batch.bytes_held() as u64;
        let order = self.order.as_mut().expect("reads belong to an order");
        let others_at_end = self.parts.iter().enumerate().all(|(p, part)| {
            p == partition.0 as usize
                || part.loaded_at.is_some() && order.next(Partition(p as u32)) >= part.stable_end
        });
        let own = &self
            .parts
            .get(partition.0 as usize)
            .copied()
            .unwrap_or_default();
        let at_end = others_at_end && next.offset >= own.stable_end;
        let time = at_end.then_some(now.wall);
        let quiet = now.mono.since(self.last_step) >= QUIET;
        let step = order.on_batch(batch, next, time);
        let step = step.or_else(|| time.filter(|_| quiet).map(|time| order.on_quiet(time)));
        if let Some(step) = step {
            self.send(step, snapshot, now, out);
        }
    }

    fn change(&mut self, change: Change, snapshot: &Snapshot, now: Now, out: &mut Outbox) {
        let order = self.order.as_mut().expect("reads belong to an order");
        let step = order.on_change(change);
        self.send(step, snapshot, now, out);
    }

    fn on_log_start(
        &mut self,
        partition: Partition,
        log_start: Offset,
        snapshot: &Snapshot,
        now: Now,
        out: &mut Outbox,
    ) {
        let Some(part) = self.parts.get_mut(partition.0 as usize) else {
            return;
        };
        if log_start > part.log_start {
            part.log_start = log_start;
            let change = Change::LogStart {
                partition,
                offset: log_start,
            };
            self.change(change, snapshot, now, out);
        }
    }

    fn send(&mut self, step: Arc<Step>, snapshot: &Snapshot, now: Now, out: &mut Outbox) {
        self.last_step = now.mono.max(self.last_step);
        if let Some(commands) = &mut self.commands {
            commands.apply(&step, now, out);
        }
        if snapshot.topic(self.index).is_shared() {
            let shards = snapshot.layout.slice_shards();
            out.extend(shards.map(|shard| (shard, Message::Step(self.index, step.clone()))));
        } else {
            self.order
                .as_mut()
                .expect("a step has an order")
                .on_applied(ShardId(0), step.seq);
        }
    }

    fn go_live_if_loaded(&mut self, snapshot: &Snapshot, now: Now, out: &mut Outbox) {
        let Some(order) = self.order.as_mut() else {
            return;
        };
        let loaded = self.parts.iter().enumerate().all(|(p, part)| {
            let next = order.next(Partition(p as u32));
            part.known && part.loaded_at.is_some_and(|end| next >= end)
        });
        if self.live || !loaded || self.unfit.is_some() {
            return;
        }
        self.live = true;
        order.go_live();
        let step = order.on_quiet(now.wall);
        let plan = snapshot.topic(self.index);
        self.send(step, snapshot, now, out);
        if plan.is_shared() {
            let shards = snapshot.layout.slice_shards();
            let (topic, log_start) = (self.index, log_start(&self.parts));
            let live = |shard| {
                (
                    shard,
                    Message::Live {
                        topic,
                        log_start: log_start.clone(),
                    },
                )
            };
            out.extend(shards.map(live));
        }
        note(out, Level::Info, format!("{} is live", quoted(&plan.name)));
    }

    fn pause_if_full(&mut self, snapshot: &Snapshot, plane: &mut Plane) {
        let full = self.order.as_ref().is_some_and(Order::is_full);
        if full && !self.paused {
            self.paused = true;
            self.counts.paused += 1;
            let lane = Self::lane(snapshot.topic(self.index));
            for p in 0..self.parts.len() as u32 {
                plane.pause(self.read(lane, Partition(p)));
            }
        }
    }

    /// A shard has applied all up to `seq`.
    pub(super) fn on_applied(
        &mut self,
        shard: ShardId,
        seq: Seq,
        snapshot: &Snapshot,
        plane: &mut Plane,
    ) {
        let Some(order) = self.order.as_mut() else {
            return;
        };
        order.on_applied(shard, seq);
        if self.paused && order.has_room() {
            self.paused = false;
            let lane = Self::lane(snapshot.topic(self.index));
            for p in 0..self.parts.len() as u32 {
                plane.resume(self.read(lane, Partition(p)));
            }
        }
    }

    /// A stream needs history from `from` on.
    pub(super) fn on_join(
        &mut self,
        waiter: Waiter,
        encoding: usize,
        from: Cut,
        plane: &mut Plane,
        out: &mut Outbox,
    ) {
        let Some(order) = &self.order else { return };
        let log_start = &log_start(&self.parts);
        self.passes.join(
            waiter,
            encoding,
            from,
            &mut At {
                order,
                log_start,
                plane,
                out,
            },
        );
    }

    /// A shard's members took the last block of a pass.
    pub(super) fn on_taken(
        &mut self,
        shard: ShardId,
        pass: u32,
        members: usize,
        plane: &mut Plane,
        out: &mut Outbox,
    ) {
        let Some(order) = &self.order else { return };
        let log_start = &log_start(&self.parts);
        self.passes.on_taken(
            shard,
            pass,
            members,
            &mut At {
                order,
                log_start,
                plane,
                out,
            },
        );
    }

    /// Deadlines of the commands that wait here.
    pub(super) fn on_time(&mut self, now: Now, out: &mut Outbox) {
        if let Some(commands) = &mut self.commands {
            commands.on_time(now, out);
        }
    }

    /// When `on_time` has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.commands.as_ref().and_then(Commands::next_deadline)
    }

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
                high_watermark: part.stable_end.0,
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
        for (p, part) in self.parts.iter().enumerate() {
            let lag = part
                .stable_end
                .0
                .saturating_sub(order.next(Partition(p as u32)).0);
            metrics.partition(index, p as u32).lag.set(lag);
        }
        let topic = &mut metrics.topics[index];
        topic.fetched_records.0 = self.counts.records;
        topic.fetched_bytes.0 = self.counts.bytes;
        topic.undecodable.0 = self.counts.undecodable;
        topic.paused.0 = self.counts.paused;
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

/// The first offset of each partition that is still there.
fn log_start(parts: &[Part]) -> Cut {
    let mut cut = Cut::start();
    for (p, part) in parts.iter().enumerate() {
        cut.set(
            Partition(p as u32),
            Next {
                offset: part.log_start,
                ..Next::default()
            },
        );
    }
    cut
}

const DAY_MS: u64 = 86_400_000;

/// Whether slices keep the topic's newest records.
fn cached(plan: &TopicPlan, view: &TopicView) -> bool {
    let compacted = view.config.as_ref().is_some_and(|config| config.compacted);
    plan.cached || compacted && !plan.encodings.is_empty()
}

/// Why a topic that is there can't serve its routes.
fn unfit(plan: &TopicPlan, view: &TopicView) -> Option<String> {
    let compacted = view.config.as_ref().is_none_or(|config| config.compacted);
    let why = plan.compacted_for.filter(|_| !compacted)?;
    Some(format!(
        "{why} needs a compacted topic; set its cleanup.policy to compact"
    ))
}
