//! Commands: callers that retry at any gateway under the same key, services that are slow and
//! crash, and brokers that append and lose the response. Every step is checked by the [`Account`].

use sluicegate::broker::{Failing, ResponseError};
use sluicegate::model::{Instant, Partition};
use std::time::Duration;

use super::account::{Account, Dedupe, Known};
use super::caller::{Caller, Request};
use super::random::Random;
use super::service::{Habits, Service};
use super::tally::Tally;
use super::world::{Scenario, World};

/// The topics of commands. The first has keys, the second has none.
const TOPICS: [&str; 2] = ["orders", "notes"];
/// The topics of replies. In half of the worlds all routes share the first.
const REPLIES: [&str; 2] = ["replies", "note-replies"];
/// Identities that the fleet invents. Callers of both use the same idempotency keys.
const IDENTITIES: [&str; 2] = ["ann", "bob"];
/// Keys that several callers share.
const SHARED_KEYS: u64 = 4;
/// Most commands of one caller.
const COMMANDS_MAX: u64 = 16;
/// Bytes of a reply in one of eight worlds. They exceed `commands.replies_bytes_max`, so that some
/// replies are read from the log again.
const LARGE: usize = 60_000;
/// How long nothing may happen before a world counts as settled.
const QUIET: Duration = Duration::from_secs(1);

