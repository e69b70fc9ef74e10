//! The client's connections on the shard's sockets. If the cluster uses TLS, it ends here: the
//! client learns of a connection once TLS is established, and sees plaintext only.

use std::io::{ErrorKind, IoSlice};

use crate::config::ClusterKeys;
use crate::kafka::{Client, KafkaError, LinkId};
use crate::model::{Now, low_u8, low_u32};
use crate::shard::ciphertext::{Flushed, flush};
use crate::shard::io::{Io, Open, OpenTicket, Outputs, Part, Read, SocketId, Write};
use crate::shard::snapshot::ClusterId;
use crate::tls::{Blame, Connector, Session, TlsError};

/// The client's sockets: a handful per broker.
#[derive(Debug)]
pub(in crate::shard) struct BrokerSockets {
    cluster: ClusterId,
    open: Vec<BrokerSocket>,
    tls: Option<Connector>,
    /// How messages name the cluster's settings.
    keys: ClusterKeys,
    /// Scratch for the plaintext of one read.
    plain: Vec<u8>,
}

#[derive(Debug)]
struct BrokerSocket {
    id: LinkId,
    socket: SocketId,
    /// Whether the socket may have bytes to read.
    readable: bool,
    tls: Option<Tls>,
}

/// The TLS session of one connection.
#[derive(Debug)]
struct Tls {
    session: Box<Session>,
    /// Whether it was reported to the client as established.
    told: bool,
}

/// The state of a connection after a read or a write.
enum Fate {
    Stands,
    /// The broker closed it, or it failed.
    Ended,
    /// The TLS session failed with this error.
    Failed(TlsError),
}

/// Reads of one broker socket in one turn: 64 KiB each, so a large fetch takes some turns and
/// clients theirs between.
const READS_A_TURN_MAX: usize = 16;

/// Bytes of the plaintext buffer that are kept. A large response makes it larger.
const PLAIN_BYTES_KEPT: usize = 128 << 10;

impl BrokerSockets {
    /// No sockets yet, for connections to one cluster.
    pub(in crate::shard) fn new(
        cluster: ClusterId,
        tls: Option<Connector>,
        keys: ClusterKeys,
    ) -> Self {
        let (open, plain) = (Vec::new(), Vec::new());
        Self {
            cluster,
            open,
            tls,
            keys,
            plain,
        }
    }

    /// The cluster that a ticket belongs to.
    pub(in crate::shard) const fn cluster_of(ticket: OpenTicket) -> ClusterId {
        ClusterId(low_u8(ticket.0 >> 32))
    }

    /// The number of open sockets.
    pub(in crate::shard) const fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a socket is one of these.
    pub(in crate::shard) fn has(&self, socket: SocketId) -> bool {
        self.open.iter().any(|link| link.socket == socket)
    }

    /// A socket is connected. Starts TLS, or reports the connection to the client.
    pub(in crate::shard) fn on_opened<I: Io, M, C>(
        &mut self,
        ticket: OpenTicket,
        socket: SocketId,
        client: &mut Client,
        io: &mut I,
        now: Now,
        outputs: &mut Outputs<M, C>,
    ) {
        let id = LinkId(low_u32(ticket.0));
        let Some(host) = client.host(id) else {
            // The client abandoned the connection before there was a socket to close.
            return outputs.close.push(socket);
        };
        let tls = match &self.tls {
            None => None,
            Some(connector) => match Session::connect(connector, host, now) {
                Ok(session) => Some(Tls {
                    session: Box::new(session),
                    told: false,
                }),
                Err(error) => {
                    outputs.close.push(socket);
                    return client.on_failed(id, KafkaError::Tls(words(&error, &self.keys)), now);
                }
            },
        };
        let plain = tls.is_none();
        self.open.push(BrokerSocket {
            id,
            socket,
            readable: true,
            tls,
        });
        if plain {
            client.on_opened(id, now);
        } else {
            self.write(socket, client, io, now, outputs);
        }
    }

