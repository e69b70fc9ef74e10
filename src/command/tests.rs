//! The two tables together, and the reply index against a plain list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use proptest::prelude::*;

use super::reply::tests::names;
use super::*;
use crate::log::testing::{Draft, batch, step};
use crate::log::{Change, Step};
use crate::model::{
    CommandKey, CorrelationId, Fingerprint, HashSecret, Instant, Offset, Partition, Tenant,
    UnixMillis,
};

const F: Fingerprint = Fingerprint([1; 16]);
const WINDOW: Duration = Duration::from_millis(1600);
const NOW: UnixMillis = UnixMillis(10_000);

fn key(n: u8) -> CommandKey {
    CommandKey([n; 16])
}

impl Fingerprint {
    /// Another request under the same recipe.
    fn changed(mut self, n: u8) -> Self {
        self.0[15] = 100 + n;
        self
    }
}

fn index(entries: usize) -> ReplyIndex {
    let settings = ReplyIndexSettings {
        window: WINDOW,
        dedupe_bytes_max: entries * ReplyIndexSettings::ENTRY_BYTES,
        body_bytes_max: 4096,
    };
    ReplyIndex::new(settings, RandomState::with_seeds(1, 2, 3, 4))
}

fn table() -> CommandTable<u32> {
    let limits = OpenLimits {
        entries_max: 8,
        waiters_max: 8,
        waiters_per_command_max: 4,
        per_tenant_max: 100,
        open_limit: Duration::from_secs(600),
        unknown_limit: Duration::from_secs(60),
    };
    let open = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
    CommandTable::new(
        open,
        index(1000),
        names(),
        RandomState::with_seeds(5, 6, 7, 8),
    )
}

fn reply(offset: u64, key: CommandKey, fingerprint: Fingerprint, body: &str) -> Draft {
    let id = CorrelationId { key, fingerprint };
    let draft = Draft {
        timestamp: NOW.0,
        ..Draft::new(offset, "k", Some(body))
    };
    draft.header("correlation-id", id.to_string())
}

fn apply(table: &mut CommandTable<u32>, drafts: &[Draft]) -> Vec<AnsweredExchange<u32>> {
    let batch = batch(0, drafts, &HashSecret::new([0; 16]));
    apply_step(table, &step(1, Change::Records(batch)))
}

fn apply_step(table: &mut CommandTable<u32>, step: &Step) -> Vec<AnsweredExchange<u32>> {
    let mut answered = Vec::new();
    table.apply(step, true, NOW, &mut answered, &mut |_, _| {});
    answered
}

fn waiter_of(waiter: u32) -> NewWaiter<u32> {
    NewWaiter {
        waiter,
        deadline: Instant::ZERO.after(Duration::from_secs(10)),
        accept_at: None,
    }
}

fn admit(table: &mut CommandTable<u32>, n: u8, fingerprint: Fingerprint, waiter: u32) -> Admitted {
    let attempt = Attempt {
        id: CorrelationId {
            key: key(n),
            fingerprint,
        },
        tenant: Tenant::V4(waiter.into()),
        joins: true,
    };
    table.admit(&attempt, Some(waiter_of(waiter)), Instant::ZERO)
}

