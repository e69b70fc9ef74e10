//! A slice compared with a simple model: a sorted map that is copied and searched as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::table::Table;
use super::*;
use crate::log::testing::{Draft, batch, cut, step};
use crate::log::{Change, Cut};
use crate::model::{Etag, HashSecret, KeyHash, LogTag, Offset, Partition, ShardId, UnixMillis};

const SECRET: HashSecret = HashSecret::new([3; 16]);
const KEEP: i64 = 1000;
const NOW: UnixMillis = UnixMillis(0);

fn settings(bytes_max: usize) -> SliceSettings {
    SliceSettings {
        me: ShardId(0),
        first: ShardId(0),
        slices: 1,
        bytes_max,
        tag: LogTag([0, 0, 0, 1]),
        etag_header: "etag".into(),
        tombstone_keep: Duration::from_millis(KEEP as u64),
        listed: false,
    }
}

fn slice() -> Slice {
    Slice::new(settings(usize::MAX / 2))
}

impl Slice {
    fn records(&mut self, partition: u32, drafts: &[Draft]) {
        let batch = batch(partition, drafts, &SECRET);
        self.apply(&step(1, Change::Records(batch)), NOW);
    }

    fn log_start(&mut self, partition: u32, offset: u64) {
        let (partition, offset) = (Partition(partition), Offset(offset));
        self.apply(&step(1, Change::LogStart { partition, offset }), NOW);
    }

    fn value(&self, key: &str) -> Option<String> {
        match self.get(key.as_bytes(), SECRET.hash(key.as_bytes())) {
            Lookup::Found(entry) => match entry.value() {
                Value::Held(bytes) => Some(String::from_utf8(bytes.to_vec()).expect("text")),
                other => panic!("found, but {other:?}"),
            },
            Lookup::Absent => None,
            other => panic!("{other:?}"),
        }
    }

    fn lookup(&self, key: &str) -> Lookup<'_> {
        self.get(key.as_bytes(), SECRET.hash(key.as_bytes()))
    }
}

#[test]
fn the_newest_record_of_a_key_is_found_with_its_headers() {
    let mut slice = slice();
    let second = Draft::new(1, "k", Some("two"))
        .header("etag", "v/2")
        .header("content-type", "application/json");
    slice.records(4, &[Draft::new(0, "k", Some("one")), second]);
    let Lookup::Found(entry) = slice.lookup("k") else {
        panic!("not found");
    };
    assert_eq!(entry.etag().as_bytes(), b"\"v/2\"");
    assert_eq!(entry.content_type().map(|t| &**t), Some("application/json"));
    assert_eq!(
        (entry.partition(), entry.offset()),
        (Partition(4), Offset(1))
    );

    slice.records(4, &[Draft::new(2, "k", Some("three"))]);
    let Lookup::Found(entry) = slice.lookup("k") else {
        panic!("not found");
    };
    assert_eq!(
        entry.etag(),
        Etag::from_position(LogTag([0, 0, 0, 1]), Partition(4), Offset(2))
    );
    assert_eq!(entry.content_type(), None);
}

#[test]
fn headers_that_http_cannot_carry_are_left_out_and_counted() {
    let mut slice = slice();
    let bad = Draft::new(0, "k", Some("v")).header("content-type", "a\r\nset-cookie: x");
    slice.records(0, &[bad]);
    let Lookup::Found(entry) = slice.lookup("k") else {
        panic!("not found");
    };
    assert_eq!(entry.content_type(), None);
    assert_eq!(slice.stats().headers_refused, 1);
}

#[test]
fn only_owned_keys_are_kept_and_null_keys_counted() {
    let mut slices: Vec<Slice> = (0..3)
        .map(|i| {
            Slice::new(SliceSettings {
                me: ShardId(2 + i),
                first: ShardId(2),
                slices: 3,
                ..settings(1 << 20)
            })
        })
        .collect();
    let mut drafts: Vec<Draft> = (0..200)
        .map(|i| Draft::new(i, &i.to_string(), Some("v")))
        .collect();
    drafts.push(Draft {
        offset: 200,
        ..Draft::default()
    });
    for slice in &mut slices {
        slice.records(0, &drafts);
    }
    for i in 0..200 {
        let key = i.to_string();
        let held = slices.iter().filter(|s| s.value(&key).is_some()).count();
        assert_eq!(held, 1, "key {key}");
    }
    let nulls: Vec<u64> = slices.iter().map(|s| s.stats().null_keys).collect();
    assert_eq!(nulls, [1, 0, 0]);
}

