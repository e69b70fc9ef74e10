//! One connection to one broker for one purpose: its handshake, its requests and its frames.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use super::event::{Lane, LinkId};
use super::frames::Frames;
use super::handshake::{Handshake, HandshakeContext, HandshakeStep};
use super::link_state::LinkState;
use super::requests::{LostRequest, Requests, Response, ResponseWindow};
use super::view::BrokerId;
use super::wire::{self, Api};
use super::{Address, KafkaError};
use crate::model::Instant;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// The n-th bootstrap address, whichever broker that is.
    Bootstrap(usize),
    /// A broker of the view.
    Node(BrokerId),
}

impl Peer {
    /// The broker's number. `None` for a bootstrap address.
    pub(super) const fn node(self) -> Option<BrokerId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Bootstrap(_) => None,
        }
    }
}

/// What a connection is for. Requests that may wait at the broker never share a connection with
/// requests that must not wait, because Kafka answers a connection in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Metadata, configs, offsets, producer ids: answered at once.
    Ask,
    /// Produce: answered when replicas have it.
    Produce,
    /// Fetch: answered when there are records.
    Fetch(Lane),
}

/// A broker, and what a connection to it is for. The client has at most one connection of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkKey {
    pub(super) peer: Peer,
    pub(super) purpose: Purpose,
}

impl LinkKey {
    /// The connection for requests that a broker answers at once.
    pub(super) const fn ask(peer: Peer) -> Self {
        Self {
            peer,
            purpose: Purpose::Ask,
        }
    }
}

/// What an idle connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    Nothing,
    /// Its session ends: log in again.
    Renew,
    /// Nothing needs it, or its session has ended: close it in good order.
    Retire,
}

/// A connection. `T` is the tag that each request of the client carries; the requests of the
/// handshake carry none.
///
/// Order of calls: [`Self::on_connected`] once, then [`Self::on_bytes`] and, while
/// [`Self::takes_requests`], [`Self::send`]. What is to be written is in [`Self::outgoing`].
#[derive(Debug)]
pub(super) struct Link<T> {
    id: LinkId,
    key: LinkKey,
    address: Address,
    handshake: Handshake,
    requests: Requests<Option<T>>,
    frames: Frames,
    /// When the driver was asked to connect.
    since: Instant,
    /// When connecting, or waiting for a salted password, is given up.
    deadline: Instant,
    /// The time of the present turn: requests are dated by it.
    now: Instant,
    /// When the broker last sent bytes.
    heard: Instant,
    /// No request is sent before this: the broker throttles the connection (KIP-219).
    quiet_until: Instant,
    /// When it was last needed.
    last_used: Instant,
    /// Whether any request of the client was ever answered.
    answered: bool,
}

impl<T> Link<T> {
    pub(super) fn new(
        id: LinkId,
        key: LinkKey,
        address: Address,
        client_id: StrBytes,
        frame_bytes_max: u32,
        window: ResponseWindow,
    ) -> Self {
        Self {
            id,
            key,
            address,
            handshake: Handshake::new(),
            requests: Requests::new(client_id),
            frames: Frames::new(frame_bytes_max),
            since: window.due,
            deadline: window.deadline,
            now: window.due,
            heard: Instant::ZERO,
            quiet_until: Instant::ZERO,
            last_used: Instant::ZERO,
            answered: false,
        }
    }

    pub(super) const fn id(&self) -> LinkId {
        self.id
    }

    pub(super) const fn key(&self) -> LinkKey {
        self.key
    }

    pub(super) const fn peer(&self) -> Peer {
        self.key.peer
    }

    pub(super) const fn purpose(&self) -> Purpose {
        self.key.purpose
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) const fn state(&self) -> LinkState {
        self.handshake.state()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state() == LinkState::Ready
    }

