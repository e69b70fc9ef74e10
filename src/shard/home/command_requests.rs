//! What a home does with commands and with what becomes of their records: the decision, the record,
//! the answer. The tables are in `commands.rs`.

use crate::command::{Admitted, Attempt, Expired, NewWaiter, PartitionBy};
use crate::config::Dedupe;
use crate::kafka::{
    Doing, KafkaError, ProduceError, ProduceRecord, ProduceRefused, Produced, TopicView,
    partition_of,
};
use crate::model::{
    Bug, CommandKey, CorrelationId, ExchangeId, Instant, Now, Offset, Partition, TopicId,
    is_planted, low_u32,
};
use crate::route::{Failure, Refused};

use super::barrier::Round;
use super::barriers::{Barriers, UndecidedCommand, WaitingCommand};
use super::clusters::Clusters;
use super::commands::{Commands, failure_of, refused};
use super::health::{Line, Written};
use super::lookups::Wanted;
use super::tickets::{CommandTopics, Destination, Ticket, Tickets};
use super::topics::Topics;
use super::unanswered::UnansweredCommands;
use crate::shard::message::{Answer, CommandRequest, EdgeMessage, PollRequest};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::Snapshot;

/// The commands whose topics are at home on a shard.
#[derive(Debug)]
pub(super) struct HomeCommands {
    tickets: Tickets,
    barriers: Barriers,
    unanswered: UnansweredCommands,
    /// The process is stopping: no further command is opened.
    draining: bool,
    /// Reused buffer for the exchanges past their deadline.
    expired: Vec<Expired<ExchangeId>>,
}

/// What the commands of a home work with for one call.
pub(super) struct CommandContext<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) clusters: &'a mut Clusters,
    pub(super) topics: &'a mut Topics,
    pub(super) now: Now,
    pub(super) out: &'a mut Outbox,
}

impl CommandContext<'_> {
    /// The commands that wait for replies of a topic. `None`: the topic holds no replies.
    fn commands(&mut self, replies: usize) -> Option<&mut Commands> {
        self.topics[replies].commands_mut()
    }

    /// A command no longer waits to be decided: its place is free.
    fn release(&mut self, at: CommandTopics, request: &CommandRequest) {
        if let Some(commands) = self.commands(at.table) {
            commands.table.open.release_reserved(&request.tenant);
        }
    }

    /// A command's record is in the log. Its reply closes the command, and clients that do not wait
    /// for the reply are answered now. A one-way command is done.
    fn on_appended(&mut self, at: CommandTopics, key: CommandKey) {
        let now = self.now;
        match self.topics[at.table].commands_mut() {
            Some(commands) if at.is_one_way() => commands.on_done(key, self.out),
            Some(commands) => commands.on_appended(key, now, self.out),
            None => {}
        }
    }

    /// A command's record is certainly not in the log.
    fn on_refused(&mut self, replies: usize, key: CommandKey, why: Refused) {
        if let Some(commands) = self.topics[replies].commands_mut() {
            commands.on_refused(key, why, self.out);
        }
    }
}

impl HomeCommands {
    pub(super) fn new(random: ahash::RandomState) -> Self {
        Self {
            tickets: Tickets::new(random),
            unanswered: UnansweredCommands::default(),
            barriers: Barriers::new(),
            draining: false,
            expired: Vec::new(),
        }
    }

    // What clients want.

    /// Decides a command, and produces it if it is new. A command that may be new is decided once
    /// the home has read all replies that were readable when it arrived.
    pub(super) fn on_command(&mut self, request: Box<CommandRequest>, cx: &mut CommandContext<'_>) {
        let exchange = request.exchange;
        // A command is sent to the home that its topics share. From any other it gets 503.
        let answer = match cx.topics.of_command(request.topic, request.replies) {
            None => Some(refused(Failure::NotReady)),
            Some(at) if self.needs_barrier(&request, at, cx) => self.wait(request, at, cx),
            Some(at) => self.decide(*request, at, cx),
        };
        if let Some(answer) = answer {
            cx.out.to_edge(exchange, EdgeMessage::Answer(answer));
        }
    }

    /// Whether a command is decided only after a barrier. A stored reply of the same request
    /// answers it at once, and the same request in flight is joined at once: nothing is produced,
    /// so no reply that was not read yet could change that. A refusal needs no barrier either.
    fn needs_barrier(
        &self,
        request: &CommandRequest,
        at: CommandTopics,
        cx: &CommandContext<'_>,
    ) -> bool {
        let may_open = request.dedupe != Dedupe::Local && !self.draining;
        may_open && is_usable(request, at, cx) && !is_known(request, at, cx)
    }

