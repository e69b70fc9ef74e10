//! What is written down: accounts, what happened to whom, replies, and the entry that holds them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::command::Source;

/// An account's name in paths and keys: 1 to 32 of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AccountId(Box<str>);

impl AccountId {
    /// Characters an id may have.
    pub(crate) const LEN_MAX: usize = 32;

    /// Reads an id. `None` when it breaks the rule, so that no such account can exist.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=Self::LEN_MAX).contains(&text.len());
        (fits && text.bytes().all(legal)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccountId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("an account id is 1 to 32 of a-z, 0-9 and `-`")
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account as the `balances` topic shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The id: key of the record.
    pub(crate) account: AccountId,
    /// What people call its owner.
    pub(crate) name: Box<str>,
    /// Money, in cents. It cannot be negative: an overdraft is refused.
    pub(crate) balance_cents: u64,
    /// Grows by one with each change of the balance; the account's etag.
    pub(crate) version: u64,
}

/// What an [`Activity`] tells its person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Your account was opened, with this amount as a welcome.
    Opened,
    /// You paid `with`.
    Paid,
    /// You were paid by `with`.
    Received,
    /// You asked `with` for money.
    Requested,
    /// `with` asks you for money.
    Asked,
    /// You said no to `with`.
    Declined,
    /// `with` said no to you.
    Refused,
}

/// One thing that happened to one person, as the `payments` topic shows it. Whatever involves two
/// people is two of these, each under its person's key, so that a stream filtered by that key
/// shows all a person needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activity {
    /// Whom it is told: key of the record.
    pub(crate) account: AccountId,
    /// 1, 2, 3, … for each person without holes: who reads them can see that none is missing, and
    /// that one which comes twice is the same one.
    pub(crate) event: u64,
    /// What happened.
    pub(crate) kind: Kind,
    /// The other person, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) with: Option<AccountId>,
    /// How much money it is about, in cents.
    pub(crate) amount_cents: u64,
    /// The person's balance afterwards, in cents.
    pub(crate) balance_cents: u64,
    /// The account's version afterwards.
    pub(crate) version: u64,
    /// The payment's or request's name: what it was made from, so the same after any restart.
    pub(crate) id: Box<str>,
    /// The request that a payment or refusal answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) request: Option<Box<str>>,
    /// What the sender wrote, at most [`super::command::NOTE_CHARS_MAX`] characters.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub(crate) note: Box<str>,
    /// When the command was appended, in milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

/// What a command is answered with: becomes a record on the replies topic, and then HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Echo of the command's correlation id.
    pub(crate) correlation: Box<str>,
    /// HTTP status.
    pub(crate) status: u16,
    /// Version of the account the command was about, if it exists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) etag: Option<u64>,
    /// Nothing was applied and the same command may be sent again: the gateway does not keep such
    /// a reply, and neither do we.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) retry: bool,
    /// JSON: a result below 400, problem details (RFC 9457) from there on.
    pub(crate) body: Box<str>,
}

impl Reply {
    /// Media type of the body.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.status {
            ..400 => "application/json",
            _ => "application/problem+json",
        }
    }
}

/// One record of the journal: all that followed from one command, or from nobody's (the accounts
/// that are there from the start).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where the command was read. None: the service's own doing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) source: Option<Source>,
    /// The answer, if somebody asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reply: Option<Reply>,
    /// Accounts whose balance changed, as they are now.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) accounts: Vec<Account>,
    /// What happened to whom, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) activity: Vec<Activity>,
}
