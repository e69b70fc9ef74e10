//! The topics of a client by handle, as the newest view shows them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::event::{Event, TopicHandle};
use super::view::{BrokerId, ClusterView, TopicState, TopicView};
use crate::model::{LeaderEpoch, LogIdentity, Partition, TopicName, u32_of};

#[derive(Debug)]
struct KnownTopic {
    name: TopicName,
    state: Option<TopicState>,
    /// The log that reads and records were last for, also while the topic is missing.
    id: Option<LogIdentity>,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<KnownTopic>,
    /// The topics that have an id, by their present one. Responses name topics by it.
    by_id: HashMap<Uuid, TopicHandle>,
}

impl Topics {
    /// The handle of `name`, and whether it is new.
    pub(super) fn watch(&mut self, name: &TopicName) -> (TopicHandle, bool) {
        let known = self.topics.iter().position(|topic| topic.name == *name);
        let at = known.unwrap_or(self.topics.len());
        if known.is_none() {
            self.topics.push(KnownTopic {
                name: name.clone(),
                state: None,
                id: None,
            });
        }
        (TopicHandle(u32_of(at)), known.is_none())
    }

    /// Takes a view, reports what changed, and returns the topics that are another log now.
    pub(super) fn on_view(
        &mut self,
        view: &ClusterView,
        events: &mut VecDeque<Event>,
    ) -> Vec<TopicHandle> {
        let mut replaced = Vec::new();
        for (i, topic) in self.topics.iter_mut().enumerate() {
            let Some(new) = view.topic(&topic.name) else {
                continue;
            };
            let handle = TopicHandle(u32_of(i));
            let old = topic.state.replace(new.clone());
            if let Some(old) = old.as_ref().and_then(id) {
                self.by_id.remove(&Uuid::from_bytes(old.0));
            }
            if let Some(new) = id(new) {
                self.by_id.insert(Uuid::from_bytes(new.0), handle);
            }
            match new {
                TopicState::Missing(reason) => match &old {
                    Some(TopicState::Missing(before)) if before == reason => {}
                    _ => events.push_back(Event::Missing(handle, *reason)),
                },
                TopicState::Present { view, .. } => {
                    let before = match &old {
                        Some(TopicState::Present { view, .. }) => Some(view),
                        _ => None,
                    };
                    if before != Some(view) {
                        events.push_back(Event::Topic(handle, Arc::clone(view)));
                    }
                }
            }
            if let Some(new) = id(new) {
                let old = topic.id.replace(new);
                if old.is_some_and(|old| old != new) {
                    replaced.push(handle);
                }
            }
        }
        replaced
    }

    /// What is known of the topic, while it exists.
    pub(super) fn view(&self, topic: TopicHandle) -> Option<&Arc<TopicView>> {
        match self.state(topic)? {
            TopicState::Present { view, .. } => Some(view),
            TopicState::Missing(_) => None,
        }
    }

    /// The present leader of a partition, with its epoch.
    pub(super) fn leader(
        &self,
        topic: TopicHandle,
        partition: Partition,
    ) -> Option<(BrokerId, LeaderEpoch)> {
        self.state(topic)?.leader(partition)
    }

    /// The name and the id of a topic in requests. The id is nil if it has none.
    pub(super) fn on_wire(&self, topic: TopicHandle) -> (StrBytes, Uuid) {
        let name = self.topics[topic.0 as usize].name.as_str();
        let id = self.view(topic).and_then(|view| view.id);
        let id = id.map_or(Uuid::nil(), |id| Uuid::from_bytes(id.0));
        (StrBytes::from_string(name.to_owned()), id)
    }

    /// The topic that a response names: by id if it has one, otherwise by name.
    pub(super) fn find(&self, name: &str, id: Uuid) -> Option<TopicHandle> {
        if !id.is_nil() {
            return self.by_id.get(&id).copied();
        }
        let mut names = self.topics.iter().map(|topic| topic.name.as_str());
        let at = names.position(|known| known == name);
        at.map(|i| TopicHandle(u32_of(i)))
    }

    fn state(&self, topic: TopicHandle) -> Option<&TopicState> {
        self.topics.get(topic.0 as usize)?.state.as_ref()
    }
}

fn id(state: &TopicState) -> Option<LogIdentity> {
    match state {
        TopicState::Present { view, .. } => view.id,
        TopicState::Missing(_) => None,
    }
}