/// Callers, a service, and the account of both.
pub(super) struct Commands {
    topics: [(&'static str, u32); 2],
    replies: [(&'static str, u32); 2],
    callers: Vec<Caller>,
    service: Service,
    account: Account,
    /// Whether produce requests fail and leaders move.
    faulty: bool,
    /// Whether unclean elections remove commands: in a quarter of the faulty worlds. They remove no
    /// replies, since a gateway that has not read a reply could not notice before `open_limit`.
    unclean: bool,
    phase: Phase,
    status: String,
}

/// The phases of the calm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Every caller retries until it has a result.
    Asking,
    /// Every caller sends its answered requests once more.
    AskingAgain,
    /// No request has been sent since then.
    Quiet(Instant),
}

/// Settings that all gateways of one world share.
#[derive(Clone, Copy, Debug)]
struct Limits {
    delivery_timeout: u64,
    open_limit: u64,
    waiters_max: u64,
    shared_replies: bool,
    dedupe: Dedupe,
}

fn config(limits: Limits, random: &mut Random) -> String {
    // Limits are reduced by seed, so that they are hit.
    let timeout = *random.pick(&["200ms", "1s", "3s"]);
    let open_max = *random.pick(&[4, 100]);
    let Limits {
        delivery_timeout,
        open_limit,
        waiters_max,
        shared_replies,
        dedupe,
    } = limits;
    let dedupe = dedupe.name();
    let mut text = format!(
        "[kafka]\nbootstrap = [\"node:1\", \"node:2\"]\nfetch_wait = \"50ms\"\nrequest_timeout = \"1s\"\nmetadata_age_max = \"2s\"\n\
         delivery_timeout = \"{delivery_timeout}s\"\nfetch_partition_bytes_max = \"64KiB\"\n\
         [commands]\ntimeout = \"{timeout}\"\nopen_limit = \"{open_limit}s\"\nopen_max = {open_max}\n\
         waiters_max = {waiters_max}\nreplies_bytes_max = \"1MiB\"\n"
    );
    let routes = [
        ("pay", "POST /accounts/{id}/payments", 0),
        ("set", "PUT /accounts/{id}", 0),
        ("note", "POST /notes/{id}", 1),
        ("drop", "DELETE /accounts/{id}", 0),
    ];
    for (name, route, topic) in routes {
        let (topic, keyed) = (TOPICS[topic], topic == 0);
        let replies = REPLIES[usize::from(!keyed && !shared_replies)];
        let key = if keyed { "key = \"{path.id}\"\n" } else { "" };
        text.push_str(&format!(
            "[[command]]\nname = \"{name}\"\nroute = \"{route}\"\ntopic = \"{topic}\"\n\
             replies = \"{replies}\"\ndedupe = \"{dedupe}\"\nforward = [\"x-attempt\"]\n{key}"
        ));
    }
    text
}

impl Commands {
    /// Runs the history of one seed.
    pub(super) fn run(seed: u64) -> Tally {
        #[cfg(feature = "planted")]
        sluicegate::model::invent_identities(true);
        let mut world = World::new(seed, 3);
        let mut commands = Self::new(&mut world);
        world.live(&mut commands);
        world.show();
        commands.account.tally
    }

    fn new(world: &mut World) -> Self {
        let random = &mut world.random;
        let faulty = !random.one_in(4);
        let unclean = faulty && random.one_in(4);
        let limits = Limits {
            delivery_timeout: *random.pick(&[1, 5]),
            // A command that was removed from the log stays in flight at its gateway for this time.
            open_limit: if unclean { 20 } else { 600 },
            waiters_max: *random.pick(&[1, 16]),
            shared_replies: random.one_in(2),
            dedupe: *random.pick(&Dedupe::ALL),
        };
        // Far longer than a world lives.
        let retention: &[_] = if random.one_in(2) {
            &[("retention.ms", "3600000")]
        } else {
            &[]
        };
        // While a gateway is paused, what a leader has answered it grows old.
        let pauses = if random.one_in(3) { 6 } else { 60 };
        (world.faults.brokers, world.faults.pauses) = (faulty, Some(pauses));
        // A reply may be readable while what a leader answered before is still on its way.
        world.faults.stalls = random.one_in(2).then_some(20);
        let partitions = |random: &mut Random| random.within(1, 3) as u32;
        let topics = TOPICS.map(|name| (name, partitions(random)));
        let replies = REPLIES.map(|name| (name, partitions(random)));
        let habits = Habits {
            repeats: random.one_in(2),
            exclusive: random.one_in(2),
            retries: random.one_in(3),
            slow: *random.pick(&[3, 20]),
            padding: if random.one_in(8) { LARGE } else { 0 },
        };
        let service = Service::new(&topics, replies, habits, random.within(1, 2));
        let callers = (0..random.within(2, 6)).map(|number| caller(number, random));
        let callers = callers.collect();
        let commands = topics.iter().map(|it| (it, &[][..]));
        for ((name, partitions), configs) in
            commands.chain(replies.iter().map(|it| (it, retention)))
        {
            let made = world.broker.create_topic(name, *partitions, configs);
            made.expect("a topic");
        }
        world.add_gateways(|random| config(limits, random));
        // A produce whose outcome is unknown is forgotten after twice its timeout. Without faults,
        // and with a timeout longer than any pause, every outcome is known.
        let unknown = faulty || limits.delivery_timeout < 5;
        let forgets = unknown.then_some(2 * limits.delivery_timeout);
        let closes =
            Duration::from_secs(forgets.unwrap_or(limits.open_limit).min(limits.open_limit));
        let mut account = Account::new(
            &topics,
            Known {
                dedupe: limits.dedupe,
                closes,
                open_limit: Duration::from_secs(limits.open_limit),
                waiters_max: limits.waiters_max,
            },
        );
        account.tally.modes[limits.dedupe as usize].0 = 1;
        Self {
            topics,
            replies,
            callers,
            service,
            account,
            faulty,
            unclean,
            phase: Phase::Asking,
            status: String::new(),
        }
    }

    fn any_partition(&self, random: &mut Random) -> (&'static str, Partition) {
        let all = [self.topics, self.replies].concat();
        let (topic, partitions) = *random.pick(&all);
        (topic, Partition(random.below(u64::from(partitions)) as u32))
    }

    /// A replica becomes leader of a partition of commands without having its newest records.
    fn elect_uncleanly(&mut self, world: &mut World) {
        let topic = world.random.below(2) as usize;
        let (name, partitions) = self.topics[topic];
        let p = world.random.below(u64::from(partitions)) as u32;
        let lose = world.random.within(1, 3);
        let end = world.broker.unclean_election(name, Partition(p), lose);
        let end = end.expect("the partition is there").0;
        self.account.on_truncated(topic, p, end);
        self.service.on_truncated(topic, p, end);
    }

    /// Produce requests are appended without a response, rejected, or answered late. Fetches fail.
    fn fail_requests(world: &mut World) {
        let before = [
            ResponseError::NotEnoughReplicas,
            ResponseError::LeaderNotAvailable,
            ResponseError::KafkaStorageError,
            ResponseError::MessageTooLarge,
        ];
        let after = [
            ResponseError::NotEnoughReplicasAfterAppend,
            ResponseError::RequestTimedOut,
            ResponseError::NotLeaderOrFollower,
        ];
        let (random, broker) = (&mut world.random, &mut world.broker);
        // The last count outlasts a delivery timeout, so that the outcome stays unknown.
        let count = *random.pick(&[1, 2, 3, 40]);
        if random.one_in(20) {
            broker.lose_next_produce_responses(count);
        }
        if random.one_in(40) {
            broker.fail_next(Failing::Produce, *random.pick(&before), count);
        }
        if random.one_in(40) {
            broker.fail_next(Failing::ProduceAfterAppend, *random.pick(&after), count);
        }
        if random.one_in(60) {
            broker.fail_next(Failing::Fetch, ResponseError::KafkaStorageError, count);
        }
        if random.one_in(80) {
            broker.throttle_next_produces(count, random.within(50, 500) as u32);
        }
    }

    /// Compares what waits at every shard with its limits, now and then.
    fn check_waiting(&self, world: &mut World) {
        let asks = world.random.one_in(8);
        let processes = world.gateways.iter_mut();
        for process in processes.filter_map(|it| it.process.as_mut()) {
            for status in &process.status {
                let (open, waiting) = (status.commands_open, status.commands_waiting);
                self.account.check_waiting(open, waiting);
            }
            if asks {
                process.ask();
            }
        }
    }

    /// Whether every gateway has the counts of its start: no client, no command in flight.
    fn is_empty(&mut self, world: &mut World) -> bool {
        let mut left = Vec::new();
        for (number, gateway) in world.gateways.iter_mut().enumerate() {
            let process = gateway.process.as_mut().expect("all are up in the calm");
            process.ask();
            for status in &process.status {
                let counts = (status.connections, status.streams, status.commands_open);
                if counts != (0, 0, 0) || status.turns == 0 {
                    left.push((number, counts));
                }
            }
        }
        self.status = format!("{left:?}");
        left.is_empty()
    }
}

/// The requests of one caller.
fn caller(number: u64, random: &mut Random) -> Caller {
    let invents = cfg!(feature = "planted");
    let identity = invents.then_some(IDENTITIES[number as usize % IDENTITIES.len()]);
    let requests = (0..random.within(4, COMMANDS_MAX)).map(|n| {
        let route = random.below(4) as usize;
        let key = match random.below(8) {
            0 => None,
            1..4 => Some(format!("shared-{}", random.below(SHARED_KEYS))),
            _ => Some(format!("{number}-{n}")),
        };
        let shared = key.as_ref().is_some_and(|key| key.starts_with("shared"));
        // Under a shared key the path or the body may be another caller's. Two pairs of them are the
        // same bytes if the end of the path is not marked.
        let (id, amount) = *random.pick(&[
            ("0", "amount 0"),
            ("0", "amount 1"),
            ("1", "amount 0"),
            ("1", "amount 1"),
            ("1", "0amount 0"),
            ("10", "amount 0"),
        ]);
        let path = match route {
            0 => format!("/accounts/{id}/payments"),
            2 => format!("/notes/{id}"),
            _ => format!("/accounts/{id}"),
        };
        let body = if shared {
            amount.to_owned()
        } else {
            format!("command {number}-{n}")
        };
        Request {
            route,
            key,
            identity,
            path,
            body,
        }
    });
    Caller::new(requests.collect())
}

impl Scenario for Commands {
    fn disturb(&mut self, world: &mut World) {
        if !self.faulty {
            return;
        }
        if world.random.one_in(30) {
            let (topic, at) = self.any_partition(&mut world.random);
            world.move_leader(topic, at);
        }
        if self.unclean && world.random.one_in(60) {
            self.elect_uncleanly(world);
        }
        Self::fail_requests(world);
    }

    fn act(&mut self, world: &mut World, storm: bool) {
        if !storm && self.account.calm.is_none() {
            self.account.calm = Some(world.now.mono);
        }
        self.account.observe(world);
        self.check_waiting(world);
        for (number, caller) in self.callers.iter_mut().enumerate() {
            caller.step(number, world, &mut self.account, storm);
        }
        self.service.step(world, &mut self.account, storm);
    }

    fn on_killed(&mut self, gateway: usize, world: &mut World) {
        for caller in &mut self.callers {
            caller.on_killed(gateway, &mut self.account, world.now.mono);
        }
    }

    fn is_settled(&mut self, world: &mut World) -> bool {
        let done = self.callers.iter().all(Caller::is_done);
        match self.phase {
            Phase::Asking if done => {
                for caller in &mut self.callers {
                    caller.ask_again();
                }
                self.phase = Phase::AskingAgain;
                false
            }
            Phase::AskingAgain if done => {
                self.phase = Phase::Quiet(world.now.mono);
                false
            }
            Phase::Quiet(since) => {
                let empty = self.is_empty(world) && self.service.owed() == 0;
                empty && world.now.mono.since(since) > QUIET
            }
            Phase::Asking | Phase::AskingAgain => false,
        }
    }

    fn unsettled(&self) -> String {
        let callers: Vec<_> = self.callers.iter().filter(|it| !it.is_done()).collect();
        let (phase, left, tally) = (self.phase, &self.status, &self.account.tally);
        format!("{phase:?}, {callers:?}, left in gateways: {left}, {tally:?}")
    }
}
