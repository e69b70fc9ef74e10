//! Writes records on a schedule with rskafka. Each record has the time at which it was due, so that
//! a late broker or writer shows in the delay of its events.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;

use crate::engine::{Group, Meter, Plan, Start, Stop, Worker};
use crate::kafka;
use crate::live::Live;
use crate::record::{SIZE_MIN, Stamp, now_us};
use crate::report::{Report, Scenario};
use crate::template::Template;

/// Most bytes of records in one produce request. rskafka stalls for 44 ms from 8 KiB on.
const PRODUCE_BYTES_MAX: usize = 7 * 1024;

/// What is written, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Writer")]
pub(crate) struct WriteOptions {
    /// A broker to connect to, `host:port`.
    #[arg(long)]
    pub(crate) bootstrap: Option<String>,
    /// The topic to write to.
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Create the topic first, with this many partitions, unless it exists.
    #[arg(long, value_name = "PARTITIONS")]
    pub(crate) create: Option<i32>,
    /// Records per second to write.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) rate: f64,
    /// Records that are due together, and are written to one partition.
    #[arg(long, default_value_t = 1)]
    pub(crate) burst: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 200)]
    pub(crate) size: usize,
    /// Key of the records. `{key}` is a number below --keys. Without it they have none.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Compression of the records. (All are written with acks=all: rskafka has no other.)
    #[arg(long, value_enum, default_value_t)]
    pub(crate) compression: Codec,
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Zstd,
}

/// Options of `write`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    write: WriteOptions,
    /// Number of different values of `{key}` in --key.
    #[arg(long, default_value_t = 1)]
    keys: u64,
    /// Seconds to write; 0 writes nothing, and creates the topic.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Runs the writer alone.
pub(crate) fn run(args: &Args, live: Live, stop: &Stop) -> Result<Report> {
    ensure!(args.seconds >= 0.0, "--seconds is 0 or more");
    ensure!(
        args.write.bootstrap.is_some() && args.write.topic.is_some(),
        "--bootstrap and --topic say where to write"
    );
    let groups: Vec<Group> = group(&args.write, args.keys)?.into_iter().collect();
    let plan = Plan {
        groups,
        length: Duration::from_secs_f64(args.seconds),
        warm_up: Duration::ZERO,
        pids: Vec::new(),
        live,
    };
    let outcome = crate::engine::run(plan, stop, || {})?;
    let mut report = Report::new(Scenario::new("write", &[]), &outcome);
    report.figure("rate_wanted", args.write.rate);
    report.count("records", outcome.groups[0].all);
    Ok(report)
}

/// The writer as part of a scenario, if it has a place to write to.
pub(crate) fn group(options: &WriteOptions, keys: u64) -> Result<Option<Group>> {
    let writer = Writer::new(options, keys)?;
    Ok(writer.map(|writer| Group {
        name: "writer",
        unit: "records",
        workers: vec![Box::new(writer)],
        wanted: None,
    }))
}

/// Writes so many records at once, all due now.
pub(crate) fn now(options: &WriteOptions, keys: u64, records: u64) -> Result<()> {
    let writer = Writer::new(options, keys)?;
    let writer = writer.context("--bootstrap and --topic say where to write the events")?;
    let (keyed, run) = (writer.is_keyed(), now_us());
    let mut numbers = vec![0; writer.lanes()];
    let mut batches = vec![Vec::new(); writer.partitions.len()];
    for tick in 0..records {
        let (lane, partition) = writer.place(tick, keyed);
        let number = &mut numbers[lane as usize];
        let stamp = Stamp {
            writer: run,
            lane,
            number: *number,
            due_us: now_us(),
        };
        *number += 1;
        batches[partition].push(writer.record(&stamp));
    }
    let codec = options.compression.of_rskafka();
    for (partition, records) in writer.partitions.iter().zip(batches) {
        let append = kafka::append(partition, records, PRODUCE_BYTES_MAX, codec);
        writer.runtime.block_on(append)?;
    }
    Ok(())
}

/// Writes on its own thread.
struct Writer {
    keys: u32,
    options: WriteOptions,
    runtime: tokio::runtime::Runtime,
    partitions: Vec<PartitionClient>,
    key: Option<Template>,
}

