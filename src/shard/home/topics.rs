//! The topics at home on a shard. Mutable access to a topic notes it, so that its deadline is read
//! again. A turn visits the topics that are due, never all of them.

use std::ops::{Index, IndexMut};

use crate::model::Instant;
use crate::shard::active::{ActiveSet, Deadlines};
use crate::shard::snapshot::TopicId;

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
