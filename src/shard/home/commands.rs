//! Commands at their home, the only place that decides whether a command is new, in flight or
//! answered, and the only one that produces it. So two requests with one key never race within a
//! process.

use std::time::Duration;

use crate::command::{
    AnsweredExchange, CommandIndex, CommandIndexSettings, CommandTable, Expired, Known, Limit,
    Notice, OpenCommands, OpenLimits, ReplyHeaders, ReplyIndex, ReplyIndexSettings, ReplyResult,
    WAITERS_PER_COMMAND,
};
use crate::config::Config;
use crate::kafka::{Client, Event, ProduceRefused, TopicHandle, TopicView};
use crate::log::Step;
use crate::metrics::{CommandLimit, IgnoredReply, RepliesStatus, TopicMetrics, UnansweredStatus};
use crate::model::{CommandKey, CorrelationId, ExchangeId, Instant, Now, UnixMillis};

use super::health::Line;
use super::lookups::{Lookups, Wanted};
use crate::route::{Failure, Refused};
use crate::shard::message::{Answer, EdgeMessage, PollRequest};
use crate::shard::outbox::Outbox;
use crate::shard::wait_queue::WaitQueue;

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
    /// Exchanges that wait for a reply at the location of an asynchronous command.
    polls: WaitQueue<ExchangeId, CorrelationId, ExchangeId>,
    answered: Vec<AnsweredExchange<ExchangeId>>,
    /// When the log may next have a line about records that answer no command, and about replies
    /// that lose headers or can't be read.
    next_notices: [Instant; 2],
    /// Whether the log has a line about replies that were dropped for lack of memory.
    cut_reported: bool,
    /// Whether the log has a line about unanswered commands that were dropped for lack of memory.
    unanswered_cut_reported: bool,
}

/// By how much the clocks of two instances may differ. A location may be this much younger than
/// now.
const CLOCKS_DIFFER_MS_MAX: i64 = 5 * 60 * 1000;

/// The shortest time between two lines of the log about one topic's replies.
const NOTICE_EVERY: Duration = Duration::from_secs(60);

impl Commands {
    pub(super) fn new(config: &Config, replies: TopicHandle, random: ahash::RandomState) -> Self {
        let lookups = Lookups::new(replies);
        let settings = &config.settings.commands;
        let limits = OpenLimits {
            entries_max: settings.open_max,
            waiters_max: settings.open_max.saturating_mul(WAITERS_PER_COMMAND),
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
            polls: WaitQueue::new(limits.waiters_max),
            answered: Vec::new(),
            next_notices: [Instant::ZERO; 2],
            cut_reported: false,
            unanswered_cut_reported: false,
        }
    }

