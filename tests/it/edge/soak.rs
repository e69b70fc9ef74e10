//! Load stops, and the next request is answered. A shard that sleeps with work before it, or a
//! request for readiness that was lost, shows as this one request without an answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::app::App;
use crate::client::{Connection, Request};
use crate::ground::development;

/// What the design asks for. `SLUICEGATE_SOAK_ROUNDS` makes it more.
const ROUNDS: usize = 500;

/// Connections a round loads with.
const CLIENTS: usize = 8;

#[test]
fn after_a_load_the_next_request_is_answered_500_times() {
    let app = App::new(development());
    app.produce(&app.items)
        .keyed([("a", "1"), ("b", "2"), ("c", "3")]);
    let gateway = app.gateway(2);
    let address = gateway.address();
    let mut quiet = Connection::open(address);
    // All load threads live as long as the test; a round is two meetings at the barrier.
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
        // Sometimes at once, sometimes when all has gone to sleep.
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
