//! The service on the development broker, through its socket: crashes, lost responses, and the
//! content of its topics afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rskafka::record::Record;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kafka::{Partition, connect, now};
use super::serve;
use crate::broker::{DumpedRecord, Settings};
use crate::demo::listener::BrokerHandle;
use crate::demo::topics::{self, BALANCES, COMMANDS, JOURNAL, PAYMENTS, REPLIES, Topic};

struct Stage {
    broker: BrokerHandle,
    commands: Vec<Partition>,
    service: JoinHandle<()>,
}

impl Stage {
    async fn set() -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let broker = BrokerHandle::start(Settings::default(), 1, any).expect("a broker");
        for topic in topics::ALL {
            broker
                .with(|b| b.create_topic(topic.name, topic.partitions.into(), topic.configs))
                .expect("a topic");
        }
        let client = connect(&broker.bootstrap()).await.expect("a client");
        let commands = Partition::open_all(&client, &COMMANDS).await;
        let service = start(&broker).await;
        Self {
            broker,
            commands: commands.expect("partitions"),
            service,
        }
    }

    /// Aborts the service at any point, as a crash would, and starts another.
    async fn restart(&mut self) {
        self.service.abort();
        let _ = (&mut self.service).await;
        self.service = start(&self.broker).await;
    }

    async fn command(&self, k: &str, operation: &str, account: &str, body: &str) {
        let headers = [("operation", operation), ("correlation-id", k)];
        let record = Record {
            key: Some(account.into()),
            value: Some(body.into()),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            timestamp: now(),
        };
        let partition = COMMANDS.partition_of(account.as_bytes());
        let appended = self.commands[partition].append(vec![record]).await;
        appended.expect("appended");
    }

    fn dump(&self, topic: &'static Topic) -> Vec<DumpedRecord> {
        self.broker.with(move |broker| {
            let partitions = 0..u32::from(topic.partitions);
            let records = partitions.flat_map(|p| {
                let partition = crate::model::Partition(p);
                broker.dump(topic.name, partition).expect("a partition")
            });
            records.collect()
        })
    }

    /// The replies so far, by correlation id. A repeated reply must be equal to the first.
    fn replies(&self) -> BTreeMap<String, (String, String)> {
        let mut replies = BTreeMap::new();
        for record in self.dump(&REPLIES) {
            let header = |name: &str| {
                let found = record.headers.iter().find(|(n, _)| n == name.as_bytes());
                let (_, value) = found.expect("the header is there");
                text(value.as_deref().expect("it has a value"))
            };
            let reply = (
                header(":status"),
                text(record.value.as_deref().expect("a body")),
            );
            if let Some(before) = replies.insert(header("correlation-id"), reply.clone()) {
                assert_eq!(before, reply, "two answers to one command");
            }
        }
        replies
    }

    async fn answered(&self, count: usize) -> BTreeMap<String, (String, String)> {
        for _ in 0..1_000 {
            let replies = self.replies();
            if replies.len() >= count {
                return replies;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} commands were answered", self.replies().len());
    }
}

