//! Commands at their home, the only place that decides whether a command is new, in flight or
//! answered, and the only one that produces it. So two requests with one key never race within a
//! process.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{
    Admitted, AnsweredExchange, CommandTable, Expired, Notice, OpenCommands, OpenLimits,
    PartitionBy, ReplyHeaders, ReplyIndex, ReplyIndexSettings,
};
use crate::config::Config;
use crate::kafka::{
    Client, Doing, Event, ProduceError, ProduceRecord, ProduceRefused, Produced, TopicHandle,
    TopicView, partition_of,
};
use crate::log::Step;
use crate::metrics::{IgnoredReply, TopicMetrics};
use crate::model::{CommandKey, ExchangeId, Instant, Now, Partition};
use ahash::AHashMap;

use super::health::Written;
use super::lookups::{Lookups, Wanted};
use super::{Home, Outbox};
use crate::route::{Failure, Refused};
use crate::shard::message::{Answer, CommandRequest, EdgeMessage};
use crate::shard::snapshot::ClusterId;

/// The window of a replies topic without `retention.ms`: replies are stored while memory lasts.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The commands whose replies come from one topic.
#[derive(Debug)]
pub(super) struct Commands {
    table: CommandTable<ExchangeId>,
    settings: ReplyIndexSettings,
    random: ahash::RandomState,
    /// Stored replies that are read again, since their bodies are no longer in memory.
    pub(super) lookups: Lookups,
    answered: Vec<AnsweredExchange<ExchangeId>>,
    /// When the log may next have a line about records that answer no command, and about replies
    /// that lose headers or can't be read.
    next_notices: [Instant; 2],
    /// Whether the log has a line about replies that were dropped for lack of memory.
    cut_reported: bool,
}

/// The shortest time between two lines of the log about one topic's replies.
const NOTICE_EVERY: Duration = Duration::from_secs(60);

/// Records whose outcome is not known, by the ticket that the client reports it for. Their number
/// is bounded by that of the in-flight commands.
#[derive(Debug)]
pub(super) struct Tickets {
    next: u64,
    open: AHashMap<u64, Ticket>,
    /// The newest ticket of each command.
    by_key: AHashMap<CommandKey, Place>,
}

/// A command's record in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// Indexes among the home's topics: the topic of the replies, and the topic of the record.
    pub(super) replies: usize,
    pub(super) to: usize,
    pub(super) key: CommandKey,
    /// Whether the record has a key.
    pub(super) has_key: bool,
}

/// A ticket and the partition its record goes to.
#[derive(Clone, Copy, Debug)]
struct Place {
    ticket: u64,
    cluster: ClusterId,
    topic: TopicHandle,
    partition: Partition,
}

impl Tickets {
    pub(super) fn new(random: ahash::RandomState) -> Self {
        let open = AHashMap::with_hasher(random.clone());
        Self {
            next: 0,
            open,
            by_key: AHashMap::with_hasher(random),
        }
    }

    fn open(
        &mut self,
        command: Ticket,
        (cluster, topic, partition): (ClusterId, TopicHandle, Partition),
    ) -> u64 {
        self.next += 1;
        self.open.insert(self.next, command);
        let ticket = self.next;
        self.by_key.insert(
            command.key,
            Place {
                ticket,
                cluster,
                topic,
                partition,
            },
        );
        self.next
    }

    /// Ends a ticket. Returns its record, and whether the ticket is the newest of its command.
    pub(super) fn close(&mut self, ticket: u64) -> Option<(Ticket, bool)> {
        let command = self.open.remove(&ticket)?;
        // A command that was produced again has a newer ticket.
        let newest = self.by_key.get(&command.key);
        let newest = newest.is_none_or(|place| place.ticket == ticket);
        if newest {
            self.by_key.remove(&command.key);
        }
        Some((command, newest))
    }
}

