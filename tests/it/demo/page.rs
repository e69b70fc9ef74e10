//! The demo's page in Chromium: it pays, shows balances from the stream, kills gateways, stops
//! Kafka, and misses no event. The tests read attributes that the page sets for this (`data-…`).

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Demo;
use super::browser::Browser;
use super::cutter::Cutter;
use crate::kcat;

fn cents(browser: &mut Browser, who: &str) -> i64 {
    let cents = browser.eval(&format!("Number({who}.dataset.balanceCents)"));
    cents
        .as_i64()
        .unwrap_or_else(|| panic!("{who} has a balance: {cents}"))
}

fn click(browser: &mut Browser, who: &str, role: &str) {
    browser.eval(&format!(
        "{who}.querySelector('[data-role={role}]').click()"
    ));
}

/// Clicks a button of the bar, once it can be clicked.
fn press(browser: &mut Browser, id: &str) {
    browser.wait_for(&format!("!document.getElementById('{id}').disabled"));
    browser.eval(&format!("document.getElementById('{id}').click()"));
}

fn wait_message(browser: &mut Browser, who: &str, ok: bool, status: u16) {
    let message = format!("{who}.querySelector('[data-role=message]').dataset");
    browser.wait_for(&format!(
        "{message}.ok === '{ok}' && {message}.status === '{status}'"
    ));
}

/// Waits until both people's streams are live and no number of their events is missing.
fn wait_live(browser: &mut Browser) {
    for who in ["ana", "bo"] {
        browser.wait_for(&format!(
            "{who}.dataset.state === 'open' && Number({who}.dataset.events) > 0 \
             && {who}.dataset.whole === 'true'"
        ));
    }
}

#[test]
fn the_page_pays_follows_and_survives_its_gateway() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let (ana, bo) = (cents(&mut browser, "ana"), cents(&mut browser, "bo"));

    // Ana pays Bo. Bo's side receives it only by the stream.
    click(&mut browser, "ana", "pay");
    wait_message(&mut browser, "ana", true, 201);
    browser.wait_for(&format!("bo.dataset.balanceCents === '{}'", bo + 250));
    browser.wait_for(&format!("ana.dataset.balanceCents === '{}'", ana - 250));

    // A stale version and an overdraft are rejected visibly and change nothing.
    click(&mut browser, "ana", "stale");
    wait_message(&mut browser, "ana", false, 412);
    click(&mut browser, "bo", "overdraft");
    browser.wait_for("bo.querySelector('[data-role=message]').dataset.ok === 'false'");
    assert_eq!(cents(&mut browser, "ana"), ana - 250);

    // One key, two requests, one payment.
    click(&mut browser, "bo", "twice");
    wait_message(&mut browser, "bo", true, 201);
    browser.wait_for(&format!("ana.dataset.balanceCents === '{ana}'"));
    browser.wait_for(&format!("bo.dataset.balanceCents === '{bo}'"));

    // Both gateways are killed by SIGKILL, and both streams resume.
    let pids = "[1, 2].map(n => document.getElementById(`gateway-${n}`).dataset.pid)";
    let before = browser.eval(pids);
    press(&mut browser, "kill-all");
    browser.wait_for("story.dataset.nothingMissed === 'true'");
    wait_live(&mut browser);
    let after = browser.eval(pids);
    for place in 0..2 {
        assert_ne!(before[place], after[place], "another process");
    }
    let headline = browser.eval("headline.textContent");
    let headline = headline.as_str().expect("text");
    assert!(
        headline.starts_with("Killed with −9. Back after ")
            && headline.ends_with(" s. 4 events meanwhile. 0 missing, 0 twice."),
        "{headline}"
    );
    let holes = browser.eval("[ana, bo].map(it => Number(it.dataset.holes))");
    assert_eq!(holes, serde_json::json!([0, 0]));
    let gaps = browser.eval("document.querySelectorAll('[data-kind=gap]').length");
    assert_eq!(gaps, 0);

    // Everything is shown again.
    let bo = cents(&mut browser, "bo");
    click(&mut browser, "ana", "pay");
    wait_message(&mut browser, "ana", true, 201);
    browser.wait_for(&format!("bo.dataset.balanceCents === '{}'", bo + 250));
    // Save a screenshot for documentation.
    browser.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo.png"));
}

