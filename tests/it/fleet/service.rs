//! A service that follows `docs/guarantees.md`: one or two instances that share the partitions of
//! the commands. An instance's state of a partition (offset, replies by correlation id, unsent
//! replies) is committed in one transaction with its effects. An instance is slow at times, and
//! crashes: before it has committed, or after a reply was appended and before that is recorded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::records::Record;
use sluicegate::model::{Instant, Partition};

use super::account::Account;
use super::records::{batch, record};
use super::response::Body;
use super::world::World;

/// A service's behaviour, by seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// A duplicate record is answered again with the same reply. Otherwise it is ignored.
    pub(super) repeats: bool,
    /// Of several requests under one command key, one is applied and the others get 409.
    pub(super) exclusive: bool,
    /// Some commands are answered with `retry: true`.
    pub(super) retries: bool,
    /// One reply of this many takes up to three seconds.
    pub(super) slow: u64,
    /// Padding bytes of a reply.
    pub(super) padding: usize,
}

/// A reply that is not sent yet.
#[derive(Clone, Debug)]
struct Reply {
    correlation: String,
    topic: String,
    status: u16,
    body: Body,
    retry: bool,
    due: Instant,
}

impl Reply {
    /// The reply as a record, at an offset within its batch.
    fn record(&self, offset: i64, wall: i64) -> Record {
        let mut made = record(offset, wall, None, Some(self.body.whole().into()));
        let status = self.status.to_string();
        let headers = [
            ("correlation-id", Some(self.correlation.as_str())),
            (":status", Some(status.as_str())),
            ("x-service", Some("1")),
            ("retry", self.retry.then_some("true")),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                let value = Bytes::copy_from_slice(value.as_bytes());
                made.headers.insert(name.into(), Some(value));
            }
        }
        made
    }
}

/// The state of one partition of commands.
#[derive(Debug)]
struct Lane {
    topic: usize,
    partition: u32,
    /// The next offset to read.
    next: u64,
    answered: BTreeMap<String, Reply>,
    outbox: VecDeque<Reply>,
}

