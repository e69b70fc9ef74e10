//! Fetch sessions (KIP-227): a client names its partitions once, then only what changes; the answer
//! names only partitions with news.
//!
//! A session is merged into the request before it is polled ([`Sessions::enter`]), and what is no
//! news is taken out of the answer after ([`Sessions::leave`]); Fetch itself knows nothing of it.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use uuid::Uuid;

use super::NodeId;
use crate::model::FastRandom;

/// Sessions kept; the one used longest ago goes first, and its client is told to start over.
const SESSIONS_MAX: usize = 256;
/// Partitions a session may have.
const PARTITIONS_MAX: usize = 20_000;
/// Epochs of a request: a new session, or none.
const NEW: i32 = 0;
const NONE: i32 = -1;

/// A partition of a session: the topic's name or id (the other is empty), and its number.
type Key = (TopicName, Uuid, i32);

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<i32, Session>,
    uses: u64,
}

#[derive(Debug)]
struct Session {
    node: NodeId,
    next_epoch: i32,
    used: u64,
    partitions: BTreeMap<Key, Cached>,
    /// The partition that gave records last: the next answer begins after it, so that none starves.
    served: Option<Key>,
}

#[derive(Debug)]
struct Cached {
    asked: FetchPartition,
    /// High watermark and log start as the client was last told.
    told: Option<(i64, i64)>,
}

/// What a request has to do with a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// Nothing.
    None,
    /// It began this one: its answer names every partition.
    Begun(i32),
    /// It went on with this one.
    Continued(i32),
}

impl Sessions {
    /// Makes the request name every partition it is about. The error answers it.
    pub(super) fn enter(
        &mut self,
        node: NodeId,
        random: &mut FastRandom,
        request: &mut FetchRequest,
    ) -> Result<Use, ResponseError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == NEW || epoch == NONE {
            self.by_id.remove(&id); // A full request ends the session it names.
        }
        match epoch {
            NONE => Ok(Use::None),
            NEW => Ok(self.begin(node, random, request)),
            _ => self.go_on(node, request),
        }
    }

    fn begin(&mut self, node: NodeId, random: &mut FastRandom, request: &FetchRequest) -> Use {
        let partitions = keyed(&request.topics);
        if partitions.is_empty() || partitions.len() > PARTITIONS_MAX {
            return Use::None;
        }
        if self.by_id.len() >= SESSIONS_MAX {
            let idle = self.by_id.iter().min_by_key(|(_, s)| s.used);
            if let Some(id) = idle.map(|(id, _)| *id) {
                self.by_id.remove(&id);
            }
        }
        let id = std::iter::repeat_with(|| (random.next() >> 33) as i32)
            .find(|id| *id > 0 && !self.by_id.contains_key(id))
            .expect("few of 2^31 ids are taken");
        self.uses += 1;
        let session = Session {
            node,
            next_epoch: 1,
            used: self.uses,
            partitions: partitions.into_iter().collect(),
            served: None,
        };
        self.by_id.insert(id, session);
        Use::Begun(id)
    }

    fn go_on(&mut self, node: NodeId, request: &mut FetchRequest) -> Result<Use, ResponseError> {
        let id = request.session_id;
        let found = self.by_id.get_mut(&id).filter(|s| s.node == node);
        let session = found.ok_or(ResponseError::FetchSessionIdNotFound)?;
        if request.session_epoch != session.next_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        self.uses += 1;
        session.used = self.uses;
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        for (key, changed) in keyed(&request.topics) {
            let told = session.partitions.get(&key).and_then(|cached| cached.told);
            let asked = changed.asked;
            session.partitions.insert(key, Cached { asked, told });
        }
        for topic in &request.forgotten_topics_data {
            for &index in &topic.partitions {
                let key = (topic.topic.clone(), topic.topic_id, index);
                session.partitions.remove(&key);
            }
        }
        if session.partitions.len() > PARTITIONS_MAX {
            self.by_id.remove(&id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        request.topics = session.in_turn();
        Ok(Use::Continued(id))
    }

    /// Takes out of an answer what the client knows, and remembers what it is told.
    pub(super) fn leave(&mut self, used: Use, response: &mut FetchResponse) {
        let (id, all) = match used {
            Use::None => return,
            Use::Begun(id) => (id, true),
            Use::Continued(id) => (id, false),
        };
        let Some(session) = self.by_id.get_mut(&id) else {
            return; // It was evicted meanwhile; the next request is told.
        };
        response.session_id = id;
        for topic in &mut response.responses {
            let (name, topic_id) = (topic.topic.clone(), topic.topic_id);
            topic.partitions.retain(|data| {
                let key = (name.clone(), topic_id, data.partition_index);
                session.is_news(key, data) || all
            });
        }
        response
            .responses
            .retain(|topic| !topic.partitions.is_empty());
    }

    /// A node ended, and its sessions with it.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.by_id.retain(|_, session| session.node != node);
    }
}

impl Session {
    /// Every partition, from the one after that served last.
    fn in_turn(&self) -> Vec<FetchTopic> {
        let after = |key: &&Key| self.served.as_ref().is_none_or(|served| *key > served);
        let (first, last): (Vec<_>, Vec<_>) = self.partitions.keys().partition(after);
        let mut topics: Vec<FetchTopic> = Vec::new();
        for key in first.into_iter().chain(last) {
            let (name, id, _) = key;
            let asked = self.partitions[key].asked.clone();
            match topics.last_mut() {
                Some(t) if t.topic == *name && t.topic_id == *id => t.partitions.push(asked),
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(name.clone())
                        .with_topic_id(*id)
                        .with_partitions(vec![asked]),
                ),
            }
        }
        topics
    }

    /// Whether a partition's answer tells something new; notes it as told.
    fn is_news(&mut self, key: Key, data: &PartitionData) -> bool {
        let gives = data
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty());
        let bounds = (data.high_watermark, data.log_start_offset);
        let Some(cached) = self.partitions.get_mut(&key) else {
            return true; // Forgotten meanwhile by another request; harmless.
        };
        let known = cached.told.replace(bounds) == Some(bounds);
        if gives {
            self.served = Some(key);
        }
        gives || !known || data.error_code != 0 || data.diverging_epoch.epoch >= 0
    }
}

fn keyed(topics: &[FetchTopic]) -> Vec<(Key, Cached)> {
    let mut all = Vec::new();
    for topic in topics {
        for asked in &topic.partitions {
            let key = (topic.topic.clone(), topic.topic_id, asked.partition);
            let asked = asked.clone();
            all.push((key, Cached { asked, told: None }));
        }
    }
    all
}
