//! What the parts of a home work with for one call.

use crate::kafka::Client;
use crate::model::Now;

use super::health::Line;
use crate::shard::message::{Level, ProjectionMessage};
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::{Snapshot, TopicId};

/// What a topic works with for a moment: what is served, the client, the turn's time, the outbox.
pub(super) struct HomeContext<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) client: &'a mut Client,
    pub(super) now: Now,
    pub(super) out: &'a mut Outbox,
}

impl HomeContext<'_> {
    /// Sends to every shard's projection of a topic.
    pub(super) fn to_projections(
        &mut self,
        topic: TopicId,
        message: impl Fn() -> ProjectionMessage,
    ) {
        for shard in self.snapshot.layout.slice_shards() {
            self.out.to_projection(shard, topic, message());
        }
    }
}

/// Logs a line that a part of the home returned.
pub(super) fn log(line: Option<Line>, out: &mut Outbox) {
    if let Some((level, text)) = line.map(Line::into_parts) {
        note(out, level, text);
    }
}

/// Logs a line for the operator.
pub(super) fn note(out: &mut Outbox, level: Level, text: String) {
    out.note(level, text);
}
