//! One shard's thread: it is pinned, creates an executor and a ring, and runs the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::connecting::Connecting;
use super::driver::{AfterPass, Driver, DriverParts};
use super::io::Budgets;
use super::mailbox::{ControlInbox, Inbox, Outbox};
use super::resolver::Resolver;
use super::{Clock, Plan, ReactorError};
use crate::model::ShardId;
use crate::shard::Turn;
use crate::sys::Ring;

/// Exit code after a broken invariant (`EX_SOFTWARE` of sysexits).
const EXIT_BROKEN: i32 = 70;

/// Interval of glommio's preempt timer: a year, that is never. The executor has one task, so there
/// is nothing to preempt.
const NO_PREEMPTION: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a shard that has ended tries to send its last messages.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// Parts that all shards of a process share.
pub(super) struct Common<M, C> {
    pub(super) plan: Arc<Plan>,
    pub(super) clock: Clock,
    pub(super) shards: Arc<[Inbox<M>]>,
    pub(super) control: Arc<ControlInbox<C>>,
    pub(super) resolver: Resolver,
}

impl<M, C> Clone for Common<M, C> {
    fn clone(&self) -> Self {
        Self {
            plan: Arc::clone(&self.plan),
            clock: self.clock,
            shards: Arc::clone(&self.shards),
            control: Arc::clone(&self.control),
            resolver: self.resolver.clone(),
        }
    }
}

/// Ends the process if a panic drops it.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic hook has logged the panic and waited, within limits, until it was written.
            // Write nothing here: this thread would hang if standard error is a stuck pipe.
            std::process::exit(EXIT_BROKEN);
        }
    }
}

/// Body of the thread. Reports once to `ready` whether the shard runs.
pub(super) fn run_shard<T: Turn + 'static>(
    own: ShardId,
    common: &Common<T::Message, T::Control>,
    make: impl FnOnce() -> T,
    ready: &Sender<Result<(), ReactorError>>,
) {
    let _outer = EndsTheProcess;
    // Ignore a failed send: the receiver was dropped if another shard could not start.
    let report = |result| drop(ready.send(result));
    let executor = match executor(own, &common.plan) {
        Ok(executor) => executor,
        Err(error) => return report(Err(error)),
    };
    executor.run(async {
        match build_driver(own, common, make) {
            Ok(driver) => {
                report(Ok(()));
                // Dropped by a panic before the executor can catch it.
                let _inner = EndsTheProcess;
                drive(driver).await;
            }
            Err(error) => report(Err(error)),
        }
    });
}

fn executor(own: ShardId, plan: &Plan) -> Result<LocalExecutor, ReactorError> {
    let placement = match plan.cpus.len() {
        0 => Placement::Unbound,
        count => Placement::Fixed(plan.cpus[usize::from(own.0) % count]),
    };
    LocalExecutorBuilder::new(placement)
        .io_memory(plan.io_memory_bytes)
        .ring_depth(plan.ring_depth as usize)
        .preempt_timer(NO_PREEMPTION)
        .make()
        .map_err(|error| ReactorError::Shard {
            shard: own,
            why: error.to_string(),
        })
}

/// Creates the driver with all its parts.
fn build_driver<T: Turn>(
    own: ShardId,
    common: &Common<T::Message, T::Control>,
    make: impl FnOnce() -> T,
) -> Result<Driver<T>, ReactorError> {
    let plan = &common.plan;
    let handle = &common.shards[usize::from(own.0)].handle;
    let ring = Ring::new(plan.ring_depth, plan.completions, handle.waker().clone())?;
    let resolver = common.resolver.clone();
    let (shards, control) = (Arc::clone(&common.shards), Arc::clone(&common.control));
    let parts = DriverParts {
        clock: common.clock,
        ring,
        sockets_max: plan.sockets_max,
        connecting: Connecting::new(resolver, Arc::clone(handle), plan.connect_timeout),
        outbox: Outbox::new(own, Arc::clone(&shards), control),
        shards,
        own,
        budgets: Budgets {
            messages: plan.messages_budget,
            serve: plan.serve_budget,
            answer: plan.answer_budget,
            kafka: plan.kafka_budget,
            deliver: plan.deliver_budget,
        },
        turn_every: plan.turn_every,
        client_descriptors_max: plan.client_descriptors_max,
    };
    Ok(Driver::new(make(), parts))
}

/// Runs passes until the shard has ended.
async fn drive<T: Turn>(mut driver: Driver<T>) {
    loop {
        match driver.pass() {
            AfterPass::Again => glommio::executor().yield_now().await,
            AfterPass::Rest(at_most) => driver.rest(at_most),
            AfterPass::End => break,
        }
    }
    let leave = Instant::now() + LAST_MESSAGES;
    while !driver.flush() && Instant::now() < leave {
        driver.rest(Duration::from_millis(1));
    }
    driver.close();
}
