//! Partitions from offsets to batches: which reads there are, where each stands, what to ask of
//! which broker. One Fetch a broker and lane is in flight; it names all partitions that are due.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{self, FetchRequest};

use super::context::{Context, epoch_on_wire};
use super::epochs::Epochs;
use super::event::{Event, Lane, LinkId, ReadKey, StartAt, TopicHandle};
use super::link::{Asked, Purpose};
use super::records::{self, Aborted, Fetched, Piece, Unpacker};
use super::view::BrokerId;
use super::wire::{self, Api};
use super::{Code, KafkaError};
use crate::log::Next;
use crate::model::{Instant, LeaderEpoch, Offset, Partition};

/// Where a read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The broker must say where this is. `wanted`: what turned out to be out of range.
    Sought {
        earliest: bool,
        wanted: Option<Offset>,
    },
    /// Here.
    At(Next),
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) place: Place,
    /// Tells this read from an earlier one of the same key.
    pub(super) generation: u32,
    /// The epoch of the leader that is known to have what was read: of another one it is asked.
    pub(super) checked: LeaderEpoch,
    /// The link whose answer it waits for.
    pub(super) flight: Option<LinkId>,
    pub(super) not_before: Instant,
    paused: bool,
    started: bool,
    failures: u32,
    /// What was last told as `ReadFailed` or as an undecodable header.
    told: Option<KafkaError>,
    /// Grows where a broker answers with less than one batch.
    bytes_max: u32,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) reads: BTreeMap<ReadKey, Read>,
    generation: u32,
    /// Which partition a Fetch begins with: the first ones fill it where there is much to read.
    rotation: usize,
    unpacker: Unpacker,
    /// Room for `due`, kept.
    scratch: Vec<(Lane, BrokerId, ReadKey, LeaderEpoch)>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            reads: BTreeMap::new(),
            generation: 0,
            rotation: 0,
            unpacker: Unpacker::new(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, key: ReadKey, from: StartAt, bytes_max: u32) {
        self.generation = self.generation.wrapping_add(1);
        let sought = |earliest| Place::Sought {
            earliest,
            wanted: None,
        };
        let place = match from {
            StartAt::Earliest => sought(true),
            StartAt::Latest => sought(false),
            StartAt::At(next) => Place::At(next),
        };
        let read = Read {
            place,
            generation: self.generation,
            checked: LeaderEpoch(None),
            flight: None,
            not_before: Instant::ZERO,
            paused: false,
            started: false,
            failures: 0,
            told: None,
            bytes_max,
        };
        self.reads.insert(key, read);
    }

    pub(super) fn stop(&mut self, key: ReadKey) {
        self.reads.remove(&key);
    }

    pub(super) fn pause(&mut self, key: ReadKey, paused: bool) {
        if let Some(read) = self.reads.get_mut(&key) {
            read.paused = paused;
        }
    }

    /// The view is newer: whatever waits for that may try at once.
    pub(super) fn on_view(&mut self) {
        for read in self.reads.values_mut() {
            read.not_before = Instant::ZERO;
        }
    }

    /// Another log stands behind the name: nothing of these reads is true any more.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle) {
        self.reads.retain(|key, _| key.topic != topic);
    }

    /// Sends what is due.
    pub(super) fn pump(&mut self, epochs: &mut Epochs, cx: &mut Context<'_>) {
        super::offsets::pump(self, cx);
        let mut due = std::mem::take(&mut self.scratch);
        due.clear();
        for (&key, read) in &mut self.reads {
            let Place::At(next) = read.place else {
                continue;
            };
            if read.flight.is_some() || read.paused {
                continue;
            }
            if read.not_before > cx.now.mono {
                cx.wake.at(read.not_before);
            } else if let Some((node, epoch)) = cx.leader(key.topic, key.partition)
                && (read.checked == epoch || epochs.stands((key, read), next, epoch, cx))
            {
                due.push((key.lane, node, key, epoch));
            }
        }
        due.sort_unstable_by_key(|&(lane, node, key, _)| (lane, node, key));
        for group in due.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            self.fetch(group, cx);
        }
        self.scratch = due;
    }

    fn fetch(&mut self, group: &[(Lane, BrokerId, ReadKey, LeaderEpoch)], cx: &mut Context<'_>) {
        let (lane, node, ..) = group[0];
        let topics = cx.topics;
        let (wait, deadline) = self.wait(group, cx);
        let idle = cx.link(node, Purpose::Fetch(lane));
        // Whoever comes while one is in flight goes with the next one.
        let Some(link) = idle.filter(|link| link.in_flight() == 0) else {
            return;
        };
        let (link, newest) = (link.id, link.versions.of(Api::Fetch));
        self.rotation = self.rotation.wrapping_add(1);
        let (tail, head) = group.split_at(self.rotation % group.len());
        let mut wanted: Vec<FetchTopic> = Vec::new();
        let (mut last, mut all_have_ids) = (None, true);
        for &(_, _, key, epoch) in head.iter().chain(tail) {
            let read = self.reads.get_mut(&key).expect("it was due just now");
            let Place::At(next) = read.place else {
                continue;
            };
            if last != Some(key.topic) {
                last = Some(key.topic);
                let (name, id) = topics.on_wire(key.topic);
                all_have_ids &= !id.is_nil();
                let topic = FetchTopic::default().with_topic(messages::TopicName(name));
                wanted.push(topic.with_topic_id(id));
            }
            let partition = FetchPartition::default()
                .with_partition(key.partition.0 as i32)
                .with_current_leader_epoch(epoch_on_wire(epoch))
                .with_fetch_offset(next.offset.0 as i64)
                .with_partition_max_bytes(read.bytes_max as i32);
            let topic = wanted.last_mut().expect("pushed above");
            topic.partitions.push(partition);
            read.flight = Some(link);
        }
        let request = FetchRequest::default()
            .with_max_wait_ms(wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(cx.settings.fetch_bytes_max as i32)
            .with_isolation_level(1);
        let newest = match newest {
            Ok(newest) => newest,
            Err(error) => {
                cx.give_up(link, error.clone());
                return self.on_lost(link, &error, cx);
            }
        };
        let by_id = all_have_ids && newest >= 13;
        let version = if by_id { newest } else { newest.min(12) };
        for topic in &mut wanted {
            match by_id {
                true => topic.topic = messages::TopicName::default(),
                false => topic.topic_id = uuid::Uuid::nil(),
            }
        }
        let link = cx.links.get_mut(link).expect("it stood just now");
        let request = request.with_topics(wanted);
        link.send(Asked::Fetch, version, &request, deadline);
    }

    /// How long the broker may wait for news: not at all while some read has not started, for its
    /// first answer says where the log's end is.
    fn wait(
        &self,
        group: &[(Lane, BrokerId, ReadKey, LeaderEpoch)],
        cx: &Context<'_>,
    ) -> (std::time::Duration, Instant) {
        let all_started = group.iter().all(|(.., key, _)| self.reads[key].started);
        let wait = match (all_started, group[0].0) {
            (false, _) => std::time::Duration::ZERO,
            (true, Lane::History) => cx.settings.history_wait_max,
            (true, _) => cx.settings.fetch_wait_max,
        };
        (wait, cx.deadline().after(wait))
    }

    /// A Fetch was answered.
    pub(super) fn on_fetched(
        &mut self,
        link: LinkId,
        lane: Lane,
        (version, body): (i16, Bytes),
        cx: &mut Context<'_>,
    ) {
        let response = match wire::decode::<FetchRequest>(body, version) {
            Ok(response) => response,
            Err(error) => {
                cx.give_up(link, error.clone());
                return self.on_lost(link, &error, cx);
            }
        };
        cx.links.throttle(link, response.throttle_time_ms, cx.now);
        let mut budget = u64::from(cx.settings.decompressed_bytes_max);
        for topic in response.responses {
            let Some(handle) = cx.topics.find(&topic.topic, topic.topic_id) else {
                continue;
            };
            for data in topic.partitions {
                let key = ReadKey {
                    lane,
                    topic: handle,
                    partition: Partition(data.partition_index as u32),
                };
                self.on_partition(key, link, data, &mut budget, cx);
            }
        }
        let whole = Code(response.error_code);
        cx.saw(Api::Fetch, whole);
        for (key, read) in &mut self.reads {
            if read.flight == Some(link) {
                read.flight = None;
                let error = match whole.0 {
                    0 => KafkaError::Protocol("a Fetch answer without the partition"),
                    _ => KafkaError::Broker(whole),
                };
                fail(*key, read, error, cx);
            }
        }
    }

    fn on_partition(
        &mut self,
        key: ReadKey,
        link: LinkId,
        data: PartitionData,
        budget: &mut u64,
        cx: &mut Context<'_>,
    ) {
        let Some(read) = self.reads.get_mut(&key) else {
            return;
        };
        if read.flight != Some(link) {
            return; // Stopped, and maybe begun anew, meanwhile.
        }
        read.flight = None;
        let Place::At(next) = read.place else { return };
        const OFFSET_OUT_OF_RANGE: i16 = 1;
        match data.error_code {
            0 => {}
            OFFSET_OUT_OF_RANGE => {
                read.place = Place::Sought {
                    earliest: true,
                    wanted: Some(next.offset),
                };
                return;
            }
            code => {
                cx.saw(Api::Fetch, Code(code));
                return fail(key, read, KafkaError::Broker(Code(code)), cx);
            }
        }
        let ends = Ends::of(&data);
        if !read.started {
            read.started = true;
            let (from, end) = (next, ends.stable);
            let read = key;
            cx.events.push_back(Event::Started { read, from, end });
        }
        let has_records = data.records.as_ref().is_some_and(|r| !r.is_empty());
        if has_records && *budget == 0 {
            return; // Asked again with the next Fetch, and earlier in it.
        }
        let fetched = fetched(key.partition, next, data, ends);
        let (unpacker, cap) = (&mut self.unpacker, cx.settings.decompressed_bytes_max);
        let events = &mut *cx.events;
        let progress = records::walk(fetched, unpacker, cap, budget, |piece, next| {
            events.push_back(ends.event(key, piece, next));
        });
        read.place = Place::At(progress.next);
        if let Some(error) = progress.stuck {
            let (from, to) = (progress.next.offset, progress.next.offset);
            let told = Some(KafkaError::Records(error));
            if read.told != told {
                let (read, error) = (key, error.into());
                cx.events.push_back(Event::Undecodable {
                    read,
                    from,
                    to,
                    error,
                });
            }
            read.told = told;
            read.failures += 1;
            read.not_before = cx.retry_at(read.failures);
        } else if progress.cut_short {
            // Before KIP-74 a batch larger than asked for came cut off, for ever.
            read.bytes_max = read.bytes_max.saturating_mul(2);
            read.bytes_max = read.bytes_max.min(cx.settings.frame_bytes_max / 2);
            read.failures += 1;
            read.not_before = cx.retry_at(read.failures);
        } else {
            read.failures = 0;
            read.told = None;
            read.bytes_max = cx.settings.partition_bytes_max;
        }
    }

    /// A link is gone with what was in flight on it.
    pub(super) fn on_lost(&mut self, link: LinkId, error: &KafkaError, cx: &mut Context<'_>) {
        *cx.stale = true;
        for (key, read) in &mut self.reads {
            if read.flight == Some(link) {
                read.flight = None;
                fail(*key, read, error.clone(), cx);
            }
        }
    }
}

