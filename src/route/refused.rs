//! Turns errors of the rooms below into responses for the client.

use std::borrow::Cow;

use super::params::{ParamError, ParamFault};
use super::pointer::PointerError;
use super::problem::Failure;
use super::template::{TemplateError, ValueFault};
use crate::cache::Lookup;
use crate::command::{Limit, RecordError, ReplyError};
use crate::http::{Fault, PointedError, Problem, ProblemKind, Refusal};
use crate::kafka::{BadRecord, Code, CodeMeaning, Denial, Doing};
use crate::schema::Verdict;

/// A response that is not a success: a problem, and when to retry. It never contains text from the
/// client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The type of the problem.
    pub kind: ProblemKind,
    /// What happened in this request; may be empty.
    pub detail: Cow<'static, str>,
    /// Seconds for the `Retry-After` header, if a retry may help.
    pub retry_after: Option<u32>,
    /// What is wrong in the body, place by place.
    pub errors: Vec<PointedError>,
}

impl Refused {
    /// `Retry-After` in seconds for a request that fails until an operator acts.
    pub const DENIED_RETRY_AFTER: u32 = 60;

    /// The response for a route with requests that brokers reject until an operator acts.
    #[must_use]
    pub fn denied(doing: Doing, denial: Denial) -> Self {
        let (refused, cause) = (doing.refused(), denial.cause());
        let detail = format!(
            "nothing was done: {refused}, because {cause}; only an operator can change that, see \
             /readyz"
        );
        Self {
            kind: Failure::TopicUnavailable.kind(),
            detail: detail.into(),
            retry_after: Some(Self::DENIED_RETRY_AFTER),
            errors: Vec::new(),
        }
    }

    /// The response to a command after a broker rejected its record with this code. The record is
    /// certainly not in the log.
    #[must_use]
    pub fn of_code(code: Code) -> Self {
        match code.meaning() {
            CodeMeaning::Denied(denial) => Self::denied(Doing::Write, denial),
            CodeMeaning::BadRecord(BadRecord::TooLarge) => Failure::CommandTooLarge.into(),
            CodeMeaning::BadRecord(bad) => Self {
                kind: Failure::RecordRefused.kind(),
                detail: format!("nothing was appended: {}", bad.cause()).into(),
                retry_after: None,
                errors: Vec::new(),
            },
            CodeMeaning::Success
            | CodeMeaning::Passing { .. }
            | CodeMeaning::SequenceLost
            | CodeMeaning::Corrupt
            | CodeMeaning::Unknown => Failure::BrokerUnavailable.into(),
        }
    }

    /// A failure, with a detail that says more than its own.
    #[must_use]
    pub fn because(failure: Failure, detail: &'static str) -> Self {
        let mut refused = Self::from(failure);
        refused.detail = detail.into();
        refused
    }

    /// The problem to write. `instance` identifies the request in the log.
    #[must_use]
    pub fn problem<'a>(&'a self, instance: Option<&'a str>) -> Problem<'a> {
        Problem {
            kind: self.kind,
            detail: &self.detail,
            instance,
            errors: &self.errors,
            members: &[],
        }
    }

    /// The failure of a lookup. `None` if it found a value.
    #[must_use]
    pub const fn of_lookup(lookup: &Lookup<'_>) -> Option<Failure> {
        match lookup {
            Lookup::Found(_) => None,
            Lookup::Absent => Some(Failure::NotFound),
            Lookup::Unheld(_) | Lookup::Unknown => Some(Failure::CacheDegraded),
        }
    }

    /// The response to a body that its schema does not allow. `None` if the body is valid.
    #[must_use]
    pub fn of_verdict(verdict: Verdict) -> Option<Self> {
        let (failure, detail, errors) = match verdict {
            Verdict::Valid => return None,
            Verdict::Invalid(violations) => {
                let errors = violations.into_iter().map(|it| PointedError {
                    pointer: it.pointer,
                    detail: it.detail,
                });
                let detail = Failure::InvalidBody.detail().into();
                (Failure::InvalidBody, detail, errors.collect())
            }
            Verdict::NotJson(why) => {
                let detail = format!("this route reads the body as JSON: {why}").into();
                (Failure::MalformedBody, detail, Vec::new())
            }
            Verdict::Unfinished => {
                let detail = "nothing was done: the body takes too many steps to check".into();
                (Failure::InvalidBody, detail, Vec::new())
            }
        };
        Some(Self {
            kind: failure.kind(),
            detail,
            retry_after: None,
            errors,
        })
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            kind: failure.kind(),
            detail: failure.detail().into(),
            retry_after: failure.retry_after(),
            errors: Vec::new(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            kind: refusal.fault.kind(),
            detail: refusal.detail.into(),
            retry_after: None,
            errors: Vec::new(),
        }
    }
}

impl From<Limit> for Refused {
    fn from(limit: Limit) -> Self {
        // All limits have the same response. Metrics show which one was reached.
        match limit {
            Limit::Commands
            | Limit::Waiters
            | Limit::WaitersOfOne
            | Limit::TenantCommands
            | Limit::TenantWaiters => Failure::Overloaded.into(),
        }
    }
}

impl From<ReplyError> for Refused {
    fn from(error: ReplyError) -> Self {
        let detail = match error {
            ReplyError::Status => "the reply has an invalid status",
        };
        Refusal::new(Fault::BadReply, detail).into()
    }
}

impl From<RecordError> for Refused {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::HeaderTooLong => {
                let detail = "a header that goes to the service is over 4 KiB";
                Refusal::new(Fault::HeadTooLarge, detail).into()
            }
        }
    }
}

impl From<ParamError> for Refused {
    fn from(error: ParamError) -> Self {
        let failure = match error.fault {
            ParamFault::Missing => Failure::MissingParameter,
            ParamFault::Repeated | ParamFault::Type => Failure::BadParameter,
        };
        Self {
            kind: failure.kind(),
            detail: error.to_string().into(),
            retry_after: None,
            errors: Vec::new(),
        }
    }
}

impl From<TemplateError> for Refused {
    fn from(error: TemplateError) -> Self {
        use PointerError::{Inexact, Missing, NotJson, NotScalar, Repeated};
        let failure = match error.why {
            ValueFault::NoClaim => Failure::Forbidden,
            ValueFault::Missing | ValueFault::Body(Missing) => Failure::MissingParameter,
            ValueFault::Repeated | ValueFault::TooLong => Failure::BadParameter,
            ValueFault::Body(NotScalar | Inexact | Repeated) => Failure::BadParameter,
            ValueFault::Body(NotJson) => Failure::MalformedBody,
        };
        let detail = match failure {
            Failure::MalformedBody => {
                "this route reads the body as JSON, but it is not JSON".into()
            }
            _ => format!("{} {}", error.placeholder, error.why).into(),
        };
        Self {
            kind: failure.kind(),
            detail,
            retry_after: None,
            errors: Vec::new(),
        }
    }
}
