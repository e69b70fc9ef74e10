//! Measures how long a fault affected clients of the gateways, and clients that use librdkafka in
//! the same cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::beside::Received;
use super::world::Shared;

/// Start and end of a wait, in milliseconds since 1970.
pub type Wait = (u64, u64);

/// A command that was sent or appended: time, client, and idempotency key.
pub type Command = (u64, usize, String);

/// A fault with its measured effects.
#[derive(Debug)]
pub struct Row {
    pub fault: String,
    /// Start and end of the fault, in milliseconds since 1970.
    pub window: Wait,
    /// Longest wait of the gateways' clients until a command was in the log, whatever responses
    /// they got meanwhile; and of librdkafka's records to the same partitions.
    pub ours: Duration,
    pub theirs: Duration,
    /// Longest times without replies to commands, and without records for librdkafka's consumer.
    pub answered: Duration,
    pub consumed: Duration,
    /// Longest delay of a stream's event after librdkafka's consumer received it, with the event.
    pub behind: (Duration, String),
    /// Longest time that a runnable thread of the tests had to wait for a CPU.
    pub held_up: Duration,
}

/// R2: clients wait at most this much longer for a gateway than for librdkafka, in the same fault
/// with the same leaders.
const MORE: Duration = Duration::from_secs(1);
/// How often the witness thread wakes up to measure the machine.
const TICK: Duration = Duration::from_millis(10);

/// Fails if the gateways were unavailable longer than allowed, and the machine is not to blame.
pub fn judge(rows: &[Row]) {
    let is_late = |row: &&Row| {
        let more = MORE + row.held_up;
        row.ours > row.theirs + more || row.behind.0 > more
    };
    let late: Vec<_> = rows.iter().filter(is_late).collect();
    let (missed, all) = (late.len(), rows.len());
    assert!(
        late.is_empty(),
        "{missed} of {all} miss R2's bar: {late:#?}"
    );
}

impl Row {
    pub fn text(&self) -> String {
        let s = |time: Duration| time.as_secs_f64();
        format!(
            "  {:<28} a command waited {:5.2} s for the log, librdkafka's record {:5.2} s; no answer \
             for {:5.2} s; librdkafka consumed nothing {:5.2} s, our readers behind it {:5.2} s; \
             the machine held up {:5.2} s",
            self.fault,
            s(self.ours),
            s(self.theirs),
            s(self.answered),
            s(self.consumed),
            s(self.behind.0),
            s(self.held_up)
        )
    }
}

/// Starts a thread that wakes up regularly and records how late it was.
pub fn witness(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = shared.clone();
    std::thread::spawn(move || {
        while !shared.over.load(Ordering::Relaxed) {
            let began = Instant::now();
            std::thread::sleep(TICK);
            let late = began.elapsed().saturating_sub(TICK);
            if late > TICK {
                shared.lock().held_up.push((Instant::now(), late));
            }
        }
    })
}

/// How long clients waited: each from its first request, since a record of it was last appended,
/// until the next record. Rejections meanwhile do not end a wait. A retry for an existing record
/// waits for the service, which does not count.
pub fn waits(asked: &[Command], appended: &[Command]) -> Vec<Wait> {
    let mut there: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, _, key) in appended {
        let first = there.entry(key).or_insert(*at);
        *first = (*first).min(*at);
    }
    let is_there = |(at, _, key): &&Command| there.get(key.as_str()).is_some_and(|it| it < at);
    let asks = asked.iter().filter(|it| !is_there(it));
    let asks = asks.map(|&(at, client, _)| (at, false, client));
    let records = appended.iter().map(|&(at, client, _)| (at, true, client));
    let mut all: Vec<_> = asks.chain(records).collect();
    all.sort_unstable(); // What is asked and there within a millisecond has not waited.
    let (mut waiting, mut waits) = (BTreeMap::new(), Vec::new());
    for (at, is_record, client) in all {
        if is_record {
            waits.extend(waiting.remove(&client).map(|since| (since, at)));
        } else {
            waiting.entry(client).or_insert(at);
        }
    }
    waits
}

/// The longest of these waits that overlaps the window.
pub fn longest(waits: &[Wait], (from, to): Wait) -> Duration {
    let within = |&(since, until): &Wait| until.min(to).saturating_sub(since.max(from));
    Duration::from_millis(waits.iter().map(within).max().unwrap_or_default())
}

