//! Where leader epochs ended (OffsetForLeaderEpoch, KIP-320). A position in a log is an offset and
//! the epoch of the record before it. If the leader reports that this epoch ended earlier, an
//! unclean election has cut the log back below the position, however far it has grown since.
//!
//! One table serves reads, before they continue under another leader, and homes that check the
//! position of a subscriber. Only epochs older than the leader's own are asked for: its own has not
//! ended, and it can't know of a newer one (older Redpanda answers that wrong). The end of an epoch
//! does not change while a leader leads, so an answer is valid for the epoch of its leader.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::EpochEndOffset;
use kafka_protocol::messages::{self, OffsetForLeaderEpochRequest};

use super::context::{Context, epoch_on_wire};
use super::event::{Event, LinkId, ReadKey, TopicHandle};
use super::link::Purpose;
use super::read::{Read, ReadPlace};
use super::request_tag::{EpochKey, RequestTag};
use super::topics::Topics;
use super::view::BrokerId;
use super::wire::{Api, ResponseBody};
use super::{Code, KafkaError};
use crate::log::Next;
use crate::model::{Instant, LeaderEpoch, Offset, Partition};

/// The largest number of open questions. Beyond it the caller asks again later, or gives up.
const OPEN_MAX: usize = 4096;
/// Questions about positions of subscribers, at most: clients choose these, and reads need room.
const CLIENTS_OPEN_MAX: usize = 1024;
/// Answers kept. Beyond it all are dropped, since they can be asked for again.
const KNOWN_MAX: usize = 4096;
/// A question that has not been repeated for this time is dropped.
pub(super) const OPEN_FOR: Duration = Duration::from_secs(10);

const _: () = {
    // Questions of clients leave room for those of reads, without which nothing is fetched.
    assert!(CLIENTS_OPEN_MAX < OPEN_MAX);
    // Every open question can keep its answer.
    assert!(OPEN_MAX <= KNOWN_MAX);
};

/// What is known of the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochEnd {
    /// The epoch is the leader's own, or its end is unknown: positions of it are valid.
    Open,
    /// Records of this epoch and of older ones end here. Comes with the newest of these epochs.
    Ended(Next),
    /// The leader is being asked. Ask again after `Event::EpochEnds`.
    Pending,
}

#[derive(Debug)]
struct EpochQuestion {
    /// The epoch of the leader that was asked, and the number of the request.
    asked: Option<(LeaderEpoch, u64)>,
    not_before: Instant,
    until: Instant,
    failures: u32,
}

/// Ends of leader epochs (KIP-320): open questions, and the answers of leaders.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// The number of the last request.
    number: u64,
    open: BTreeMap<EpochKey, EpochQuestion>,
    /// Answers, with the epoch of the leader that gave them. `None`: the leader could not tell.
    known: BTreeMap<EpochKey, (LeaderEpoch, Option<Next>)>,
}

impl Epochs {
    /// Where an epoch ended that a subscriber names. Asks the leader if it is not known.
    pub(super) fn of_client(&mut self, key: EpochKey, cx: &mut Context<'_>) -> EpochEnd {
        self.end_of(key, CLIENTS_OPEN_MAX, cx)
    }

    fn end_of(&mut self, key: EpochKey, open_max: usize, cx: &mut Context<'_>) -> EpochEnd {
        let (topic, partition, epoch) = key;
        if epoch.0.is_none() {
            return EpochEnd::Open;
        }
        if let Some((_, leader)) = cx.leader(topic, partition) {
            if leader == epoch || leader.0.is_none() {
                return EpochEnd::Open;
            }
            match self.known.get(&key) {
                Some((under, end)) if *under == leader => {
                    return end.map_or(EpochEnd::Open, EpochEnd::Ended);
                }
                _ => {}
            }
        }
        let until = cx.now.mono.after(OPEN_FOR);
        if let Some(question) = self.open.get_mut(&key) {
            question.until = until;
        } else if self.open.len() < open_max {
            let (asked, not_before, failures) = (None, Instant::ZERO, 0);
            let question = EpochQuestion {
                asked,
                not_before,
                until,
                failures,
            };
            self.open.insert(key, question);
        }
        EpochEnd::Pending
    }

