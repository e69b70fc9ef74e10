//! The clients of a shard. A *connection* is a socket with a protocol on it ([`http1`]); an
//! *exchange* is one request with its response, or one event stream. A request that can be answered
//! in the turn it arrives in is; another opens an exchange, by which other shards answer.
//!
//! | type | owns |
//! |---|---|
//! | [`Connections`](connections::Connections) | the slab of connections, rotation, timers |
//! | [`Http1`](http1::Http1) | one HTTP/1.1 connection: phase, bytes, deadlines |
//! | [`Exchanges`](exchanges::Exchanges) | what waits for another shard, and streams |
//! | [`Clients`](clients::Clients) | connections and exchanges, which end together |
//! | [`Turns`](turns::Turns) | how a client's turn ends: responses leave, limits, close |
//! | [`Requests`](requests::Requests) | a client's requests: read, parse, handle |
//! | [`Answers`](answers::Answers) | what other shards answer; the pages of collections |
//! | [`Streams`](streams::Streams) | event streams: begin, delivery, end, drain |
//! | [`Collection`](collection::Collection) | one collection, page by page |
//! | [`GzipCache`](gzip_cache::GzipCache) | values that were compressed for clients |
//! | [`Site`](site::Site) | what follows from a snapshot: routes, limits; the handlers |
//! | [`RouteCors`](route_cors::RouteCors) | which pages of other origins may use which route |
//! | [`RouteRates`](route_rates::RouteRates) | how often one client may use a route |
//! | [`Responder`](responder::Responder) | neutral responses as bytes of HTTP/1.1 |
//! | [`Edge`] | all of them: which part handles what happens |
//!
//! No task and no timer of its own belongs to a connection; an idle one is a slot and a small box.

mod answers;
mod body;
mod body_check;
mod clients;
mod collection;
mod commands;
mod connections;
mod context;
mod exchanges;
mod gzip_cache;
mod handlers;
mod http1;
mod http2;
mod http2_requests;
mod http2_sink;
mod http2_stream;
mod http2_turns;
mod inputs;
mod leaving;
mod lifecycle;
mod listeners;
mod phase;
mod requests;
mod responder;
mod responses;
mod route_cors;
mod route_rates;
mod site;
mod stream_connection;
mod streams;
#[cfg(test)]
mod tests;
mod transport;
mod trust;
mod turns;

pub(super) use context::EdgeContext;
pub(super) use lifecycle::Edge;
pub(super) use listeners::EdgeListeners;
