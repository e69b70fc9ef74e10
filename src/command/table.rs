//! In-flight commands and stored replies together: the decision of a route's home shard.

use std::sync::Arc;

use super::correlation::{Unaddressed, correlation_id};
use super::open::{Admission, Attempt, Limit, NewWaiter, OpenCommands};
use super::passed::PassedReplies;
use super::replies::{ReplyIndex, ReplyRecord};
use super::reply::{LeftOut, Reply, ReplyError, ReplyHeaders, ReplyResult};
use super::unanswered::{CommandIndex, Unanswered};
use ahash::RandomState;

use crate::log::{Batch, Change, Record, Step};
use crate::model::{CorrelationId, Instant, Offset, Partition, UnixMillis};

/// The decision about a command. Only an `Opened` one is produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Already answered: the exchange receives the stored reply.
    Answered(ReplyResult),
    /// Already answered. The reply is not in memory but at this position of the replies topic. Its
    /// record has this correlation id and must be read by [`Reply::read`].
    AnsweredAt(CorrelationId, Partition, Offset),
    /// The command key is answered or in flight, but only for other requests: 422.
    Mismatch,
    /// The command is in flight: the exchange waits for the same reply.
    Joined,
    /// The command's record is appended, and the client does not wait for the reply: 202.
    Accepted,
    /// The command is in flight, and the route rejects another attempt: 409.
    InProgress,
    /// The caller produces it, and the exchange waits.
    Opened,
    /// There is no room: 503, and nothing is produced.
    Full(Limit),
}

/// What the table knows of a request whose sender asks for the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The service has replied.
    Answered(ReplyResult),
    /// The service has replied. The reply is not in memory but at this position of the replies
    /// topic. The record must be read by [`Reply::read`].
    AnsweredAt(Partition, Offset),
    /// The request is in flight here.
    InFlight,
    /// No reply is here. The request may be in flight at another instance.
    Nothing,
}

/// An exchange and the service's reply to its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredExchange<W> {
    /// The exchange that waited for the reply.
    pub waiter: W,
    /// Whether the command was opened by another attempt, so that the reply is a replay.
    pub replayed: bool,
    /// The service's reply, or why it can't be shown.
    pub answer: ReplyResult,
}

/// Records of the replies topic that answer no command here, and headers that clients do not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyCounts {
    /// Records without the header of the correlation id, or with a null one.
    pub no_correlation_id: u64,
    /// Records whose correlation id does not have this gateway's form.
    pub malformed_correlation_id: u64,
    /// Records with different correlation ids.
    pub ambiguous_correlation_id: u64,
    /// Further replies to requests that have a stored reply, read after the topic was loaded. The
    /// first reply stands.
    pub repeated: u64,
    /// Replies to requests that are not in flight here, read after the topic was loaded. Normal
    /// with several instances.
    pub not_in_flight: u64,
    /// Headers of replies that HTTP can't carry.
    pub headers_left_out: u64,
    /// Replies without a readable status: clients get 502.
    pub unreadable: u64,
}

/// A flaw of a service's replies, for the log. The table keeps one of each kind until it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The partition of the replies topic that has the record.
    pub partition: Partition,
    /// The record's offset in that partition.
    pub offset: Offset,
    /// What is wrong with it, in a sentence.
    pub text: String,
}

/// The tables of a home. They have one owner, so no race is possible within the process.
#[derive(Debug)]
pub struct CommandTable<W> {
    /// In-flight commands. Outcomes of producing and timeouts are reported to it.
    pub open: OpenCommands<W>,
    /// Replies within the window. A retry is answered from them.
    pub replies: ReplyIndex,
    /// Unanswered commands of the commands topics of routes with `dedupe = "strict"`. `None`: there
    /// is no such route.
    pub unanswered: Option<CommandIndex>,
    /// Replies with `retry: true`, which are not stored.
    passed: PassedReplies,
    names: ReplyHeaders,
    counts: ReplyCounts,
    ignored: Option<Notice>,
    flawed: Option<Notice>,
    left_out: Vec<LeftOut>,
}

impl<W: Copy + PartialEq> CommandTable<W> {
    /// The table of one replies topic. `names`: the headers by which its records are read.
    #[must_use]
    pub fn new(
        open: OpenCommands<W>,
        replies: ReplyIndex,
        names: ReplyHeaders,
        hasher: RandomState,
    ) -> Self {
        Self {
            open,
            replies,
            unanswered: None,
            passed: PassedReplies::new(hasher),
            names,
            counts: ReplyCounts::default(),
            ignored: None,
            flawed: None,
            left_out: Vec::new(),
        }
    }

