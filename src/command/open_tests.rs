//! Commands in flight: limits, shares, lifetimes, and every state with every event.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::places::tests::tenant;
use super::*;

const LIMITS: OpenLimits = OpenLimits {
    entries_max: 3,
    waiters_max: 4,
    waiters_per_command_max: 2,
    per_tenant_max: 100,
    open_limit: Duration::from_secs(600),
    unknown_limit: Duration::from_secs(60),
};
const A: CommandKey = CommandKey([1; 16]);
const F: Fingerprint = Fingerprint([1; 16]);

fn id(key: CommandKey) -> CorrelationId {
    CorrelationId {
        key,
        fingerprint: F,
    }
}

/// An attempt of a tenant of its own, which only the common limits bound.
fn attempt(key: CommandKey, fingerprint: Fingerprint) -> Attempt {
    thread_local! {
        static NEXT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    let n = NEXT.replace(NEXT.get() + 1);
    Attempt {
        id: CorrelationId { key, fingerprint },
        tenant: Tenant::V4(n.into()),
        joins: true,
    }
}

fn waiters(answered: Answered<u32>) -> Vec<u32> {
    answered.into_iter().map(|it| it.waiter).collect()
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO.after(Duration::from_secs(seconds))
}

/// An exchange that waits for the reply.
fn waits(waiter: u32, deadline: Instant) -> Option<NewWaiter<u32>> {
    Some(NewWaiter {
        waiter,
        deadline,
        accept_at: None,
    })
}

/// An exchange whose client prefers an asynchronous answer from `accept_at` on.
fn accepts(waiter: u32, accept_at: Instant, deadline: Instant) -> Option<NewWaiter<u32>> {
    Some(NewWaiter {
        waiter,
        deadline,
        accept_at: Some(accept_at),
    })
}

fn table() -> OpenCommands<u32> {
    OpenCommands::new(LIMITS, RandomState::with_seeds(1, 2, 3, 4))
}

fn expired(table: &mut OpenCommands<u32>, now: Instant) -> Vec<u32> {
    let mut expired = Vec::new();
    table.on_timeout(now, &mut expired);
    expired.into_iter().map(|e| e.waiter).collect()
}

#[test]
fn an_entry_outlives_its_waiters_and_a_retry_joins() {
    let mut table = table();
    assert_eq!(
        table.admit(&attempt(A, F), waits(1, at(10)), at(0)),
        Admission::Opened
    );
    assert_eq!(table.next_deadline(), Some(at(10)));
    assert!(expired(&mut table, at(9)).is_empty());
    assert_eq!(expired(&mut table, at(10)), [1]);
    assert_eq!(
        table.admit(&attempt(A, F), waits(2, at(30)), at(20)),
        Admission::Joined
    );
    let answered = table.on_reply(id(A)).expect("open");
    assert_eq!(waiters(answered), [2]);
    assert_eq!(table.on_reply(id(A)), None);
    assert_eq!(
        (table.next_deadline(), table.stats()),
        (None, OpenStats::default())
    );
}

#[test]
fn the_reply_to_another_request_under_the_key_closes_nothing() {
    let mut table = table();
    table.admit(&attempt(A, F), waits(1, at(10)), at(0));
    // One fingerprint of the same recipe, and one of another recipe, which can't be compared.
    for first in [F.0[0], F.0[0] + 1] {
        let mut fingerprint = Fingerprint([9; 16]);
        fingerprint.0[0] = first;
        let other = CorrelationId {
            key: A,
            fingerprint,
        };
        assert_eq!(table.on_reply(other), None);
        assert_eq!((table.get(A), table.waiters(A)), (Some(F), 1));
    }
    assert_eq!(expired(&mut table, at(10)), [1], "504 at its own deadline");
    assert_eq!(table.get(A), Some(F), "and a retry joins what is in flight");
    assert!(table.on_reply(id(A)).is_some());
}

#[test]
fn open_ends_at_its_limit_with_those_who_still_wait() {
    let mut table = table();
    table.admit(&attempt(A, F), waits(1, at(900)), at(0));
    assert!(expired(&mut table, at(599)).is_empty());
    assert_eq!(expired(&mut table, at(600)), [1]);
    assert_eq!((table.get(A), table.stats().given_up), (None, 1));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn refused_closes_and_unknown_keeps_open_for_a_while() {
    let mut table = table();
    table.admit(&attempt(A, F), waits(1, at(10)), at(0));
    assert_eq!(&table.on_refused(A)[..], [1]);
    assert_eq!(
        table.admit(&attempt(A, F), waits(2, at(10)), at(0)),
        Admission::Opened
    );
    assert_eq!(&table.on_unknown(A, at(5))[..], [2]);
    assert_eq!(
        table.admit(&attempt(A, F), waits(3, at(100)), at(6)),
        Admission::Joined
    );
    assert_eq!(expired(&mut table, at(65)), [3]);
    assert_eq!(table.get(A), None);
    assert_eq!(table.admit(&attempt(A, F), None, at(66)), Admission::Opened);
}

#[test]
fn an_asynchronous_answer_waits_for_the_append() {
    let mut table = table();
    let first = table.admit(&attempt(A, F), accepts(1, at(0), at(10)), at(0));
    assert_eq!(first, Admission::Opened);
    let second = table.admit(&attempt(A, F), accepts(2, at(5), at(10)), at(1));
    assert_eq!(second, Admission::Joined);
    assert!(expired(&mut table, at(2)).is_empty(), "not appended yet");
    assert_eq!(&table.on_appended(A, at(3))[..], [1]);
    assert_eq!(table.next_deadline(), Some(at(5)), "`wait` of the second");
    let mut late = Vec::new();
    table.on_timeout(at(5), &mut late);
    let [second] = late[..] else {
        panic!("{late:?}")
    };
    assert_eq!((second.waiter, second.accepted), (2, true), "202, not 504");
    let third = table.admit(&attempt(A, F), accepts(3, at(6), at(16)), at(6));
    assert_eq!(third, Admission::Accepted, "no place is taken");
    assert_eq!((table.stats().waiters, table.get(A)), (0, Some(F)));
}

#[test]
fn a_record_that_is_never_confirmed_is_no_202() {
    let mut table = table();
    table.admit(&attempt(A, F), accepts(1, at(0), at(10)), at(0));
    let mut late = Vec::new();
    table.on_timeout(at(10), &mut late);
    assert!(
        matches!(
            late[..],
            [Expired {
                accepted: false,
                ..
            }]
        ),
        "{late:?}"
    );
    table.on_unknown(A, at(11));
    let retry = table.admit(&attempt(A, F), accepts(2, at(12), at(20)), at(12));
    assert_eq!(retry, Admission::Joined);
    assert_eq!(&table.on_refused(A)[..], [2], "503");
}

#[test]
fn unknown_never_prolongs() {
    let mut table = table();
    table.admit(&attempt(A, F), None, at(0));
    table.on_unknown(A, at(590));
    expired(&mut table, at(600));
    assert_eq!(table.get(A), None);
}

#[test]
fn another_fingerprint_is_a_mismatch_even_when_full() {
    let mut table = table();
    for n in 0..3 {
        let key = CommandKey([n; 16]);
        assert_eq!(
            table.admit(&attempt(key, F), None, at(0)),
            Admission::Opened
        );
    }
    let mut other = F;
    other.0[15] = 9;
    assert_eq!(
        table.admit(&attempt(A, other), None, at(0)),
        Admission::Mismatch
    );
    let more = CommandKey([9; 16]);
    let full = Admission::Full(Limit::Commands);
    assert_eq!(table.admit(&attempt(more, F), None, at(0)), full);
    assert_eq!(table.stats().entries, 3);
}

#[test]
fn waiters_are_bounded_for_one_and_for_all_and_leave_room_when_they_go() {
    let mut table = table();
    let b = CommandKey([2; 16]);
    table.admit(&attempt(A, F), waits(1, at(10)), at(0));
    table.admit(&attempt(A, F), waits(2, at(10)), at(0));
    let full = table.admit(&attempt(A, F), waits(3, at(10)), at(0));
    assert_eq!(full, Admission::Full(Limit::WaitersOfOne));
    table.admit(&attempt(b, F), waits(4, at(10)), at(0));
    table.admit(&attempt(b, F), waits(5, at(10)), at(0));
    let c = CommandKey([3; 16]);
    let full = table.admit(&attempt(c, F), waits(6, at(10)), at(0));
    assert_eq!(full, Admission::Full(Limit::Waiters));
    assert_eq!(table.get(c), None, "refused while it was free to refuse");
    table.on_left(A, 1);
    table.on_left(A, 1);
    assert_eq!(
        table.admit(&attempt(A, F), waits(3, at(10)), at(0)),
        Admission::Joined
    );
}

fn of_tenant(n: u8, key: u8, joins: bool) -> Attempt {
    Attempt {
        tenant: tenant(n),
        joins,
        ..attempt(CommandKey([key; 16]), F)
    }
}

#[test]
fn a_tenant_with_unlimited_demand_leaves_places_to_others() {
    let limits = OpenLimits {
        entries_max: 8,
        waiters_max: 16,
        waiters_per_command_max: 16,
        ..LIMITS
    };
    let mut table = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
    let mut send = |tenant, key: u8| {
        let waiter = waits(key.into(), at(10));
        table.admit(&of_tenant(tenant, key, true), waiter, at(0))
    };
    for key in 0..4 {
        assert_eq!(send(1, key), Admission::Opened);
    }
    let full = Admission::Full(Limit::TenantCommands);
    assert_eq!(send(1, 4), full);
    assert_eq!(send(2, 10), Admission::Opened);
    assert_eq!(send(2, 11), Admission::Opened);
    assert_eq!(send(2, 12), full);
    assert_eq!(send(3, 20), Admission::Opened);
    assert_eq!(send(4, 30), Admission::Opened);
    assert_eq!(send(5, 40), Admission::Full(Limit::Commands));
    let stats = table.stats();
    assert_eq!((stats.entries, stats.tenants), (8, 4));
    assert_eq!(stats.limited, [1, 0, 0, 2, 0]);
    // The share is the tenant's until its commands end, not until its clients give up.
    assert_eq!(expired(&mut table, at(10)).len(), 8);
    table.on_refused(CommandKey([10; 16]));
    let again = table.admit(&of_tenant(1, 5, true), None, at(11));
    assert_eq!(again, Admission::Full(Limit::TenantCommands));
    for key in 0..4 {
        table.on_refused(CommandKey([key; 16]));
    }
    let again = table.admit(&of_tenant(1, 5, true), None, at(11));
    assert_eq!(again, Admission::Opened);
}

#[test]
fn the_exchanges_of_a_tenant_are_bounded_even_on_commands_of_others() {
    let limits = OpenLimits {
        waiters_max: 4,
        waiters_per_command_max: 16,
        ..LIMITS
    };
    let mut table = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
    let mut join = |n, waiter| table.admit(&of_tenant(n, 1, true), waits(waiter, at(10)), at(0));
    assert_eq!(join(1, 1), Admission::Opened);
    assert_eq!(join(2, 2), Admission::Joined);
    assert_eq!(join(2, 3), Admission::Joined);
    assert_eq!(join(2, 4), Admission::Full(Limit::TenantWaiters));
    assert_eq!(join(3, 5), Admission::Joined);
    assert_eq!(join(4, 6), Admission::Full(Limit::Waiters));
    assert_eq!(table.stats().limited, [0, 1, 0, 0, 1]);
    table.on_left(CommandKey([1; 16]), 2);
    let again = table.admit(&of_tenant(4, 1, true), waits(6, at(10)), at(0));
    assert_eq!(again, Admission::Joined);
}

/// Requests that wait to be decided are bounded with the commands in flight.
#[test]
fn a_reserved_place_is_a_place_of_its_tenant() {
    let mut table = table();
    assert_eq!(table.reserve(&tenant(1)), Ok(()));
    assert_eq!(table.reserve(&tenant(1)), Ok(()));
    assert_eq!(table.reserve(&tenant(1)), Err(Limit::TenantCommands));
    let opened = table.admit(&of_tenant(2, 1, true), None, at(0));
    assert_eq!(opened, Admission::Opened);
    assert_eq!(table.reserve(&tenant(3)), Err(Limit::Commands));
    table.release_reserved(&tenant(1));
    table.release_reserved(&tenant(1));
    let opened = table.admit(&of_tenant(1, 2, true), None, at(0));
    assert_eq!(opened, Admission::Opened);
    assert_eq!(table.stats().entries, 2);
}

#[test]
fn an_attempt_that_does_not_join_is_rejected_while_the_command_is_in_flight() {
    let mut table = table();
    let conflict = of_tenant(1, 1, false);
    assert_eq!(
        table.admit(&conflict, waits(1, at(10)), at(0)),
        Admission::Opened
    );
    assert_eq!(
        table.admit(&conflict, waits(2, at(10)), at(0)),
        Admission::InProgress
    );
    let mut other = conflict.clone();
    other.id.fingerprint.0[15] = 9;
    assert_eq!(table.admit(&other, None, at(0)), Admission::Mismatch);
    assert_eq!(waiters(table.on_reply(id(A)).expect("open")), [1]);
    let adopted = table.adopt(&conflict, waits(3, at(10)), at(0));
    assert_eq!((adopted, table.stats().entries), (Admission::InProgress, 0));
}

#[test]
fn only_the_attempt_that_opened_a_command_is_not_a_replay() {
    let mut table = table();
    let joined = |answered: Option<Answered<u32>>| -> Vec<(u32, bool)> {
        let answered = answered.expect("open").into_iter();
        answered.map(|it| (it.waiter, it.joined)).collect()
    };
    table.admit(&attempt(A, F), waits(1, at(10)), at(0));
    table.admit(&attempt(A, F), waits(2, at(10)), at(0));
    assert_eq!(joined(table.on_reply(id(A))), [(1, false), (2, true)]);
    // The record of an adopted command is another instance's.
    let adopted = table.adopt(&attempt(A, F), waits(3, at(10)), at(0));
    assert_eq!(adopted, Admission::Joined);
    assert_eq!(joined(table.on_reply(id(A))), [(3, true)]);
}

#[test]
fn an_adopted_command_is_appended_already() {
    let mut table = table();
    let adopted = table.adopt(&attempt(A, F), accepts(1, at(0), at(10)), at(0));
    assert_eq!(adopted, Admission::Accepted);
    let adopted = table.adopt(&attempt(A, F), waits(1, at(10)), at(0));
    assert_eq!(adopted, Admission::Joined);
    assert_eq!(table.state(A), CommandState::Appended);
    assert!(table.on_refused(A).is_empty(), "another instance's record");
    assert_eq!(expired(&mut table, at(10)), [1]);
    assert_eq!(expired(&mut table, at(600)).len(), 0);
    assert_eq!(table.get(A), None);
}

#[test]
fn a_flood_of_deadlines_is_taken_in_pieces() {
    let limits = OpenLimits {
        entries_max: 5000,
        waiters_max: 5000,
        ..LIMITS
    };
    let mut table = OpenCommands::new(limits, RandomState::with_seeds(1, 2, 3, 4));
    for n in 0..3000_u32 {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_be_bytes());
        table.admit(&attempt(CommandKey(key), F), waits(n, at(1)), at(0));
    }
    assert_eq!(expired(&mut table, at(1)).len(), TIMEOUTS_MAX);
    assert_eq!(table.next_deadline(), Some(at(1)));
    assert_eq!(
        expired(&mut table, at(1)).len() + expired(&mut table, at(1)).len(),
        1976
    );
}

/// A table with one command in `state` and, if it is in flight, one exchange (7) that waits.
fn table_in(state: CommandState) -> OpenCommands<u32> {
    let mut table = table();
    if state != CommandState::Absent {
        table.admit(&attempt(A, F), waits(7, at(10)), at(0));
    }
    if state == CommandState::Appended {
        assert!(table.on_appended(A, at(0)).is_empty());
    }
    if state == CommandState::Unconfirmed {
        table.on_unknown(A, at(0));
        table.admit(&attempt(A, F), waits(7, at(10)), at(0));
    }
    assert_eq!(table.state(A), state);
    table
}

/// What an event does: an admission, or the exchanges that stop waiting.
fn apply(table: &mut OpenCommands<u32>, event: CommandEvent) -> String {
    let mut other = F;
    other.0[15] = 9;
    let reply_to_other = CorrelationId {
        key: A,
        fingerprint: other,
    };
    let waiter = waits(9, at(20));
    let left = match event {
        CommandEvent::Request => {
            return format!("{:?}", table.admit(&attempt(A, F), waiter, at(0)));
        }
        CommandEvent::OtherRequest => {
            return format!("{:?}", table.admit(&attempt(A, other), waiter, at(0)));
        }
        CommandEvent::Reply => table.on_reply(id(A)).map(waiters),
        CommandEvent::OtherReply => table.on_reply(reply_to_other).map(waiters),
        CommandEvent::Appended => {
            let open = table.state(A) != CommandState::Absent;
            // Exchange 7 waits for the reply and stays. Exchange 8 prefers 202.
            let other = open.then(|| table.admit(&attempt(A, F), accepts(8, at(0), at(10)), at(0)));
            let accepted = table.on_appended(A, at(0));
            return match (other, &accepted[..]) {
                (Some(Admission::Joined), [8]) => "one that prefers 202".into(),
                (Some(Admission::Accepted), []) => "- (202 already)".into(),
                (None, []) => "-".into(),
                other => panic!("{other:?}"),
            };
        }
        CommandEvent::Refused => Some(table.on_refused(A).to_vec()),
        CommandEvent::OutcomeLost => Some(table.on_unknown(A, at(0)).to_vec()),
        CommandEvent::WaiterLeft => {
            let before = table.waiters(A);
            table.on_left(A, 7);
            Some(vec![7; before - table.waiters(A)])
        }
        CommandEvent::WaiterExpired => Some(expired(table, at(10))),
        CommandEvent::LimitPassed => {
            table.on_left(A, 7);
            if table.state(A) != CommandState::Absent {
                table.admit(&attempt(A, F), waits(7, at(900)), at(0));
            }
            Some(expired(table, at(600)))
        }
    };
    match left.unwrap_or_default()[..] {
        [] => "-".into(),
        [7] => "the exchange".into(),
        ref other => panic!("{other:?}"),
    }
}

/// Reviewed as a whole. The table of [`CommandState::on`] is what the real table does.
#[test]
fn every_state_and_event() {
    let mut text = String::new();
    for state in CommandState::ALL {
        writeln!(text, "{state:?}").expect("a string");
        for event in CommandEvent::ALL {
            let (next, effect) = state.on(event);
            let mut table = table_in(state);
            let done = apply(&mut table, event);
            assert_eq!(table.state(A), next, "{state:?} {event:?}");
            let event = format!("{event:?}");
            let next = format!("{next:?}");
            let effect = format!("{effect:?}");
            writeln!(text, "    {event:<14} => {next:<12} {effect:<9} {done}").expect("a string");
        }
    }
    insta::assert_snapshot!(text);
}

proptest! {
    /// Every admitted waiter is returned exactly once, and nothing is left behind.
    #[test]
    fn each_waiter_comes_out_once(
        acts in prop::collection::vec((0..7_u8, 0..5_u8, 0..50_u64), 0..120),
    ) {
        let mut table = table();
        let (mut inside, mut next, mut now) = (BTreeSet::new(), 0_u32, at(0));
        for (act, key, seconds) in acts {
            let key = CommandKey([key; 16]);
            let out: Vec<u32> = match act {
                0 | 1 => {
                    next += 1;
                    let deadline = now.after(Duration::from_secs(seconds));
                    let waiter = NewWaiter {
                        waiter: next,
                        deadline,
                        accept_at: (act == 1).then(|| now.after(Duration::from_secs(9))),
                    };
                    match table.admit(&attempt(key, F), Some(waiter), now) {
                        Admission::Opened | Admission::Joined => inside.insert(next),
                        Admission::Full(_)
                        | Admission::Mismatch
                        | Admission::InProgress
                        | Admission::Accepted => false,
                    };
                    vec![]
                }
                5 => table.on_appended(key, now).to_vec(),
                2 => table.on_reply(id(key)).map(waiters).unwrap_or_default(),
                3 => table.on_refused(key).to_vec(),
                4 => table.on_unknown(key, now).to_vec(),
                _ => {
                    now = now.after(Duration::from_secs(seconds));
                    expired(&mut table, now)
                }
            };
            for waiter in out {
                prop_assert!(inside.remove(&waiter));
            }
            prop_assert_eq!(table.stats().waiters, inside.len());
            prop_assert_eq!(table.deadlines.len(), inside.len() + table.entries.len());
        }
        let left = expired(&mut table, at(100_000));
        prop_assert_eq!(left.into_iter().collect::<BTreeSet<u32>>(), inside);
        prop_assert_eq!((table.entries.len(), table.deadlines.len()), (0, 0));
    }
}
