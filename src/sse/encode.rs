//! Events as bytes: what the home does once per record and encoding.

use super::lines;
use std::sync::Arc;

use crate::log::{
    Batch, Block, BlockBuilder, Cut, Frame, GapReason, Next, Notice, OffsetRange, Progress,
    ProgressText, Record,
};
use crate::model::{Etag, EventName, LogTag, UnixMillis, u32_of};

/// What an event takes beside its value and its progress: field names, an etag, line ends.
const FRAME_BYTES_TYPICAL: usize = 64;

/// Bytes of a record's value and key, at most: the largest setting of `kafka.batch_bytes_max`.
pub const RECORD_BYTES_MAX: usize = 512 << 20;

/// Bytes of an event for one byte of a value: a line end becomes a line of its own, `data: ` and
/// LF. Base64 has 4 for 3.
const DATA_BYTES_PER_BYTE_MAX: usize = 7;
/// Bytes of an event for one byte of a deleted key, as a JSON string: `\u0000`.
const KEY_BYTES_PER_BYTE_MAX: usize = 6;
/// What an event takes beside its value, key, id and etag, at most: an event's name, the name of a
/// field, JSON around a key.
const FRAME_BYTES_MAX: usize = b"event: \n".len() + EventName::LEN_MAX + 32;
/// `id: `, the dot before the etag, the ends of the last two lines.
const ID_BYTES: usize = b"id: .\n\n".len();
/// How much longer the text of a progress gets while one partition moves: an offset and an epoch of
/// 10 and 5 bytes, in base64.
const PROGRESS_GROWTH_MAX: usize = 20 + 4;

const _: () = {
    // Positions in a block are 32 bits. A block has one record or fits a step. The limit of a step
    // is far smaller, so a block's bytes and keys stay below.
    let event = RECORD_BYTES_MAX * DATA_BYTES_PER_BYTE_MAX + FRAME_BYTES_MAX;
    let id = ID_BYTES + Progress::TEXT_BYTES_MAX + Etag::EVENT_ID_PART_MAX;
    assert!(event + id < u32::MAX as usize);
    assert!(KEY_BYTES_PER_BYTE_MAX <= DATA_BYTES_PER_BYTE_MAX);
};

/// Memory of a page of *changes* as events, at most, if its keys and values have `bytes`. A gap for
/// each undecodable range of the log comes on top.
#[must_use]
pub const fn page_bytes_max(entries: usize, bytes: usize) -> usize {
    let each = FRAME_BYTES_MAX + ID_BYTES + Progress::TEXT_BYTES_MAX + Etag::EVENT_ID_PART_MAX;
    bytes * DATA_BYTES_PER_BYTE_MAX + (entries + 1) * each // One more for the position.
}

