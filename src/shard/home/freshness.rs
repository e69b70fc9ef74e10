//! Whether brokers still confirm what a topic shows. While they do, an answer from memory is as old
//! as a fetch takes; when they do not, its readers are told its age.

use std::time::Duration;

use crate::model::Instant;
use crate::shard::message::{Message, Standing};

use super::Cx;
use super::topic::Topic;

/// What a healthy broker may take beyond two waits of a fetch.
const GRACE: Duration = Duration::from_secs(1);

impl Topic {
    /// A broker has answered for a partition: that nothing is new is an answer too.
    pub(super) fn on_heard(&mut self, partition: usize, now: Instant) {
        if let Some(part) = self.parts.get_mut(partition) {
            part.heard = now;
        }
        if self.standing.stale_since.is_some() {
            self.look_at = now;
        }
    }

    /// Looks how the topic stands, if that is due; tells all shards where it is another way now.
    pub(super) fn look(&mut self, cx: &mut Cx<'_>) {
        if cx.now.mono < self.look_at {
            return;
        }
        let fresh_for = cx.snapshot.config.settings.kafka.fetch_wait * 2 + GRACE;
        let heard = self.parts.iter().map(|part| part.heard).min();
        let heard = heard.filter(|_| self.live);
        let stale = heard.filter(|&heard| cx.now.mono.since(heard) >= fresh_for);
        // The next partition to fall silent does so then at the earliest.
        let from = heard.filter(|_| stale.is_none()).unwrap_or(cx.now.mono);
        self.look_at = from.after(fresh_for);
        let blocked = !self.live && (self.missing.is_some() || self.is_blocked(cx.snapshot));
        let standing = Standing {
            stale_since: stale,
            blocked,
            full: self.is_full(),
            grown: self.parts.len() > self.opened_with,
        };
        if std::mem::replace(&mut self.standing, standing) != standing
            && cx.snapshot.topic(self.index).is_shared()
        {
            let topic = self.index;
            let shards = cx.snapshot.layout.slice_shards();
            cx.out
                .extend(shards.map(|shard| (shard, Message::Standing(topic, standing))));
        }
        self.refill_if_room(cx);
    }
}