fn body(answer: &ReplyResult) -> &[u8] {
    match answer {
        Ok(reply) => &reply.body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_opened_joined_answered_and_answered_again() {
    let mut table = table();
    assert_eq!(admit(&mut table, 1, F, 10), Admitted::Opened);
    assert_eq!(admit(&mut table, 1, F, 11), Admitted::Joined);
    let answered = apply(&mut table, &[reply(0, key(1), F, "done")]);
    let waiters: Vec<u32> = answered.iter().map(|a| a.waiter).collect();
    assert_eq!(waiters, [10, 11]);
    assert!(answered.iter().all(|a| body(&a.answer) == b"done"));
    let Admitted::Answered(Ok(again)) = admit(&mut table, 1, F, 12) else {
        panic!("not answered");
    };
    assert_eq!(&again.body[..], b"done");
    assert_eq!(table.open.stats(), OpenStats::default());
}

#[test]
fn one_key_for_two_requests_is_a_mismatch_open_or_answered() {
    let mut table = table();
    let other = Fingerprint([1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    admit(&mut table, 1, F, 10);
    assert_eq!(admit(&mut table, 1, other, 11), Admitted::Mismatch);
    apply(&mut table, &[reply(0, key(1), F, "done")]);
    assert_eq!(admit(&mut table, 1, other, 12), Admitted::Mismatch);
}

/// DESIGN "Commands": two gateways append two different requests under one command key. This
/// gateway has the first in flight, and the reply to the second arrives before the first one's
/// reply.
#[test]
fn each_request_under_one_key_gets_the_reply_of_its_own_fingerprint() {
    let (one, two, three) = (F, F.changed(2), F.changed(3));
    let mut table = table();
    assert_eq!(admit(&mut table, 1, one, 10), Admitted::Opened);
    assert_eq!(apply(&mut table, &[reply(0, key(1), two, "theirs")]), []);
    assert_eq!(table.open.waiters(key(1)), 1, "it waits for its own reply");
    // While its own reply is due, a retry joins. The other request is answered. A third request is
    // neither.
    assert_eq!(admit(&mut table, 1, one, 11), Admitted::Joined);
    let Admitted::Answered(Ok(theirs)) = admit(&mut table, 1, two, 12) else {
        panic!("the reply to the second request is stored");
    };
    assert_eq!(&theirs.body[..], b"theirs");
    assert_eq!(admit(&mut table, 1, three, 13), Admitted::Mismatch);
    let answered = apply(&mut table, &[reply(1, key(1), one, "ours")]);
    let told: Vec<_> = answered
        .iter()
        .map(|a| (a.waiter, body(&a.answer)))
        .collect();
    assert_eq!(told, [(10, &b"ours"[..]), (11, b"ours")]);
    for (fingerprint, expected) in [(one, &b"ours"[..]), (two, b"theirs")] {
        let Admitted::Answered(Ok(stored)) = admit(&mut table, 1, fingerprint, 14) else {
            panic!("each has a stored reply of its own");
        };
        assert_eq!(&stored.body[..], expected);
    }
    assert_eq!(admit(&mut table, 1, three, 15), Admitted::Mismatch);
    assert_eq!(table.replies.stats().entries, 2);
}

/// A service that executes only one request of a command key may leave the other without a reply.
#[test]
fn a_request_whose_own_reply_never_comes_is_unknown_and_stays_in_flight() {
    let mut table = table();
    let two = F.changed(2);
    assert_eq!(admit(&mut table, 1, F, 10), Admitted::Opened);
    apply(&mut table, &[reply(0, key(1), two, "theirs")]);
    let mut expired = Vec::new();
    table
        .open
        .on_timeout(Instant::ZERO.after(Duration::from_secs(10)), &mut expired);
    assert_eq!(expired.len(), 1, "504");
    assert_eq!(admit(&mut table, 1, F, 11), Admitted::Joined, "not 422");
    // The entry ends with `open_limit`. From then on only the other request is known.
    table
        .open
        .on_timeout(Instant::ZERO.after(Duration::from_secs(600)), &mut expired);
    assert_eq!(admit(&mut table, 1, F, 12), Admitted::Mismatch);
}

/// A rolling change of the recipe: gateways of both builds see the same replies.
#[test]
fn a_reply_of_another_recipe_answers_a_retry_but_not_a_record_in_flight() {
    let mut older = F.changed(7);
    older.0[0] = F.0[0] - 1;
    let mut table = table();
    apply(&mut table, &[reply(0, key(1), older, "before")]);
    let Admitted::Answered(Ok(stored)) = admit(&mut table, 1, F, 10) else {
        panic!("another recipe is no mismatch");
    };
    assert_eq!(&stored.body[..], b"before");
    // The first request's record is in flight, so its own reply will arrive.
    assert_eq!(admit(&mut table, 2, F, 20), Admitted::Opened);
    assert_eq!(apply(&mut table, &[reply(1, key(2), older, "before")]), []);
    assert_eq!(admit(&mut table, 2, F, 21), Admitted::Joined);
    let answered = apply(&mut table, &[reply(2, key(2), F, "now")]);
    assert!(answered.len() == 2 && answered.iter().all(|a| body(&a.answer) == b"now"));
}

#[test]
fn fingerprints_of_one_key_are_bounded() {
    let mut table = table();
    let most = ReplyIndex::FINGERPRINTS_PER_KEY_MAX as u8;
    for n in 0..most + 1 {
        apply(
            &mut table,
            &[reply(u64::from(n), key(1), F.changed(n), "v")],
        );
    }
    let stats = table.replies.stats();
    assert_eq!((stats.entries, stats.crowded), (usize::from(most), 1));
    assert!(table.replies.get(key(1), F.changed(most - 1)).is_some());
    assert_eq!(admit(&mut table, 1, F.changed(most), 1), Admitted::Mismatch);
}

#[test]
fn the_first_reply_stands() {
    let mut table = table();
    apply(
        &mut table,
        &[reply(0, key(1), F, "first"), reply(1, key(1), F, "second")],
    );
    let Admitted::Answered(Ok(answer)) = admit(&mut table, 1, F, 1) else {
        panic!("not answered");
    };
    assert_eq!(&answer.body[..], b"first");
    assert_eq!(table.replies.stats().duplicates, 1);
    let counts = table.counts();
    assert_eq!((counts.repeated, counts.not_in_flight), (1, 1));
}

/// A reply to another command's client would be worse than none.
#[test]
fn a_reply_with_two_correlation_ids_answers_neither_command() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    admit(&mut table, 2, F, 20);
    let other = reply(0, key(2), F, "").headers;
    let mut ambiguous = reply(0, key(1), F, "whose?");
    ambiguous.headers.extend(other);
    let mut null = reply(1, key(1), F, "null");
    null.headers[0].1 = None;
    assert_eq!(apply(&mut table, &[ambiguous, null]), []);
    let counts = ReplyCounts {
        ambiguous_correlation_id: 1,
        no_correlation_id: 1,
        ..ReplyCounts::default()
    };
    assert_eq!(table.counts(), counts);
    let text = table.take_ignored().expect("the first is kept").text;
    let flaw = "headers `correlation-id` have different values";
    assert!(text.starts_with(flaw), "{text}");
    // A service that copies all headers of the command and adds the id again.
    let mut twice = reply(2, key(1), F, "done");
    let again = twice.headers.clone();
    twice.headers.extend(again);
    assert_eq!(apply(&mut table, &[twice]).len(), 1);
    assert!(admit(&mut table, 2, F, 21) == Admitted::Joined, "in flight");
}

/// What a client reads at the location of its command.
#[test]
fn a_location_knows_the_reply_to_exactly_its_request() {
    let mut table = table();
    let id = |fingerprint| CorrelationId {
        key: key(1),
        fingerprint,
    };
    assert_eq!(table.known(id(F)), Known::Nothing);
    admit(&mut table, 1, F, 10);
    assert_eq!(table.known(id(F)), Known::InFlight);
    // A reply that says `retry` is not stored, and its sender can still read it.
    let again = reply(3, key(1), F, "not now").header("retry", "true");
    apply(&mut table, &[again]);
    let at = Known::AnsweredAt(Partition(0), Offset(3));
    assert_eq!(table.known(id(F)), at);
    // The command is sent again, and the earlier reply is void.
    assert_eq!(admit(&mut table, 1, F, 11), Admitted::Opened);
    assert_eq!(table.known(id(F)), Known::InFlight);
    apply(&mut table, &[reply(4, key(1), F, "done")]);
    let Known::Answered(Ok(done)) = table.known(id(F)) else {
        panic!("the stored reply");
    };
    assert_eq!(&done.body[..], b"done");
    // Neither another request under the key, nor one of another recipe.
    let mut other_recipe = F;
    other_recipe.0[0] += 1;
    for other in [F.changed(1), other_recipe] {
        assert_eq!(table.known(id(other)), Known::Nothing, "{other:?}");
    }
}

#[test]
fn a_retry_reply_is_handed_on_and_not_kept() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    let again = reply(0, key(1), F, "not now").header("retry", "true");
    let answered = apply(&mut table, &[again]);
    assert_eq!(body(&answered[0].answer), b"not now");
    assert_eq!(admit(&mut table, 1, F, 11), Admitted::Opened);
}

#[test]
fn a_reply_that_cannot_be_shown_still_answers_its_command() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    let bad = reply(0, key(1), F, "").header(":status", "OK");
    let answered = apply(&mut table, &[bad]);
    assert_eq!(answered[0].answer, Err(ReplyError::Status));
    assert_eq!(table.counts().unreadable, 1);
    let notice = table.take_flawed().expect("it is named");
    assert!(notice.text.contains("502: header `:status`"), "{notice:?}");
    let again = admit(&mut table, 1, F, 11);
    assert_eq!(again, Admitted::Answered(Err(ReplyError::Status)));
}

#[test]
fn a_body_out_of_memory_is_at_its_place_in_the_log() {
    let mut table = table();
    let big = "x".repeat(3000);
    apply(
        &mut table,
        &[reply(5, key(1), F, &big), reply(6, key(2), F, &big)],
    );
    let id = CorrelationId {
        key: key(1),
        fingerprint: F,
    };
    let at = Admitted::AnsweredAt(id, Partition(0), Offset(5));
    assert_eq!(admit(&mut table, 1, F, 1), at);
    assert!(matches!(admit(&mut table, 2, F, 1), Admitted::Answered(_)));
    let stats = table.replies.stats();
    assert!(stats.bodies == 1 && stats.body_bytes <= 4096, "{stats:?}");
}

#[test]
fn a_record_that_answers_nothing_is_counted_by_reason_and_named() {
    let mut table = table();
    let misspelt = Draft::new(1, "k", None)
        .header("correlationId", "42")
        .header("\u{1b}[2J", "x");
    let drafts = [
        Draft::new(0, "k", Some("v")).header("correlation-id", "42"),
        misspelt.clone(),
        reply(2, key(1), F, "late, or of another instance"),
    ];
    assert_eq!(apply(&mut table, &drafts), []);
    let counts = ReplyCounts {
        no_correlation_id: 1,
        malformed_correlation_id: 1,
        not_in_flight: 1,
        ..ReplyCounts::default()
    };
    assert_eq!(table.counts(), counts);
    let notice = table.take_ignored().expect("the first is kept");
    assert_eq!((notice.partition, notice.offset), (Partition(0), Offset(0)));
    assert!(
        notice.text.contains("header `correlation-id` is not"),
        "{notice:?}"
    );
    assert_eq!(table.take_ignored(), None);
    apply(&mut table, &[misspelt]);
    let text = table.take_ignored().expect("the next one").text;
    assert!(text.contains("no header `correlation-id`"), "{text}");
    assert!(
        text.ends_with("its headers: correlationId, \\u{1b}[2J"),
        "{text}"
    );
}

#[test]
fn replies_of_earlier_times_are_not_counted_while_the_topic_loads() {
    let mut table = table();
    let batch = batch(0, &[reply(0, key(1), F, "v")], &HashSecret::new([0; 16]));
    table.apply(
        &step(1, Change::Records(batch)),
        false,
        NOW,
        &mut Vec::new(),
        &mut |_, _| {},
    );
    assert_eq!(table.counts(), ReplyCounts::default());
}

#[test]
fn a_reply_that_loses_a_header_is_counted_and_named() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    let draft = reply(7, key(1), F, "done").header("x-trace", [0, 1]);
    let answered = apply(&mut table, &[draft]);
    assert_eq!(body(&answered[0].answer), b"done");
    assert_eq!(table.counts().headers_left_out, 1);
    let notice = table.take_flawed().expect("a notice");
    assert_eq!(notice.offset, Offset(7));
    assert!(notice.text.contains("`x-trace`"), "{notice:?}");
    assert_eq!(table.take_flawed(), None);
}

