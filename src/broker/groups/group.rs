//! One consumer group: the classic rebalance protocol (KIP-62, KIP-345, KIP-394) as a state
//! machine.
//!
//! A rebalance has two halves. *Joining*: every member sends JoinGroup again, and all are answered
//! together with the new generation. The leader also receives everybody's metadata. *Syncing*:
//! every member sends SyncGroup, and all are answered together with the assignments that the
//! leader computed. A member that misses the first half is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::model::Instant;

/// Members of one group at most: a further one gets GROUP_MAX_SIZE_REACHED.
const MEMBERS_MAX: usize = 256;
/// Bounds of a session timeout: Kafka's `group.min.session.timeout.ms` and `group.max…`.
const SESSION_MIN: Duration = Duration::from_secs(6);
const SESSION_MAX: Duration = Duration::from_secs(30 * 60);

/// Where a group is in its rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum GroupState {
    /// No members.
    Empty,
    /// Members are joining the next generation.
    Joining,
    /// The generation is formed, and the leader's assignments are due.
    Syncing,
    /// Every member has its assignment.
    Stable,
}

impl GroupState {
    /// The name that DescribeGroups and ListGroups show.
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining => "PreparingRebalance",
            Self::Syncing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A JoinGroup request.
#[derive(Clone, Debug)]
pub(in super::super) struct Join {
    /// Empty for a member that has no id yet.
    pub member: String,
    pub instance: Option<String>,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocol_type: String,
    /// Assignment strategies in the member's order of preference, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
}

/// A member that names its generation: Heartbeat, SyncGroup, OffsetCommit.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Claim<'a> {
    pub member: &'a str,
    pub instance: Option<&'a str>,
    pub generation: i32,
}

/// What JoinGroup returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    /// Only for the leader: each member's id, instance and metadata.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug)]
pub(in super::super) struct Described {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    session: Duration,
    rebalance: Duration,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    /// It has joined the rebalance in progress, and its JoinGroup waits.
    joined: bool,
    /// Its SyncGroup waits.
    syncing: bool,
    /// When it is removed unless it is heard from. A member whose request waits is not removed.
    expires: Instant,
}

/// The members of one group, and its generation.
#[derive(Debug)]
pub(in super::super) struct Group {
    state: GroupState,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids that were given out (KIP-394) and have not joined, with the time they are forgotten.
    promised: BTreeMap<String, Instant>,
    /// When a rebalance goes on without the members that have not joined.
    join_by: Instant,
}

impl Group {
    pub(super) const fn new() -> Self {
        Self {
            state: GroupState::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
            join_by: Instant::ZERO,
        }
    }

    pub(in super::super) const fn state(&self) -> GroupState {
        self.state
    }

    pub(in super::super) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    pub(in super::super) fn protocol(&self) -> &str {
        &self.protocol
    }

    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// The members, for DescribeGroups.
    pub(in super::super) fn describe(&self) -> Vec<Described> {
        let members = self.members.iter().map(|(id, member)| Described {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(&self.protocol),
            assignment: member.assignment.clone(),
        });
        members.collect()
    }

    /// Promises an id to a member that has none (KIP-394). It joins with that id.
    pub(super) fn promise(&mut self, id: &str, session: Duration, now: Instant) {
        self.promised.insert(id.to_owned(), now.after(session));
    }

