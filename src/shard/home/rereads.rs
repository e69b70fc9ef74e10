//! Reads of earlier records, for slices that had no room for them before.

use std::collections::BTreeMap;

use crate::kafka::{Client, Event, Lane, StartAt};
use crate::log::Next;
use crate::model::{Offset, Partition};

use super::topic_ids::TopicIds;
use super::topic_log::TopicLog;

/// The reads of one topic's earlier records: at most one per partition.
#[derive(Debug)]
pub(super) struct Rereads {
    ids: TopicIds,
    /// The partitions that are read, and where each read ends.
    reading: Vec<(Partition, Offset)>,
}

impl Rereads {
    pub(super) const fn new(ids: TopicIds) -> Self {
        Self {
            ids,
            reading: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reading.is_empty()
    }

    /// Reads partitions again from these offsets, each up to what is ordered now.
    pub(super) fn start(
        &mut self,
        wanted: BTreeMap<Partition, Offset>,
        log: &TopicLog,
        client: &mut Client,
    ) {
        for (partition, from) in wanted {
            let end = log.order().next(partition);
            if from < end {
                let read = self.ids.read(Lane::Again, partition);
                client.read(read, StartAt::At(Next::at(from)));
                log.pause_new(read, client);
                self.reading.push((partition, end));
            }
        }
    }

    /// A read has reached an offset. Returns true if that is its end, so that the read is over.
    #[must_use]
    pub(super) fn on_reached(
        &mut self,
        partition: Partition,
        reached: Offset,
        client: &mut Client,
    ) -> bool {
        let is_over = |it: &(Partition, Offset)| it.0 == partition && reached >= it.1;
        let Some(at) = self.reading.iter().position(is_over) else {
            return false;
        };
        self.reading.remove(at);
        client.stop(self.ids.read(Lane::Again, partition));
        true
    }

    /// Ends all reads.
    pub(super) fn stop(&mut self, client: &mut Client) {
        for (partition, _) in std::mem::take(&mut self.reading) {
            client.stop(self.ids.read(Lane::Again, partition));
        }
    }
}

/// How far an event brings its read. `None`: no further; the client retries a read that fails.
pub(super) fn reached(event: &Event) -> Option<(Partition, Offset)> {
    match event {
        Event::Batch { read, next, .. } => Some((read.partition, next.offset)),
        // The read is stuck: the records behind can't be read.
        Event::Undecodable { read, from, to, .. } if from == to => {
            Some((read.partition, Offset(u64::MAX)))
        }
        Event::Undecodable { read, to, .. } => Some((read.partition, *to)),
        Event::OutOfRange {
            read, log_start, ..
        } => Some((read.partition, *log_start)),
        _ => None,
    }
}
