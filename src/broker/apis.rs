//! The APIs and versions that are offered, and how a request of each is answered.

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, FetchRequest, ProduceRequest};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

use super::cluster::Cluster;
use super::context::RequestContext;
use super::fetch::Poll;
use super::group_members::{GroupAnswer, GroupWait};
use super::produce::Produced;
use super::shape;
use super::{NodeId, Profile, Violation};
use crate::model::Now;

/// Kafka 4.3's ranges, cut to what the codec crate encodes (ListOffsets would go to 11). Produce is
/// offered from 0, as Kafka does for librdkafka's feature detection (KAFKA-18659), though 3 is the
/// first that is served.
const KAFKA_4_3: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::JoinGroup, 2, 9),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    // Version 5 is for `transaction.version` 2, which is not offered.
    (ApiKey::TxnOffsetCommit, 0, 4),
];

/// Redpanda's ranges as `src/v/kafka/server/handlers/*.h` of redpanda-data/redpanda has them
/// (the template arguments of each `…_handler`; Metadata: "Keep this at v8"), cut to what the
/// codec crate encodes. DeleteRecords and AlterConfigs were not looked up and are Kafka's. Up
/// to 25.2: no version that has topic ids.
const REDPANDA: &[(ApiKey, i16, i16)] = &redpanda(8, 11);

/// From 25.3 on it has topic ids, so Metadata goes to 10 at least; that Fetch goes to 13 is hearsay
/// (text about `fetch.h`), and Metadata's exact end is not known.
const REDPANDA_WITH_IDS: &[(ApiKey, i16, i16)] = &redpanda(12, 13);

const fn redpanda(metadata: i16, fetch: i16) -> [(ApiKey, i16, i16); 28] {
    [
        (ApiKey::Produce, 0, 7),
        (ApiKey::Fetch, 4, fetch),
        (ApiKey::ListOffsets, 1, 4),
        (ApiKey::Metadata, 0, metadata),
        (ApiKey::FindCoordinator, 0, 3),
        (ApiKey::ApiVersions, 0, 3),
        (ApiKey::CreateTopics, 2, 6),
        (ApiKey::DeleteTopics, 1, 5),
        (ApiKey::DeleteRecords, 0, 2),
        (ApiKey::InitProducerId, 0, 3),
        (ApiKey::OffsetForLeaderEpoch, 2, 4),
        (ApiKey::AddPartitionsToTxn, 0, 3),
        (ApiKey::EndTxn, 0, 3),
        (ApiKey::DescribeConfigs, 1, 4),
        (ApiKey::AlterConfigs, 0, 2),
        (ApiKey::CreatePartitions, 0, 3),
        (ApiKey::IncrementalAlterConfigs, 0, 1),
        // Of groups, ranges that every client still knows; Redpanda's own were not looked up.
        (ApiKey::JoinGroup, 2, 6),
        (ApiKey::SyncGroup, 0, 4),
        (ApiKey::Heartbeat, 0, 4),
        (ApiKey::LeaveGroup, 0, 4),
        (ApiKey::OffsetCommit, 2, 8),
        (ApiKey::OffsetFetch, 1, 7),
        (ApiKey::DescribeGroups, 0, 5),
        (ApiKey::ListGroups, 0, 4),
        (ApiKey::DeleteGroups, 0, 2),
        (ApiKey::AddOffsetsToTxn, 0, 3),
        (ApiKey::TxnOffsetCommit, 0, 3),
    ]
}

fn offered(profile: Profile) -> &'static [(ApiKey, i16, i16)] {
    match profile {
        Profile::Kafka43 => KAFKA_4_3,
        Profile::Redpanda => REDPANDA,
        Profile::RedpandaWithIds => REDPANDA_WITH_IDS,
    }
}

/// How a request is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole response frame. The connection is not read for `mute_ms` after it (KIP-219).
    Frame { bytes: Vec<u8>, mute_ms: u32 },
    /// A Fetch that may have to wait.
    Poll { poll: Box<Poll>, correlation: i32 },
    /// A JoinGroup or SyncGroup that may have to wait for other members.
    Group { wait: GroupWait, correlation: i32 },
    /// A whole response frame that is sent after `after_ms`.
    Late { bytes: Vec<u8>, after_ms: u32 },
    /// No response, because the client wants none.
    Silence,
    /// No response: the connection is cut.
    Cut,
}

