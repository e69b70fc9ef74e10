//! Routing of requests, expansion of templates, and errors as problem details. This is the only
//! room that knows both HTTP and the domain.
//!
//! A [`Router`] is built from a valid config, once per snapshot: a tree of path segments, literals
//! before parameters. [`evaluate`] expands a template for one request. [`Refused`] is every
//! response that is not a success, as problem details (RFC 9457) with a stable `type`. Each error
//! of the rooms below becomes one here, and nowhere else.

mod explain;
mod params;
mod pointer;
mod problem;
mod refused;
mod router;
mod template;
#[cfg(test)]
mod tests;

pub use explain::{Explanation, explain};
pub use params::{ParamError, ParamFault, check_params};
pub use pointer::PointerError;
pub use problem::Failure;
pub use refused::Refused;
pub use router::{
    Match, Methods, Params, RouteConflict, RouteIndex, Routed, Router, location_path,
};
pub use template::{Inputs, TemplateError, VALUE_BYTES_MAX, ValueFault, evaluate};
