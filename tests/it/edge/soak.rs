//! When load stops, the next request must be answered. A shard that sleeps with work left, or a
//! lost readiness request, shows as this one request without a response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::{Connection, Request};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::development;

/// Rounds that the design requires. `SLUICEGATE_SOAK_ROUNDS` sets more.
const ROUNDS: usize = 500;

/// Connections that send load in each round.
const CLIENTS: usize = 8;

#[test]
fn after_a_load_the_next_request_is_answered_500_times() {
    let app = App::new(development());
    app.produce(&app.items)
        .keyed([("a", "1"), ("b", "2"), ("c", "3")]);
    let gateway = app.gateway(2);
    let address = gateway.address();
    let mut quiet = Connection::open(address);
    // The load threads live as long as the test. A round is two waits at the barriers.
    let (begin, end) = (
        Arc::new(Barrier::new(CLIENTS + 1)),
        Arc::new(Barrier::new(CLIENTS + 1)),
    );
    let over = Arc::new(AtomicBool::new(false));
    let load = (0..CLIENTS).map(|client| {
        let (begin, end, over) = (begin.clone(), end.clone(), over.clone());
        std::thread::spawn(move || {
            let mut connection = Connection::open(address);
            let targets = ["/items/a", "/items/b", "/items/c", "/items"];
            let burst: Vec<u8> = (0..20)
                .flat_map(|n| Request::get(targets[(client + n) % 4]).bytes())
                .collect();
            loop {
                begin.wait();
                if over.load(Ordering::Acquire) {
                    return;
                }
                for _ in 0..2 {
                    connection.send(&burst);
                    (0..20).for_each(|_| assert_eq!(connection.response(false).status, 200));
                }
                end.wait();
            }
        })
    });
    let load: Vec<_> = load.collect();
    let rounds = std::env::var("SLUICEGATE_SOAK_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    for round in 0..rounds {
        begin.wait();
        end.wait();
        // Sometimes at once, sometimes after all shards have gone to sleep.
        std::thread::sleep(Duration::from_micros([0, 100, 1_000, 20_000][round % 4]));
        let answer = match round % 3 {
            0 => Connection::open(address).ask(&Request::get("/items/b")),
            _ => quiet.ask(&Request::get("/items/b")),
        };
        assert_eq!(answer.text(), "2", "round {round}");
    }
    over.store(true, Ordering::Release);
    begin.wait();
    for thread in load {
        thread.join().expect("every answer was right");
    }
}

/// An idle shard sleeps until an input arrives. That may need more than one turn: pages of a
/// snapshot, slices of other shards. If the shard slept with the rest undone, its next wake (a long
/// poll that ends, its periodic turn) would hide it, and nearly every response would be late. So
/// this test counts late responses; it does not measure speed.
#[test]
fn an_idle_gateway_answers_without_being_woken_by_chance() {
    const ROUNDS: usize = 40;
    const LATE: Duration = Duration::from_millis(300);
    let app = App::new(development());
    let records: Vec<_> = (0..50).map(|n| (format!("k{n}"), n.to_string())).collect();
    app.produce(&app.items)
        .keyed(records.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let mut late = Vec::new();
    for shards in [1, 2, 4] {
        let flags = ["--kafka-fetch-wait=10s", "--kafka-request-timeout=20s"];
        let gateway = Gateway::launch_with(&app.config(shards, ""), &flags);
        gateway.wait_serving();
        let address = gateway.address();
        let mut connection = gateway.connect();
        for round in 0..ROUNDS {
            std::thread::sleep(Duration::from_millis(30)); // All has gone to sleep.
            let began = Instant::now();
            let what = ["one", "all", "snapshot", "live"][round % 4];
            match what {
                "one" => assert_eq!(connection.ask(&Request::get("/items/k7")).text(), "7"),
                "all" => assert_eq!(connection.ask(&Request::get("/items")).status, 200),
                "snapshot" => {
                    let mut stream = Events::open(address, "/items-now");
                    (0..50).for_each(|_| drop(stream.next()));
                }
                _ => drop(Events::open(address, "/events/live").wait_for_id()),
            }
            if began.elapsed() > LATE {
                late.push((shards, what));
            }
        }
    }
    // On a busy machine, some responses may be late.
    assert!(late.len() <= ROUNDS / 10, "late: {late:?}");
}

/// Shards, their topics and the control thread start in any order.
#[test]
fn a_gateway_starts_every_time() {
    let app = App::new(development());
    for round in 0..30 {
        let gateway = app.gateway([1, 2, 4][round % 3]);
        assert_eq!(gateway.get("/items/none").status, 404);
    }
}