/// Whether values are written as text or as base64.
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
    /// Whether values are written as text or as base64.
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
        if text {
            lines::put_data(out, value);
        } else {
            lines::put_base64(out, value);
        }
    }

    /// Bytes that [`Self::put`] appends, at most.
    fn len_max(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        let data = match value {
            None => key.map_or(0, <[u8]>::len) * KEY_BYTES_PER_BYTE_MAX,
            Some(value) => {
                if self.payload == Payload::Auto && std::str::from_utf8(value).is_ok() {
                    lines::data_len_max(value)
                } else {
                    value.len().div_ceil(3) * 4
                }
            }
        };
        data + FRAME_BYTES_MAX
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

    /// How many of a batch's first records fit a block of `bytes_max`, with its index. At least
    /// one: a larger record has a block of its own. `before` and `time` as in [`Self::records`].
    #[must_use]
    pub fn fitting(
        &mut self,
        batch: &Batch,
        before: &Cut,
        time: UnixMillis,
        bytes_max: usize,
    ) -> usize {
        self.id.reset(time, before);
        let id = self.id.as_bytes().len() + PROGRESS_GROWTH_MAX + ID_BYTES + size_of::<Frame>();
        // Without a look at any value, for batches that are small.
        let each = id + FRAME_BYTES_MAX + Etag::EVENT_ID_PART_MAX;
        let worst = batch.record_bytes() * (1 + DATA_BYTES_PER_BYTE_MAX) + batch.len() * each;
        if worst + size_of::<Block>() <= bytes_max {
            return batch.len();
        }
        let mut bytes = size_of::<Block>() + before.bytes_held();
        let fits = |record: &Record<'_>| {
            let etag = Etag::event_id_part_max(record.headers.encoded_len());
            let key = record.key.map_or(0, <[u8]>::len);
            bytes += self.encoding.len_max(record.key, record.value) + id + etag + key;
            bytes <= bytes_max
        };
        batch.iter().take_while(fits).count().max(1)
    }

    /// The events of a batch, which leads from `before` to `after`; `time` as [`crate::log::Step`]
    /// has it. `None` if the batch has no record. Keys must have been hashed.
    ///
    /// # Panics
    /// If the events take 4 GiB. Those of one record never do, nor those [`Self::fitting`] allows.
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
            if index + 1 == batch.len() {
                self.id.reset(time, after);
            } else {
                let offset = record.offset.next();
                self.id.set(partition, Next { offset, epoch });
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

    /// A `gap` for every stream of the topic, for a step from `before` to `after` with the change
    /// `Gap`. Its id is `after`.
    pub fn gap(
        &mut self,
        range: OffsetRange,
        reason: GapReason,
        before: &Cut,
        after: &Cut,
        time: UnixMillis,
    ) -> Block {
        let OffsetRange {
            partition,
            from,
            to,
        } = range;
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
        frame.etag_start = frame.id_start + u32_of(b"id: .".len() + self.id.as_bytes().len());
        lines::put_id(out, self.id.as_bytes(), etag);
        builder.frame(frame, key);
    }
}

fn position(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the assertions above: below 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::testing::{Draft, batch};
    use crate::model::HashSecret;
    use crate::model::{Offset, Partition};

    fn any_part() -> impl Strategy<Value = Option<Vec<u8>>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        let lines = "[\\r\\n\\x00\"]{0,300}".prop_map(String::into_bytes);
        proptest::option::of(prop_oneof![bytes, lines])
    }

    fn any_draft() -> impl Strategy<Value = Draft> {
        let etag = proptest::option::of("[!#-~é]{1,60}");
        (any_part(), any_part(), etag).prop_map(|(key, value, etag)| {
            let draft = Draft {
                key,
                value,
                ..Draft::default()
            };
            match etag {
                Some(etag) => draft.header("etag", etag),
                None => draft,
            }
        })
    }

    fn encodings() -> [Encoding; 3] {
        let named = Encoding {
            event: Some(EventName::new(&"n".repeat(EventName::LEN_MAX)).expect("a legal name")),
            ..Encoding::default()
        };
        let base64 = Encoding {
            payload: Payload::Base64,
            ..named.clone()
        };
        [Encoding::default(), named, base64]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(64)
        })]

        /// A block of what fits is never larger than the limit, except of one record.
        #[test]
        fn a_block_of_what_fits_is_within_its_limit(
            drafts in proptest::collection::vec(any_draft(), 1..12),
            encoding in 0..3_usize,
            bytes_max in 300..20_000_usize,
            first in 0..1_u64 << 62,
        ) {
            let drafts: Vec<_> = drafts.into_iter().zip(first..).collect();
            let drafts: Vec<_> =
                drafts.into_iter().map(|(draft, offset)| Draft { offset, ..draft }).collect();
            let secret = HashSecret::derived_from(b"c");
            let mut batch = batch(3, &drafts, &secret);
            let encoding = encodings()[encoding].clone();
            let mut encoder = Encoder::new(encoding, LogTag([9; 4]));
            let (mut before, time) = (Cut::start(), UnixMillis(1 << 40));
            before.set(Partition(7), Next::at(Offset(first)));
            let mut seen = Vec::new();
            while !batch.is_empty() {
                let records = encoder.fitting(&batch, &before, time, bytes_max);
                let part = batch.split_to(records);
                let mut after = before.clone();
                let last = part.last_offset().expect("at least one fits");
                after.set(Partition(3), Next::at(last.next()));
                let block = encoder.records(&part, &before, &after, time).expect("events");
                prop_assert!(block.bytes_held() <= bytes_max || part.len() == 1);
                seen.extend(part.iter().map(|record| record.offset.0));
                before = after;
            }
            let all: Vec<_> = drafts.iter().map(|draft| draft.offset).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
