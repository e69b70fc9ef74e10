//! Ten bugs planted in the commands' protocol. The fleet must find each of them, and for the right
//! reason: a checker that can't fail proves nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate::model::{Bug, plant};

use super::commands::Commands;

/// Most worlds that a bug may survive.
const SEEDS_MAX: u64 = 2_000;

/// What the fleet must say about each bug: parts of the messages of the checks that may find it.
const fn reasons(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::FreedWithItsWaiter => &["(a):", "P3: refused, and in flight"],
        Bug::BarrierBeforeArrival => &["(b):", "strict:"],
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
            let Err(panic) = catch_unwind(AssertUnwindSafe(|| Commands::run(seed))) else {
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
    for bug in Bug::ALL {
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
    println!("planted bugs found: {count}/{}", Bug::ALL.len());
    assert_eq!(count, Bug::ALL.len());
}
