//! The connections of a client. The client connects to a broker when a request needs it, closes the
//! connection when the broker is silent, and reconnects once the broker's backoff has passed.

use std::collections::VecDeque;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;

use super::backoff::Backoff;
use super::brokers::Brokers;
use super::event::{Event, LinkId};
use super::handshake::HandshakeContext;
use super::link::{Link, LinkKey, Upkeep};
use super::link_state::LinkState;
use super::metric_event::{MetricEvent, MetricEvents};
use super::pace::SilenceLimits;
use super::requests::{LostRequest, Response, ResponseWindow};
use super::sasl::Auth;
use super::scram::Salted;
use super::settings::Settings;
use super::silence::SilenceView;
use super::view::ClusterView;
use super::wake::Wake;
use super::{Address, KafkaError};
use crate::model::{FastRandom, Instant, Now};

/// Whether a link can be used now.
pub(super) enum Readiness<'a, T> {
    Ready(&'a mut Link<T>),
    /// The link is connecting, or is throttled.
    Soon,
    /// No link is made before the broker's backoff has passed.
    Resting,
}

/// What a change of links works with.
#[derive(Debug)]
pub(super) struct LinkContext<'a> {
    pub(super) now: Now,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) jitter: &'a mut FastRandom,
}

/// The connections. `T` is the tag of the client's requests.
#[derive(Debug)]
pub(super) struct Links<T> {
    links: Vec<Link<T>>,
    next_id: u32,
    brokers: Brokers,
    client_id: StrBytes,
    settings: LinkSettings,
    limits: SilenceLimits,
    pub(super) auth: Auth,
    /// The id of the first cluster. No connection to another one is used.
    cluster: Option<String>,
    to_open: VecDeque<(LinkId, Address)>,
    to_close: VecDeque<LinkId>,
    /// Whether a link has ended since [`Self::take_ended`].
    ended: bool,
    pub(super) metric_events: MetricEvents,
    /// Requests that get no response. Those of a handshake have no tag.
    pub(super) lost: VecDeque<(LinkId, LostRequest<Option<T>>, KafkaError)>,
}

#[derive(Clone, Copy, Debug)]
struct LinkSettings {
    connect_timeout: Duration,
    request_timeout: Duration,
    idle_timeout: Duration,
    frame_bytes_max: u32,
    backoff: Backoff,
}

impl LinkSettings {
    fn window(&self, now: Instant) -> ResponseWindow {
        ResponseWindow {
            due: now,
            deadline: now.after(self.request_timeout),
        }
    }
}

