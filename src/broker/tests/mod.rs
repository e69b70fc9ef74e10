//! The broker driven as a client drives it: encoded requests in, encoded responses out. The codec
//! crate's client side encodes them.

#![allow(clippy::unwrap_used)]

mod admin;
mod compaction;
mod faults;
mod fetch;
mod groups;
mod produce;
mod transactions;
mod wire;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, ListOffsetsRequest, ProduceRequest, RequestHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::*;
use crate::model::{Offset, Partition, UnixMillis};

/// The first partition, which most tests use.
const P0: Partition = Partition(0);
/// The wall clock all tests start at.
const START_MS: i64 = 1_700_000_000_000;

/// A broker with its clock and one client's connections.
struct Rig {
    broker: Broker,
    now: Now,
}

impl Rig {
    fn new(nodes: u16) -> Self {
        Self::of(Settings {
            nodes,
            ..Settings::default()
        })
    }

    fn of(settings: Settings) -> Self {
        let mut broker = Broker::new(settings, 7);
        for node in broker.nodes() {
            broker.advertise(node, "broker", 9_000 + node.0);
        }
        let wall = UnixMillis(START_MS);
        let mut rig = Self {
            broker,
            now: Now {
                mono: Instant::ZERO,
                wall,
            },
        };
        rig.pass(0);
        rig
    }

    /// A broker of one node with topic `t`, one partition, and a connection.
    fn with_topic(configs: &[(&str, &str)]) -> (Self, ConnectionId) {
        let mut rig = Self::new(1);
        rig.broker.create_topic("t", 1, configs).unwrap();
        let c = rig.connect(1);
        (rig, c)
    }

    fn connect(&mut self, node: u16) -> ConnectionId {
        self.broker.on_connect(NodeId(node)).unwrap()
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after(std::time::Duration::from_millis(ms));
        self.now.wall.0 += ms as i64;
        self.broker.on_time(self.now);
    }

    fn send<Q: Request>(&mut self, c: ConnectionId, version: i16, request: &Q) {
        let bytes = encode(version, 5, request);
        self.broker.on_bytes(c, &bytes, self.now).unwrap();
    }

    /// The next response, if there is one.
    fn answer<Q: Request>(&mut self, c: ConnectionId, version: i16) -> Option<Q::Response> {
        let out = self.broker.outgoing(c);
        let len = u32::from_be_bytes(*out.first_chunk()?) as usize;
        let mut frame = Bytes::copy_from_slice(&out[4..4 + len]);
        self.broker.on_written(c, 4 + len);
        let header = Q::Response::header_version(version);
        let tags = usize::from(header >= 1);
        assert_eq!(
            frame[..4],
            5_i32.to_be_bytes(),
            "the correlation id comes back"
        );
        let mut body = frame.split_off(4 + tags);
        let response = Q::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "bytes are left after the answer");
        Some(response)
    }

    fn ask<Q: Request>(&mut self, c: ConnectionId, version: i16, request: &Q) -> Q::Response {
        self.send(c, version, request);
        self.answer::<Q>(c, version).expect("answered at once")
    }

    fn produce(&mut self, c: ConnectionId, batch: impl Into<Bytes>) -> PartitionProduceResponse {
        self.produce_to(c, "t", 0, None, batch)
    }

    fn produce_to(
        &mut self,
        c: ConnectionId,
        topic: &str,
        partition: i32,
        transaction: Option<&str>,
        batch: impl Into<Bytes>,
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, transaction, batch.into());
        let mut response = self.ask(c, 11, &request);
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Appends records to `t`/0 in one batch.
    fn append(&mut self, c: ConnectionId, records: &[(&str, Option<&str>)]) -> i64 {
        let answer = self.produce(c, Batch::of(records).bytes());
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    fn fetch(&mut self, c: ConnectionId, from: i64, committed: bool) -> PartitionData {
        self.fetch_with(c, 11, fetch_request(from, committed))
    }

    fn fetch_with(
        &mut self,
        c: ConnectionId,
        version: i16,
        request: FetchRequest,
    ) -> PartitionData {
        let mut response = self.ask(c, version, &request);
        response.responses.remove(0).partitions.remove(0)
    }

    /// (error, timestamp, offset) of ListOffsets.
    fn list(&mut self, c: ConnectionId, timestamp: i64, committed: bool) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(name("t"));
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(i8::from(committed))
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let response = self.ask(c, 9, &request);
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.timestamp, found.offset)
    }

    /// The values in the log of `t`/0 as a committed reader sees them.
    fn values(&self) -> Vec<(u64, String)> {
        let records = self.broker.dump("t", P0).unwrap();
        let value = |r: &DumpedRecord| match &r.value {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None => "(null)".to_owned(),
        };
        records.iter().map(|r| (r.offset.0, value(r))).collect()
    }
}

