//! Partitions from offsets to batches: the present reads, their positions, and what to ask of which
//! broker. One Fetch a broker and lane is in flight. This Fetch names all partitions that are due.

use std::time::Duration;

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::protocol::StrBytes;

use super::backlog::{Backlog, Dropped, PackedResponse, Unpacked};
use super::bounds::Bounds;
use super::context::{Context, Link};
use super::epochs::Epochs;
use super::event::{Event, Lane, LinkId, ReadKey, StartAt, TopicHandle};
use super::fetch_session::{FetchSessions, Known, Tells};
use super::link::{Peer, Purpose};
use super::metric_event::MetricEvent;
use super::read::{DueRead, Read, ReadPlace, Seek, fail};
use super::reads::Reads;
use super::records::{Aborted, Fetched, Piece, WalkProgress};
use super::request_tag::RequestTag;
use super::requests::ResponseWindow;
use super::silence::Silent;
use super::start_offsets;
use super::view::BrokerId;
use super::wire::{Api, ResponseBody};
use super::{Code, KafkaError};
use crate::log::{BatchBuilder, Next};
use crate::model::{Instant, Partition};

/// From this version of Fetch on the reader's rack is named.
const RACKS_FROM: i16 = 11;

#[derive(Debug)]
pub(super) struct Reader {
    reads: Reads,
    /// The number of the last Fetch. This number decides with which partition a Fetch begins, since
    /// the first ones fill a response where there is much to read.
    fetches: u64,
    backlog: Backlog,
    sessions: FetchSessions,
    /// Room for what is due, kept.
    scratch: Vec<DueRead>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            reads: Reads::default(),
            fetches: 0,
            backlog: Backlog::default(),
            sessions: FetchSessions::default(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, key: ReadKey, from: StartAt, bytes_max: u32) {
        self.backlog.forget(key);
        self.reads.insert(key, from, bytes_max);
    }

    pub(super) fn stop(&mut self, key: ReadKey) {
        self.backlog.forget(key);
        self.reads.remove(key);
    }

    pub(super) fn pause(&mut self, key: ReadKey, paused: bool) {
        if let Some(read) = self.reads.get_mut(key) {
            read.paused = paused;
        }
    }

    pub(super) fn is_asked(&self, key: ReadKey) -> bool {
        let read = self.reads.get(key);
        read.is_some_and(|it| it.flight.is_some() || it.unpacking)
    }

    /// The view is newer: reads that wait for that are retried at once.
    pub(super) fn on_view(&mut self) {
        for (_, read) in self.reads.iter_mut() {
            read.not_before = Instant::ZERO;
        }
    }

