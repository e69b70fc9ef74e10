//! `sluicegate init`: writes a commented config and a small service, to start from.
//!
//! The files are those of this folder. A service is the part that talks to Kafka, which is the same
//! for each example, with the example's `decide` function in it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The flags of `sluicegate init`.
#[derive(clap::Args, Clone, Debug)]
pub struct InitArgs {
    /// What the config and the service are about.
    #[arg(long, value_enum, default_value_t = Example::Payments)]
    pub example: Example,

    /// The language of the service.
    #[arg(long, value_enum, default_value_t = Language::Python)]
    pub service: Language,

    /// The folder to write to. It is created if it does not exist; no file in it is overwritten.
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}

/// What a config and a service are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Example {
    /// Accounts that pay each other.
    Payments,
    /// Orders that are placed and shipped.
    Orders,
}

/// The language of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Python with librdkafka's client.
    Python,
    /// Java with Kafka's own client.
    Java,
    /// Node.js with kafkajs.
    Node,
}

/// Why `init` wrote nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file is there already.
    #[error("{path} exists and is not overwritten: name another folder, `sluicegate init DIR`")]
    Exists {
        /// The path of the file.
        path: String,
    },
    /// A file or a folder can't be written.
    #[error("can't write {path}: {source}", path = path.display())]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The error that the system returned.
        source: io::Error,
    },
}

impl InitError {
    fn exists(path: &Path) -> Self {
        let path = path.display().to_string();
        Self::Exists { path }
    }
}

impl Example {
    /// The first word of its topics and of its service's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Orders => "orders",
        }
    }

    /// The topic with the state that queries and streams read.
    const fn state(self) -> &'static str {
        match self {
            Self::Payments => "balances",
            Self::Orders => "orders",
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::Payments => include_str!("payments/gateway.toml"),
            Self::Orders => include_str!("orders/gateway.toml"),
        }
    }

    const fn decide(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Payments, Language::Python) => include_str!("payments/decide.py"),
            (Self::Payments, Language::Java) => include_str!("payments/decide.java"),
            (Self::Payments, Language::Node) => include_str!("payments/decide.mjs"),
            (Self::Orders, Language::Python) => include_str!("orders/decide.py"),
            (Self::Orders, Language::Java) => include_str!("orders/decide.java"),
            (Self::Orders, Language::Node) => include_str!("orders/decide.mjs"),
        }
    }

    /// Three commands to try: a command, a query, a stream.
    const fn lines_to_try(self) -> [&'static str; 3] {
        match self {
            Self::Payments => [
                "curl -i http://127.0.0.1:8080/accounts/ana/payments \
                 -H 'Idempotency-Key: \"lunch-1\"' \
                 -H 'Content-Type: application/json' -d '{\"to\":\"bo\",\"amount_cents\":250}'",
                "curl -i http://127.0.0.1:8080/accounts/ana",
                "curl -N http://127.0.0.1:8080/accounts/ana/events",
            ],
            Self::Orders => [
                "curl -i -X PUT http://127.0.0.1:8080/orders/7 -H 'Idempotency-Key: \"order-7\"' \
                 -H 'Content-Type: application/json' -d '{\"item\":\"tea\"}'",
                "curl -i http://127.0.0.1:8080/orders/7",
                "curl -N http://127.0.0.1:8080/orders/7/events",
            ],
        }
    }
}

impl Language {
    /// The service's file, and the file that names what it needs.
    const fn files(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Python => [
                ("service.py", include_str!("service.py")),
                ("requirements.txt", include_str!("requirements.txt")),
            ],
            Self::Java => [
                ("Service.java", include_str!("Service.java")),
                ("pom.xml", include_str!("pom.xml")),
            ],
            Self::Node => [
                ("service.mjs", include_str!("service.mjs")),
                ("package.json", include_str!("package.json")),
            ],
        }
    }

    /// Commands that install what the service needs and run it, in its folder.
    const fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Python => [
                "python3 -m venv .venv && .venv/bin/pip install --quiet --requirement \
                 requirements.txt",
                ".venv/bin/python service.py",
            ],
            Self::Java => [
                "mvn -q dependency:copy-dependencies -DoutputDirectory=jars",
                "java -cp 'jars/*' Service.java",
            ],
            Self::Node => ["npm install --no-audit --no-fund", "node service.mjs"],
        }
    }
}

