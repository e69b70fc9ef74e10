//! The socket as h2 sees it: two buffers. Reading takes what was received, and writing is accepted
//! until [`OUTPUT_BYTES_MAX`] wait for the real socket. Nothing registers a waker: the session is
//! driven again after every change.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{FrameWalker, kind};

/// Bytes that may wait for the socket before h2 must wait. A frame that begins below the limit is
/// taken whole.
pub(super) const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What was received and not yet read, and what waits to be sent.
#[derive(Debug)]
pub(super) struct Buffers {
    input: Vec<u8>,
    read: usize,
    /// The client sends no more.
    ended: bool,
    output: Vec<u8>,
    sent: usize,
    walker: FrameWalker,
    /// RST_STREAM frames that h2 has written.
    resets: u64,
}

impl Buffers {
    pub(super) const fn new() -> Self {
        Self {
            input: Vec::new(),
            read: 0,
            ended: false,
            output: Vec::new(),
            sent: 0,
            walker: FrameWalker::after(0),
            resets: 0,
        }
    }

    /// Adds received bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The client sends no more.
    pub(super) const fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes received and not yet read.
    pub(super) const fn unread(&self) -> usize {
        self.input.len() - self.read
    }

    /// Bytes that wait for the socket.
    pub(super) fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// The socket has taken so many bytes of the output.
    pub(super) fn on_sent(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.output.len(), "sent what was there");
        if self.sent == self.output.len() {
            self.output = Vec::new(); // An idle connection keeps no buffer.
            self.sent = 0;
        }
    }

    /// RST_STREAM frames that were written since the last call.
    pub(super) const fn take_resets(&mut self) -> u64 {
        std::mem::replace(&mut self.resets, 0)
    }
}

/// What h2 reads and writes.
#[derive(Debug)]
pub(super) struct Pipe(pub(super) Rc<RefCell<Buffers>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        let rest = buffers.input.get(buffers.read..).unwrap_or_default();
        if rest.is_empty() {
            let end = buffers.ended.then_some(Ok(()));
            return end.map_or(Poll::Pending, Poll::Ready);
        }
        let taken = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..taken).unwrap_or_default());
        buffers.read += taken;
        if buffers.read == buffers.input.len() {
            buffers.input = Vec::new();
            buffers.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.borrow_mut();
        if buffers.output().len() >= OUTPUT_BYTES_MAX {
            return Poll::Pending;
        }
        let Buffers {
            output,
            walker,
            resets,
            ..
        } = &mut *buffers;
        output.extend_from_slice(bytes);
        walker.walk(bytes, |head| {
            *resets += u64::from(head.kind == kind::RST_STREAM);
        });
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
