//! From the events of a topic's reads to steps in the topic's order.

use std::sync::Arc;

use crate::kafka::{Doing, Event, KafkaError, Lane};
use crate::log::{Batch, BatchBuilder, Change, GapReason, Next, Step};
use crate::model::{Instant, Offset, Partition, ShardId};

use super::context::{HomeContext, note};
use super::order::Order;
use super::partitions::log_start;
use super::topic::Topic;
use crate::shard::message::{Level, ProjectionMessage};

/// How long a quiet topic may go without a step that moves the time of its ids.
const QUIET: std::time::Duration = std::time::Duration::from_secs(10);

impl Topic {
    /// Handles an event of one of the topic's reads.
    pub(super) fn on_read(&mut self, event: Event, cx: &mut HomeContext<'_>) {
        if self.was_cut_back(&event) {
            return self.start_over(cx);
        }
        if let Event::Started { read, .. }
        | Event::Batch { read, .. }
        | Event::Unchanged { read }
        | Event::Undecodable { read, .. }
        | Event::OutOfRange { read, .. }
        | Event::ReadFailed { read, .. } = &event
            && read.lane == Lane::History
        {
            if let Some(commands) = &mut self.commands {
                return commands.on_read(event, cx.client, cx.out);
            }
            if let Some((history, mut at)) = self.history(cx) {
                history.on_read(event, &mut at);
            }
            return;
        }
        if let Some(read) = event.read()
            && read.lane == Lane::Again
        {
            return self.on_read_again(event, cx);
        }
        match event {
            Event::Started { read, from, end } => {
                self.on_readable(read.partition);
                self.parts.on_started(read.partition, end);
                let batch = BatchBuilder::new(read.partition).finish();
                self.order_batch(batch, from, cx);
            }
            Event::Batch {
                read,
                batch,
                next,
                log_start,
                stable_end,
                high_watermark,
            } => {
                self.on_log_start(read.partition, log_start, cx);
                self.on_readable(read.partition);
                self.parts
                    .on_ends(read.partition, stable_end, high_watermark);
                self.order_batch(batch, next, cx);
            }
            Event::Unchanged { read } => self.on_unchanged(read.partition, cx),
            Event::Undecodable {
                read,
                from,
                to,
                error,
            } => {
                self.counts.undecodable += 1;
                self.on_undecodable((read.partition, from, to), &error, cx);
                if to == from {
                    let (partition, from) = (read.partition.0, from.0);
                    let text = format!("partition {partition} from offset {from} on: {error}");
                    if let Some(health) = self.health.partition(read.partition) {
                        health.on_stuck(&text);
                    }
                    return;
                }
                self.go_live_if_loaded(cx);
            }
            Event::OutOfRange {
                read,
                wanted,
                log_start,
            } => {
                let (partition, from, to) = (read.partition, wanted, log_start);
                let reason = GapReason::Retention;
                let change = Change::Gap {
                    partition,
                    from,
                    to,
                    reason,
                };
                self.change(change, cx);
            }
            Event::ReadFailed { read, error } => {
                let denial = match &error {
                    KafkaError::Broker(code) => code.denial(),
                    _ => None,
                };
                let mut text = format!("partition {}: {error}", read.partition.0);
                if let Some(denial) = denial {
                    let (cause, remedy) = (denial.cause(), denial.remedy(Doing::Read));
                    text.push_str(&format!(": {cause}; {remedy}"));
                }
                self.health.check_by(cx.now.mono);
                let health = self.health.partition(read.partition);
                if health.is_some_and(|health| health.on_failed(&text, denial)) {
                    let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
                    note(cx.out, Level::Warn, format!("{name} {text}"));
                }
            }
            _ => debug_assert!(false, "only reads come here"),
        }
    }

    /// The read of a partition started, or brought records.
    fn on_readable(&mut self, partition: Partition) {
        if let Some(health) = self.health.partition(partition) {
            health.on_readable();
        }
    }

    /// A broker has responded for a partition that is read up to `next`, with or without records.
    fn on_heard(&mut self, partition: Partition, next: Offset, now: Instant) {
        if let Some(part) = self.parts.get(partition.0 as usize) {
            let end = part.high_watermark;
            self.health.on_heard(partition, next, end, now);
        }
    }

    /// Whether the log no longer has what was ordered. Either the log no longer reaches the
    /// position of a read, or a catch-up read met a newer epoch below the order's end than the
    /// order has there.
    fn was_cut_back(&self, event: &Event) -> bool {
        match event {
            Event::Truncated { .. } => true,
            Event::OutOfRange {
                wanted, log_start, ..
            } => wanted >= log_start,
            Event::Batch { read, next, .. } if read.lane == Lane::History => {
                let order = self.order.as_ref();
                let ours = order.map(|order| order.cut().get(read.partition));
                ours.is_some_and(|ours| {
                    let epochs = ours.epoch.0.zip(next.epoch.0);
                    next.offset <= ours.offset && epochs.is_some_and(|(ours, next)| next > ours)
                })
            }
            _ => false,
        }
    }

    /// Takes what a read brought of a partition. Records wait for [`Self::order_next`].
    fn order_batch(&mut self, batch: Batch, next: Next, cx: &mut HomeContext<'_>) {
        let partition = batch.partition();
        self.on_heard(partition, next.offset, cx.now.mono);
        self.counts.records += batch.len() as u64;
        self.counts.bytes += batch.record_bytes() as u64;
        let order = self.order.as_mut().expect("reads belong to an order");
        let at_once = batch.is_empty() && order.next_place().is_none();
        order.push(batch, next);
        if at_once {
            self.order_next(cx);
        }
    }

