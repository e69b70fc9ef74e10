//! Schemas that are accepted and refused, verdicts on bodies, and the limits of a check.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const OUTSIDE: Effort = Effort::outside(0);

fn schema(schema: &Value) -> BodySchema {
    let text = serde_json::to_vec(schema).expect("a tree is JSON");
    BodySchema::compile(&text).expect("a good schema")
}

fn refused(schema: &Value) -> SchemaError {
    let text = serde_json::to_vec(schema).expect("a tree is JSON");
    BodySchema::compile(&text).expect_err("it must be refused")
}

fn payment() -> BodySchema {
    schema(&json!({
        "type": "object",
        "properties": {
            "to": {"type": "string", "pattern": "^[a-z]{1,20}$"},
            "amount_cents": {"type": "integer", "minimum": 1},
        },
        "required": ["to", "amount_cents"],
        "additionalProperties": false,
    }))
}

fn pairs(verdict: &Verdict) -> Vec<(&str, &str)> {
    let Verdict::Invalid(violations) = verdict else {
        panic!("not invalid: {verdict:?}");
    };
    let pairs = violations.iter();
    let pairs = pairs.map(|it| (it.pointer.as_str(), it.detail.as_str()));
    pairs.collect()
}

#[test]
fn a_body_is_valid_or_each_violation_has_a_pointer() {
    let payment = payment();
    let good = br#"{"to": "bo", "amount_cents": 250}"#;
    assert_eq!(payment.check(good, Effort::IN_TURN), Verdict::Valid);
    let bad = br#"{"to": "secret!", "amount_cents": 0}"#;
    let verdict = payment.check(bad, Effort::IN_TURN);
    assert_eq!(
        pairs(&verdict),
        [
            ("#/amount_cents", "value is less than the minimum of 1"),
            ("#/to", "value does not match \"^[a-z]{1,20}$\""),
        ]
    );
    assert!(
        !format!("{verdict:?}").contains("secret"),
        "no value is quoted"
    );
    let verdict = payment.check(b"{}", Effort::IN_TURN);
    assert_eq!(pairs(&verdict).len(), 2, "{verdict:?}");
    assert_eq!(pairs(&verdict)[0].0, "#");
    assert_eq!(pairs(&payment.check(b"7", Effort::IN_TURN)).len(), 1);
}

#[test]
fn what_is_not_json_says_where() {
    for (body, why) in [
        (&b""[..], "EOF while parsing a value at line 1 column 0"),
        (b"{\"a\":}", "expected value at line 1 column 6"),
        (b"{}\n x", "trailing characters at line 2 column 2"),
        (
            b"{\"a\":1,\"a\":2}",
            "an object has a name twice at line 1 column 13",
        ),
        (
            b"{\"b\":[{\"\\u0061\":1,\"a\":2}]}",
            "an object has a name twice at line 1 column 24",
        ),
        (
            b"\"\\ud800\"",
            "unexpected end of hex escape at line 1 column 8",
        ),
        (b"1e999", "number out of range at line 1 column 5"),
    ] {
        let verdict = payment().check(body, Effort::IN_TURN);
        assert_eq!(verdict, Verdict::NotJson(why.into()));
    }
    let deep = "[".repeat(100_000);
    let verdict = payment().check(deep.as_bytes(), Effort::IN_TURN);
    assert!(matches!(verdict, Verdict::NotJson(_)), "{verdict:?}");
}

