//! Filling a template's holes from one request.

use super::pointer::{PointerError, scalar};
use crate::config::{Part, Template};
use crate::http::{Headers, Query, Refusal};
use crate::model::Identity;

/// Bytes a filled template may have: it is a record's key, a filter or a header value.
pub const VALUE_BYTES_MAX: usize = 4096;

/// What a request has to fill holes with.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The parameters of its path, as the router gave them.
    pub params: &'a [&'a str],
    /// Its query.
    pub query: Query<'a>,
    /// Its headers.
    pub headers: &'a Headers<'a>,
    /// Its body, whole; empty where there is none.
    pub body: &'a [u8],
    /// Who sent it.
    pub identity: &'a Identity,
}

/// Why a template can't be filled: the request lacks something (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{hole}: {why}")]
pub struct TemplateError {
    /// The hole, as the config writes it; nothing the client sent.
    pub hole: String,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with what should fill a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// A header or query parameter is there more than once: all values or 400.
    #[error("stands there more than once")]
    Repeated,
    /// With it the value is longer than [`VALUE_BYTES_MAX`].
    #[error("is too long")]
    TooLong,
    /// The body does not have it.
    #[error(transparent)]
    Body(#[from] PointerError),
}

/// The template's text for one request. Bytes, since a header's value need not be UTF-8. An
/// anonymous identity is empty.
///
/// # Errors
/// The first hole that the request does not fill.
///
/// # Panics
/// If the parameters are not those of the template's route.
pub fn evaluate(template: &Template, inputs: &Inputs<'_>) -> Result<Vec<u8>, TemplateError> {
    let mut out = Vec::new();
    for part in &template.parts {
        let fault = |why: Why| TemplateError {
            hole: hole(part),
            why,
        };
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Path { index, .. } => out.extend_from_slice(inputs.params[*index].as_bytes()),
            Part::Identity => out.extend_from_slice(inputs.identity.to_string().as_bytes()),
            Part::Header(name) => {
                let value = inputs.headers.one(name).map_err(|_| fault(Why::Repeated))?;
                out.extend_from_slice(value.ok_or_else(|| fault(Why::Missing))?);
            }
            Part::Query(name) => {
                let value = inputs.query.one(name);
                let value = value.map_err(|_: Refusal| fault(Why::Repeated))?;
                let value = value.ok_or_else(|| fault(Why::Missing))?;
                out.extend_from_slice(value.as_bytes());
            }
            Part::Body { pointer } => {
                let value = scalar(inputs.body, pointer);
                let value = value.map_err(|error| fault(Why::Body(error)))?;
                out.extend_from_slice(value.as_bytes());
            }
        }
        if out.len() > VALUE_BYTES_MAX {
            return Err(fault(Why::TooLong));
        }
    }
    Ok(out)
}

/// A hole as a person would name it.
fn hole(part: &Part) -> String {
    match part {
        Part::Literal(_) => "the route's own text".into(),
        Part::Path { name, .. } => format!("the path parameter `{name}`"),
        Part::Identity => "the identity".into(),
        Part::Header(name) => format!("the header `{name}`"),
        Part::Query(name) => format!("the query parameter `{name}`"),
        Part::Body { pointer } => format!("`/{}` of the body", pointer.join("/")),
    }
}
