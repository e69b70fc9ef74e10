//! Three nodes of real Kafka, faults of every kind, and a ledger that compares responses with the
//! log: no record is lost, doubled, reordered or invented. And clients wait at most one second
//! longer for a gateway than for librdkafka in the same fault.
//!
//! - `book` the ledger and its checker, with histories it must reject
//! - `world` the system under test; `clients` its load; `account` the printed summary
//! - `beside` librdkafka; `felt` how long a fault was felt with each, and the bar
//! - `nodes` faults of nodes and leaders
//! - `payments` an independent service in Python behind two gateways, judged by its own script
//! - `secure` gateways that log in, by each mechanism and by TLS; one that is not let in (R9)
//! - `topics` what happens to topics (R4); `records` records of every kind
//!
//! All tests use one cluster, one after the other. `SLUICEGATE_LEDGER_ROUNDS` sets how often each
//! fault is repeated (3).

mod account;
mod beside;
mod book;
mod clients;
mod felt;
mod nodes;
mod payments;
mod records;
mod secure;
mod topics;
mod world;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::ground::Ground;

/// The cluster for one test at a time, repaired after the previous one.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start_secured(3)));
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.heal();
    cluster
}

/// The cluster for topics with three replicas.
fn ground(cluster: &Cluster) -> Ground {
    Ground::replicated(&cluster.bootstrap(), 3)
}

fn admin(cluster: &Cluster) -> Admin {
    Admin::of(&cluster.bootstrap())
}

/// How often each fault is repeated.
fn rounds() -> usize {
    let asked = std::env::var("SLUICEGATE_LEDGER_ROUNDS").ok();
    asked.map_or(3, |it| {
        it.parse().expect("SLUICEGATE_LEDGER_ROUNDS: a number")
    })
}