#[test]
fn three_drafts_are_known() {
    let tuple = json!([1, "a"]).to_string();
    for (named, keyword) in [
        (
            json!("https://json-schema.org/draft/2020-12/schema"),
            "prefixItems",
        ),
        (
            json!("https://json-schema.org/draft/2020-12/schema#"),
            "prefixItems",
        ),
        (
            json!("https://json-schema.org/draft/2019-09/schema"),
            "items",
        ),
        (json!("http://json-schema.org/draft-07/schema#"), "items"),
        (json!("http://json-schema.org/draft-07/schema"), "items"),
    ] {
        let text = json!({"$schema": named, keyword: [{"type": "string"}]});
        let verdict = schema(&text).check(tuple.as_bytes(), OUTSIDE);
        assert_eq!(pairs(&verdict)[0].0, "#/0", "{named}");
    }
    // Without `$schema`: 2020-12, in which `items` is one schema.
    let list = schema(&json!({"prefixItems": [{"type": "string"}]}));
    assert!(matches!(
        list.check(tuple.as_bytes(), OUTSIDE),
        Verdict::Invalid(_)
    ));
    for named in [
        json!("http://json-schema.org/draft-04/schema#"),
        json!("http://json-schema.org/draft-06/schema#"),
        json!("https://example.com/mine"),
        json!(7),
    ] {
        let error = refused(&json!({"$schema": named}));
        assert!(matches!(error, SchemaError::Draft(_)), "{error}");
    }
}

