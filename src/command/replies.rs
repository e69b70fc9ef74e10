//! The reply index: which commands are answered. The index is built from the replies topic alone,
//! so every instance has the same.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::RandomState;
use hashbrown::HashTable;

use super::bodies::Bodies;
use super::recipe::fingerprints_differ;
use super::reply::ReplyResult;
use crate::model::{
    Bug, CommandKey, CorrelationId, Fingerprint, Offset, Partition, UnixMillis, is_planted,
};

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
    /// Memory that one entry counts for. A row takes 48 bytes and one control byte, and a table
    /// that has just doubled is 7/16 full.
    pub const ENTRY_BYTES: usize = 112;

    /// The number of entries that the memory is sufficient for.
    #[must_use]
    pub const fn entries_max(&self) -> usize {
        self.dedupe_bytes_max / Self::ENTRY_BYTES
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
    /// Replies older than this were dropped for lack of memory. `None` if none was.
    pub cut_from: Option<UnixMillis>,
}

/// The number of generations in the window and in the memory. Dropping the oldest one loses this
/// share at once.
const GENERATIONS: usize = 16;
/// Maps that share the entries, so that no map is so large that doubling it makes a long turn.
const SHELVES: usize = 256;

/// Requests answered within the window, by command key and fingerprint. Gateways that admit at the
/// same time may append different requests under one command key, so a key may have several
/// replies. Each of them is kept: a retry receives the reply of its own fingerprint.
///
/// Entries belong to generations, ordered by time. A generation is dropped as a whole: none of its
/// entries is returned any more, and their memory is freed shelf by shelf.
#[derive(Debug)]
pub struct ReplyIndex {
    settings: ReplyIndexSettings,
    hasher: RandomState,
    /// Rows by the hash of their command key alone, so that one probe finds every fingerprint of a
    /// key.
    shelves: Vec<HashTable<Row>>,
    /// Oldest first; ids count up without a gap.
    generations: VecDeque<Generation>,
    next_generation: u32,
    /// Entries on the shelves, including those that are dropped but not yet swept.
    rows: usize,
    bodies: Bodies,
    /// The last reported log start of each partition.
    log_starts: Vec<Offset>,
    /// The shelf that is swept next, in turn, and the number of shelves still to sweep.
    next_shelf: usize,
    unswept: usize,
    stats: ReplyStats,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    id: CorrelationId,
    offset: Offset,
    partition: Partition,
    generation: u32,
}

// A table that has just doubled is 7/16 full.
const _: () = assert!(ReplyIndexSettings::ENTRY_BYTES == (size_of::<Row>() + 1) * 16 / 7);
const _: () = assert!(size_of::<Row>() == 48);

#[derive(Clone, Copy, Debug)]
struct Generation {
    id: u32,
    /// The time it begins; the next begins where it ends.
    from: UnixMillis,
    /// The time of its newest entry: it is dropped when that is past the window.
    newest: UnixMillis,
    entries: usize,
}

impl ReplyIndex {
    /// Fingerprints kept per command key. Each needs a gateway that appended before it had read
    /// another gateway's reply, so a key has at most a few. The limit bounds the work of one
    /// lookup.
    pub const FINGERPRINTS_PER_KEY_MAX: usize = 64;

    /// An empty index. `hasher` is seeded by the shard, because clients choose the keys and could
    /// otherwise make them collide.
    #[must_use]
    pub fn new(settings: ReplyIndexSettings, hasher: RandomState) -> Self {
        Self {
            settings,
            shelves: std::iter::repeat_with(HashTable::new)
                .take(SHELVES)
                .collect(),
            generations: VecDeque::new(),
            next_generation: 0,
            rows: 0,
            bodies: Bodies::new(settings.body_bytes_max, hasher.clone()),
            hasher,
            log_starts: Vec::new(),
            next_shelf: 0,
            unswept: 0,
            stats: ReplyStats::default(),
        }
    }

    /// Sets how long replies are stored from now on. The next `expire` drops those past it. Replies
    /// that were dropped before are not restored.
    pub const fn set_window(&mut self, window: Duration) {
        self.settings.window = window;
    }

