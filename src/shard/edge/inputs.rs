//! What templates can read of a request.

use crate::http::Request;
use crate::model::Principal;
use crate::route::{Inputs, Params};

/// The inputs of a route's templates.
pub(super) fn inputs<'a>(
    params: &'a Params<'_>,
    request: &'a Request<'_>,
    principal: &'a Principal,
) -> Inputs<'a> {
    Inputs {
        params,
        query: request.query,
        headers: &request.headers,
        body: request.body,
        principal,
    }
}
