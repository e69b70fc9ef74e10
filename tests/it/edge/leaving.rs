//! SIGTERM: readiness fails first, requests are executed for the grace, and then every request that
//! has arrived is answered.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate::broker::{NodeId, Settings};
use sluicegate::demo::listener::BrokerHandle;

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request, Response};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::{Ground, development, random};
use crate::service::Reply;

/// A gateway that serves the item `a`.
fn serving(app: &App, flags: &[&str]) -> Gateway {
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = Gateway::launch_with(&app.config(2, ""), flags);
    gateway.wait_serving();
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    gateway
}

/// Sends requests that the kernel holds when the signal arrives, because the process is stopped
/// meanwhile. Some are on connections that wait to be accepted, some on a connection used before,
/// some are pipelined. A shard may answer some before the signal is handled; these do not count.
fn answers_to_what_the_kernel_holds(flags: &[&str]) -> Vec<Response> {
    let app = App::new(development());
    let mut gateway = serving(&app, flags);
    let get = Request::get("/items/a").bytes();
    let mut used: Vec<Connection> = (0..50).map(|_| gateway.connect()).collect();
    for connection in &mut used {
        assert_eq!(connection.ask(&Request::get("/items/a")).status, 200);
    }
    gateway.signal(Signal::STOP);
    let mut connections = used;
    connections.extend((0..150).map(|_| gateway.connect()));
    connections.iter_mut().for_each(|it| it.send(&get));
    let mut pipelined = gateway.connect();
    pipelined.send(&get.repeat(200));
    gateway.terminate();
    gateway.signal(Signal::CONT);
    let until = Instant::now() + PATIENCE;
    let mut answers = Vec::new();
    for connection in &mut connections {
        let answer = connection.response_until(false, until);
        answers.push(answer.expect("every request is answered"));
        connection.expect_close();
    }
    for number in 1..=200 {
        let answer = pipelined.response_until(false, until);
        answers.push(answer.unwrap_or_else(|| panic!("answer {number} of 200")));
    }
    pipelined.expect_close();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
    answers
}

#[test]
fn requests_in_the_kernel_at_sigterm_are_executed_within_the_grace() {
    let answers = answers_to_what_the_kernel_holds(&["--drain-grace=2s"]);
    for answer in &answers {
        assert_eq!((answer.status, answer.text()), (200, "1"));
    }
}

#[test]
fn requests_in_the_kernel_at_sigterm_are_answered_without_a_grace_too() {
    let answers = answers_to_what_the_kernel_holds(&["--drain-grace=0s"]);
    for answer in &answers {
        match answer.status {
            200 => assert_eq!(answer.text(), "1"),
            _ => assert_eq!(
                (answer.status, answer.problem().as_str()),
                (503, "draining")
            ),
        }
    }
}

