//! Event ids: `progress.etag`. Progress is a [`Cut`] as text, so that any instance can resume from
//! what a client holds: base64url (RFC 4648 5, no padding) of
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | log tag |
//! | 4 | time, seconds since the Unix epoch, big endian |
//! | … | per partition with a next offset > 0, in order: an entry |
//! | 1 | check: the low byte of CRC-32C over all before |
//!
//! An entry is number, next offset and leader epoch + 1 (0: none), each a LEB128 varint in its
//! shortest form. The first nine bytes are three whole base64 groups. One progress has one text and
//! the other way round. A progress of `-` asks to start over. What is not a record's event has an
//! empty etag: the dot is always there, so that an event id can't be taken for a bare etag.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;

use super::{Cut, Next};
use crate::model::{
    Etag, LeaderEpoch, LogTag, Offset, Partition, UnixMillis, low_u8, low_u32, u32_of,
};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const TIME_AT: usize = 5;
/// Number (1 byte below 128), next offset (63 bits), epoch + 1 (33 bits).
const ENTRY_BYTES_MAX: usize = 1 + 9 + 5;

/// What a client holds of a topic's log, as event ids carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which log the offsets belong to.
    pub tag: LogTag,
    /// When the cut last equalled the log's end; whole seconds on the wire.
    pub time: UnixMillis,
    /// Every matching record below this cut has been sent.
    pub cut: Cut,
}

/// An event id as a client sent it back, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId<'a> {
    /// What the client holds; `None` (`-` on the wire): nothing that counts, start over.
    pub progress: Option<Progress>,
    /// The etag part ([`Etag::event_id_part`]) of the event's record. Empty if the event has no
    /// record.
    pub etag: &'a [u8],
}

/// Why a text is not an event id of this gateway. The client receives a `gap` with the reason
/// `unreadable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this version, or damaged")]
pub struct UnreadableId;

const _: () = {
    // An id of every partition, with the longest etag behind a dot, fits what is accepted back.
    let raw = HEAD_BYTES + Progress::PARTITIONS_MAX * ENTRY_BYTES_MAX + 1;
    let text = (raw * 4).div_ceil(3) + 1 + Etag::EVENT_ID_PART_MAX;
    assert!(text <= Progress::TEXT_BYTES_MAX);
};

impl Progress {
    /// Partitions an id can list, and the bound of their numbers, so that a decoded cut costs at
    /// most 2 KiB. `check` refuses topics with more partitions on routes with ids that list all of
    /// them.
    pub const PARTITIONS_MAX: usize = 128;

    /// Characters of an id, the etag with it. Anything longer is not read.
    pub const TEXT_BYTES_MAX: usize = 4096;

    /// The text, for tests and rare uses; streams write ids with [`ProgressText`].
    #[must_use]
    pub fn encode(&self) -> String {
        let text = ProgressText::new(self.tag, self.time, &self.cut);
        String::from_utf8(text.as_bytes().to_vec()).expect("base64url is ASCII")
    }

    /// Parses the text of an id.
    ///
    /// # Errors
    /// Anything that [`Self::encode`] does not write.
    pub fn decode(text: &[u8]) -> Result<Self, UnreadableId> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(UnreadableId);
        }
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| UnreadableId)?;
        let (&check, body) = raw.split_last().ok_or(UnreadableId)?;
        let (head, entries) = body.split_first_chunk().ok_or(UnreadableId)?;
        let [version, t0, t1, t2, t3, s0, s1, s2, s3]: [u8; HEAD_BYTES] = *head;
        if version != VERSION || low_u8(u64::from(crc32c::crc32c(body))) != check {
            return Err(UnreadableId);
        }
        let tag = LogTag([t0, t1, t2, t3]);
        let seconds = u32::from_be_bytes([s0, s1, s2, s3]);
        let cut = decode_cut(entries)?;
        let time = UnixMillis(i64::from(seconds) * 1000);
        Ok(Self { tag, time, cut })
    }
}

