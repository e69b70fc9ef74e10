//! The load generator: one small program per role. Each is single-threaded, so that the cost of a
//! client is known and a server can be measured on the same machine.
//!
//! It shares no code with the gateway's protocols: its own parsers (`http.rs`, `events.rs`) read
//! the responses, so that a codec bug cannot hide. Results go to standard output, one `name value`
//! per line or one line of JSON; everything else goes to standard error. `loadtest/speed` combines
//! the roles.

#![allow(
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and it is no part of the product"
)]

mod events;
mod get;
mod http;
mod ledger;
mod net;
mod proc;
mod raw;
mod record;
mod report;
mod streams;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load for Sluicegate, and a minimal server to compare it with.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-load", version)]
struct CommandLine {
    #[command(subcommand)]
    role: Role,
    /// Format of the printed results.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: report::Output,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Event-stream clients: count and check events, and measure their delays.
    Streams(streams::Args),
    /// GETs over keep-alive connections, each sending again when it is answered.
    Get(get::Args),
    /// Writes records to Kafka at a steady rate, each with the time it was due.
    Write(write::Args),
    /// A minimal server: sends the same bytes to every client and does nothing else.
    Raw(raw::Args),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match line.role {
        Role::Streams(args) => streams::run(&args),
        Role::Get(args) => get::run(&args),
        Role::Write(args) => write::run(&args),
        Role::Raw(args) => raw::run(&args),
    };
    match done {
        Ok(report) => {
            report.print(line.output);
            match report.failures() {
                [] => ExitCode::SUCCESS,
                failures => {
                    eprintln!("error: {}", failures.join("; "));
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