/// Users first try this: kill every gateway and let Ana pay.
#[test]
fn a_payment_made_while_all_gateways_are_dead_is_sent_once() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let (ana, bo) = (cents(&mut browser, "ana"), cents(&mut browser, "bo"));
    press(&mut browser, "kill-all");
    browser.wait_for("ana.dataset.state !== 'open' && bo.dataset.state !== 'open'");
    // Meanwhile both are paid without a gateway, so Ana's version has changed when one is back.
    click(&mut browser, "ana", "pay");
    browser.wait_for("ana.querySelector('[data-role=message]').dataset.ok === 'pending'");
    browser.wait_for("ana.querySelector('[data-role=message]').dataset.records === '1'");
    let said = browser.eval("ana.querySelector('[data-role=message]').textContent");
    let said = said.as_str().expect("text");
    assert!(
        said.starts_with("201 sent once, ") && said.contains(" tries"),
        "{said}"
    );
    browser.wait_for("story.dataset.nothingMissed === 'true'");
    wait_live(&mut browser);
    // Each received 25 cents and paid 25 cents, and Ana paid 2.50 more.
    browser.wait_for(&format!("ana.dataset.balanceCents === '{}'", ana - 250));
    browser.wait_for(&format!("bo.dataset.balanceCents === '{}'", bo + 250));
}

/// The gateway is killed from a terminal: the page shows the process that runs now.
#[test]
fn the_page_shows_the_gateway_that_runs_whoever_killed_the_last() {
    let mut demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let pid = demo.fields["gateway_pid"].as_i64().expect("a pid");
    let chip = "document.getElementById('gateway-1')";
    let shown = |pid: i64| format!("{chip}.dataset.pid === '{pid}'");
    browser.wait_for(&shown(pid));
    for restarts in ["1 restart", "2 restarts"] {
        let pid = browser.eval(&format!("Number({chip}.dataset.pid)"));
        let pid = pid.as_i64().expect("a pid");
        let process = Pid::from_raw(pid as i32).expect("a pid");
        kill_process(process, Signal::KILL).expect("the demo's gateway");
        browser.wait_for(&format!("!({})", shown(pid)));
        browser.wait_for(&format!(
            "{chip}.dataset.state === 'up' && {chip}.innerText.includes('{restarts}')"
        ));
    }
    wait_live(&mut browser);
    browser.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-killed.png"));
    demo.terminate();
    browser.wait_for(&format!("{chip}.innerText.includes('ended')"));
}

/// Ana's stream moves from its dead gateway to the other, and her payment succeeds there at once.
#[test]
fn a_stream_and_a_payment_move_to_the_other_gateway() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let second = demo.fields["gateways"][1]["gateway"]
        .as_str()
        .expect("a URL");
    let bo = cents(&mut browser, "bo");
    press(&mut browser, "kill-1");
    browser.wait_for(&format!(
        "ana.dataset.state === 'open' && ana.dataset.gateway.startsWith('{second}')"
    ));
    click(&mut browser, "ana", "pay");
    wait_message(&mut browser, "ana", true, 201);
    browser.wait_for(&format!("bo.dataset.balanceCents === '{}'", bo + 250));
    browser.wait_for("ana.querySelectorAll('[data-kind=moved]').length === 1");
    browser.wait_for("story.dataset.nothingMissed === 'true'");
    // Two payments past the gateways, and Ana's: each is an event at both.
    let headline = browser.eval("headline.textContent");
    let headline = headline.as_str().expect("text");
    assert!(
        headline.ends_with("6 events meanwhile. 0 missing, 0 twice."),
        "{headline}"
    );
    let repeats = browser.eval("[ana, bo].map(it => [it.dataset.holes, it.dataset.repeats])");
    assert_eq!(repeats, serde_json::json!([["0", "0"], ["0", "0"]]));
}

