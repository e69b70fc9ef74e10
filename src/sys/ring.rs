//! A shard's io_uring: multishot accepts and multishot polls, nothing else. Bytes never pass
//! through it, because reads and writes are plain system calls. So no request refers to memory of
//! the process, and every interface here is safe.
//!
//! The ring is `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel does its part of the work only when the
//! shard enters the ring, and never interrupts it. An idle shard's thread sleeps in [`Ring::wait`].
//! A completion wakes it, and so does the waker, which the ring polls.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use super::{RingError, Socket, Waker};

/// Number of slots that a token can name.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Most enters in a row while the kernel has deferred work.
const ENTERS_MAX: u32 = 16;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A multishot accept on a listener.
    Accept,
    /// A multishot poll of a socket.
    Poll,
    /// A cancellation. Its own completion is ignored.
    Cancel,
    /// The poll of the waker. Its completion only ends a wait.
    Waker,
}

/// Identifies a request in its completions: slot (24 bits), generation (32), kind (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The kind of the request.
    pub kind: TokenKind,
    /// The slot that it belongs to, below [`SLOTS_MAX`].
    pub slot: u32,
    /// The slot's generation, so that late completions are recognised.
    pub generation: u32,
}

/// The token of the waker's poll.
const WAKER: Token = Token {
    kind: TokenKind::Waker,
    slot: 0,
    generation: 0,
};

impl Token {
    fn to_bits(self) -> u64 {
        debug_assert!(self.slot < SLOTS_MAX);
        (self.kind as u64) << 56 | u64::from(self.generation) << 24 | u64::from(self.slot)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each part takes its own bits"
    )]
    fn from_bits(bits: u64) -> Self {
        let kind = match bits >> 56 {
            0 => TokenKind::Accept,
            1 => TokenKind::Poll,
            3 => TokenKind::Waker,
            _ => TokenKind::Cancel,
        };
        Self {
            kind,
            slot: (bits & u64::from(SLOTS_MAX - 1)) as u32,
            generation: (bits >> 24) as u32,
        }
    }
}

/// The events of a poll. An end or an error counts as readable and writable, because a read or
/// write returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(u32);

impl Ready {
    const ENDED: i32 = libc::POLLRDHUP as i32 | libc::POLLHUP as i32 | libc::POLLERR as i32;

    /// Whether a read returns bytes, the end or an error.
    #[must_use]
    pub fn readable(self) -> bool {
        self.0 & (i32::from(libc::POLLIN) | Self::ENDED) as u32 != 0
    }

    /// Whether a write has room or returns an error.
    #[must_use]
    pub fn writable(self) -> bool {
        self.0 & (libc::POLLOUT | libc::POLLHUP | libc::POLLERR) as u32 != 0
    }

    /// Whether the connection failed or both sides have ended, so that no bytes reach the other
    /// end.
    #[must_use]
    pub fn broken(self) -> bool {
        self.0 & (libc::POLLHUP | libc::POLLERR) as u32 != 0
    }

    /// Whether the other end has closed its side or the connection failed. A read after the last
    /// byte returns which.
    #[must_use]
    pub fn ended(self) -> bool {
        self.0 & Self::ENDED as u32 != 0
    }
}

/// The result of a request.
#[derive(Debug)]
pub enum CompletionResult {
    /// An accepted connection, which is non-blocking.
    Accepted(Socket),
    /// The events of a polled socket.
    Ready(Ready),
    /// An error number, such as `ECANCELED` after [`Ring::cancel`].
    Failed(i32),
}

/// One completion of a request.
#[derive(Debug)]
pub struct Completion {
    /// The token of the request.
    pub token: Token,
    /// The result of the request.
    pub result: CompletionResult,
    /// Whether the request stays armed. After false, no completion carries its token again.
    pub more: bool,
}

/// The ring of one thread, the one that created it.
pub struct Ring {
    uring: IoUring,
    waker: Waker,
    _one_thread: PhantomData<*const ()>,
}

impl Ring {
    /// Creates a ring for `entries` requests between two enters and `completions` at once (powers
    /// of two). `waker` ends a wait.
    ///
    /// # Errors
    /// Why the kernel refuses the ring.
    pub fn new(entries: u32, completions: u32, waker: Waker) -> Result<Self, RingError> {
        let uring = IoUring::builder()
            .setup_cqsize(completions)
            .setup_single_issuer()
            .setup_defer_taskrun()
            // A flag in shared memory shows whether the kernel has deferred work, so `enter` needs
            // no system call to find out.
            .setup_taskrun_flag()
            // An invalid request must not stop the rest of its batch.
            .setup_submit_all()
            .build(entries)
            .map_err(RingError::explain)?;
        let mut ring = Self {
            uring,
            waker,
            _one_thread: PhantomData,
        };
        ring.poll_waker();
        Ok(ring)
    }

