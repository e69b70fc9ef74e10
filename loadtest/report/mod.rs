//! What a run prints and writes: figures by name, percentiles, a time series, errors with examples,
//! violations, and the machine it ran on.

mod charts;
mod html;
mod machine;
mod threshold;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::engine::{Measured, Outcome};
use crate::latency::PERCENTILES;
use crate::net::Url;

pub(crate) use machine::Machine;
pub(crate) use threshold::Threshold;

/// Share of a CPU from which a thread of the harness counts as the bottleneck.
const BUSY_MAX: f64 = 0.9;
/// The harness's own lateness (p99, µs) from which its delays are suspect.
const LATE_US_MAX: u64 = 1_000;
/// Share of the wanted rate below which a run says that it missed it.
const RATE_SHARE_MIN: f64 = 0.98;

/// Format of the printed results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// One `name value` per line; errors and warnings on standard error.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

/// Where results go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct ReportOptions {
    /// Format of the printed results.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Write the main histogram in HdrHistogram's percentile format, for its plotters.
    #[arg(long, global = true, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write a report with curves, series, machine and flags: one HTML file that needs no network.
    #[arg(long, global = true, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Exit 1 if the condition holds: `p99>5ms`, `errors>0`, `cpu_per_delivery>10us`,
    /// `queries.p99>2ms`. Any printed figure can be named. Repeatable.
    #[arg(long, global = true, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// Show no line per second on standard error.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Which scenario ran, and against what.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) targets: Vec<String>,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, urls: &[Url]) -> Self {
        let shown = urls.iter().map(|url| {
            let scheme = if url.tls { "https" } else { "http" };
            format!("{scheme}://{}{}", url.authority, url.path)
        });
        Self {
            name,
            targets: shown.collect(),
        }
    }
}

/// The results of a run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    scenario: Scenario,
    machine: Machine,
    figures: Vec<(String, f64)>,
    groups: Vec<Measured>,
    warnings: Vec<String>,
    failures: Vec<String>,
    interrupted: bool,
}

impl Report {
    /// The results that every scenario has. The first group's figures have plain names, those of
    /// the others begin with the group's name and a dot.
    pub(crate) fn new(scenario: Scenario, outcome: &Outcome) -> Self {
        let mut report = Self {
            scenario,
            machine: Machine::here(),
            figures: Vec::new(),
            groups: outcome.groups.clone(),
            warnings: Vec::new(),
            failures: Vec::new(),
            interrupted: outcome.interrupted,
        };
        report.figure("seconds", outcome.seconds);
        for (index, group) in outcome.groups.iter().enumerate() {
            let before = match index {
                0 => String::new(),
                _ => format!("{}.", group.name),
            };
            report.add_group(&before, group, outcome);
        }
        if let Some(cpu) = outcome.server_cpu {
            report.figure("server_cores", cpu.as_secs_f64() / outcome.seconds);
        }
        if let Some((before, after)) = outcome.resident {
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            report.figure("resident_mib", mib(after));
            report.figure("resident_grown_mib", mib(after) - mib(before));
        }
        report.figure(
            "client_cores",
            outcome.own_cpu.as_secs_f64() / outcome.seconds,
        );
        if outcome.interrupted {
            let text = "interrupted: the results are those until then";
            report.warnings.push(text.into());
        }
        report
    }

    fn add_group(&mut self, before: &str, group: &Measured, outcome: &Outcome) {
        let named = |name: &str| format!("{before}{name}");
        let unit = group.unit;
        self.figure(named(unit), group.done as f64);
        self.figure(
            named(&format!("{unit}_per_s")),
            group.done as f64 / outcome.seconds,
        );
        let latency = &group.totals.latency;
        if !latency.is_empty() {
            for (name, quantile) in PERCENTILES {
                self.figure(named(name), latency.at(quantile) as f64);
            }
            self.figure(named("max_us"), latency.max() as f64);
        }
        self.figure(named("errors"), group.totals.errors.total() as f64);
        for &(name, count) in &group.totals.counts {
            self.figure(named(name), count as f64);
        }
        if let (Some(cpu), true, true) = (outcome.server_cpu, before.is_empty(), group.done > 0) {
            let each = cpu.as_secs_f64() * 1e6 / group.done as f64;
            self.figure(format!("cpu_us_per_{}", singular(unit)), each);
        }
        let late = &group.totals.late;
        if !late.is_empty() {
            self.figure(named("late_p99_us"), late.at(0.99) as f64);
        }
        self.figure(named("busiest_thread"), group.totals.busiest);
        for (kind, cause) in group.totals.violations.iter() {
            self.failures.push(format!(
                "{}: {kind}: {} times, first: {}",
                group.name, cause.count, cause.example
            ));
        }
        self.judge_harness(group, late.at(0.99));
    }