/// Answers one request: a frame without its length.
pub(super) fn serve(
    cluster: &mut Cluster,
    node: NodeId,
    mut frame: Bytes,
    now: Now,
) -> Result<Answer, Violation> {
    let head = Head::read(&mut frame)?;
    let (api, version) = (head.api, head.version);
    let range = offered(cluster.settings.profile)
        .iter()
        .find(|(key, ..)| *key == api);
    let Some(&(_, min, max)) = range else {
        return Err(head.not_offered());
    };
    if !(min..=max).contains(&version) {
        // KIP-511: the response to a version that is too new is in version 0.
        return match api {
            ApiKey::ApiVersions => Ok(head.api_versions(cluster, 0)),
            _ => Err(head.not_offered()),
        };
    }
    if !shape::is_decodable(api, version, &frame) {
        return Err(head.malformed());
    }
    let ctx = RequestContext { node, version, now };
    match api {
        ApiKey::ApiVersions => Ok(head.api_versions(cluster, version)),
        ApiKey::Produce => {
            let request: ProduceRequest = head.decode(&mut frame)?;
            let produced = cluster.produce(ctx).produce(&request);
            Ok(answer_produce(&head, &produced))
        }
        ApiKey::Fetch => {
            let request: FetchRequest = head.decode(&mut frame)?;
            let poll = Box::new(cluster.fetch().open(ctx, request));
            let correlation = head.correlation;
            Ok(Answer::Poll { poll, correlation })
        }
        ApiKey::ListOffsets => head.plain(frame, |q| cluster.offsets(ctx).list_offsets(q)),
        ApiKey::OffsetForLeaderEpoch => {
            head.plain(frame, |q| cluster.offsets(ctx).offsets_for_epochs(q))
        }
        ApiKey::Metadata => head.plain(frame, |q| {
            cluster.create_asked(q);
            cluster.metadata(ctx).metadata(q)
        }),
        ApiKey::FindCoordinator => {
            head.plain(frame, |q| cluster.transactions(ctx).find_coordinator(q))
        }
        ApiKey::InitProducerId => {
            head.plain(frame, |q| cluster.transactions(ctx).init_producer_id(q))
        }
        ApiKey::AddOffsetsToTxn => {
            head.plain(frame, |q| cluster.group_offsets(ctx).add_to_transaction(q))
        }
        ApiKey::TxnOffsetCommit => head.plain(frame, |q| {
            cluster.group_offsets(ctx).commit_in_transaction(q)
        }),
        ApiKey::AddPartitionsToTxn => {
            head.plain(frame, |q| cluster.transactions(ctx).add_partitions(q))
        }
        ApiKey::EndTxn => {
            let answer = head.plain(frame, |q| cluster.transactions(ctx).end_transaction(q));
            cluster.apply_committed_offsets();
            answer
        }
        ApiKey::JoinGroup | ApiKey::SyncGroup => serve_group(&head, cluster, ctx, frame),
        ApiKey::Heartbeat => head.plain(frame, |q| cluster.group_members(ctx).heartbeat(q)),
        ApiKey::LeaveGroup => head.plain(frame, |q| cluster.group_members(ctx).leave(q)),
        ApiKey::DescribeGroups => head.plain(frame, |q| cluster.group_members(ctx).describe(q)),
        ApiKey::ListGroups => head.plain(frame, |q| cluster.group_members(ctx).list(q)),
        ApiKey::DeleteGroups => head.plain(frame, |q| cluster.group_members(ctx).delete(q)),
        ApiKey::OffsetCommit => head.plain(frame, |q| cluster.group_offsets(ctx).commit(q)),
        ApiKey::OffsetFetch => head.plain(frame, |q| cluster.group_offsets(ctx).fetch(q)),
        ApiKey::CreateTopics => head.plain(frame, |q| cluster.admin(ctx).create_topics(q)),
        ApiKey::DeleteTopics => head.plain(frame, |q| cluster.admin(ctx).delete_topics(q)),
        ApiKey::DeleteRecords => head.plain(frame, |q| cluster.admin(ctx).delete_records(q)),
        ApiKey::CreatePartitions => head.plain(frame, |q| cluster.admin(ctx).create_partitions(q)),
        ApiKey::DescribeConfigs => head.plain(frame, |q| cluster.configs(ctx).describe_configs(q)),
        ApiKey::AlterConfigs => head.plain(frame, |q| cluster.configs(ctx).alter_configs(q)),
        ApiKey::IncrementalAlterConfigs => {
            let alter = |q: &_| cluster.configs(ctx).alter_configs_incrementally(q);
            head.plain(frame, alter)
        }
        _ => Err(head.not_offered()),
    }
}

/// Answers a JoinGroup or SyncGroup, or lets it wait.
fn serve_group(
    head: &Head,
    cluster: &mut Cluster,
    ctx: RequestContext,
    mut body: Bytes,
) -> Result<Answer, Violation> {
    let (api, version, correlation) = (head.api, head.version, head.correlation);
    let (bytes, wait) = if api == ApiKey::JoinGroup {
        match cluster.group_members(ctx).join(&head.decode(&mut body)?) {
            GroupAnswer::Now(response) => (frame(api, version, correlation, &response), None),
            GroupAnswer::Wait(wait) => (Vec::new(), Some(wait)),
        }
    } else {
        match cluster.group_members(ctx).sync(&head.decode(&mut body)?) {
            GroupAnswer::Now(response) => (frame(api, version, correlation, &response), None),
            GroupAnswer::Wait(wait) => (Vec::new(), Some(wait)),
        }
    };
    Ok(match wait {
        Some(wait) => Answer::Group { wait, correlation },
        None => Answer::Frame { bytes, mute_ms: 0 },
    })
}

