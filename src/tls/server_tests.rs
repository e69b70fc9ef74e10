//! Tests of the server side, with rustls as the client.

use std::io::{IoSlice, Read as _, Write as _};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use super::session::OUTGOING_BYTES_MAX;
use super::{Acceptor, ClientAuthorities, HTTP2, ServerCertificate, Session, TicketKeys, TlsError};
use crate::model::{CertificateName, Instant, Now, UnixMillis};

/// A time at which rcgen's certificates are valid: they end in the year 4096.
const NOW: Now = Now {
    mono: Instant::ZERO,
    wall: UnixMillis(1_800_000_000_000),
};

fn tickets() -> TicketKeys {
    TicketKeys::new(&[7; 32])
}

fn self_signed(name: &str) -> (ServerCertificate, RootCertStore) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let certificate = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes());
    (certificate.expect("they match"), roots)
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn client(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(config.clone(), name).expect("a client")
}

fn client_and_session() -> (ClientConnection, Session) {
    let (certificate, roots) = self_signed("localhost");
    let acceptor = Acceptor::new(&certificate, &[], None, tickets()).expect("an acceptor");
    let session = Session::new(&acceptor, false, NOW).expect("a session");
    (client(&client_config(roots), "localhost"), session)
}

/// Moves bytes both ways until none are left, `piece` bytes at a time towards the server.
fn try_exchange(
    client: &mut ClientConnection,
    session: &mut Session,
    piece: usize,
) -> Result<Vec<u8>, TlsError> {
    let mut plain = Vec::new();
    loop {
        let mut up = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut up).expect("memory");
        }
        for part in up.chunks(piece) {
            session.on_bytes(part, &mut plain)?;
        }
        let down = session.outgoing().to_vec();
        session.on_sent(down.len());
        if up.is_empty() && down.is_empty() {
            return Ok(plain);
        }
        let mut rest = &down[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
    }
}

fn exchange_bytes(client: &mut ClientConnection, session: &mut Session, piece: usize) -> Vec<u8> {
    try_exchange(client, session, piece).expect("both are well-behaved")
}

#[test]
fn plaintext_crosses_both_ways_however_the_ciphertext_is_cut() {
    for piece in [1, 7, 16_000] {
        let (mut client, mut session) = client_and_session();
        client
            .writer()
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("memory");
        assert_eq!(
            exchange_bytes(&mut client, &mut session, piece),
            b"GET / HTTP/1.1\r\n\r\n"
        );
        assert_eq!(session.client_certificate(), None);
        let slices = [IoSlice::new(b"data: one\n"), IoSlice::new(b"\n")];
        assert_eq!(session.take(&slices), 11);
        exchange_bytes(&mut client, &mut session, piece);
        let mut got = [0; 11];
        client.reader().read_exact(&mut got).expect("it arrived");
        assert_eq!(&got, b"data: one\n\n");
    }
}

/// RFC 8446 5.1: a chunk of a stream (head, frames, end) is one record of at most 2^14 bytes.
#[test]
fn slices_of_one_offer_share_records() {
    let (mut client, mut session) = client_and_session();
    exchange_bytes(&mut client, &mut session, 16_000);
    let frames = vec![b'x'; (1 << 14) - 8];
    let slices = [
        IoSlice::new(b"3ff8\r\n"),
        IoSlice::new(&frames[..1000]),
        IoSlice::new(&frames[1000..]),
        IoSlice::new(b"\r\n"),
    ];
    assert_eq!(session.take(&slices), 1 << 14);
    let record = session.outgoing();
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    assert_eq!(record.len(), 5 + len, "one record and no more");
}

#[test]
fn a_slow_socket_bounds_what_is_taken() {
    let (mut client, mut session) = client_and_session();
    exchange_bytes(&mut client, &mut session, 16_000);
    let megabyte = vec![b'x'; 1 << 20];
    let taken = session.take(&[IoSlice::new(&megabyte)]);
    assert_eq!(taken, OUTGOING_BYTES_MAX);
    assert_eq!(session.take(&[IoSlice::new(&megabyte)]), 0);
    session.on_sent(session.outgoing().len());
    assert_eq!(session.room(), OUTGOING_BYTES_MAX);
}

#[test]
fn what_is_no_certificate_is_named() {
    let error = Acceptor::from_pem(b"hello", b"hello", tickets()).expect_err("no PEM");
    assert!(matches!(error, TlsError::Certificate(_)), "{error}");
}

