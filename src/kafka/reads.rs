//! The reads of a client by key.

use std::collections::BTreeMap;

use super::event::{Lane, LinkId, ReadId, ReadKey, StartAt, TopicHandle};
use super::read::Read;
use crate::model::Partition;

#[derive(Debug, Default)]
pub(super) struct Reads {
    by_key: BTreeMap<ReadKey, Read>,
    /// Of the newest read. The generation tells a read from an earlier one with the same key.
    generation: u32,
}

impl Reads {
    /// Begins a read, in place of an earlier one with the same key.
    pub(super) fn insert(&mut self, key: ReadKey, from: StartAt, bytes_max: u32) {
        self.generation = self.generation.wrapping_add(1);
        let read = Read::new(from, self.generation, bytes_max);
        self.by_key.insert(key, read);
    }

    pub(super) fn remove(&mut self, key: ReadKey) {
        self.by_key.remove(&key);
    }

    pub(super) fn remove_topic(&mut self, topic: TopicHandle) {
        self.by_key.retain(|key, _| key.topic != topic);
    }

    pub(super) fn get(&self, key: ReadKey) -> Option<&Read> {
        self.by_key.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ReadKey) -> Option<&mut Read> {
        self.by_key.get_mut(&key)
    }

    /// The generation of a read that exists.
    pub(super) fn generation(&self, key: ReadKey) -> u32 {
        self.by_key[&key].generation
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ReadKey, &Read)> {
        self.by_key.iter().map(|(&key, read)| (key, read))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ReadKey, &mut Read)> {
        self.by_key.iter_mut().map(|(&key, read)| (key, read))
    }

    /// The reads from `first` on, in the order of their keys.
    pub(super) fn iter_mut_from(
        &mut self,
        first: ReadKey,
    ) -> impl Iterator<Item = (ReadKey, &mut Read)> {
        let range = self.by_key.range_mut(first..);
        range.map(|(&key, read)| (key, read))
    }

    /// The read of a partition that waits for a response on `link`. A Fetch names a partition once,
    /// so there is one at most.
    pub(super) fn waiting(
        &self,
        link: LinkId,
        lane: Lane,
        (topic, partition): (TopicHandle, Partition),
    ) -> Option<ReadKey> {
        let key = |id| ReadKey {
            lane,
            topic,
            partition,
            id: ReadId(id),
        };
        let of_partition = self.by_key.range(key(0)..=key(u32::MAX));
        let mut waiting = of_partition.filter(|(_, read)| read.flight == Some(link));
        waiting.next().map(|(&key, _)| key)
    }
}