#[test]
fn a_tombstone_hides_its_key_is_shown_by_changes_and_goes_after_its_keep() {
    let mut slice = slice();
    slice.records(
        0,
        &[Draft::new(0, "k", Some("v")), Draft::new(1, "k", None)],
    );
    assert_eq!(slice.value("k"), None);
    assert!(slice.peek(b"k", SECRET.hash(b"k")).is_some());
    assert!(slice.page(None, LIMITS).items.is_empty());
    assert_eq!(all_changes(&slice, &cut(&[0]), &cut(&[2])).len(), 1);

    assert!(!slice.expire(UnixMillis(KEEP - 1)));
    assert_eq!(slice.stats().tombstones, 1);
    assert!(!slice.expire(UnixMillis(KEEP)));
    let empty = SliceStats {
        bytes: slice.stats().bytes,
        ..SliceStats::default()
    };
    assert_eq!(slice.stats(), empty);
    assert!(slice.peek(b"k", SECRET.hash(b"k")).is_none());
}

#[test]
fn expiry_is_bounded_and_says_what_is_left() {
    let mut slice = slice();
    let drafts: Vec<Draft> = (0..1000)
        .map(|i| Draft::new(i, &i.to_string(), None))
        .collect();
    slice.records(0, &drafts);
    let mut calls = 1;
    while slice.expire(UnixMillis(KEEP)) {
        calls += 1;
    }
    assert_eq!((calls, slice.stats().tombstones), (4, 0));
}

#[test]
fn a_key_that_moves_partition_is_the_one_that_came_later() {
    let mut slice = slice();
    slice.records(0, &[Draft::new(10, "k", Some("old"))]);
    slice.records(1, &[Draft::new(2, "k", Some("new"))]);
    assert_eq!(slice.value("k").as_deref(), Some("new"));
    assert_eq!(all_changes(&slice, &cut(&[0, 0]), &cut(&[11, 3])).len(), 1);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "each once")]
fn a_record_that_comes_again_is_a_broken_order() {
    let mut slice = slice();
    slice.records(0, &[Draft::new(4, "a", Some("4"))]);
    slice.records(0, &[Draft::new(4, "b", Some("4"))]);
}

/// A slice at its limit stops growing, and never reports a key as absent that did not fit.
#[test]
fn a_full_slice_leaves_values_out_then_keys_and_says_so() {
    let settings = settings(8 * 1024);
    let mut slice = Slice::new(settings.clone());
    let big = "x".repeat(3000);
    slice.records(
        0,
        &[
            Draft::new(0, "a", Some(&big)),
            Draft::new(1, "b", Some(&big)),
        ],
    );
    assert!(!slice.stats().over && slice.stats().unheld == 0);
    slice.records(0, &[Draft::new(2, "c", Some(&big))]);
    assert!(matches!(slice.lookup("c"), Lookup::Unheld(entry) if entry.offset() == Offset(2)));
    assert!(matches!(slice.lookup("no"), Lookup::Absent));
    assert_eq!(slice.stats().unheld, 1);
    // A value may use the room of the value that it replaces.
    slice.records(0, &[Draft::new(3, "a", Some(&big))]);
    assert!(matches!(slice.lookup("a"), Lookup::Found(_)));
    // A smaller value fits again.
    slice.records(0, &[Draft::new(4, "c", Some("small"))]);
    assert_eq!(slice.value("c").as_deref(), Some("small"));

    let many: Vec<Draft> = (5..100)
        .map(|i| Draft::new(i, &i.to_string(), Some("")))
        .collect();
    slice.records(0, &many);
    let stats = slice.stats();
    assert!(stats.over && stats.keys_refused > 0, "{stats:?}");
    assert!(stats.bytes <= settings.bytes_stop(), "{stats:?}");
    assert!(matches!(slice.lookup("99"), Lookup::Unknown));
    assert!(slice.page(None, LIMITS).incomplete);
    assert_eq!(slice.value("c").as_deref(), Some("small"));
}

