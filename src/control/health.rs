//! What the shards' answers mean: alive, ready, how it stands. Pure over the answers.
//!
//! Live fails slowly and means "restart me": a shard that does not turn. Ready fails fast and means
//! "send clients elsewhere": loading, Kafka away, draining.

use std::time::Duration;

use serde::Serialize;

use crate::metrics::{Check, Exposition, ShardReport, ShardStatus};

/// How long a shard may take to answer before it counts as stuck.
pub const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Each shard's report in the order of their numbers; `None` did not answer in time.
pub(super) type Reports = [Option<ShardReport>];

/// An answer's body, and whether it is good news.
pub(super) struct Verdict {
    pub(super) good: bool,
    pub(super) json: String,
}

#[derive(Serialize)]
struct Live {
    live: bool,
    /// Shards that did not answer.
    stuck: Vec<usize>,
}

/// `/livez`: every shard answered. Kafka away is still live.
pub(super) fn live(reports: &Reports) -> Verdict {
    let stuck = stuck(reports);
    let live = stuck.is_empty();
    verdict(live, &Live { live, stuck })
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    checks: Vec<Check>,
}

/// `/readyz`: every check of every shard holds. A check that several shards make is shown once: as
/// the first shard has it for which it does not hold, and that says why.
pub(super) fn ready(reports: &Reports) -> Verdict {
    let mut checks: Vec<Check> = Vec::new();
    for report in reports.iter().flatten() {
        for check in &report.checks {
            match checks.iter_mut().find(|it| it.name == check.name) {
                Some(known) if known.ok && !check.ok => *known = check.clone(),
                Some(known) if known.ok == check.ok && known.detail.is_empty() => {
                    *known = check.clone();
                }
                Some(_) => {}
                None => checks.push(check.clone()),
            }
        }
    }
    let draining = reports
        .iter()
        .flatten()
        .any(|report| report.status.draining);
    if draining {
        let detail = "the process takes no new work: it was told to stop";
        checks.push(failed("draining", detail.into()));
    }
    for shard in stuck(reports) {
        let detail = format!("no answer within {}s", ANSWER_WAIT.as_secs());
        checks.push(failed(&format!("shard {shard}"), detail));
    }
    let ready = checks.iter().all(|check| check.ok);
    verdict(ready, &Ready { ready, checks })
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    shards: Vec<Shard<'a>>,
}

#[derive(Serialize)]
struct Shard<'a> {
    shard: usize,
    /// Absent: the shard did not answer.
    status: Option<&'a ShardStatus>,
    checks: &'a [Check],
}

/// `/status`: each shard as it stands.
pub(super) fn status(reports: &Reports) -> Verdict {
    let shards = reports.iter().enumerate().map(|(shard, report)| Shard {
        shard,
        status: report.as_ref().map(|report| &report.status),
        checks: report.as_ref().map_or(&[], |report| &report.checks),
    });
    let shards = shards.collect();
    let version = env!("CARGO_PKG_VERSION");
    verdict(true, &Status { version, shards })
}

/// `/metrics`, the part that shards count: their sum. A stuck shard is missing from it, and
/// `sluicegate_shards_stuck` says so.
pub(super) fn expose(reports: &Reports, out: &mut Exposition) {
    let mut metrics = reports.iter().flatten().map(|report| &report.metrics);
    if let Some(first) = metrics.next() {
        let mut sum = first.clone();
        metrics.for_each(|other| sum.merge(other));
        sum.expose(out);
    }
}

pub(super) fn stuck(reports: &Reports) -> Vec<usize> {
    let silent = reports
        .iter()
        .enumerate()
        .filter(|(_, report)| report.is_none());
    silent.map(|(shard, _)| shard).collect()
}

fn failed(name: &str, detail: String) -> Check {
    let name = name.to_owned();
    Check {
        name,
        ok: false,
        detail,
    }
}

fn verdict(good: bool, body: &impl Serialize) -> Verdict {
    let json = serde_json::to_string(body).expect("plain structs and strings");
    Verdict { good, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[(&str, bool)]) -> Option<ShardReport> {
        let check = |(name, ok): &(&str, bool)| Check {
            name: (*name).into(),
            ok: *ok,
            detail: String::new(),
        };
        Some(ShardReport {
            checks: checks.iter().map(check).collect(),
            ..ShardReport::default()
        })
    }

    #[test]
    fn one_silent_shard_is_not_live_and_not_ready() {
        let reports = [report(&[]), None];
        assert!(!live(&reports).good);
        assert_eq!(live(&reports).json, r#"{"live":false,"stuck":[1]}"#);
        assert!(!ready(&reports).good);
        assert!(live(&[report(&[])]).good);
    }

    #[test]
    fn a_check_holds_only_if_it_holds_on_every_shard() {
        let reports = [report(&[("topic a", true)]), report(&[("topic a", false)])];
        let verdict = ready(&reports);
        assert!(!verdict.good && live(&reports).good);
        let json = r#"{"ready":false,"checks":[{"name":"topic a","ok":false,"detail":""}]}"#;
        assert_eq!(verdict.json, json);
        assert!(ready(&[report(&[("topic a", true)]), report(&[])]).good);
    }

    #[test]
    fn the_shard_that_says_why_is_heard() {
        let mut home = report(&[("topic a", false)]);
        let why = "the cluster has no such topic";
        home.as_mut().expect("made above").checks[0].detail = why.into();
        let reports = [
            report(&[("topic a", false)]),
            home,
            report(&[("topic a", true)]),
        ];
        assert!(
            ready(&reports).json.contains(why),
            "{}",
            ready(&reports).json
        );
    }

    #[test]
    fn a_draining_process_is_live_and_not_ready() {
        let mut draining = report(&[("listening", true)]);
        draining.as_mut().expect("made above").status.draining = true;
        let reports = [draining];
        assert!(live(&reports).good);
        assert!(!ready(&reports).good);
    }
}