    /// Polls the waker. Each wake is an edge of its own, so the eventfd's counter is never read.
    fn poll_waker(&mut self) {
        let fd = types::Fd(self.waker.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry, WAKER);
    }

    /// Accepts on a listener until cancelled or failed. Each connection is a completion.
    pub fn accept(&mut self, listener: &impl AsFd, token: Token) {
        let fd = types::Fd(listener.as_fd().as_raw_fd());
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        self.push(opcode::AcceptMulti::new(fd).flags(flags).build(), token);
    }

    /// Polls a socket until cancelled. It is edge-triggered: it reports the current state, and then
    /// each change once. Room to write counts as a change only after a short write, so one poll
    /// serves both directions at no cost.
    pub fn poll(&mut self, socket: &impl AsFd, token: Token) {
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        let entry = opcode::PollAdd::new(fd, events as u32).multi(true).build();
        self.push(entry, token);
    }

    /// Cancels a request. Its last completion (`more` false) follows, unless it was already
    /// delivered.
    pub fn cancel(&mut self, target: Token) {
        // Not PollRemove: it fails with EALREADY if the poll is about to report.
        let entry = opcode::AsyncCancel::new(target.to_bits())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        let kind = TokenKind::Cancel;
        self.push(entry, Token { kind, ..target });
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.to_bits());
        loop {
            // SAFETY: none of the three requests above points to memory; they carry a descriptor
            // number or a token, for which a stale value is an error and nothing worse.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enter_now();
        }
    }

    /// Submits new requests and lets the kernel do its deferred work, if there is either. The
    /// kernel does about twenty completions per enter (6.12 and later), so this enters several
    /// times if there are more.
    pub fn enter(&mut self) {
        for _ in 0..ENTERS_MAX {
            let queue = self.uring.submission();
            let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
            drop(queue);
            if idle {
                return;
            }
            self.enter_now();
        }
    }

    /// Sleeps until a completion, a wake, or `at_most` has passed. A completion or wake before the
    /// call ends it at once.
    pub fn wait(&mut self, at_most: Duration) {
        let at_most = types::Timespec::from(at_most);
        let arguments = types::SubmitArgs::new().timespec(&at_most);
        let waited = self.uring.submitter().submit_with_args(1, &arguments);
        assert_passing(
            waited,
            &[libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY],
        );
    }

    #[expect(clippy::cast_possible_truncation, reason = "the queue has few entries")]
    fn enter_now(&mut self) {
        let new = self.uring.submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and the queues are the crate's own.
        let entered = unsafe {
            let submitter = self.uring.submitter();
            submitter.enter::<libc::sigset_t>(new, 0, flags, None)
        };
        // Requests that remain in the queue are submitted by the next enter.
        assert_passing(entered, &[libc::EINTR, libc::EAGAIN, libc::EBUSY]);
    }

    /// Appends at most `max` completions, oldest first. Others stay for the next call.
    pub fn completions(&mut self, into: &mut Vec<Completion>, max: usize) {
        let mut waker_lost = false;
        let queue = self.uring.completion().take(max);
        into.extend(queue.filter_map(|entry| {
            waker_lost |= entry.user_data() == WAKER.to_bits() && !cqueue::more(entry.flags());
            completion(&entry)
        }));
        if waker_lost {
            self.poll_waker();
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("waker", &self.waker)
            .finish_non_exhaustive()
    }
}

/// Asserts that an enter succeeded or failed with a temporary error. Any other error is a bug.
fn assert_passing(entered: std::io::Result<usize>, passing: &[i32]) {
    if let Err(error) = entered {
        let known = error.raw_os_error().is_some_and(|e| passing.contains(&e));
        assert!(known, "io_uring_enter broke: {error}");
    }
}

