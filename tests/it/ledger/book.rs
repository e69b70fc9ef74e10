//! The ledger compares requests, responses and deliveries with the log as another client reads it.
//! It reports every difference. The tests below plant histories that it must reject.

use std::collections::{BTreeMap, BTreeSet};

/// The result of one attempt at a command, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service's reply arrived; its body.
    Done(String),
    /// The response says that the record was not appended.
    Refused(u16),
    /// The response says that the record may have been appended.
    Unknown(u16),
}

/// One request of a client. Times are ordinal: any clock that only increases.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The idempotency key: one command, however many attempts.
    pub key: String,
    /// The lane of the client. A lane sends its next command when the attempts of this one have
    /// ended.
    pub lane: usize,
    /// Number of the command within its lane.
    pub number: usize,
    /// The gateway that received the request.
    pub peer: usize,
    pub outcome: Outcome,
}

impl Attempt {
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_))
    }
}

/// A record of the log, as another client read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InLog {
    pub partition: u32,
    pub offset: u64,
    /// The unique name of the record: a command's idempotency key, or an event's value.
    pub name: String,
}

/// A kind of anomaly, which must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Acknowledged but not in the log, or in the log but not delivered.
    Lost,
    /// Twice although once was promised.
    Doubled,
    /// Delivered in another order than that of its partition.
    Reordered,
    /// In the log although rejected or never sent, or delivered although not in the log.
    Phantom,
    /// Answered with another command's reply, or with two different replies.
    Crossed,
}

/// One anomaly, with what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub kind: Kind,
    pub what: String,
}

/// The result of comparing commands with the log.
#[derive(Debug, Default)]
pub struct Verdict {
    pub anomalies: Vec<Anomaly>,
    /// Commands with a second record that the guarantees allow: a retry at another gateway before
    /// the first one's reply was readable (docs/guarantees.md). The service removes these.
    pub twins: usize,
}

fn anomaly(kind: Kind, what: String) -> Anomaly {
    Anomaly { kind, what }
}

/// Compares the clients' responses with the log of commands.
///
/// # Panics
/// Never because of a history: a broken history is an anomaly.
pub fn commands(attempts: &[Attempt], log: &[InLog]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut records: BTreeMap<&str, Vec<&InLog>> = BTreeMap::new();
    for record in log {
        records.entry(&record.name).or_default().push(record);
    }
    let mut keys: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        keys.entry(&attempt.key).or_default().push(attempt);
    }
    for (name, found) in &records {
        if !keys.contains_key(name) {
            let what = format!("{name}: never asked, and in the log as {found:?}");
            verdict.anomalies.push(anomaly(Kind::Phantom, what));
        }
    }
    for (key, tries) in &keys {
        let found = records.get(key).map_or(&[][..], Vec::as_slice);
        one_command(key, tries, found, &mut verdict);
    }
    verdict.anomalies.extend(order_of_lanes(attempts, &records));
    verdict
}

fn one_command(key: &str, tries: &[&Attempt], found: &[&InLog], verdict: &mut Verdict) {
    let answers: BTreeSet<&str> = tries
        .iter()
        .filter_map(|it| match &it.outcome {
            Outcome::Done(answer) => Some(answer.as_str()),
            _ => None,
        })
        .collect();
    let unknown = |it: &&&Attempt| matches!(it.outcome, Outcome::Unknown(_));
    let refused_only = tries
        .iter()
        .all(|it| matches!(it.outcome, Outcome::Refused(_)));
    let mut add = |kind, what: &str| {
        let what = format!("{key}: {what}: {tries:?}, in the log {found:?}");
        verdict.anomalies.push(anomaly(kind, what));
    };
    if answers.len() > 1 {
        add(Kind::Crossed, "two answers");
    }
    // The service's reply starts with the key of its command.
    if answers.iter().any(|it| it.split(' ').next() != Some(key)) {
        add(Kind::Crossed, "the answer is another command's");
    }
    if !answers.is_empty() && found.is_empty() {
        add(Kind::Lost, "answered, and not in the log");
    }
    if refused_only && !found.is_empty() {
        add(Kind::Phantom, "refused, and in the log");
    }
    // A gateway that rejected the command has appended nothing. Only others may have.
    let may_have: BTreeSet<usize> = tries
        .iter()
        .filter(|it| unknown(it) || matches!(it.outcome, Outcome::Done(_)))
        .map(|it| it.peer)
        .collect();
    if found.len() > 1 {
        if found.len() <= may_have.len() {
            verdict.twins += 1;
        } else {
            add(Kind::Doubled, "more records than gateways that may have");
        }
    }
}

