//! Commands that wait until their home has read what was readable when they arrived.

use super::*;
use crate::kafka::{Code, KafkaError};
use crate::metrics::{BarrierFailure, UnansweredStatus};

const KEY: CommandKey = CommandKey([1; 16]);
const PATIENCE: Duration = Duration::from_secs(30);

/// A world whose replies are loaded.
fn loaded() -> World {
    let mut world = World::new();
    world.reads(REPLIES, 0, &[]);
    world
}

impl World {
    fn waits(&mut self, request: u32, key: CommandKey) {
        self.sends_as(request, key, Dedupe::Replies, PATIENCE);
    }

    fn ends(&mut self, round: u64, end: u64) {
        let topic = self.topic(REPLIES).handle();
        self.happens(Event::Ends {
            topic,
            ticket: round,
            ends: vec![Offset(end)],
        });
    }

    /// A reply to the command is read, as record number `offset` of the replies.
    fn replied(&mut self, offset: u64, key: CommandKey) {
        self.replied_with(offset, key, &[]);
    }

    fn replied_with(&mut self, offset: u64, key: CommandKey, headers: &[(&str, &str)]) {
        let with = |reply: Draft, (name, value): &(&str, &str)| reply.header(name, *value);
        let reply = headers.iter().fold(self.reply(offset, key), with);
        self.continues(REPLIES, &[reply], offset + 1);
    }

    /// A reply to the command, as record number `offset` of the replies.
    fn reply(&self, offset: u64, key: CommandKey) -> Draft {
        let fingerprint = Fingerprint([0; 16]);
        let id = CorrelationId { key, fingerprint }.to_string();
        Draft {
            timestamp: self.now.wall.0,
            ..Draft::new(offset, "k", Some("done")).header("correlation-id", id)
        }
    }

    /// The read of a topic brings these records. Its log ends at `end`.
    fn continues(&mut self, name: &str, drafts: &[Draft], end: u64) {
        let read = self.key(name);
        let (next, end) = (drafts.last().expect("some").offset + 1, Offset(end));
        self.happens(Event::Batch {
            read,
            batch: batch(0, drafts, &HashSecret::new([0; 16])),
            next: Next::at(Offset(next)),
            log_start: Offset(0),
            high_watermark: end,
            stable_end: end,
        });
        while self.home.ingest(self.now, &mut self.out) {}
    }

    fn waiting(&self) -> usize {
        self.home.commands.barriers().len()
    }

    fn general(&self) -> crate::metrics::General {
        let mut general = crate::metrics::General::default();
        let barriers = self.home.commands.barriers();
        barriers.count(self.now.mono, &mut general);
        general
    }

    /// The kinds of problem that were answered, by request.
    fn problems(&mut self) -> Vec<(u32, &'static str)> {
        let path = |(request, answer): (u32, Result<_, Refused>)| {
            (
                request,
                answer.map_or_else(|why| why.kind.path, |_| "reply"),
            )
        };
        let mut all: Vec<_> = self.answers().into_iter().map(path).collect();
        all.sort_unstable();
        all
    }
}

/// A reply that was readable when the retry arrived, and is read after it: nothing is produced.
#[test]
fn a_retry_gets_the_reply_that_was_readable_when_it_arrived() {
    let mut world = loaded();
    world.waits(1, KEY);
    world.catch_up(Duration::ZERO);
    assert_eq!((world.waiting(), world.home.open_commands()), (1, 0));
    world.ends(1, 1);
    assert_eq!(world.waiting(), 1, "the home has read less");
    world.replied(0, KEY);
    assert_eq!(world.problems(), [(1, "reply")]);
    assert_eq!((world.waiting(), world.home.open_commands()), (0, 0));
}

#[test]
fn a_new_command_is_produced_after_its_round_and_not_before() {
    let mut world = loaded();
    world.waits(1, KEY);
    assert!(world.home.has_work(), "the round begins in this turn");
    world.catch_up(Duration::ZERO);
    world.waits(2, CommandKey([2; 16]));
    world.waits(3, CommandKey([2; 16]));
    assert_eq!(world.home.open_commands(), 0);
    world.ends(1, 0);
    assert_eq!((world.waiting(), world.home.open_commands()), (2, 1));
    world.catch_up(Duration::ZERO);
    world.ends(2, 0);
    assert_eq!((world.waiting(), world.home.open_commands()), (0, 2));
    assert!(world.problems().is_empty());
    let general = world.general();
    assert_eq!(
        (general.barrier_commands.0, general.barrier_rounds.0),
        (3, 2)
    );
    assert_eq!(general.barrier_wait.count(), 3);
}

