//! The slice: applies steps and answers lookups.

use std::sync::Arc;
use std::time::Duration;

use super::content_types::ContentTypes;
use super::entry::{ETAG_BYTES, Entry, Lookup, Slot, StoredRecord, Value, rounded, value_bytes};
use super::ledger::Ledger;
use super::order::{Order, RecordPosition};
use super::refused::Refused;
use super::table::{SlotIndex, Table};
use crate::log::{Batch, Change, Record, Step, Undecodable};
use crate::model::{
    Etag, KeyHash, LogTag, NotJson, Offset, Partition, ShardId, UnixMillis, check_json,
};

/// Most tombstones and entries below a log start that one call of [`Slice::expire`] removes.
const EXPIRE_MAX: usize = 256;

/// Settings of a slice, fixed at its start.
#[derive(Clone, Debug)]
pub struct SliceSettings {
    /// The shard that owns the slice.
    pub me: ShardId,
    /// First shard that owns keys.
    pub first: ShardId,
    /// Number of shards that own keys.
    pub slices: u16,
    /// Memory limit of the slice. It may exceed it up to [`Self::bytes_stop`].
    pub bytes_max: usize,
    /// The tag of the log, used in etags.
    pub tag: LogTag,
    /// Name of the record header with an entity's etag.
    pub etag_header: Arc<str>,
    /// How long tombstones are kept after they were applied: the topic's `delete.retention.ms`. It
    /// counts from then and not from the record's timestamp, which the producer chooses.
    pub tombstone_keep: Duration,
    /// Whether the topic has a collection. Then values are checked to be JSON.
    pub listed: bool,
}

impl SliceSettings {
    /// Memory at which a slice stops growing: a quarter above `bytes_max`. The memory sum must
    /// count this. Keys in the slice may still become tombstones, which takes up to 64 bytes more
    /// for each until [`Slice::expire`] removes it.
    #[must_use]
    pub const fn bytes_stop(&self) -> usize {
        self.bytes_max + self.bytes_max / 4
    }
}

/// Statistics of a slice, for metrics and checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceStats {
    /// Number of keys with a live newest record.
    pub entries: usize,
    /// Number of keys with a tombstone for their newest record.
    pub tombstones: usize,
    /// Memory in use: allocations as the allocator rounds them, including table and orders.
    pub bytes: usize,
    /// Number of entries without their value in memory.
    pub unheld: usize,
    /// Number of records of keys that did not fit, over the slice's lifetime.
    pub keys_refused: u64,
    /// Number of values in memory that collections omit because they are not JSON.
    pub left_out: usize,
    /// Number of records without a key so far. The first slice counts them for all.
    pub null_keys: u64,
    /// Number of records so far with an unusable `etag` or `content-type` header. The entry is
    /// stored without it.
    pub headers_refused: u64,
    /// Whether `bytes` is over `bytes_max`.
    pub over: bool,
}

/// What a slice lacks for lack of memory, and what its collections omit. It can be compared, so
/// that the shard detects a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Whether values or keys did not fit.
    pub full: bool,
    /// Whether keys did not fit and were not remembered, and half of the slice's memory is free.
    /// Only loading the topic again can find these keys.
    pub reload: bool,
    /// Per partition, the offset from which to read omitted records again. Empty unless all of them
    /// would fit now.
    pub reread: Vec<(Partition, Offset)>,
    /// The first value that collections omitted.
    pub left_out: Option<LeftOut>,
}

/// A value that collections omit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The partition of the value's record.
    pub partition: Partition,
    /// The offset of the value's record.
    pub offset: Offset,
    /// Why the value is not JSON that every reader accepts.
    pub why: NotJson,
}

