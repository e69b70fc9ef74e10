//! The command line: subcommands, and one flag for each row of the settings table.
//!
//! Short help (`-h`) fits a screen and names the most used flags. Long help (`--help`) lists every
//! flag by group, with its environment variable and default.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches};

use super::settings::{Settings, TABLE};
use super::sources::{ConfigFile, FILE_BYTES_MAX, Sources};

/// Settings with flags in short help.
const COMMON: [&str; 9] = [
    "listen",
    "auth",
    "kafka.bootstrap",
    "shards",
    "kafka_shards",
    "cpus",
    "memory",
    "admin.listen",
    "log.level",
];

/// Format of what `check`, `routes` and `config show` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Aligned text for a terminal.
    Text,
    /// One JSON value on one line.
    Json,
}

/// The config file's path and the settings of one command line. No file is read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The path after `--config`, if given.
    pub file: Option<PathBuf>,
    /// Settings given as flags: the key and the text of the value.
    pub flags: Vec<(&'static str, String)>,
}

/// One parsed command line: the subcommand and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `run`: start the gateway and serve.
    Run(CommandLine),
    /// `check`: report everything that is wrong with the config.
    Check {
        /// Where the config comes from.
        config: CommandLine,
        /// `--no-kafka`: check only what needs no broker.
        no_kafka: bool,
        /// The format of the report.
        output: Output,
    },
    /// `routes`: list the routes of a config.
    Routes(CommandLine, Output),
    /// `config show`: print each setting and where its value came from.
    Config(CommandLine, Output),
    /// `healthcheck`: ask a running gateway whether it is ready.
    Healthcheck {
        /// Where the config of the running gateway comes from.
        config: CommandLine,
        /// `--live`: ask only whether it runs.
        live: bool,
    },
    /// `version`: print the version of the binary.
    Version,
}

/// The command line of this room. `main.rs` adds the subcommands of other rooms, such as `demo`.
#[must_use]
pub fn command() -> clap::Command {
    let check = config_command("check", "Say everything that is wrong with a config")
        .long_about(
            "Say everything that is wrong with a config, at once.\n\nThis is the static half: \
             syntax, references, limits, the memory sum, and the files and secrets that it names. \
             `run` refuses nothing else before it opens a socket. Brokers are not asked yet.",
        )
        .arg(
            Arg::new("no-kafka")
                .long("no-kafka")
                .action(ArgAction::SetTrue)
                .help("Check only what can be known without asking brokers"),
        )
        .arg(output());
    clap::Command::new("sluicegate")
        .about("Kafka behind plain HTTP: commands, queries and Server-Sent Events")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .max_term_width(100)
        .arg(color())
        .subcommand(config_command("run", "Serve"))
        .subcommand(check)
        .subcommand(config_command("routes", "List the routes of a config").arg(output()))
        .subcommand(
            clap::Command::new("config")
                .about("Look at a config")
                .subcommand_required(true)
                .subcommand(
                    config_command("show", "Each setting and where it came from").arg(output()),
                ),
        )
        .subcommand(
            config_command("healthcheck", "Ask a running gateway whether it is ready").arg(
                Arg::new("live")
                    .long("live")
                    .action(ArgAction::SetTrue)
                    .help("Ask only whether it runs (/livez)"),
            ),
        )
        .subcommand(clap::Command::new("version").about("Print the version"))
}

/// Text that `sluicegate` prints without a subcommand: a summary, and the two commands to try
/// first.
#[must_use]
pub fn short_help() -> String {
    "sluicegate puts Kafka behind plain HTTP: commands, queries and Server-Sent Events.\n\n\
     Try first:\n  \
     sluicegate demo                         everything in one process, with a page to click on\n  \
     sluicegate run --config gateway.toml    serve your own topics\n\n\
     Also: check, routes, config show, healthcheck, version. `sluicegate COMMAND --help` says \
     more.\n"
        .to_owned()
}

