//! The end of the reply window: after it an idempotency key is new, once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::Request;
use crate::gateway::{self, Gateway};
use crate::ground::Ground;
use crate::kcat;
use crate::service::{Reply, Service};

/// `retention.ms` of the replies topic, and a time by which a reply is certainly older.
const WINDOW: &str = "4000";
const PAST: Duration = Duration::from_millis(5_500);

pub fn after_the_reply_window_a_key_is_new_once(ground: &Ground) {
    let commands = ground.topic("commands", 3, &[]);
    let replies = ground.topic("replies", 3, &[("retention.ms", WINDOW)]);
    let mut config = gateway::settings(ground.bootstrap(), 2);
    config.push_str(&format!(
        "[[command]]\nname = \"order\"\nroute = \"POST /orders/{{id}}\"\ntopic = \"{commands}\"\n\
         replies = \"{replies}\"\nkey = \"{{path.id}}\"\nidempotency = \"required\"\n"
    ));
    let count = AtomicUsize::new(0);
    let _service = Service::start(ground.bootstrap(), &commands, &replies, move |_| {
        let number = 1 + count.fetch_add(1, Ordering::Relaxed);
        Some(Reply::new(200, &number.to_string()))
    });
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let request = Request::post("/orders/1", "{}").header("idempotency-key", "\"the-key\"");
    for round in 1..=2 {
        let wanted = round.to_string();
        let first = gateways[round % 2].ask(&request);
        assert_eq!((first.status, first.text()), (200, &*wanted));
        assert_eq!(first.header("idempotent-replayed"), None);
        for gateway in &gateways {
            let again = gateway.ask(&request);
            assert_eq!((again.status, again.text()), (200, &*wanted));
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
        }
        let records = kcat::read(ground.bootstrap(), &commands).len();
        assert_eq!(records, round, "one record in each window");
        if round == 1 {
            std::thread::sleep(PAST);
        }
    }
}
