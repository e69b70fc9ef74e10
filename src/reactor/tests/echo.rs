//! The echo that these tests run on real shards. It sends back what it receives, and obeys
//! messages.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::time::Duration;

use crate::model::{Instant, Now, ShardId};
use crate::shard::{Inputs, Io, Open, Outputs, Part, Read, SocketEvent, SocketId, Turn, Write};

/// A client that sends this byte is closed after its echo.
pub(super) const BYE: u8 = b'!';

/// The response of an echo that does not read requests.
pub(super) const ANSWER: &[u8] = b"this is all you get";

/// Messages to and from an echo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A message that the echo forwards to the control thread.
    Number(u32),
    /// Sends this many numbers to a shard, two per turn.
    Count { to: ShardId, numbers: u32 },
    /// Makes each later turn take this long.
    Slow(Duration),
    /// Requests a turn at this time, which then sends `Rang`.
    Alarm(Duration),
    /// The message of a turn that `Alarm` requested.
    Rang,
    /// Connects, and sends a greeting over the connection.
    Open(Open),
    /// The result of the connection attempt.
    Saw(SocketEvent),
    /// Makes the echo respond to clients without reading.
    BeRude,
    /// Makes the shard panic, as a bug would.
    Panic,
    /// Makes the shard end without a panic.
    End,
}

#[derive(Default)]
pub(super) struct Echo {
    /// Sockets, each with the bytes that it has not accepted yet.
    clients: BTreeMap<SocketId, Vec<u8>>,
    counting: Option<(ShardId, u32, u32)>,
    slow: Duration,
    alarm: Option<Instant>,
    rude: bool,
}

impl Turn for Echo {
    type Message = Message;
    type Control = Message;

    fn turn<I: Io>(
        &mut self,
        now: Now,
        inputs: &mut Inputs<Message>,
        io: &mut I,
        outputs: &mut Outputs<Message, Message>,
    ) {
        for (_, message) in inputs.messages.drain(..) {
            self.on_message(now, message, outputs);
        }
        for event in inputs.sockets.drain(..) {
            self.on_event(event, io, outputs);
        }
        assert!(!io.spent(Part::Serve) || !self.slow.is_zero());
        if let Some((to, next, numbers)) = &mut self.counting {
            for number in (*next..*numbers).take(2) {
                outputs.messages.push((*to, Message::Number(number)));
                *next += 1;
            }
            outputs.more = next < numbers;
        }
        if self.alarm.is_some_and(|at| at <= now.mono) {
            self.alarm = None;
            outputs.control.push(Message::Rang);
        }
        outputs.deadline = self.alarm;
        std::thread::sleep(self.slow);
    }
}

impl Echo {
    fn on_message(&mut self, now: Now, message: Message, outputs: &mut Outputs<Message, Message>) {
        match message {
            Message::Number(_) => outputs.control.push(message),
            Message::Count { to, numbers } => self.counting = Some((to, 0, numbers)),
            Message::Slow(by) => self.slow = by,
            Message::Alarm(after) => self.alarm = Some(now.mono.after(after)),
            Message::Open(open) => outputs.open.push(open),
            Message::BeRude => self.rude = true,
            Message::Panic => panic!("as told"),
            Message::End => outputs.ended = true,
            Message::Rang | Message::Saw(_) => unreachable!("only to the control thread"),
        }
    }

    fn on_event(
        &mut self,
        event: SocketEvent,
        io: &mut impl Io,
        outputs: &mut Outputs<Message, Message>,
    ) {
        match event {
            SocketEvent::Accepted { socket, .. } => {
                let known = self.clients.insert(socket, Vec::new());
                assert!(known.is_none(), "an id that lives is given again");
                if !self.rude {
                    self.serve(socket, io, outputs);
                }
            }
            SocketEvent::Opened { socket, .. } => {
                self.clients.insert(socket, Vec::new());
                assert_eq!(
                    io.write(socket, &[IoSlice::new(b"hel"), IoSlice::new(b"lo")]),
                    Write::Taken(5)
                );
                outputs.control.push(Message::Saw(event));
            }
            SocketEvent::OpenFailed { .. } => {
                outputs.control.push(Message::Saw(event));
            }
            SocketEvent::Readable(socket) if self.rude => {
                self.clients.remove(&socket);
                send(socket, &mut ANSWER.to_vec(), io);
                outputs.close.push(socket);
            }
            // The generation keeps events of dead ids away, so this finds its client.
            SocketEvent::Readable(socket) | SocketEvent::Writable(socket) => {
                assert!(self.clients.contains_key(&socket) || outputs.close.contains(&socket));
                self.serve(socket, io, outputs);
            }
        }
    }

    fn serve(
        &mut self,
        socket: SocketId,
        io: &mut impl Io,
        outputs: &mut Outputs<Message, Message>,
    ) {
        let Some(held) = self.clients.get_mut(&socket) else {
            return;
        };
        let mut open = send(socket, held, io);
        while open && held.is_empty() {
            let got = match io.read(socket) {
                Read::Bytes(bytes) => bytes,
                Read::Blocked => return,
                Read::Closed(_) => break,
            };
            held.extend_from_slice(got);
            let last = held.last() == Some(&BYE);
            open = send(socket, held, io) && !last;
        }
        if !open || held.is_empty() {
            self.clients.remove(&socket);
            outputs.close.push(socket);
        }
    }
}

/// Writes the waiting bytes. Returns false if the connection has failed.
fn send(socket: SocketId, held: &mut Vec<u8>, io: &mut impl Io) -> bool {
    if held.is_empty() {
        return true;
    }
    match io.write(socket, &[IoSlice::new(held)]) {
        Write::Taken(taken) => {
            held.drain(..taken);
            true
        }
        Write::Closed => false,
    }
}
