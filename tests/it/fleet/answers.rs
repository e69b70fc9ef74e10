//! Checks the callers' responses against the log and the services' replies.

use std::time::Duration;

use sluicegate::model::Instant;

use super::account::{Account, Fate, Kind, ReplyRecord};
use super::caller::Verdict;
use super::response::Response;

/// How long a gateway may take to recover from the storm in the calm.
const RECOVERY: Duration = Duration::from_secs(20);
/// How long a reply in the log may be unread if nothing is wrong.
const LAG: Duration = Duration::from_secs(1);

impl Account {
    /// An attempt received a response.
    pub(super) fn on_response(
        &mut self,
        attempt: usize,
        response: &Response,
        now: Instant,
    ) -> Verdict {
        if self.attempts[attempt].kind != Kind::Command
            && let Some(verdict) = self.on_polled(attempt, response, now)
        {
            return verdict;
        }
        if response.header("x-service").is_some() {
            return self.on_answer(attempt, response, now);
        }
        if response.status == 202 {
            return self.on_accepted(attempt, response, now);
        }
        let problem: serde_json::Value = serde_json::from_str(&response.body.text).expect("JSON");
        let path = problem["type"].as_str().expect("a problem has a type");
        let name = path.rsplit('/').next().expect("a path");
        let fate = match (response.status, name) {
            (504, "outcome-unknown") => Fate::Unknown,
            (503, "reply-unavailable") => Fate::Unreadable,
            (422, "idempotency-key-reused") => Fate::NotThis,
            (
                503,
                "broker-unavailable" | "overloaded" | "not-ready" | "topic-unavailable"
                | "draining",
            ) => Fate::Refused,
            (413, "command-too-large") => Fate::Refused,
            _ => panic!("an unexpected answer: {response:?}"),
        };
        self.end(attempt, fate, now);
        match fate {
            Fate::Unknown => self.tally.unknown += 1,
            Fate::Unreadable => self.tally.unreadable += 1,
            Fate::NotThis => {
                self.check_not_this(attempt, now);
                self.tally.not_this += 1;
                return Verdict::Final;
            }
            _ => {
                self.check_refused(attempt, name, now);
                self.tally.refused += 1;
            }
        }
        Verdict::Again
    }

    /// P1 and P3: the response is a service's reply to this very request, made after its record was
    /// in the log.
    fn on_answer(&mut self, attempt: usize, response: &Response, now: Instant) -> Verdict {
        let tried = &self.attempts[attempt];
        let Some(correlation) = self.correlation(attempt) else {
            panic!("P1: answered without a record: {tried:?} {response:?}");
        };
        let replies = self.replies.get(correlation).into_iter().flatten();
        let same =
            |reply: &&ReplyRecord| (reply.status, &reply.body) == (response.status, &response.body);
        let Some(reply) = replies.clone().find(same) else {
            let replies: Vec<_> = replies.collect();
            panic!("P3: not its reply: {tried:?} {correlation} {response:?}, made: {replies:?}");
        };
        let replayed = response.header("idempotent-replayed") == Some("true");
        if replayed {
            assert!(!reply.retry, "a reply that is not kept was kept: {tried:?}");
            assert_eq!(tried.record, None, "replayed to the try that appended it");
        }
        let kept = !reply.retry;
        self.end(attempt, Fate::Answered { replayed, kept }, now);
        if kept {
            self.tally.answered += 1;
            self.tally.replayed += u64::from(replayed);
            Verdict::Final
        } else {
            self.tally.retry += 1;
            Verdict::Again
        }
    }

    /// P3: a rejected request is not in the log, neither by this attempt nor by one that it joined.
    fn check_refused(&self, attempt: usize, name: &str, now: Instant) {
        let tried = &self.attempts[attempt];
        assert_eq!(
            tried.record, None,
            "P3: refused, and in the log: {name} {tried:?}"
        );
        // Other rejections are decided before the gateway looks for a command in flight.
        if name == "broker-unavailable"
            && let Some(joined) = self.joined(attempt, now)
        {
            panic!("P3: refused, and in flight: {tried:?} joined {joined}");
        }
    }

    /// The record that this attempt must have joined: the attempt's own process appended it before
    /// the attempt was sent, and has had its command in flight since.
    fn joined(&self, attempt: usize, now: Instant) -> Option<String> {
        let tried = &self.attempts[attempt];
        let (sent, _) = tried.sent?;
        let correlation = self.correlation(attempt)?;
        let own = self.records.iter().find(|record| {
            record.correlation == correlation
                && self.attempts[record.attempt].process == tried.process
                && record.seen.0 < sent
                && self.is_in_flight(record, now)
        });
        own.map(|record| format!("{record:?}"))
    }

    /// P3: 422 means that the key was used for another request. It never answers a request that
    /// this process has in flight, or to which it has read the reply.
    fn check_not_this(&self, attempt: usize, now: Instant) {
        let tried = &self.attempts[attempt];
        let request = &tried.request;
        let rival = self.attempts.iter().any(|other| {
            let other = &other.request;
            other.command() == request.command() && other != request
        });
        assert!(rival, "422 without another request: {tried:?}");
        assert_eq!(
            tried.record, None,
            "P3: told 422, and in the log: {tried:?}"
        );
        if let Some(joined) = self.joined(attempt, now) {
            panic!("P3: told 422 of a request in flight: {tried:?} joined {joined}");
        }
        let (arrived, at) = tried.sent.expect("an answered try was sent");
        let known = self.attempts.iter().any(|other| {
            matches!(other.fate, Fate::Answered { kept: true, .. })
                && other.process == tried.process
                && other.request == *request
                && other.ended < arrived
        });
        assert!(
            !known,
            "P3: told 422 of a request that was answered here: {tried:?}"
        );
        let calm = self.calm.is_some_and(|calm| calm.after(RECOVERY) < at);
        let correlation = self.correlation(attempt);
        let replies = correlation.and_then(|it| self.replies.get(it));
        let mut replies = replies.into_iter().flatten();
        let readable = replies.any(|it| !it.retry && it.made.1.after(LAG) < at);
        assert!(
            !(calm && readable),
            "P3: told 422, and its reply could be read: {tried:?}"
        );
    }
}
