//! The demo's page in Chromium: it pays, shows balances from the stream, kills the gateway, and
//! misses no event. The tests read attributes that the page sets for this (`data-…`).

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Demo;
use super::browser::Browser;
use super::cutter::Cutter;

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

    // The gateway is killed by SIGKILL, and both streams resume.
    let before = browser.eval("document.getElementById('gateway-text').textContent");
    browser.eval("document.getElementById('restart').click()");
    browser.wait_for("document.getElementById('restart-result').dataset.nothingMissed === 'true'");
    wait_live(&mut browser);
    let after = browser.eval("document.getElementById('gateway-text').textContent");
    assert_ne!(before, after, "another process");
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

/// Users first try this: kill the gateway and let Ana pay.
#[test]
fn a_payment_made_while_the_gateway_is_dead_arrives() {
    let demo = Demo::start();
    let mut browser = Browser::start();
    browser.open(demo.field("page"));
    wait_live(&mut browser);
    let (ana, bo) = (cents(&mut browser, "ana"), cents(&mut browser, "bo"));
    browser.eval("document.getElementById('restart').click()");
    browser.wait_for("ana.dataset.state === 'waiting'");
    // Meanwhile both are paid without the gateway, so Ana's version has changed when it is back.
    click(&mut browser, "ana", "pay");
    wait_message(&mut browser, "ana", true, 201);
    browser.wait_for("document.getElementById('restart-result').dataset.nothingMissed === 'true'");
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
    let shown = |pid: i64| format!("document.getElementById('gateway').dataset.pid === '{pid}'");
    browser.wait_for(&shown(pid));
    for restarts in 1..=2 {
        let pid = browser.eval("Number(document.getElementById('gateway').dataset.pid)");
        let pid = pid.as_i64().expect("a pid");
        let process = Pid::from_raw(pid as i32).expect("a pid");
        kill_process(process, Signal::KILL).expect("the demo's gateway");
        browser.wait_for(&format!("!({})", shown(pid)));
        let text = "document.getElementById('gateway-text').textContent";
        let times = ["once", "2 times"][restarts - 1];
        browser.wait_for(&format!(
            "{text}.includes('up, pid') && {text}.endsWith('{times}')"
        ));
    }
    wait_live(&mut browser);
    browser.picture(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-killed.png"));
    demo.terminate();
    browser.wait_for("document.getElementById('gateway-text').textContent.includes('ended')");
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