/// The files that `init` writes: names and texts.
fn files(example: Example, language: Language) -> Vec<(&'static str, String)> {
    let fill = |text: &str| {
        text.replace("@DECIDE@\n", example.decide(language))
            .replace("@NAME@", example.name())
            .replace("@STATE@", example.state())
    };
    let service = language.files().map(|(name, text)| (name, fill(text)));
    let config = ("gateway.toml", example.config().to_owned());
    [config].into_iter().chain(service).collect()
}

/// Writes config and service, and returns what to do next as text for a terminal.
///
/// # Errors
/// See [`InitError`]. If a file exists, nothing is written.
pub fn init(args: &InitArgs) -> Result<String, InitError> {
    let files = files(args.example, args.service);
    let path = |name: &str| args.folder.join(name);
    let existing = files
        .iter()
        .map(|(name, _)| path(name))
        .find(|it| it.exists());
    if let Some(path) = existing {
        return Err(InitError::exists(&path));
    }
    std::fs::create_dir_all(&args.folder).map_err(|source| InitError::Write {
        path: args.folder.clone(),
        source,
    })?;
    for (name, text) in &files {
        write_new(&path(name), text)?;
    }
    Ok(next_steps(args, &files))
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, text: &str) -> Result<(), InitError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::exists(path),
        _ => InitError::Write {
            path: path.to_owned(),
            source,
        },
    })
}

fn next_steps(args: &InitArgs, files: &[(&'static str, String)]) -> String {
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    let here = args.folder == Path::new(".");
    let enter = if here {
        String::new()
    } else {
        format!("  cd {}\n", args.folder.display())
    };
    let [install, run] = args.service.commands();
    let [command, query, stream] = args.example.lines_to_try();
    format!(
        "Wrote {}.\n\n1. Broker, topics and gateway:\n{enter}  sluicegate dev --config \
         gateway.toml\n\n2. The service, in a second terminal:\n{enter}  {install}\n  {run}\n\n\
         3. A command, a query, a stream:\n  {command}\n  {query}\n  {stream}\n",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    #[test]
    fn each_config_is_good_and_each_service_is_complete() {
        for example in [Example::Payments, Example::Orders] {
            let file = ConfigFile {
                name: "gateway.toml".into(),
                text: example.config().into(),
            };
            let sources = Sources {
                file: Some(file),
                cpus: 2,
                to_serve: true,
                ..Sources::default()
            };
            let loaded = load(sources).unwrap_or_else(|report| panic!("{}", report.render(false)));
            assert_eq!(loaded.report.findings, []);
            let topics = loaded.config.topics();
            assert!(
                topics
                    .iter()
                    .any(|it| it.topic.as_str() == example.state() && it.query)
            );
            for language in [Language::Python, Language::Java, Language::Node] {
                let files = files(example, language);
                assert_eq!(files.len(), 3);
                for (name, text) in files {
                    assert!(
                        !text.contains("@DECIDE@") && !text.contains("@NAME@"),
                        "{name}"
                    );
                    assert!(!text.contains("@STATE@"), "{name}");
                }
            }
        }
    }

    /// `docs/writing-a-service.md` shows the services as they are written.
    #[test]
    fn the_page_about_services_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/writing-a-service.md");
        let old = std::fs::read_to_string(path).expect("the page");
        let mut page = old.clone();
        for (language, fence) in [
            (Language::Python, "\n```python\n"),
            (Language::Java, "\n```java\n"),
            (Language::Node, "\n```js\n"),
        ] {
            let (_, service) = files(Example::Payments, language).swap_remove(1);
            let (before, rest) = page.split_once(fence).expect("a block of the language");
            let (_, after) = rest.split_once("\n```\n").expect("its end");
            page = format!("{before}{fence}{}\n```\n{after}", service.trim_end());
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).expect("docs/ can be written");
        }
        assert!(
            old == page,
            "docs/writing-a-service.md is stale: UPDATE=1 cargo test --lib page"
        );
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = InitArgs {
            example: Example::Orders,
            service: Language::Node,
            folder: folder.path().join("new/folder"),
        };
        let said = init(&args).expect("an empty folder");
        assert!(
            said.contains("service.mjs") && said.contains("sluicegate dev"),
            "{said}"
        );
        let config = args.folder.join("gateway.toml");
        std::fs::write(&config, "mine").expect("write");
        std::fs::remove_file(args.folder.join("package.json")).expect("it was written");
        let error = init(&args).expect_err("a file is there");
        assert!(
            error.to_string().starts_with(&*config.to_string_lossy()),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(&config).expect("it is there"),
            "mine"
        );
        assert!(!args.folder.join("package.json").exists(), "all or nothing");
    }
}
