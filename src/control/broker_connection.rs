//! One connection to one broker, for the commands of an operator and for tests: one request at a
//! time, by `kafka-protocol` on a socket of its own. The gateway's own client (`kafka/`) creates no
//! topics and answers no questions, and it reconnects where a command has to report an error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{
    Decodable, Encodable as _, HeaderVersion, Message, Request, StrBytes, VersionRange,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::BrokerAddress;
use crate::kafka::{Entropy, Login, Sasl};
use crate::model::{self, Now, Secret, UnixMillis};
use crate::tls::{Connector, Session};

/// Most bytes of a response. The metadata of a few topics is far smaller.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Time for one broker of the bootstrap list to answer its first request.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Most bytes read from a socket at once.
const READ_BYTES: usize = 16 << 10;

/// Why a broker did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No broker of the bootstrap list responds.
    #[error("no broker of {brokers} answers: {last}")]
    Unreachable {
        /// The brokers that were tried, separated by commas.
        brokers: String,
        /// The error of the last broker.
        last: std::io::Error,
    },
    /// The connection failed, or the time was up.
    #[error("the broker {broker} did not answer: {source}")]
    Broken {
        /// The broker of the connection.
        broker: BrokerAddress,
        /// The error of the connection.
        source: std::io::Error,
    },
    /// The broker refuses the login.
    #[error("the broker {broker} refuses the login: {detail}")]
    Login {
        /// The broker of the connection.
        broker: BrokerAddress,
        /// The reason, in the broker's words.
        detail: String,
    },
    /// The broker and this code have no common version of a request, or its response cannot be
    /// decoded.
    #[error("the broker does not speak our {api}: {detail}")]
    Protocol {
        /// Type name of the request.
        api: &'static str,
        /// What is wrong, in a few words.
        detail: String,
    },
}

/// How connections to a cluster are secured.
#[derive(Clone, Debug, Default)]
pub struct BrokerSecurity {
    /// TLS settings. `None`: connections are plaintext.
    pub tls: Option<Connector>,
    /// Credentials with entropy for their nonces. `None`: connections do not authenticate.
    pub sasl: Option<(Sasl, Entropy)>,
    /// The token of OAUTHBEARER.
    pub token: Option<Secret>,
}

/// One connection with one request at a time.
pub(super) struct BrokerConnection {
    pub(super) broker: BrokerAddress,
    wire: Wire,
    until: Instant,
    versions: ApiVersionsResponse,
    correlation: i32,
}

impl BrokerConnection {
    /// Connects to the first broker of a list that answers.
    pub(super) async fn open_any(
        bootstrap: &[BrokerAddress],
        security: &BrokerSecurity,
        until: Instant,
    ) -> Result<Self, AskError> {
        let mut last = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        for address in bootstrap {
            // An unresponsive broker must not use up the time for the others.
            let mine = until.min(Instant::now() + CONNECT_WAIT);
            match Self::open(address, security, mine).await {
                Ok(connection) => {
                    return Ok(Self {
                        until,
                        ..connection
                    });
                }
                Err(AskError::Broken { source, .. }) => last = source,
                Err(other) => return Err(other),
            }
        }
        let brokers: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
        let brokers = brokers.join(", ");
        Err(AskError::Unreachable { brokers, last })
    }

    /// Connects to one broker, agrees on versions, and logs in.
    pub(super) async fn open(
        broker: &BrokerAddress,
        security: &BrokerSecurity,
        until: Instant,
    ) -> Result<Self, AskError> {
        let connecting = Wire::connect(broker, security.tls.as_ref());
        let wire = in_time(broker, until, connecting).await?;
        let mut connection = Self {
            broker: broker.clone(),
            wire,
            until,
            versions: ApiVersionsResponse::default(),
            correlation: 0,
        };
        // Every broker answers version 0, even one that supports no other version of ours.
        connection.versions = connection.ask(ApiVersionsRequest::default(), 0).await?;
        if let Some((sasl, entropy)) = &security.sasl {
            let login = Login::begin(sasl.clone(), security.token.clone(), *entropy);
            connection.log_in(sasl.mechanism(), login).await?;
        }
        Ok(connection)
    }

