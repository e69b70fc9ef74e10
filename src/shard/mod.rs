//! One shard as a pure struct: `turn(now, inputs, io) → outputs`.

mod home;
mod io;
mod message;
mod snapshot;
mod timers;

pub use io::{
    Inputs, Io, ListenerId, Open, OpenTicket, Outputs, Part, Read, SocketEvent, SocketId, Turn,
    Write,
};