fn encode<Q: Request>(version: i16, correlation: i32, request: &Q) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut out = vec![0; 4];
    encode_request_header_into_buffer(&mut out, &header).unwrap();
    request.encode(&mut out, version).unwrap();
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from(topic.to_owned()))
}

fn produce_request(
    topic: &str,
    partition: i32,
    transaction: Option<&str>,
    batch: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    let transaction = transaction.map(|id| TransactionalId(StrBytes::from(id.to_owned())));
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_transactional_id(transaction)
        .with_topic_data(vec![topic])
}

/// A Fetch of `t`/0 that does not wait.
fn fetch_request(from: i64, committed: bool) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_isolation_level(i8::from(committed))
        .with_min_bytes(1)
        .with_topics(vec![topic])
}

/// A batch as a client would encode it, by the codec crate's own encoder.
struct Batch {
    records: Vec<Record>,
}

impl Batch {
    fn of(records: &[(&str, Option<&str>)]) -> Self {
        let mut batch = Self {
            records: Vec::new(),
        };
        for (key, value) in records {
            batch.records.push(Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: TimestampType::Creation,
                offset: batch.records.len() as i64,
                sequence: batch.records.len() as i32 - 1,
                timestamp: START_MS,
                key: Some(Bytes::from((*key).to_owned())),
                value: value.map(|value| Bytes::from(value.to_owned())),
                headers: [(StrBytes::from_static_str("h"), None)].into(),
            });
        }
        batch
    }

    fn one(value: &str) -> Self {
        Self::of(&[("k", Some(value))])
    }

    fn each(mut self, change: impl Fn(&mut Record)) -> Self {
        self.records.iter_mut().for_each(change);
        self
    }

    fn of_producer(self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.each(|r| {
            r.producer_id = id;
            r.producer_epoch = epoch;
            r.sequence = sequence.wrapping_add(r.offset as i32);
        })
    }

    fn transactional(self) -> Self {
        self.each(|r| r.transactional = true)
    }

    fn at(self, timestamp: i64) -> Self {
        self.each(|r| r.timestamp = timestamp)
    }

    fn bytes(&self) -> Vec<u8> {
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        let mut out = Vec::new();
        RecordBatchEncoder::encode(&mut out, &self.records, &options).unwrap();
        out
    }
}

/// A plain batch with its records compressed.
fn compress(plain: &[u8], codec: i16) -> Vec<u8> {
    use std::io::Write;
    let (head, body) = plain.split_at(batch::HEADER_BYTES);
    let body = match codec {
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(body).unwrap();
            gzip.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(body).unwrap(),
        3 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(body).unwrap();
            lz4.finish().unwrap()
        }
        _ => zstd::encode_all(body, 1).unwrap(),
    };
    let mut out = [head, &body].concat();
    let len = (out.len() - batch::LENGTH_PREFIX_BYTES) as u32;
    out[8..12].copy_from_slice(&len.to_be_bytes());
    out[22] |= codec as u8;
    reseal(&mut out);
    out
}

/// Recomputes the checksum after a change.
fn reseal(batch: &mut [u8]) {
    let crc = batch::checksum(batch);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The batches of a Fetch's records: (base offset, last offset), and how many bytes are left over.
fn batches(records: &[u8]) -> (Vec<(i64, i64)>, usize) {
    let mut all = Vec::new();
    let mut rest = records;
    while let Some((header, whole)) = batch::Header::read(rest) {
        if whole > rest.len() {
            break;
        }
        let base = header.base_offset;
        all.push((base, base + i64::from(header.last_offset_delta)));
        rest = &rest[whole..];
    }
    (all, rest.len())
}
