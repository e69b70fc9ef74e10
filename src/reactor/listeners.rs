//! A shard's listening sockets. One multishot request per socket accepts clients. When a request
//! ends by itself it is armed again: at once, or after 100 ms if descriptors or memory are short.
//! Until then clients wait in the kernel's queue.

use std::time::Duration;

use crate::model::{Instant, u32_of};
use crate::shard::ListenerId;
use crate::sys::{Listener, Ring, Socket, Token, TokenKind};

/// Wait before accepting again when descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most clients accepted from one queue when its listener closes, so that a flood of clients does
/// not keep it open forever.
const LAST_ACCEPTS_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerPhase {
    Armed,
    /// To be armed again at this time.
    Due(Instant),
    /// Cancelled. The request's last completion closes the listener.
    Stopping,
}

#[derive(Debug)]
struct Listening {
    id: ListenerId,
    listener: Listener,
    phase: ListenerPhase,
}

/// The listening sockets of one shard. A token's slot is the index in this list.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Vec<Option<Listening>>,
    /// How often accepting paused because descriptors or memory were short.
    failed: u64,
}

impl Listeners {
    /// Starts to accept on these sockets.
    pub(super) fn add(&mut self, new: Vec<(ListenerId, Listener)>, ring: &mut Ring) {
        for (id, listener) in new {
            ring.accept(&listener, token(self.all.len()));
            self.all.push(Some(Listening {
                id,
                listener,
                phase: ListenerPhase::Armed,
            }));
        }
    }

    /// The listener that a completion belongs to.
    pub(super) fn id(&self, token: Token) -> Option<ListenerId> {
        Some(self.all.get(token.slot as usize)?.as_ref()?.id)
    }

    /// Handles the end of a listener's request with `error` (0: none). Clients in the queue of a
    /// stopping listener are appended to `last`.
    pub(super) fn on_ended(
        &mut self,
        token: Token,
        error: i32,
        now: Instant,
        last: &mut Vec<(ListenerId, Socket)>,
    ) {
        let index = token.slot as usize;
        let Some(Some(listening)) = self.all.get_mut(index) else {
            return;
        };
        match (listening.phase, error) {
            (ListenerPhase::Stopping, _) => self.empty_and_close(index, last),
            (_, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                self.failed += 1;
                listening.phase = ListenerPhase::Due(now.after(ACCEPT_PAUSE));
            }
            _ => listening.phase = ListenerPhase::Due(now),
        }
    }

    /// Arms the listeners that have waited long enough.
    pub(super) fn rearm(&mut self, now: Instant, ring: &mut Ring) {
        for (index, listening) in self.all.iter_mut().enumerate() {
            let Some(listening) = listening else { continue };
            if matches!(listening.phase, ListenerPhase::Due(at) if at <= now) {
                listening.phase = ListenerPhase::Armed;
                ring.accept(&listening.listener, token(index));
            }
        }
    }

    /// Stops accepting. Armed requests are cancelled; other listeners close now.
    pub(super) fn stop(&mut self, ring: &mut Ring, last: &mut Vec<(ListenerId, Socket)>) {
        for index in 0..self.all.len() {
            let Some(listening) = &mut self.all[index] else {
                continue;
            };
            match listening.phase {
                ListenerPhase::Armed => {
                    listening.phase = ListenerPhase::Stopping;
                    ring.cancel(token(index));
                }
                ListenerPhase::Due(_) => self.empty_and_close(index, last),
                ListenerPhase::Stopping => {}
            }
        }
    }

    /// Closing a listener resets the clients in its queue, so accept them first.
    fn empty_and_close(&mut self, index: usize, last: &mut Vec<(ListenerId, Socket)>) {
        let Some(listening) = self.all[index].take() else {
            return;
        };
        for _ in 0..LAST_ACCEPTS_MAX {
            match listening.listener.accept_now() {
                Ok(socket) => last.push((listening.id, socket)),
                // This client has closed its connection; the next may still be connected.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    /// When [`Self::rearm`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = self.all.iter().flatten().filter_map(|l| match l.phase {
            ListenerPhase::Due(at) => Some(at),
            ListenerPhase::Armed | ListenerPhase::Stopping => None,
        });
        due.min()
    }

    /// How often accepting paused because descriptors or memory were short.
    pub(super) const fn failed(&self) -> u64 {
        self.failed
    }

    /// Number of listening sockets that are still open.
    pub(super) fn len(&self) -> usize {
        self.all.iter().flatten().count()
    }
}

fn token(index: usize) -> Token {
    Token {
        kind: TokenKind::Accept,
        slot: u32_of(index),
        generation: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::sys::Waker;

    const NOW: Instant = Instant::from_nanos(5_000_000_000);

    /// One listener that the ring accepts on, with its address.
    fn listening(ring: &mut Ring) -> (Listeners, std::net::SocketAddr) {
        let listener =
            Listener::bind_alone("127.0.0.1:0".parse().expect("address"), 16).expect("bound");
        let address = listener.address().expect("address");
        let mut listeners = Listeners::default();
        listeners.add(vec![(ListenerId(4), listener)], ring);
        (listeners, address)
    }

    fn ring() -> Ring {
        Ring::new(8, 64, Waker::new().expect("waker")).expect("ring")
    }

    #[test]
    fn accepting_pauses_when_descriptors_are_short() {
        let mut ring = ring();
        let (mut listeners, _) = listening(&mut ring);
        for error in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            listeners.on_ended(token(0), error, NOW, &mut Vec::new());
            assert_eq!(listeners.next_deadline(), Some(NOW.after(ACCEPT_PAUSE)));
            listeners.rearm(NOW.after(ACCEPT_PAUSE / 2), &mut ring);
            assert!(listeners.next_deadline().is_some(), "too early");
            listeners.rearm(NOW.after(ACCEPT_PAUSE), &mut ring);
            assert_eq!(listeners.next_deadline(), None);
        }
        assert_eq!(listeners.failed(), 4);
    }

    #[test]
    fn a_request_lost_for_any_other_reason_is_armed_at_once() {
        let mut ring = ring();
        let (mut listeners, _) = listening(&mut ring);
        for error in [0, libc::ECONNABORTED, libc::ECANCELED] {
            listeners.on_ended(token(0), error, NOW, &mut Vec::new());
            assert_eq!(listeners.next_deadline(), Some(NOW));
            listeners.rearm(NOW, &mut ring);
            assert_eq!(listeners.next_deadline(), None);
        }
    }

    #[test]
    fn the_queue_is_emptied_before_a_listener_closes() {
        let mut ring = ring();
        for armed in [true, false] {
            let (mut listeners, address) = listening(&mut ring);
            if !armed {
                listeners.on_ended(token(0), libc::EMFILE, NOW, &mut Vec::new());
            }
            let clients = [(); 3].map(|()| TcpStream::connect(address).expect("connect"));
            let mut last = Vec::new();
            listeners.stop(&mut ring, &mut last);
            if armed {
                assert!(last.is_empty(), "the ring may still accept");
                listeners.on_ended(token(0), libc::ECANCELED, NOW, &mut last);
            }
            assert_eq!(last.len(), clients.len());
            assert!(last.iter().all(|(id, _)| *id == ListenerId(4)));
            assert_eq!(listeners.len(), 0);
            TcpStream::connect(address).expect_err("closed");
        }
    }
}
