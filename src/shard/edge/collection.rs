//! Collections: a JSON array sent page by page, slice after slice in the order of the key hashes.
//! An exchange holds one page at most; the next is asked for when the socket has taken the last.

use crate::cache::{Page, Value};
use crate::config::GZIP_ENCODER_BYTES;
use crate::http::{Framed, GzipEncoder};
use crate::log::Seq;
use crate::model::{ExchangeId, Instant, KeyHash, ShardId, TopicId};
use crate::shard::message::ProjectionMessage;
use crate::shard::outbox::Outbox;

/// A collection whose head is sent.
#[derive(Debug)]
pub(super) struct Collection {
    framed: Framed,
    topic: TopicId,
    /// The topic's incarnation, and the place in its order that the content covers.
    incarnation: u32,
    seq: Seq,
    /// The slice being read, and the key after which it continues.
    shard: ShardId,
    after: Option<(KeyHash, Box<[u8]>)>,
    /// The slice that completes the array.
    last: ShardId,
    /// Whether an entry was written, so that the next needs a comma.
    any: bool,
    /// Whether a page is asked for and not there yet.
    asked: bool,
    /// The page that came while the socket was full.
    page: Option<Page>,
    /// Whether a byte was sent only to find out whether the client still reads.
    probed: bool,
    /// Compresses what is sent, if the client takes that.
    gzip: Option<Box<GzipEncoder>>,
    /// Whether it is compressed, also once the encoder has ended.
    compressed: bool,
}

// The memory sum of a config counts the encoders.
const _: () = assert!(GzipEncoder::BYTES_MAX <= GZIP_ENCODER_BYTES);

/// The result of writing a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The page is written, and more pages follow.
    More,
    /// The last page is written: the array is complete.
    All,
    /// A value of the page is not in memory: the array can't be completed.
    Broken,
}

/// The range of slices that a collection reads, and the place in the topic's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) topic: TopicId,
    pub(super) incarnation: u32,
    pub(super) seq: Seq,
    pub(super) first: ShardId,
    pub(super) last: ShardId,
}

impl Collection {
    pub(super) fn new(framed: Framed, extent: Extent, gzip: Option<Box<GzipEncoder>>) -> Self {
        Self {
            compressed: gzip.is_some(),
            gzip,
            framed,
            topic: extent.topic,
            incarnation: extent.incarnation,
            seq: extent.seq,
            shard: extent.first,
            after: None,
            last: extent.last,
            any: false,
            asked: false,
            page: None,
            probed: false,
        }
    }

    /// Whether it is compressed.
    pub(super) const fn is_compressed(&self) -> bool {
        self.compressed
    }

    pub(super) const fn framed(&self) -> Framed {
        self.framed
    }

    /// Asks for the next page, unless it was asked for.
    pub(super) fn ask(&mut self, exchange: ExchangeId, deadline: Instant, out: &mut Outbox) {
        if std::mem::replace(&mut self.asked, true) {
            return;
        }
        let scan = ProjectionMessage::Scan {
            exchange,
            incarnation: self.incarnation,
            seq: self.seq,
            deadline,
            after: self.after.clone(),
        };
        out.to_projection(self.shard, self.topic, scan);
    }

    /// Withdraws the question for a page that no client waits for any more.
    pub(super) fn cancel(&self, exchange: ExchangeId, out: &mut Outbox) {
        if self.asked {
            let cancel = ProjectionMessage::Cancel(exchange);
            out.to_projection(self.shard, self.topic, cancel);
        }
    }

    /// Takes note that the page asked for has come. Returns false if none was asked for.
    pub(super) const fn on_page(&mut self) -> bool {
        std::mem::replace(&mut self.asked, false)
    }

    /// Keeps a page until the socket has taken the last one.
    pub(super) fn keep(&mut self, page: Page) {
        self.page = Some(page);
    }

    /// The page that was kept.
    pub(super) const fn take_page(&mut self) -> Option<Page> {
        self.page.take()
    }

    /// Whether to send a byte that finds out if the client still reads: once, while a page is
    /// awaited. RFC 8259 2 allows whitespace between any two tokens of JSON.
    pub(super) fn probe(&mut self) -> Option<Vec<u8>> {
        const PROBE: &[u8] = b"\n";
        if !self.asked || std::mem::replace(&mut self.probed, true) {
            return None;
        }
        let mut bytes = Vec::new();
        match &mut self.gzip {
            Some(gzip) => {
                gzip.piece(PROBE, &mut bytes);
                gzip.flush(&mut bytes);
            }
            None => bytes.extend_from_slice(PROBE),
        }
        Some(bytes)
    }

    /// Writes a page's part of the body into `piece`: of the array, or of its compressed form.
    /// `plain` is scratch.
    pub(super) fn write_piece(
        &mut self,
        page: Page,
        plain: &mut Vec<u8>,
        piece: &mut Vec<u8>,
    ) -> Written {
        let Some(mut gzip) = self.gzip.take() else {
            return self.write_page(page, piece);
        };
        plain.clear();
        let written = self.write_page(page, plain);
        gzip.piece(plain, piece);
        match written {
            Written::All => gzip.end(piece),
            Written::More | Written::Broken => self.gzip = Some(gzip),
        }
        written
    }

    /// Writes a page's part of the array.
    fn write_page(&mut self, page: Page, piece: &mut Vec<u8>) -> Written {
        for item in &page.items {
            match &item.value {
                Value::Held(value) if item.listed => {
                    piece.push(if self.any { b',' } else { b'[' });
                    self.any = true;
                    piece.extend_from_slice(value);
                }
                // Skip a value that is not JSON. It was counted when it was cached.
                Value::Held(_) | Value::Tombstone(_) => {}
                Value::Unheld(_) => return Written::Broken,
            }
        }
        match page.next {
            Some(after) => self.after = Some(after),
            None if self.shard < self.last => {
                self.shard = ShardId(self.shard.0 + 1);
                self.after = None;
            }
            None => {
                let end: &[u8] = if self.any { b"]\n" } else { b"[]\n" };
                piece.extend_from_slice(end);
                return Written::All;
            }
        }
        Written::More
    }
}
