//! What a home does with commands and with what becomes of their records: the decision, the record,
//! the answer. The tables are in `commands.rs`.

use std::sync::Arc;

use crate::command::{Admitted, Expired, NewWaiter, PartitionBy};
use crate::kafka::{
    Doing, ProduceError, ProduceRecord, ProduceRefused, Produced, TopicView, partition_of,
};
use crate::model::{Bug, ExchangeId, Now, Partition, is_planted};
use crate::route::{Failure, Refused};

use super::Home;
use super::commands::{Place, Ticket, failure_of, refused, tell};
use super::health::Written;
use super::lookups::Wanted;
use crate::shard::message::{Answer, CommandRequest, EdgeMessage};
use crate::shard::outbox::Outbox;

impl Home {
    /// Answers the exchanges of one replies topic whose deadline has passed. If the record was not
    /// sent, it is withdrawn with its last exchange, which receives 503: nothing happened.
    /// Otherwise the outcome is unknown: 504.
    pub(super) fn on_expired(
        &mut self,
        replies: usize,
        expired: &mut Vec<Expired<ExchangeId>>,
        out: &mut Outbox,
    ) {
        // By command, so that all its exchanges receive the same answer.
        expired.sort_unstable_by_key(|it| it.key);
        for of_key in expired.chunk_by(|a, b| a.key == b.key) {
            let key = of_key[0].key;
            let commands = self.topics[replies]
                .commands
                .as_mut()
                .expect("they expired there");
            let place = self.tickets.by_key.get(&key).copied();
            let last = commands.table.open.waiters(key) == 0;
            let clusters = &mut self.clusters;
            let mut withdraw = |at: &Place| {
                let client = &mut clusters[usize::from(at.cluster.0)].client;
                client.withdraw(at.topic, at.partition, at.ticket)
            };
            let unsent = place
                .filter(|at| last && withdraw(at))
                .map(|place| place.ticket);
            let failure = match unsent {
                None => Failure::OutcomeUnknown,
                Some(ticket) => {
                    self.tickets.close(ticket);
                    commands.table.open.on_refused(key);
                    Failure::BrokerUnavailable
                }
            };
            let waiters: Vec<ExchangeId> = of_key.iter().map(|it| it.waiter).collect();
            tell(&waiters, &refused(failure), out);
        }
        expired.clear();
    }

    /// Stops opening commands. Commands that no broker can have are withdrawn, and their clients
    /// may retry at another instance. The others wait for the service's reply until the drain's
    /// time is up.
    pub(in crate::shard) fn drain(&mut self, out: &mut Outbox) {
        self.draining = true;
        let unsent: Vec<u64> = self
            .clusters
            .iter_mut()
            .flat_map(|cluster| cluster.client.withdraw_unsent())
            .collect();
        for ticket in unsent {
            let Some((command, newest)) = self.tickets.close(ticket) else {
                continue;
            };
            // A broker may have another record of the same command.
            let commands = self.topics[command.replies].commands.as_mut();
            if let Some(commands) = commands.filter(|_| newest) {
                commands.on_refused(command.key, Failure::Draining.into(), out);
            }
        }
    }

    /// Decides a command, and produces it if it is new.
    pub(super) fn on_command(&mut self, request: CommandRequest, now: Now, out: &mut Outbox) {
        let waiter = request.exchange;
        if let Some(answer) = self.decide(request, now, out) {
            out.to_edge(waiter, EdgeMessage::Answer(answer));
        }
    }

    /// The answer, if it is known at once. Otherwise the exchange waits.
    fn decide(&mut self, request: CommandRequest, now: Now, out: &mut Outbox) -> Option<Answer> {
        let (Some(to), Some(replies)) = (self.at(request.topic), self.at(request.replies)) else {
            debug_assert!(false, "linked topics share their home");
            return Some(refused(Failure::NotReady));
        };
        if !self.topics[replies].is_live() {
            return Some(Answer::Refused(
                self.topics[replies].refusal(&self.snapshot),
            ));
        }
        let there = !self.topics[to].health.is_missing();
        let Some(view) = self.topics[to].view.clone().filter(|_| there) else {
            return Some(Answer::Refused(self.topics[to].refusal(&self.snapshot)));
        };
        let cluster = self.topics[to].cluster;
        let key = request.key;
        let commands = self.topics[replies]
            .commands
            .as_mut()
            .expect("a replies topic has them");
        let waiter = Some(NewWaiter {
            waiter: request.exchange,
            deadline: request.deadline,
            accept_at: None,
        });
        match commands
            .table
            .admit(key, request.fingerprint, waiter, now.mono)
        {
            Admitted::Answered(Ok(reply)) => Some(Answer::Reply {
                reply,
                replayed: true,
            }),
            Admitted::Answered(Err(error)) => Some(Answer::Refused(error.into())),
            Admitted::AnsweredAt(id, partition, offset) => {
                let lookups = &mut commands.lookups;
                let waiter = (request.exchange, request.deadline);
                let wanted = Wanted {
                    id,
                    partition,
                    offset,
                };
                let client = &mut self.clusters[usize::from(cluster.0)].client;
                let asked = lookups.ask(waiter, wanted, client);
                (!asked).then(|| refused(Failure::ReplyUnavailable))
            }
            Admitted::Mismatch => Some(refused(Failure::IdempotencyKeyReused)),
            Admitted::Full(limit) => Some(Answer::Refused(limit.into())),
            Admitted::Joined | Admitted::Accepted => None,
            Admitted::Opened if self.draining => {
                commands.on_refused(key, Failure::Draining.into(), out);
                None
            }
            Admitted::Opened => {
                // Check this only now: a retry whose reply is stored needs no broker.
                let has_key = request.record.key.is_some();
                let may = self.may_write(to, replies, has_key, now);
                let done = may.and_then(|()| {
                    let produced = self.produce(to, replies, &view, request, now);
                    produced.map_err(|why| Refused::from(failure_of(why)))
                });
                let refused = done.err()?;
                let commands = self.topics[replies].commands.as_mut().expect("as above");
                commands.on_refused(key, refused, out);
                None
            }
        }
    }

