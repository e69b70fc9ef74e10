//! The client of one cluster: the interface of this room.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::KafkaError;
use super::context::{Context, Link, Links};
use super::directory::Directory;
use super::ends::Ends;
use super::epochs::{EpochEnd, Epochs};
use super::error::ProduceRefused;
use super::event::{Event, Isolation, LinkId, ReadKey, StartAt, TopicHandle};
use super::link::Purpose;
use super::links::LinkContext;
use super::metric_event::MetricEvent;
use super::produce_record::ProduceRecord;
use super::reader::Reader;
use super::request_tag::RequestTag;
use super::requests::Response;
use super::scram::{SaltRequest, Salted};
use super::settings::{Address, Settings};
use super::topics::Topics;
use super::view::ClusterView;
use super::wake::Wake;
use super::wire::ResponseBody;
use super::writer::Writer;
use crate::model::{FastRandom, Instant, LeaderEpoch, Now, Partition, Secret, TopicName};

/// Whether a client asks the cluster for its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryRole {
    /// This client asks, for all clients of the process. So it must `watch` every topic that any of
    /// them uses, and its `Event::View` must reach their `on_view`.
    Own,
    /// Another client: views come by `on_view`.
    Fed,
}

/// The Kafka client of one shard for one cluster. The module docs give the order of calls.
#[derive(Debug)]
pub struct Client {
    shared: Shared,
    directory: Option<Directory>,
    reader: Reader,
    writer: Writer,
    ends: Ends,
    epochs: Epochs,
    /// Whether something has happened since the last `on_time`. What concerns reads is known to the
    /// reader.
    dirty: bool,
    deadline: Option<Instant>,
    /// A fed client says no more often that its view is stale.
    next_refresh_wanted: Instant,
    responses: Vec<Response<RequestTag>>,
}

/// What the parts of the client share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    topics: Topics,
    view: Arc<ClusterView>,
    links: Links,
    jitter: FastRandom,
    events: VecDeque<Event>,
    stale: bool,
    wake: Wake,
}

impl Shared {
    fn context(&mut self, now: Now) -> Context<'_> {
        Context {
            now,
            settings: &self.settings,
            topics: &self.topics,
            view: &self.view,
            links: &mut self.links,
            jitter: &mut self.jitter,
            events: &mut self.events,
            stale: &mut self.stale,
            wake: &mut self.wake,
            answering: None,
        }
    }

    fn links(&mut self, now: Now) -> (&mut Links, LinkContext<'_>) {
        let cx = LinkContext {
            now,
            events: &mut self.events,
            jitter: &mut self.jitter,
        };
        (&mut self.links, cx)
    }
}

/// A fed client asks for newer metadata at most this often.
const REFRESH_WANTED_EVERY: Duration = Duration::from_millis(100);

