//! The account of commands: every attempt of a client, every record of the commands topics, every
//! reply of a service. Each new entry is compared with earlier ones, so that a broken promise fails
//! the step in which it occurs.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate::broker::DumpedRecord;
use sluicegate::model::{Instant, Partition};

use super::caller::{ROUTES, Request};
use super::polls::Location;
use super::records::{header, text};
use super::response::Body;
use super::tally::Tally;
use super::world::World;

/// How the gateways of a world look for an earlier record of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dedupe {
    /// The gateway asks for the end of the replies topic after the request arrived.
    #[default]
    Replies,
    /// The gateway also asks for the end of the command's partition.
    Strict,
    /// The gateway asks nobody.
    Local,
}

impl Dedupe {
    pub(super) const ALL: [Self; 3] = [Self::Replies, Self::Strict, Self::Local];

    /// The mode as the config names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Replies => "replies",
            Self::Strict => "strict",
            Self::Local => "local",
        }
    }
}

/// Limits that the account knows, the same at all gateways.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) dedupe: Dedupe,
    /// The shortest time after which a process may forget a command without a reply.
    pub(super) closes: Duration,
    /// How long an unanswered command is in flight.
    pub(super) open_limit: Duration,
    /// Exchanges that may wait for one command.
    pub(super) waiters_max: u64,
}

/// A gateway's number, and the number of its process.
pub(super) type ProcessId = (usize, u32);

/// A moment: the order of entries, and the time.
pub(super) type Moment = (u64, Instant);

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Command,
    /// It reads the reply at the location of its command.
    Poll,
    /// It reads at the location of another client's command.
    Foreign,
}

/// The result of an attempt, as its caller knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The attempt has no response yet.
    Going,
    /// The service's reply. `kept` unless the reply asks for a retry.
    Answered { replayed: bool, kept: bool },
    /// The command was rejected: nothing was appended.
    Refused,
    /// The command may have been executed.
    Unknown,
    /// The command was answered before, and its reply can't be read now.
    Unreadable,
    /// 422: the key was used for another request.
    NotThis,
    /// 202: the record is in the log, and the reply comes later.
    Accepted,
    /// A poll without the reply.
    Polled,
    /// The caller disconnected, or the connection ended.
    Lost,
}

/// One attempt at a request.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) request: Request,
    pub(super) kind: Kind,
    pub(super) process: ProcessId,
    /// When its last byte was sent. `None` if it never was.
    pub(super) sent: Option<Moment>,
    pub(super) fate: Fate,
    /// The number of the entry at which the attempt ended.
    pub(super) ended: u64,
    /// The record that this attempt appended, if the log has it.
    pub(super) record: Option<usize>,
}

/// A record of a commands topic.
#[derive(Debug)]
pub(super) struct CommandRecord {
    pub(super) topic: usize,
    pub(super) partition: u32,
    pub(super) offset: u64,
    /// The attempt that appended it.
    pub(super) attempt: usize,
    /// The correlation id: command key, dot, fingerprint.
    pub(super) correlation: String,
    pub(super) reply_to: String,
    pub(super) body: String,
    pub(super) seen: Moment,
    /// Whether an unclean election removed it.
    pub(super) lost: bool,
}

impl CommandRecord {
    pub(super) fn key(&self) -> &str {
        self.correlation.split_once('.').expect("K.F").0
    }
}

/// A record of a replies topic.
#[derive(Clone, Debug)]
pub(super) struct ReplyRecord {
    pub(super) status: u16,
    pub(super) body: Body,
    /// Whether the reply asks for a retry: nothing was applied, and gateways do not store the
    /// reply.
    pub(super) retry: bool,
    pub(super) made: Moment,
}