    /// Whether brokers accept the record of a new command and show its reply.
    fn may_write(
        &mut self,
        to: usize,
        replies: usize,
        has_key: bool,
        now: Now,
    ) -> Result<(), Refused> {
        // If the replies topic can't be read, the command would never be answered.
        let from = &self.topics[replies];
        if from.health.is_missing() || from.health.read_denied().is_some() {
            return Err(from.refusal(&self.snapshot));
        }
        let admitted = self.topics[to].health.writes.admit(has_key, now.mono);
        admitted.map_err(|denial| Refused::denied(Doing::Write, denial))
    }

    /// Handles the outcome of a record.
    pub(super) fn on_produced(
        &mut self,
        ticket: u64,
        outcome: Produced,
        now: Now,
        out: &mut Outbox,
    ) {
        let Some((command, newest)) = self.tickets.close(ticket) else {
            return;
        };
        let answer = self.on_written(&command, outcome, now, out);
        // The command was sent again. Its waiters wait for the newest record, whatever the outcome
        // of this one.
        if !newest {
            return;
        }
        let Some(commands) = self.topics[command.replies].commands.as_mut() else {
            return;
        };
        match (outcome, answer) {
            (Produced::At(..), _) => {} // Its reply closes it.
            (Produced::Refused(_), refused) => {
                let refused = refused.unwrap_or_else(|| Failure::BrokerUnavailable.into());
                commands.on_refused(command.key, refused, out);
            }
            (Produced::Unknown(_), _) if is_planted(Bug::UnknownRefused) => {
                commands.on_refused(command.key, Failure::BrokerUnavailable.into(), out);
            }
            (Produced::Unknown(_), _) => commands.on_unknown(command.key, now, out),
        }
    }

    /// Applies what a record's outcome shows about its topic. If a broker refused the record,
    /// returns the answer for the waiters.
    fn on_written(
        &mut self,
        command: &Ticket,
        outcome: Produced,
        now: Now,
        out: &mut Outbox,
    ) -> Option<Refused> {
        let topic = &mut self.topics[command.to];
        let code = match outcome {
            Produced::At(..) => {
                let line = topic.health.writes.on_appended(command.has_key);
                topic.log(line, &self.snapshot, out);
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
        let (refused, line) = topic.health.writes.on_refused(code, written, now.mono);
        topic.log(line, &self.snapshot, out);
        Some(refused)
    }

    fn produce(
        &mut self,
        to: usize,
        replies: usize,
        view: &Arc<TopicView>,
        request: CommandRequest,
        now: Now,
    ) -> Result<(), ProduceRefused> {
        let by = match request.record.partition_by {
            PartitionBy::RecordKey => request.record.key.as_deref().unwrap_or_default(),
            PartitionBy::CommandKey => &request.key.0,
        };
        let mut partition: Partition = partition_of(by, view.partitions);
        if is_planted(Bug::RoundRobin) && request.record.key.is_none() {
            partition = Partition((now.mono.as_nanos() / 1_000_000) as u32 % view.partitions);
        }
        let record = ProduceRecord {
            key: request.record.key,
            value: Some(request.body),
            headers: request.record.headers,
            timestamp: now.wall,
        };
        let handle = self.topics[to].handle();
        let cluster = self.topics[to].cluster;
        let place = (cluster, handle, partition);
        let command = Ticket {
            replies,
            to,
            key: request.key,
            has_key: record.key.is_some(),
        };
        let ticket = self.tickets.open(command, place);
        let client = &mut self.cluster(cluster).client;
        let produced = client.produce(handle, partition, record, ticket, now);
        if produced.is_err() {
            self.tickets.close(ticket);
        }
        produced
    }
}
