//! Whether a home has read all replies that were readable when a command arrived.
//!
//! Kafka answers that question with offsets: the leaders of a topic report its ends after the
//! command has arrived, and the home then waits until its own cut has passed them. A *round* is one
//! such question to all leaders. At most one round is in flight, and all requests that wait share
//! it. A request that arrives while a round is in flight waits for the next one, because the
//! leaders may have answered the first before the request arrived.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Bug, Instant, Offset, Partition, is_planted};

/// How long a request waits for a barrier. It is shorter than the time after which brokers elect
/// another leader (`broker.session.timeout.ms`, 9 s by default): a leader that answers later may
/// have been deposed long before.
pub(super) const BARRIER_MAX: Duration = Duration::from_secs(1);

/// Rounds whose ends the home has not passed yet. At the limit no further round begins, so that a
/// home that reads slowly asks more seldom.
const UNPASSED_MAX: usize = 8;

/// The number of a round, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Round(pub(super) u64);

/// A round that the leaders have answered.
#[derive(Debug)]
struct Answered {
    round: Round,
    began: Instant,
    /// By partition, the first offset that was not readable.
    ends: Vec<Offset>,
}

/// The rounds of one topic. Order of calls: [`Self::join`] for a request that arrives, then
/// [`Self::next_round`] in the same turn. [`Self::on_ends`] or [`Self::on_failed`] ends the round.
/// [`Self::poll_passed`] says for which requests the home may decide.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The newest round that has begun.
    newest: Round,
    /// Whether a request waits for the round after the newest.
    wanted: bool,
    /// When the newest round began, if it is in flight.
    in_flight: Option<Instant>,
    /// In the order of their numbers.
    answered: VecDeque<Answered>,
    /// All rounds up to this one are passed.
    passed: Round,
}

impl Barrier {
    pub(super) const fn new() -> Self {
        Self {
            newest: Round(0),
            wanted: false,
            in_flight: None,
            answered: VecDeque::new(),
            passed: Round(0),
        }
    }

    /// The round that a request waits for that arrives now. It has not begun.
    pub(super) fn join(&mut self) -> Round {
        if is_planted(Bug::BarrierBeforeArrival) && self.in_flight.is_some() {
            return self.newest;
        }
        self.wanted = true;
        Round(self.newest.0 + 1)
    }

