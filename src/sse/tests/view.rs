//! The log as Kafka has it, and what a client has seen of it: two sides of one comparison.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Rec;
use super::parser::Dispatch;
use crate::log::{Cut, EventId};
use crate::model::Partition;
use crate::sse::StartFrom;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Kafka: what was appended, and what retention has left of it.
pub(super) struct Log {
    pub(super) partitions: Vec<Vec<Rec>>,
    pub(super) ends: Vec<u64>,
    pub(super) starts: Vec<u64>,
    pub(super) compacted: bool,
}

impl Log {
    pub(super) fn append(&mut self, arg: u64) {
        let key = (arg % 5) as usize;
        let partition = if self.compacted {
            key % 4 % self.partitions.len()
        } else {
            (arg / 5) as usize % self.partitions.len()
        };
        // A hole now and then: compaction, transaction markers.
        let offset = self.ends[partition] + u64::from(arg.is_multiple_of(7)) * 3;
        let key = KEYS.get(key % 4 + usize::from(!self.compacted && key == 4));
        let name = key.copied().unwrap_or("-");
        let value = (!arg.is_multiple_of(11)).then(|| format!("{name}\n{partition}/{offset}"));
        self.partitions[partition].push(Rec {
            offset,
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(String::into_bytes),
            etag: None,
        });
        self.ends[partition] = offset + 1 + u64::from(arg.is_multiple_of(13));
    }

    pub(super) fn range(
        &self,
        partition: usize,
        from: u64,
        below: u64,
    ) -> impl Iterator<Item = &Rec> {
        let records = self.partitions[partition].iter();
        records.filter(move |r| r.offset >= from && r.offset < below)
    }
}

pub(super) fn get(cut: &Cut, partition: usize) -> u64 {
    cut.get(Partition(partition as u32)).offset.0
}

/// What it has seen since it began from nothing.
#[derive(Default)]
pub(super) struct View {
    /// The cut of the first id that was received: the start.
    from: Option<Cut>,
    seen: BTreeSet<(u32, u64)>,
    gaps: Vec<(u32, u64, u64)>,
    newest: BTreeMap<String, (u64, bool)>,
}

impl View {
    pub(super) fn read(
        &mut self,
        block: &Dispatch,
        connection: &mut BTreeMap<String, u64>,
        compacted: bool,
    ) {
        if block.id.is_empty() {
            return; // Nothing but `retry:` yet.
        }
        let id = EventId::parse(block.id.as_bytes()).expect("an id of ours");
        if let (from @ None, Some(progress)) = (&mut self.from, id.progress) {
            *from = Some(progress.cut);
        }
        if block.event == "gap" {
            let data: serde_json::Value = serde_json::from_str(&block.data).expect("JSON");
            let number = |name: &str| data[name].as_u64().expect("a number");
            assert_eq!(data["reason"], "retention");
            let partition = number("partition") as u32;
            self.gaps.push((partition, number("from"), number("to")));
        }
        if !matches!(&*block.event, "message" | "delete") {
            return;
        }
        let etag = std::str::from_utf8(id.etag).expect("ASCII");
        let numbers = etag
            .split('-')
            .skip(1)
            .map(|part| part.parse().expect("a number"));
        let [partition, offset] = numbers.collect::<Vec<u64>>()[..] else {
            panic!("{etag} is no position");
        };
        let key = match &*block.event {
            "delete" => {
                let data: serde_json::Value = serde_json::from_str(&block.data).expect("JSON");
                data["key"].as_str().unwrap_or("-").to_owned()
            }
            _ => {
                let (key, position) = block.data.split_once('\n').expect("two lines");
                assert_eq!(position, format!("{partition}/{offset}"));
                key.to_owned()
            }
        };
        let before = connection.insert(key.clone() + &partition.to_string(), offset);
        let forward = before.is_none_or(|before| before < offset);
        assert!(forward, "{key} goes back to {offset} in one connection");
        self.newest.insert(key, (offset, block.event == "delete"));
        let new = self.seen.insert((partition as u32, offset));
        assert!(new || compacted, "{partition}/{offset} came twice");
    }

    /// Invariant I, at any id: all that match below it, none at or above.
    pub(super) fn check(&self, log: &Log, key: Option<&str>, id: &str) {
        let (Ok(id), Some(from)) = (EventId::parse(id.as_bytes()), &self.from) else {
            return;
        };
        let held = id.progress.expect("delete topics never start over").cut;
        for partition in 0..log.ends.len() {
            let below = get(&held, partition);
            let last = self
                .seen
                .range((partition as u32, 0)..(partition as u32 + 1, 0))
                .last();
            let above = last.is_some_and(|(_, offset)| *offset >= below);
            assert!(
                !above,
                "partition {partition}: {last:?} is not below {below}"
            );
            self.check_range(log, key, partition, get(from, partition), below);
        }
    }

    fn check_range(&self, log: &Log, key: Option<&str>, partition: usize, from: u64, below: u64) {
        for record in log.range(partition, from, below) {
            let offset = record.offset;
            let matches = key.is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
            let told = self
                .gaps
                .iter()
                .any(|(p, from, to)| *p == partition as u32 && (*from..*to).contains(&offset));
            let seen = self.seen.contains(&(partition as u32, offset));
            assert!(
                seen == matches || (matches && told),
                "{partition}/{offset}: seen {seen}"
            );
        }
    }

    pub(super) fn check_whole(&self, log: &Log, key: Option<&str>) {
        let from = self.from.as_ref().expect("a settled client has an id");
        for (partition, end) in log.ends.iter().enumerate() {
            self.check_range(log, key, partition, get(from, partition), *end);
        }
    }

    /// The newest of each key, once all is quiet.
    pub(super) fn check_newest(&self, log: &Log, key: Option<&str>, start: StartFrom) {
        let from = self.from.as_ref().expect("a settled client has an id");
        for partition in 0..log.ends.len() {
            let mut newest = BTreeMap::new();
            for record in log.range(partition, 0, u64::MAX) {
                let name = record.key.as_deref().expect("compacted topics have keys");
                let name = std::str::from_utf8(name).expect("ASCII");
                newest.insert(name, (record.offset, record.value.is_none()));
            }
            for (name, truth) in newest {
                let matches = key.is_none_or(|key| key == name);
                let known = start != StartFrom::Live || truth.0 >= get(from, partition);
                let expected = (matches && known).then_some(truth);
                let seen = self.newest.get(name).copied();
                let seen = seen.filter(|_| expected.is_some() || !matches);
                assert_eq!(seen, expected, "{name}");
            }
        }
    }
}
