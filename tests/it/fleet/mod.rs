//! The seeded fleet: peers of the *real* shards against the *real* development broker, in a world
//! with one virtual clock and one seed. The same seed gives the same history; a failing seed is the
//! bug report (`SLUICEGATE_SEED=n tests/run fleet`).
//!
//! `SLUICEGATE_SEEDS=n` runs the first n seeds (default 1,000, half of them of each scenario).

mod peer;
mod random;
mod subscriber;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::{Scenario, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Runs every seed of a scenario over the machine's threads; the first failure stops all.
fn run(scenario: Scenario) {
    if let Some(seed) = number("SLUICEGATE_SEED") {
        println!("{scenario:?} seed {seed}: {:?}", World::run(scenario, seed));
        return;
    }
    let seeds = number("SLUICEGATE_SEEDS").unwrap_or(1_000) / 2;
    let (next, delivered) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| World::run(scenario, seed));
                    match outcome {
                        Ok(history) => {
                            delivered.fetch_add(history.events, Ordering::Relaxed);
                        }
                        Err(_) => {
                            next.store(seeds, Ordering::Relaxed);
                            panic!("{scenario:?}: seed {seed} failed: SLUICEGATE_SEED={seed}");
                        }
                    }
                }
            });
        }
    });
    let delivered = delivered.into_inner();
    assert!(
        delivered > seeds * 10,
        "a fleet that delivers nothing proves nothing"
    );
    println!("{scenario:?}: {seeds} seeds, {delivered} events, invariant I held");
}

/// Resume on any peer, with any interleaving, loses nothing and doubles nothing.
#[test]
fn a_log_read_over_many_connections_is_whole() {
    run(Scenario::Log);
}

/// A snapshot and what follows it show the newest record of every key, and none goes back.
#[test]
fn a_snapshot_and_its_stream_end_at_the_newest_records() {
    run(Scenario::Snapshot);
}

/// The same seed gives the same history, to the byte.
#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..4 {
        for scenario in [Scenario::Log, Scenario::Snapshot] {
            let (one, other) = (World::run(scenario, seed), World::run(scenario, seed));
            assert_eq!(one, other, "{scenario:?} seed {seed}");
        }
    }
}