/// A lane sends its next command when the last was answered, so their records must be in that
/// order.
fn order_of_lanes(attempts: &[Attempt], records: &BTreeMap<&str, Vec<&InLog>>) -> Vec<Anomaly> {
    let mut lanes: BTreeMap<usize, BTreeMap<usize, &str>> = BTreeMap::new();
    for attempt in attempts {
        // If the result of an attempt is unknown, its record may be appended late.
        if attempt.is_done() {
            let lane = lanes.entry(attempt.lane).or_default();
            lane.insert(attempt.number, &attempt.key);
        }
    }
    let mut anomalies = Vec::new();
    for lane in lanes.values() {
        let mut last: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
        for &key in lane.values() {
            let found = records.get(key).into_iter().flatten();
            // The reply to the first record ended the attempt.
            let Some(first) = found.min_by_key(|it| it.offset) else {
                continue; // Lost, and told as such.
            };
            if let Some((offset, before)) = last.insert(first.partition, (first.offset, key))
                && offset > first.offset
            {
                let what = format!("{key} stands before {before}: {first:?}, {offset}");
                anomalies.push(anomaly(Kind::Reordered, what));
            }
        }
    }
    anomalies
}

/// Compares the events that one reader received, over all its connections, with the log.
pub fn deliveries(reader: &str, given: &[String], log: &[InLog]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let places: BTreeMap<&str, &InLog> = log.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
    for name in given {
        let Some(place) = places.get(name.as_str()) else {
            let what = format!("{reader} got {name}, which is not in the log");
            anomalies.push(anomaly(Kind::Phantom, what));
            continue;
        };
        if !seen.insert(name.as_str()) {
            let what = format!("{reader} got {name} twice");
            anomalies.push(anomaly(Kind::Doubled, what));
            continue;
        }
        if let Some((offset, before)) = last.insert(place.partition, (place.offset, name))
            && offset > place.offset
        {
            let what = format!("{reader} got {name} after {before}: {place:?}");
            anomalies.push(anomaly(Kind::Reordered, what));
        }
    }
    for record in log.iter().filter(|it| !seen.contains(it.name.as_str())) {
        let what = format!("{reader} did not get {record:?}");
        anomalies.push(anomaly(Kind::Lost, what));
    }
    anomalies
}

/// Compares a producer's acknowledgements with the log: each acknowledged record at its offset,
/// once.
pub fn produced(acknowledged: &[InLog], log: &[InLog]) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let mut found: BTreeMap<&str, Vec<&InLog>> = BTreeMap::new();
    for record in log {
        found.entry(&record.name).or_default().push(record);
    }
    for (name, places) in found.iter().filter(|(_, places)| places.len() > 1) {
        anomalies.push(anomaly(
            Kind::Doubled,
            format!("{name} stands at {places:?}"),
        ));
    }
    for record in acknowledged {
        if !found
            .get(record.name.as_str())
            .is_some_and(|it| it.contains(&record))
        {
            anomalies.push(anomaly(Kind::Lost, format!("{record:?} is not there")));
        }
    }
    anomalies
}

/// Histories with one planted error each, and one without. A checker that never reports an error
/// proves nothing.
mod planted {
    use super::*;

    fn attempt(key: &str, number: usize, peer: usize, outcome: Outcome) -> Attempt {
        let key = key.to_owned();
        Attempt {
            key,
            lane: 0,
            number,
            peer,
            outcome,
        }
    }

    fn done(key: &str, number: usize) -> Attempt {
        attempt(
            key,
            number,
            0,
            Outcome::Done(format!("{key} effect {number}")),
        )
    }

    fn log(places: &[(u32, u64, &str)]) -> Vec<InLog> {
        let record = |&(partition, offset, name): &(u32, u64, &str)| {
            let name = name.to_owned();
            InLog {
                partition,
                offset,
                name,
            }
        };
        places.iter().map(record).collect()
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    #[track_caller]
    fn finds(anomalies: &[Anomaly], wanted: Kind) {
        let kinds: Vec<_> = anomalies.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [wanted], "{anomalies:?}");
    }

