//! How a connection is set up, and logged in again: versions, SASL, the cluster's id. Takes the
//! broker's responses and returns what to send next.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest,
};

use super::error::{Code, KafkaError, SaslError, sanitize};
use super::link_state::{LinkEvent, LinkState};
use super::sasl::{Auth, Exchange};
use super::sasl_session::SaslSession;
use super::scram::SaslStep;
use super::wire::{self, Api, Versions};
use crate::model::{FastRandom, Instant};

/// What a handshake works with.
pub(super) struct HandshakeContext<'a> {
    pub(super) now: Instant,
    pub(super) auth: &'a mut Auth,
    /// The cluster that the connection must lead to, if one is known.
    pub(super) cluster: Option<&'a str>,
    pub(super) jitter: &'a mut FastRandom,
}

/// What to send next. A request comes with its version.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the connection waits for the response"]
pub(super) enum HandshakeStep {
    /// Send ApiVersions, to agree on versions.
    Versions(i16),
    /// Send SaslHandshake, which names the mechanism.
    Mechanism(i16, &'static str),
    /// Send SaslAuthenticate, with the mechanism's message.
    Message(i16, Vec<u8>),
    /// Send Metadata without topics, to learn the cluster's id.
    Cluster(i16),
    /// Nothing until another thread has salted the password.
    AwaitSalt,
    /// Nothing: the connection is ready.
    Done,
}

/// The handshake of one connection.
#[derive(Debug)]
pub(super) struct Handshake {
    state: LinkState,
    versions: Versions,
    /// The SASL exchange in progress, if any.
    exchange: Option<Exchange>,
    /// The broker's message to answer once the password is salted. The message also says how long
    /// the session lasts.
    to_salt: Option<SaslAuthenticateResponse>,
    session: Option<SaslSession>,
    /// Whether SASL has succeeded on this connection.
    authenticated: bool,
}

impl Handshake {
    pub(super) const fn new() -> Self {
        Self {
            state: LinkState::Connecting,
            versions: Versions::NONE,
            exchange: None,
            to_salt: None,
            session: None,
            authenticated: false,
        }
    }

    pub(super) const fn state(&self) -> LinkState {
        self.state
    }

    /// The versions that both sides speak. Empty before they are agreed on.
    pub(super) const fn versions(&self) -> &Versions {
        &self.versions
    }

    pub(super) const fn session(&self) -> Option<SaslSession> {
        self.session
    }

    pub(super) const fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// The socket is connected. `None`: the socket was connected before.
    pub(super) fn on_connected(&mut self) -> Option<HandshakeStep> {
        self.state = self.state.on(LinkEvent::Connected)?;
        // KIP-35: the newest version first.
        Some(HandshakeStep::Versions(3))
    }

    /// Takes the response to the request that the state names.
    pub(super) fn on_response(
        &mut self,
        version: i16,
        body: Bytes,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        match self.state {
            LinkState::Negotiating => self.on_versions(version, body, cx),
            LinkState::ChoosingMechanism(_) => self.on_mechanism(version, body, cx),
            LinkState::Authenticating(_) => self.on_message(version, body, cx),
            LinkState::Identifying => self.on_cluster(version, body, cx),
            LinkState::Connecting | LinkState::Salting(_) | LinkState::Ready => {
                Err(KafkaError::Protocol("a response to something not asked"))
            }
        }
    }

    /// A broker that does not know the version of the request answers with error 35 in version 0
    /// (KIP-511).
    fn on_versions(
        &mut self,
        version: i16,
        body: Bytes,
        cx: &HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        const UNSUPPORTED_VERSION: i16 = 35;
        let code = body.first_chunk().map(|raw| i16::from_be_bytes(*raw));
        if code == Some(UNSUPPORTED_VERSION) && version > 0 {
            self.advance(LinkEvent::VersionsRejected)?;
            return Ok(HandshakeStep::Versions(0));
        }
        let response = wire::decode::<ApiVersionsRequest>(body, version)?;
        if response.error_code != 0 {
            return Err(KafkaError::Broker(Code(response.error_code)));
        }
        self.versions = Versions::negotiate(&response.api_keys);
        let metadata = self.versions.of(Api::Metadata);
        metadata.map_err(|_| KafkaError::NoMetadata)?;
        match cx.auth.mechanism() {
            Some(mechanism) => self.log_in(mechanism),
            None => self.identify(cx),
        }
    }

    /// Begins SASL: agrees on the mechanism.
    pub(super) fn log_in(&mut self, mechanism: &'static str) -> Result<HandshakeStep, KafkaError> {
        let version = self.versions.of(Api::SaslHandshake)?;
        self.versions.of(Api::SaslAuthenticate)?;
        self.advance(LinkEvent::LoginDue)?;
        (self.exchange, self.to_salt) = (None, None);
        Ok(HandshakeStep::Mechanism(version, mechanism))
    }

    fn on_mechanism(
        &mut self,
        version: i16,
        body: Bytes,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        check_mechanism(version, body, cx.auth)?;
        self.advance(LinkEvent::MechanismAccepted)?;
        let (exchange, message) = cx.auth.begin();
        self.exchange = Some(exchange);
        self.send_message(message)
    }

