//! HTTP/2 (RFC 9113) over bytes. The h2 crate knows frames, header compression and flow control. It
//! expects an asynchronous socket; here it gets a `Pipe` between two buffers and is
//! polled with a waker that does nothing. The caller that changes a [`Session`] drives it
//! afterwards, so no wake-up is needed and there is no runtime.
//!
//! A [`Session`] is one connection, an [`IncomingRequest`] a request on one of its streams, and a
//! [`ResponseStream`] the sending side of that stream. A request is written as the head that it
//! would have in HTTP/1.1 and read by the same parser, so that one set of rules decides about
//! paths, hosts and fields. A neutral [`Response`](super::Response) becomes an [`Http2Response`].
//!
//! The h2 crate reads the clock itself for one purpose: to forget streams that it has reset.

mod allowance;
mod frames;
mod pipe;
mod request;
mod response;
mod session;
mod stream;

pub use request::{HeadBytes, read_head};
pub use response::Http2Response;
pub use session::{
    Drive, IncomingRequest, PREFACE, STREAMS_MAX, Session, SessionEnd, SessionLimits,
};
pub use stream::{BodyPart, RequestBody, ResponseStream, StreamGone, StreamReset};