    /// Applies a reply, in the topic's order. `now` bounds the reply's timestamp, which its
    /// producer chooses. Returns false if the request already has a reply: the first one is kept.
    pub fn on_reply(&mut self, reply: &ReplyRecord<'_>, now: UnixMillis) -> bool {
        let id = reply.id;
        let (mut known, mut of_key) = (false, 0);
        for row in self.rows_of(id.key) {
            known |= row.id == id;
            of_key += 1;
        }
        if known {
            self.stats.duplicates += 1;
            return false;
        }
        if of_key >= Self::FINGERPRINTS_PER_KEY_MAX {
            self.stats.crowded += 1;
            return true;
        }
        let time = reply.timestamp.min(now);
        let Some(index) = self.generation_for(time) else {
            self.stats.too_old += 1;
            return true;
        };
        if index == 0 && self.rows >= self.entries_max() && self.known() >= self.entries_max() {
            // The reply would be the first to be dropped.
            self.stats.too_old += 1;
            self.cut_from(UnixMillis(time.0.saturating_add(1)));
            return true;
        }
        let generation = &mut self.generations[index];
        generation.entries += 1;
        generation.newest = generation.newest.max(time);
        let row = Row {
            id,
            offset: reply.offset,
            partition: reply.partition,
            generation: generation.id,
        };
        let (hash, shelf) = self.place(id.key);
        let hasher = &self.hasher;
        let shelf = &mut self.shelves[shelf];
        // An expired row of the same request may still be there.
        match shelf.find_mut(hash, |there| there.id == id) {
            Some(there) => forget(&mut self.generations, &std::mem::replace(there, row)),
            None => {
                shelf.insert_unique(hash, row, |row| hasher.hash_one(row.id.key));
                self.rows += 1;
            }
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

    /// Retention has removed everything below the offset.
    pub fn on_log_start(&mut self, partition: Partition, offset: Offset) {
        let index = partition.0 as usize;
        if index >= self.log_starts.len() {
            self.log_starts.resize(index + 1, Offset(0));
        }
        self.log_starts[index] = self.log_starts[index].max(offset);
        self.unswept = SHELVES;
    }

    /// Drops generations past the window, and frees a bounded part of their memory. Returns true if
    /// more is due: call it again in the next turn.
    #[must_use = "true means that more is due"]
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        let early = is_planted(Bug::EarlyGeneration);
        let window = millis(self.settings.window) / if early { 1_000 } else { 1 };
        let past = now.0.saturating_sub(window);
        while self.generations.front().is_some_and(|g| g.newest.0 <= past) {
            self.drop_oldest();
        }
        self.sweep_one();
        self.unswept > 0
    }

    /// The time from which replies are known, if memory has shortened the window. The state ends by
    /// itself when the window has moved past that time.
    #[must_use]
    pub fn cut(&self, now: UnixMillis) -> Option<UnixMillis> {
        let past = now.0.saturating_sub(millis(self.settings.window));
        self.stats.cut_from.filter(|from| from.0 > past)
    }

    /// Returns the current sizes, and the counts over the index's lifetime.
    #[must_use]
    pub fn stats(&self) -> ReplyStats {
        ReplyStats {
            entries: self.known(),
            entry_bytes: self.rows * ReplyIndexSettings::ENTRY_BYTES,
            bodies: self.bodies.len(),
            body_bytes: self.bodies.bytes(),
            ..self.stats
        }
    }

    fn cut_from(&mut self, from: UnixMillis) {
        self.stats.cut_from = self.stats.cut_from.max(Some(from));
    }

    /// The known rows of a command key.
    fn rows_of(&self, key: CommandKey) -> impl Iterator<Item = &Row> {
        let (hash, shelf) = self.place(key);
        let same_hash = self.shelves[shelf].iter_hash(hash);
        same_hash.filter(move |row| {
            row.id.key == key && is_known(row, &self.generations, &self.log_starts)
        })
    }

    /// Entries that are stored, or that are below a log start and not yet swept.
    fn known(&self) -> usize {
        self.generations.iter().map(|g| g.entries).sum()
    }

    fn entries_max(&self) -> usize {
        self.settings.entries_max().max(GENERATIONS)
    }

    /// The hash of a command key, and its shelf.
    fn place(&self, key: CommandKey) -> (u64, usize) {
        let hash = self.hasher.hash_one(key);
        // The tables use the low bits and the top seven bits of the hash, so take others.
        (hash, (hash >> 48) as usize % SHELVES)
    }

    /// The generation of a time. A new one is begun if the newest is full or old. `None` if the
    /// time is before the window.
    fn generation_for(&mut self, time: UnixMillis) -> Option<usize> {
        if self.stats.known_from.is_some_and(|from| time < from) {
            return None;
        }
        let newest = self.generations.back().copied();
        match newest {
            Some(newest) if time < newest.from => {
                let after = self.generations.partition_point(|g| g.from <= time);
                if after == 0 {
                    // Partitions are loaded side by side, so time may go back.
                    self.generations[0].from = time;
                }
                Some(after.saturating_sub(1))
            }
            Some(newest) if !self.is_full(newest, time) => Some(self.generations.len() - 1),
            _ => {
                let id = self.next_generation;
                self.next_generation += 1;
                self.generations.push_back(Generation {
                    id,
                    from: time,
                    newest: time,
                    entries: 0,
                });
                Some(self.generations.len() - 1)
            }
        }
    }

    fn is_full(&self, generation: Generation, time: UnixMillis) -> bool {
        let share = self.settings.entries_max() / GENERATIONS;
        let span = millis(self.settings.window) / GENERATIONS as i64;
        generation.entries > share || time.0.saturating_sub(generation.from.0) >= span.max(1)
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.generations.pop_front() else {
            return;
        };
        let after = UnixMillis(oldest.newest.0.saturating_add(1));
        // Two generations share a moment if the memory has divided them instead of the time.
        let next = self.generations.front().map(|next| next.from);
        let from = next.map_or(after, |next| next.min(after));
        self.stats.known_from = self.stats.known_from.max(Some(from));
        self.unswept = SHELVES;
    }

    /// Drops the oldest generation if the memory is exceeded. While dropped entries still take too
    /// much memory, each new reply also sweeps one shelf.
    fn keep_to_memory(&mut self) {
        if self.rows <= self.entries_max() {
            return;
        }
        if self.known() > self.entries_max() && self.generations.len() > 1 {
            self.stats.generations_cut += 1;
            self.drop_oldest();
            if let Some(from) = self.stats.known_from {
                self.cut_from(from);
            }
        }
        self.sweep_one();
    }

    /// Frees the dropped entries of the next shelf.
    fn sweep_one(&mut self) {
        let Some(left) = self.unswept.checked_sub(1) else {
            return;
        };
        self.unswept = left;
        let (generations, starts) = (&mut self.generations, &self.log_starts);
        let rows = &mut self.shelves[self.next_shelf];
        self.next_shelf = (self.next_shelf + 1) % SHELVES;
        let before = rows.len();
        rows.retain(|row| {
            let stays = is_known(row, generations, starts);
            if !stays {
                self.bodies.remove(row.id);
                forget(generations, row);
            }
            stays
        });
        self.rows -= before - rows.len();
    }
}

fn is_known(row: &Row, generations: &VecDeque<Generation>, starts: &[Offset]) -> bool {
    let start = starts.get(row.partition.0 as usize);
    let oldest = generations.front();
    row.offset >= start.copied().unwrap_or_default()
        && oldest.is_some_and(|oldest| row.generation >= oldest.id)
}

/// Removes a row from the count of its generation, unless that generation has been dropped.
fn forget(generations: &mut VecDeque<Generation>, row: &Row) {
    let Some(oldest) = generations.front().map(|g| g.id) else {
        return;
    };
    if let Some(index) = row.generation.checked_sub(oldest) {
        generations[index as usize].entries -= 1;
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
