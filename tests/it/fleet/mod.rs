//! The simulated fleet: gateway instances made of the *real* shards on the *real* development
//! broker, with one virtual clock and one seed. The same seed gives the same history; a failing
//! seed is the bug report (`SLUICEGATE_SEED=n tests/run fleet`).
//!
//! `SLUICEGATE_SEEDS=n` runs the first n seeds (default 1,000): two times as many of commands, and half
//! of them of each kind of stream.

mod account;
mod answers;
mod caller;
mod commands;
mod loading;
mod peer;
#[cfg(feature = "planted")]
mod planted;
mod polls;
mod random;
mod records;
mod reload;
mod response;
mod service;
mod shown;
mod streams;
mod subscriber;
mod tally;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use commands::Commands;
use streams::{Kind, Streams};
use tally::Tally;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Runs `seeds` worlds on the machine's threads, or the one that `SLUICEGATE_SEED` names. The first
/// failure stops all. `add` merges a world's outcome into the sum.
fn run<T: std::fmt::Debug + Send, S: Default + Send>(
    what: &str,
    seeds: u64,
    world: impl Fn(u64) -> T + Sync + std::panic::RefUnwindSafe,
    add: impl Fn(&mut S, T) + Sync,
) -> S {
    let sum = Mutex::new(S::default());
    if let Some(seed) = number("SLUICEGATE_SEED") {
        let outcome = world(seed);
        println!("{what} seed {seed}: {outcome:?}");
        add(&mut sum.lock().expect("nothing failed"), outcome);
        return sum.into_inner().expect("nothing failed");
    }
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| world(seed)) {
                        Ok(outcome) => add(&mut sum.lock().expect("adding fails never"), outcome),
                        Err(_) => {
                            next.store(seeds, Ordering::Relaxed);
                            panic!("{what}: seed {seed} failed: SLUICEGATE_SEED={seed}");
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().expect("adding fails never")
}

fn seeds() -> u64 {
    number("SLUICEGATE_SEEDS").unwrap_or(1_000)
}

/// Runs half of the seeds with streams of one kind.
fn run_streams(kind: Kind) {
    let seeds = seeds() / 2;
    let what = format!("{kind:?}");
    let add = |sum: &mut u64, history: streams::History| *sum += history.events;
    let delivered: u64 = run(&what, seeds, |seed| Streams::run(kind, seed), add);
    assert!(
        delivered > seeds * 10 || number("SLUICEGATE_SEED").is_some(),
        "a fleet that delivers nothing proves nothing"
    );
    println!("{kind:?}: {seeds} seeds, {delivered} events, invariant I held");
}

/// Resuming at any gateway, with any interleaving, neither loses nor repeats a record.
#[test]
fn a_log_read_over_many_connections_is_whole() {
    run_streams(Kind::Log);
}

/// A snapshot and what follows it show the newest record of every key, and none goes back.
#[test]
fn a_snapshot_and_its_stream_end_at_the_newest_records() {
    run_streams(Kind::Snapshot);
}

/// DESIGN "Commands", guarantees (a) to (d), and promises P1 to P3, after every step. In the calm
/// every client gets its answer, and no gateway holds anything for a client any more.
#[test]
fn commands_are_appended_once_and_answered_truly() {
    let seeds = 2 * seeds();
    let add = |sum: &mut Tally, tally: Tally| sum.add(&tally);
    let tally: Tally = run("Commands", seeds, Commands::run, add);
    println!("Commands: {seeds} seeds, {tally:#?}");
    if number("SLUICEGATE_SEED").is_none() && seeds >= 500 {
        tally.assert_all_kinds();
    }
}

/// The same seed gives the same history, to the byte.
#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..4 {
        for kind in [Kind::Log, Kind::Snapshot] {
            let (one, other) = (Streams::run(kind, seed), Streams::run(kind, seed));
            assert_eq!(one, other, "{kind:?} seed {seed}");
        }
        let (one, other) = (Commands::run(seed), Commands::run(seed));
        assert_eq!(one, other, "Commands seed {seed}");
    }
}
