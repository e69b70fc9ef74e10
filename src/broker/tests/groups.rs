//! Consumer groups as clients use them: joining, rebalances, expiry, static members, committed
//! offsets, and offsets that are part of a transaction.

use super::*;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, EndTxnRequest,
    GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, TxnOffsetCommitRequest,
};

type Versions = std::ops::RangeInclusive<i16>;

/// Adds the versions of an API, each with the bytes of a request.
type Add<'a> = dyn FnMut(ApiKey, Versions, &dyn Fn(i16) -> Vec<u8>) + 'a;

/// Adds every version of every API of groups, for the tests of the wire.
pub(super) fn one_of_each(add: &mut Add<'_>) {
    add(ApiKey::JoinGroup, 2..=9, &|v| {
        // A group of its own for each version: no other member is waited for.
        let own = GroupId(format!("g{v}").into());
        encode(v, 5, &join_request(v, "", None).with_group_id(own))
    });
    add(ApiKey::SyncGroup, 0..=5, &|v| {
        encode(v, 5, &sync_request(v, "m", 1, &["m"]))
    });
    add(ApiKey::Heartbeat, 0..=4, &|v| {
        encode(v, 5, &heartbeat_request(v, "m", 1))
    });
    add(ApiKey::LeaveGroup, 0..=5, &|v| {
        encode(v, 5, &leave_request(v, "m"))
    });
    add(ApiKey::OffsetCommit, 2..=9, &|v| {
        encode(v, 5, &commit_request(v, "", -1, 7))
    });
    add(ApiKey::OffsetFetch, 1..=9, &|v| {
        encode(v, 5, &fetch_request_of(v, false))
    });
    add(ApiKey::DescribeGroups, 0..=6, &|v| {
        let request = DescribeGroupsRequest::default().with_groups(vec![group()]);
        encode(v, 5, &request)
    });
    add(ApiKey::ListGroups, 0..=5, &|v| {
        let request = ListGroupsRequest::default();
        let request = match v {
            ..4 => request,
            _ => request.with_states_filter(vec!["Stable".into()]),
        };
        encode(v, 5, &request)
    });
    add(ApiKey::DeleteGroups, 0..=2, &|v| {
        encode(
            v,
            5,
            &DeleteGroupsRequest::default().with_groups_names(vec![group()]),
        )
    });
    add(ApiKey::AddOffsetsToTxn, 0..=4, &|v| {
        encode(v, 5, &add_request((9, 0)))
    });
    add(ApiKey::TxnOffsetCommit, 0..=4, &|v| {
        encode(v, 5, &txn_commit_request(v, (9, 0), 3))
    });
}

fn group() -> GroupId {
    GroupId("g".into())
}

fn join_request(version: i16, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(Bytes::from_static(b"meta"));
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(member.to_owned().into())
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    match version {
        ..5 => request,
        _ => request.with_group_instance_id(instance.map(|it| it.to_owned().into())),
    }
}

fn sync_request(version: i16, member: &str, generation: i32, all: &[&str]) -> SyncGroupRequest {
    let assignments = all.iter().map(|id| {
        SyncGroupRequestAssignment::default()
            .with_member_id((*id).to_owned().into())
            .with_assignment(Bytes::from(format!("for {id}")))
    });
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(member.to_owned().into())
        .with_assignments(assignments.collect());
    match version {
        ..5 => request,
        _ => request
            .with_protocol_type(Some("consumer".into()))
            .with_protocol_name(Some("range".into())),
    }
}

fn heartbeat_request(_: i16, member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(member.to_owned().into())
}

fn leave_request(version: i16, member: &str) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group());
    match version {
        ..3 => request.with_member_id(member.to_owned().into()),
        _ => {
            let identity = MemberIdentity::default().with_member_id(member.to_owned().into());
            request.with_members(vec![identity])
        }
    }
}

fn commit_request(version: i16, member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some("note".into()));
    let partition = match version {
        ..6 => partition,
        _ => partition.with_committed_leader_epoch(4),
    };
    let topic = OffsetCommitRequestTopic::default().with_name(name("t"));
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member.to_owned().into())
        .with_topics(vec![topic.with_partitions(vec![partition])])
}

