//! Commands that wait until their home has read what was readable when they arrived. The rounds of
//! a topic are in `barrier.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::command::OpenCommands;
use crate::config::{BARRIER_BYTES_MAX, Dedupe, OPEN_COMMAND_BYTES};
use crate::kafka::{Denial, Doing, Isolation, KafkaError};
use crate::metrics::{BarrierFailure, BarrierStatus, By, Counter, General, Histogram};
use crate::model::{ExchangeId, Instant, Now, Offset, millis};
use crate::route::{Failure, Refused};
use crate::shard::message::CommandRequest;
use crate::shard::wait_queue::WaitQueue;

use super::barrier::{BARRIER_MAX, Barrier, Round};
use super::clusters::Clusters;
use super::tickets::{CommandTopics, Tickets};
use super::topics::Topics;

/// A command that waits.
#[derive(Debug)]
pub(super) struct WaitingCommand {
    pub(super) request: Box<CommandRequest>,
    pub(super) topics: CommandTopics,
    arrived: Instant,
    deadline: Instant,
    /// What it waits for now.
    awaits: (usize, Round),
    /// What it waits for then: the round of the commands topic.
    then: Option<(usize, Round)>,
}

/// A command that can't be decided, and why.
#[derive(Debug)]
pub(super) struct UndecidedCommand {
    pub(super) command: WaitingCommand,
    why: BarrierFailure,
    /// Set if brokers deny it until an operator acts.
    denial: Option<Denial>,
}

impl UndecidedCommand {
    /// The answer to the command. Nothing was produced.
    pub(super) fn refusal(&self) -> Refused {
        let (failure, detail) = match (self.why, self.denial) {
            (_, Some(denial)) => return Refused::denied(Doing::Read, denial),
            (BarrierFailure::Draining, None) => return Failure::Draining.into(),
            (BarrierFailure::Unavailable | BarrierFailure::Denied, None) => (
                Failure::BrokerUnavailable,
                "nothing was sent: a reply may be stored, but the brokers did not report in time \
                 how many there are; try again with the same Idempotency-Key",
            ),
            (BarrierFailure::Behind, None) => (
                Failure::NotReady,
                "nothing was sent: a reply may be stored, but the replies were not read up to \
                 their end in time; try again with the same Idempotency-Key",
            ),
            (BarrierFailure::Recreated, None) => (
                Failure::NotReady,
                "nothing was sent: the route's topic was re-created and is loaded again; try \
                 again with the same Idempotency-Key",
            ),
        };
        Refused {
            detail: detail.into(),
            ..failure.into()
        }
    }
}

/// The barriers of all topics at home on a shard, and the commands that wait for them.
#[derive(Debug)]
pub(super) struct Barriers {
    /// By place of the topic. A topic has an entry once a command has waited for it.
    topics: BTreeMap<usize, TopicBarrier>,
    /// Topics with a command that waits for a round which has not begun.
    wanted: BTreeSet<usize>,
    waiting: WaitQueue<ExchangeId, (usize, Round), WaitingCommand>,
    /// Bytes of the waiting commands: bodies, headers and keys.
    bytes: usize,
    counts: BarrierCounts,
}

/// What barriers have done so far.
#[derive(Clone, Debug, Default)]
struct BarrierCounts {
    rounds: Counter,
    commands: Counter,
    failed: By<BarrierFailure, Counter>,
    wait: Histogram,
}

/// The barrier of one topic.
#[derive(Debug)]
struct TopicBarrier {
    rounds: Barrier,
    /// The incarnation of the topic to which the rounds belong.
    incarnation: u32,
    failing: Option<Failing>,
}

/// Since when no round has succeeded.
#[derive(Debug)]
struct Failing {
    last: Instant,
    error: KafkaError,
}

/// Commands that may wait at once. The home's limit of commands in flight is lower by default.
const COMMANDS_MAX: usize = 1 << 20;

const _: () = {
    // A command in flight takes no more than the memory sum counts. Until it is decided it has its
    // place in this queue instead, and its request is counted by `BARRIER_BYTES_MAX`.
    let open = OpenCommands::<ExchangeId>::BYTES_PER_COMMAND + Tickets::BYTES_PER_COMMAND;
    assert!(open <= OPEN_COMMAND_BYTES);
    type Queue = WaitQueue<ExchangeId, (usize, Round), WaitingCommand>;
    assert!(Queue::BYTES_PER_WAITER <= OPEN_COMMAND_BYTES);
};

/// How long after the last failed round a barrier counts as failing. Only a command begins a round,
/// so without commands nothing shows that the leaders answer again.
const FAILING_FOR: Duration = Duration::from_secs(30);

impl Barriers {
    pub(super) fn new() -> Self {
        Self {
            topics: BTreeMap::new(),
            wanted: BTreeSet::new(),
            waiting: WaitQueue::new(COMMANDS_MAX),
            bytes: 0,
            counts: BarrierCounts::default(),
        }
    }

