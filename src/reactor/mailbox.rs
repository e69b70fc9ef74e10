//! Communication between threads: a shard's inbox, its waker, and the counters that the control
//! thread reads. Every queue is bounded and no call waits. If an inbox is full, the messages stay
//! in the sender's outbox, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::parking::Parking;
use crate::model::ShardId;
use crate::shard::{ListenerId, OpenTicket, Outputs};
use crate::sys::{Listener, Waker};

/// Most commands that wait for one shard. A process sends three during its life.
const COMMANDS_MAX: usize = 8;

/// Commands of the process to a shard's driver, not to the shard.
#[derive(Debug)]
pub(super) enum DriverCommand {
    /// Accept clients on these listeners.
    Accept(Vec<(ListenerId, Listener)>),
    /// Empty the listeners' queues and close them.
    StopAccepting,
    /// End, because another shard could not start.
    Abandon,
}

/// The addresses of one host name. If the name cannot be resolved, the list is empty.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) ticket: OpenTicket,
    pub(super) addresses: Vec<SocketAddr>,
}

/// The part of one shard that other threads use, apart from its messages.
#[derive(Debug)]
pub(super) struct ShardHandle {
    parking: Parking<AtomicBool>,
    waker: Waker,
    pub(super) commands: ArrayQueue<DriverCommand>,
    pub(super) resolved: ArrayQueue<Resolved>,
    ended: AtomicBool,
    /// Counters that only the shard writes and that the watchdog and the metrics read.
    pub(super) turns: AtomicU64,
    pub(super) sockets: AtomicU64,
    pub(super) listening: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) refused_descriptors: AtomicU64,
    pub(super) accepts_failed: AtomicU64,
}

impl ShardHandle {
    pub(super) fn new(waker: Waker, resolving_max: usize) -> Arc<Self> {
        Arc::new(Self {
            parking: Parking::new(),
            waker,
            commands: ArrayQueue::new(COMMANDS_MAX),
            resolved: ArrayQueue::new(resolving_max),
            ended: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            sockets: AtomicU64::new(0),
            listening: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_descriptors: AtomicU64::new(0),
            accepts_failed: AtomicU64::new(0),
        })
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Wakes the shard if it sleeps. Call it after each push to one of its queues.
    pub(super) fn wake(&self) {
        if self.parking.must_wake() {
            self.waker.wake();
        }
    }

    /// Announces that the shard is about to sleep: see [`Parking::announce`].
    pub(super) fn announce_parking(&self) {
        self.parking.announce();
    }

    /// Announces that the shard is awake: see [`Parking::revoke`].
    pub(super) fn revoke_parking(&self) {
        self.parking.revoke();
    }

    /// Marks the shard as ended. Later messages to it are dropped by their sender.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The messages of one sender's turn.
type Batch<M> = (ShardId, Vec<M>);

/// The queue of messages to one shard.
#[derive(Debug)]
pub(super) struct Inbox<M> {
    batches: ArrayQueue<Batch<M>>,
    pub(super) handle: Arc<ShardHandle>,
}

impl<M> Inbox<M> {
    pub(super) fn new(batches_max: usize, handle: Arc<ShardHandle>) -> Self {
        let batches = ArrayQueue::new(batches_max);
        Self { batches, handle }
    }

    /// Adds a batch and wakes a sleeping shard.
    ///
    /// # Errors
    /// The inbox is full. The batch is returned.
    pub(super) fn push(&self, from: ShardId, batch: Vec<M>) -> Result<(), Vec<M>> {
        if self.handle.has_ended() {
            return Ok(());
        }
        let pushed = self.batches.push((from, batch));
        // Wake it even if the push failed: a shard with a full inbox must not sleep.
        self.handle.wake();
        pushed.map_err(|(_, batch)| batch)
    }

    /// Takes the batches that are there now, but none that arrive meanwhile, so that a turn is
    /// bounded.
    pub(super) fn take(&self, into: &mut VecDeque<(ShardId, M)>) {
        for _ in 0..self.batches.len() {
            let Some((from, batch)) = self.batches.pop() else {
                return;
            };
            into.extend(batch.into_iter().map(|message| (from, message)));
        }
    }

    /// Whether a message, a command or a resolved name waits.
    pub(super) fn has_any(&self) -> bool {
        !self.batches.is_empty()
            || !self.handle.commands.is_empty()
            || !self.handle.resolved.is_empty()
    }
}

/// The queue of messages to the control thread, and the callback that wakes it.
pub(super) struct ControlInbox<M> {
    batches: ArrayQueue<Batch<M>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<M> ControlInbox<M> {
    pub(super) fn new(batches_max: usize, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let batches = ArrayQueue::new(batches_max);
        Self { batches, wake }
    }

    fn push(&self, from: ShardId, batch: Vec<M>) -> Result<(), Vec<M>> {
        let pushed = self.batches.push((from, batch));
        (self.wake)();
        pushed.map_err(|(_, batch)| batch)
    }

    pub(super) fn pop(&self) -> Option<Batch<M>> {
        self.batches.pop()
    }
}

impl<M> std::fmt::Debug for ControlInbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlInbox")
            .field("waiting", &self.batches.len())
            .finish()
    }
}

/// Messages that a shard could not send yet, per receiver and in order. The outbox has no limit of
/// its own: each message belongs to an admitted request or to counted bytes, which are limited.
pub(super) struct Outbox<M, C> {
    own: ShardId,
    shards: Arc<[Inbox<M>]>,
    control: Arc<ControlInbox<C>>,
    /// Messages that wait, per receiving shard.
    waiting: Vec<Vec<M>>,
    /// Messages to the control thread.
    to_control: Vec<C>,
}

impl<M, C> Outbox<M, C> {
    pub(super) fn new(
        own: ShardId,
        shards: Arc<[Inbox<M>]>,
        control: Arc<ControlInbox<C>>,
    ) -> Self {
        let waiting = shards.iter().map(|_| Vec::new()).collect();
        Self {
            own,
            shards,
            control,
            waiting,
            to_control: Vec::new(),
        }
    }

    /// Appends the messages of a turn to those that wait.
    ///
    /// # Panics
    /// A message is addressed to a shard that does not exist.
    pub(super) fn add(&mut self, outputs: &mut Outputs<M, C>) {
        for (to, message) in outputs.messages.drain(..) {
            self.waiting[usize::from(to.0)].push(message);
        }
        self.to_control.append(&mut outputs.control);
    }

    /// Sends waiting messages, one batch per receiver. Returns whether all were sent.
    pub(super) fn flush(&mut self) -> bool {
        let mut empty = true;
        for (inbox, waiting) in self.shards.iter().zip(&mut self.waiting) {
            empty &= offer(waiting, |batch| inbox.push(self.own, batch));
        }
        empty
            & offer(&mut self.to_control, |batch| {
                self.control.push(self.own, batch)
            })
    }
}

/// Sends waiting messages as one batch, and takes them back if they find no room. Returns whether
/// all were sent.
fn offer<T>(waiting: &mut Vec<T>, push: impl FnOnce(Vec<T>) -> Result<(), Vec<T>>) -> bool {
    if waiting.is_empty() {
        return true;
    }
    let rejected = push(std::mem::take(waiting)).err();
    let empty = rejected.is_none();
    *waiting = rejected.unwrap_or_default();
    empty
}