    fn on_message(
        &mut self,
        version: i16,
        body: Bytes,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        let response = wire::decode::<SaslAuthenticateRequest>(body, version)?;
        let exchange = self.exchange.take();
        if response.error_code != 0 {
            let message = response.error_message.unwrap_or_default();
            let against = exchange.as_ref().and_then(Exchange::against);
            let message = match (against, message.is_empty()) {
                (Some(against), _) => format!("{against} {message}"),
                (None, true) => Code(response.error_code).to_string(),
                (None, false) => message.to_string(),
            };
            return Err(cx.auth.refused(&message).into());
        }
        self.continue_exchange(exchange, response, cx)
    }

    /// The password is salted: answers the broker's message that waited for it. `None`: no message
    /// waited.
    pub(super) fn on_salted(
        &mut self,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<Option<HandshakeStep>, KafkaError> {
        let Some(response) = self.to_salt.take() else {
            return Ok(None);
        };
        let exchange = self.exchange.take();
        self.continue_exchange(exchange, response, cx).map(Some)
    }

    fn continue_exchange(
        &mut self,
        exchange: Option<Exchange>,
        response: SaslAuthenticateResponse,
        cx: &mut HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        let mut exchange = exchange.ok_or(KafkaError::Protocol("SASL without a mechanism"))?;
        match exchange.on_message(&response.auth_bytes, cx.auth)? {
            SaslStep::Send(message) => {
                self.advance(LinkEvent::MessageDue)?;
                self.exchange = Some(exchange);
                self.send_message(message)
            }
            SaslStep::Salt(request) => {
                self.advance(LinkEvent::SaltDue)?;
                cx.auth.salt(request);
                (self.exchange, self.to_salt) = (Some(exchange), Some(response));
                Ok(HandshakeStep::AwaitSalt)
            }
            SaslStep::Over => {
                self.session = SaslSession::new(response.session_lifetime_ms, cx.now, cx.jitter);
                // A session is only renewed on a connection that was identified before.
                if std::mem::replace(&mut self.authenticated, true) {
                    self.finish()
                } else {
                    self.identify(cx)
                }
            }
        }
    }

    fn send_message(&self, message: Vec<u8>) -> Result<HandshakeStep, KafkaError> {
        let version = self.versions.of(Api::SaslAuthenticate)?;
        Ok(HandshakeStep::Message(version, message))
    }

    /// Asks for the cluster's id before any other request, because another cluster may now listen
    /// at the same address. If no cluster is known yet, there is nothing to compare with.
    fn identify(&mut self, cx: &HandshakeContext<'_>) -> Result<HandshakeStep, KafkaError> {
        if cx.cluster.is_none() {
            return self.finish();
        }
        let version = self.versions.of(Api::Metadata)?;
        self.advance(LinkEvent::IdentityDue)?;
        Ok(HandshakeStep::Cluster(version))
    }

    fn on_cluster(
        &mut self,
        version: i16,
        body: Bytes,
        cx: &HandshakeContext<'_>,
    ) -> Result<HandshakeStep, KafkaError> {
        let response = wire::decode::<MetadataRequest>(body, version)?;
        same_cluster(cx.cluster, response.cluster_id.as_deref())?;
        self.finish()
    }

    fn finish(&mut self) -> Result<HandshakeStep, KafkaError> {
        self.advance(LinkEvent::SetUp)?;
        Ok(HandshakeStep::Done)
    }

    fn advance(&mut self, event: LinkEvent) -> Result<(), KafkaError> {
        let next = self.state.on(event);
        self.state = next.ok_or(KafkaError::Protocol("a response out of turn"))?;
        Ok(())
    }
}

/// Rejects a broker of another cluster. Accepts a broker that reports no cluster id.
pub(super) fn same_cluster(ours: Option<&str>, theirs: Option<&str>) -> Result<(), KafkaError> {
    match ours.zip(theirs) {
        Some((ours, theirs)) if ours != theirs => Err(KafkaError::OtherCluster {
            ours: sanitize(ours),
            theirs: sanitize(theirs),
        }),
        _ => Ok(()),
    }
}

/// Whether the broker accepts the client's mechanism.
fn check_mechanism(version: i16, body: Bytes, auth: &Auth) -> Result<(), KafkaError> {
    const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
    const ILLEGAL_SASL_STATE: i16 = 34;
    let response = wire::decode::<SaslHandshakeRequest>(body, version)?;
    let offered = || {
        let all: Vec<&str> = response.mechanisms.iter().map(|it| &**it).collect();
        sanitize(&all.join(", "))
    };
    match response.error_code {
        0 => Ok(()),
        UNSUPPORTED_SASL_MECHANISM => Err(KafkaError::Sasl(SaslError::Mechanism {
            wanted: auth.mechanism().unwrap_or_default(),
            offered: offered(),
        })),
        ILLEGAL_SASL_STATE => Err(KafkaError::Sasl(SaslError::NotAsked)),
        code => Err(KafkaError::Broker(Code(code))),
    }
}
