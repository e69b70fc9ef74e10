//! Checks the events of subscribers against the topic's present and earlier records.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate::log::EventId;
use sluicegate::model::Partition;

use super::records::text;
use super::streams::{Kind, Streams, TOPIC};
use super::subscriber::{Event, Subscriber};
use super::world::World;

impl Streams {
    pub(super) fn check(&self, world: &World) {
        let chunks: u64 = self.clients.iter().map(|client| client.chunks).sum();
        assert!(chunks > 0, "a client has read a stream over HTTP/1.1");
        for (number, client) in self.clients.iter().enumerate() {
            assert_eq!(
                client.refusals, 0,
                "client {number} was refused by a ready gateway"
            );
            match self.kind {
                Kind::Log => self.check_log(number, client),
                Kind::Snapshot => self.check_snapshot(number, client, world),
            }
        }
    }

    /// Per partition: all matching records from the client's start on, in order, once. Records that
    /// a gap reported as truncated do not count, and must be sent as the log has them now.
    fn check_log(&self, number: usize, client: &Subscriber) {
        let begin = client.first_id.as_ref().map(|id| {
            let id = EventId::parse(id.as_bytes()).expect("an id of ours");
            id.progress.expect("it is no start over").cut
        });
        let live = client.path != "/all";
        for p in 0..self.truth.len() {
            let begin = begin.as_ref().filter(|_| live);
            let begin = begin.map(|cut| cut.get(Partition(p as u32)).offset.0);
            self.check_partition(number, client, p, begin);
        }
    }

    fn check_partition(&self, number: usize, client: &Subscriber, p: usize, begin: Option<u64>) {
        let live = client.path != "/all";
        let records = self.truth[p].iter().chain(&self.lost[p]);
        let offsets = records.filter_map(|(offset, _, value)| Some((value.as_deref()?, *offset)));
        let offsets: BTreeMap<&str, u64> = offsets.collect();
        let mut first = begin;
        let mut got: Vec<(u64, &str)> = Vec::new();
        let mut gone: Vec<std::ops::Range<u64>> = Vec::new();
        for event in &client.events {
            match event.name.as_str() {
                "" => {
                    let Some(&offset) = offsets.get(event.data.as_str()) else {
                        continue; // Of another partition.
                    };
                    let last = got.last().copied();
                    assert!(
                        last.is_none_or(|(last, _)| offset > last),
                        "client {number}: {} after {last:?} of partition {p}",
                        event.data
                    );
                    got.push((offset, &event.data));
                    // A stream with `earliest` starts with the oldest record.
                    first.get_or_insert(offset);
                }
                "gap" => {
                    let gap: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                    let field = |name: &str| gap[name].as_u64().expect("a number");
                    let range = field("from")..field("to");
                    match gap["reason"].as_str() {
                        _ if field("partition") != p as u64 => {}
                        Some("retention") => gone.push(range),
                        Some("truncated") if self.unclean => {
                            got.retain(|(offset, _)| *offset < range.start);
                            first = Some(first.map_or(range.start, |first| first.min(range.start)));
                        }
                        other => panic!("client {number}: an unexpected gap: {other:?}"),
                    }
                }
                other => panic!("client {number}: an unexpected {other}"),
            }
        }
        let blind = self.blind[p];
        got.retain(|(offset, _)| *offset >= blind);
        let told = |offset: u64| offset < blind || gone.iter().any(|range| range.contains(&offset));
        let nothing_left = first.is_none() && !live;
        let first = first.unwrap_or_default();
        let expected: Vec<(u64, &str)> = self.truth[p]
            .iter()
            .filter(|(offset, ..)| *offset >= first && !told(*offset))
            .filter(|(_, key, _)| client.key.as_ref().is_none_or(|wanted| wanted == key))
            .filter_map(|(offset, _, value)| Some((*offset, value.as_deref()?)))
            .collect();
        let path = &client.path;
        assert!(
            got == expected || nothing_left && got.is_empty(),
            "client {number} ({path}) of partition {p}: gone {gone:?}\n got {got:?}\nwant {expected:?}"
        );
    }

