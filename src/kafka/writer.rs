//! The idempotent producer (KIP-98): records to appended, refused or unknown. The writer retries
//! until the outcome is certain or the delivery timeout has passed. An outcome that is not certain
//! is reported as unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{self, ProduceRequest};

use super::Code;
use super::batch::{Pending, Queue, SentBatch};
use super::codes::{Denial, Verdict, verdict};
use super::context::Context;
use super::error::{ProduceError, ProduceRefused};
use super::event::{Event, LinkId, Produced, TopicHandle};
use super::link::{LinkKey, Peer, Purpose};
use super::produce_record::ProduceRecord;
use super::producer::Producer;
use super::records::batch_len_max;
use super::request_tag::RequestTag;
use super::stall;
use super::view::BrokerId;
use super::wire::{Api, ResponseBody};
use crate::model::{Bug, Instant, Offset, Partition, is_planted, millis_i32};

/// Produce requests in flight on one link. Each partition is in one of them at most.
const REQUESTS_IN_FLIGHT_MAX: usize = 5;
/// Bytes of the batches of one request: below any broker's `socket.request.max.bytes`.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Kafka's default `max.message.bytes`, for a topic with a config that can't be read.
const BATCH_BYTES_DEFAULT: usize = 1_048_588;

const _: () = {
    // A request has room for a batch of a topic without a known limit.
    assert!(BATCH_BYTES_DEFAULT <= REQUEST_BYTES_MAX);
};

type PartitionKey = (TopicHandle, Partition);

#[derive(Debug, Default)]
pub(super) struct Writer {
    queues: BTreeMap<PartitionKey, Queue>,
    /// Bytes of all records without a known outcome.
    pending_bytes: usize,
    next_number: u64,
    /// Records were refused because their leader is unavailable: newer metadata may name another.
    wanted: bool,
    pub(super) producer: Producer,
}

impl Writer {
    pub(super) fn produce(
        &mut self,
        (topic, partition): PartitionKey,
        record: ProduceRecord,
        ticket: u64,
        cx: &Context<'_>,
    ) -> Result<(), ProduceRefused> {
        let view = cx.topics.view(topic).ok_or(ProduceRefused::UnknownTopic)?;
        if partition.0 >= view.partitions {
            return Err(ProduceRefused::UnknownTopic);
        }
        let bytes = batch_len_max(&record);
        let max = batch_bytes_max(topic, cx);
        if bytes > max {
            return Err(ProduceRefused::TooLarge { bytes, max });
        }
        if self.pending_bytes + bytes > cx.settings.pending_produce_bytes_max {
            return Err(ProduceRefused::Full);
        }
        let queue = self.queues.entry((topic, partition)).or_default();
        if stall::is_away((topic, partition), queue, cx) {
            self.wanted = true;
            return Err(ProduceRefused::Unreachable);
        }
        self.pending_bytes += bytes;
        let since = cx.now.mono;
        let deadline = since.after(cx.settings.delivery_timeout);
        queue.waiting.push_back(Pending {
            record,
            ticket,
            since,
            tried: None,
            deadline,
            bytes,
        });
        Ok(())
    }

