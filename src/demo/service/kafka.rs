//! rskafka with limits: requests below the size at which it stalls, a deadline for each (a frozen
//! broker would hang it), and errors that name the operation.

use std::future::Future;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::error::Error;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};

use crate::demo::topics::Topic;

/// Most bytes of records in one produce request. rskafka stalls for 44 ms from 8 KiB on.
const PRODUCE_BYTES_MAX: usize = 7 * 1024;
/// Most bytes of a record besides its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 96;
/// Most bytes of a response. A batch is sent whole, and anyone may append a large one.
const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of one fetch.
const FETCH_BYTES_MAX: i32 = 256 * 1024;
/// Time for a request, including its retries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an operation on the cluster failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KafkaError {
    /// The client returned an error.
    #[error("{what}: {source}")]
    Client {
        /// The operation that failed, such as "produce".
        what: &'static str,
        /// The error of the client.
        source: Error,
    },
    /// No response arrived in time.
    #[error("{what}: no answer within {REQUEST_TIMEOUT:?}")]
    Timeout {
        /// The operation that failed, such as "produce".
        what: &'static str,
    },
}

/// Connects to the cluster at `bootstrap`.
pub(crate) async fn connect(bootstrap: &str) -> Result<Client, KafkaError> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()])
        .client_id("sluicegate-demo")
        .max_message_size(RESPONSE_BYTES_MAX)
        .backoff_config(BackoffConfig {
            init_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_secs(1),
            base: 3.0,
            deadline: Some(Duration::from_secs(5)),
        });
    within("connect", REQUEST_TIMEOUT, client.build()).await
}

/// A client for one partition of a topic.
pub(crate) struct Partition(PartitionClient);

impl Partition {
    /// Finds the partition and connects to its leader.
    pub(crate) async fn open(
        client: &Client,
        topic: &Topic,
        number: usize,
    ) -> Result<Self, KafkaError> {
        let number = i32::try_from(number).expect("a topic has few partitions");
        let found = client.partition_client(topic.name, number, UnknownTopicHandling::Retry);
        within("find a partition", REQUEST_TIMEOUT, found)
            .await
            .map(Self)
    }

    /// Opens all partitions of a topic, in order.
    pub(crate) async fn open_all(client: &Client, topic: &Topic) -> Result<Vec<Self>, KafkaError> {
        let mut all = Vec::new();
        for number in 0..usize::from(topic.partitions) {
            all.push(Self::open(client, topic, number).await?);
        }
        Ok(all)
    }

    /// The number of the partition.
    pub(crate) fn number(&self) -> i32 {
        self.0.partition()
    }

    /// Appends records in order, in several requests if they are large. Returns their offsets.
    /// After an error some records may have been appended, even twice: rskafka repeats a request
    /// when its result is unknown.
    pub(crate) async fn append(&self, records: Vec<Record>) -> Result<Vec<i64>, KafkaError> {
        let mut all = Vec::new();
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut bytes = 0;
            let mut request = Vec::new();
            while let Some(record) = records.next_if(|record| {
                bytes += record.approximate_size() + RECORD_OVERHEAD_BYTES;
                bytes <= PRODUCE_BYTES_MAX || request.is_empty()
            }) {
                request.push(record);
            }
            let produce = self.0.produce(request, Compression::NoCompression);
            all.extend(within("produce", REQUEST_TIMEOUT, produce).await?);
        }
        Ok(all)
    }

    /// Fetches records from `offset` on. The result is empty if none arrives within `wait_ms`.
    pub(crate) async fn fetch(
        &self,
        offset: i64,
        wait_ms: i32,
    ) -> Result<Vec<RecordAndOffset>, KafkaError> {
        let fetch = self.0.fetch_records(offset, 1..FETCH_BYTES_MAX, wait_ms);
        let (records, _) = within("fetch", REQUEST_TIMEOUT, fetch).await?;
        Ok(records)
    }

    /// The first offset that the partition still has.
    pub(crate) async fn start(&self) -> Result<i64, KafkaError> {
        let offset = self.0.get_offset(OffsetAt::Earliest);
        within("ask for the first offset", REQUEST_TIMEOUT, offset).await
    }

    /// The offset after the partition's last record.
    pub(crate) async fn end(&self) -> Result<i64, KafkaError> {
        let offset = self.0.get_offset(OffsetAt::Latest);
        within("ask for the end offset", REQUEST_TIMEOUT, offset).await
    }
}

/// The current time as a record's timestamp.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(super::clock::now_ms()).unwrap_or_default()
}

async fn within<T>(
    what: &'static str,
    timeout: Duration,
    doing: impl Future<Output = Result<T, Error>>,
) -> Result<T, KafkaError> {
    match tokio::time::timeout(timeout, doing).await {
        Ok(done) => done.map_err(|source| KafkaError::Client { what, source }),
        Err(_) => Err(KafkaError::Timeout { what }),
    }
}
