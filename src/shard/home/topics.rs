//! The topics at home on a shard. Mutable access to a topic notes it, so that its deadline is read
//! again. A turn visits the topics that are due, never all of them.

use std::ops::{Index, IndexMut};

use crate::model::Instant;
use crate::shard::active::{ActiveSet, Deadlines};
use crate::shard::snapshot::TopicId;

use super::tickets::CommandTopics;
use super::topic::Topic;

/// The topics, by their place.
#[derive(Debug, Default)]
pub(super) struct Topics {
    all: Vec<Topic>,
    /// The place of each topic in `all`, indexed by [`TopicId`].
    places: Vec<Option<usize>>,
    /// Topics whose deadline may have changed.
    changed: ActiveSet,
    deadlines: Deadlines,
    /// Topics that are due in this turn.
    due: ActiveSet,
    /// Topics whose records wait to be ordered.
    ordering: Vec<usize>,
}

impl Topics {
    pub(super) fn push(&mut self, topic: Topic) {
        let (index, place) = (usize::from(topic.index().0), self.all.len());
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        self.places[index] = Some(place);
        self.all.push(topic);
        self.changed.insert(place);
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The place of a topic; `None`: it is at home on another shard.
    pub(super) fn place(&self, index: TopicId) -> Option<usize> {
        self.places.get(usize::from(index.0)).copied().flatten()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Topic> {
        self.all.iter()
    }

    /// The places of a command's topics. `None`: they are at home elsewhere.
    pub(super) fn of_command(
        &self,
        to: TopicId,
        replies: Option<TopicId>,
    ) -> Option<CommandTopics> {
        let table = self.place(replies.unwrap_or(to))?;
        let to = self.place(to)?;
        Some(CommandTopics { to, table })
    }

    /// Records of a topic may wait to be ordered now.
    pub(super) fn on_records(&mut self, place: usize) {
        if self.all[place].has_waiting() && !self.ordering.contains(&place) {
            self.ordering.push(place);
        }
    }

    /// The topic whose records are ordered next.
    pub(super) fn next_ordering(&self) -> Option<usize> {
        let ready = |place: &usize| self.all[*place].is_ordering();
        self.ordering.iter().copied().find(ready)
    }

    /// Forgets the topics whose records are all ordered.
    pub(super) fn on_ordered(&mut self) {
        let all = &self.all;
        self.ordering.retain(|place| all[*place].has_waiting());
    }

    /// A topic has work left for the next turn, without a deadline.
    pub(super) fn revisit(&mut self, place: usize) {
        self.due.insert(place);
    }

    /// Whether topics have work left.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Finds the topics that are due. Returns how many; [`Self::next_due`] names each of them.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        self.read_deadlines();
        self.deadlines.expire(now, &mut self.due);
        self.due.len()
    }

    pub(super) fn next_due(&mut self) -> Option<usize> {
        self.due.pop()
    }

    /// When [`Self::expire`] next has work.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        self.read_deadlines();
        self.deadlines.next()
    }

    fn read_deadlines(&mut self) {
        while let Some(place) = self.changed.pop() {
            self.deadlines.set(place, self.all[place].next_deadline());
        }
    }
}

impl Index<usize> for Topics {
    type Output = Topic;

    fn index(&self, place: usize) -> &Topic {
        &self.all[place]
    }
}

impl IndexMut<usize> for Topics {
    fn index_mut(&mut self, place: usize) -> &mut Topic {
        self.changed.insert(place);
        &mut self.all[place]
    }
}
