//! The room against its promises. `parser.rs` reads event streams by the WHATWG rules and shares no
//! code with the encoder.

mod bounds;
mod branches;
mod delivery;
mod fleet;
mod injection;
mod model;
mod parser;
mod rules;
mod source;
mod view;
