//! The subscribers of a feed, and the rotation in which they are served. Subscribers with the same
//! encoding and filter are a *group*. Those with nothing to read are in the group's idle list. A
//! frame for the group moves the list as a whole into the rotation, as one *run* with one cursor.
//! So a frame costs one lookup and one move, whatever the number of subscribers, and a subscriber
//! is not touched before its turn.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::cursor::Cursor;
use super::request::{Filter, Slow};
use super::subscriber::{NONE, Place, Slot, Subscriber};
use crate::log::{Block, Seq};
use crate::model::{ExchangeId, KeyHash, u32_of};

/// Subscribers of one encoding and filter.
#[derive(Debug)]
pub(super) struct Group {
    /// The filter: only records with this key. `None`: every record.
    pub(super) key: Option<(KeyHash, Box<[u8]>)>,
    /// Index into a step's blocks.
    pub(super) encoding: u32,
    /// The last frame that may be for the group. A member past it has nothing to read.
    pub(super) last: Cursor,
    members: u32,
    /// Counts the moves of the idle list into the rotation. A member that went idle in an earlier
    /// epoch is in a run now.
    epoch: u32,
    idle_head: Slot,
    idle_tail: Slot,
    /// The next group with the same hash of its key.
    chain: u32,
}

impl Group {
    /// Whether frame `index` of a block is for the group. The key's bytes decide, not its hash.
    pub(super) fn takes(&self, block: &Block, index: usize) -> bool {
        let Some((hash, key)) = &self.key else {
            return true;
        };
        let frame = &block.frames()[index];
        frame.notice || (frame.key_hash == *hash && block.key(index) == Some(key))
    }
}

/// Passes key hashes on: they are keyed SipHash already, so a client can't choose colliding keys.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The groups of one encoding.
#[derive(Debug, Default)]
struct Index {
    all: Option<u32>,
    by_key: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
}

/// Subscribers that are neighbours in the rotation, as a linked list.
#[derive(Debug)]
struct Run {
    head: Slot,
    tail: Slot,
    /// Where subscribers that were idle start to read. A queued one has a cursor of its own.
    cursor: Cursor,
}

/// All subscribers of a feed.
#[derive(Debug, Default)]
pub(super) struct SubscriberIndex {
    slab: Vec<Subscriber>,
    free: Vec<Slot>,
    /// By the slot of the exchange, which is dense on a shard.
    by_exchange: Vec<Slot>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    indices: Vec<Index>,
    runs: VecDeque<Run>,
    len: usize,
}

impl SubscriberIndex {
    pub(super) fn new(encodings: usize) -> Self {
        let indices = (0..encodings).map(|_| Index::default()).collect();
        Self {
            indices,
            ..Self::default()
        }
    }