impl Client {
    /// A client that has not connected yet. Its jitter comes from `seed` alone.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, role: DirectoryRole, now: Now) -> Self {
        let shared = Shared {
            links: Links::new(&settings),
            settings,
            topics: Topics::default(),
            view: Arc::default(),
            jitter: FastRandom::new(seed),
            events: VecDeque::new(),
            stale: false,
            wake: Wake::default(),
        };
        Self {
            shared,
            directory: (role == DirectoryRole::Own).then(Directory::new),
            reader: Reader::new(),
            writer: Writer::default(),
            ends: Ends::default(),
            epochs: Epochs::default(),
            dirty: true,
            deadline: Some(now.mono),
            next_refresh_wanted: Instant::ZERO,
            responses: Vec::new(),
        }
    }

    /// Watches a topic: `Event::Topic` and `Event::Missing` report its state. The same name returns
    /// the same handle.
    pub fn watch(&mut self, topic: &TopicName) -> TopicHandle {
        self.on_news();
        let (handle, new) = self.shared.topics.watch(topic);
        if new {
            if let Some(directory) = &mut self.directory {
                directory.watch(topic);
            }
            // The topic may be in the present view already.
            let view = Arc::clone(&self.shared.view);
            let replaced = self.shared.topics.on_view(&view, &mut self.shared.events);
            debug_assert!(replaced.is_empty(), "the view is the same");
        }
        handle
    }

    /// Begins to read a partition, until `stop`. The partition need not exist yet. A read of the
    /// same key is replaced.
    pub fn read(&mut self, read: ReadKey, from: StartAt) {
        self.dirty = true;
        self.forget_events(read);
        let bytes_max = self.shared.settings.partition_bytes_max;
        self.reader.read(read, from, bytes_max);
    }

    /// Ends a read: it emits no further event.
    pub fn stop(&mut self, read: ReadKey) {
        self.forget_events(read);
        self.reader.stop(read);
    }

    /// Drops the events of a read that has ended or starts elsewhere.
    fn forget_events(&mut self, ended: ReadKey) {
        self.shared.events.retain(|event| match event {
            Event::Started { read, .. }
            | Event::Batch { read, .. }
            | Event::Undecodable { read, .. }
            | Event::OutOfRange { read, .. }
            | Event::Truncated { read, .. }
            | Event::ReadFailed { read, .. } => *read != ended,
            _ => true,
        });
    }

    /// Leaves a read out of further Fetches. A response in flight still emits events.
    pub fn pause(&mut self, read: ReadKey) {
        self.reader.pause(read, true);
    }

    /// Continues a read that [`Self::pause`] has paused.
    pub fn resume(&mut self, read: ReadKey) {
        self.dirty = true;
        self.reader.pause(read, false);
    }

    /// Whether a request or records of this read are outstanding. A read stopped now would lose a
    /// response. No request is outstanding if the partition has no leader, its leader can't be
    /// reached, or a try has failed and the next is not due.
    #[must_use]
    pub fn is_asked(&self, read: ReadKey) -> bool {
        self.reader.is_asked(read)
    }

    /// When a broker last confirmed that nothing has changed since the read's last event. `None`:
    /// no broker has. Idle partitions emit no events, so that a thousand of them cost a response
    /// nothing.
    #[must_use]
    pub fn confirmed(&self, read: ReadKey) -> Option<Instant> {
        self.reader.confirmed(read)
    }

    /// Takes a record to append. `Event::Produced` reports its outcome. `on_time` sends it.
    ///
    /// # Errors
    /// The record was not taken, and no event follows.
    pub fn produce(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
        record: ProduceRecord,
        ticket: u64,
        now: Now,
    ) -> Result<(), ProduceRefused> {
        self.dirty = true;
        let cx = self.shared.context(now);
        self.writer.produce((topic, partition), record, ticket, &cx)
    }

    /// Withdraws a record that was not sent yet. The record will never be appended, and no
    /// `Event::Produced` is emitted for it. Returns false if the record was sent or is answered.
    pub fn withdraw(&mut self, topic: TopicHandle, partition: Partition, ticket: u64) -> bool {
        self.writer.withdraw((topic, partition), ticket)
    }

    /// Takes back every record that no broker can have, and returns their tickets. These records
    /// will never be appended, and no `Event::Produced` is emitted for them.
    pub fn withdraw_unsent(&mut self) -> Vec<u64> {
        self.writer.withdraw_unsent()
    }

    /// Asks the leaders for the ends of all partitions, by requests that are sent after this call.
    /// `Event::Ends` or `Event::EndsFailed` follows within `ends_timeout`. It fails earlier if a
    /// leader is unavailable. Callers that wait for the same ends should share one call, since
    /// 1,024 may be open. All calls of one turn share one request per leader.
    pub fn ends(&mut self, topic: TopicHandle, isolation: Isolation, ticket: u64, now: Now) {
        self.dirty = true;
        let mut cx = self.shared.context(now);
        self.ends.ask(topic, isolation, ticket, &mut cx);
    }

    /// Where records of an epoch end in a partition's log. An unclean election has cut off any
    /// position (offset, and the epoch of the record before it) above that.
    pub fn epoch_end(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
        epoch: LeaderEpoch,
        now: Now,
    ) -> EpochEnd {
        self.dirty = true;
        let mut cx = self.shared.context(now);
        self.epochs.of_client((topic, partition, epoch), &mut cx)
    }

    /// A newer view, from the client that owns the directory.
    pub fn on_view(&mut self, view: Arc<ClusterView>, now: Now) {
        if self.directory.is_none() {
            self.apply(view, now);
        }
    }

    /// Asks for metadata soon, because a fed client has met a stale view. Only for the client that
    /// owns the directory. The rate is limited.
    pub fn refresh(&mut self) {
        self.dirty = true;
        if let Some(directory) = &mut self.directory {
            directory.hurry();
        }
    }

    /// Brokers with a response, or connection, that is overdue for longer than a healthy broker
    /// takes, and since when.
    pub fn silent_brokers(&self, now: Now) -> impl Iterator<Item = (&Address, Instant)> {
        self.shared.links.silence(now).stalled()
    }

    /// Whether any broker of the cluster can receive a request.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.links.any_is_ready()
    }

    /// Partitions of a topic that have no leader now, according to metadata.
    pub fn leaderless(&self, topic: TopicHandle) -> impl Iterator<Item = Partition> {
        let view = self.shared.topics.view(topic);
        let partitions = view.map_or(0, |view| view.partitions);
        let topics = &self.shared.topics;
        let all = (0..partitions).map(Partition);
        all.filter(move |partition| topics.leader(topic, *partition).is_none())
    }

    /// The next connection to make. `on_opened` or `on_open_failed` must follow.
    pub fn next_open(&mut self) -> Option<(LinkId, Address)> {
        self.shared.links.next_open()
    }

    /// The next connection to close, or to stop making. Its id is void now.
    pub fn next_close(&mut self) -> Option<LinkId> {
        self.shared.links.next_close()
    }

    /// The driver has established the connection, TLS included.
    pub fn on_opened(&mut self, link: LinkId, now: Now) {
        self.on_news();
        self.shared.links.on_opened(link, now);
    }

    /// The connection could not be made. The driver has nothing to close.
    pub fn on_open_failed(&mut self, link: LinkId, error: ErrorKind, now: Now) {
        self.fail(link, KafkaError::Connect(error), now);
    }

    /// The connection failed or broke for a reason that the driver knows, such as a TLS error. The
    /// driver closes it.
    pub fn on_failed(&mut self, link: LinkId, error: KafkaError, now: Now) {
        self.fail(link, error, now);
    }

    /// The host of a connection. `None` if it was given up.
    #[must_use]
    pub fn host(&self, link: LinkId) -> Option<&str> {
        let link = self.shared.links.get(link)?;
        Some(&link.address().host)
    }

    /// Sets the token of new connections, for `Sasl::OauthBearer`. Without a token no connection is
    /// made.
    pub fn set_token(&mut self, token: Option<Secret>) {
        self.on_news();
        self.shared.links.auth.set_token(token);
    }

    /// The next password that another thread must salt for SCRAM. Each is returned once and is
    /// answered by `on_salted`. Connections that wait for it fail after `request_timeout`.
    pub fn next_salt(&mut self) -> Option<SaltRequest> {
        self.shared.links.auth.next_salt()
    }

    /// Takes the result of a [`SaltRequest`], for all connections that wait for it.
    pub fn on_salted(&mut self, salted: Salted, now: Now) {
        self.on_news();
        let (links, mut cx) = self.shared.links(now);
        links.on_salted(salted, &mut cx);
    }

    /// Takes bytes of a broker. The client copies them, so the driver may reuse its buffer.
    pub fn on_bytes(&mut self, link: LinkId, bytes: &[u8], now: Now) {
        let Some(purpose) = self.shared.links.get(link).map(Link::purpose) else {
            return;
        };
        let mut responses = std::mem::take(&mut self.responses);
        let (links, mut cx) = self.shared.links(now);
        let before = links.get(link).map(Link::state);
        links.on_bytes(link, bytes, &mut responses, &mut cx);
        let after = links.get(link).map(Link::state);
        self.dirty |= !responses.is_empty();
        if before != after {
            self.on_news();
        }
        for response in responses.drain(..) {
            self.on_response(link, purpose, response, now);
        }
        self.responses = responses;
        self.settle(now);
    }

    /// The broker closed the connection, or it failed. The driver closes the socket by itself.
    pub fn on_closed(&mut self, link: LinkId, now: Now) {
        self.fail(link, KafkaError::Closed, now);
    }

    /// The next connection with bytes to write. The link is returned once for the bytes queued so
    /// far. The driver writes what the socket takes. If `outgoing` is not empty then, the driver
    /// remembers the link until its socket is writable again.
    pub fn next_writable(&mut self) -> Option<LinkId> {
        self.shared.links.next_writable()
    }

    /// The bytes to write to a link. Empty if there are none, or if the link was given up.
    #[must_use]
    pub fn outgoing(&self, link: LinkId) -> &[u8] {
        self.shared.links.get(link).map_or(&[], Link::outgoing)
    }

    /// The socket took so many bytes of `outgoing`.
    pub fn on_written(&mut self, link: LinkId, bytes: usize) {
        if let Some(link) = self.shared.links.get_mut(link) {
            link.on_written(bytes);
        }
    }

    /// Does all that is due: timeouts, retries, new requests. Call it once a turn, after reporting
    /// what happened, so that records produced in one turn share a batch.
    pub fn on_time(&mut self, now: Now) {
        if !self.dirty && self.deadline.is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        self.dirty = false;
        let (links, mut cx) = self.shared.links(now);
        links.on_time(&mut cx);
        self.settle(now);
        if self.shared.links.take_ended() {
            self.reader.on_news();
        }
        self.shared.wake = Wake::default();
        let mut cx = self.shared.context(now);
        self.ends.pump(&mut cx);
        self.writer.pump(&mut cx);
        self.reader.pump(&mut self.epochs, &mut cx);
        self.epochs.pump(&mut cx);
        if std::mem::take(cx.stale) {
            match &mut self.directory {
                Some(directory) => directory.hurry(),
                None if self.next_refresh_wanted <= now.mono => {
                    self.next_refresh_wanted = now.mono.after(REFRESH_WANTED_EVERY);
                    cx.events.push_back(Event::RefreshWanted);
                    cx.wake.at(self.next_refresh_wanted);
                }
                None => cx.wake.at(self.next_refresh_wanted),
            }
        }
        if let Some(directory) = &mut self.directory {
            directory.pump(&mut cx);
        }
        cx.links.wake(cx.wake);
        if self.settle(now) || self.shared.links.has_ended() {
            self.shared.wake.at(now.mono); // A request was lost at once: call again.
        }
        self.deadline = self.shared.wake.0;
        if self.deadline.is_some_and(|at| at <= now.mono) {
            self.reader.on_news(); // A read may wait for it.
        }
    }

    /// When `on_time` next has work, if nothing happens before. Valid right after `on_time`.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether something was reported since `on_time`, or events wait: call it again before the
    /// turn ends, or in the next turn at once.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.dirty || !self.shared.events.is_empty() || self.reader.has_records()
    }

    /// Unpacks a bounded step of the records that brokers sent. [`Self::next_event`] returns the
    /// resulting events. Returns false if nothing is left, except records of paused reads.
    #[must_use = "while it returns true, more records wait"]
    pub fn unpack(&mut self, now: Now) -> bool {
        let mut cx = self.shared.context(now);
        let more = self.reader.unpack(&mut cx);
        self.dirty |= self.reader.is_due();
        more
    }

    /// The next event, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// The next event for metrics.
    pub fn next_metric_event(&mut self) -> Option<MetricEvent> {
        self.shared.links.metric_events.next()
    }

    /// Something has happened that any part may wait for.
    const fn on_news(&mut self) {
        self.dirty = true;
        self.reader.on_news();
    }

    fn fail(&mut self, link: LinkId, error: KafkaError, now: Now) {
        self.on_news();
        let (links, mut cx) = self.shared.links(now);
        links.on_closed(link, error, &mut cx);
        self.settle(now);
    }

    fn on_response(
        &mut self,
        link: LinkId,
        purpose: Purpose,
        response: Response<RequestTag>,
        now: Now,
    ) {
        let mut cx = self.shared.context(now);
        let cx = &mut cx;
        cx.answering = Some(link);
        let body = ResponseBody {
            version: response.version,
            bytes: response.body,
        };
        let mut view = None;
        match response.tag {
            RequestTag::Metadata => {
                let directory = self.directory.as_mut();
                view = directory.and_then(|it| it.on_metadata(link, body, cx));
            }
            RequestTag::Configs => {
                let directory = self.directory.as_mut();
                view = directory.and_then(|it| it.on_configs(link, body, cx));
            }
            RequestTag::ProducerId => self.writer.producer.on_answer(link, body, cx),
            RequestTag::Produce(asked) => self.writer.on_answer(link, &asked, body, cx),
            RequestTag::Fetch(wait) => {
                if let Purpose::Fetch(lane) = purpose {
                    let took = response.took;
                    self.reader.on_fetched(link, lane, took, wait, body, cx);
                }
            }
            RequestTag::StartOffsets(asked) => {
                self.reader.on_start_offsets(link, &asked, body, cx);
            }
            RequestTag::Ends(asked) => self.ends.on_answer(link, &asked, body, cx),
            RequestTag::Epochs(number, asked) => {
                self.reader.on_news();
                self.epochs.on_answer(link, number, &asked, body, cx);
            }
        }
        if let Some(view) = view.map(Arc::new) {
            self.shared.events.push_back(Event::View(Arc::clone(&view)));
            self.apply(view, now);
        }
    }

    fn apply(&mut self, view: Arc<ClusterView>, now: Now) {
        self.on_news();
        let (links, mut cx) = self.shared.links(now);
        links.set_cluster(view.cluster_id.as_ref());
        links.on_view(&view, &mut cx);
        let replaced = self.shared.topics.on_view(&view, &mut self.shared.events);
        self.shared.view = view;
        self.reader.on_view();
        self.epochs.on_view();
        self.writer.on_view();
        for topic in replaced {
            let mut cx = self.shared.context(now);
            self.reader.drop_topic(topic);
            self.writer.drop_topic(topic, &mut cx);
            self.ends.drop_topic(topic, &mut cx);
            self.epochs.drop_topic(topic);
        }
        self.settle(now);
    }

    /// Reports requests that were lost with a link to the parts that sent them. Returns true if
    /// there were any.
    fn settle(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some((link, lost, error)) = self.shared.links.lost.pop_front() {
            any = true;
            let mut cx = self.shared.context(now);
            let cx = &mut cx;
            match lost.tag {
                None => {} // Of the handshake.
                Some(RequestTag::Metadata) => {
                    if let Some(directory) = &mut self.directory {
                        directory.on_lost();
                    }
                }
                Some(RequestTag::Configs) => {
                    if let Some(directory) = &mut self.directory {
                        directory.on_configs_lost(cx);
                    }
                }
                Some(RequestTag::ProducerId) => self.writer.producer.on_lost(cx),
                Some(RequestTag::Produce(asked)) => self.writer.on_lost(&asked, lost.sent, cx),
                Some(RequestTag::Fetch(_)) => self.reader.on_lost(link, &error, cx),
                Some(RequestTag::StartOffsets(asked)) => {
                    self.reader.on_start_offsets_lost(&asked, &error, cx);
                }
                Some(RequestTag::Ends(asked)) => self.ends.on_lost(&asked, &error, cx),
                Some(RequestTag::Epochs(number, asked)) => {
                    self.epochs.on_lost(number, &asked, cx);
                }
            }
        }
        any
    }
}