    /// Lets a command wait for its barrier. Returns the answer if there is no room for it.
    fn wait(
        &mut self,
        request: Box<CommandRequest>,
        at: CommandTopics,
        cx: &mut CommandContext<'_>,
    ) -> Option<Answer> {
        // A waiting command has a place as one in flight has, until `CommandContext::release`.
        let table = cx.commands(at.table).map(|it| &mut it.table);
        if let Some(Err(limit)) = table.map(|it| it.open.reserve(&request.tenant)) {
            return Some(Answer::Refused(limit.into()));
        }
        let waits = self.barriers.wait(request, at, cx.topics, cx.now.mono);
        let request = waits.err()?;
        cx.release(at, &request);
        Some(refused(Failure::Overloaded))
    }

    /// Takes over the routes of a snapshot.
    pub(super) fn load(&mut self, snapshot: &Snapshot, topics: &Topics) {
        self.unanswered.load(snapshot, topics);
    }

    /// Asks the leaders for the ends that commands wait for.
    pub(super) fn begin_rounds(&mut self, cx: &mut CommandContext<'_>) {
        self.barriers.begin_rounds(cx.topics, cx.clusters, cx.now);
    }

    /// Whether leaders can be asked for ends that commands wait for.
    pub(super) fn has_work(&self) -> bool {
        self.barriers.has_work()
    }

    /// The leaders of a topic have reported its ends, or can't.
    pub(super) fn on_ends(
        &mut self,
        place: usize,
        round: Round,
        ends: Result<Vec<Offset>, KafkaError>,
        cx: &mut CommandContext<'_>,
    ) {
        let topic = &cx.topics[place];
        match ends {
            Ok(ends) => {
                if self.barriers.on_ends(place, round, ends, cx.now.mono) {
                    let line = "its leaders report its end again: commands are taken";
                    topic.log_line(Some(Line::Info(line.into())), cx.snapshot, cx.out);
                }
                self.on_progress(place, cx);
            }
            Err(error) => {
                let failed = self.barriers.on_failed(place, round, &error, cx.now.mono);
                let Some(known) = failed else { return };
                if !known {
                    let line = format!(
                        "its leaders don't report its end, so commands with an idempotency key are \
                         refused: {error}"
                    );
                    topic.log_line(Some(Line::Warn(line)), cx.snapshot, cx.out);
                }
                while let Some(undecided) = self.barriers.next_failed(place, round, &error) {
                    self.on_undecided(undecided, cx);
                }
            }
        }
    }

    /// The home has read more of a topic, or has begun to read another incarnation of it.
    pub(super) fn on_progress(&mut self, place: usize, cx: &mut CommandContext<'_>) {
        if cx.topics[place].has_unindexed() {
            self.unanswered.on_steps(place, cx.topics, cx.now.wall);
        }
        let incarnation = cx.topics[place].incarnation();
        if self.barriers.on_incarnation(place, incarnation) {
            while let Some(undecided) = self.barriers.next_restarted(place) {
                self.on_undecided(undecided, cx);
            }
        }
        while let Some(command) = self.barriers.next_passed(place, cx.topics, cx.now.mono) {
            let exchange = command.request.exchange;
            cx.release(command.topics, &command.request);
            let answer = self.decide(*command.request, command.topics, cx);
            if let Some(answer) = answer {
                cx.out.to_edge(exchange, EdgeMessage::Answer(answer));
            }
        }
    }

    /// Answers a command that can't be decided. Nothing was produced. A reply of its own request
    /// may have been read meanwhile, and is an answer all the same.
    fn on_undecided(&mut self, undecided: UndecidedCommand, cx: &mut CommandContext<'_>) {
        let refusal = undecided.refusal();
        let WaitingCommand {
            request, topics, ..
        } = undecided.command;
        let exchange = request.exchange;
        cx.release(topics, &request);
        let answer = if is_usable(&request, topics, cx) && is_known(&request, topics, cx) {
            self.decide(*request, topics, cx)
        } else {
            Some(Answer::Refused(refusal))
        };
        if let Some(answer) = answer {
            cx.out.to_edge(exchange, EdgeMessage::Answer(answer));
        }
    }