    /// Whether a read may continue under a leader of another epoch than before. If the log was cut
    /// back, the read is set back to where the log still has what it read, and an event reports it.
    pub(super) fn may_continue(
        &mut self,
        key: ReadKey,
        read: &mut Read,
        next: Next,
        leader: LeaderEpoch,
        cx: &mut Context<'_>,
    ) -> bool {
        match self.end_of((key.topic, key.partition, next.epoch), OPEN_MAX, cx) {
            EpochEnd::Pending => return false,
            EpochEnd::Ended(end) if end.offset < next.offset => {
                read.place = ReadPlace::At(end);
                let (read, wanted) = (key, next.offset);
                cx.events.push_back(Event::Truncated { read, wanted, end });
            }
            EpochEnd::Ended(_) | EpochEnd::Open => {}
        }
        read.on_leader(leader);
        true
    }

    /// The view is newer: questions that wait for that are asked at once.
    pub(super) fn on_view(&mut self) {
        for question in self.open.values_mut() {
            question.not_before = Instant::ZERO;
        }
    }

    /// The topic was re-created: its answers are void.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle) {
        self.open.retain(|key, _| key.0 != topic);
        self.known.retain(|key, _| key.0 != topic);
    }

    /// Sends OffsetForLeaderEpoch for the open questions that are due.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.mono;
        self.open.retain(|_, question| question.until > now);
        let mut wanted: Vec<(BrokerId, EpochKey, LeaderEpoch)> = Vec::new();
        let mut settled: Vec<EpochKey> = Vec::new();
        for (&key, question) in &mut self.open {
            if question.asked.is_some() {
                continue;
            }
            if question.not_before > now {
                cx.wake.at(question.not_before);
                continue;
            }
            match cx.leader(key.0, key.1) {
                None => {}
                Some((_, leader)) if leader == key.2 || leader.0.is_none() => settled.push(key),
                Some((_, leader)) if leader < key.2 => {
                    // The view is older than the position, or the position is of another log.
                    *cx.stale = true;
                    question.failures += 1;
                    question.not_before = cx.retry_at(question.failures);
                    cx.wake.at(question.not_before);
                }
                Some((node, leader)) => wanted.push((node, key, leader)),
            }
        }
        for key in settled {
            self.settle(key, None, cx);
        }
        wanted.sort_unstable();
        // A request names a partition once. Further epochs of it go with the next request.
        wanted.dedup_by_key(|(_, key, _)| (key.0, key.1));
        for group in wanted.chunk_by(|a, b| a.0 == b.0) {
            self.ask(group, cx);
        }
    }

    fn ask(&mut self, group: &[(BrokerId, EpochKey, LeaderEpoch)], cx: &mut Context<'_>) {
        let (topics, window) = (cx.topics, cx.window(Duration::ZERO));
        let Some(link) = cx.link(group[0].0, Purpose::Ask) else {
            return;
        };
        if link.version(Api::EpochEnds).is_err() {
            // The broker is older than Kafka 2.1 and can't tell.
            for &(_, key, leader) in group {
                self.settle(key, Some((leader, None)), cx);
            }
            return;
        }
        let id = link.id();
        let keys = group.iter().map(|(_, key, _)| *key).collect();
        self.number += 1;
        let (number, tag) = (self.number, RequestTag::Epochs(self.number, keys));
        let sent = link.ask(tag, Api::EpochEnds, window, |_| request(topics, group));
        match sent {
            Ok(()) => {
                for (_, key, leader) in group {
                    let question = self.open.get_mut(key).expect("it is wanted");
                    question.asked = Some((*leader, number));
                }
            }
            Err(error) => cx.give_up(id, error),
        }
    }

    /// A question is answered, or needs no answer.
    fn settle(
        &mut self,
        key: EpochKey,
        known: Option<(LeaderEpoch, Option<Next>)>,
        cx: &mut Context<'_>,
    ) {
        self.open.remove(&key);
        if let Some(known) = known {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(key, known);
        }
        cx.wake.at(cx.now.mono); // A read may wait for it.
        let told = Event::EpochEnds(key.0);
        if !matches!(cx.events.back(), Some(Event::EpochEnds(last)) if *last == key.0) {
            cx.events.push_back(told);
        }
    }

    pub(super) fn on_answer(
        &mut self,
        link: LinkId,
        number: u64,
        asked: &[EpochKey],
        body: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        let response = match body.decode::<OffsetForLeaderEpochRequest>() {
            Ok(response) => response,
            Err(error) => {
                cx.give_up(link, error);
                return self.on_lost(number, asked, cx);
            }
        };
        cx.links.throttle(link, response.throttle_time_ms, cx.now);
        for topic in &response.topics {
            let Some(handle) = cx.topics.find(&topic.topic, uuid::Uuid::nil()) else {
                continue;
            };
            for found in &topic.partitions {
                let place = (handle, Partition(found.partition as u32));
                let Some(&key) = asked.iter().find(|key| (key.0, key.1) == place) else {
                    continue;
                };
                let open = self.open.get(&key).and_then(|question| question.asked);
                // A response to an earlier request may be of another leader, or of another log.
                let Some((under, _)) = open.filter(|(_, asked)| *asked == number) else {
                    continue;
                };
                if let Ok(end) = end_of(found, cx) {
                    self.settle(key, Some((under, end)), cx);
                }
            }
        }
        // Questions that the response does not answer are asked again.
        self.on_lost(number, asked, cx);
    }

    /// The question is lost, or some of it was not answered.
    pub(super) fn on_lost(&mut self, number: u64, asked: &[EpochKey], cx: &mut Context<'_>) {
        for key in asked {
            if let Some(question) = self.open.get_mut(key)
                && question.asked.is_some_and(|(_, asked)| asked == number)
            {
                question.asked = None;
                question.failures += 1;
                question.not_before = cx.retry_at(question.failures.min(3));
            }
        }
    }
}

