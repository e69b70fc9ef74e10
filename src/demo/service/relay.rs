//! Relays journal entries to the topics that the gateway reads.

use std::collections::BTreeMap;

use rskafka::client::Client;
use rskafka::record::Record;
use serde::Serialize;

use super::kafka::{KafkaError, Partition, now};
use crate::demo::payments::{Account, Activity, JournalEntry, Reply};
use crate::demo::topics::{BALANCES, PAYMENTS, REPLIES, Topic};

/// Clients of the topics that entries are relayed to.
pub(super) struct Relay {
    balances: TopicPartitions,
    payments: TopicPartitions,
    replies: TopicPartitions,
}

/// The position of a record in its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    /// Partition of the topic.
    pub(crate) partition: i32,
    /// Offset in the partition.
    pub(crate) offset: i64,
}

/// The positions of everything that one call of [`Relay::send`] appended.
pub(super) struct Relayed {
    /// Events, in the order of the entries and of the events in each.
    pub(super) events: Vec<Position>,
    /// Replies: those of the entries in order, then the repeated ones.
    pub(super) replies: Vec<Position>,
}

/// The partitions of one topic.
struct TopicPartitions {
    topic: &'static Topic,
    partitions: Vec<Partition>,
}

impl Relay {
    pub(super) async fn open(client: &Client) -> Result<Self, KafkaError> {
        let (balances, payments, replies) = tokio::try_join!(
            TopicPartitions::open(client, &BALANCES),
            TopicPartitions::open(client, &PAYMENTS),
            TopicPartitions::open(client, &REPLIES),
        )?;
        Ok(Self {
            balances,
            payments,
            replies,
        })
    }

    /// Sends the content of journalled entries, and `repeated` replies to duplicates. Events are
    /// committed before the first reply is sent.
    pub(super) async fn send(
        &self,
        entries: &[JournalEntry],
        repeated: &[Reply],
    ) -> Result<Relayed, KafkaError> {
        // Send only the newest state of each account: if the batch is relayed again, no account
        // returns to an older version in between.
        let accounts = entries.iter().flat_map(|entry| &entry.accounts);
        let newest: BTreeMap<_, _> = accounts.map(|a| (a.account.as_str(), a)).collect();
        let balances = newest.into_values().map(balance_record).collect();
        let activity = entries.iter().flat_map(|entry| &entry.activity);
        let payments = activity.map(activity_record).collect();
        let (_, events) = tokio::try_join!(
            self.balances.append(balances),
            self.payments.append(payments)
        )?;
        let replies = entries.iter().filter_map(|entry| entry.reply.as_ref());
        let replies = replies.chain(repeated).map(reply_record).collect();
        let replies = self.replies.append(replies).await?;
        Ok(Relayed { events, replies })
    }
}

impl TopicPartitions {
    async fn open(client: &Client, topic: &'static Topic) -> Result<Self, KafkaError> {
        let partitions = Partition::open_all(client, topic).await?;
        Ok(Self { topic, partitions })
    }

    /// Appends each record to the partition of its key, and returns the records' positions. Records
    /// of one key keep their order.
    async fn append(&self, records: Vec<Record>) -> Result<Vec<Position>, KafkaError> {
        let mut positions = vec![Position::default(); records.len()];
        let mut partitions: Vec<(Vec<usize>, Vec<Record>)> = Vec::new();
        partitions.resize_with(self.partitions.len(), Default::default);
        for (index, record) in records.into_iter().enumerate() {
            let key = record.key.as_deref().expect("each record here has a key");
            let (indexes, records) = &mut partitions[self.topic.partition_of(key)];
            indexes.push(index);
            records.push(record);
        }
        // A topic has few partitions, so sending to one after the other is fast enough.
        for (partition, (indexes, records)) in self.partitions.iter().zip(partitions) {
            let offsets = partition.append(records).await?;
            for (index, offset) in indexes.into_iter().zip(offsets) {
                let partition = partition.number();
                positions[index] = Position { partition, offset };
            }
        }
        Ok(positions)
    }
}

fn balance_record(account: &Account) -> Record {
    record(
        account.account.as_str(),
        serde_json::to_vec(account),
        [
            ("etag", account.version.to_string()),
            ("content-type", "application/json".into()),
        ],
    )
}

fn activity_record(activity: &Activity) -> Record {
    record(
        activity.account.as_str(),
        serde_json::to_vec(activity),
        [
            // The account's version, so that a client can use an event's id in `If-Match`.
            ("etag", activity.version.to_string()),
            ("content-type", "application/json".into()),
        ],
    )
}

fn reply_record(reply: &Reply) -> Record {
    record(
        &reply.correlation,
        Ok(reply.body.as_bytes().to_vec()),
        reply_headers(reply),
    )
}

/// The headers of a reply's record.
pub(super) fn reply_headers(reply: &Reply) -> impl Iterator<Item = (&'static str, String)> {
    let etag = reply.etag.map(|etag| ("etag", etag.to_string()));
    let retry = reply.retry.then(|| ("retry", "true".to_owned()));
    let headers = [
        ("correlation-id", reply.correlation.to_string()),
        (":status", reply.status.to_string()),
        ("content-type", reply.content_type().to_owned()),
    ];
    headers.into_iter().chain(etag).chain(retry)
}

fn record(
    key: &str,
    value: serde_json::Result<Vec<u8>>,
    headers: impl IntoIterator<Item = (&'static str, String)>,
) -> Record {
    let headers = headers.into_iter();
    Record {
        key: Some(key.into()),
        value: Some(value.expect("these types have no key or number JSON can't hold")),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect(),
        timestamp: now(),
    }
}
