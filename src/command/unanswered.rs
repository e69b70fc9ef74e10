//! Unanswered commands of a commands topic, whichever instance appended them. With
//! `dedupe = "strict"` a home opens no command that is among them.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{AHashMap, RandomState};

use super::correlation::correlation_id;
use super::generations::Generations;
use super::recipe::fingerprints_differ;
use super::shelves::{Row, Shelves, bytes_per_row};
use crate::log::{Batch, Change, Step};
use crate::model::{CommandKey, CorrelationId, Fingerprint, UnixMillis};

/// How far back the index reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandIndexSettings {
    /// How long a command without a reply counts as unanswered: as long as it stays in flight.
    pub open_limit: Duration,
    /// Memory for entries. Beyond it the oldest sixteenth is dropped.
    pub bytes_max: usize,
}

impl CommandIndexSettings {
    /// Memory that one entry counts for, with what an allocator rounds up.
    pub const ENTRY_BYTES: usize = 56;
}

/// What the index has under a command key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// A record of this request: its reply is due, and another record would be a duplicate.
    Same,
    /// Records of other requests only.
    Other,
}

/// What [`CommandIndex`] holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandIndexStats {
    /// Unanswered requests.
    pub entries: usize,
    /// Memory that the entries count for, including those that are not yet freed.
    pub entry_bytes: usize,
    /// Generations dropped for lack of memory before `open_limit`, over the index's lifetime.
    pub generations_cut: u64,
}

/// Unanswered commands of one commands topic, of the last `open_limit`.
///
/// The commands topic and the replies topics are read independently, so a reply may be applied
/// before the record of its command:
///
/// | reply | applied after its record | applied before its record |
/// |---|---|---|
/// | stored | the entry is removed | the record is not entered: its reply is known |
/// | `retry: true` | one record of the entry is answered | one later record is answered |
///
/// A `retry: true` reply is not stored, and after it the same request may be sent again. So each of
/// them answers one record, and the entry stays while another is unanswered.
///
/// A record that retention has removed may still be with the service, so a log start removes
/// nothing.
#[derive(Debug)]
pub struct CommandIndex {
    correlation_id: Box<str>,
    open_limit: Duration,
    shelves: Shelves<CommandRow>,
    generations: Generations,
    early: EarlyReplies,
}

/// A request with unanswered records.
#[derive(Clone, Copy, Debug)]
struct CommandRow {
    id: CorrelationId,
    generation: u32,
    /// At least 1.
    records: u32,
}

impl Row for CommandRow {
    fn key(&self) -> CommandKey {
        self.id.key
    }
}

const _: () = assert!(CommandIndexSettings::ENTRY_BYTES >= bytes_per_row::<CommandRow>());

impl CommandIndex {
    /// Different requests kept per command key, as in the reply index.
    pub const FINGERPRINTS_PER_KEY_MAX: usize = super::ReplyIndex::FINGERPRINTS_PER_KEY_MAX;

    /// An empty index. `correlation_id` is the name of that header. `hasher` is seeded by the
    /// shard, because clients choose the keys.
    #[must_use]
    pub fn new(settings: CommandIndexSettings, correlation_id: &str, hasher: RandomState) -> Self {
        let entries_max = settings.bytes_max / CommandIndexSettings::ENTRY_BYTES;
        Self {
            correlation_id: correlation_id.into(),
            open_limit: settings.open_limit,
            early: EarlyReplies::new(hasher.clone()),
            shelves: Shelves::new(entries_max, hasher),
            generations: Generations::new(settings.open_limit, entries_max),
        }
    }

    /// Applies a step of the commands topic. `is_answered`: whether the reply to a request is
    /// stored.
    pub fn apply(
        &mut self,
        step: &Step,
        is_answered: impl Fn(CorrelationId) -> bool,
        now: UnixMillis,
    ) {
        if let Change::Records(batch) = &step.change {
            self.on_records(batch, is_answered, now);
        }
    }

    fn on_records(
        &mut self,
        batch: &Batch,
        is_answered: impl Fn(CorrelationId) -> bool,
        now: UnixMillis,
    ) {
        for record in batch.iter() {
            // Other producers may write to the topic too.
            let Ok(id) = correlation_id(record.headers, &self.correlation_id) else {
                continue;
            };
            if !is_answered(id) && !self.early.take(id, now) {
                self.on_command(id, record.timestamp, now);
            }
        }
    }

