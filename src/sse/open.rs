//! Where a stream starts, and where it goes on: what a client holds against what this peer has.

use super::feed::Feed;
use super::lines;
use super::request::{Need, Start, Subscribe};
use super::subscriber::{Cursor, Held, Pages, Slot, Source};
use crate::log::{Cut, EventId, GapReason, Next};
use crate::model::{Now, Partition, UnixMillis};

impl Feed {
    /// Writes a new subscriber's first bytes and decides what it reads.
    pub(super) fn open(&mut self, slot: Slot, request: &Subscribe<'_>, now: Now) {
        let base = u64::try_from(self.settings.retry.as_millis()).unwrap_or(u64::MAX);
        let millis = base / 2 + self.random.below(base.max(1));
        lines::put_retry(&mut self.subscribers.get_mut(slot).own().rest, millis);
        let Some(text) = request.last_event_id.filter(|id| !id.is_empty()) else {
            return self.start(slot, request.start, None, now);
        };
        match EventId::parse(text).map(|id| id.progress) {
            Err(_) => self.start(slot, request.start, Some(GapReason::Unreadable), now),
            // What it has does not count, so it starts as one who has nothing.
            Ok(None) => self.start(slot, request.start, None, now),
            Ok(Some(progress)) if progress.tag != self.settings.tag => {
                // Every record of the new log is new to it.
                let start = match self.settings.compacted {
                    true => Start::Snapshot,
                    false => Start::Earliest,
                };
                self.start(slot, start, Some(GapReason::Recreated), now);
            }
            Ok(Some(progress)) => {
                let own = self.subscribers.get_mut(slot).own();
                own.rest.push(b'\n');
                own.held = Some(Held::private(progress.cut, progress.time));
                self.go_on(slot, now);
            }
        }
    }

    /// Starts one who holds nothing, after telling it why, if it thought otherwise. The id comes
    /// first, or a client cut before its first event would start over and lose what came meanwhile.
    fn start(&mut self, slot: Slot, start: Start, why: Option<GapReason>, now: Now) {
        let snapshot = start == Start::Snapshot && self.settings.compacted;
        let held = match start {
            Start::Live => Held::private(self.window.cut().clone(), self.time),
            Start::Snapshot if snapshot => Held::start_over(),
            Start::Earliest | Start::Snapshot => Held::private(self.log_start.clone(), self.time),
        };
        self.subscribers.get_mut(slot).own().held = Some(held);
        if let Some(why) = why {
            self.counts.gaps += 1;
            self.put_gap(slot, None, why);
        } else if !snapshot {
            self.put_position(slot);
        } else {
            self.subscribers.get_mut(slot).own().rest.push(b'\n');
        }
        let earliest = start == Start::Earliest && self.settings.compacted;
        match snapshot || earliest {
            // A client that has seen nothing can't have missed a delete: send no `tombstones` gap,
            // however old the topic's time is.
            true if earliest && self.read_from_window(slot) => {}
            true => self.start_pages(slot),
            false => self.go_on(slot, now),
        }
    }

    /// Decides what one reads from here who holds V: the window if it covers V, else *changes* or a
    /// catch-up read. What is gone for ever is told first.
    pub(super) fn go_on_checked(&mut self, slot: Slot, now: Now) {
        if self.read_from_window(slot) {
            return;
        }
        let lost: Vec<(Partition, Next)> = {
            let held = self.held(slot);
            let is_lost = |(p, start): &(Partition, Next)| start.offset > held.cut.get(*p).offset;
            self.log_start.iter().filter(is_lost).collect()
        };
        for (partition, start) in lost {
            let held = self.held_mut(slot);
            let from = held.cut.get(partition).offset;
            held.cut.set(partition, start);
            self.counts.gaps += 1;
            let missing = (partition, from, start.offset);
            self.put_gap(slot, Some(missing), GapReason::Retention);
        }
        if self.read_from_window(slot) {
            return;
        }
        if !self.settings.compacted {
            let (catch_up, frame) = (None, u32::MAX);
            self.subscribers.get_mut(slot).own().source = Source::CatchUp { catch_up, frame };
            self.ask(slot);
            return;
        }
        let held = self.held_mut(slot);
        if !held.over && !self.deletes_kept_since(self.held(slot).time, now.wall) {
            *self.held_mut(slot) = Held::start_over();
            self.counts.gaps += 1;
            self.put_gap(slot, None, GapReason::Tombstones);
        }
        self.start_pages(slot);
    }

