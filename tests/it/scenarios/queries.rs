//! Queries: the newest record of a key, all keys, validators.

use std::collections::BTreeSet;

use crate::app::App;
use crate::client::Request;
use crate::ground::Ground;

pub fn one_record_by_its_key(ground: &Ground) {
    let app = App::new(ground);
    let old = [
        ("a", "{\"n\":0}"),
        ("b", "{\"n\":1}"),
        ("gone", "{}"),
        ("a", "{\"n\":2}"),
    ];
    app.produce(&app.items).keyed(old);
    app.produce(&app.items).keyed([("gone", "")]);
    let tagged = app.produce(&app.items).header("etag", Some("v9"));
    tagged
        .header("content-type", Some("text/plain"))
        .keyed([("tagged", "hello")]);
    for shards in [1, 2, 4] {
        let gateway = app.gateway(shards);
        let a = gateway.get("/items/a");
        assert_eq!((a.status, a.text()), (200, "{\"n\":2}"), "{shards} shards");
        assert_eq!(a.header("content-type"), Some("application/json"));
        assert_eq!(gateway.get("/items/b").text(), "{\"n\":1}");
        let tagged = gateway.get("/items/tagged");
        assert_eq!(
            (tagged.text(), tagged.header("etag")),
            ("hello", Some("\"v9\""))
        );
        assert_eq!(tagged.header("content-type"), Some("text/plain"));
        for missing in ["/items/gone", "/items/never"] {
            let answer = gateway.get(missing);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (404, "not-found")
            );
        }
        let head = gateway.ask(&Request::new("HEAD", "/items/a"));
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("7"));
        assert_eq!(head.header("etag"), a.header("etag"));
    }
}

pub fn a_validator_saves_the_body(ground: &Ground) {
    let app = App::new(ground);
    app.produce(&app.items)
        .keyed([("a", "{\"n\":1}"), ("b", "{}")]);
    let gateway = app.gateway(2);
    let etag = gateway
        .get("/items/a")
        .header("etag")
        .expect("every record has one")
        .to_owned();
    let other = gateway
        .get("/items/b")
        .header("etag")
        .expect("every record has one")
        .to_owned();
    assert_ne!(etag, other);
    let ask = |tags: &str| gateway.ask(&Request::get("/items/a").header("if-none-match", tags));
    for tags in [&etag, &format!("W/{etag}"), &format!("\"x\", {etag}"), "*"] {
        let answer = ask(tags);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{tags}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    assert_eq!(ask(&other).status, 200);
    assert_eq!(ask("\"unclosed").status, 400);
    // A peer with other shards gives the same validator: it is of the record, not of the process.
    let peer = app.gateway(1);
    assert_eq!(peer.get("/items/a").header("etag"), Some(etag.as_str()));
    // A change has another one.
    app.produce(&app.items).keyed([("a", "{\"n\":2}")]);
    let changed = gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "{\"n\":2}");
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    assert_eq!(ask(&etag).status, 200);
}

pub fn all_of_them_over_many_shards(ground: &Ground) {
    const KEYS: usize = 500;
    let app = App::new(ground);
    let records: Vec<(String, String)> = (0..KEYS)
        .flat_map(|n| {
            [
                (format!("key-{n}"), format!("[{n},0]")),
                (format!("key-{n}"), format!("[{n},1]")),
            ]
        })
        .collect();
    app.produce(&app.items)
        .keyed(records.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let gone: Vec<String> = (0..KEYS).step_by(10).map(|n| format!("key-{n}")).collect();
    app.produce(&app.items)
        .keyed(gone.iter().map(|key| (key.as_str(), "")));
    let wanted: BTreeSet<(usize, usize)> =
        (0..KEYS).filter(|n| n % 10 != 0).map(|n| (n, 1)).collect();
    for shards in [1, 2, 4] {
        let gateway = app.gateway(shards);
        let all = gateway.get("/items");
        assert_eq!(all.status, 200);
        assert_eq!(all.header("content-type"), Some("application/json"));
        let list: Vec<(usize, usize)> = serde_json::from_slice(&all.body).expect("an array");
        let set: BTreeSet<_> = list.iter().copied().collect();
        assert_eq!(list.len(), set.len(), "each once, with {shards} shards");
        assert_eq!(set, wanted, "with {shards} shards");
        let etag = all.header("etag").expect("a collection has one").to_owned();
        let same = gateway.ask(&Request::get("/items").header("if-none-match", &etag));
        assert_eq!((same.status, same.body.len()), (304, 0));
        let head = gateway.ask(&Request::new("HEAD", "/items"));
        assert_eq!(
            (head.status, head.header("etag")),
            (200, Some(etag.as_str()))
        );
    }
    let empty = App::new(ground).gateway(2);
    assert_eq!(empty.get("/items").json(), serde_json::json!([]));
}

pub fn what_can_not_stand_in_an_array_is_left_out(ground: &Ground) {
    let app = App::new(ground);
    app.produce(&app.items)
        .keyed([("a", "1"), ("text", "not json"), ("b", "\"2\"")]);
    app.produce(&app.items)
        .header("x", None)
        .keyed([("null-header", "3")]);
    let gateway = app.gateway(2);
    let mut list: Vec<String> = match gateway.get("/items").json() {
        serde_json::Value::Array(list) => list.iter().map(ToString::to_string).collect(),
        other => panic!("an array: {other}"),
    };
    list.sort();
    assert_eq!(list, ["\"2\"", "1", "3"]);
    assert_eq!(gateway.get("/items/text").text(), "not json");
}

pub fn a_long_pipeline_is_answered_in_order(ground: &Ground) {
    const REQUESTS: usize = 1000;
    let app = App::new(ground);
    let records: Vec<(String, String)> = (0..50)
        .map(|n| (format!("k{n}"), format!("{{\"n\":{n}}}")))
        .collect();
    app.produce(&app.items)
        .keyed(records.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let gateway = app.gateway(2);
    let mut connection = gateway.connect();
    let mut bytes = Vec::new();
    for n in 0..REQUESTS {
        let target = match n % 10 {
            // Among those that are quick some that visit every shard, and some that are refused.
            3 => "/items".to_owned(),
            7 => "/nowhere".to_owned(),
            _ => format!("/items/k{}", n % 50),
        };
        bytes.extend(Request::get(&target).bytes());
    }
    connection.send(&bytes);
    for n in 0..REQUESTS {
        let answer = connection.response(false);
        match n % 10 {
            3 => assert_eq!(
                answer.json().as_array().map(Vec::len),
                Some(50),
                "answer {n}"
            ),
            7 => assert_eq!(answer.status, 404, "answer {n}"),
            _ => assert_eq!(answer.text(), format!("{{\"n\":{}}}", n % 50), "answer {n}"),
        }
    }
    assert_eq!(
        connection.ask(&Request::get("/items/k1")).text(),
        "{\"n\":1}"
    );
}

pub fn a_write_becomes_visible(ground: &Ground) {
    let app = App::new(ground);
    let gateways = [app.gateway(1), app.gateway(4)];
    for n in 0..5 {
        let value = format!("{{\"n\":{n}}}");
        app.produce(&app.items).keyed([("a", value.as_str())]);
        for gateway in &gateways {
            let seen = gateway.wait_until(&Request::get("/items/a"), |it| it.text() == value);
            assert_eq!(seen.status, 200);
        }
    }
    app.produce(&app.items).keyed([("a", "")]);
    for gateway in &gateways {
        gateway.wait_until(&Request::get("/items/a"), |it| it.status == 404);
    }
}
