//! Outgoing connections while they are being made: the name is resolved, then its addresses are
//! tried one after the other. The shard gets one event per request: `Opened`, or `OpenFailed` with
//! the error of the last address.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use super::mailbox::Resolved;
use super::mailbox::ShardHandle;
use super::resolver::{RESOLVING_MAX, Resolver};
use super::sockets::{SocketPhase, Sockets};
use crate::model::Instant;
use crate::shard::{Open, OpenTicket, SocketEvent, SocketId};
use crate::sys::{Connect, Ready, Ring, Socket};

/// A connection attempt in progress.
#[derive(Debug)]
struct Attempt {
    ticket: OpenTicket,
    socket: SocketId,
    until: Instant,
    rest: vec::IntoIter<SocketAddr>,
}

/// Parts of the driver that a connection attempt needs, borrowed for one step.
pub(super) struct OpenContext<'a> {
    pub(super) sockets: &'a mut Sockets,
    pub(super) ring: &'a mut Ring,
    pub(super) scratch: &'a mut [u8],
    pub(super) events: &'a mut Vec<SocketEvent>,
    pub(super) now: Instant,
}

/// All connection attempts of one shard.
pub(super) struct Connecting {
    resolver: Resolver,
    handle: Arc<ShardHandle>,
    resolving: usize,
    /// Longest time for one address. See [`Self::attempt`].
    timeout: Duration,
    attempts: Vec<Attempt>,
}

impl Connecting {
    pub(super) fn new(resolver: Resolver, handle: Arc<ShardHandle>, timeout: Duration) -> Self {
        Self {
            resolver,
            handle,
            resolving: 0,
            timeout,
            attempts: Vec::new(),
        }
    }

    /// Starts to connect: resolves the name, or tries the address at once.
    pub(super) fn open(&mut self, open: Open, context: &mut OpenContext<'_>) {
        let ticket = open.ticket;
        if let Ok(address) = open.host.parse::<IpAddr>() {
            let only = vec![SocketAddr::new(address, open.port)];
            return self.attempt(ticket, only.into_iter(), ErrorKind::NotFound, context);
        }
        if self.resolving == RESOLVING_MAX || !self.resolver.ask(open, &self.handle) {
            let error = ErrorKind::ResourceBusy;
            return context
                .events
                .push(SocketEvent::OpenFailed { ticket, error });
        }
        self.resolving += 1;
    }

    /// Takes the resolver's results and tries their addresses.
    pub(super) fn on_resolved(&mut self, context: &mut OpenContext<'_>) {
        let handle = Arc::clone(&self.handle);
        while let Some(Resolved { ticket, addresses }) = handle.resolved.pop() {
            self.resolving -= 1;
            self.attempt(ticket, addresses.into_iter(), ErrorKind::NotFound, context);
        }
    }

    /// Tries addresses until an attempt is in progress. `error` is reported if no address is left.
    fn attempt(
        &mut self,
        ticket: OpenTicket,
        mut rest: vec::IntoIter<SocketAddr>,
        mut error: ErrorKind,
        context: &mut OpenContext<'_>,
    ) {
        while let Some(address) = rest.next() {
            let (socket, phase) = match Socket::connect(address) {
                Ok(Connect::Done(socket)) => (socket, SocketPhase::Open),
                Ok(Connect::Pending(socket)) => (socket, SocketPhase::Connecting),
                Err(why) => {
                    error = match why.raw_os_error() {
                        Some(libc::EMFILE | libc::ENFILE) => ErrorKind::QuotaExceeded,
                        _ => why.kind(),
                    };
                    continue;
                }
            };
            let Some(socket) = context.sockets.insert(socket, phase, context.ring) else {
                error = ErrorKind::ResourceBusy;
                break;
            };
            if phase == SocketPhase::Open {
                return context.events.push(SocketEvent::Opened { ticket, socket });
            }
            // Divide the time by the number of addresses that are left: an unresponsive address
            // must leave time for those after it.
            let sharing = u32::try_from(rest.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            let until = context.now.after(self.timeout / sharing);
            return self.attempts.push(Attempt {
                ticket,
                socket,
                until,
                rest,
            });
        }
        context
            .events
            .push(SocketEvent::OpenFailed { ticket, error });
    }

    /// Handles a poll completion of a connecting socket.
    pub(super) fn on_ready(&mut self, id: SocketId, ready: Ready, context: &mut OpenContext<'_>) {
        let Some(entry) = context.sockets.connecting(id) else {
            return;
        };
        let outcome = entry.socket.take_error();
        if outcome.is_ok() && !ready.writable() {
            return;
        }
        let index = self
            .attempts
            .iter()
            .position(|attempt| attempt.socket == id);
        let Some(index) = index else { return };
        let attempt = self.attempts.swap_remove(index);
        match outcome {
            Ok(()) => {
                entry.phase = SocketPhase::Open;
                let ticket = attempt.ticket;
                context
                    .events
                    .push(SocketEvent::Opened { ticket, socket: id });
            }
            Err(error) => self.next(attempt, error.kind(), context),
        }
    }

    /// Abandons attempts past their deadline and tries their next addresses.
    pub(super) fn on_timeout(&mut self, context: &mut OpenContext<'_>) {
        let now = context.now;
        while let Some(late) = self.attempts.iter().position(|a| a.until <= now) {
            let attempt = self.attempts.swap_remove(late);
            self.next(attempt, ErrorKind::TimedOut, context);
        }
    }

    fn next(&mut self, attempt: Attempt, error: ErrorKind, context: &mut OpenContext<'_>) {
        context
            .sockets
            .close(attempt.socket, context.ring, context.scratch);
        self.attempt(attempt.ticket, attempt.rest, error, context);
    }

    /// When [`Self::on_timeout`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.attempts.iter().map(|attempt| attempt.until).min()
    }
}