#[test]
fn a_log_start_takes_what_it_covers() {
    let mut table = table();
    let drafts: Vec<Draft> = (0..6)
        .map(|n| reply(u64::from(n), key(n), F, "v"))
        .collect();
    apply(&mut table, &drafts);
    let (partition, offset) = (Partition(0), Offset(2));
    let start = Change::LogStart { partition, offset };
    apply_step(&mut table, &step(2, start));
    let known = |table: &CommandTable<u32>| -> Vec<u8> {
        (0..6).filter(|n| table.replies.has(key(*n))).collect()
    };
    assert_eq!(known(&table), [2, 3, 4, 5]);
    while table.replies.expire(NOW) {}
    assert_eq!(table.replies.stats().entries, 4);
    assert_eq!(table.replies.stats().bodies, 4);
    // The command again, once its reply has expired.
    apply(&mut table, &[reply(6, key(1), F, "new")]);
    assert_eq!(known(&table), [1, 2, 3, 4, 5]);
}

#[test]
fn a_reply_in_the_place_of_one_that_is_gone_is_counted_once() {
    let mut table = table();
    apply(&mut table, &[reply(0, key(1), F, "old")]);
    let (partition, offset) = (Partition(0), Offset(1));
    let start = Change::LogStart { partition, offset };
    apply_step(&mut table, &step(2, start));
    apply(&mut table, &[reply(1, key(1), F, "new")]);
    let known = table.replies.get(key(1), F).expect("answered");
    assert_eq!(known.offset, Offset(1));
    assert_eq!(table.replies.stats().entries, 1);
}

