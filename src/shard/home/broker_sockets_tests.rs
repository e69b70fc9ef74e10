//! TLS between a client and a broker that speaks it, over a socket that takes a little at a time.

use std::collections::VecDeque;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;
use crate::kafka::{Address, DirectoryRole, Settings};
use crate::model::{Instant, TopicName, UnixMillis};
use crate::shard::io::Part;
use crate::tls::{Acceptor, Roots, TicketKeys};

const SOCKET: SocketId = SocketId {
    slot: 3,
    generation: 1,
};
const NOW: Now = Now {
    mono: Instant::from_nanos(1),
    wall: UnixMillis(1_800_000_000_000),
};

/// A socket in memory, which takes a little at a time.
#[derive(Default)]
struct Pipe {
    to_us: VecDeque<u8>,
    scratch: Vec<u8>,
    from_us: Vec<u8>,
    ended: bool,
    /// Bytes a write takes, and how many writes are left until it is full.
    piece: usize,
    room: usize,
}

impl Io for Pipe {
    fn read(&mut self, _: SocketId) -> Read<'_> {
        let piece = self.to_us.len().min(self.piece);
        self.scratch = self.to_us.drain(..piece).collect();
        if !self.scratch.is_empty() {
            Read::Bytes(&self.scratch)
        } else if self.ended {
            Read::Closed(None)
        } else {
            Read::Blocked
        }
    }

    fn write(&mut self, _: SocketId, slices: &[IoSlice<'_>]) -> Write {
        let take = slices[0].len().min(self.room);
        self.room -= take;
        self.from_us.extend_from_slice(&slices[0][..take]);
        Write::Taken(take)
    }

    fn spent(&mut self, _: Part) -> bool {
        false
    }
}

/// A client that wants to connect, its sockets, and the CA and the broker's side.
struct Ground {
    client: Client,
    sockets: BrokerSockets,
    pipe: Pipe,
    outputs: Outputs<(), ()>,
    broker: Session,
}

fn ground(host: &str, certified: &str) -> Ground {
    let (ca_key, key) = (KeyPair::generate(), KeyPair::generate());
    let (ca_key, key) = (ca_key.expect("a key"), key.expect("a key"));
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate").pem();
    let named = CertificateParams::new(vec![certified.to_owned()]).expect("a name");
    let chain = named.signed_by(&key, &Issuer::new(params, ca_key));
    let chain = chain.expect("a certificate").pem();
    let key = key.serialize_pem();
    let tickets = TicketKeys::new(&[7; 32]);
    let acceptor = Acceptor::from_pem(chain.as_bytes(), key.as_bytes(), tickets);
    let settings = Settings {
        bootstrap: vec![Address {
            host: host.into(),
            port: 1,
        }],
        ..Settings::default()
    };
    let mut client = Client::new(settings, 7, DirectoryRole::Own, NOW);
    client.watch(&TopicName::new("t").expect("a name"));
    client.on_time(NOW);
    let connector = Connector::new(Roots::Given(ca.as_bytes()), None).expect("a CA");
    Ground {
        client,
        sockets: BrokerSockets::new(
            crate::shard::ClusterId::default(),
            Some(connector),
            ClusterKeys::default(),
        ),
        pipe: Pipe {
            piece: 100,
            ..Pipe::default()
        },
        outputs: Outputs::default(),
        broker: Session::new(&acceptor.expect("they fit"), false, NOW).expect("a session"),
    }
}

impl Ground {
    /// The client asks for the socket, and the connection is established.
    fn open(&mut self) {
        self.pump();
        let [open] = &self.outputs.open[..] else {
            panic!("one is wanted: {:?}", self.outputs.open);
        };
        let ticket = open.ticket;
        self.sockets.on_opened(
            ticket,
            SOCKET,
            &mut self.client,
            &mut self.pipe,
            NOW,
            &mut self.outputs,
        );
    }

    fn pump(&mut self) {
        self.sockets
            .pump(&mut self.client, &mut self.pipe, NOW, &mut self.outputs);
    }

    /// Moves bytes until nothing moves. Returns what the broker received.
    fn settle(&mut self) -> Vec<u8> {
        let mut told = Vec::new();
        for _ in 0..10_000 {
            self.pipe.room = 50;
            self.sockets.write(
                SOCKET,
                &mut self.client,
                &mut self.pipe,
                NOW,
                &mut self.outputs,
            );
            self.pump();
            let up = std::mem::take(&mut self.pipe.from_us);
            let failed = self.broker.on_bytes(&up, &mut told).is_err();
            let down = self.broker.outgoing().to_vec();
            self.broker.on_sent(down.len());
            self.pipe.to_us.extend(&down);
            self.sockets.on_readable(SOCKET);
            let _more = self
                .sockets
                .read(&mut self.client, &mut self.pipe, NOW, &mut self.outputs);
            let still = up.is_empty() && down.is_empty() && self.pipe.to_us.is_empty();
            if failed || still {
                return told;
            }
        }
        panic!("it never comes to rest");
    }

    fn down(&mut self) -> String {
        self.client.on_time(NOW);
        while let Some(event) = self.client.next_event() {
            if let crate::kafka::Event::BrokerDown { error, .. } = event {
                return error.to_string();
            }
        }
        panic!("nobody is down");
    }
}

#[test]
fn the_first_request_goes_when_the_broker_is_proven_however_the_bytes_are_cut() {
    let mut ground = ground("kafka.example", "kafka.example");
    ground.open();
    let told = ground.settle();
    // ApiVersions (18), version 3, behind its length.
    assert_eq!(told[4..8], [0, 18, 0, 3]);
    assert!(!told.windows(2).any(|it| it == b"\x16\x03"), "plaintext");
    assert_eq!(ground.sockets.len(), 1);
}

#[test]
fn a_broker_of_another_name_gets_nothing_and_is_named() {
    let mut ground = ground("kafka.example", "other.example");
    ground.open();
    assert_eq!(ground.settle(), b"");
    assert_eq!(
        (ground.sockets.len(), &ground.outputs.close[..]),
        (0, &[SOCKET][..])
    );
    let said = ground.down();
    assert!(said.contains("kafka.bootstrap"), "{said}");
}

#[test]
fn an_end_within_the_handshake_is_no_mere_close() {
    let mut ground = ground("kafka.example", "kafka.example");
    ground.open();
    ground.pipe.ended = true;
    let it = &mut ground;
    let _more = it
        .sockets
        .read(&mut it.client, &mut it.pipe, NOW, &mut it.outputs);
    let said = ground.down();
    assert!(said.contains("does this port speak TLS?"), "{said}");
}

#[test]
fn a_socket_that_comes_after_the_client_gave_up_is_closed() {
    let mut ground = ground("kafka.example", "kafka.example");
    ground.pump();
    let late = Now {
        mono: NOW.mono.after(std::time::Duration::from_secs(10)),
        ..NOW
    };
    ground.client.on_time(late);
    ground.open();
    assert_eq!(
        (ground.sockets.len(), &ground.outputs.close[..]),
        (0, &[SOCKET][..])
    );
}