    /// The answer, if it is known at once. Otherwise the exchange waits.
    fn decide(
        &mut self,
        request: CommandRequest,
        at: CommandTopics,
        cx: &mut CommandContext<'_>,
    ) -> Option<Answer> {
        if !at.is_one_way() && !cx.topics[at.table].is_live() {
            let why = cx.topics[at.table].refusal(cx.snapshot);
            return Some(Answer::Refused(why));
        }
        let readable = request.dedupe != Dedupe::Strict || cx.topics[at.to].is_live();
        let view = cx.topics[at.to].view().filter(|_| readable);
        let Some(view) = view.cloned() else {
            let why = cx.topics[at.to].refusal(cx.snapshot);
            return Some(Answer::Refused(why));
        };
        let cluster = cx.topics[at.table].cluster();
        let Some(commands) = cx.topics[at.table].commands_mut() else {
            return Some(refused(Failure::NotReady));
        };
        let key = request.key;
        let attempt = Attempt {
            id: CorrelationId {
                key,
                fingerprint: request.fingerprint,
            },
            tenant: request.tenant.clone(),
            joins: request.joins,
        };
        let waiter = NewWaiter {
            waiter: request.exchange,
            deadline: request.deadline,
            accept_at: request.accept_at,
        };
        let now = cx.now.mono;
        // A one-way command that is in the log is done, whichever instance appended it.
        if at.is_one_way() && commands.table.is_unanswered(attempt.id) {
            return Some(Answer::Accepted);
        }
        match commands.table.admit(&attempt, Some(waiter), now) {
            Admitted::Answered(Ok(reply)) => Some(Answer::Reply {
                reply,
                replayed: true,
            }),
            Admitted::Answered(Err(error)) => Some(Answer::Refused(error.into())),
            Admitted::AnsweredAt(id, partition, offset) => {
                let wanted = Wanted {
                    id,
                    partition,
                    offset,
                };
                let client = &mut cx.clusters[cluster].client;
                let (exchange, deadline) = (request.exchange, request.deadline);
                let asked = commands.lookups.ask(exchange, deadline, wanted, client);
                (!asked).then(|| refused(Failure::ReplyUnavailable))
            }
            Admitted::InProgress => Some(refused(Failure::CommandInProgress)),
            Admitted::Mismatch => Some(refused(Failure::IdempotencyKeyReused)),
            Admitted::Full(limit) => Some(Answer::Refused(limit.into())),
            Admitted::Joined => None,
            Admitted::Accepted => Some(Answer::Accepted),
            Admitted::Opened => {
                if let Err(why) = self.begin(at, &view, request, cx) {
                    cx.on_refused(at.table, key, why);
                }
                None
            }
        }
    }

    /// Answers a client that asks for the reply to its command.
    pub(super) fn on_poll(&mut self, request: PollRequest, cx: &mut CommandContext<'_>) {
        if let Some(answer) = self.poll(&request, cx) {
            cx.out
                .to_edge(request.exchange, EdgeMessage::Answer(answer));
        }
    }

    /// The answer, if it is known at once. Otherwise the exchange waits.
    fn poll(&mut self, request: &PollRequest, cx: &mut CommandContext<'_>) -> Option<Answer> {
        let Some(at) = cx.topics.place(request.replies) else {
            return Some(refused(Failure::NotReady));
        };
        let topic = &mut cx.topics[at];
        if !topic.is_live() {
            return Some(Answer::Refused(topic.refusal(cx.snapshot)));
        }
        let client = &mut cx.clusters[topic.cluster()].client;
        let Some(commands) = topic.commands_mut() else {
            return Some(refused(Failure::NotReady));
        };
        if self.draining {
            return Some(refused(Failure::Draining));
        }
        commands.poll(request, cx.now, client)
    }

    /// Produces the record of a command that was opened.
    ///
    /// # Errors
    /// Nothing was produced: the answer for the exchanges that wait.
    fn begin(
        &mut self,
        at: CommandTopics,
        view: &TopicView,
        request: CommandRequest,
        cx: &mut CommandContext<'_>,
    ) -> Result<(), Refused> {
        // Check this only now: a retry whose reply is stored needs no broker.
        if self.draining {
            return Err(Failure::Draining.into());
        }
        may_write(at, request.record.key.is_some(), cx)?;
        let produced = self.produce(at, view, request, cx);
        produced.map_err(|why| Refused::from(failure_of(why)))
    }

