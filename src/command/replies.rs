//! The reply index: which commands are answered. The index is built from the replies topic alone,
//! so every instance has the same.

use std::time::Duration;

use ahash::RandomState;

use super::bodies::Bodies;
use super::generations::Generations;
use super::recipe::fingerprints_differ;
use super::reply::ReplyResult;
use super::shelves::{Row, Shelves, bytes_per_row};
use crate::model::{CommandKey, CorrelationId, Fingerprint, Offset, Partition, UnixMillis};

/// How far back the index reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyIndexSettings {
    /// How long a reply is stored: `retention.ms` of the replies topic.
    pub window: Duration,
    /// Memory for entries (`dedupe_memory`). Beyond it the oldest generation is dropped.
    pub dedupe_bytes_max: usize,
    /// Memory for bodies. Beyond it the oldest remain only in the log.
    pub body_bytes_max: usize,
}

impl ReplyIndexSettings {
    /// Memory that one entry counts for: 54 for its row in an array that has just grown, 3 for its
    /// part of the array itself, and what an allocator rounds up.
    pub const ENTRY_BYTES: usize = 64;

    /// Offsets that one reply may take: the record, and the marker that ends its transaction.
    pub const OFFSETS_PER_REPLY: u64 = 2;

    /// The number of entries that the memory is sufficient for.
    #[must_use]
    pub const fn entries_max(&self) -> usize {
        self.dedupe_bytes_max / Self::ENTRY_BYTES
    }

    /// The number of offsets that have as many replies as the memory is sufficient for. Without
    /// transactions, half of them have as many.
    #[must_use]
    pub const fn offsets_max(&self) -> u64 {
        (self.entries_max() as u64).saturating_mul(Self::OFFSETS_PER_REPLY)
    }
}

/// A reply of the replies topic.
#[derive(Clone, Copy, Debug)]
pub struct ReplyRecord<'a> {
    /// The request that it answers.
    pub id: CorrelationId,
    /// The partition of the replies topic that the record was read from.
    pub partition: Partition,
    /// The record's offset in that partition.
    pub offset: Offset,
    /// The reply's time, which decides the generation that the reply belongs to.
    pub timestamp: UnixMillis,
    /// The reply as read from the record, or why it can't be shown.
    pub answer: &'a ReplyResult,
}

/// A reply in the index, with its position in the replies topic.
#[derive(Clone, Debug)]
pub struct StoredReply {
    /// The request that it answers.
    pub id: CorrelationId,
    /// The partition of the replies topic that holds the record.
    pub partition: Partition,
    /// The record's offset in that partition.
    pub offset: Offset,
    /// The reply, if it is in memory. Otherwise it must be fetched by its position.
    pub answer: Option<ReplyResult>,
}

/// What [`ReplyIndex`] holds and has ignored, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyStats {
    /// Stored replies. Those below a log start count until they are swept.
    pub entries: usize,
    /// Memory that the entries count for, including those that are not yet freed.
    pub entry_bytes: usize,
    /// Replies that are in memory with their body.
    pub bodies: usize,
    /// Memory that these replies take, in bytes, with their rows in the cache.
    pub body_bytes: usize,
    /// Ignored later replies to the same request, over the index's lifetime.
    pub duplicates: u64,
    /// Ignored replies beyond [`ReplyIndex::FINGERPRINTS_PER_KEY_MAX`], over the index's lifetime.
    pub crowded: u64,
    /// Ignored replies from before the window, over the index's lifetime.
    pub too_old: u64,
    /// Generations dropped for lack of memory before the end of their window, over the index's
    /// lifetime.
    pub generations_cut: u64,
    /// Replies older than this are not stored. `None` if none was dropped yet.
    pub known_from: Option<UnixMillis>,
}

/// Requests answered within the window, by command key and fingerprint. Gateways that admit at the
/// same time may append different requests under one command key, so a key may have several
/// replies. Each of them is kept: a retry receives the reply of its own fingerprint.
///
/// Entries belong to generations, ordered by time. A generation is dropped as a whole: none of its
/// entries is returned any more, and their memory is freed shelf by shelf.
#[derive(Debug)]
pub struct ReplyIndex {
    /// Rows by command key, so that one search finds every fingerprint of a key. Some may belong to
    /// a dropped generation or be below the log start, and are not yet swept.
    shelves: Shelves<ReplyRow>,
    generations: Generations,
    bodies: Bodies,
    starts: Starts,
    duplicates: u64,
    crowded: u64,
    too_old: u64,
}

