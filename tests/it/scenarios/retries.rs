//! Retries at another gateway: what the barrier promises in each mode.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::app::App;
use crate::client::{Request, ask};
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::kcat;
use crate::service::{Reply, reply_to};

/// How often the frozen gateway gets a retry. Without a barrier some of them are second records.
const ROUNDS: usize = 12;

fn order(n: usize) -> Request {
    let key = format!("\"k{n}\"");
    Request::post(&format!("/items/i{n}/orders"), "{}").header("idempotency-key", &key)
}

/// A gateway whose command routes are strict.
fn strict(app: &App) -> Gateway {
    let mode = "idempotency = \"optional\"\n";
    let strict = format!("{mode}dedupe = \"strict\"\n");
    Gateway::start(&app.config(1, "").replace(mode, &strict))
}

/// The reply is readable before the retry arrives at a gateway that has not read it. Nothing is
/// appended, and the retry gets the reply.
pub fn a_gateway_that_was_frozen_finds_the_reply_that_was_readable(ground: &Ground) {
    let app = App::new(ground);
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = effects.clone();
    let _service = app.service(move |_| {
        let effect = counted.fetch_add(1, Ordering::Relaxed);
        Some(Reply::new(201, &format!("effect {effect}")))
    });
    let (first, frozen) = (app.gateway(1), app.gateway(1));
    for n in 0..ROUNDS {
        frozen.signal(Signal::STOP);
        let original = first.ask(&order(n));
        assert_eq!(original.status, 201, "{original:?}");
        // The kernel takes the retry for the gateway.
        let (address, request) = (frozen.address(), order(n));
        let retry = thread::spawn(move || ask(address, &request));
        thread::sleep(std::time::Duration::from_millis(30));
        frozen.signal(Signal::CONT);
        let retry = retry.join().expect("an answer");
        assert_eq!((retry.status, retry.text()), (201, original.text()));
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(app.commands_in_log().len(), ROUNDS, "one record each");
    assert_eq!(effects.load(Ordering::Relaxed), ROUNDS);
    let waited = frozen.metric("sluicegate_barrier_commands_total", "");
    assert!(waited >= 1.0, "{waited} commands waited at the barrier");
}

/// The first gateway dies before the service has answered. In strict mode the retry at another
/// gateway, which starts later, joins the record that is there.
pub fn a_strict_route_joins_what_another_gateway_appended(ground: &Ground) {
    let app = App::new(ground);
    let mut first = strict(&app);
    let mut client = first.connect();
    client.send(&order(1).bytes());
    let commands = kcat::read_until(app.bootstrap(), &app.commands, 1);
    first.kill_9();
    let second = strict(&app);
    let (address, request) = (second.address(), order(1));
    let retry = thread::spawn(move || ask(address, &request));
    // Another request under the key has neither a record nor a reply.
    let other = Request::post("/items/i1/orders", "{\"n\":2}").header("idempotency-key", "\"k1\"");
    let other = second.ask(&other);
    let problem = (other.status, other.problem());
    assert_eq!(problem, (422, "idempotency-key-reused".to_owned()));
    let reply = Reply::new(201, "done once");
    reply_to(app.bootstrap(), &app.replies, &commands[0], reply);
    let retry = retry.join().expect("an answer");
    assert_eq!((retry.status, retry.text()), (201, "done once"));
    assert_eq!(app.commands_in_log().len(), 1, "no second record");
}

/// `retry: true` means that nothing was applied: the same key runs again, also in strict mode and
/// at another gateway.
pub fn a_strict_route_runs_again_what_was_not_applied(ground: &Ground) {
    let app = App::new(ground);
    let first_time = Arc::new(Mutex::new(true));
    let _service = app.service(move |_| {
        let first = std::mem::replace(&mut *first_time.lock().expect("one service"), false);
        Some(if first {
            Reply::new(503, "busy").header("retry", "true")
        } else {
            Reply::new(201, "done")
        })
    });
    let gateways = [strict(&app), strict(&app)];
    assert_eq!(gateways[0].ask(&order(1)).status, 503);
    let again = gateways[1].ask(&order(1));
    assert_eq!((again.status, again.text()), (201, "done"));
    assert_eq!(app.commands_in_log().len(), 2);
}

/// Requests that are equal, half of them at each gateway.
const EQUAL: usize = 10;

/// Sends the requests at once. Each client gets the same reply.
fn send_equal(gateways: &[Gateway; 2], request: &Request, count: usize) {
    let clients: Vec<_> = (0..count)
        .map(|n| {
            let (address, request) = (gateways[n % 2].address(), request.clone());
            thread::spawn(move || ask(address, &request))
        })
        .collect();
    for client in clients {
        let answer = client.join().expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "once"), "{answer:?}");
    }
}

/// Ten equal commands at once. Each gateway appends at most one record, and the service applies the
/// first. In strict mode, attempts that arrive once the first record is readable append none.
pub fn ten_equal_commands_at_two_gateways_are_one_record_or_two(ground: &Ground) {
    let app = App::new(ground);
    // The reply comes so late that all ten requests wait for it.
    let _service = app.service(|_| {
        thread::sleep(std::time::Duration::from_millis(300));
        Some(Reply::new(200, "once"))
    });
    let (mut made, mut total) = (Vec::new(), 0);
    let mut new_records = |app: &App| {
        let records = app.commands_in_log().len();
        records - std::mem::replace(&mut total, records)
    };
    for mode in ["replies", "strict"] {
        let gateways = match mode {
            "strict" => [strict(&app), strict(&app)],
            _ => [app.gateway(1), app.gateway(1)],
        };
        for round in 0..4 {
            let request = order(10 * made.len() + round);
            send_equal(&gateways, &request, EQUAL);
            let records = new_records(&app);
            made.push((mode, records));
            assert!((1..=2).contains(&records), "{mode}: {records} records");
        }
        if mode == "strict" {
            let request = order(1_000);
            let (address, first) = (gateways[0].address(), request.clone());
            let first = thread::spawn(move || ask(address, &first));
            let readable = 1 + made.iter().map(|(_, records)| records).sum::<usize>();
            kcat::read_until(app.bootstrap(), &app.commands, readable);
            send_equal(&gateways, &request, EQUAL - 1);
            assert_eq!(first.join().expect("an answer").text(), "once");
            assert_eq!(new_records(&app), 1, "they did not overlap");
        }
    }
    println!("records of {EQUAL} equal commands at once at two gateways: {made:?}");
}