fn fetch_request_of(version: i16, stable: bool) -> OffsetFetchRequest {
    let request = match version {
        ..8 => {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0]);
            OffsetFetchRequest::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]))
        }
        _ => {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0]);
            let asked = OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![asked])
        }
    };
    match version {
        ..7 => request,
        _ => request.with_require_stable(stable),
    }
}

fn add_request((producer, epoch): (i64, i16)) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(TransactionalId("tx".into()))
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_group_id(group())
}

fn txn_commit_request(
    _: i16,
    (producer, epoch): (i64, i16),
    offset: i64,
) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(StrBytes::new()));
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t"));
    TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId("tx".into()))
        .with_group_id(group())
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_topics(vec![topic.with_partitions(vec![partition])])
}

/// A member of the group on a connection of its own.
struct Member {
    c: ConnectionId,
    id: String,
    generation: i32,
}

impl Rig {
    /// Sends a JoinGroup of a member that may have an id. The answer may have to wait.
    fn send_join(&mut self, c: ConnectionId, id: &str, instance: Option<&str>) {
        self.send(c, 9, &join_request(9, id, instance));
    }

    fn join_answer(&mut self, c: ConnectionId) -> Option<JoinGroupResponse> {
        self.answer::<JoinGroupRequest>(c, 9)
    }

    /// A new member asks for an id and joins with it.
    fn begin_join(&mut self) -> Member {
        let c = self.connect(1);
        self.send_join(c, "", None);
        let required = self.join_answer(c).expect("at once");
        assert_eq!(required.error_code, ResponseError::MemberIdRequired.code());
        let id = required.member_id.to_string();
        self.send_join(c, &id, None);
        Member {
            c,
            id,
            generation: -1,
        }
    }

    /// The member's answer to JoinGroup has come. Returns the members if it leads.
    fn end_join(&mut self, member: &mut Member) -> Vec<String> {
        let joined = self.join_answer(member.c).expect("everybody has joined");
        assert_eq!(joined.error_code, 0);
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        member.generation = joined.generation_id;
        joined
            .members
            .iter()
            .map(|it| it.member_id.to_string())
            .collect()
    }

    fn heartbeat(&mut self, member: &Member) -> i16 {
        let request = heartbeat_request(4, &member.id, member.generation);
        self.ask(member.c, 4, &request).error_code
    }

    fn committed(&mut self, c: ConnectionId, stable: bool) -> (i64, i16) {
        let response = self.ask(c, 9, &fetch_request_of(9, stable));
        let found = &response.groups[0].topics[0].partitions[0];
        (found.committed_offset, found.error_code)
    }
}

/// A group of two in its stable state: the leader first.
fn two_members() -> (Rig, Member, Member) {
    let (mut rig, _) = Rig::with_topic(&[]);
    let mut a = rig.begin_join();
    assert_eq!(rig.end_join(&mut a), [a.id.clone()]);
    assert_eq!(
        rig.ask(a.c, 5, &sync_request(5, &a.id, a.generation, &[&a.id]))
            .error_code,
        0
    );
    let mut b = rig.begin_join();
    assert!(
        rig.join_answer(b.c).is_none(),
        "the first member has not joined again"
    );
    assert_eq!(rig.heartbeat(&a), ResponseError::RebalanceInProgress.code());
    rig.send_join(a.c, &a.id, None);
    let mut all = rig.end_join(&mut a);
    assert!(
        rig.end_join(&mut b).is_empty(),
        "only the leader learns the members"
    );
    all.sort();
    let mut expected = [a.id.clone(), b.id.clone()];
    expected.sort();
    assert_eq!(all, expected);
    rig.send(b.c, 5, &sync_request(5, &b.id, b.generation, &[]));
    assert!(
        rig.answer::<SyncGroupRequest>(b.c, 5).is_none(),
        "the leader's assignments are due"
    );
    let own = rig.ask(
        a.c,
        5,
        &sync_request(5, &a.id, a.generation, &[&a.id, &b.id]),
    );
    let other = rig
        .answer::<SyncGroupRequest>(b.c, 5)
        .expect("with the leader's");
    assert_eq!(own.assignment, format!("for {}", a.id));
    assert_eq!(other.assignment, format!("for {}", b.id));
    (rig, a, b)
}

