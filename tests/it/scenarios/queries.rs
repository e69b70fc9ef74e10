//! Queries: the newest record of a key, collections, validators.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::admin::Admin;
use crate::app::App;
use crate::client::{PATIENCE, Request, Response};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::ground::Ground;
use crate::service::Reply;

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
    // Another instance with other shards returns the same validator, because it depends on the
    // record and not on the process.
    let peer = app.gateway(1);
    assert_eq!(peer.get("/items/a").header("etag"), Some(etag.as_str()));
    // A changed record has another validator.
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
    let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
    let (deep, deeper, deepest) = (nested(128), nested(129), nested(100_000));
    app.produce(&app.items).keyed([
        ("deep", &*deep),
        ("deeper", &*deeper),
        ("deepest", &*deepest),
        ("half", r#""\ud800""#),
        ("range", "1e999"),
    ]);
    // Not UTF-8: written as raw bytes.
    for (key, value) in [("latin", &b"\"\xe9\""[..]), ("name", b"{\"\xff\":1}")] {
        app.produce(&app.items).keyed_bytes(key, value);
    }
    let gateway = app.gateway(2);
    let all = gateway.get("/items");
    let text = std::str::from_utf8(&all.body).expect("an array is UTF-8");
    // The value is deeper than `serde_json` reads into a tree.
    let others = text.replace(&deep, "0");
    let mut list: Vec<&str> = others.trim().trim_matches(['[', ']']).split(',').collect();
    list.sort_unstable();
    assert_eq!(list, ["\"2\"", "0", "1", "3"]);
    assert!(text.contains(&deep) && !text.contains(&deeper));
    // A value that the array omits is still served by its key, unchanged.
    assert_eq!(gateway.get("/items/text").text(), "not json");
    assert_eq!(gateway.get("/items/latin").body, b"\"\xe9\"");
    assert_eq!(gateway.get("/items/deepest").text(), deepest);
    let left_out = || gateway.metric("sluicegate_cache_values_not_json", &app.items);
    assert_eq!(left_out(), 7.0);
    gateway.wait_said_text("is not JSON");
    let warned = warnings(&gateway, &app.items);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("partition") && warned[0].contains("offset"));
    wait_state(&gateway, &app.items, "ready");
    // Once the value is corrected, it is in the array.
    app.produce(&app.items).keyed([("text", "\"json\"")]);
    let put_right = |it: &Response| it.text().contains("\"json\"");
    gateway.wait_until(&Request::get("/items"), put_right);
    assert_eq!(left_out(), 6.0);
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
            // Among the fast requests are some that visit every shard, and some that are rejected.
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

/// A limit so low that a batch of a few KiB in the log exceeds it.
const SMALL_BATCHES: &str = "--kafka-batch-bytes-max=1MiB";

fn write_bomb(app: &App, topic: &str, partition: u32, key: &str) {
    let big = "x".repeat(4 << 20);
    let to = app.produce(topic).partition(partition).codec("gzip");
    to.option("message.max.bytes=8000000").keyed([(key, &*big)]);
}

fn told(answer: &Response) -> (u16, String) {
    match answer.status {
        200 => (200, answer.text().to_owned()),
        _ => (answer.status, answer.problem()),
    }
}

fn refused() -> (u16, String) {
    (503, "cache-degraded".into())
}

/// The check of a topic in `/readyz`.
fn check(gateway: &Gateway, topic: &str) -> serde_json::Value {
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text());
    let json = ready.json();
    let checks = json["checks"].as_array().expect("a list");
    let name = format!("topic `{topic}`");
    let check = checks.iter().find(|check| check["name"] == name.as_str());
    check.expect("each topic has one").clone()
}

