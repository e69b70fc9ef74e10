//! What happens while the gateway is away: commands that reach Kafka on another way.
//!
//! In real life other gateways take over, and the service goes on. Here Ana and Bo pay each other
//! a little, straight through Kafka, so that a stream that resumes has something to have missed.

use std::collections::BTreeMap;

use rskafka::record::Record;

use super::service::{KafkaError, Partition, connect, now};
use super::topics::{COMMANDS, REPLIES};

/// Who pays whom.
const PAYMENTS: [(&str, &str); 2] = [("ana", "bo"), ("bo", "ana")];

/// Appends commands without a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// The demo's broker.
    pub(crate) bootstrap: String,
}

impl Away {
    /// Each pays the other 25 cents. How many commands were appended.
    pub(crate) async fn happens(&self) -> Result<usize, KafkaError> {
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