#[test]
fn members_join_and_sync_together() {
    let (mut rig, a, b) = two_members();
    assert_eq!((rig.heartbeat(&a), rig.heartbeat(&b)), (0, 0));
    let request = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let described = rig.ask(a.c, 5, &request).groups.remove(0);
    assert_eq!(
        (&*described.group_state, described.members.len()),
        ("Stable", 2)
    );
    let listed = rig.ask(a.c, 5, &ListGroupsRequest::default()).groups;
    assert_eq!((listed.len(), &*listed[0].group_type), (1, "classic"));
    let deleted = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let deleted = rig.ask(a.c, 2, &deleted).results.remove(0).error_code;
    assert_eq!(deleted, ResponseError::NonEmptyGroup.code());
}

#[test]
fn a_member_that_leaves_or_falls_silent_is_replaced_by_the_others() {
    for leaves in [true, false] {
        let (mut rig, mut a, b) = two_members();
        if leaves {
            let left = rig.ask(b.c, 5, &leave_request(5, &b.id));
            assert_eq!(left.members[0].error_code, 0);
        } else {
            for _ in 0..3 {
                rig.pass(4_000);
                rig.heartbeat(&a);
            }
        }
        assert_eq!(rig.heartbeat(&a), ResponseError::RebalanceInProgress.code());
        rig.send_join(a.c, &a.id, None);
        assert_eq!(rig.end_join(&mut a), [a.id.clone()], "alone now");
        assert_eq!(rig.heartbeat(&b), ResponseError::UnknownMemberId.code());
    }
}

#[test]
fn a_rebalance_continues_without_a_member_that_does_not_join() {
    let (mut rig, mut a, b) = two_members();
    rig.send_join(a.c, &a.id, None);
    for _ in 0..7 {
        assert!(rig.join_answer(a.c).is_none());
        assert_eq!(rig.heartbeat(&b), ResponseError::RebalanceInProgress.code());
        rig.pass(9_000);
    }
    assert_eq!(
        rig.end_join(&mut a),
        [a.id.clone()],
        "after the rebalance timeout of 60 s"
    );
}

#[test]
fn a_sync_that_waits_ends_with_the_next_rebalance() {
    let (mut rig, _) = Rig::with_topic(&[]);
    let (mut a, mut b) = (rig.begin_join(), rig.begin_join());
    let _ = rig.end_join(&mut a);
    rig.send_join(a.c, &a.id, None);
    let _ = (rig.end_join(&mut a), rig.end_join(&mut b));
    rig.send(b.c, 5, &sync_request(5, &b.id, b.generation, &[]));
    assert!(rig.answer::<SyncGroupRequest>(b.c, 5).is_none());
    let left = rig.ask(a.c, 5, &leave_request(5, &a.id));
    assert_eq!(left.members[0].error_code, 0);
    let ended = rig
        .answer::<SyncGroupRequest>(b.c, 5)
        .expect("the leader has left");
    assert_eq!(ended.error_code, ResponseError::RebalanceInProgress.code());
}

#[test]
fn a_static_member_that_restarts_fences_the_process_before_it() {
    let (mut rig, _) = Rig::with_topic(&[]);
    let (first, second) = (rig.connect(1), rig.connect(1));
    rig.send_join(first, "", Some("host-1"));
    let old = rig.join_answer(first).expect("alone");
    rig.send_join(second, "", Some("host-1"));
    let new = rig.join_answer(second).expect("in its place");
    assert_ne!(old.member_id, new.member_id);
    let request = heartbeat_request(4, &old.member_id, old.generation_id)
        .with_group_instance_id(Some("host-1".into()));
    let fenced = rig.ask(first, 4, &request).error_code;
    assert_eq!(fenced, ResponseError::FencedInstanceId.code());
}

#[test]
fn what_does_not_fit_the_group_is_refused() {
    let (mut rig, a, _) = two_members();
    let c = rig.connect(1);
    let join = |rig: &mut Rig, request: JoinGroupRequest| rig.ask(c, 5, &request).error_code;
    let other = join_request(5, &a.id, None).with_protocol_type("connect".into());
    assert_eq!(
        join(&mut rig, other),
        ResponseError::InconsistentGroupProtocol.code()
    );
    let unknown = join_request(5, "nobody", None);
    assert_eq!(
        join(&mut rig, unknown),
        ResponseError::UnknownMemberId.code()
    );
    let short = join_request(5, &a.id, None).with_session_timeout_ms(1);
    assert_eq!(
        join(&mut rig, short),
        ResponseError::InvalidSessionTimeout.code()
    );
    let nameless = join_request(5, "", Some("i")).with_group_id(GroupId(StrBytes::new()));
    assert_eq!(
        join(&mut rig, nameless),
        ResponseError::InvalidGroupId.code()
    );
    let stale = heartbeat_request(4, &a.id, a.generation - 1);
    assert_eq!(
        rig.ask(c, 4, &stale).error_code,
        ResponseError::IllegalGeneration.code()
    );
}

