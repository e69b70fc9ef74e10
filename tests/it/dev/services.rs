//! The services that `init` writes, each installed and run by the commands that `init` prints.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Dev, init, pay};
use crate::client::Request;
use crate::kcat::{self, Produce};

/// A running service.
struct Running(Child);

impl Running {
    /// Runs a command in the folder of a gateway, and leaves it running.
    fn start(dev: &Dev, line: &str) -> Self {
        let mut command = shell(dev, line);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Self(command.spawn().expect("sh"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The shell may have started the service as a child of its own.
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let _status = self.0.wait();
    }
}

fn shell(dev: &Dev, line: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(dev.gateway.folder())
        .env("KAFKA", &dev.kafka)
        .stdin(Stdio::null());
    command
}

/// Writes the example, installs its service, and returns the running `dev` with the command that
/// runs the service.
fn install(flags: &[&str]) -> (Dev, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let said = init(folder.path(), flags);
    let steps = said.split("2. The service").nth(1).expect("a second step");
    let steps = steps.split("3. ").next().expect("its lines");
    let mut lines = steps.lines().filter_map(|line| line.strip_prefix("  "));
    let (install, run) = (lines.next().expect("two"), lines.next().expect("two"));
    let dev = Dev::start(folder, &[]);
    let done = shell(&dev, install).status().expect("sh");
    assert!(done.success(), "{install}");
    (dev, run.to_owned())
}

/// One payment, its retry, a refused payment, a record that the gateway did not write, a duplicate
/// record, and a restart of the service: the effects are those of one payment each.
fn pays_once(flags: &[&str]) {
    let (dev, run) = install(flags);
    let service = Running::start(&dev, &run);
    // The first answer takes as long as the service needs to start.
    let wanted = |answer: &crate::client::Response| answer.status == 201;
    let first = dev.gateway.wait_until(&pay("bo", "first"), wanted);
    assert_eq!(first.json()["balance_cents"], 99_750, "{first:?}");
    let retry = dev.gateway.ask(&pay("bo", "first"));
    assert_eq!(retry.json(), first.json());
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    let refused = dev.gateway.ask(&pay("ana", "to-myself"));
    assert_eq!(refused.status, 422, "{refused:?}");
    let query = |cents: i64| {
        let read = Request::get("/accounts/ana");
        let wanted =
            |it: &crate::client::Response| it.status == 200 && it.json()["balance_cents"] == cents;
        dev.gateway.wait_until(&read, wanted);
    };
    query(99_750);
    // A client of Kafka writes what is no command; a second record of the first command arrives.
    Produce::to(&dev.kafka, "payments-commands").keyed([("ana", "not json")]);
    let records = kcat::read(&dev.kafka, "payments-commands");
    let command = records
        .iter()
        .find(|it| it.header("correlation-id").is_some());
    let command = command.expect("the first command");
    duplicate(&dev, command);
    // The restarted service knows balances, and which commands are done.
    drop(service);
    duplicate(&dev, command);
    let _service = Running::start(&dev, &run);
    let wanted = |answer: &crate::client::Response| answer.status == 201;
    let next = dev.gateway.wait_until(&pay("bo", "second"), wanted);
    assert_eq!(next.json()["balance_cents"], 99_500, "{next:?}");
    query(99_500);
    let replies = kcat::read(&dev.kafka, "payments-replies");
    let first = command.header("correlation-id");
    let of_first = replies
        .iter()
        .filter(|it| it.header("correlation-id") == first);
    let bodies: Vec<_> = of_first.map(|it| it.value.clone()).collect();
    assert_eq!(bodies.len(), 3, "each duplicate is answered");
    assert!(
        bodies.iter().all(|it| *it == bodies[0]),
        "with the first reply: {bodies:?}"
    );
}

/// Appends a second record of a command, as an instance does that can't know of the first.
fn duplicate(dev: &Dev, command: &kcat::Record) {
    let names = [
        "correlation-id",
        "reply-to",
        "operation",
        ":method",
        ":path",
    ];
    let mut produce = Produce::to(&dev.kafka, "payments-commands").partition(command.partition);
    for name in names {
        produce = produce.header(name, command.header(name));
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    produce.keyed([(&*text(&command.key), &*text(&command.value))]);
}

#[test]
fn the_python_service_pays_once() {
    pays_once(&["--service", "python"]);
}

#[test]
fn the_java_service_pays_once() {
    pays_once(&["--service", "java"]);
}

#[test]
fn the_node_service_pays_once() {
    pays_once(&["--service", "node"]);
}

/// An order is placed once and shipped once.
fn ships(language: &str) {
    let (dev, run) = install(&["--example", "orders", "--service", language]);
    let _service = Running::start(&dev, &run);
    let place = |key: &str| {
        let put = Request::new("PUT", "/orders/7").body(b"{\"item\":\"tea\"}");
        let put = put.header("Content-Type", "application/json");
        put.header("Idempotency-Key", &format!("\"{key}\""))
    };
    let ship = |key: &str| {
        let post = Request::post("/orders/7/shipment", "");
        post.header("Idempotency-Key", &format!("\"{key}\""))
    };
    let placed = dev.gateway.wait_until(&place("a"), |it| it.status == 201);
    assert_eq!(placed.json()["status"], "placed");
    assert_eq!(dev.gateway.ask(&place("b")).status, 409);
    assert_eq!(dev.gateway.ask(&ship("c")).json()["status"], "shipped");
    assert_eq!(dev.gateway.ask(&ship("d")).status, 409);
    let read = Request::get("/orders/7");
    dev.gateway.wait_until(&read, |it| {
        it.status == 200 && it.json()["status"] == "shipped"
    });
}

#[test]
fn each_orders_service_ships_once() {
    for language in ["python", "java", "node"] {
        ships(language);
    }
}
