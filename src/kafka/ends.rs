//! The ends of all partitions of a topic, as their leaders report them. Barriers wait for them.
//!
//! A question is open until every leader has answered a request that was sent after it was asked.
//! All questions that are due at once share one request per leader.

use std::collections::BTreeMap;

use super::context::Context;
use super::event::{Event, Isolation, LinkId, TopicHandle};
use super::link::{LinkKey, Peer};
use super::offsets::{self, OffsetsQuestion, SeekTime};
use super::request_tag::{EndSlot, EndsRequest, RequestTag};
use super::silence::Silent;
use super::view::BrokerId;
use super::wire::ResponseBody;
use super::{Code, KafkaError};
use crate::model::{Instant, LeaderEpoch, Offset, Partition, u32_of};

/// Questions open at once. Callers that wait for the same ends share one.
const OPEN_MAX: usize = 1024;

/// The end of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    Wanted,
    /// Request number `request` asks the leader of this epoch.
    Asked {
        request: u64,
        epoch: LeaderEpoch,
    },
    Known(Offset),
}

#[derive(Debug)]
struct EndsQuestion {
    topic: TopicHandle,
    isolation: Isolation,
    ticket: u64,
    deadline: Instant,
    not_before: Instant,
    failures: u32,
    error: KafkaError,
    /// By number of the partition.
    slots: Vec<EndState>,
}

/// The open questions.
#[derive(Debug, Default)]
pub(super) struct Ends {
    open: BTreeMap<u64, EndsQuestion>,
    /// The number of the newest question.
    newest: u64,
    /// The number of the newest request.
    requests: u64,
}

/// A partition that a leader is to be asked for. In the order of leaders, so that one request asks
/// for all that are next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    node: BrokerId,
    isolation: Isolation,
    topic: TopicHandle,
    partition: Partition,
    epoch: LeaderEpoch,
    question: u64,
}

impl Ends {
    pub(super) fn ask(
        &mut self,
        topic: TopicHandle,
        isolation: Isolation,
        ticket: u64,
        cx: &mut Context<'_>,
    ) {
        let view = match cx.topics.view(topic) {
            Some(view) if self.open.len() < OPEN_MAX => view,
            other => {
                let error = match other {
                    None => KafkaError::NoLeader,
                    Some(_) => KafkaError::Busy,
                };
                cx.events.push_back(Event::EndsFailed {
                    topic,
                    ticket,
                    error,
                });
                return;
            }
        };
        self.newest += 1;
        let question = EndsQuestion {
            topic,
            isolation,
            ticket,
            deadline: cx.now.mono.after(cx.settings.ends_timeout),
            not_before: Instant::ZERO,
            failures: 0,
            error: KafkaError::Timeout,
            slots: vec![EndState::Wanted; view.partitions as usize],
        };
        self.open.insert(self.newest, question);
    }

    /// The topic was re-created: its ends are not those that were asked for.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle, cx: &mut Context<'_>) {
        self.open.retain(|_, question| {
            if question.topic == topic {
                question.error = KafkaError::NoLeader;
                question.fail(cx);
            }
            question.topic != topic
        });
    }

    /// Sends what is due. Fails questions past their deadline, and those with a leader that is
    /// unavailable.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        if self.open.is_empty() {
            return; // The usual case.
        }
        let mut wanted = Vec::new();
        for (&number, question) in &mut self.open {
            question.collect(number, cx, &mut wanted);
        }
        wanted.sort_unstable();
        for group in wanted.chunk_by(|a, b| (a.node, a.isolation) == (b.node, b.isolation)) {
            self.send(group, cx);
        }
        // After sending, so that a broker that failed is tried again before it counts as silent.
        self.open.retain(|_, question| {
            let fails = question.is_late(cx);
            if fails {
                question.fail(cx);
            }
            !fails
        });
    }

    /// Asks one leader for the ends of some partitions.
    fn send(&mut self, group: &[Wanted], cx: &mut Context<'_>) {
        let node = group[0].node;
        // A request behind an overdue response would only wait there.
        if cx
            .silence()
            .is(LinkKey::ask(Peer::Node(node)), Silent::Stalled)
        {
            return;
        }
        let each = group.iter().map(|it| (it.topic, it.partition, it.epoch));
        let mut partitions: Vec<_> = each.collect();
        // Two questions may want the same partition. A request names it once.
        partitions.dedup();
        let question = OffsetsQuestion {
            node,
            time: SeekTime::Latest,
            isolation: group[0].isolation,
            partitions: &partitions,
        };
        let request = self.requests + 1;
        let slots = group.iter().map(|it| EndSlot {
            question: it.question,
            partition: it.partition,
        });
        let tag = RequestTag::Ends(EndsRequest {
            number: request,
            slots: slots.collect(),
        });
        if question.ask(tag, cx).is_none() {
            return;
        }
        self.requests = request;
        for wanted in group {
            if let Some(question) = self.open.get_mut(&wanted.question) {
                let epoch = wanted.epoch;
                question.slots[wanted.partition.0 as usize] = EndState::Asked { request, epoch };
            }
        }
    }

    pub(super) fn on_answer(
        &mut self,
        link: LinkId,
        asked: &EndsRequest,
        response: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        let Some(response) = offsets::decode(link, response, cx) else {
            return self.on_lost(asked, &KafkaError::Closed, cx);
        };
        for of_topic in &response.topics {
            let Some(topic) = cx.topics.find(&of_topic.name, uuid::Uuid::nil()) else {
                continue;
            };
            for found in &of_topic.partitions {
                let Ok(partition) = u32::try_from(found.partition_index).map(Partition) else {
                    continue;
                };
                let outcome = offsets::offset_of(found, cx);
                for slot in asked
                    .slots
                    .iter()
                    .filter(|slot| slot.partition == partition)
                {
                    if let Some(question) = self.open.get_mut(&slot.question)
                        && question.topic == topic
                    {
                        question.on_end(asked.number, partition, outcome.clone(), cx);
                    }
                }
            }
        }
        let missing = KafkaError::Protocol("an answer without the partition");
        self.on_lost(asked, &missing, cx);
        self.open.retain(|_, question| {
            let ends = question.all();
            if let Some(ends) = &ends {
                let (topic, ticket, ends) = (question.topic, question.ticket, ends.clone());
                cx.events.push_back(Event::Ends {
                    topic,
                    ticket,
                    ends,
                });
            }
            ends.is_none()
        });
    }

    /// The request is lost, or the response lacks some partitions: they are asked for again.
    pub(super) fn on_lost(
        &mut self,
        asked: &EndsRequest,
        error: &KafkaError,
        cx: &mut Context<'_>,
    ) {
        for slot in &asked.slots {
            if let Some(question) = self.open.get_mut(&slot.question) {
                question.on_end(asked.number, slot.partition, Err(error.clone()), cx);
            }
        }
    }
}