    /// The topic was re-created: its reads end.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle) {
        self.backlog.forget_topic(topic);
        self.reads.remove_topic(topic);
    }

    /// Sends the ListOffsets and Fetch requests that are due.
    pub(super) fn pump(&mut self, epochs: &mut Epochs, cx: &mut Context<'_>) {
        start_offsets::pump(&mut self.reads, cx);
        self.leave_silent_replicas(cx);
        let mut due = std::mem::take(&mut self.scratch);
        due.clear();
        for (key, read) in self.reads.iter_mut() {
            let ReadPlace::At(next) = read.place else {
                continue;
            };
            if read.flight.is_some() || read.unpacking || read.paused {
                continue;
            }
            if read.not_before > cx.now.mono {
                cx.wake.at(read.not_before);
            } else if let Some((leader, leader_epoch)) = cx.leader(key.topic, key.partition)
                && (read.checked == leader_epoch
                    || epochs.may_continue((key, read), next, leader_epoch, cx))
            {
                // A log that was cut back has moved it.
                let ReadPlace::At(next) = read.place else {
                    continue;
                };
                due.push(DueRead {
                    lane: key.lane,
                    node: read.replica(key.lane, cx).unwrap_or(leader),
                    key,
                    leader_epoch,
                    next,
                    bytes_max: read.bytes_max,
                    started: read.started,
                    any_replica: read.leader_until <= cx.now.mono,
                    asked_in: read.asked_in,
                });
            }
        }
        // A Fetch names a partition once, so its reads take turns.
        due.sort_unstable_by_key(|due| {
            (due.lane, due.node, due.partition(), due.asked_in, due.key)
        });
        due.dedup_by_key(|due| (due.lane, due.node, due.partition()));
        for group in due.chunk_by(|a, b| (a.lane, a.node) == (b.lane, b.node)) {
            self.fetch(group, cx);
        }
        self.scratch = due;
        for (_, read) in self.reads.iter() {
            if let Some(from) = replica_silent_from(read, cx) {
                cx.wake.at(from);
            }
        }
    }

    /// If a response of the broker in the client's rack is overdue, reads from the leader instead,
    /// which has every record that the replica has. A late response is ignored.
    fn leave_silent_replicas(&mut self, cx: &Context<'_>) {
        for (_, read) in self.reads.iter_mut() {
            if replica_silent_from(read, cx).is_some_and(|from| from <= cx.now.mono) {
                read.flight = None;
                read.leave_replica(cx);
            }
        }
    }

    fn fetch(&mut self, group: &[DueRead], cx: &mut Context<'_>) {
        let DueRead { lane, node, .. } = group[0];
        let from = (lane, Peer::Node(node));
        if self
            .backlog
            .is_busy(from, |read| is_paused(&self.reads, read))
        {
            return;
        }
        let (wait, window) = wait(group, cx);
        let idle = cx.link(node, Purpose::Fetch(lane));
        // Reads that become due while a Fetch is in flight go with the next one.
        let Some(link) = idle.filter(|link| link.in_flight() == 0) else {
            return;
        };
        let (link, newest) = (link.id(), link.version(Api::Fetch));
        let newest = match newest {
            Ok(newest) => newest,
            Err(error) => {
                self.set_flight(group, link);
                cx.give_up(link, error.clone());
                return self.on_lost(link, &error, cx);
            }
        };
        self.fetches += 1;
        self.set_flight(group, link);
        let first = (self.fetches % group.len() as u64) as usize;
        let sessions = cx.settings.fetch_sessions;
        let known = Known {
            topics: cx.topics,
            view: cx.view,
        };
        let (version, request) = self
            .sessions
            .ask(group, first, link, newest, known, sessions);
        let mut request = request
            .with_max_wait_ms(wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(cx.settings.fetch_bytes_max as i32)
            .with_isolation_level(1);
        // Without a rack the leader serves the request. One read that needs the leader therefore
        // takes the rack from all reads of the request.
        if version >= RACKS_FROM && group.iter().all(|due| due.any_replica) {
            request.rack_id = StrBytes::from_string(cx.settings.rack.clone());
        }
        let link = cx.links.get_mut(link).expect("it was ready just now");
        link.send(RequestTag::Fetch(wait), (version, &request), window);
    }

    fn set_flight(&mut self, group: &[DueRead], link: LinkId) {
        let mut group = group.iter().peekable();
        let first = group.peek().expect("a group has one").key;
        for (key, read) in self.reads.iter_mut_from(first) {
            if group.next_if(|due| due.key == key).is_some() {
                (read.flight, read.asked_in) = (Some(link), self.fetches);
            } else if group.peek().is_none() {
                return;
            }
        }
    }

    /// The response to a Fetch.
    pub(super) fn on_fetched(
        &mut self,
        link: LinkId,
        lane: Lane,
        took: Duration,
        wait: Duration,
        body: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        let response = match body.decode::<FetchRequest>() {
            Ok(response) => response,
            Err(error) => {
                cx.give_up(link, error.clone());
                return self.on_lost(link, &error, cx);
            }
        };
        cx.links.throttle(link, response.throttle_time_ms, cx.now);
        // If the client exceeds its quota, Kafka responds without any partition (KIP-219), even
        // without those that have changed.
        let muted = response.throttle_time_ms > 0 && response.responses.is_empty();
        let whole = Code(response.error_code);
        let tells = self.sessions.on_answer(link, response.session_id, whole);
        if whole.0 == 0
            && !muted
            && let Some(broker) = cx.answering_broker()
        {
            let mut partitions = response.responses.iter().flat_map(|it| &it.partitions);
            let records = partitions.any(has_records);
            cx.links.metric_events.push(MetricEvent::Fetched {
                broker,
                took,
                wait,
                records,
            });
        }
        let peer = cx.links.get(link).map(Link::peer);
        let budget = u64::from(cx.settings.decompressed_bytes_max);
        let mut records = PackedResponse::new(link, (lane, peer), budget);
        for topic in response.responses {
            let Some(handle) = cx.topics.find(&topic.topic, topic.topic_id) else {
                self.sessions.on_lost(link); // The broker does not report it again.
                continue;
            };
            for data in topic.partitions {
                let partition = (handle, Partition(data.partition_index as u32));
                let told = (data.error_code == 0).then(|| Bounds::of(&data));
                self.sessions.on_told(link, partition, told);
                // The read may have been stopped, and begun again, since it was asked for.
                if let Some(key) = self.reads.waiting(link, lane, partition) {
                    self.on_partition(key, data, &mut records, cx);
                }
            }
        }
        if !records.is_empty()
            && let Some(dropped) = self.backlog.push(records)
        {
            self.on_dropped(&dropped);
        }
        if tells != Tells::Over {
            cx.saw(Api::Fetch, whole);
        }
        match whole.0 {
            _ if tells == Tells::Over || muted && whole.0 == 0 => self.land(link),
            0 => self.on_unnamed(link, tells, cx),
            _ => self.fail_all(link, &KafkaError::Broker(whole), cx),
        }
    }

    /// The reads that are still in flight on a link may be asked for again.
    fn land(&mut self, link: LinkId) {
        for (_, read) in self.reads.iter_mut() {
            read.flight = read.flight.filter(|flight| *flight != link);
        }
    }

    /// Partitions that a response does not name: what was reported of them last is still true.
    fn on_unnamed(&mut self, link: LinkId, tells: Tells, cx: &mut Context<'_>) {
        let mut to_tell = Vec::new();
        for (key, read) in self.reads.iter_mut() {
            if read.flight != Some(link) {
                continue;
            }
            let told = match tells {
                Tells::News => self.sessions.told(link, (key.topic, key.partition)),
                _ => None,
            };
            match told {
                None => {
                    read.flight = None;
                    let error = KafkaError::Protocol("a Fetch answer without the partition");
                    fail(key, read, error, cx);
                }
                Some(told) if !read.started || read.failures > 0 => to_tell.push((key, told)),
                Some(_) => {
                    read.flight = None;
                    cx.events.push_back(Event::Unchanged { read: key });
                }
            }
        }
        // Reads that restarted or last failed emit an event even if no record arrived.
        for (key, told) in to_tell {
            let mut none = PackedResponse::new(link, (key.lane, None), 0);
            let told = told.without_records(key.partition);
            self.on_partition(key, told, &mut none, cx);
            debug_assert!(none.is_empty(), "there are no records");
        }
    }

    fn fail_all(&mut self, link: LinkId, error: &KafkaError, cx: &mut Context<'_>) {
        for (key, read) in self.reads.iter_mut() {
            if read.flight == Some(link) {
                read.flight = None;
                fail(key, read, error.clone(), cx);
            }
        }
    }

    fn on_partition(
        &mut self,
        key: ReadKey,
        data: PartitionData,
        records: &mut PackedResponse,
        cx: &mut Context<'_>,
    ) {
        let Some(read) = self.reads.get_mut(key) else {
            return;
        };
        read.flight = None;
        let ReadPlace::At(next) = read.place else {
            return;
        };
        const OFFSET_OUT_OF_RANGE: i16 = 1;
        match data.error_code {
            0 => {}
            // Only the leader knows where the log ends, so it is asked next.
            OFFSET_OUT_OF_RANGE if read.leave_replica(cx) => return,
            OFFSET_OUT_OF_RANGE => {
                read.place = ReadPlace::Sought {
                    seek: Seek::Earliest,
                    wanted: Some(next.offset),
                };
                return;
            }
            code => {
                let partition = Some((key.topic, key.partition));
                cx.saw_of(Api::Fetch, partition, Code(code));
                return fail(key, read, KafkaError::Broker(Code(code)), cx);
            }
        }
        let told = Bounds::of(&data);
        let bounds = read.bounds(told);
        if !read.started {
            read.started = true;
            let (from, end) = (next, bounds.stable);
            let read = key;
            cx.events.push_back(Event::Started { read, from, end });
        }
        if data.preferred_read_replica.0 >= 0 {
            // The response comes without records and with the leader's bounds, which are reported.
            read.go_to(BrokerId(data.preferred_read_replica.0), cx);
        }
        let with_records = has_records(&data);
        let fetched = fetched(key.partition, next, data, told);
        let limits = cx.settings.piece_limits();
        if with_records {
            read.unpacking = true;
            records.push(key, bounds, fetched, limits);
        } else {
            // A batch without records still confirms the end of the log.
            let none = Piece::Records(BatchBuilder::new(key.partition).finish());
            cx.events.push_back(bounds.event(key, none, next));
            read.on_whole(cx);
        }
    }

    /// Whether [`Self::unpack`] has records of reads that are not paused.
    pub(super) fn has_records(&self) -> bool {
        self.backlog.has_work(|read| is_paused(&self.reads, read))
    }

    /// Unpacks a bounded step of the records that wait. Returns false if there are none, or all are
    /// of paused reads.
    #[must_use]
    pub(super) fn unpack(&mut self, cx: &mut Context<'_>) -> bool {
        let reads = &self.reads;
        let Some(unpacked) = self.backlog.advance(|read| is_paused(reads, read)) else {
            return false;
        };
        match unpacked {
            Unpacked::Working => {}
            Unpacked::Piece(key, bounds, piece, next) => {
                if let Some(read) = self.reads.get_mut(key) {
                    read.place = ReadPlace::At(next);
                }
                cx.events.push_back(bounds.event(key, piece, next));
            }
            Unpacked::Done(key, progress) => {
                if let Some(read) = self.reads.get_mut(key) {
                    read.unpacking = false;
                    on_unpacked(key, read, progress, cx);
                }
            }
            Unpacked::Dropped(dropped) => self.on_dropped(&dropped),
        }
        true
    }

    /// Records have to be fetched again, and earlier in the next response: within a session the
    /// broker has an order of its own, in which the same ones would always come first.
    fn on_dropped(&mut self, dropped: &Dropped) {
        self.sessions.on_lost(dropped.link);
        for key in &dropped.reads {
            if let Some(read) = self.reads.get_mut(*key) {
                read.unpacking = false;
            }
        }
    }

    /// The response that gives the offset at which some reads begin.
    pub(super) fn on_start_offsets(
        &mut self,
        link: LinkId,
        asked: &[(ReadKey, u32)],
        response: ResponseBody,
        cx: &mut Context<'_>,
    ) {
        start_offsets::on_answer(&mut self.reads, link, asked, response, cx);
    }

    /// The question for the offset at which some reads begin is lost with its link.
    pub(super) fn on_start_offsets_lost(
        &mut self,
        asked: &[(ReadKey, u32)],
        error: &KafkaError,
        cx: &mut Context<'_>,
    ) {
        start_offsets::on_lost(&mut self.reads, asked, error, cx);
    }

    /// A link has ended with the Fetch in flight on it.
    pub(super) fn on_lost(&mut self, link: LinkId, error: &KafkaError, cx: &mut Context<'_>) {
        *cx.stale = true;
        self.sessions.on_lost(link);
        self.fail_all(link, error, cx);
    }
}