/// All observations of one run.
#[derive(Debug, Default)]
pub(super) struct Account {
    entries: u64,
    topics: Vec<&'static str>,
    known: Known,
    pub(super) attempts: Vec<Attempt>,
    pub(super) records: Vec<CommandRecord>,
    /// By topic and partition: the records in the log, in order, and its end.
    logs: Vec<Vec<(Vec<usize>, u64)>>,
    /// Replies by their correlation id.
    pub(super) replies: BTreeMap<String, Vec<ReplyRecord>>,
    applied: BTreeMap<String, u32>,
    /// The correlation id of each request with a key, the same on every gateway.
    correlations: BTreeMap<Request, String>,
    /// Locations that clients were given.
    pub(super) locations: Vec<Location>,
    /// When the faults ended, if they have.
    pub(super) calm: Option<Instant>,
    pub(super) tally: Tally,
}

impl Account {
    /// An empty account over `topics` and their partitions.
    pub(super) fn new(topics: &[(&'static str, u32)], known: Known) -> Self {
        let logs = topics.iter().map(|(_, count)| 0..*count);
        Self {
            topics: topics.iter().map(|(name, _)| *name).collect(),
            logs: logs
                .map(|all| all.map(|_| (Vec::new(), 0)).collect())
                .collect(),
            known,
            ..Self::default()
        }
    }

    fn moment(&mut self, now: Instant) -> Moment {
        self.entries += 1;
        (self.entries, now)
    }

    /// An attempt starts. Its number is sent in a header that is copied to the record.
    pub(super) fn begin(&mut self, request: &Request, kind: Kind, process: ProcessId) -> usize {
        self.attempts.push(Attempt {
            request: request.clone(),
            kind,
            process,
            sent: None,
            fate: Fate::Going,
            ended: 0,
            record: None,
        });
        self.attempts.len() - 1
    }

    /// The last byte of an attempt was sent.
    pub(super) fn on_sent(&mut self, attempt: usize, now: Instant) {
        let moment = self.moment(now);
        self.attempts[attempt].sent = Some(moment);
    }

    /// An attempt will get no response.
    pub(super) fn on_lost(&mut self, attempt: usize, now: Instant) {
        self.end(attempt, Fate::Lost, now);
        self.tally.lost += 1;
    }

    /// An attempt has ended with a result.
    pub(super) fn end(&mut self, attempt: usize, fate: Fate, now: Instant) {
        let (ended, _) = self.moment(now);
        let attempt = &mut self.attempts[attempt];
        (attempt.fate, attempt.ended) = (fate, ended);
    }

    /// Reads the records appended since the last step.
    pub(super) fn observe(&mut self, world: &World) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.logs[topic].len() {
                let name = self.topics[topic];
                let [.., end] = world.bounds(name, partition as u32);
                let known = std::mem::replace(&mut self.logs[topic][partition].1, end);
                if end == known {
                    continue;
                }
                let at = Partition(partition as u32);
                let records = world.broker.dump(name, at).expect("the partition is there");
                for record in records.iter().filter(|it| it.offset.0 >= known) {
                    self.on_record((topic, partition as u32), record, world.now.mono);
                }
            }
        }
    }

    /// The commands in a partition's log, in order.
    pub(super) fn log(&self, topic: usize, partition: u32) -> &[usize] {
        &self.logs[topic][partition as usize].0
    }

    /// An unclean election removed a partition's records from `end` on.
    pub(super) fn on_truncated(&mut self, topic: usize, partition: u32, end: u64) {
        let (log, known) = &mut self.logs[topic][partition as usize];
        *known = end;
        let kept = log.partition_point(|index| self.records[*index].offset < end);
        for index in log.split_off(kept) {
            let record = &mut self.records[index];
            record.lost = true;
            self.attempts[record.attempt].record = None;
        }
    }

