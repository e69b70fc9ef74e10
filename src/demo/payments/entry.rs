//! The records of the service: accounts, events for their owners, replies, and the journal entry
//! that holds them.

use serde::{Deserialize, Serialize};

use super::account_id::AccountId;
use super::command::Source;

/// An account, as a record of the `balances` topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The account's id, also the record's key.
    pub(crate) account: AccountId,
    /// Display name of the account's owner.
    pub(crate) name: Box<str>,
    /// The balance in cents. It is never negative: an overdraft is rejected.
    pub(crate) balance_cents: u64,
    /// Increases by one with each change of the balance. It is the account's etag.
    pub(crate) version: u64,
}

/// The kind of an [`Activity`], from the view of its account's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The owner's account was opened with this amount.
    Opened,
    /// The owner paid the person `with`.
    Paid,
    /// The person `with` paid the owner.
    Received,
    /// The owner asked `with` for money.
    Requested,
    /// The person `with` asks the owner for money.
    Asked,
    /// The owner declined a request of `with`.
    Declined,
    /// The person `with` declined the owner's request.
    Refused,
}

/// One event of one account, as a record of the `payments` topic. An event between two people is
/// two records, one under each account's key, so that a stream filtered by that key sends
/// everything about an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activity {
    /// The account the event belongs to, also the record's key.
    pub(crate) account: AccountId,
    /// Number of the event, from 1 without gaps per account. A reader can see that none is missing,
    /// and that an event that arrives twice is the same one.
    pub(crate) event: u64,
    /// The kind of event it is.
    pub(crate) kind: Kind,
    /// The account of the other person, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) with: Option<AccountId>,
    /// The amount of money in cents.
    pub(crate) amount_cents: u64,
    /// The account's balance after the event, in cents.
    pub(crate) balance_cents: u64,
    /// The account's version after the event.
    pub(crate) version: u64,
    /// Id of the payment or request. It is derived from the command's position, so it is the same
    /// after a restart.
    pub(crate) id: Box<str>,
    /// Id of the request that this payment or refusal answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) request: Option<Box<str>>,
    /// The sender's note, at most [`super::command::NOTE_CHARS_MAX`] characters.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub(crate) note: Box<str>,
    /// When the command was appended, in milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

/// The reply to a command: a record of the replies topic, which the gateway turns into an HTTP
/// response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The command's correlation id, repeated.
    pub(crate) correlation: Box<str>,
    /// HTTP status of the response.
    pub(crate) status: u16,
    /// Version of the command's account, if that exists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) etag: Option<u64>,
    /// Whether nothing was applied and the same command may be retried. Neither the gateway nor
    /// this service stores such a reply.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) retry: bool,
    /// JSON body: a result for a status below 400, else problem details (RFC 9457).
    pub(crate) body: Box<str>,
}

impl Reply {
    /// Returns the media type of the body.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.status {
            ..400 => "application/json",
            _ => "application/problem+json",
        }
    }
}

/// One record of the journal: everything that followed from one command, or the opening of an
/// account at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    /// The command's position. `None` if the service made the entry itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) source: Option<Source>,
    /// The reply, if there was a command.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reply: Option<Reply>,
    /// Accounts that changed their balance, with their new state.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) accounts: Vec<Account>,
    /// Events of all accounts involved, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) activity: Vec<Activity>,
}
