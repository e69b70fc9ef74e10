//! A shard's slab of sockets: one slot of 16 bytes each, reused with the next generation once the
//! ring has let go of it.
//!
//! A request armed on the ring holds the file, so closing is three steps: FIN, cancel the poll, and
//! close the descriptor at the poll's last completion. In between the slot is dead for the shard
//! and taken for everybody else.

use crate::shard::SocketId;
use crate::sys::{Ready, Ring, Socket, Token, TokenKind};

/// Where a socket stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// An outgoing connection that the shard has not heard of.
    Connecting,
    /// The shard's.
    Open,
    /// Closed by the shard; the ring still holds it.
    Closing,
}

/// A taken slot.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    pub(super) phase: Phase,
    /// Something may be there to read: set by a poll, cleared by a read that found the end of it.
    pub(super) maybe_readable: bool,
    /// The peer ended or the connection broke: from here on no further poll tells of it.
    pub(super) ended: bool,
    /// The connection failed, or both sides have ended.
    pub(super) broken: bool,
    /// A write came up short: the next room is news.
    pub(super) wants_room: bool,
    /// A poll is on the ring.
    armed: bool,
}

struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// What a poll's completion means for the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// The slab.
pub(super) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    max: u32,
    /// Slots whose poll ended without being asked to; armed again at the next pass.
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

    /// Slots taken now, those still closing among them.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot and arms its poll. `None`: the slab is full, and the socket is closed.
    pub(super) fn insert(
        &mut self,
        socket: Socket,
        phase: Phase,
        ring: &mut Ring,
    ) -> Option<SocketId> {
        let entry = Entry {
            socket,
            phase,
            // Data often comes with the handshake; a read tells.
            maybe_readable: true,
            ended: false,
            broken: false,
            wants_room: false,
            armed: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.max as usize => {
                self.slots.push(Slot {
                    generation: 0,
                    entry: None,
                });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let place = &mut self.slots[slot as usize];
        let generation = place.generation;
        ring.poll(&entry.socket, poll_token(SocketId { slot, generation }));
        place.entry = Some(entry);
        Some(SocketId { slot, generation })
    }

    /// The socket of an id, while the id lives (also while connecting or closing).
    fn entry(&mut self, id: SocketId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.entry.as_mut()
    }

    /// The socket of an id the shard may use.
    pub(super) fn open(&mut self, id: SocketId) -> Option<&mut Entry> {
        self.entry(id).filter(|entry| entry.phase == Phase::Open)
    }

    /// The socket of an id that connects.
    pub(super) fn connecting(&mut self, id: SocketId) -> Option<&mut Entry> {
        self.entry(id)
            .filter(|entry| entry.phase == Phase::Connecting)
    }

    /// Ends a socket for the shard: FIN now, the rest when the ring has let go.
    pub(super) fn close(&mut self, id: SocketId, ring: &mut Ring, scratch: &mut [u8]) {
        let Some(entry) = self.entry(id) else {
            return;
        };
        if entry.phase == Phase::Closing {
            return;
        }
        entry.socket.end_writes();
        entry.phase = Phase::Closing;
        if entry.armed {
            ring.cancel(poll_token(id));
        } else {
            self.release(id, scratch);
        }
    }

    /// Takes a poll's completion. Late ones, of another generation, end here.
    pub(super) fn on_ready(&mut self, id: SocketId, ready: Ready) -> News {
        let Some(entry) = self.entry(id) else {
            return News::default();
        };
        entry.maybe_readable |= ready.readable();
        entry.ended |= ready.ended();
        entry.broken |= ready.broken();
        if entry.phase != Phase::Open {
            return News::default();
        }
        let news = News {
            readable: ready.readable(),
            writable: entry.wants_room && ready.writable(),
        };
        entry.wants_room &= !news.writable;
        news
    }

    /// The ring has let go of a socket: it closes now, or its poll was lost and is armed anew.
    pub(super) fn on_released(&mut self, id: SocketId, scratch: &mut [u8]) {
        let Some(entry) = self.entry(id) else {
            return;
        };
        entry.armed = false;
        match entry.phase {
            Phase::Closing => self.release(id, scratch),
            Phase::Connecting | Phase::Open => self.lost.push(id),
        }
    }

    /// Arms lost polls again. They report the state they find, so nothing is missed.
    pub(super) fn rearm_lost(&mut self, ring: &mut Ring) {
        for id in std::mem::take(&mut self.lost) {
            let Some(entry) = self.entry(id) else {
                continue;
            };
            if !entry.armed && entry.phase != Phase::Closing {
                entry.armed = true;
                ring.poll(&entry.socket, poll_token(id));
            }
        }
    }

    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Closes the descriptor and frees the slot. One buffer of unread bytes is thrown away first: a
    /// close with bytes unread sends a RST, which may eat the answer at the other end.
    fn release(&mut self, id: SocketId, scratch: &mut [u8]) {
        let slot = &mut self.slots[id.slot as usize];
        if let Some(entry) = slot.entry.take() {
            let _ = entry.socket.read(scratch);
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
    }

    /// Sends a FIN on every socket there is: the process leaves.
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
    use crate::sys::{Completion, Connect, Listener, Outcome, Waker};

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

        /// A socket of the slab, if there is room, and its other end.
        fn connect(&mut self) -> (Option<SocketId>, TcpStream) {
            let address = self.listener.address().expect("address");
            let client = TcpStream::connect(address).expect("connect");
            let socket = self.listener.accept_now().expect("one waits");
            let id = self.sockets.insert(socket, Phase::Open, &mut self.ring);
            (id, client)
        }

        /// Completions until one passes `wanted`.
        fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> Completion {
            let start = Instant::now();
            let mut seen = Vec::new();
            loop {
                self.ring.enter();
                self.ring.completions(&mut seen, 64);
                if let Some(place) = seen.iter().position(&wanted) {
                    return seen.swap_remove(place);
                }
                assert!(start.elapsed() < Duration::from_secs(10), "never came");
            }
        }
    }

    fn ready(completion: &Completion) -> Ready {
        match completion.outcome {
            Outcome::Ready(ready) => ready,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_late_event_never_reaches_the_next_user_of_a_slot() {
        let mut bench = Bench::new();
        let (first, mut client) = bench.connect();
        let first = first.expect("room");
        client.write_all(b"late").expect("sent");
        let late = bench.until(|c| matches!(c.outcome, Outcome::Ready(r) if r.readable()));
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
        assert_eq!(bench.sockets.on_ready(first, ready(&late)), News::default());
        bench.sockets.on_released(first, &mut bench.scratch);
        let entry = bench.sockets.open(second).expect("untouched");
        assert!(!entry.maybe_readable && entry.armed);
    }

    #[test]
    fn a_lost_poll_is_armed_again_and_misses_nothing() {
        let mut bench = Bench::new();
        let (id, mut client) = bench.connect();
        let id = id.expect("room");
        // As if the kernel had ended it: nobody asked for this cancellation.
        bench.ring.cancel(poll_token(id));
        bench.until(|c| !c.more);
        client.write_all(b"unseen").expect("sent");
        bench.sockets.on_released(id, &mut bench.scratch);
        assert!(bench.sockets.has_lost());
        bench.sockets.rearm_lost(&mut bench.ring);
        assert!(!bench.sockets.has_lost());
        let seen = bench.until(|c| matches!(c.outcome, Outcome::Ready(_)));
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
            .insert(socket, Phase::Connecting, &mut bench.ring);
        let id = id.expect("room");
        let seen = bench.until(|c| matches!(c.outcome, Outcome::Ready(_)));
        assert_eq!(bench.sockets.on_ready(id, ready(&seen)), News::default());
        assert!(bench.sockets.open(id).is_none());
        assert!(bench.sockets.connecting(id).is_some());
    }
}
