//! Rights that real Kafka's authorizer grants a user and revokes. `edge::denied` tests the same on
//! the development broker, with every error code.

use crate::admin::{Admin, Operation, Permission};
use crate::app::App;
use crate::client::{Request, Response};
use crate::cluster::Cluster;
use crate::cluster::security::{Listener, PASSWORD, USER};
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::service::Reply;

struct Stage {
    cluster: Cluster,
    admin: Admin,
    app: App,
}

impl Stage {
    /// The gateway's user may do everything with topics.
    fn new() -> Self {
        let cluster = Cluster::start_with_rights(1);
        let admin = Admin::of(&cluster.bootstrap());
        admin.rule(USER, "*", Operation::All, Permission::Allow);
        let app = App::new(&Ground::at(&cluster.bootstrap()));
        Self {
            cluster,
            admin,
            app,
        }
    }

    fn launch(&self) -> Gateway {
        let sasl = format!(
            "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"{USER}\"\n\
             password = \"{PASSWORD}\"\n"
        );
        let config = self.app.config(1, &sasl);
        let plain = format!("bootstrap = [\"{}\"]", self.app.bootstrap());
        assert!(config.contains(&plain), "{config}");
        let port = self.cluster.secured_port(1, Listener::Sasl);
        let config = config.replace(&plain, &format!("bootstrap = [\"127.0.0.1:{port}\"]"));
        let gateway = Gateway::launch_with(&config, &["--kafka-metadata-age-max=1s"]);
        gateway.wait_serving();
        gateway
    }

    fn deny(&self, topic: &str, operation: Operation) {
        self.admin.rule(USER, topic, operation, Permission::Deny);
    }

    fn give_back(&self, topic: &str, operation: Operation) {
        self.admin.unrule(USER, topic, operation, Permission::Deny);
    }
}

fn command(gateway: &Gateway) -> Response {
    gateway.ask(&Request::post("/items/a/orders", "{}"))
}

fn assert_denied(answer: &Response) {
    assert_eq!(
        (answer.status, &*answer.problem()),
        (503, "topic-unavailable"),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), Some("60"), "{answer:?}");
    assert!(answer.text().contains("lacks a right"), "{answer:?}");
}

/// Waits until `/readyz` contains all of these texts.
fn wait_named(gateway: &Gateway, words: &[&str]) {
    gateway.wait_admin("/readyz", |it| {
        it.status == 503 && words.iter().all(|word| it.text().contains(word))
    });
}

#[test]
fn a_right_that_is_taken_is_named_and_missed_until_it_is_given_back() {
    let stage = Stage::new();
    let _service = stage.app.service(|_| Some(Reply::new(200, "done")));
    let (commands, replies, items) = (
        stage.app.commands.as_str(),
        stage.app.replies.as_str(),
        stage.app.items.as_str(),
    );
    let post = Request::post("/items/a/orders", "{}");
    // The right is missing at start.
    stage.deny(commands, Operation::Write);
    stage.deny(items, Operation::Describe);
    let gateway = stage.launch();
    wait_named(
        &gateway,
        &["commands to topic", "allow the gateway's user WRITE"],
    );
    wait_named(&gateway, &["allow the gateway's user DESCRIBE"]);
    assert!(!gateway.admin_get("/readyz").text().contains("create it"));
    assert_denied(&command(&gateway));
    assert_denied(&gateway.get("/items/a"));
    assert_eq!(stage.app.commands_in_log().len(), 0);
    stage.give_back(commands, Operation::Write);
    stage.give_back(items, Operation::Describe);
    gateway.wait_until(&post, |it| it.text() == "done");
    gateway.wait_admin("/readyz", |it| it.status == 200);
    // The right is revoked while the gateway runs.
    stage.deny(commands, Operation::Write);
    gateway.wait_until(&post, |it| it.status == 503);
    assert_denied(&command(&gateway));
    wait_named(&gateway, &["allow the gateway's user WRITE"]);
    stage.give_back(commands, Operation::Write);
    gateway.wait_until(&post, |it| it.text() == "done");
    stage.deny(replies, Operation::Read);
    wait_named(&gateway, &["allow the gateway's user READ"]);
    let sent = stage.app.commands_in_log().len();
    assert_denied(&command(&gateway));
    assert_eq!(stage.app.commands_in_log().len(), sent, "nothing was sent");
    stage.give_back(replies, Operation::Read);
    gateway.wait_until(&post, |it| it.text() == "done");
    gateway.wait_admin("/readyz", |it| it.status == 200);
}
