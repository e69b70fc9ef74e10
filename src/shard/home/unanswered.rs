//! Brings the steps of a commands topic to the tables of its replies, for routes with
//! `dedupe = "strict"`: each table keeps an index of the commands that no reply has answered,
//! whichever instance appended them.

use std::sync::Arc;

use crate::log::Step;
use crate::model::UnixMillis;
use crate::shard::snapshot::Snapshot;

use super::topics::Topics;

/// Which commands topics belong to which tables.
///
/// The commands topic and its replies topics are read independently. A commands topic keeps its
/// steps until [`Self::on_steps`] takes them, which is before any command is decided by what they
/// brought. A log that is read again counts its unanswered records twice. That matters only for
/// `retry: true` replies, and for `commands.open_limit`.
#[derive(Debug, Default)]
pub(super) struct UnansweredCommands {
    /// A commands topic and the topic with the table of its commands, by their places.
    links: Vec<(usize, usize)>,
    /// Reused buffer.
    steps: Vec<Arc<Step>>,
}

impl UnansweredCommands {
    /// Takes over the routes of a snapshot.
    pub(super) fn load(&mut self, snapshot: &Snapshot, topics: &Topics) {
        let places = |(to, table)| Some((topics.place(to)?, topics.place(table)?));
        let strict = snapshot.linked_topics();
        let strict = strict.filter(|(to, _)| snapshot.topic(*to).is_indexed());
        self.links = strict.filter_map(places).collect();
        // Routes may share their topics. Each step is applied once.
        self.links.sort_unstable();
        self.links.dedup();
    }

    /// Applies the steps that a commands topic has made.
    pub(super) fn on_steps(&mut self, place: usize, topics: &mut Topics, now: UnixMillis) {
        let mut steps = std::mem::take(&mut self.steps);
        topics[place].take_unindexed(&mut steps);
        for (_, table) in self.links.iter().filter(|(to, _)| *to == place) {
            if let Some(commands) = topics[*table].commands_mut() {
                for step in &steps {
                    commands.table.apply_commands(step, now);
                }
            }
        }
        steps.clear();
        self.steps = steps;
    }
}
