//! What idle topics cost a turn: a shard with one topic beside a shard with 200 more, which have
//! streams and stay empty. Turns of both are timed in turns on one thread, and the ratio of the
//! fastest rounds is printed: of quiet turns, and of those that take a record of the first topic
//! from the broker to a stream. An idle topic has no part in a turn, so a ratio is about 1.
//!
//! ```sh
//! cargo bench --locked --all-features --bench turn
//! ```

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

use std::time::{Duration, Instant};

use sluicegate::shard::{Outputs, Turn as _};

/// A real shard and a real broker, without kernel or reactor.
#[allow(dead_code)]
#[path = "fanout.rs"]
mod fanout;

use fanout::{World, measured};

const IDLE_TOPICS: usize = 200;
const ROUNDS: usize = 50;
const TURNS_A_ROUND: u32 = 2_000;
const RECORDS_A_ROUND: u32 = 50;
/// Beyond this the idle topics have a part in the turn: visiting each costs some 20 ns. It is far
/// from 1, since the machine that runs the tests does other things too.
const RATIO_MAX: f64 = 3.0;

fn world(idle: usize) -> World {
    let mut world = World::with_idle_topics(idle);
    world.open(1);
    world
}

/// The shard's time for one record, from the broker's response to the stream.
fn busy_round(world: &mut World) -> Duration {
    let before = world.shard_time;
    for _ in 0..RECORDS_A_ROUND {
        world.produce(1);
        measured(world, 1, 1);
    }
    (world.shard_time - before) / RECORDS_A_ROUND
}

/// The time of one quiet turn.
fn quiet_round(world: &mut World) -> Duration {
    let World {
        now,
        shard,
        inputs,
        ends,
        ..
    } = world;
    let mut outputs = Outputs::default();
    let began = Instant::now();
    for _ in 0..TURNS_A_ROUND {
        // No time passes, and nothing has happened.
        shard.turn(*now, inputs, ends, &mut outputs);
    }
    began.elapsed() / TURNS_A_ROUND
}

/// Times rounds of both worlds in turns. Returns the ratio of the fastest ones.
fn ratio(of: &str, worlds: (&mut World, &mut World), round: fn(&mut World) -> Duration) -> f64 {
    let (one, many) = worlds;
    let (mut fastest_one, mut fastest_many) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        fastest_one = fastest_one.min(round(one));
        fastest_many = fastest_many.min(round(many));
    }
    let ratio = fastest_many.as_secs_f64() / fastest_one.as_secs_f64();
    println!(
        "{of}: {fastest_one:?} with 1 topic, {fastest_many:?} with {IDLE_TOPICS} idle topics more, \
         ratio {ratio:.2}"
    );
    ratio
}

fn main() {
    let (mut one, mut many) = (world(0), world(IDLE_TOPICS));
    let quiet = ratio("a quiet turn", (&mut one, &mut many), quiet_round);
    let busy = ratio("a record", (&mut one, &mut many), busy_round);
    // `cargo test --benches` only checks that it runs: it judges no time.
    if std::env::args().any(|argument| argument == "--bench") {
        for ratio in [quiet, busy] {
            assert!(ratio < RATIO_MAX, "idle topics cost a turn something");
        }
    }
}
