//! Builders that tests share: batches, steps, an instance, a transport.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::log::{
    Batch, BatchBuilder, Block, Change, Cut, Next, RecordParts, Seq, Step, WindowBudget,
};
use crate::model::{
    ExchangeId, HashSecret, Instant, KeyHash, LeaderEpoch, LogTag, Now, Offset, Partition, ShardId,
    UnixMillis,
};
use crate::sse::{
    Delivery, Encoder, Encoding, Feed, FeedSettings, Filter, Need, Sink, Slow, StartFrom,
    Subscribe, Taken,
};

pub(super) const TAG: LogTag = LogTag(*b"tag!");
pub(super) const EPOCH: LeaderEpoch = LeaderEpoch(Some(3));
pub(super) const SECRET: HashSecret = HashSecret::new([7; 16]);
/// Memory that is reserved for a page.
pub(super) const PAGE_BYTES: usize = 1000;
const START_SECONDS: i64 = 1_700_000_000;

/// A record: key, value, `etag` header.
#[derive(Clone, Debug, Default)]
pub(super) struct Rec {
    pub(super) offset: u64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) etag: Option<Vec<u8>>,
}

pub(super) fn rec(offset: u64, key: &str, value: &str) -> Rec {
    Rec {
        offset,
        key: Some(key.into()),
        value: Some(value.into()),
        etag: None,
    }
}

pub(super) fn batch(partition: u32, records: &[Rec]) -> Batch {
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    let mut put = |part: Option<&[u8]>| {
        let part = part?;
        let range = (bytes.len() as u32, part.len() as u32);
        bytes.extend_from_slice(part);
        Some(range)
    };
    for record in records {
        let (key, value) = (put(record.key.as_deref()), put(record.value.as_deref()));
        let (mut headers, mut header_count) = ((0, 0), 0);
        if let Some(etag) = &record.etag {
            let mut header = b"\x08etag".to_vec();
            let zigzag = etag.len() * 2;
            if zigzag >= 0x80 {
                header.push(zigzag as u8 | 0x80);
            }
            header.push(if zigzag >= 0x80 {
                (zigzag >> 7) as u8
            } else {
                zigzag as u8
            });
            header.extend_from_slice(etag);
            headers = put(Some(&header)).expect("given");
            header_count = 1;
        }
        parts.push(RecordParts {
            offset: Offset(record.offset),
            timestamp: UnixMillis(0),
            key,
            value,
            headers,
            header_count,
        });
    }
    let mut builder = BatchBuilder::new(Partition(partition));
    builder.buffer(Bytes::from(bytes), EPOCH);
    parts.into_iter().for_each(|p| builder.push(p));
    let mut batch = builder.finish();
    batch.hash_keys(&SECRET);
    batch
}

pub(super) fn cut(offsets: &[u64]) -> Cut {
    let mut cut = Cut::start();
    for (partition, &offset) in offsets.iter().enumerate() {
        set(&mut cut, partition as u32, offset);
    }
    cut
}

pub(super) fn set(cut: &mut Cut, partition: u32, offset: u64) {
    let (offset, epoch) = (Offset(offset), EPOCH);
    cut.set(Partition(partition), Next { offset, epoch });
}

/// The stream in a slot of shard 0.
pub(super) const fn exchange(slot: u32) -> ExchangeId {
    let (shard, generation) = (ShardId(0), 0);
    ExchangeId {
        shard,
        slot,
        generation,
    }
}

pub(super) fn hash(key: &str) -> KeyHash {
    SECRET.hash(key.as_bytes())
}

pub(super) fn at(seconds: u64) -> Now {
    let wall = UnixMillis((START_SECONDS + seconds as i64) * 1000);
    let mono = Instant::from_nanos(seconds * 1_000_000_000);
    Now { mono, wall }
}

pub(super) fn settings(compacted: bool) -> FeedSettings {
    FeedSettings {
        tag: TAG,
        encodings: vec![Encoding::default()],
        compacted,
        delete_retention: Duration::from_secs(24 * 3600),
        log_start: Cut::start(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(2),
        position_events: true,
        catch_up_patience: Duration::from_millis(250),
        seed: 11,
    }
}

/// A home and one shard in one: makes steps, applies them at once.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) feed: Feed,
    pub(super) encoder: Encoder,
    pub(super) cut: Cut,
    pub(super) seq: Seq,
    pub(super) now: Now,
    /// Answers at once that all places are in the log.
    pub(super) vouches: bool,
    budget: WindowBudget,
}

