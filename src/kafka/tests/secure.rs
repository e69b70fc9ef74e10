//! Authentication: success, rejection, and renewal before a session expires.

use std::time::Duration;

use super::peer::{World, settings};
use super::*;
use crate::kafka::{DirectoryRole, KafkaError, SaslError, ScramHash};
use crate::model::Secret;

fn plain() -> Settings {
    let (user, password) = ("alice".into(), Secret::new("pass"));
    Settings {
        sasl: Some(Sasl::Plain { user, password }),
        ..settings()
    }
}

/// A world that requires `mechanism`, and a client with `settings` that watches the topic `t`.
fn asking(mechanism: &'static str, settings: Settings) -> (World, TopicHandle) {
    let mut world = World::with(settings, DirectoryRole::Own, &[topic(&[(2, 0)])]);
    world.sasl.mechanism = Some(mechanism);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    (world, handle)
}

fn scram() -> Settings {
    let (user, password) = ("alice".into(), Secret::new("pass"));
    let hash = ScramHash::Sha256;
    Settings {
        sasl: Some(Sasl::Scram {
            hash,
            user,
            password,
        }),
        ..settings()
    }
}

fn down(events: &[Event]) -> Vec<&KafkaError> {
    let mut errors = Vec::new();
    for event in events {
        if let Event::BrokerDown { error, .. } = event {
            errors.push(error);
        }
    }
    errors
}

/// PBKDF2 takes milliseconds, in which the shard would serve no client. The client requests the
/// result once for all connections, and continues when the result arrives.
#[test]
fn a_password_is_salted_outside_and_connections_wait_for_it() {
    let (mut world, _) = asking("SCRAM-SHA-256", scram());
    world.sasl.iterations = 65_536;
    world.settle();
    let request = world
        .client
        .next_salt()
        .expect("the first exchange wants it");
    assert_eq!(world.client.next_salt(), None);
    let finals = |world: &World| {
        let said = world.sasl.said.iter();
        said.filter(|it| it.starts_with(b"c=")).count()
    };
    assert_eq!(finals(&world), 0, "it waits");
    let salted = request.derive();
    world.client.on_salted(salted, world.now);
    world.settle();
    assert_eq!(finals(&world), 1, "the answer follows");
    // Later connections use the stored result.
    world.pass(Duration::from_secs(5));
    assert!(finals(&world) > 1 && world.client.next_salt().is_none());
    // Another iteration count needs another salting.
    world.sasl.iterations = 4_096;
    world.pass(Duration::from_secs(5));
    assert!(world.client.next_salt().is_some());
}

#[test]
fn a_connection_whose_password_is_never_salted_is_given_up() {
    let (mut world, _) = asking("SCRAM-SHA-256", scram());
    world.sasl.iterations = 65_536;
    world.settle();
    world.pass(settings().request_timeout + Duration::from_secs(1));
    assert!(down(&world.take()).contains(&&KafkaError::Timeout));
}

fn is_up(event: &Event) -> bool {
    matches!(event, Event::BrokerUp { .. })
}

#[test]
fn nothing_is_asked_before_the_broker_knows_us() {
    let (mut world, handle) = asking("PLAIN", plain());
    world.client.read(key(handle, 0), at(0));
    world.settle();
    assert_eq!(
        world.fetches.len(),
        1,
        "the peer closes a connection that asks too early"
    );
    assert!(world.sasl.said.iter().all(|it| &it[..] == b"\0alice\0pass"));
    let events = world.take();
    assert!(down(&events).is_empty() && events.iter().any(is_up));
}