/// A new key is not rejected while expired tombstones take memory.
#[test]
fn a_full_slice_drops_due_tombstones_before_it_refuses_a_key() {
    let mut slice = Slice::new(settings(64 * 1024));
    let mut at = 0;
    let mut write = |slice: &mut Slice, value: Option<&str>, now| {
        let drafts: Vec<Draft> = (0..200)
            .map(|n| Draft::new(at + n, &(at + n).to_string(), value))
            .collect();
        at += 200;
        let batch = batch(0, &drafts, &SECRET);
        slice.apply(&step(1, Change::Records(batch)), UnixMillis(now));
    };
    for round in 0..20 {
        write(&mut slice, None, round * KEEP);
        let stats = slice.stats();
        assert_eq!((stats.keys_refused, stats.unheld), (0, 0), "{stats:?}");
    }
    write(&mut slice, Some("v"), 20 * KEEP);
    assert_eq!(slice.stats().entries, 200);
}

impl Slice {
    fn records_again(&mut self, partition: u32, drafts: &[Draft]) {
        let batch = batch(partition, drafts, &SECRET);
        self.apply(&step(1, Change::Again(batch)), NOW);
    }
}

fn keyed(keys: &[&str], value: Option<&str>, at: u64) -> Vec<Draft> {
    let drafts = keys.iter().zip(at..);
    drafts.map(|(k, n)| Draft::new(n, k, value)).collect()
}

#[test]
fn a_full_slice_asks_for_what_it_left_out_once_there_is_room() {
    let big = "x".repeat(3000);
    let first = keyed(&["a", "b", "c", "d"], Some(&big), 0);
    let mut slice = Slice::new(settings(8 * 1024));
    slice.records(0, &first);
    assert_eq!(slice.stats().unheld, 2);
    assert!(slice.gaps().full && slice.gaps().reread.is_empty());
    slice.records(0, &keyed(&["a"], None, 4));
    assert!(slice.gaps().reread.is_empty(), "all would not fit");
    slice.records(0, &keyed(&["d"], Some("small"), 5));
    assert_eq!(slice.gaps().reread, [(Partition(0), Offset(2))]);
    // A record that is read again counts only if it is the newest of its key and was omitted.
    slice.records_again(0, &first[2..]);
    assert_eq!(slice.value("c").as_deref(), Some(&*big));
    assert_eq!(slice.value("d").as_deref(), Some("small"));
    slice.records_again(0, &first);
    assert_eq!(slice.value("a"), None, "it was deleted");
    assert_eq!(slice.gaps(), Gaps::default());
    assert!(slice.is_whole() && !slice.page(None, LIMITS).incomplete);
}

#[test]
fn a_key_that_found_no_room_is_remembered_and_no_other_is_doubted() {
    let mut slice = Slice::new(settings(64 * 1024));
    let mut all = Vec::new();
    while slice.stats().keys_refused < 20 {
        let at = all.len() as u64;
        let one = keyed(&[&format!("key{at}")], Some("v"), at);
        slice.records(0, &one);
        all.extend(one);
    }
    let count = all.len() as u64;
    let (last, held) = (format!("key{}", count - 1), count - 30);
    assert!(matches!(slice.lookup(&last), Lookup::Unknown));
    assert!(matches!(slice.lookup("no"), Lookup::Absent));
    assert!(slice.page(None, LIMITS).incomplete);
    assert!(slice.gaps().full && slice.gaps().reread.is_empty());
    // The key is written again without room: the newer record is the one to read.
    slice.records(0, &keyed(&[&last], Some("new"), count));
    slice.log_start(0, held);
    while slice.expire(NOW) {}
    let reread = slice.gaps().reread;
    assert_eq!(reread.len(), 1, "{:?}", slice.stats());
    assert!(reread[0].1 >= Offset(held) && reread[0].1 <= Offset(count - 20));
    slice.records_again(0, &all[held as usize..]);
    assert!(matches!(slice.lookup(&last), Lookup::Unknown));
    let other = format!("key{}", count - 2);
    assert_eq!(slice.value(&other).as_deref(), Some("v"));
    slice.records_again(0, &keyed(&[&last], Some("new"), count));
    assert_eq!(slice.value(&last).as_deref(), Some("new"));
    assert_eq!((slice.gaps(), slice.stats().entries), (Gaps::default(), 30));
}

