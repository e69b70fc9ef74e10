//! Writes records on a schedule with rskafka. Each record has the time at which it was due, so that
//! a late broker or writer shows in the delay of its events.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use tokio::time::timeout;

use crate::record::{SIZE_MIN, Stamp, now_us};
use crate::report::{Latency, Report};

/// Most bytes of records in one produce request. rskafka stalls for 44 ms from 8 KiB on.
const PRODUCE_BYTES_MAX: usize = 7 * 1024;

/// Most bytes of a record in a batch besides its value.
const RECORD_OVERHEAD: usize = 64;

/// Time for one response of the cluster.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A broker to connect to, `host:port`.
    #[arg(long)]
    bootstrap: String,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// Create the topic first, with this many partitions, unless it exists.
    #[arg(long, value_name = "PARTITIONS")]
    create: Option<i32>,
    /// Records per second to write.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Records that are due together, and are written to one partition.
    #[arg(long, default_value_t = 1)]
    burst: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Seconds to write; 0 writes nothing.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Key of all records. Without it they have none.
    #[arg(long)]
    key: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    ensure!(args.size >= SIZE_MIN, "--size is at least {SIZE_MIN}");
    ensure!(
        args.rate > 0.0 && args.burst > 0,
        "--rate and --burst are positive"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let partitions = runtime.block_on(open(args))?;
    let mut numbers = vec![0; partitions.len()];
    let (start, start_us, writer) = (Instant::now(), now_us(), now_us());
    let every = Duration::from_secs_f64(args.burst as f64 / args.rate);
    let ticks = (args.seconds / every.as_secs_f64()).round() as u32;
    let mut took = Latency::new();
    for tick in 0..ticks {
        let due = every * tick;
        // Use the thread's sleep, because the runtime's timer has steps of 1 ms.
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        let at = tick as usize % partitions.len();
        let stamps = (0..args.burst).map(|ahead| Stamp {
            writer,
            partition: at as u32,
            number: numbers[at] + ahead,
            due_us: start_us + due.as_micros() as u64,
        });
        let records: Vec<_> = stamps.map(|stamp| record(args, &stamp)).collect();
        numbers[at] += args.burst;
        let asked = Instant::now();
        runtime.block_on(append(&partitions[at], records))?;
        took.record(asked.elapsed());
    }
    let mut report = Report::default();
    report
        .count("records", u64::from(ticks) * args.burst)
        .latency(&took);
    Ok(report)
}

/// Connects, creates the topic if requested, and finds all its partitions.
async fn open(args: &Args) -> Result<Vec<PartitionClient>> {
    let client = ClientBuilder::new(vec![args.bootstrap.clone()]).build();
    let client: Client = within("connect", client).await?;
    let topics = within("list the topics", client.list_topics()).await?;
    let found = topics.into_iter().find(|topic| topic.name == args.topic);
    let numbers: Vec<i32> = match (found, args.create) {
        (Some(topic), _) => topic.partitions.into_iter().collect(),
        (None, Some(partitions)) => {
            let controller = client.controller_client()?;
            let created = controller.create_topic(&args.topic, partitions, 1, 5_000);
            within("create the topic", created).await?;
            (0..partitions).collect()
        }
        (None, None) => anyhow::bail!("there is no topic `{}` (--create makes it)", args.topic),
    };
    let mut partitions = Vec::new();
    for number in numbers {
        let retry = UnknownTopicHandling::Retry;
        let found = client.partition_client(&args.topic, number, retry);
        partitions.push(within("find a partition", found).await?);
    }
    ensure!(
        !partitions.is_empty(),
        "topic `{}` has no partition",
        args.topic
    );
    Ok(partitions)
}

fn record(args: &Args, stamp: &Stamp) -> Record {
    let mut value = Vec::with_capacity(args.size);
    stamp.write(args.size, &mut value);
    let due = i64::try_from(stamp.due_us).unwrap_or_default();
    Record {
        key: args.key.as_ref().map(|key| key.clone().into_bytes()),
        value: Some(value),
        headers: std::collections::BTreeMap::new(),
        timestamp: DateTime::<Utc>::from_timestamp_micros(due).unwrap_or_default(),
    }
}

/// Appends records in order, in requests of limited size.
async fn append(partition: &PartitionClient, records: Vec<Record>) -> Result<()> {
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let (mut bytes, mut request) = (0, Vec::new());
        while let Some(record) = records.next_if(|record| {
            bytes += record.approximate_size() + RECORD_OVERHEAD;
            bytes <= PRODUCE_BYTES_MAX || request.is_empty()
        }) {
            request.push(record);
        }
        let produced = partition.produce(request, Compression::NoCompression);
        within("write records", produced).await?;
    }
    Ok(())
}

async fn within<T, E>(what: &str, doing: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let done = timeout(ANSWER_TIME_MAX, doing).await;
    let done = done.with_context(|| format!("can't {what}: no answer from the cluster"))?;
    done.with_context(|| format!("can't {what}"))
}
