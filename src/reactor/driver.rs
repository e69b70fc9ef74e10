//! One pass of a shard's loop: completions → inbox → turn → the turn's requests. The wait between
//! passes is [`Driver::rest`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Clock;
use super::connecting::{Connecting, OpenContext};
use super::io::{Budgets, SCRATCH_BYTES, TurnIo};
use super::listeners::Listeners;
use super::mailbox::{DriverCommand, Inbox, Outbox, ShardHandle};
use super::sockets::{SocketPhase, Sockets};
use crate::model::{Instant, ShardId};
use crate::shard::{Inputs, ListenerId, Outputs, SocketEvent, SocketId, Turn};
use crate::sys::{Completion, CompletionResult, Ring, Socket, Token, TokenKind};

/// Most completions per pass. Others wait for the next pass, so that a turn is bounded: a new
/// connection costs some 5 µs.
const COMPLETIONS_MAX: usize = 256;

/// Wait before retrying an operation that failed because a queue of another thread was full.
const SOON: Duration = Duration::from_millis(1);

/// What the loop does next, after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterPass {
    /// Run another pass at once.
    Again,
    /// Wait at most this long.
    Rest(Duration),
    /// Leave the loop: the shard has ended.
    End,
}

/// Everything that one shard's thread owns.
pub(super) struct Driver<T: Turn> {
    shard: T,
    clock: Clock,
    ring: Ring,
    sockets: Sockets,
    listeners: Listeners,
    connecting: Connecting,
    shards: Arc<[Inbox<T::Message>]>,
    own: usize,
    outbox: Outbox<T::Message, T::Control>,
    scratch: Box<[u8]>,
    budgets: Budgets,
    turn_every: Duration,
    completions: Vec<Completion>,
    last_accepted: Vec<(ListenerId, Socket)>,
    inputs: Inputs<T::Message>,
    outputs: Outputs<T::Message, T::Control>,
    /// Whether the last flush emptied the outbox.
    delivered: bool,
    abandoned: bool,
    turns: u64,
    client_descriptors_max: u64,
    refused: u64,
    refused_descriptors: u64,
}

/// The parts of a driver besides its shard.
pub(super) struct DriverParts<M, C> {
    pub(super) clock: Clock,
    pub(super) ring: Ring,
    pub(super) sockets_max: u32,
    pub(super) connecting: Connecting,
    pub(super) shards: Arc<[Inbox<M>]>,
    pub(super) own: ShardId,
    pub(super) outbox: Outbox<M, C>,
    pub(super) budgets: Budgets,
    pub(super) turn_every: Duration,
    pub(super) client_descriptors_max: u64,
}

impl<T: Turn> Driver<T> {
    pub(super) fn new(shard: T, parts: DriverParts<T::Message, T::Control>) -> Self {
        Self {
            shard,
            clock: parts.clock,
            ring: parts.ring,
            sockets: Sockets::new(parts.sockets_max),
            listeners: Listeners::default(),
            connecting: parts.connecting,
            shards: parts.shards,
            own: usize::from(parts.own.0),
            outbox: parts.outbox,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            budgets: parts.budgets,
            turn_every: parts.turn_every,
            completions: Vec::new(),
            last_accepted: Vec::new(),
            inputs: Inputs::default(),
            outputs: Outputs::default(),
            delivered: true,
            abandoned: false,
            turns: 0,
            client_descriptors_max: parts.client_descriptors_max,
            refused: 0,
            refused_descriptors: 0,
        }
    }

    fn inbox(&self) -> &Inbox<T::Message> {
        &self.shards[self.own]
    }

    pub(super) fn handle(&self) -> &Arc<ShardHandle> {
        &self.inbox().handle
    }

    /// Runs one pass: takes inputs, runs a turn, executes its requests.
    pub(super) fn pass(&mut self) -> AfterPass {
        self.sockets.rearm_lost(&mut self.ring);
        self.ring.enter();
        let before = self.clock.mono();
        self.on_completions(before);
        self.on_commands();
        self.take_last_accepted();
        self.listeners.rearm(before, &mut self.ring);
        self.on_opening(before);
        if self.inputs.messages.is_empty() {
            self.shards[self.own].take(&mut self.inputs.messages);
        }
        self.turn();
        self.act();
        self.publish();
        self.next()
    }