    /// A command without a reply. `now` bounds the record's timestamp, which its producer chooses.
    pub fn on_command(&mut self, id: CorrelationId, timestamp: UnixMillis, now: UnixMillis) {
        let generations = &mut self.generations;
        let rows = self.shelves.of_mut(id.key);
        let of_key = rows.len();
        let there = rows.iter_mut().find(|row| row.id == id);
        if there.is_none() && of_key >= Self::FINGERPRINTS_PER_KEY_MAX {
            return;
        }
        let Some(generation) = generations.add(timestamp.min(now)) else {
            return;
        };
        match there {
            Some(row) if generations.contains(row.generation) => {
                // The entry lives as long as its newest record.
                let newest = row.generation.max(generation);
                generations.remove(row.generation.min(generation));
                row.generation = newest;
                row.records = row.records.saturating_add(1);
            }
            // An expired row of the same request may still be there.
            Some(row) => {
                *row = CommandRow {
                    id,
                    generation,
                    records: 1,
                };
            }
            None => self.shelves.insert(CommandRow {
                id,
                generation,
                records: 1,
            }),
        }
        if self.shelves.len() > self.generations.entries_max() {
            if self.generations.keep_to_memory() {
                self.shelves.sweep_all();
            }
            self.sweep();
        }
    }

    /// A reply to a request, of any replies topic. `retry`: the service applied nothing, and the
    /// reply is not stored. Call it for every reply, once.
    pub fn on_reply(
        &mut self,
        id: CorrelationId,
        retry: bool,
        timestamp: UnixMillis,
        now: UnixMillis,
    ) {
        let limit = i64::try_from(self.open_limit.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.0.saturating_sub(limit);
        let generations = &self.generations;
        let mut rows = self.shelves.of_mut(id.key).iter_mut();
        let there = rows.find(|row| row.id == id && generations.contains(row.generation));
        match there {
            Some(row) if retry && row.records > 1 => row.records -= 1,
            Some(_) => {
                let removed = self.shelves.remove(id.key, |row| row.id == id);
                let removed = removed.expect("it was just found");
                self.generations.remove(removed.generation);
            }
            None if retry && timestamp.0 > oldest => self.early.add(id, now),
            None => {}
        }
    }

    /// What is unanswered under a command key. A request of another recipe may be the same one.
    #[must_use]
    pub fn get(&self, key: CommandKey, fingerprint: Fingerprint) -> Option<Unanswered> {
        let rows = self.shelves.of(key).iter();
        let mut known = rows.filter(|row| self.generations.contains(row.generation));
        let mut found = None;
        known
            .any(|row| {
                found = Some(Unanswered::Other);
                !fingerprints_differ(row.id.fingerprint, fingerprint)
            })
            .then_some(Unanswered::Same)
            .or(found)
    }

    /// Drops commands that are in flight no longer, and frees a bounded part of their memory.
    /// Returns true if more is due: call it again in the next turn.
    #[must_use = "true means that more is due"]
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        if self.generations.expire(now) {
            self.shelves.sweep_all();
        }
        self.sweep();
        self.shelves.is_unswept()
    }

    /// How long a command without a reply counts as unanswered.
    #[must_use]
    pub const fn open_limit(&self) -> Duration {
        self.open_limit
    }

    /// The time from which unanswered commands are known, if memory is not sufficient for all of
    /// the last `open_limit`. The state ends by itself `open_limit` after that time.
    #[must_use]
    pub fn cut(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.generations.cut(now)
    }

    /// Returns the current sizes, and the counts over the index's lifetime.
    #[must_use]
    pub fn stats(&self) -> CommandIndexStats {
        CommandIndexStats {
            entries: self.generations.entries(),
            entry_bytes: self.shelves.len() * CommandIndexSettings::ENTRY_BYTES,
            generations_cut: self.generations.cuts(),
        }
    }

    fn sweep(&mut self) {
        let generations = &self.generations;
        self.shelves
            .sweep(|row| generations.contains(row.generation));
    }
}

/// `retry: true` replies whose records are not applied yet. Each answers one record.
#[derive(Debug)]
struct EarlyReplies {
    counts: AHashMap<CorrelationId, u32>,
    /// In the order of arrival.
    arrivals: VecDeque<(UnixMillis, CorrelationId)>,
}

/// How long a record may be applied after its reply: until then both topics' ends are read many
/// times. Later records are of a request that was sent again.
const EARLY_LIMIT_MS: i64 = 30_000;
/// Replies kept: some 400 KiB. Beyond it the oldest is dropped, and its request stays unanswered
/// until `open_limit`.
const EARLY_MAX: usize = 4096;