    /// Decides about a command. `waiter`: the exchange of the request, or `None` if none waits.
    pub fn admit(
        &mut self,
        attempt: &Attempt,
        waiter: Option<NewWaiter<W>>,
        now: Instant,
    ) -> Admitted {
        let CorrelationId { key, fingerprint } = attempt.id;
        let in_flight = self.open.get(key);
        let same_in_flight = in_flight == Some(fingerprint);
        match self.replies.get(key, fingerprint) {
            // While the request's own reply is due, a reply of another recipe is not returned
            // instead.
            Some(known) if known.id.fingerprint == fingerprint || !same_in_flight => {
                return match known.answer {
                    Some(answer) => Admitted::Answered(answer),
                    None => Admitted::AnsweredAt(known.id, known.partition, known.offset),
                };
            }
            None if !same_in_flight && self.replies.has(key) => return Admitted::Mismatch,
            _ => {}
        }
        let unanswered = self.unanswered.as_ref().filter(|_| in_flight.is_none());
        let admission = match unanswered.and_then(|it| it.get(key, fingerprint)) {
            None => self.open.admit(attempt, waiter, now),
            Some(Unanswered::Same) => self.open.adopt(attempt, waiter, now),
            Some(Unanswered::Other) => Admission::Mismatch,
        };
        match admission {
            Admission::Opened => {
                self.passed.remove(attempt.id);
                Admitted::Opened
            }
            Admission::Joined => Admitted::Joined,
            Admission::InProgress => Admitted::InProgress,
            Admission::Accepted => Admitted::Accepted,
            Admission::Mismatch => Admitted::Mismatch,
            Admission::Full(limit) => Admitted::Full(limit),
        }
    }

    /// The reply to a request whose sender asks for it, or what is known instead. Only a reply to
    /// exactly this request counts.
    #[must_use]
    pub fn known(&self, id: CorrelationId) -> Known {
        let stored = self.replies.get(id.key, id.fingerprint);
        if let Some(stored) = stored.filter(|it| it.id == id) {
            return match stored.answer {
                Some(answer) => Known::Answered(answer),
                None => Known::AnsweredAt(stored.partition, stored.offset),
            };
        }
        if self.open.get(id.key) == Some(id.fingerprint) {
            return Known::InFlight;
        }
        match self.passed.get(id) {
            Some((partition, offset)) => Known::AnsweredAt(partition, offset),
            None => Known::Nothing,
        }
    }

    /// The log of the replies topic is another one: its stored replies are void.
    pub fn on_new_log(&mut self, replies: ReplyIndex, hasher: RandomState) {
        self.replies = replies;
        self.passed = PassedReplies::new(hasher);
    }

    /// Whether a reply to this very request is stored, or the request `joins` itself in flight.
    /// Then [`Self::admit`] opens nothing and refuses nothing, whatever is applied before.
    #[must_use]
    pub fn is_known(&self, id: CorrelationId, joins: bool) -> bool {
        let stored = self.replies.get(id.key, id.fingerprint);
        stored.is_some_and(|known| known.id == id)
            || joins && self.open.get(id.key) == Some(id.fingerprint)
    }

    /// Applies one step of the replies topic and returns the exchanges that its replies answer.
    /// `loaded`: the topic has been read up to its end at the start. `on_reply` is called for each
    /// reply, for clients that wait for it at the command's location.
    pub fn apply(
        &mut self,
        step: &Step,
        loaded: bool,
        now: UnixMillis,
        answered: &mut Vec<AnsweredExchange<W>>,
        on_reply: &mut dyn FnMut(CorrelationId, &ReplyResult),
    ) {
        match &step.change {
            Change::Records(batch) => self.on_records(batch, loaded, now, answered, on_reply),
            Change::LogStart { partition, offset } => {
                self.replies.on_log_start(*partition, *offset);
            }
            Change::Again(_) | Change::Nothing | Change::Gap { .. } | Change::Stuck { .. } => {}
        }
    }

    /// Whether the record of this very request is in the commands topic, and not answered. False
    /// without a route that has `dedupe = "strict"`.
    #[must_use]
    pub fn is_unanswered(&self, id: CorrelationId) -> bool {
        let index = self.unanswered.as_ref();
        let found = index.and_then(|it| it.get(id.key, id.fingerprint));
        found == Some(Unanswered::Same)
    }

    /// Applies one step of a commands topic with a route that has `dedupe = "strict"`.
    pub fn apply_commands(&mut self, step: &Step, now: UnixMillis) {
        let replies = &self.replies;
        if let Some(unanswered) = &mut self.unanswered {
            unanswered.apply(step, |id| replies.has_reply_to(id), now);
        }
    }

