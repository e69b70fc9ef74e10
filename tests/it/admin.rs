//! Operations of an operator on a cluster: moving leaders, adding partitions, deleting topics and
//! records, setting configs and quotas, changing passwords and certificates. A blocking client of
//! the tests, with one socket per call.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use aws_lc_rs::pbkdf2;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterPartitionReassignmentsRequest, AlterUserScramCredentialsRequest,
    BrokerId, CreateAclsRequest, CreatePartitionsRequest, DeleteAclsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion, Request, StrBytes};

use super::client::PATIENCE;
use super::ground::random;

/// Error code: the partition already has the requested leader.
const ELECTION_NOT_NEEDED: i16 = 84;
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const SCRAM_SHA_256: i8 = 1;
/// The minimum that Kafka accepts.
const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

const LITERAL: i8 = 3;

/// The operation of an ACL, with Kafka's numbers.
#[derive(Clone, Copy, Debug)]
#[repr(i8)]
pub enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Describe = 8,
}

/// The permission of an ACL, with Kafka's numbers.
#[derive(Clone, Copy, Debug)]
#[repr(i8)]
pub enum Permission {
    Deny = 2,
    Allow = 3,
}

/// A partition as the cluster's metadata reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub partition: i32,
    /// Node id of the leader; -1 if there is none.
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// A client for the first broker of a bootstrap list that responds. In KRaft any broker forwards
/// the requests.
#[derive(Clone, Debug)]
pub struct Admin {
    bootstrap: Vec<String>,
}

impl Admin {
    pub fn of(bootstrap: &str) -> Self {
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        Self { bootstrap }
    }

    /// A topic's partitions in order, with the brokers that have replicas. Empty if there is no
    /// such topic.
    pub fn partitions(&self, topic: &str) -> Vec<Placed> {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(false);
        // A version that Redpanda supports too.
        let response = self.ask(7, &request);
        let known = response.topics.into_iter().filter(|it| it.error_code == 0);
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
        let mut placed: Vec<_> = known
            .flat_map(|topic| topic.partitions)
            .map(|it| Placed {
                partition: it.partition_index,
                leader: it.leader_id.0,
                replicas: ids(&it.replica_nodes),
                in_sync: ids(&it.isr_nodes),
            })
            .collect();
        placed.sort_by_key(|it| it.partition);
        placed
    }

