//! The service of `commands --echo`: reads the commands topic, answers each command on the replies
//! topic, and checks what a service can see: that one idempotency key has one correlation id, and
//! so one effect. A second record of a correlation id is counted and answered with the first reply,
//! as `docs/guarantees.md` asks of every service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use anyhow::{Result, ensure};
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient};
use rskafka::record::{Record, RecordAndOffset};
use tokio::sync::mpsc;

use crate::engine::{Group, Meter, Start, Stop, Worker};
use crate::kafka::{self, within};
use crate::record::now_us;

/// Longest wait of a fetch for new records.
const FETCH_WAIT_MS: i32 = 50;
/// Most bytes of one fetch.
const FETCH_BYTES_MAX: i32 = 1 << 20;
/// Most bytes of replies in one produce request. rskafka stalls for 44 ms from 8 KiB on.
const PRODUCE_BYTES_MAX: usize = 7 * 1024;
/// Most commands whose effect is remembered. Later ones are answered and not checked.
const EFFECTS_MAX: usize = 4_000_000;

/// Where the service reads and writes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub(crate) struct EchoOptions {
    /// Answer the commands here: a broker's `host:port`. Without it, your own service answers.
    #[arg(long, value_name = "BROKER")]
    pub(crate) echo: Option<String>,
    /// The commands topic of --echo.
    #[arg(long, value_name = "TOPIC", default_value = "commands")]
    pub(crate) commands_topic: String,
    /// The replies topic of --echo.
    #[arg(long, value_name = "TOPIC", default_value = "replies")]
    pub(crate) replies_topic: String,
}

/// The service, on one thread.
pub(crate) struct Echo {
    runtime: tokio::runtime::Runtime,
    commands: Vec<PartitionClient>,
    replies: Vec<PartitionClient>,
    from: Vec<i64>,
    seen: Effects,
}

/// What the service has done, by correlation id and by idempotency key.
struct Effects {
    replies: AHashMap<Vec<u8>, Vec<u8>>,
    keys: AHashMap<Vec<u8>, Vec<u8>>,
    count: u64,
    second_records: u64,
    unchecked: u64,
}

/// A record of the commands topic.
type Command = (usize, RecordAndOffset);

impl Echo {
    /// The service as part of a scenario, if `--echo` is given.
    pub(crate) fn group(options: &EchoOptions) -> Result<Option<Group>> {
        Ok(Self::new(options)?.map(|echo| Group {
            name: "service",
            unit: "records",
            workers: vec![Box::new(echo)],
            wanted: None,
        }))
    }

    fn new(options: &EchoOptions) -> Result<Option<Self>> {
        let Some(bootstrap) = &options.echo else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (commands, replies, from) = runtime.block_on(async {
            let client = kafka::connect(bootstrap).await?;
            let commands = kafka::partitions(&client, &options.commands_topic, None).await?;
            let replies = kafka::partitions(&client, &options.replies_topic, None).await?;
            let mut from = Vec::new();
            for partition in &commands {
                let end = partition.get_offset(OffsetAt::Latest);
                from.push(within("find the end of the commands topic", end).await?);
            }
            anyhow::Ok((commands, replies, from))
        })?;
        ensure!(
            !replies.is_empty(),
            "topic `{}` has no partition",
            options.replies_topic
        );
        Ok(Some(Self {
            runtime,
            commands,
            replies,
            from,
            seen: Effects::new(),
        }))
    }
}

impl Worker for Echo {
    fn open(&mut self, _: &Stop) -> Result<()> {
        Ok(())
    }

    fn run(self: Box<Self>, _: Start, meter: &mut Meter) -> Result<()> {
        let Self {
            runtime,
            commands,
            replies,
            from,
            mut seen,
        } = *self;
        let served = runtime.block_on(serve(commands, &replies, &from, &mut seen, meter));
        meter.count("effects", seen.count);
        meter.count("second_records", seen.second_records);
        meter.count("effects_not_checked", seen.unchecked);
        served
    }
}