impl Peer {
    pub(super) fn new(settings: FeedSettings, window_bytes: usize, cut: Cut) -> Self {
        let encoding = settings.encodings[0].clone();
        let (seq, now) = (Seq(0), at(0));
        Self {
            encoder: Encoder::new(encoding, settings.tag),
            feed: Feed::new(settings, seq, cut.clone(), now.wall),
            cut,
            seq,
            now,
            vouches: true,
            budget: WindowBudget::new(window_bytes),
        }
    }

    pub(super) fn step(&mut self, change: Change, block: Option<Block>, cut: Cut) {
        self.seq = Seq(self.seq.0 + 1);
        self.cut = cut;
        let blocks: SmallVec<[Option<Arc<Block>>; 2]> = [block.map(Arc::new)].into_iter().collect();
        let oldest = self.budget.push(self.seq, &blocks);
        let step = Step {
            seq: self.seq,
            cut: self.cut.clone(),
            time: self.now.wall,
            oldest,
            change,
            blocks,
        };
        self.feed.on_step(&Arc::new(step));
    }

    /// A step of records; the partition continues at `next`.
    pub(super) fn records(&mut self, partition: u32, records: &[Rec], next: u64) {
        let batch = batch(partition, records);
        let mut after = self.cut.clone();
        set(&mut after, partition, next);
        let (encoder, time) = (&mut self.encoder, self.now.wall);
        let block = encoder.records(&batch, &self.cut, &after, time);
        self.step(Change::Records(batch), block, after);
    }

    /// One record at the end of a partition.
    pub(super) fn record(&mut self, partition: u32, key: &str, value: &str) {
        let offset = self.cut.get(Partition(partition)).offset.0;
        self.records(partition, &[rec(offset, key, value)], offset + 1);
    }

    pub(super) fn subscribe(&mut self, slot: u32, start: StartFrom, key: Option<&str>) {
        self.resume(slot, start, key, None, Slow::Disconnect);
    }

    pub(super) fn resume(
        &mut self,
        slot: u32,
        start: StartFrom,
        key: Option<&str>,
        id: Option<&str>,
        slow: Slow,
    ) {
        let filter = Filter {
            key: key.map(|key| (hash(key), key.as_bytes())),
        };
        let request = Subscribe {
            encoding: 0,
            filter,
            start,
            last_event_id: id.map(str::as_bytes),
            slow,
        };
        self.feed.subscribe(exchange(slot), &request, self.now);
        self.vouch();
    }

    /// What a subscriber needs, or no longer needs. There is always memory for a page.
    pub(super) fn any_need(&mut self) -> Option<Need> {
        let need = self.feed.next_need();
        need.or_else(|| self.feed.next_page(PAGE_BYTES))
    }

    /// What a subscriber that is still there needs.
    pub(super) fn next_need(&mut self) -> Option<Need> {
        loop {
            match self.any_need() {
                Some(Need::Cancel { .. }) => {}
                need => return need,
            }
        }
    }

    pub(super) fn vouch(&mut self) {
        let asked = self.feed.asked();
        for question in asked.into_iter().filter(|_| self.vouches) {
            self.feed.on_epochs_checked(question, Some(&[]), self.now);
        }
    }

    /// Delivers until no subscriber is pending; all write to the same pipe.
    pub(super) fn pump(&mut self, pipe: &mut Pipe) -> Vec<(u32, Delivery)> {
        let mut seen = Vec::new();
        while let Some(exchange) = self.feed.next_pending() {
            let delivery = self.feed.deliver(exchange, pipe, self.now);
            seen.push((exchange.slot, delivery));
            self.vouch();
            assert!(seen.len() < 100_000, "delivery ends");
        }
        seen
    }
}

/// A transport that takes `left` bytes and says so or not.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: Vec<u8>,
    pub(super) left: usize,
    pub(super) honest: bool,
    pub(super) closed: bool,
}

impl Pipe {
    pub(super) fn open() -> Self {
        Self {
            left: usize::MAX,
            ..Self::default()
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Sink for Pipe {
    fn room(&self) -> usize {
        if self.honest { self.left } else { usize::MAX }
    }

    fn take(&mut self, slices: &[IoSlice<'_>]) -> Taken {
        assert!(!slices.is_empty() && slices.len() <= 64);
        assert!(slices.iter().all(|slice| !slice.is_empty()));
        if self.closed {
            return Taken::Closed;
        }
        let mut taken = 0;
        for slice in slices {
            let part = slice.len().min(self.left - taken);
            self.bytes.extend_from_slice(&slice[..part]);
            taken += part;
        }
        if self.left != usize::MAX {
            self.left -= taken;
        }
        Taken::Bytes(taken)
    }
}
