//! Commands that were appended and not answered yet, whichever instance appended them: what routes
//! with `dedupe = "strict"` look at before they open a command.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::RandomState;

use crate::command::{CommandIndex, CommandIndexSettings, Reply, Unanswered};
use crate::log::{Batch, Change, Step};
use crate::model::{CommandKey, CorrelationId, Fingerprint, Now, UnixMillis};
use crate::shard::snapshot::Snapshot;

use super::topics::Topics;

/// The indexes of a home, one for each commands topic of a strict route.
///
/// The commands topic and its replies topics are read independently. A topic keeps its steps until
/// [`Self::on_steps`] takes them, which is before any command is decided by what they brought.
#[derive(Debug)]
pub(super) struct UnansweredCommands {
    /// By place of the commands topic.
    indexes: BTreeMap<usize, TopicIndex>,
    /// A commands topic and the topic that replies to it are read from, by their places.
    links: Vec<(usize, usize)>,
    random: RandomState,
    /// Reused buffer.
    steps: Vec<Arc<Step>>,
}

#[derive(Debug)]
struct TopicIndex {
    index: CommandIndex,
    /// The incarnation of the topic that the index is made of.
    incarnation: u32,
}

impl UnansweredCommands {
    pub(super) const fn new(random: RandomState) -> Self {
        Self {
            indexes: BTreeMap::new(),
            links: Vec::new(),
            random,
            steps: Vec::new(),
        }
    }

    /// Takes over the routes of a snapshot.
    pub(super) fn load(&mut self, snapshot: &Snapshot, topics: &Topics) {
        let places = |(to, replies)| Some((topics.place(to)?, topics.place(replies)?));
        let strict = snapshot.linked_topics();
        let strict = strict.filter(|(to, _)| snapshot.topic(*to).is_indexed());
        self.links = strict.filter_map(places).collect();
    }

    /// What is unanswered under a command key. `None`: nothing.
    pub(super) fn get(
        &self,
        to: usize,
        key: CommandKey,
        fingerprint: Fingerprint,
    ) -> Option<Unanswered> {
        self.indexes.get(&to)?.index.get(key, fingerprint)
    }

    /// Applies the steps that a commands topic or a replies topic has made.
    pub(super) fn on_steps(
        &mut self,
        place: usize,
        topics: &mut Topics,
        snapshot: &Snapshot,
        now: Now,
    ) {
        let mut steps = std::mem::take(&mut self.steps);
        topics[place].take_unindexed(&mut steps);
        for step in steps.drain(..) {
            if self.links.iter().any(|(_, replies)| *replies == place) {
                self.on_replies(place, &step, topics, now.wall);
            } else {
                self.on_commands(place, &step, topics, snapshot, now.wall);
            }
        }
        self.steps = steps;
    }

    fn on_commands(
        &mut self,
        place: usize,
        step: &Step,
        topics: &Topics,
        snapshot: &Snapshot,
        now: UnixMillis,
    ) {
        let incarnation = topics[place].incarnation();
        let known = self.indexes.get(&place);
        if known.is_none_or(|it| it.incarnation != incarnation) {
            let settings = &snapshot.config.settings.commands;
            let limits = CommandIndexSettings {
                open_limit: settings.open_limit,
                bytes_max: settings.unanswered_memory,
            };
            let name = &snapshot.config.headers.correlation_id;
            let index = CommandIndex::new(limits, name, self.random.clone());
            self.indexes
                .insert(place, TopicIndex { index, incarnation });
        }
        let Some(of_topic) = self.indexes.get_mut(&place) else {
            return;
        };
        let replies = self.links.iter().filter(|(to, _)| *to == place);
        let replies: Vec<usize> = replies.map(|(_, replies)| *replies).collect();
        let is_answered = |id: CorrelationId| {
            let mut tables = replies.iter().filter_map(|at| topics[*at].commands());
            tables.any(|commands| commands.has_reply(id))
        };
        of_topic.index.apply(step, is_answered, now);
    }

    fn on_replies(&mut self, place: usize, step: &Step, topics: &Topics, now: UnixMillis) {
        let (Change::Records(batch), Some(commands)) = (&step.change, topics[place].commands())
        else {
            return;
        };
        let of_place = self.links.iter().filter(|(_, replies)| *replies == place);
        for (to, _) in of_place {
            if let Some(of_topic) = self.indexes.get_mut(to) {
                on_replies(&mut of_topic.index, batch, commands.table.names(), now);
            }
        }
    }

    /// Drops commands that are in flight no longer. Returns true if more is due.
    #[must_use]
    pub(super) fn expire(&mut self, now: UnixMillis) -> bool {
        let indexes = self.indexes.values_mut();
        indexes.fold(false, |more, it| it.index.expire(now) | more)
    }
}

fn on_replies(
    index: &mut CommandIndex,
    batch: &Batch,
    names: &crate::command::ReplyHeaders,
    now: UnixMillis,
) {
    for record in batch.iter() {
        let value = record.headers.last(&names.correlation_id);
        if let Some(id) = value.and_then(CorrelationId::parse) {
            let retry = Reply::is_retry(&record, names);
            index.on_reply(id, retry, record.timestamp, now);
        }
    }
}