    /// Lets a command wait for the barriers of its replies topic and, in `strict` mode, of its
    /// commands topic. Both are asked at once.
    ///
    /// # Errors
    /// There is no room. The command is returned, to be refused.
    pub(super) fn wait(
        &mut self,
        request: Box<CommandRequest>,
        topics: CommandTopics,
        home: &Topics,
        now: Instant,
    ) -> Result<(), Box<CommandRequest>> {
        let bytes = self.bytes + request.bytes_held();
        // One command may be larger alone (`http.body_bytes_max`).
        if bytes > BARRIER_BYTES_MAX && self.bytes > 0 {
            return Err(request);
        }
        let awaits = self.join(topics.table, home);
        // A one-way command has the commands topic alone.
        let strict = request.dedupe == Dedupe::Strict && !topics.is_one_way();
        let then = strict.then(|| self.join(topics.to, home));
        let deadline = request.deadline.min(now.after(BARRIER_MAX));
        let exchange = request.exchange;
        let command = WaitingCommand {
            request,
            topics,
            arrived: now,
            deadline,
            awaits,
            then,
        };
        let inserted = self.waiting.insert(exchange, awaits, deadline, command);
        inserted.map_err(|command| command.request)?;
        self.bytes = bytes;
        self.counts.commands.bump();
        Ok(())
    }

    fn join(&mut self, place: usize, home: &Topics) -> (usize, Round) {
        let topic = self.topics.entry(place).or_insert_with(|| TopicBarrier {
            rounds: Barrier::new(),
            incarnation: home[place].incarnation(),
            failing: None,
        });
        self.wanted.insert(place);
        (place, topic.rounds.join())
    }

    /// The number of commands that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a round can begin.
    pub(super) fn has_work(&self) -> bool {
        let can_begin = |place: &usize| {
            let topic = self.topics.get(place);
            topic.is_some_and(|topic| topic.rounds.can_begin())
        };
        self.wanted.iter().any(can_begin)
    }

    /// Begins the rounds that commands wait for: asks the leaders.
    pub(super) fn begin_rounds(&mut self, home: &Topics, clusters: &mut Clusters, now: Now) {
        let (topics, counts) = (&mut self.topics, &mut self.counts);
        self.wanted.retain(|&place| {
            let Some(topic) = topics.get_mut(&place) else {
                return false;
            };
            let Some(round) = topic.rounds.next_round(now.mono) else {
                return true;
            };
            counts.rounds.bump();
            let of_home = &home[place];
            let client = &mut clusters[of_home.cluster()].client;
            client.ends(of_home.handle(), Isolation::Committed, round.0, now);
            false
        });
    }

    /// The leaders have reported the ends of a topic. Returns true if rounds had failed before.
    #[must_use]
    pub(super) fn on_ends(
        &mut self,
        place: usize,
        round: Round,
        ends: Vec<Offset>,
        now: Instant,
    ) -> bool {
        let Some(topic) = self.topics.get_mut(&place) else {
            return false;
        };
        let answered = topic.rounds.on_ends(round, ends, now);
        answered.is_some() && topic.failing.take().is_some()
    }

    /// The leaders of a topic can't report its ends. [`Self::next_failed`] returns the commands
    /// that waited for that. Returns whether the round before failed too. `None`: the round is not
    /// in flight any more, and nothing has failed.
    #[must_use]
    pub(super) fn on_failed(
        &mut self,
        place: usize,
        round: Round,
        error: &KafkaError,
        now: Instant,
    ) -> Option<bool> {
        let topic = self.topics.get_mut(&place)?;
        if !topic.rounds.on_failed(round) {
            return None;
        }
        let error = error.clone();
        let failing = Failing { last: now, error };
        Some(topic.failing.replace(failing).is_some())
    }

    /// The next command that waited for a round which has failed.
    pub(super) fn next_failed(
        &mut self,
        place: usize,
        round: Round,
        error: &KafkaError,
    ) -> Option<UndecidedCommand> {
        let command = self.waiting.next_met(&((place, round)..=(place, round)))?;
        let denial = match error {
            KafkaError::Broker(code) => code.denial(),
            _ => None,
        };
        let why = match denial {
            Some(_) => BarrierFailure::Denied,
            None => BarrierFailure::Unavailable,
        };
        Some(self.fail(command, why, denial))
    }

    fn fail(
        &mut self,
        command: WaitingCommand,
        why: BarrierFailure,
        denial: Option<Denial>,
    ) -> UndecidedCommand {
        self.bytes -= command.request.bytes_held();
        self.counts.failed.bump(why);
        UndecidedCommand {
            command,
            why,
            denial,
        }
    }

