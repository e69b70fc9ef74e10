//! The process's hold on its shards, for `boot.rs` and the control thread.

use std::net::SocketAddr;

use super::{Clock, Plan, ReactorError};
use crate::model::ShardId;
use crate::shard::Turn;

/// A message the inbox of its shard had no room for: try again later.
#[derive(Debug)]
pub struct Undelivered<M>(pub M);

/// Starts a thread, an executor and a ring for each of `shards` (each made on its own thread, in
/// order of [`ShardId`]) and returns once all of them turn. `wake_control` is called, from any shard's
/// thread and never often, when [`Running::take`] has something; it must not block.
///
/// A panic on a shard's thread ends the process with exit code 70: state is in Kafka, and a shard
/// short would be a hang for its clients.
///
/// # Errors
/// A plan that does not work, a kernel that gives no ring, a thread or executor that can't be made.
pub fn start<T, F>(
    plan: Plan,
    clock: Clock,
    shards: Vec<F>,
    wake_control: Box<dyn Fn() + Send + Sync>,
) -> Result<Running<T::Message>, ReactorError>
where
    T: Turn + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let _ = (plan, clock, shards, wake_control);
    todo!()
}

/// Shards that turn. Shared by reference between threads; dropping it leaves the shards running.
#[derive(Debug)]
pub struct Running<M> {
    _m: std::marker::PhantomData<fn() -> M>,
}

impl<M: Send + 'static> Running<M> {
    /// Binds every address of the plan for every shard that takes clients, then lets them accept.
    /// Gives the real addresses, in the order of the plan. All or nothing: on an error no socket is
    /// left bound. Called once, when the process is ready to serve.
    ///
    /// # Errors
    /// [`ReactorError::Bind`] names the address and the cause.
    pub fn accept(&self) -> Result<Vec<SocketAddr>, ReactorError> {
        todo!()
    }

    /// Begins the drain: each shard accepts until the queue of its listeners is empty, then closes
    /// them. Connections stay. May be called more than once.
    pub fn stop_accepting(&self) {
        todo!()
    }

    /// How many listening sockets are still open, over all shards.
    #[must_use]
    pub fn listening(&self) -> usize {
        todo!()
    }

    /// Sends to a shard as [`ShardId::CONTROL`]; order is kept.
    ///
    /// # Errors
    /// The message comes back when the shard's inbox is full.
    pub fn send(&self, to: ShardId, message: M) -> Result<(), Undelivered<M>> {
        let _ = to;
        Err(Undelivered(message))
    }

    /// The next messages of one shard to the control thread, oldest first.
    #[must_use]
    pub fn take(&self) -> Option<(ShardId, Vec<M>)> {
        todo!()
    }

    /// How often a shard has turned; the watchdog compares two readings.
    #[must_use]
    pub fn turns(&self, shard: ShardId) -> u64 {
        let _ = shard;
        todo!()
    }

    /// Sockets a shard has now, clients and brokers.
    #[must_use]
    pub fn sockets(&self, shard: ShardId) -> u64 {
        let _ = shard;
        todo!()
    }

    /// Waits until every shard has said `ended`. May be called once; blocks.
    pub fn join(&self) {
        todo!()
    }
}
