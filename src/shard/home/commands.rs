//! Commands at their home, the only place that decides whether a command is new, in flight or
//! answered, and the only one that produces it. So two requests with one key never race within a
//! process.

use std::time::Duration;

use crate::command::{
    AnsweredExchange, CommandTable, Expired, Limit, Notice, OpenCommands, OpenLimits, ReplyHeaders,
    ReplyIndex, ReplyIndexSettings,
};
use crate::config::Config;
use crate::kafka::{Client, Event, ProduceRefused, TopicHandle, TopicView};
use crate::log::Step;
use crate::metrics::{CommandLimit, IgnoredReply, RepliesStatus, TopicMetrics};
use crate::model::{CommandKey, CorrelationId, ExchangeId, Instant, Now, UnixMillis};

use super::lookups::Lookups;
use crate::route::{Failure, Refused};
use crate::shard::message::{Answer, EdgeMessage};
use crate::shard::outbox::Outbox;

/// The window of a replies topic without `retention.ms`: replies are stored while memory lasts.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The commands whose replies come from one topic.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) table: CommandTable<ExchangeId>,
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

impl Commands {
    pub(super) fn new(config: &Config, replies: TopicHandle, random: ahash::RandomState) -> Self {
        let lookups = Lookups::new(replies);
        let settings = &config.settings.commands;
        let limits = OpenLimits {
            entries_max: settings.open_max,
            waiters_max: settings.open_max.saturating_mul(2),
            waiters_per_command_max: settings.waiters_max,
            per_tenant_max: settings.client_open_max,
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
            random.clone(),
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
        let replies = ReplyIndex::new(self.settings, self.random.clone());
        self.table.on_new_log(replies, self.random.clone());
    }

    /// Replies are stored for as long as the topic keeps them by its present config.
    pub(super) fn on_retention(&mut self, view: &TopicView) {
        let window = view.config.as_ref().and_then(|config| config.retention);
        self.settings.window = window.unwrap_or(FOR_EVER);
        self.table.replies.set_window(self.settings.window);
    }

    /// Applies a step of the replies topic and answers the exchanges that waited for it.
    pub(super) fn apply(&mut self, step: &Step, loaded: bool, now: Now, out: &mut Outbox) {
        let answered = &mut self.answered;
        self.table
            .apply(step, loaded, now.wall, answered, &mut |_, _| {});
        for answered in self.answered.drain(..) {
            let answer = match answered.answer {
                Ok(reply) => Answer::Reply {
                    reply,
                    replayed: answered.replayed,
                },
                Err(error) => Answer::Refused(error.into()),
            };
            out.to_edge(answered.waiter, EdgeMessage::Answer(answer));
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

    /// For how long a reply is recognised. `None`: for as long as the memory lasts.
    fn window(&self, now: Now) -> Option<Duration> {
        let cut = self.table.replies.cut(now.wall);
        let since = |from: UnixMillis| now.wall.0.saturating_sub(from.0).max(0) as u64;
        let of_memory = cut.map(|from| Duration::from_millis(since(from)));
        let of_topic = Some(self.settings.window).filter(|it| *it < FOR_EVER);
        of_memory.or(of_topic)
    }

    /// The state of the topic's commands, for `/status`.
    pub(super) fn status(&self, now: Now) -> RepliesStatus {
        let (open, stored) = (self.table.open.stats(), self.table.replies.stats());
        RepliesStatus {
            stored: stored.entries as u64,
            window_seconds: self.window(now).map(|it| it.as_secs()),
            cut: self.table.replies.cut(now.wall).is_some(),
            in_flight: open.entries as u64,
            waiting: open.waiters as u64,
            clients: open.tenants as u64,
        }
    }

    /// Updates the replies topic's metrics from the table.
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
        let window = self.window(now).unwrap_or(FOR_EVER);
        topic.reply_window.set(window.as_secs());
        let open = self.table.open.stats();
        topic.command_clients.set(open.tenants as u64);
        topic.commands_given_up.0 = open.given_up;
        for (limit, count) in Limit::ALL.into_iter().zip(open.limited) {
            topic.commands_limited.at(label_of(limit)).0 = count;
        }
        topic.reply_headers_left_out.0 = counts.headers_left_out;
        topic.replies_unreadable.0 = counts.unreadable;
    }

    /// A waiting client has disconnected: its place is free.
    pub(super) fn on_left(&mut self, key: CommandKey, exchange: ExchangeId, client: &mut Client) {
        self.table.open.on_left(key, exchange);
        self.lookups.cancel(exchange, client);
    }

    /// Moves exchanges past their deadline to `expired`, for `Home::on_expired`. Returns true if
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
        self.table.expire(now.wall)
    }

    /// When [`Self::on_time`] next has work. `None`: no deadline is set.
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

    /// Whether the reply to exactly this request is stored.
    pub(super) fn has_reply(&self, id: CorrelationId) -> bool {
        let stored = self.table.replies.get(id.key, id.fingerprint);
        stored.is_some_and(|it| it.id == id)
    }

    /// The number of commands in flight.
    pub(super) fn open(&self) -> usize {
        self.table.open.stats().entries
    }

    /// The number of exchanges that wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.table.open.stats().waiters
    }
}

const fn label_of(limit: Limit) -> CommandLimit {
    match limit {
        Limit::Commands => CommandLimit::Commands,
        Limit::Waiters => CommandLimit::Waiters,
        Limit::WaitersOfOne => CommandLimit::WaitersOfOne,
        Limit::TenantCommands => CommandLimit::ClientCommands,
        Limit::TenantWaiters => CommandLimit::ClientWaiters,
    }
}

/// The client's failure for a record that was not taken.
pub(super) const fn failure_of(why: ProduceRefused) -> Failure {
    match why {
        ProduceRefused::Full => Failure::Overloaded,
        ProduceRefused::TooLarge { .. } => Failure::CommandTooLarge,
        ProduceRefused::UnknownTopic | ProduceRefused::Unreachable => Failure::BrokerUnavailable,
    }
}

pub(super) fn refused(failure: Failure) -> Answer {
    Answer::Refused(failure.into())
}

pub(super) fn tell(waiters: &[ExchangeId], answer: &Answer, out: &mut Outbox) {
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
