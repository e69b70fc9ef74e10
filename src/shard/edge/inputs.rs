//! What templates can read of a request.

use crate::http::Request;
use crate::model::Identity;
use crate::route::{Inputs, Params};

/// The identity of a request: anonymous, since requests are not authenticated yet.
#[cfg(not(feature = "planted"))]
pub(super) const fn identity_of(_request: &Request<'_>) -> Identity {
    Identity::ANONYMOUS
}

/// The identity of a request: anonymous, since requests are not authenticated yet. The fleet of the
/// tests invents identities, to prove that none of them reaches another's command.
#[cfg(feature = "planted")]
pub(super) fn identity_of(request: &Request<'_>) -> Identity {
    let invented = request.headers.get("x-fleet-identity");
    let invented = invented.filter(|_| crate::model::invents_identities());
    match invented.and_then(|name| std::str::from_utf8(name).ok()) {
        Some(name) => Identity::new("fleet", name),
        None => Identity::ANONYMOUS,
    }
}

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