impl<'a> EventId<'a> {
    /// Reads an event id as a client sends it back.
    ///
    /// # Errors
    /// See [`Progress::decode`]; also a text without a dot, or longer than
    /// [`Progress::TEXT_BYTES_MAX`].
    pub fn parse(text: &'a [u8]) -> Result<Self, UnreadableId> {
        if text.len() > Progress::TEXT_BYTES_MAX {
            return Err(UnreadableId);
        }
        let dot = memchr::memchr(b'.', text).ok_or(UnreadableId)?;
        let (progress, behind) = text.split_at(dot);
        let etag = behind.strip_prefix(b".").ok_or(UnreadableId)?;
        let progress = match progress {
            b"-" => None,
            _ => Some(Progress::decode(progress)?),
        };
        Ok(Self { progress, etag })
    }

    /// The entity tag in a value of `If-Match` or `If-None-Match` that is an event id: a page keeps
    /// the id of an event and makes its command conditional on it. `None` for anything else,
    /// including the id of an event without a record, and `-`, which has neither version nor check.
    #[must_use]
    pub fn etag_in(value: &[u8]) -> Option<Etag> {
        let id = EventId::parse(value).ok()?;
        id.progress.and_then(|_| Etag::from_event_id_part(id.etag))
    }
}

fn decode_cut(mut bytes: &[u8]) -> Result<Cut, UnreadableId> {
    let mut cut = Cut::start();
    let mut least = 0;
    while !bytes.is_empty() {
        let number = take_varint(&mut bytes)?;
        let offset = take_varint(&mut bytes)?;
        let epoch = take_varint(&mut bytes)?;
        let known = number >= least && number < Progress::PARTITIONS_MAX as u64;
        if !known || offset == 0 || offset > i64::MAX as u64 || epoch > u64::from(u32::MAX) + 1 {
            return Err(UnreadableId);
        }
        least = number + 1;
        let epoch = LeaderEpoch(epoch.checked_sub(1).map(low_u32));
        let offset = Offset(offset);
        cut.set(Partition(low_u32(number)), Next { offset, epoch });
    }
    Ok(cut)
}

/// Reads a varint in its shortest form. A longer form would give the same cut several texts.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, UnreadableId> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(UnreadableId)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return shortest.then_some(value).ok_or(UnreadableId);
        }
    }
    Err(UnreadableId) // More than 63 bits.
}

fn put_varint(out: &mut SmallVec<[u8; ENTRY_BYTES_MAX]>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_u8(value) | 0x80);
        value >>= 7;
    }
    out.push(low_u8(value));
}

fn entry_bytes(partition: Partition, next: Next) -> SmallVec<[u8; ENTRY_BYTES_MAX]> {
    let mut out = SmallVec::new();
    put_varint(&mut out, u64::from(partition.0));
    put_varint(&mut out, next.offset.0);
    put_varint(
        &mut out,
        next.epoch.0.map_or(0, |epoch| u64::from(epoch) + 1),
    );
    out
}

/// The text of a progress that moves. Ids of neighbouring frames differ in one partition: a move
/// rewrites the few base64 groups it touches, unless a varint grows.
#[derive(Clone, Debug)]
pub struct ProgressText {
    tag: LogTag,
    time: u32,
    cut: Cut,
    raw: Vec<u8>,
    /// Where each partition's entry lies in `raw`; an empty range for one at offset 0.
    entries: Vec<(u32, u32)>,
    text: Vec<u8>,
}

#[expect(
    clippy::indexing_slicing,
    reason = "it writes into the text that it has laid out itself"
)]
impl ProgressText {
    /// The text of this progress.
    #[must_use]
    pub fn new(tag: LogTag, time: UnixMillis, cut: &Cut) -> Self {
        let (raw, entries, text) = (Vec::new(), Vec::new(), Vec::new());
        let (time, cut) = (whole_seconds(time), cut.clone());
        let mut new = Self {
            tag,
            time,
            cut,
            raw,
            entries,
            text,
        };
        new.write_all();
        new
    }