#[test]
fn too_many_refused_keys_put_every_unknown_key_in_doubt_until_another_loading() {
    let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let many: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut slice = Slice::new(settings(8 * 1024));
    slice.records(0, &keyed(&many, Some("v"), 0));
    assert!(matches!(slice.lookup("no"), Lookup::Unknown));
    assert!(slice.gaps().full && !slice.gaps().reload);
    // Half of the slice is free, so loading again may help. Once the log start passes all lost
    // keys, the slice is complete.
    slice.log_start(0, 299);
    while slice.expire(NOW) {}
    assert!(slice.gaps().reload && slice.gaps().reread.is_empty());
    slice.log_start(0, 300);
    assert_eq!(slice.gaps(), Gaps::default());
    assert!(matches!(slice.lookup("no"), Lookup::Absent));
}

#[test]
fn an_undecodable_range_hides_what_it_may_have_replaced() {
    let mut slice = slice();
    let gap = |partition, from, to| Change::Gap {
        partition: Partition(partition),
        from: Offset(from),
        to: Offset(to),
        reason: crate::log::GapReason::Undecodable,
    };
    let records = [
        Draft::new(0, "below", Some("old")),
        Draft::new(1, "dead", Some("old")),
        Draft::new(2, "dead", None),
    ];
    slice.records(1, &records);
    slice.records(0, &[Draft::new(9, "other", Some("v"))]);
    assert!(slice.is_whole());
    slice.apply(&step(1, gap(1, 5, 7)), NOW);
    let above = [
        Draft::new(7, "above", Some("new")),
        Draft::new(8, "deleted", None),
    ];
    slice.records(1, &above);
    for unknown in ["below", "dead", "never"] {
        let found = slice.lookup(unknown);
        assert!(matches!(found, Lookup::Unknown), "{unknown}: {found:?}");
    }
    // If the key's partition is known, ranges of other partitions do not concern it.
    let of = |partition| slice.get_of(b"never", SECRET.hash(b"never"), Some(Partition(partition)));
    assert!(matches!((of(0), of(1)), (Lookup::Absent, Lookup::Unknown)));
    assert_eq!(slice.value("above").as_deref(), Some("new"));
    assert_eq!(slice.value("other").as_deref(), Some("v"));
    assert!(matches!(slice.lookup("deleted"), Lookup::Absent));
    assert!(slice.page(None, LIMITS).incomplete);
    // A tombstone after the range is kept while it decides the result.
    while slice.expire(UnixMillis(KEEP)) {}
    assert!(matches!(slice.lookup("deleted"), Lookup::Absent));
    assert_eq!(slice.stats().tombstones, 1, "that of `dead` has gone");
    // The doubt ends for a key when it is written after the range, and for all keys when the log
    // start passes the range.
    slice.records(1, &[Draft::new(9, "below", Some("new"))]);
    assert_eq!(slice.value("below").as_deref(), Some("new"));
    slice.log_start(1, 6);
    assert!(matches!(slice.lookup("never"), Lookup::Unknown));
    slice.log_start(1, 7);
    assert!(matches!(slice.lookup("never"), Lookup::Absent));
    assert!(matches!(slice.lookup("dead"), Lookup::Absent));
    assert!(slice.is_whole() && !slice.page(None, LIMITS).incomplete);
    assert_eq!(slice.value("below").as_deref(), Some("new"));
    while slice.expire(UnixMillis(3 * KEEP)) {}
    assert_eq!(slice.stats().tombstones, 0);
}

