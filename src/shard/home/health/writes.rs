//! Whether brokers accept what commands write to a topic. A refusal that only an operator can end
//! closes the topic's gate. Then commands are refused with the cause, and one command a minute is
//! sent to find out whether the cause has ended. A refusal that ends by itself is reported while it
//! lasts.

use std::time::Duration;

use crate::kafka::{Code, CodeMeaning, Denial, Doing};
use crate::metrics::CheckState;
use crate::model::{Instant, Partition};
use crate::route::Refused;

use super::line::Line;

/// How often a command may be sent through a closed gate. Rarely, since each failed try fails a
/// client's command. Also how long an error is reported that no command has met again.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// The shortest time between log lines about single records and temporary errors of one topic.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// The most partitions without a leader that a check names.
const NAMED_MAX: usize = 8;

const _: () = {
    // A client that obeys `Retry-After` retries when the next try is due.
    assert!(PROBE_EVERY.as_secs() == Refused::DENIED_RETRY_AFTER as u64);
};

/// The state of writes to a topic.
#[derive(Debug, Default)]
pub(in crate::shard::home) struct WriteHealth {
    /// The gate of all commands to the topic.
    all: Gate,
    /// The second gate, for commands whose records have no key.
    keyless: Gate,
    /// The last error that ends by itself or is unknown.
    failing: Option<Failing>,
    noted: Option<Instant>,
}

/// A gate is closed while brokers refuse every command that goes through it.
#[derive(Debug, Default)]
struct Gate {
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    denial: Denial,
    /// The broker's error code. `None` if metadata or the topic's config is the source.
    code: Option<Code>,
    /// When the next command is let through.
    probe_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    code: Code,
    since: Instant,
    last: Instant,
}

/// The write that an error answers.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard::home) struct Written {
    pub(in crate::shard::home) has_key: bool,
    /// Whether the topic is compacted. `None` if its config can't be read.
    pub(in crate::shard::home) compacted: Option<bool>,
}

impl WriteHealth {
    /// Whether a command's record may be sent now.
    pub(in crate::shard::home) fn admit(
        &mut self,
        has_key: bool,
        now: Instant,
    ) -> Result<(), Denial> {
        self.all.admit(now)?;
        if has_key {
            Ok(())
        } else {
            self.keyless.admit(now)
        }
    }

    /// A record has been appended.
    pub(in crate::shard::home) fn on_appended(&mut self, has_key: bool) -> Option<Line> {
        self.failing = None;
        let keyless = !has_key && self.keyless.open();
        let opened = self.all.open() || keyless;
        opened.then(|| Line::Info("brokers take what commands write again".into()))
    }

    /// A broker answered a record, or the request for a producer id, with an error. Returns what to
    /// log, and the answer if the record is certainly not in the log.
    pub(in crate::shard::home) fn on_refused(
        &mut self,
        code: Code,
        written: Written,
        now: Instant,
    ) -> (Refused, Option<Line>) {
        // Kafka before 2.4 called such a record corrupt.
        let keyless =
            !written.has_key && matches!(code.0, 2 | 87) && written.compacted != Some(false);
        let (gate, denial) = match (keyless, code.meaning()) {
            (true, _) => (&mut self.keyless, Denial::NoKey),
            (false, CodeMeaning::Denied(denial)) => (&mut self.all, denial),
            (false, CodeMeaning::BadRecord(bad)) => {
                let text = format!(
                    "a command was refused, {}: the broker answered {code}; {}",
                    bad.cause(),
                    bad.remedy()
                );
                return (Refused::of_code(code), self.note(text, now));
            }
            (false, _) => {
                let since = self.failing.filter(|it| !it.is_over(now));
                let since = since.map_or(now, |it| it.since);
                let last = now;
                self.failing = Some(Failing { code, since, last });
                let text =
                    format!("what commands write is not appended: the broker answered {code}");
                return (Refused::of_code(code), self.note(text, now));
            }
        };
        let text = format!(
            "brokers refuse what commands write, {}: the broker answered {code}; {}",
            denial.cause(),
            denial.remedy(Doing::Write)
        );
        let news = gate.close(denial, Some(code), now);
        (
            Refused::denied(Doing::Write, denial),
            news.then_some(Line::Warn(text)),
        )
    }