fn answer_produce(head: &Head, produced: &Produced) -> Answer {
    if produced.lost {
        return Answer::Cut;
    }
    if !produced.acknowledged {
        // As Kafka does: without a response, only a closed connection reports the error.
        return if produced.failed {
            Answer::Cut
        } else {
            Answer::Silence
        };
    }
    let response = &produced.response;
    let bytes = frame(ApiKey::Produce, head.version, head.correlation, response);
    match produced.delay_ms {
        Some(after_ms) => Answer::Late { bytes, after_ms },
        None => Answer::Frame {
            bytes,
            mute_ms: u32::try_from(response.throttle_time_ms).unwrap_or(0),
        },
    }
}

/// A response frame with its length in front.
pub(super) fn frame<R>(api: ApiKey, version: i16, correlation: i32, response: &R) -> Vec<u8>
where
    R: Encodable + HeaderVersion,
{
    let mut out = vec![0; 4];
    out.extend_from_slice(&correlation.to_be_bytes());
    if R::header_version(version) >= 1 {
        out.push(0); // No tagged fields.
    }
    // Encoding fails if a field is set that the version lacks. The tests go through all versions.
    if let Err(error) = response.encode(&mut out, version) {
        panic!("the answer to {api:?} version {version} can't be encoded: {error}");
    }
    let len = u32::try_from(out.len() - 4).expect("bounded by frame_bytes_max and the tables");
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// The fields of a request's header that the broker uses.
#[derive(Debug)]
struct Head {
    api: ApiKey,
    version: i16,
    correlation: i32,
}

impl Head {
    /// Takes the header off a frame. The client's id is skipped, because nothing depends on it.
    fn read(frame: &mut Bytes) -> Result<Self, Violation> {
        let malformed = |api, version| Violation::Malformed { api, version };
        if frame.len() < 8 {
            return Err(malformed(-1, -1));
        }
        let (key, version, correlation) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
        let api =
            ApiKey::try_from(key).map_err(|()| Violation::NotOffered { api: key, version })?;
        let flexible = api.request_header_version(version) >= 2;
        let after_id = after_client_id(frame, flexible).ok_or(malformed(key, version))?;
        frame.advance(after_id);
        Ok(Self {
            api,
            version,
            correlation,
        })
    }

    const fn malformed(&self) -> Violation {
        let (api, version) = (self.api as i16, self.version);
        Violation::Malformed { api, version }
    }

    const fn not_offered(&self) -> Violation {
        let (api, version) = (self.api as i16, self.version);
        Violation::NotOffered { api, version }
    }

    fn decode<Q: Decodable>(&self, body: &mut Bytes) -> Result<Q, Violation> {
        Q::decode(body, self.version).map_err(|_| self.malformed())
    }

    fn plain<Q: Request>(
        &self,
        mut body: Bytes,
        answer: impl FnOnce(&Q) -> Q::Response,
    ) -> Result<Answer, Violation> {
        let request: Q = self.decode(&mut body)?;
        let response = answer(&request);
        let bytes = frame(self.api, self.version, self.correlation, &response);
        Ok(Answer::Frame { bytes, mute_ms: 0 })
    }

    fn api_versions(&self, cluster: &Cluster, version: i16) -> Answer {
        let range = |&(key, min, max): &(ApiKey, i16, i16)| {
            ApiVersion::default()
                .with_api_key(key as i16)
                .with_min_version(min)
                .with_max_version(max)
        };
        let error = if self.version == version {
            0
        } else {
            ResponseError::UnsupportedVersion.code()
        };
        let offered = offered(cluster.settings.profile);
        let response = ApiVersionsResponse::default()
            .with_error_code(error)
            .with_api_keys(offered.iter().map(range).collect());
        let bytes = frame(ApiKey::ApiVersions, version, self.correlation, &response);
        Answer::Frame { bytes, mute_ms: 0 }
    }
}

/// Bytes of the client id and, in flexible versions, of the tagged fields after it.
fn after_client_id(bytes: &[u8], flexible: bool) -> Option<usize> {
    let len = i16::from_be_bytes(*bytes.first_chunk()?);
    let mut at = 2 + usize::try_from(len).unwrap_or(0);
    bytes.get(..at)?;
    if flexible {
        for _ in 0..varint(bytes, &mut at)? {
            varint(bytes, &mut at)?;
            let len = varint(bytes, &mut at)?;
            at = at
                .checked_add(len as usize)
                .filter(|end| *end <= bytes.len())?;
        }
    }
    Some(at)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
