//! All connections of a client, and how each broker fares: made when somebody needs one, given up
//! when they are silent, not made again before the broker's backoff has passed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kafka_protocol::protocol::{Request, StrBytes};
use smallvec::SmallVec;

use super::backoff::Backoff;
use super::event::{Event, LinkId};
use super::link::{Answer, Asked, Due, Link, Peer, Purpose, State, Unanswered, With};
use super::metric_event::{MetricEvent, MetricEvents};
use super::pace::{Limits, Pace};
use super::sasl::Auth;
use super::scram::Salted;
use super::settings::Settings;
use super::view::ClusterView;
use super::wire::Api;
use super::{Address, KafkaError};
use crate::model::{FastRandom, Instant, Now};

/// The earliest moment somebody asked to be woken at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wake(pub(super) Option<Instant>);

impl Wake {
    pub(super) fn at(&mut self, when: Instant) {
        self.0 = Some(self.0.map_or(when, |now| now.min(when)));
    }
}

/// How a broker fares, over all its connections.
#[derive(Debug, Default)]
struct Health {
    /// In a row, since it last answered.
    failures: u32,
    /// No connection is made before.
    not_before: Instant,
    /// What was last told.
    up: Option<bool>,
    /// Since when no connection stands, or brings an answer; `None` while one does.
    failing_since: Option<Instant>,
    /// Where it was last tried.
    address: Option<Address>,
    /// When bytes came last, on any connection.
    heard: Instant,
    /// Why it was told to be down.
    told: Option<KafkaError>,
    /// How fast the broker answers a Produce, which waits for replicas.
    produce_pace: Pace,
    /// How fast the broker answers all other requests.
    pace: Pace,
}

/// Since when a broker has been silent.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// Since when no connection to the broker has been established.
    failing: Option<Instant>,
    /// Since when a response of the broker has been due.
    owing: Option<Instant>,
}

/// The consequences of a broker's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// Nothing more is sent to the broker.
    Stalled,
    /// The broker counts as unavailable.
    Unavailable,
}

/// Whether a link can be used now.
pub(super) enum Readiness<'a> {
    Ready(&'a mut Link),
    /// It is being made, or is throttled.
    Soon,
    /// None is made before the broker's backoff has passed.
    Resting,
}

#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Link>,
    next_id: u32,
    health: BTreeMap<Peer, Health>,
    client_id: StrBytes,
    settings: LinkSettings,
    pub(super) auth: Auth,
    /// The id of the first cluster. No connection to another one is used.
    cluster: Option<String>,
    limits: Limits,
    to_open: VecDeque<(LinkId, Address)>,
    to_close: VecDeque<LinkId>,
    pub(super) metric_events: MetricEvents,
    pub(super) unanswered: VecDeque<(LinkId, Unanswered, KafkaError)>,
}

#[derive(Clone, Copy, Debug)]
struct LinkSettings {
    connect_timeout: Duration,
    request_timeout: Duration,
    idle_timeout: Duration,
    frame_bytes_max: u32,
    backoff: Backoff,
}