/// The wire names the records of a payment as Kafka has them, and the lines of its hops work.
#[test]
fn the_wire_shows_each_hop_with_its_record() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    click(&mut browser, "bo", "pay");
    browser.wait_for("wire.dataset.complete === 'true'");
    let titles = browser.eval("[...hops.querySelectorAll('b')].map(it => it.textContent)");
    let title = |hop: usize| titles[hop].as_str().expect("text").to_owned();
    assert_eq!(title(0), "POST /accounts/bo/payments");
    assert!(title(4).starts_with("201 in "), "{titles}");
    assert!(
        title(5).ends_with(" at Bo") && title(6).ends_with(" at Ana"),
        "{titles}"
    );
    let times = browser.eval("[...hops.querySelectorAll('.when')].map(it => it.textContent)");
    for hop in 0..7 {
        let time = times[hop].as_str().expect("text");
        assert!(time.ends_with(" ms") || time.ends_with(" s"), "{times}");
    }
    let key = browser.eval("wire.dataset.key");
    let key = key.as_str().expect("a key").to_owned();
    for (hop, topic) in [(1, "payments-commands"), (3, "payments-replies")] {
        let (of, at) = title(hop)
            .split_once("] @")
            .map(|(of, at)| (of.to_owned(), at.to_owned()))
            .expect("a position");
        let partition = of.strip_prefix(&format!("{topic}[")).expect("its topic");
        let records = kcat::read(demo.field("kafka"), topic);
        let found = records.iter().find(|record| {
            record.partition.to_string() == partition && record.offset.to_string() == at
        });
        let found = found.unwrap_or_else(|| panic!("{titles}"));
        if hop == 1 {
            assert_eq!(found.header("idempotency-key"), Some(key.as_str()));
        } else {
            assert_eq!(found.header(":status"), Some("201"));
        }
    }
    // Each hop's line runs as it is: kcat finds the record, curl gets the stored reply.
    for (hop, expected) in [
        ("post", "idempotent-replayed: true"),
        ("command", key.as_str()),
        ("reply", ":status=201"),
        ("response", "idempotent-replayed: true"),
    ] {
        browser.eval(&format!(
            "hops.querySelector('[data-hop={hop}] button').click()"
        ));
        browser.wait_for("document.getElementById('bytes').open");
        let line = browser.eval("document.getElementById('bytes-line').textContent");
        let said = super::shell(line.as_str().expect("a line"));
        assert!(said.contains(expected), "{line}: {said}");
        let bytes = browser.eval("document.getElementById('bytes-content').textContent.length");
        assert!(bytes.as_u64() > Some(20), "{hop}");
        browser.eval("document.getElementById('bytes').close()");
    }
}

/// Kafka is stopped: balances answer with their age, and a payment is refused, and sent once later.
#[test]
fn without_kafka_balances_answer_and_a_payment_waits() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    press(&mut browser, "broker-switch");
    browser.wait_for("Number(ana.querySelector('[data-role=query]').dataset.age) > 0");
    click(&mut browser, "ana", "pay");
    browser.wait_for("ana.querySelector('[data-role=message]').textContent.includes('503')");
    browser.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-without-kafka.png"));
    press(&mut browser, "broker-switch");
    browser.wait_for("ana.querySelector('[data-role=message]').dataset.records === '1'");
    browser.wait_for("ana.querySelector('[data-role=query]').dataset.age === ''");
    wait_live(&mut browser);
}

/// A reload continues both streams where they were: no event is missing or repeated.
#[test]
fn a_reload_of_the_page_resumes_its_streams() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    click(&mut browser, "ana", "pay");
    browser.wait_for("ana.dataset.lastEvent === '2' && bo.dataset.lastEvent === '2'");
    browser.eval("window.isOld = true; location.reload()");
    browser.wait_for("!window.isOld");
    wait_live(&mut browser);
    let ids = "performance.getEntriesByType('resource')\
               .filter(it => it.name.includes('last_event_id=')).length";
    click(&mut browser, "bo", "pay");
    browser.wait_for("ana.dataset.lastEvent === '3' && bo.dataset.lastEvent === '3'");
    let seen = "[ana, bo].map(it => [it.dataset.events, it.dataset.holes, it.dataset.repeats])";
    let seen = browser.eval(seen);
    assert_eq!(seen, serde_json::json!([["3", "0", "0"], ["3", "0", "0"]]));
    // An open stream is no finished resource yet: closing it makes it one.
    demo_streams_end(&mut browser);
    browser.wait_for(&format!("{ids} >= 2"));
}