    /// Waits for a partition's leader and returns its node.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        let find = || {
            let mut all = self.partitions(topic).into_iter();
            all.find(|it| it.partition == partition && it.leader >= 0)
        };
        wait("a leader", find).leader
    }

    /// Waits until all replicas of these topics are in sync and each partition has a leader.
    pub fn wait_in_sync(&self, topics: &[&str]) {
        for topic in topics {
            wait("all replicas in sync", || {
                let all = self.partitions(topic);
                let whole = |it: &Placed| it.leader >= 0 && it.in_sync.len() == it.replicas.len();
                (!all.is_empty() && all.iter().all(whole)).then_some(())
            });
        }
    }

    /// Makes a node the leader of a partition that it has a replica of.
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) {
        let now = self.partitions(topic).remove(partition as usize);
        let mut replicas = vec![node];
        replicas.extend(now.replicas.iter().filter(|&&it| it != node));
        assert_eq!(replicas.len(), now.replicas.len(), "{node} has a replica");
        let moved = ReassignablePartition::default()
            .with_partition_index(partition)
            .with_replicas(Some(replicas.iter().map(|&id| BrokerId(id)).collect()));
        let moved = ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![moved]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]);
        let response = self.ask(0, &request);
        ok(topic, response.error_code);
        for partition in response.responses.iter().flat_map(|it| &it.partitions) {
            ok(topic, partition.error_code);
        }
        wait("the reassignment", || {
            let now = self.partitions(topic).remove(partition as usize);
            (now.replicas == replicas && now.in_sync.contains(&node)).then_some(())
        });
        // The first replica is the preferred leader.
        let elected = TopicPartitions::default()
            .with_topic(name(topic))
            .with_partitions(vec![partition]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![elected]));
        let response = self.ask(1, &request);
        ok(topic, response.error_code);
        let results = response.replica_election_results.iter();
        for result in results.flat_map(|it| &it.partition_result) {
            if result.error_code != ELECTION_NOT_NEEDED {
                ok(topic, result.error_code);
            }
        }
    }

    /// Raises the number of a topic's partitions to `count`.
    pub fn add_partitions(&self, topic: &str, count: i32) {
        let grown = CreatePartitionsTopic::default()
            .with_name(name(topic))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![grown])
            .with_timeout_ms(10_000);
        for result in self.ask(1, &request).results {
            ok(topic, result.error_code);
        }
        wait("leaders of new partitions", || {
            let all = self.partitions(topic);
            (all.len() as i32 == count && all.iter().all(|it| it.leader >= 0)).then_some(())
        });
    }

    /// Deletes a topic and waits until no broker lists it.
    pub fn delete_topic(&self, topic: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(10_000);
        for result in self.ask(3, &request).responses {
            ok(topic, result.error_code);
        }
        wait("a deleted topic's end", || {
            self.partitions(topic).is_empty().then_some(())
        });
    }

    /// Sets configs of a topic (IncrementalAlterConfigs).
    pub fn set_configs(&self, topic: &str, configs: &[(&str, &str)]) {
        self.alter_configs(TOPIC_RESOURCE, topic, configs);
    }

    /// Sets configs of a running broker, which must be the only one of this bootstrap list.
    pub fn set_broker_configs(&self, node: usize, configs: &[(&str, &str)]) {
        assert_eq!(self.bootstrap.len(), 1, "only the broker itself takes them");
        self.alter_configs(BROKER_RESOURCE, &node.to_string(), configs);
    }

    fn alter_configs(&self, kind: i8, resource: &str, configs: &[(&str, &str)]) {
        let config = |(key, value): &(&str, &str)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        };
        let altered = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(configs.iter().map(config).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![altered]);
        for result in self.ask(1, &request).responses {
            let why = result.error_message;
            assert_eq!(result.error_code, 0, "{resource}: {why:?}");
        }
    }

    /// Sets a user's password for SCRAM-SHA-256, and creates the user if necessary.
    pub fn set_password(&self, user: &str, password: &str) {
        let salt = random().to_be_bytes();
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            SCRAM_ITERATIONS,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text(user))
            .with_mechanism(SCRAM_SHA_256)
            .with_iterations(SCRAM_ITERATIONS.get() as i32)
            .with_salt(Bytes::copy_from_slice(&salt))
            .with_salted_password(Bytes::copy_from_slice(&salted));
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        for result in self.ask(0, &request).results {
            ok(user, result.error_code);
        }
    }

    /// Allows a user an operation on a topic, or denies it. A denial takes precedence. `*` is every
    /// topic.
    pub fn rule(&self, user: &str, topic: &str, operation: Operation, permission: Permission) {
        let creation = AclCreation::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(topic))
            .with_resource_pattern_type(LITERAL)
            .with_principal(text(&format!("User:{user}")))
            .with_host(text("*"))
            .with_operation(operation as i8)
            .with_permission_type(permission as i8);
        let request = CreateAclsRequest::default().with_creations(vec![creation]);
        for result in self.ask(1, &request).results {
            ok(topic, result.error_code);
        }
    }

    /// Removes an ACL that `rule` has set.
    pub fn unrule(&self, user: &str, topic: &str, operation: Operation, permission: Permission) {
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(TOPIC_RESOURCE)
            .with_resource_name_filter(Some(text(topic)))
            .with_pattern_type_filter(LITERAL)
            .with_principal_filter(Some(text(&format!("User:{user}"))))
            .with_host_filter(Some(text("*")))
            .with_operation(operation as i8)
            .with_permission_type(permission as i8);
        let request = DeleteAclsRequest::default().with_filters(vec![filter]);
        for result in self.ask(1, &request).filter_results {
            ok(topic, result.error_code);
            assert_eq!(result.matching_acls.len(), 1, "{topic}: the rule was there");
        }
    }

    /// Deletes all records below an offset.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let leader = self.leader(topic, partition);
        let request = MetadataRequest::default().with_topics(Some(vec![]));
        let brokers = self.ask(7, &request).brokers.into_iter();
        let mut brokers = brokers.filter(|it| it.node_id.0 == leader);
        let broker = brokers.next().expect("a leader is a broker");
        let broker = Self::of(&format!("{}:{}", broker.host.as_str(), broker.port));
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(below);
        let deleted = DeleteRecordsTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![deleted])
            .with_timeout_ms(10_000);
        let response = broker.ask(1, &request);
        for result in response.topics.iter().flat_map(|it| &it.partitions) {
            ok(topic, result.error_code);
        }
    }

    /// Sets the bytes per second that clients of this id may produce to each broker. `None`: no
    /// limit.
    pub fn produce_quota(&self, client_id: &str, rate: Option<f64>) {
        let entity = EntityData::default()
            .with_entity_type(text("client-id"))
            .with_entity_name(Some(text(client_id)));
        let op = OpData::default()
            .with_key(text("producer_byte_rate"))
            .with_value(rate.unwrap_or_default())
            .with_remove(rate.is_none());
        let entry = EntryData::default()
            .with_entity(vec![entity])
            .with_ops(vec![op]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        for entry in self.ask(0, &request).entries {
            ok(client_id, entry.error_code);
        }
    }

    /// Sends a request to the first broker that responds.
    fn ask<R: Request>(&self, version: i16, request: &R) -> R::Response {
        let mut last = None;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for broker in &self.bootstrap {
                match exchange(broker, version, request) {
                    Ok(response) => return response,
                    Err(error) => last = Some((broker, error)),
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no broker answers: {last:?}");
    }
}

fn exchange<R: Request>(broker: &str, version: i16, request: &R) -> std::io::Result<R::Response> {
    let address = broker.parse().expect("tests use addresses, not names");
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    socket.set_nodelay(true)?;
    // If a broker is frozen, try the next one.
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(text("tests")));
    let mut frame = BytesMut::zeroed(4);
    header
        .encode(&mut frame, R::header_version(version))
        .expect("a header");
    request.encode(&mut frame, version).expect("a request");
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    socket.write_all(&frame)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut answer)?;
    let mut answer = Bytes::from(answer);
    let header = <R::Response as HeaderVersion>::header_version(version);
    let _header = ResponseHeader::decode(&mut answer, header).expect("a header");
    Ok(R::Response::decode(&mut answer, version).expect("a response"))
}

fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "the cluster never had {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ok(what: &str, code: i16) {
    assert_eq!(code, 0, "{what}: Kafka refused with error {code}");
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
