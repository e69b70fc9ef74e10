//! Properties that hold for any bytes. Property tests and the fuzzer share them.

#![allow(clippy::indexing_slicing)] // A panic here is a finding.

use std::io::Write as _;

use bytes::Bytes;

use super::walk::{Fetched, Piece, walk};
use super::{Aborted, PieceLimits, RecordError, Unpacker, header};
use crate::log::Next;
use crate::model::{LeaderEpoch, Offset, Partition};

/// Bytes that one batch may unpack to here. Small, so that inputs exceed it.
const CAP: u32 = 1 << 16;

/// Reads `bytes` as the records of a Fetch and checks all results. The bytes are read as they are,
/// and with the first batch's magic and checksum corrected, since hardly any would be decoded
/// otherwise.
///
/// # Panics If the reader breaks a guarantee: offsets grow, none is below the wanted one or beyond
/// `next`, `next` never goes back, every range can be read.
pub fn check_any_bytes(bytes: &[u8]) {
    for wanted in [0, 1, 5] {
        check_from(Bytes::copy_from_slice(bytes), wanted);
        check_from(mended(bytes), wanted);
    }
}

/// Limits small enough that most batches take several pieces.
const SMALL: PieceLimits = PieceLimits {
    bytes: 20,
    records: 3,
    batch_bytes: CAP,
};

fn mended(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if bytes.len() > header::HEADER_LEN {
        let length = (bytes.len() - 12) as i32;
        bytes[0] = 0;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[header::CHECKED_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Bytes::from(bytes)
}

fn check_from(records: Bytes, wanted: u64) {
    let whole = check_pieces(records.clone(), wanted, PieceLimits::new(CAP));
    let pieces = check_pieces(records, wanted, SMALL);
    assert_eq!(whole, pieces, "limits change no record");
}

/// The records by offset and length, and the ranges that can't be decoded.
type Read = (Vec<(u64, usize)>, Vec<(Offset, Offset)>);

fn check_pieces(records: Bytes, wanted: u64, limits: PieceLimits) -> Read {
    let from = Next {
        offset: Offset(wanted),
        epoch: LeaderEpoch(None),
    };
    let aborted = vec![Aborted {
        producer_id: 0,
        first_offset: 0,
    }];
    let fetched = Fetched {
        partition: Partition(0),
        records,
        from,
        end: Offset(u64::MAX),
        aborted,
    };
    let (mut last, mut seen) = (from, Offset(wanted));
    let mut read = Read::default();
    let sink = |piece, next: Next| {
        assert!(next.offset >= last.offset, "next never goes back");
        match piece {
            Piece::Records(batch) => {
                for record in batch.iter() {
                    assert!(record.offset >= seen && record.offset < next.offset);
                    seen = record.offset.next();
                    let lens = record
                        .headers
                        .map(|(n, v)| n.len() + v.map_or(0, <[u8]>::len));
                    let parts = [record.key, record.value].into_iter().flatten();
                    let len = lens.sum::<usize>() + parts.map(<[u8]>::len).sum::<usize>();
                    read.0.push((record.offset.0, len));
                }
            }
            Piece::Undecodable { from, to, .. } => {
                assert!(from < to && from >= last.offset && to == next.offset);
                read.1.push((from, to));
            }
        }
        last = next;
    };
    let mut budget = u64::from(CAP) * 4;
    let progress = walk(fetched, &mut Unpacker::new(), limits, &mut budget, sink);
    assert_eq!(progress.next, last);
    read
}

/// Unpacks `bytes` after the first by the codec that this names: whatever they are, nothing longer
/// than the cap comes out. And what they are packed to unpacks to themselves, unless the cap is a
/// byte less.
///
/// # Panics
/// If not.
pub fn check_any_codec(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    let (codec, mut unpacker) = (1 + which % 4, Unpacker::new());
    // Twice, since decoders are kept from batch to batch.
    for cap in [CAP >> (which >> 4), CAP] {
        if let Ok(out) = unpacker.unpack(codec, Bytes::copy_from_slice(bytes), cap) {
            assert!(out.len() <= cap as usize, "codec {codec}");
        }
    }
    let packed = Bytes::from(pack(codec, bytes));
    let len = u32::try_from(bytes.len()).expect("inputs are short");
    let whole = unpacker.unpack(codec, packed.clone(), len);
    assert_eq!(whole.as_deref(), Ok(bytes), "codec {codec}");
    if len > 0 {
        let refused = unpacker.unpack(codec, packed, len - 1);
        assert_eq!(refused, Err(RecordError::TooLarge(len - 1)));
    }
}

fn pack(codec: u8, bytes: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "writes to memory succeed";
    match codec {
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).expect(MEMORY);
            gzip.finish().expect(MEMORY)
        }
        2 => snap::raw::Encoder::new()
            .compress_vec(bytes)
            .expect("inputs are short"),
        3 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(bytes).expect(MEMORY);
            lz4.finish().expect(MEMORY)
        }
        _ => zstd::bulk::compress(bytes, 1).expect(MEMORY),
    }
}