    /// Whether records wait to be ordered.
    pub(super) fn has_waiting(&self) -> bool {
        let order = self.order.as_ref();
        order.is_some_and(|order| order.next_place().is_some())
    }

    /// Whether [`Self::order_next`] has work: while the topic is paused, records wait.
    pub(super) fn is_ordering(&self) -> bool {
        !self.paused && self.has_waiting()
    }

    /// Orders one step of the records that wait.
    pub(super) fn order_next(&mut self, cx: &mut HomeContext<'_>) {
        let place = self.order.as_ref().and_then(Order::next_place);
        let Some((partition, next)) = place else {
            return;
        };
        let at_end = self.is_at_end(partition, next.offset);
        let time = at_end.then_some(cx.now.wall);
        let quiet = cx.now.mono.since(self.last_step) >= QUIET;
        let order = self.order.as_mut().expect("it was there above");
        let step = order.next_step(time);
        let step = step.or_else(|| time.filter(|_| quiet).map(|time| order.on_quiet(time)));
        if let Some(step) = step {
            self.send(step, cx);
        }
        self.go_live_if_loaded(cx);
        self.pause_if_full(cx);
    }

    /// A broker reports nothing new in a partition. Every 10 s the time of a quiet topic moves.
    fn on_unchanged(&mut self, partition: Partition, cx: &mut HomeContext<'_>) {
        let order = self.order.as_ref().expect("reads belong to an order");
        let next = order.next(partition);
        self.on_heard(partition, next, cx.now.mono);
        if cx.now.mono.since(self.last_step) < QUIET {
            return;
        }
        let order = self.order.as_ref().expect("reads belong to an order");
        if self.is_at_end(partition, order.next(partition)) {
            let order = self.order.as_mut().expect("it was there above");
            let step = order.on_quiet(cx.now.wall);
            self.send(step, cx);
        }
    }

    /// Whether every partition has been read to its end, if `partition` is read up to `next`.
    fn is_at_end(&self, partition: Partition, next: Offset) -> bool {
        let order = self.order.as_ref().expect("reads belong to an order");
        self.parts.are_at_end(order, partition, next)
    }

    pub(super) fn change(&mut self, change: Change, cx: &mut HomeContext<'_>) {
        let order = self.order.as_mut().expect("reads belong to an order");
        let step = order.on_change(change);
        self.send(step, cx);
    }

    fn on_log_start(&mut self, partition: Partition, log_start: Offset, cx: &mut HomeContext<'_>) {
        if self.parts.on_log_start(partition, log_start) {
            let change = Change::LogStart {
                partition,
                offset: log_start,
            };
            self.change(change, cx);
        }
    }

    pub(super) fn send(&mut self, step: Arc<Step>, cx: &mut HomeContext<'_>) {
        self.last_step = cx.now.mono.max(self.last_step);
        if self.degraded.on_step(&step) {
            let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
            let text = format!("{name}: the log has nothing more that can't be decoded");
            note(cx.out, Level::Info, text);
        }
        if let Some(commands) = &mut self.commands {
            commands.apply(&step, self.live, cx.now, cx.out);
            for text in commands.notices(cx.now) {
                let name = cx.snapshot.topic_name(cx.snapshot.topic(self.index));
                note(cx.out, Level::Warn, format!("{name}{text}"));
            }
        }
        if cx.snapshot.topic(self.index).is_shared() {
            cx.to_projections(self.index, || ProjectionMessage::Step(step.clone()));
        } else {
            self.order
                .as_mut()
                .expect("a step has an order")
                .on_applied(ShardId(0), step.seq);
        }
    }

    pub(super) fn go_live_if_loaded(&mut self, cx: &mut HomeContext<'_>) {
        let blocked = self.health.is_blocked(cx.snapshot.topic(self.index));
        let Some(order) = self.order.as_mut() else {
            return;
        };
        let loaded = self.parts.are_loaded(order);
        // Slices know what they lack only once they have applied all of it. Wait for that before
        // the topic is live.
        if self.live || !loaded || blocked || !order.in_flight().is_empty() {
            return;
        }
        self.live = true;
        order.go_live();
        let step = order.on_quiet(cx.now.wall);
        let snapshot = cx.snapshot;
        let plan = snapshot.topic(self.index);
        self.send(step, cx);
        if plan.is_shared() {
            let log_start = log_start(&self.parts);
            cx.to_projections(self.index, || ProjectionMessage::Live {
                log_start: log_start.clone(),
            });
        }
        note(
            cx.out,
            Level::Info,
            format!("{} is live", snapshot.topic_name(plan)),
        );
    }

    pub(super) fn pause_if_full(&mut self, cx: &mut HomeContext<'_>) {
        let full = self
            .order
            .as_ref()
            .is_some_and(|it| it.in_flight().is_full());
        if full && !self.paused {
            self.paused = true;
            self.counts.paused += 1;
            let lane = Self::lane(cx.snapshot.topic(self.index));
            for p in 0..self.parts.len() as u32 {
                self.counts.of(Partition(p)).paused += 1;
                cx.client.pause(self.read(lane, Partition(p)));
                cx.client.pause(self.read(Lane::Again, Partition(p)));
            }
        }
    }
}
