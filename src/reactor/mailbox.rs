//! Where threads meet: a shard's inbox, its waker, and what the control thread sees of it.
//! Everything here is bounded, nothing here waits. A full inbox leaves the sender's outbox as it
//! is, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::parking::Sleep;
use super::resolver::Resolved;
use crate::model::ShardId;
use crate::shard::{ListenerId, Outputs};
use crate::sys::{Listener, Waker};

/// Commands that wait for one shard: a process gives three in its life.
const COMMANDS_MAX: usize = 8;

/// What the process tells a shard's driver (not the shard).
#[derive(Debug)]
pub(super) enum Command {
    /// Take clients from these.
    Accept(Vec<(ListenerId, Listener)>),
    /// Empty the listeners' queues and close them.
    StopAccepting,
    /// Another shard could not start: go.
    Abandon,
}

/// One shard as the rest of the process sees it, apart from its messages.
#[derive(Debug)]
pub(super) struct ShardHandle {
    sleep: Sleep<AtomicBool>,
    waker: Waker,
    pub(super) commands: ArrayQueue<Command>,
    pub(super) resolved: ArrayQueue<Resolved>,
    ended: AtomicBool,
    /// Written by the shard alone, read by the watchdog and the metrics.
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
            sleep: Sleep::new(),
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

    /// After something was put where the shard looks.
    pub(super) fn wake(&self) {
        if self.sleep.must_ring() {
            self.waker.wake();
        }
    }

    /// See [`Sleep::announce`].
    pub(super) fn announce_sleep(&self) {
        self.sleep.announce();
    }

    /// See [`Sleep::revoke`].
    pub(super) fn revoke_sleep(&self) {
        self.sleep.revoke();
    }

    /// Nobody will look here any more; what is sent from now on is dropped by its sender.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Messages of one sender and one turn.
type Batch<M> = (ShardId, Vec<M>);

/// A shard's inbox.
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

    /// Puts a batch in and wakes a sleeping shard.
    ///
    /// # Errors
    /// The batch comes back when there is no room.
    pub(super) fn push(&self, from: ShardId, batch: Vec<M>) -> Result<(), Vec<M>> {
        if self.handle.has_ended() {
            return Ok(());
        }
        let pushed = self.batches.push((from, batch));
        // Also when it was full: a shard whose inbox is full must not sleep on it.
        self.handle.wake();
        pushed.map_err(|(_, batch)| batch)
    }

    /// Takes what is there, but not what comes in meanwhile: a turn is bounded.
    pub(super) fn take(&self, into: &mut Vec<(ShardId, M)>) {
        for _ in 0..self.batches.len() {
            let Some((from, batch)) = self.batches.pop() else {
                return;
            };
            into.extend(batch.into_iter().map(|message| (from, message)));
        }
    }

    /// Whether anything waits for the shard or its driver.
    pub(super) fn has_any(&self) -> bool {
        !self.batches.is_empty()
            || !self.handle.commands.is_empty()
            || !self.handle.resolved.is_empty()
    }
}

/// What shards say to the control thread, and how it is woken.
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

/// What a shard has to say and could not yet: per peer, in order. Bounded by what it stands for,
/// since each entry is an admitted request or counted bytes.
pub(super) struct Outbox<M, C> {
    own: ShardId,
    shards: Arc<[Inbox<M>]>,
    control: Arc<ControlInbox<C>>,
    /// By shard.
    waiting: Vec<Vec<M>>,
    /// For the control thread.
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

    /// Adds the messages of a turn behind those that wait.
    ///
    /// # Panics
    /// A message to a shard that is not there.
    pub(super) fn add(&mut self, outputs: &mut Outputs<M, C>) {
        for (to, message) in outputs.messages.drain(..) {
            self.waiting[usize::from(to.0)].push(message);
        }
        self.to_control.append(&mut outputs.control);
    }

    /// Offers what waits, one batch a peer. True: all of it is gone.
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

/// Offers what waits as one batch, and takes back what finds no room. True: nothing waits.
fn offer<T>(waiting: &mut Vec<T>, push: impl FnOnce(Vec<T>) -> Result<(), Vec<T>>) -> bool {
    if waiting.is_empty() {
        return true;
    }
    let rejected = push(std::mem::take(waiting)).err();
    let empty = rejected.is_none();
    *waiting = rejected.unwrap_or_default();
    empty
}