    fn produce(
        &mut self,
        at: CommandTopics,
        view: &TopicView,
        request: CommandRequest,
        cx: &mut CommandContext<'_>,
    ) -> Result<(), ProduceRefused> {
        let by = match request.record.partition_by {
            PartitionBy::RecordKey => request.record.key.as_deref().unwrap_or_default(),
            PartitionBy::CommandKey => &request.key.0,
        };
        let mut partition = partition_of(by, view.partitions);
        if is_planted(Bug::RoundRobin) && request.record.key.is_none() {
            let now = cx.now.mono.as_nanos() / 1_000_000;
            partition = Partition(low_u32(now) % view.partitions);
        }
        let topic = &cx.topics[at.to];
        let to = Destination {
            cluster: topic.cluster(),
            topic: topic.handle(),
            partition,
        };
        let record = ProduceRecord {
            key: request.record.key,
            value: request.value,
            headers: request.record.headers,
            timestamp: cx.now.wall,
        };
        let command = Ticket {
            topics: at,
            key: request.key,
            has_key: record.key.is_some(),
        };
        let ticket = self.tickets.open(command, to);
        let client = &mut cx.clusters[to.cluster].client;
        let produced = client.produce(to.topic, to.partition, record, ticket, cx.now);
        if produced.is_err() {
            self.tickets.close(ticket);
        }
        produced
    }

    /// A client that waits for a command has disconnected: its place is free.
    pub(super) fn on_cancel(
        &mut self,
        replies: TopicId,
        key: CommandKey,
        exchange: ExchangeId,
        cx: &mut CommandContext<'_>,
    ) {
        if let Some(command) = self.barriers.cancel(exchange) {
            return cx.release(command.topics, &command.request); // Nothing was produced.
        }
        let Some(place) = cx.topics.place(replies) else {
            return;
        };
        let cluster = cx.topics[place].cluster();
        if let Some(commands) = cx.topics[place].commands_mut() {
            commands.on_left(key, exchange, &mut cx.clusters[cluster].client);
        }
    }

    // What becomes of records.

    /// Handles the outcome of a record.
    pub(super) fn on_produced(
        &mut self,
        ticket: u64,
        outcome: Produced,
        cx: &mut CommandContext<'_>,
    ) {
        let Some((command, newest)) = self.tickets.close(ticket) else {
            return;
        };
        let answer = on_written(&command, outcome, cx);
        // The command was sent again. Its waiters wait for the newest record, whatever the outcome
        // of this one.
        if !newest {
            return;
        }
        let table = command.topics.table;
        match (outcome, answer) {
            (Produced::At(..), _) => cx.on_appended(command.topics, command.key),
            (Produced::Refused(_), refused) => {
                let refused = refused.unwrap_or_else(|| Failure::BrokerUnavailable.into());
                cx.on_refused(table, command.key, refused);
            }
            (Produced::Unknown(_), _) if is_planted(Bug::UnknownRefused) => {
                cx.on_refused(table, command.key, Failure::BrokerUnavailable.into());
            }
            (Produced::Unknown(_), _) => {
                let now = cx.now;
                if let Some(commands) = cx.topics[table].commands_mut() {
                    commands.on_unknown(command.key, now, cx.out);
                }
            }
        }
    }

    // Time.

    /// Answers commands whose barrier was not passed in time.
    pub(super) fn on_barrier_timeout(&mut self, cx: &mut CommandContext<'_>) {
        while let Some(undecided) = self.barriers.next_expired(cx.now.mono) {
            self.on_undecided(undecided, cx);
        }
    }