impl Commands {
    pub(super) fn new(config: &Config, replies: TopicHandle, random: ahash::RandomState) -> Self {
        let lookups = Lookups::new(replies);
        let settings = &config.settings.commands;
        let limits = OpenLimits {
            entries_max: settings.open_max,
            waiters_max: settings.open_max.saturating_mul(2),
            waiters_per_command_max: settings.waiters_max,
            open_limit: settings.open_limit,
            unknown_limit: config.settings.kafka.delivery_timeout * 2,
        };
        let settings = ReplyIndexSettings {
            window: FOR_EVER,
            dedupe_bytes_max: settings.dedupe_memory,
            body_bytes_max: settings.replies_bytes_max,
        };
        let table = CommandTable::new(
            OpenCommands::new(limits, random.clone()),
            ReplyIndex::new(settings, random.clone()),
            reply_headers(config),
        );
        Self {
            table,
            settings,
            random,
            lookups,
            answered: Vec::new(),
            next_notices: [Instant::ZERO; 2],
            cut_reported: false,
        }
    }

    /// The replies topic is loaded for the first time, or was re-created: stored replies of the old
    /// log are dropped. In-flight commands stay.
    pub(super) fn on_new_log(&mut self, view: &TopicView, client: &mut Client, out: &mut Outbox) {
        self.lookups.clear(client, out);
        self.on_retention(view);
        self.table.replies = ReplyIndex::new(self.settings, self.random.clone());
    }

    /// Replies are stored for as long as the topic keeps them by its present config.
    pub(super) fn on_retention(&mut self, view: &TopicView) {
        let window = view.config.as_ref().and_then(|config| config.retention);
        self.settings.window = window.unwrap_or(FOR_EVER);
        self.table.replies.set_window(self.settings.window);
    }

    /// Applies a step of the replies topic and answers the exchanges that waited for it.
    pub(super) fn apply(&mut self, step: &Step, loaded: bool, now: Now, out: &mut Outbox) {
        self.table.apply(step, loaded, now.wall, &mut self.answered);
        for AnsweredExchange { waiter, answer } in self.answered.drain(..) {
            let answer = match answer {
                Ok(reply) => Answer::Reply {
                    reply,
                    replayed: false,
                },
                Err(error) => Answer::Refused(error.into()),
            };
            out.to_edge(waiter, EdgeMessage::Answer(answer));
        }
    }

    /// Called when a command's record is certainly not in the log.
    pub(super) fn on_refused(&mut self, key: CommandKey, refused: Refused, out: &mut Outbox) {
        let waiters = self.table.open.on_refused(key);
        tell(&waiters, &Answer::Refused(refused), out);
    }

    /// Called when it is unknown whether a command's record is in the log.
    pub(super) fn on_unknown(&mut self, key: CommandKey, now: Now, out: &mut Outbox) {
        let waiters = self.table.open.on_unknown(key, now.mono);
        tell(&waiters, &refused(Failure::OutcomeUnknown), out);
    }

    /// Log lines that are due about the topic's replies. Each follows the topic's name.
    pub(super) fn notices(&mut self, now: Now) -> impl Iterator<Item = String> + use<> {
        let [next_ignored, next_flawed] = &mut self.next_notices;
        let mut due =
            |next: &mut Instant, take: fn(&mut CommandTable<ExchangeId>) -> Option<Notice>| {
                // Notices in between are dropped, but counted.
                let Notice {
                    partition,
                    offset,
                    text,
                } = take(&mut self.table)?;
                let (partition, offset) = (partition.0, offset.0);
                (now.mono >= *next).then(|| {
                    *next = now.mono.after(NOTICE_EVERY);
                    format!(" partition {partition} offset {offset}: {text}")
                })
            };
        let ignored = due(next_ignored, CommandTable::take_ignored);
        let flawed = due(next_flawed, CommandTable::take_flawed);
        let cut = self.explain_cut(now);
        let newly = std::mem::replace(&mut self.cut_reported, cut.is_some());
        let cut = cut.filter(|_| !newly).map(|text| format!(": {text}"));
        [ignored, flawed, cut].into_iter().flatten()
    }

    /// Why retries are recognised for a shorter time than the topic keeps replies, if they are.
    pub(super) fn explain_cut(&self, now: Now) -> Option<String> {
        let from = self.table.replies.cut(now.wall)?;
        let seconds = now.wall.0.saturating_sub(from.0).max(0) / 1000;
        Some(format!(
            "commands.dedupe_memory holds the replies of the last {seconds} s only, and the topic \
             keeps them longer: a retry of an older command runs again; raise it, or lower \
             retention.ms"
        ))
    }