    fn on_record(&mut self, (topic, partition): (usize, u32), dumped: &DumpedRecord, now: Instant) {
        let field = |name| header(&dumped.headers, name).expect("every command has it");
        let attempt: usize = field("x-attempt").parse().expect("a number");
        let tried = &self.attempts[attempt];
        let request = tried.request.clone();
        assert!(
            tried.sent.is_some(),
            "half a request became a record: {tried:?}"
        );
        let identity = request.identity.map(|name| format!("fleet#{name}"));
        assert_eq!(
            (
                field(":method"),
                field(":path"),
                field("identity"),
                text(dumped.value.as_ref())
            ),
            (
                ROUTES[request.route].1,
                &*request.path,
                &*identity.unwrap_or_default(),
                &*request.body
            ),
            "the record of another request"
        );
        let correlation = field("correlation-id").to_owned();
        self.check_correlation(&request, &correlation);
        let record = CommandRecord {
            topic,
            partition,
            offset: dumped.offset.0,
            attempt,
            correlation,
            reply_to: field("reply-to").to_owned(),
            body: request.body,
            seen: self.moment(now),
            lost: false,
        };
        self.check_record(&record);
        self.check_duplicate(&record);
        self.count_second(&record);
        let index = self.records.len();
        self.attempts[attempt].record = Some(index);
        self.logs[topic][partition as usize].0.push(index);
        self.records.push(record);
        self.tally.records += 1;
    }

    /// Equal requests have one correlation id on every gateway, and different requests have
    /// different ones. Requests under one key of one route share its first half.
    fn check_correlation(&mut self, request: &Request, correlation: &str) {
        if request.key.is_none() {
            let mut there = self.records.iter().filter(|it| !it.lost);
            let other = there.find(|it| it.correlation == correlation);
            return assert!(other.is_none(), "two commands without a key are one");
        }
        let known = self.correlations.entry(request.clone());
        assert_eq!(
            known.or_insert_with(|| correlation.to_owned()),
            correlation,
            "{request:?} has two correlation ids"
        );
        let split = |it: &str| -> (String, String) {
            let (key, fingerprint) = it.split_once('.').expect("K.F");
            (key.to_owned(), fingerprint.to_owned())
        };
        let (key, fingerprint) = split(correlation);
        for (other, theirs) in &self.correlations {
            let (their_key, their_fingerprint) = split(theirs);
            let same = other.command() == request.command();
            assert_eq!(their_key == key, same, "recipe: {other:?} {request:?}");
            let same = other.asks() == request.asks();
            let equal = their_fingerprint == fingerprint;
            assert_eq!(equal, same, "recipe: {other:?} {request:?}");
        }
    }

    /// The correlation id of a request, if a record or its own attempt has it.
    pub(super) fn correlation(&self, attempt: usize) -> Option<&str> {
        let tried = &self.attempts[attempt];
        let own = tried.record.map(|index| &self.records[index].correlation);
        own.or_else(|| self.correlations.get(&tried.request))
            .map(String::as_str)
    }

    /// Guarantees (a) and (d), and P3 as seen in the log.
    fn check_record(&self, record: &CommandRecord) {
        let attempt = &self.attempts[record.attempt];
        assert_eq!(attempt.record, None, "a try is in the log twice");
        match attempt.fate {
            Fate::Refused => panic!("P3: refused, and in the log: {attempt:?} {record:?}"),
            Fate::NotThis => {
                panic!("P3: told 422, and in the log: {attempt:?} {record:?}")
            }
            Fate::Answered { replayed: true, .. } => {
                panic!("answered from the index, and in the log: {attempt:?} {record:?}")
            }
            _ => {}
        }
        for other in self.records.iter().filter(|it| !it.lost) {
            if other.correlation == record.correlation {
                assert_eq!(
                    (other.topic, other.partition),
                    (record.topic, record.partition),
                    "(d): {other:?} and {record:?} are one request in two partitions"
                );
            }
            if other.key() == record.key()
                && self.attempts[other.attempt].process == attempt.process
                && self.is_in_flight(other, record.seen.1)
            {
                let first = &self.attempts[other.attempt];
                panic!(
                    "(a): a command in flight was appended again: {first:?} {other:?}, {attempt:?} {record:?}"
                );
            }
        }
    }

