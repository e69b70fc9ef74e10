//! Requests that wait for a condition, with a deadline and cancellation. One structure serves
//! every such wait of a shard.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::model::{Instant, tree_row_bytes};

/// Requests `T` of waiters `W`, each until its condition `C` is met.
///
/// A condition is a point in an order, and the owner says which range of points is met now:
///
/// | waits for | `C` | met |
/// |---|---|---|
/// | a seq of a projection | topic, seq | `(topic, Seq(0))..=(topic, applied)` |
/// | a cut of a home | topic, partition, offset | `(t, p, Offset(0))..=(t, p, next)` |
/// | a key | the key's hash | `hash..=hash` |
/// | a turn in the order of arrival | the arrival's number | `first..=last` |
/// | any news | how much was known when it was last looked at | `0..=known - 1` |
///
/// A cut has an offset per partition. Its request waits for the first partition that is short of
/// its offset, and is inserted again if then another one is short.
///
/// A waiter waits for one condition at a time, so the queue is bounded by the waiters there are.
/// The limit is a second line of defence. Every operation is O(log n), but for the count, and an
/// empty queue holds no memory.
///
/// A condition may be met for thousands of requests at once. An owner whose answers are not cheap
/// takes a few a turn, and [`WaitQueue::is_met`] says whether some are left.
///
/// Take what is met before what has expired: a shard that was delayed then answers what it can.
#[derive(Debug)]
pub(super) struct WaitQueue<W, C, T> {
    waiters_max: usize,
    /// Insertions so far. Requests with equal conditions are met in the order of arrival.
    arrivals: u64,
    requests: BTreeMap<(C, u64), Request<W, T>>,
    /// Where each waiter's request is.
    by_waiter: BTreeMap<W, (C, u64)>,
    by_deadline: BTreeSet<(Instant, W)>,
}

#[derive(Debug)]
struct Request<W, T> {
    waiter: W,
    deadline: Option<Instant>,
    request: T,
}

impl<W, C, T> WaitQueue<W, C, T> {
    /// Most memory of a request that waits, without what it points to.
    pub(super) const BYTES_PER_WAITER: usize = tree_row_bytes::<(C, u64), Request<W, T>>()
        + tree_row_bytes::<W, (C, u64)>()
        + tree_row_bytes::<(Instant, W), ()>();
}

impl<W: Copy + Ord, C: Clone + Ord, T> WaitQueue<W, C, T> {
    /// An empty queue for at most `waiters_max` waiters.
    pub(super) const fn new(waiters_max: usize) -> Self {
        Self {
            waiters_max,
            arrivals: 0,
            requests: BTreeMap::new(),
            by_waiter: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    /// Keeps a request until `condition` is met or `deadline` expires. Without a deadline it waits
    /// until it is met or cancelled. Drops an earlier request of the waiter, which has no use for
    /// that answer any more.
    ///
    /// # Errors
    /// The queue is full. Returns the request, to be rejected.
    pub(super) fn insert(
        &mut self,
        waiter: W,
        condition: C,
        deadline: impl Into<Option<Instant>>,
        request: T,
    ) -> Result<(), T> {
        let deadline = deadline.into();
        self.cancel(waiter);
        if self.is_full() {
            return Err(request);
        }
        self.arrivals += 1;
        let place = (condition, self.arrivals);
        self.by_waiter.insert(waiter, place.clone());
        self.by_deadline.extend(deadline.map(|at| (at, waiter)));
        let request = Request {
            waiter,
            deadline,
            request,
        };
        self.requests.insert(place, request);
        Ok(())
    }

    /// The number of requests.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether a request of another waiter finds no place.
    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= self.waiters_max
    }

    /// Removes the waiter's request, if it has one.
    pub(super) fn cancel(&mut self, waiter: W) -> Option<T> {
        let place = self.by_waiter.remove(&waiter)?;
        self.remove(&place)
    }

    /// Drops all requests. Arrivals count on.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.by_waiter.clear();
        self.by_deadline.clear();
    }

