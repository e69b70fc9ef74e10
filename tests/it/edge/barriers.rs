//! What a command meets at the barrier if brokers do not report the end of the replies topic: its
//! answer, `/readyz`, the metrics, and how the state ends. On real sockets.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use sluicegate::broker::{Failing, NodeId, Settings};
use sluicegate::demo::listener::BrokerHandle;
use sluicegate::model::Partition;

use crate::app::App;
use crate::client::{Request, Response};
use crate::gateway::Gateway;
use crate::ground::{Ground, random};
use crate::service::Reply;

struct Stage {
    broker: BrokerHandle,
    app: App,
}

impl Stage {
    fn new(nodes: u16) -> Self {
        let settings = Settings {
            nodes,
            ..Settings::default()
        };
        let broker = BrokerHandle::start(settings, random(), ([127, 0, 0, 1], 0).into());
        let broker = broker.expect("free ports");
        let app = App::new(&Ground::at(&broker.bootstrap()));
        Self { broker, app }
    }

    /// The next `count` partitions in ListOffsets of the replies topic get this error.
    fn refuse_ends(&self, error: ResponseError, count: u32) {
        let topic = self.app.replies.clone();
        self.broker
            .with(move |it| it.fail_next_of(&topic, Failing::ListOffsets, error, count));
    }
}

fn command(gateway: &Gateway, key: &str) -> Response {
    let request = Request::post("/items/a/orders", "{}");
    gateway.ask(&request.header("idempotency-key", key))
}

/// A new leader does not know its end for a moment (KIP-207). The command waits, and is executed.
#[test]
fn an_end_that_is_not_known_yet_is_asked_for_again() {
    let stage = Stage::new(1);
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let gateway = stage.app.gateway(1);
    stage.refuse_ends(ResponseError::OffsetNotAvailable, 3);
    assert_eq!(command(&gateway, "k1").status, 200);
    assert_eq!(
        gateway.metric("sluicegate_barrier_failures_total", "cause=\"unavailable\""),
        0.0
    );
    // It lasts: 503 after a second, and nothing is appended.
    stage.refuse_ends(ResponseError::OffsetNotAvailable, u32::MAX);
    let since = Instant::now();
    let refused = command(&gateway, "k2");
    let took = since.elapsed();
    assert_eq!(
        (refused.status, &*refused.problem()),
        (503, "broker-unavailable")
    );
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert!((900..1_900).contains(&took.as_millis()), "{took:?}");
    // A request with a stored reply is answered, and one without a key is executed.
    assert_eq!(command(&gateway, "k1").status, 200);
    assert_eq!(
        gateway.ask(&Request::post("/items/a/orders", "{}")).status,
        200
    );
    let name = format!("end of topic `{}`", stage.app.replies);
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 200, "other instances meet the same");
    assert!(ready.text().contains(&name), "{}", ready.text());
    assert_eq!(
        gateway.metric("sluicegate_barrier_failures_total", "cause=\"unavailable\""),
        1.0
    );
    gateway.wait_said_text("its leaders don't report its end");
    stage.refuse_ends(ResponseError::OffsetNotAvailable, 0);
    assert_eq!(command(&gateway, "k2").status, 200);
    gateway.wait_said_text("its leaders report its end again");
    let ready = gateway.admin_get("/readyz");
    assert!(!ready.text().contains(&name), "{}", ready.text());
    assert_eq!(stage.app.commands_in_log().len(), 3);
}

/// The brokers deny it: a minute of patience is worth more than a second.
#[test]
fn an_end_that_is_denied_is_answered_by_its_cause() {
    let stage = Stage::new(1);
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let gateway = stage.app.gateway(1);
    stage.refuse_ends(ResponseError::TopicAuthorizationFailed, u32::MAX);
    let refused = command(&gateway, "k");
    assert_eq!(
        (refused.status, &*refused.problem()),
        (503, "topic-unavailable")
    );
    assert_eq!(refused.header("retry-after"), Some("60"));
    stage.refuse_ends(ResponseError::TopicAuthorizationFailed, 0);
    assert_eq!(command(&gateway, "k").status, 200);
    assert_eq!(stage.app.commands_in_log().len(), 1);
}

/// A leader of one partition of the replies is frozen. The reply that matters could be there, so
/// nothing is appended, and it ends by itself.
#[test]
fn a_frozen_leader_of_replies_refuses_commands_and_appends_none() {
    const SECOND: NodeId = NodeId(2);
    let stage = Stage::new(2);
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let flags = ["--kafka-request-timeout=1s"];
    let gateway = Gateway::launch_with(&stage.app.config(1, ""), &flags);
    gateway.wait_serving();
    let (commands, replies) = (stage.app.commands.clone(), stage.app.replies.clone());
    let (first, second) = (NodeId(1), SECOND);
    stage.broker.with(move |it| {
        for partition in 0..3 {
            let _none = it.move_leader(&commands, Partition(partition), first);
            let _none = it.move_leader(&replies, Partition(partition), first);
        }
        it.move_leader(&replies, Partition(0), second)
            .expect("it is there");
    });
    assert_eq!(command(&gateway, "k1").status, 200);
    stage.broker.with(|it| it.freeze_node(SECOND));
    for n in 0..3 {
        let refused = command(&gateway, &format!("frozen-{n}"));
        assert_eq!(
            (refused.status, &*refused.problem()),
            (503, "broker-unavailable")
        );
    }
    // Once the leader counts as unavailable, a command is refused at once.
    let since = Instant::now();
    assert_eq!(command(&gateway, "frozen-3").status, 503);
    assert!(
        since.elapsed() < Duration::from_millis(500),
        "{:?}",
        since.elapsed()
    );
    stage.broker.with(|it| it.thaw_node(SECOND));
    let request = Request::post("/items/a/orders", "{}").header("idempotency-key", "thawed");
    gateway.wait_until(&request, |it| it.status == 200);
    assert_eq!(stage.app.commands_in_log().len(), 2);
}
