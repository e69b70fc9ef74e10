//! A shard's slab of sockets. A slot is reused with the next generation once the ring no longer
//! refers to it.
//!
//! A request on the ring keeps the file open, so closing takes three steps: send a FIN, cancel the
//! poll, and close the descriptor at the poll's last completion. In between the shard cannot use
//! the slot and no other socket can take it.

use crate::model::u32_of;
use crate::shard::SocketId;
use crate::sys::{Ready, Ring, Socket, Token, TokenKind};

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketPhase {
    /// An outgoing connection that is being made. The shard does not know its id yet.
    Connecting,
    /// Open: the shard may use it.
    Open,
    /// Closed by the shard, while the ring still refers to it.
    Closing,
}

/// A socket and what is known of it.
#[derive(Debug)]
pub(super) struct SocketEntry {
    pub(super) socket: Socket,
    pub(super) phase: SocketPhase,
    /// Whether bytes may be available. A poll sets it; a read that empties the socket clears it.
    pub(super) maybe_readable: bool,
    /// Whether the other end has closed its side or the connection failed. No later poll reports it
    /// again.
    pub(super) ended: bool,
    /// The connection failed, or both sides have ended.
    pub(super) broken: bool,
    /// Whether a write was short. The next poll that finds room is then reported to the shard.
    pub(super) wants_room: bool,
    /// Whether a poll is armed on the ring.
    armed: bool,
}

struct SocketSlot {
    generation: u32,
    entry: Option<SocketEntry>,
}

/// The events for the shard that follow from a poll's completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadyEvents {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// All sockets of one shard.
pub(super) struct Sockets {
    slots: Vec<SocketSlot>,
    free: Vec<u32>,
    max: u32,
    /// Slots with a poll that ended without being cancelled. They are armed again in the next turn.
    lost: Vec<SocketId>,
}

impl Sockets {
    pub(super) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
            lost: Vec::new(),
        }
    }

    /// Number of sockets, including those that are closing.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a socket and arms its poll. Returns `None` if the slab is full; the socket is closed
    /// then.
    pub(super) fn insert(
        &mut self,
        socket: Socket,
        phase: SocketPhase,
        ring: &mut Ring,
    ) -> Option<SocketId> {
        let entry = SocketEntry {
            socket,
            phase,
            // Bytes often arrive with the handshake, so let the first read find out.
            maybe_readable: true,
            ended: false,
            broken: false,
            wants_room: false,
            armed: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.max as usize => {
                self.slots.push(SocketSlot {
                    generation: 0,
                    entry: None,
                });
                u32_of(self.slots.len() - 1)
            }
            None => return None,
        };
        let index = &mut self.slots[slot as usize];
        let generation = index.generation;
        ring.poll(&entry.socket, poll_token(SocketId { slot, generation }));
        index.entry = Some(entry);
        Some(SocketId { slot, generation })
    }

    /// The socket of an id, in any phase. `None` if the slot has a later generation.
    fn entry(&mut self, id: SocketId) -> Option<&mut SocketEntry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.entry.as_mut()
    }

    /// The socket of an id, if it is open.
    pub(super) fn open(&mut self, id: SocketId) -> Option<&mut SocketEntry> {
        self.entry(id)
            .filter(|entry| entry.phase == SocketPhase::Open)
    }

    /// The socket of an id, if it is connecting.
    pub(super) fn connecting(&mut self, id: SocketId) -> Option<&mut SocketEntry> {
        self.entry(id)
            .filter(|entry| entry.phase == SocketPhase::Connecting)
    }

    /// Closes a socket for the shard: sends the FIN now, and frees the slot when the ring no longer
    /// refers to it.
    pub(super) fn close(&mut self, id: SocketId, ring: &mut Ring, scratch: &mut [u8]) {
        let Some(entry) = self.entry(id) else {
            return;
        };
        if entry.phase == SocketPhase::Closing {
            return;
        }
        entry.socket.end_writes();
        entry.phase = SocketPhase::Closing;
        if entry.armed {
            ring.cancel(poll_token(id));
        } else {
            self.release(id, scratch);
        }
    }

    /// Handles a poll's completion. One of an earlier generation is ignored.
    pub(super) fn on_ready(&mut self, id: SocketId, ready: Ready) -> ReadyEvents {
        let Some(entry) = self.entry(id) else {
            return ReadyEvents::default();
        };
        entry.maybe_readable |= ready.readable();
        entry.ended |= ready.ended();
        entry.broken |= ready.broken();
        if entry.phase != SocketPhase::Open {
            return ReadyEvents::default();
        }
        let events = ReadyEvents {
            readable: ready.readable(),
            writable: entry.wants_room && ready.writable(),
        };
        entry.wants_room &= !events.writable;
        events
    }

    /// Handles the end of a socket's poll. A closing socket is closed now; otherwise the poll was
    /// lost and is armed again.
    pub(super) fn on_released(&mut self, id: SocketId, scratch: &mut [u8]) {
        let Some(entry) = self.entry(id) else {
            return;
        };
        entry.armed = false;
        match entry.phase {
            SocketPhase::Closing => self.release(id, scratch),
            SocketPhase::Connecting | SocketPhase::Open => self.lost.push(id),
        }
    }

    /// Arms lost polls again. A new poll reports the current state first, so no event is missed.
    pub(super) fn rearm_lost(&mut self, ring: &mut Ring) {
        for id in std::mem::take(&mut self.lost) {
            let Some(entry) = self.entry(id) else {
                continue;
            };
            if !entry.armed && entry.phase != SocketPhase::Closing {
                entry.armed = true;
                ring.poll(&entry.socket, poll_token(id));
            }
        }
    }

    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Closes the descriptor and frees the slot. Reads and discards up to one buffer first: closing
    /// a socket with unread bytes sends a RST, which can destroy a response that the client has not
    /// read (RFC 9112 9.6).
    fn release(&mut self, id: SocketId, scratch: &mut [u8]) {
        let slot = &mut self.slots[id.slot as usize];
        if let Some(entry) = slot.entry.take() {
            let _ = entry.socket.read(scratch);
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
    }

    /// Sends a FIN on every socket, when the process ends.
    pub(super) fn end_all(&mut self) {
        for slot in &self.slots {
            if let Some(entry) = &slot.entry {
                entry.socket.end_writes();
            }
        }
    }
}

