//! Which topics need attention. A turn looks at these only, so an idle topic costs it nothing.
//! Topics are named by their place in the list of the side that owns them.

use std::collections::{BTreeSet, VecDeque};

use crate::model::Instant;

/// Topics with something to do, each at most once, oldest first. Bounded by the topics there are.
#[derive(Debug, Default)]
pub(super) struct ActiveSet {
    queue: VecDeque<usize>,
    /// By place: whether the topic is in the queue.
    queued: Vec<bool>,
}

impl ActiveSet {
    /// Appends a topic, unless it is in the set.
    pub(super) fn insert(&mut self, place: usize) {
        if self.queued.len() <= place {
            self.queued.resize(place + 1, false);
        }
        if !std::mem::replace(&mut self.queued[place], true) {
            self.queue.push_back(place);
        }
    }

    /// Removes the topic that came first.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let place = self.queue.pop_front()?;
        self.queued[place] = false;
        Some(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.queue.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// When each topic next has work that no event announces: at most one time per topic, exact.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Instant, usize)>,
    /// The deadline of each topic, indexed by its place.
    of: Vec<Option<Instant>>,
}

impl Deadlines {
    /// Replaces the deadline of a topic. An unchanged one costs a comparison.
    pub(super) fn set(&mut self, place: usize, at: Option<Instant>) {
        if self.of.len() <= place {
            self.of.resize(place + 1, None);
        }
        let before = std::mem::replace(&mut self.of[place], at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, place));
        }
        if let Some(at) = at {
            self.by_time.insert((at, place));
        }
    }

    /// Moves every topic that is due to `due`.
    pub(super) fn expire(&mut self, now: Instant, due: &mut ActiveSet) {
        while let Some(&(at, place)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            self.of[place] = None;
            due.insert(place);
        }
    }

    /// When [`Self::expire`] next has work.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn all(set: &mut ActiveSet) -> Vec<usize> {
        std::iter::from_fn(|| set.pop()).collect()
    }

    #[test]
    fn a_topic_is_active_once_until_it_is_taken() {
        let mut set = ActiveSet::default();
        for place in [3, 1, 3, 1, 2] {
            set.insert(place);
        }
        assert_eq!((set.len(), set.pop()), (3, Some(3)));
        set.insert(3);
        assert_eq!(all(&mut set), [1, 2, 3]);
        assert!(set.is_empty());
    }

    #[test]
    fn a_topic_has_one_deadline_the_one_set_last() {
        let (mut deadlines, mut due) = (Deadlines::default(), ActiveSet::default());
        deadlines.set(0, Some(at(5)));
        deadlines.set(7, Some(at(9)));
        deadlines.set(0, Some(at(20)));
        deadlines.set(1, Some(at(3)));
        deadlines.set(1, None);
        assert_eq!(deadlines.next(), Some(at(9)));
        deadlines.expire(at(8), &mut due);
        assert!(due.is_empty());
        deadlines.expire(at(30), &mut due);
        assert_eq!((all(&mut due), deadlines.next()), (vec![7, 0], None));
    }
}