    /// Begins the next round, if a request waits for it and no round is in flight. The caller asks
    /// the leaders.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Round> {
        self.forget_expired(now);
        if !self.can_begin() {
            return None;
        }
        self.wanted = false;
        self.in_flight = Some(now);
        self.newest.0 += 1;
        Some(self.newest)
    }

    /// The leaders have answered a round. Returns how long that took. `None`: the round is not in
    /// flight any more.
    pub(super) fn on_ends(
        &mut self,
        round: Round,
        ends: Vec<Offset>,
        now: Instant,
    ) -> Option<Duration> {
        let began = self.end(round)?;
        self.answered.push_back(Answered { round, began, ends });
        Some(now.since(began))
    }

    /// The leaders can't answer a round. Returns false if the round is not in flight any more.
    /// Requests that wait for it can't be decided.
    #[must_use]
    pub(super) fn on_failed(&mut self, round: Round) -> bool {
        self.end(round).is_some()
    }

    /// The topic was re-created. Ends of its old log mean nothing for the new one. Requests that
    /// wait for a round which has begun can't be decided.
    pub(super) fn restart(&mut self) {
        self.in_flight = None;
        self.answered.clear();
    }

    fn end(&mut self, round: Round) -> Option<Instant> {
        self.in_flight.take_if(|_| round == self.newest)
    }

    /// The newest round that is passed. Requests that wait for it, or for an earlier one, can be
    /// decided. `next`: the next offset that the home reads of a partition.
    pub(super) fn poll_passed(&mut self, next: impl Fn(Partition) -> Offset) -> Round {
        while let Some(first) = self.answered.front() {
            let mut ends = (0..).map(Partition).zip(&first.ends);
            if !ends.all(|(partition, end)| next(partition) >= *end) {
                break;
            }
            self.passed = first.round;
            self.answered.pop_front();
        }
        self.passed
    }

    /// All rounds up to this one are passed.
    pub(super) const fn passed(&self) -> Round {
        self.passed
    }

    /// Whether the leaders have answered a round, which the home may have passed or not.
    pub(super) fn is_answered(&self, round: Round) -> bool {
        round <= self.passed || self.answered.iter().any(|it| it.round == round)
    }

    /// Whether [`Self::next_round`] begins one, unless it has expired rounds to forget.
    pub(super) fn can_begin(&self) -> bool {
        self.wanted && self.in_flight.is_none() && self.answered.len() < UNPASSED_MAX
    }

    /// Drops rounds that no request waits for any more. They would hold up later rounds if the log
    /// was cut back below their ends.
    fn forget_expired(&mut self, now: Instant) {
        // A request waits for at most `BARRIER_MAX`, and joined a round before it began.
        let expired = |it: &Answered| it.began.after(BARRIER_MAX) <= now;
        while self.answered.pop_front_if(|it| expired(it)).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO.after(Duration::from_millis(ms))
    }

    fn passed(barrier: &mut Barrier, next: [u64; 2]) -> u64 {
        let passed = barrier.poll_passed(|p| Offset(next[p.0 as usize]));
        passed.0
    }

    #[test]
    fn requests_share_a_round_and_a_later_one_waits_for_the_next() {
        let mut barrier = Barrier::new();
        assert_eq!(barrier.next_round(at(0)), None, "no request waits");
        assert_eq!((barrier.join(), barrier.join()), (Round(1), Round(1)));
        assert_eq!(barrier.next_round(at(0)), Some(Round(1)));
        assert_eq!(barrier.join(), Round(2), "the leaders may have answered");
        assert_eq!(barrier.next_round(at(1)), None, "one is in flight");
        let took = barrier.on_ends(Round(1), vec![Offset(5), Offset(0)], at(3));
        assert_eq!(took, Some(Duration::from_millis(3)));
        assert_eq!(barrier.next_round(at(3)), Some(Round(2)));
        assert_eq!(passed(&mut barrier, [4, 9]), 0);
        assert_eq!(passed(&mut barrier, [5, 0]), 1);
        assert!(barrier.on_failed(Round(2)));
        assert_eq!(barrier.next_round(at(4)), None, "no request waits");
    }

    /// A late answer, for example about a topic that was re-created meanwhile, is ignored.
    #[test]
    fn only_the_round_in_flight_is_answered() {
        let mut barrier = Barrier::new();
        barrier.join();
        barrier.next_round(at(0));
        assert_eq!(barrier.on_ends(Round(2), vec![], at(1)), None);
        assert!(barrier.on_failed(Round(1)));
        assert_eq!(barrier.on_ends(Round(1), vec![], at(1)), None);
        assert_eq!(passed(&mut barrier, [0, 0]), 0);
    }

    /// A log that was cut back never reaches the ends from before. Later rounds are not held up for
    /// longer than requests wait.
    #[test]
    fn ends_that_are_never_reached_expire() {
        let mut barrier = Barrier::new();
        for n in 0..UNPASSED_MAX as u64 {
            barrier.join();
            let round = barrier.next_round(at(n)).expect("none is in flight");
            barrier.on_ends(round, vec![Offset(100)], at(n));
        }
        barrier.join();
        assert_eq!(barrier.next_round(at(999)), None, "the home is behind");
        let next = barrier.next_round(at(1_000)).expect("the first expired");
        barrier.on_ends(next, vec![Offset(3)], at(1_001));
        assert_eq!(passed(&mut barrier, [3, 0]), 0);
        barrier.join();
        assert_eq!(barrier.next_round(at(1_900)), Some(Round(10)));
        assert_eq!(passed(&mut barrier, [3, 0]), 9);
    }

    #[derive(Clone, Copy, Debug)]
    enum Action {
        /// A reply becomes readable in this partition.
        Append(usize),
        /// A request arrives.
        Arrive,
        /// A round begins, if one is due.
        Begin,
        /// The leader of this partition answers the round in flight.
        Answer(usize),
        /// The home reads a record of this partition.
        Read(usize),
        /// The round in flight fails.
        Fail,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            3 => (0..2_usize).prop_map(Action::Append),
            3 => Just(Action::Arrive),
            3 => Just(Action::Begin),
            4 => (0..2_usize).prop_map(Action::Answer),
            4 => (0..2_usize).prop_map(Action::Read),
            1 => Just(Action::Fail),
        ]
    }

    /// Guarantee (b): when a request's round is passed, the home has read every reply that was
    /// readable when the request arrived.
    fn check(actions: Vec<Action>) -> Result<(), TestCaseError> {
        let mut barrier = Barrier::new();
        let (mut ends, mut read) = ([0_u64; 2], [0_u64; 2]);
        let mut in_flight: Option<(Round, [Option<u64>; 2])> = None;
        let mut waiting: Vec<(Round, [u64; 2])> = Vec::new();
        for action in actions {
            match action {
                Action::Append(p) => ends[p] += 1,
                Action::Arrive => waiting.push((barrier.join(), ends)),
                Action::Begin => {
                    if let Some(round) = barrier.next_round(at(0)) {
                        prop_assert!(in_flight.is_none());
                        in_flight = Some((round, [None; 2]));
                    }
                }
                Action::Answer(p) => {
                    if let Some((round, answers)) = &mut in_flight {
                        answers[p].get_or_insert(ends[p]);
                        if let [Some(a), Some(b)] = *answers {
                            barrier.on_ends(*round, vec![Offset(a), Offset(b)], at(0));
                            in_flight = None;
                        }
                    }
                }
                Action::Read(p) => read[p] = (read[p] + 1).min(ends[p]),
                Action::Fail => {
                    if let Some((round, _)) = in_flight.take() {
                        prop_assert!(barrier.on_failed(round));
                        waiting.retain(|(its, _)| *its != round);
                    }
                }
            }
            let passed = barrier.poll_passed(|p| Offset(read[p.0 as usize]));
            for (_, readable) in waiting.extract_if(.., |(round, _)| *round <= passed) {
                prop_assert!(read[0] >= readable[0] && read[1] >= readable[1]);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_decision_has_seen_what_was_readable_at_the_arrival(
            actions in prop::collection::vec(action(), 1..200),
        ) {
            check(actions)?;
        }
    }

    /// The tenth of the planted bugs; the fleet finds the others (`tests/it/fleet/planted.rs`).
    #[cfg(feature = "planted")]
    #[test]
    fn the_planted_barrier_before_the_arrival_is_found() {
        use proptest::test_runner::TestRunner;
        crate::model::plant(Some(Bug::BarrierBeforeArrival));
        let found =
            TestRunner::deterministic().run(&prop::collection::vec(action(), 1..200), check);
        crate::model::plant(None);
        assert!(found.is_err(), "the bug was not found");
        println!("planted bugs found: 1/1 BarrierBeforeArrival");
    }
}