async fn start(broker: &BrokerHandle) -> JoinHandle<()> {
    let (ready, mut is_ready) = watch::channel(false);
    let service = tokio::spawn(serve(broker.bootstrap(), ready, Arc::default()));
    let wait = is_ready.wait_for(|ready| *ready);
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("in time")
        .expect("the service runs");
    service
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn json(record: &DumpedRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[tokio::test]
async fn a_command_is_answered_after_its_events_are_there() {
    let stage = Stage::set().await;
    let body = r#"{"to":"bo","amount_cents":250}"#;
    stage.command("a.F", "pay", "ana", body).await;
    let replies = stage.answered(1).await;
    // Read after the reply was seen, so these records were there before it.
    let (balances, payments) = (stage.dump(&BALANCES), stage.dump(&PAYMENTS));
    assert_eq!(replies["a.F"].0, "201");
    let newest = balances.iter().filter(|r| r.key.as_deref() == Some(b"ana"));
    let newest = newest.last().expect("Ana's balance");
    assert_eq!(json(newest)["balance_cents"], 9_750);
    let etag = newest.headers.iter().find(|(name, _)| name == "etag");
    assert_eq!(etag.and_then(|(_, v)| v.as_deref()), Some(&b"2"[..]));
    let told: BTreeSet<_> = payments
        .iter()
        .map(json)
        .filter(|event| event["id"] == "p0-0")
        .map(|event| (event["account"].to_string(), event["kind"].to_string()))
        .collect();
    let both = [("\"ana\"", "\"paid\""), ("\"bo\"", "\"received\"")];
    assert_eq!(told, both.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
}

/// A service that crashes repeatedly at any point, while responses of the broker are lost, gives
/// each command one effect and one reply, and sends every event in order.
#[tokio::test]
async fn crashes_in_the_middle_lose_and_double_nothing() {
    const COMMANDS: usize = 240;
    const PEOPLE: [&str; 3] = ["ana", "bo", "cleo"];
    let mut stage = Stage::set().await;
    for n in 0..COMMANDS {
        let (from, to) = (PEOPLE[n % 3], PEOPLE[(n + 1 + n % 2) % 3]);
        let body = format!(r#"{{"to":"{to}","amount_cents":{}}}"#, 1 + n % 90);
        stage.command(&format!("k{n}.F"), "pay", from, &body).await;
        if n % 7 == 0 {
            // A second attempt of the gateway.
            stage.command(&format!("k{n}.F"), "pay", from, &body).await;
        }
        match n % 60 {
            20 | 50 => stage.restart().await,
            35 => stage
                .broker
                .with(|broker| broker.lose_next_produce_responses(2)),
            _ => {}
        }
    }
    let replies = stage.answered(COMMANDS).await;
    let accepted = replies
        .values()
        .filter(|(status, _)| status == "201")
        .count();
    assert_eq!(accepted, COMMANDS, "{replies:?}");

    // By account and number: a repeated number must be the same event.
    let mut told: BTreeMap<(String, u64), Value> = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in stage.dump(&PAYMENTS) {
        let event = json(&record);
        let (who, at) = (event["account"].to_string(), number(&event["event"]));
        let newest = last.entry(who.clone()).or_default();
        assert!(at <= *newest + 1, "{who} misses what is before {at}");
        *newest = at.max(*newest);
        if let Some(before) = told.insert((who, at), event.clone()) {
            assert_eq!(before, event);
        }
    }
    let paid = told.values().filter(|event| event["kind"] == "paid");
    let payments: BTreeSet<_> = paid.map(|event| event["id"].to_string()).collect();
    assert_eq!(payments.len(), COMMANDS, "one payment a command");

    let mut newest: BTreeMap<String, Value> = BTreeMap::new();
    for record in stage.dump(&BALANCES) {
        let account = json(&record);
        let who = account["account"].to_string();
        if let Some(before) = newest.insert(who, account.clone()) {
            let went_back = number(&account["version"]) < number(&before["version"]);
            assert!(!went_back, "{account} after {before}");
        }
    }
    let sum: u64 = newest.values().map(|a| number(&a["balance_cents"])).sum();
    assert_eq!(sum, 30_000);
    for (who, at) in last {
        let (event, account) = (&told[&(who.clone(), at)], &newest[&who]);
        assert_eq!(event["balance_cents"], account["balance_cents"]);
    }
}

/// The broker deletes the oldest records when its memory is full. The last checkpoint is enough to
/// continue.
#[tokio::test]
async fn a_journal_that_lost_its_beginning_still_knows_the_balances() {
    let mut stage = Stage::set().await;
    let body = r#"{"to":"bo","amount_cents":10}"#;
    for n in 0..120 {
        stage.command(&format!("k{n}.F"), "pay", "ana", body).await;
    }
    stage.answered(120).await;
    // Wait for the checkpoint, which is written after the last reply.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let journal = stage.dump(&JOURNAL);
    let is_page = |record: &&DumpedRecord| json(record)["what"].get("page").is_some();
    let pages: Vec<_> = journal.iter().filter(is_page).collect();
    assert!(pages.len() >= 2, "{} pages", pages.len());
    let last = pages.last().expect("counted above").offset;
    let trimmed = stage
        .broker
        .with(move |b| b.trim(JOURNAL.name, crate::model::Partition(0), last));
    trimmed.expect("trimmed");

    stage.restart().await;
    stage.command("after.F", "pay", "ana", body).await;
    let replies = stage.answered(121).await;
    let reply: Value = serde_json::from_str(&replies["after.F"].1).expect("JSON");
    assert_eq!(reply["balance_cents"], 10_000 - 121 * 10);
    assert_eq!(reply["version"], 122);
}

/// Anyone may write to a topic. A record that is not a command is skipped.
#[tokio::test]
async fn a_record_that_is_no_command_does_not_end_the_service() {
    let stage = Stage::set().await;
    let partition = &stage.commands[COMMANDS.partition_of(b"ana")];
    let strange = Record {
        key: None,
        value: None,
        headers: Default::default(),
        timestamp: now(),
    };
    partition.append(vec![strange]).await.expect("appended");
    stage.command("b.F", "dance", "ana", "").await;
    let replies = stage.answered(1).await;
    assert_eq!(replies["b.F"].0, "422");
}