/// How long after librdkafka's consumer a reader received an event within the window, and which. It
/// counts from librdkafka's next record of the same partition: a new leader may hide records for
/// seconds that the old one returned, and librdkafka is affected too unless it was faster.
pub fn behind(
    given: &[Vec<(Instant, String)>],
    received: &[Received],
    (from, to): (Instant, Instant),
) -> (Duration, String) {
    let within = |at: Instant| at >= from && at <= to;
    let (mut next, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    for it in received.iter().rev().filter(|it| within(it.at)) {
        if let Some(next) = next.insert(it.partition, it.at) {
            theirs.insert(it.name.as_str(), (it.at, next));
        }
    }
    let readers = given.iter().enumerate();
    let given = readers.flat_map(|(n, all)| all.iter().map(move |it| (n, it)));
    let given = given.filter(|(_, (at, _))| within(*at));
    let behind = given.filter_map(|(reader, (at, name))| {
        let &(theirs, next) = theirs.get(name.as_str())?;
        Some((at.saturating_duration_since(next), reader, name, theirs))
    });
    let most = behind.max_by_key(|it| it.0);
    most.map_or_else(Default::default, |(behind, reader, name, theirs)| {
        let since = theirs - from;
        let which = format!("reader {reader}, {name}: theirs {since:?} after the fault began");
        (behind, which)
    })
}

/// The longest time between two consecutive times, of which some are in the window.
pub fn silence(times: impl Iterator<Item = Instant>, from: Instant, to: Instant) -> Duration {
    let mut times: Vec<_> = times.filter(|&at| at >= from && at <= to).collect();
    times.extend([from, to]);
    times.sort_unstable();
    let between = times.windows(2).map(|pair| pair[1] - pair[0]);
    between.max().unwrap_or_default()
}

pub fn millis() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |it| it.as_millis() as u64)
}

#[test]
fn a_wait_goes_on_until_the_client_is_served() {
    let command = |(at, client, key): (u64, usize, &str)| (at, client, key.to_owned());
    // Two rejections, then a record. Another client is served meanwhile and retries for its reply.
    let asked = [(100, 1, "a"), (900, 1, "a"), (950, 2, "b"), (1_800, 1, "c")];
    let asked = asked.into_iter().chain([(3_000, 2, "b"), (5_000, 2, "d")]);
    let asked: Vec<_> = asked.map(command).collect();
    let appended = [(960, 2, "b"), (2_000, 1, "c"), (5_001, 2, "d")].map(command);
    let waits = waits(&asked, &appended);
    assert_eq!(waits, [(950, 960), (100, 2_000), (5_000, 5_001)]);
    assert_eq!(longest(&waits, (0, 9_000)), Duration::from_millis(1_900));
    assert_eq!(longest(&waits, (1_500, 9_000)), Duration::from_millis(500));
    assert_eq!(longest(&waits, (3_000, 4_000)), Duration::ZERO);
}

#[test]
fn who_missed_what_is_hidden_now_is_not_late() {
    let from = Instant::now();
    let at = |ms| from + Duration::from_millis(ms);
    let received = |(ms, partition, name): (u64, u32, &str)| Received {
        at: at(ms),
        partition,
        name: name.to_owned(),
    };
    let theirs = [
        (1, 0, "a"),
        (2, 1, "b"),
        (9, 1, "c"),
        (8_000, 0, "d"),
        (8_050, 0, "e"),
    ];
    let theirs = theirs.map(received);
    let given =
        |all: [(u64, &str); 4]| vec![all.map(|(ms, name)| (at(ms), name.to_owned())).into()];
    let late = |all| {
        behind(&given(all), &theirs, (from, at(9_000)))
            .0
            .as_millis()
    };
    assert_eq!(late([(8_001, "a"), (3, "b"), (9, "c"), (8_001, "d")]), 1);
    assert_eq!(late([(2, "a"), (3, "b"), (9, "c"), (8_800, "d")]), 750);
    assert_eq!(
        late([(2, "a"), (8_009, "b"), (8_009, "c"), (8_001, "d")]),
        8_000
    );
}
