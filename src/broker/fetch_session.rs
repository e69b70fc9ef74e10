//! Fetch sessions (KIP-227): a client names its partitions once, then only what changes. The
//! response names only partitions that changed.
//!
//! A session is merged into the request before it is polled ([`FetchSessions::enter`]). What the
//! client knows is taken out of the response afterwards ([`FetchSessions::leave`]). Fetch itself
//! knows nothing of sessions.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use uuid::Uuid;

use super::NodeId;
use crate::model::FastRandom;

/// Sessions kept. The session that was used longest ago is evicted first; its client gets an error
/// and starts another.
const SESSIONS_MAX: usize = 256;
/// Partitions that a session may have.
const PARTITIONS_MAX: usize = 20_000;
/// Epochs of a request: a new session, or none.
const NEW: i32 = 0;
const NONE: i32 = -1;

/// A partition of a session: the topic's name or id (the other is empty), and its number.
type Key = (TopicName, Uuid, i32);

/// All sessions, of all nodes.
#[derive(Debug)]
pub(super) struct FetchSessions {
    by_id: BTreeMap<i32, Session>,
    uses: u64,
    /// Draws the ids of new sessions.
    random: FastRandom,
}

#[derive(Debug)]
struct Session {
    node: NodeId,
    next_epoch: i32,
    used: u64,
    partitions: BTreeMap<Key, Cached>,
    /// The partition that gave records last. The next response begins after it, so that no
    /// partition starves.
    served: Option<Key>,
}

#[derive(Debug)]
struct Cached {
    asked: FetchPartition,
    /// High watermark and log start as the client last received them.
    sent: Option<(i64, i64)>,
}

/// What a request does with a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum SessionUse {
    /// The request uses no session.
    None,
    /// The request began this session: its response names every partition.
    Begun(i32),
    /// The request continues this session: its response names what changed.
    Continued(i32),
}

impl FetchSessions {
    /// No sessions yet. Their ids come from `seed`.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            by_id: BTreeMap::new(),
            uses: 0,
            random: FastRandom::new(seed),
        }
    }

    /// Makes the request name every partition it is about. On error, the response is the error.
    pub(super) fn enter(
        &mut self,
        node: NodeId,
        request: &mut FetchRequest,
    ) -> Result<SessionUse, ResponseError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == NEW || epoch == NONE {
            self.by_id.remove(&id); // A full request ends the session it names.
        }
        match epoch {
            NONE => Ok(SessionUse::None),
            NEW => Ok(self.begin(node, request)),
            _ => self.resume(node, request),
        }
    }

    fn begin(&mut self, node: NodeId, request: &FetchRequest) -> SessionUse {
        let partitions = keyed(&request.topics);
        if partitions.is_empty() || partitions.len() > PARTITIONS_MAX {
            return SessionUse::None;
        }
        if self.by_id.len() >= SESSIONS_MAX {
            let idle = self.by_id.iter().min_by_key(|(_, s)| s.used);
            if let Some(id) = idle.map(|(id, _)| *id) {
                self.by_id.remove(&id);
            }
        }
        let id = loop {
            let id = (self.random.next() >> 33) as i32;
            if id > 0 && !self.by_id.contains_key(&id) {
                break id; // Soon: few of 2^31 ids are taken.
            }
        };
        self.uses += 1;
        let session = Session {
            node,
            next_epoch: 1,
            used: self.uses,
            partitions: partitions.into_iter().collect(),
            served: None,
        };
        self.by_id.insert(id, session);
        SessionUse::Begun(id)
    }

    fn resume(
        &mut self,
        node: NodeId,
        request: &mut FetchRequest,
    ) -> Result<SessionUse, ResponseError> {
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
            let sent = session.partitions.get(&key).and_then(|cached| cached.sent);
            let asked = changed.asked;
            session.partitions.insert(key, Cached { asked, sent });
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
        Ok(SessionUse::Continued(id))
    }

    /// Takes out of a response what the client knows, and remembers what the client now receives.
    pub(super) fn leave(&mut self, used: SessionUse, response: &mut FetchResponse) {
        let (id, all) = match used {
            SessionUse::None => return,
            SessionUse::Begun(id) => (id, true),
            SessionUse::Continued(id) => (id, false),
        };
        let Some(session) = self.by_id.get_mut(&id) else {
            return; // It was evicted meanwhile. The next request gets the error.
        };
        response.session_id = id;
        for topic in &mut response.responses {
            let (name, topic_id) = (topic.topic.clone(), topic.topic_id);
            topic.partitions.retain(|data| {
                let key = (name.clone(), topic_id, data.partition_index);
                session.has_changed(key, data) || all
            });
        }
        response
            .responses
            .retain(|topic| !topic.partitions.is_empty());
    }

    /// Drops the sessions of a node that stopped.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.by_id.retain(|_, session| session.node != node);
    }
}

impl Session {
    /// Every partition, beginning after the partition that was served last.
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

    /// Whether a partition's data has anything that the client does not know. Notes it as sent.
    fn has_changed(&mut self, key: Key, data: &PartitionData) -> bool {
        let gives = data
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty());
        let bounds = (data.high_watermark, data.log_start_offset);
        let Some(cached) = self.partitions.get_mut(&key) else {
            return true; // Forgotten meanwhile by another request; harmless.
        };
        let known = cached.sent.replace(bounds) == Some(bounds);
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
            all.push((key, Cached { asked, sent: None }));
        }
    }
    all
}
