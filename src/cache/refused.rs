//! Keys that found no room in a slice: not the keys themselves, but their hashes and where their
//! newest records are. So lookups of other keys that do not exist stay certain, and the records can
//! be read again once there is room.

use std::collections::BTreeMap;

use crate::model::{KeyHash, Offset, Partition};

/// Keys that are remembered at most, whatever the slice's size: a walk over all of them, when a log
/// start moves, is a few milliseconds.
const KEYS_MAX: usize = 65_536;
/// Memory of one in a B-tree.
const KEY_BYTES: usize = 48;

#[derive(Debug, Default)]
pub(super) struct Refused {
    keys_max: usize,
    keys: BTreeMap<KeyHash, Place>,
    /// Memory that the keys and their values would take.
    bytes: usize,
    /// Of keys that found no room even here, the highest offset in each partition: any key that the
    /// slice does not have may be one of them.
    lost: BTreeMap<Partition, Offset>,
}

/// Where the newest record of a refused key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    partition: Partition,
    offset: Offset,
    /// Memory that the key and its value would take.
    cost: usize,
}

impl Refused {
    /// For a slice of so many bytes, an eighth of which may be taken here.
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
            let place = Place {
                partition,
                offset,
                cost,
            };
            self.keys.insert(hash, place);
        } else {
            self.lost.insert(partition, offset);
        }
    }

    /// The key is in the slice now.
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

    /// Whether a key that the slice does not have may exist.
    pub(super) fn may_have(&self, hash: KeyHash) -> bool {
        self.is_lost() || self.keys.contains_key(&hash)
    }

    /// Whether keys were refused that are not remembered: only another loading can find them.
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
