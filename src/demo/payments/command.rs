//! A command as it is read from its topic: its headers, and the body that says what it asks for.

use serde::{Deserialize, Serialize};

use super::account_id::AccountId;
use super::problem::Problem;

/// Longest correlation id in bytes. Those of the gateway have 45.
const CORRELATION_BYTES_MAX: usize = 128;
/// Longest body in bytes. A journal record holds its text at most twice, and stays below the size
/// at which a produce request stalls.
const BODY_BYTES_MAX: usize = 2_048;
/// Most characters of a payment's note.
pub(super) const NOTE_CHARS_MAX: usize = 140;
/// Most characters of an account owner's name.
const NAME_CHARS_MAX: usize = 60;
/// Largest amount of one payment or request in cents: ten thousand units.
const AMOUNT_CENTS_MAX: u64 = 1_000_000;

/// The position of a command in the commands topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Partition of the commands topic it was read from.
    pub(crate) partition: i32,
    /// Offset of the record in its partition.
    pub(crate) offset: i64,
    /// When it was appended, in milliseconds since the epoch. This is the log time of
    /// [`super::seen`].
    pub(crate) appended_ms: i64,
}

impl Source {
    /// Names what a command creates. The name is the same however often the command is executed.
    pub(super) fn name(self, kind: char) -> String {
        format!("{kind}{}-{}", self.partition, self.offset)
    }
}

/// One record of the commands topic. Its fields are not validated yet: the ledger rejects an
/// invalid command with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Its position in the commands topic.
    pub(crate) source: Source,
    /// The correlation id, which the reply repeats. The part before the last `.` is the command
    /// key, the same for each attempt.
    pub(crate) correlation: Box<str>,
    /// The `operation` header, which the gateway's route sets.
    pub(crate) operation: Vec<u8>,
    /// The account that the command concerns: the record's key, from the path.
    pub(crate) account: Vec<u8>,
    /// The value of the request's `If-Match` header.
    pub(crate) if_match: Option<Vec<u8>>,
    /// The body of the request.
    pub(crate) body: Vec<u8>,
}

impl Command {
    /// Parses a correlation id. A record without a valid one is skipped: no gateway could read its
    /// reply, and its duplicates could not be recognised.
    pub(crate) fn correlation_from(text: &[u8]) -> Option<Box<str>> {
        let fits = (1..=CORRELATION_BYTES_MAX).contains(&text.len());
        let text = std::str::from_utf8(text).ok()?;
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
    }

    /// The command key, which is the same in all attempts at one command.
    pub(super) fn key(&self) -> &str {
        key_of(&self.correlation)
    }
}

/// The command key within a correlation id.
pub(super) fn key_of(correlation: &str) -> &str {
    correlation
        .rsplit_once('.')
        .map_or(correlation, |(key, _)| key)
}

/// Body of the operation `open`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    /// Display name of the account's owner.
    pub(super) name: Box<str>,
}

/// Body of `pay`, where `to` receives money, and of `request`, where `to` is asked for it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    /// The account of the other person.
    pub(super) to: AccountId,
    /// The amount of money in cents.
    pub(super) amount_cents: u64,
    /// The sender's note to the receiver.
    #[serde(default)]
    pub(super) note: Box<str>,
}

/// Body of the operation `answer`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The id of the request, from its event.
    pub(super) request: Box<str>,
    /// Whether to pay the request or decline it.
    pub(super) accept: bool,
}

impl Open {
    /// Parses and validates the body of an `open`.
    pub(super) fn read(command: &Command) -> Result<Self, Problem> {
        let open: Self = body(command)?;
        text_fits("name", &open.name, NAME_CHARS_MAX)?;
        if open.name.trim().is_empty() {
            return Err(Problem::Invalid("`name` is empty".into()));
        }
        Ok(open)
    }
}

impl Transfer {
    /// Parses and validates the body of a `pay` or a `request`.
    pub(super) fn read(command: &Command) -> Result<Self, Problem> {
        let transfer: Self = body(command)?;
        text_fits("note", &transfer.note, NOTE_CHARS_MAX)?;
        if !(1..=AMOUNT_CENTS_MAX).contains(&transfer.amount_cents) {
            return Err(Problem::Invalid(format!(
                "`amount_cents` must be from 1 to {AMOUNT_CENTS_MAX}"
            )));
        }
        Ok(transfer)
    }
}

impl Answer {
    /// Parses the body of an `answer`.
    pub(super) fn read(command: &Command) -> Result<Self, Problem> {
        body(command)
    }
}

fn body<'a, T: Deserialize<'a>>(command: &'a Command) -> Result<T, Problem> {
    if command.body.len() > BODY_BYTES_MAX {
        return Err(Problem::TooLarge {
            limit: BODY_BYTES_MAX,
        });
    }
    serde_json::from_slice(&command.body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::Invalid(clip(&error.to_string())),
        _ => Problem::NotJson(clip(&error.to_string())),
    })
}

/// Shortens text that a problem quotes, and removes control characters.
pub(super) fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let visible = text.chars().filter(|c| !c.is_control());
    visible.take(CHARS_MAX).collect()
}

fn text_fits(what: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    if text.chars().count() > chars_max {
        return Err(Problem::Invalid(format!(
            "`{what}` has more than {chars_max} characters"
        )));
    }
    // JSON writes a control character as six. Without them a record's size is bounded.
    if text.chars().any(char::is_control) {
        return Err(Problem::Invalid(format!(
            "`{what}` has a control character"
        )));
    }
    Ok(())
}
