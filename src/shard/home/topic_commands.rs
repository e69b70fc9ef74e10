//! The commands that wait for a topic: for its replies, or for their append to it.

use std::sync::Arc;

use crate::command::Expired;
use crate::kafka::{Client, Event, TopicHandle, TopicView};
use crate::log::Step;
use crate::model::{ExchangeId, Instant, Now};

use super::commands::Commands;
use crate::shard::outbox::Outbox;
use crate::shard::snapshot::Snapshot;
use crate::shard::topic_plan::TopicPlan;

/// The tables of commands of one topic, and what a table elsewhere needs of its steps.
#[derive(Debug)]
pub(super) struct TopicCommands {
    /// Where the topic holds replies: the commands that wait for them.
    replies: Option<Commands>,
    /// Where the topic takes one-way commands: those that wait for their append. No topic holds
    /// replies too. The table's index of replies stays empty.
    one_way: Option<Commands>,
    /// Steps that the tables of its replies have not seen. `None`: no strict route needs them.
    unindexed: Option<Vec<Arc<Step>>>,
}

impl TopicCommands {
    pub(super) fn new(
        plan: &TopicPlan,
        snapshot: &Snapshot,
        handle: TopicHandle,
        random: &ahash::RandomState,
    ) -> Self {
        let table = || {
            let mut commands = Commands::new(&snapshot.config, handle, random.clone());
            if plan.strict {
                commands.index_unanswered(&snapshot.config);
            }
            commands
        };
        Self {
            replies: plan.holds_replies.then(table),
            one_way: plan.takes_one_way.then(table),
            unindexed: plan.is_indexed().then(Vec::new),
        }
    }

    /// The commands that wait for the topic. `None`: none does.
    pub(super) fn waiting(&self) -> Option<&Commands> {
        self.replies.as_ref().or(self.one_way.as_ref())
    }

    /// Like [`Self::waiting`], for a change.
    pub(super) fn waiting_mut(&mut self) -> Option<&mut Commands> {
        self.replies.as_mut().or(self.one_way.as_mut())
    }

    /// The commands that wait for replies of the topic. `None`: it holds no replies.
    pub(super) const fn of_replies(&self) -> Option<&Commands> {
        self.replies.as_ref()
    }

    /// Like [`Self::of_replies`], for a change.
    pub(super) const fn of_replies_mut(&mut self) -> Option<&mut Commands> {
        self.replies.as_mut()
    }

    /// The topic's retention may have changed.
    pub(super) fn on_retention(&mut self, view: &TopicView) {
        if let Some(commands) = &mut self.replies {
            commands.on_retention(view);
        }
    }

    /// The topic is loaded from the start: replies of another log are void.
    pub(super) fn on_new_log(&mut self, view: &TopicView, client: &mut Client, out: &mut Outbox) {
        if let Some(commands) = &mut self.replies {
            commands.on_new_log(view, client, out);
        }
    }

    /// Handles an event of a read by offset. Returns it if the topic holds no replies, so that the
    /// read belongs to its history.
    pub(super) fn on_read(
        &mut self,
        event: Event,
        client: &mut Client,
        out: &mut Outbox,
    ) -> Option<Event> {
        let Some(commands) = &mut self.replies else {
            return Some(event);
        };
        commands.on_read(event, client, out);
        None
    }

    /// Applies a step of the topic. `live`: it is loaded. Returns what to log.
    pub(super) fn on_step(
        &mut self,
        step: &Arc<Step>,
        live: bool,
        now: Now,
        out: &mut Outbox,
    ) -> impl Iterator<Item = String> + use<> {
        if let Some(unindexed) = &mut self.unindexed {
            unindexed.push(step.clone());
        }
        let notices = self.replies.as_mut().map(|commands| {
            commands.apply(step, live, now, out);
            commands.notices(now)
        });
        notices.into_iter().flatten()
    }

    /// Whether steps wait for the index of unanswered commands.
    pub(super) fn has_unindexed(&self) -> bool {
        self.unindexed.as_ref().is_some_and(|it| !it.is_empty())
    }

    /// Moves the steps that the index of unanswered commands has not seen to `steps`.
    pub(super) fn take_unindexed(&mut self, steps: &mut Vec<Arc<Step>>) {
        if let Some(unindexed) = &mut self.unindexed {
            steps.append(unindexed);
        }
    }

    /// Moves commands past their deadline to `expired`. Returns true if more is due at once.
    #[must_use]
    pub(super) fn expire(
        &mut self,
        now: Now,
        expired: &mut Vec<Expired<ExchangeId>>,
        client: &mut Client,
        out: &mut Outbox,
    ) -> bool {
        let commands = self.waiting_mut();
        commands.is_some_and(|it| it.on_time(now, expired, client, out))
    }

    /// When [`Self::expire`] next has work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting().and_then(Commands::next_deadline)
    }
}