impl<T> Links<T> {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            links: Vec::new(),
            next_id: 0,
            brokers: Brokers::default(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            settings: LinkSettings {
                connect_timeout: settings.connect_timeout,
                request_timeout: settings.request_timeout,
                idle_timeout: settings.idle_timeout,
                frame_bytes_max: settings.frame_bytes_max,
                backoff: settings.backoff(),
            },
            limits: SilenceLimits::of(settings),
            auth: Auth::new(settings.sasl.clone(), settings.entropy),
            cluster: None,
            to_open: VecDeque::new(),
            to_close: VecDeque::new(),
            ended: false,
            metric_events: MetricEvents::default(),
            lost: VecDeque::new(),
        }
    }

    pub(super) fn next_open(&mut self) -> Option<(LinkId, Address)> {
        self.to_open.pop_front()
    }

    pub(super) fn next_close(&mut self) -> Option<LinkId> {
        self.to_close.pop_front()
    }

    pub(super) fn next_writable(&mut self) -> Option<LinkId> {
        let link = self.links.iter_mut().find_map(|link| {
            let writable = link.take_writable();
            writable.then_some(link.id())
        })?;
        Some(link)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link<T>> {
        self.links.iter().find(|link| link.id() == id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link<T>> {
        self.links.iter_mut().find(|link| link.id() == id)
    }

    /// The link of this key, if requests may be sent there now. Makes one if there is none and the
    /// broker's backoff allows it.
    pub(super) fn ready(
        &mut self,
        key: LinkKey,
        address: &Address,
        now: Now,
        wake: &mut Wake,
    ) -> Readiness<'_, T> {
        let peer = key.peer;
        if let Some(i) = self.position(key) {
            let link = &mut self.links[i];
            link.set_now(now.mono);
            if link.takes_requests(now.mono) {
                return Readiness::Ready(link);
            }
            if let Some(until) = link.quiet_until(now.mono).filter(|_| link.is_ready()) {
                wake.at(until);
            }
            return Readiness::Soon;
        }
        if !self.auth.is_able() {
            return Readiness::Resting; // Until there is a token, which wakes by itself.
        }
        let record = self.brokers.record(peer);
        if record.not_before() > now.mono {
            wake.at(record.not_before());
            return Readiness::Resting;
        }
        // A broker that fails is tried by one connection. A frozen broker takes further ones into
        // its accept queue, and a connection that finds the queue full waits for seconds after the
        // broker has come back.
        let tried = |link: &Link<T>| link.peer() == peer && !link.is_ready();
        if record.failing_since().is_some() && self.links.iter().any(tried) {
            return Readiness::Soon;
        }
        record.on_try(address);
        let id = LinkId(self.next_id);
        self.next_id += 1;
        self.links.push(Link::new(
            id,
            key,
            address.clone(),
            self.client_id.clone(),
            self.settings.frame_bytes_max,
            ResponseWindow {
                due: now.mono,
                deadline: now.mono.after(self.settings.connect_timeout),
            },
        ));
        self.to_open.push_back((id, address.clone()));
        Readiness::Soon
    }

    fn position(&self, key: LinkKey) -> Option<usize> {
        self.links.iter().position(|link| link.key() == key)
    }

    /// The state of each broker: failures, backoff and pace.
    pub(super) const fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// Which brokers are silent now.
    pub(super) fn silence(&self, now: Now) -> SilenceView<'_, T> {
        SilenceView {
            links: &self.links,
            brokers: &self.brokers,
            limits: &self.limits,
            now,
        }
    }

    /// Sets the cluster that connections must lead to from now on.
    pub(super) fn set_cluster(&mut self, id: Option<&String>) {
        if let Some(id) = id.filter(|id| self.cluster.as_ref() != Some(*id)) {
            self.cluster = Some(id.clone());
        }
    }

    /// The cluster that connections must lead to.
    pub(super) const fn cluster(&self) -> Option<&String> {
        self.cluster.as_ref()
    }

    /// Whether a connection to any broker is ready.
    pub(super) fn any_is_ready(&self) -> bool {
        self.links.iter().any(Link::is_ready)
    }

    /// Whether this connection is ready.
    pub(super) fn is_ready(&self, key: LinkKey) -> bool {
        let i = self.position(key);
        i.is_some_and(|i| self.links[i].is_ready())
    }

    /// The driver has connected a link. A link that was given up meanwhile is not found: the driver
    /// was asked to close it.
    pub(super) fn on_opened(&mut self, id: LinkId, now: Now) {
        let window = self.settings.window(now.mono);
        let Some(link) = self.links.iter_mut().find(|link| link.id() == id) else {
            return;
        };
        link.set_now(now.mono);
        link.on_connected(window);
        let connected = MetricEvent::Connected(link.address().clone());
        self.metric_events.push(connected);
    }

    /// The broker throttles a link (KIP-219).
    pub(super) fn throttle(&mut self, id: LinkId, by_ms: i32, now: Now) {
        let by = Duration::from_millis(u64::try_from(by_ms).unwrap_or(0));
        if let Some(link) = self.get_mut(id).filter(|_| !by.is_zero()) {
            link.throttle(by, now.mono);
            self.metric_events.push(MetricEvent::Throttled(by));
        }
    }

    /// Takes bytes of a broker. Responses go to `responses`. A broken stream fails the link.
    pub(super) fn on_bytes(
        &mut self,
        id: LinkId,
        bytes: &[u8],
        responses: &mut Vec<Response<T>>,
        cx: &mut LinkContext<'_>,
    ) {
        let Some(link) = self.links.iter_mut().find(|link| link.id() == id) else {
            return;
        };
        let now = cx.now.mono;
        // The time that the broker has had for this response, since it works on the requests of a
        // connection in order.
        let owed_since = link.overdue_since();
        let was_ready = link.is_ready();
        link.set_now(now);
        let before = responses.len();
        let mut handshake = HandshakeContext {
            now,
            auth: &mut self.auth,
            cluster: self.cluster.as_deref(),
            jitter: cx.jitter,
        };
        let window = self.settings.window(now);
        let outcome = link.on_bytes(bytes, window, &mut handshake, responses);
        for response in &responses[before..] {
            self.metric_events.push(MetricEvent::Answered {
                api: response.api,
                broker: link.address().clone(),
                took: response.took,
            });
        }
        let became_ready = link.is_ready() && !was_ready;
        let responded = responses.len() > before;
        let record = self.brokers.record(link.peer());
        record.on_bytes(became_ready || responded, now);
        if responded {
            // Versions are not enough to be up: a broker that wants SASL, or denies a right,
            // answers ApiVersions and nothing else.
            if record.report_up() {
                let (broker, address) = (link.peer().node(), link.address().clone());
                cx.events.push_back(Event::BrokerUp { broker, address });
            }
            let took = owed_since.map(|since| now.since(since)).unwrap_or_default();
            record.on_response(link.purpose(), took, self.limits.max(), now);
        }
        if let Err(error) = outcome {
            self.give_up(id, error, cx);
        }
    }

    /// Another thread has salted the password: resumes the handshakes that wait for it.
    pub(super) fn on_salted(&mut self, salted: Salted, cx: &mut LinkContext<'_>) {
        self.auth.on_salted(salted);
        let waiting = self.links.iter().filter(|link| link.is_salting());
        let waiting: Vec<LinkId> = waiting.map(Link::id).collect();
        let window = self.settings.window(cx.now.mono);
        for id in waiting {
            let Some(link) = self.links.iter_mut().find(|link| link.id() == id) else {
                continue;
            };
            let mut handshake = HandshakeContext {
                now: cx.now.mono,
                auth: &mut self.auth,
                cluster: self.cluster.as_deref(),
                jitter: cx.jitter,
            };
            link.set_now(cx.now.mono);
            if let Err(error) = link.on_salted(window, &mut handshake) {
                self.give_up(id, error, cx);
            }
        }
    }

    /// Gives up a link: the driver is asked to close it.
    pub(super) fn give_up(&mut self, id: LinkId, error: KafkaError, cx: &mut LinkContext<'_>) {
        if let Some(link) = self.remove(id) {
            self.to_close.push_back(id);
            self.on_failure(link, error, cx);
        }
    }

    /// A connection has failed or ended. The driver has closed it.
    pub(super) fn on_closed(&mut self, id: LinkId, error: KafkaError, cx: &mut LinkContext<'_>) {
        if let Some(link) = self.remove(id) {
            let error = match error {
                KafkaError::Closed => link.closed_error(),
                error => error,
            };
            self.on_failure(link, error, cx);
        }
    }

    /// Whether [`Self::take_ended`] would return true.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a link has ended since the last call: others may be tried now, or after a rest.
    pub(super) const fn take_ended(&mut self) -> bool {
        std::mem::replace(&mut self.ended, false)
    }

    fn remove(&mut self, id: LinkId) -> Option<Link<T>> {
        let i = self.links.iter().position(|link| link.id() == id)?;
        self.ended = true;
        self.to_open.retain(|(waiting, _)| *waiting != id);
        Some(self.links.swap_remove(i))
    }

    fn on_failure(&mut self, link: Link<T>, error: KafkaError, cx: &mut LinkContext<'_>) {
        let (peer, address) = (link.peer(), link.address().clone());
        // Brokers close idle connections (`connections.max.idle.ms`), which is no failure.
        let in_good_order = link.is_idle() && error == KafkaError::Closed;
        if !in_good_order {
            let now = cx.now.mono;
            let since = link.overdue_since().map_or(now, |owed| owed.min(now));
            let record = self.brokers.record(peer);
            let failures = record.on_failure(&address, since);
            let wait = self.settings.backoff.after(failures, cx.jitter);
            record.rest_until(now.after(wait));
            if record.report_down(&error) {
                cx.events.push_back(Event::BrokerDown {
                    broker: peer.node(),
                    address: address.clone(),
                    error: error.clone(),
                });
            }
        }
        self.metric_events.push(MetricEvent::Disconnected {
            broker: address.clone(),
            stood: link.state() != LinkState::Connecting,
            error: (!in_good_order).then(|| error.clone()),
        });
        let id = link.id();
        for lost in link.into_lost() {
            self.metric_events.push(MetricEvent::Failed {
                api: lost.api,
                broker: Some(address.clone()),
                partition: None,
                error: error.clone(),
            });
            self.lost.push_back((id, lost, error.clone()));
        }
    }

    /// Gives up links to brokers that are silent for too long, renews sessions, and closes links
    /// that nothing needs.
    pub(super) fn on_time(&mut self, cx: &mut LinkContext<'_>) {
        let now = cx.now.mono;
        let late = |link: &&Link<T>| link.deadline().is_some_and(|deadline| deadline <= now);
        while let Some(link) = self.links.iter().find(late) {
            self.give_up(link.id(), link.state().on_deadline(), cx);
        }
        let idle_timeout = self.settings.idle_timeout;
        let due = |link: &Link<T>| link.due(now, idle_timeout);
        while let Some(i) = self.links.iter().position(|it| due(it) == Upkeep::Retire) {
            self.retire(i);
        }
        let window = self.settings.window(now);
        let renewed = self.links.iter_mut().filter(|it| due(it) == Upkeep::Renew);
        for link in renewed {
            let mechanism = self.auth.mechanism().expect("a session came from SASL");
            link.set_now(now);
            let begun = link.log_in(mechanism, window);
            debug_assert!(begun.is_ok(), "the versions were there the first time");
        }
    }

    pub(super) fn wake(&self, wake: &mut Wake) {
        for link in &self.links {
            let due = link.next_due(self.settings.idle_timeout);
            for when in [link.deadline(), due].into_iter().flatten() {
                wake.at(when);
            }
        }
    }

    /// Gives up the links to brokers that have left the cluster or have moved.
    pub(super) fn on_view(&mut self, view: &ClusterView, cx: &mut LinkContext<'_>) {
        let gone = |link: &&Link<T>| {
            let node = link.peer().node();
            node.is_some_and(|node| view.address(node) != Some(link.address()))
        };
        while let Some(id) = self.links.iter().find(gone).map(Link::id) {
            self.give_up(id, KafkaError::Closed, cx);
        }
        self.brokers.on_view(view);
    }

    /// Closes the links to bootstrap addresses: the brokers are known by number now.
    pub(super) fn leave_bootstrap(&mut self) {
        let leaves = |link: &Link<T>| link.peer().node().is_none() && link.in_flight() == 0;
        while let Some(i) = self.links.iter().position(leaves) {
            self.retire(i);
        }
    }

    /// Closes a link in good order: no request is in flight on it.
    fn retire(&mut self, i: usize) {
        let link = self.links.swap_remove(i);
        self.ended = true;
        self.to_open.retain(|(waiting, _)| *waiting != link.id());
        self.to_close.push_back(link.id());
        self.metric_events.push(MetricEvent::Disconnected {
            broker: link.address().clone(),
            stood: link.state() != LinkState::Connecting,
            error: None,
        });
    }
}
