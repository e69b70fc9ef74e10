//! Three nodes of real Kafka, faults of every kind, and a ledger of what was told against what is in
//! the log: nothing lost, doubled, reordered or made up. And nobody waits a second longer for us than
//! for librdkafka beside us, in the same fault.
//!
//! - `book` the ledger and its checker, with histories it must reject
//! - `world` what stands while faults come; `clients` who uses it; `account` its figures
//! - `beside` librdkafka; `felt` how long a fault was felt with each, and the bar
//! - `nodes` faults of nodes and leaders
//! - `secure` gateways that log in, by each mechanism and by TLS; one that is not let in (R9)
//! - `topics` what happens to topics (R4); `records` records of every kind
//!
//! One cluster serves all of them, one after the other. `SLUICEGATE_LEDGER_ROUNDS` says how often
//! each fault comes (3).

mod account;
mod beside;
mod book;
mod clients;
mod felt;
mod nodes;
mod records;
mod secure;
mod topics;
mod world;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::ground::Ground;

/// The cluster, for one test at a time, whole again whatever the last one has done.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start_secured(3)));
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.heal();
    cluster
}

/// Where topics of three replicas are made.
fn ground(cluster: &Cluster) -> Ground {
    Ground::replicated(&cluster.bootstrap(), 3)
}

fn admin(cluster: &Cluster) -> Admin {
    Admin::of(&cluster.bootstrap())
}

/// How often each fault comes.
fn rounds() -> usize {
    let asked = std::env::var("SLUICEGATE_LEDGER_ROUNDS").ok();
    asked.map_or(3, |it| {
        it.parse().expect("SLUICEGATE_LEDGER_ROUNDS: a number")
    })
}
