//! Any body against schemas that use what costs most: references to themselves, `oneOf`, patterns,
//! unique and unevaluated items. No panic, and no check beyond its limit of steps.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::schema::{BodySchema, Effort, VIOLATIONS_MAX, Verdict};

const TEXTS: [&str; 3] = [
    r##"{"$defs": {"t": {"anyOf": [{"items": {"$ref": "#/$defs/t"}},
        {"additionalProperties": {"$ref": "#/$defs/t"}}, {"type": ["string", "null"]}]}},
        "$ref": "#/$defs/t", "unevaluatedItems": false, "unevaluatedProperties": false}"##,
    r#"{"oneOf": [{"type": "object", "required": ["a"], "patternProperties": {"^(a+)+$": true},
        "propertyNames": {"pattern": "^[a-c]*$"}, "additionalProperties": false},
        {"type": "array", "uniqueItems": true, "contains": {"multipleOf": 0.1}},
        {"type": "string", "minLength": 1, "pattern": "^\\p{L}*$"}]}"#,
    r#"{"$schema": "http://json-schema.org/draft-07/schema#", "format": "date-time",
        "contentMediaType": "application/json", "contentEncoding": "base64",
        "properties": {"a": {"format": "email"}, "b": {"format": "uri"}, "c": {"enum": [1, "x"]}}}"#,
];

static SCHEMAS: LazyLock<Vec<BodySchema>> = LazyLock::new(|| {
    let compile = |text: &&str| BodySchema::compile(text.as_bytes()).expect("a good schema");
    TEXTS.iter().map(compile).collect()
});

fuzz_target!(|body: &[u8]| {
    for schema in &*SCHEMAS {
        for effort in [Effort::IN_TURN, Effort::outside(body.len())] {
            match schema.check(body, effort) {
                Verdict::Invalid(violations) => {
                    assert!((1..=VIOLATIONS_MAX).contains(&violations.len()));
                    for it in violations {
                        assert!(it.pointer.starts_with('#') && it.pointer.is_ascii());
                        assert!(it.pointer.len() <= 512 && it.detail.len() <= 260);
                    }
                }
                Verdict::NotJson(why) => assert!(why.len() <= 200),
                Verdict::Valid => {
                    let json = serde_json::from_slice::<serde_json::Value>(body);
                    assert!(json.is_ok(), "only JSON is valid");
                }
                Verdict::Unfinished => {}
            }
        }
    }
    // A stranger's bytes as a schema: the author is trusted, but may be mistaken.
    let _ = BodySchema::compile(body);
});