/// Reads all partitions side by side, and answers in batches.
async fn serve(
    commands: Vec<PartitionClient>,
    replies: &[PartitionClient],
    from: &[i64],
    seen: &mut Effects,
    meter: &mut Meter,
) -> Result<()> {
    let (found, mut records) = mpsc::channel(1024);
    let mut readers = tokio::task::JoinSet::new();
    for (number, (partition, &from)) in commands.into_iter().zip(from).enumerate() {
        readers.spawn(read(number, partition, from, found.clone()));
    }
    drop(found);
    let mut ended_at = None;
    loop {
        // Commands in flight when the run ends are still answered.
        let goes_on = meter.turn(Instant::now());
        let since = ended_at.get_or_insert_with(Instant::now);
        if goes_on {
            ended_at = None;
        } else if since.elapsed() > crate::engine::DRAIN_TIME_MAX {
            return Ok(());
        }
        let mut batch: Vec<Command> = Vec::new();
        let wait = Duration::from_millis(20);
        match tokio::time::timeout(wait, records.recv_many(&mut batch, 1024)).await {
            Ok(0) => {
                if let Some(ended) = readers.join_next().await {
                    return ended?;
                }
                return Ok(());
            }
            Ok(_) => answer(&batch, replies, seen, meter).await?,
            Err(_) if !goes_on => return Ok(()),
            Err(_) => {}
        }
    }
}

async fn read(
    number: usize,
    partition: PartitionClient,
    mut from: i64,
    found: mpsc::Sender<Command>,
) -> Result<()> {
    loop {
        let fetched = partition.fetch_records(from, 1..FETCH_BYTES_MAX, FETCH_WAIT_MS);
        let (records, _) = within("read commands", fetched).await?;
        for record in records {
            from = record.offset + 1;
            if found.send((number, record)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn answer(
    batch: &[Command],
    replies: &[PartitionClient],
    seen: &mut Effects,
    meter: &mut Meter,
) -> Result<()> {
    let mut by_partition: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
    for (number, command) in batch {
        let headers = &command.record.headers;
        let Some(id) = headers.get("correlation-id") else {
            meter.error("a command without correlation-id", || {
                format!("partition {number}, offset {}", command.offset)
            });
            continue;
        };
        let key = headers.get("idempotency-key").map(Vec::as_slice);
        let value = seen.apply(*number, command.offset, id, key, meter);
        let headers = [("correlation-id", id.clone()), (":status", b"200".to_vec())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        let reply = Record {
            key: command.record.key.clone(),
            value: Some(value),
            headers: headers.into(),
            timestamp: now(),
        };
        by_partition
            .entry(number % replies.len())
            .or_default()
            .push(reply);
        let due = command.record.timestamp;
        let took = (now() - due).to_std().unwrap_or_default();
        meter.done(took, 0);
    }
    for (number, records) in by_partition {
        kafka::append(
            &replies[number],
            records,
            PRODUCE_BYTES_MAX,
            Compression::NoCompression,
        )
        .await?;
    }
    Ok(())
}

impl Effects {
    fn new() -> Self {
        Self {
            replies: AHashMap::new(),
            keys: AHashMap::new(),
            count: 0,
            second_records: 0,
            unchecked: 0,
        }
    }

    /// The reply to a command: a new one, or the first one again.
    fn apply(
        &mut self,
        partition: usize,
        offset: i64,
        id: &[u8],
        key: Option<&[u8]>,
        meter: &mut Meter,
    ) -> Vec<u8> {
        if let Some(reply) = self.replies.get(id) {
            self.second_records += 1;
            return reply.clone();
        }
        self.count += 1;
        let number = self.count;
        let reply = format!(r#"{{"effect":{number},"partition":{partition},"offset":{offset}}}"#);
        let reply = reply.into_bytes();
        if self.replies.len() >= EFFECTS_MAX {
            self.unchecked += 1;
            return reply;
        }
        self.replies.insert(id.to_vec(), reply.clone());
        if let Some(key) = key {
            let first = self.keys.entry(key.to_vec()).or_insert_with(|| id.to_vec());
            if first != id {
                meter.violation("two effects of one idempotency key", || {
                    let key = String::from_utf8_lossy(key);
                    format!("key {key}: partition {partition}, offset {offset}")
                });
            }
        }
        reply
    }
}

fn now() -> DateTime<Utc> {
    let micros = i64::try_from(now_us()).unwrap_or_default();
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
