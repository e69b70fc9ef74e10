//! The requests of group members and of their administrators.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::context::RequestContext;
use super::groups::{Claim, Groups, Join, JoinStep, Joined};
use super::nodes::Nodes;

/// JoinGroup to LeaveGroup, and DescribeGroups, ListGroups and DeleteGroups.
pub(super) struct GroupApi<'a> {
    pub ctx: RequestContext,
    pub nodes: &'a Nodes,
    pub groups: &'a mut Groups,
}

/// A JoinGroup or SyncGroup that waits for the other members.
#[derive(Clone, Debug)]
pub(super) struct GroupWait {
    api: ApiKey,
    version: i16,
    group: String,
    member: String,
}

/// The response to a request that waited.
pub(super) enum GroupResponse {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
}

/// What a request that may wait leads to.
pub(super) enum GroupAnswer<R> {
    Now(R),
    Wait(GroupWait),
}

impl GroupWait {
    /// The response, if the request can be answered.
    pub(super) fn try_answer(&self, groups: &Groups) -> Option<GroupResponse> {
        if self.api == ApiKey::SyncGroup {
            let synced = groups.synced(&self.group, &self.member)?;
            return Some(GroupResponse::Sync(sync_response(self, groups, synced)));
        }
        let joined = groups.joined(&self.group, &self.member)?;
        let response = join_response(self.version, &self.member, joined);
        Some(GroupResponse::Join(response))
    }

    pub(super) const fn version(&self) -> i16 {
        self.version
    }
}