    /// Withdraws a record that is not in a batch. The record will never be appended. Returns false
    /// if it may have been sent.
    pub(super) fn withdraw(&mut self, key: PartitionKey, ticket: u64) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return false;
        };
        // The oldest records are late first, so the record is near the front.
        let found = queue
            .waiting
            .iter()
            .position(|pending| pending.ticket == ticket);
        let Some(pending) = found.and_then(|at| queue.waiting.remove(at)) else {
            return false;
        };
        self.pending_bytes -= pending.bytes;
        true
    }

    /// Takes back every record that no broker can have: waiting ones, and batches that were
    /// certainly not appended. Returns their tickets.
    pub(super) fn withdraw_unsent(&mut self) -> Vec<u64> {
        let mut tickets = Vec::new();
        for queue in self.queues.values_mut() {
            let unsent = |sent: &SentBatch| sent.flight.is_none() && !sent.doubtful;
            if queue.sent.as_ref().is_some_and(unsent) {
                queue.take_back(false);
            }
            for pending in queue.waiting.drain(..) {
                self.pending_bytes -= pending.bytes;
                tickets.push(pending.ticket);
            }
        }
        tickets
    }

    /// Reports records past their deadline, and sends what is due.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        *cx.stale |= std::mem::take(&mut self.wanted);
        self.expire(cx);
        let mut due: Vec<(BrokerId, PartitionKey)> = Vec::new();
        for (&key, queue) in &self.queues {
            let in_flight = queue
                .sent
                .as_ref()
                .is_some_and(|sent| sent.flight.is_some());
            if in_flight || (queue.sent.is_none() && queue.waiting.is_empty()) {
                continue;
            }
            if queue.not_before > cx.now.mono {
                cx.wake.at(queue.not_before);
            } else if let Some((node, _)) = cx.leader(key.0, key.1) {
                due.push((node, key));
            }
        }
        due.sort_unstable();
        for group in due.chunk_by(|a, b| a.0 == b.0) {
            self.send(group, cx);
        }
        if !due.is_empty() {
            self.ask_for_id(cx);
        }
    }

    /// Any broker gives a producer id. The one that is least likely to be unavailable is asked,
    /// which need not be the leader of a waiting record.
    fn ask_for_id(&mut self, cx: &mut Context<'_>) {
        let away = |node: &BrokerId| {
            let peer = Peer::Node(*node);
            let silent = cx.silence().since(LinkKey::ask(peer));
            let silent = silent.map(|since| cx.now.mono.since(since));
            (!cx.links.brokers().is_trusted(peer), silent)
        };
        let brokers = cx.view.brokers.iter().map(|broker| broker.id);
        if let Some(node) = brokers.min_by_key(away) {
            self.producer.ask(node, cx);
        }
    }

    fn send(&mut self, group: &[(BrokerId, PartitionKey)], cx: &mut Context<'_>) {
        let node = group[0].0;
        let Some(link) = cx.link(node, Purpose::Produce) else {
            return;
        };
        if link.in_flight() >= REQUESTS_IN_FLIGHT_MAX {
            return;
        }
        let id = link.id();
        if stall::is_stalled(node, cx) {
            return; // A request behind an overdue response could not be taken back.
        }
        let link = cx.links.get_mut(id).expect("it was ready just now");
        let (link, newest) = (link.id(), link.version(Api::Produce));
        let newest = match newest {
            Ok(newest) => newest,
            Err(error) => return cx.give_up(link, error),
        };
        let (mut bytes, mut keys, mut batches) = (0, Vec::new(), Vec::new());
        for &(_, key) in group {
            let queue = self.queues.get_mut(&key).expect("it is due");
            if queue.sent.is_none() {
                let Some(identity) = queue.identity.or(self.producer.newest) else {
                    continue; // The partition waits for a producer id, requested after this.
                };
                self.next_number += 1;
                let max = batch_bytes_max(key.0, cx);
                queue.form(identity, self.next_number, max, cx.now.mono);
            }
            let sent = queue.sent.as_mut().expect("formed above");
            if bytes > 0 && bytes + sent.bytes.len() > REQUEST_BYTES_MAX {
                continue;
            }
            bytes += sent.bytes.len();
            sent.flight = Some(link);
            keys.push((key.0, key.1, sent.number));
            batches.push((key, sent.bytes.clone()));
        }
        if keys.is_empty() {
            return;
        }
        let (version, request) = request(batches, newest, cx);
        let window = cx.window(Duration::ZERO);
        let link = cx.links.get_mut(link).expect("it was ready just now");
        link.send(RequestTag::Produce(keys), version, &request, window);
    }

    /// Ends records past their deadline. Unsent records are refused, because they were never sent.
    /// A batch is refused if all its tries certainly failed, and unknown otherwise.
    fn expire(&mut self, cx: &mut Context<'_>) {
        for (&(topic, partition), queue) in &mut self.queues {
            if let Some(sent) = &queue.sent
                && sent.deadline <= cx.now.mono
            {
                let doubtful = sent.doubtful || sent.flight.is_some();
                let (error, count) = (sent.last_error, sent.records.len());
                let outcome = if doubtful {
                    Produced::Unknown(error)
                } else {
                    Produced::Refused(error)
                };
                finish_batch(queue, outcome, &mut self.pending_bytes, cx);
                if doubtful {
                    self.producer.retire(queue.forget_sequence());
                } else {
                    queue.free_sequence(count);
                }
            }
            let no_producer = self.producer.newest.is_none() && self.producer.failures > 0;
            let late = stall::late((topic, partition), queue, no_producer, cx);
            while let Some(pending) = queue.waiting.front()
                && (pending.deadline <= cx.now.mono
                    || late.is_some_and(|late| pending.since <= late))
            {
                self.pending_bytes -= pending.bytes;
                let error = match (pending.deadline <= cx.now.mono, queue.refused) {
                    (true, _) => ProduceError::Timeout,
                    (false, Some(code)) => ProduceError::Broker(code),
                    (false, None) => ProduceError::Unreachable,
                };
                let error = self.producer.error.unwrap_or(error);
                let (ticket, outcome) = (pending.ticket, Produced::Refused(error));
                cx.events.push_back(Event::Produced { ticket, outcome });
                queue.waiting.pop_front();
            }
            let sent = queue.sent.as_ref().map(|sent| sent.deadline);
            let waiting = queue.waiting.front().map(|pending| pending.deadline);
            for deadline in sent.into_iter().chain(waiting) {
                cx.wake.at(deadline);
            }
            if sent.or(waiting).is_some() {
                // Metadata is requested until the partition has a leader.
                *cx.stale |= cx.topics.leader(topic, partition).is_none();
            }
        }
    }

    /// The response to a Produce.
    pub(super) fn on_answer(
        &mut self,
        link: LinkId,
        asked: &[(TopicHandle, Partition, u64)],
        body: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        let response = match body.decode::<ProduceRequest>() {
            Ok(response) => response,
            Err(error) => {
                cx.give_up(link, error);
                return self.again(asked, true, ProduceError::Timeout, cx);
            }
        };
        cx.links.throttle(link, response.throttle_time_ms, cx.now);
        for topic in &response.responses {
            let Some(handle) = cx.topics.find(&topic.name, topic.topic_id) else {
                continue;
            };
            for answer in &topic.partition_responses {
                let partition = Partition(answer.index as u32);
                let same = |a: &&(TopicHandle, Partition, u64)| (a.0, a.1) == (handle, partition);
                if let Some(&(_, _, number)) = asked.iter().find(same) {
                    self.on_partition((handle, partition), number, answer, cx);
                }
            }
        }
        // Batches that the response does not name.
        self.again(asked, true, ProduceError::Timeout, cx);
    }

    fn on_partition(
        &mut self,
        key: PartitionKey,
        number: u64,
        answer: &PartitionProduceResponse,
        cx: &mut Context<'_>,
    ) {
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        let Some(sent) = queue.sent.as_mut().filter(|sent| sent.number == number) else {
            return; // The batch was given up meanwhile.
        };
        let code = Code(answer.error_code);
        let error = ProduceError::Broker(code);
        cx.saw_of(Api::Produce, Some(key), code);
        let several = sent.records.len() > 1;
        let lasting = code.0 != 0 && !code.is_stale();
        queue.refused = lasting.then_some(code);
        // Metadata reports when a missing right is granted again.
        *cx.stale |= code.denial().is_some_and(Denial::is_a_right);
        match verdict(code, sent.doubtful) {
            Verdict::Appended => {
                let base = u64::try_from(answer.base_offset).ok().map(Offset);
                let base = base.filter(|_| code.0 == 0);
                let outcomes = sent.appended(key.1, base);
                queue.failures = 0;
                for (pending, outcome) in take(queue, &mut self.pending_bytes).zip(outcomes) {
                    let ticket = pending.ticket;
                    cx.events.push_back(Event::Produced { ticket, outcome });
                }
            }
            Verdict::Again { doubtful } => {
                sent.doubtful |= doubtful;
                sent.flight = None;
                sent.last_error = error;
                queue.failures += 1;
                queue.not_before = cx.retry_at(queue.failures);
            }
            Verdict::Refused { apart } if apart && several => {
                queue.take_back(true);
            }
            Verdict::Refused { .. } => {
                let count = sent.records.len();
                finish_batch(queue, Produced::Refused(error), &mut self.pending_bytes, cx);
                queue.free_sequence(count);
            }
            Verdict::NewSequence => {
                queue.take_back(false);
                self.producer.retire(queue.forget_sequence());
                queue.failures += 1;
                queue.not_before = cx.retry_at(queue.failures);
            }
            Verdict::Unknown => {
                finish_batch(queue, Produced::Unknown(error), &mut self.pending_bytes, cx);
                self.producer.retire(queue.forget_sequence());
            }
        }
    }

    /// A Produce gets no response.
    pub(super) fn on_lost(
        &mut self,
        asked: &[(TopicHandle, Partition, u64)],
        sent: bool,
        cx: &mut Context<'_>,
    ) {
        *cx.stale = true;
        self.again(asked, sent, ProduceError::Timeout, cx);
    }

    /// Batches of `asked` that still wait for this response are retried, with the same bytes.
    fn again(
        &mut self,
        asked: &[(TopicHandle, Partition, u64)],
        doubtful: bool,
        error: ProduceError,
        cx: &mut Context<'_>,
    ) {
        for &(topic, partition, number) in asked {
            let Some(queue) = self.queues.get_mut(&(topic, partition)) else {
                continue;
            };
            let Some(sent) = queue.sent.as_mut().filter(|sent| sent.number == number) else {
                continue;
            };
            if sent.flight.take().is_none() {
                continue; // Its response came.
            }
            sent.doubtful |= doubtful;
            sent.last_error = error;
            if is_planted(Bug::NewProducerId) {
                sent.doubtful = false;
                queue.take_back(false);
                self.producer.retire(queue.forget_sequence());
            }
            queue.failures += 1;
            queue.not_before = cx.retry_at(queue.failures);
        }
    }

    /// The view is newer: batches that wait for that are retried at once.
    pub(super) fn on_view(&mut self) {
        for queue in self.queues.values_mut() {
            queue.not_before = Instant::ZERO;
        }
    }

    /// The topic was re-created: no record for the old one gets a response.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle, cx: &mut Context<'_>) {
        let error = ProduceError::TopicGone;
        for (key, queue) in &mut self.queues {
            if key.0 != topic {
                continue;
            }
            if let Some(sent) = &queue.sent {
                let outcome = if sent.doubtful || sent.flight.is_some() {
                    Produced::Unknown(error)
                } else {
                    Produced::Refused(error)
                };
                finish_batch(queue, outcome, &mut self.pending_bytes, cx);
            }
            // Where topics have no ids, the new log may already have batches of this sequence. A
            // new batch with the same id and sequence number would count as a duplicate of one of
            // them: acknowledged, and not appended.
            self.producer.retire(queue.forget_sequence());
            for pending in std::mem::take(&mut queue.waiting) {
                self.pending_bytes -= pending.bytes;
                let (ticket, outcome) = (pending.ticket, Produced::Refused(error));
                cx.events.push_back(Event::Produced { ticket, outcome });
            }
        }
        self.queues.retain(|key, _| key.0 != topic);
    }
}