/// Where an epoch ended, according to a response. `None`: the leader can't tell.
fn end_of(found: &EpochEndOffset, cx: &mut Context<'_>) -> Result<Option<Next>, KafkaError> {
    let code = Code(found.error_code);
    if code.0 != 0 {
        cx.saw(Api::EpochEnds, code);
        return Err(KafkaError::Broker(code));
    }
    let offset = u64::try_from(found.end_offset).ok().map(Offset);
    let epoch = LeaderEpoch(u32::try_from(found.leader_epoch).ok());
    Ok(offset.map(|offset| Next { offset, epoch }))
}

fn request(
    topics: &Topics,
    group: &[(BrokerId, EpochKey, LeaderEpoch)],
) -> OffsetForLeaderEpochRequest {
    let mut wanted: Vec<OffsetForLeaderTopic> = Vec::new();
    for of_topic in group.chunk_by(|a, b| a.1.0 == b.1.0) {
        let (name, _) = topics.on_wire(of_topic[0].1.0);
        let partition = |(_, key, leader): &(BrokerId, EpochKey, LeaderEpoch)| {
            OffsetForLeaderPartition::default()
                .with_partition(key.1.0 as i32)
                .with_current_leader_epoch(epoch_on_wire(*leader))
                .with_leader_epoch(epoch_on_wire(key.2))
        };
        let topic = OffsetForLeaderTopic::default().with_topic(messages::TopicName(name));
        wanted.push(topic.with_partitions(of_topic.iter().map(partition).collect()));
    }
    // -1: a consumer asks.
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(messages::BrokerId(-1))
        .with_topics(wanted)
}
