//! What templates can read of a request.

use crate::http::Request;
use crate::model::Identity;
use crate::route::{Inputs, Params};

/// The inputs of a route's templates.
pub(super) fn inputs<'a>(
    params: &'a Params<'_>,
    request: &'a Request<'_>,
    identity: &'a Identity,
) -> Inputs<'a> {
    Inputs {
        params,
        query: request.query,
        headers: &request.headers,
        body: request.body,
        identity,
    }
}
