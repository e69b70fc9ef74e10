//! What every request brings beside its body.

use super::NodeId;
use crate::model::Now;

/// The node that was asked, the version of the request, and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContext {
    pub node: NodeId,
    pub version: i16,
    pub now: Now,
}