    /// How many subscribers there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The highest slot that was ever used, plus 1.
    pub(super) const fn slots(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn find(&self, exchange: ExchangeId) -> Option<Slot> {
        let slot = self.find_predecessor(exchange)?;
        (self.get(slot).exchange == exchange).then_some(slot)
    }

    /// The subscriber that has the slot of this exchange: the exchange itself, or an earlier
    /// exchange of the same slot.
    pub(super) fn find_predecessor(&self, exchange: ExchangeId) -> Option<Slot> {
        let slot = *self.by_exchange.get(exchange.slot as usize)?;
        (slot != NONE).then_some(slot)
    }

    pub(super) fn get(&self, slot: Slot) -> &Subscriber {
        &self.slab[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Subscriber {
        &mut self.slab[slot as usize]
    }

    /// A subscriber to change, and its group.
    pub(super) fn split(&mut self, slot: Slot) -> (&mut Subscriber, &Group) {
        let subscriber = &mut self.slab[slot as usize];
        let group = &self.groups[subscriber.group as usize];
        (subscriber, group)
    }

    /// The subscriber's group: its encoding and filter.
    pub(super) fn group(&self, slot: Slot) -> &Group {
        &self.groups[self.get(slot).group as usize]
    }

    /// Adds a subscriber that is in no list yet. `newest` is the newest step: the window may have
    /// frames for a new group up to there.
    pub(super) fn add(
        &mut self,
        exchange: ExchangeId,
        encoding: usize,
        filter: Filter<'_>,
        slow: Slow,
        newest: Seq,
    ) -> Slot {
        let group = self.join(encoding, filter, newest);
        let new = Subscriber {
            cursor: Cursor::after(newest),
            exchange,
            group,
            prev: NONE,
            next: NONE,
            epoch: 0,
            place: Place::Current,
            slow,
            heartbeat: false,
            own: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot as usize] = new;
                slot
            }
            None => {
                self.slab.push(new);
                u32_of(self.slab.len()) - 1
            }
        };
        let index = exchange.slot as usize;
        if index >= self.by_exchange.len() {
            self.by_exchange.resize(index + 1, NONE);
        }
        self.by_exchange[index] = slot;
        self.len += 1;
        slot
    }

    /// Removes a subscriber. Its slot is free at once, or, if the subscriber is in a run, once the
    /// run reaches it: unlinking it there would need the neighbours of every run.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.leave_idle(slot);
        let subscriber = &mut self.slab[slot as usize];
        let (index, group) = (subscriber.exchange.slot as usize, subscriber.group);
        subscriber.own = None;
        match subscriber.place {
            Place::Idle | Place::Queued => subscriber.place = Place::Gone,
            Place::Current | Place::Blocked | Place::Waiting => {
                subscriber.place = Place::Gone;
                self.free.push(slot);
            }
            Place::Gone => unreachable!("an exchange leads only to a present subscriber"),
        }
        self.by_exchange[index] = NONE;
        self.len -= 1;
        self.leave(group);
    }

    /// A step has a block under `encoding`: wakes the groups for which it has frames.
    pub(super) fn on_block(&mut self, encoding: usize, seq: Seq, block: &Block) {
        let index = &self.indices[encoding];
        if let Some(all) = index.all {
            self.groups[all as usize].last = Cursor::end_of(seq);
            self.wake(all, Cursor::at(seq));
        }
        if self.indices[encoding].by_key.is_empty() {
            return;
        }
        for (number, frame) in block.frames().iter().enumerate() {
            if frame.notice {
                self.wake_all(encoding, seq);
                continue;
            }
            let index = &self.indices[encoding];
            let mut at = index.by_key.get(&frame.key_hash.0).copied().unwrap_or(NONE);
            while at != NONE {
                let group = &mut self.groups[at as usize];
                let (this, next) = (at, group.chain);
                if group.takes(block, number) {
                    let frame = u32_of(number);
                    group.last = Cursor { seq, frame };
                    self.wake(this, Cursor { seq, frame });
                }
                at = next;
            }
        }
    }

    /// Something at step `seq` concerns every subscriber of the encoding. Rare.
    pub(super) fn wake_all(&mut self, encoding: usize, seq: Seq) {
        for at in 0..self.groups.len() {
            let group = &mut self.groups[at];
            if group.members > 0 && group.encoding as usize == encoding {
                group.last = Cursor::end_of(seq);
                self.wake(u32_of(at), Cursor::at(seq));
            }
        }
    }

    fn wake(&mut self, at: u32, cursor: Cursor) {
        let group = &mut self.groups[at as usize];
        if group.idle_head == NONE {
            return;
        }
        let (head, tail) = (group.idle_head, group.idle_tail);
        (group.idle_head, group.idle_tail) = (NONE, NONE);
        group.epoch = group.epoch.wrapping_add(1);
        self.runs.push_back(Run { head, tail, cursor });
    }

    /// Whether [`Self::pop`] returns a subscriber.
    pub(super) fn has_pending(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Takes the next subscriber of the rotation. It is [`Place::Current`] now.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        loop {
            let run = self.runs.front_mut()?;
            let (slot, cursor) = (run.head, run.cursor);
            let subscriber = &mut self.slab[slot as usize];
            run.head = subscriber.next;
            if run.tail == slot {
                self.runs.pop_front();
            }
            match subscriber.place {
                Place::Gone => {
                    self.free.push(slot);
                    continue;
                }
                Place::Idle => subscriber.cursor = cursor,
                _ => {}
            }
            subscriber.place = Place::Current;
            return Some(slot);
        }
    }

