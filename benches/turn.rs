//! What idle topics cost a turn: a shard with one topic beside a shard with 200 more, which have
//! streams and stay empty. Quiet turns of both are timed in turns on one thread, and the ratio of
//! the fastest rounds is printed. An idle topic has no part in a turn, so the ratio is about 1.
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

use fanout::World;

const IDLE_TOPICS: usize = 200;
const ROUNDS: usize = 50;
const TURNS_A_ROUND: u32 = 2_000;
/// Beyond this the idle topics have a part in the turn: visiting each costs some 20 ns. It is far
/// from 1, since the machine that runs the tests does other things too.
const RATIO_MAX: f64 = 3.0;

fn world(idle: usize) -> World {
    let mut world = World::with_idle_topics(idle);
    world.open(1);
    world
}

/// The time of one quiet turn.
fn round(world: &mut World) -> Duration {
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

fn main() {
    let (mut one, mut many) = (world(0), world(IDLE_TOPICS));
    let (mut fastest_one, mut fastest_many) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        fastest_one = fastest_one.min(round(&mut one));
        fastest_many = fastest_many.min(round(&mut many));
    }
    let ratio = fastest_many.as_secs_f64() / fastest_one.as_secs_f64();
    println!(
        "a quiet turn: {fastest_one:?} with 1 topic, {fastest_many:?} with {IDLE_TOPICS} idle topics \
         more, ratio {ratio:.2}"
    );
    assert!(ratio < RATIO_MAX, "idle topics cost a turn something");
}
