//! A record of the replies topic as an HTTP answer. The service is trusted to answer, not to write
//! HTTP: nothing of it reaches a client unchecked.

use std::sync::Arc;

use crate::log::Record;

/// The names of the record headers of a reply that mean something to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyHeaders {
    /// Whose reply.
    pub correlation_id: Box<str>,
    /// The status, in decimal ASCII; absent: 200.
    pub status: Box<str>,
    /// `true`: nothing was applied, the client may try again.
    pub retry: Box<str>,
    /// Further names that stay inside (reply topic, identity, …), in any case.
    pub internal: Vec<Box<str>>,
    /// Whether `set-cookie` may pass.
    pub set_cookie: bool,
}

/// An answer that can be written as HTTP: every header is one that HTTP can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200–599.
    pub status: u16,
    /// Names in lower case and values, in the record's order.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    /// The content; empty for a null value, and for statuses that have none (204, 205, 304).
    pub body: Arc<[u8]>,
}

/// A reply or why it can't be shown: the command is answered either way.
pub type Answer = Result<Arc<Reply>, ReplyError>;

/// Why a reply can't become an HTTP response (502).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplyError {
    /// Not a number from 200 to 599.
    #[error("the reply's status is not a number from 200 to 599")]
    Status,
    /// A header that would pass has a name that is not a token, or a value with control characters.
    #[error("a header of the reply has characters that HTTP can't carry")]
    Header,
    /// More than [`Reply::HEADERS_MAX`] headers or [`Reply::HEADER_BYTES_MAX`] bytes of them.
    #[error("the reply has too many headers")]
    TooManyHeaders,
}

impl Reply {
    /// Headers a reply may pass.
    pub const HEADERS_MAX: usize = 64;
    /// Bytes of names and values they may have together.
    pub const HEADER_BYTES_MAX: usize = 16 * 1024;

    /// Reads a record. Headers that are the gateway's, the connection's or the framing's business
    /// are left out.
    ///
    /// # Errors
    /// What HTTP can't carry.
    pub fn read(record: &Record<'_>, names: &ReplyHeaders) -> Result<Self, ReplyError> {
        todo!()
    }

    /// Whether the record says that nothing was applied: such a reply is handed on, not kept.
    #[must_use]
    pub fn is_retry(record: &Record<'_>, names: &ReplyHeaders) -> bool {
        todo!()
    }
}
