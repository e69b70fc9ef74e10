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
        /// `--live`: also ask the brokers.
        live: bool,
        /// The format of the report.
        output: Output,
    },
    /// `dev`: start the development broker with the topics of the config, and serve.
    Dev {
        /// Where the config comes from.
        config: CommandLine,
        /// Partitions of each topic.
        partitions: u32,
    },
    /// `topics`: list the topics that the config needs, or create them.
    Topics {
        /// Where the config comes from.
        config: CommandLine,
        /// What to do about missing topics.
        action: TopicsAction,
        /// The format of the list.
        output: Output,
    },
    /// `tap`: print the records of a topic as they pass.
    Tap {
        /// Where the config comes from.
        config: CommandLine,
        /// What to print.
        tap: TapArgs,
    },
    /// `routes`: list the routes of a config, with a curl line for each.
    Routes {
        /// Where the config comes from.
        config: CommandLine,
        /// `--explain METHOD PATH`: report which route a request matches, and why.
        explain: Option<(String, String)>,
        /// The format of the list.
        output: Output,
    },
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

/// What `topics` does about topics that the cluster does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicsAction {
    /// Lists every topic with what the config needs and what the cluster has.
    List,
    /// Creates the topics that do not exist.
    Create(NewTopics),
    /// Prints the commands of `kafka-topics.sh` that would create them. No broker is asked.
    Print(NewTopics),
}

/// What `tap` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapArgs {
    /// A topic, or a stream by its name.
    pub name: String,
    /// Where to begin: -N for the last N offsets of each partition, N for that offset.
    pub from: i64,
    /// How many records. `None`: until a signal.
    pub count: Option<u64>,
    /// Whether keys, headers and values are printed.
    pub payload: bool,
    /// The format of each record.
    pub output: Output,
}

/// The size of topics that `topics --create` creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTopics {
    /// Partitions of each topic.
    pub partitions: u32,
    /// Replicas of each partition. `None`: the cluster's default.
    pub replication: Option<u16>,
}

/// Partitions of a new topic, unless `--partitions` says otherwise.
const PARTITIONS_DEFAULT: &str = "3";