/// Nothing that these requests cause is produced, so what was not read yet can't matter.
#[test]
fn a_stored_reply_and_a_request_in_flight_need_no_round() {
    let mut world = loaded();
    world.replied(0, KEY);
    world.waits(1, KEY);
    assert_eq!(world.problems(), [(1, "reply")]);
    let other = CommandKey([2; 16]);
    world.sends(2, other, PATIENCE);
    world.waits(3, other);
    assert_eq!((world.waiting(), world.home.open_commands()), (0, 1));
    assert!(!world.home.commands.has_work());
    world.replied(1, other);
    assert_eq!(world.problems(), [(2, "reply"), (3, "reply")]);
}

/// A route with `in_flight = "conflict"`: a reply that was readable is a better answer than 409.
#[test]
fn a_request_in_flight_that_is_not_joined_waits_for_its_round() {
    let mut world = loaded();
    world.sends(1, KEY, PATIENCE);
    world.joins = false;
    world.waits(2, KEY);
    world.waits(3, KEY);
    world.catch_up(Duration::ZERO);
    world.ends(1, 0);
    let conflict = "/problems/command-in-progress";
    assert_eq!(world.problems(), [(2, conflict), (3, conflict)]);
    world.waits(4, KEY);
    world.catch_up(Duration::ZERO);
    world.ends(2, 1);
    world.replied(0, KEY);
    assert_eq!(world.problems(), [(1, "reply"), (4, "reply")]);
}

/// Each way in which a command can't be decided: its answer, and its cause in the metrics.
#[test]
fn a_command_that_can_not_be_decided_is_refused_and_nothing_is_produced() {
    type Act = fn(&mut World);
    let cases: [(&str, BarrierFailure, Act); 6] = [
        (
            "/problems/broker-unavailable",
            BarrierFailure::Unavailable,
            |world| {
                let topic = world.topic(REPLIES).handle();
                let error = KafkaError::NoLeader;
                world.happens(Event::EndsFailed {
                    topic,
                    ticket: 1,
                    error,
                });
            },
        ),
        (
            "/problems/topic-unavailable",
            BarrierFailure::Denied,
            |world| {
                let topic = world.topic(REPLIES).handle();
                let error = KafkaError::Broker(Code(29)); // TOPIC_AUTHORIZATION_FAILED
                world.happens(Event::EndsFailed {
                    topic,
                    ticket: 1,
                    error,
                });
            },
        ),
        (
            "/problems/broker-unavailable",
            BarrierFailure::Unavailable,
            |world| {
                world.catch_up(Duration::from_secs(1)); // No broker answers.
            },
        ),
        ("/problems/not-ready", BarrierFailure::Behind, |world| {
            world.ends(1, 5);
            world.catch_up(Duration::from_millis(999));
            assert_eq!(world.waiting(), 1);
            world.catch_up(Duration::from_millis(1));
        }),
        ("/problems/not-ready", BarrierFailure::Recreated, |world| {
            let read = world.key(REPLIES);
            let (wanted, end) = (Offset(1), Next::at(Offset(0)));
            world.happens(Event::Truncated { read, wanted, end });
        }),
        ("/problems/draining", BarrierFailure::Draining, |world| {
            world.home.drain(world.now, &mut world.out);
        }),
    ];
    for (problem, cause, act) in cases {
        let mut world = loaded();
        world.waits(1, KEY);
        world.catch_up(Duration::ZERO);
        act(&mut world);
        assert_eq!(world.problems(), [(1, problem)], "{cause:?}");
        assert_eq!((world.waiting(), world.home.open_commands()), (0, 0));
        assert_eq!(world.general().barrier_failed.get(cause).0, 1, "{cause:?}");
        assert_eq!(world.general().barrier_failed.sum(), 1);
    }
}

/// The client's own deadline is shorter than the barrier's.
#[test]
fn a_deadline_that_passes_at_the_barrier_is_a_503() {
    let mut world = loaded();
    world.sends_as(1, KEY, Dedupe::Replies, Duration::from_millis(200));
    world.catch_up(Duration::from_millis(200));
    assert_eq!(world.problems(), [(1, "/problems/broker-unavailable")]);
    world.catch_up(Duration::ZERO);
    world.ends(1, 0);
    assert_eq!(world.home.open_commands(), 0);
}