#[test]
fn what_is_not_json_is_marked_once_and_counted_while_it_is_there() {
    let mut slice = Slice::new(SliceSettings {
        listed: true,
        ..settings(1 << 20)
    });
    let records = [
        Draft::new(3, "a", Some("1")),
        Draft::new(4, "b", Some("not json")),
        Draft::new(5, "c", Some("{]")),
    ];
    slice.records(2, &records);
    let listed = |slice: &Slice| -> Vec<(String, bool)> {
        let mut all: Vec<_> = all_pages(slice)
            .into_iter()
            .map(|item| (text(&item.key), item.listed))
            .collect();
        all.sort();
        all
    };
    let of = |key: &str, listed| (key.to_owned(), listed);
    assert_eq!(
        listed(&slice),
        [of("a", true), of("b", false), of("c", false)]
    );
    let first = LeftOut {
        partition: Partition(2),
        offset: Offset(4),
        why: crate::model::NotJson::Syntax,
    };
    assert_eq!(slice.gaps().left_out, Some(first));
    assert_eq!(slice.stats().left_out, 2);
    slice.records(
        2,
        &[Draft::new(6, "b", Some("2")), Draft::new(7, "c", None)],
    );
    assert_eq!(listed(&slice), [of("a", true), of("b", true)]);
    assert_eq!(slice.stats().left_out, 0);
    assert!(slice.is_whole(), "what is left out does not make it less");
}

#[test]
fn below_the_log_start_nothing_is_shown_though_it_goes_piece_by_piece() {
    let mut slice = slice();
    let drafts: Vec<Draft> = (0..1000)
        .map(|i| Draft::new(i, &i.to_string(), Some("v")))
        .collect();
    slice.records(0, &drafts);
    slice.log_start(0, 900);
    assert!(slice.stats().entries > 100, "not all at once");
    assert_eq!(slice.value("899"), None);
    assert!(slice.peek(b"899", SECRET.hash(b"899")).is_none());
    assert_eq!(slice.value("900").as_deref(), Some("v"));
    assert_eq!(all_pages(&slice).len(), 100);
    assert_eq!(all_changes(&slice, &cut(&[0]), &cut(&[1000])).len(), 100);
    while slice.expire(NOW) {}
    assert_eq!(slice.stats().entries, 100);
}

#[test]
fn changes_of_one_key_keep_to_the_same_bounds() {
    let mut slice = slice();
    slice.records(0, &[Draft::new(5, "k", None)]);
    let found = |since, below, key: &str| {
        let of = Some((SECRET.hash(key.as_bytes()), key.as_bytes()));
        let changes = slice.changes(&cut(&[since]), &cut(&[below]), None, of, LIMITS);
        assert_eq!(changes.next, None);
        changes.items.len()
    };
    assert_eq!([found(5, 6, "k"), found(0, 9, "k")], [1, 1]);
    assert_eq!(
        [found(6, 9, "k"), found(0, 5, "k"), found(0, 9, "x")],
        [0, 0, 0]
    );
}

#[test]
fn a_page_holds_one_entry_at_least_and_passes_tombstones_in_pieces() {
    let mut slice = slice();
    let drafts: Vec<Draft> = (0..9000)
        .map(|i| Draft::new(i, &i.to_string(), None))
        .collect();
    slice.records(0, &drafts);
    let page = slice.page(None, LIMITS);
    assert!(page.items.is_empty() && page.next.is_some());

    slice.records(0, &[Draft::new(9000, "k", Some(&"x".repeat(5000)))]);
    assert_eq!(all_pages(&slice).len(), 1);
}

const LIMITS: PageLimits = PageLimits {
    entries: 3,
    bytes: 40,
};

fn all_pages(slice: &Slice) -> Vec<Item> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let from = after
            .as_ref()
            .map(|(hash, key): &(KeyHash, Box<[u8]>)| (*hash, &**key));
        let page = slice.page(from, LIMITS);
        assert!(page.items.len() <= LIMITS.entries);
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            return items;
        }
    }
}