    /// The text as it is now: base64url.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The cut as it is now.
    #[must_use]
    pub const fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Another cut and time of the same log. Cheap if at most one partition differs.
    pub fn reset(&mut self, time: UnixMillis, cut: &Cut) {
        let time = whole_seconds(time);
        let (first, second) = {
            let mut moved = self.cut.iter().zip(cut.iter()).filter(|(a, b)| a != b);
            (moved.next(), moved.next())
        };
        if second.is_some() || self.cut.iter().count() != cut.iter().count() {
            self.time = time;
            self.cut.clone_from(cut);
            self.write_all();
            return;
        }
        let first = first.map(|(_, there)| there);
        if self.time != time {
            self.time = time;
            self.raw[TIME_AT..HEAD_BYTES].copy_from_slice(&time.to_be_bytes());
            self.write_groups(TIME_AT / 3, HEAD_BYTES / 3);
            self.write_check();
        }
        if let Some((partition, next)) = first {
            self.set(partition, next);
        }
    }

    /// Moves one partition, wherever it was.
    pub fn set(&mut self, partition: Partition, next: Next) {
        if self.cut.get(partition) == next {
            return;
        }
        self.cut.set(partition, next);
        let entry = entry_bytes(partition, next);
        match self.entries.get(partition.0 as usize) {
            Some(&(start, len)) if len as usize == entry.len() && next.offset.0 > 0 => {
                let (start, end) = (start as usize, (start + len) as usize);
                self.raw[start..end].copy_from_slice(&entry);
                self.write_groups(start / 3, end.div_ceil(3));
                self.write_check();
            }
            _ => self.write_all(),
        }
    }

    /// The later of what is there and `cut`, in each partition.
    pub fn raise(&mut self, cut: &Cut) {
        let later = {
            let held = &self.cut;
            let mut later = cut.iter().filter(|(p, n)| n.offset > held.get(*p).offset);
            (later.next(), later.next())
        };
        match later {
            (None, _) => {}
            (Some((partition, next)), None) => self.set(partition, next),
            _ => {
                self.cut.raise(cut);
                self.write_all();
            }
        }
    }

    fn write_check(&mut self) {
        let last = self.raw.len() - 1;
        self.raw[last] = low_u8(u64::from(crc32c::crc32c(&self.raw[..last])));
        self.write_groups(last / 3, last / 3 + 1);
    }

    /// Rewrites the base64 groups `from..to`. Three bytes are four characters.
    fn write_groups(&mut self, from: usize, to: usize) {
        let raw = &self.raw[from * 3..self.raw.len().min(to * 3)];
        URL_SAFE_NO_PAD
            .encode_slice(raw, &mut self.text[from * 4..])
            .expect("the text has room for the groups of its raw bytes");
    }

    fn write_all(&mut self) {
        self.raw.clear();
        self.entries.clear();
        self.raw.push(VERSION);
        self.raw.extend_from_slice(&self.tag.0);
        self.raw.extend_from_slice(&self.time.to_be_bytes());
        for (partition, next) in self.cut.iter() {
            let entry = match next.offset.0 {
                0 => SmallVec::new(),
                _ => entry_bytes(partition, next),
            };
            let range = (u32_of(self.raw.len()), u32_of(entry.len()));
            self.entries.push(range);
            self.raw.extend_from_slice(&entry);
        }
        let check = low_u8(u64::from(crc32c::crc32c(&self.raw)));
        self.raw.push(check);
        let chars = (self.raw.len() * 4).div_ceil(3);
        self.text.resize(chars, 0);
        self.write_groups(0, self.raw.len().div_ceil(3));
    }
}

