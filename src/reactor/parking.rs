//! The race between sleep and wake. A shard that finds no work goes to sleep while another thread
//! pushes into its inbox. Either the shard sees the push when it checks its inbox a last time, or
//! the other thread sees that the shard sleeps and wakes it. Both may happen; neither must not.
//!
//! Pushing to a shard that is awake costs one fence and one load, and no system call. The protocol
//! is generic over a small trait, so that loom can test every interleaving.

/// The memory operations that the protocol needs.
pub(super) trait Flag {
    /// Creates a flag that is `false`.
    fn down() -> Self;
    /// Stores `false` with relaxed order.
    fn lower(&self);
    /// Loads the flag with relaxed order.
    fn load(&self) -> bool;
    /// Swaps the flag with acquire-release order.
    fn swap(&self, up: bool) -> bool;
    /// Executes a sequentially consistent fence.
    fn fence();
}

/// Whether a shard sleeps, as other threads see it.
#[derive(Debug)]
pub(super) struct Parking<F> {
    parked: F,
}

impl<F: Flag> Parking<F> {
    pub(super) fn new() -> Self {
        Self { parked: F::down() }
    }

    /// Announces that the shard is about to sleep. The shard checks its inbox once more **after**
    /// this call, and only then sleeps.
    pub(super) fn announce(&self) {
        // A swap instead of a store, so that it is ordered after the swap of a thread that still
        // handles the previous announcement. That swap must not hide this announcement.
        self.parked.swap(true);
        F::fence();
    }

    /// Announces that the shard is awake, whatever woke it.
    pub(super) fn revoke(&self) {
        self.parked.lower();
    }

    /// Whether the caller, which has just pushed, must wake the shard. Of several callers, one gets
    /// `true`.
    pub(super) fn must_wake(&self) -> bool {
        F::fence();
        self.parked.load() && self.parked.swap(false)
    }
}

impl Flag for std::sync::atomic::AtomicBool {
    fn down() -> Self {
        Self::new(false)
    }
    fn lower(&self) {
        self.store(false, std::sync::atomic::Ordering::Relaxed);
    }
    fn load(&self) -> bool {
        self.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn swap(&self, up: bool) -> bool {
        self.swap(up, std::sync::atomic::Ordering::AcqRel)
    }
    fn fence() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    impl Flag for AtomicBool {
        fn down() -> Self {
            Self::new(false)
        }
        fn lower(&self) {
            self.store(false, Ordering::Relaxed);
        }
        fn load(&self) -> bool {
            self.load(Ordering::Relaxed)
        }
        fn swap(&self, up: bool) -> bool {
            self.swap(up, Ordering::AcqRel)
        }
        fn fence() {
            fence(Ordering::SeqCst);
        }
    }

    /// A model of an eventfd: a wake is kept until a wait consumes it.
    struct Waker {
        is_woken: Mutex<bool>,
        woken: Condvar,
    }

    impl Waker {
        fn wake(&self) {
            *self.is_woken.lock().expect("no panic") = true;
            self.woken.notify_one();
        }

        fn wait(&self) {
            let mut is_woken = self.is_woken.lock().expect("no panic");
            while !*is_woken {
                is_woken = self.woken.wait(is_woken).expect("no panic");
            }
            *is_woken = false;
        }
    }

    /// A shard's inbox as the protocol sees it. The queue has the weakest order that a queue can
    /// have: a push releases, a look acquires.
    struct Shard {
        parking: Parking<AtomicBool>,
        queue: AtomicUsize,
        waker: Waker,
    }

    impl Shard {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                parking: Parking::new(),
                queue: AtomicUsize::new(0),
                waker: Waker {
                    is_woken: Mutex::new(false),
                    woken: Condvar::new(),
                },
            })
        }

        fn push(&self) {
            self.queue.fetch_add(1, Ordering::Release);
            if self.parking.must_wake() {
                self.waker.wake();
            }
        }

        /// Takes `expected` messages, sleeping in between. loom reports a sleep that never ends.
        fn take(&self, expected: usize) {
            let mut taken = 0;
            while taken < expected {
                taken += self.queue.swap(0, Ordering::Acquire);
                if taken == expected {
                    break;
                }
                self.parking.announce();
                if self.queue.load(Ordering::Acquire) == 0 {
                    self.waker.wait();
                }
                self.parking.revoke();
            }
        }
    }

    #[test]
    fn loom_no_push_is_slept_through() {
        loom::model(|| {
            let shard = Shard::new();
            let peer = {
                let shard = Arc::clone(&shard);
                thread::spawn(move || shard.push())
            };
            shard.take(1);
            peer.join().expect("no panic");
        });
    }

    #[test]
    fn loom_two_peers_and_two_messages() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shard = Shard::new();
            let peers: Vec<_> = (0..2)
                .map(|_| {
                    let shard = Arc::clone(&shard);
                    thread::spawn(move || shard.push())
                })
                .collect();
            shard.take(2);
            for peer in peers {
                peer.join().expect("no panic");
            }
        });
    }
}