fn all_changes(slice: &Slice, since: &Cut, below: &Cut) -> Vec<Item> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let changes = slice.changes(since, below, after, None, LIMITS);
        items.extend(changes.items);
        after = changes.next;
        if after.is_none() {
            return items;
        }
    }
}

/// One operation on a slice and its model.
#[derive(Clone, Debug)]
enum Act {
    /// A record: partition, key, and whether it has a value.
    Record(u32, u8, bool),
    /// Moves a partition's log start to this distance below its end.
    LogStart(u32, u64),
    Expire,
}

fn any_act() -> impl Strategy<Value = Act> {
    let partition = 0..3_u32;
    prop_oneof![
        20 => (partition.clone(), any::<u8>(), prop::bool::weighted(0.8))
            .prop_map(|(p, key, full)| Act::Record(p, key, full)),
        1 => (partition, 0..40_u64).prop_map(|(p, back)| Act::LogStart(p, back)),
        1 => Just(Act::Expire),
    ]
}

/// Partition, offset and value of a newest record.
type Newest = (u32, u64, Option<String>);

/// Starts and ends of the logs, and the newest record of each key by order of arrival.
#[derive(Default)]
struct Model {
    ends: [u64; 3],
    starts: [u64; 3],
    newest: BTreeMap<String, Newest>,
}

impl Model {
    fn act(&mut self, act: &Act, slice: &mut Slice) {
        match *act {
            Act::Record(p, key, full) => {
                let (at, key) = (p as usize, key.to_string());
                let offset = self.ends[at];
                self.ends[at] += 1 + offset % 2; // Offsets have holes.
                let value = full.then(|| format!("{p}/{offset}"));
                slice.records(p, &[Draft::new(offset, &key, value.as_deref())]);
                self.newest.insert(key, (p, offset, value));
            }
            Act::LogStart(p, back) => {
                let at = p as usize;
                let to = self.ends[at].saturating_sub(back).max(self.starts[at]);
                slice.log_start(p, to);
                self.starts[at] = to;
                self.newest.retain(|_, (q, o, _)| *q != p || *o >= to);
            }
            Act::Expire => {
                while slice.expire(UnixMillis(KEEP)) {}
                self.newest.retain(|_, (.., value)| value.is_some());
            }
        }
    }