    /// A connection could not be established.
    pub(in crate::shard) fn on_failed(
        &self,
        ticket: OpenTicket,
        error: ErrorKind,
        client: &mut Client,
        now: Now,
    ) {
        client.on_open_failed(LinkId(low_u32(ticket.0)), error, now);
    }

    /// A broker's socket may have bytes, which [`Self::read`] reads later.
    pub(in crate::shard) fn on_readable(&mut self, socket: SocketId) {
        if let Some(link) = self.open.iter_mut().find(|link| link.socket == socket) {
            link.readable = true;
        }
    }

    /// Reads what brokers sent, until the part is spent. Returns true if there is more.
    #[must_use = "if it returns true, another turn is due"]
    pub(in crate::shard) fn read<M, C>(
        &mut self,
        client: &mut Client,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M, C>,
    ) -> bool {
        let (plain, keys) = (&mut self.plain, &self.keys);
        let mut reads = 0;
        self.open.retain_mut(|link| {
            for _ in 0..READS_A_TURN_MAX {
                // Read at least once, or the clusters before this one could starve it. The question
                // also starts the part's clock.
                if !link.readable || io.spent(Part::Kafka) && reads > 0 {
                    break;
                }
                reads += 1;
                let fate = link.read(client, io, now, plain);
                if !link.settle(fate, keys, client, now, outputs) {
                    return false;
                }
            }
            true
        });
        plain.shrink_to(PLAIN_BYTES_KEPT);
        let more = self.open.iter().any(|link| link.readable);
        if more {
            self.open.rotate_left(1); // Another link is first.
        }
        more
    }

    /// Opens, closes and writes what the client wants.
    pub(in crate::shard) fn pump<M, C>(
        &mut self,
        client: &mut Client,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M, C>,
    ) {
        while let Some((link, address)) = client.next_open() {
            let ticket = OpenTicket(u64::from(self.cluster.0) << 32 | u64::from(link.0));
            outputs.open.push(Open {
                ticket,
                host: address.host,
                port: address.port,
            });
        }
        while let Some(id) = client.next_writable() {
            if let Some(socket) = self
                .open
                .iter()
                .find(|l| l.id == id)
                .map(|link| link.socket)
            {
                self.write(socket, client, io, now, outputs);
            }
        }
        while let Some(id) = client.next_close() {
            if let Some(at) = self.open.iter().position(|link| link.id == id) {
                let mut link = self.open.swap_remove(at);
                link.say_goodbye(io);
                outputs.close.push(link.socket);
            }
        }
    }

    /// Writes until the socket is full. The rest is written at its next `Writable`.
    pub(in crate::shard) fn write<M, C>(
        &mut self,
        socket: SocketId,
        client: &mut Client,
        io: &mut impl Io,
        now: Now,
        outputs: &mut Outputs<M, C>,
    ) {
        let Some(at) = self.open.iter().position(|link| link.socket == socket) else {
            return;
        };
        let fate = self.open[at].write(client, io);
        if !self.open[at].settle(fate, &self.keys, client, now, outputs) {
            self.open.swap_remove(at);
        }
    }
}

impl BrokerSocket {
    /// Reads the socket once, and hands the plaintext to the client.
    fn read(
        &mut self,
        client: &mut Client,
        io: &mut impl Io,
        now: Now,
        plain: &mut Vec<u8>,
    ) -> Fate {
        let bytes = match io.read(self.socket) {
            Read::Bytes(bytes) => bytes,
            Read::Blocked => {
                self.readable = false;
                return Fate::Stands;
            }
            Read::Closed(_) => return Fate::Ended,
        };
        let Some(tls) = &mut self.tls else {
            client.on_bytes(self.id, bytes, now);
            return Fate::Stands;
        };
        plain.clear();
        let outcome = tls.session.on_bytes(bytes, plain);
        if outcome.is_ok() && !tls.told && !tls.session.is_handshaking() {
            tls.told = true;
            client.on_opened(self.id, now);
        }
        if !plain.is_empty() {
            client.on_bytes(self.id, plain, now);
        }
        // A handshake answers at once, and an alert must reach the broker before the close.
        match (flush(&mut tls.session, self.socket, io), outcome) {
            (_, Err(error)) => Fate::Failed(error),
            (Flushed::Gone, Ok(())) => Fate::Ended,
            (_, Ok(())) => Fate::Stands,
        }
    }

