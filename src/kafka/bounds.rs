//! Where a partition's log begins and ends, as a response to a Fetch reports it.

use kafka_protocol::messages::fetch_response::PartitionData;

use super::event::{Event, ReadKey};
use super::records::Piece;
use crate::log::Next;
use crate::model::{Offset, Partition};

/// The bounds of one response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) log_start: Offset,
    pub(super) high_watermark: Offset,
    /// The last stable offset: no open transaction is below.
    pub(super) stable: Offset,
}

impl Bounds {
    /// -1 means that the broker's version does not report the offset.
    pub(super) fn of(data: &PartitionData) -> Self {
        let known = |raw: i64| u64::try_from(raw).ok().map(Offset);
        let high_watermark = known(data.high_watermark).unwrap_or_default();
        Self {
            log_start: known(data.log_start_offset).unwrap_or_default(),
            high_watermark,
            stable: known(data.last_stable_offset).unwrap_or(high_watermark),
        }
    }

    /// A follower's bounds, corrected by those that the leader reported last.
    pub(super) fn beside(self, leader: Self) -> Self {
        Self {
            log_start: leader.log_start,
            high_watermark: self.high_watermark.max(leader.high_watermark),
            stable: self.stable.max(leader.stable),
        }
    }

    /// A response with these bounds and no records.
    pub(super) fn without_records(self, partition: Partition) -> PartitionData {
        PartitionData::default()
            .with_partition_index(partition.0 as i32)
            .with_high_watermark(self.high_watermark.0 as i64)
            .with_last_stable_offset(self.stable.0 as i64)
            .with_log_start_offset(self.log_start.0 as i64)
    }

    pub(super) fn event(self, read: ReadKey, piece: Piece, next: Next) -> Event {
        match piece {
            Piece::Records(batch) => Event::Batch {
                read,
                batch,
                next,
                log_start: self.log_start,
                high_watermark: self.high_watermark,
                stable_end: self.stable,
            },
            Piece::Undecodable { from, to, error } => {
                let error = error.into();
                Event::Undecodable {
                    read,
                    from,
                    to,
                    error,
                }
            }
        }
    }
}
