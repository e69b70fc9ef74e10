//! The sleep and wake race, alone. A shard that finds nothing goes to sleep while a peer pushes
//! into its inbox: either the shard sees the push at its last look, or the peer sees that the shard
//! sleeps and rings. Both may happen, neither must not.
//!
//! A peer of a shard that is awake pays one fence and one load, and no system call. The protocol is
//! written over a tiny trait so that loom can try every interleaving of it.

/// The memory operations the protocol needs.
pub(super) trait Flag {
    /// A flag that is down.
    fn down() -> Self;
    /// A relaxed store of `false`.
    fn lower(&self);
    /// A relaxed load.
    fn load(&self) -> bool;
    /// An acquiring and releasing swap.
    fn swap(&self, up: bool) -> bool;
    /// A sequentially consistent fence.
    fn fence();
}

/// Whether a shard sleeps, as its peers see it.
#[derive(Debug)]
pub(super) struct Sleep<F> {
    parked: F,
}

impl<F: Flag> Sleep<F> {
    pub(super) fn new() -> Self {
        Self { parked: F::down() }
    }

    /// The shard is about to sleep: it looks into its inbox once more **after** this, and only then
    /// sleeps.
    pub(super) fn announce(&self) {
        // A swap, so that it comes after the swap of a peer that still answers the last
        // announcement: that one must not hide this.
        self.parked.swap(true);
        F::fence();
    }

    /// The shard is awake again, whatever woke it.
    pub(super) fn revoke(&self) {
        self.parked.lower();
    }

    /// A peer has pushed: whether it has to ring. Of several peers one does.
    pub(super) fn must_ring(&self) -> bool {
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

    /// An eventfd: it stays rung until somebody has waited.
    struct Waker {
        rung: Mutex<bool>,
        ringing: Condvar,
    }

    impl Waker {
        fn wake(&self) {
            *self.rung.lock().expect("no panic") = true;
            self.ringing.notify_one();
        }

        fn wait(&self) {
            let mut rung = self.rung.lock().expect("no panic");
            while !*rung {
                rung = self.ringing.wait(rung).expect("no panic");
            }
            *rung = false;
        }
    }

    /// A shard's inbox as the protocol sees it. The queue is taken as given, with the weakest order
    /// a queue can have: a push releases, a look acquires.
    struct Shard {
        sleep: Sleep<AtomicBool>,
        queue: AtomicUsize,
        waker: Waker,
    }

    impl Shard {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                sleep: Sleep::new(),
                queue: AtomicUsize::new(0),
                waker: Waker {
                    rung: Mutex::new(false),
                    ringing: Condvar::new(),
                },
            })
        }

        fn push(&self) {
            self.queue.fetch_add(1, Ordering::Release);
            if self.sleep.must_ring() {
                self.waker.wake();
            }
        }

        /// Takes `expected` messages, sleeping in between; loom reports a sleep nobody ends.
        fn take(&self, expected: usize) {
            let mut taken = 0;
            while taken < expected {
                taken += self.queue.swap(0, Ordering::Acquire);
                if taken == expected {
                    break;
                }
                self.sleep.announce();
                if self.queue.load(Ordering::Acquire) == 0 {
                    self.waker.wait();
                }
                self.sleep.revoke();
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
