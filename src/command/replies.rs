//! The reply index: which commands are answered, by whom every peer reads the same topic.

use std::time::Duration;

use crate::command::reply::Answer;
use crate::model::{CommandKey, Fingerprint, Offset, Partition, UnixMillis};

/// How far the index reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyIndexSettings {
    /// How long a reply is known: `retention.ms` of the replies topic.
    pub window: Duration,
    /// Memory for entries (`dedupe_memory`): over it the oldest generation goes.
    pub dedupe_bytes_max: usize,
    /// Memory for bodies; over it the oldest are left to the log.
    pub body_bytes_max: usize,
}

/// A command's reply, as far as it is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// What was asked.
    pub print: Fingerprint,
    /// The reply's partition.
    pub partition: Partition,
    /// The reply's offset.
    pub offset: Offset,
    /// The reply, if it is in memory; else fetch it by position.
    pub answer: Option<Answer>,
}

/// Facts to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyStats {
    /// Replies known.
    pub entries: usize,
    /// Memory of the entries.
    pub entry_bytes: usize,
    /// Bodies in memory.
    pub bodies: usize,
    /// Memory of the bodies.
    pub body_bytes: usize,
    /// Later replies to a command, ignored, ever.
    pub duplicates: u64,
    /// Generations dropped for memory before their time, ever: the window is cut.
    pub generations_cut: u64,
    /// Replies older than this are not known.
    pub known_from: UnixMillis,
}

/// Commands answered within the window.
#[derive(Debug)]
pub struct ReplyIndex {}

impl ReplyIndex {
    /// An empty index. `hasher` is seeded by the shard.
    #[must_use]
    pub fn new(settings: ReplyIndexSettings, hasher: ahash::RandomState) -> Self {
        todo!()
    }

    /// Takes a reply, in the topic's order. False: the command has one, and the first stands.
    #[allow(clippy::too_many_arguments)]
    pub fn on_reply(
        &mut self,
        key: CommandKey,
        print: Fingerprint,
        partition: Partition,
        offset: Offset,
        timestamp: UnixMillis,
        answer: &Answer,
        now: UnixMillis,
    ) -> bool {
        todo!()
    }

    /// What is known of a command.
    #[must_use]
    pub fn get(&self, key: CommandKey) -> Option<Known> {
        todo!()
    }

    /// All at or above the offset is gone.
    pub fn on_truncate(&mut self, partition: Partition, offset: Offset) {
        todo!()
    }

    /// All below the offset is gone.
    pub fn on_log_start(&mut self, partition: Partition, offset: Offset) {
        todo!()
    }

    /// Drops generations past the window and gives their memory back, a bounded piece a call. True:
    /// more is due.
    pub fn expire(&mut self, now: UnixMillis) -> bool {
        todo!()
    }

    /// The facts.
    #[must_use]
    pub fn stats(&self) -> ReplyStats {
        todo!()
    }
}
