//! The records of commands that a broker has not confirmed yet.

use ahash::AHashMap;

use crate::kafka::TopicHandle;
use crate::model::{CommandKey, Partition, hash_row_bytes};
use crate::shard::snapshot::ClusterId;

/// Records whose outcome is not known, by the ticket that the client reports it for. Their number
/// is bounded by that of the in-flight commands.
#[derive(Debug)]
pub(super) struct Tickets {
    next: u64,
    open: AHashMap<u64, Ticket>,
    /// The newest ticket of each command.
    by_key: AHashMap<CommandKey, Place>,
}

/// The topics of a command, by their places among the home's.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandTopics {
    /// The topic that the record is produced to.
    pub(super) to: usize,
    /// The topic that has the table of the command: that of its reply, or of a one-way command
    /// that of its record.
    pub(super) table: usize,
}

impl CommandTopics {
    /// Whether the command gets no reply.
    pub(super) const fn is_one_way(&self) -> bool {
        self.to == self.table
    }
}

/// A command's record in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) topics: CommandTopics,
    pub(super) key: CommandKey,
    /// Whether the record has a key.
    pub(super) has_key: bool,
}

/// A ticket and the partition its record goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) ticket: u64,
    pub(super) to: Destination,
}

/// A partition of a cluster, to which records are produced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) cluster: ClusterId,
    pub(super) topic: TopicHandle,
    pub(super) partition: Partition,
}

impl Tickets {
    /// Most memory of a command's ticket.
    pub(super) const BYTES_PER_COMMAND: usize =
        hash_row_bytes::<u64, Ticket>() + hash_row_bytes::<CommandKey, Place>();

    pub(super) fn new(random: ahash::RandomState) -> Self {
        let open = AHashMap::with_hasher(random.clone());
        Self {
            next: 0,
            open,
            by_key: AHashMap::with_hasher(random),
        }
    }

    /// Makes a ticket for a record of a command.
    pub(super) fn open(&mut self, command: Ticket, to: Destination) -> u64 {
        self.next += 1;
        let ticket = self.next;
        self.open.insert(ticket, command);
        self.by_key.insert(command.key, Place { ticket, to });
        ticket
    }

    /// The newest record of a command, while its outcome is not known.
    pub(super) fn newest(&self, key: CommandKey) -> Option<Place> {
        self.by_key.get(&key).copied()
    }

    /// Ends a ticket. Returns its record, and whether the ticket is the newest of its command.
    pub(super) fn close(&mut self, ticket: u64) -> Option<(Ticket, bool)> {
        let command = self.open.remove(&ticket)?;
        // A command that was produced again has a newer ticket.
        let newest = self.by_key.get(&command.key);
        let newest = newest.is_none_or(|place| place.ticket == ticket);
        if newest {
            self.by_key.remove(&command.key);
        }
        Some((command, newest))
    }
}