/// The newest records of one topic on one shard.
#[derive(Debug)]
pub struct Slice {
    settings: SliceSettings,
    pub(super) table: Table,
    pub(super) ledger: Ledger,
    content_types: ContentTypes,
    /// Per partition, the known log start. Entries below it are hidden, and removed in several
    /// turns.
    floors: Vec<Offset>,
    /// Whether entries below a log start may remain.
    below_floor: bool,
    undecodable: Undecodable,
    refused: Refused,
    /// Per partition, an offset below which nothing was omitted for lack of memory.
    left_out_from: Vec<Option<Offset>>,
    keys_refused: u64,
    first_left_out: Option<LeftOut>,
    null_keys: u64,
    headers_refused: u64,
}

impl Slice {
    /// Creates a slice without any records.
    #[must_use]
    pub fn new(settings: SliceSettings) -> Self {
        Self {
            table: Table::new(settings.slices),
            refused: Refused::new(settings.bytes_max),
            settings,
            ledger: Ledger::default(),
            content_types: ContentTypes::default(),
            floors: Vec::new(),
            below_floor: false,
            undecodable: Undecodable::default(),
            left_out_from: Vec::new(),
            keys_refused: 0,
            first_left_out: None,
            null_keys: 0,
            headers_refused: 0,
        }
    }

    /// Applies one step, in order. `now` is the time at which tombstones are applied. The work is
    /// one lookup per record, whatever the slice's size.
    ///
    /// The newest record of a key is the last in the topic's order, so a key that moved to another
    /// partition is replaced too.
    pub fn apply(&mut self, step: &Step, now: UnixMillis) {
        self.undecodable.on_step(step);
        match &step.change {
            Change::Records(batch) => self.on_records(batch, now),
            Change::Again(batch) => self.on_records_again(batch, now),
            Change::LogStart { partition, offset } => {
                raise(&mut self.floors, *partition, *offset);
                self.refused.on_log_start(*partition, *offset);
                self.below_floor = true;
                // Further records below the log start are removed by `expire`, and are hidden until
                // then.
                let _more = self.expire_below_floors(EXPIRE_MAX);
            }
            Change::Nothing | Change::Gap { .. } | Change::Stuck { .. } => {}
        }
    }

