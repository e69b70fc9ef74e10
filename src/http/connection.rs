//! The receiving side of one HTTP/1 connection: bytes in any pieces become whole requests.

use super::chunked::Chunks;
use super::context::ResponseContext;
use super::head::{self, Framing, Head, Refused};
use super::headers::HeaderTable;
use super::limits::Limits;
use super::problem::Refusal;
use super::request::Request;

/// What to send on [`Received::Continue`] (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What [`Connection::receive`] found in the bytes that it was given.
#[derive(Debug)]
pub enum Received<'b> {
    /// One whole request, and how many bytes of the input belong to it. The caller gives the bytes
    /// behind them to `receive` again, or to [`Connection::keep`].
    Request(Request<'b>, usize),
    /// All of the input was kept. More is needed.
    More,
    /// All of the input was kept. The client waits for [`CONTINUE`] before it sends the body of
    /// this request, so the body is still empty. Reported once per request. Instead of asking for
    /// the body, the caller may answer with a refusal and close the connection.
    Continue(Request<'b>),
    /// The input is not a valid request. Answer with the refusal's problem in this context,
    /// drain, close (see [`Drain`](super::Drain)): further input would be refused as well. Carries
    /// the request's single `Origin` if its head was read.
    Refused(Refusal, ResponseContext, Option<Box<[u8]>>),
}

/// The receiving side of one client connection. It holds a buffer only while a partially received
/// request, or bytes pipelined behind a request, are here.
///
/// The buffer is bounded by a head, a body and their framing within the limits, or by the argument
/// of the last [`keep`](Self::keep), which is at most one read.
#[derive(Debug, Default)]
pub struct Connection {
    kept: Vec<u8>,
    /// Bytes at the start of `kept` that are no longer needed.
    begin: usize,
    /// Bytes from `begin` that belong to the request returned last.
    given: usize,
    phase: Phase,
}

/// How much of the present request has been received. Positions count from `begin`.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The head is incomplete. Its first `scanned` bytes were searched for its end.
    Head { scanned: usize },
    /// The head ends at `head`, and the body will end at `end`.
    Sized { head: usize, end: usize },
    /// The head ends at `head`, and the body decoded so far at `write`.
    Chunked {
        head: usize,
        write: usize,
        chunks: Chunks,
    },
    /// A request was refused, and further input is refused alike.
    Refused(Refusal, ResponseContext),
}

impl Default for Phase {
    fn default() -> Self {
        Self::Head { scanned: 0 }
    }
}

/// The result of [`Connection::advance`]. Positions count from `begin`.
enum Step {
    More,
    /// The client waits for [`CONTINUE`], and the head ends at `head`.
    Continue {
        head: usize,
    },
    /// The request is whole, and `used` bytes of the input belong to it.
    Request {
        head: usize,
        end: usize,
        used: usize,
    },
}

type Outcome<T> = Result<T, Refused>;

