//! Whether what a client holds is of the log this peer reads. An unclean election cuts a log back,
//! and another leader epoch writes other records there: the log has branches, and ids of a lost one
//! are still about. A place (offset and the epoch of the record before it) is on our branch if our
//! own cut was at or past it in that epoch.

use std::collections::VecDeque;

use super::feed::Feed;
use super::request::Ticket;
use super::subscriber::{Held, Place, Slot, Source};
use crate::log::{Cut, GapReason, Next};
use crate::model::{LeaderEpoch, Now, Partition};

/// Changes of epoch remembered a partition. Who comes with an older one costs a question.
const TURNS_MAX: usize = 8;

/// Where the cut of this peer stood when epochs changed.
#[derive(Debug, Default)]
pub(super) struct Branch {
    /// Per partition, the cut before each change of epoch, oldest first.
    turns: Vec<VecDeque<Next>>,
}

/// A partition whose epoch has changed: its cut before, and the epoch after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    partition: Partition,
    before: Next,
    after: LeaderEpoch,
}

/// What can be said of a place here; the worse, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// It is on our branch, or can't be told.
    Fine,
    /// Only the partition's leader knows.
    Ask,
    /// It is of a newer epoch than what we have read beyond it: we are on a lost branch.
    Ahead,
}

impl Branch {
    /// The cut moves. Gives the partitions whose epoch changes with it.
    pub(super) fn on_cut(&mut self, before: &Cut, after: &Cut) -> Vec<Turn> {
        let turn = |(partition, next): (Partition, Next)| {
            let before = before.get(partition);
            let after = next.epoch;
            (before.epoch != after).then_some(Turn {
                partition,
                before,
                after,
            })
        };
        let turned: Vec<Turn> = after.iter().filter_map(turn).collect();
        for turn in turned.iter().filter(|turn| turn.before.epoch.0.is_some()) {
            let index = turn.partition.0 as usize;
            if index >= self.turns.len() {
                self.turns.resize_with(index + 1, VecDeque::new);
            }
            let turns = &mut self.turns[index];
            turns.push_back(turn.before);
            if turns.len() > TURNS_MAX {
                turns.pop_front();
            }
        }
        turned
    }

    fn judge(&self, ours: Next, partition: Partition, held: Next) -> Verdict {
        let (Some(epoch), true) = (held.epoch.0, held.offset.0 > 0) else {
            return Verdict::Fine;
        };
        match ours.epoch.0 {
            None => Verdict::Ask,
            // Ahead of us: we may be behind, or the log has been cut off there.
            Some(_) if held.offset > ours.offset => Verdict::Ask,
            Some(ours) if epoch == ours => Verdict::Fine,
            // At our own place, it may have been made before any record of its epoch.
            Some(newest) if epoch > newest && held.offset == ours.offset => Verdict::Fine,
            Some(newest) if epoch > newest => Verdict::Ahead,
            Some(_) => {
                let turns = self.turns.get(partition.0 as usize);
                let passed = |at: &Next| at.epoch == held.epoch && held.offset <= at.offset;
                match turns.is_some_and(|turns| turns.iter().any(passed)) {
                    true => Verdict::Fine,
                    false => Verdict::Ask,
                }
            }
        }
    }
}

impl Feed {
    /// Goes on with what one holds, once it is sure to be in the log.
    pub(super) fn go_on(&mut self, slot: Slot, now: Now) {
        let verdict = self.verdict(self.held(slot));
        let own = self.subscribers.get_mut(slot).own();
        match verdict {
            Verdict::Fine => self.go_on_checked(slot, now),
            Verdict::Ask => {
                own.source = Source::AwaitingEpochCheck;
                self.ask(slot);
            }
            // It comes again; by then we have noticed.
            Verdict::Ahead => own.source = Source::Disconnecting,
        }
    }

    /// The worst that can be said of what a client holds.
    fn verdict(&self, held: &Held) -> Verdict {
        let ours = self.window.cut();
        let each = held.cut.iter();
        let each = each.map(|(p, held)| self.branch.judge(ours.get(p), p, held));
        each.max().unwrap_or(Verdict::Fine)
    }

    /// The places to ask the leaders about.
    pub(super) fn doubtful(&self, held: &Held) -> Vec<(Partition, Next)> {
        let ours = self.window.cut();
        let doubtful =
            |(p, held): &(_, _)| self.branch.judge(ours.get(*p), *p, *held) == Verdict::Ask;
        held.cut.iter().filter(doubtful).collect()
    }

    /// The leaders have said where the log still has what a client holds: `ends` names the
    /// partitions where it holds more. `None`: they could not be asked, so the client is closed.
    pub fn on_checked(&mut self, ticket: Ticket, ends: Option<&[(Partition, Next)]>, now: Now) {
        let Some(slot) = self.asker(ticket) else {
            return;
        };
        if !matches!(
            self.subscribers.get_mut(slot).own().source,
            Source::AwaitingEpochCheck
        ) {
            return;
        }
        match ends {
            None => self.subscribers.get_mut(slot).own().source = Source::Disconnecting,
            Some(ends) => {
                self.cut_back(slot, ends);
                self.go_on_checked(slot, now);
            }
        }
        self.wake_waiting(slot);
    }

    /// Tells one what it holds of a lost branch. Of a log it gets the records that are there
    /// instead; on a compacted topic keys may be older again than what it was shown, so it gets a
    /// snapshot.
    fn cut_back(&mut self, slot: Slot, ends: &[(Partition, Next)]) {
        for (i, &(partition, end)) in ends.iter().enumerate() {
            let to = self.held(slot).cut.get(partition).offset;
            // Whoever is cut off between two gaps is told of the second when it comes back.
            if !self.settings.compacted {
                self.held_mut(slot).cut.set(partition, end);
            } else if i + 1 == ends.len() {
                *self.held_mut(slot) = Held::start_over();
            }
            self.counts.gaps += 1;
            let missing = (partition, end.offset, to);
            self.put_gap(slot, Some(missing), GapReason::Truncated);
        }
    }

    /// Epochs have changed: whoever is ahead of us in such a partition may hold what this epoch has
    /// cut off, which is looked at again before it gets anything more.
    pub(super) fn on_turn(&mut self, turned: &[Turn]) {
        for slot in 0..self.subscribers.slots() as Slot {
            let subscriber = self.subscribers.get(slot);
            let held = subscriber.own.as_ref().and_then(|own| own.held.as_ref());
            let doubtful = |turn: &Turn, held: &Held| {
                let at = held.cut.get(turn.partition);
                at.offset > turn.before.offset && at.epoch.0 < turn.after.0 && at.epoch.0.is_some()
            };
            let is = held.is_some_and(|held| turned.iter().any(|turn| doubtful(turn, held)));
            let own = subscriber.own.as_ref();
            let lost = own.is_some_and(|own| matches!(own.source, Source::Disconnecting));
            if !is || lost || !subscriber.is_private() {
                continue;
            }
            let waits = subscriber.place == Place::Waiting;
            self.leave_catch_up(slot);
            self.subscribers.get_mut(slot).own().source = Source::Undecided;
            if waits || self.subscribers.leave_idle(slot) {
                self.subscribers.queue(slot);
            }
        }
    }
}
