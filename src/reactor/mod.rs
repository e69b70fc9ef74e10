//! What drives shards. Each shard has a thread, in it a glommio executor that runs one loop. The
//! loop owns a ring, the sockets, the inbox and the clock. It takes no decision: the shard decides
//! which request is served, which client is slow and when to close. The shard sees the loop through
//! [`Io`](crate::shard::Io), [`Inputs`](crate::shard::Inputs) and
//! [`Outputs`](crate::shard::Outputs).
//!
//! One pass of the loop: completions of the ring → inbox → `turn` → its requests (close, open,
//! messages). If work is left, the next pass begins at once. Otherwise the thread sleeps in the
//! ring until a completion, another thread's wake or the next deadline.
//!
//! The thread sleeps in this ring and not in glommio's park: the loop is all that its executor
//! runs, a wake by glommio's three rings costs twice the CPU (68–77 µs against 32–39; 33 for bare
//! epoll, one request a wake), and glommio 0.9.0 can park with a runnable task.
//!
//! Order of calls: [`start`] starts the shards without a port. [`Running::bind`] claims the ports,
//! and [`Running::accept`] lets clients in. [`Running::stop_accepting`] empties the queues of the
//! listeners and closes them. [`Running::join`] returns when every shard has reported `ended`. The
//! control thread sends to the shards by [`Running::send`], is woken by the callback that it gave
//! to [`start`], and receives by [`Running::take`].

mod clock;
mod connecting;
mod driver;
mod error;
mod io;
mod listeners;
mod mailbox;
mod parking;
mod plan;
mod resolver;
mod running;
mod sockets;
mod thread;
mod unix_files;

#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use error::ReactorError;
pub use plan::{BACKLOG, Plan, UnixPlace};
pub use running::{Running, Undelivered, Vitals, start};
