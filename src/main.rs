//! The binary: parses the command line, runs the subcommand, and turns its result into an exit
//! code. Data goes to standard output, everything else to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use sluicegate::boot::{self, cpus, print_stderr};
use sluicegate::config::{self, CommandLine, Invocation, Loaded, Output, Report, Sources};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a rejected config (`EX_CONFIG` of sysexits).
const CONFIG_REFUSED: u8 = 78;

/// Exit code if the system refuses something that the process needs (`EX_UNAVAILABLE`).
const NOT_AVAILABLE: u8 = 69;

fn main() -> ExitCode {
    // clap ends the process here: code 2 for bad usage, 0 for help and version.
    let demo = demo_command::command().about("Show everything in one process, with a page");
    let matches = config::command().subcommand(demo).get_matches();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let colours = config::colours(&matches, no_color, std::io::stderr().is_terminal());
    match (
        Invocation::from_matches(&matches),
        matches.subcommand_matches("demo"),
    ) {
        (Some(invocation), _) => dispatch(invocation, colours),
        (None, Some(matches)) => demo_command::run(matches, colours),
        (None, None) => print(&config::short_help()),
    }
}

/// The subcommand `demo`, in builds that have it.
#[cfg(feature = "demo")]
mod demo_command {
    use std::process::ExitCode;

    use clap::{Args as _, FromArgMatches as _};
    use sluicegate::config::{Log, LogLevel};
    use sluicegate::demo::{self, DemoArgs};

    pub(super) fn command() -> clap::Command {
        DemoArgs::augment_args(clap::Command::new("demo"))
    }

    /// Runs the demo, with a log of warnings only.
    pub(super) fn run(matches: &clap::ArgMatches, colours: bool) -> ExitCode {
        let args = DemoArgs::from_arg_matches(matches).expect("clap checked them");
        let log = Log {
            level: LogLevel::Warn,
            ..Log::default()
        };
        if let Err(code) = super::start_log(&log, colours) {
            return code;
        }
        super::finish(demo::run(&args).map_err(|error| (error.exit_code(), error.into())))
    }
}

/// The subcommand `demo` of a build without it. It accepts all arguments, so that every call gets
/// the same answer.
#[cfg(not(feature = "demo"))]
mod demo_command {
    use std::process::ExitCode;

    pub(super) fn command() -> clap::Command {
        let any = clap::Arg::new("any").num_args(..).hide(true);
        let any = any.trailing_var_arg(true).allow_hyphen_values(true);
        clap::Command::new("demo").arg(any)
    }

    pub(super) fn run(_matches: &clap::ArgMatches, _colours: bool) -> ExitCode {
        super::print_stderr(
            "error: this program was built without the demo. Build it with its default features: \
             cargo build --release",
        );
        ExitCode::from(super::NOT_AVAILABLE)
    }
}

/// Ends the process: prints an error, or waits for the last lines of the log.
fn finish(result: Result<(), (u8, anyhow::Error)>) -> ExitCode {
    match result {
        Ok(()) => {
            boot::flush_log();
            ExitCode::SUCCESS
        }
        Err((code, error)) => {
            print_stderr(&format!("error: {error}"));
            ExitCode::from(code)
        }
    }
}

fn start_log(settings: &config::Log, colours: bool) -> Result<(), ExitCode> {
    boot::start_log(settings, colours).map_err(|error| {
        print_stderr(&format!("error: can't start the log's thread: {error}"));
        ExitCode::from(NOT_AVAILABLE)
    })
}

fn dispatch(invocation: Invocation, colours: bool) -> ExitCode {
    match invocation {
        Invocation::Run(line) => with(line, colours, to_serve, |loaded| {
            if let Err(code) = start_log(&loaded.config.settings.log, colours) {
                return code;
            }
            finish(boot::run(loaded.config).map_err(|error| (error.exit_code(), error.into())))
        }),
        Invocation::Check { config, output, .. } => check(config, output, colours),
        Invocation::Routes(line, output) => with(line, colours, config::load, |loaded| {
            print(&match output {
                Output::Text => config::routes_text(&loaded.config),
                Output::Json => config::routes_json(&loaded.config),
            })
        }),
        Invocation::Config(line, output) => with(line, colours, config::load, |loaded| {
            print(&match output {
                Output::Text => config::settings_text(&loaded),
                Output::Json => config::settings_json(&loaded),
            })
        }),
        Invocation::Healthcheck { config, live } => {
            with(
                config,
                colours,
                config::load,
                |loaded| match boot::healthcheck(&loaded.config, live) {
                    Ok(answer) => print(&format!("{answer}\n")),
                    Err(why) => {
                        print_stderr(&why);
                        ExitCode::FAILURE
                    }
                },
            )
        }
        Invocation::Version => print(concat!("sluicegate ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Prints all findings, and for a valid config its summary.
fn check(line: CommandLine, output: Output, colours: bool) -> ExitCode {
    let result = match sources(line) {
        Ok(sources) => to_serve(sources).map(|mut loaded| {
            loaded.warn(boot::descriptor_shortage(&loaded.config));
            loaded
        }),
        Err(code) => return code,
    };
    let (report, config) = match &result {
        Ok(loaded) => (&loaded.report, Some(&loaded.config)),
        Err(report) => (report, None),
    };
    let printed = match (output, &result) {
        (Output::Json, _) => print(&config::verdict_json(report, config, cpus())),
        (Output::Text, Ok(loaded)) => {
            show(report, colours);
            print(&config::verdict_text(loaded, cpus()))
        }
        (Output::Text, Err(report)) => {
            show(report, colours);
            ExitCode::SUCCESS
        }
    };
    match config {
        Some(_) => printed,
        None => ExitCode::from(CONFIG_REFUSED),
    }
}

/// Loads a config for serving. `run` and `check` both call this, so `check` rejects every config
/// that `run` rejects before it opens a socket.
fn to_serve(mut sources: Sources) -> Result<Loaded, Report> {
    sources.to_serve = true;
    let loaded = config::load(sources)?;
    let refusals = boot::refusals(&loaded.config);
    loaded.reject_for(refusals.iter().map(boot::BootError::reason))
}

/// Loads the config, prints its findings, and runs `then` if none of them is an error.
fn with(
    line: CommandLine,
    colours: bool,
    load: impl FnOnce(Sources) -> Result<Loaded, Report>,
    then: impl FnOnce(Loaded) -> ExitCode,
) -> ExitCode {
    let sources = match sources(line) {
        Ok(sources) => sources,
        Err(code) => return code,
    };
    match load(sources) {
        Ok(loaded) => {
            show(&loaded.report, colours);
            then(loaded)
        }
        Err(report) => {
            show(&report, colours);
            ExitCode::from(CONFIG_REFUSED)
        }
    }
}

fn sources(line: CommandLine) -> Result<Sources, ExitCode> {
    line.sources(std::env::vars_os(), cpus()).map_err(|why| {
        print_stderr(&format!("error: {why}"));
        ExitCode::from(CONFIG_REFUSED)
    })
}

fn show(report: &config::Report, colours: bool) {
    if report.findings.is_empty() {
        return;
    }
    print_stderr(&report.render(colours));
    match report.errors() {
        0 => {}
        1 => print_stderr("\n1 error: the config is rejected"),
        n => print_stderr(&format!("\n{n} errors: the config is rejected")),
    }
}

/// Writes data. A reader that closes its end early, as `head` does, is not an error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            print_stderr(&format!("error: can't write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
