//! The ends of all partitions of a topic, as their leaders report them. Barriers wait for them.

use std::collections::BTreeMap;

use super::context::Context;
use super::event::{Event, Isolation, LinkId, TopicHandle};
use super::offsets::{self, OffsetsQuestion};
use super::request_tag::RequestTag;
use super::view::BrokerId;
use super::wire::ResponseBody;
use super::{Code, KafkaError};
use crate::model::{Instant, LeaderEpoch, Offset, Partition};

/// Questions open at once. Callers that wait for the same ends share one.
const OPEN_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    Wanted,
    /// Asked of a leader of this epoch.
    Asked(LeaderEpoch),
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
    slots: Vec<EndState>,
}

#[derive(Debug, Default)]
pub(super) struct Ends {
    open: BTreeMap<u64, EndsQuestion>,
    next: u64,
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
                cx.events.push_back(Event::EndsFailed { ticket, error });
                return;
            }
        };
        self.next += 1;
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
        self.open.insert(self.next, question);
    }

    /// The topic was re-created: its ends are not those that were asked for.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle, cx: &mut Context<'_>) {
        self.open.retain(|_, barrier| {
            if barrier.topic == topic {
                let (ticket, error) = (barrier.ticket, KafkaError::NoLeader);
                cx.events.push_back(Event::EndsFailed { ticket, error });
            }
            barrier.topic != topic
        });
    }

    /// Sends what is due, and fails questions past their deadline.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        self.open.retain(|_, question| {
            let late = question.deadline <= cx.now.mono;
            if late {
                let (ticket, error) = (question.ticket, question.error.clone());
                cx.events.push_back(Event::EndsFailed { ticket, error });
            } else {
                cx.wake.at(question.deadline);
            }
            !late
        });
        for (&number, question) in &mut self.open {
            question.pump(number, cx);
        }
    }

    pub(super) fn on_answer(
        &mut self,
        link: LinkId,
        number: u64,
        asked: &[Partition],
        response: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        let Some(response) = offsets::decode(link, response, cx) else {
            return self.on_lost(number, asked, &KafkaError::Closed, cx);
        };
        let Some(question) = self.open.get_mut(&number) else {
            return;
        };
        for found in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let partition = Partition(found.partition_index as u32);
            let slot = question.slots.get(partition.0 as usize).copied();
            let Some(EndState::Asked(epoch)) = slot.filter(|_| asked.contains(&partition)) else {
                continue;
            };
            let known = cx.topics.leader(question.topic, partition);
            let deposed = known.is_some_and(|(_, known)| known > epoch);
            let outcome = match offsets::offset_of(found, cx) {
                // FENCED_LEADER_EPOCH, though the broker does not know it yet.
                Ok(_) if deposed => Err(KafkaError::Broker(Code(74))),
                outcome => outcome,
            };
            match outcome {
                Ok(offset) => question.slots[partition.0 as usize] = EndState::Known(offset),
                Err(error) => question.again(partition, error, cx),
            }
        }
        self.on_lost(
            number,
            asked,
            &KafkaError::Protocol("an answer without the partition"),
            cx,
        );
        if let Some(ends) = self.open.get(&number).and_then(EndsQuestion::all) {
            let ticket = self.open.remove(&number).expect("it was just found").ticket;
            cx.events.push_back(Event::Ends { ticket, ends });
        }
    }

    /// The request is lost, or the response lacks some partitions: they are asked for again.
    pub(super) fn on_lost(
        &mut self,
        number: u64,
        asked: &[Partition],
        error: &KafkaError,
        cx: &mut Context<'_>,
    ) {
        let Some(question) = self.open.get_mut(&number) else {
            return;
        };
        for &partition in asked {
            if let Some(EndState::Asked(_)) = question.slots.get(partition.0 as usize) {
                question.again(partition, error.clone(), cx);
            }
        }
    }
}

impl EndsQuestion {
    fn pump(&mut self, number: u64, cx: &mut Context<'_>) {
        if !self.slots.contains(&EndState::Wanted) {
            return;
        }
        if self.not_before > cx.now.mono {
            return cx.wake.at(self.not_before);
        }
        let mut wanted: Vec<(BrokerId, Partition, LeaderEpoch)> = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let partition = Partition(i as u32);
            if *slot == EndState::Wanted
                && let Some((node, epoch)) = cx.leader(self.topic, partition)
            {
                wanted.push((node, partition, epoch));
            }
        }
        wanted.sort_unstable();
        for group in wanted.chunk_by(|a, b| a.0 == b.0) {
            let each = group
                .iter()
                .map(|&(_, partition, epoch)| (self.topic, partition, epoch));
            let partitions: Vec<_> = each.collect();
            let question = OffsetsQuestion {
                node: group[0].0,
                earliest: false,
                isolation: self.isolation,
                partitions: &partitions,
            };
            let numbers = group.iter().map(|&(_, partition, _)| partition).collect();
            if question
                .ask(RequestTag::Ends(number, numbers), cx)
                .is_some()
            {
                for &(_, partition, epoch) in group {
                    self.slots[partition.0 as usize] = EndState::Asked(epoch);
                }
            }
        }
    }

    fn again(&mut self, partition: Partition, error: KafkaError, cx: &mut Context<'_>) {
        self.slots[partition.0 as usize] = EndState::Wanted;
        self.failures += 1;
        self.not_before = cx.retry_at(self.failures.min(3));
        self.error = error;
    }

    fn all(&self) -> Option<Vec<Offset>> {
        let known = |slot: &EndState| match slot {
            EndState::Known(offset) => Some(*offset),
            _ => None,
        };
        self.slots.iter().map(known).collect()
    }
}