/// Where the partitions of the replies topic begin.
#[derive(Debug, Default)]
struct Starts(Vec<PartitionStart>);

#[derive(Clone, Copy, Debug, Default)]
struct PartitionStart {
    /// The last reported log start.
    log: Offset,
    /// Replies below this offset may be missing, although the log may have them.
    missing_below: Offset,
    /// The offset up to which replies were skipped, until the first reply from there on shows the
    /// time of those that are missing.
    skipped_to: Option<Offset>,
}

#[derive(Clone, Copy, Debug)]
struct ReplyRow {
    id: CorrelationId,
    offset: Offset,
    partition: Partition,
    generation: u32,
}

impl Row for ReplyRow {
    fn key(&self) -> CommandKey {
        self.id.key
    }
}

const _: () = {
    assert!(ReplyIndexSettings::ENTRY_BYTES >= bytes_per_row::<ReplyRow>());
    // DESIGN "Reply index".
    assert!(ReplyIndexSettings::ENTRY_BYTES <= 64);
};

impl ReplyIndex {
    /// Fingerprints kept per command key. Each needs a gateway that appended before it had read
    /// another gateway's reply, so a key has at most a few. The limit bounds the work of one
    /// lookup.
    pub const FINGERPRINTS_PER_KEY_MAX: usize = 64;

    /// An empty index. `hasher` is seeded by the shard, because clients choose the keys and could
    /// otherwise make them collide.
    #[must_use]
    pub fn new(settings: ReplyIndexSettings, hasher: RandomState) -> Self {
        let entries_max = settings.entries_max();
        Self {
            shelves: Shelves::new(entries_max, hasher.clone()),
            generations: Generations::new(settings.window, entries_max),
            bodies: Bodies::new(settings.body_bytes_max, hasher),
            starts: Starts::default(),
            duplicates: 0,
            crowded: 0,
            too_old: 0,
        }
    }

    /// Sets how long replies are stored from now on. The next `expire` drops those past it. Replies
    /// that were dropped before are not restored.
    pub const fn set_window(&mut self, window: Duration) {
        self.generations.set_window(window);
    }

    /// Applies a reply, in the topic's order. `now` bounds the reply's timestamp, which its
    /// producer chooses. Returns false if the request already has a reply: the first one is kept.
    pub fn on_reply(&mut self, reply: &ReplyRecord<'_>, now: UnixMillis) -> bool {
        if self.starts.has_resumed(reply.partition, reply.offset) {
            self.generations.on_cut(reply.timestamp.min(now));
        }
        let id = reply.id;
        let (mut known, mut of_key) = (false, 0);
        for row in self.rows_of(id.key) {
            known |= row.id == id;
            of_key += 1;
        }
        if known {
            self.duplicates += 1;
            return false;
        }
        if of_key >= Self::FINGERPRINTS_PER_KEY_MAX {
            self.crowded += 1;
            return true;
        }
        let Some(generation) = self.generations.add(reply.timestamp.min(now)) else {
            self.too_old += 1;
            self.starts.on_missing(reply.partition, reply.offset);
            return true;
        };
        let row = ReplyRow {
            id,
            offset: reply.offset,
            partition: reply.partition,
            generation,
        };
        // An expired row of the same request may still be there.
        let mut rows = self.shelves.of_mut(id.key).iter_mut();
        match rows.find(|there| there.id == id) {
            Some(there) => {
                let expired = std::mem::replace(there, row);
                self.generations.remove(expired.generation);
            }
            None => self.shelves.insert(row),
        }
        self.bodies.insert(id, reply.answer);
        self.keep_to_memory();
        true
    }

    /// The stored reply for a request: that of its own fingerprint. Otherwise one whose fingerprint
    /// is of another recipe, which may be the same request as another build writes it.
    #[must_use]
    pub fn get(&self, key: CommandKey, fingerprint: Fingerprint) -> Option<StoredReply> {
        let own = self
            .rows_of(key)
            .find(|row| row.id.fingerprint == fingerprint);
        let row = own.or_else(|| {
            let mut rows = self.rows_of(key);
            rows.find(|row| !fingerprints_differ(row.id.fingerprint, fingerprint))
        })?;
        Some(StoredReply {
            id: row.id,
            partition: row.partition,
            offset: row.offset,
            answer: self.bodies.get(row.id).cloned(),
        })
    }