/// Ends the batch in flight and returns its records.
fn take(queue: &mut Queue, pending_bytes: &mut usize) -> std::vec::IntoIter<Pending> {
    let records = queue
        .sent
        .take()
        .map(|sent| sent.records)
        .unwrap_or_default();
    *pending_bytes -= records.iter().map(|pending| pending.bytes).sum::<usize>();
    records.into_iter()
}

/// Ends the batch in flight, with the same outcome for all its records.
fn finish_batch(
    queue: &mut Queue,
    outcome: Produced,
    pending_bytes: &mut usize,
    cx: &mut Context<'_>,
) {
    for pending in take(queue, pending_bytes) {
        let ticket = pending.ticket;
        cx.events.push_back(Event::Produced { ticket, outcome });
    }
}

fn batch_bytes_max(topic: TopicHandle, cx: &Context<'_>) -> usize {
    let config = cx.topics.view(topic).and_then(|view| view.config);
    let theirs = config.map_or(BATCH_BYTES_DEFAULT, |c| c.batch_bytes_max as usize);
    theirs.min(cx.settings.produce_bytes_max as usize)
}

fn request(
    batches: Vec<(PartitionKey, Bytes)>,
    newest: i16,
    cx: &Context<'_>,
) -> (i16, ProduceRequest) {
    let mut topics: Vec<(TopicProduceData, TopicHandle)> = Vec::new();
    for ((topic, partition), bytes) in batches {
        if topics.last().is_none_or(|(_, last)| *last != topic) {
            let (name, id) = cx.topics.on_wire(topic);
            let data = TopicProduceData::default().with_name(messages::TopicName(name));
            topics.push((data.with_topic_id(id), topic));
        }
        let data = PartitionProduceData::default()
            .with_index(partition.0 as i32)
            .with_records(Some(bytes));
        let (last, _) = topics.last_mut().expect("pushed above");
        last.partition_data.push(data);
    }
    let mut topics: Vec<_> = topics.into_iter().map(|(data, _)| data).collect();
    let by_id = newest >= 13 && topics.iter().all(|topic| !topic.topic_id.is_nil());
    for topic in &mut topics {
        if by_id {
            topic.name = messages::TopicName::default();
        } else {
            topic.topic_id = uuid::Uuid::nil();
        }
    }
    let version = if by_id { newest } else { newest.min(12) };
    // The broker gives up on its replicas before the client gives up on the broker.
    let timeout = cx.settings.request_timeout * 3 / 4;
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(millis_i32(timeout))
        .with_topic_data(topics);
    (version, request)
}
