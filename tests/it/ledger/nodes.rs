//! Faults of nodes and leaders (R2): nodes killed, frozen, stopped in order, all unavailable, and
//! leaders moved.

use std::time::Duration;

use super::felt::judge;
use super::world::{Topics, World};
use super::{admin, cluster, ground, rounds};
use crate::admin::Admin;
use crate::ground::random;

/// How long a node is frozen. Longer than Kafka takes to move a frozen leader's partitions (3 s
/// here) and shorter than the gateway's request timeout, so the thawed node still responds to
/// earlier requests. After CI's rounds, 5 s to 45 s.
fn frozen(round: usize) -> Duration {
    Duration::from_secs(match round {
        0..3 => 8,
        _ => 5 + (round as u64 * 7) % 41,
    })
}

/// How long all brokers are unavailable. R8's 60 s are in `.ci/long`.
const AWAY: Duration = Duration::from_secs(15);

/// The node for the next fault: in turn the leader of commands, replies and events.
pub fn leader_by_turns(admin: &Admin, topics: &Topics, round: usize) -> usize {
    let topic = topics.all()[round % 3];
    admin.leader(topic, (round % 3) as i32) as usize
}

#[test]
fn leaders_are_killed() {
    let mut cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let mut world = World::start(&ground);
    for round in 0..rounds() {
        let node = leader_by_turns(&admin, &world.topics, round);
        world.event(&format!("node {node} killed"), |_| cluster.kill(node));
        world.event(&format!("node {node} back"), |topics| {
            cluster.start_node(node);
            admin.wait_in_sync(&topics.all());
        });
    }
    judge(&world.finish("leaders killed"));
}

#[test]
fn leaders_are_frozen_and_thawed() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let mut world = World::start(&ground);
    for round in 0..rounds() {
        let node = leader_by_turns(&admin, &world.topics, round);
        let time = frozen(round);
        world.event(&format!("node {node} frozen {time:?}"), |topics| {
            cluster.freeze(node);
            std::thread::sleep(time);
            cluster.thaw(node);
            admin.wait_in_sync(&topics.all());
        });
    }
    judge(&world.finish("leaders frozen and thawed"));
}

#[test]
fn nodes_are_stopped_in_order_and_started_again() {
    let mut cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let mut world = World::start(&ground);
    for round in 0..rounds() {
        let node = 1 + round % 3;
        world.event(&format!("node {node} rolled"), |topics| {
            cluster.stop(node);
            cluster.start_node(node);
            admin.wait_in_sync(&topics.all());
        });
    }
    judge(&world.finish("nodes rolled"));
}

/// Moves leaders to other nodes, in turn over topics and partitions.
pub fn move_leaders(admin: &Admin, topics: &Topics, moves: usize) {
    for n in 0..moves {
        let (topic, partition) = (topics.all()[n % 3], (n / 3 % 3) as i32);
        let now = admin.leader(topic, partition);
        let other = 1 + (now + (random() % 2) as i32) % 3;
        admin.move_leader(topic, partition, other);
    }
}

#[test]
fn leaders_are_moved_all_the_while() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let moves = 50 * rounds() / 3;
    let mut world = World::start(&ground);
    world.event(&format!("leader moved {moves} times"), |topics| {
        move_leaders(&admin, topics, moves);
    });
    judge(&world.finish("leaders moved"));
}

fn away() -> Duration {
    match rounds() {
        ..=3 => AWAY,
        _ => 4 * AWAY,
    }
}

#[test]
fn all_brokers_are_killed_and_come_back() {
    let mut cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let mut world = World::start(&ground);
    world.event(&format!("all killed for {:?}", away()), |topics| {
        (1..=3).for_each(|node| cluster.kill(node));
        std::thread::sleep(away());
        cluster.start_all();
        admin.wait_in_sync(&topics.all());
    });
    judge(&world.finish("all brokers killed"));
}

/// Here no connection is refused: connections stay open, and no broker responds (R8).
#[test]
fn all_brokers_are_frozen_and_thawed() {
    let cluster = cluster();
    let (admin, ground) = (admin(&cluster), ground(&cluster));
    let mut world = World::start(&ground);
    world.event(&format!("all frozen for {:?}", away()), |topics| {
        (1..=3).for_each(|node| cluster.freeze(node));
        std::thread::sleep(away());
        (1..=3).for_each(|node| cluster.thaw(node));
        admin.wait_in_sync(&topics.all());
    });
    judge(&world.finish("all brokers frozen"));
}