    /// The client has ended at the newest record of each key, and within one connection no key goes
    /// back to an older one.
    fn check_snapshot(&self, number: usize, client: &Subscriber, world: &World) {
        let mut newest: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut seen: BTreeMap<String, (u32, u64)> = BTreeMap::new();
        let mut ghosts: BTreeSet<String> = BTreeSet::new();
        let mut connection = 0;
        for event in &client.events {
            if self.unclean && event.fresh && event.connection != connection {
                newest.clear(); // A client without an id that counts has nothing.
            }
            connection = event.connection;
            let (key, value) = match event.name.as_str() {
                "gap" if self.unclean && event.data.contains("truncated") => {
                    newest.clear(); // What it has may be gone; a snapshot follows.
                    seen.clear();
                    continue;
                }
                "" => {
                    let (key, value) = event.data.split_once(' ').expect("key and number");
                    (key.to_owned(), Some(value.parse().expect("a number")))
                }
                "delete" => {
                    let json: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                    (json["key"].as_str().expect("a key").to_owned(), None)
                }
                other => panic!("client {number}: an unexpected {other}: {}", event.data),
            };
            if let Some(value) = value {
                let (connection, last) = seen.entry(key.clone()).or_default();
                if *connection == event.connection {
                    assert!(value > *last, "client {number}: {key} goes back to {value}");
                }
                (*connection, *last) = (event.connection, value);
            }
            if self.is_lost_and_unheld(event, &key) {
                ghosts.insert(key.clone());
            } else {
                ghosts.remove(&key);
            }
            newest.insert(key, value);
        }
        if client.path == "/live" {
            return; // It never saw what was there before it came.
        }
        let mut truth: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for p in 0..self.partitions {
            for record in world
                .broker
                .dump(TOPIC, Partition(p))
                .expect("the partition is there")
            {
                let key = text(record.key.as_ref()).to_owned();
                let value = record.value.as_ref().map(|value| {
                    let text = text(Some(value));
                    text.split_once(' ')
                        .expect("key and number")
                        .1
                        .parse()
                        .expect("a number")
                });
                truth.insert(key, value);
            }
        }
        truth.retain(|key, value| {
            value.is_some() && client.key.as_ref().is_none_or(|wanted| wanted == key)
        });
        newest.retain(|key, value| value.is_some() && !ghosts.contains(key));
        truth.retain(|key, _| !ghosts.contains(key));
        assert_eq!(
            newest, truth,
            "client {number} ({}): newest of each key",
            client.path
        );
    }

    /// Whether a record was sent before its id, as *changes* do, and an unclean election has
    /// removed it. A client that was cut then has the record, and its id does not show that
    /// (guarantees.md).
    fn is_lost_and_unheld(&self, event: &Event, key: &str) -> bool {
        let place = place_of(event);
        let lost = self.lost[place.partition].iter();
        let mut lost = lost.filter(|it| it.0 == place.offset);
        !place.is_held && lost.any(|it| it.1 == key)
    }
}

/// Where an event's record is, by the etag in its id, and whether the id holds the record.
struct Place {
    partition: usize,
    offset: u64,
    is_held: bool,
}

fn place_of(event: &Event) -> Place {
    let id = EventId::parse(event.id.as_bytes()).expect("an id of ours");
    let etag = std::str::from_utf8(id.etag).expect("text");
    let mut place = etag.rsplitn(3, '-').map(str::parse::<u64>);
    let (Some(Ok(offset)), Some(Ok(p))) = (place.next(), place.next()) else {
        panic!("an etag of a place: {etag:?}");
    };
    let cut = id.progress.map(|progress| progress.cut);
    let held = cut.map_or(0, |cut| cut.get(Partition(p as u32)).offset.0);
    Place {
        partition: p as usize,
        offset,
        is_held: held > offset,
    }
}
