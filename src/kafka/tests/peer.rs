//! A scripted cluster. It decodes the client's requests with `kafka-protocol`, answers the routine
//! ones from a small state, and leaves Fetch and Produce to each test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use uuid::Uuid;

use crate::kafka::{Address, Client, DirectoryRole, Event, LinkId, Settings};
use crate::model::{Instant, Now, UnixMillis};

/// A request as the broker received it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) link: LinkId,
    pub(super) node: i32,
    pub(super) version: i16,
    correlation: i32,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn decode<R: Request>(&self) -> R {
        R::decode(&mut self.body.clone(), self.version).expect("we encode what they decode")
    }

    pub(super) fn fetch(&self) -> FetchRequest {
        self.decode()
    }

    /// The batch of a Produce for one partition.
    pub(super) fn batch(&self) -> Bytes {
        let request: ProduceRequest = self.decode();
        assert_eq!(request.acks, -1);
        request.topic_data[0].partition_data[0]
            .records
            .clone()
            .unwrap()
    }
}

/// One topic of the scripted cluster.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) id: u128,
    /// Leader and epoch of each partition.
    pub(super) leaders: Vec<(i32, i32)>,
}

struct Connection {
    node: i32,
    inbox: Vec<u8>,
}

/// The partitions that a ListOffsets asked for, with leader epoch and timestamp.
type OffsetsAsked = Vec<(i32, i32, i64)>;

/// The client and its scripted cluster.
pub(super) struct World {
    pub(super) client: Client,
    pub(super) now: Now,
    connections: BTreeMap<LinkId, Connection>,
    pub(super) fetches: VecDeque<Asked>,
    pub(super) produces: VecDeque<Asked>,
    pub(super) epochs: VecDeque<Asked>,
    /// Whether brokers offer version 4 of OffsetForLeaderEpoch, or only version 1.
    pub(super) tells_epochs: bool,
    pub(super) events: VecDeque<Event>,
    pub(super) topics: Vec<Topic>,
    pub(super) nodes: Vec<i32>,
    /// Brokers that refuse all connections.
    pub(super) down: BTreeSet<i32>,
    /// Brokers that accept connections and send nothing.
    pub(super) frozen: BTreeSet<i32>,
    /// The newest versions offered of Fetch and Produce.
    pub(super) newest: (i16, i16),
    /// Whether brokers answer version 3 of ApiVersions as an old broker does.
    pub(super) old: bool,
    /// What ListOffsets answers: log start, end, error code.
    pub(super) offsets: (i64, i64, i16),
    /// The offset that ListOffsets answers for a time: -1 if no record is that new.
    pub(super) offset_of_time: i64,
    /// Every ListOffsets so far: the broker, and the partitions with epoch and timestamp.
    pub(super) offsets_asked: Vec<(i32, OffsetsAsked)>,
    /// Whether ListOffsets waits in `held_offsets` for the test to answer it.
    pub(super) holds_offsets: bool,
    pub(super) held_offsets: VecDeque<Asked>,
    pub(super) producer_ids: i64,
    /// The brokers that connections were made to, in order.
    pub(super) opened: Vec<i32>,
    pub(super) closed: Vec<LinkId>,
    /// Metadata requests for topics. Requests for the cluster's id are not counted.
    pub(super) metadata_asked: usize,
    /// The cluster id in Metadata responses.
    pub(super) cluster_id: &'static str,
    pub(super) lagging: Option<(i32, Vec<(i32, i32)>)>,
    pub(super) metadata_by: Vec<i32>,
    /// Whether sockets take bytes. If not, requests stay unsent.
    pub(super) writes: bool,
    /// Broker `n` listens at this port plus `n`. Another value is a cluster that has moved.
    pub(super) first_port: i32,
    pub(super) sasl: SaslOf,
}