    #[test]
    fn a_clean_history_is_accepted() {
        let mut attempts = vec![done("a", 0), done("b", 1)];
        attempts.push(attempt("r", 2, 0, Outcome::Refused(503)));
        attempts.push(attempt("u", 3, 0, Outcome::Unknown(504)));
        attempts.push(attempt("v", 4, 0, Outcome::Unknown(504)));
        attempts.push(attempt("w", 5, 0, Outcome::Refused(503)));
        attempts.push(attempt("w", 5, 1, Outcome::Done("w effect".into())));
        let log = log(&[(0, 3, "a"), (0, 5, "b"), (0, 9, "v"), (0, 12, "w")]);
        let verdict = commands(&attempts, &log);
        assert_eq!(verdict.anomalies, []);
        assert_eq!(verdict.twins, 0);
        assert_eq!(deliveries("r", &names(&["a", "b", "v", "w"]), &log), []);
        assert_eq!(produced(&log, &log), []);
    }

    #[test]
    fn a_lost_command() {
        let attempts = [done("a", 0), done("b", 1)];
        finds(
            &commands(&attempts, &log(&[(0, 0, "a")])).anomalies,
            Kind::Lost,
        );
    }

    #[test]
    fn a_doubled_command() {
        let there = log(&[(0, 0, "a"), (0, 1, "a")]);
        finds(&commands(&[done("a", 0)], &there).anomalies, Kind::Doubled);
        // A retry at the same gateway does not allow a second record, nor does one at a gateway
        // that rejected.
        let unknown = attempt("a", 0, 0, Outcome::Unknown(504));
        finds(
            &commands(&[unknown, done("a", 0)], &there).anomalies,
            Kind::Doubled,
        );
        let refused = attempt("a", 0, 1, Outcome::Refused(503));
        finds(
            &commands(&[refused, done("a", 0)], &there).anomalies,
            Kind::Doubled,
        );
    }

    #[test]
    fn a_twin_is_counted_and_a_third_is_not_allowed() {
        let attempts = [attempt("a", 0, 1, Outcome::Unknown(504)), done("a", 0)];
        let verdict = commands(&attempts, &log(&[(0, 0, "a"), (0, 1, "a")]));
        assert_eq!((verdict.anomalies, verdict.twins), (vec![], 1));
        let three = log(&[(0, 0, "a"), (0, 1, "a"), (0, 2, "a")]);
        finds(&commands(&attempts, &three).anomalies, Kind::Doubled);
    }

    #[test]
    fn reordered_commands() {
        let attempts = [done("a", 0), done("b", 1), done("c", 2)];
        let there = log(&[(0, 1, "a"), (0, 0, "b"), (1, 0, "c")]);
        finds(&commands(&attempts, &there).anomalies, Kind::Reordered);
    }

    #[test]
    fn a_phantom_command() {
        let refused = attempt("a", 0, 0, Outcome::Refused(503));
        let there = log(&[(0, 0, "a")]);
        finds(&commands(&[refused], &there).anomalies, Kind::Phantom);
        finds(&commands(&[], &there).anomalies, Kind::Phantom);
    }

    #[test]
    fn a_crossed_answer() {
        let there = log(&[(0, 0, "a")]);
        let other = attempt("a", 0, 0, Outcome::Done("b effect".into()));
        finds(&commands(&[other], &there).anomalies, Kind::Crossed);
        let again = attempt("a", 0, 0, Outcome::Done("a effect 2".into()));
        finds(
            &commands(&[done("a", 0), again], &there).anomalies,
            Kind::Crossed,
        );
    }

    #[test]
    fn deliveries_with_one_thing_wrong() {
        let there = log(&[(0, 0, "a"), (0, 1, "b"), (1, 0, "c")]);
        let check = |given: &[&str]| deliveries("r", &names(given), &there);
        assert_eq!(check(&["c", "a", "b"]), [], "partitions mix as they like");
        finds(&check(&["a", "b"]), Kind::Lost);
        finds(&check(&["a", "b", "a", "c"]), Kind::Doubled);
        finds(&check(&["b", "a", "c"]), Kind::Reordered);
        finds(&check(&["a", "b", "c", "x"]), Kind::Phantom);
    }

    #[test]
    fn produced_with_one_thing_wrong() {
        let told = log(&[(0, 0, "a"), (0, 1, "b")]);
        finds(&produced(&told, &log(&[(0, 0, "a")])), Kind::Lost);
        finds(
            &produced(&told, &log(&[(0, 0, "a"), (0, 2, "b")])),
            Kind::Lost,
        );
        let twice = log(&[(0, 0, "a"), (0, 1, "b"), (0, 2, "b")]);
        finds(&produced(&told, &twice), Kind::Doubled);
    }
}