/// Whole seconds that fit the wire, 1970 to 2106.
fn whole_seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.0.max(0) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: LogTag = LogTag([1, 2, 3, 4]);

    fn next(offset: u64, epoch: Option<u32>) -> Next {
        Next {
            offset: Offset(offset),
            epoch: LeaderEpoch(epoch),
        }
    }

    fn progress(entries: &[(u32, u64)]) -> Progress {
        let mut cut = Cut::start();
        for &(partition, offset) in entries {
            cut.set(Partition(partition), next(offset, Some(5)));
        }
        let time = UnixMillis(1_764_000_000_000);
        Progress {
            tag: TAG,
            time,
            cut,
        }
    }

    /// A text from raw bytes, with the right check byte.
    fn text(body: &[u8]) -> Vec<u8> {
        let mut raw = body.to_vec();
        raw.push(low_u8(u64::from(crc32c::crc32c(body))));
        URL_SAFE_NO_PAD.encode(raw).into_bytes()
    }

    #[test]
    fn the_format_is_what_the_docs_say() {
        let bytes = [1, 1, 2, 3, 4, 0x69, 0x24, 0x81, 0, 2, 0xac, 2, 6];
        let read = Progress::decode(&text(&bytes)).expect("well formed");
        assert_eq!(read, progress(&[(2, 300)]));
        assert_eq!(read.encode().into_bytes(), text(&bytes));
    }

    #[test]
    fn the_example_of_the_docs_reads() {
        let id = "AXRhZy1pJIEAAIEBBQGGBgXD.7461672d-0-128";
        assert!(include_str!("../../docs/http.md").contains(&format!("id: {id}\n")));
        let id = EventId::parse(id.as_bytes()).expect("well formed");
        let progress = id.progress.expect("a progress");
        assert_eq!(progress.tag.to_string(), "7461672d");
        assert_eq!(progress.cut.get(Partition(0)), next(129, Some(4)));
        assert_eq!(progress.cut.get(Partition(1)), next(774, Some(4)));
    }

    #[test]
    fn twelve_partitions_fit_128_characters() {
        let entries: Vec<_> = (0..12).map(|p| (p, 30_000_000_000)).collect();
        assert!(progress(&entries).encode().len() <= 126);
        let entries: Vec<_> = (0..128).map(|p| (p, i64::MAX as u64)).collect();
        let longest = progress(&entries).encode();
        assert!(longest.len() + 1 + Etag::EVENT_ID_PART_MAX <= Progress::TEXT_BYTES_MAX);
        assert!(Progress::decode(longest.as_bytes()).is_ok());
    }

    #[test]
    fn one_progress_has_one_text() {
        let head = [1, 1, 2, 3, 4, 0x69, 0x24, 0x80, 0x80];
        let with = |tail: &[u8]| Progress::decode(&text(&[&head, tail].concat()));
        assert!(with(&[]).is_ok() && with(&[0, 1, 0, 2, 1, 0]).is_ok());
        let offset_max = [0xff; 8];
        for refused in [
            &[0, 0, 0][..],                                   // At offset 0: left out.
            &[2, 1, 0, 1, 1, 0],                              // Out of order.
            &[1, 1, 0, 1, 1, 0],                              // Twice.
            &[0, 0x81, 0, 0],                                 // A longer varint than needed.
            &[0x80, 1, 1, 0],                                 // Partition 128.
            &[0, 1],                                          // Cut short.
            &[0, 1, 0x80],                                    // Cut within a varint.
            &[0, 1, 0x81, 0x80, 0x80, 0x80, 0x10],            // An epoch of 33 bits.
            &[&[0][..], &offset_max, &[0xff, 1, 0]].concat(), // An offset of 64 bits.
        ] {
            assert_eq!(with(refused), Err(UnreadableId), "{refused:?}");
        }
        assert!(with(&[&[0][..], &offset_max, &[0x7f, 0]].concat()).is_ok());
    }

    #[test]
    fn damage_is_seen() {
        let good = progress(&[(0, 77), (3, 12345)]).encode().into_bytes();
        assert!(Progress::decode(&good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            if let Ok(read) = Progress::decode(&bad) {
                // One byte of check lets some changes pass; never as the same progress.
                assert_ne!(read, progress(&[(0, 77), (3, 12345)]));
            }
            assert!(Progress::decode(&good[..at]).is_err());
        }
    }

    #[test]
    fn an_event_id_is_progress_dot_etag() {
        let text = progress(&[(0, 7)]).encode() + ".v1-2";
        let id = EventId::parse(text.as_bytes()).expect("well formed");
        assert_eq!(
            (id.progress, id.etag),
            (Some(progress(&[(0, 7)])), &b"v1-2"[..])
        );
        let id = EventId::parse(b"-.x").expect("start over");
        assert_eq!((id.progress, id.etag), (None, &b"x"[..]));
        for bad in [&b""[..], b"x", b"-", b".", b".x", b"12345", &[b'A'; 5000]] {
            assert_eq!(EventId::parse(bad), Err(UnreadableId));
        }
    }

    #[test]
    fn only_an_event_id_of_ours_is_read_for_its_etag() {
        let ours = progress(&[(0, 7)]).encode();
        let etag = |text: &str| EventId::etag_in(text.as_bytes()).map(|it| it.to_string());
        assert_eq!(etag(&format!("{ours}.1=2E2")).as_deref(), Some("\"1.2\""));
        let damaged = format!("{}x{}.v1", &ours[..8], &ours[9..]);
        assert_ne!(&ours[8..9], "x");
        for other in [
            "1.2",
            "progress.v1",
            "-.v1",
            ".v1",
            "v1",
            &ours,
            &format!("{ours}."),
            &format!("{ours}.a.b"),
            &format!("{ours}.a=2"),
            &damaged,
        ] {
            assert_eq!(etag(other), None, "{other}");
        }
    }

    fn any_progress() -> impl Strategy<Value = Progress> {
        let entry = (0_u32..128, any::<u64>(), 0_u32..64, any::<Option<u32>>());
        let entries = proptest::collection::vec(entry, 0..20);
        (any::<[u8; 4]>(), any::<u32>(), entries).prop_map(|(tag, seconds, entries)| {
            let mut cut = Cut::start();
            for (partition, offset, shift, epoch) in entries {
                let offset = (offset >> 1 >> shift).max(1);
                cut.set(Partition(partition), next(offset, epoch));
            }
            let time = UnixMillis(i64::from(seconds) * 1000);
            let tag = LogTag(tag);
            Progress { tag, time, cut }
        })
    }

    proptest! {
        #[test]
        fn decode_reads_what_encode_writes(progress in any_progress()) {
            prop_assert_eq!(Progress::decode(progress.encode().as_bytes()), Ok(progress));
        }

        /// Never a panic; what is read is what would be written.
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            framed in any::<bool>(),
        ) {
            let bytes = if framed { text(&[&[1][..], &bytes].concat()) } else { bytes };
            if let Ok(progress) = Progress::decode(&bytes) {
                prop_assert_eq!(progress.encode().into_bytes(), bytes.clone());
            }
            let _ = EventId::parse(&bytes);
        }

        /// However it moved, the text is that of where it is.
        #[test]
        fn a_text_that_moves_is_the_text_of_where_it_is(
            start in any_progress(),
            moves in proptest::collection::vec((any_progress(), 0_u8..3), 1..8),
        ) {
            let mut text = ProgressText::new(start.tag, start.time, &start.cut);
            let mut now = start;
            for (to, how) in moves {
                match how {
                    0 => {
                        for (partition, next) in to.cut.iter().take(5) {
                            now.cut.set(partition, next);
                            text.set(partition, next);
                        }
                    }
                    1 => {
                        now.cut.raise(&to.cut);
                        text.raise(&to.cut);
                    }
                    _ => {
                        (now.time, now.cut) = (to.time, to.cut);
                        text.reset(now.time, &now.cut);
                    }
                }
                prop_assert_eq!(text.as_bytes().to_vec(), now.encode().into_bytes());
                // Neighbours, which is what ids mostly are.
                for step in 1..3 {
                    let at = now.cut.get(Partition(1));
                    let at = next((at.offset.0 + step).min(i64::MAX as u64), at.epoch.0);
                    now.cut.set(Partition(1), at);
                    now.time = UnixMillis(now.time.0.min(4_000_000_000_000) + 1000);
                    text.reset(now.time, &now.cut);
                    prop_assert_eq!(text.as_bytes().to_vec(), now.encode().into_bytes());
                }
            }
        }
    }
}