    /// From now on, unanswered commands of strict routes are indexed too.
    pub(super) fn index_unanswered(&mut self, config: &Config) {
        let settings = CommandIndexSettings {
            open_limit: config.settings.commands.open_limit,
            bytes_max: config.settings.commands.unanswered_memory,
        };
        let name = &config.headers.correlation_id;
        let index = CommandIndex::new(settings, name, self.random.clone());
        self.table.unanswered = Some(index);
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

    /// For how long replies are stored. `None`: for as long as the topic keeps them.
    pub(super) fn reply_window(&self) -> Option<Duration> {
        Some(self.settings.window).filter(|it| *it < FOR_EVER)
    }

    /// The most offsets of the replies topic that loading reads.
    pub(super) const fn offsets_max(&self) -> u64 {
        self.settings.offsets_max()
    }

    /// Applies a step of the replies topic and answers the exchanges that waited for it.
    pub(super) fn apply(&mut self, step: &Step, loaded: bool, now: Now, out: &mut Outbox) {
        let (answered, polls) = (&mut self.answered, &mut self.polls);
        let mut on_reply = |id, answer: &ReplyResult| {
            while let Some(exchange) = polls.next_met(&(id..=id)) {
                let answer = answer_of(answer.clone());
                out.to_edge(exchange, EdgeMessage::Answer(answer));
            }
        };
        self.table
            .apply(step, loaded, now.wall, answered, &mut on_reply);
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

    /// Answers a client that asks for the reply to its command: the reply, if the topic has one;
    /// 202 while it may still come, once the client has waited as long as it asked for; 404 after
    /// the reply window. `None`: the exchange waits.
    pub(super) fn poll(
        &mut self,
        request: &PollRequest,
        now: Now,
        client: &mut Client,
    ) -> Option<Answer> {
        let (exchange, id) = (request.exchange, request.command.id);
        match self.table.known(id) {
            Known::Answered(answer) => Some(answer_of(answer)),
            Known::AnsweredAt(partition, offset) => {
                let wanted = Wanted {
                    id,
                    partition,
                    offset,
                };
                let asked = self.lookups.ask(exchange, request.deadline, wanted, client);
                (!asked).then(|| refused(Failure::ReplyUnavailable))
            }
            Known::Nothing if !self.is_in_window(request.command.since, now) => {
                Some(refused(Failure::NoSuchCommand))
            }
            Known::InFlight | Known::Nothing if request.wait_until <= now.mono => {
                Some(Answer::Accepted)
            }
            Known::InFlight | Known::Nothing => {
                let polls = &mut self.polls;
                // If too many exchanges wait, this one need not.
                let full = polls.insert(exchange, id, request.wait_until, exchange);
                full.is_err().then_some(Answer::Accepted)
            }
        }
    }

    /// Whether the reply to a command of that time can still be stored here. A time in the future
    /// is no command's, but for the difference between two instances' clocks.
    fn is_in_window(&self, since: UnixMillis, now: Now) -> bool {
        let age = now.wall.0.saturating_sub(since.0);
        let window = i64::try_from(self.settings.window.as_millis()).unwrap_or(i64::MAX);
        let cut = self.table.replies.cut(now.wall);
        (-CLOCKS_DIFFER_MS_MAX..=window).contains(&age) && cut.is_none_or(|from| from <= since)
    }

    /// Answers all polls that wait 202: their clients ask again, at another instance.
    pub(super) fn end_polls(&mut self, out: &mut Outbox) {
        let all = CorrelationId::MIN..=CorrelationId::MAX;
        while let Some(exchange) = self.polls.next_met(&all) {
            out.to_edge(exchange, EdgeMessage::Answer(Answer::Accepted));
        }
    }

    /// Called when the record of a one-way command is in the log: the command is done.
    pub(super) fn on_done(&mut self, key: CommandKey, out: &mut Outbox) {
        let open = &mut self.table.open;
        let id = open
            .get(key)
            .map(|fingerprint| CorrelationId { key, fingerprint });
        let waiters = id.and_then(|id| open.on_reply(id)).unwrap_or_default();
        for done in waiters {
            out.to_edge(done.waiter, EdgeMessage::Answer(Answer::Accepted));
        }
    }

    /// Called when a command's record is in the log.
    pub(super) fn on_appended(&mut self, key: CommandKey, now: Now, out: &mut Outbox) {
        let waiters = self.table.open.on_appended(key, now.mono);
        tell(&waiters, &Answer::Accepted, out);
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

    /// Why unanswered commands are known for a shorter time than they are in flight, if they are.
    fn explain_unanswered_cut(&self, now: Now) -> Option<String> {
        let from = self.table.unanswered.as_ref()?.cut(now.wall)?;
        let seconds = now.wall.0.saturating_sub(from.0).max(0) / 1000;
        Some(format!(
            "commands.unanswered_memory holds the unanswered commands of the last {seconds} s \
             only, and there are older ones within commands.open_limit: a retry of such a command \
             at another instance may be appended again; let the service answer, raise it, or lower \
             commands.open_limit"
        ))
    }

    /// Why replies or unanswered commands are known for a shorter time than configured.
    pub(super) fn explain_cuts(&self, now: Now) -> Option<String> {
        let all = [self.explain_cut(now), self.explain_unanswered_cut(now)];
        let all = all.into_iter().flatten();
        all.reduce(|one, other| format!("{one}; {other}"))
    }

    /// A log line when memory begins to be too small for the unanswered commands, and when it is
    /// sufficient again.
    pub(super) fn next_unanswered_line(&mut self, now: Now) -> Option<Line> {
        let cut = self.explain_unanswered_cut(now);
        let reported = std::mem::replace(&mut self.unanswered_cut_reported, cut.is_some());
        match (reported, cut) {
            (false, Some(text)) => Some(Line::Warn(text)),
            (true, None) => Some(Line::Info(
                "commands.unanswered_memory holds all unanswered commands again".into(),
            )),
            _ => None,
        }
    }

    /// For how long a command without a reply is known.
    fn unanswered_window(&self, now: Now) -> Option<Duration> {
        let index = self.table.unanswered.as_ref()?;
        let since = |from: UnixMillis| now.wall.0.saturating_sub(from.0).max(0) as u64;
        let of_memory = index
            .cut(now.wall)
            .map(|from| Duration::from_millis(since(from)));
        Some(of_memory.unwrap_or(index.open_limit()))
    }

    /// The index of unanswered commands, for `/status`. `None`: no strict route needs it.
    pub(super) fn unanswered_status(&self, now: Now) -> Option<UnansweredStatus> {
        let index = self.table.unanswered.as_ref()?;
        let window = self.unanswered_window(now)?;
        Some(UnansweredStatus {
            commands: index.stats().entries as u64,
            window_seconds: window.as_secs(),
            cut: index.cut(now.wall).is_some(),
        })
    }

    /// For how long a reply is recognised. `None`: for as long as the memory lasts.
    fn window(&self, now: Now) -> Option<Duration> {
        let cut = self.table.replies.cut(now.wall);
        let since = |from: UnixMillis| now.wall.0.saturating_sub(from.0).max(0) as u64;
        let of_memory = cut.map(|from| Duration::from_millis(since(from)));
        of_memory.or(self.reply_window())
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

    /// Updates the topic's metrics of commands in flight.
    pub(super) fn count(&self, now: Now, topic: &mut TopicMetrics) {
        let open = self.table.open.stats();
        topic.command_clients.set(open.tenants as u64);
        topic.commands_given_up.0 = open.given_up;
        for (limit, count) in Limit::ALL.into_iter().zip(open.limited) {
            topic.commands_limited.at(label_of(limit)).0 = count;
        }
        let (Some(index), Some(window)) = (&self.table.unanswered, self.unanswered_window(now))
        else {
            return;
        };
        let stats = index.stats();
        topic.command_index_entries.set(stats.entries as u64);
        topic.command_index_bytes.set(stats.entry_bytes as u64);
        topic.command_index_window.set(window.as_secs());
        let cut = index.cut(now.wall).is_some();
        topic.command_index_cut.set(u64::from(cut));
        topic.command_index_cuts.0 = stats.generations_cut;
    }

    /// Updates the metrics of a topic that holds replies.
    pub(super) fn count_replies(&self, now: Now, topic: &mut TopicMetrics) {
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
            (
                IgnoredReply::AmbiguousCorrelationId,
                counts.ambiguous_correlation_id,
            ),
            (IgnoredReply::Repeated, counts.repeated),
            (IgnoredReply::NotInFlight, counts.not_in_flight),
        ] {
            topic.replies_ignored.at(reason).0 = count;
        }
        let window = self.window(now).unwrap_or(FOR_EVER);
        topic.reply_window.set(window.as_secs());
        topic.reply_headers_left_out.0 = counts.headers_left_out;
        topic.replies_unreadable.0 = counts.unreadable;
    }

    /// A waiting client has disconnected: its place is free.
    pub(super) fn on_left(&mut self, key: CommandKey, exchange: ExchangeId, client: &mut Client) {
        self.table.open.on_left(key, exchange);
        self.polls.cancel(exchange);
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
        while let Some(exchange) = self.polls.next_expired(now.mono) {
            out.to_edge(exchange, EdgeMessage::Answer(Answer::Accepted));
        }
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
            .chain(self.polls.next_deadline())
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

fn answer_of(reply: ReplyResult) -> Answer {
    match reply {
        Ok(reply) => Answer::Reply {
            reply,
            replayed: false,
        },
        Err(error) => Answer::Refused(error.into()),
    }
}

pub(super) fn refused(failure: Failure) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A location answers 404 after the reply window.
    #[test]
    fn a_location_ends_with_the_reply_window() {
        let random = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut commands = Commands::new(&Config::default(), TopicHandle(0), random);
        commands.settings.window = Duration::from_secs(3600);
        let now = Now {
            wall: UnixMillis(1_796_000_000_000),
            ..Now::default()
        };
        for (age_s, is_in_window) in [
            (0, true),
            (3600, true),
            (3601, false),
            (-300, true),
            (-301, false),
        ] {
            let since = UnixMillis(now.wall.0 - age_s * 1000);
            let found = commands.is_in_window(since, now);
            assert_eq!(found, is_in_window, "{age_s} s old");
        }
    }
}