/// How the brokers authenticate the client.
#[derive(Debug, Default)]
pub(super) struct SaslOf {
    /// The mechanism that brokers require before they answer. `None`: the brokers do not use SASL.
    pub(super) mechanism: Option<&'static str>,
    /// The error with which brokers reject the exchange, after `challenge` if that is not empty.
    pub(super) refusal: Option<&'static str>,
    pub(super) challenge: &'static [u8],
    pub(super) lifetime_ms: i64,
    /// How often SCRAM hashes the password. 0: the brokers do not speak SCRAM.
    pub(super) iterations: u32,
    /// Authenticated connections, and how often each has authenticated.
    pub(super) known: BTreeMap<LinkId, u32>,
    pub(super) said: Vec<Bytes>,
}

/// Broker `n` listens at port 9000 + `n`. The bootstrap address is broker 1.
fn address(node: i32) -> Address {
    Address {
        host: "kafka".into(),
        port: 9000 + node as u16,
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        bootstrap: vec![address(1)],
        ..Settings::default()
    }
}

impl World {
    pub(super) fn new(topics: &[Topic]) -> Self {
        Self::with(settings(), DirectoryRole::Own, topics)
    }

    pub(super) fn with(settings: Settings, role: DirectoryRole, topics: &[Topic]) -> Self {
        let now = Now {
            mono: Instant::from_nanos(1),
            wall: UnixMillis(1_700_000_000_000),
        };
        Self {
            client: Client::new(settings, 7, role, now),
            now,
            connections: BTreeMap::new(),
            fetches: VecDeque::new(),
            produces: VecDeque::new(),
            epochs: VecDeque::new(),
            tells_epochs: true,
            events: VecDeque::new(),
            topics: topics.to_vec(),
            nodes: vec![1, 2],
            down: BTreeSet::new(),
            frozen: BTreeSet::new(),
            newest: (16, 13),
            old: false,
            offsets: (0, 0, 0),
            offset_of_time: -1,
            offsets_asked: Vec::new(),
            holds_offsets: false,
            held_offsets: VecDeque::new(),
            producer_ids: 500,
            opened: Vec::new(),
            closed: Vec::new(),
            metadata_asked: 0,
            cluster_id: "c",
            lagging: None,
            metadata_by: Vec::new(),
            writes: true,
            first_port: 9000,
            sasl: SaslOf::default(),
        }
    }

    /// Turns until nothing moves any more. No time passes meanwhile.
    pub(super) fn settle(&mut self) {
        while self.turn() {}
    }

    /// Advances the clock from deadline to deadline.
    pub(super) fn pass(&mut self, by: Duration) {
        let end = self.now.mono.after(by);
        self.settle();
        loop {
            let due = self.client.next_deadline().filter(|&due| due <= end);
            let next = due.unwrap_or(end).max(self.now.mono);
            let step = next.since(self.now.mono);
            // A client that asks for a deadline of now again and again would hang here without a
            // minimum.
            let least = Duration::from_micros(10);
            self.now.mono = self.now.mono.after(step.max(least)).min(end.max(next));
            self.settle();
            if self.now.mono >= end {
                return;
            }
        }
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        self.client.on_time(self.now);
        while let Some((link, address)) = self.client.next_open() {
            moved = true;
            let node = i32::from(address.port) - self.first_port;
            self.opened.push(node);
            if self.down.contains(&node) || !(0..100).contains(&node) {
                self.client
                    .on_open_failed(link, ErrorKind::ConnectionRefused, self.now);
                continue;
            }
            let inbox = Vec::new();
            self.connections.insert(link, Connection { node, inbox });
            self.client.on_opened(link, self.now);
        }
        while self.writes
            && let Some(link) = self.client.next_writable()
        {
            moved = true;
            let bytes = self.client.outgoing(link).to_vec();
            self.client.on_written(link, bytes.len());
            let connection = self.connections.get_mut(&link).expect("it is open");
            connection.inbox.extend_from_slice(&bytes);
            self.read(link);
        }
        while let Some(link) = self.client.next_close() {
            self.connections.remove(&link);
            self.closed.push(link);
        }
        while self.client.unpack(self.now) {
            moved = true;
        }
        while let Some(event) = self.client.next_event() {
            self.events.push_back(event);
        }
        moved
    }