impl EndsQuestion {
    /// Adds what may be asked now to `wanted`.
    fn collect(&mut self, number: u64, cx: &mut Context<'_>, wanted: &mut Vec<Wanted>) {
        cx.wake.at(self.deadline);
        let rests = self.not_before > cx.now.mono;
        for i in 0..self.slots.len() {
            let partition = Partition(u32_of(i));
            let asked = match self.slots[i] {
                EndState::Known(_) => continue,
                EndState::Wanted => None,
                EndState::Asked { epoch, .. } => Some(epoch),
            };
            let Some((node, epoch)) = cx.leader(self.topic, partition) else {
                self.error = KafkaError::NoLeader;
                continue;
            };
            // The leader that was asked is deposed, and may never answer.
            if asked.is_some_and(|asked| epoch <= asked) {
                continue;
            }
            self.slots[i] = EndState::Wanted;
            if rests && asked.is_none() {
                cx.wake.at(self.not_before);
                continue;
            }
            wanted.push(Wanted {
                node,
                isolation: self.isolation,
                topic: self.topic,
                partition,
                epoch,
                question: number,
            });
        }
    }

    /// The outcome of request number `request` for a partition. An outcome of an earlier request is
    /// ignored: a later one asks another leader.
    fn on_end(
        &mut self,
        request: u64,
        partition: Partition,
        outcome: Result<Offset, KafkaError>,
        cx: &mut Context<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(partition.0 as usize) else {
            return;
        };
        let EndState::Asked {
            request: newest,
            epoch,
        } = *slot
        else {
            return;
        };
        if newest != request {
            return;
        }
        let known = cx.topics.leader(self.topic, partition);
        let deposed = known.is_some_and(|(_, known)| known > epoch);
        let outcome = match outcome {
            // FENCED_LEADER_EPOCH, though the broker does not know it yet.
            Ok(_) if deposed => Err(KafkaError::Broker(Code(74))),
            outcome => outcome,
        };
        match outcome {
            Ok(offset) => *slot = EndState::Known(offset),
            Err(error) => {
                *slot = EndState::Wanted;
                self.failures += 1;
                self.not_before = cx.retry_at(self.failures.min(3));
                self.error = error;
            }
        }
    }

    /// Whether the question can't be answered in time: its deadline has passed, or a leader is
    /// unavailable.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.deadline <= cx.now.mono {
            return true;
        }
        let mut nodes: Vec<BrokerId> = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let leader = cx.topics.leader(self.topic, Partition(u32_of(i)));
            if let (false, Some((node, _))) = (matches!(slot, EndState::Known(_)), leader)
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
        for node in nodes {
            let to = LinkKey::ask(Peer::Node(node));
            match cx.silence().from(to, Silent::Unavailable) {
                Some(from) if from <= cx.now.mono => return true,
                Some(from) => cx.wake.at(from),
                None => {}
            }
        }
        false
    }

    fn fail(&self, cx: &mut Context<'_>) {
        cx.events.push_back(Event::EndsFailed {
            topic: self.topic,
            ticket: self.ticket,
            error: self.error.clone(),
        });
    }

    fn all(&self) -> Option<Vec<Offset>> {
        let known = |slot: &EndState| match slot {
            EndState::Known(offset) => Some(*offset),
            _ => None,
        };
        self.slots.iter().map(known).collect()
    }
}