impl Invocation {
    /// Returns the subcommand with its arguments, or `None` if there is no subcommand or another
    /// room handles it.
    #[must_use]
    pub fn from_matches(matches: &ArgMatches) -> Option<Self> {
        let (name, matches) = matches.subcommand()?;
        Some(match name {
            "run" => Self::Run(CommandLine::from_matches(matches)),
            "check" => Self::Check {
                config: CommandLine::from_matches(matches),
                no_kafka: matches.get_flag("no-kafka"),
                output: output_of(matches),
            },
            "routes" => Self::Routes(CommandLine::from_matches(matches), output_of(matches)),
            "config" => {
                let (_, matches) = matches.subcommand()?;
                Self::Config(CommandLine::from_matches(matches), output_of(matches))
            }
            "healthcheck" => Self::Healthcheck {
                config: CommandLine::from_matches(matches),
                live: matches.get_flag("live"),
            },
            "version" => Self::Version,
            _ => return None,
        })
    }
}

impl CommandLine {
    fn from_matches(matches: &ArgMatches) -> Self {
        let mut flags = Vec::new();
        for setting in TABLE.iter().filter(|it| !(it.secret)()) {
            if let Some(values) = matches.get_many::<String>(setting.key) {
                let values: Vec<_> = values.map(String::as_str).collect();
                flags.push((setting.key, values.join(",")));
            }
        }
        let file = matches.get_one::<PathBuf>("config").cloned();
        Self { file, flags }
    }

    /// Reads the file named by `--config`, or by `SLUICEGATE_CONFIG` if that flag is absent.
    /// Without either there is no file.
    ///
    /// # Errors
    /// The file cannot be read. The text names the file and the cause.
    pub fn sources(
        self,
        environment: impl Iterator<Item = (OsString, OsString)>,
        cpus: u16,
    ) -> Result<Sources, String> {
        // Skip names and values that are not UTF-8: no setting accepts them.
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment: Vec<(String, String)> = environment.filter_map(text).collect();
        let named = || {
            let found = environment
                .iter()
                .find(|(name, _)| name == "SLUICEGATE_CONFIG");
            found
                .filter(|(_, path)| !path.is_empty())
                .map(|(_, path)| PathBuf::from(path))
        };
        let file = self.file.or_else(named).map(read).transpose()?;
        let flags = self.flags;
        Ok(Sources {
            file,
            environment,
            flags,
            cpus,
            to_serve: false,
        })
    }
}

fn read(path: PathBuf) -> Result<ConfigFile, String> {
    let name = path.display().to_string();
    let refused = |why: &dyn std::fmt::Display| format!("can't read the config file {name}: {why}");
    let about = std::fs::metadata(&path).map_err(|error| refused(&error))?;
    if !about.is_file() {
        return Err(refused(&"it is not a file"));
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(refused(&format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| refused(&error))?;
    Ok(ConfigFile { name, text })
}

fn config_command(name: &'static str, about: &'static str) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help("TOML file with the routes")
        .long_help("TOML file with the routes [env: SLUICEGATE_CONFIG]");
    let defaults = Settings::default();
    let flags = TABLE.iter().filter(|it| !(it.secret)());
    let flags = flags.map(|setting| {
        let (variable, shown) = (setting.variable(), setting.default_text(&defaults));
        let doc = setting.doc.trim();
        let first = doc.split_inclusive(". ").next().unwrap_or(doc).trim_end();
        let flag = Arg::new(setting.key)
            .long(setting.flag())
            .value_name(value_name(&(setting.describe)()))
            .action(ArgAction::Append)
            .help_heading(setting.group)
            .help(format!("{first} [default: {shown}]"))
            .long_help(format!("{doc} [env: {variable}] [default: {shown}]"));
        // A switch alone means `true`.
        let flag = if (setting.describe)().starts_with("true") {
            flag.num_args(0..=1).default_missing_value("true")
        } else {
            flag
        };
        flag.hide_short_help(!COMMON.contains(&setting.key))
    });
    clap::Command::new(name)
        .about(about)
        .arg(config)
        .args(flags)
        .after_help("`--help` shows every flag; docs/config.md the file.")
}

/// The placeholder that help shows for a flag's value, chosen by what its setting allows.
fn value_name(allowed: &str) -> &'static str {
    match allowed {
        _ if allowed.contains("ip:port") => "ADDRESS",
        _ if allowed.contains("host:port") => "BROKER",
        _ if allowed.contains("a path") => "PATH",
        _ if allowed.contains("iB") => "SIZE",
        _ if allowed.starts_with("true") => "BOOL",
        _ if allowed.starts_with('`') => "WORD",
        _ if allowed.contains("ranges") => "CPUS",
        _ if allowed.contains("text of") => "TEXT",
        _ if allowed.ends_with(|c: char| c.is_ascii_digit()) || allowed.contains("one per CPU") => {
            "N"
        }
        _ => "TIME",
    }
}