#[test]
fn a_peer_that_speaks_plain_http_gets_an_alert() {
    let (_, mut session) = client_and_session();
    let mut plain = Vec::new();
    session
        .on_bytes(b"GET / HTTP/1.1\r\n\r\n", &mut plain)
        .expect_err("that is no TLS");
    assert!(plain.is_empty() && !session.outgoing().is_empty());
}

/// Each client gets the certificate of the host that it asks for, and trusts only that.
#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let (default, default_roots) = self_signed("localhost");
    let (shop, shop_roots) = self_signed("*.shop.example");
    let acceptor = Acceptor::new(&default, &[shop], None, tickets()).expect("an acceptor");
    let (default_config, shop_config) = (client_config(default_roots), client_config(shop_roots));
    let meets = |config: &Arc<ClientConfig>, name: &str| {
        let mut session = Session::new(&acceptor, false, NOW).expect("a session");
        try_exchange(&mut client(config, name), &mut session, 16_000).is_ok()
    };
    assert!(meets(&default_config, "localhost"));
    assert!(meets(&shop_config, "api.shop.example"));
    assert!(
        !meets(&shop_config, "localhost"),
        "the default's is another"
    );
    assert!(!meets(&default_config, "api.shop.example"));
    assert!(!meets(&shop_config, "a.api.shop.example"));
}

#[test]
fn http2_is_agreed_on_only_if_both_ends_offer_it() {
    let (certificate, roots) = self_signed("localhost");
    let acceptor = Acceptor::new(&certificate, &[], None, tickets()).expect("an acceptor");
    for (offered, protocols, wanted) in [
        (true, &[HTTP2, b"http/1.1"][..], Some(HTTP2)),
        (false, &[HTTP2, b"http/1.1"], Some(b"http/1.1".as_slice())),
        (true, &[b"http/1.1"], Some(b"http/1.1")),
        (true, &[], None),
    ] {
        let mut config = (*client_config(roots.clone())).clone();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let mut session = Session::new(&acceptor, offered, NOW).expect("a session");
        assert_eq!(session.protocol(), None);
        exchange_bytes(
            &mut client(&Arc::new(config), "localhost"),
            &mut session,
            16_000,
        );
        assert_eq!(session.protocol(), wanted);
    }
}

/// A session that one shard began is resumed by another one, without a full handshake: also after
/// the keys have rotated once, and not after they have rotated twice.
#[test]
fn a_ticket_resumes_a_session_on_another_shard() {
    let (certificate, roots) = self_signed("localhost");
    let keys = tickets();
    let first = Acceptor::new(&certificate, &[], None, keys.clone()).expect("an acceptor");
    let rotated = first.with_tickets(keys.rotated(&[8; 32]));
    let too_late = first.with_tickets(keys.rotated(&[8; 32]).rotated(&[9; 32]));
    for versions in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let cases = [
            (&first, HandshakeKind::Resumed),
            (&rotated, HandshakeKind::Resumed),
            (&too_late, HandshakeKind::Full),
        ];
        for (second, wanted) in cases {
            let provider = aws_lc_rs::default_provider().into();
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[versions])
                .expect("a version")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            let config = Arc::new(config);
            let kind = |acceptor: &Acceptor| {
                let mut client = client(&config, "localhost");
                let mut session = Session::new(acceptor, false, NOW).expect("a session");
                exchange_bytes(&mut client, &mut session, 16_000);
                client.handshake_kind()
            };
            assert_eq!(kind(&first), Some(HandshakeKind::Full));
            // The other shard has a copy of its own.
            assert_eq!(kind(&second.clone()), Some(wanted));
        }
    }
}

/// An authority, and certificates that it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate: alternative names, common name, and the year in which it ends.
struct Wanted<'a> {
    names: &'a [SanType],
    common: &'a str,
    until: i32,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// A client that has a certificate of this authority, and trusts `roots`.
    fn client(&self, wanted: &Wanted<'_>, roots: &RootCertStore) -> Arc<ClientConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !wanted.common.is_empty() {
            params
                .distinguished_name
                .push(DnType::CommonName, wanted.common);
        }
        params.subject_alt_names = wanted.names.to_vec();
        params.not_after = date_time_ymd(wanted.until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("they match"))
    }

    fn trusted(&self, required: bool, named_by: CertificateName) -> ClientAuthorities {
        let trusted = ClientAuthorities::from_pem(self.pem.as_bytes(), required, named_by);
        trusted.expect("an authority")
    }
}

fn met(acceptor: &Acceptor, config: &Arc<ClientConfig>) -> Result<Session, TlsError> {
    let mut session = Session::new(acceptor, false, NOW).expect("a session");
    try_exchange(&mut client(config, "localhost"), &mut session, 16_000)?;
    Ok(session)
}

