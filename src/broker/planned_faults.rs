//! The faults that the next requests meet, and the rights that clients lack.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::topics::{TopicRef, Topics};

/// A right on a topic (Kafka's ACL operations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// The topic's metadata, offsets and epochs. Every other right requires this one.
    Describe,
    /// Fetch of the topic's records.
    Read,
    /// Produce of records to the topic.
    Write,
    /// DescribeConfigs of the topic's configuration.
    DescribeConfigs,
}

/// An error that the next partitions of an API get.
#[derive(Debug)]
pub(super) struct PlannedError {
    pub api: ApiKey,
    /// The topic. `None` means all topics.
    pub topic: Option<String>,
    pub error: ResponseError,
    /// For Produce: append the records before the error is returned.
    pub after: bool,
    /// How many more partitions get the error.
    pub left: u32,
}

impl PlannedError {
    fn replaces(&self, other: &Self) -> bool {
        (self.api, self.after, &self.topic) == (other.api, other.after, &other.topic)
    }
}

/// Faults that were planned and are not used up.
#[derive(Debug, Default)]
pub(super) struct PlannedFaults {
    lost_produce_responses: u32,
    throttled_produces: u32,
    throttle_ms: u32,
    errors: Vec<PlannedError>,
    /// All clients are the same user.
    denied: BTreeSet<(String, Right)>,
    /// A topic, and the milliseconds by which responses to its Produce requests are late.
    produce_delay: Option<(String, u32)>,
    changed: bool,
}

impl PlannedFaults {
    /// Loses the responses to the next `count` Produce requests.
    pub(super) fn lose_produce_responses(&mut self, count: u32) {
        self.lost_produce_responses = count;
    }

    /// Throttles the next `count` Produce requests.
    pub(super) fn throttle_produces(&mut self, count: u32, throttle_ms: u32) {
        self.throttled_produces = count;
        self.throttle_ms = throttle_ms.min(i32::MAX as u32);
    }

    /// Delays responses to Produce requests of a topic. 0 ends the delay.
    pub(super) fn delay_produces(&mut self, topic: &str, by_ms: u32) {
        self.produce_delay = (by_ms > 0).then(|| (topic.to_owned(), by_ms));
    }

    /// Denies a right on a topic to all clients, or grants it again.
    pub(super) fn deny(&mut self, topic: &str, right: Right, denied: bool) {
        let entry = (topic.to_owned(), right);
        if denied {
            self.denied.insert(entry);
        } else {
            self.denied.remove(&entry);
        }
        self.changed = true;
    }

    /// Plans an error. It replaces the one planned for the same API and topic; `left` 0 only
    /// removes that one.
    pub(super) fn plan(&mut self, error: PlannedError) {
        self.errors.retain(|planned| !error.replaces(planned));
        if error.left > 0 {
            self.errors.push(error);
        }
        self.changed = true;
    }

    /// Whether a fault was planned, or a right changed, since the last call. Either can end a long
    /// poll.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether an error is planned for `api`.
    pub(super) fn plans(&self, api: ApiKey) -> bool {
        self.errors.iter().any(|planned| planned.api == api)
    }

    /// Takes the error planned for the next partition of a topic, if any.
    pub(super) fn next_error(
        &mut self,
        api: ApiKey,
        after: bool,
        topic: &TopicRef,
        topics: &Topics,
    ) -> Option<ResponseError> {
        let name = topics.name_of(topic);
        let meets = |planned: &PlannedError| {
            let wanted = planned.topic.as_deref();
            (planned.api, planned.after) == (api, after) && (wanted.is_none() || wanted == name)
        };
        let at = self.errors.iter().position(meets)?;
        let planned = self.errors.get_mut(at)?;
        let error = planned.error;
        planned.left -= 1;
        if planned.left == 0 {
            self.errors.remove(at);
        }
        Some(error)
    }

    /// Takes the loss of a response to Produce, if one is planned.
    pub(super) fn take_lost_response(&mut self) -> bool {
        let lost = self.lost_produce_responses > 0;
        self.lost_produce_responses -= u32::from(lost);
        lost
    }

    /// Takes the throttle time of a Produce request, 0 if none is planned.
    pub(super) fn take_throttle_ms(&mut self) -> i32 {
        if self.throttled_produces == 0 {
            return 0;
        }
        self.throttled_produces -= 1;
        i32::try_from(self.throttle_ms).unwrap_or(i32::MAX)
    }

    /// The delay in milliseconds of a response to a Produce request that writes to these topics.
    pub(super) fn produce_delay(
        &self,
        mut written: impl Iterator<Item = TopicRef>,
        topics: &Topics,
    ) -> Option<u32> {
        let (slow, by_ms) = self.produce_delay.as_ref()?;
        let is_slow = |topic: TopicRef| topics.name_of(&topic) == Some(slow.as_str());
        written.any(is_slow).then_some(*by_ms)
    }

    /// Whether clients lack a right on the topic of this name.
    pub(super) fn denies(&self, topic: &str, right: Right) -> bool {
        let lacks = |right| self.denied.contains(&(topic.to_owned(), right));
        !self.denied.is_empty() && (lacks(Right::Describe) || lacks(right))
    }

    /// TOPIC_AUTHORIZATION_FAILED if clients lack a right on a topic.
    pub(super) fn authorize(
        &self,
        topic: &TopicRef,
        right: Right,
        topics: &Topics,
    ) -> Result<(), ResponseError> {
        let name = topics.name_of(topic);
        if name.is_some_and(|name| self.denies(name, right)) {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        Ok(())
    }
}