impl Connection {
    /// A connection that has received nothing. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            kept: Vec::new(),
            begin: 0,
            given: 0,
            phase: Phase::Head { scanned: 0 },
        }
    }

    /// Looks for one whole request in what was kept plus `input`. Its headers are written to
    /// `table`, which is the caller's scratch. When nothing was kept, `input` is
    /// read where it lies. An empty `input` asks for the next of what was kept.
    ///
    /// Where the bytes were cut never changes what is read. Each byte is looked at a bounded number
    /// of times, however small the pieces are.
    pub fn receive<'b>(
        &'b mut self,
        input: &'b [u8],
        limits: &Limits,
        table: &'b mut HeaderTable,
    ) -> Received<'b> {
        let limits = limits.clamped();
        self.forget_given();
        if self.kept.is_empty() && matches!(self.phase, Phase::Head { .. }) {
            match whole(input, &limits, table) {
                Ok(Some((mut request, head, used))) => {
                    request.headers = table.headers(head);
                    return Received::Request(request, used);
                }
                Ok(None) => {}
                Err(refused) => return self.refuse(refused),
            }
        }
        match self.advance(input, &limits, table) {
            Ok(Step::More) => Received::More,
            Ok(Step::Continue { head }) => match self.give(head, head, 0, false, &limits, table) {
                Received::Request(request, _) => Received::Continue(request),
                other => other,
            },
            Ok(Step::Request { head, end, used }) => {
                let pipelined = self.kept() > 0 || used < input.len();
                self.give(head, end, used, pipelined, &limits, table)
            }
            Err(refused) => self.refuse(refused),
        }
    }

    /// Keeps the bytes behind a request while that request waits for its answer. The shard does not
    /// read the socket meanwhile, so they are at most the rest of one read. `receive(&[])`
    /// continues with them, and the socket is read again only after [`Received::More`].
    pub fn keep(&mut self, rest: &[u8]) {
        self.forget_given();
        self.append(rest);
    }

    /// How many bytes are kept behind the last request returned.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len() - self.begin - self.given
    }

    /// Whether part of a request is here, so that the head or body timeout applies and not the idle
    /// timeout. An empty line, which may precede a request, does not count as a part.
    #[must_use]
    pub fn started(&self) -> bool {
        match self.phase {
            Phase::Head { .. } => {
                let rest = self.here().get(self.given..).unwrap_or_default();
                !matches!(rest, b"" | b"\r" | b"\r\n")
            }
            Phase::Sized { .. } | Phase::Chunked { .. } => true,
            Phase::Refused(..) => false,
        }
    }

    /// Whether the head is complete and the body is awaited, so that the body timeout applies.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        matches!(self.phase, Phase::Sized { .. } | Phase::Chunked { .. })
    }

    /// Drops the bytes of the request returned last. Frees the buffer once it is empty.
    fn forget_given(&mut self) {
        self.begin += std::mem::take(&mut self.given);
        if self.begin == self.kept.len() && self.begin > 0 {
            self.kept = Vec::new();
            self.begin = 0;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.begin > 0 {
            self.kept.drain(..self.begin);
            self.begin = 0;
        }
        self.kept.extend_from_slice(bytes);
    }

    /// The bytes of the present request and behind it.
    fn here(&self) -> &[u8] {
        self.kept.get(self.begin..).unwrap_or_default()
    }

    /// The single `Origin` of a request that still awaits its body, for an answer before the body
    /// has arrived. `None` until the head has been read.
    #[must_use]
    pub fn origin(&self, limits: &Limits) -> Option<Box<[u8]>> {
        match self.phase {
            Phase::Sized { head, .. } | Phase::Chunked { head, .. } => {
                self.origin_of(head, &limits.clamped())
            }
            Phase::Head { .. } | Phase::Refused(..) => None,
        }
    }

    fn origin_of(&self, head: usize, limits: &Limits) -> Option<Box<[u8]>> {
        let (head, mut table) = (self.here().get(..head)?, HeaderTable::new());
        head::parse(head, limits, &mut table).ok()?;
        let headers = table.headers(head);
        head::one_origin(headers.get_all("origin")).map(Box::from)
    }

    fn refuse(&mut self, refused: Refused) -> Received<'static> {
        let Refused {
            refusal,
            context,
            origin,
        } = refused;
        *self = Self {
            phase: Phase::Refused(refusal, context),
            ..Self::new()
        };
        Received::Refused(refusal, context, origin)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "offsets of a phase lie within what is kept, `used` within the input"
    )]
    fn give<'b>(
        &'b mut self,
        head: usize,
        end: usize,
        used: usize,
        pipelined: bool,
        limits: &Limits,
        table: &'b mut HeaderTable,
    ) -> Received<'b> {
        let here = &self.kept[self.begin..];
        match head::parse(&here[..head], limits, table) {
            Ok(mut parsed) => {
                parsed.request.headers = table.headers(&here[..head]);
                parsed.request.body = &here[head..end];
                parsed.request.pipelined = pipelined;
                Received::Request(parsed.request, used)
            }
            // A limit was lowered while the request was received.
            Err(refused) => {
                self.phase = Phase::Refused(refused.refusal, refused.context);
                Received::Refused(refused.refusal, refused.context, refused.origin)
            }
        }
    }

    /// Moves the bytes that the present request needs from `input` to the buffer.
    fn advance(&mut self, input: &[u8], limits: &Limits, table: &mut HeaderTable) -> Outcome<Step> {
        let mut used = 0;
        if let Phase::Head { scanned } = self.phase {
            let Some(taken) = self.advance_head(input, scanned, limits, table)? else {
                return Ok(Step::More);
            };
            used = taken.used;
            let nothing_more = used == input.len() && self.here().len() == taken.head;
            let awaited = taken.framing != Framing::Sized(0);
            if taken.expects && awaited && nothing_more {
                return Ok(Step::Continue { head: taken.head });
            }
        }
        match self.phase {
            Phase::Sized { head, end } => Ok(self.advance_sized(input, used, head, end)),
            Phase::Chunked {
                head,
                write,
                chunks,
            } => self.advance_chunked(input, used, head, write, chunks, limits),
            Phase::Refused(refusal, context) => Err(Refused {
                refusal,
                context,
                origin: None,
            }),
            Phase::Head { .. } => Ok(Step::More),
        }
    }

    /// Searches for the end of the head. Once it is found, the phase says how the body is framed.
    #[expect(
        clippy::indexing_slicing,
        reason = "offsets of a phase lie within what is kept, `used` within the input"
    )]
    fn advance_head(
        &mut self,
        input: &[u8],
        scanned: usize,
        limits: &Limits,
        table: &mut HeaderTable,
    ) -> Outcome<Option<TakenHead>> {
        let before = self.here().len();
        let room = limits.head_bytes_max.saturating_sub(before);
        self.append(&input[..input.len().min(room)]);
        let here = self.here();
        let window = &here[..here.len().min(limits.head_bytes_max)];
        let end = head::find_end(window, scanned.min(window.len()));
        let Some(head) = end.map_err(Refused::unread)? else {
            if window.len() == limits.head_bytes_max {
                return Err(Refused::unread(head::too_large(window)));
            }
            let scanned = window.len();
            self.phase = Phase::Head { scanned };
            return Ok(None);
        };
        let Head {
            framing, expects, ..
        } = head::parse(&here[..head], limits, table)?;
        // Return the bytes behind the head to the input: the body takes only what it needs.
        self.kept.truncate(self.begin + head.max(before));
        let used = head.saturating_sub(before);
        self.phase = match framing {
            Framing::Sized(length) => Phase::Sized {
                head,
                end: head + length,
            },
            Framing::Chunked => Phase::Chunked {
                head,
                write: head,
                chunks: Chunks::new(),
            },
        };
        Ok(Some(TakenHead {
            head,
            used,
            framing,
            expects,
        }))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "offsets of a phase lie within what is kept, `used` within the input"
    )]
    fn advance_sized(&mut self, input: &[u8], used: usize, head: usize, end: usize) -> Step {
        let missing = end.saturating_sub(self.here().len());
        let rest = &input[used..];
        let taken = missing.min(rest.len());
        self.append(&rest[..taken]);
        if self.here().len() < end {
            return Step::More;
        }
        self.phase = Phase::default();
        self.given = end;
        Step::Request {
            head,
            end,
            used: used + taken,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "offsets of a phase lie within what is kept, `used` within the input"
    )]
    fn advance_chunked(
        &mut self,
        input: &[u8],
        used: usize,
        head: usize,
        mut write: usize,
        mut chunks: Chunks,
        limits: &Limits,
    ) -> Outcome<Step> {
        let appended = input.len() - used;
        self.append(&input[used..]);
        let mut read = write;
        let here = &mut self.kept[self.begin..];
        let done = chunks.decode(here, &mut read, &mut write, limits.body_bytes_max);
        let done = done.map_err(|refusal| Refused {
            origin: self.origin_of(head, limits),
            ..Refused::unread(refusal)
        })?;
        if !done {
            self.kept.truncate(self.begin + write);
            self.phase = Phase::Chunked {
                head,
                write,
                chunks,
            };
            return Ok(Step::More);
        }
        let behind = self.here().len() - read;
        let back = behind.min(appended);
        self.kept.truncate(self.kept.len() - back);
        self.phase = Phase::default();
        self.given = read;
        Ok(Step::Request {
            head,
            end: write,
            used: input.len() - back,
        })
    }
}