    /// Metadata reports whether the gateway may write to the topic. This is no older than the
    /// response that closed the gate, because that response made the view stale and only changes
    /// arrive here.
    pub(in crate::shard::home) fn on_right(
        &mut self,
        writable: Option<bool>,
        now: Instant,
    ) -> Option<Line> {
        let denial = Denial::TopicRight;
        match writable {
            Some(false) => {
                let text = format!(
                    "commands can't be written, {}; {}",
                    denial.cause(),
                    denial.remedy(Doing::Write)
                );
                let news = self.all.close(denial, None, now);
                news.then_some(Line::Warn(text))
            }
            Some(true) => {
                let closed = self.all.closed;
                let by_right = closed.is_some_and(|it| it.denial.is_a_right());
                let opened = by_right && self.all.open();
                let text = "the gateway's user may write to it again";
                opened.then(|| Line::Info(text.into()))
            }
            None => None,
        }
    }

    /// The topic's config shows whether records without a key are accepted, if it can be read.
    pub(in crate::shard::home) fn on_config(
        &mut self,
        compacted: Option<bool>,
        now: Instant,
    ) -> Option<Line> {
        let denial = Denial::NoKey;
        match compacted {
            Some(true) => {
                let news = self.keyless.close(denial, None, now);
                let (cause, remedy) = (denial.cause(), denial.remedy(Doing::Write));
                let text =
                    format!("commands of a route without a key are refused: {cause}; {remedy}");
                news.then_some(Line::Warn(text))
            }
            Some(false) => {
                let opened = self.keyless.open();
                opened.then(|| Line::Info("it takes commands without a key again".into()))
            }
            None => None,
        }
    }

    /// The check of commands to the topic, except those without a key. `leaderless`: partitions
    /// without a leader now.
    pub(in crate::shard::home) fn check(
        &self,
        leaderless: impl Iterator<Item = Partition>,
        now: Instant,
    ) -> (CheckState, String) {
        if let Some(closed) = &self.all.closed {
            return closed.check(now);
        }
        let leaderless: Vec<Partition> = leaderless.collect();
        if !leaderless.is_empty() {
            return (CheckState::Degraded, without_leader(&leaderless));
        }
        match self.failing.filter(|it| !it.is_over(now)) {
            None => (CheckState::Ready, String::new()),
            Some(Failing { code, since, .. }) => {
                let seconds = now.since(since).as_secs();
                let detail = format!(
                    "for {seconds} s brokers have not appended what commands write: {code}"
                );
                (CheckState::Degraded, detail)
            }
        }
    }

    /// The check of commands without a key.
    pub(in crate::shard::home) fn keyless_check(&self, now: Instant) -> (CheckState, String) {
        let closed = self.keyless.closed.as_ref();
        closed.map_or((CheckState::Ready, String::new()), |it| it.check(now))
    }

    /// Whether brokers refuse every write.
    pub(in crate::shard::home) const fn is_blocked(&self) -> bool {
        self.all.closed.is_some()
    }

    fn note(&mut self, text: String, now: Instant) -> Option<Line> {
        let due = self.noted.is_none_or(|at| now.since(at) >= NOTE_EVERY);
        if due {
            self.noted = Some(now);
        }
        due.then_some(Line::Warn(text))
    }
}

impl Gate {
    fn admit(&mut self, now: Instant) -> Result<(), Denial> {
        match &mut self.closed {
            None => Ok(()),
            // If the config is the cause, no command is tried: the config is read again regularly.
            Some(closed) if closed.is_by_config() || closed.probe_at > now => Err(closed.denial),
            Some(closed) => {
                closed.probe_at = now.after(PROBE_EVERY);
                Ok(())
            }
        }
    }

    /// Closes the gate. Returns true if it was open, or closed for another reason.
    fn close(&mut self, denial: Denial, code: Option<Code>, now: Instant) -> bool {
        let before = self.closed.map(|it| it.denial);
        let probe_at = now.after(PROBE_EVERY);
        // Keep a broker's code, which is more specific than metadata. A cause found in the config
        // has no code.
        let code = match denial {
            Denial::NoKey => code,
            _ => code.or(self.closed.and_then(|it| it.code)),
        };
        self.closed = Some(Closed {
            denial,
            code,
            probe_at,
        });
        before != Some(denial)
    }

