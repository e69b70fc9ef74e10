//! The binary: reads the command line, gives the word to whoever it asks for, and turns what comes
//! back into an exit code. Data goes to standard output, everything else to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};

use sluicegate::boot::{self, cpus};
use sluicegate::config::{self, CommandLine, Invocation, Loaded, LogFormat, LogLevel, Output};
use sluicegate::demo::{self, DemoArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The config is refused (`EX_CONFIG` of sysexits).
const CONFIG_REFUSED: u8 = 78;

/// Why a config without routes is not run.
const NOTHING_TO_SERVE: &str = "\
there is nothing to serve: name a config with routes, `sluicegate run --config FILE`;
docs/config.md shows [[command]], [[query]] and [[stream]]. To see it work: `sluicegate demo`";

fn main() -> ExitCode {
    // Bad usage ends here with code 2, help and version with 0.
    let demo = DemoArgs::augment_args(clap::Command::new("demo"));
    let matches = config::command()
        .subcommand(demo.about("Show everything in one process, with a page"))
        .get_matches();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let colours = config::colours(&matches, no_color, std::io::stderr().is_terminal());
    match (
        Invocation::from_matches(&matches),
        matches.subcommand_matches("demo"),
    ) {
        (Some(invocation), _) => dispatch(invocation, colours),
        (None, Some(matches)) => show_demo(matches, colours),
        (None, None) => print(&config::short_help()),
    }
}

/// Shows everything in one process.
fn show_demo(matches: &clap::ArgMatches, colours: bool) -> ExitCode {
    let args = DemoArgs::from_arg_matches(matches).expect("clap checked them");
    start_log(
        &config::Log {
            level: LogLevel::Warn,
            ..config::Log::default()
        },
        colours,
    );
    match demo::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("error: {error}");
            ExitCode::from(code)
        }
    }
}

fn dispatch(invocation: Invocation, colours: bool) -> ExitCode {
    match invocation {
        Invocation::Run(line) => with(line, colours, |loaded| {
            if !loaded.config.has_routes() {
                eprintln!("error: {NOTHING_TO_SERVE}");
                return ExitCode::from(CONFIG_REFUSED);
            }
            start_log(&loaded.config.settings.log, colours);
            match boot::run(loaded.config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let code = error.exit_code();
                    eprintln!("error: {error}");
                    ExitCode::from(code)
                }
            }
        }),
        Invocation::Check { config, output, .. } => check(config, output, colours),
        Invocation::Routes(line, output) => with(line, colours, |loaded| {
            print(&match output {
                Output::Text => config::routes_text(&loaded.config),
                Output::Json => config::routes_json(&loaded.config),
            })
        }),
        Invocation::Config(line, output) => with(line, colours, |loaded| {
            print(&match output {
                Output::Text => config::settings_text(&loaded),
                Output::Json => config::settings_json(&loaded),
            })
        }),
        Invocation::Version => print(concat!("sluicegate ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Says what is wrong; then what the config is, if nothing is.
fn check(line: CommandLine, output: Output, colours: bool) -> ExitCode {
    let result = match sources(line) {
        Ok(sources) => config::load(sources),
        Err(code) => return code,
    };
    let (report, config) = match &result {
        Ok(loaded) => (&loaded.report, Some(&loaded.config)),
        Err(report) => (report, None),
    };
    match (output, config) {
        (Output::Json, config) => {
            print(&config::verdict_json(report, config, cpus()));
        }
        (Output::Text, Some(config)) => {
            show(report, colours);
            print(&config::verdict_text(config, cpus()));
        }
        (Output::Text, None) => show(report, colours),
    }
    match config {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(CONFIG_REFUSED),
    }
}

/// Loads the config, shows what is wrong with it, and goes on if nothing stands against it.
fn with(line: CommandLine, colours: bool, go_on: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    let sources = match sources(line) {
        Ok(sources) => sources,
        Err(code) => return code,
    };
    match config::load(sources) {
        Ok(loaded) => {
            show(&loaded.report, colours);
            go_on(loaded)
        }
        Err(report) => {
            show(&report, colours);
            ExitCode::from(CONFIG_REFUSED)
        }
    }
}

fn sources(line: CommandLine) -> Result<config::Sources, ExitCode> {
    line.sources(std::env::vars_os(), cpus()).map_err(|why| {
        eprintln!("error: {why}");
        ExitCode::from(CONFIG_REFUSED)
    })
}

fn show(report: &config::Report, colours: bool) {
    if report.findings.is_empty() {
        return;
    }
    eprintln!("{}", report.render(colours));
    match report.errors() {
        0 => {}
        1 => eprintln!("\n1 error: the config is refused"),
        n => eprintln!("\n{n} errors: the config is refused"),
    }
}

/// Writes data. A reader that left, as `head` does, is no failure of ours.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: can't write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(settings: &config::Log, colours: bool) {
    let level = match settings.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    match settings.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