/// Kills the gateways, so that the page's streams end.
fn demo_streams_end(browser: &mut Browser) {
    press(browser, "kill-all");
    browser.wait_for("story.dataset.nothingMissed === 'true'");
}

/// A thousand streams see each payment, also while a gateway is killed: none missing, none twice.
#[test]
fn a_thousand_watchers_miss_nothing() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let places = "JSON.stringify([story, watchers, ana, p99, rate].map(it => { \
                    const at = it.getBoundingClientRect(); \
                    return [at.x, at.y, at.width, at.height]; }))";
    let before = browser.eval(places);
    press(&mut browser, "watch");
    let connected = "watchers.dataset.connected === '1000'";
    browser.wait_for(connected);
    browser.wait_for("p50.textContent.endsWith(' ms') && p99.textContent.endsWith(' ms')");
    browser.wait_for("cpu.textContent.endsWith(' µs')");
    assert_eq!(browser.eval(places), before, "nothing moves");
    press(&mut browser, "kill-2");
    browser.wait_for("story.dataset.nothingMissed === 'true'");
    browser.wait_for(connected);
    let rate = browser.eval("rate.textContent");
    browser.wait_for(&format!(
        "rate.textContent !== '{}'",
        rate.as_str().expect("text")
    ));
    let missed = browser.eval("[watchers.dataset.missing, watchers.dataset.twice]");
    assert_eq!(missed, serde_json::json!(["0", "0"]));
    press(&mut browser, "watch");
    browser.wait_for("watchers.dataset.connected === '0'");
}

/// What the page shows in turn has its place from the start: nothing moves, cards are equally high,
/// and the lists of events can be reached and scrolled by keyboard.
#[test]
fn the_layout_does_not_shift() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let places = "JSON.stringify(['#story', '#watchers', '#ana', '#wire', '#bo', '#ana .message', \
                  '#bo .logbook', '#hops li:last-child', '#gateway-1', '#broker'].map(it => { \
                    const at = document.querySelector(it).getBoundingClientRect(); \
                    return [it, at.x, at.y, at.width, at.height].join(' '); }))";
    let before = browser.eval(places);
    let heights = "[ana, wire, bo].map(it => it.getBoundingClientRect().height)";
    let heights = browser.eval(heights);
    assert!(
        heights[0] == heights[1] && heights[1] == heights[2],
        "{heights}"
    );
    click(&mut browser, "ana", "request");
    wait_message(&mut browser, "ana", true, 201);
    browser.wait_for("bo.querySelectorAll('[data-role=accept]').length === 1");
    click(&mut browser, "bo", "stale");
    wait_message(&mut browser, "bo", false, 412);
    assert_eq!(browser.eval(places), before);
    press(&mut browser, "kill-all");
    browser.wait_for("story.dataset.state === 'killed'");
    assert_eq!(browser.eval(places), before);
    browser.wait_for("story.dataset.nothingMissed === 'true'");
    for _ in 0..8 {
        click(&mut browser, "ana", "pay");
        browser.wait_for("wire.dataset.complete === 'true'");
    }
    assert_eq!(browser.eval(places), before);
    let focused = "(() => { const list = ana.querySelector('[data-role=scroll]'); list.focus(); \
                   return document.activeElement === list \
                     && list.scrollHeight > list.clientHeight; })()";
    assert_eq!(browser.eval(focused), Value::Bool(true));
}