    fn live(&self) -> BTreeMap<&str, &str> {
        let live = self.newest.iter();
        live.filter_map(|(key, (.., value))| Some((key.as_str(), value.as_deref()?)))
            .collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// After any operations, lookups, pages and changes equal the model's.
    #[test]
    fn a_slice_is_its_model(
        acts in prop::collection::vec(any_act(), 0..250),
        since in prop::array::uniform3(0..60_u64),
        below in prop::array::uniform3(0..90_u64),
    ) {
        let (mut slice, mut model) = (slice(), Model::default());
        for act in &acts {
            model.act(act, &mut slice);
        }
        let live = model.live();
        for key in 0..=u8::MAX {
            let key = key.to_string();
            let value = slice.value(&key);
            prop_assert_eq!(value.as_deref(), live.get(&*key).copied());
        }
        let pages = all_pages(&slice);
        prop_assert!(pages.is_sorted_by_key(|item| (item.hash, item.key.clone())));
        prop_assert_eq!(pages.len(), live.len());
        let keys: BTreeSet<String> = pages.iter().map(|item| text(&item.key)).collect();
        prop_assert_eq!(keys.len(), live.len());

        let (from, to) = (cut(&since), cut(&below));
        let changes: BTreeMap<String, Newest> = all_changes(&slice, &from, &to)
            .into_iter()
            .map(|item| {
                let value = match item.value {
                    Value::Held(bytes) => Some(text(&bytes)),
                    _ => None,
                };
                (text(&item.key), (item.partition.0, item.offset.0, value))
            })
            .collect();
        let within = |(p, o, _): &Newest| (since[*p as usize]..below[*p as usize]).contains(o);
        let expected: BTreeMap<String, Newest> = model.newest.clone()
            .into_iter()
            .filter(|(_, newest)| within(newest))
            .collect();
        prop_assert_eq!(changes, expected);

        let stats = slice.stats();
        prop_assert_eq!(stats.entries, live.len());
    }

    /// A key that is live during a whole scan is in it exactly once. Keys that are rewritten during
    /// *changes* leave them, and no others do.
    #[test]
    fn scans_hold_while_the_slice_changes(
        stay in 0..40_u64,
        acts in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.8)), 1..400),
    ) {
        let mut slice = slice();
        let before: Vec<Draft> = (0..stay)
            .map(|i| Draft::new(i, &format!("stay{i}"), Some("v")))
            .collect();
        slice.records(0, &before);
        let (mut offset, below) = (stay, cut(&[stay]));
        let (mut after, mut cursor) = (None::<(KeyHash, Box<[u8]>)>, None);
        let (mut pages, mut changes) = (Vec::new(), Vec::new());
        let (mut paged, mut changed) = (false, false);
        let mut acts = acts.into_iter();
        while !(paged && changed) {
            if !paged {
                let from = after.as_ref().map(|(hash, key)| (*hash, &**key));
                let page = slice.page(from, LIMITS);
                pages.extend(page.items.into_iter().map(|item| text(&item.key)));
                after = page.next;
                paged = after.is_none();
            }
            if !changed {
                let piece = slice.changes(&Cut::start(), &below, cursor, None, LIMITS);
                changes.extend(piece.items.into_iter().map(|item| text(&item.key)));
                cursor = piece.next;
                changed = cursor.is_none();
            }
            for (key, full) in acts.by_ref().take(20) {
                slice.records(0, &[Draft::new(offset, &key.to_string(), full.then_some("w"))]);
                offset += 1;
            }
        }
        let staying = |keys: &[String]| {
            let mut keys: Vec<String> =
                keys.iter().filter(|key| key.starts_with("stay")).cloned().collect();
            keys.sort();
            keys
        };
        let mut expected: Vec<String> = (0..stay).map(|i| format!("stay{i}")).collect();
        expected.sort();
        prop_assert_eq!(staying(&pages), expected.clone());
        prop_assert_eq!(staying(&changes), expected);
        let once: BTreeSet<&String> = pages.iter().collect();
        prop_assert_eq!(once.len(), pages.len());
    }
}

/// The table splits one bucket at a time. Its order, lookups and memory count hold at every size.
#[test]
fn the_table_keeps_its_order_at_every_size() {
    for ranges in [1, 3] {
        let mut table = Table::new(ranges);
        let owner = |hash: KeyHash| hash.owner(ShardId(0), ranges) == ShardId(ranges - 1);
        let mut keys = Vec::new();
        for n in 0..3000_u32 {
            let key = n.to_string().into_bytes();
            let hash = SECRET.hash(&key);
            if !owner(hash) {
                continue;
            }
            table.insert(entry::Slot {
                hash,
                key: key.clone().into(),
                record: entry::StoredRecord {
                    value: Value::Unheld(0),
                    etag: None,
                    offset: Offset(0),
                    timestamp: NOW,
                    partition: Partition(0),
                    content_type: 0,
                    listed: true,
                },
            });
            keys.push((hash, key));
            let room = table.bytes();
            assert!(room >= keys.len() * size_of::<entry::Slot>());
        }
        keys.sort();
        let seen: Vec<_> = table
            .after(None)
            .map(|s| (s.hash, s.key.to_vec()))
            .collect();
        assert_eq!(seen, keys);
        for (index, (hash, key)) in keys.iter().enumerate().step_by(7) {
            let at = table.find(*hash, key).expect("inserted");
            assert_eq!(&*table.slot(at).key, &key[..]);
            let next = table.after(Some((*hash, key))).next();
            assert_eq!(next.map(|s| s.hash), keys.get(index + 1).map(|k| k.0));
        }
        for (hash, key) in &keys {
            let at = table.find(*hash, key).expect("inserted");
            table.remove(at);
        }
        assert_eq!(table.after(None).count(), 0);
    }
}