    /// Appends a detached subscriber to the rotation as a run of one, keeping its cursor.
    pub(super) fn queue(&mut self, slot: Slot) {
        let subscriber = &mut self.slab[slot as usize];
        subscriber.place = Place::Queued;
        (subscriber.prev, subscriber.next) = (NONE, NONE);
        let (head, tail, cursor) = (slot, slot, subscriber.cursor);
        self.runs.push_back(Run { head, tail, cursor });
    }

    /// Queues a subscriber that waits for an answer.
    pub(super) fn wake_waiting(&mut self, slot: Slot) {
        if self.get(slot).place == Place::Waiting {
            self.queue(slot);
        }
    }

    /// Appends a detached subscriber that has read everything to its group's idle list.
    pub(super) fn go_idle(&mut self, slot: Slot) {
        let subscriber = &mut self.slab[slot as usize];
        let group = &mut self.groups[subscriber.group as usize];
        subscriber.place = Place::Idle;
        subscriber.epoch = group.epoch;
        (subscriber.prev, subscriber.next) = (group.idle_tail, NONE);
        match group.idle_tail {
            NONE => group.idle_head = slot,
            tail => self.slab[tail as usize].next = slot,
        }
        group.idle_tail = slot;
    }

    /// Removes a subscriber from its group's idle list. Returns false if it is not in it.
    pub(super) fn leave_idle(&mut self, slot: Slot) -> bool {
        let subscriber = &mut self.slab[slot as usize];
        let group = &mut self.groups[subscriber.group as usize];
        if subscriber.place != Place::Idle || subscriber.epoch != group.epoch {
            return false;
        }
        subscriber.place = Place::Current;
        let (prev, next) = (subscriber.prev, subscriber.next);
        match prev {
            NONE => group.idle_head = next,
            prev => self.slab[prev as usize].next = next,
        }
        match next {
            NONE => group.idle_tail = prev,
            next => self.slab[next as usize].prev = prev,
        }
        true
    }

    fn join(&mut self, encoding: usize, filter: Filter<'_>, newest: Seq) -> u32 {
        if let Some(at) = self.find_group(encoding, filter) {
            self.groups[at as usize].members += 1;
            return at;
        }
        let new = Group {
            key: filter.key.map(|(hash, key)| (hash, key.into())),
            encoding: u32_of(encoding),
            last: Cursor::end_of(newest),
            members: 1,
            epoch: 0,
            idle_head: NONE,
            idle_tail: NONE,
            chain: NONE,
        };
        let at = match self.free_groups.pop() {
            Some(at) => {
                self.groups[at as usize] = new;
                at
            }
            None => {
                self.groups.push(new);
                u32_of(self.groups.len()) - 1
            }
        };
        let index = &mut self.indices[encoding];
        match filter.key {
            None => index.all = Some(at),
            Some((hash, _)) => {
                let chain = index.by_key.insert(hash.0, at).unwrap_or(NONE);
                self.groups[at as usize].chain = chain;
            }
        }
        at
    }

    fn find_group(&self, encoding: usize, filter: Filter<'_>) -> Option<u32> {
        let index = &self.indices[encoding];
        let Some((hash, key)) = filter.key else {
            return index.all;
        };
        let mut at = *index.by_key.get(&hash.0)?;
        while at != NONE {
            let group = &self.groups[at as usize];
            if group
                .key
                .as_ref()
                .is_some_and(|(_, theirs)| **theirs == *key)
            {
                return Some(at);
            }
            at = group.chain;
        }
        None
    }

    fn leave(&mut self, at: u32) {
        let group = &mut self.groups[at as usize];
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        let index = &mut self.indices[group.encoding as usize];
        let chain = group.chain;
        match group.key.take() {
            None => index.all = None,
            Some((hash, _)) => {
                let first = index.by_key.get_mut(&hash.0).expect("a group is indexed");
                match (*first == at, chain) {
                    (true, NONE) => {
                        index.by_key.remove(&hash.0);
                    }
                    (true, next) => *first = next,
                    (false, next) => {
                        let mut before = *first;
                        while self.groups[before as usize].chain != at {
                            before = self.groups[before as usize].chain;
                        }
                        self.groups[before as usize].chain = next;
                    }
                }
            }
        }
        self.free_groups.push(at);
    }
}
