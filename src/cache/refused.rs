//! Keys that did not fit in a slice. Only their hashes and the positions of their newest records
//! are kept. So lookups of keys that do not exist remain certain, and the records can be read again
//! once there is room.

use std::collections::BTreeMap;

use crate::model::{KeyHash, Offset, Partition};

/// Most keys that are remembered, whatever the slice's size. When a log start moves, all of them
/// are visited, which takes a few milliseconds.
const KEYS_MAX: usize = 65_536;
/// Memory of one remembered key in a B-tree.
const KEY_BYTES: usize = 48;

#[derive(Debug, Default)]
pub(super) struct Refused {
    keys_max: usize,
    keys: BTreeMap<KeyHash, RefusedKey>,
    /// Memory that the keys and their values would take.
    bytes: usize,
    /// Per partition, the highest offset of keys that are not even remembered. Any key that is not
    /// in the slice may be one of them.
    lost: BTreeMap<Partition, Offset>,
}

/// The position of a refused key's newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RefusedKey {
    partition: Partition,
    offset: Offset,
    /// Memory that the key and its value would take.
    cost: usize,
}

impl Refused {
    /// Creates the set for a slice of `bytes_max` bytes, of which it may use an eighth.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            keys_max: (bytes_max / 8 / KEY_BYTES).min(KEYS_MAX),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, hash: KeyHash, at: (Partition, Offset), cost: usize) {
        let (partition, offset) = at;
        self.remove(hash);
        if self.keys.len() < self.keys_max {
            self.bytes += cost;
            let place = RefusedKey {
                partition,
                offset,
                cost,
            };
            self.keys.insert(hash, place);
        } else {
            self.lost.insert(partition, offset);
        }
    }

    /// Forgets a key that the slice now has.
    pub(super) fn remove(&mut self, hash: KeyHash) {
        if self.keys.is_empty() {
            return;
        }
        if let Some(place) = self.keys.remove(&hash) {
            self.bytes -= place.cost;
        }
    }

    pub(super) fn on_log_start(&mut self, partition: Partition, start: Offset) {
        let bytes = &mut self.bytes;
        self.keys.retain(|_, place| {
            let stays = place.partition != partition || place.offset >= start;
            *bytes -= if stays { 0 } else { place.cost };
            stays
        });
        if self.lost.get(&partition).is_some_and(|last| *last < start) {
            self.lost.remove(&partition);
        }
    }

    /// Whether this record is the newest of a refused key.
    pub(super) fn is_newest(&self, hash: KeyHash, at: (Partition, Offset)) -> bool {
        let place = self.keys.get(&hash);
        place.is_some_and(|place| (place.partition, place.offset) == at)
    }

    /// Whether a key that is not in the slice may exist.
    pub(super) fn may_exist(&self, hash: KeyHash) -> bool {
        self.is_lost() || self.keys.contains_key(&hash)
    }

    /// Whether keys were refused and not remembered. Only loading the topic again can find them.
    pub(super) fn is_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.lost.is_empty()
    }

    /// Memory that the remembered keys and their values would take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