impl EarlyReplies {
    fn new(hasher: RandomState) -> Self {
        Self {
            counts: AHashMap::with_hasher(hasher),
            arrivals: VecDeque::new(),
        }
    }

    fn add(&mut self, id: CorrelationId, now: UnixMillis) {
        self.expire(now);
        if self.arrivals.len() >= EARLY_MAX {
            self.drop_oldest();
        }
        self.arrivals.push_back((now, id));
        *self.counts.entry(id).or_default() += 1;
    }

    /// Whether a record is answered already. Its reply answers no other.
    fn take(&mut self, id: CorrelationId, now: UnixMillis) -> bool {
        self.expire(now);
        if !self.counts.contains_key(&id) {
            return false;
        }
        let mut arrivals = self.arrivals.iter();
        let at = arrivals.position(|(_, early)| *early == id);
        let at = at.expect("what is counted has arrived");
        self.arrivals.remove(at);
        self.uncount(id);
        true
    }

    fn expire(&mut self, now: UnixMillis) {
        let past = now.0.saturating_sub(EARLY_LIMIT_MS);
        while self.arrivals.front().is_some_and(|(at, _)| at.0 <= past) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.arrivals.pop_front() {
            self.uncount(id);
        }
    }

    fn uncount(&mut self, id: CorrelationId) {
        let count = self.counts.get_mut(&id);
        let count = count.expect("what has arrived is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::log::testing::{Draft, batch, step};
    use crate::model::HashSecret;

    const LIMIT: Duration = Duration::from_millis(1600);
    /// A generation spans this: an entry may stay as much longer.
    const SPAN: i64 = 100;

    fn index(entries: usize) -> CommandIndex {
        let settings = CommandIndexSettings {
            open_limit: LIMIT,
            bytes_max: entries * CommandIndexSettings::ENTRY_BYTES,
        };
        CommandIndex::new(
            settings,
            "correlation-id",
            RandomState::with_seeds(1, 2, 3, 4),
        )
    }

    fn id(key: u8, fingerprint: u8) -> CorrelationId {
        let mut recipe_1 = [fingerprint; 16];
        recipe_1[0] = 1;
        CorrelationId {
            key: CommandKey([key; 16]),
            fingerprint: Fingerprint(recipe_1),
        }
    }

    fn get(index: &CommandIndex, id: CorrelationId) -> Option<Unanswered> {
        index.get(id.key, id.fingerprint)
    }

    fn at(ms: i64) -> UnixMillis {
        UnixMillis(ms)
    }

    #[test]
    fn a_command_is_unanswered_until_its_reply_or_its_limit() {
        let mut index = index(100);
        index.on_command(id(1, 1), at(0), at(0));
        assert_eq!(get(&index, id(1, 1)), Some(Unanswered::Same));
        assert_eq!(get(&index, id(1, 2)), Some(Unanswered::Other));
        assert_eq!(get(&index, id(2, 1)), None);
        index.on_reply(id(1, 1), false, at(5), at(5));
        assert_eq!((get(&index, id(1, 1)), index.stats().entries), (None, 0));

        index.on_command(id(1, 1), at(10), at(10));
        assert!(!index.expire(at(1609)));
        assert_eq!(get(&index, id(1, 1)), Some(Unanswered::Same));
        let _more = index.expire(at(1610));
        assert_eq!((get(&index, id(1, 1)), index.stats().entries), (None, 0));
    }

    #[test]
    fn steps_of_the_topic_are_entered_unless_they_are_answered() {
        let mut index = index(100);
        let record = |offset, id: CorrelationId| Draft {
            timestamp: 50,
            ..Draft::new(offset, "k", Some("v")).header("correlation-id", id.to_string())
        };
        let drafts = [
            record(0, id(1, 1)),
            record(1, id(2, 1)),
            Draft::new(2, "k", Some("of another producer")),
        ];
        let records = Change::Records(batch(0, &drafts, &HashSecret::new([0; 16])));
        index.apply(&step(1, records), |it| it == id(2, 1), at(60));
        assert_eq!(get(&index, id(1, 1)), Some(Unanswered::Same));
        assert_eq!(get(&index, id(2, 1)), None);
        assert_eq!(index.stats().entries, 1);
    }

    /// A command that was answered by `retry: true` is sent again under the same correlation id.
    #[test]
    fn a_retry_reply_answers_one_record_whichever_is_applied_first() {
        let record = |index: &mut CommandIndex, time| {
            let drafts = [Draft {
                timestamp: time,
                ..Draft::new(time as u64, "k", None).header("correlation-id", id(1, 1).to_string())
            }];
            let records = Change::Records(batch(0, &drafts, &HashSecret::new([0; 16])));
            index.apply(&step(1, records), |_| false, at(time));
        };
        let reply = |index: &mut CommandIndex, time| {
            index.on_reply(id(1, 1), true, at(time), at(time));
        };
        for reply_first in [false, true] {
            let mut index = index(100);
            if reply_first {
                reply(&mut index, 1);
                record(&mut index, 2);
            } else {
                record(&mut index, 1);
                reply(&mut index, 2);
            }
            assert_eq!(get(&index, id(1, 1)), None, "answered");
            record(&mut index, 3);
            record(&mut index, 4);
            reply(&mut index, 5);
            assert_eq!(get(&index, id(1, 1)), Some(Unanswered::Same), "one of two");
            reply(&mut index, 6);
            assert_eq!(get(&index, id(1, 1)), None);
            assert!(index.early.counts.is_empty() && index.early.arrivals.is_empty());
        }
    }

    #[test]
    fn an_early_reply_answers_no_record_much_later() {
        let mut index = index(100);
        index.open_limit = Duration::from_secs(600);
        index.early.add(id(1, 1), at(0));
        assert!(!index.early.take(id(1, 1), at(EARLY_LIMIT_MS)));
        index.on_reply(id(1, 1), true, at(-600_000), at(0));
        assert!(
            !index.early.take(id(1, 1), at(0)),
            "its record is not read any more"
        );
        for n in 0..=EARLY_MAX as i64 {
            index.early.add(id((n % 100) as u8, 1), at(n / 1000));
        }
        assert_eq!(index.early.arrivals.len(), EARLY_MAX);
        let counted: u32 = index.early.counts.values().sum();
        assert_eq!(counted as usize, EARLY_MAX);
    }

    #[test]
    fn over_its_memory_the_oldest_commands_are_dropped_and_that_is_reported() {
        let mut index = index(64);
        for n in 0..200_u8 {
            index.on_command(id(n, 1), at(i64::from(n)), at(i64::from(n)));
            assert!(index.stats().entries <= 65);
            assert_eq!(get(&index, id(n, 1)), Some(Unanswered::Same));
        }
        let cut = index.cut(at(200)).expect("reported");
        assert!((120..=160).contains(&cut.0), "{cut:?}");
        assert_eq!(index.cut(at(200 + 1600)), None, "ends by itself");
        assert!(index.stats().entry_bytes <= 128 * CommandIndexSettings::ENTRY_BYTES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Against a map of requests, each with its unanswered records and the time of the newest.
        /// An entry may stay for as long as its generation spans.
        #[test]
        fn the_index_is_a_map_of_unanswered_requests(
            acts in prop::collection::vec((0..5_u8, 0..6_u8, 0..3_u8, 0..90_i64), 0..300),
        ) {
            let mut index = index(10_000);
            let mut model: HashMap<CorrelationId, (u32, i64)> = HashMap::new();
            let mut now = 0;
            for (act, key, fingerprint, pause) in acts {
                now += pause;
                let _more = index.expire(at(now));
                model.retain(|id, (_, newest)| match now - *newest {
                    0..1600 => true,
                    age if age >= 1600 + SPAN => false,
                    _ => get(&index, *id) == Some(Unanswered::Same),
                });
                let id = id(key, fingerprint);
                match act {
                    0..=2 => {
                        index.on_command(id, at(now), at(now));
                        let entry = model.entry(id).or_default();
                        *entry = (entry.0 + 1, now);
                    }
                    // Replies whose records are applied later have a test of their own.
                    3 if let Some((records, _)) = model.get_mut(&id) => {
                        index.on_reply(id, true, at(now), at(now));
                        *records -= 1;
                        model.retain(|_, (records, _)| *records > 0);
                    }
                    4 => {
                        index.on_reply(id, false, at(now), at(now));
                        model.remove(&id);
                    }
                    _ => {}
                }
                for key in 0..6 {
                    for fingerprint in 0..3 {
                        let id = self::id(key, fingerprint);
                        let other = model.keys().any(|it| it.key == id.key);
                        let expected = match (model.contains_key(&id), other) {
                            (true, _) => Some(Unanswered::Same),
                            (false, true) => Some(Unanswered::Other),
                            (false, false) => None,
                        };
                        prop_assert_eq!(get(&index, id), expected, "{:?} at {}", id, now);
                    }
                }
                prop_assert_eq!(index.stats().entries, model.len());
            }
            while index.expire(at(now)) {}
            prop_assert_eq!(index.shelves.len(), index.stats().entries);
        }
    }
}
