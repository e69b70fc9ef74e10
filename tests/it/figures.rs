//! Measurements, ignored by default. They fail on no result. `SLUICEGATE_BINARY` names the build of
//! the gateway to measure.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::gateway::{self, Gateway};
use crate::ground::Ground;

const PARTITIONS: u32 = 256;
const ROUNDS: usize = 5;
/// Time that each cell is measured.
const MEASURED: Duration = Duration::from_secs(5);
const RATE: u64 = 2_000;

/// 256 partitions on one connection to one node: CPU of gateway and node without load and with
/// some, without and with fetch sessions, in the order A B A B.
#[test]
#[ignore = "a figure: takes two minutes"]
fn idle_partitions() {
    let cluster = Cluster::start(1);
    let ground = Ground::at(&cluster.bootstrap());
    let topic = ground.compacted("many", PARTITIONS);
    let mut config = gateway::settings(&cluster.bootstrap(), 1);
    config.push_str(&format!(
        "\n[[query]]\nroute = \"GET /x/{{id}}\"\ntopic = \"{topic}\"\nkey = \"{{path.id}}\"\n"
    ));
    let flags = [
        "--kafka-fetch-sessions=false",
        "--kafka-fetch-sessions=true",
    ];
    // By sessions and load: CPU of the gateway and of the node, in percent of a core.
    let mut cells: [[(Vec<f64>, Vec<f64>); 2]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (sessions, flag) in flags.iter().enumerate() {
            let gateway = Gateway::launch_with(&config, &[flag]);
            gateway.wait_serving();
            for (loaded, rate) in [0, RATE].into_iter().enumerate() {
                let load = || write_for(&cluster.bootstrap(), &topic, rate);
                let pids = [gateway.pid(), cluster.pid(1)];
                let [ours, theirs] = percents(pids, load);
                cells[sessions][loaded].0.push(ours);
                cells[sessions][loaded].1.push(theirs);
            }
        }
    }
    println!("{PARTITIONS} partitions, one connection, % of a core, medians of {ROUNDS}:");
    println!("{:<22} {:>10} {:>10}", "", "gateway", "Kafka");
    for (loaded, load) in ["at rest", "2,000 records/s"].iter().enumerate() {
        for (sessions, name) in ["no sessions", "sessions"].iter().enumerate() {
            let (ours, theirs) = &mut cells[sessions][loaded];
            let (ours, theirs) = (median(ours), median(theirs));
            println!("{load:<16} {name:<12} {ours:>6.2} {theirs:>10.2}");
        }
    }
}

/// CPU of processes in percent under a load, after a warm-up.
fn percents(pids: [u32; 2], load: impl FnOnce() -> Option<Writer>) -> [f64; 2] {
    let writer = load();
    std::thread::sleep(Duration::from_secs(1));
    let (before, began) = (pids.map(cpu), Instant::now());
    std::thread::sleep(MEASURED);
    let (after, took) = (pids.map(cpu), began.elapsed());
    drop(writer);
    std::array::from_fn(|at| {
        let needed = after[at].saturating_sub(before[at]);
        100.0 * needed.as_secs_f64() / took.as_secs_f64()
    })
}

/// CPU time of all threads of a process, as its scheduler counts it.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_task = |task: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(of_task).sum())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// kcat, which receives records at a rate until this is dropped.
struct Writer {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ended = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Writes keyed records, which go to all partitions.
fn write_for(bootstrap: &str, topic: &str, rate: u64) -> Option<Writer> {
    if rate == 0 {
        return None;
    }
    let mut kcat = Command::new("kcat")
        .args([
            "-P",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-X",
            "linger.ms=0",
            "-K",
            "\t",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat, which tests/setup installs");
    let mut stdin = kcat.stdin.take().expect("piped above");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let (began, mut written) = (Instant::now(), 0);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let due = (began.elapsed().as_micros() as u64) * rate / 1_000_000;
            let lines: String = (written..due)
                .map(|n| format!("k{n}\tvalue {n}\n"))
                .collect();
            written = due.max(written);
            stdin.write_all(lines.as_bytes()).expect("kcat reads");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(stdin);
        let _ended = kcat.wait();
    });
    Some(Writer {
        stop,
        thread: Some(thread),
    })
}