/// The command line of this room. `main.rs` adds the subcommands of other rooms, such as `demo`.
#[must_use]
pub fn command() -> clap::Command {
    let check = config_command("check", "Say everything that is wrong with a config")
        .long_about(
            "Say everything that is wrong with a config, at once: syntax, references, limits, the \
             memory sum, and the files and secrets that it names. `run` rejects nothing else \
             before it opens a socket.\n\nWith `--live` the brokers are asked too: whether they \
             are reachable, whether the topics exist and fit their routes, and whether this user \
             may read and write them. Nothing is written.",
        )
        .arg(
            Arg::new("live")
                .long("live")
                .action(ArgAction::SetTrue)
                .help("Also ask the brokers: topics, policies, partitions, rights"),
        )
        .arg(output());
    let dev = config_command(
        "dev",
        "Serve with a development broker that has the config's topics",
    )
    .long_about(
        "Start a development broker at the address of `kafka.bootstrap`, create the topics \
             that the config names, and serve, all in this process.\n\nThe broker is in memory: \
             nothing is kept, and it is not for production. Other Kafka clients may use it, and \
             create further topics by using them.",
    )
    .arg(partitions());
    let topics = config_command("topics", "List or create the topics that a config needs")
        .arg(
            Arg::new("create")
                .long("create")
                .action(ArgAction::SetTrue)
                .help("Create the topics that do not exist"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print the kafka-topics.sh commands instead; no broker is asked"),
        )
        .arg(partitions())
        .arg(
            Arg::new("replication")
                .long("replication")
                .value_name("N")
                .value_parser(clap::value_parser!(u16).range(1..=100))
                .help("Replicas of each partition [default: the cluster's]"),
        )
        .arg(output());
    let routes = config_command(
        "routes",
        "List the routes of a config, with a curl line for each",
    )
    .arg(
        Arg::new("explain")
            .long("explain")
            .num_args(2)
            .value_names(["METHOD", "PATH"])
            .help("Report which route a request matches, and why"),
    )
    .arg(output());
    clap::Command::new("sluicegate")
        .about("Kafka behind plain HTTP: commands, queries and Server-Sent Events")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .max_term_width(100)
        .arg(color())
        .subcommand(config_command("run", "Serve"))
        .subcommand(dev)
        .subcommand(check)
        .subcommand(routes)
        .subcommand(topics)
        .subcommand(tap())
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
     sluicegate init                         write a config and a service of your own\n\n\
     Then: dev, run, check, routes, topics, tap, config show, healthcheck, version.\n\
     `sluicegate COMMAND --help` says more.\n"
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
                live: matches.get_flag("live"),
                output: output_of(matches),
            },
            "dev" => Self::Dev {
                config: CommandLine::from_matches(matches),
                partitions: partitions_of(matches),
            },
            "topics" => Self::Topics {
                config: CommandLine::from_matches(matches),
                action: topics_action(matches),
                output: output_of(matches),
            },
            "tap" => Self::Tap {
                config: CommandLine::from_matches(matches),
                tap: tap_args(matches),
            },
            "routes" => Self::Routes {
                config: CommandLine::from_matches(matches),
                explain: explain_of(matches),
                output: output_of(matches),
            },
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
        let named = matches.get_one::<PathBuf>("config");
        let file = named.or(matches.get_one::<PathBuf>("file")).cloned();
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
    let bytes = std::fs::read(&path).map_err(|error| refused(&error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(ConfigFile { name, text }),
        Err(error) => Err(not_utf8(&name, &error)),
    }
}

/// Names the place of the first byte that is not UTF-8.
fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> String {
    let valid = error.utf8_error().valid_up_to();
    let (before, rest) = error.as_bytes().split_at(valid);
    if before.is_empty() && (rest.starts_with(&[0xff, 0xfe]) || rest.starts_with(&[0xfe, 0xff])) {
        return format!("{name}:1:1: the file is UTF-16: save it as UTF-8");
    }
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    let byte = rest.first().copied().unwrap_or_default();
    format!("{name}:{line}:{column}: the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8")
}

fn config_command(name: &'static str, about: &'static str) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help("TOML file with the routes")
        .long_help("TOML file with the routes [env: SLUICEGATE_CONFIG]");
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .conflicts_with("config")
        .help("The same as `--config FILE`");
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
        .arg(file)
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

fn tap() -> clap::Command {
    config_command("tap", "Print the records of a topic as they pass")
        .long_about(
            "Print partition, offset, age and size of a topic's records, as they pass, with the \
             credentials of the config. Only committed records are shown. `--payload` prints key, \
             headers and value too.",
        )
        .mut_arg("file", |file| file.index(2))
        .arg(
            Arg::new("name")
                .index(1)
                .required(true)
                .value_name("TOPIC|STREAM")
                .help("A topic, or a stream by its name"),
        )
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("OFFSET")
                .default_value("-10")
                .allow_negative_numbers(true)
                .value_parser(clap::value_parser!(i64))
                .help("-N: the last N of each partition; N: from that offset on"),
        )
        .arg(
            Arg::new("count")
                .short('n')
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("End after N records [default: go on until Ctrl-C]"),
        )
        .arg(
            Arg::new("payload")
                .long("payload")
                .action(ArgAction::SetTrue)
                .help("Print key, headers and value too"),
        )
        .arg(output())
}

fn tap_args(matches: &ArgMatches) -> TapArgs {
    let name = matches.get_one::<String>("name").cloned();
    let from = matches.get_one::<i64>("from").copied();
    TapArgs {
        name: name.expect("it is required"),
        from: from.expect("it has a default"),
        count: matches.get_one::<u64>("count").copied(),
        payload: matches.get_flag("payload"),
        output: output_of(matches),
    }
}

fn partitions() -> Arg {
    Arg::new("partitions")
        .long("partitions")
        .value_name("N")
        .default_value(PARTITIONS_DEFAULT)
        .value_parser(clap::value_parser!(u32).range(1..=128))
        .help("Partitions of each new topic")
}