    fn read(&mut self, link: LinkId) {
        while let Some(connection) = self.connections.get_mut(&link) {
            let Some(len) = connection.inbox.first_chunk::<4>() else {
                return;
            };
            let len = u32::from_be_bytes(*len) as usize + 4;
            if connection.inbox.len() < len || self.frozen.contains(&connection.node) {
                return;
            }
            let frame: Vec<u8> = connection.inbox.drain(..len).collect();
            let node = connection.node;
            let mut body = Bytes::from(frame).split_off(4);
            let (key, version) = (body.clone().get_i16(), body.clone().split_off(2).get_i16());
            let api = ApiKey::try_from(key).unwrap();
            let header =
                RequestHeader::decode(&mut body, api.request_header_version(version)).unwrap();
            assert_eq!(header.client_id.as_deref(), Some("sluicegate"));
            let correlation = header.correlation_id;
            let asked = Asked {
                link,
                node,
                version,
                correlation,
                body,
            };
            self.route(api, asked);
        }
    }

    fn route(&mut self, api: ApiKey, asked: Asked) {
        let known = self.sasl.mechanism.is_none() || self.sasl.known.contains_key(&asked.link);
        match api {
            ApiKey::ApiVersions => self.versions(&asked),
            ApiKey::SaslHandshake => self.handshake(&asked),
            ApiKey::SaslAuthenticate => self.authenticate(&asked),
            _ if !known => self.cut(asked.link),
            ApiKey::Metadata => self.metadata(&asked),
            ApiKey::DescribeConfigs => self.configs(&asked),
            ApiKey::ListOffsets => self.on_list_offsets(asked),
            ApiKey::InitProducerId => {
                let request: InitProducerIdRequest = asked.decode();
                assert_eq!(request.transactional_id, None);
                self.producer_ids += 1;
                let response = InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(self.producer_ids))
                    .with_producer_epoch(0);
                self.answer::<InitProducerIdRequest>(&asked, &response);
            }
            ApiKey::Fetch => self.fetches.push_back(asked),
            ApiKey::Produce => self.produces.push_back(asked),
            ApiKey::OffsetForLeaderEpoch => self.epochs.push_back(asked),
            other => panic!("nobody asks for {other:?}"),
        }
    }

    pub(super) fn answer<R: Request>(&mut self, asked: &Asked, response: &R::Response) {
        let frame = self.frame::<R>(asked, response);
        self.client.on_bytes(asked.link, &frame, self.now);
    }

    pub(super) fn frame<R: Request>(&self, asked: &Asked, response: &R::Response) -> Vec<u8> {
        let mut out = vec![0; 4];
        let header = ResponseHeader::default().with_correlation_id(asked.correlation);
        let version = <R::Response as HeaderVersion>::header_version(asked.version);
        header.encode(&mut out, version).unwrap();
        response.encode(&mut out, asked.version).unwrap();
        let len = (out.len() as u32 - 4).to_be_bytes();
        out[..4].copy_from_slice(&len);
        out
    }

    fn versions(&mut self, asked: &Asked) {
        if self.old && asked.version > 0 {
            let mut out = 6_i32.to_be_bytes().to_vec();
            out.extend_from_slice(&asked.correlation.to_be_bytes());
            out.extend_from_slice(&35_i16.to_be_bytes());
            self.client.on_bytes(asked.link, &out, self.now);
            return;
        }
        let (fetch, produce) = self.newest;
        let offers = [
            (0, 3, produce),
            (1, 4, fetch),
            (2, 1, 11),
            (3, 0, 13),
            (18, 0, 4),
            (22, 0, 5),
            (23, 0, if self.tells_epochs { 4 } else { 1 }),
            (32, 1, 4),
            (17, 0, 1),
            (36, 0, 2),
        ];
        let offer = |(key, min, max)| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        };
        let response =
            ApiVersionsResponse::default().with_api_keys(offers.into_iter().map(offer).collect());
        self.answer::<ApiVersionsRequest>(asked, &response);
    }

    fn handshake(&mut self, asked: &Asked) {
        let request: SaslHandshakeRequest = asked.decode();
        let mechanisms = self.sasl.mechanism.into_iter();
        let code = match self.sasl.mechanism {
            None => 34,
            Some(mechanism) if *request.mechanism == *mechanism => 0,
            Some(_) => 33,
        };
        let response = SaslHandshakeResponse::default()
            .with_error_code(code)
            .with_mechanisms(mechanisms.map(StrBytes::from_static_str).collect());
        self.answer::<SaslHandshakeRequest>(asked, &response);
    }

    fn authenticate(&mut self, asked: &Asked) {
        let request: SaslAuthenticateRequest = asked.decode();
        self.sasl.said.push(request.auth_bytes.clone());
        let said = std::str::from_utf8(&request.auth_bytes).unwrap_or_default();
        let nonce = said.strip_prefix("n,,").and_then(|it| it.split_once("r="));
        if let (Some((_, nonce)), 1..) = (nonce, self.sasl.iterations) {
            let iterations = self.sasl.iterations;
            let first = format!("r={nonce}more,s=AAAAAAAAAAAAAAAA,i={iterations}");
            let response = SaslAuthenticateResponse::default().with_auth_bytes(first.into());
            return self.answer::<SaslAuthenticateRequest>(asked, &response);
        }
        let mut response = SaslAuthenticateResponse::default()
            .with_auth_bytes(Bytes::from_static(self.sasl.challenge));
        match self.sasl.refusal {
            Some(why) if self.sasl.challenge.is_empty() => {
                response = response
                    .with_error_code(58)
                    .with_error_message(Some(StrBytes::from_static_str(why)));
            }
            Some(_) => self.sasl.challenge = b"",
            None => {
                *self.sasl.known.entry(asked.link).or_default() += 1;
                response = response.with_session_lifetime_ms(self.sasl.lifetime_ms);
            }
        }
        self.answer::<SaslAuthenticateRequest>(asked, &response);
    }

    fn metadata(&mut self, asked: &Asked) {
        let request: MetadataRequest = asked.decode();
        if request
            .topics
            .as_ref()
            .is_some_and(|topics| !topics.is_empty())
        {
            self.metadata_asked += 1;
            self.metadata_by.push(asked.node);
        }
        assert!(
            !request.allow_auto_topic_creation,
            "a typo must be an error"
        );
        let broker = |&node: &i32| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node))
                .with_host(StrBytes::from_static_str("kafka"))
                .with_port(self.first_port + node)
        };
        let wanted = request.topics.unwrap();
        let topic = |wanted: &metadata_request::MetadataRequestTopic| {
            let name = wanted.name.clone().unwrap();
            let out = MetadataResponseTopic::default().with_name(Some(name.clone()));
            let Some(topic) = self.topics.iter().find(|topic| topic.name == &*name.0) else {
                return out.with_error_code(3);
            };
            let partition = |(i, &(leader, epoch)): (usize, &(i32, i32))| {
                MetadataResponsePartition::default()
                    .with_partition_index(i as i32)
                    .with_leader_id(BrokerId(leader))
                    .with_leader_epoch(epoch)
            };
            out.with_topic_id(Uuid::from_u128(topic.id))
                .with_partitions(match &self.lagging {
                    Some((node, old)) if *node == asked.node => {
                        old.iter().enumerate().map(partition).collect()
                    }
                    _ => topic.leaders.iter().enumerate().map(partition).collect(),
                })
        };
        let response = MetadataResponse::default()
            .with_brokers(self.nodes.iter().map(broker).collect())
            .with_cluster_id(Some(StrBytes::from_static_str(self.cluster_id)))
            .with_topics(wanted.iter().map(topic).collect());
        self.answer::<MetadataRequest>(asked, &response);
    }

    fn configs(&mut self, asked: &Asked) {
        let request: DescribeConfigsRequest = asked.decode();
        let config = |name, value| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let result = |resource: &describe_configs_request::DescribeConfigsResource| {
            DescribeConfigsResult::default()
                .with_resource_type(2)
                .with_resource_name(resource.resource_name.clone())
                .with_configs(vec![
                    config("cleanup.policy", "compact,delete"),
                    config("retention.ms", "-1"),
                    config("max.message.bytes", "1000"),
                ])
        };
        let response = DescribeConfigsResponse::default()
            .with_results(request.resources.iter().map(result).collect());
        self.answer::<DescribeConfigsRequest>(asked, &response);
    }

    fn on_list_offsets(&mut self, asked: Asked) {
        let request: ListOffsetsRequest = asked.decode();
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        let partitions =
            partitions.map(|p| (p.partition_index, p.current_leader_epoch, p.timestamp));
        self.offsets_asked.push((asked.node, partitions.collect()));
        if self.holds_offsets {
            self.held_offsets.push_back(asked);
        } else {
            self.list_offsets(&asked);
        }
    }

    /// Answers a ListOffsets by `offsets` and `offset_of_time`.
    pub(super) fn list_offsets(&mut self, asked: &Asked) {
        let request: ListOffsetsRequest = asked.decode();
        let ((start, end, code), of_time) = (self.offsets, self.offset_of_time);
        let topic = |topic: &list_offsets_request::ListOffsetsTopic| {
            let partition = |p: &list_offsets_request::ListOffsetsPartition| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code)
                    .with_offset(match p.timestamp {
                        -2 => start,
                        -1 => end,
                        _ => of_time,
                    })
            };
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partitions.iter().map(partition).collect())
        };
        let response =
            ListOffsetsResponse::default().with_topics(request.topics.iter().map(topic).collect());
        self.answer::<ListOffsetsRequest>(asked, &response);
    }

    /// The oldest Fetch without a response.
    pub(super) fn next_fetch(&mut self) -> Asked {
        self.settle();
        self.fetches.pop_front().expect("one is in flight")
    }

    /// Answers a Fetch of one topic and lets the client unpack the records.
    pub(super) fn fetched(&mut self, asked: &Asked, partitions: Vec<PartitionData>) {
        self.respond(asked, partitions);
        self.settle();
    }

    /// Answers a Fetch of one topic. The records are not unpacked yet.
    pub(super) fn respond(&mut self, asked: &Asked, partitions: Vec<PartitionData>) {
        let request = asked.fetch();
        let topic = FetchableTopicResponse::default()
            .with_topic(request.topics[0].topic.clone())
            .with_topic_id(request.topics[0].topic_id)
            .with_partitions(partitions);
        let response = FetchResponse::default().with_responses(vec![topic]);
        self.answer::<FetchRequest>(asked, &response);
    }

    /// Answers a Produce of one partition.
    pub(super) fn produced(&mut self, asked: &Asked, code: i16, base: i64, throttle_ms: i32) {
        let request: ProduceRequest = asked.decode();
        let data = &request.topic_data[0];
        let partition = PartitionProduceResponse::default()
            .with_index(data.partition_data[0].index)
            .with_error_code(code)
            .with_base_offset(base);
        let topic = TopicProduceResponse::default()
            .with_name(data.name.clone())
            .with_topic_id(data.topic_id)
            .with_partition_responses(vec![partition]);
        let response = ProduceResponse::default()
            .with_responses(vec![topic])
            .with_throttle_time_ms(throttle_ms);
        self.answer::<ProduceRequest>(asked, &response);
        self.settle();
    }

    /// The broker closes one of its connections.
    pub(super) fn cut(&mut self, link: LinkId) {
        self.connections.remove(&link);
        self.client.on_closed(link, self.now);
        self.settle();
    }

    /// The broker dies: its connections end, and new ones are refused.
    pub(super) fn kill(&mut self, node: i32) {
        self.down.insert(node);
        let of_node = |(link, c): (&LinkId, &Connection)| (c.node == node).then_some(*link);
        let links: Vec<_> = self.connections.iter().filter_map(of_node).collect();
        for link in links {
            self.cut(link);
        }
    }

    pub(super) fn is_open(&self, link: LinkId) -> bool {
        self.connections.contains_key(&link)
    }

    /// Takes the events emitted so far.
    pub(super) fn take(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}