#[test]
fn a_client_that_disconnects_frees_its_place_and_nothing_is_produced() {
    let mut world = loaded();
    world.waits(1, KEY);
    world.catch_up(Duration::ZERO);
    let topic = world.topic(REPLIES).index();
    let message = HomeMessage::CancelCommand {
        topic,
        key: KEY,
        exchange: exchange(1),
    };
    world
        .home
        .on_message(ShardId(0), message, world.now, &mut world.out);
    assert_eq!(world.waiting(), 0);
    world.ends(1, 0);
    assert_eq!(world.home.open_commands(), 0);
    assert!(world.problems().is_empty());
}

/// A reply of the request itself is an answer even if the round fails.
#[test]
fn a_reply_that_is_read_meanwhile_answers_although_the_round_fails() {
    let mut world = loaded();
    world.waits(1, KEY);
    world.waits(2, CommandKey([2; 16]));
    world.catch_up(Duration::ZERO);
    world.replied(0, KEY);
    world.catch_up(Duration::from_secs(1));
    let unavailable = "/problems/broker-unavailable";
    assert_eq!(world.problems(), [(1, "reply"), (2, unavailable)]);
}

/// Waiting commands count as commands in flight. Bodies are bounded too.
#[test]
fn the_places_at_the_barrier_are_bounded() {
    let mut world = World::showing("commands.open_max = 3\n", Some((false, 7 * DAY)));
    world.reads(REPLIES, 0, &[]);
    world.sends(0, CommandKey([9; 16]), PATIENCE);
    for request in 1..4 {
        world.waits(request, CommandKey([request as u8; 16]));
    }
    assert_eq!(world.problems(), [(3, "/problems/overloaded")]);
    assert_eq!(world.waiting(), 2);
}

/// While rounds fail, `/readyz` and the log say so. The state ends with a round that succeeds, or
/// when no command has waited for a while.
#[test]
fn a_failing_barrier_is_reported_until_it_ends() {
    let mut world = loaded();
    let named = |world: &World| {
        let checks = world.home.checks(world.now);
        let of_end = |check: &Check| check.name == "end of topic `our-replies`";
        checks
            .filter(of_end)
            .map(|check| (check.ok, check.detail))
            .next()
    };
    assert_eq!(named(&world), None);
    let fails = |world: &mut World, request, key| {
        world.waits(request, key);
        world.catch_up(Duration::ZERO);
        world.catch_up(Duration::from_secs(1));
    };
    fails(&mut world, 1, KEY);
    let (ok, detail) = named(&world).expect("it is listed");
    assert!(ok && detail.contains("did not answer in time"), "{detail}");
    world.waits(2, KEY);
    // Without a turn of the client, which knows that the broker is unavailable.
    let (commands, mut cx) = world.home.commands(world.now, &mut world.out);
    commands.begin_rounds(&mut cx);
    world.ends(2, 0);
    assert_eq!(named(&world), None);
    fails(&mut world, 3, CommandKey([2; 16]));
    assert!(named(&world).is_some());
    world.catch_up(Duration::from_secs(30));
    assert_eq!(named(&world), None);
}

/// The config of a world with a strict route.
fn strict_config() -> String {
    let name = "name = \"ours\"\n";
    let strict = format!("{name}idempotency = \"required\"\ndedupe = \"strict\"\n");
    CONFIG.replace(name, &strict)
}

/// A world with a strict route, whose topics are loaded. The commands topic has one record, of
/// `KEY`.
fn strict() -> World {
    let mut world = World::of_config(strict_config());
    world.shows(7 * DAY);
    world.reads(REPLIES, 0, &[]);
    world.commanded(KEY);
    world
}

impl World {
    /// The commands topic has this one record.
    fn commanded(&mut self, key: CommandKey) {
        let fingerprint = Fingerprint([0; 16]);
        let id = CorrelationId { key, fingerprint }.to_string();
        let record = Draft {
            timestamp: self.now.wall.0,
            ..Draft::new(0, "k", Some("{}")).header("correlation-id", id)
        };
        self.reads(COMMANDS, 1, &[record]);
    }

    fn asks_strictly(&mut self, request: u32, key: CommandKey, fingerprint: u8) {
        // The first byte is the number of the recipe.
        let mut bytes = [fingerprint; 16];
        bytes[0] = 0;
        let id = (key, Fingerprint(bytes));
        self.sends_request(request, id, Dedupe::Strict, Duration::from_secs(5));
        let (now, out) = (self.now, &mut self.out);
        let (commands, mut cx) = self.home.commands(now, out);
        commands.begin_rounds(&mut cx);
    }

