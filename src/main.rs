//! Temporary until the command line's branch lands.
use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Parser)]
enum Cli {
    Run {
        #[arg(long)]
        config: String,
    },
    Demo(sluicegate::demo::DemoArgs),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Cli::parse() {
        Cli::Run { config } => {
            let text = std::fs::read_to_string(&config).expect("config");
            let file = sluicegate::config::ConfigFile { name: config, text };
            let sources = sluicegate::config::Sources {
                file: Some(file),
                environment: vec![],
                flags: vec![],
                cpus: 2,
            };
            match sluicegate::config::load(sources) {
                Ok(loaded) => match sluicegate::boot::run(loaded.config) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(e) => {
                        eprintln!("{e}");
                        ExitCode::from(69)
                    }
                },
                Err(report) => {
                    eprintln!("{report:?}");
                    ExitCode::from(78)
                }
            }
        }
        Cli::Demo(args) => match sluicegate::demo::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::from(e.exit_code())
            }
        },
    }
}