    /// The next command that can be decided, because the home has read the topic far enough.
    pub(super) fn next_passed(
        &mut self,
        place: usize,
        home: &Topics,
        now: Instant,
    ) -> Option<WaitingCommand> {
        let topic = self.topics.get_mut(&place)?;
        let passed = topic.rounds.poll_passed(|p| home[place].next_offset(p));
        let met = (place, Round::default())..=(place, passed);
        while let Some(mut command) = self.waiting.next_met(&met) {
            match command.then.take() {
                Some(then) if !self.is_passed(then.0, then.1) => {
                    command.awaits = then;
                    let (exchange, deadline) = (command.request.exchange, command.deadline);
                    let inserted = self.waiting.insert(exchange, then, deadline, command);
                    debug_assert!(inserted.is_ok(), "it has just left the queue");
                }
                _ => {
                    self.bytes -= command.request.bytes_held();
                    self.counts.wait.record(now.since(command.arrived));
                    return Some(command);
                }
            }
        }
        None
    }

    fn is_passed(&self, place: usize, round: Round) -> bool {
        let topic = self.topics.get(&place);
        topic.is_some_and(|topic| topic.rounds.passed() >= round)
    }

    /// Whether a topic has another incarnation than its rounds. Then [`Self::next_restarted`]
    /// returns the commands that waited for them.
    pub(super) fn on_incarnation(&mut self, place: usize, incarnation: u32) -> bool {
        let Some(topic) = self.topics.get_mut(&place) else {
            return false;
        };
        let other = topic.incarnation != incarnation;
        if other {
            topic.incarnation = incarnation;
            topic.rounds.restart();
        }
        other
    }

    /// The next command that waited for a topic which has been re-created.
    pub(super) fn next_restarted(&mut self, place: usize) -> Option<UndecidedCommand> {
        let all = (place, Round::default())..=(place, Round(u64::MAX));
        let command = self.waiting.next_met(&all)?;
        Some(self.fail(command, BarrierFailure::Recreated, None))
    }

    /// The next command whose deadline has passed.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<UndecidedCommand> {
        let command = self.waiting.next_expired(now)?;
        let (place, round) = command.awaits;
        let topic = self.topics.get(&place);
        let answered = topic.is_some_and(|topic| topic.rounds.is_answered(round));
        let why = if answered {
            BarrierFailure::Behind
        } else {
            BarrierFailure::Unavailable
        };
        Some(self.fail(command, why, None))
    }

    /// The next command that waits, since the process is draining.
    pub(super) fn next_drained(&mut self) -> Option<UndecidedCommand> {
        let command = self.waiting.next_expired(Instant::MAX)?;
        Some(self.fail(command, BarrierFailure::Draining, None))
    }

    /// A client has disconnected. Returns its command if that waited: nothing is produced then.
    pub(super) fn cancel(&mut self, exchange: ExchangeId) -> Option<WaitingCommand> {
        let command = self.waiting.cancel(exchange)?;
        self.bytes -= command.request.bytes_held();
        Some(command)
    }

    /// When [`Self::next_expired`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.next_deadline()
    }

    /// How long a command has waited, of the one whose deadline is next. Deadlines are at most
    /// [`BARRIER_MAX`] after arrival, so this is the oldest but for commands whose own deadline is
    /// sooner.
    fn longest_wait(&self, now: Instant) -> Duration {
        let soonest = self.waiting.soonest();
        soonest.map_or(Duration::ZERO, |command| now.since(command.arrived))
    }

    /// The commands that wait, for `/status`.
    pub(super) fn status(&self, now: Instant) -> BarrierStatus {
        BarrierStatus {
            waiting: self.len() as u64,
            waiting_bytes: self.bytes as u64,
            longest_wait_ms: millis(self.longest_wait(now)),
            rounds: self.counts.rounds.0,
            passed: self.counts.wait.count(),
            refused: self.counts.failed.sum(),
        }
    }

    /// Brings the metrics up to date.
    pub(super) fn count(&self, now: Instant, metrics: &mut General) {
        metrics.barrier_waiting.set(self.len() as u64);
        let longest = millis(self.longest_wait(now));
        metrics.barrier_longest_wait.set(longest);
        metrics.barrier_rounds = self.counts.rounds;
        metrics.barrier_commands = self.counts.commands;
        metrics.barrier_failed.clone_from(&self.counts.failed);
        metrics.barrier_wait.clone_from(&self.counts.wait);
    }

    /// The topics whose last round failed not long ago, and why.
    pub(super) fn failing(&self, now: Instant) -> impl Iterator<Item = (usize, &KafkaError)> {
        let recent = move |failing: &&Failing| now.since(failing.last) < FAILING_FOR;
        self.topics.iter().filter_map(move |(&place, topic)| {
            let failing = topic.failing.as_ref().filter(recent)?;
            Some((place, &failing.error))
        })
    }
}
