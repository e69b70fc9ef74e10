//! Giving the thread back to glommio: for a moment, or until there is something to do.
//!
//! glommio 0.9.0 can park although a task is runnable: `run_task_queues` reports that nothing ran when
//! the preempt timer has fired before its first look, and `run` then parks. So a shard never leaves
//! work across a yield without a timer of [`GUARD`] armed, and a park ends at the shard's deadline
//! whatever became of the bell.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use glommio::timer::Timer;

use crate::sys::{Bell, hand_over};

/// The longest a runnable shard can be parked by mistake.
const GUARD: Duration = Duration::from_millis(1);

/// A read of the bell that is under way.
type Ringing = Pin<Box<dyn Future<Output = ()>>>;

/// How one shard's loop waits. Made inside its executor.
pub(super) struct Parking {
    bell: Rc<BufferedFile>,
    /// Kept across parks: a read that was not answered still waits.
    ringing: Option<Ringing>,
    deadline: Timer,
    guard: Timer,
    guard_until: Instant,
}

impl Parking {
    pub(super) fn new(bell: &Bell) -> std::io::Result<Self> {
        Ok(Self {
            bell: Rc::new(hand_over(bell.descriptor()?)),
            ringing: None,
            deadline: Timer::new(GUARD),
            guard: Timer::new(GUARD),
            guard_until: Instant::now(),
        })
    }

    /// Lets glommio look after itself and comes back: there is work.
    pub(super) async fn yield_now(&mut self) {
        let now = Instant::now();
        // Renewed at half its time, so that it can't fire in the very moment it is needed.
        if self.guard_until.saturating_duration_since(now) < GUARD / 2 {
            self.guard.reset(GUARD);
            self.guard_until = now + GUARD;
            let guard = &mut self.guard;
            poll_fn(|context| {
                let _ = Pin::new(&mut *guard).poll(context);
                Poll::Ready(())
            })
            .await;
        }
        glommio::executor().yield_now().await;
    }

    /// Waits until the bell rings or `at_most` has passed.
    pub(super) async fn park(&mut self, at_most: Duration) {
        self.deadline.reset(at_most);
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let bell = &self.bell;
        let ringing = self
            .ringing
            .get_or_insert_with(|| Box::pin(rung(Rc::clone(bell))));
        if ringing.as_mut().poll(context).is_ready() {
            self.ringing = None;
            return Poll::Ready(());
        }
        Pin::new(&mut self.deadline).poll(context).map(drop)
    }
}

/// Waits for the bell and silences it.
async fn rung(bell: Rc<BufferedFile>) {
    let read = bell.read_at(0, 8).await;
    assert!(read.is_ok(), "the bell can't be read: {read:?}");
}
