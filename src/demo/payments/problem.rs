//! Rejections of commands as problem details (RFC 9457). A rejected command has changed nothing.

use serde_json::json;

use super::account_id::AccountId;

/// Why a command was rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The `operation` header names no operation of this service.
    UnknownOperation,
    /// The body is not valid JSON.
    NotJson(String),
    /// The body is JSON, but not valid for the operation.
    Invalid(String),
    /// The body is over the limit, in bytes.
    TooLarge { limit: usize },
    /// The account of the command does not exist.
    UnknownAccount(String),
    /// There is no such open request for this account.
    UnknownRequest(Box<str>),
    /// `If-Match` names another version than the present one.
    Stale { present: u64 },
    /// The payer's balance is too small.
    Overdraft {
        balance_cents: u64,
        amount_cents: u64,
    },
    /// A limit of the demo is reached.
    Limit(&'static str),
    /// Too many recent commands to remember one more. The command may be retried.
    Overloaded,
}

impl Problem {
    /// HTTP status of the reply.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) => 400,
            Self::UnknownAccount(_) | Self::UnknownRequest(_) => 404,
            Self::Overdraft { .. } | Self::Limit(_) => 409,
            Self::Stale { .. } => 412,
            Self::TooLarge { .. } => 413,
            Self::UnknownOperation | Self::Invalid(_) => 422,
            Self::Overloaded => 503,
        }
    }

    /// Whether the same command may be retried unchanged.
    pub(super) fn is_retry(&self) -> bool {
        matches!(self, Self::Overloaded)
    }

    fn kind_and_title(&self) -> (&'static str, &'static str) {
        match self {
            Self::UnknownOperation => ("unknown-operation", "The service knows no such operation"),
            Self::NotJson(_) => ("not-json", "The body is not JSON"),
            Self::Invalid(_) => ("invalid", "The body is not valid for the operation"),
            Self::TooLarge { .. } => ("too-large", "The body is too large"),
            Self::UnknownAccount(_) => ("unknown-account", "There is no such account"),
            Self::UnknownRequest(_) => ("unknown-request", "There is no such open request"),
            Self::Stale { .. } => ("stale-version", "The account has changed meanwhile"),
            Self::Overdraft { .. } => ("overdraft", "The balance is too small"),
            Self::Limit(_) => ("limit", "A limit of the demo is reached"),
            Self::Overloaded => ("overloaded", "Too many commands at the moment"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::UnknownOperation => "known are: open, pay, request, answer".into(),
            Self::NotJson(why) | Self::Invalid(why) => why.clone(),
            Self::TooLarge { limit } => format!("the limit is {limit} bytes"),
            Self::UnknownAccount(id) => format!("no account is named `{id}`"),
            Self::UnknownRequest(id) => format!("no request `{id}` waits for this account"),
            Self::Stale { present } => format!("the account is at version {present}"),
            Self::Overdraft {
                balance_cents,
                amount_cents,
            } => format!("{amount_cents} cents are more than the {balance_cents} there are"),
            Self::Limit(which) => (*which).into(),
            Self::Overloaded => "nothing was applied; send it again in a moment".into(),
        }
    }

    /// The reply's body. `account` and `version` are those of the command's account, if it exists.
    pub(super) fn body(&self, account: Option<(&AccountId, u64)>) -> Box<str> {
        let (kind, title) = self.kind_and_title();
        let mut body = json!({
            "type": format!("/demo/problems/{kind}"),
            "title": title,
            "status": self.status(),
            "detail": self.detail(),
        });
        if let Some((id, version)) = account {
            body["account"] = json!(id);
            body["version"] = json!(version);
        }
        if let Self::Overdraft { balance_cents, .. } = self {
            body["balance_cents"] = json!(balance_cents);
        }
        body.to_string().into()
    }
}
