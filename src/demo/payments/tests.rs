//! Tables of commands and the service's decisions.

use super::account_id::AccountId;
use super::command::{Command, Source};
use super::decide::Decision;
use super::entry::{JournalEntry, Kind, Reply};
use super::ledger::{Ledger, WELCOME_CENTS};
use super::seen::{DUPLICATE_MS_MAX, SEEN_MAX, Seen};

pub(super) fn book() -> Ledger {
    let mut ledger = Ledger::default();
    for entry in Ledger::opening(0) {
        assert!(ledger.absorb(&entry));
    }
    ledger
}

pub(super) fn command(offset: i64, operation: &str, account: &str, body: &str) -> Command {
    Command {
        source: Source {
            partition: 0,
            offset,
            appended_ms: offset,
        },
        correlation: format!("K{offset}.F").into(),
        operation: operation.into(),
        account: account.into(),
        if_match: None,
        body: body.into(),
    }
}

fn fresh(decision: Decision) -> JournalEntry {
    match decision {
        Decision::Fresh(entry) => *entry,
        Decision::Known(reply) => panic!("not a duplicate, yet answered with {reply:?}"),
    }
}

pub(super) fn reply(decision: Decision) -> Reply {
    match decision {
        Decision::Fresh(entry) => entry.reply.expect("a command is answered"),
        Decision::Known(reply) => reply,
    }
}

fn balance(ledger: &Ledger, id: &str) -> u64 {
    let id = AccountId::new(id).expect("a legal id");
    let holder = ledger.account(&id).expect("an account");
    holder.account.balance_cents
}