fn wait_state(gateway: &Gateway, topic: &str, state: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let check = check(gateway, topic);
        if check["state"] == state {
            return check["detail"].as_str().expect("a text").to_owned();
        }
        assert!(Instant::now() < until, "{check}\n{}", gateway.said());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Waits until the log has exactly this many WARN lines of a topic. Another thread reads the log.
fn wait_warnings(gateway: &Gateway, topic: &str, count: usize) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    while warnings(gateway, topic).len() < count && Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let warned = warnings(gateway, topic);
    assert_eq!(warned.len(), count, "{warned:?}");
    warned
}

/// WARN lines of a topic.
fn warnings(gateway: &Gateway, topic: &str) -> Vec<String> {
    let said = gateway.said();
    let lines = said.lines();
    let of_topic = lines.filter(|line| line.contains("WARN") && line.contains(topic));
    of_topic.map(str::to_owned).collect()
}

pub fn an_undecodable_batch_is_never_a_404_nor_an_old_value(ground: &Ground) {
    let app = App::new(ground);
    let to = |partition| app.produce(&app.items).partition(partition);
    to(0).keyed([("other", "0")]);
    to(1).keyed([("old", "1"), ("dead", "1"), ("dead", "")]);
    let live = Gateway::launch_with(&app.config(2, ""), &[SMALL_BATCHES]);
    live.wait_serving();
    let etag = live.get("/items").header("etag").expect("a tag").to_owned();
    let same = Request::get("/items").header("if-none-match", &etag);
    assert_eq!(live.ask(&same).status, 304);
    write_bomb(&app, &app.items, 1, "old");
    to(1).keyed([("new", "2"), ("gone", "2"), ("gone", "")]);
    live.wait_until(&Request::get("/items/new"), |it| it.status == 200);
    let loaded = Gateway::launch_with(&app.config(1, ""), &[SMALL_BATCHES]);
    loaded.wait_serving();
    for gateway in [&live, &loaded] {
        let get = |key: &str| told(&gateway.get(&format!("/items/{key}")));
        assert_eq!(get("new"), (200, "2".into()), "it is above");
        assert_eq!(get("other"), (200, "0".into()), "another partition");
        assert_eq!(get("gone"), (404, "not-found".into()), "deleted above");
        for doubtful in ["old", "dead", "never"] {
            assert_eq!(get(doubtful), refused(), "{doubtful}");
        }
        for request in [Request::get("/items"), same.clone()] {
            assert_eq!(told(&gateway.ask(&request)), refused(), "{request:?}");
        }
        assert_eq!(gateway.ask(&Request::new("HEAD", "/items")).status, 503);
        let detail = wait_state(gateway, &app.items, "degraded");
        for part in [
            "partition 1 offsets 3 to 3",
            "kafka.batch_bytes_max",
            "cache-degraded",
        ] {
            assert!(detail.contains(part), "no `{part}` in `{detail}`");
        }
        assert_eq!(gateway.metric("sluicegate_cache_degraded", &app.items), 1.0);
        let ranges = gateway.metric("sluicegate_kafka_undecodable_ranges", &app.items);
        assert_eq!(ranges, 1.0);
    }
    // If the producers' partitioner is declared, only keys of that partition are uncertain.
    let route = "[[query]]\nroute = \"GET /items/{id}\"";
    let declared = route.replace('\n', "\npartitioner = \"murmur2\"\n");
    let config = app.config(2, "").replace(route, &declared);
    let knows = Gateway::launch_with(&config, &[SMALL_BATCHES]);
    knows.wait_serving();
    let keys = (0..100).map(|n| format!("none-{n}"));
    for key in keys {
        let partition = sluicegate::kafka::partition_of(key.as_bytes(), 3);
        let wanted = match partition.0 {
            1 => refused(),
            _ => (404, "not-found".into()),
        };
        assert_eq!(told(&knows.get(&format!("/items/{key}"))), wanted, "{key}");
    }
    drop(knows);
    // The doubt ends for a key that is written again. Another batch is reported without another
    // WARN.
    write_bomb(&app, &app.items, 2, "two");
    to(1).keyed([("old", "3")]);
    for gateway in [&live, &loaded] {
        gateway.wait_until(&Request::get("/items/old"), |it| it.text() == "3");
        assert_eq!(told(&gateway.get("/items/never")), refused());
        let until = Instant::now() + PATIENCE;
        while !wait_state(gateway, &app.items, "degraded").contains("partition 2 offsets 0 to 0") {
            assert!(Instant::now() < until, "{}", gateway.said());
        }
        let warned = wait_warnings(gateway, &app.items, 1);
        assert!(warned[0].contains("kafka.batch_bytes_max"), "{warned:?}");
    }
    // A gateway with a higher limit reads all of it.
    let high = app.gateway(2);
    assert_eq!(high.get("/items/two").body.len(), 4 << 20);
    assert_eq!(told(&high.get("/items/never")), (404, "not-found".into()));
    assert_eq!(high.get("/items").status, 200);
    wait_state(&high, &app.items, "ready");
    assert_eq!(high.metric("sluicegate_cache_degraded", &app.items), 0.0);
}

