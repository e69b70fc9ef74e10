//! Commands that reach Kafka without a gateway: while one is down, and as traffic for watchers.
//!
//! In production, other gateways take over and the service continues. Here Ana and Bo pay each
//! other a small amount directly through Kafka, so that a stream that resumes has missed something.

use rskafka::client::Client;
use rskafka::record::Record;

use super::service::{KafkaError, Partition, connect, now_us};
use super::topics::{COMMANDS, REPLIES};
use crate::model::{CommandKey, CorrelationId, Fingerprint};

/// The people who pay each other while a gateway is down.
const PEOPLE: [&str; 2] = ["ana", "bo"];

/// Appends commands to Kafka directly.
#[derive(Clone, Debug)]
pub(crate) struct OutsideCommands {
    /// Address of the demo's broker.
    pub(crate) bootstrap: String,
}

/// Commands of two accounts, on open connections.
pub(crate) struct OutsideAccounts {
    names: [&'static str; 2],
    partitions: [Partition; 2],
}

impl OutsideCommands {
    /// Appends one payment of 25 cents in each direction. Returns the number of commands.
    pub(crate) async fn append(&self) -> Result<usize, KafkaError> {
        let accounts = self.open(PEOPLE).await?;
        for payer in 0..PEOPLE.len() {
            accounts.pay(payer, 25, "past the gateway").await?;
        }
        Ok(PEOPLE.len())
    }

    /// Connects for commands of two accounts.
    pub(crate) async fn open(
        &self,
        names: [&'static str; 2],
    ) -> Result<OutsideAccounts, KafkaError> {
        let client = connect(&self.bootstrap).await?;
        let partitions = [
            partition_of(&client, names[0]).await?,
            partition_of(&client, names[1]).await?,
        ];
        Ok(OutsideAccounts { names, partitions })
    }
}

/// An id in the form of a gateway's, which gateways expect in replies: the time and the account.
fn correlation_id(place: usize) -> CorrelationId {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&now_us().to_be_bytes());
    key[8] = u8::from(place != 0);
    CorrelationId {
        key: CommandKey(key),
        fingerprint: Fingerprint([0; 16]),
    }
}

async fn partition_of(client: &Client, account: &str) -> Result<Partition, KafkaError> {
    let number = COMMANDS.partition_of(account.as_bytes());
    Partition::open(client, &COMMANDS, number).await
}

impl OutsideAccounts {
    /// Opens both accounts. An account that exists stays as it is.
    pub(crate) async fn create(&self) -> Result<(), KafkaError> {
        for (place, name) in self.names.iter().enumerate() {
            let body = serde_json::json!({ "name": name });
            self.append(place, "open", &body).await?;
        }
        Ok(())
    }

    /// The account at `payer` pays the other one.
    pub(crate) async fn pay(
        &self,
        payer: usize,
        amount_cents: u64,
        note: &str,
    ) -> Result<(), KafkaError> {
        let to = self.names[1 - payer];
        let body = serde_json::json!({ "to": to, "amount_cents": amount_cents, "note": note });
        self.append(payer, "pay", &body).await
    }

    async fn append(
        &self,
        place: usize,
        operation: &str,
        body: &serde_json::Value,
    ) -> Result<(), KafkaError> {
        let name = self.names[place];
        let headers = [
            ("operation", operation.to_owned()),
            ("correlation-id", correlation_id(place).to_string()),
            ("reply-to", REPLIES.name.to_owned()),
        ];
        let headers = headers.into_iter();
        let record = Record {
            key: Some(name.into()),
            value: Some(body.to_string().into_bytes()),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                .collect(),
            timestamp: super::service::now(),
        };
        self.partitions[place].append(vec![record]).await?;
        Ok(())
    }
}
