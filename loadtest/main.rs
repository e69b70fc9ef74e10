//! The load generator: one small program a role, each single-threaded, so that what a client costs
//! is known and a server can be measured beside it.
//!
//! It shares no code with the gateway's protocols: replies are read by its own parsers (`http.rs`,
//! `events.rs`), so that a codec bug cannot hide. Figures go to standard output, one `name value` a
//! line or one line of JSON; everything else to standard error. `loadtest/speed` puts the roles
//! together.

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

/// Load for Sluicegate, and what to measure it against.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-load", version)]
struct CommandLine {
    #[command(subcommand)]
    role: Role,
    /// How figures are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: report::Output,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Event-stream clients: count, verify, measure the delay of each event.
    Streams(streams::Args),
    /// GETs over keep-alive connections, each asking again once it is answered.
    Get(get::Args),
    /// Writes records to Kafka at a steady rate, each with the time it was due.
    Write(write::Args),
    /// The least a server can do: sends the same bytes to every client, nothing else.
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
