//! The two tables together, and the reply index against a plain list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use proptest::prelude::*;

use super::reply::tests::names;
use super::*;
use crate::log::Change;
use crate::log::testing::{Draft, batch, step};
use crate::model::{
    CommandKey, CorrelationId, Fingerprint, HashSecret, Instant, Offset, Partition, UnixMillis,
};

const F: Fingerprint = Fingerprint([1; 16]);
const WINDOW: Duration = Duration::from_millis(1600);
const NOW: UnixMillis = UnixMillis(10_000);

fn key(n: u8) -> CommandKey {
    CommandKey([n; 16])
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
        open_limit: Duration::from_secs(600),
        unknown_limit: Duration::from_secs(60),
    };
    let open = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
    CommandTable::new(open, index(1000), names())
}

fn reply(offset: u64, key: CommandKey, fingerprint: Fingerprint, body: &str) -> Draft {
    let id = CorrelationId { key, fingerprint };
    let draft = Draft {
        timestamp: NOW.0,
        ..Draft::new(offset, "k", Some(body))
    };
    draft.header("correlation-id", id.to_string())
}

fn apply(table: &mut CommandTable<u32>, drafts: &[Draft]) -> Vec<Answered<u32>> {
    let mut answered = Vec::new();
    let batch = batch(0, drafts, &HashSecret::new([0; 16]));
    table.apply(&step(1, Change::Records(batch)), NOW, &mut answered);
    answered
}

fn admit(table: &mut CommandTable<u32>, n: u8, print: Fingerprint, waiter: u32) -> Admitted {
    let deadline = Instant::ZERO.after(Duration::from_secs(10));
    table.admit(key(n), print, Some((waiter, deadline)), Instant::ZERO)
}

fn body(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Answer(Ok(reply)) => &reply.body,
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
    assert!(answered.iter().all(|a| body(&a.outcome) == b"done"));
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

    // Another peer was first with the same key for something else.
    admit(&mut table, 2, F, 20);
    let answered = apply(&mut table, &[reply(1, key(2), other, "theirs")]);
    assert_eq!(answered[0].outcome, Outcome::Mismatch);
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
}

#[test]
fn a_retry_reply_is_handed_on_and_not_kept() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    let again = reply(0, key(1), F, "not now").header("retry", "true");
    let answered = apply(&mut table, &[again]);
    assert_eq!(body(&answered[0].outcome), b"not now");
    assert_eq!(admit(&mut table, 1, F, 11), Admitted::Opened);
}

#[test]
fn a_reply_that_cannot_be_shown_still_answers_its_command() {
    let mut table = table();
    admit(&mut table, 1, F, 10);
    let bad = reply(0, key(1), F, "").header(":status", "OK");
    let answered = apply(&mut table, &[bad]);
    assert_eq!(
        answered[0].outcome,
        Outcome::Answer(Err(ReplyError::Status))
    );
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
    let at = Admitted::AnsweredAt(Partition(0), Offset(5));
    assert_eq!(admit(&mut table, 1, F, 1), at);
    assert!(matches!(admit(&mut table, 2, F, 1), Admitted::Answered(_)));
    let stats = table.replies.stats();
    assert!(stats.bodies == 1 && stats.body_bytes <= 4096, "{stats:?}");
}

#[test]
fn records_of_others_are_passed_over() {
    let mut table = table();
    let strange = Draft::new(0, "k", Some("v")).header("correlation-id", "42");
    assert_eq!(apply(&mut table, &[strange, Draft::new(1, "k", None)]), []);
    assert_eq!(table.foreign(), 2);
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
    table.apply(&step(2, start), NOW, &mut Vec::new());
    let known = |table: &CommandTable<u32>| -> Vec<u8> {
        (0..6)
            .filter(|n| table.replies.get(key(*n)).is_some())
            .collect()
    };
    assert_eq!(known(&table), [2, 3, 4, 5]);
    while table.replies.expire(NOW) {}
    assert_eq!(table.replies.stats().entries, 4);
    assert_eq!(table.replies.stats().bodies, 4);
    // The command again, once its reply is gone.
    apply(&mut table, &[reply(6, key(1), F, "new")]);
    assert_eq!(known(&table), [1, 2, 3, 4, 5]);
}

#[test]
fn a_reply_in_the_place_of_one_that_is_gone_is_counted_once() {
    let mut table = table();
    apply(&mut table, &[reply(0, key(1), F, "old")]);
    let (partition, offset) = (Partition(0), Offset(1));
    let start = Change::LogStart { partition, offset };
    table.apply(&step(2, start), NOW, &mut Vec::new());
    apply(&mut table, &[reply(1, key(1), F, "new")]);
    let known = table.replies.get(key(1)).expect("answered");
    assert_eq!(known.offset, Offset(1));
    assert_eq!(table.replies.stats().entries, 1);
}

fn put(index: &mut ReplyIndex, n: u32, time: i64, now: i64) -> bool {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let reply = Replied {
        key: CommandKey(key),
        print: F,
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
    index.get(CommandKey(key)).is_some()
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
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the times, the first reply of a key is known to the end of its window, and
    /// forgotten one generation after it, or what its generation spans: here times jump by 500 at
    /// most, and what is over is swept by the next act, which is 100 later at most.
    #[test]
    fn the_window_holds(
        acts in prop::collection::vec((0..60_u32, -200..200_i64, 0..100_i64), 0..300),
    ) {
        let mut index = index(100_000);
        let mut firsts: BTreeMap<u32, i64> = BTreeMap::new();
        let mut now = 0;
        for (n, jitter, pause) in acts {
            now += pause;
            let _more = index.expire(UnixMillis(now));
            let time = now + jitter;
            let before = firsts.get(&n).is_some_and(|first| has(&index, n) && *first > i64::MIN);
            let fresh = put(&mut index, n, time, now);
            prop_assert_eq!(fresh, !before);
            if fresh {
                firsts.insert(n, time.min(now));
            }
            let window = WINDOW.as_millis() as i64;
            for (n, first) in &firsts {
                let age = now - first;
                if age < window {
                    prop_assert!(has(&index, *n), "{} of age {}", n, age);
                }
                if age > window + window / 16 + 600 {
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
    let shared = |a: &Answered<u32>| match &a.outcome {
        Outcome::Answer(Ok(reply)) => Arc::as_ptr(reply),
        other => panic!("{other:?}"),
    };
    assert_eq!(shared(&answered[0]), shared(&answered[1]));
}