/// Converts one entry. This takes ownership of an accepted descriptor.
fn completion(entry: &cqueue::Entry) -> Option<Completion> {
    let token = Token::from_bits(entry.user_data());
    let result = match (token.kind, entry.result()) {
        (TokenKind::Cancel | TokenKind::Waker, _) => return None,
        (_, error @ ..=-1) => CompletionResult::Failed(-error),
        (TokenKind::Poll, events) => CompletionResult::Ready(Ready(events as u32)),
        (TokenKind::Accept, fd) => {
            // SAFETY: the kernel made this descriptor for this completion, which is read once.
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            CompletionResult::Accepted(Socket::from(owned))
        }
    };
    Some(Completion {
        token,
        result,
        more: cqueue::more(entry.flags()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::super::Listener;
    use super::*;

    const ACCEPT: Token = Token {
        kind: TokenKind::Accept,
        slot: 3,
        generation: 7,
    };
    const POLL: Token = Token {
        kind: TokenKind::Poll,
        slot: SLOTS_MAX - 1,
        generation: u32::MAX,
    };

    fn ring() -> Ring {
        Ring::new(8, 64, Waker::new().expect("waker")).expect("ring")
    }

    /// Enters until a completion arrives.
    fn next(ring: &mut Ring) -> Vec<Completion> {
        let (mut seen, start) = (Vec::new(), Instant::now());
        while seen.is_empty() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "nothing completes"
            );
            ring.enter();
            ring.completions(&mut seen, 64);
            std::thread::sleep(Duration::from_millis(1));
        }
        seen
    }

    fn listener() -> Listener {
        Listener::bind_alone("127.0.0.1:0".parse().expect("address"), 16).expect("bound")
    }

    /// Accepts a connection and returns both ends.
    fn pair(ring: &mut Ring) -> (Socket, TcpStream) {
        let listener = listener();
        let client = TcpStream::connect(listener.address().expect("address")).expect("connect");
        ring.accept(&listener, ACCEPT);
        let accepted = next(ring).remove(0);
        assert!(accepted.more);
        ring.cancel(ACCEPT);
        assert!(matches!(
            next(ring)[0].result,
            CompletionResult::Failed(libc::ECANCELED)
        ));
        match accepted.result {
            CompletionResult::Accepted(socket) => (socket, client),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [ACCEPT, POLL] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }

    #[test]
    fn one_accept_takes_many_clients() {
        let (mut ring, listener) = (ring(), listener());
        ring.accept(&listener, ACCEPT);
        let address = listener.address().expect("address");
        let _clients: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(next(&mut ring));
        }
        assert!(seen.iter().all(|c| c.more && c.token == ACCEPT));
    }

    #[test]
    fn a_poll_reports_each_arrival_and_the_end_once() {
        let mut ring = ring();
        let (socket, mut client) = pair(&mut ring);
        ring.poll(&socket, POLL);
        let CompletionResult::Ready(first) = next(&mut ring).remove(0).result else {
            panic!("a poll reports the state it finds");
        };
        assert!(first.writable() && !first.readable());
        for _ in 0..2 {
            client.write_all(b"x").expect("written");
            let seen = next(&mut ring);
            assert!(
                matches!(seen[0].result, CompletionResult::Ready(r) if r.readable() && !r.ended())
            );
            assert!(seen[0].more);
        }
        drop(client);
        assert!(matches!(next(&mut ring)[0].result, CompletionResult::Ready(r) if r.ended()));
    }

    #[test]
    fn room_is_reported_after_a_short_write_only() {
        let mut ring = ring();
        let (socket, mut client) = pair(&mut ring);
        ring.poll(&socket, POLL);
        next(&mut ring);
        let mut written = 0;
        while let Ok(taken) = socket.write(&[io::IoSlice::new(&[0; 65536])]) {
            written += taken;
        }
        let mut sink = vec![0; written];
        client.read_exact(&mut sink).expect("all of it");
        assert!(matches!(next(&mut ring)[0].result, CompletionResult::Ready(r) if r.writable()));
    }

    #[test]
    fn a_cancelled_poll_has_a_last_completion() {
        let mut ring = ring();
        let (socket, _client) = pair(&mut ring);
        ring.poll(&socket, POLL);
        next(&mut ring);
        ring.cancel(POLL);
        let last = next(&mut ring).remove(0);
        assert!(!last.more && last.token == POLL);
        assert!(matches!(
            last.result,
            CompletionResult::Failed(libc::ECANCELED)
        ));
    }

    #[test]
    fn a_full_submission_queue_is_entered_and_goes_on() {
        let (mut ring, listener) = (ring(), listener());
        for generation in 0..50 {
            ring.accept(
                &listener,
                Token {
                    generation,
                    ..ACCEPT
                },
            );
        }
        for generation in 0..50 {
            ring.cancel(Token {
                generation,
                ..ACCEPT
            });
        }
        let mut ended = Vec::new();
        while ended.len() < 50 {
            ended.extend(next(&mut ring).into_iter().map(|c| c.token.generation));
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_wait_ends_by_completion_wake_or_time() {
        let mut ring = ring();
        let waker = ring.waker.clone();
        let (socket, mut client) = pair(&mut ring);
        ring.poll(&socket, POLL);
        next(&mut ring);
        let hour = Duration::from_secs(3600);
        let waited = |ring: &mut Ring, at_most, wake: &mut dyn FnMut()| {
            let start = Instant::now();
            wake();
            ring.wait(at_most);
            let mut seen = Vec::new();
            ring.completions(&mut seen, 64);
            (seen.len(), start.elapsed())
        };
        let millis = Duration::from_millis(20);
        let (seen, took) = waited(&mut ring, millis, &mut || {});
        assert!(seen == 0 && took >= millis);
        for _ in 0..3 {
            // If a wake or completion did not end the wait, the test would hang.
            assert_eq!(waited(&mut ring, hour, &mut || waker.wake()).0, 0);
            let mut send = || client.write_all(b"x").expect("sent");
            assert_eq!(waited(&mut ring, hour, &mut send).0, 1);
        }
        let other = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.wake();
        });
        waited(&mut ring, hour, &mut || {});
        thread.join().expect("no panic");
    }
}