#[test]
fn a_refusal_is_named_not_hammered_and_over_when_it_is_over() {
    let (mut world, _) = asking("PLAIN", plain());
    world.sasl.refusal = Some("Authentication failed: Invalid username or password");
    world.pass(Duration::from_secs(60));
    let events = world.take();
    let [KafkaError::Sasl(SaslError::Refused { user, message, .. })] = &down(&events)[..] else {
        panic!("told once: {events:?}");
    };
    assert_eq!(user, "alice");
    assert!(message.contains("Invalid username"));
    assert!(!events.iter().any(is_up), "who refuses us is not up");
    let tries = world.opened.len();
    assert!((60..140).contains(&tries), "{tries} tries in a minute");
    world.sasl.refusal = None;
    world.pass(Duration::from_millis(1_100));
    assert!(world.take().iter().any(is_up));
}

#[test]
fn a_mechanism_that_is_not_offered_and_a_port_that_does_not_ask_are_named() {
    let (mut world, _) = asking("SCRAM-SHA-512", plain());
    world.settle();
    let events = world.take();
    let [KafkaError::Sasl(error)] = &down(&events)[..] else {
        panic!("{events:?}");
    };
    let offered = "SCRAM-SHA-512".to_owned();
    let wanted = "PLAIN";
    assert_eq!(*error, SaslError::Mechanism { wanted, offered });
    // The same broker now uses no SASL. This is another reason, so another event is emitted.
    world.sasl.mechanism = None;
    world.pass(Duration::from_secs(2));
    let events = world.take();
    let not_asked = KafkaError::Sasl(SaslError::NotAsked);
    assert!(down(&events).contains(&&not_asked), "{events:?}");
}

#[test]
fn a_client_that_does_not_authenticate_gets_no_response() {
    let (mut world, _) = asking("PLAIN", settings());
    world.settle();
    assert_eq!(down(&world.take()), [&KafkaError::SaslWanted]);
}

#[test]
fn a_tls_port_is_known_by_its_alert() {
    let mut world = World::new(&[topic(&[(1, 0)])]);
    world.client.watch(&TopicName::new("t").unwrap());
    world.frozen.insert(1);
    world.settle();
    let alert = [0x15, 0x03, 0x03, 0, 2, 2, 0x50];
    world.client.on_bytes(LinkId(0), &alert, world.now);
    world.settle();
    assert_eq!(down(&world.take()), [&KafkaError::TlsWanted]);
}

#[test]
fn what_is_no_kafka_and_what_hangs_up_at_once_are_distinguished() {
    let greeted = |bytes: Option<&[u8]>| {
        let mut world = World::new(&[topic(&[(1, 0)])]);
        world.client.watch(&TopicName::new("t").unwrap());
        world.frozen.insert(1);
        world.settle();
        match bytes {
            Some(bytes) => world.client.on_bytes(LinkId(0), bytes, world.now),
            None => world.client.on_closed(LinkId(0), world.now),
        }
        world.settle();
        down(&world.take()).into_iter().cloned().collect::<Vec<_>>()
    };
    for text in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"SSH-2.0-OpenSSH"] {
        assert_eq!(greeted(Some(text)), [KafkaError::NotKafka]);
    }
    assert_eq!(greeted(None), [KafkaError::ClosedEarly]);
}

#[test]
fn nobody_is_called_before_there_is_a_token() {
    let sasl = Some(Sasl::OauthBearer);
    let (mut world, _) = asking("OAUTHBEARER", Settings { sasl, ..settings() });
    world.pass(Duration::from_secs(30));
    assert!(world.opened.is_empty());
    world.client.set_token(Some(Secret::new("a.b.c")));
    world.settle();
    assert_eq!(&world.sasl.said[0][..], b"n,,\x01auth=Bearer a.b.c\x01\x01");
    assert!(world.take().iter().any(is_up));
    // A rejected token: the broker sends its reason before the rejection.
    let sasl = Some(Sasl::OauthBearer);
    let (mut world, _) = asking("OAUTHBEARER", Settings { sasl, ..settings() });
    world.sasl.refusal = Some("bad");
    world.sasl.challenge = br#"{"status":"invalid_token"}"#;
    world.client.set_token(Some(Secret::new("x")));
    world.settle();
    assert_eq!(&world.sasl.said[1][..], [1]);
    let events = world.take();
    let [KafkaError::Sasl(error)] = &down(&events)[..] else {
        panic!("{events:?}");
    };
    assert!(error.to_string().contains("invalid_token"), "{error}");
}