    /// Warns if the delays may be the harness's own.
    fn judge_harness(&mut self, group: &Measured, late_us: u64) {
        let name = group.name;
        if group.totals.busiest > BUSY_MAX {
            self.warnings.push(format!(
                "{name}: a thread of the harness is busy {:.0} % of the time: its delays are part \
                 of the results; use more --threads, or another machine",
                group.totals.busiest * 100.0
            ));
        }
        if late_us > LATE_US_MAX {
            self.warnings.push(format!(
                "{name}: the harness was late by {:.1} ms (p99) where nothing held it up: the \
                 machine is too busy for these delays to be the server's",
                late_us as f64 / 1000.0
            ));
        }
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) -> &mut Self {
        let name = name.into();
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.figures.push((name, value)),
        }
        self
    }

    pub(crate) fn count(&mut self, name: &str, value: u64) -> &mut Self {
        self.figure(name, value as f64)
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    /// Records a violation unless the condition holds.
    pub(crate) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(what());
        }
    }

    /// The kinds of violation that were found.
    #[cfg(test)]
    pub(crate) fn violations(&self) -> Vec<String> {
        let groups = self.groups.iter();
        let kinds = groups.flat_map(|group| group.totals.violations.iter());
        kinds.map(|(kind, _)| kind.to_owned()).collect()
    }

    /// The causes of errors, with their examples.
    #[cfg(test)]
    pub(crate) fn errors(&self) -> Vec<(String, String)> {
        let groups = self.groups.iter();
        let causes = groups.flat_map(|group| group.totals.errors.iter());
        causes
            .map(|(cause, it)| (cause.to_owned(), it.example.clone()))
            .collect()
    }

    pub(crate) fn warn(&mut self, what: String) {
        self.warnings.push(what);
    }

    /// Warns if a rate was not reached.
    pub(crate) fn check_rate(&mut self, wanted: f64, per_s: f64, who: &str) {
        if per_s < wanted * RATE_SHARE_MIN && !self.interrupted {
            self.warn(format!(
                "{who}: {per_s:.0} per second instead of {wanted:.0}: the delays include the wait \
                 of those that were due"
            ));
        }
    }

    /// Prints and writes the results. Returns why the run failed; empty if it did not.
    pub(crate) fn finish(mut self, options: &ReportOptions) -> Result<Vec<String>> {
        let mut thresholds = Vec::new();
        for threshold in &options.fail_if {
            match threshold.holds(&self.figures) {
                Ok(None) => thresholds.push((threshold.to_string(), false)),
                Ok(Some(found)) => {
                    thresholds.push((threshold.to_string(), true));
                    self.failures
                        .push(format!("--fail-if {threshold}: it is {found}"));
                }
                Err(error) => self
                    .failures
                    .push(format!("--fail-if {threshold}: {error}")),
            }
        }
        if let Some(path) = &options.hgrm {
            let main = self.groups.first().context("nothing was measured")?;
            write(path, &main.totals.latency.hgrm())?;
        }
        if let Some(path) = &options.report {
            write(path, &html::page(&self, &thresholds)?)?;
        }
        match options.output {
            Output::Text => self.print_text(),
            Output::Json => println!("{}", self.json(&thresholds)),
        }
        Ok(self.failures)
    }

    fn print_text(&self) {
        for (name, value) in &self.figures {
            println!("{name} {}", Number(*value));
        }
        for group in &self.groups {
            for (cause, it) in group.totals.errors.iter() {
                eprintln!(
                    "{}: {} × {cause}, first: {}",
                    group.name, it.count, it.example
                );
            }
        }
        for warning in &self.warnings {
            eprintln!("warning: {warning}");
        }
    }

    fn json(&self, thresholds: &[(String, bool)]) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let groups: Map<String, Value> = self
            .groups
            .iter()
            .map(|group| (group.name.to_owned(), group_json(group)))
            .collect();
        json!({
            "scenario": self.scenario.name,
            "targets": self.scenario.targets,
            "machine": self.machine.json(),
            "interrupted": self.interrupted,
            "figures": figures,
            "groups": groups,
            "thresholds": thresholds
                .iter()
                .map(|(condition, failed)| json!({"condition": condition, "failed": failed}))
                .collect::<Vec<_>>(),
            "warnings": self.warnings,
            "failures": self.failures,
        })
    }
}

fn group_json(group: &Measured) -> Value {
    let series = group.series.iter().map(|second| {
        let at = |quantile| (!second.latency.is_empty()).then(|| second.latency.at(quantile));
        json!({
            "done": second.done,
            "errors": second.errors,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "max_us": at(1.0),
        })
    });
    json!({
        "unit": group.unit,
        "errors": group.totals.errors,
        "violations": group.totals.violations,
        "seconds": series.collect::<Vec<_>>(),
    })
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

fn singular(unit: &str) -> &str {
    match unit {
        "deliveries" => "delivery",
        "catch_ups" => "catch_up",
        other => other.strip_suffix('s').unwrap_or(other),
    }
}

/// Prints three decimals, or none for an integer.
pub(crate) struct Number(pub(crate) f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.fract() == 0.0 {
            write!(f, "{:.0}", self.0)
        } else {
            write!(f, "{:.3}", self.0)
        }
    }
}