#[test]
fn readiness_fails_first_and_requests_are_executed_meanwhile() {
    let app = App::new(development());
    let _service = app.service(|_| Some(Reply::new(200, "done")));
    let mut gateway = serving(&app, &["--drain-grace=2s"]);
    let mut idle = gateway.connect();
    assert_eq!(
        idle.ask(&Request::get("/items/a")).header("connection"),
        None
    );
    gateway.terminate();
    gateway.wait_admin("/readyz", |it| {
        it.status == 503 && it.text().contains("draining")
    });
    let order = Request::post("/items/a/orders", "{}");
    for connection in [&mut idle, &mut gateway.connect()] {
        let answer = connection.ask(&order);
        assert_eq!((answer.status, answer.text()), (200, "done"));
        assert_eq!(answer.header("connection"), Some("close"));
        connection.expect_close();
    }
    let mut stream = Events::open(gateway.address(), "/events/live");
    assert_eq!(stream.next_within(PATIENCE), None);
    assert!(
        stream.ended() && stream.retry().is_some(),
        "come back later"
    );
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

#[test]
fn a_command_that_waits_at_sigterm_is_answered_and_its_connection_ends() {
    let app = App::new(development());
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let _service = app.service(move |_| {
        released.recv().expect("the test says when");
        Some(Reply::new(200, "answered"))
    });
    let mut gateway = serving(&app, &["--drain-grace=1s", "--drain=20s"]);
    let mut connection = gateway.connect();
    connection.send(&Request::post("/items/a/orders", "{}").bytes());
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 1);
    gateway.terminate();
    gateway.wait_admin("/readyz", |it| it.status == 503);
    release.send(()).expect("the service waits for it");
    let answer = connection.response(false);
    assert_eq!((answer.status, answer.text()), (200, "answered"));
    assert_eq!(answer.header("connection"), Some("close"));
    connection.expect_close();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

#[test]
fn after_the_grace_what_still_comes_is_refused_and_nothing_is_lost() {
    let app = App::new(development());
    let mut gateway = serving(&app, &["--drain-grace=0s", "--drain=20s"]);
    let (mut idle, mut half) = (gateway.connect(), gateway.connect());
    let mut fresh: Vec<Connection> = ["/items/a", "/nowhere"].map(|_| gateway.connect()).into();
    assert_eq!(idle.ask(&Request::get("/items/a")).status, 200);
    half.send(b"POST /items/a/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    gateway.wait_admin("/status", |_| gateway.status_sum("connections") == 4);
    gateway.terminate();
    // A partial request is answered at once.
    let answer = half.response(false);
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "draining")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    half.expect_close();
    // A client that has just connected, or was just answered, may have a request in transit.
    for connection in [&mut fresh[0], &mut idle] {
        let answer = connection.ask(&Request::get("/items/a"));
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (503, "draining")
        );
        assert_eq!(answer.header("connection"), Some("close"));
        connection.expect_close();
    }
    fresh[1].expect_close();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

#[test]
fn a_command_without_its_reply_at_the_end_of_the_drain_is_unknown() {
    let app = App::new(development());
    let _silent = app.service(|_| None);
    let mut gateway = serving(&app, &["--drain-grace=0s", "--drain=1s"]);
    let mut connection = gateway.connect();
    connection.send(&Request::post("/items/a/orders", "{}").bytes());
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 1);
    // Wait for the record: a command that no broker has would be refused.
    while app.commands_in_log().is_empty() {}
    gateway.terminate();
    let answer = connection.response(false);
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert_eq!(answer.header("connection"), Some("close"));
    connection.expect_close();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

/// A broker with a delayed response has one batch per partition. Commands behind it were never
/// sent.
#[test]
fn a_command_that_no_broker_has_is_refused_at_the_drain() {
    let two = Settings {
        nodes: 2,
        ..Settings::default()
    };
    let broker = BrokerHandle::start(two, random(), ([127, 0, 0, 1], 0).into());
    let broker = broker.expect("free ports");
    let app = App::new(&Ground::at(&broker.bootstrap()));
    let second = NodeId(2);
    for partition in 0..3 {
        let (topic, at) = (
            app.commands.clone(),
            sluicegate::model::Partition(partition),
        );
        let moved = broker.with(move |broker| broker.move_leader(&topic, at, second));
        moved.expect("both nodes run");
    }
    for topic in [&app.replies, &app.items, &app.events] {
        for partition in 0..3 {
            let (topic, at) = (topic.clone(), sluicegate::model::Partition(partition));
            let moved = broker.with(move |it| it.move_leader(&topic, at, NodeId(1)));
            moved.expect("both nodes run");
        }
    }
    let flags = [
        "--drain-grace=0s",
        "--drain=1s",
        "--kafka-request-timeout=20s",
    ];
    let mut gateway = serving(&app, &flags);
    gateway.wait_admin("/readyz", |it| it.status == 200);
    // The first warms the connection up.
    let hasty = Request::post("/hasty/a", "{}");
    assert_eq!(gateway.ask(&hasty).problem(), "outcome-unknown");
    broker.with(move |it| it.freeze_node(second));
    let order = |n: u32| Request::post("/items/a/orders", &n.to_string());
    let (mut sent, mut waits) = (gateway.connect(), gateway.connect());
    sent.send(&order(1).bytes());
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 2);
    waits.send(&order(2).bytes());
    gateway.wait_admin("/status", |_| gateway.status_sum("commands_open") == 3);
    gateway.terminate();
    let answers = [waits.response(false), sent.response(false)];
    let told: Vec<_> = answers.iter().map(|it| (it.status, it.problem())).collect();
    assert_eq!(told[0], (503, "draining".into()), "{answers:?}");
    assert_eq!(told[1], (504, "outcome-unknown".into()), "{answers:?}");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
    broker.with(move |it| it.thaw_node(second));
}

/// Streams end one after the other over the drain, not all at once.
#[test]
fn streams_end_spread_over_the_drain_oldest_first() {
    let app = App::new(development());
    let gateway = Gateway::launch_with(&app.config(1, ""), &["--drain-grace=0s", "--drain=3s"]);
    gateway.wait_serving();
    let mut streams: Vec<Events> = (0..30)
        .map(|_| {
            let mut stream = Events::open(gateway.address(), "/events/live");
            stream.wait_for_id();
            stream
        })
        .collect();
    gateway.terminate();
    let began = Instant::now();
    let mut ends = Vec::new();
    for stream in &mut streams {
        while stream.next_within(PATIENCE).is_some() {}
        assert!(stream.ended() && stream.retry().is_some());
        ends.push(began.elapsed());
    }
    // Streams are read in the order of their age, so each end is seen when it occurs.
    let half = ends[ends.len() / 2 - 1];
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    assert!(first < half && half < last, "{ends:?}");
    assert!(
        half > Duration::from_secs(1),
        "half of them stay for a second: {ends:?}"
    );
}