    /// A member joins, or joins again. [`Self::joined`] has the answer, at once or later. `fresh`
    /// is the id of a member that comes without one. Returns the member's id.
    pub(super) fn join(
        &mut self,
        join: Join,
        fresh: String,
        now: Instant,
    ) -> Result<String, ResponseError> {
        if !(SESSION_MIN..=SESSION_MAX).contains(&join.session) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        self.check_protocols(&join)?;
        let known = join.instance.as_deref().and_then(|it| self.holder(it));
        let id = match (known, join.member.is_empty()) {
            // A restarted process takes the place of the one before it.
            (Some(holder), true) => {
                self.members.remove(&holder);
                fresh
            }
            (Some(holder), false) if holder != join.member => {
                return Err(ResponseError::FencedInstanceId);
            }
            (_, true) => fresh,
            (_, false) => {
                let is_known = self.members.contains_key(&join.member);
                if !is_known && self.promised.remove(&join.member).is_none() {
                    return Err(ResponseError::UnknownMemberId);
                }
                join.member
            }
        };
        if !self.members.contains_key(&id) && self.members.len() >= MEMBERS_MAX {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let (is_leader, is_new) = (self.leader == id, !self.members.contains_key(&id));
        let same = |member: &Member| member.protocols == join.protocols;
        let unchanged = self.members.get(&id).is_some_and(same);
        // A member that repeats itself learns the present generation, unless its leader asks for a
        // rebalance by joining again.
        let answers_now = match self.state {
            GroupState::Syncing => unchanged,
            GroupState::Stable => unchanged && !is_leader,
            GroupState::Empty | GroupState::Joining => false,
        };
        let member = self.members.entry(id.clone()).or_insert_with(|| Member {
            instance: None,
            session: join.session,
            rebalance: join.rebalance,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joined: false,
            syncing: false,
            expires: now,
        });
        member.instance = join.instance;
        member.session = join.session;
        member.rebalance = join.rebalance;
        member.protocols = join.protocols;
        member.expires = now.after(join.session);
        if is_new && self.protocol_type.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        if answers_now {
            return Ok(id);
        }
        member.joined = true;
        self.rebalance(now);
        self.finish_joining(now);
        Ok(id)
    }

    /// The answer to a member's JoinGroup; `None` while others are still joining.
    pub(super) fn joined(&self, id: &str) -> Option<Result<Joined, ResponseError>> {
        let Some(member) = self.members.get(id) else {
            return Some(Err(ResponseError::UnknownMemberId));
        };
        if member.joined {
            return None;
        }
        let is_leader = self.leader == id;
        let members = self.members.iter().filter(|_| is_leader);
        Some(Ok(Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members
                .map(|(id, it)| (id.clone(), it.instance.clone(), it.metadata(&self.protocol)))
                .collect(),
        }))
    }

    /// A member asks for its assignment; the leader brings those of all. [`Self::synced`] has the
    /// answer, at once or later.
    pub(super) fn sync(
        &mut self,
        claim: Claim<'_>,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check(claim)?;
        if self.state == GroupState::Joining {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.hear(claim.member, now);
        if self.state == GroupState::Stable {
            return Ok(());
        }
        if claim.member != self.leader {
            if let Some(member) = self.members.get_mut(claim.member) {
                member.syncing = true;
            }
            return Ok(());
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            member.syncing = false;
            member.expires = now.after(member.session);
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.state = GroupState::Stable;
        Ok(())
    }

    /// The answer to a member's SyncGroup; `None` while the leader's assignments are due.
    pub(super) fn synced(&self, id: &str) -> Option<Result<Bytes, ResponseError>> {
        let Some(member) = self.members.get(id) else {
            return Some(Err(ResponseError::UnknownMemberId));
        };
        match self.state {
            GroupState::Syncing => None,
            GroupState::Stable => Some(Ok(member.assignment.clone())),
            GroupState::Joining | GroupState::Empty => {
                Some(Err(ResponseError::RebalanceInProgress))
            }
        }
    }

    /// A member is alive.
    pub(super) fn heartbeat(
        &mut self,
        claim: Claim<'_>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check(claim)?;
        self.hear(claim.member, now);
        match self.state {
            GroupState::Joining => Err(ResponseError::RebalanceInProgress),
            GroupState::Empty | GroupState::Syncing | GroupState::Stable => Ok(()),
        }
    }

    /// A member leaves: by its id, or a static one by its instance.
    pub(super) fn leave(
        &mut self,
        id: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.promised.remove(id).is_some() {
            return Ok(());
        }
        let holder = instance.and_then(|instance| self.holder(instance));
        let id = match (instance, holder) {
            (Some(_), None) => return Err(ResponseError::UnknownMemberId),
            (Some(_), Some(holder)) if !id.is_empty() && id != holder => {
                return Err(ResponseError::FencedInstanceId);
            }
            (Some(_), Some(holder)) => holder,
            (None, _) => id.to_owned(),
        };
        if self.members.remove(&id).is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.after_removal(now);
        Ok(())
    }

    /// Whether a commit of offsets is by a member of the present generation. A commit without a
    /// member is by an administrator or a client without `subscribe`, and needs an empty group.
    pub(super) fn check_commit(&self, claim: Claim<'_>) -> Result<(), ResponseError> {
        if claim.generation < 0 && claim.member.is_empty() {
            let empty = self.state == GroupState::Empty;
            return empty.then_some(()).ok_or(ResponseError::UnknownMemberId);
        }
        self.check(claim)?;
        match self.state {
            GroupState::Syncing => Err(ResponseError::RebalanceInProgress),
            GroupState::Empty | GroupState::Joining | GroupState::Stable => Ok(()),
        }
    }

    /// When [`Self::on_time`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let joining = (self.state == GroupState::Joining).then_some(self.join_by);
        let members = self.members.values();
        let expires = members
            .filter(|member| !member.joined && !member.syncing)
            .map(|member| member.expires);
        let promised = self.promised.values().copied();
        expires.chain(promised).chain(joining).min()
    }

    /// Removes members whose session has expired, and goes on without those that did not join.
    /// Returns whether anything changed.
    pub(super) fn on_time(&mut self, now: Instant) -> bool {
        self.promised.retain(|_, until| *until > now);
        let before = self.members.len();
        let late = self.state == GroupState::Joining && self.join_by <= now;
        self.members.retain(|_, member| {
            let waits = member.joined || member.syncing;
            waits || (member.expires > now && !late)
        });
        if self.members.len() < before {
            self.after_removal(now);
        } else if late {
            self.finish_joining(now);
        }
        late || self.members.len() < before
    }

    fn hear(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now.after(member.session);
        }
    }