/// A head found by [`Connection::advance_head`].
struct TakenHead {
    head: usize,
    used: usize,
    framing: Framing,
    expects: bool,
}

/// A request without its headers, its head, and how many bytes belong to it.
type Whole<'b> = (Request<'b>, &'b [u8], usize);

/// The hot path: a request that is all in `input`, read where it lies. `None` if it is not all
/// there, or is chunked and must be moved to be decoded.
#[expect(
    clippy::indexing_slicing,
    reason = "`find_end` gives an end within the input"
)]
fn whole<'b>(
    input: &'b [u8],
    limits: &Limits,
    table: &mut HeaderTable,
) -> Outcome<Option<Whole<'b>>> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let Some(end) = head::find_end(window, 0).map_err(Refused::unread)? else {
        return Ok(None);
    };
    let Head {
        mut request,
        framing,
        ..
    } = head::parse(&input[..end], limits, table)?;
    let Framing::Sized(length) = framing else {
        return Ok(None);
    };
    let Some(body) = input[end..].get(..length) else {
        return Ok(None);
    };
    request.body = body;
    request.pipelined = input.len() > end + length;
    Ok(Some((request, &input[..end], end + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that is always some requests ahead never lets the buffer run empty.
    #[test]
    fn what_is_done_with_does_not_pile_up() {
        let limits = Limits::default();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut connection = Connection::new();
        let mut table = HeaderTable::new();
        connection.keep(&request.repeat(2));
        for _ in 0..1000 {
            let received = connection.receive(request, &limits, &mut table);
            assert!(matches!(received, Received::Request(_, 0)));
            connection.keep(request);
            assert_eq!(connection.kept(), 2 * request.len());
            assert!(connection.kept.capacity() < 256);
        }
    }
}
