//! Routes with a JSON Schema: schemas that stop the start, and bodies that are checked before
//! anything is produced.

use std::path::Path;

use crate::app::App;
use crate::client::Request;
use crate::gateway::{Gateway, config_file, run_to_end};
use crate::ground::development;
use crate::service::Reply;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "array",
  "items": {
    "type": "object",
    "properties": {"to": {"type": "string", "pattern": "^[a-z]+$"}, "cents": {"minimum": 1}},
    "required": ["to", "cents"],
    "additionalProperties": false
  }
}"#;

/// A route whose bodies have the schema of a file.
fn route(app: &App, schema: &str) -> String {
    let (commands, replies) = (&app.commands, &app.replies);
    format!(
        "\n[[command]]\nname = \"pay\"\nroute = \"POST /payments/{{id}}\"\ntopic = \"{commands}\"\n\
         replies = \"{replies}\"\nkey = \"{{path.id}}\"\nschema = \"{schema}\"\n\
         params = {{ path.id = \"integer\" }}\n"
    )
}

#[test]
fn a_schema_that_cannot_be_used_stops_the_start() {
    let command = |schema: &str| {
        format!(
            "listen = [\"127.0.0.1:0\"]\n[[command]]\nname = \"pay\"\nroute = \"POST /pay\"\n\
             topic = \"a\"\nreplies = \"b\"\nschema = \"{schema}\"\n"
        )
    };
    for (text, parts) in [
        (None, &["No such file", "relative to the config file"][..]),
        (Some("{"), &["it is not JSON", "line 1 column 1"]),
        (
            Some(r#"{"type": "sting"}"#),
            &["at `/type`", "correct the schema"],
        ),
        (
            Some(r#"{"$schema": "http://json-schema.org/draft-04/schema#"}"#),
            &["draft-04", "2020-12"],
        ),
        (
            Some(r#"{"$ref": "https://example.com/other.json"}"#),
            &[
                "https://example.com/other.json",
                "nothing is fetched",
                "$defs",
            ],
        ),
    ] {
        let (folder, path) = config_file(&command("payment.json"));
        if let Some(text) = text {
            std::fs::write(folder.path().join("payment.json"), text).expect("write the schema");
        }
        let path = path.to_str().expect("UTF-8");
        for verb in ["check", "run"] {
            let (code, _, said) = run_to_end(&[verb, "--config", path], &[]);
            assert_eq!(code, 78, "{said}");
            let everywhere = ["gateway.toml:7", "payment.json", "schema of command `pay`"];
            for part in parts.iter().chain(&everywhere) {
                assert!(said.contains(part), "{verb}: {part}: {said}");
            }
        }
    }
}

#[test]
fn a_body_is_checked_whatever_its_size() {
    let ground = development();
    let app = App::new(&ground);
    let service = app.service(|_| Some(Reply::new(201, "{}")));
    let folder = tempfile::tempdir().expect("a folder for the schema");
    let file = folder.path().join("payments.json");
    std::fs::write(&file, SCHEMA).expect("write the schema");
    let gateway = start(&app, &file);

    let one = r#"{"to":"bo","cents":250}"#;
    // The broker takes records of up to 1 MiB with their headers.
    for bytes in [one.len(), 3000, 20_000, 1_000_000] {
        let count = (bytes / (one.len() + 1)).max(1);
        let good = format!("[{}]", vec![one; count].join(","));
        let answer = gateway.ask(&Request::post("/payments/7", &good));
        assert_eq!(answer.status, 201, "{bytes} bytes: {}", answer.text());

        let bad = good.replacen("250", "0", 1);
        let answer = gateway.ask(&Request::post("/payments/7", &bad));
        assert_eq!(answer.status, 422, "{bytes} bytes: {}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["type"], "/problems/invalid-body");
        assert_eq!(problem["errors"][0]["pointer"], "#/0/cents");
    }
    let many = format!("[{}1]", "1,".repeat(1 << 19));
    let answer = gateway.ask(&Request::post("/payments/7", &many));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(20));
    let answer = gateway.ask(&Request::post("/payments/7", &"[".repeat(1 << 20)));
    assert_eq!((answer.status, &*answer.problem()), (400, "malformed-body"));

    let records = app.commands_in_log();
    assert_eq!(records.len(), 4, "only valid bodies are produced");
    assert_eq!(service.seen().len(), 4);
}

fn start(app: &App, file: &Path) -> Gateway {
    let sizes = "[http]\nbody_bytes_max = \"2MiB\"\n";
    let mut config = app.config(1, sizes);
    config.push_str(&route(app, file.to_str().expect("UTF-8")));
    let config = config.replace("[kafka]\n", "[kafka]\nproduce_bytes_max = \"4MiB\"\n");
    Gateway::start(&config)
}
