//! The binary: parses the command line, runs the subcommand, and turns its result into an exit
//! code. Data goes to standard output, everything else to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use sluicegate::boot::LiveReport;
use sluicegate::boot::{self, cpus, print_stderr};
use sluicegate::config::{
    self, CommandLine, Invocation, Loaded, Output, Report, Sources, TapArgs, TopicsAction,
};
use sluicegate::control::{Ensured, Fit, TapItem, TapNext, report_json, report_text};
use sluicegate::route;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for wrong usage, as clap's.
const USAGE: u8 = 2;

/// Exit code for a rejected config (`EX_CONFIG` of sysexits).
const CONFIG_REFUSED: u8 = 78;

/// Exit code if the system refuses something that the process needs (`EX_UNAVAILABLE`).
const NOT_AVAILABLE: u8 = 69;

fn main() -> ExitCode {
    // clap ends the process here: code 2 for bad usage, 0 for help and version.
    let demo = demo_command::command().about("Show everything in one process, with a page");
    let init = demo_command::init().about("Write a config and a small service to start from");
    let all = config::command().subcommand(demo).subcommand(init);
    let matches = all.get_matches();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let colours = config::colours(&matches, no_color, std::io::stderr().is_terminal());
    if let Some(invocation) = Invocation::from_matches(&matches) {
        return dispatch(invocation, colours);
    }
    match matches.subcommand() {
        Some(("demo", matches)) => demo_command::run(matches, colours),
        Some(("init", matches)) => demo_command::run_init(matches),
        _ => print(&config::short_help()),
    }
}

/// The subcommand `demo`, in builds that have it.
#[cfg(feature = "demo")]
mod demo_command {
    use std::process::ExitCode;

    use clap::{Args as _, FromArgMatches as _};
    use sluicegate::config::{Log, LogLevel};
    use sluicegate::demo::{self, DemoArgs, InitArgs};

    pub(super) fn command() -> clap::Command {
        DemoArgs::augment_args(clap::Command::new("demo"))
    }

    pub(super) fn init() -> clap::Command {
        InitArgs::augment_args(clap::Command::new("init"))
    }

    /// Writes the files of `init`, and prints what to do next.
    pub(super) fn run_init(matches: &clap::ArgMatches) -> ExitCode {
        let args = InitArgs::from_arg_matches(matches).expect("clap checked them");
        match demo::init(&args) {
            Ok(next_steps) => super::print(&next_steps),
            Err(error) => super::finish(Err((super::NOT_AVAILABLE, error.into()))),
        }
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

    pub(super) fn init() -> clap::Command {
        command().name("init")
    }

    pub(super) fn run_init(_matches: &clap::ArgMatches) -> ExitCode {
        super::without_demo()
    }

    pub(super) fn run(_matches: &clap::ArgMatches, _colours: bool) -> ExitCode {
        super::without_demo()
    }
}

/// The subcommand `dev`, in builds that have the development broker.
#[cfg(feature = "demo")]
mod dev_command {
    use std::process::ExitCode;
    use std::time::Duration;

    use sluicegate::config::{CommandLine, Loaded};
    use sluicegate::demo::{self, DevBrokers};

    /// Drain of a gateway that no load balancer and no other instance knows, unless it is set.
    const DRAIN: Duration = Duration::from_secs(1);

    /// Starts the broker, then serves in the same process: one Ctrl-C ends both.
    pub(super) fn run(line: CommandLine, partitions: u32, colours: bool) -> ExitCode {
        super::with(line, colours, to_serve, |mut loaded| {
            if loaded.origins.is_default("drain_grace") {
                loaded.config.settings.drain_grace = Duration::ZERO;
            }
            if loaded.origins.is_default("drain") {
                loaded.config.settings.drain = DRAIN;
            }
            let brokers = match DevBrokers::start(&loaded.config, partitions) {
                Ok(brokers) => brokers,
                Err(error) => return super::finish(Err((super::NOT_AVAILABLE, error.into()))),
            };
            super::print(&brokers.summary());
            // The brokers end after the gateway, so that commands in flight get their replies.
            super::serve(loaded, colours)
        })
    }

    fn to_serve(
        sources: sluicegate::config::Sources,
    ) -> Result<Loaded, sluicegate::config::Report> {
        let loaded = super::to_serve(sources)?;
        let refusals = demo::dev_refusals(&loaded);
        loaded.reject_for(refusals)
    }
}

/// The subcommand `dev` of a build without the development broker.
#[cfg(not(feature = "demo"))]
mod dev_command {
    use std::process::ExitCode;

    use sluicegate::config::CommandLine;