/// The state ends by itself: retention removes what the memory had no room for.
#[test]
fn a_cut_ends_when_the_log_has_no_more_than_the_index() {
    let mut index = index(100);
    for n in 0..300 {
        put(&mut index, n, 5000, 5000);
    }
    while index.expire(UnixMillis(5000)) {}
    assert!(index.cut(UnixMillis(5000)).is_some());
    let oldest = (0..300).find(|n| has(&index, *n)).expect("some are known");
    for partition in 0..3 {
        index.on_log_start(Partition(partition), Offset(u64::from(oldest)));
    }
    while index.expire(UnixMillis(5000)) {}
    assert_eq!(index.cut(UnixMillis(5000)), None);
}

/// Partitions begin at different times, so the index is complete from the latest of them on.
#[test]
fn skipped_replies_cut_the_window_until_the_log_has_no_more_of_them() {
    let mut index = index(1000);
    for (partition, offset) in [(0, 60), (1, 60), (2, 90)] {
        index.on_skipped(Partition(partition), Offset(offset));
    }
    assert_eq!(index.cut(UnixMillis(9600)), None, "no time is known yet");
    // A first piece was read before it was known how much there is.
    for n in (0..6).chain(60..120) {
        if n >= 60 + 30 * u32::from(n % 3 == 2) || n < 6 {
            put(&mut index, n, 9000 + i64::from(n), 10_000);
        }
    }
    let from = index.cut(UnixMillis(10_000));
    assert_eq!(
        from,
        Some(UnixMillis(9092)),
        "of partition 2, which begins last"
    );
    let later = UnixMillis(9092 + WINDOW.as_millis() as i64);
    assert_eq!(index.cut(later), None);
    for partition in 0..3 {
        assert!(index.cut(UnixMillis(10_000)).is_some());
        index.on_log_start(Partition(partition), Offset(90));
        while index.expire(UnixMillis(10_000)) {}
    }
    assert_eq!(index.cut(UnixMillis(10_000)), None);
}