/// All that a response brought of a partition is unpacked.
fn on_unpacked(key: ReadKey, read: &mut Read, progress: WalkProgress, cx: &mut Context<'_>) {
    read.place = ReadPlace::At(progress.next);
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
        // Before KIP-74 brokers cut off a batch that is larger than asked for, every time.
        read.bytes_max = read.bytes_max.saturating_mul(2);
        read.bytes_max = read.bytes_max.min(cx.settings.frame_bytes_max / 2);
        read.failures += 1;
        read.not_before = cx.retry_at(read.failures);
    } else {
        read.on_whole(cx);
    }
}

fn is_paused(reads: &Reads, key: ReadKey) -> bool {
    reads.get(key).is_some_and(|read| read.paused)
}

/// When the response of the replica that a read waits for will be overdue.
fn replica_silent_from(read: &Read, cx: &Context<'_>) -> Option<Instant> {
    let link = read.flight.filter(|_| read.is_at_replica())?;
    cx.silence().link_from(link, Silent::Unavailable)
}

/// How long the broker may wait for records. Not at all while a read has not started, because the
/// first response shows where the log ends.
fn wait(group: &[DueRead], cx: &Context<'_>) -> (Duration, ResponseWindow) {
    let all_started = group.iter().all(|due| due.started);
    let wait = match (all_started, group[0].lane) {
        (false, _) => Duration::ZERO,
        (true, Lane::History | Lane::Again) => cx.settings.history_wait_max,
        (true, _) => cx.settings.fetch_wait_max,
    };
    (wait, cx.window(wait))
}

fn has_records(data: &PartitionData) -> bool {
    data.records.as_ref().is_some_and(|it| !it.is_empty())
}

fn fetched(partition: Partition, from: Next, data: PartitionData, bounds: Bounds) -> Fetched {
    let aborted = data.aborted_transactions.unwrap_or_default();
    let aborted = aborted.iter().map(|aborted| Aborted {
        producer_id: aborted.producer_id.0,
        first_offset: aborted.first_offset,
    });
    Fetched {
        partition,
        from,
        records: data.records.unwrap_or_default(),
        end: bounds.high_watermark,
        aborted: aborted.collect(),
    }
}
