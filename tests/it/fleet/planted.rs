//! Ten bugs planted in the commands' protocol. Each must be found, and for the right reason: a
//! checker that can't fail proves nothing. The fleet finds nine. The tenth needs an answer of a
//! leader that is old when a request arrives, which a world rarely has: the property of the
//! barrier itself finds it (`src/shard/home/barrier.rs`).

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate::command::{CommandLocation, IdempotencyHash};
use sluicegate::model::{Bug, Fingerprint, Identity, UnixMillis, plant};

use super::commands::Commands;

/// Most worlds that a bug may survive.
const SEEDS_MAX: u64 = 2_000;

/// What the fleet must say about each bug: parts of the messages of the checks that may find it.
const fn reasons(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::FreedWithItsWaiter => &["(a):", "P3: refused, and in flight"],
        Bug::BarrierBeforeArrival => &["(b):"],
        Bug::UnknownRefused => &["P3: refused, and in the log"],
        Bug::NewProducerId => &["a try is in the log twice"],
        Bug::NoLengthPrefixes => &["recipe:", "P3: not its reply"],
        Bug::ForeignIdentity => &["recipe:", "P3: not its reply", "422 without another"],
        Bug::EarlyGeneration => &["(a):", "(b):"],
        Bug::RoundRobin => &["(d):"],
        Bug::JoinWithoutBound => &["wait for"],
        Bug::ForeignPoll => &["polled by another identity"],
    }
}

std::thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of worlds with a bug are expected, so this thread does not print them.
fn be_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
}

/// What a location owes to its sender: no other identity can read it. The fleet checks the same
/// through whole gateways, by polls of the other identity.
fn check_location(seed: u64) {
    let [ann, bob] = ["ann", "bob"].map(|name| Identity::new("fleet", name));
    let hash = IdempotencyHash::of(&seed.to_le_bytes());
    let location = CommandLocation::new(hash, Fingerprint([2; 16]), UnixMillis(1_000));
    let token = location.token("pay", &ann);
    assert!(CommandLocation::read(&token, "pay", &ann).is_some());
    let foreign = CommandLocation::read(&token, "pay", &bob);
    assert_eq!(foreign, None, "polled by another identity");
}

/// The first seed at which a check finds the bug for one of its reasons, and the message.
fn find(bug: Bug) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let search = || {
        be_quiet();
        plant(Some(bug));
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= super::seeds().min(SEEDS_MAX) {
                return None;
            }
            let world = || match bug {
                Bug::ForeignPoll => check_location(seed),
                _ => drop(Commands::run(seed)),
            };
            let Err(panic) = catch_unwind(AssertUnwindSafe(world)) else {
                continue;
            };
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            let text = text.unwrap_or_default();
            if reasons(bug).iter().any(|reason| text.contains(reason)) {
                next.store(SEEDS_MAX, Ordering::Relaxed);
                return Some((seed, text));
            }
        }
    };
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = searches
            .into_iter()
            .filter_map(|it| it.join().expect("panics are caught"));
        found.min()
    })
}

#[test]
fn every_planted_bug_is_found() {
    let mut count = 0;
    // `SLUICEGATE_BUG=RoundRobin` looks for one.
    let only = std::env::var("SLUICEGATE_BUG").ok();
    let wanted = |bug: &Bug| only.as_ref().is_none_or(|name| format!("{bug:?}") == *name);
    let ours = Bug::ALL
        .into_iter()
        .filter(|it| *it != Bug::BarrierBeforeArrival);
    let bugs: Vec<Bug> = ours.filter(wanted).collect();
    for &bug in &bugs {
        match find(bug) {
            Some((seed, text)) => {
                count += 1;
                let text: String = text
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(90)
                    .collect();
                println!("{bug:?}: found at seed {seed}: {text}");
            }
            None => println!("{bug:?}: NOT FOUND in {SEEDS_MAX} worlds"),
        }
    }
    println!("planted bugs found by the fleet: {count}/{}", bugs.len());
    assert_eq!(count, bugs.len());
}