    /// When [`Self::on_barrier_timeout`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.barriers.next_deadline()
    }

    /// What barriers have done so far.
    pub(super) const fn barriers(&self) -> &Barriers {
        &self.barriers
    }

    /// Handles the deadlines of commands of one replies topic. Returns true if more is due at once.
    #[must_use]
    pub(super) fn on_timeout(&mut self, replies: usize, cx: &mut CommandContext<'_>) -> bool {
        let mut expired = std::mem::take(&mut self.expired);
        let topic = &mut cx.topics[replies];
        let client = &mut cx.clusters[topic.cluster()].client;
        let more = topic.expire_commands(cx.now, &mut expired, client, cx.out);
        let commands = topic.commands_mut();
        let line = commands.and_then(|it| it.next_unanswered_line(cx.now));
        topic.log_line(line, cx.snapshot, cx.out);
        // By command, so that all its exchanges receive the same answer.
        expired.sort_unstable_by_key(|it| it.key);
        for of_key in expired.chunk_by(|a, b| a.key == b.key) {
            self.on_expired(replies, of_key, cx);
        }
        expired.clear();
        self.expired = expired;
        more
    }

    /// Answers the exchanges of one command whose deadline has passed. If the record was not sent,
    /// it is withdrawn with its last exchange, which receives 503: nothing happened. Otherwise the
    /// outcome is unknown: 504. An exchange that does not wait for the reply of an appended record
    /// receives 202.
    fn on_expired(
        &mut self,
        replies: usize,
        of_key: &[Expired<ExchangeId>],
        cx: &mut CommandContext<'_>,
    ) {
        let key = of_key[0].key;
        let commands = cx.commands(replies);
        let last = commands.is_some_and(|it| it.table.open.waiters(key) == 0);
        let place = self.tickets.newest(key).filter(|_| last);
        let mut failure = Failure::OutcomeUnknown;
        if let Some(place) = place {
            let client = &mut cx.clusters[place.to.cluster].client;
            if client.withdraw(place.to.topic, place.to.partition, place.ticket) {
                self.tickets.close(place.ticket);
                failure = Failure::BrokerUnavailable;
                if let Some(commands) = cx.commands(replies) {
                    commands.table.open.on_refused(key);
                }
            }
        }
        for &Expired {
            waiter, accepted, ..
        } in of_key
        {
            let answer = if accepted {
                Answer::Accepted
            } else {
                refused(failure)
            };
            cx.out.to_edge(waiter, EdgeMessage::Answer(answer));
        }
    }

    /// Stops opening commands. Commands that no broker can have are withdrawn, and their clients
    /// may retry at another instance. The others wait for the service's reply until the drain's
    /// time is up.
    pub(super) fn drain(&mut self, cx: &mut CommandContext<'_>) {
        self.draining = true;
        while let Some(undecided) = self.barriers.next_drained() {
            self.on_undecided(undecided, cx);
        }
        // A poll continues at another instance as well as here.
        for at in 0..cx.topics.len() {
            if let Some(commands) = cx.topics[at].commands_mut() {
                commands.end_polls(cx.out);
            }
        }
        let clusters = cx.clusters.all_mut().iter_mut();
        let unsent = clusters.flat_map(|cluster| cluster.client.withdraw_unsent());
        for ticket in unsent.collect::<Vec<u64>>() {
            // A broker may have another record of the same command.
            if let Some((command, true)) = self.tickets.close(ticket) {
                cx.on_refused(command.topics.table, command.key, Failure::Draining.into());
            }
        }
    }
}

/// Whether a command to these topics can be decided: replies are loaded, and the topic that it is
/// written to is there. A strict route needs that topic's unanswered commands too.
fn is_usable(request: &CommandRequest, at: CommandTopics, cx: &CommandContext<'_>) -> bool {
    let (to, table) = (&cx.topics[at.to], &cx.topics[at.table]);
    let indexed = request.dedupe != Dedupe::Strict || to.is_live();
    table.is_live() && to.view().is_some() && indexed
}

/// Whether a reply of this very request is stored, or the request is in flight here and joined. A
/// route that does not join answers 409, but a reply that is readable is the better answer.
fn is_known(request: &CommandRequest, at: CommandTopics, cx: &CommandContext<'_>) -> bool {
    let id = CorrelationId {
        key: request.key,
        fingerprint: request.fingerprint,
    };
    let commands = cx.topics[at.table].commands();
    commands.is_some_and(|it| it.table.is_known(id, request.joins))
}

/// Whether brokers accept the record of a new command and show its reply.
fn may_write(at: CommandTopics, has_key: bool, cx: &mut CommandContext<'_>) -> Result<(), Refused> {
    // If the replies topic can't be read, the command would never be answered.
    let from = &cx.topics[at.table];
    if !at.is_one_way() && from.is_unreadable() {
        return Err(from.refusal(cx.snapshot));
    }
    let now = cx.now.mono;
    let admitted = cx.topics[at.to].writes_mut().admit(has_key, now);
    admitted.map_err(|denial| Refused::denied(Doing::Write, denial))
}

/// Applies what a record's outcome shows about its topic. If a broker refused the record, returns
/// the answer for the waiters.
fn on_written(command: &Ticket, outcome: Produced, cx: &mut CommandContext<'_>) -> Option<Refused> {
    let topic = &mut cx.topics[command.topics.to];
    let code = match outcome {
        Produced::At(..) => {
            let line = topic.writes_mut().on_appended(command.has_key);
            topic.log_line(line, cx.snapshot, cx.out);
            return None;
        }
        Produced::Refused(ProduceError::Broker(code))
        | Produced::Unknown(ProduceError::Broker(code)) => code,
        Produced::Refused(_) | Produced::Unknown(_) => return None,
    };
    let written = Written {
        has_key: command.has_key,
        compacted: topic.compacted(),
    };
    let (refused, line) = topic.writes_mut().on_refused(code, written, cx.now.mono);
    topic.log_line(line, cx.snapshot, cx.out);
    Some(refused)
}