    async fn log_in(
        &mut self,
        mechanism: &'static str,
        (mut login, mut message): (Login, Vec<u8>),
    ) -> Result<(), AskError> {
        let version = self.version::<SaslHandshakeRequest>(1, 1)?;
        let request = SaslHandshakeRequest::default();
        let request = request.with_mechanism(StrBytes::from_static_str(mechanism));
        let response = self.ask(request, version).await?;
        if response.error_code != 0 {
            let offered: Vec<&str> = response.mechanisms.iter().map(|it| &**it).collect();
            let offered = offered.join(", ");
            return Err(self.login_error(format!("it offers {offered}, not {mechanism}")));
        }
        let version = self.version::<SaslAuthenticateRequest>(0, 2)?;
        loop {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
            let response = self.ask(request, version).await?;
            if response.error_code != 0 {
                let text = response.error_message.unwrap_or_default();
                return Err(self.login_error(login.refused(&text).to_string()));
            }
            match login.on_message(&response.auth_bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(next)) => message = next,
                Err(error) => return Err(self.login_error(error.to_string())),
            }
        }
    }

    fn login_error(&self, detail: String) -> AskError {
        let broker = self.broker.clone();
        AskError::Login { broker, detail }
    }

    /// Sets until when the next requests must be answered.
    pub(super) const fn set_until(&mut self, until: Instant) {
        self.until = until;
    }

    /// The highest version from `min` to `max` that the broker supports.
    pub(super) fn version<R: Request + Message>(
        &self,
        min: i16,
        max: i16,
    ) -> Result<i16, AskError> {
        let keys = &mut self.versions.api_keys.iter();
        let theirs = keys.find(|it| it.api_key == R::KEY).map(|it| VersionRange {
            min: it.min_version,
            max: it.max_version,
        });
        let theirs = theirs.unwrap_or(VersionRange { min: 1, max: 0 });
        let common = theirs.intersect(&VersionRange { min, max });
        if common.is_empty() {
            let detail = format!("it has versions {theirs}, we {min} to {max}");
            return Err(protocol::<R>(detail));
        }
        Ok(common.max)
    }

    /// Sends a request in this version, and returns its response.
    pub(super) async fn ask<R: Request>(
        &mut self,
        request: R,
        version: i16,
    ) -> Result<R::Response, AskError> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("sluicegate-admin")));
        let frame = encode(&header, &request, version).map_err(protocol::<R>)?;
        let answer = in_time(&self.broker, self.until, exchange(&mut self.wire, &frame)).await?;
        let (correlation, response) = decode::<R>(answer, version).map_err(protocol::<R>)?;
        if correlation == self.correlation {
            Ok(response)
        } else {
            Err(protocol::<R>("it answered another request".into()))
        }
    }
}

/// The bytes of a connection, within TLS if the cluster has it.
struct Wire {
    stream: TcpStream,
    tls: Option<Session>,
    /// Plaintext that was received within TLS and not read yet.
    plain: Vec<u8>,
}

impl Wire {
    async fn connect(broker: &BrokerAddress, tls: Option<&Connector>) -> std::io::Result<Self> {
        let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
        let session = tls.map(|tls| Session::connect(tls, &broker.host, now()));
        let mut wire = Self {
            stream,
            tls: session.transpose().map_err(std::io::Error::other)?,
            plain: Vec::new(),
        };
        wire.flush().await?;
        while wire.tls.as_ref().is_some_and(Session::is_handshaking) {
            wire.fill().await?;
        }
        Ok(wire)
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        let Some(_) = &self.tls else {
            return self.stream.write_all(bytes).await;
        };
        while !bytes.is_empty() {
            if let Some(tls) = &mut self.tls {
                let taken = tls.take(&[std::io::IoSlice::new(bytes)]);
                bytes = &bytes[taken..];
            }
            self.flush().await?;
        }
        Ok(())
    }

    async fn read_exact(&mut self, into: &mut [u8]) -> std::io::Result<()> {
        if self.tls.is_none() {
            return self.stream.read_exact(into).await.map(drop);
        }
        while self.plain.len() < into.len() {
            self.fill().await?;
        }
        into.copy_from_slice(&self.plain[..into.len()]);
        self.plain.drain(..into.len());
        Ok(())
    }

    /// Reads ciphertext once, and sends what TLS answers.
    async fn fill(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let read = self.stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let taken = tls.on_bytes(&buffer[..read], &mut self.plain);
        // An alert tells the broker why.
        let flushed = self.flush().await;
        taken.map_err(std::io::Error::other)?;
        flushed
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while !tls.outgoing().is_empty() {
            let sent = self.stream.write(tls.outgoing()).await?;
            tls.on_sent(sent);
        }
        Ok(())
    }
}

/// The wall time, for certificates.
fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    Now {
        mono: model::Instant::ZERO,
        wall: UnixMillis(wall),
    }
}

fn encode<R: Request>(
    header: &RequestHeader,
    request: &R,
    version: i16,
) -> Result<BytesMut, String> {
    let mut frame = BytesMut::zeroed(4);
    header
        .encode(&mut frame, R::header_version(version))
        .and_then(|()| request.encode(&mut frame, version))
        .map_err(|error| error.to_string())?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| "too long".to_owned())?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn decode<R: Request>(mut answer: Bytes, version: i16) -> Result<(i32, R::Response), String> {
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut answer, header_version);
    let header = header.map_err(|error| error.to_string())?;
    let response = R::Response::decode(&mut answer, version);
    let response = response.map_err(|error| error.to_string())?;
    if answer.has_remaining() {
        Err(format!("{} bytes are left over", answer.remaining()))
    } else {
        Ok((header.correlation_id, response))
    }
}

async fn exchange(wire: &mut Wire, frame: &[u8]) -> std::io::Result<Bytes> {
    wire.write_all(frame).await?;
    let mut length = [0; 4];
    wire.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > ANSWER_BYTES_MAX {
        let detail = format!("an answer of {length} bytes; is this a Kafka port?");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, detail));
    }
    let mut answer = vec![0; length];
    wire.read_exact(&mut answer).await?;
    Ok(answer.into())
}

async fn in_time<T>(
    broker: &BrokerAddress,
    until: Instant,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, AskError> {
    let timed_out = || Err(std::io::ErrorKind::TimedOut.into());
    let result = timeout_at(until, work)
        .await
        .unwrap_or_else(|_| timed_out());
    let broker = broker.clone();
    result.map_err(|source| AskError::Broken { broker, source })
}

fn protocol<R: Request>(detail: String) -> AskError {
    let api = std::any::type_name::<R>();
    let api = api.rsplit("::").next().unwrap_or(api);
    AskError::Protocol { api, detail }
}