    /// Sets the time of a turn that begins, by which requests are dated.
    pub(super) const fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The driver has connected the socket.
    pub(super) fn on_connected(&mut self, window: ResponseWindow) {
        if let Some(step) = self.handshake.on_connected() {
            self.deadline = window.deadline;
            self.take_step(step, window);
        }
    }

    /// Takes bytes of the broker. Responses to the client's requests go to `responses`.
    pub(super) fn on_bytes(
        &mut self,
        mut bytes: &[u8],
        window: ResponseWindow,
        cx: &mut HandshakeContext<'_>,
        responses: &mut Vec<Response<T>>,
    ) -> Result<(), KafkaError> {
        (self.last_used, self.heard) = (cx.now, cx.now);
        // An alert (RFC 8446 5.1) where the first response should begin with its length.
        if self.state() == LinkState::Negotiating && bytes.starts_with(&[0x15, 0x03]) {
            return Err(KafkaError::TlsWanted);
        }
        while let Some(frame) = self.next_frame(&mut bytes)? {
            let response = self.requests.on_frame(frame, self.now)?;
            match response.tag {
                None => {
                    let (version, body) = (response.version, response.body);
                    let step = self.handshake.on_response(version, body, cx)?;
                    self.take_step(step, window);
                }
                Some(tag) => {
                    self.answered = true;
                    responses.push(Response {
                        tag,
                        api: response.api,
                        took: response.took,
                        version: response.version,
                        body: response.body,
                    });
                }
            }
        }
        Ok(())
    }

    fn next_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<Bytes>, KafkaError> {
        let frame = self.frames.next(bytes);
        frame.map_err(|error| match self.state() {
            // No list of versions is that long: it was text, or another protocol's header.
            LinkState::Negotiating => KafkaError::NotKafka,
            _ => error,
        })
    }

    /// Logs in again, since the session ends.
    pub(super) fn log_in(
        &mut self,
        mechanism: &'static str,
        window: ResponseWindow,
    ) -> Result<(), KafkaError> {
        let step = self.handshake.log_in(mechanism)?;
        self.take_step(step, window);
        Ok(())
    }