fn poll_token(id: SocketId) -> Token {
    Token {
        kind: TokenKind::Poll,
        slot: id.slot,
        generation: id.generation,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::{Completion, CompletionResult, Connect, Listener, Waker};

    struct Bench {
        ring: Ring,
        sockets: Sockets,
        listener: Listener,
        scratch: Vec<u8>,
    }

    impl Bench {
        fn new() -> Self {
            let any = "127.0.0.1:0".parse().expect("address");
            Self {
                ring: Ring::new(8, 64, Waker::new().expect("waker")).expect("ring"),
                sockets: Sockets::new(2),
                listener: Listener::bind_alone(any, 16).expect("bound"),
                scratch: vec![0; 4096],
            }
        }

        /// Adds a connection to the slab, if there is room. Returns its other end too.
        fn connect(&mut self) -> (Option<SocketId>, TcpStream) {
            let address = self.listener.address().expect("address");
            let client = TcpStream::connect(address).expect("connect");
            let socket = self.listener.accept_now().expect("one waits");
            let id = self
                .sockets
                .insert(socket, SocketPhase::Open, &mut self.ring);
            (id, client)
        }

        /// Takes completions until one is `wanted`.
        fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> Completion {
            let start = Instant::now();
            let mut seen = Vec::new();
            loop {
                self.ring.enter();
                self.ring.completions(&mut seen, 64);
                if let Some(index) = seen.iter().position(&wanted) {
                    return seen.swap_remove(index);
                }
                assert!(start.elapsed() < Duration::from_secs(10), "never came");
            }
        }
    }

    fn ready(completion: &Completion) -> Ready {
        match completion.result {
            CompletionResult::Ready(ready) => ready,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_late_event_never_reaches_the_next_user_of_a_slot() {
        let mut bench = Bench::new();
        let (first, mut client) = bench.connect();
        let first = first.expect("room");
        client.write_all(b"late").expect("sent");
        let late = bench.until(|c| matches!(c.result, CompletionResult::Ready(r) if r.readable()));
        bench
            .sockets
            .close(first, &mut bench.ring, &mut bench.scratch);
        assert!(
            bench.sockets.open(first).is_none(),
            "dead at once for the shard"
        );
        assert_eq!(bench.sockets.len(), 1, "but not free: the ring holds it");
        bench.until(|c| !c.more);
        bench.sockets.on_released(first, &mut bench.scratch);
        assert_eq!(bench.sockets.len(), 0);

        let (second, _client) = bench.connect();
        let second = second.expect("room");
        assert_eq!(second.slot, first.slot);
        assert_ne!(second.generation, first.generation);
        let entry = bench.sockets.open(second).expect("open");
        entry.maybe_readable = false;
        assert_eq!(
            bench.sockets.on_ready(first, ready(&late)),
            ReadyEvents::default()
        );
        bench.sockets.on_released(first, &mut bench.scratch);
        let entry = bench.sockets.open(second).expect("untouched");
        assert!(!entry.maybe_readable && entry.armed);
    }

    #[test]
    fn a_lost_poll_is_armed_again_and_misses_nothing() {
        let mut bench = Bench::new();
        let (id, mut client) = bench.connect();
        let id = id.expect("room");
        // Simulates a poll that the kernel ended by itself.
        bench.ring.cancel(poll_token(id));
        bench.until(|c| !c.more);
        client.write_all(b"unseen").expect("sent");
        bench.sockets.on_released(id, &mut bench.scratch);
        assert!(bench.sockets.has_lost());
        bench.sockets.rearm_lost(&mut bench.ring);
        assert!(!bench.sockets.has_lost());
        let seen = bench.until(|c| matches!(c.result, CompletionResult::Ready(_)));
        assert!(bench.sockets.on_ready(id, ready(&seen)).readable);
    }

    #[test]
    fn a_full_slab_takes_no_more() {
        let mut bench = Bench::new();
        let clients: Vec<_> = (0..3).map(|_| bench.connect()).collect();
        let room: Vec<_> = clients.iter().map(|(id, _)| id.is_some()).collect();
        assert_eq!(room, [true, true, false]);
    }

    #[test]
    fn a_connecting_socket_is_no_news_for_the_shard() {
        let mut bench = Bench::new();
        let address = bench.listener.address().expect("address");
        let (Connect::Pending(socket) | Connect::Done(socket)) =
            Socket::connect(address).expect("begun");
        let id = bench
            .sockets
            .insert(socket, SocketPhase::Connecting, &mut bench.ring);
        let id = id.expect("room");
        let seen = bench.until(|c| matches!(c.result, CompletionResult::Ready(_)));
        assert_eq!(
            bench.sockets.on_ready(id, ready(&seen)),
            ReadyEvents::default()
        );
        assert!(bench.sockets.open(id).is_none());
        assert!(bench.sockets.connecting(id).is_some());
    }
}