    /// Whether any request under the command key is answered.
    #[must_use]
    pub fn has(&self, key: CommandKey) -> bool {
        self.rows_of(key).next().is_some()
    }

    /// Whether exactly this request is answered.
    #[must_use]
    pub fn has_reply_to(&self, id: CorrelationId) -> bool {
        self.rows_of(id.key).any(|row| row.id == id)
    }

    /// The replies of a partition below the offset are not read, because memory is not sufficient
    /// for them.
    pub fn on_skipped(&mut self, partition: Partition, offset: Offset) {
        let start = self.starts.of(partition);
        start.missing_below = start.missing_below.max(offset);
        start.skipped_to = Some(offset);
    }

    /// Retention has removed everything below the offset.
    pub fn on_log_start(&mut self, partition: Partition, offset: Offset) {
        let start = self.starts.of(partition);
        start.log = start.log.max(offset);
        self.shelves.sweep_all();
    }

    /// Drops generations past the window, and frees a bounded part of their memory. Returns true if
    /// more is due: call it again in the next turn.
    #[must_use = "true means that more is due"]
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        if self.generations.expire(now) {
            self.shelves.sweep_all();
        }
        self.sweep();
        self.shelves.is_unswept()
    }

    /// The time from which replies are known, if memory has shortened the window. The state ends by
    /// itself when the window has moved past that time, or retention has removed what is missing.
    #[must_use]
    pub fn cut(&self, now: UnixMillis) -> Option<UnixMillis> {
        let missing = self.starts.0.iter().any(|it| it.missing_below > it.log);
        // What a dropped generation had is known once it is swept.
        let missing = missing || self.shelves.is_unswept();
        self.generations.cut(now).filter(|_| missing)
    }

    /// Returns the current sizes, and the counts over the index's lifetime.
    #[must_use]
    pub fn stats(&self) -> ReplyStats {
        ReplyStats {
            entries: self.generations.entries(),
            entry_bytes: self.shelves.len() * ReplyIndexSettings::ENTRY_BYTES,
            bodies: self.bodies.len(),
            body_bytes: self.bodies.bytes(),
            duplicates: self.duplicates,
            crowded: self.crowded,
            too_old: self.too_old,
            generations_cut: self.generations.cuts(),
            known_from: self.generations.known_from(),
        }
    }

    /// The known rows of a command key.
    fn rows_of(&self, key: CommandKey) -> impl Iterator<Item = &ReplyRow> {
        let rows = self.shelves.of(key).iter();
        rows.filter(|row| is_known(row, &self.generations, &self.starts))
    }

    /// Drops the oldest generation if the memory is exceeded. While dropped entries still take too
    /// much memory, each new reply also sweeps some shelves.
    fn keep_to_memory(&mut self) {
        if self.shelves.len() <= self.generations.entries_max() {
            return;
        }
        if self.generations.keep_to_memory() {
            self.shelves.sweep_all();
        }
        self.sweep();
    }

    /// Frees dropped entries of the next shelves.
    fn sweep(&mut self) {
        let (generations, starts) = (&mut self.generations, &mut self.starts);
        let bodies = &mut self.bodies;
        self.shelves.sweep(|row| {
            let stays = is_known(row, generations, starts);
            if !stays {
                bodies.remove(row.id);
                generations.remove(row.generation);
                starts.on_missing(row.partition, row.offset);
            }
            stays
        });
    }
}

impl Starts {
    fn get(&self, partition: Partition) -> PartitionStart {
        let start = self.0.get(partition.0 as usize);
        start.copied().unwrap_or_default()
    }

    fn of(&mut self, partition: Partition) -> &mut PartitionStart {
        let index = partition.0 as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, PartitionStart::default());
        }
        &mut self.0[index]
    }

    /// Whether the reply at this offset is the first one after those that were skipped.
    fn has_resumed(&mut self, partition: Partition, offset: Offset) -> bool {
        let start = self.0.get_mut(partition.0 as usize);
        let skipped = start.map(|start| &mut start.skipped_to);
        skipped.is_some_and(|it| it.take_if(|to| *to <= offset).is_some())
    }

    /// The index does not have the reply at this offset, although the log may.
    fn on_missing(&mut self, partition: Partition, offset: Offset) {
        let start = self.of(partition);
        start.missing_below = start.missing_below.max(offset.next());
    }
}

fn is_known(row: &ReplyRow, generations: &Generations, starts: &Starts) -> bool {
    row.offset >= starts.get(row.partition).log && generations.contains(row.generation)
}