    fn check(&self, claim: Claim<'_>) -> Result<(), ResponseError> {
        if let Some(holder) = claim.instance.and_then(|it| self.holder(it))
            && holder != claim.member
        {
            return Err(ResponseError::FencedInstanceId);
        }
        if !self.members.contains_key(claim.member) {
            return Err(ResponseError::UnknownMemberId);
        }
        if claim.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    /// The id of the static member with this instance.
    fn holder(&self, instance: &str) -> Option<String> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    /// All members need the same type of protocol, and at least one strategy in common.
    fn check_protocols(&self, join: &Join) -> Result<(), ResponseError> {
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let mut others = self
            .members
            .iter()
            .filter(|(id, _)| **id != join.member)
            .peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let mut common: BTreeSet<&str> = join.protocols.iter().map(|(name, _)| &name[..]).collect();
        for (_, member) in others {
            common.retain(|name| member.protocols.iter().any(|(known, _)| known == name));
        }
        let agrees = join.protocol_type == self.protocol_type && !common.is_empty();
        agrees
            .then_some(())
            .ok_or(ResponseError::InconsistentGroupProtocol)
    }

    /// Begins a rebalance, unless one is in its first half.
    fn rebalance(&mut self, now: Instant) {
        if self.state == GroupState::Joining {
            return;
        }
        self.state = GroupState::Joining;
        let longest = self.members.values().map(|member| member.rebalance).max();
        self.join_by = now.after(longest.unwrap_or_default());
        for member in self.members.values_mut() {
            // A SyncGroup that waits is answered with REBALANCE_IN_PROGRESS.
            member.syncing = false;
        }
    }

    /// Ends the first half of a rebalance if every member has joined.
    fn finish_joining(&mut self, now: Instant) {
        if self.state != GroupState::Joining || self.members.values().any(|it| !it.joined) {
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.state = GroupState::Empty;
            self.leader.clear();
            self.protocol.clear();
            self.protocol_type.clear();
            return;
        }
        if !self.members.contains_key(&self.leader) {
            let first = self.members.keys().next();
            self.leader = first.cloned().unwrap_or_default();
        }
        self.protocol = self.elect_protocol();
        self.state = GroupState::Syncing;
        for member in self.members.values_mut() {
            member.joined = false;
            member.expires = now.after(member.session);
        }
    }

    /// The strategy that all members know and most prefer.
    fn elect_protocol(&self) -> String {
        let all = |name: &str| {
            let mut members = self.members.values();
            members.all(|member| member.protocols.iter().any(|(known, _)| known == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let preferred = member.protocols.iter().find(|(name, _)| all(name));
            if let Some((name, _)) = preferred {
                *votes.entry(name).or_default() += 1;
            }
        }
        let elected = votes.into_iter().max_by_key(|(_, votes)| *votes);
        elected.map_or_else(String::new, |(name, _)| name.to_owned())
    }

    fn after_removal(&mut self, now: Instant) {
        match self.state {
            GroupState::Empty => {}
            GroupState::Joining => self.finish_joining(now),
            GroupState::Syncing | GroupState::Stable => {
                self.rebalance(now);
                self.finish_joining(now);
            }
        }
    }
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }
}
