//! Resolves host names on threads of their own, because `getaddrinfo` blocks. There are two
//! threads, so that one unresponsive name does not delay all others.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::mailbox::{Resolved, ShardHandle};
use crate::shard::Open;

/// Number of threads that resolve names.
const RESOLVERS: usize = 2;

/// Most names that one shard is resolving at a time.
pub(super) const RESOLVING_MAX: usize = 64;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

struct ResolveRequest {
    open: Open,
    to: Arc<ShardHandle>,
}

/// A handle to the resolver. The threads end when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Resolver(Sender<ResolveRequest>);

impl Resolver {
    pub(super) fn start() -> io::Result<Self> {
        let (ask, requests) = bounded(4 * RESOLVING_MAX);
        for number in 0..RESOLVERS {
            let requests = requests.clone();
            let thread = thread::Builder::new().name(format!("resolver-{number}"));
            thread.spawn(move || resolve_requests(&requests))?;
        }
        Ok(Self(ask))
    }

    /// Queues a name to resolve; the result is pushed to `to`. Returns false if too many names
    /// wait.
    pub(super) fn ask(&self, open: Open, to: &Arc<ShardHandle>) -> bool {
        let to = Arc::clone(to);
        match self.0.try_send(ResolveRequest { open, to }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

fn resolve_requests(requests: &Receiver<ResolveRequest>) {
    for ResolveRequest { open, to } in requests {
        let found = (open.host.as_str(), open.port).to_socket_addrs();
        let addresses = found.map_or_else(|_| Vec::new(), |all| all.take(ADDRESSES_MAX).collect());
        let ticket = open.ticket;
        // There is room: a shard resolves no more names at a time than its queue holds.
        let fits = to.resolved.push(Resolved { ticket, addresses });
        debug_assert!(fits.is_ok(), "a shard asked for more names than it may");
        to.wake();
    }
}
