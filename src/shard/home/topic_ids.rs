//! The numbers by which a home, the snapshot and Kafka's client name one topic.

use crate::kafka::{Lane, ReadId, ReadKey, TopicHandle};
use crate::model::Partition;
use crate::shard::snapshot::{ClusterId, Snapshot, TopicId};
use crate::shard::topic_plan::TopicPlan;

/// One topic, in the snapshot and at its cluster's client.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicIds {
    pub(super) index: TopicId,
    pub(super) cluster: ClusterId,
    /// The topic's handle in its cluster's client.
    pub(super) handle: TopicHandle,
}

impl TopicIds {
    pub(super) fn plan(self, snapshot: &Snapshot) -> &TopicPlan {
        snapshot.topic(self.index)
    }

    /// The topic as the log and `/readyz` name it.
    pub(super) fn name(self, snapshot: &Snapshot) -> String {
        snapshot.topic_name(self.plan(snapshot))
    }

    /// The read that follows a partition's end in `lane`.
    pub(super) const fn read(self, lane: Lane, partition: Partition) -> ReadKey {
        ReadKey {
            lane,
            topic: self.handle,
            partition,
            id: ReadId::LIVE,
        }
    }
}
