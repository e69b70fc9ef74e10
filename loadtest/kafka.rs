//! What the writer and the service share: rskafka with limits on time and on request sizes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use tokio::time::timeout;

/// Time for one response of the cluster.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a record in a batch besides key, value and headers.
const RECORD_OVERHEAD: usize = 64;

pub(crate) async fn connect(bootstrap: &str) -> Result<Client> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build();
    within(&format!("connect to the broker {bootstrap}"), client).await
}

/// All partitions of a topic. `create`: create it with this many, unless it exists.
pub(crate) async fn partitions(
    client: &Client,
    topic: &str,
    create: Option<i32>,
) -> Result<Vec<PartitionClient>> {
    let topics = within("list the topics", client.list_topics()).await?;
    let found = topics.into_iter().find(|known| known.name == topic);
    let numbers: Vec<i32> = match (found, create) {
        (Some(known), _) => known.partitions.into_iter().collect(),
        (None, Some(partitions)) => {
            let controller = client.controller_client()?;
            let created = controller.create_topic(topic, partitions, 1, 5_000);
            within("create the topic", created).await?;
            (0..partitions).collect()
        }
        (None, None) => anyhow::bail!("there is no topic `{topic}`"),
    };
    let mut partitions = Vec::new();
    for number in numbers {
        let found = client.partition_client(topic, number, UnknownTopicHandling::Retry);
        partitions.push(within("find a partition", found).await?);
    }
    Ok(partitions)
}

/// Appends records in order, in requests of limited size.
pub(crate) async fn append(
    partition: &PartitionClient,
    records: Vec<Record>,
    request_bytes_max: usize,
    compression: Compression,
) -> Result<()> {
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let (mut bytes, mut request) = (0, Vec::new());
        while let Some(record) = records.next_if(|record| {
            bytes += record.approximate_size() + RECORD_OVERHEAD;
            bytes <= request_bytes_max || request.is_empty()
        }) {
            request.push(record);
        }
        within("write records", partition.produce(request, compression)).await?;
    }
    Ok(())
}

pub(crate) async fn within<T, E>(what: &str, doing: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let done = timeout(ANSWER_TIME_MAX, doing).await;
    let done = done.with_context(|| format!("can't {what}: no answer from the cluster"))?;
    done.with_context(|| format!("can't {what}"))
}