fn partitions_of(matches: &ArgMatches) -> u32 {
    let given = matches.get_one::<u32>("partitions");
    *given.expect("it has a default")
}

fn topics_action(matches: &ArgMatches) -> TopicsAction {
    let new = NewTopics {
        partitions: partitions_of(matches),
        replication: matches.get_one::<u16>("replication").copied(),
    };
    match (matches.get_flag("dry-run"), matches.get_flag("create")) {
        (true, _) => TopicsAction::Print(new),
        (false, true) => TopicsAction::Create(new),
        (false, false) => TopicsAction::List,
    }
}

/// Method and path after `--explain`.
fn explain_of(matches: &ArgMatches) -> Option<(String, String)> {
    let mut words = matches.get_many::<String>("explain")?.cloned();
    words.next().zip(words.next())
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
        let check = parse("sluicegate check --live");
        assert!(matches!(check, Some(Invocation::Check { live: true, .. })));
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
    fn the_config_may_be_named_without_a_flag() {
        let file = |line: &str| match parse(line) {
            Some(Invocation::Run(line)) => line.file,
            other => panic!("{other:?}"),
        };
        assert_eq!(file("sluicegate run g.toml"), Some("g.toml".into()));
        assert_eq!(
            file("sluicegate run --shards 2 g.toml"),
            Some("g.toml".into())
        );
        assert_eq!(file("sluicegate run"), None);
        let twice = ["sluicegate", "run", "a.toml", "--config", "b.toml"];
        assert!(command().try_get_matches_from(twice).is_err());
    }

    #[test]
    fn topics_are_listed_unless_they_are_to_be_created() {
        let action = |line: &str| match parse(line) {
            Some(Invocation::Topics { action, .. }) => action,
            other => panic!("{other:?}"),
        };
        let new = |partitions, replication| NewTopics {
            partitions,
            replication,
        };
        assert_eq!(action("sluicegate topics"), TopicsAction::List);
        let created = action("sluicegate topics --create --partitions 6 --replication 3");
        assert_eq!(created, TopicsAction::Create(new(6, Some(3))));
        let printed = action("sluicegate topics --create --dry-run");
        assert_eq!(printed, TopicsAction::Print(new(3, None)));
        let explained = parse("sluicegate routes g.toml --explain GET /a");
        let Some(Invocation::Routes { explain, .. }) = explained else {
            panic!("{explained:?}");
        };
        assert_eq!(explain, Some(("GET".into(), "/a".into())));
    }

    #[test]
    fn a_tap_names_its_topic_before_the_config() {
        let tapped = parse("sluicegate tap payments g.toml --from -3 -n 5 --payload");
        let Some(Invocation::Tap { config, tap }) = tapped else {
            panic!("{tapped:?}");
        };
        assert_eq!(config.file, Some("g.toml".into()));
        let expected = TapArgs {
            name: "payments".into(),
            from: -3,
            count: Some(5),
            payload: true,
            output: Output::Text,
        };
        assert_eq!(tap, expected);
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
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        let line = CommandLine {
            file: Some(path.clone()),
            ..CommandLine::default()
        };
        let cases: [(&[u8], &str); 2] = [
            (
                b"a = 1\n# caf\xe9\n",
                "gateway.toml:2:6: the byte 0xe9 is not UTF-8",
            ),
            (b"\xff\xfea\0", "gateway.toml:1:1: the file is UTF-16"),
        ];
        for (bytes, wanted) in cases {
            std::fs::write(&path, bytes).expect("write");
            let why = line.clone().sources(std::iter::empty(), 1);
            let why = why.expect_err("not UTF-8");
            assert!(why.contains(wanted), "{why}");
        }
        let directory = ("SLUICEGATE_CONFIG".into(), "/".into());
        let why = CommandLine::default().sources([directory].into_iter(), 1);
        assert!(why.expect_err("a directory").contains("not a file"));
    }
}