    /// Looks up a key that may be in any partition.
    #[must_use]
    pub fn get(&self, key: &[u8], hash: KeyHash) -> Lookup<'_> {
        self.get_of(key, hash, None)
    }

    /// Looks up a key. If `partition` is given, all records of the key are in that partition.
    #[must_use]
    pub fn get_of(&self, key: &[u8], hash: KeyHash, partition: Option<Partition>) -> Lookup<'_> {
        let known = self.table.find(hash, key).map(|at| self.table.slot(at));
        let Some(slot) = known.filter(|slot| !self.is_below_floor(slot)) else {
            // If the slice has the key, its record is below the log start and the key did fit.
            let refused = known.is_none() && self.refused.may_exist(hash);
            let undecodable = match partition {
                None => !self.undecodable.is_empty(),
                Some(partition) => self.undecodable.is_in(partition),
            };
            return if refused || undecodable {
                Lookup::Unknown
            } else {
                Lookup::Absent
            };
        };
        let StoredRecord {
            partition, offset, ..
        } = slot.record;
        match slot.record.value {
            _ if self.undecodable.is_above(partition, offset) => Lookup::Unknown,
            Value::Held(_) => Lookup::Found(self.entry(slot)),
            Value::Unheld(_) => Lookup::Unheld(self.entry(slot)),
            Value::Tombstone(_) => Lookup::Absent,
        }
    }

    /// The newest record of `key`, even if it is a tombstone or its value is not in memory.
    #[must_use]
    pub fn peek(&self, key: &[u8], hash: KeyHash) -> Option<Entry<'_>> {
        let slot = self.table.slot(self.table.find(hash, key)?);
        (!self.is_below_floor(slot)).then(|| self.entry(slot))
    }

    /// Removes expired tombstones and entries below the log's start, a bounded number per call.
    /// Returns true if more remain: call it again in the next turn.
    #[must_use = "what is due and not dropped takes the room of new keys"]
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        self.expire_due(now, false)
    }

    /// When [`Self::expire`] next has work, by the wall clock.
    #[must_use]
    pub fn next_expiry(&self) -> Option<UnixMillis> {
        if self.below_floor {
            Some(UnixMillis(i64::MIN))
        } else {
            self.ledger.order.next_due()
        }
    }

    /// `for_room`: removes every expired tombstone, even those above undecodable ranges.
    #[must_use]
    fn expire_due(&mut self, now: UnixMillis, for_room: bool) -> bool {
        for left in (0..EXPIRE_MAX).rev() {
            let Some(place) = self.ledger.order.first_due(now) else {
                return self.expire_below_floors(left);
            };
            let (partition, offset) = (place.partition, place.offset);
            // Keep a tombstone above an undecodable range: it proves that its key is deleted.
            // Without it, the key would be unknown, because the range may have a record of it.
            let proves_deletion =
                self.undecodable.is_in(partition) && !self.undecodable.is_above(partition, offset);
            if proves_deletion && !for_room {
                self.extend_tombstone(self.at(place), now);
            } else {
                self.drop_slot(self.at(place));
            }
        }
        true
    }

    fn extend_tombstone(&mut self, at: SlotIndex, now: UnixMillis) {
        let slot = self.table.slot_mut(at);
        self.ledger.uncount(slot);
        // Keep it for at least 1 s, or the loop would find it expired again.
        let due = after(now, self.settings.tombstone_keep);
        slot.record.value = Value::Tombstone(due.max(UnixMillis(now.0.saturating_add(1000))));
        self.ledger.count(slot);
    }

    /// Returns the statistics of the slice.
    #[must_use]
    pub fn stats(&self) -> SliceStats {
        let bytes = self.bytes();
        let Ledger {
            entries,
            tombstones,
            unheld,
            ..
        } = self.ledger;
        SliceStats {
            entries,
            tombstones,
            unheld,
            bytes,
            over: bytes > self.settings.bytes_max,
            keys_refused: self.keys_refused,
            left_out: self.ledger.left_out,
            null_keys: self.null_keys,
            headers_refused: self.headers_refused,
        }
    }

    /// What the slice lacks for lack of memory, and what its collections omit.
    #[must_use]
    pub fn gaps(&self) -> Gaps {
        let full = self.lacks_keys() || self.ledger.unheld > 0;
        let wanted = self.bytes() + self.ledger.unheld_bytes + self.refused.bytes();
        let max = self.settings.bytes_max;
        let reread = if full && !self.refused.is_lost() && wanted <= max {
            self.wanted_from()
        } else {
            Vec::new()
        };
        Gaps {
            full,
            reload: self.refused.is_lost() && wanted <= max / 2,
            reread,
            left_out: self.first_left_out,
        }
    }

    fn wanted_from(&self) -> Vec<(Partition, Offset)> {
        let partitions = (0..).map(Partition).zip(&self.left_out_from);
        let wanted = partitions.filter_map(|(partition, from)| {
            let from = (*from)?;
            Some((partition, from.max(self.floor(partition))))
        });
        wanted.collect()
    }

    /// Ranges of the log that could not be decoded.
    #[must_use]
    pub const fn undecodable(&self) -> &Undecodable {
        &self.undecodable
    }

    /// Whether the slice has every newest record of its keys, values included.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.lacks_keys() && self.ledger.unheld == 0 && self.undecodable.is_empty()
    }

    /// The known log start of each partition.
    #[must_use]
    pub fn log_starts(&self) -> &[Offset] {
        &self.floors
    }

    /// Whether keys may exist that did not fit.
    pub(super) fn lacks_keys(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn floor(&self, partition: Partition) -> Offset {
        let floor = self.floors.get(partition.0 as usize);
        floor.copied().unwrap_or_default()
    }

    pub(super) fn is_below_floor(&self, slot: &Slot) -> bool {
        self.below_floor && slot.record.offset < self.floor(slot.record.partition)
    }

    pub(super) fn entry<'a>(&'a self, slot: &'a Slot) -> Entry<'a> {
        Entry {
            slot,
            tag: self.settings.tag,
            content_type: self.content_types.get(slot.record.content_type),
        }
    }

    /// The slot that stores the record of `place`. The caller has `place` from the order, so it
    /// exists.
    pub(super) fn at(&self, place: RecordPosition) -> SlotIndex {
        let holds = |slot: &Slot| {
            slot.record.partition == place.partition && slot.record.offset == place.offset
        };
        let at = self.table.find_by(place.hash, holds);
        at.expect("what is in order is held")
    }

    fn bytes(&self) -> usize {
        self.table.bytes() + self.ledger.bytes()
    }

    fn on_records(&mut self, batch: &Batch, now: UnixMillis) {
        for record in batch.iter() {
            let SliceSettings {
                me, first, slices, ..
            } = self.settings;
            match record.key {
                None => self.null_keys += u64::from(me == first),
                Some(key) if record.key_hash.owner(first, slices) == me => {
                    self.on_record(batch.partition(), key, &record, now);
                }
                Some(_) => {}
            }
        }
    }

    /// Applies records that were read again because there may be room now. A record counts only if
    /// it is the newest of its key and was omitted. All others are known or replaced.
    fn on_records_again(&mut self, batch: &Batch, now: UnixMillis) {
        let partition = batch.partition();
        for record in batch.iter() {
            let Some(key) = record.key else { continue };
            let place = (partition, record.offset);
            match self.table.find(record.key_hash, key) {
                Some(at) => {
                    let slot = self.table.slot(at);
                    let same = (slot.record.partition, slot.record.offset) == place;
                    if same && matches!(slot.record.value, Value::Unheld(_)) {
                        self.rewrite(at, partition, &record, now);
                    }
                }
                None if self.refused.is_newest(record.key_hash, place) => {
                    self.add(partition, key, &record, now);
                }
                None => {}
            }
        }
        if !self.lacks_keys() && self.ledger.unheld == 0 {
            self.left_out_from.clear();
        }
    }

    fn on_record(
        &mut self,
        partition: Partition,
        key: &[u8],
        record: &Record<'_>,
        now: UnixMillis,
    ) {
        let wanted = self.cost(key) + ETAG_BYTES + value_bytes(record.value.map_or(0, <[u8]>::len));
        if self.room() < wanted {
            // Expired tombstones must not take the room of a new key or value. The work is bounded,
            // and if none has expired, only one is examined.
            let _more = self.expire_due(now, true);
        }
        match self.table.find(record.key_hash, key) {
            None => self.add(partition, key, record, now),
            Some(at) => self.rewrite(at, partition, record, now),
        }
    }

    fn add(&mut self, partition: Partition, key: &[u8], record: &Record<'_>, now: UnixMillis) {
        let cost = self.cost(key);
        let Some(room) = self.room().checked_sub(cost) else {
            let value = record.value.map_or(0, |value| value_bytes(value.len()));
            let place = (partition, record.offset);
            self.keys_refused += 1;
            self.refused.add(record.key_hash, place, cost + value);
            self.on_left_out(partition, record.offset);
            return;
        };
        self.refused.remove(record.key_hash);
        let slot = Slot {
            hash: record.key_hash,
            key: key.into(),
            record: self.store(partition, record, room, now),
        };
        self.ledger.count(&slot);
        self.table.insert(slot);
    }

    fn rewrite(
        &mut self,
        at: SlotIndex,
        partition: Partition,
        record: &Record<'_>,
        now: UnixMillis,
    ) {
        // Free the old value first, so that the new value may use its room.
        let slot = self.table.slot_mut(at);
        self.ledger.uncount(slot);
        (slot.record.value, slot.record.etag) = (Value::Unheld(0), None);
        let cost = slot.heap_bytes() + Order::insert_bytes_max();
        let room = self.room().saturating_sub(cost);
        let stored = self.store(partition, record, room, now);
        let slot = self.table.slot_mut(at);
        slot.record = stored;
        self.ledger.count(slot);
    }

    /// Most memory that a new key takes without its value.
    fn cost(&self, key: &[u8]) -> usize {
        rounded(key.len()) + self.table.insert_bytes() + Order::insert_bytes_max()
    }

    /// Memory that is left until `bytes_stop`.
    fn room(&self) -> usize {
        let stop = self.settings.bytes_stop();
        stop.saturating_sub(self.bytes())
    }

    /// Copies a record, with its value and etag header as far as there is `room`.
    fn store(
        &mut self,
        partition: Partition,
        record: &Record<'_>,
        room: usize,
        now: UnixMillis,
    ) -> StoredRecord {
        let (etag, content_type) = self.headers_of(record);
        let etag = etag.filter(|_| ETAG_BYTES <= room);
        let room = room - etag.as_ref().map_or(0, |_| ETAG_BYTES);
        let value = match record.value {
            None => Value::Tombstone(after(now, self.settings.tombstone_keep)),
            Some(value) if value_bytes(value.len()) <= room => Value::Held(Arc::from(value)),
            Some(value) => Value::Unheld(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        };
        if matches!(value, Value::Unheld(_)) {
            self.on_left_out(partition, record.offset);
        }
        let listed = self.is_listed(partition, record, &value);
        StoredRecord {
            value,
            etag,
            offset: record.offset,
            timestamp: record.timestamp,
            partition,
            content_type,
            listed,
        }
    }

    /// Records that a value or a key did not fit.
    fn on_left_out(&mut self, partition: Partition, offset: Offset) {
        let index = partition.0 as usize;
        if index >= self.left_out_from.len() {
            self.left_out_from.resize(index + 1, None);
        }
        let from = self.left_out_from[index].get_or_insert(offset);
        *from = offset.min(*from);
    }

    /// Whether a value may be in a collection. Each record is checked once. Every reader must be
    /// able to parse the collection as one JSON document.
    fn is_listed(&mut self, partition: Partition, record: &Record<'_>, value: &Value) -> bool {
        let Value::Held(value) = value else {
            return true;
        };
        if !self.settings.listed {
            return true;
        }
        let Err(why) = check_json(value) else {
            return true;
        };
        self.first_left_out.get_or_insert(LeftOut {
            partition,
            offset: record.offset,
            why,
        });
        false
    }

    /// The record's etag header and content type. As in Kafka, the last header of a name counts.
    fn headers_of(&mut self, record: &Record<'_>) -> (Option<Box<Etag>>, u16) {
        let (mut etag, mut content_type) = (None, None);
        for (name, value) in record.headers {
            if name == self.settings.etag_header.as_bytes() {
                etag = value;
            } else if name == b"content-type" {
                content_type = value;
            }
        }
        let own = etag.and_then(Etag::from_header).map(Box::new);
        let kind = content_type.map_or(Some(0), |value| self.content_types.intern(value));
        let refused = etag.is_some() && own.is_none() || kind.is_none();
        self.headers_refused += u64::from(refused);
        (own, kind.unwrap_or(0))
    }

    /// Removes entries below the log starts. Returns true if more remain.
    #[must_use]
    fn expire_below_floors(&mut self, mut left: usize) -> bool {
        if !self.below_floor {
            return false;
        }
        for partition in (0..self.ledger.order.partitions()).map(Partition) {
            let floor = self.floor(partition);
            while let Some(place) = self
                .ledger
                .order
                .first(partition)
                .filter(|p| p.offset < floor)
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.drop_slot(self.at(place));
            }
        }
        self.below_floor = false;
        false
    }

    fn drop_slot(&mut self, at: SlotIndex) {
        let slot = self.table.remove(at);
        self.ledger.uncount(&slot);
    }
}

fn after(now: UnixMillis, keep: Duration) -> UnixMillis {
    let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(now.0.saturating_add(keep))
}

fn raise(offsets: &mut Vec<Offset>, partition: Partition, to: Offset) {
    let index = partition.0 as usize;
    if index >= offsets.len() {
        offsets.resize(index + 1, Offset(0));
    }
    offsets[index] = offsets[index].max(to);
}