pub fn an_undecodable_batch_is_forgotten_with_the_log_start(ground: &Ground) {
    let mut app = App::new(ground);
    app.items = ground.topic("items", 3, &[("cleanup.policy", "compact,delete")]);
    let to = |partition| app.produce(&app.items).partition(partition);
    to(1).keyed([("old", "1")]);
    write_bomb(&app, &app.items, 1, "old");
    to(1).keyed([("new", "2")]);
    to(0).keyed([("other", "0")]);
    let gateway = Gateway::launch_with(&app.config(2, ""), &[SMALL_BATCHES]);
    gateway.wait_serving();
    assert_eq!(told(&gateway.get("/items/old")), refused());
    let admin = Admin::of(app.bootstrap());
    admin.delete_records(&app.items, 1, 1);
    gateway.wait_until(&Request::get("/items/other"), |it| it.status == 200);
    assert_eq!(
        told(&gateway.get("/items/old")),
        refused(),
        "the batch is there"
    );
    admin.delete_records(&app.items, 1, 2);
    gateway.wait_until(&Request::get("/items/old"), |it| it.status == 404);
    let all = gateway.wait_until(&Request::get("/items"), |it| it.status == 200);
    let mut all: Vec<u64> = serde_json::from_slice(&all.body).expect("an array");
    all.sort_unstable();
    assert_eq!(all, [0, 2]);
    wait_state(&gateway, &app.items, "ready");
    assert_eq!(gateway.metric("sluicegate_cache_degraded", &app.items), 0.0);
    // The next one is logged again.
    write_bomb(&app, &app.items, 0, "bomb");
    wait_state(&gateway, &app.items, "degraded");
    wait_warnings(&gateway, &app.items, 2);
}

