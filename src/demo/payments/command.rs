//! A command as it is read from its topic: the envelope, and what it asks for.

use serde::{Deserialize, Serialize};

use super::entry::AccountId;
use super::problem::Problem;

/// Bytes a correlation id may have. The gateway's has 45; a longer one is nobody's.
const CORRELATION_BYTES_MAX: usize = 128;
/// Bytes a body may have: a journal record holds what it says at most twice, and stays below the
/// size at which a produce request stalls.
const BODY_BYTES_MAX: usize = 2_048;
/// Characters of a note.
pub(super) const NOTE_CHARS_MAX: usize = 140;
/// Characters of an owner's name.
const NAME_CHARS_MAX: usize = 60;
/// The largest amount of one payment or request: ten thousand, in cents.
const AMOUNT_CENTS_MAX: u64 = 1_000_000;

/// Where a command was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Partition of the commands topic.
    pub(crate) partition: i32,
    /// Offset there.
    pub(crate) offset: i64,
    /// When it was appended, in milliseconds since the epoch: log time for [`super::seen`].
    pub(crate) appended_ms: i64,
}

impl Source {
    /// The name of what a command makes: the same however often it is carried out.
    pub(super) fn name(self, kind: char) -> String {
        format!("{kind}{}-{}", self.partition, self.offset)
    }
}

/// One record of the commands topic. Not yet understood: the ledger refuses with a reply what
/// makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Where it was read.
    pub(crate) source: Source,
    /// Echoed in the reply; its part before the last `.` names the command (K), the same for each
    /// attempt.
    pub(crate) correlation: Box<str>,
    /// The `operation` header, which the gateway's route sets.
    pub(crate) operation: Vec<u8>,
    /// The account it is about: the record's key, from the path.
    pub(crate) account: Vec<u8>,
    /// The request's `If-Match`.
    pub(crate) if_match: Option<Vec<u8>>,
    /// The request's body.
    pub(crate) body: Vec<u8>,
}

impl Command {
    /// Whether `text` can be a correlation id. A record without one is skipped: nobody can read
    /// its reply, and its duplicates could not be told.
    pub(crate) fn correlation_from(text: &[u8]) -> Option<Box<str>> {
        let fits = (1..=CORRELATION_BYTES_MAX).contains(&text.len());
        let text = std::str::from_utf8(text).ok()?;
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
    }

    /// K: what is the same in all attempts at one command.
    pub(super) fn key(&self) -> &str {
        key_of(&self.correlation)
    }
}

/// K of a correlation id.
pub(super) fn key_of(correlation: &str) -> &str {
    correlation
        .rsplit_once('.')
        .map_or(correlation, |(key, _)| key)
}

/// Body of `open`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    /// What people call the owner.
    pub(super) name: Box<str>,
}

/// Body of `pay` (`to` gets money) and of `request` (`to` is asked for it).
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    /// The other person.
    pub(super) to: AccountId,
    /// How much, in cents.
    pub(super) amount_cents: u64,
    /// What for.
    #[serde(default)]
    pub(super) note: Box<str>,
}

/// Body of `answer`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The request's id, as its event shows it.
    pub(super) request: Box<str>,
    /// Pay, or refuse.
    pub(super) accept: bool,
}

impl Open {
    /// Understands the body of an `open`.
    pub(super) fn read(command: &Command) -> Result<Self, Problem> {
        let open: Self = body(command)?;
        text_fits("name", &open.name, NAME_CHARS_MAX)?;
        if open.name.trim().is_empty() {
            return Err(Problem::Unfit("`name` is empty".into()));
        }
        Ok(open)
    }
}

impl Transfer {
    /// Understands the body of a `pay` or a `request`.
    pub(super) fn read(command: &Command) -> Result<Self, Problem> {
        let transfer: Self = body(command)?;
        text_fits("note", &transfer.note, NOTE_CHARS_MAX)?;
        if !(1..=AMOUNT_CENTS_MAX).contains(&transfer.amount_cents) {
            return Err(Problem::Unfit(format!(
                "`amount_cents` must be from 1 to {AMOUNT_CENTS_MAX}"
            )));
        }
        Ok(transfer)
    }
}

impl Answer {
    /// Understands the body of an `answer`.
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
        serde_json::error::Category::Data => Problem::Unfit(clip(&error.to_string())),
        _ => Problem::NotJson(clip(&error.to_string())),
    })
}

/// What a refusal quotes of a request: short, and without control characters.
pub(super) fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let visible = text.chars().filter(|c| !c.is_control());
    visible.take(CHARS_MAX).collect()
}

fn text_fits(what: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    if text.chars().count() > chars_max {
        return Err(Problem::Unfit(format!(
            "`{what}` has more than {chars_max} characters"
        )));
    }
    // A control character is written as six in JSON; without them a record's size is bounded.
    if text.chars().any(char::is_control) {
        return Err(Problem::Unfit(format!("`{what}` has a control character")));
    }
    Ok(())
}