    /// Opens the gate. Returns true if it was closed.
    fn open(&mut self) -> bool {
        self.closed.take().is_some()
    }
}

impl Closed {
    const fn is_by_config(&self) -> bool {
        matches!(self.denial, Denial::NoKey) && self.code.is_none()
    }

    fn check(&self, now: Instant) -> (CheckState, String) {
        let (cause, remedy) = (self.denial.cause(), self.denial.remedy(Doing::Write));
        let code = self.code.map(|code| format!(" ({code})"));
        let code = code.unwrap_or_default();
        let text = format!("brokers refuse what commands write: {cause}{code}; {remedy}");
        // Metadata and configs report the end of such causes by themselves. For others a command
        // must find out, and balancers send none to a process that is never ready.
        let told = matches!(self.denial, Denial::TopicRight) || self.is_by_config();
        if told || self.probe_at > now {
            (CheckState::Blocked, text)
        } else {
            (
                CheckState::Degraded,
                format!("{text}; the next command finds out whether that is still so"),
            )
        }
    }
}

impl Failing {
    /// No command has met the error for long, so it may have ended.
    fn is_over(&self, now: Instant) -> bool {
        now.since(self.last) >= PROBE_EVERY
    }
}

/// Partitions without a leader, and what to do.
pub(in crate::shard::home) fn without_leader(partitions: &[Partition]) -> String {
    let named = partitions.iter().take(NAMED_MAX).map(|it| it.0.to_string());
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match partitions.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (noun, verb, their) = match partitions.len() {
        1 => ("partition", "has", "its"),
        _ => ("partitions", "have", "their"),
    };
    format!("{noun} {named}{more} {verb} no leader; bring {their} replicas back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Failure;

    const KEYED: Written = Written {
        has_key: true,
        compacted: Some(false),
    };
    const NO_RIGHT: Code = Code(29);
    const POLICY: Code = Code(44);
    const INVALID: Code = Code(87);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn state(writes: &WriteHealth, now: Instant) -> CheckState {
        writes.check(std::iter::empty(), now).0
    }

    #[test]
    fn one_command_a_minute_finds_out_whether_a_refusal_is_over() {
        let mut writes = WriteHealth::default();
        assert_eq!(writes.admit(true, at(0)), Ok(()));
        let (refused, line) = writes.on_refused(NO_RIGHT, KEYED, at(0));
        assert!(matches!(line, Some(Line::Warn(_))), "{line:?}");
        assert_eq!(refused.retry_after, Some(60));
        let mut tries = 0;
        for second in 1..=600 {
            assert_eq!(state(&writes, at(second)), CheckState::Blocked);
            if writes.admit(true, at(second)).is_ok() {
                tries += 1;
                let (_, line) = writes.on_refused(NO_RIGHT, KEYED, at(second));
                assert_eq!(line, None, "it was said");
            }
        }
        assert_eq!(tries, 10);
        assert_eq!(writes.admit(true, at(660)), Ok(()));
        assert!(matches!(writes.on_appended(true), Some(Line::Info(_))));
        assert_eq!(state(&writes, at(660)), CheckState::Ready);
        assert_eq!(writes.admit(true, at(660)), Ok(()));
    }

    #[test]
    fn metadata_says_when_the_right_is_missing_and_when_it_is_there() {
        let mut writes = WriteHealth::default();
        assert!(writes.on_right(Some(false), at(0)).is_some());
        assert!(writes.on_right(Some(false), at(1)).is_none());
        assert!(writes.admit(true, at(2)).is_err());
        assert!(writes.on_right(Some(true), at(3)).is_some());
        assert_eq!(writes.admit(true, at(3)), Ok(()));
        // A right does not end what a policy forbids.
        writes.on_refused(POLICY, KEYED, at(4));
        assert_eq!(writes.on_right(Some(true), at(5)), None);
        assert!(writes.admit(true, at(5)).is_err());
    }

    /// Balancers send no command to a process that is not ready.
    #[test]
    fn what_only_a_command_can_find_out_does_not_keep_commands_out_for_ever() {
        let mut writes = WriteHealth::default();
        writes.on_refused(POLICY, KEYED, at(0));
        assert_eq!(state(&writes, at(59)), CheckState::Blocked);
        assert_eq!(state(&writes, at(60)), CheckState::Degraded);
        assert_eq!(writes.admit(true, at(60)), Ok(()));
        writes.on_refused(POLICY, KEYED, at(60));
        assert_eq!(state(&writes, at(61)), CheckState::Blocked);
    }

    #[test]
    fn one_bad_record_concerns_no_other() {
        let mut writes = WriteHealth::default();
        for code in [10, 18, 32, 87] {
            let (refused, _) = writes.on_refused(Code(code), KEYED, at(0));
            assert!(refused.kind.status.as_u16() < 500, "{refused:?}");
            assert_eq!(state(&writes, at(0)), CheckState::Ready);
            assert_eq!(writes.admit(true, at(0)), Ok(()));
        }
    }

    #[test]
    fn records_without_a_key_on_a_compacted_topic_block_their_routes_only() {
        let keyless = Written {
            has_key: false,
            compacted: None,
        };
        let mut writes = WriteHealth::default();
        let (refused, _) = writes.on_refused(INVALID, keyless, at(0));
        assert_eq!(refused.kind, Failure::TopicUnavailable.kind());
        assert_eq!(writes.admit(false, at(1)), Err(Denial::NoKey));
        assert_eq!(writes.admit(true, at(1)), Ok(()));
        assert_eq!(writes.keyless_check(at(1)).0, CheckState::Blocked);
        assert_eq!(state(&writes, at(1)), CheckState::Ready);
        // The topic's config reports the end by itself, without a try per minute.
        let mut writes = WriteHealth::default();
        assert!(writes.on_config(Some(true), at(0)).is_some());
        assert_eq!(writes.admit(false, at(600)), Err(Denial::NoKey));
        assert_eq!(writes.keyless_check(at(600)).0, CheckState::Blocked);
        assert!(writes.on_config(Some(false), at(601)).is_some());
        assert_eq!(writes.admit(false, at(601)), Ok(()));
        // If the topic is known not to be compacted, the record is the cause.
        let plain = Written {
            has_key: false,
            compacted: Some(false),
        };
        let (refused, _) = writes.on_refused(INVALID, plain, at(602));
        assert_eq!(refused.kind, Failure::RecordRefused.kind());
        assert_eq!(writes.admit(false, at(602)), Ok(()));
    }

    #[test]
    fn what_passes_by_itself_is_shown_while_commands_meet_it() {
        let mut writes = WriteHealth::default();
        let (refused, line) = writes.on_refused(Code(19), KEYED, at(0));
        assert_eq!(refused.kind, Failure::BrokerUnavailable.kind());
        assert!(line.is_some());
        assert!(writes.on_refused(Code(19), KEYED, at(30)).1.is_none());
        assert!(writes.on_refused(Code(19), KEYED, at(60)).1.is_some());
        assert_eq!(state(&writes, at(61)), CheckState::Degraded);
        assert_eq!(state(&writes, at(120)), CheckState::Ready, "nobody knows");
        writes.on_refused(Code(200), KEYED, at(121));
        assert_eq!(state(&writes, at(121)), CheckState::Degraded);
        assert_eq!(writes.on_appended(true), None);
        assert_eq!(state(&writes, at(121)), CheckState::Ready);
    }

    #[test]
    fn partitions_without_a_leader_are_named() {
        let writes = WriteHealth::default();
        let (state, detail) = writes.check([Partition(2)].into_iter(), at(0));
        assert_eq!(state, CheckState::Degraded);
        assert_eq!(detail, "partition 2 has no leader; bring its replicas back");
        let (_, detail) = writes.check((0..20).map(Partition), at(0));
        assert!(
            detail.contains("6, 7 and 12 more have no leader"),
            "{detail}"
        );
    }
}
