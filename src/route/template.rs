//! Expands a template for one request.

use super::pointer::{PointerError, scalar};
use crate::config::{Part, Template};
use crate::http::{Headers, Query, Refusal};
use crate::model::Principal;

/// Most bytes of an expanded template, which is a record's key, a filter or a header value.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The parts of a request that placeholders can read.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Parameters of the path, from the router.
    pub params: &'a [&'a str],
    /// The query of the request.
    pub query: Query<'a>,
    /// The headers of the request.
    pub headers: &'a Headers<'a>,
    /// The complete body; empty if there is none.
    pub body: &'a [u8],
    /// The client, as its verified credential says.
    pub principal: &'a Principal,
}

/// ValueFault a template cannot be expanded: the request lacks a value or has an invalid one (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{placeholder}: {why}")]
pub struct TemplateError {
    /// The placeholder, described from the config and without text from the client.
    pub placeholder: String,
    /// What is wrong with its value.
    pub why: ValueFault,
}

/// What is wrong with the value of a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ValueFault {
    /// The request does not have it.
    #[error("is missing")]
    Missing,
    /// The client's credential does not have the claim as a text, number or boolean.
    #[error("is not in the credential")]
    NoClaim,
    /// A header or query parameter is repeated. Choosing one of the values would be a guess.
    #[error("is there more than once")]
    Repeated,
    /// The expanded text is longer than [`VALUE_BYTES_MAX`].
    #[error("is too long")]
    TooLong,
    /// The body does not have a usable value.
    #[error(transparent)]
    Body(#[from] PointerError),
}

/// Expands the template for one request. The result is bytes, because a header's value need not be
/// UTF-8. An anonymous identity is empty.
///
/// # Errors
/// The first placeholder without a usable value.
///
/// # Panics
/// The parameters are not those of the template's route.
pub fn evaluate(template: &Template, inputs: &Inputs<'_>) -> Result<Vec<u8>, TemplateError> {
    let mut out = Vec::new();
    for part in &template.parts {
        let fault = |why: ValueFault| TemplateError {
            placeholder: describe(part),
            why,
        };
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Path { index, .. } => out.extend_from_slice(inputs.params[*index].as_bytes()),
            Part::Identity => {
                let identity = inputs.principal.identity.to_string();
                out.extend_from_slice(identity.as_bytes());
            }
            Part::Claim(name) => {
                let value = inputs.principal.claims.get(name);
                let value = value.ok_or_else(|| fault(ValueFault::NoClaim))?;
                out.extend_from_slice(value.as_bytes());
            }
            Part::Header(name) => {
                let value = inputs
                    .headers
                    .one(name)
                    .map_err(|_| fault(ValueFault::Repeated))?;
                out.extend_from_slice(value.ok_or_else(|| fault(ValueFault::Missing))?);
            }
            Part::Query(name) => {
                let value = inputs.query.one(name);
                let value = value.map_err(|_: Refusal| fault(ValueFault::Repeated))?;
                let value = value.ok_or_else(|| fault(ValueFault::Missing))?;
                out.extend_from_slice(value.as_bytes());
            }
            Part::Body { pointer } => {
                let value = scalar(inputs.body, pointer);
                let value = value.map_err(|error| fault(ValueFault::Body(error)))?;
                out.extend_from_slice(value.as_bytes());
            }
        }
        if out.len() > VALUE_BYTES_MAX {
            return Err(fault(ValueFault::TooLong));
        }
    }
    Ok(out)
}

/// Describes a placeholder for a message.
fn describe(part: &Part) -> String {
    match part {
        Part::Literal(_) => "the route's own text".into(),
        Part::Path { name, .. } => format!("the path parameter `{name}`"),
        Part::Identity => "the identity".into(),
        Part::Claim(name) => format!("the claim `{name}`"),
        Part::Header(name) => format!("the header `{name}`"),
        Part::Query(name) => format!("the query parameter `{name}`"),
        Part::Body { pointer } => format!("`/{}` of the body", pointer.join("/")),
    }
}