/// What a naive table knows: lists of what was sent, answered and is in flight.
#[derive(Default)]
struct Lists {
    /// Requests in flight: sent here, or adopted.
    open: Vec<CorrelationId>,
    answered: Vec<CorrelationId>,
    /// Records of any instance that no reply answers yet.
    unanswered: Vec<CorrelationId>,
}

impl Lists {
    fn decide(&self, id: CorrelationId) -> &'static str {
        let of_key = |list: &[CorrelationId]| list.iter().any(|it| it.key == id.key);
        if self.answered.contains(&id) {
            "answered"
        } else if self.open.contains(&id) {
            "joined"
        } else if of_key(&self.answered) || of_key(&self.open) {
            "mismatch"
        } else if self.unanswered.contains(&id) {
            "joined"
        } else if of_key(&self.unanswered) {
            "mismatch"
        } else {
            "opened"
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every decision of the table with its strict index is that of plain lists, whatever records
    /// other instances append.
    #[test]
    fn the_table_decides_as_plain_lists_do(
        acts in prop::collection::vec((0..6_u8, 0..4_u8, 0..3_u8), 0..150),
    ) {
        let mut table = table();
        let settings = CommandIndexSettings {
            open_limit: Duration::from_secs(600),
            bytes_max: 1 << 20,
        };
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        table.unanswered = Some(CommandIndex::new(settings, "correlation-id", hasher));
        let (mut lists, mut offset, mut waiter) = (Lists::default(), 0, 0);
        for (act, n, other) in acts {
            let id = CorrelationId { key: key(n), fingerprint: F.changed(other) };
            offset += 1;
            let in_flight = lists.open.contains(&id);
            match act {
                0 | 1 => {
                    waiter += 1;
                    let expected = lists.decide(id);
                    let got = match admit(&mut table, n, id.fingerprint, waiter) {
                        Admitted::Answered(_) | Admitted::AnsweredAt(..) => "answered",
                        Admitted::Joined => "joined",
                        Admitted::Mismatch => "mismatch",
                        Admitted::Opened => "opened",
                        Admitted::Full(_) => continue,
                        other => panic!("{other:?}"),
                    };
                    prop_assert_eq!(got, expected);
                    if ["joined", "opened"].contains(&got) && !in_flight {
                        lists.open.push(id);
                    }
                }
                // The record of this instance or of another is read.
                2 => {
                    let record = Draft { timestamp: NOW.0, ..Draft::new(offset, "k", None) };
                    let record = record.header("correlation-id", id.to_string());
                    let batch = batch(0, &[record], &HashSecret::new([0; 16]));
                    table.apply_commands(&step(offset, Change::Records(batch)), NOW);
                    if !lists.answered.contains(&id) {
                        lists.unanswered.push(id);
                    }
                }
                3 => {
                    let answered = apply(&mut table, &[reply(offset, id.key, id.fingerprint, "v")]);
                    prop_assert!(in_flight || answered.is_empty());
                    lists.open.retain(|it| *it != id);
                    lists.unanswered.retain(|it| *it != id);
                    if !lists.answered.contains(&id) {
                        lists.answered.push(id);
                    }
                }
                // A reply that applied nothing answers one record.
                4 if lists.unanswered.contains(&id) => {
                    let retry = reply(offset, id.key, id.fingerprint, "").header("retry", "true");
                    apply(&mut table, &[retry]);
                    lists.open.retain(|it| *it != id);
                    let at = lists.unanswered.iter().position(|it| *it == id);
                    lists.unanswered.remove(at.expect("it was found above"));
                }
                4 => {}
                _ => {
                    if in_flight {
                        table.open.on_refused(id.key);
                        // What is adopted is another instance's record.
                        lists.open.retain(|it| table.open.get(it.key) == Some(it.fingerprint));
                    }
                }
            }
            for list in [&lists.answered, &lists.unanswered] {
                for id in list.iter().filter(|id| !lists.open.contains(id)) {
                    prop_assert_ne!(lists.decide(*id), "opened");
                }
            }
            prop_assert_eq!(table.open.stats().entries, lists.open.len());
        }
    }
}

fn put(index: &mut ReplyIndex, n: u32, time: i64, now: i64) -> bool {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let reply = ReplyRecord {
        id: CorrelationId {
            key: CommandKey(key),
            fingerprint: F,
        },
        partition: Partition(n % 3),
        offset: Offset(u64::from(n)),
        timestamp: UnixMillis(time),
        answer: &Err(ReplyError::Status),
    };
    index.on_reply(&reply, UnixMillis(now))
}

fn has(index: &ReplyIndex, n: u32) -> bool {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    index.get(CommandKey(key), F).is_some()
}

#[test]
fn a_reply_leaves_with_its_window_and_its_key_is_new_then() {
    let mut index = index(1000);
    for n in 0..40 {
        put(&mut index, n, i64::from(n) * 100, i64::from(n) * 100);
    }
    // The window is 1,600 ms in generations of 100: at 3,900 all later than 2,300 is known.
    let _more = index.expire(UnixMillis(3900));
    for n in 0..40 {
        assert_eq!(has(&index, n), n >= 24, "{n}");
    }
    assert!(put(&mut index, 3, 3900, 3900), "a new command");
    while index.expire(UnixMillis(3900)) {}
    let stats = index.stats();
    assert_eq!(
        (stats.entries, stats.known_from),
        (17, Some(UnixMillis(2301)))
    );
    assert_eq!(stats.entry_bytes, 17 * ReplyIndexSettings::ENTRY_BYTES);

    let _more = index.expire(UnixMillis(1_000_000));
    assert_eq!(index.stats().entries, 0);
    // Generations that come after an empty index do not bring swept-out ones back.
    put(&mut index, 99, 1_000_000, 1_000_000);
    assert!(has(&index, 99) && !has(&index, 30));
}

#[test]
fn over_its_memory_the_oldest_go_and_the_window_is_cut() {
    let mut index = index(100);
    for n in 0..2000 {
        assert!(put(&mut index, n, 5000, 5000), "all within one moment");
        let stats = index.stats();
        assert!(stats.entries <= 101, "{stats:?}");
        assert!(has(&index, n));
    }
    let stats = index.stats();
    assert!(
        stats.generations_cut > 0 && stats.entries >= 80,
        "{stats:?}"
    );
    // The state is reported, and ends when the window has moved past the dropped replies.
    assert!(index.cut(UnixMillis(5000)).is_some());
    let later = 5001 + WINDOW.as_millis() as i64;
    assert_eq!(index.cut(UnixMillis(later)), None);
    // A tiny index has few entries a shelf, so what waits for its sweep is most of this.
    assert!(
        stats.entry_bytes <= 400 * ReplyIndexSettings::ENTRY_BYTES,
        "{stats:?}"
    );
}

#[test]
fn a_full_index_loaded_backwards_keeps_the_newest() {
    let mut index = index(100);
    for n in (0..1000_u32).rev() {
        put(&mut index, n, 5000 + i64::from(n), 10_000);
        assert!(index.stats().entries <= 101);
    }
    assert!((950..1000).all(|n| has(&index, n)));
    let from = index.cut(UnixMillis(10_000)).map(|from| from.0);
    assert!(
        from.is_none_or(|from| (5800..=6000).contains(&from)),
        "{from:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the times, the first reply of a key is known to the end of its window, and
    /// forgotten after what its generation spans. A generation ends where the next begins: 100
    /// later, and as much as times jump. The first one may begin 200 earlier. What is over is
    /// dropped by the next act, which is 100 later at most.
    #[test]
    fn the_window_holds(
        acts in prop::collection::vec((0..60_u32, -200..200_i64, 0..100_i64), 0..300),
    ) {
        let mut index = index(100_000);
        let mut firsts: BTreeMap<u32, i64> = BTreeMap::new();
        let (mut now, mut newest, mut jump) = (0, 0, 0);
        for (n, jitter, pause) in acts {
            now += pause;
            let _more = index.expire(UnixMillis(now));
            let time = now + jitter;
            let before = firsts.get(&n).is_some_and(|first| has(&index, n) && *first > i64::MIN);
            let fresh = put(&mut index, n, time, now);
            prop_assert_eq!(fresh, !before);
            if fresh {
                let time = time.min(now);
                firsts.insert(n, time);
                jump = jump.max(time - newest);
                newest = newest.max(time);
            }
            let window = WINDOW.as_millis() as i64;
            for (n, first) in &firsts {
                let age = now - first;
                if age < window {
                    prop_assert!(has(&index, *n), "{} of age {}", n, age);
                }
                if age > window + window / 16 + jump + 300 {
                    prop_assert!(!has(&index, *n), "{} of age {}", n, age);
                }
            }
        }
        while index.expire(UnixMillis(now)) {}
        let known = (0..60).filter(|n| has(&index, *n)).count();
        prop_assert_eq!(index.stats().entries, known);
        prop_assert!(index.stats().bodies <= known);
    }
}

#[test]
fn an_answer_is_shared_not_copied() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    admit(&mut table, 1, F, 11);
    let answered = apply(&mut table, &[reply(0, key(1), F, "done")]);
    let shared = |a: &AnsweredExchange<u32>| match &a.answer {
        Ok(reply) => Arc::as_ptr(reply),
        other => panic!("{other:?}"),
    };
    assert_eq!(shared(&answered[0]), shared(&answered[1]));
}
