//! Giving the thread back to glommio: for a moment, or until there is something to do.
//!
//! glommio 0.9.0 can park although a task is runnable: when its preempt timer fires between its look
//! at the rings and its look at the tasks, `run_task_queues` reports that nothing ran, and `run` parks.
//! That loses the very wake that ended the last park (measured with a preempt timer of 0.5 ms on a
//! crowded machine: one wake in some thousand). So the timer is set to [`NO_PREEMPTION`]. Nothing
//! misses it: one task is all that runs here, it looks into its ring and its inbox every turn, and
//! nobody wakes it by glommio's own foreign wakes, which is what the timer is for. Should a park go
//! wrong all the same, it ends at the deadline, and a shard always has one.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;

use crate::sys::{Bell, hand_over};

/// A preempt timer that never fires.
pub(super) const NO_PREEMPTION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A read of the bell that is under way.
type Ringing = Pin<Box<dyn Future<Output = ()>>>;

/// How one shard's loop waits. Made inside its executor.
pub(super) struct Parking {
    bell: Rc<BufferedFile>,
    /// Kept across parks: a read that was not answered still waits.
    ringing: Option<Ringing>,
    deadline: Timer,
}

impl Parking {
    pub(super) fn new(bell: &Bell) -> std::io::Result<Self> {
        Ok(Self {
            bell: Rc::new(hand_over(bell.descriptor()?)),
            ringing: None,
            deadline: Timer::new(Duration::ZERO),
        })
    }

    /// Lets others of this executor have their chance and comes back: there is work.
    pub(super) async fn yield_now(&self) {
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