    /// Guarantees (b) and (c): a second record of a command key needs an attempt that arrived before
    /// the reply to the first was readable. In `strict` it needs one that arrived before the first
    /// record was readable. The development broker has no deposed leader that still answers.
    fn check_duplicate(&self, record: &CommandRecord) {
        let attempt = &self.attempts[record.attempt];
        if attempt.request.key.is_none() || self.known.dedupe == Dedupe::Local {
            return;
        }
        let (arrived, _) = attempt.sent.expect("it was sent");
        let key = record.key();
        let of_key = self.replies.range(key.to_owned()..);
        let of_key = of_key.take_while(|(correlation, _)| correlation.starts_with(key));
        for (correlation, reply) in of_key.flat_map(|(id, all)| all.iter().map(move |it| (id, it)))
        {
            assert!(
                reply.retry || reply.made.0 > arrived,
                "(b): the reply to {correlation} was readable when the attempt arrived: {reply:?} \
                 {attempt:?} {record:?}"
            );
        }
        if self.known.dedupe != Dedupe::Strict {
            return;
        }
        for other in self.records.iter().filter(|it| it.key() == key) {
            let replies = self.replies.get(&other.correlation).into_iter().flatten();
            let closed = replies.clone().any(|it| it.retry);
            let ends = other.seen.1.after(self.known.open_limit);
            assert!(
                other.lost || closed || ends <= record.seen.1 || other.seen.0 > arrived,
                "strict: {other:?} was readable when the attempt arrived: {attempt:?} {record:?}"
            );
        }
    }

    /// As many exchanges wait for the commands of a shard as its limits allow.
    pub(super) fn check_waiting(&self, open: u64, waiting: u64) {
        let most = open * self.known.waiters_max;
        assert!(waiting <= most, "{waiting} wait for {open} commands");
    }

    /// Whether the process that appended `record` certainly had its command in flight at `now`, or
    /// had read its reply.
    pub(super) fn is_in_flight(&self, record: &CommandRecord, now: Instant) -> bool {
        let (_, sent) = self.attempts[record.attempt].sent.expect("it was sent");
        let replies = self.replies.get(&record.correlation);
        // A reply made before the record may be read after it.
        let closed = replies.is_some_and(|all| all.iter().any(|reply| reply.retry));
        !record.lost && !closed && now < sent.after(self.known.closes)
    }

    /// Counts a second record of a request by its cause, with DESIGN's names.
    fn count_second(&mut self, record: &CommandRecord) {
        let key = record.key();
        let under_key = self.records.iter().filter(|it| it.key() == key);
        let earlier: Vec<_> = under_key
            .filter(|it| it.correlation == record.correlation && !it.lost)
            .collect();
        if earlier.is_empty() {
            return;
        }
        let (arrived, _) = self.attempts[record.attempt].sent.expect("it was sent");
        let process = self.attempts[record.attempt].process;
        let again = |it: &&CommandRecord| self.attempts[it.attempt].process == process;
        let replies = self.replies.get(&record.correlation);
        let mut before = replies
            .into_iter()
            .flatten()
            .filter(|it| it.made.0 < arrived);
        let seconds = self.tally.seconds_of(self.known.dedupe);
        let cause = if before.clone().any(|it| !it.retry) {
            &mut seconds.unread
        } else if before.any(|it| it.retry) {
            &mut seconds.retry
        } else if earlier.iter().any(again) {
            &mut seconds.given_up
        } else {
            &mut seconds.overlapping
        };
        *cause += 1;
    }

    /// A service has applied a command and committed.
    pub(super) fn on_applied(&mut self, correlation: &str) {
        let times = self.applied.entry(correlation.to_owned()).or_default();
        *times += 1;
        assert_eq!(*times, 1, "(d): {correlation} was applied twice");
        self.tally.applied += 1;
    }

    /// A service's reply is in the log.
    pub(super) fn on_reply(
        &mut self,
        correlation: &str,
        (status, body, retry): (u16, &Body, bool),
        now: Instant,
    ) {
        let made = self.moment(now);
        let all = self.replies.entry(correlation.to_owned()).or_default();
        let kept = all.iter().find(|it| !it.retry);
        if let Some(kept) = kept.filter(|_| !retry) {
            assert_eq!(kept.body, *body, "the service answers in two ways");
        }
        all.push(ReplyRecord {
            status,
            body: body.clone(),
            retry,
            made,
        });
    }
}
