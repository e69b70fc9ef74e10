//! Reads the records of a topic as they pass, for `sluicegate tap`: from the brokers, with the
//! gateway's own credentials. The gateway need not run.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, MetadataResponse};
use tokio::time::Instant;

use super::broker_connection::{AskError, BrokerConnection, BrokerSecurity};
use super::topics::{metadata, wire};
use crate::config::BrokerAddress;
use crate::kafka::records::{Aborted, Fetched, Piece, PieceLimits, Unpacker, walk};
use crate::log::{Next, Record};
use crate::model::{Offset, Partition, TopicName};

/// Time for a broker to answer one request.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// How long a Fetch waits at a broker for records.
const FETCH_WAIT_MS: i32 = 200;
/// Most bytes of one Fetch response.
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// Most bytes that one batch may unpack to.
const BATCH_BYTES_MAX: u32 = 64 << 20;
/// Records that are not committed are not shown.
const READ_COMMITTED: i8 = 1;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// Which records to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapFrom {
    /// The last so many offsets of each partition, and what follows.
    Last(u64),
    /// From this offset of each partition on.
    Offset(u64),
}

/// Why a topic can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A broker does not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The cluster refuses to read the topic.
    #[error("topic `{topic}`: {detail}")]
    Topic {
        /// The topic's name.
        topic: TopicName,
        /// The broker's error.
        detail: String,
    },
}

/// The topic to read, and where it is.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Brokers to ask first.
    pub bootstrap: Vec<BrokerAddress>,
    /// How connections are secured.
    pub security: BrokerSecurity,
    /// The topic.
    pub topic: TopicName,
    /// Where to begin.
    pub from: TapFrom,
}

/// Whether to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapNext {
    /// Read more records.
    More,
    /// Enough was read.
    Enough,
}

/// What `tap` reads.
#[derive(Debug)]
pub enum TapItem<'a> {
    /// A record.
    Record(Partition, Record<'a>),
    /// Offsets that can't be decoded, with the reason.
    Undecodable(Partition, Offset, Offset, String),
}

