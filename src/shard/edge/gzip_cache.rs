//! Compressed values, so that a value that many clients read is compressed once.
//!
//! A small value is compressed when the first client asks for it. A large one would take too much
//! of a turn: its first clients get it as it is, and meanwhile it is compressed in steps, one in
//! each turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::config::{GZIP_CACHE_BYTES_MAX, GZIP_JOB_BYTES_MAX};
use crate::http::{GZIP_BYTES_MIN, GzipEncoder, gzip};

/// Bytes that one turn compresses: what it may spend on one client.
const STEP_BYTES: usize = 64 * 1024;

/// The largest value that is compressed.
const GZIP_VALUE_BYTES_MAX: usize = 512 * 1024;

const _: () = {
    // Some of the largest values fit with their compressed form, and small ones many times.
    assert!(GZIP_CACHE_BYTES_MAX >= 4 * 2 * GZIP_VALUE_BYTES_MAX);
    // The value of a job, its compressed form, and the encoder.
    assert!(2 * GZIP_VALUE_BYTES_MAX + GzipEncoder::BYTES_MAX <= GZIP_JOB_BYTES_MAX);
};

/// Compressed values of one shard. A value is known by its place in memory, which the cache keeps
/// alive: another value can't be at that place meanwhile. The oldest are dropped first.
#[derive(Debug, Default)]
pub(super) struct GzipCache {
    values: BTreeMap<usize, Compressed>,
    /// The values in the order in which they were added.
    order: VecDeque<usize>,
    bytes: usize,
    /// The large value that is being compressed. Others wait until a client asks for them later.
    job: Option<Box<Job>>,
}

/// A value and its compressed form.
#[derive(Debug)]
struct Compressed {
    value: Arc<[u8]>,
    /// `None`: it is not smaller.
    gzip: Option<Box<[u8]>>,
}

/// A large value that is compressed in steps.
#[derive(Debug)]
struct Job {
    value: Arc<[u8]>,
    /// How many bytes of it are compressed.
    done: usize,
    encoder: GzipEncoder,
    out: Vec<u8>,
}

impl Compressed {
    fn bytes(&self) -> usize {
        self.value.len() + self.gzip.as_ref().map_or(0, |it| it.len())
    }
}

/// The place of a value in memory.
fn place_of(value: &Arc<[u8]>) -> usize {
    Arc::as_ptr(value).cast::<u8>() as usize
}

impl GzipCache {
    /// The compressed form of a value. `None`: it is sent as it is, because it is small, very
    /// large, not compressed yet, or does not become smaller.
    pub(super) fn get(&mut self, value: &Arc<[u8]>) -> Option<&[u8]> {
        if !(GZIP_BYTES_MIN..=GZIP_VALUE_BYTES_MAX).contains(&value.len()) {
            return None;
        }
        let place = place_of(value);
        if !self.values.contains_key(&place) {
            if value.len() > STEP_BYTES {
                self.begin(value);
                return None;
            }
            self.add(value.clone(), gzip(value));
        }
        self.values.get(&place)?.gzip.as_deref()
    }

    /// Whether [`Self::step`] has work.
    pub(super) const fn has_work(&self) -> bool {
        self.job.is_some()
    }

    /// Compresses the next part of a large value.
    pub(super) fn step(&mut self) {
        let Some(mut job) = self.job.take() else {
            return;
        };
        let until = (job.done + STEP_BYTES).min(job.value.len());
        job.encoder.piece(&job.value[job.done..until], &mut job.out);
        job.done = until;
        if until < job.value.len() {
            self.job = Some(job);
            return;
        }
        let Job {
            value,
            encoder,
            mut out,
            ..
        } = *job;
        encoder.end(&mut out);
        self.add(value, out);
    }

    /// Begins to compress a large value, unless another one is being compressed.
    fn begin(&mut self, value: &Arc<[u8]>) {
        self.job.get_or_insert_with(|| {
            Box::new(Job {
                value: value.clone(),
                done: 0,
                encoder: GzipEncoder::default(),
                out: Vec::new(),
            })
        });
    }

    fn add(&mut self, value: Arc<[u8]>, gzip: Vec<u8>) {
        let place = place_of(&value);
        let gzip = (gzip.len() < value.len()).then(|| gzip.into_boxed_slice());
        let compressed = Compressed { value, gzip };
        self.bytes += compressed.bytes();
        self.values.insert(place, compressed);
        self.order.push_back(place);
        while self.bytes > GZIP_CACHE_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let dropped = self.values.remove(&oldest);
            self.bytes -= dropped.map_or(0, |it| it.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n: usize, len: usize) -> Arc<[u8]> {
        format!("{n:>8}").bytes().cycle().take(len).collect()
    }

    #[test]
    fn a_value_is_compressed_once_while_it_is_kept() {
        let mut cache = GzipCache::default();
        let one = value(1, 2000);
        let gzip = cache.get(&one).expect("text becomes smaller").to_vec();
        assert!(gzip.len() < 200 && gzip.starts_with(&[0x1f, 0x8b]));
        assert_eq!(cache.get(&one), Some(&gzip[..]));
        assert_eq!(cache.order.len(), 1);
        // An equal value at another place is another value.
        assert_eq!(cache.get(&value(1, 2000)), Some(&gzip[..]));
        assert_eq!(cache.order.len(), 2);
    }

    #[test]
    fn small_and_random_values_are_sent_as_they_are() {
        let mut cache = GzipCache::default();
        assert_eq!(cache.get(&value(1, GZIP_BYTES_MIN - 1)), None);
        assert!(cache.get(&value(1, GZIP_BYTES_MIN)).is_some());
        assert!(cache.get(&value(1, STEP_BYTES)).is_some());
        assert_eq!(cache.get(&value(1, GZIP_VALUE_BYTES_MAX + 1)), None);
        assert!(!cache.has_work(), "nor is it compressed");
        let mut state = 1_u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let random: Arc<[u8]> = (0..2000).map(|_| noise()).collect();
        assert_eq!(cache.get(&random), None);
        assert_eq!(
            cache.order.len(),
            3,
            "also that it does not shrink is known once"
        );
    }

    #[test]
    fn a_large_value_is_compressed_in_steps() {
        let mut cache = GzipCache::default();
        let (one, other) = (value(1, 3 * STEP_BYTES + 1), value(2, STEP_BYTES + 1));
        assert_eq!(cache.get(&one), None);
        for _ in 0..4 {
            assert!(cache.has_work());
            assert_eq!(cache.get(&one), None);
            assert_eq!(cache.get(&other), None);
            cache.step();
        }
        assert!(!cache.has_work());
        assert_eq!(cache.get(&one), Some(&gzip(&one)[..]));
        assert_eq!(cache.get(&other), None, "it is asked for once more");
        cache.step();
        cache.step();
        assert!(cache.get(&other).is_some() && !cache.has_work());
        cache.step();
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let mut cache = GzipCache::default();
        let values: Vec<_> = (0..200).map(|n| value(n, STEP_BYTES)).collect();
        for value in &values {
            assert!(cache.get(value).is_some());
            assert!(cache.bytes <= GZIP_CACHE_BYTES_MAX);
        }
        let counted: usize = cache.values.values().map(Compressed::bytes).sum();
        assert_eq!(
            (counted, cache.values.len()),
            (cache.bytes, cache.order.len())
        );
        assert!(cache.values.len() < values.len());
        let kept = |value: &Arc<[u8]>| cache.values.contains_key(&place_of(value));
        assert!(kept(&values[199]) && !kept(&values[0]));
        assert_eq!(Arc::strong_count(&values[0]), 1, "what is dropped is freed");
    }
}