pub fn a_topic_that_outgrows_its_cache_is_named_until_there_is_room(ground: &Ground) {
    const KEYS: usize = 200;
    const KEPT: usize = 50;
    let app = App::new(ground);
    let big = |n: usize| format!("[{n},\"{}\"]", "x".repeat(10_000));
    let write = |records: &[(String, String)]| {
        let to = app.produce(&app.items);
        to.keyed(records.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    };
    let all: Vec<_> = (0..KEYS).map(|n| (format!("k{n}"), big(n))).collect();
    write(&all[..KEPT]);
    let gateway = app.gateway_with(2, "[cache]\nbytes_max = \"1MiB\"\n");
    assert_eq!(gateway.get("/items").status, 200);
    assert_eq!(wait_state(&gateway, &app.items, "ready"), "live");
    // The topic outgrows its cache while it is served. Another gateway finds it too large at start.
    write(&all[KEPT..]);
    wait_state(&gateway, &app.items, "degraded");
    let late = app.gateway_with(1, "[cache]\nbytes_max = \"1MiB\"\n");
    for gateway in [&gateway, &late] {
        let detail = wait_state(gateway, &app.items, "degraded");
        assert!(detail.contains("cache.bytes_max (1MiB)"), "{detail}");
        let last = format!("/items/k{}", KEYS - 1);
        gateway.wait_until(&Request::get(&last), |it| it.status != 404);
        let answers = (0..KEYS).map(|n| (n, told(&gateway.get(&format!("/items/k{n}")))));
        let (held, left_out): (Vec<_>, Vec<_>) = answers.partition(|(_, it)| it.0 == 200);
        assert!(held.iter().all(|(n, it)| it.1 == big(*n)), "no other value");
        assert!(left_out.iter().all(|(_, it)| *it == refused()), "never 404");
        assert!(left_out.len() > KEYS / 10, "{} left out", left_out.len());
        assert_eq!(
            told(&gateway.get("/items/never")),
            (404, "not-found".into())
        );
        assert_eq!(told(&gateway.get("/items")), refused());
        assert_eq!(gateway.ask(&Request::new("HEAD", "/items")).status, 503);
        let warned = wait_warnings(gateway, &app.items, 1);
        assert!(warned[0].contains("cache.bytes_max"), "{warned:?}");
        assert_eq!(gateway.metric("sluicegate_cache_degraded", &app.items), 1.0);
        let metric = |name| gateway.metric(name, &app.items) as usize;
        let values = metric("sluicegate_cache_values_left_out");
        let keys = metric("sluicegate_cache_keys_left_out_total");
        assert_eq!(values + keys, left_out.len());
    }
    // Deletes of other keys free room. Omitted records are read again, and no other answer changes.
    let dead: Vec<_> = (0..KEYS - KEPT)
        .map(|n| (format!("k{n}"), String::new()))
        .collect();
    write(&dead);
    for gateway in [&gateway, &late] {
        assert_eq!(wait_state(gateway, &app.items, "ready"), "live");
        let whole = gateway.wait_until(&Request::get("/items"), |it| it.status == 200);
        assert_eq!(whole.json().as_array().map(Vec::len), Some(KEPT));
        for n in 0..KEYS {
            let answer = told(&gateway.get(&format!("/items/k{n}")));
            if n < KEYS - KEPT {
                assert_eq!(answer.0, 404, "k{n}");
            } else {
                assert_eq!(answer, (200, big(n)), "k{n}");
            }
        }
        assert_eq!(gateway.metric("sluicegate_cache_degraded", &app.items), 0.0);
        assert_eq!(warnings(gateway, &app.items).len(), 1, "{}", gateway.said());
    }
}

fn next_data(stream: &mut Events) -> String {
    loop {
        let event = stream.next();
        if event.name == "message" {
            return event.data;
        }
    }
}

pub fn a_snapshot_names_what_could_not_be_decoded(ground: &Ground) {
    let app = App::new(ground);
    let to = |partition| app.produce(&app.items).partition(partition);
    to(1).keyed([("old", "1")]);
    write_bomb(&app, &app.items, 1, "old");
    to(1).keyed([("new", "2")]);
    let gateway = Gateway::launch_with(&app.config(2, ""), &[SMALL_BATCHES]);
    gateway.wait_serving();
    let mut stream = Events::open(gateway.address(), "/items-now");
    let (mut data, mut gaps) = (Vec::new(), Vec::new());
    while data.len() < 2 || gaps.is_empty() {
        let event = stream.next();
        match event.name.as_str() {
            "gap" => gaps.push(event.data),
            "message" => data.push(event.data),
            _ => {}
        }
    }
    data.sort();
    assert_eq!(data, ["1", "2"]);
    let gap: serde_json::Value = serde_json::from_str(&gaps[0]).expect("JSON");
    let wanted = serde_json::json!({"partition": 1, "from": 1, "to": 2, "reason": "undecodable"});
    assert_eq!((gap, gaps.len()), (wanted, 1));
    // A client with the whole snapshot received the gap, and does not receive it again.
    to(1).keyed([("new", "3")]);
    assert_eq!(next_data(&mut stream), "3");
    let id = stream.last_event_id().to_owned();
    drop(stream);
    to(1).keyed([("new", "4")]);
    let mut resumed = Events::resume(gateway.address(), "/items-now", &id);
    assert_eq!(next_data(&mut resumed), "4");
}

pub fn a_collections_tag_changes_with_what_is_removed(ground: &Ground) {
    let mut app = App::new(ground);
    app.items = ground.topic("items", 2, &[("cleanup.policy", "compact,delete")]);
    let to = |partition| app.produce(&app.items).partition(partition);
    to(0).keyed([("a", "1"), ("b", "2"), ("c", "3")]);
    to(1).keyed([("d", "4")]);
    let gateway = app.gateway(2);
    let whole = gateway.get("/items");
    let etag = whole.header("etag").expect("a tag").to_owned();
    assert!(etag.starts_with("W/\""), "the body may be newer: {etag}");
    assert_eq!(app.gateway(1).get("/items").header("etag"), Some(&*etag));
    let ask = || gateway.ask(&Request::get("/items").header("if-none-match", &etag));
    assert_eq!((ask().status, ask().header("etag")), (304, Some(&*etag)));
    // Clients that do not know weak tags send it like this.
    let bare = etag.trim_start_matches("W/");
    let bare = Request::get("/items").header("if-none-match", bare);
    assert_eq!(gateway.ask(&bare).status, 304);
    Admin::of(app.bootstrap()).delete_records(&app.items, 0, 2);
    gateway.wait_until(&Request::get("/items/a"), |it| it.status == 404);
    let less = ask();
    assert_eq!(less.status, 200, "it is not as it was");
    let mut values: Vec<u64> = serde_json::from_slice(&less.body).expect("an array");
    values.sort_unstable();
    assert_eq!(values, [3, 4]);
    let other = less.header("etag").expect("a tag").to_owned();
    assert_ne!(other, etag);
    assert_eq!(app.gateway(1).get("/items").header("etag"), Some(&*other));
}

/// Queries of `items` are served, and streams of it are not.
fn is_queried_and_not_streamed(app: &App, gateway: &Gateway, why: &str) {
    gateway.wait_serving();
    app.produce(&app.items).keyed([("a", "1")]);
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    assert_eq!(gateway.get("/items").json(), serde_json::json!([1]));
    assert_eq!(gateway.get("/items/never").status, 404);
    for target in ["/items-now", "/items-now/a"] {
        // As with every topic that can't be streamed now, the client must reconnect later.
        let answer = gateway.get(target);
        let lines: Vec<_> = answer.text().lines().filter(|it| !it.is_empty()).collect();
        let told = matches!(&lines[..], [one] if one.starts_with("retry: "));
        assert!(answer.status == 200 && told, "{answer:?}");
    }
    let mut events = Events::open(gateway.address(), "/events/live");
    events.wait_for_id();
    let ready = gateway.admin_get("/readyz");
    let json = ready.json();
    assert_eq!(ready.status, 503, "{json}");
    let routes = json["routes"].as_array().expect("a list").iter();
    let not_ready = routes.filter(|it| it["ready"] == false);
    let not_ready: Vec<_> = not_ready.map(|it| it["route"].clone()).collect();
    assert_eq!(
        not_ready,
        ["GET /items-now", "GET /items-now/{key}"],
        "{json}"
    );
    let checks = json["checks"].as_array().expect("a list");
    let blocked: Vec<_> = checks
        .iter()
        .filter(|it| it["state"] == "blocked")
        .collect();
    assert_eq!(blocked.len(), 1, "{json}");
    assert_eq!(
        blocked[0]["name"],
        format!("streams of topic `{}`", app.items)
    );
    let detail = blocked[0]["detail"].as_str().expect("a text");
    assert!(detail.contains(why), "{detail}");
    let warned = warnings(gateway, &app.items);
    let summary = "serving without what is not ready";
    let warned = warned
        .iter()
        .filter(|it| it.contains(why) && !it.contains(summary));
    assert_eq!(warned.count(), 1, "{}", gateway.said());
}

pub fn a_topic_of_too_many_partitions_is_queried_and_not_streamed(ground: &Ground) {
    let mut app = App::new(ground);
    app.items = ground.compacted("items", 129);
    let gateway = Gateway::launch(&app.config(2, ""));
    is_queried_and_not_streamed(&app, &gateway, "129 partitions");
}

pub fn a_topic_that_is_not_compacted_is_queried_and_not_streamed(ground: &Ground) {
    let mut app = App::new(ground);
    app.items = ground.topic("items", 2, &[]);
    let gateway = Gateway::launch_with(&app.config(2, ""), &["--kafka-metadata-age-max=1s"]);
    is_queried_and_not_streamed(&app, &gateway, "needs a compacted topic");
    ground.alter(&app.items, "cleanup.policy", "compact");
    gateway.wait_admin("/readyz", |it| it.status == 200);
    let mut stream = Events::open(gateway.address(), "/items-now");
    assert_eq!(next_data(&mut stream), "1");
}

pub fn replies_that_can_not_be_decoded_are_named(ground: &Ground) {
    let mut app = App::new(ground);
    app.replies = ground.topic("replies", 3, &[]);
    let _service = app.service(|_| Some(Reply::new(200, "done")));
    let gateway = Gateway::launch_with(&app.config(2, ""), &[SMALL_BATCHES]);
    gateway.wait_serving();
    write_bomb(&app, &app.replies, 2, "reply");
    let detail = wait_state(&gateway, &app.replies, "degraded");
    for part in [
        "partition 2 offsets 0 to 0",
        "kafka.batch_bytes_max",
        "count as unanswered",
    ] {
        assert!(detail.contains(part), "no `{part}` in `{detail}`");
    }
    wait_warnings(&gateway, &app.replies, 1);
    let ranges = gateway.metric("sluicegate_kafka_undecodable_ranges", &app.replies);
    assert_eq!(ranges, 1.0);
    let order = Request::post("/items/a/orders", "{}");
    assert_eq!(gateway.ask(&order).text(), "done", "others are answered");
    Admin::of(app.bootstrap()).delete_records(&app.replies, 2, 1);
    wait_state(&gateway, &app.replies, "ready");
}

/// Many more than a quiet shard removes if each of its turns removes some and does not schedule the
/// next.
pub fn deleted_keys_are_forgotten_though_nothing_else_happens(ground: &Ground) {
    const KEYS: usize = 60_000;
    let mut app = App::new(ground);
    let configs = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "5000"),
    ];
    app.items = ground.topic("items", 1, &configs);
    let gateway = app.gateway(1);
    let keys: Vec<_> = (0..KEYS).map(|n| format!("k{n}")).collect();
    app.produce(&app.items)
        .keyed(keys.iter().map(|key| (key.as_str(), "")));
    app.produce(&app.items).keyed([("last", "1")]);
    gateway.wait_until(&Request::get("/items/last"), |it| it.status == 200);
    let bytes = || gateway.metric("sluicegate_cache_bytes", &app.items);
    let before = bytes();
    assert!(
        before > 100.0 * KEYS as f64,
        "{before} bytes: they are there"
    );
    let until = Instant::now() + PATIENCE;
    while bytes() > before / 3.0 {
        assert!(Instant::now() < until, "{}", gateway.said());
        // Each request makes the shard turn.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    gateway.wait_admin("/metrics", |_| {
        gateway.metric("sluicegate_cache_tombstones", &app.items) == 0.0
    });
    assert_eq!(gateway.get("/items/k7").status, 404);
}
