//! From a request to what it means, and from what went wrong to what the client is told: the one
//! room that knows both HTTP and the domain.
//!
//! A [`Router`] is made of a checked config, once a snapshot: a tree of path segments, literals
//! before parameters. [`evaluate`] fills the holes of a template from one request. [`Refused`] is
//! every answer that is not a success, as problem details (RFC 9457) with a stable `type`; each
//! error of the rooms below becomes one here, and nowhere else.

mod pointer;
mod problem;
mod refused;
mod router;
mod template;
#[cfg(test)]
mod tests;

pub use pointer::PointerError;
pub use problem::Failure;
pub use refused::Refused;
pub use router::{Match, Methods, Params, RouteConflict, RouteIndex, Routed, Router};
pub use template::{Inputs, TemplateError, VALUE_BYTES_MAX, Why, evaluate};
