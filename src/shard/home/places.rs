//! Places of clients that this topic's order can't vouch for: ids with an epoch from before this
//! process read the log. Their epochs' ends are had from the leaders, and shared by all who ask.

use std::collections::BTreeMap;

use crate::kafka::EpochEnd;
use crate::log::Next;
use crate::model::{Instant, Partition, ShardId};

use super::topic::Topic;
use super::{HomeContext, Outbox};
use crate::shard::message::{FeedMessage, ProjectionMessage, StreamQuestion};
use crate::shard::snapshot::TopicIndex;

/// How long a client waits for its partitions' leaders before it is sent away, to come back.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Who waits, one entry a connection of a shard.
#[derive(Debug, Default)]
pub(super) struct Places {
    waiting: BTreeMap<(ShardId, u32), Asker>,
}

#[derive(Debug)]
struct Asker {
    question: StreamQuestion,
    places: Vec<(Partition, Next)>,
    deadline: Instant,
}

impl Places {
    /// The log is another one: whoever waits has been closed.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|asker| asker.deadline).min()
    }
}

impl Topic {
    /// A stream wants to know whether these places are still in the log.
    pub(super) fn on_places(
        &mut self,
        question: StreamQuestion,
        places: Vec<(Partition, Next)>,
        cx: &mut HomeContext<'_>,
    ) {
        let deadline = cx.now.mono.after(WAIT_MAX);
        let asker = Asker {
            question,
            places,
            deadline,
        };
        if !self.answer(&asker, cx) {
            let place = (question.exchange.shard, question.exchange.slot);
            self.places.waiting.insert(place, asker);
        }
    }

    /// More is known of epochs' ends.
    pub(super) fn on_epoch_ends(&mut self, cx: &mut HomeContext<'_>) {
        let mut waiting = std::mem::take(&mut self.places.waiting);
        waiting.retain(|_, asker| !self.answer(asker, cx));
        self.places.waiting = waiting;
    }

    /// Those who have waited too long are told that nobody knows.
    pub(super) fn on_places_late(&mut self, cx: &mut HomeContext<'_>) {
        let now = cx.now.mono;
        let late = self
            .places
            .waiting
            .extract_if(.., |_, it| it.deadline <= now);
        for (_, Asker { question, .. }) in late {
            checked(self.index, question, None, cx.out);
        }
    }

    /// Answers, if everything is known.
    fn answer(&self, asker: &Asker, cx: &mut HomeContext<'_>) -> bool {
        let (mut ends, mut known) = (Vec::new(), true);
        for &(partition, next) in &asker.places {
            let (topic, epoch) = (self.handle, next.epoch);
            // All are asked for, also where one is not known yet.
            match cx.client.epoch_end(topic, partition, epoch, cx.now) {
                EpochEnd::Ended(end) if end.offset < next.offset => ends.push((partition, end)),
                EpochEnd::Ended(_) | EpochEnd::Open => {}
                EpochEnd::Pending => known = false,
            }
        }
        if known {
            checked(self.index, asker.question, Some(ends), cx.out);
        }
        known
    }
}

fn checked(
    topic: TopicIndex,
    question: StreamQuestion,
    ends: Option<Vec<(Partition, Next)>>,
    out: &mut Outbox,
) {
    let checked = FeedMessage::PlacesChecked { question, ends };
    let shard = question.exchange.shard;
    out.to_projection(shard, topic, ProjectionMessage::Feed(checked));
}
