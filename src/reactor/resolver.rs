//! Names to addresses, off the shards: `getaddrinfo` waits, so it has threads of its own. Two, so
//! that one dead name does not hold up all the others.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::mailbox::ShardHandle;
use crate::shard::{Open, OpenTicket};

/// Threads that resolve.
const RESOLVERS: usize = 2;

/// Names one shard may have asked for and not yet got.
pub(super) const RESOLVING_MAX: usize = 64;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// What became of a name: none found is an empty list.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) ticket: OpenTicket,
    pub(super) addresses: Vec<SocketAddr>,
}

struct Question {
    open: Open,
    to: Arc<ShardHandle>,
}

/// The asking end; the threads go when the last of these is gone.
#[derive(Clone)]
pub(super) struct Resolver(Sender<Question>);

impl Resolver {
    pub(super) fn start() -> io::Result<Self> {
        let (ask, questions) = bounded(4 * RESOLVING_MAX);
        for number in 0..RESOLVERS {
            let questions = questions.clone();
            let thread = thread::Builder::new().name(format!("resolver-{number}"));
            thread.spawn(move || answer(&questions))?;
        }
        Ok(Self(ask))
    }

    /// Asks; the answer comes to `to`. False: too many wait already.
    pub(super) fn ask(&self, open: Open, to: &Arc<ShardHandle>) -> bool {
        let to = Arc::clone(to);
        match self.0.try_send(Question { open, to }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

fn answer(questions: &Receiver<Question>) {
    for Question { open, to } in questions {
        let found = (open.host.as_str(), open.port).to_socket_addrs();
        let addresses = found.map_or_else(|_| Vec::new(), |all| all.take(ADDRESSES_MAX).collect());
        let ticket = open.ticket;
        // There is room: a shard asks for no more names than its queue holds.
        let fits = to.resolved.push(Resolved { ticket, addresses });
        debug_assert!(fits.is_ok(), "a shard asked for more names than it may");
        to.wake();
    }
}