    /// Updates the topic's metrics.
    pub(super) fn count(&self, now: Now, topic: &mut TopicMetrics) {
        let (counts, stats) = (self.table.counts(), self.table.replies.stats());
        topic.reply_index_entries.set(stats.entries as u64);
        topic.reply_index_bytes.set(stats.entry_bytes as u64);
        topic.reply_index_cuts.0 = stats.generations_cut;
        let cut = self.table.replies.cut(now.wall).is_some();
        topic.reply_index_cut.set(u64::from(cut));
        for (reason, count) in [
            (IgnoredReply::NoCorrelationId, counts.no_correlation_id),
            (
                IgnoredReply::MalformedCorrelationId,
                counts.malformed_correlation_id,
            ),
            (IgnoredReply::NotInFlight, counts.not_in_flight),
        ] {
            topic.replies_ignored.at(reason).0 = count;
        }
        topic.reply_headers_left_out.0 = counts.headers_left_out;
        topic.replies_unreadable.0 = counts.unreadable;
    }

    /// A waiting client has disconnected: its place is free.
    pub(super) fn on_left(&mut self, key: CommandKey, exchange: ExchangeId, client: &mut Client) {
        self.table.open.on_left(key, exchange);
        self.lookups.cancel(exchange, client);
    }

    /// Moves exchanges past their deadline to `expired`, for [`Home::on_expired`]. Returns true if
    /// replies past the window are left, so that another turn is due.
    #[must_use]
    pub(super) fn on_time(
        &mut self,
        now: Now,
        expired: &mut Vec<Expired<ExchangeId>>,
        client: &mut Client,
        out: &mut Outbox,
    ) -> bool {
        self.lookups.on_time(now.mono, client, out);
        self.table.open.on_timeout(now.mono, expired);
        self.table.replies.expire(now.wall)
    }

    /// When [`Self::on_time`] has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let lookups = self.lookups.next_deadline();
        self.table
            .open
            .next_deadline()
            .into_iter()
            .chain(lookups)
            .min()
    }

    /// An event of a read of a stored reply.
    pub(super) fn on_read(&mut self, event: Event, client: &mut Client, out: &mut Outbox) {
        self.lookups.on_read(event, self.table.names(), client, out);
    }

    /// Memory that the index of replies takes.
    #[cfg(test)]
    pub(super) fn entry_bytes(&self) -> usize {
        self.table.replies.stats().entry_bytes
    }

    /// Commands without a reply.
    pub(super) fn open(&self) -> usize {
        self.table.open.stats().entries
    }
}

/// The client's failure for a record that was not taken.
const fn failure_of(why: ProduceRefused) -> Failure {
    match why {
        ProduceRefused::Full => Failure::Overloaded,
        ProduceRefused::TooLarge { .. } => Failure::CommandTooLarge,
        ProduceRefused::UnknownTopic | ProduceRefused::Unreachable => Failure::BrokerUnavailable,
    }
}

fn refused(failure: Failure) -> Answer {
    Answer::Refused(failure.into())
}

fn tell(waiters: &[ExchangeId], answer: &Answer, out: &mut Outbox) {
    for &waiter in waiters {
        out.to_edge(waiter, EdgeMessage::Answer(answer.clone()));
    }
}

fn reply_headers(config: &Config) -> ReplyHeaders {
    let names = &config.headers;
    let internal = [
        &names.reply_to,
        &names.identity,
        &names.if_match,
        &names.if_none_match,
        &names.idempotency_key,
    ]
    .into_iter()
    .chain([&names.method, &names.path]);
    ReplyHeaders {
        correlation_id: names.correlation_id.as_str().into(),
        status: names.status.as_str().into(),
        retry: names.retry.as_str().into(),
        etag: names.etag.as_str().into(),
        internal: internal.map(|name| name.as_str().into()).collect(),
        set_cookie: false,
    }
}

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

    /// The answer, if there is one already. Otherwise the exchange waits.
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
        let waiter = Some((request.exchange, request.deadline));
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
            Admitted::Joined => None,
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
            (Produced::Unknown(_), _) => commands.on_unknown(command.key, now, out),
        }
    }

    /// Applies what a record's outcome says about its topic. If a broker refused the record,
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
        let partition: Partition = partition_of(by, view.partitions);
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