    /// The leaders report the ends of both topics, which are read.
    fn both_end(&mut self, round: u64) {
        self.ends(round, 0);
        let topic = self.topic(COMMANDS).handle();
        self.happens(Event::Ends {
            topic,
            ticket: round,
            ends: vec![Offset(1)],
        });
    }
}

/// Nothing is produced: at the deadline the outcome is unknown. A record that was not sent would be
/// withdrawn, with 503.
#[test]
fn strict_joins_a_command_that_is_in_the_log_and_not_answered() {
    let mut world = strict();
    world.asks_strictly(1, KEY, 0);
    world.ends(1, 0);
    assert_eq!((world.waiting(), world.home.open_commands()), (1, 0));
    let commands = world.topic(COMMANDS).handle();
    world.happens(Event::Ends {
        topic: commands,
        ticket: 1,
        ends: vec![Offset(1)],
    });
    assert_eq!((world.waiting(), world.home.open_commands()), (0, 1));
    world.catch_up(Duration::from_secs(5));
    assert_eq!(world.problems(), [(1, "/problems/outcome-unknown")]);
    // The reply answers a retry, which joins.
    world.asks_strictly(2, KEY, 0);
    world.replied(0, KEY);
    assert_eq!(world.problems(), [(2, "reply")]);
    assert_eq!(world.home.open_commands(), 0);
}

#[test]
fn strict_refuses_another_request_under_the_key() {
    let mut world = strict();
    world.asks_strictly(1, KEY, 7);
    world.both_end(1);
    assert_eq!(world.problems(), [(1, "/problems/idempotency-key-reused")]);
    assert_eq!(world.home.open_commands(), 0);
}

/// A reply with `retry: true` is not stored: the same key runs again. So it does after
/// `commands.open_limit`.
#[test]
fn strict_opens_what_was_answered_or_is_too_old() {
    let again = |mut world: World| {
        world.asks_strictly(1, KEY, 0);
        world.both_end(1);
        assert_eq!(world.home.open_commands(), 1);
        world.catch_up(Duration::from_secs(5));
        let unsent = "/problems/broker-unavailable";
        assert_eq!(world.problems(), [(1, unsent)], "its record was withdrawn");
    };
    let mut world = strict();
    world.replied_with(0, KEY, &[("retry", "true")]);
    again(world);
    let mut world = strict();
    world.catch_up(Duration::from_secs(700));
    again(world);
}

/// A strict route is served once both topics are loaded.
#[test]
fn strict_waits_for_its_commands_topic() {
    let mut world = World::of_config(strict_config());
    world.shows(7 * DAY);
    world.reads(REPLIES, 0, &[]);
    world.asks_strictly(1, KEY, 0);
    assert_eq!(world.problems(), [(1, "/problems/not-ready")]);
    world.commanded(KEY);
    world.asks_strictly(2, KEY, 0);
    world.both_end(1);
    assert_eq!((world.problems(), world.home.open_commands()), (vec![], 1));
}

/// A retry at an instance that has just started: its reply may not be read yet.
#[test]
fn nothing_is_opened_while_a_topic_loads() {
    for dedupe in [Dedupe::Local, Dedupe::Replies, Dedupe::Strict] {
        let mut world = World::of_config(strict_config());
        world.shows(7 * DAY);
        let (read, from) = (world.key(REPLIES), Next::at(Offset(0)));
        let end = Offset(2);
        world.happens(Event::Started { read, from, end });
        world.sends_as(1, KEY, dedupe, PATIENCE);
        world.catch_up(Duration::from_secs(2));
        let other = CommandKey([2; 16]);
        let reply = world.reply(0, other);
        world.continues(REPLIES, &[reply], 2);
        world.sends_as(2, other, dedupe, PATIENCE);
        world.catch_up(Duration::from_secs(2));
        let not_ready = "/problems/not-ready";
        assert_eq!(world.problems(), [(1, not_ready), (2, not_ready)]);
        assert_eq!((world.waiting(), world.home.open_commands()), (0, 0));
        world.replied(1, KEY);
        world.commanded(KEY);
        assert!(world.topic(REPLIES).is_live());
        world.sends_as(3, KEY, dedupe, PATIENCE);
        assert_eq!(world.problems(), [(3, "reply")], "{dedupe:?}");
        assert_eq!((world.waiting(), world.home.open_commands()), (0, 0));
    }
}