const TILL: Wanted<'_> = Wanted {
    names: &[],
    common: "till, 7",
    until: 2100,
};

#[test]
fn a_client_certificate_gives_the_identity_that_the_config_chooses() {
    let (certificate, roots) = self_signed("localhost");
    let authority = Authority::new();
    let spiffe = SanType::URI("spiffe://example/till/7".try_into().expect("a name"));
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let wanted = Wanted {
        names: &[spiffe, dns("a.example"), dns("b.example")],
        ..TILL
    };
    let config = authority.client(&wanted, &roots);
    for (named_by, subject) in [
        (CertificateName::Subject, Some("CN=till\\, 7")),
        (CertificateName::Uri, Some("spiffe://example/till/7")),
        // There are two, and none.
        (CertificateName::Dns, None),
        (CertificateName::Email, None),
    ] {
        let trusted = authority.trusted(false, named_by);
        let acceptor = Acceptor::new(&certificate, &[], Some(trusted), tickets());
        let met = met(&acceptor.expect("an acceptor"), &config);
        match (met, subject) {
            (Ok(session), Some(subject)) => {
                let shown = session.client_certificate().expect("it has shown one");
                assert_eq!(shown.identity.parts(), Some(("certificate", subject)));
                assert_eq!(shown.valid_until, UnixMillis(4_102_444_800_000));
            }
            (Err(error), None) => assert!(matches!(error, TlsError::Unnamed), "{error}"),
            (met, _) => panic!("{named_by:?}: {met:?}"),
        }
    }
}

#[test]
fn clients_without_a_trusted_certificate_are_refused_as_configured() {
    let (certificate, roots) = self_signed("localhost");
    let (authority, other) = (Authority::new(), Authority::new());
    let without = client_config(roots.clone());
    let with = authority.client(&TILL, &roots);
    let untrusted = other.client(&TILL, &roots);
    let expired = authority.client(
        &Wanted {
            until: 2020,
            ..TILL
        },
        &roots,
    );
    // Each has keys of its own, or a ticket of one would be good for the next.
    let mut keys = 0..;
    let mut accepts = |authorities: Option<ClientAuthorities>, config| {
        let tickets = TicketKeys::new(&[keys.next().expect("enough"); 32]);
        let acceptor = Acceptor::new(&certificate, &[], authorities, tickets);
        met(&acceptor.expect("an acceptor"), config).is_ok()
    };
    let trusted = |required| Some(authority.trusted(required, CertificateName::Subject));
    for (who, config, none, optional, required) in [
        ("without", &without, true, true, false),
        ("with", &with, true, true, true),
        ("untrusted", &untrusted, true, false, false),
        ("expired", &expired, true, false, false),
    ] {
        let accepted = [None, trusted(false), trusted(true)].map(|it| accepts(it, config));
        assert_eq!(accepted, [none, optional, required], "{who}");
    }
}

/// What a session was trusted for is asked again when the authorities change. A ticket is no way
/// around it.
#[test]
fn a_removed_authority_ends_the_trust_in_open_and_in_resumed_sessions() {
    let (certificate, roots) = self_signed("localhost");
    let (authority, other) = (Authority::new(), Authority::new());
    let acceptor = |authorities| {
        let acceptor = Acceptor::new(&certificate, &[], authorities, tickets());
        acceptor.expect("an acceptor")
    };
    let subject = CertificateName::Subject;
    let before = acceptor(Some(authority.trusted(false, subject)));
    let after = acceptor(Some(other.trusted(false, subject)));
    let config = authority.client(&TILL, &roots);
    for _ in 0..2 {
        let session = met(&before, &config).expect("trusted");
        assert!(session.is_trusted_by(&before, NOW));
        assert!(!session.is_trusted_by(&after, NOW));
        assert!(!session.is_trusted_by(&acceptor(None), NOW));
        let late = Now {
            wall: UnixMillis(4_102_444_801_000),
            ..NOW
        };
        assert!(!session.is_trusted_by(&before, late), "its time is over");
    }
    // The keys of tickets are the same on purpose: rustls alone would resume.
    let resumed = met(&after, &config).expect("rustls does not ask again");
    assert!(resumed.client_certificate().is_some());
    assert!(!resumed.is_trusted_by(&after, NOW));
    // Clients without a certificate are not concerned.
    let without = met(&before, &client_config(roots)).expect("optional");
    assert!(without.is_trusted_by(&after, NOW));
}