impl Writer {
    /// Connects, if the options say where to.
    fn new(options: &WriteOptions, keys: u64) -> Result<Option<Self>> {
        ensure!(options.size >= SIZE_MIN, "--size is at least {SIZE_MIN}");
        ensure!(
            options.rate > 0.0 && options.burst > 0,
            "--rate and --burst are positive"
        );
        let (Some(bootstrap), Some(topic)) = (&options.bootstrap, &options.topic) else {
            ensure!(
                options.bootstrap.is_none() && options.topic.is_none(),
                "--bootstrap and --topic go together"
            );
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let partitions = runtime.block_on(async {
            let client = kafka::connect(bootstrap).await?;
            kafka::partitions(&client, topic, options.create).await
        })?;
        ensure!(!partitions.is_empty(), "topic `{topic}` has no partition");
        let key = options.key.as_deref().map(Template::parse).transpose()?;
        let keys = u32::try_from(keys).context("--keys is at most 4 billion")?;
        ensure!(keys > 0, "--keys is at least 1");
        Ok(Some(Self {
            keys,
            options: options.clone(),
            runtime,
            partitions,
            key,
        }))
    }

    /// The number of sequences in which records are numbered.
    fn lanes(&self) -> usize {
        if self.is_keyed() {
            self.keys as usize
        } else {
            self.partitions.len()
        }
    }

    /// Whether records are numbered by key: otherwise by partition.
    fn is_keyed(&self) -> bool {
        self.key.as_ref().is_some_and(Template::has_key)
    }

    /// The lane and the partition of a burst.
    const fn place(&self, tick: u64, keyed: bool) -> (u32, usize) {
        let partitions = self.partitions.len() as u64;
        if keyed {
            let lane = tick % self.keys as u64;
            (lane as u32, (lane % partitions) as usize)
        } else {
            let partition = tick % partitions;
            (partition as u32, partition as usize)
        }
    }

    fn record(&self, stamp: &Stamp) -> Record {
        let mut value = Vec::with_capacity(self.options.size);
        stamp.write(self.options.size, &mut value);
        let due = i64::try_from(stamp.due_us).unwrap_or_default();
        let key = self.key.as_ref().map(|template| {
            let mut key = Vec::new();
            template.put(u64::from(stamp.lane), &mut key);
            key
        });
        Record {
            key,
            value: Some(value),
            headers: std::collections::BTreeMap::new(),
            timestamp: DateTime::<Utc>::from_timestamp_micros(due).unwrap_or_default(),
        }
    }
}

impl Worker for Writer {
    fn open(&mut self, _: &Stop) -> Result<()> {
        Ok(())
    }

    fn run(self: Box<Self>, start: Start, meter: &mut Meter) -> Result<()> {
        let keyed = self.is_keyed();
        let (mut numbers, writer) = (vec![0; self.lanes()], now_us());
        let every = Duration::from_secs_f64(self.options.burst as f64 / self.options.rate);
        let codec = self.options.compression.of_rskafka();
        for tick in 0_u64.. {
            let due = start.at + every.mul_f64(tick as f64);
            // Use the thread's sleep, because the runtime's timer has steps of 1 ms.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let goes_on = meter.turn(Instant::now());
            if !goes_on || due >= start.end || Instant::now() >= start.end {
                meter.count("due_and_not_written", self.left(due, &start, every));
                break;
            }
            let (lane, partition) = self.place(tick, keyed);
            let number = &mut numbers[lane as usize];
            let stamps = (0..self.options.burst).map(|ahead| Stamp {
                writer,
                lane,
                number: *number + ahead,
                due_us: start.micros(due),
            });
            let records: Vec<_> = stamps.map(|stamp| self.record(&stamp)).collect();
            *number += self.options.burst;
            let append = kafka::append(
                &self.partitions[partition],
                records,
                PRODUCE_BYTES_MAX,
                codec,
            );
            self.runtime.block_on(append)?;
            for _ in 0..self.options.burst {
                meter.done(due.elapsed(), self.options.size as u64);
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Records that were due within the run and not written: the writer can't keep its rate.
    fn left(&self, due: Instant, start: &Start, every: Duration) -> u64 {
        let late = start.end.min(Instant::now()).saturating_duration_since(due);
        (late.as_secs_f64() / every.as_secs_f64()) as u64 * self.options.burst
    }
}

impl Codec {
    const fn of_rskafka(self) -> Compression {
        match self {
            Self::None => Compression::NoCompression,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Zstd => Compression::Zstd,
        }
    }
}
