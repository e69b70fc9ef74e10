//! The reads of a client by key, and which of them may be due. Idle partitions stay in flight from
//! request to request, so nothing looks at their reads.

use std::collections::BTreeMap;

use super::event::{Lane, LinkId, ReadId, ReadKey, StartAt, TopicHandle};
use super::read::Read;
use crate::model::Partition;

#[derive(Debug, Default)]
pub(super) struct Reads {
    by_key: BTreeMap<ReadKey, Read>,
    /// Of the newest read. The generation tells a read from an earlier one with the same key.
    generation: u32,
    /// Reads that may not be in flight. Those that are not in flight are all here.
    active: Vec<ReadKey>,
    /// Whether any read may not be in flight.
    all_active: bool,
}

impl Reads {
    /// Begins a read, in place of an earlier one with the same key.
    pub(super) fn insert(&mut self, key: ReadKey, from: StartAt, bytes_max: u32) {
        self.generation = self.generation.wrapping_add(1);
        let read = Read::new(from, self.generation, bytes_max);
        self.by_key.insert(key, read);
        self.active.push(key);
    }

    /// The read may not be in flight any more.
    pub(super) fn activate(&mut self, key: ReadKey) {
        self.active.push(key);
    }

    /// Any read may not be in flight any more.
    pub(super) const fn activate_all(&mut self) {
        self.all_active = true;
    }

    /// Takes the keys of the reads that may be due. [`Self::keep_active`] must follow.
    pub(super) fn take_active(&mut self) -> Vec<ReadKey> {
        let mut active = std::mem::take(&mut self.active);
        if std::mem::replace(&mut self.all_active, false) {
            active.clear();
            active.extend(self.by_key.keys());
        } else {
            active.sort_unstable();
            active.dedup();
        }
        active
    }

    /// Gives back what [`Self::take_active`] returned. Reads that are in flight now are left out.
    pub(super) fn keep_active(&mut self, mut keys: Vec<ReadKey>) {
        keys.retain(|key| self.get(*key).is_some_and(|read| read.flight.is_none()));
        keys.append(&mut self.active);
        self.active = keys;
    }

    /// The reads in flight on a link.
    pub(super) fn on_link(&self, link: LinkId) -> impl Iterator<Item = ReadKey> {
        let on_link = move |(_, read): &(ReadKey, &Read)| read.flight == Some(link);
        self.iter().filter(on_link).map(|(key, _)| key)
    }

    /// Whether no other read of its lane reads the same partition.
    pub(super) fn is_alone(&self, key: ReadKey) -> bool {
        let with = |id| ReadKey {
            id: ReadId(id),
            ..key
        };
        self.by_key.range(with(0)..=with(u32::MAX)).count() == 1
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

    /// The read of a partition that waits for a response on `link`. A Fetch names a partition once,
    /// so there is one at most.
    pub(super) fn waiting(
        &self,
        link: LinkId,
        lane: Lane,
        topic: TopicHandle,
        partition: Partition,
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
