//! Services that were written for something else work unchanged behind the presets of header names:
//! Spring Kafka's `@KafkaListener` with `@SendTo`, and a service for Zilla's http-kafka binding.

use crate::client::Request;
use crate::gateway::{self, Gateway};
use crate::ground;
use crate::kcat;
use crate::process::Guarded;
use crate::services;

/// Runs a service behind a preset, sends it three commands and one of them again, and returns the
/// status, the bodies and the headers of its replies in the log.
fn converse(preset: &str, start: impl FnOnce(&str, &str, &std::path::Path) -> Guarded) {
    let ground = ground::real();
    let (commands, replies) = (
        ground.topic("orders", 3, &[]),
        ground.topic("ordered", 3, &[]),
    );
    let mut config = gateway::settings(ground.bootstrap(), 2);
    config.push_str(&format!(
        "[kafka.headers]\npreset = \"{preset}\"\n\
         [[command]]\nname = \"order\"\nroute = \"POST /orders/{{id}}\"\ntopic = \"{commands}\"\n\
         replies = \"{replies}\"\nkey = \"{{path.id}}\"\nidempotency = \"required\"\n"
    ));
    let gateway = Gateway::start(&config);
    let folder = tempfile::tempdir().expect("a folder for the log");
    let service = start(ground.bootstrap(), &commands, folder.path());
    let order = |n: u32| {
        let request = Request::post(&format!("/orders/{n}"), &format!("\"book {n}\""));
        gateway.ask(&request.header("idempotency-key", &format!("\"{preset}-{n}\"")))
    };
    let wanted = |n: u32| match preset {
        // Spring sends no status.
        "spring" => (200, format!("ordered \"book {n}\"")),
        _ => (201, format!("POST /orders/{n} \"book {n}\"")),
    };
    for n in 0..3 {
        let answer = order(n);
        let said = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert_eq!(
            (answer.status, answer.text().to_owned()),
            wanted(n),
            "{said}"
        );
    }
    let again = order(1);
    assert_eq!((again.status, again.text().to_owned()), wanted(1));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        kcat::read(ground.bootstrap(), &commands).len(),
        3,
        "no second record"
    );
    assert!(service.runs());
    println!(
        "{preset}: 3 commands answered by a service that knows nothing of us, 1 retry replayed"
    );
}

#[test]
fn a_spring_listener_with_send_to_works_unchanged() {
    let class_path = services::spring();
    converse("spring", |bootstrap, commands, folder| {
        let java = [
            "java",
            "-Xmx128m",
            "-cp",
            &class_path,
            "OrderService",
            bootstrap,
            commands,
        ];
        Guarded::spawn(&java, &folder.join("log"), folder)
    });
}

#[test]
fn a_service_for_zilla_works_unchanged() {
    let (python, script) = (services::python(), services::script("zilla_service.py"));
    converse("zilla", |bootstrap, commands, folder| {
        let python = [&python, &script, bootstrap, commands];
        Guarded::spawn(&python, &folder.join("log"), folder)
    });
}
