//! Events as bytes: what the home does once per record and encoding.

use super::lines;
use std::sync::Arc;

use crate::log::{Batch, Block, BlockBuilder, Cut, Frame, GapReason, Next, Notice, ProgressText};
use crate::model::{Etag, EventName, LogTag, Offset, Partition, UnixMillis};

/// What an event takes beside its value and its progress: field names, an etag, line ends.
const FRAME_BYTES_TYPICAL: usize = 64;

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// As text; a value that is not UTF-8 as base64 under `event: base64`.
    #[default]
    Auto,
    /// Every value as base64 (RFC 4648 4, padded), under the stream's own event name.
    Base64,
}

/// One way to write a topic's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The name of data events; `None`: no `event:` line, so `onmessage` gets them.
    pub event: Option<EventName>,
    /// How values are written.
    pub payload: Payload,
    /// The record header with the entity's validator, as GET and replies read it.
    pub etag_header: Arc<str>,
}

impl Default for Encoding {
    fn default() -> Self {
        let (event, payload) = (None, Payload::Auto);
        Self {
            event,
            payload,
            etag_header: "etag".into(),
        }
    }
}

impl Encoding {
    /// An event's lines but its `id:`.
    pub(super) fn put(&self, out: &mut Vec<u8>, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(value) = value else {
            lines::put_delete(out, key);
            return;
        };
        let text = self.payload == Payload::Auto && std::str::from_utf8(value).is_ok();
        match &self.event {
            _ if !text && self.payload == Payload::Auto => lines::put_event(out, "base64"),
            Some(name) => lines::put_event(out, name.as_str()),
            None => {}
        }
        match text {
            true => lines::put_data(out, value),
            false => lines::put_base64(out, value),
        }
    }
}

/// Writes a topic's blocks under one encoding, at its home.
#[derive(Debug)]
pub struct Encoder {
    encoding: Encoding,
    tag: LogTag,
    id: ProgressText,
}

impl Encoder {
    /// An encoder for the log with this tag.
    #[must_use]
    pub fn new(encoding: Encoding, tag: LogTag) -> Self {
        let id = ProgressText::new(tag, UnixMillis(0), &Cut::start());
        Self { encoding, tag, id }
    }

    /// The events of a batch, which leads from `before` to `after`; `time` as [`crate::log::Step`]
    /// has it. `None` if the batch has no record. Keys must have been hashed.
    ///
    /// # Panics
    /// If the events take 4 GiB: a batch is one fetch's records of a partition at most.
    pub fn records(
        &mut self,
        batch: &Batch,
        before: &Cut,
        after: &Cut,
        time: UnixMillis,
    ) -> Option<Block> {
        let partition = batch.partition();
        let mut builder = BlockBuilder::new(before.clone());
        self.id.reset(time, before);
        let values: usize = batch.iter().filter_map(|r| Some(r.value?.len())).sum();
        let overhead = self.id.as_bytes().len() + FRAME_BYTES_TYPICAL;
        builder.bytes().reserve(values + batch.len() * overhead);
        let epoch = after.get(partition).epoch;
        for (index, record) in batch.iter().enumerate() {
            match index + 1 == batch.len() {
                true => self.id.reset(time, after),
                false => {
                    let offset = record.offset.next();
                    self.id.set(partition, Next { offset, epoch });
                }
            }
            let out = builder.bytes();
            let mut frame = Frame::new(position(out), partition, record.offset, epoch);
            self.encoding.put(out, record.key, record.value);
            frame.key_hash = record.key_hash;
            let etag = record
                .headers
                .last(&self.encoding.etag_header)
                .and_then(Etag::from_header);
            let etag =
                etag.unwrap_or_else(|| Etag::from_position(self.tag, partition, record.offset));
            self.finish(&mut builder, frame, record.key, &etag.event_id_part());
        }
        builder.finish()
    }

    /// A `gap` for every stream of the topic, for a step whose change is `Gap` and which leads from
    /// `before` to `after`; its id is `after`.
    pub fn gap(
        &mut self,
        (partition, from, to): (Partition, Offset, Offset),
        reason: GapReason,
        before: &Cut,
        after: &Cut,
        time: UnixMillis,
    ) -> Block {
        let mut builder = BlockBuilder::new(before.clone());
        self.id.reset(time, after);
        let Next { offset, epoch } = after.get(partition);
        let mut frame = Frame::new(0, partition, offset, epoch);
        frame.notice = true;
        builder.notice(Notice {
            partition,
            from,
            to,
            reason,
        });
        lines::put_gap(builder.bytes(), Some((partition, from, to)), reason);
        self.finish(&mut builder, frame, None, b"");
        builder.finish().expect("a frame was added above")
    }

    /// Writes the id line and indexes the frame.
    fn finish(
        &self,
        builder: &mut BlockBuilder,
        mut frame: Frame,
        key: Option<&[u8]>,
        etag: &[u8],
    ) {
        let out = builder.bytes();
        frame.id_start = position(out);
        frame.etag_start = frame.id_start + b"id: .".len() as u32 + self.id.as_bytes().len() as u32;
        lines::put_id(out, self.id.as_bytes(), etag);
        builder.frame(frame, key);
    }
}

fn position(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a block is far below 4 GiB")
}