#[test]
fn a_session_is_renewed_on_its_connection_with_nothing_in_flight() {
    let (mut world, handle) = asking("PLAIN", plain());
    world.sasl.lifetime_ms = 10_000;
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let link = world.fetches[0].link;
    let opened = world.opened.len();
    let mut next = 0_u64;
    for _ in 0..200 {
        world.pass(Duration::from_millis(250));
        let fetch = world.fetches.pop_front().expect("one is always open");
        assert!(world.fetches.is_empty());
        assert_eq!(fetch.link, link, "the same connection");
        world.fetched(&fetch, vec![reading::data(0, next as i64 + 1, &[next])]);
        next += 1;
    }
    // In 50 s, with a renewal every 8 to 9 s.
    assert!(
        (4..=7).contains(&world.sasl.known[&link]),
        "{:?}",
        world.sasl.known
    );
    assert_eq!(world.opened.len(), opened, "none was made anew");
    let events = world.take();
    assert!(down(&events).is_empty());
    assert_eq!(offsets_of(&events), (0..next).collect::<Vec<_>>());
}

#[test]
fn a_session_that_ended_while_an_answer_was_awaited_is_left_quietly() {
    let (mut world, handle) = asking("PLAIN", plain());
    world.sasl.lifetime_ms = 3_000;
    world.client.read(key(handle, 0), at(0));
    world.settle();
    let fetch = world.fetches.pop_front().unwrap();
    world.pass(Duration::from_millis(4_500));
    assert!(world.is_open(fetch.link), "its answer is waited for");
    world.fetched(&fetch, vec![reading::data(0, 1, &[0])]);
    assert!(!world.is_open(fetch.link));
    assert_ne!(world.fetches.pop_front().unwrap().link, fetch.link);
    let events = world.take();
    assert_eq!(offsets_of(&events), [0]);
    assert!(down(&events).is_empty(), "that is no failure");
}

#[test]
fn what_nobody_needs_is_closed_before_the_broker_does_it() {
    let (mut world, handle) = known(&[(2, 0)]);
    let record = ProduceRecord {
        key: None,
        value: None,
        headers: vec![],
        timestamp: crate::model::UnixMillis(0),
    };
    let now = world.now;
    let taken = world.client.produce(handle, Partition(0), record, 1, now);
    taken.unwrap();
    world.settle();
    let produce = world.produces.pop_front().unwrap();
    world.produced(&produce, 0, 0, 0);
    world.pass(Duration::from_secs(170));
    assert!(world.is_open(produce.link));
    world.pass(Duration::from_secs(15));
    assert!(!world.is_open(produce.link));
    assert!(down(&world.take()).is_empty());
}

#[test]
fn a_cluster_that_has_moved_is_found_again_by_its_bootstrap_address() {
    let (mut world, handle) = known(&[(1, 0)]);
    world.client.read(key(handle, 0), at(0));
    world.settle();
    // All brokers fail. The same cluster then listens at other ports, one of which is the old
    // address.
    world.kill(1);
    world.kill(2);
    world.take();
    world.fetches.clear();
    world.pass(Duration::from_secs(20));
    world.down.clear();
    world.first_port = 8_999;
    world.nodes = vec![2, 3];
    world.topics[0].leaders[0] = (3, 1);
    world.pass(Duration::from_secs(3));
    let events = world.take();
    let view = events.iter().rev().find_map(|event| match event {
        Event::View(view) => Some(view),
        _ => None,
    });
    let ports = view.unwrap().brokers.iter().map(|it| it.address.port);
    assert_eq!(ports.collect::<Vec<_>>(), [9_001, 9_002]);
    // Links made to the old address meanwhile were closed with the old view.
    let fetch = world.fetches.pop_back().expect("reading goes on");
    assert_eq!(fetch.node, 3);
    assert!(world.is_open(fetch.link));
}
