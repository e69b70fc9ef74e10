//! The time from `produce` to the fetched record, one record at a time: our client, rskafka and
//! librdkafka on the same broker, in turns. `benches/rivals/run` starts the broker and this bench.
//!
//! Fails if our median is worse than that of either rival by more than noise, or if it looks like
//! rskafka's stall of 44 ms (its produce requests of 8 to 64 KiB wait for a delayed
//! acknowledgement). librdkafka's producer is idempotent as ours is. rskafka's is not, so what the
//! broker does for idempotence is counted against us: with a producer id of -1 our ratio to rskafka
//! was 0.99 instead of 1.09 (100 bytes).

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

mod ours;
mod theirs;

use std::process::{Command, ExitCode};
use std::time::Duration;

/// Rounds of each size, and records of each client in one round.
const ROUNDS: usize = 7;
const RECORDS: usize = 60;
const WARM_UP: usize = 30;
const SIZES: [usize; 4] = [100, 8 << 10, 32 << 10, 64 << 10];
/// A ratio of medians up to this counts as equal, because the machine is shared.
const NOISE: f64 = 1.10;
/// The ratio up to which our median may be worse because the broker keeps our producer's sequence.
const IDEMPOTENCE: f64 = 1.15;
/// Less than any delayed acknowledgement (40 ms).
const STALL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(bootstrap), Some(librdkafka)) = (variable("RIVALS_BOOTSTRAP"), variable("RIVALS_C"))
    else {
        // `cargo test` and `cargo bench` run every bench, but this one needs a broker.
        println!("produce to fetch: not run; benches/rivals/run starts it with a broker");
        return ExitCode::SUCCESS;
    };
    let run = |who: usize, topic: &str, size: usize| match who {
        0 => ours::run(&bootstrap, topic, size),
        1 => theirs::run(&bootstrap, topic, size),
        _ => librdkafka_run(&librdkafka, &bootstrap, topic, size),
    };
    // The times of a cold broker say nothing about a client.
    let topic = format!("rivals-cold-{}", std::process::id());
    theirs::create_topic(&bootstrap, &topic);
    for _ in 0..3 {
        for who in [0, 2] {
            run(who, &topic, SIZES[0]);
        }
    }
    let mut ok = true;
    let mut table = String::new();
    for size in SIZES {
        let mut rounds: Vec<[Vec<Duration>; 3]> = Vec::new();
        // The first round of a size does not count either.
        for round in 0..=ROUNDS {
            let topic = format!("rivals-{size}-{round}-{}", std::process::id());
            theirs::create_topic(&bootstrap, &topic);
            let mut times: [Vec<Duration>; 3] = Default::default();
            // The order changes, so that no client is always the first after a pause.
            for turn in 0..3 {
                let who = (round + turn) % 3;
                times[who] = run(who, &topic, size);
            }
            rounds.extend((round > 0).then_some(times));
        }
        let all = |who: usize| {
            rounds
                .iter()
                .flat_map(move |times| times[who].iter().copied())
        };
        let cell = |who: usize| {
            let ms = |part| quantile(all(who), part).as_secs_f64() * 1e3;
            format!("{:>7.2} {:>7.2}", ms(0.50), ms(0.99))
        };
        let ratio = |rival: usize| {
            let median = |times: &[Duration]| quantile(times.iter().copied(), 0.50).as_secs_f64();
            let ratios = rounds.iter().map(|it| median(&it[0]) / median(&it[rival]));
            quantile(ratios, 0.50)
        };
        let (rskafka, librdkafka) = (ratio(1), ratio(2));
        let even = librdkafka <= NOISE && rskafka <= NOISE * IDEMPOTENCE;
        let holds = even && quantile(all(0), 0.50) < STALL;
        ok &= holds;
        table.push_str(&format!(
            "{size:>7} B {} | {} | {} | {rskafka:>7.2} {librdkafka:>10.2} | {}\n",
            cell(0),
            cell(1),
            cell(2),
            if holds { "no worse" } else { "WORSE" }
        ));
    }
    println!(
        "produce to fetch, ms, {} records each; ratios of medians, paired by round",
        ROUNDS * RECORDS
    );
    println!("   record    ours           | rskafka         | librdkafka      | ours to |");
    println!(
        "             p50     p99    |     p50     p99 |     p50     p99 | rskafka librdkafka |"
    );
    print!("{table}");
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn quantile<T: PartialOrd>(values: impl Iterator<Item = T>, part: f64) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    let at = ((values.len() - 1) as f64 * part) as usize;
    values.swap_remove(at)
}

/// Runs the C program, which prints one time in microseconds a line.
fn librdkafka_run(program: &str, bootstrap: &str, topic: &str, size: usize) -> Vec<Duration> {
    let count = |n: usize| n.to_string();
    let out = Command::new(program)
        .args([
            bootstrap,
            topic,
            &count(size),
            &count(WARM_UP),
            &count(RECORDS),
        ])
        .output()
        .expect("the program that benches/rivals/run compiled");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "librdkafka: {said}");
    let text = String::from_utf8(out.stdout).expect("numbers");
    let micros = text.lines().map(|line| line.parse().expect("a number"));
    let times: Vec<_> = micros.map(Duration::from_micros).collect();
    assert_eq!(times.len(), RECORDS);
    times
}
