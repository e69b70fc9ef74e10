//! The whole client against a scripted cluster. Minutes of its time run in milliseconds.

#![allow(clippy::unwrap_used)]

mod directory;
mod ends;
mod epochs;
mod peer;
mod racks;
mod reading;
mod records;
mod secure;
mod sessions;
mod shape;
mod writing;

use peer::{Topic, World};

use super::*;
use crate::model::{Offset, Partition, TopicName};

fn topic(leaders: &[(i32, i32)]) -> Topic {
    Topic {
        name: "t",
        id: 77,
        leaders: leaders.to_vec(),
    }
}

/// A world and its client, which knows the topic `t`.
fn known(leaders: &[(i32, i32)]) -> (World, TopicHandle) {
    let mut world = World::new(&[topic(leaders)]);
    let handle = world.client.watch(&TopicName::new("t").unwrap());
    world.settle();
    world.take();
    (world, handle)
}

fn key(topic: TopicHandle, partition: u32) -> ReadKey {
    ReadKey {
        lane: Lane::Streams,
        topic,
        partition: Partition(partition),
        id: ReadId::LIVE,
    }
}

fn offsets_of(events: &[Event]) -> Vec<u64> {
    let batch = |event: &Event| match event {
        Event::Batch { batch, .. } => batch.iter().map(|r| r.offset.0).collect(),
        _ => Vec::new(),
    };
    events.iter().flat_map(batch).collect()
}

const fn at(offset: u64) -> StartAt {
    StartAt::At(crate::log::Next::at(Offset(offset)))
}
