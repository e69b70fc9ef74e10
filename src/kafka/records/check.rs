//! What must hold of any bytes at all: properties and the fuzzer share it.

use bytes::Bytes;

use super::walk::{Aborted, Fetched, Piece, walk};
use super::{Unpacker, header};
use crate::log::Next;
use crate::model::{LeaderEpoch, Offset, Partition};

/// What one batch may unpack to here: small, so that the cap is met.
const CAP: u32 = 1 << 16;

/// Reads `bytes` as a Fetch's records, as they are and with the first batch's magic and checksum
/// put right (or hardly any would get past them), and looks at all that comes out.
///
/// # Panics
/// If the reader breaks a promise: offsets grow, none is below the wanted one or beyond `next`,
/// `next` never goes back, every range can be read.
pub fn check_any_bytes(bytes: &[u8]) {
    for wanted in [0, 1, 5] {
        check_from(Bytes::copy_from_slice(bytes), wanted);
        check_from(mended(bytes), wanted);
    }
}

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
                    std::hint::black_box((record.key, record.value, lens.sum::<usize>()));
                }
            }
            Piece::Undecodable { from, to, .. } => {
                assert!(from < to && from >= last.offset && to == next.offset);
            }
        }
        last = next;
    };
    let mut budget = u64::from(CAP) * 4;
    let progress = walk(fetched, &mut Unpacker::new(), CAP, &mut budget, sink);
    assert_eq!(progress.next, last);
}