#[test]
fn offsets_are_committed_by_members_and_outlive_them() {
    let (mut rig, a, b) = two_members();
    let commit = |rig: &mut Rig, member: &str, generation, offset| {
        let response = rig.ask(a.c, 9, &commit_request(9, member, generation, offset));
        response.topics[0].partitions[0].error_code
    };
    assert_eq!(rig.committed(a.c, false), (-1, 0));
    assert_eq!(commit(&mut rig, &a.id, a.generation, 5), 0);
    let stale = commit(&mut rig, &a.id, a.generation - 1, 1);
    assert_eq!(stale, ResponseError::IllegalGeneration.code());
    let outside = commit(&mut rig, "", -1, 1);
    assert_eq!(outside, ResponseError::UnknownMemberId.code());
    for member in [&b, &a] {
        let _ = rig.ask(member.c, 5, &leave_request(5, &member.id));
        rig.pass(61_000);
    }
    assert_eq!(rig.committed(a.c, false), (5, 0), "the group is empty");
    assert_eq!(commit(&mut rig, "", -1, 9), 0, "an administrator resets it");
    assert_eq!(rig.committed(a.c, false), (9, 0));
    let all = OffsetFetchRequest::default().with_groups(vec![
        OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(None),
    ]);
    assert_eq!(
        rig.ask(a.c, 9, &all).groups[0].topics[0].partitions.len(),
        1
    );
    rig.broker.delete_and_recreate("t").unwrap();
    assert_eq!(
        rig.committed(a.c, false),
        (-1, 0),
        "another topic under the name"
    );
}

#[test]
fn offsets_of_a_transaction_count_when_it_is_committed() {
    for committed in [true, false] {
        let (mut rig, c) = Rig::with_topic(&[]);
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId("tx".into())))
            .with_transaction_timeout_ms(10_000);
        let granted = rig.ask(c, 4, &request);
        let producer = (granted.producer_id.0, granted.producer_epoch);
        let commit = |rig: &mut Rig| {
            let response = rig.ask(c, 3, &txn_commit_request(3, producer, 3));
            response.topics[0].partitions[0].error_code
        };
        let early = commit(&mut rig);
        assert_eq!(
            early,
            ResponseError::InvalidTxnState.code(),
            "the group was not added"
        );
        assert_eq!(rig.ask(c, 3, &add_request(producer)).error_code, 0);
        assert_eq!(commit(&mut rig), 0);
        assert_eq!(rig.committed(c, false), (-1, 0), "not yet");
        let unstable = ResponseError::UnstableOffsetCommit.code();
        assert_eq!(rig.committed(c, true), (-1, unstable));
        let end = EndTxnRequest::default()
            .with_transactional_id(TransactionalId("tx".into()))
            .with_producer_id(producer.0.into())
            .with_producer_epoch(producer.1)
            .with_committed(committed);
        assert_eq!(rig.ask(c, 3, &end).error_code, 0);
        let expected = if committed { 3 } else { -1 };
        assert_eq!(rig.committed(c, true), (expected, 0));
    }
}

#[test]
fn a_transaction_that_times_out_commits_no_offset() {
    let (mut rig, c) = Rig::with_topic(&[]);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId("tx".into())))
        .with_transaction_timeout_ms(10_000);
    let granted = rig.ask(c, 4, &request);
    let producer = (granted.producer_id.0, granted.producer_epoch);
    assert_eq!(rig.ask(c, 3, &add_request(producer)).error_code, 0);
    let response = rig.ask(c, 3, &txn_commit_request(3, producer, 3));
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    rig.pass(10_001);
    assert_eq!(rig.committed(c, true), (-1, 0));
}
