//! HTTP/2, without TLS (prior knowledge) and over it: requests, streams, flow control, floods,
//! drain, conformance.

mod certificate;
mod client;
mod floods;
mod h2spec;
mod limits;
mod requests;
mod streams;
mod tls;