impl Links {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            links: Vec::new(),
            next_id: 0,
            health: BTreeMap::new(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            settings: LinkSettings {
                connect_timeout: settings.connect_timeout,
                request_timeout: settings.request_timeout,
                idle_timeout: settings.idle_timeout,
                frame_bytes_max: settings.frame_bytes_max,
                backoff: settings.backoff(),
            },
            auth: Auth::new(settings.sasl.clone(), settings.entropy),
            cluster: None,
            limits: Limits::of(settings),
            to_open: VecDeque::new(),
            to_close: VecDeque::new(),
            metric_events: MetricEvents::default(),
            unanswered: VecDeque::new(),
        }
    }

    pub(super) fn next_open(&mut self) -> Option<(LinkId, Address)> {
        self.to_open.pop_front()
    }

    pub(super) fn next_close(&mut self) -> Option<LinkId> {
        self.to_close.pop_front()
    }

    pub(super) fn next_writable(&mut self) -> Option<LinkId> {
        let link = self.links.iter_mut().find(|link| link.to_offer)?;
        link.to_offer = false;
        Some(link.id)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// The link to `peer` for `purpose`, if requests may go there now. Makes one where there is
    /// none and the broker's backoff allows.
    pub(super) fn ready(
        &mut self,
        (peer, purpose): (Peer, Purpose),
        address: &Address,
        now: Now,
        wake: &mut Wake,
    ) -> Readiness<'_> {
        let same = |link: &Link| link.peer == peer && link.purpose == purpose;
        if let Some(i) = self.links.iter().position(same) {
            let link = &mut self.links[i];
            link.turn = now.mono;
            return match link.state {
                State::Ready if link.takes_requests(now.mono) => Readiness::Ready(link),
                State::Ready if link.quiet_until > now.mono => {
                    wake.at(link.quiet_until);
                    Readiness::Soon
                }
                _ => Readiness::Soon,
            };
        }
        if !self.auth.is_able() {
            return Readiness::Resting; // Until there is a token, which wakes by itself.
        }
        let health = self.health.entry(peer).or_default();
        if health.not_before > now.mono {
            wake.at(health.not_before);
            return Readiness::Resting;
        }
        // A broker that fails is tried by one connection: a frozen one takes them all into its
        // queue, and whoever finds that full waits for seconds after it has come back.
        let tried = |link: &Link| link.peer == peer && link.state != State::Ready;
        if health.failing_since.is_some() && self.links.iter().any(tried) {
            return Readiness::Soon;
        }
        health.address = Some(address.clone());
        let id = LinkId(self.next_id);
        self.next_id += 1;
        self.links.push(Link::new(
            id,
            (peer, purpose),
            address.clone(),
            self.client_id.clone(),
            self.settings.frame_bytes_max,
            now.mono.after(self.settings.connect_timeout),
        ));
        self.to_open.push_back((id, address.clone()));
        Readiness::Soon
    }

    /// Whether `peer` answered last, or was never tried; and from when on it may be tried.
    pub(super) fn trust(&self, peer: Peer) -> (bool, Instant) {
        let health = self.health.get(&peer);
        health.map_or((true, Instant::ZERO), |h| (h.failures == 0, h.not_before))
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

    /// Since when `peer` has been silent for requests of `purpose`. It is silent if no connection
    /// to it is established, if a response on that connection is due (Kafka answers in order), or
    /// if it sends nothing at all and any response is due. A broker that failed and may be tried
    /// again is not silent until it is tried.
    fn silence(&self, peer: Peer, purpose: Purpose, now: Now) -> Silence {
        let Some(health) = self.health.get(&peer) else {
            return Silence::default();
        };
        let resting = health.not_before > now.mono;
        let (mut failing, mut own, mut any) = (Wake::default(), None, Wake::default());
        let mut tried = false;
        for link in self.links.iter().filter(|link| link.peer == peer) {
            tried |= link.state != State::Ready;
            let Some(since) = self.owes_since(link) else {
                continue;
            };
            any.at(since);
            match (link.purpose == purpose, link.state) {
                (true, State::Opening) => failing.at(since),
                (true, _) => own = Some(since),
                (false, _) => {}
            }
        }
        if let Some(since) = health.failing_since.filter(|_| resting || tried) {
            failing.at(since);
        }
        let all = any.0.map(|since| since.max(health.heard));
        Silence {
            failing: failing.0,
            owing: own.into_iter().chain(all).min(),
        }
    }

    fn owes_since(&self, link: &Link) -> Option<Instant> {
        link.owes_since(self.settings.connect_timeout, self.settings.request_timeout)
    }

    /// Since when `peer` has been silent for requests of `purpose`, if it is silent.
    pub(super) fn silent_since(&self, peer: Peer, purpose: Purpose, now: Now) -> Option<Instant> {
        let Silence { failing, owing } = self.silence(peer, purpose, now);
        failing.into_iter().chain(owing).min()
    }

    /// When the silence of `peer` will have this consequence. `None`: no response is due. The limit
    /// depends on the broker's recent speed. A connection that fails gets only the limit of a fast
    /// broker.
    pub(super) fn silent_from(
        &self,
        (peer, purpose): (Peer, Purpose),
        silent: Silent,
        now: Now,
    ) -> Option<Instant> {
        let Silence { failing, owing } = self.silence(peer, purpose, now);
        let limit = match silent {
            Silent::Stalled => self.limits.failing_stalled(),
            Silent::Unavailable => self.limits.failing(),
        };
        let failing = failing.map(|since| since.after(limit));
        let owing = owing.map(|since| since.after(self.limit((peer, purpose), silent, now)));
        failing.into_iter().chain(owing).min()
    }

    /// Whether the silence of `peer` has this consequence.
    pub(super) fn is_silent(&self, to: (Peer, Purpose), silent: Silent, now: Now) -> bool {
        let from = self.silent_from(to, silent, now);
        from.is_some_and(|from| from <= now.mono)
    }

    /// How long a response of `peer` may take before its silence has this consequence.
    pub(super) fn limit(
        &self,
        (peer, purpose): (Peer, Purpose),
        silent: Silent,
        now: Now,
    ) -> Duration {
        let p99 = self.health.get(&peer).map(|health| match purpose {
            Purpose::Produce => health.produce_pace.p99(now.mono),
            Purpose::Ask | Purpose::Fetch(_) => health.pace.p99(now.mono),
        });
        let p99 = p99.unwrap_or_default();
        match silent {
            Silent::Stalled => self.limits.stalled(p99),
            Silent::Unavailable => self.limits.unavailable(p99),
        }
    }

    /// When the response that a link waits for will be overdue.
    pub(super) fn link_silent_from(&self, id: LinkId, silent: Silent, now: Now) -> Option<Instant> {
        let link = self.get(id)?;
        let since = self.owes_since(link)?;
        Some(since.after(self.limit((link.peer, link.purpose), silent, now)))
    }

    /// Stalled brokers, and since when they have been silent. Bootstrap addresses count as long as
    /// no broker is known by its number.
    pub(super) fn silent(&self, now: Now) -> impl Iterator<Item = (&Address, Instant)> {
        let is_node = |peer: &Peer| matches!(peer, Peer::Node(_));
        let known = self.health.keys().any(is_node);
        let peers = self.health.iter();
        peers
            .filter(move |(peer, _)| !known || is_node(peer))
            .filter(move |(peer, _)| self.is_silent((**peer, Purpose::Ask), Silent::Stalled, now))
            .filter_map(move |(&peer, health)| {
                let since = self.silent_since(peer, Purpose::Ask, now)?;
                Some((health.address.as_ref()?, since))
            })
    }

    /// Whether any broker can receive a request now.
    pub(super) fn any_stands(&self) -> bool {
        self.links.iter().any(|link| link.state == State::Ready)
    }

    /// Whether requests may go to `peer` at once.
    pub(super) fn stands(&self, peer: Peer, purpose: Purpose) -> bool {
        let same = |link: &Link| link.peer == peer && link.purpose == purpose;
        let link = self.links.iter().find(|link| same(link));
        link.is_some_and(|link| link.state == State::Ready)
    }

    /// A link that was given up meanwhile is not found: the driver was told to close it.
    pub(super) fn on_opened(&mut self, id: LinkId, now: Now) {
        let deadline = now.mono.after(self.settings.request_timeout);
        if let Some(link) = self.get_mut(id) {
            link.turn = now.mono;
            link.on_opened(deadline);
            let address = link.address.clone();
            self.metric_events.push(MetricEvent::Connected(address));
        }
    }

    /// The broker asks for silence on a link (KIP-219).
    pub(super) fn throttle(&mut self, id: LinkId, by_ms: i32, now: Now) {
        let by = u64::try_from(by_ms).unwrap_or(0);
        if let Some(link) = self.get_mut(id).filter(|_| by > 0) {
            link.throttle(Duration::from_millis(by), now.mono);
            self.metric_events
                .push(MetricEvent::Throttled(Duration::from_millis(by)));
        }
    }

    /// Takes bytes; whole answers go to `answers`. A broken stream fails the link.
    pub(super) fn on_bytes(
        &mut self,
        id: LinkId,
        bytes: &[u8],
        now: Now,
        answers: &mut Vec<Answer>,
        out: &mut Outlet<'_>,
    ) {
        let Some(link) = self.links.iter_mut().find(|link| link.id == id) else {
            return;
        };
        // The time that Kafka has had for this response: it works on a connection's requests in
        // order.
        let owed_since =
            link.owes_since(self.settings.connect_timeout, self.settings.request_timeout);
        link.heard = now.mono;
        let mut with = With {
            now: now.mono,
            deadline: now.mono.after(self.settings.request_timeout),
            auth: &mut self.auth,
            cluster: self.cluster.as_deref(),
            jitter: out.jitter,
        };
        let was_ready = link.state == State::Ready;
        link.turn = now.mono;
        let before = answers.len();
        let outcome = link.on_bytes(bytes, &mut with, answers);
        let (peer, purpose) = (link.peer, link.purpose);
        let ready = link.state == State::Ready;
        let stands = ready && !was_ready;
        // Saying its versions is not enough: who wants SASL or a right answers that, and no more.
        let address = (!answers.is_empty()).then(|| link.address.clone());
        let answered = answers[before..]
            .iter()
            .map(|answer| MetricEvent::Answered {
                api: answer.api,
                broker: link.address.clone(),
                took: answer.took,
            });
        let answered: SmallVec<[MetricEvent; 1]> = answered.collect();
        answered
            .into_iter()
            .for_each(|metric_event| self.metric_events.push(metric_event));
        let health = self.health.entry(peer).or_default();
        health.heard = now.mono;
        if stands || !answers.is_empty() {
            health.failing_since = None;
        }
        if let Some(address) = address
            && health.up != Some(true)
        {
            (health.up, health.told) = (Some(true), None);
            let broker = broker(peer);
            out.events.push_back(Event::BrokerUp { broker, address });
        }
        if !answers.is_empty() {
            health.failures = 0;
            let took = owed_since.map(|since| now.mono.since(since));
            let pace = match purpose {
                Purpose::Produce => &mut health.produce_pace,
                Purpose::Ask | Purpose::Fetch(_) => &mut health.pace,
            };
            pace.record(took.unwrap_or_default(), self.limits.max(), now.mono);
        }
        if let Err(error) = outcome {
            self.fail(id, error, now, true, out);
        }
    }

    /// Another thread has salted the password: resumes the exchanges that wait for it.
    pub(super) fn on_salted(&mut self, salted: Salted, now: Now, out: &mut Outlet<'_>) {
        self.auth.on_salted(salted);
        let waiting = self.links.iter().filter(|link| link.is_salting());
        let waiting: Vec<LinkId> = waiting.map(|link| link.id).collect();
        let deadline = now.mono.after(self.settings.request_timeout);
        for id in waiting {
            let Some(link) = self.links.iter_mut().find(|link| link.id == id) else {
                continue;
            };
            let mut with = With {
                now: now.mono,
                deadline,
                auth: &mut self.auth,
                cluster: self.cluster.as_deref(),
                jitter: out.jitter,
            };
            link.turn = now.mono;
            if let Err(error) = link.on_salted(&mut with) {
                self.fail(id, error, now, true, out);
            }
        }
    }

    /// The driver says that the connection is over (`ours`: we do, so it must be told).
    pub(super) fn fail(
        &mut self,
        id: LinkId,
        error: KafkaError,
        now: Now,
        ours: bool,
        out: &mut Outlet<'_>,
    ) {
        let Some(i) = self.links.iter().position(|link| link.id == id) else {
            return;
        };
        let link = self.links.swap_remove(i);
        self.to_open.retain(|(waiting, _)| *waiting != id);
        if ours {
            self.to_close.push_back(id);
        }
        let error = match error {
            KafkaError::Closed if !ours => link.ended(),
            error => error,
        };
        // Brokers close idle connections (`connections.max.idle.ms`): no failure of theirs.
        let idle = link.state == State::Ready && link.in_flight() == 0;
        if !(idle && error == KafkaError::Closed) {
            let owed =
                link.owes_since(self.settings.connect_timeout, self.settings.request_timeout);
            let health = self.health.entry(link.peer).or_default();
            let since = owed.map_or(now.mono, |owed| owed.min(now.mono));
            health.failing_since.get_or_insert(since);
            health.address = Some(link.address.clone());
            health.failures = health.failures.saturating_add(1);
            let wait = self.settings.backoff.after(health.failures, out.jitter);
            health.not_before = now.mono.after(wait);
            if health.up != Some(false) || health.told.as_ref() != Some(&error) {
                (health.up, health.told) = (Some(false), Some(error.clone()));
                out.events.push_back(Event::BrokerDown {
                    broker: broker(link.peer),
                    address: link.address.clone(),
                    error: error.clone(),
                });
            }
        }
        self.metric_events.push(MetricEvent::Disconnected {
            broker: link.address.clone(),
            stood: link.state != State::Opening,
            error: (!(idle && error == KafkaError::Closed)).then(|| error.clone()),
        });
        let address = link.address.clone();
        for lost in link.unanswered() {
            let (api, error) = (lost.api, error.clone());
            self.metric_events.push(MetricEvent::Failed {
                api,
                broker: Some(address.clone()),
                partition: None,
                error: error.clone(),
            });
            self.unanswered.push_back((id, lost, error));
        }
    }

    /// Gives up links that were silent for too long; says again who we are where that is due;
    /// closes what nobody needs.
    pub(super) fn on_time(&mut self, now: Now, out: &mut Outlet<'_>) {
        let late = |link: &&Link| link.deadline().is_some_and(|deadline| deadline <= now.mono);
        while let Some(link) = self.links.iter().find(late) {
            let error = match link.state {
                State::Opening => KafkaError::ConnectTimeout,
                _ => KafkaError::Timeout,
            };
            self.fail(link.id, error, now, true, out);
        }
        let idle_timeout = self.settings.idle_timeout;
        let due = |link: &Link| link.due(now.mono, idle_timeout);
        while let Some(at) = self.links.iter().position(|it| due(it) == Due::Retire) {
            let link = self.links.swap_remove(at);
            self.leave(link);
        }
        let deadline = now.mono.after(self.settings.request_timeout);
        let renewed = self.links.iter_mut().filter(|it| due(it) == Due::Renew);
        for link in renewed {
            let mechanism = self.auth.mechanism().expect("a session came from SASL");
            link.turn = now.mono;
            let begun = link.authenticate(mechanism, deadline);
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

    /// Leaves brokers that are gone or have moved.
    pub(super) fn on_view(&mut self, view: &ClusterView, now: Now, out: &mut Outlet<'_>) {
        let gone = |link: &&Link| match link.peer {
            Peer::Node(node) => view.address(node) != Some(&link.address),
            Peer::Bootstrap(_) => false,
        };
        while let Some(id) = self.links.iter().find(gone).map(|link| link.id) {
            self.fail(id, KafkaError::Closed, now, true, out);
        }
        self.health.retain(|peer, _| match peer {
            Peer::Node(node) => view.address(*node).is_some(),
            Peer::Bootstrap(_) => true,
        });
    }

    /// Closes the links to bootstrap addresses: the brokers are known by number now.
    pub(super) fn leave_bootstrap(&mut self) {
        let leaves = |link: &Link| matches!(link.peer, Peer::Bootstrap(_)) && link.in_flight() == 0;
        while let Some(i) = self.links.iter().position(leaves) {
            let link = self.links.swap_remove(i);
            self.leave(link);
        }
    }

    /// Closes a link in good order: nothing is in flight on it.
    fn leave(&mut self, link: Link) {
        self.to_open.retain(|(waiting, _)| *waiting != link.id);
        self.to_close.push_back(link.id);
        self.metric_events.push(MetricEvent::Disconnected {
            broker: link.address,
            stood: link.state != State::Opening,
            error: None,
        });
    }
}

/// Where facts go while links change.
#[derive(Debug)]
pub(super) struct Outlet<'a> {
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) jitter: &'a mut FastRandom,
}

fn broker(peer: Peer) -> Option<super::BrokerId> {
    match peer {
        Peer::Node(node) => Some(node),
        Peer::Bootstrap(_) => None,
    }
}

impl Link {
    /// Sends a request in the newest version both sides know.
    ///
    /// # Errors
    /// The broker knows none of ours; nothing was sent.
    pub(super) fn ask<R: Request>(
        &mut self,
        asked: Asked,
        api: Api,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(), KafkaError> {
        let version = self.versions.of(api)?;
        self.send(asked, version, &build(version), deadline);
        Ok(())
    }
}