/// Whether standard error gets colours. `--color` decides; under `auto`, `NO_COLOR` turns them off
/// and otherwise only a terminal gets them.
#[must_use]
pub fn colours(matches: &ArgMatches, no_color: bool, terminal: bool) -> bool {
    match matches.get_one::<String>("color").map(String::as_str) {
        Some("always") => true,
        Some("never") => false,
        _ => terminal && !no_color,
    }
}

fn color() -> Arg {
    Arg::new("color")
        .long("color")
        .global(true)
        .value_name("WHEN")
        .default_value("auto")
        .value_parser(PossibleValuesParser::new(["auto", "always", "never"]))
        .help("Colours: auto heeds NO_COLOR and whether it is a terminal")
}

fn output() -> Arg {
    Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FORMAT")
        .default_value("text")
        .value_parser(PossibleValuesParser::new(["text", "json"]))
        .help("How to write it")
}

fn output_of(matches: &ArgMatches) -> Output {
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Output::Json,
        _ => Output::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Invocation> {
        let matches = command().try_get_matches_from(line.split(' ')).expect(line);
        Invocation::from_matches(&matches)
    }

    fn help(line: &str) -> String {
        let parsed = command().try_get_matches_from(line.split(' '));
        parsed.expect_err("help is no match").to_string()
    }

    #[test]
    fn clap_finds_no_fault() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_keys_and_lists_repeat() {
        let line = "sluicegate run -c g.toml --listen 127.0.0.1:1 --listen [::1]:2 \
                    --http-body-bytes-max 1MiB";
        let expected = CommandLine {
            file: Some("g.toml".into()),
            flags: vec![
                ("listen", "127.0.0.1:1,[::1]:2".into()),
                ("http.body_bytes_max", "1MiB".into()),
            ],
        };
        assert_eq!(parse(line), Some(Invocation::Run(expected)));
        for (line, value) in [
            ("sluicegate run --reuse-port --shards 2", "true"),
            ("sluicegate run --shards 2 --reuse-port", "true"),
            ("sluicegate run --shards 2 --reuse-port=false", "false"),
        ] {
            let Some(Invocation::Run(line)) = parse(line) else {
                panic!("{line}");
            };
            assert!(
                line.flags.contains(&("reuse_port", value.into())),
                "{line:?}"
            );
        }
        let check = parse("sluicegate check --no-kafka");
        assert!(matches!(
            check,
            Some(Invocation::Check { no_kafka: true, .. })
        ));
        let show = parse("sluicegate config show -o json");
        assert!(matches!(show, Some(Invocation::Config(_, Output::Json))));
        assert_eq!(parse("sluicegate version"), Some(Invocation::Version));
        assert_eq!(parse("sluicegate"), None);
        assert!(
            command()
                .try_get_matches_from(["sluicegate", "run", "--no-such"])
                .is_err()
        );
    }

    #[test]
    fn short_help_fits_a_screen_and_long_help_has_every_setting() {
        let short = help("sluicegate run -h");
        assert!(short.lines().count() <= 40, "{short}");
        for key in COMMON {
            assert!(TABLE.iter().any(|it| it.key == key), "{key}");
        }
        // clap wraps lines at any space: compare without line breaks.
        let long = help("sluicegate run --help");
        let long = long.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in TABLE {
            // Every user of the machine can read another process's arguments, so secrets have no
            // flag.
            assert_ne!(
                long.contains(&format!("--{} ", setting.flag())),
                (setting.secret)(),
                "{}",
                setting.key
            );
            assert!(
                (setting.secret)() || long.contains(&format!("[env: {}]", setting.variable())),
                "{}",
                setting.key
            );
        }
        assert!(short_help().lines().count() < 12);
    }

    #[test]
    fn a_config_that_cannot_be_read_is_named() {
        let line = CommandLine {
            file: Some("/no/such/gateway.toml".into()),
            ..CommandLine::default()
        };
        let why = line
            .sources(std::iter::empty(), 1)
            .expect_err("no such file");
        assert!(
            why.contains("/no/such/gateway.toml") && why.contains("No such file"),
            "{why}"
        );
        let directory = ("SLUICEGATE_CONFIG".into(), "/".into());
        let why = CommandLine::default().sources([directory].into_iter(), 1);
        assert!(why.expect_err("a directory").contains("not a file"));
    }
}
