//! A watched topic, as metadata and configs show it.

use std::sync::Arc;

use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use super::Code;
use super::view::{
    BrokerId, Leader, MissingReason, TopicConfig, TopicEntry, TopicState, TopicView,
};
use crate::model::{LeaderEpoch, LogIdentity, TopicName, u32_of};

/// The bit of WRITE among a topic's authorized operations (KIP-430).
const WRITE_BIT: i32 = 1 << 4;
/// The value that a broker sends if it does not report the operations.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;
/// What is known of a watched topic.
#[derive(Debug, Default)]
pub(super) struct WatchedTopic {
    metadata: Option<Metadata>,
    /// Responses in a row that had older leader epochs than known, and no topic id.
    older: u32,
    /// `None`: not asked for yet. `Some(None)`: the cluster does not let the gateway read it.
    config: Option<Option<TopicConfig>>,
}

/// What a response has shown of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The topic was found, or is another log now: its config is unknown.
    pub(super) is_new: bool,
    /// The topic is missing, or has a partition without a leader: ask again soon.
    pub(super) is_unsettled: bool,
}

impl Found {
    const UNSETTLED: Self = Self {
        is_new: false,
        is_unsettled: true,
    };
}

#[derive(Debug)]
enum Metadata {
    Missing(MissingReason),
    Present {
        id: Option<LogIdentity>,
        leaders: Vec<Leader>,
        writable: Option<bool>,
    },
}

impl WatchedTopic {
    pub(super) const fn is_present(&self) -> bool {
        matches!(self.metadata, Some(Metadata::Present { .. }))
    }

    /// Whether its config is still to be asked for.
    pub(super) const fn lacks_config(&self) -> bool {
        self.is_present() && self.config.is_none()
    }

    /// Whether some partition has no leader.
    pub(super) fn is_leaderless(&self) -> bool {
        match &self.metadata {
            Some(Metadata::Present { leaders, .. }) => leaders.iter().any(|it| it.broker.is_none()),
            _ => false,
        }
    }

    /// Takes its config. `None`: the cluster does not let the gateway read it.
    pub(super) const fn set_config(&mut self, config: Option<TopicConfig>) {
        self.config = Some(config);
    }

    /// Takes what a broker reports about the topic.
    pub(super) fn on_metadata(&mut self, topic: &MetadataResponseTopic) -> Found {
        const LEADER_NOT_AVAILABLE: i16 = 5;
        let missing = match topic.error_code {
            // Some partitions may have leaders nevertheless.
            0 | LEADER_NOT_AVAILABLE if !topic.partitions.is_empty() => None,
            LEADER_NOT_AVAILABLE => return Found::UNSETTLED,
            0 | 3 => Some(MissingReason::Unknown),
            code => Some(MissingReason::Refused(Code(code))),
        };
        if let Some(reason) = missing {
            self.metadata = Some(Metadata::Missing(reason));
            return Found::UNSETTLED;
        }
        let id = (!topic.topic_id.is_nil()).then(|| LogIdentity(*topic.topic_id.as_bytes()));
        let mut is_new = false;
        let known = match &self.metadata {
            Some(Metadata::Present {
                id: before,
                leaders,
                ..
            }) if *before == id => leaders.clone(),
            _ => {
                self.config = None;
                is_new = true;
                Vec::new()
            }
        };
        let known = match id {
            None if self.is_another_log(topic, &known) => Vec::new(),
            _ => known,
        };
        let leaders = leaders(topic, &known);
        let unsettled = leaders.iter().any(|leader| leader.broker.is_none());
        let operations = topic.topic_authorized_operations;
        let writable = (operations != OPERATIONS_UNKNOWN).then_some(operations & WRITE_BIT != 0);
        self.metadata = Some(Metadata::Present {
            id,
            leaders,
            writable,
        });
        Found {
            is_new,
            is_unsettled: unsettled || self.older > 0,
        }
    }

    /// Whether epochs that went back mean another log under the name. Without topic ids nothing
    /// else shows it, and fetches under the old epoch would be rejected for ever. A broker that
    /// lags reports older epochs too, but only for a moment.
    fn is_another_log(&mut self, topic: &MetadataResponseTopic, known: &[Leader]) -> bool {
        const OLDER_MAX: u32 = 5;
        let went_back = topic.partitions.iter().any(|partition| {
            let epoch = u32::try_from(partition.leader_epoch).ok();
            let index = usize::try_from(partition.partition_index).ok();
            let known = index.and_then(|index| known.get(index));
            epoch.is_some() && known.is_some_and(|known| known.epoch > LeaderEpoch(epoch))
        });
        self.older = if went_back { self.older + 1 } else { 0 };
        let another = self.older > OLDER_MAX;
        if another {
            self.older = 0;
        }
        another
    }

    /// Its entry in the view. `None` before metadata and config are known.
    pub(super) fn entry(&self, name: &TopicName) -> Option<TopicEntry> {
        let state = match self.metadata.as_ref()? {
            Metadata::Missing(reason) => TopicState::Missing(*reason),
            Metadata::Present {
                id,
                leaders,
                writable,
            } => TopicState::Present {
                view: Arc::new(TopicView {
                    name: name.clone(),
                    id: *id,
                    partitions: u32_of(leaders.len()),
                    config: self.config?,
                    writable: *writable,
                }),
                leaders: leaders.as_slice().into(),
            },
        };
        let name = name.clone();
        Some(TopicEntry { name, state })
    }
}

/// Leaders by partition. A broker that lags may still report an older leader, so the newer epoch
/// stays.
fn leaders(topic: &MetadataResponseTopic, known: &[Leader]) -> Vec<Leader> {
    let mut leaders = vec![Leader::default(); topic.partitions.len()];
    for partition in &topic.partitions {
        let Ok(index) = usize::try_from(partition.partition_index) else {
            continue;
        };
        let Some(slot) = leaders.get_mut(index) else {
            continue; // Partitions are numbered without gaps, so this is none.
        };
        let node = partition.leader_id.0;
        let found = Leader {
            broker: (node >= 0).then_some(BrokerId(node)),
            epoch: LeaderEpoch(u32::try_from(partition.leader_epoch).ok()),
        };
        *slot = match known.get(index) {
            Some(newer) if newer.epoch > found.epoch => *newer,
            _ => found,
        };
    }
    leaders
}