/// While memory is too small for the unanswered commands, `/status`, `/readyz`, a metric and the
/// log say so. The state ends by itself.
#[test]
fn unanswered_commands_beyond_their_memory_are_reported() {
    let limit = "commands.unanswered_memory = \"1MiB\"\n";
    let mut world = World::of_config(limit.to_owned() + &strict_config());
    world.shows(7 * DAY);
    world.reads(REPLIES, 0, &[]);
    let most = (1 << 20) / crate::command::CommandIndexSettings::ENTRY_BYTES as u64;
    let wall = world.now.wall.0;
    let record = |n: u64| {
        let key = CommandKey(u128::from(n).to_be_bytes());
        let fingerprint = Fingerprint([0; 16]);
        let id = CorrelationId { key, fingerprint }.to_string();
        Draft {
            timestamp: wall - 60_000 + n as i64,
            ..Draft::new(n, "k", Some("{}")).header("correlation-id", id)
        }
    };
    let records: Vec<_> = (0..most).map(record).collect();
    world.reads(COMMANDS, most, &records);
    let (mut metrics, status) = world.unanswered();
    assert_eq!((status.commands, status.cut), (most, false));
    assert_eq!(status.window_seconds, 600);
    assert_eq!(metrics.command_index_cut.0, 0);
    assert_eq!(world.lines_of("unanswered_memory"), [""; 0]);

    let more: Vec<_> = (most..most + 2_000).map(record).collect();
    world.continues(COMMANDS, &more, most + 2_000);
    (metrics, _) = world.unanswered();
    let (_, status) = world.unanswered();
    assert!(status.cut && status.commands <= most, "{status:?}");
    assert!(status.window_seconds < 70, "{status:?}");
    assert_eq!(metrics.command_index_entries.0, status.commands);
    assert_eq!(metrics.command_index_window.0, status.window_seconds);
    assert_eq!(metrics.command_index_cut.0, 1);
    assert!(metrics.command_index_cuts.0 > 0);
    let checks = world.home.checks(world.now);
    let cut = |check: &Check| check.detail.contains("unanswered_memory");
    let named: Vec<Check> = checks.filter(cut).collect();
    assert!(
        matches!(&named[..], [check] if check.ok && check.name == "topic `our-replies`"),
        "{named:?}"
    );
    let lines = world.lines_of("unanswered_memory");
    assert!(matches!(&lines[..], [line] if line.contains("older ones")));

    world.catch_up(Duration::from_secs(601));
    let lines = world.lines_of("unanswered_memory");
    assert!(matches!(&lines[..], [line] if line.contains("again")));
    assert!(!world.unanswered().1.cut);
    assert_eq!(world.lines_of("unanswered_memory"), [""; 0]);
}

impl World {
    /// The index of unanswered commands, as metrics and `/status` show it.
    fn unanswered(&mut self) -> (crate::metrics::TopicMetrics, UnansweredStatus) {
        let mut metrics = crate::metrics::TopicMetrics::default();
        let now = self.now;
        let commands = self.topic(REPLIES).commands().expect("it has them");
        commands.count(now, &mut metrics);
        let status = commands.unanswered_status(now);
        (metrics, status.expect("it has an index"))
    }

    /// The log's lines with this text, since the last call.
    fn lines_of(&mut self, text: &str) -> Vec<String> {
        self.catch_up(Duration::from_secs(5));
        let lines = self.out.drain_notes();
        lines.into_iter().filter(|it| it.contains(text)).collect()
    }
}

/// The age of the waiting commands and what became of them, as `/status` shows it.
#[test]
fn the_barrier_is_in_the_status() {
    let mut world = loaded();
    world.waits(1, KEY);
    world.catch_up(Duration::from_millis(300));
    world.waits(2, CommandKey([2; 16]));
    let status = |world: &World| world.home.barriers(world.now.mono);
    let now = status(&world);
    assert_eq!((now.waiting, now.longest_wait_ms), (2, 300));
    assert!((100..5_000).contains(&now.waiting_bytes), "{now:?}");
    assert_eq!(world.general().barrier_longest_wait.0, 300);
    world.ends(1, 0);
    world.catch_up(Duration::from_secs(1));
    let now = status(&world);
    assert_eq!(
        (now.waiting, now.longest_wait_ms, now.waiting_bytes),
        (0, 0, 0)
    );
    assert_eq!((now.passed, now.refused), (1, 1));
}
