//! Partitions from offsets to batches: the present reads, their positions, and what to ask of which
//! broker. One Fetch a broker and lane is in flight. This Fetch names all partitions that are due.

use std::time::Duration;

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::protocol::StrBytes;

use super::backlog::{Backlog, Dropped, PackedResponse, Unpacked};
use super::bounds::Bounds;
use super::context::{Context, Link};
use super::due::{DueRead, due_read, leave_silent_replica, replica_silent_from};
use super::epochs::Epochs;
use super::event::{Event, Lane, LinkId, ReadKey, StartAt, TopicHandle};
use super::fetch_session::{FetchPlan, FetchSessions, Known, Tells};
use super::link::{Peer, Purpose};
use super::metric_event::MetricEvent;
use super::read::{Read, ReadPlace, Seek, fail};
use super::reads::Reads;
use super::records::{Aborted, Fetched, Piece, WalkProgress};
use super::request_tag::RequestTag;
use super::requests::ResponseWindow;
use super::start_offsets;
use super::view::BrokerId;
use super::wake::Wake;
use super::wire::{Api, ResponseBody};
use super::{Code, KafkaError};
use crate::log::{BatchBuilder, Next};
use crate::model::{Instant, Partition, millis_i32};

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
    /// Whether [`Self::pump`] may find work: something has happened that concerns reads.
    due: bool,
    /// When it has work otherwise.
    wake: Wake,
    /// Whether a read waits for newer metadata.
    stale: bool,
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
            due: true,
            wake: Wake::default(),
            stale: false,
            scratch: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, key: ReadKey, from: StartAt, bytes_max: u32) {
        self.backlog.forget(key);
        self.reads.insert(key, from, bytes_max);
        self.sessions.regroup(Some(key.lane));
        self.due = true;
    }

    pub(super) fn stop(&mut self, key: ReadKey) {
        self.backlog.forget(key);
        self.reads.remove(key);
        self.sessions.regroup(Some(key.lane));
    }

    pub(super) fn pause(&mut self, key: ReadKey, paused: bool) {
        if let Some(read) = self.reads.get_mut(key) {
            read.paused = paused;
            if read.flight.is_some() {
                self.sessions.regroup(Some(key.lane));
            }
            // Also after a pause: records of this read may be all that the broker waited for.
            self.due = true;
        }
    }

    /// Something has happened that reads may wait for: a link can be used, or the end of an epoch
    /// is known.
    pub(super) const fn on_news(&mut self) {
        self.due = true;
    }

    /// Whether [`Self::pump`] may find work before its time.
    pub(super) const fn is_due(&self) -> bool {
        self.due
    }

    pub(super) fn is_asked(&self, key: ReadKey) -> bool {
        let read = self.reads.get(key);
        read.is_some_and(|it| it.flight.is_some() || it.unpacking)
    }

    /// When a broker last confirmed that a read has nothing more.
    pub(super) fn confirmed(&self, key: ReadKey) -> Option<Instant> {
        confirmed(self.reads.get(key)?, &self.sessions)
    }

    /// The view is newer: reads that wait for that are retried at once.
    pub(super) fn on_view(&mut self) {
        for (_, read) in self.reads.iter_mut() {
            read.not_before = Instant::ZERO;
        }
        self.sessions.regroup(None);
        self.due = true;
    }

    /// The topic was re-created: its reads end.
    pub(super) fn drop_topic(&mut self, topic: TopicHandle) {
        self.backlog.forget_topic(topic);
        self.reads.remove_topic(topic);
        self.sessions.regroup(None);
    }

    /// Sends the ListOffsets and Fetch requests that are due. Looks at reads only if something has
    /// happened that concerns them: commands, records that are unpacked and time that passes cost
    /// the same with one read as with thousands.
    pub(super) fn pump(&mut self, epochs: &mut Epochs, cx: &mut Context<'_>) {
        let on_time = self.wake.0.is_some_and(|at| at <= cx.now.mono);
        if self.due || on_time {
            self.due = false;
            let others = (std::mem::take(cx.wake), std::mem::take(cx.stale));
            self.pump_all(epochs, cx);
            (self.wake, self.stale) = (*cx.wake, *cx.stale);
            (*cx.wake, *cx.stale) = others;
        }
        *cx.stale |= self.stale;
        if let Some(at) = self.wake.0 {
            cx.wake.at(at);
        }
    }

    fn pump_all(&mut self, epochs: &mut Epochs, cx: &mut Context<'_>) {
        while let Some(link) = self.sessions.next_to_let_go() {
            self.let_go(link);
        }
        if !cx.settings.rack.is_empty() {
            self.reads.activate_all(); // A replica in the rack may be silent.
        }
        let keys = self.reads.take_active();
        let mut due = std::mem::take(&mut self.scratch);
        due.clear();
        let (mut sought, mut at_replicas) = (false, false);
        for &key in &keys {
            let Some(read) = self.reads.get_mut(key) else {
                continue;
            };
            at_replicas |= read.is_at_replica();
            leave_silent_replica(read, cx);
            sought |= matches!(read.place, ReadPlace::Sought { .. });
            due.extend(due_read(key, read, epochs, cx));
        }
        if sought {
            start_offsets::pump(&mut self.reads, cx);
        }
        // A Fetch names a partition once, so its reads take turns.
        due.sort_unstable_by_key(|due| {
            (due.lane, due.node, due.partition(), due.asked_in, due.key)
        });
        due.dedup_by_key(|due| (due.lane, due.node, due.partition()));
        for group in due.chunk_by(|a, b| (a.lane, a.node) == (b.lane, b.node)) {
            self.fetch(group[0].lane, group[0].node, group, cx);
        }
        // Brokers with kept reads only. Those that were asked above are asked already.
        let kept: Vec<_> = self.sessions.kept().collect();
        for (lane, node) in kept {
            let is_due = |due: &DueRead| (due.lane, due.node) == (lane, node);
            if !due.iter().any(is_due) {
                self.fetch(lane, node, &[], cx);
            }
        }
        self.scratch = due;
        self.reads.keep_active(keys);
        if at_replicas {
            for (_, read) in self.reads.iter() {
                if let Some(from) = replica_silent_from(read, cx) {
                    cx.wake.at(from);
                }
            }
        }
    }

    /// Asks a broker for the reads of `group` in a lane, and for those that the session keeps.
    fn fetch(&mut self, lane: Lane, node: BrokerId, group: &[DueRead], cx: &mut Context<'_>) {
        let from = (lane, Some(Peer::Node(node)));
        if self
            .backlog
            .is_busy(from, |read| is_paused(&self.reads, read))
        {
            return;
        }
        let (wait, window) = wait(lane, group, cx);
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
        let plan = FetchPlan {
            lane,
            node,
            group,
            number: self.fetches,
            link,
            newest,
        };
        let known = Known {
            topics: cx.topics,
            view: cx.view,
        };
        let asked = self.sessions.ask(plan, known, cx.settings.fetch_sessions);
        let Some((version, request)) = asked else {
            self.due = true;
            return cx.wake.at(cx.now.mono);
        };
        self.set_flight(group, link);
        let mut request = request
            .with_max_wait_ms(millis_i32(wait))
            .with_min_bytes(1)
            .with_max_bytes(cx.settings.fetch_bytes_max as i32)
            .with_isolation_level(1);
        // Without a rack the leader serves the request. One read that needs the leader therefore
        // takes the rack from all reads of the request.
        if version >= RACKS_FROM && group.iter().all(|due| due.any_replica) {
            request.rack_id = StrBytes::from_string(cx.settings.rack.clone());
        }
        let link = cx.links.get_mut(link).expect("it was ready just now");
        link.send(RequestTag::Fetch(wait), version, &request, window);
    }

    fn set_flight(&mut self, group: &[DueRead], link: LinkId) {
        for due in group {
            if let Some(read) = self.reads.get_mut(due.key) {
                (read.flight, read.asked_in) = (Some(link), self.fetches);
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
        self.due = true;
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
        let mut forgotten = false;
        for topic in response.responses {
            let Some(handle) = cx.topics.find(&topic.topic, topic.topic_id) else {
                self.sessions.on_lost(link); // The broker does not report it again.
                forgotten = true;
                continue;
            };
            for data in topic.partitions {
                let index = Partition(data.partition_index as u32);
                let partition = (handle, index);
                let told = (data.error_code == 0).then(|| Bounds::of(&data));
                self.sessions.on_told(link, partition, told);
                // The read may have been stopped, and begun again, since it was asked for.
                if let Some(key) = self.reads.waiting(link, lane, handle, index) {
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
            _ if tells == Tells::Over || muted && whole.0 == 0 => self.let_go(link),
            0 => self.on_unnamed(link, tells, cx),
            _ => self.fail_all(link, &KafkaError::Broker(whole), cx),
        }
        if forgotten {
            self.let_go(link);
        }
    }

    /// The reads that are still in flight on a link may be asked for again.
    fn let_go(&mut self, link: LinkId) {
        for (_, read) in self.reads.iter_mut() {
            if read.flight == Some(link) {
                land(read, &self.sessions);
            }
        }
        self.sessions.on_let_go(link);
        self.reads.activate_all();
    }

    /// Partitions that a response does not name: what was reported of them last is still true.
    fn on_unnamed(&mut self, link: LinkId, tells: Tells, cx: &mut Context<'_>) {
        let news = tells == Tells::News;
        // With a rack, each read may have to go to another broker at any time.
        let keeps = news && cx.settings.rack.is_empty();
        let keeps = keeps.then(|| self.sessions.keep(link, cx.now.mono));
        let (unnamed, keeps) = match keeps.flatten() {
            Some(fresh) => (fresh, true),
            None => (self.reads.on_link(link).collect(), false),
        };
        let mut to_tell = Vec::new();
        for key in unnamed {
            let keeps = keeps && self.reads.is_alone(key);
            let Some(read) = self.reads.get_mut(key) else {
                continue;
            };
            if read.flight != Some(link) {
                continue;
            }
            let partition = (key.topic, key.partition);
            let told = news.then(|| self.sessions.told(link, partition)).flatten();
            let whole = read.started && read.failures == 0;
            if !(keeps && whole && told.is_some()) {
                land(read, &self.sessions);
                self.sessions.release(link, partition);
                self.reads.activate(key);
            }
            let Some(read) = self.reads.get_mut(key) else {
                continue;
            };
            match told {
                None => {
                    let error = KafkaError::Protocol("a Fetch answer without the partition");
                    fail(key, read, error, cx);
                }
                Some(told) if !whole => to_tell.push((key, told)),
                Some(_) => read.confirmed = Some(cx.now.mono),
            }
        }
        if !keeps {
            self.sessions.on_let_go(link);
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
        self.sessions.on_let_go(link);
        self.reads.activate_all();
        for (key, read) in self.reads.iter_mut() {
            if read.flight == Some(link) {
                land(read, &self.sessions);
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
        land(read, &self.sessions);
        self.reads.activate(key);
        let Some(read) = self.reads.get_mut(key) else {
            return;
        };
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
            Unpacked::Done(from, key, progress) => {
                if let Some(read) = self.reads.get_mut(key) {
                    read.unpacking = false;
                    on_unpacked(key, read, progress, cx);
                }
                // The broker is asked again after the last of its records.
                let reads = &self.reads;
                self.due |= !self.backlog.is_busy(from, |read| is_paused(reads, read));
            }
            Unpacked::Dropped(dropped) => self.on_dropped(&dropped),
        }
        true
    }

    /// Records have to be fetched again, and earlier in the next response: within a session the
    /// broker has an order of its own, in which the same ones would always come first.
    fn on_dropped(&mut self, dropped: &Dropped) {
        self.due = true;
        self.sessions.on_lost(dropped.link);
        self.let_go(dropped.link);
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
        self.due = true;
        self.reads.activate_all();
        start_offsets::on_answer(&mut self.reads, link, asked, response, cx);
    }

    /// The question for the offset at which some reads begin is lost with its link.
    pub(super) fn on_start_offsets_lost(
        &mut self,
        asked: &[(ReadKey, u32)],
        error: &KafkaError,
        cx: &mut Context<'_>,
    ) {
        self.due = true;
        self.reads.activate_all();
        start_offsets::on_lost(&mut self.reads, asked, error, cx);
    }

    /// A link has ended with the Fetch in flight on it.
    pub(super) fn on_lost(&mut self, link: LinkId, error: &KafkaError, cx: &mut Context<'_>) {
        (*cx.stale, self.due) = (true, true);
        self.sessions.on_lost(link);
        self.fail_all(link, error, cx);
    }
}

/// The read is not in flight any more. It remembers what its session knew of it.
fn land(read: &mut Read, sessions: &FetchSessions) {
    read.confirmed = confirmed(read, sessions);
    read.flight = None;
}

/// When a broker last confirmed that a read has nothing more.
fn confirmed(read: &Read, sessions: &FetchSessions) -> Option<Instant> {
    let kept = |link| sessions.confirmed(link, read.asked_in);
    read.confirmed.max(read.flight.and_then(kept))
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

/// How long the broker may wait for records. Not at all while a read has not started, because the
/// first response shows where the log ends.
fn wait(lane: Lane, group: &[DueRead], cx: &Context<'_>) -> (Duration, ResponseWindow) {
    let all_started = group.iter().all(|due| due.started);
    let wait = match (all_started, lane) {
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
