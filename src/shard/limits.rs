//! Limits of different rooms, proved against each other. A limit whose neighbour is in the same
//! room has its assertion there.

use crate::cache::PageLimits;
use crate::command::{CommandHeaders, Reply};
use crate::config::{
    BATCH_BYTES_MAX, CATCH_UP_PIECES_MAX, CLUSTERS_MAX, ENCODINGS_MAX, PIECE_BYTES_MAX,
    STEP_BYTES_MAX, TEMPLATE_BYTES_MAX, TOPIC_IN_FLIGHT_BYTES_MIN, TOPICS_MAX,
};
use crate::kafka::records::PieceLimits;
use crate::log::{Batch, Progress};
use crate::model::SHARDS_MAX;
use crate::route::VALUE_BYTES_MAX;

use super::work_limits::PAGE;

const _: () = {
    // A record that can be read can be encoded.
    assert!(BATCH_BYTES_MAX <= crate::sse::RECORD_BYTES_MAX);
    // A topic that may have a step in flight is not full before its first one.
    assert!(2 * STEP_BYTES_MAX <= TOPIC_IN_FLIGHT_BYTES_MIN);
    // What waits for its order is no more than a step, so that ordering is the larger unit of work.
    assert!(PieceLimits::BYTES <= STEP_BYTES_MAX);
    // The memory sum counts a piece with its index.
    let index = PieceLimits::RECORDS * Batch::ENTRY_BYTES;
    assert!(PieceLimits::BYTES + index <= PIECE_BYTES_MAX);
    // A catch-up read takes no more memory than its topic may have in flight.
    assert!(CATCH_UP_PIECES_MAX * PIECE_BYTES_MAX <= TOPIC_IN_FLIGHT_BYTES_MIN);

    // A config that is accepted has no more encodings than a step has blocks.
    assert!(ENCODINGS_MAX == crate::sse::ENCODINGS_MAX);
    // Each encoding gets a share of a step that holds many events, ids of all partitions included.
    assert!(STEP_BYTES_MAX / ENCODINGS_MAX >= 8 * Progress::TEXT_BYTES_MAX);
    // Every partition that an event id names has metrics of its own.
    assert!(Progress::PARTITIONS_MAX <= crate::metrics::PARTITIONS_MAX);

    // A template that a config may have fits what it expands to, and that fits a record's header.
    assert!(TEMPLATE_BYTES_MAX <= VALUE_BYTES_MAX);
    assert!(VALUE_BYTES_MAX <= CommandHeaders::VALUE_BYTES_MAX);
    // One header of a reply may be as large as one of a command.
    assert!(CommandHeaders::VALUE_BYTES_MAX <= Reply::HEADER_BYTES_MAX);

    // Positions of clusters, topics and shards are 8, 16 and 16 bits.
    assert!(CLUSTERS_MAX <= u8::MAX as usize);
    assert!(TOPICS_MAX <= u16::MAX as usize);
    assert!(SHARDS_MAX < u16::MAX);

    // A page of a collection is what one turn may spend on one client, and less than a step.
    let PageLimits { entries, bytes } = PAGE;
    assert!(entries < PieceLimits::RECORDS && bytes <= STEP_BYTES_MAX);
};