impl GroupApi<'_> {
    pub(super) fn join(&mut self, request: &JoinGroupRequest) -> GroupAnswer<JoinGroupResponse> {
        let version = self.ctx.version;
        let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        // Before version 1 the session timeout was both.
        let rebalance_ms = match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        };
        let protocols = request.protocols.iter();
        let join = Join {
            member: request.member_id.to_string(),
            instance: text(request.group_instance_id.as_ref()),
            session: millis(request.session_timeout_ms),
            rebalance: millis(rebalance_ms),
            protocol_type: request.protocol_type.to_string(),
            protocols: protocols
                .map(|it| (it.name.to_string(), it.metadata.clone()))
                .collect(),
        };
        let named = request.member_id.to_string();
        let step = self.check_coordinator().and_then(|()| {
            let now = self.ctx.now.mono;
            self.groups
                .join(&request.group_id.0, join, version >= 4, now)
        });
        match step {
            Ok(JoinStep::Member(member)) => GroupAnswer::Wait(GroupWait {
                api: ApiKey::JoinGroup,
                version,
                group: request.group_id.0.to_string(),
                member,
            }),
            Ok(JoinStep::IdRequired(member)) => {
                let error = Err(ResponseError::MemberIdRequired);
                GroupAnswer::Now(join_response(version, &member, error))
            }
            Err(error) => GroupAnswer::Now(join_response(version, &named, Err(error))),
        }
    }

    pub(super) fn sync(&mut self, request: &SyncGroupRequest) -> GroupAnswer<SyncGroupResponse> {
        let assignments = request.assignments.iter();
        let assignments = assignments.map(|it| (it.member_id.to_string(), it.assignment.clone()));
        let assignments = assignments.collect();
        let claim = Claim {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        let wait = GroupWait {
            api: ApiKey::SyncGroup,
            version: self.ctx.version,
            group: request.group_id.0.to_string(),
            member: request.member_id.to_string(),
        };
        let synced = self.check_coordinator().and_then(|()| {
            let now = self.ctx.now.mono;
            self.groups
                .sync(&request.group_id.0, claim, assignments, now)
        });
        match synced {
            Ok(()) => GroupAnswer::Wait(wait),
            Err(error) => GroupAnswer::Now(sync_response(&wait, self.groups, Err(error))),
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let claim = Claim {
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        let heard = self.check_coordinator().and_then(|()| {
            let now = self.ctx.now.mono;
            self.groups.heartbeat(&request.group_id.0, claim, now)
        });
        HeartbeatResponse::default().with_error_code(code(heard))
    }

    pub(super) fn leave(&mut self, request: &LeaveGroupRequest) -> LeaveGroupResponse {
        let response = LeaveGroupResponse::default();
        if let Err(error) = self.check_coordinator() {
            return response.with_error_code(error.code());
        }
        let (group, now) = (&request.group_id.0, self.ctx.now.mono);
        if self.ctx.version < 3 {
            let left = self.groups.leave(group, &request.member_id, None, now);
            return response.with_error_code(code(left));
        }
        let members = request.members.iter().map(|leaving| {
            let instance = leaving.group_instance_id.as_deref();
            let left = self.groups.leave(group, &leaving.member_id, instance, now);
            MemberResponse::default()
                .with_member_id(leaving.member_id.clone())
                .with_group_instance_id(leaving.group_instance_id.clone())
                .with_error_code(code(left))
        });
        response.with_members(members.collect())
    }

    pub(super) fn describe(&self, request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
        let groups = request.groups.iter().map(|id| self.describe_one(id));
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    fn describe_one(&self, id: &GroupId) -> DescribedGroup {
        let described = DescribedGroup::default().with_group_id(id.clone());
        if let Err(error) = self.check_coordinator() {
            return described.with_error_code(error.code());
        }
        let Some(group) = self.groups.get(&id.0) else {
            // As Kafka says it since version 6 (KIP-1043); before, an unknown group is dead.
            let error = match self.ctx.version {
                ..6 => 0,
                _ => ResponseError::GroupIdNotFound.code(),
            };
            return described
                .with_group_state("Dead".into())
                .with_error_code(error);
        };
        let members = group.describe().into_iter().map(|member| {
            let described = DescribedGroupMember::default()
                .with_member_id(member.member.into())
                .with_client_host("/127.0.0.1".into())
                .with_member_metadata(member.metadata)
                .with_member_assignment(member.assignment);
            match self.ctx.version {
                ..4 => described,
                _ => described.with_group_instance_id(member.instance.map(StrBytes::from)),
            }
        });
        described
            .with_group_state(group.state().name().into())
            .with_protocol_type(group.protocol_type().to_owned().into())
            .with_protocol_data(group.protocol().to_owned().into())
            .with_members(members.collect())
    }

    pub(super) fn list(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        let response = ListGroupsResponse::default();
        if let Err(error) = self.check_coordinator() {
            return response.with_error_code(error.code());
        }
        let wanted = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|it| it.eq_ignore_ascii_case(value))
        };
        let shown = self.groups.iter().filter(|(_, group)| {
            wanted(&request.states_filter, group.state().name())
                && wanted(&request.types_filter, "classic")
        });
        let listed = shown.map(|(id, group)| {
            let listed = ListedGroup::default()
                .with_group_id(GroupId(id.to_owned().into()))
                .with_protocol_type(group.protocol_type().to_owned().into());
            let listed = match self.ctx.version {
                ..4 => listed,
                _ => listed.with_group_state(group.state().name().into()),
            };
            match self.ctx.version {
                ..5 => listed,
                _ => listed.with_group_type("classic".into()),
            }
        });
        response.with_groups(listed.collect())
    }

    pub(super) fn delete(&mut self, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
        let results = request.groups_names.iter().map(|id| {
            let deleted = self
                .check_coordinator()
                .and_then(|()| self.groups.delete(&id.0));
            DeletableGroupResult::default()
                .with_group_id(id.clone())
                .with_error_code(code(deleted))
        });
        DeleteGroupsResponse::default().with_results(results.collect())
    }

    /// Rejects requests at a node that is not the coordinator.
    fn check_coordinator(&self) -> Result<(), ResponseError> {
        let controller = self.nodes.controller().map(|(id, _)| id);
        let here = controller == Some(self.ctx.node);
        here.then_some(()).ok_or(ResponseError::NotCoordinator)
    }
}

fn join_response(
    version: i16,
    member: &str,
    joined: Result<Joined, ResponseError>,
) -> JoinGroupResponse {
    let response = JoinGroupResponse::default().with_member_id(member.to_owned().into());
    let joined = match joined {
        Ok(joined) => joined,
        Err(error) => {
            let response = response
                .with_error_code(error.code())
                .with_generation_id(-1);
            // Kafka sends null since version 7, an empty string before.
            return match version {
                ..7 => response,
                _ => response.with_protocol_type(None).with_protocol_name(None),
            };
        }
    };
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(id.into())
            .with_metadata(metadata);
        match version {
            ..5 => member,
            _ => member.with_group_instance_id(instance.map(StrBytes::from)),
        }
    });
    let response = response
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(joined.protocol.into()))
        .with_leader(joined.leader.into())
        .with_members(members.collect());
    match version {
        ..7 => response,
        _ => response.with_protocol_type(Some(joined.protocol_type.into())),
    }
}

fn sync_response(
    wait: &GroupWait,
    groups: &Groups,
    synced: Result<Bytes, ResponseError>,
) -> SyncGroupResponse {
    let response = SyncGroupResponse::default();
    let response = match synced {
        Ok(assignment) => response.with_assignment(assignment),
        Err(error) => response.with_error_code(error.code()),
    };
    let group = groups.get(&wait.group).filter(|_| response.error_code == 0);
    match (wait.version, group) {
        (..5, _) => response,
        (_, None) => response.with_protocol_type(None).with_protocol_name(None),
        (_, Some(group)) => response
            .with_protocol_type(Some(group.protocol_type().to_owned().into()))
            .with_protocol_name(Some(group.protocol().to_owned().into())),
    }
}

fn text(text: Option<&StrBytes>) -> Option<String> {
    text.map(StrBytes::to_string)
}

fn code(done: Result<(), ResponseError>) -> i16 {
    done.err().map_or(0, |error| error.code())
}
