//! Payments: an independent service in Python behind two gateways, with faults of gateways, leaders
//! and the service. `tests/services/payments.py` runs and judges it; this test owns the cluster and
//! does what the script asks of its nodes.
//!
//! `SLUICEGATE_PAYMENTS_SEED=N` repeats the clients' and the faults' choices of a run, though not its times.
//! `SLUICEGATE_PAYMENTS=full`: 20,000 commands and the faults of the issue, instead of CI's share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::{admin, cluster, ground};
use crate::ground::random;
use crate::services;

const PARTITIONS: u32 = 3;

/// Commands and faults of one run.
struct Size {
    commands: usize,
    gateways: usize,
    leaders: usize,
    services: usize,
    /// How often a third gateway and a third instance of the service come and go.
    scaled: usize,
}

fn is_full() -> bool {
    std::env::var("SLUICEGATE_PAYMENTS").is_ok_and(|it| it == "full")
}

fn size() -> Size {
    if is_full() {
        Size {
            commands: 20_000,
            gateways: 10,
            leaders: 3,
            services: 2,
            scaled: 0,
        }
    } else {
        Size {
            commands: 1_000,
            gateways: 2,
            leaders: 1,
            services: 1,
            scaled: 0,
        }
    }
}

fn payments(dedupe: &str, size: &Size) {
    let mut cluster = cluster();
    let ground = ground(&cluster);
    let admin = admin(&cluster);
    let commands = ground.topic("payments", PARTITIONS, &[]);
    let replies = ground.topic("payment-replies", PARTITIONS, &[]);
    let journal = ground.topic("journal", PARTITIONS, &[]);
    let balances = ground.compacted("balances", PARTITIONS);
    let all = [&*commands, &replies, &journal, &balances];
    let folder = tempfile::tempdir().expect("a folder for logs").keep();
    let seed = std::env::var("SLUICEGATE_PAYMENTS_SEED").ok();
    let seed = seed.map_or_else(|| random() as u32, |it| it.parse().expect("a number"));
    eprintln!(
        "payments, dedupe = {dedupe}: seed {seed}, logs in {}",
        folder.display()
    );
    let settings = serde_json::json!({
        "bootstrap": cluster.bootstrap(),
        "binary": crate::gateway::BINARY,
        "folder": folder,
        "dedupe": dedupe,
        "seed": seed,
        "partitions": PARTITIONS,
        "pause": 0.05,
        "commands": size.commands,
        "topics": {
            "commands": commands, "replies": replies, "journal": journal, "balances": balances,
        },
        "faults": {
            "kill_gateway": size.gateways, "freeze_gateway": size.gateways,
            "kill_leader": size.leaders, "freeze_leader": size.leaders,
            "kill_service": size.services,
            "add_service": size.scaled, "add_gateway": size.scaled,
        },
    });
    let mut script = Command::new(services::python())
        .args([services::script("payments.py"), settings.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let mut input = script.stdin.take().expect("piped above");
    let output = BufReader::new(script.stdout.take().expect("piped above"));
    for line in output.lines().map_while(Result::ok) {
        let Some(order) = line.strip_prefix("@ ") else {
            eprintln!("{line}");
            continue;
        };
        let words: Vec<&str> = order.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        let done = match words[0] {
            "kill" | "freeze" => {
                let node = admin.leader(words[1], number(2) as i32) as usize;
                match words[0] {
                    "kill" => cluster.kill(node),
                    _ => cluster.freeze(node),
                }
                node
            }
            "start" => {
                cluster.start_node(number(1));
                admin.wait_in_sync(&all);
                number(1)
            }
            "thaw" => {
                cluster.thaw(number(1));
                admin.wait_in_sync(&all);
                number(1)
            }
            _ => panic!("the script asks for {order}"),
        };
        let _ended = writeln!(input, "done {done}");
    }
    let done = script.wait().expect("a process of ours");
    assert!(
        done.success(),
        "{done}: the anomalies are above, the logs in {}",
        folder.display()
    );
    let _left = std::fs::remove_dir_all(&folder);
}

#[test]
fn payments_happen_once_with_replies() {
    payments("replies", &size());
}

#[test]
fn payments_happen_once_with_strict() {
    payments("strict", &size());
}

/// Commands of one client stay in order while instances of the service and gateways come and go.
#[test]
fn payments_stay_in_order_while_instances_come_and_go() {
    let size = Size {
        commands: if is_full() { 5_000 } else { 500 },
        gateways: 0,
        leaders: 0,
        services: 0,
        scaled: if is_full() { 5 } else { 1 },
    };
    payments("replies", &size);
}