    /// How many requests have a condition in `met`.
    pub(super) fn count(&self, met: &RangeInclusive<C>) -> usize {
        let (first, last) = (met.start().clone(), met.end().clone());
        self.requests.range((first, 0)..=(last, u64::MAX)).count()
    }

    /// Whether [`Self::next_met`] returns a request.
    pub(super) fn is_met(&self, met: &RangeInclusive<C>) -> bool {
        if self.requests.is_empty() {
            return false; // The usual case. Saves the clones below.
        }
        let (first, last) = (met.start().clone(), met.end().clone());
        let mut met = self.requests.range((first, 0)..=(last, u64::MAX));
        met.next().is_some()
    }

    /// Removes and returns the next request whose condition is in `met`.
    pub(super) fn next_met(&mut self, met: &RangeInclusive<C>) -> Option<T> {
        if self.requests.is_empty() {
            return None; // The usual case. Saves the clones below.
        }
        let (first, last) = (met.start().clone(), met.end().clone());
        let (place, _) = self.requests.range((first, 0)..=(last, u64::MAX)).next()?;
        let place = place.clone();
        self.remove(&place)
    }

    /// Removes and returns the next request whose deadline has passed.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<T> {
        let &(deadline, waiter) = self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.cancel(waiter)
    }

    /// When [`Self::next_expired`] next has work. `None`: no request has a deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// The request whose deadline is next.
    pub(super) fn soonest(&self) -> Option<&T> {
        let (_, waiter) = self.by_deadline.first()?;
        let place = self.by_waiter.get(waiter)?;
        self.requests.get(place).map(|request| &request.request)
    }

    fn remove(&mut self, place: &(C, u64)) -> Option<T> {
        let Request {
            waiter,
            deadline,
            request,
        } = self.requests.remove(place)?;
        self.by_waiter.remove(&waiter);
        if let Some(at) = deadline {
            self.by_deadline.remove(&(at, waiter));
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const WAITERS_MAX: usize = 6;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// What a test does to a queue whose conditions are (topic, seq).
    #[derive(Clone, Debug)]
    enum Action {
        Insert {
            waiter: u8,
            condition: (u8, u8),
            deadline: u64,
        },
        Cancel(u8),
        Apply(u8, u8),
        Expire(u64),
    }

    fn action() -> impl Strategy<Value = Action> {
        let condition = (0..3_u8, 0..6_u8);
        prop_oneof![
            4 => (0..10_u8, condition.clone(), 0..20_u64).prop_map(
                |(waiter, condition, deadline)| Action::Insert { waiter, condition, deadline }
            ),
            1 => (0..10_u8).prop_map(Action::Cancel),
            2 => condition.prop_map(|(topic, seq)| Action::Apply(topic, seq)),
            1 => (0..20_u64).prop_map(Action::Expire),
        ]
    }

    /// The same rules over a list in order of arrival, each by a scan.
    #[derive(Debug, Default)]
    struct Model(Vec<Waiting>);

    #[derive(Clone, Copy, Debug)]
    struct Waiting {
        waiter: u8,
        condition: (u8, u8),
        deadline: u64,
        request: usize,
    }

    impl Model {
        fn insert(&mut self, new: Waiting) -> Result<(), usize> {
            self.cancel(new.waiter);
            if self.0.len() >= WAITERS_MAX {
                return Err(new.request);
            }
            self.0.push(new);
            Ok(())
        }

        fn cancel(&mut self, waiter: u8) -> Option<usize> {
            let at = self.0.iter().position(|it| it.waiter == waiter)?;
            Some(self.0.remove(at).request)
        }

        /// The met requests: by seq, and those of one seq by arrival (the sort is stable).
        fn apply(&mut self, topic: u8, seq: u8) -> Vec<usize> {
            let met = |it: &Waiting| it.condition.0 == topic && it.condition.1 <= seq;
            let mut met: Vec<_> = self.0.extract_if(.., |it| met(it)).collect();
            met.sort_by_key(|it| it.condition);
            met.iter().map(|it| it.request).collect()
        }

        fn expire(&mut self, now: u64) -> Vec<usize> {
            let mut late: Vec<_> = self.0.extract_if(.., |it| it.deadline <= now).collect();
            late.sort_by_key(|it| (it.deadline, it.waiter));
            late.iter().map(|it| it.request).collect()
        }
    }

    proptest! {
        #[test]
        fn the_queue_does_what_a_list_would(actions in prop::collection::vec(action(), 1..60)) {
            let mut queue = WaitQueue::new(WAITERS_MAX);
            let mut model = Model::default();
            for (request, action) in actions.into_iter().enumerate() {
                match action {
                    Action::Insert { waiter, condition, deadline } => {
                        let new = Waiting { waiter, condition, deadline, request };
                        let inserted = queue.insert(waiter, condition, at(deadline), request);
                        prop_assert_eq!(inserted, model.insert(new));
                    }
                    Action::Cancel(waiter) => {
                        prop_assert_eq!(queue.cancel(waiter), model.cancel(waiter));
                    }
                    Action::Apply(topic, seq) => {
                        let met = (topic, 0)..=(topic, seq);
                        let released: Vec<_> =
                            std::iter::from_fn(|| queue.next_met(&met)).collect();
                        prop_assert_eq!(released, model.apply(topic, seq));
                    }
                    Action::Expire(now) => {
                        let late: Vec<_> =
                            std::iter::from_fn(|| queue.next_expired(at(now))).collect();
                        prop_assert_eq!(late, model.expire(now));
                    }
                }
                let deadline = model.0.iter().map(|it| at(it.deadline)).min();
                prop_assert_eq!(queue.next_deadline(), deadline);
                prop_assert_eq!(queue.requests.len(), model.0.len());
                prop_assert_eq!(queue.by_waiter.len(), queue.requests.len());
                prop_assert_eq!(queue.by_deadline.len(), queue.requests.len());
            }
        }
    }

    /// A barrier waits for a cut: one offset per partition. The request waits for one short
    /// partition at a time, so that progress of another partition does not look at it.
    #[test]
    fn a_cut_is_waited_for_partition_by_partition() {
        let short = |target: &BTreeMap<u32, u64>, cut: &BTreeMap<u32, u64>| {
            let mut short = target.iter().filter(|(p, offset)| cut[*p] < **offset);
            short.next().map(|(p, offset)| (*p, *offset))
        };
        let target = BTreeMap::from([(0, 5), (1, 7), (2, 0)]);
        let mut cut = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
        let mut queue = WaitQueue::new(1);
        let first = short(&target, &cut).expect("nothing is reached");
        assert_eq!(queue.insert(1, first, at(9), target), Ok(()));
        let mut done = Vec::new();
        for (partition, next) in [(1, 7), (0, 4), (2, 3), (0, 6)] {
            cut.insert(partition, next);
            while let Some(target) = queue.next_met(&((partition, 0)..=(partition, next))) {
                match short(&target, &cut) {
                    Some(next) => assert_eq!(queue.insert(1, next, at(9), target), Ok(())),
                    None => done.push((partition, next)),
                }
            }
        }
        assert_eq!(done, [(0, 6)]);
        assert!(queue.requests.is_empty());
    }

    /// A long poll waits for the next change of a key, whatever happens to other keys.
    #[test]
    fn a_key_is_met_by_itself() {
        let mut queue = WaitQueue::new(3);
        for (waiter, key) in [(1, 70_u64), (2, 71), (3, 70)] {
            assert_eq!(queue.insert(waiter, key, at(9), waiter), Ok(()));
        }
        assert_eq!(queue.next_met(&(69..=69)), None);
        assert_eq!(queue.next_met(&(70..=70)), Some(1));
        assert_eq!(queue.next_met(&(70..=70)), Some(3));
        assert_eq!(queue.next_met(&(70..=70)), None);
        assert_eq!(queue.next_expired(at(9)), Some(2));
    }
}