    fn write(&mut self, client: &mut Client, io: &mut impl Io) -> Fate {
        loop {
            if let Some(tls) = &mut self.tls {
                match flush(&mut tls.session, self.socket, io) {
                    Flushed::All if tls.told => {}
                    Flushed::All | Flushed::Part => return Fate::Stands,
                    Flushed::Gone => return Fate::Ended,
                }
            }
            let bytes = client.outgoing(self.id);
            if bytes.is_empty() {
                return Fate::Stands;
            }
            let offered = bytes.len();
            let slices = [IoSlice::new(bytes)];
            let taken = match &mut self.tls {
                Some(tls) => tls.session.take(&slices),
                None => match io.write(self.socket, &slices) {
                    Write::Taken(taken) => taken,
                    Write::Closed => return Fate::Ended,
                },
            };
            client.on_written(self.id, taken);
            if self.tls.is_none() && taken < offered {
                return Fate::Stands;
            }
        }
    }

    /// Reports the end of a connection to the client. Returns false if it has ended.
    fn settle<M, C>(
        &self,
        fate: Fate,
        keys: &ClusterKeys,
        client: &mut Client,
        now: Now,
        outputs: &mut Outputs<M, C>,
    ) -> bool {
        match fate {
            Fate::Stands => return true,
            Fate::Ended if self.tls.as_ref().is_some_and(|tls| !tls.told) => {
                let key = keys.key("tls.enabled");
                let text = format!(
                    "the broker closed the connection during the handshake; does this port speak \
                     TLS? If not, set {key} to false"
                );
                client.on_failed(self.id, KafkaError::Tls(text), now);
            }
            Fate::Ended => client.on_closed(self.id, now),
            Fate::Failed(error) => {
                client.on_failed(self.id, KafkaError::Tls(words(&error, keys)), now);
            }
        }
        outputs.close.push(self.socket);
        false
    }

    /// Sends TLS's close_notify as far as the socket takes it, so that the broker can tell an
    /// orderly end from a cut.
    fn say_goodbye(&mut self, io: &mut impl Io) {
        if let Some(tls) = &mut self.tls {
            tls.session.close();
            let _last = flush(&mut tls.session, self.socket, io);
        }
    }
}

/// The cause of a failure, and what to do.
fn words(error: &TlsError, keys: &ClusterKeys) -> String {
    let help = match error.blame() {
        Blame::UnknownIssuer => format!("set {} to the CA of the brokers", keys.key("tls.ca")),
        Blame::WrongName => format!(
            "call the broker by a name of its certificate ({}, or the broker's \
             advertised.listeners), or give it a certificate for this one",
            keys.key("bootstrap")
        ),
        Blame::NotValid => "renew the broker's certificate, or correct a clock".into(),
        Blame::Certificate => "give the broker a certificate that clients can check".into(),
        Blame::Us => format!(
            "set {} to ones that the broker trusts",
            keys.key("tls.certificate and key")
        ),
        Blame::NotTls => format!(
            "this port does not speak TLS: take the TLS port, or disable {}",
            keys.key("tls")
        ),
        Blame::NothingCommon => "allow TLS 1.2 or 1.3 with common ciphers on the broker".into(),
        Blame::Other => return error.to_string(),
    };
    format!("{error}; {help}")
}

#[cfg(test)]
#[path = "broker_sockets_tests.rs"]
mod tests;
