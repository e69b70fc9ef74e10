//! `sluicegate-load`: loads a gateway, measures it and verifies it at once. One command per
//! scenario.
//!
//! It shares no code with the gateway's protocols: its own parsers (`http.rs`, `events.rs`) read
//! the responses, so that a codec bug cannot hide. Every event and request has a due time, and its
//! delay counts from then. Results go to standard output, everything else to standard error.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

mod chaos;
mod commands;
mod compare;
mod echo;
mod engine;
mod errors;
mod events;
mod gateways;
mod http;
mod kafka;
mod latency;
mod ledger;
mod live;
mod net;
mod options;
mod proc;
mod queries;
mod raw;
mod record;
mod report;
mod requests;
mod scenarios;
mod socket;
mod stall;
mod streams;
mod template;
#[cfg(test)]
mod tests;
mod write;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use engine::Stop;
use live::Live;
use report::{Output, ReportOptions};

/// Loads Sluicegate or another server of HTTP and event streams, and verifies what it receives.
///
/// Every scenario prints its figures, one `name value` per line (`-o json`: one JSON value), and
/// exits 1 if anything was missing, doubled or out of order, or if a --fail-if condition holds.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-load", version)]
struct CommandLine {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    report: ReportOptions,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Event streams: the delay of each event from the time its record was due.
    ///
    /// Broadcast: one URL. Keyed or filtered: `{key}` in the URL, and --keys. Idle: no writer. With
    /// --bootstrap and --topic the harness writes the records itself, otherwise it follows those of
    /// `sluicegate-load write`; events of others are counted as `foreign`.
    Streams(scenarios::StreamArgs),
    /// GETs: the delay of each from the time it was due.
    ///
    /// Hot: one URL. Cold: `{key}` and --keys. Conditional: --conditional. Collections: the URL of
    /// one.
    Queries(queries::Args),
    /// Commands with idempotency keys: the delay from the first attempt to the answer.
    Commands(commands::Args),
    /// Streams, queries and commands at once: what the last two wait while streams are sent to.
    Mixed(scenarios::MixedArgs),
    /// Clients that were away resume: the time until each has what it missed.
    ResumeStorm(scenarios::ResumeArgs),
    /// Clients of which some never read: what they cost the others.
    SlowReaders(scenarios::SlowArgs),
    /// Streams that open, at a rate or all at once.
    ConnectStorm(scenarios::ConnectArgs),
    /// Kills and restarts gateways while streams resume and commands are repeated.
    Chaos(chaos::Args),
    /// Two targets or builds by turns, A B A B: the ratio of each figure with its interval.
    Compare(compare::Args),
    /// Writes records to Kafka at a steady rate, each with the time it was due.
    Write(write::Args),
    /// A minimal server to compare with: sends the same bytes to every client.
    Raw(raw::Args),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match run(&line) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("error: {}", failures.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenario. Returns what makes the run a failure.
fn run(line: &CommandLine) -> Result<Vec<String>> {
    let stop = Stop::default();
    live::stop_on_interrupt(&stop)?;
    let live = Live::new(!line.report.quiet, line.report.output == Output::Text);
    let report = match &line.scenario {
        Scenario::Streams(args) => scenarios::streams(args, live, &stop),
        Scenario::Queries(args) => queries::run(args, live, &stop),
        Scenario::Commands(args) => commands::run(args, live, &stop),
        Scenario::Mixed(args) => scenarios::mixed(args, live, &stop),
        Scenario::ResumeStorm(args) => scenarios::resume_storm(args, live, &stop),
        Scenario::SlowReaders(args) => scenarios::slow_readers(args, live, &stop),
        Scenario::ConnectStorm(args) => scenarios::connect_storm(args, live, &stop),
        Scenario::Chaos(args) => chaos::run(args, live, &stop),
        Scenario::Compare(args) => return compare::run(args, &line.report, &stop),
        Scenario::Write(args) => write::run(args, live, &stop),
        Scenario::Raw(args) => return raw::run(args, &line.report),
    }?;
    report.finish(&line.report)
}