    /// Whether a delete of any moment since `time` is still in the log: 10 % are kept in hand.
    fn deletes_kept_since(&self, time: UnixMillis, now: UnixMillis) -> bool {
        let kept = self.settings.delete_retention.as_millis();
        let away = i128::from(now.0) - i128::from(time.0);
        away <= i128::try_from(kept / 10 * 9).unwrap_or(i128::MAX)
    }

    fn read_from_window(&mut self, slot: Slot) -> bool {
        let encoding = self.subscribers.group(slot).encoding as usize;
        let held = self.held(slot);
        if held.over {
            return false;
        }
        let Some(seq) = self.window.start_for(encoding, &held.cut) else {
            return false;
        };
        let subscriber = self.subscribers.get_mut(slot);
        subscriber.cursor = Cursor::at(seq);
        subscriber.own().source = Source::Rejoining;
        true
    }

    /// *changes(V, now)*, V being what the subscriber holds.
    pub(super) fn start_pages(&mut self, slot: Slot) {
        let pages = Box::new(Pages {
            seq: self.window.newest(),
            below: self.window.cut().clone(),
            time: self.time,
            after: None,
            asked: true,
        });
        let own = self.subscribers.get_mut(slot).own();
        own.source = Source::Pages(pages);
        self.ask(slot);
    }

    /// What to ask for outside.
    pub fn next_need(&mut self) -> Option<Need> {
        loop {
            let ticket = self.needs.pop_front()?;
            let Some(slot) = self.asker(ticket) else {
                continue;
            };
            let group = self.subscribers.group(slot);
            let (encoding, key) = (group.encoding as usize, group.key.clone());
            let own = self.subscribers.get(slot).own.as_ref();
            let Some((own, held)) = own.and_then(|own| Some((own, own.held.as_ref()?))) else {
                continue;
            };
            match &own.source {
                Source::Pages(pages) => {
                    return Some(Need::Page {
                        ticket,
                        since: held.cut.clone(),
                        below: pages.below.clone(),
                        seq: pages.seq,
                        after: pages.after,
                        key,
                    });
                }
                Source::AwaitingEpochCheck => {
                    let places = self.doubtful(held);
                    return Some(Need::Places { ticket, places });
                }
                Source::CatchUp { catch_up: None, .. } => {
                    let from = held.cut.clone();
                    return Some(Need::CatchUp {
                        ticket,
                        from,
                        encoding,
                    });
                }
                _ => {}
            }
        }
    }

    /// What a subscriber holds that does not share the window.
    pub(super) fn held(&self, slot: Slot) -> &Held {
        let own = self.subscribers.get(slot).own.as_ref();
        own.and_then(|own| own.held.as_ref())
            .expect("who reads history or an overlap holds something of its own")
    }

    pub(super) fn held_mut(&mut self, slot: Slot) -> &mut Held {
        let own = self.subscribers.get_mut(slot).own.as_mut();
        own.and_then(|own| own.held.as_mut())
            .expect("who reads history or an overlap holds something of its own")
    }

    /// Writes the text of what a subscriber holds into `self.id` unless it starts over.
    fn write_id(&mut self, slot: Slot) -> bool {
        let own = self.subscribers.get(slot).own.as_ref();
        let held = own.and_then(|own| own.held.as_ref());
        let held = held.expect("called for those who hold something of their own");
        if !held.over {
            self.id.reset(held.time, &held.cut);
        }
        held.over
    }

    /// A gap of one subscriber, with the id it now has.
    pub(super) fn put_gap(
        &mut self,
        slot: Slot,
        missing: Option<lines::Missing>,
        reason: GapReason,
    ) {
        let rest = &mut self.subscribers.get_mut(slot).own().rest;
        lines::put_gap(rest, missing, reason);
        self.put_held_id(slot);
    }

    /// Sends the subscriber's position in a form that every reader remembers. Without it, a reader
    /// that is cut off before its next event would start again and miss the events in between.
    pub(super) fn put_position(&mut self, slot: Slot) {
        if self.settings.position_events {
            lines::put_position(&mut self.subscribers.get_mut(slot).own().rest);
        }
        self.put_held_id(slot);
    }

    /// An `id:` line of what the subscriber holds, and the blank line.
    pub(super) fn put_held_id(&mut self, slot: Slot) {
        let over = self.write_id(slot);
        let rest = &mut self.subscribers.get_mut(slot).own().rest;
        let progress = match over {
            true => lines::START_OVER,
            false => self.id.as_bytes(),
        };
        lines::put_id(rest, progress, b"");
    }
}

impl Held {
    pub(super) fn start_over() -> Self {
        let over = true;
        Self {
            over,
            ..Self::private(Cut::start(), UnixMillis(0))
        }
    }
}