/// A read can't go on for now. What newer metadata mends is told only if it does not, since
/// leaders move all the time.
pub(super) fn fail(key: ReadKey, read: &mut Read, error: KafkaError, cx: &mut Context<'_>) {
    const ROUTINE_FAILURES: u32 = 3;
    read.failures += 1;
    read.not_before = cx.retry_at(read.failures);
    let routine = match &error {
        KafkaError::Broker(code) => code.is_stale(),
        KafkaError::Closed | KafkaError::Timeout => true,
        _ => false,
    };
    let tell = !routine || read.failures > ROUTINE_FAILURES;
    if tell && read.told.as_ref() != Some(&error) {
        read.told = Some(error.clone());
        cx.events.push_back(Event::ReadFailed { read: key, error });
    }
}

/// Where a partition begins and ends, as an answer says it.
#[derive(Clone, Copy, Debug)]
struct Ends {
    log_start: Offset,
    high_watermark: Offset,
    stable: Offset,
}

impl Ends {
    /// -1 stands for what the broker's version does not tell.
    fn of(data: &PartitionData) -> Self {
        let known = |raw: i64| u64::try_from(raw).ok().map(Offset);
        let high_watermark = known(data.high_watermark).unwrap_or_default();
        Self {
            log_start: known(data.log_start_offset).unwrap_or_default(),
            high_watermark,
            stable: known(data.last_stable_offset).unwrap_or(high_watermark),
        }
    }

    fn event(self, read: ReadKey, piece: Piece, next: Next) -> Event {
        match piece {
            Piece::Records(batch) => Event::Batch {
                read,
                batch,
                next,
                log_start: self.log_start,
                high_watermark: self.high_watermark,
                stable_end: self.stable,
            },
            Piece::Undecodable { from, to, error } => {
                let error = error.into();
                Event::Undecodable {
                    read,
                    from,
                    to,
                    error,
                }
            }
        }
    }
}

fn fetched(partition: Partition, from: Next, data: PartitionData, ends: Ends) -> Fetched {
    let aborted = data.aborted_transactions.unwrap_or_default();
    let aborted = aborted.iter().map(|aborted| Aborted {
        producer_id: aborted.producer_id.0,
        first_offset: aborted.first_offset,
    });
    Fetched {
        partition,
        from,
        records: data.records.unwrap_or_default(),
        end: ends.high_watermark,
        aborted: aborted.collect(),
    }
}
