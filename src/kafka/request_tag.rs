//! What each request of the client is for. A connection carries the tag from the request to its
//! response, or to the report of its loss, without looking into it. `client.rs` hands both to the
//! part that sent the request.

use std::time::Duration;

use super::event::{ReadKey, TopicHandle};
use crate::model::{LeaderEpoch, Partition};

/// An epoch of a partition.
pub(super) type EpochKey = (TopicHandle, Partition, LeaderEpoch);

/// A partition of one question for end offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndSlot {
    /// The number of the question.
    pub(super) question: u64,
    pub(super) partition: Partition,
}

/// A request for end offsets, which may serve several questions.
#[derive(Debug)]
pub(super) struct EndsRequest {
    pub(super) number: u64,
    pub(super) slots: Vec<EndSlot>,
}

#[derive(Debug)]
pub(super) enum RequestTag {
    /// Of the directory: brokers, topics and leaders.
    Metadata,
    /// Of the directory: the configs of topics.
    Configs,
    /// Of the producer: a producer id and its epoch.
    ProducerId,
    /// Of reads that have no offset yet: each with its generation.
    StartOffsets(Vec<(ReadKey, u32)>),
    /// Of end offsets.
    Ends(EndsRequest),
    /// Of the ends of epochs: the number of the request.
    Epochs(u64, Vec<EpochKey>),
    /// Of the reader: how long the broker may wait for records.
    Fetch(Duration),
    /// Of the writer: each batch with its number.
    Produce(Vec<(TopicHandle, Partition, u64)>),
}
