//! Consumer groups (the classic protocol; KIP-848 is not offered) and their committed offsets.

mod group;

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

pub(super) use group::{Claim, Group, GroupState, Join, Joined};

use crate::model::{FastRandom, Instant};

/// Groups at most: a further one gets COORDINATOR_NOT_AVAILABLE.
const GROUPS_MAX: usize = 1_024;
/// Committed offsets of one group at most.
const OFFSETS_MAX: usize = 10_000;
/// Bytes of an offset's metadata at most: Kafka's `offset.metadata.max.bytes`.
pub(super) const METADATA_BYTES_MAX: usize = 4_096;

/// A topic's name and a partition of it.
pub(super) type TopicPartition = (String, i32);

/// A committed offset: the next record that the group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// All groups, by their id.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<String, Entry>,
    random: FastRandom,
    changed: bool,
}

/// A group's members and its offsets, which outlive them.
#[derive(Debug)]
struct Entry {
    group: Group,
    offsets: BTreeMap<TopicPartition, Committed>,
}

/// What a join led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JoinStep {
    /// The member is in the group, under this id. [`Groups::joined`] has the answer.
    Member(String),
    /// The member is to join again with this id (KIP-394).
    IdRequired(String),
}

impl Groups {
    pub(super) const fn new(random: FastRandom) -> Self {
        Self {
            groups: BTreeMap::new(),
            random,
            changed: false,
        }
    }

    /// Whether anything changed since the last call that can end a wait.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A member joins. `promises`: a member without an id gets one first (JoinGroup 4 and later).
    pub(super) fn join(
        &mut self,
        id: &str,
        join: Join,
        promises: bool,
        now: Instant,
    ) -> Result<JoinStep, ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let fresh = format!("member-{:016x}", self.random.next());
        let entry = self.entry(id)?;
        let promised = promises && join.member.is_empty() && join.instance.is_none();
        let step = if promised {
            entry.group.promise(&fresh, join.session, now);
            Ok(JoinStep::IdRequired(fresh))
        } else {
            entry.group.join(join, fresh, now).map(JoinStep::Member)
        };
        self.changed = true;
        self.forget_if_unused(id);
        step
    }

    pub(super) fn joined(&self, id: &str, member: &str) -> Option<Result<Joined, ResponseError>> {
        match self.groups.get(id) {
            Some(entry) => entry.group.joined(member),
            None => Some(Err(ResponseError::UnknownMemberId)),
        }
    }

    pub(super) fn sync(
        &mut self,
        id: &str,
        claim: Claim<'_>,
        assignments: Vec<(String, bytes::Bytes)>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let group = self.known(id)?;
        group.sync(claim, assignments, now)?;
        self.changed = true;
        Ok(())
    }

    pub(super) fn synced(
        &self,
        id: &str,
        member: &str,
    ) -> Option<Result<bytes::Bytes, ResponseError>> {
        match self.groups.get(id) {
            Some(entry) => entry.group.synced(member),
            None => Some(Err(ResponseError::UnknownMemberId)),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        id: &str,
        claim: Claim<'_>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.known(id)?.heartbeat(claim, now)
    }

    pub(super) fn leave(
        &mut self,
        id: &str,
        member: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let left = self.known(id)?.leave(member, instance, now);
        self.changed = true;
        self.forget_if_unused(id);
        left
    }

    /// Checks that the committer may commit: it is a member of the present generation, or the group
    /// has no members.
    pub(super) fn check_commit(&self, id: &str, claim: Claim<'_>) -> Result<(), ResponseError> {
        match self.groups.get(id) {
            Some(entry) => entry.group.check_commit(claim),
            None if claim.generation < 0 => Ok(()),
            None => Err(ResponseError::IllegalGeneration),
        }
    }

    /// Stores an offset that was checked.
    pub(super) fn commit(
        &mut self,
        id: &str,
        partition: TopicPartition,
        committed: Committed,
    ) -> Result<(), ResponseError> {
        let offsets = &mut self.entry(id)?.offsets;
        if !offsets.contains_key(&partition) && offsets.len() >= OFFSETS_MAX {
            return Err(ResponseError::InvalidCommitOffsetSize);
        }
        offsets.insert(partition, committed);
        Ok(())
    }

    /// The committed offset of one partition.
    pub(super) fn offset(&self, id: &str, partition: &TopicPartition) -> Option<&Committed> {
        self.groups.get(id)?.offsets.get(partition)
    }

    /// The committed offsets of a group, in the order of topics.
    pub(super) fn offsets(&self, id: &str) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        let entry = self.groups.get(id).into_iter();
        entry.flat_map(|entry| &entry.offsets)
    }

    /// All groups with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        let groups = self.groups.iter();
        groups.map(|(id, entry)| (&id[..], &entry.group))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id).map(|entry| &entry.group)
    }

    /// Deletes a group with its offsets. It must have no members.
    pub(super) fn delete(&mut self, id: &str) -> Result<(), ResponseError> {
        match self.groups.get(id) {
            None => Err(ResponseError::GroupIdNotFound),
            Some(entry) if entry.group.state() != GroupState::Empty => {
                Err(ResponseError::NonEmptyGroup)
            }
            Some(_) => {
                self.groups.remove(id);
                Ok(())
            }
        }
    }

    /// Drops the offsets of a deleted topic.
    pub(super) fn forget_topic(&mut self, name: &str) {
        for entry in self.groups.values_mut() {
            entry.offsets.retain(|(topic, _), _| topic != name);
        }
    }

    /// When [`Self::on_time`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let groups = self.groups.values();
        groups.filter_map(|entry| entry.group.next_deadline()).min()
    }

    /// Removes members that were not heard from, and ends rebalances that are overdue.
    pub(super) fn on_time(&mut self, now: Instant) {
        for entry in self.groups.values_mut() {
            self.changed |= entry.group.on_time(now);
        }
        self.groups
            .retain(|_, entry| !entry.group.is_unused() || !entry.offsets.is_empty());
    }

    fn entry(&mut self, id: &str) -> Result<&mut Entry, ResponseError> {
        if !self.groups.contains_key(id) && self.groups.len() >= GROUPS_MAX {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        Ok(self.groups.entry(id.to_owned()).or_insert_with(|| Entry {
            group: Group::new(),
            offsets: BTreeMap::new(),
        }))
    }

    fn known(&mut self, id: &str) -> Result<&mut Group, ResponseError> {
        let entry = self.groups.get_mut(id);
        let entry = entry.ok_or(ResponseError::UnknownMemberId)?;
        Ok(&mut entry.group)
    }

    fn forget_if_unused(&mut self, id: &str) {
        let unused = |entry: &Entry| entry.group.is_unused() && entry.offsets.is_empty();
        if self.groups.get(id).is_some_and(unused) {
            self.groups.remove(id);
        }
    }
}