impl Tap {
    /// Reads records, each partition in its order, until `show` has enough.
    ///
    /// # Errors
    /// See [`TapError`].
    pub async fn read(&self, mut show: impl FnMut(TapItem<'_>) -> TapNext) -> Result<(), TapError> {
        let mut reading = Reading::begin(self).await?;
        let mut unpacker = Unpacker::new();
        loop {
            for leader in reading.leaders() {
                for data in reading.fetch(leader).await? {
                    if reading.show(&data, &mut unpacker, &mut show)? == TapNext::Enough {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn refused(&self, error: impl std::fmt::Display) -> TapError {
        TapError::Topic {
            topic: self.topic.clone(),
            detail: error.to_string(),
        }
    }
}

/// The state of reading.
struct Reading<'t> {
    tap: &'t Tap,
    /// Connections to the leaders of the topic's partitions.
    leaders: BTreeMap<BrokerId, BrokerConnection>,
    /// Leader and next offset of each partition.
    places: BTreeMap<i32, (BrokerId, u64)>,
}

impl<'t> Reading<'t> {
    async fn begin(tap: &'t Tap) -> Result<Self, TapError> {
        let until = Instant::now() + ANSWER_WAIT;
        let mut any = BrokerConnection::open_any(&tap.bootstrap, &tap.security, until).await?;
        let metadata = metadata(&mut any, [&tap.topic].into_iter()).await?;
        let topic = metadata.topics.first();
        let topic = topic.ok_or_else(|| tap.refused("the broker does not describe it"))?;
        if let Some(error) = topic.error_code.err() {
            return Err(tap.refused(error));
        }
        let mut reading = Self {
            tap,
            leaders: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for leader in leaders_of(topic) {
            let address = address_of(&metadata, leader);
            let address = address.ok_or_else(|| tap.refused("a leader has no address"))?;
            let opened = BrokerConnection::open(&address, &tap.security, until).await?;
            reading.leaders.insert(leader, opened);
            let led = topic.partitions.iter().filter(|it| it.leader_id == leader);
            let led: Vec<i32> = led.map(|it| it.partition_index).collect();
            reading.find_places(leader, &led).await?;
        }
        Ok(reading)
    }

    fn leaders(&self) -> Vec<BrokerId> {
        self.leaders.keys().copied().collect()
    }

    fn connection(&mut self, leader: BrokerId) -> &mut BrokerConnection {
        let connection = self.leaders.get_mut(&leader);
        let connection = connection.expect("leaders are opened at the beginning");
        connection.set_until(Instant::now() + ANSWER_WAIT);
        connection
    }

    /// Finds where to begin in the partitions of one leader.
    async fn find_places(&mut self, leader: BrokerId, partitions: &[i32]) -> Result<(), TapError> {
        let starts = self.offsets(leader, partitions, EARLIEST).await?;
        let ends = self.offsets(leader, partitions, LATEST).await?;
        for (partition, end) in ends {
            let start = starts.get(&partition).copied().unwrap_or(0);
            let from = match self.tap.from {
                TapFrom::Last(count) => end.saturating_sub(count),
                TapFrom::Offset(offset) => offset,
            };
            self.places.insert(partition, (leader, from.max(start)));
        }
        Ok(())
    }

    async fn offsets(
        &mut self,
        leader: BrokerId,
        partitions: &[i32],
        timestamp: i64,
    ) -> Result<BTreeMap<i32, u64>, TapError> {
        let tap = self.tap;
        let connection = self.connection(leader);
        let version = connection.version::<ListOffsetsRequest>(1, 5)?;
        let asked = partitions.iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_timestamp(timestamp)
        });
        let asked = ListOffsetsTopic::default()
            .with_name(wire(&tap.topic))
            .with_partitions(asked.collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![asked]);
        let response = connection.ask(request, version).await?;
        let mut offsets = BTreeMap::new();
        for one in response.topics.iter().flat_map(|it| &it.partitions) {
            if let Some(error) = one.error_code.err() {
                return Err(tap.refused(error));
            }
            let offset = u64::try_from(one.offset).unwrap_or(0);
            offsets.insert(one.partition_index, offset);
        }
        Ok(offsets)
    }

    /// Asks a leader for records of its partitions.
    async fn fetch(&mut self, leader: BrokerId) -> Result<Vec<PartitionData>, TapError> {
        let led = self.places.iter().filter(|(_, (it, _))| *it == leader);
        let asked = led.map(|(partition, (_, next))| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(i64::try_from(*next).unwrap_or(i64::MAX))
                .with_partition_max_bytes(FETCH_BYTES_MAX)
        });
        let asked = FetchTopic::default()
            .with_topic(wire(&self.tap.topic))
            .with_partitions(asked.collect());
        let connection = self.connection(leader);
        let version = connection.version::<FetchRequest>(4, 11)?;
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(-1)
            .with_topics(vec![asked]);
        let response = connection.ask(request, version).await?;
        let topics = response.responses.into_iter();
        Ok(topics.flat_map(|it| it.partitions).collect())
    }

    /// Shows the records of one partition, and moves its place behind them.
    fn show(
        &mut self,
        data: &PartitionData,
        unpacker: &mut Unpacker,
        show: &mut impl FnMut(TapItem<'_>) -> TapNext,
    ) -> Result<TapNext, TapError> {
        let Some((_, next)) = self.places.get_mut(&data.partition_index) else {
            return Ok(TapNext::More);
        };
        match data.error_code.err() {
            None => {}
            // Retention has passed the place.
            Some(ResponseError::OffsetOutOfRange) => {
                *next = u64::try_from(data.log_start_offset).unwrap_or(0).max(*next);
                return Ok(TapNext::More);
            }
            Some(error) => return Err(self.tap.refused(error)),
        }
        let partition = Partition(u32::try_from(data.partition_index).unwrap_or(0));
        let aborted = data.aborted_transactions.iter().flatten();
        let aborted = aborted.map(|it| Aborted {
            producer_id: it.producer_id.0,
            first_offset: it.first_offset,
        });
        let fetched = Fetched {
            partition,
            records: data.records.clone().unwrap_or_default(),
            from: Next::at(Offset(*next)),
            end: Offset(u64::try_from(data.high_watermark).unwrap_or(0)),
            aborted: aborted.collect(),
        };
        let limits = PieceLimits::new(BATCH_BYTES_MAX);
        let mut budget = u64::MAX;
        let mut verdict = TapNext::More;
        let progress = walk(
            fetched,
            unpacker,
            limits,
            &mut budget,
            |piece, _| match piece {
                Piece::Records(batch) => {
                    for record in batch.iter() {
                        if verdict == TapNext::More {
                            verdict = show(TapItem::Record(partition, record));
                        }
                    }
                }
                Piece::Undecodable { from, to, error } if verdict == TapNext::More => {
                    let why = error.to_string();
                    verdict = show(TapItem::Undecodable(partition, from, to, why));
                }
                Piece::Undecodable { .. } => {}
            },
        );
        *next = progress.next.offset.0;
        match progress.stuck {
            Some(error) => Err(self.tap.refused(error)),
            None => Ok(verdict),
        }
    }
}

/// The leaders of a topic's partitions, each once.
fn leaders_of(topic: &MetadataResponseTopic) -> Vec<BrokerId> {
    let leaders = topic.partitions.iter().map(|it| it.leader_id);
    let mut leaders: Vec<_> = leaders.filter(|it| it.0 >= 0).collect();
    leaders.sort_unstable();
    leaders.dedup();
    leaders
}

fn address_of(metadata: &MetadataResponse, broker: BrokerId) -> Option<BrokerAddress> {
    let mut brokers = metadata.brokers.iter();
    let broker = brokers.find(|it| it.node_id == broker)?;
    Some(BrokerAddress {
        host: broker.host.to_string(),
        port: u16::try_from(broker.port).ok()?,
    })
}