/// All instances, and their committed state.
#[derive(Debug)]
pub(super) struct Service {
    habits: Habits,
    /// The topics of replies and their partitions.
    replies: [(&'static str, u32); 2],
    lanes: Vec<Lane>,
    /// By instance: steps until it runs again.
    down: Vec<u64>,
    /// By command key: the correlation id that was applied.
    winners: BTreeMap<String, String>,
    made: u64,
}

impl Service {
    /// A service that reads these topics from their start.
    pub(super) fn new(
        topics: &[(&'static str, u32)],
        replies: [(&'static str, u32); 2],
        habits: Habits,
        instances: u64,
    ) -> Self {
        let all = topics.iter().enumerate();
        let lanes = all.flat_map(|(topic, (_, count))| {
            (0..*count).map(move |partition| Lane {
                topic,
                partition,
                next: 0,
                answered: BTreeMap::new(),
                outbox: VecDeque::new(),
            })
        });
        Self {
            habits,
            replies,
            lanes: lanes.collect(),
            down: vec![0; instances as usize],
            winners: BTreeMap::new(),
            made: 0,
        }
    }

    /// Committed replies that are not in the log yet.
    pub(super) fn owed(&self) -> usize {
        self.lanes.iter().map(|lane| lane.outbox.len()).sum()
    }

    /// An unclean election removed a partition's records from `end` on.
    pub(super) fn on_truncated(&mut self, topic: usize, partition: u32, end: u64) {
        let mut lanes = self.lanes.iter_mut();
        let lane = lanes.find(|it| (it.topic, it.partition) == (topic, partition));
        let lane = lane.expect("the partition is read");
        lane.next = lane.next.min(end);
    }

    /// The instance of each partition sends a reply, and reads a command.
    pub(super) fn step(&mut self, world: &mut World, account: &mut Account, storm: bool) {
        for steps in &mut self.down {
            *steps = if storm { steps.saturating_sub(1) } else { 0 };
        }
        for n in 0..self.lanes.len() {
            let own = n % self.down.len();
            let other = (own + 1) % self.down.len();
            let up = |it: &usize| self.down[*it] == 0;
            // The other instance takes over after a while.
            let stand_in = Some(other).filter(|_| world.random.one_in(5));
            let Some(instance) = Some(own).filter(up).or(stand_in.filter(up)) else {
                continue;
            };
            let crashed =
                self.send(n, world, account, storm) || self.read(n, world, account, storm);
            if crashed {
                self.down[instance] = world.random.within(1, 60);
            }
        }
    }

    /// Appends the oldest replies of a partition in one batch. Returns true if the instance crashed
    /// before it recorded that, so that it will append them again.
    fn send(&mut self, n: usize, world: &mut World, account: &mut Account, storm: bool) -> bool {
        let now = world.now.mono;
        let outbox = &mut self.lanes[n].outbox;
        let Some(topic) = outbox.front().map(|first| first.topic.clone()) else {
            return false;
        };
        let together = |it: &&Reply| it.due <= now && it.topic == topic;
        let most = world.random.within(1, 3) as usize;
        let count = outbox.iter().take_while(together).take(most).count();
        if count == 0 {
            return false;
        }
        let (at, wall) = (self.partition(&topic, world), world.now.wall.0);
        let outbox = &mut self.lanes[n].outbox;
        let replies = (0..).zip(outbox.iter().take(count));
        let records: Vec<_> = replies
            .map(|(offset, it)| it.record(offset, wall))
            .collect();
        let batch = batch(&records);
        world
            .broker
            .plant(&topic, at, &batch)
            .expect("a sound batch");
        for reply in outbox.iter().take(count) {
            let said = (reply.status, &reply.body, reply.retry);
            account.on_reply(&reply.correlation, said, now);
        }
        if storm && world.random.one_in(20) {
            return true;
        }
        outbox.drain(..count);
        false
    }

    /// Any partition of a replies topic: gateways read all of them.
    fn partition(&self, topic: &str, world: &mut World) -> Partition {
        let mut topics = self.replies.iter();
        let (_, partitions) = topics
            .find(|(name, _)| *name == topic)
            .expect("a topic of replies");
        Partition(world.random.below(u64::from(*partitions)) as u32)
    }

    /// Reads the next command of a partition and commits its outcome. Returns true if the instance
    /// crashed before the commit.
    fn read(&mut self, n: usize, world: &mut World, account: &mut Account, storm: bool) -> bool {
        let lane = &self.lanes[n];
        let log = account.log(lane.topic, lane.partition);
        let next = log.partition_point(|index| account.records[*index].offset < lane.next);
        let Some(&index) = log.get(next).filter(|_| !world.random.one_in(4)) else {
            return false;
        };
        if storm && world.random.one_in(15) {
            return true;
        }
        let delay = if world.random.one_in(self.habits.slow) {
            world.random.below(3_000)
        } else {
            0
        };
        let due = world.now.mono.after(Duration::from_millis(delay));
        let retry = self.habits.retries && storm && world.random.one_in(6);
        let command = &account.records[index];
        let (correlation, key) = (command.correlation.clone(), command.key().to_owned());
        let reply_to = command.reply_to.clone();
        let asked = command.body.clone();
        let lane = &mut self.lanes[n];
        lane.next = command.offset + 1;
        if let Some(before) = lane.answered.get(&correlation) {
            if self.habits.repeats {
                let due = due.max(before.due);
                lane.outbox.push_back(Reply {
                    due,
                    ..before.clone()
                });
            }
            return false;
        }
        self.made += 1;
        let winner = self.winners.get(&key).filter(|_| self.habits.exclusive);
        let status = match winner {
            _ if retry => 503,
            Some(winner) if *winner != correlation => 409,
            _ => 200,
        };
        let number = self.made;
        let padding = " ".repeat(self.habits.padding);
        let reply = Reply {
            body: Body::new(&format!("{status} {number} {correlation} {asked}{padding}")),
            correlation: correlation.clone(),
            topic: reply_to,
            status,
            retry,
            due,
        };
        if !retry {
            lane.answered.insert(correlation.clone(), reply.clone());
        }
        lane.outbox.push_back(reply);
        if status == 200 {
            account.on_applied(&correlation);
            self.winners.insert(key, correlation);
        }
        false
    }
}
