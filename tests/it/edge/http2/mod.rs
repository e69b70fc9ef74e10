//! HTTP/2 without TLS (prior knowledge): requests, streams, flow control, floods, drain.

mod client;
mod floods;
mod requests;
mod streams;