#[test]
fn references_stay_in_the_file() {
    let text = json!({
        "$defs": {"name": {"$id": "https://example.com/name", "type": "string"}},
        "properties": {
            "a": {"$ref": "#/$defs/name"},
            "b": {"$ref": "https://example.com/name"},
        },
    });
    let verdict = schema(&text).check(br#"{"a": 1, "b": 2}"#, OUTSIDE);
    assert_eq!(pairs(&verdict).len(), 2);
    for (reference, shown) in [
        ("https://example.com/other", "https://example.com/other"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("common.json#/a", "common.json"),
    ] {
        let error = refused(&json!({"$ref": reference}));
        assert!(
            matches!(&error, SchemaError::Remote(uri) if uri.contains(shown)),
            "{error}"
        );
    }
    let error = refused(&json!({"$ref": "#/$defs/missing"}));
    assert!(matches!(error, SchemaError::Invalid { .. }), "{error}");
}

#[test]
fn a_flawed_schema_says_where() {
    let error = refused(&json!({"properties": {"a": {"type": "sting"}}}));
    assert!(
        matches!(&error, SchemaError::Invalid { pointer, .. } if pointer == "/properties/a/type"),
        "{error}"
    );
    let error = refused(&json!({"properties": {"a": {"pattern": "(?=x)y"}}}));
    assert!(
        matches!(&error, SchemaError::Invalid { .. }),
        "no look-around: {error}"
    );
    let error = refused(&json!({"pattern": "(a{1000}){1000}"}));
    assert!(
        matches!(&error, SchemaError::Invalid { .. }),
        "too large: {error}"
    );
    let error = BodySchema::compile(b"{").expect_err("not JSON");
    assert!(
        matches!(&error, SchemaError::NotJson(why) if why.contains("line 1")),
        "{error}"
    );
    let error = BodySchema::compile(&vec![b' '; SCHEMA_BYTES_MAX + 1]).expect_err("too large");
    assert_eq!(error, SchemaError::TooLarge);
    let error = BodySchema::compile(b"7").expect_err("not a schema");
    assert!(matches!(&error, SchemaError::Invalid { .. }), "{error}");
}

/// A schema that leads to itself twice: the number of paths doubles with every level.
fn doubling(keyword: &str) -> BodySchema {
    let inner = json!({"items": {"$ref": "#/$defs/t"}});
    schema(&json!({
        "$defs": {"t": {"type": "array", "maxItems": 1, keyword: [inner, inner]}},
        "$ref": "#/$defs/t",
    }))
}

#[test]
fn no_body_makes_a_check_endless() {
    let deep = "[".repeat(120) + "{}" + &"]".repeat(120);
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for effort in [Effort::IN_TURN, OUTSIDE] {
            let verdict = doubling(keyword).check(deep.as_bytes(), effort);
            assert!(
                matches!(verdict, Verdict::Unfinished | Verdict::Invalid(_)),
                "{keyword}: {verdict:?}"
            );
        }
    }
}

#[test]
fn violations_are_bounded_and_true() {
    let variants: Vec<_> = (0..50)
        .map(|n| json!({"type": "object", "required": [format!("a{n}"), format!("b{n}")]}))
        .collect();
    let list = schema(&json!({"items": {"oneOf": variants}}));
    let body = format!("[{}{{}}]", "{},".repeat(5000));
    let Verdict::Invalid(violations) = list.check(body.as_bytes(), Effort::outside(body.len()))
    else {
        panic!("it is invalid");
    };
    assert!(
        (1..=VIOLATIONS_MAX).contains(&violations.len()),
        "{}",
        violations.len()
    );
    for (index, violation) in violations.iter().enumerate() {
        assert_eq!(violation.pointer, format!("#/{index}"));
    }
    let strings = schema(&json!({"items": {"type": "string"}}));
    let body = format!("[{}1]", "1,".repeat(500_000));
    let verdict = strings.check(body.as_bytes(), Effort::outside(body.len()));
    assert_eq!(pairs(&verdict).len(), VIOLATIONS_MAX);
}

#[test]
fn a_body_of_a_mebibyte_is_checked() {
    let one = r#"{"to":"bo","amount_cents":250},"#;
    let payments = schema(&json!({"items": {
        "type": "object",
        "properties": {"to": {"pattern": "^[a-z]+$"}, "amount_cents": {"minimum": 1}},
        "required": ["to", "amount_cents"],
        "additionalProperties": false,
    }}));
    let body = format!(
        "[{}{}]",
        one.repeat((1 << 20) / one.len()),
        &one[..one.len() - 1]
    );
    let effort = Effort::outside(body.len());
    assert_eq!(payments.check(body.as_bytes(), effort), Verdict::Valid);
    let in_turn = payments.check(body.as_bytes(), Effort::IN_TURN);
    assert_eq!(in_turn, Verdict::Unfinished);
    let body = body.replacen("250},", "0},", 1);
    let verdict = payments.check(body.as_bytes(), effort);
    assert_eq!(pairs(&verdict)[0].0, "#/0/amount_cents");
}

/// What must hold for any body: no panic, and the limits of what a client receives.
fn check_any_body(schema: &BodySchema, body: &[u8]) {
    for effort in [Effort::IN_TURN, Effort::outside(body.len())] {
        match schema.check(body, effort) {
            Verdict::Invalid(violations) => {
                assert!(violations.len() <= VIOLATIONS_MAX);
                for it in violations {
                    assert!(it.pointer.starts_with('#') && it.pointer.len() <= 512);
                    assert!(it.pointer.is_ascii() && it.detail.len() <= 260);
                }
            }
            Verdict::NotJson(why) => assert!(why.len() < 200),
            Verdict::Valid => {
                serde_json::from_slice::<Value>(body).expect("only JSON is valid");
            }
            Verdict::Unfinished => {}
        }
    }
}

proptest! {
    #[test]
    fn any_body_has_a_verdict(parts in prop::collection::vec(
        prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"to\"", "\"amount_cents\"", "1", "-1", "\"a\"",
            "\"\\u00e4\"", "null", "true", "1e5", "\"ä/~\"",
        ]),
        0..24,
    )) {
        check_any_body(&payment(), parts.concat().as_bytes());
        check_any_body(&doubling("anyOf"), parts.concat().as_bytes());
    }

    /// With enough steps, the meter changes no verdict.
    #[test]
    fn the_meter_changes_no_verdict(to in ".{0,3}", amount in -2..3_i64, extra in any::<bool>()) {
        let mut body = json!({"to": to, "amount_cents": amount});
        if extra {
            body["x"] = json!([1, {"y": 2}]);
        }
        let text = body.to_string();
        let metered = payment().check(text.as_bytes(), OUTSIDE) == Verdict::Valid;
        let letters = !to.is_empty() && to.bytes().all(|b| b.is_ascii_lowercase());
        prop_assert_eq!(metered, letters && amount >= 1 && !extra);
    }
}