    pub(super) fn run(_line: CommandLine, _partitions: u32, _colours: bool) -> ExitCode {
        super::without_demo()
    }
}

/// The answer of a build without the development broker to subcommands that need it.
#[cfg(not(feature = "demo"))]
fn without_demo() -> ExitCode {
    print_stderr(
        "error: this program was built without the demo and its broker. Build it with its default \
         features: cargo build --release",
    );
    ExitCode::from(NOT_AVAILABLE)
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
        Invocation::Run(line) => with(line, colours, to_serve, |loaded| serve(loaded, colours)),
        Invocation::Dev { config, partitions } => dev_command::run(config, partitions, colours),
        Invocation::Check {
            config,
            live,
            output,
        } => check(config, live, output, colours),
        Invocation::Topics {
            config,
            action,
            output,
        } => with(config, colours, config::load, |loaded| {
            topics(&loaded, action, output)
        }),
        Invocation::Tap { config, tap } => with(config, colours, config::load, |loaded| {
            run_tap(&loaded, &tap)
        }),
        Invocation::Routes {
            config,
            explain,
            output,
        } => with(config, colours, config::load, |loaded| match explain {
            Some((method, target)) => explain_route(&loaded, &method, &target),
            None => print(&match output {
                Output::Text => config::routes_text(&loaded.config),
                Output::Json => config::routes_json(&loaded.config),
            }),
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

/// Serves until a signal.
fn serve(loaded: Loaded, colours: bool) -> ExitCode {
    if let Err(code) = start_log(&loaded.config.settings.log, colours) {
        return code;
    }
    boot::log_start(&loaded);
    finish(boot::run(loaded.config).map_err(|error| (error.exit_code(), error.into())))
}

/// Lists the topics that the config needs, or creates them.
fn topics(loaded: &Loaded, action: TopicsAction, output: Output) -> ExitCode {
    let config = &loaded.config;
    match action {
        TopicsAction::Print(new) => return print(&config::topic_commands(config, new)),
        TopicsAction::Create(new) => match boot::create_topics(config, new) {
            Ok(topics) => {
                for (name, ensured) in topics {
                    let done = match ensured {
                        Ensured::Created => "created",
                        Ensured::Existed => "exists",
                    };
                    print_stderr(&format!("{name}: {done}"));
                }
            }
            Err(error) => return finish(Err((error.exit_code(), error.into()))),
        },
        TopicsAction::List => {}
    }
    match boot::ask_clusters(config) {
        Ok(report) => {
            print(&live_text(&report, output));
            live_verdict(&report)
        }
        Err(error) => finish(Err((error.exit_code(), error.into()))),
    }
}

/// Prints records until there are enough, or the reader of standard output has.
fn run_tap(loaded: &Loaded, args: &TapArgs) -> ExitCode {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut out = std::io::stdout();
    let show = |item: TapItem<'_>| {
        let line = boot::tap_line(&item, args);
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        left -= 1;
        match written {
            Ok(()) if left > 0 => TapNext::More,
            _ => TapNext::Enough,
        }
    };
    let tapped = boot::tap(&loaded.config, &args.name, args.from, show);
    finish(tapped.map_err(|error| (error.exit_code(), error.into())))
}

/// What the brokers reported.
fn live_text(report: &LiveReport, output: Output) -> String {
    match output {
        Output::Json => format!("{}\n", report_json(&report.topics)),
        Output::Text => format!(
            "{}\n{}",
            report.clusters.join("\n"),
            report_text(&report.topics)
        ),
    }
}

/// The exit code for what the brokers reported.
fn live_verdict(report: &LiveReport) -> ExitCode {
    if report.topics.iter().any(|it| it.fit() == Fit::Unfit) {
        ExitCode::from(CONFIG_REFUSED)
    } else {
        ExitCode::SUCCESS
    }
}

/// Reports which route a request matches. Exits with 1 if none does.
fn explain_route(loaded: &Loaded, method: &str, target: &str) -> ExitCode {
    match route::explain(&loaded.config, method, target) {
        Ok(explanation) if explanation.matches => print(&explanation.text),
        Ok(explanation) => {
            print(&explanation.text);
            ExitCode::FAILURE
        }
        Err(why) => {
            print_stderr(&format!("error: {why}"));
            ExitCode::from(USAGE)
        }
    }
}

/// Prints all findings, and for a valid config its summary. With `live`, the brokers are asked too.
fn check(line: CommandLine, live: bool, output: Output, colours: bool) -> ExitCode {
    let result = match sources(line) {
        Ok(sources) => to_serve(sources).map(|mut loaded| {
            loaded.warn(boot::descriptor_shortage(&loaded.config));
            loaded
        }),
        Err(code) => return code,
    };
    let loaded = match result {
        Ok(loaded) => loaded,
        Err(report) => {
            match output {
                Output::Json => print(&config::verdict_json(&report, None, cpus(), None)),
                Output::Text => {
                    show(&report, colours);
                    ExitCode::SUCCESS
                }
            };
            return ExitCode::from(CONFIG_REFUSED);
        }
    };
    let asked = match live.then(|| boot::ask_clusters(&loaded.config)).transpose() {
        Ok(asked) => asked,
        Err(error) => {
            show(&loaded.report, colours);
            return finish(Err((error.exit_code(), error.into())));
        }
    };
    let printed = match output {
        Output::Json => {
            let topics = asked.as_ref().map(|it| report_json(&it.topics));
            let config = Some(&loaded.config);
            print(&config::verdict_json(
                &loaded.report,
                config,
                cpus(),
                topics,
            ))
        }
        Output::Text => {
            show(&loaded.report, colours);
            let text = config::verdict_text(&loaded, cpus(), live);
            let asked = asked.as_ref().map(|it| live_text(it, output));
            print(&format!("{text}\n{}", asked.unwrap_or_default()))
        }
    };
    asked.as_ref().map_or(printed, live_verdict)
}

/// Loads a config for serving. `run` and `check` both call this, so `check` rejects every config
/// that `run` rejects before it opens a socket.
fn to_serve(mut sources: Sources) -> Result<Loaded, Report> {
    sources.to_serve = true;
    let loaded = config::load(sources)?;
    let refusals = boot::refusals(&loaded.config);
    let foreign = boot::foreign_addresses(&loaded);
    let refusals = refusals.iter().map(boot::BootError::reason);
    loaded.reject_for(refusals.chain(foreign))
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