    fn on_completions(&mut self, now: Instant) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.completions(&mut completions, COMPLETIONS_MAX);
        for completion in completions.drain(..) {
            match completion.token.kind {
                TokenKind::Accept => self.on_accept(completion, now),
                TokenKind::Poll => self.on_poll(completion, now),
                TokenKind::Cancel | TokenKind::Waker => {}
            }
        }
        self.completions = completions;
    }

    fn on_accept(&mut self, completion: Completion, now: Instant) {
        let Completion {
            token,
            result,
            more,
        } = completion;
        let error = match result {
            CompletionResult::Accepted(socket) => {
                if let Some(listener) = self.listeners.id(token) {
                    self.admit(socket, listener);
                }
                0
            }
            CompletionResult::Failed(error) => error,
            CompletionResult::Ready(_) => 0,
        };
        if !more {
            self.listeners
                .on_ended(token, error, now, &mut self.last_accepted);
        }
    }

    /// Gives a client to the shard if it is still connected, a slot is free, and its descriptor is
    /// not one of those reserved for other uses.
    fn admit(&mut self, socket: Socket, listener: ListenerId) {
        if socket.descriptor() >= self.client_descriptors_max {
            self.refused_descriptors += 1;
            return;
        }
        let Ok(peer) = socket.peer() else {
            return;
        };
        match self
            .sockets
            .insert(socket, SocketPhase::Open, &mut self.ring)
        {
            Some(socket) => self.inputs.sockets.push(SocketEvent::Accepted {
                socket,
                listener,
                peer,
            }),
            None => self.refused += 1,
        }
    }

    fn on_poll(&mut self, completion: Completion, now: Instant) {
        let id = socket_id(completion.token);
        if let CompletionResult::Ready(ready) = completion.result {
            self.connecting.on_ready(
                id,
                ready,
                &mut OpenContext {
                    sockets: &mut self.sockets,
                    ring: &mut self.ring,
                    scratch: &mut self.scratch,
                    events: &mut self.inputs.sockets,
                    now,
                },
            );
            let events = self.sockets.on_ready(id, ready);
            if events.readable {
                self.inputs.sockets.push(SocketEvent::Readable(id));
            }
            if events.writable {
                self.inputs.sockets.push(SocketEvent::Writable(id));
            }
        }
        if !completion.more {
            self.sockets.on_released(id, &mut self.scratch);
        }
    }

    fn on_commands(&mut self) {
        let handle = Arc::clone(self.handle());
        while let Some(command) = handle.commands.pop() {
            match command {
                DriverCommand::Accept(listeners) => self.listeners.add(listeners, &mut self.ring),
                DriverCommand::StopAccepting => {
                    self.listeners.stop(&mut self.ring, &mut self.last_accepted);
                }
                DriverCommand::Abandon => self.abandoned = true,
            }
        }
    }

    fn take_last_accepted(&mut self) {
        let mut last = std::mem::take(&mut self.last_accepted);
        for (listener, socket) in last.drain(..) {
            self.admit(socket, listener);
        }
        self.last_accepted = last;
    }

    fn on_opening(&mut self, now: Instant) {
        let mut context = OpenContext {
            sockets: &mut self.sockets,
            ring: &mut self.ring,
            scratch: &mut self.scratch,
            events: &mut self.inputs.sockets,
            now,
        };
        self.connecting.on_resolved(&mut context);
        self.connecting.on_timeout(&mut context);
    }

    fn turn(&mut self) {
        self.outputs.deadline = None;
        self.outputs.more = false;
        let mut io = TurnIo::new(&mut self.sockets, &mut self.scratch, self.budgets);
        let now = self.clock.now();
        self.shard
            .turn(now, &mut self.inputs, &mut io, &mut self.outputs);
        self.inputs.last_turn = Some(self.clock.mono().since(now.mono));
        self.turns += 1;
        debug_assert!(
            self.inputs.sockets.is_empty(),
            "a shard takes all socket events"
        );
    }

    fn act(&mut self) {
        for id in self.outputs.close.drain(..) {
            self.sockets.close(id, &mut self.ring, &mut self.scratch);
        }
        if !self.outputs.open.is_empty() {
            let now = self.clock.mono();
            let mut context = OpenContext {
                sockets: &mut self.sockets,
                ring: &mut self.ring,
                scratch: &mut self.scratch,
                events: &mut self.inputs.sockets,
                now,
            };
            for open in self.outputs.open.drain(..) {
                self.connecting.open(open, &mut context);
            }
        }
        self.outbox.add(&mut self.outputs);
        self.delivered = self.outbox.flush();
    }

    /// Publishes counters. Relaxed stores are enough: only this thread writes them, and readers
    /// need no order between them.
    fn publish(&self) {
        let handle = self.handle();
        handle.turns.store(self.turns, Ordering::Relaxed);
        handle
            .sockets
            .store(self.sockets.len() as u64, Ordering::Relaxed);
        handle
            .listening
            .store(self.listeners.len() as u64, Ordering::Relaxed);
        handle.refused.store(self.refused, Ordering::Relaxed);
        handle
            .refused_descriptors
            .store(self.refused_descriptors, Ordering::Relaxed);
        handle
            .accepts_failed
            .store(self.listeners.failed(), Ordering::Relaxed);
    }

    fn next(&self) -> AfterPass {
        if self.outputs.ended || self.abandoned {
            return AfterPass::End;
        }
        if self.outputs.more || !self.inputs.sockets.is_empty() || self.inbox().has_any() {
            return AfterPass::Again;
        }
        let now = self.clock.mono();
        let retry = !self.delivered || self.sockets.has_lost();
        let deadlines = [
            self.outputs.deadline,
            self.listeners.next_deadline(),
            self.connecting.next_deadline(),
            retry.then(|| now.after(SOON)),
        ];
        let first = deadlines.into_iter().flatten().min();
        match first.map_or(self.turn_every, |at| at.since(now).min(self.turn_every)) {
            Duration::ZERO => AfterPass::Again,
            rest => AfterPass::Rest(rest),
        }
    }

    /// Sleeps until a completion arrives, another thread wakes the shard, or `at_most` has passed.
    pub(super) fn rest(&mut self, at_most: Duration) {
        self.handle().announce_parking();
        // Check the inbox after the announcement, never before it: see `parking.rs`. Completions
        // end the wait by themselves.
        if !self.inbox().has_any() {
            self.ring.wait(at_most);
        }
        self.handle().revoke_parking();
    }

    /// Sends waiting messages. Returns whether the outbox is empty.
    pub(super) fn flush(&mut self) -> bool {
        self.outbox.flush()
    }

    /// Ends the shard: other threads drop messages to it, and every socket sends a FIN.
    pub(super) fn close(&mut self) {
        self.handle().end();
        self.sockets.end_all();
        self.ring.enter();
        let handle = self.handle();
        handle.sockets.store(0, Ordering::Relaxed);
        handle.listening.store(0, Ordering::Relaxed);
    }
}

fn socket_id(token: Token) -> SocketId {
    SocketId {
        slot: token.slot,
        generation: token.generation,
    }
}
