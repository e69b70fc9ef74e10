//! From `produce` to the fetched record, one at a time: our plane, rskafka and librdkafka beside
//! each other on one broker, in turns. `benches/rivals/run` starts the broker and this.
//!
//! Fails where our median is worse than either rival's by more than noise, or looks like rskafka's
//! 44 ms stall (its produce requests of 8 to 64 KiB wait for a delayed acknowledgement).

mod ours;
mod theirs;

use std::process::{Command, ExitCode};
use std::time::Duration;

/// A size's rounds, and the records of one round and client.
const ROUNDS: usize = 5;
const RECORDS: usize = 60;
const WARM_UP: usize = 30;
const SIZES: [usize; 4] = [100, 8 << 10, 32 << 10, 64 << 10];
/// What a median may differ by on a shared machine without being another.
const NOISE: f64 = 1.05;
/// Below any delayed acknowledgement (40 ms).
const STALL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(bootstrap), Some(librdkafka)) = (variable("RIVALS_BOOTSTRAP"), variable("RIVALS_C"))
    else {
        // `cargo test` and `cargo bench` run every bench; this one needs a broker.
        println!("produce to fetch: not run; benches/rivals/run starts it with a broker");
        return ExitCode::SUCCESS;
    };
    let mut ok = true;
    let mut table = String::new();
    for size in SIZES {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for round in 0..ROUNDS {
            let topic = format!("rivals-{size}-{round}-{}", std::process::id());
            theirs::create_topic(&bootstrap, &topic);
            // The order changes, so that nobody is always first after a pause.
            for turn in 0..3 {
                let who = (round + turn) % 3;
                times[who].extend(match who {
                    0 => ours::run(&bootstrap, &topic, size),
                    1 => theirs::run(&bootstrap, &topic, size),
                    _ => librdkafka_run(&librdkafka, &bootstrap, &topic, size),
                });
            }
        }
        let mut at = |part: f64| {
            times.each_mut().map(|times| {
                times.sort_unstable();
                times[((times.len() - 1) as f64 * part) as usize]
            })
        };
        let (p50, p99) = (at(0.50), at(0.99));
        let best = p50[1].min(p50[2]);
        let holds = p50[0].as_secs_f64() <= best.as_secs_f64() * NOISE && p50[0] < STALL;
        ok &= holds;
        let cell = |who: usize| {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            format!("{:>7.2} {:>8.2}", ms(p50[who]), ms(p99[who]))
        };
        let verdict = if holds { "no worse" } else { "WORSE" };
        table.push_str(&format!(
            "{size:>7} B {} | {} | {} | {verdict}\n",
            cell(0),
            cell(1),
            cell(2)
        ));
    }
    println!("produce to fetch, ms, {} records each:", ROUNDS * RECORDS);
    println!("  record  ours p50      p99 | rskafka p50  p99 | librdkafka  p99 |");
    print!("{table}");
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs the C program: a time in microseconds a line.
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