#[test]
fn a_payment_moves_money_and_tells_both() {
    let mut ledger = book();
    let body = r#"{"to":"bo","amount_cents":250,"note":"lunch"}"#;
    let entry = fresh(ledger.apply(&command(7, "pay", "ana", body)));

    let reply = entry.reply.expect("an answer");
    assert_eq!((reply.status, reply.etag), (201, Some(2)));
    assert_eq!(reply.content_type(), "application/json");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&reply.body).expect("JSON"),
        serde_json::json!({
            "account": "ana", "name": "Ana", "balance_cents": WELCOME_CENTS - 250,
            "version": 2, "payment": "p0-7",
        })
    );
    assert_eq!(balance(&ledger, "ana"), WELCOME_CENTS - 250);
    assert_eq!(balance(&ledger, "bo"), WELCOME_CENTS + 250);
    let told: Vec<_> = entry
        .activity
        .iter()
        .map(|a| (a.account.as_str(), a.kind, a.event, a.version, &*a.note))
        .collect();
    assert_eq!(
        told,
        [
            ("ana", Kind::Paid, 2, 2, "lunch"),
            ("bo", Kind::Received, 2, 2, "lunch"),
        ]
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let long = format!(
        r#"{{"to":"bo","amount_cents":1,"note":"{}"}}"#,
        "x".repeat(141)
    );
    let huge = format!(
        r#"{{"to":"bo","amount_cents":1,"note":"{}"}}"#,
        "x".repeat(4_000)
    );
    let table: &[(&str, &str, &str, u16, &str)] = &[
        ("sing", "ana", "{}", 422, "unknown-operation"),
        ("pay", "nobody", "{}", 404, "unknown-account"),
        ("pay", "No Such\u{1}", "{}", 404, "unknown-account"),
        ("pay", "ana", "", 400, "not-json"),
        ("pay", "ana", "{", 400, "not-json"),
        ("pay", "ana", "[]", 422, "invalid"),
        ("pay", "ana", r#"{"to":"bo"}"#, 422, "invalid"),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":0}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":-1}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":1.5}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":1000001}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"ana","amount_cents":1}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"Bo","amount_cents":1}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"dan","amount_cents":1}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":1,"tip":1}"#,
            422,
            "invalid",
        ),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":1,"note":"\n"}"#,
            422,
            "invalid",
        ),
        ("pay", "ana", &long, 422, "invalid"),
        ("pay", "ana", &huge, 413, "too-large"),
        (
            "pay",
            "ana",
            r#"{"to":"bo","amount_cents":10001}"#,
            409,
            "overdraft",
        ),
        (
            "request",
            "ana",
            r#"{"to":"ana","amount_cents":1}"#,
            422,
            "invalid",
        ),
        (
            "answer",
            "ana",
            r#"{"request":"r0-0","accept":true}"#,
            404,
            "unknown-request",
        ),
        ("open", "Ana!", r#"{"name":"Ana"}"#, 422, "invalid"),
        ("open", "dan", r#"{"name":" "}"#, 422, "invalid"),
    ];
    for (row, (operation, account, body, status, kind)) in table.iter().enumerate() {
        let mut ledger = book();
        let entry = fresh(ledger.apply(&command(row as i64, operation, account, body)));
        assert!(entry.accounts.is_empty() && entry.activity.is_empty());
        let reply = entry.reply.expect("an answer");
        let problem: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
        assert_eq!(
            (reply.status, problem["type"].as_str()),
            (*status, Some(&*format!("/demo/problems/{kind}"))),
            "row {row}: {problem}"
        );
        assert_eq!(problem["status"], *status);
        assert_eq!(reply.content_type(), "application/problem+json");
        assert!(!reply.retry);
        for id in ["ana", "bo", "cleo"] {
            assert_eq!(balance(&ledger, id), WELCOME_CENTS);
        }
    }
}

#[test]
fn if_match_lets_only_the_present_version_through() {
    // RFC 9110 13.1.1; the account is at version 2.
    let table = [
        ("\"2\"", 201),
        ("2", 201),
        ("*", 201),
        ("\"1\", \"2\"", 201),
        ("AbC-_9.2", 201),
        ("\"1\"", 412),
        ("W/\"2\"", 412),
        ("AbC.2.1", 412),
        ("", 412),
    ];
    for (if_match, status) in table {
        let mut ledger = book();
        let body = r#"{"to":"bo","amount_cents":1}"#;
        ledger.apply(&command(0, "pay", "ana", body));
        let mut again = command(1, "pay", "ana", body);
        again.if_match = Some(if_match.into());
        let reply = reply(ledger.apply(&again));
        assert_eq!(reply.status, status, "If-Match: {if_match}");
        let present = if status == 201 { 3 } else { 2 };
        assert_eq!(reply.etag, Some(present), "If-Match: {if_match}");
    }
}

#[test]
fn a_request_is_answered_once_by_whom_it_asks() {
    let mut ledger = book();
    let body = r#"{"to":"bo","amount_cents":900,"note":"rent"}"#;
    let asked = fresh(ledger.apply(&command(0, "request", "ana", body)));
    assert_eq!(asked.activity[1].kind, Kind::Asked);
    assert!(asked.accounts.is_empty(), "asking changes no balance");

    let yes = r#"{"request":"r0-0","accept":true}"#;
    assert_eq!(
        reply(ledger.apply(&command(1, "answer", "ana", yes))).status,
        404
    );
    let paid = fresh(ledger.apply(&command(2, "answer", "bo", yes)));
    assert_eq!(paid.reply.as_ref().expect("an answer").status, 201);
    assert_eq!(paid.activity[0].request.as_deref(), Some("r0-0"));
    assert_eq!(balance(&ledger, "ana"), WELCOME_CENTS + 900);
    assert_eq!(
        reply(ledger.apply(&command(3, "answer", "bo", yes))).status,
        404
    );

    let asked = fresh(ledger.apply(&command(4, "request", "ana", body)));
    let no = format!(r#"{{"request":"{}","accept":false}}"#, asked.activity[0].id);
    let declined = fresh(ledger.apply(&command(5, "answer", "bo", &no)));
    let kinds: Vec<_> = declined.activity.iter().map(|a| a.kind).collect();
    assert_eq!(kinds, [Kind::Declined, Kind::Refused]);
    assert_eq!(balance(&ledger, "ana"), WELCOME_CENTS + 900);
}

#[test]
fn nobody_is_shown_requests_without_end() {
    let mut ledger = book();
    let body = r#"{"to":"bo","amount_cents":1}"#;
    let statuses: Vec<_> = (0..21)
        .map(|offset| reply(ledger.apply(&command(offset, "request", "ana", body))).status)
        .collect();
    assert!(statuses[..20].iter().all(|status| *status == 201));
    assert_eq!(statuses[20], 409);
}

#[test]
fn an_account_is_opened_once_and_put_again_without_harm() {
    let mut ledger = book();
    let open = |offset| command(offset, "open", "dan", r#"{"name":"Dan"}"#);
    assert_eq!(reply(ledger.apply(&open(0))).status, 201);
    let again = fresh(ledger.apply(&open(1)));
    assert_eq!(again.reply.expect("an answer").status, 200);
    assert!(again.activity.is_empty() && again.accounts.is_empty());
    assert_eq!(balance(&ledger, "dan"), WELCOME_CENTS);
}

#[test]
fn a_duplicate_gets_the_first_reply_whatever_it_asks() {
    let mut ledger = book();
    let first = command(0, "pay", "ana", r#"{"to":"bo","amount_cents":250}"#);
    let answer = reply(ledger.apply(&first));
    let mut second = command(1, "pay", "ana", r#"{"to":"bo","amount_cents":999}"#);
    second.correlation = "K0.other".into();
    assert_eq!(ledger.apply(&second), Decision::Known(answer));
    assert_eq!(balance(&ledger, "ana"), WELCOME_CENTS - 250);
}

#[test]
fn a_command_is_forgotten_by_log_time_after_its_reply_was_readable() {
    let mut ledger = book();
    let at = |offset, appended_ms, k: &str| {
        let mut command = command(offset, "pay", "ana", r#"{"to":"bo","amount_cents":1}"#);
        command.source.appended_ms = appended_ms;
        command.correlation = format!("{k}.F").into();
        command
    };
    let is_known = |decision| matches!(decision, Decision::Known(_));
    ledger.apply(&at(0, 0, "a"));
    // The reply is not relayed, so a duplicate may follow at any log time.
    ledger.apply(&at(1, 10 * DUPLICATE_MS_MAX, "b"));
    assert!(is_known(ledger.apply(&at(2, 10 * DUPLICATE_MS_MAX, "a"))));

    ledger.on_relayed(20 * DUPLICATE_MS_MAX);
    ledger.apply(&at(3, 21 * DUPLICATE_MS_MAX, "c"));
    assert!(is_known(ledger.apply(&at(4, 21 * DUPLICATE_MS_MAX, "a"))));
    ledger.apply(&at(5, 21 * DUPLICATE_MS_MAX + 1, "d"));
    assert!(!is_known(ledger.apply(&at(
        6,
        21 * DUPLICATE_MS_MAX + 1,
        "a"
    ))));
    assert!(is_known(ledger.apply(&at(
        7,
        21 * DUPLICATE_MS_MAX + 1,
        "c"
    ))));
}

#[test]
fn a_full_memory_refuses_rather_than_forgets() {
    let answer = Reply {
        correlation: "K.F".into(),
        status: 201,
        etag: None,
        retry: false,
        body: "{}".into(),
    };
    let mut seen = Seen::default();
    for n in 0..SEEN_MAX {
        assert!(!seen.is_full(0));
        seen.remember(&n.to_string(), &answer, 0);
    }
    assert!(seen.is_full(i64::MAX), "nothing was relayed yet");
    seen.on_relayed(0);
    assert!(seen.is_full(DUPLICATE_MS_MAX));
    assert!(!seen.is_full(DUPLICATE_MS_MAX + 1));
    seen.remember("one more", &answer, DUPLICATE_MS_MAX + 1);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_reply_that_asks_for_a_retry_is_not_kept() {
    let mut ledger = book();
    let command = command(0, "pay", "ana", r#"{"to":"bo","amount_cents":1}"#);
    let mut refused = fresh(ledger.decide(&command));
    refused.accounts.clear();
    refused.activity.clear();
    refused.reply.as_mut().expect("an answer").retry = true;
    assert!(ledger.absorb(&refused));
    let mut again = command;
    again.source.offset = 1;
    assert_eq!(
        fresh(ledger.apply(&again)).reply.expect("an answer").status,
        201
    );
}

/// The largest entry that a client can cause fits one journal record, and that record fits a
/// produce request of 8 KiB.
#[test]
fn the_largest_entry_fits_a_produce_request() {
    let widest = "\u{10FFFF}".repeat(140);
    let escaped = "\\\\".repeat(140);
    for note in [&widest, &escaped] {
        let mut ledger = book();
        let id = "z".repeat(32);
        let name = r#"{"name":"\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\"}"#;
        ledger.apply(&command(0, "open", &id, name));
        let body = format!(r#"{{"to":"ana","amount_cents":10000,"note":"{note}"}}"#);
        let mut pay = command(1, "pay", &id, &body);
        pay.correlation = format!("{}.F", "K".repeat(126)).into();
        let entry = fresh(ledger.apply(&pay));
        assert_eq!(entry.activity.len(), 2, "it was carried out: {entry:?}");
        let bytes = serde_json::to_vec(&entry).expect("JSON").len();
        assert!(bytes < 4_096, "{bytes} bytes");
    }
}
