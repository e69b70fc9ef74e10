//! Commands that reach Kafka without this gateway, while it is down.
//!
//! In production, other gateways take over and the service continues. Here Ana and Bo pay each
//! other a small amount directly through Kafka, so that a stream that resumes has missed something.

use std::collections::BTreeMap;

use rskafka::record::Record;

use super::service::{KafkaError, Partition, connect, now};
use super::topics::{COMMANDS, REPLIES};

/// Payer and payee of each payment.
const PAYMENTS: [(&str, &str); 2] = [("ana", "bo"), ("bo", "ana")];

/// Appends commands to Kafka directly.
#[derive(Clone, Debug)]
pub(crate) struct OutsideCommands {
    /// Address of the demo's broker.
    pub(crate) bootstrap: String,
}

impl OutsideCommands {
    /// Appends one payment of 25 cents in each direction. Returns the number of commands.
    pub(crate) async fn append(&self) -> Result<usize, KafkaError> {
        let client = connect(&self.bootstrap).await?;
        let at = now();
        for (from, to) in PAYMENTS {
            let number = COMMANDS.partition_of(from.as_bytes());
            let partition = Partition::open(&client, &COMMANDS, number).await?;
            let body = serde_json::json!({
                "to": to, "amount_cents": 25, "note": "while the gateway was away",
            });
            let headers = [
                ("operation", "pay".to_owned()),
                (
                    "correlation-id",
                    format!("away-{from}-{}", at.timestamp_micros()),
                ),
                ("reply-to", REPLIES.name.to_owned()),
            ];
            let record = Record {
                key: Some(from.into()),
                value: Some(body.to_string().into_bytes()),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                    .collect::<BTreeMap<_, _>>(),
                timestamp: at,
            };
            partition.append(vec![record]).await?;
        }
        Ok(PAYMENTS.len())
    }
}
