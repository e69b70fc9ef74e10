//! What a topic's streams need from its home beyond the steps: *catch-up reads* bring records from
//! before the window, and *epoch checks* find out whether the log still has what a client holds.
//! Both belong to one incarnation of the topic.

mod catch_up;
mod catch_ups;
mod context;
mod epoch_checks;

use crate::kafka::{Client, Event, TopicHandle};
use crate::model::{Instant, Partition, ShardId};
use crate::shard::message::HistoryMessage;
use crate::sse::Encoding;

use catch_ups::CatchUps;
pub(super) use context::HistoryContext;
use epoch_checks::EpochChecks;

/// The catch-up reads and epoch checks of one topic.
#[derive(Debug)]
pub(super) struct History {
    catch_ups: CatchUps,
    epoch_checks: EpochChecks,
}

impl History {
    /// `streams_max`: streams that the process has at most.
    pub(super) const fn new(encodings: Vec<Encoding>, streams_max: usize) -> Self {
        Self {
            catch_ups: CatchUps::new(encodings, streams_max),
            epoch_checks: EpochChecks::new(streams_max),
        }
    }

    /// Another incarnation begins. The streams of the one before are closed.
    pub(super) fn on_open(&mut self, incarnation: u32, topic: TopicHandle, client: &mut Client) {
        self.catch_ups.on_open(incarnation, topic, client);
        self.epoch_checks.on_open();
    }

    /// A message from a shard that serves streams of the topic.
    pub(super) fn on_message(
        &mut self,
        from: ShardId,
        message: HistoryMessage,
        at: &mut HistoryContext<'_>,
    ) {
        match message {
            HistoryMessage::Join {
                question,
                encoding,
                from,
            } => self.catch_ups.join(question, encoding, from, at),
            HistoryMessage::Taken { catch_up, members } => {
                self.catch_ups.on_taken(from, catch_up, members, at);
            }
            HistoryMessage::CheckEpochs {
                question,
                positions,
            } => self.epoch_checks.check(question, positions, at),
            HistoryMessage::Cancel(exchange) => {
                self.catch_ups.cancel(exchange);
                self.epoch_checks.cancel(exchange);
            }
        }
    }

    /// A read of history has brought something.
    pub(super) fn on_read(&mut self, event: Event, at: &mut HistoryContext<'_>) {
        self.catch_ups.on_read(event, at);
    }

    /// More is known of where epochs end.
    pub(super) fn on_epoch_ends(&mut self, at: &mut HistoryContext<'_>) {
        self.epoch_checks.on_epoch_ends(at);
    }

    /// Handles deadlines that have passed.
    pub(super) fn on_timeout(&mut self, at: &mut HistoryContext<'_>) {
        self.epoch_checks.on_timeout(at);
        self.catch_ups.on_timeout(at);
    }

    /// When [`Self::on_timeout`] next has work. `None`: no deadline is set.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let checks = self.epoch_checks.next_deadline();
        let reads = self.catch_ups.next_deadline();
        checks.into_iter().chain(reads).min()
    }

    /// How often catch-up reads have paused the reads of a partition.
    pub(super) fn pauses(&self, partition: Partition) -> u64 {
        self.catch_ups.pauses(partition)
    }
}