    /// The password is salted: answers the broker's message that waited for it.
    pub(super) fn on_salted(
        &mut self,
        window: ResponseWindow,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<(), KafkaError> {
        if let Some(step) = self.handshake.on_salted(cx)? {
            self.take_step(step, window);
        }
        Ok(())
    }

    fn take_step(&mut self, step: HandshakeStep, window: ResponseWindow) {
        match step {
            HandshakeStep::Versions(version) => {
                self.send_tagged(None, version, &wire::greeting(version), window);
            }
            HandshakeStep::Mechanism(version, mechanism) => {
                let mechanism = StrBytes::from_static_str(mechanism);
                let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
                self.send_tagged(None, version, &request, window);
            }
            HandshakeStep::Message(version, message) => {
                let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
                self.send_tagged(None, version, &request, window);
            }
            HandshakeStep::Cluster(version) => {
                let request = MetadataRequest::default()
                    .with_topics(Some(Vec::new()))
                    .with_allow_auto_topic_creation(false);
                self.send_tagged(None, version, &request, window);
            }
            HandshakeStep::AwaitSalt => self.deadline = window.deadline,
            HandshakeStep::Done => {}
        }
    }

    /// Sends a request in the newest version that both sides know.
    ///
    /// # Errors
    /// The broker knows none of the client's versions. Nothing was sent.
    pub(super) fn ask<R: Request>(
        &mut self,
        tag: T,
        api: Api,
        window: ResponseWindow,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(), KafkaError> {
        let version = self.version(api)?;
        self.send(tag, version, &build(version), window);
        Ok(())
    }

    /// Sends a request in this version.
    pub(super) fn send<R: Request>(
        &mut self,
        tag: T,
        version: i16,
        request: &R,
        window: ResponseWindow,
    ) {
        self.send_tagged(Some(tag), version, request, window);
    }

    fn send_tagged<R: Request>(
        &mut self,
        tag: Option<T>,
        version: i16,
        request: &R,
        window: ResponseWindow,
    ) {
        self.requests.send(tag, version, request, window, self.now);
    }

    /// The newest version of an API that both sides know.
    pub(super) fn version(&self, api: Api) -> Result<i16, KafkaError> {
        self.handshake.versions().of(api)
    }

    /// Whether requests may be sent now: not while the session is about to end.
    pub(super) fn takes_requests(&self, now: Instant) -> bool {
        let session = self.handshake.session();
        let ending = session.is_some_and(|session| session.renew_at <= now);
        self.is_ready() && self.quiet_until <= now && !ending
    }

    /// Until when the broker throttles the connection. `None`: no throttle is in effect.
    pub(super) fn quiet_until(&self, now: Instant) -> Option<Instant> {
        Some(self.quiet_until).filter(|&until| until > now)
    }

    /// What the connection needs, apart from responses.
    pub(super) fn due(&self, now: Instant, idle_timeout: Duration) -> Upkeep {
        if !self.is_idle() {
            return Upkeep::Nothing;
        }
        match self.handshake.session() {
            Some(session) if session.is_over(now) => Upkeep::Retire,
            Some(session) if session.renew_at.max(self.quiet_until) <= now => Upkeep::Renew,
            _ if self.last_used.after(idle_timeout) <= now => Upkeep::Retire,
            _ => Upkeep::Nothing,
        }
    }

    /// When [`Self::due`] may next return something, if nothing happens before.
    pub(super) fn next_due(&self, idle_timeout: Duration) -> Option<Instant> {
        if !self.is_idle() {
            return None;
        }
        let session = self.handshake.session();
        let renew = session.map(|it| it.renew_at.max(self.quiet_until));
        let idle = self.last_used.after(idle_timeout);
        Some(renew.map_or(idle, |renew| renew.min(idle)))
    }

    /// Whether the connection is ready and waits for no response.
    pub(super) fn is_idle(&self) -> bool {
        self.is_ready() && self.in_flight() == 0
    }

    /// Whether the connection waits for a salted password.
    pub(super) const fn is_salting(&self) -> bool {
        matches!(self.state(), LinkState::Salting(_))
    }

    /// The broker throttles the connection, and mutes it itself: responses have more time.
    pub(super) fn throttle(&mut self, by: Duration, now: Instant) {
        self.quiet_until = self.quiet_until.max(now.after(by));
        self.requests.throttle(by, self.quiet_until);
    }

    /// When the connection is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state() {
            LinkState::Connecting | LinkState::Salting(_) => Some(self.deadline),
            _ => self.requests.deadline(),
        }
    }

    /// Since when the connection itself, or the next response, is due. Bytes that came since
    /// restart the clock, because a large response takes its time.
    pub(super) fn overdue_since(&self) -> Option<Instant> {
        match self.state() {
            LinkState::Connecting => Some(self.since),
            _ => Some(self.requests.next_due()?.max(self.heard)),
        }
    }

    /// What the end of the connection by the broker means.
    pub(super) fn closed_error(&self) -> KafkaError {
        let authenticated = self.handshake.is_authenticated();
        self.state()
            .on_closed(!authenticated && !self.answered && self.in_flight() > 0)
    }

    /// The number of requests without a response.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }

    /// Whether bytes to write were queued since the last call.
    pub(super) const fn take_writable(&mut self) -> bool {
        self.requests.take_writable()
    }

    /// The queued bytes that the socket has not taken yet.
    pub(super) fn outgoing(&self) -> &[u8] {
        self.requests.outgoing()
    }

    /// The socket took so many bytes of [`Self::outgoing`].
    pub(super) fn on_written(&mut self, bytes: usize) {
        self.requests.on_written(bytes);
    }

    /// The connection has ended: the requests that get no response. Those of the handshake have no
    /// tag.
    pub(super) fn into_lost(self) -> impl Iterator<Item = LostRequest<Option<T>>> {
        self.requests.into_lost()
    }
}
