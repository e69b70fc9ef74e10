//! The path of recent commands through Kafka, as the page draws it.
//!
//! The service is the one place that sees all of it: when it read a command, when the journal had
//! the decision, and where events and reply were appended. It writes that here, and the page asks
//! for the commands under one idempotency key.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use rskafka::record::RecordAndOffset;
use serde::Serialize;

use super::clock::now_us;
use super::relay::{Position, Relayed, reply_headers};
use crate::demo::payments::{JournalEntry, Reply};

/// Most commands that are remembered. A page asks right after its reply.
const COMMANDS_MAX: usize = 256;
/// Longest value that is kept of a command. The service refuses longer ones.
const VALUE_BYTES_MAX: usize = 2_048;

/// Paths of the newest commands.
#[derive(Debug, Default)]
pub(crate) struct WireLog(Mutex<VecDeque<CommandPath>>);

/// The path of one command record. Times are in microseconds since the epoch.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CommandPath {
    /// Position of the command in the commands topic.
    #[serde(flatten)]
    at: Position,
    idempotency_key: String,
    #[serde(skip)]
    correlation: String,
    key: String,
    headers: Vec<(String, String)>,
    value: String,
    /// The service read the command.
    read_us: i64,
    /// The journal has the decision.
    journalled_us: Option<i64>,
    events: Vec<EventRecord>,
    reply: Option<ReplyRecord>,
}

/// One record of the payments topic that followed from a command.
#[derive(Clone, Debug, Serialize)]
struct EventRecord {
    #[serde(flatten)]
    at: Position,
    account: String,
    event: u64,
}

/// The reply's record.
#[derive(Clone, Debug, Serialize)]
struct ReplyRecord {
    #[serde(flatten)]
    at: Position,
    headers: Vec<(&'static str, String)>,
    value: Box<str>,
    /// The broker has acknowledged the reply, and before it the events.
    appended_us: i64,
}

impl WireLog {
    /// The service has read a record of the commands topic.
    pub(super) fn on_command(&self, partition: i32, found: &RecordAndOffset) {
        let RecordAndOffset { record, offset } = found;
        let text = |bytes: &[u8]| {
            let end = bytes.len().min(VALUE_BYTES_MAX);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let header = |name| record.headers.get(name).map(|value| text(value));
        let headers = record.headers.iter();
        let path = CommandPath {
            at: Position {
                partition,
                offset: *offset,
            },
            idempotency_key: header("idempotency-key").unwrap_or_default(),
            correlation: header("correlation-id").unwrap_or_default(),
            key: record.key.as_deref().map(text).unwrap_or_default(),
            headers: headers
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            value: record.value.as_deref().map(text).unwrap_or_default(),
            read_us: now_us(),
            journalled_us: None,
            events: Vec::new(),
            reply: None,
        };
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A restarted session reads commands again that it had read ahead.
        paths.retain(|known| known.at != path.at);
        if paths.len() == COMMANDS_MAX {
            paths.pop_front();
        }
        paths.push_back(path);
    }

    /// The journal has the entries.
    pub(super) fn on_journalled(&self, entries: &[JournalEntry]) {
        let now = now_us();
        for reply in entries.iter().filter_map(|entry| entry.reply.as_ref()) {
            self.update(reply, |path| path.journalled_us = Some(now));
        }
    }

    /// Events and replies are appended, at the positions of `relayed`.
    pub(super) fn on_relayed(
        &self,
        entries: &[JournalEntry],
        repeated: &[Reply],
        relayed: &Relayed,
    ) {
        let now = now_us();
        let mut events = relayed.events.iter();
        let mut replies = relayed.replies.iter();
        for entry in entries {
            let events: Vec<_> = entry
                .activity
                .iter()
                .zip(events.by_ref())
                .map(|(activity, at)| EventRecord {
                    at: *at,
                    account: activity.account.as_str().to_owned(),
                    event: activity.event,
                })
                .collect();
            if let Some(reply) = &entry.reply {
                let at = replies.next();
                self.update(reply, |path| {
                    path.events = events;
                    path.reply = at.map(|at| ReplyRecord::new(reply, *at, now));
                });
            }
        }
        for (reply, at) in repeated.iter().zip(replies) {
            self.update(reply, |path| {
                path.reply = Some(ReplyRecord::new(reply, *at, now));
            });
        }
    }

    /// Every command record under an idempotency key that is remembered, oldest first.
    pub(crate) fn of_key(&self, idempotency_key: &str) -> Vec<CommandPath> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = |path: &&CommandPath| path.idempotency_key == idempotency_key;
        paths.iter().filter(of_key).cloned().collect()
    }

    /// Updates the oldest path of a reply's command that has no reply yet.
    fn update(&self, reply: &Reply, change: impl FnOnce(&mut CommandPath)) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = paths
            .iter_mut()
            .find(|path| *path.correlation == *reply.correlation && path.reply.is_none());
        if let Some(path) = path {
            change(path);
        }
    }
}

impl ReplyRecord {
    fn new(reply: &Reply, at: Position, appended_us: i64) -> Self {
        Self {
            at,
            headers: reply_headers(reply).collect(),
            value: reply.body.clone(),
            appended_us,
        }
    }
}
