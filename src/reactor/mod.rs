//! What drives shards: a thread a shard, in it a glommio executor that runs one loop, and in the
//! loop a ring of our own, the sockets, the inbox, the clock. It takes no decision: which request
//! is served, which client is slow, when to close is the shard's, which sees all of this through
//! [`Io`](crate::shard::Io), [`Inputs`](crate::shard::Inputs) and
//! [`Outputs`](crate::shard::Outputs).
//!
//! One pass of the loop: completions of the ring → inbox → `turn` → what it asked for (close, open,
//! messages) → then again at once if work is left, else sleep in the ring until a completion, a
//! peer's ringing or the next deadline.
//!
//! The thread sleeps in our ring and not in glommio's park: the loop is all that its executor runs,
//! a wake by glommio's three rings costs twice the CPU (68–77 µs against 32–39; 33 for bare epoll,
//! one request a wake), and glommio 0.9.0 can park with a runnable task.
//!
//! How it is used: [`start`] brings the shards up without a port; [`Running::bind`] claims the
//! ports and [`Running::accept`] lets clients in; [`Running::stop_accepting`] empties the queues of
//! the listeners and closes them; [`Running::join`] returns when every shard has said `ended`. The
//! control thread is a peer of the shards: it sends by [`Running::send`], is woken by the callback
//! it gave to [`start`] and takes by [`Running::take`].

mod clock;
mod crossing;
mod driver;
mod error;
mod io;
mod listeners;
mod opening;
mod plan;
mod resolver;
mod running;
mod sleep;
mod sockets;
mod thread;

#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use error::ReactorError;
pub use plan::{BACKLOG, Plan};
pub use running::{Running, Undelivered, Vitals, start};