    /// Drops replies past the window, and unanswered commands that are in flight no longer. Returns
    /// true if more is due: call it again in the next turn.
    #[must_use = "true means that more is due"]
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        let unanswered = self.unanswered.as_mut();
        let more = unanswered.is_some_and(|it| it.expire(now));
        self.replies.expire(now) | more
    }

    /// Counts of what was ignored or left out.
    #[must_use]
    pub const fn counts(&self) -> ReplyCounts {
        self.counts
    }

    /// A record since the last call that answers no command.
    pub const fn take_ignored(&mut self) -> Option<Notice> {
        self.ignored.take()
    }

    /// A reply since the last call that lost a header or can't be read.
    pub const fn take_flawed(&mut self) -> Option<Notice> {
        self.flawed.take()
    }

    /// The header names of replies, to read a record that the home fetches because of
    /// [`Admitted::AnsweredAt`].
    #[must_use]
    pub const fn names(&self) -> &ReplyHeaders {
        &self.names
    }

    fn on_records(
        &mut self,
        batch: &Batch,
        loaded: bool,
        now: UnixMillis,
        answered: &mut Vec<AnsweredExchange<W>>,
        on_reply: &mut dyn FnMut(CorrelationId, &ReplyResult),
    ) {
        let partition = batch.partition();
        for record in batch.iter() {
            let id = match correlation_id(record.headers, &self.names.correlation_id) {
                Ok(id) => id,
                Err(why) => {
                    self.on_ignored(partition, &record, why);
                    continue;
                }
            };
            self.left_out.clear();
            let answer = Reply::read(&record, &self.names, &mut self.left_out).map(Arc::new);
            if answer.is_err() || !self.left_out.is_empty() {
                self.on_flawed(partition, record.offset, answer.as_ref().err());
            }
            on_reply(id, &answer);
            let retry = Reply::is_retry(&record, &self.names);
            let mut repeated = false;
            if retry {
                self.passed.insert(id, partition, record.offset);
            } else {
                let reply = ReplyRecord {
                    id,
                    partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    answer: &answer,
                };
                repeated = !self.replies.on_reply(&reply, now);
            }
            if let Some(unanswered) = &mut self.unanswered {
                unanswered.on_reply(id, retry, record.timestamp, now);
            }
            // A reply to another request under the same command key, appended by another gateway,
            // answers no exchange here. Each exchange waits for the reply to its own request.
            let Some(waiters) = self.open.on_reply(id) else {
                let count = if repeated {
                    &mut self.counts.repeated
                } else {
                    &mut self.counts.not_in_flight
                };
                *count += u64::from(loaded);
                continue;
            };
            answered.extend(waiters.into_iter().map(|it| AnsweredExchange {
                waiter: it.waiter,
                // A service that applied nothing has no result to replay.
                replayed: it.joined && !retry,
                answer: answer.clone(),
            }));
        }
    }

    fn on_ignored(&mut self, partition: Partition, record: &Record<'_>, why: Unaddressed) {
        let count = match why {
            Unaddressed::Absent | Unaddressed::Null => &mut self.counts.no_correlation_id,
            Unaddressed::Malformed => &mut self.counts.malformed_correlation_id,
            Unaddressed::Ambiguous => &mut self.counts.ambiguous_correlation_id,
        };
        *count += 1;
        if self.ignored.is_some() {
            return;
        }
        let name = sanitize(self.names.correlation_id.as_bytes());
        let text = format!(
            "{}, so the record answers no command, and its client gets 504; the service must copy \
             `{name}` from the command, once; its headers: {}",
            why.explain(&name),
            header_names(record),
        );
        self.ignored = Some(Notice {
            partition,
            offset: record.offset,
            text,
        });
    }

    fn on_flawed(&mut self, partition: Partition, offset: Offset, error: Option<&ReplyError>) {
        self.counts.headers_left_out += self.left_out.len() as u64;
        self.counts.unreadable += u64::from(error.is_some());
        if self.flawed.is_some() {
            return;
        }
        let text = match (error, self.left_out.first()) {
            (Some(ReplyError::Status), _) => {
                let name = sanitize(self.names.status.as_bytes());
                format!("clients get 502: header `{name}` is not three digits from 200 to 599")
            }
            (None, Some(first)) => {
                let (name, why) = (sanitize(first.name.as_bytes()), first.flaw.explain());
                format!("clients do not get header `{name}`: {why}")
            }
            (None, None) => return,
        };
        self.flawed = Some(Notice {
            partition,
            offset,
            text,
        });
    }
}

/// The most header names that a notice lists, and the most bytes of each.
const NAMES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;

fn header_names(record: &Record<'_>) -> String {
    let mut names = record.headers.map(|(name, _)| sanitize(name));
    let mut listed: Vec<String> = names.by_ref().take(NAMES_MAX).collect();
    if names.next().is_some() {
        listed.push("…".into());
    }
    if listed.is_empty() {
        "none".into()
    } else {
        listed.join(", ")
    }
}

/// Makes a name safe for a log line: short, and without terminal control characters.
fn sanitize(name: &[u8]) -> String {
    let short = &name[..name.len().min(NAME_BYTES_MAX)];
    let text = String::from_utf8_lossy(short).escape_debug().to_string();
    if short.len() < name.len() {
        text + "…"
    } else {
        text
    }
}