/// A page's own `EventSource` on a filtered stream: every event with its id, its own key only, and
/// resumed by the id in the address.
#[test]
fn an_event_source_follows_one_key() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let gateway = demo.field("gateway");
    for who in ["ana", "bo"] {
        click(&mut browser, who, "pay");
        wait_message(&mut browser, who, true, 201);
    }
    let read = |count: usize, target: &str| {
        format!(
            "new Promise((done, fail) => {{
               const source = new EventSource('{gateway}{target}'), all = [];
               const over = (how) => {{ source.close(); how(all); }};
               const late = setTimeout(() => over(fail), 20000);
               source.onmessage = (e) => {{
                 all.push({{ id: e.lastEventId, data: JSON.parse(e.data) }});
                 if (all.length === {count}) {{ clearTimeout(late); over(done); }}
               }};
             }})"
        )
    };
    browser.wait_for("Number(ana.dataset.events) >= 3 && Number(bo.dataset.events) >= 3");
    let shown = browser
        .eval("Number(ana.dataset.lastEvent)")
        .as_u64()
        .expect("a number");
    let count = usize::try_from(shown).expect("a few");
    let all = browser.eval(&read(count, "/accounts/ana/events"));
    let events = all.as_array().expect("a list");
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|it| it["data"]["event"].as_u64())
        .collect();
    assert_eq!(
        numbers,
        (1..=shown).collect::<Vec<_>>(),
        "Ana's, all, in order: {all}"
    );
    let ids: std::collections::BTreeSet<_> = events.iter().map(|it| it["id"].as_str()).collect();
    assert_eq!(ids.len(), count, "each has an id of its own");
    let second = events[1]["id"].as_str().expect("an id");
    let target = format!("/accounts/ana/events?lastEventId={second}");
    let rest = browser.eval(&read(count - 2, &target));
    assert_eq!(
        rest.as_array().map(|it| &it[0]["data"]["event"]),
        Some(&Value::from(3)),
        "{rest}"
    );
}

/// An address that carries an id, as a page makes it that stores one. When the connection is cut,
/// an `EventSource` sends the newer id in a header beside the old one in its address. The header
/// takes precedence: no event is missing or repeated, even if none arrived between two cuts.
#[test]
fn an_address_with_an_id_is_cut_twice_and_misses_nothing() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.bypass_policies();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let pay = |browser: &mut Browser| {
        let before = browser.eval("Number(ana.dataset.lastEvent)");
        let before = before.as_u64().expect("a number");
        click(browser, "ana", "pay");
        browser.wait_for(&format!("Number(ana.dataset.lastEvent) > {before}"));
        before + 1
    };
    let first = pay(&mut browser);
    let gateway = demo.field("gateway").to_owned();
    let authority = gateway.strip_prefix("http://").expect("an address");
    let cutter = Cutter::before(authority.parse().expect("an address"));
    // The id of Ana's first event, as the page would have stored it.
    let id = browser.eval(&format!(
        "new Promise((done) => {{
           const source = new EventSource('{gateway}/accounts/ana/events');
           source.onmessage = (e) => {{ source.close(); done(e.lastEventId); }};
         }})"
    ));
    let (id, proxy) = (id.as_str().expect("an id"), cutter.address());
    browser.eval(&format!(
        "window.seen = [], window.opened = 0;
         const source = new EventSource('http://{proxy}/accounts/ana/events?lastEventId={id}');
         source.onopen = () => window.opened++;
         source.onmessage = (e) => window.seen.push(JSON.parse(e.data).event);
         0"
    ));
    browser.wait_for(&format!(
        "window.opened === 1 && window.seen.at(-1) === {first}"
    ));
    let second = pay(&mut browser);
    browser.wait_for(&format!("window.seen.at(-1) === {second}"));
    cutter.cut();
    let third = pay(&mut browser);
    browser.wait_for(&format!(
        "window.opened === 2 && window.seen.at(-1) === {third}"
    ));
    // Cut again before any event arrives; the next event comes after the reconnect.
    cutter.cut();
    browser.wait_for("window.opened === 3");
    let fourth = pay(&mut browser);
    browser.wait_for(&format!("window.seen.at(-1) === {fourth}"));
    let seen = browser.eval("window.seen");
    let all: Vec<u64> = (2..=fourth).collect();
    assert_eq!(seen, serde_json::json!(all), "each once, in order");
    let requests = cutter.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for (number, request) in requests.iter().enumerate() {
        let header = request.to_ascii_lowercase().contains("\r\nlast-event-id: ");
        assert!(request.contains(&format!("lastEventId={id} ")), "{request}");
        assert_eq!(header, number > 0, "{request}");
    }
}
