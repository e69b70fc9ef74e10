//! `docs/config.md`: settings from the table, keys of routes from the list below, which a test
//! holds against what the reader knows.

use std::fmt::Write as _;

use super::settings::{Apply, Settings, TABLE};

/// A file to start from; a test loads it.
const EXAMPLE: &str = include_str!("example.toml");

/// A table of the file, and its keys with what they mean.
type Keys = (&'static str, &'static [(&'static str, &'static str)]);

const ROUTE_KEYS: &[Keys] = &[
    (
        "[[command]]",
        &[
            (
                "name",
                "Required. Unique; letters, digits, `.`, `_`, `-`. It is part of what \
                 makes two requests the same command, so a new name forgets the commands of the \
                 old one.",
            ),
            (
                "route",
                "Required. Method and path: POST, PUT, PATCH or DELETE.",
            ),
            ("topic", "Required. Where commands go."),
            (
                "cluster",
                "The `[[cluster]]` of both topics. Default: that of `[kafka]`.",
            ),
            (
                "replies",
                "Required. Where their replies come from; not a topic of commands.",
            ),
            (
                "key",
                "Template of the record's key. Without it the partition follows the command, so \
                 that duplicates meet in one.",
            ),
            (
                "headers",
                "Table of record headers to add: name = template.",
            ),
            (
                "idempotency",
                "`optional` (default) or `required`: without an `Idempotency-Key`, 400.",
            ),
            (
                "timeout",
                "How long a client waits for the reply, 10ms to 5min. Default: `commands.timeout`.",
            ),
            (
                "forward",
                "List of request headers to put on the record. Never credentials.",
            ),
        ],
    ),
    (
        "[[query]]",
        &[
            ("name", "Unique. Default: `GET` and the path."),
            ("route", "Required. `GET` and a path."),
            ("topic", "Required. Whose newest records."),
            (
                "cluster",
                "The topic's `[[cluster]]`. Default: that of `[kafka]`.",
            ),
            (
                "key",
                "Template of the key of the one record. Without it: the collection of all.",
            ),
            (
                "partitioner",
                "`murmur2`: every producer of the topic chooses a key's partition as Java's \
                 clients do, and the topic has always had as many partitions as now. Then a batch \
                 that can't be decoded puts the keys of its own partition in doubt, not every key \
                 that is not found. Default: none.",
            ),
        ],
    ),
    (
        "[[stream]]",
        &[
            ("name", "Unique. Default: `GET` and the path."),
            ("route", "Required. `GET` and a path."),
            ("topic", "Required. Whose records."),
            (
                "cluster",
                "The topic's `[[cluster]]`. Default: that of `[kafka]`.",
            ),
            (
                "filter",
                "`filter.key`: template; only records with this key. Without it: all.",
            ),
            (
                "start",
                "`live` (default), `earliest`, or `snapshot`: the newest record of each key \
                 first (compacted topics).",
            ),
            (
                "slow",
                "What becomes of a client that falls behind: `disconnect` (default; it resumes \
                 by id) or `conflate` (compacted topics).",
            ),
            (
                "event",
                "The `event:` of data events. Default: none, which browsers hand to `onmessage`.",
            ),
        ],
    ),
    (
        "[[cluster]]",
        &[
            (
                "name",
                "Required. What routes call it. Metrics, `/status` and messages say `name/topic`, \
                 or the cluster's name, for what is not of `[kafka]`.",
            ),
            (
                "bootstrap",
                "Required. Brokers to ask first. Limits, times, `client_id` and `rack` (where the \
                 gateway stands) are those of `[kafka]`.",
            ),
            (
                "log_id",
                "What its logs are called, where they are copies with the same offsets of another \
                 cluster's: see `kafka.log_id`.",
            ),
            (
                "tls",
                "Table `[cluster.tls]`, below its `[[cluster]]`: the keys of `[kafka.tls]`, for \
                 this cluster alone and in the file only. Without it the cluster is spoken to in \
                 plaintext, whatever `[kafka.tls]` says.",
            ),
            (
                "sasl",
                "Table `[cluster.sasl]`, likewise with the keys of `[kafka.sasl]`. Without it the \
                 cluster is not told who we are: what `[kafka.sasl]` says is never shown to it.",
            ),
        ],
    ),
    (
        "[kafka.headers]",
        &[
            (
                "preset",
                "`default`, `zilla` or `spring`: what the names below are unless set apart.",
            ),
            (
                "correlation_id",
                "On commands and replies: ties them together.",
            ),
            ("reply_to", "On commands: the replies topic."),
            ("identity", "On commands: who sent it, if known."),
            ("if_match", "On commands: the `If-Match` of the request."),
            (
                "if_none_match",
                "On commands: the `If-None-Match` of the request; `*` asks to create only.",
            ),
            (
                "idempotency_key",
                "On commands: the `Idempotency-Key` of the request.",
            ),
            ("method", "On commands: the method."),
            ("path", "On commands: path and query."),
            ("status", "On replies: the HTTP status."),
            (
                "retry",
                "On replies: `true` says that nothing was applied, a retry may run.",
            ),
            (
                "etag",
                "On events and replies: the validator of the entity.",
            ),
        ],
    ),
];

/// The page as it must stand in `docs/config.md`.
#[must_use]
pub fn page() -> String {
    let mut out = format!(
        "# Configuration\n\n\
         This page is generated from the tables in `src/config/`; `UPDATE=1 cargo test --lib page` \
         rewrites it.\n\n\
         Routes stand in one TOML file (`--config`, `SLUICEGATE_CONFIG`). Every setting can stand \
         in the file, in the environment\nor on the command line; a flag beats the environment, \
         which beats the file, which beats the default. `sluicegate check`\nreports everything \
         that is wrong, at once;\n`sluicegate config show` says of each value where it came \
         from.\n\n\
         - Durations and sizes carry units: `10ms`, `10s`, `5min`, `1h`, `1d`; `64KiB`, `1MiB`, \
         `2GiB`, also `kB`, `MB`, `GB`.\n\
         - Lists are TOML arrays in the file; in flags and environment, commas or a repeated \
         flag.\n\
         - `none` takes back a value that may be absent.\n\
         - Unknown keys are errors, unknown `SLUICEGATE_*` variables are warnings.\n\n\
         ```toml\n{EXAMPLE}```\n\n## Routes\n\n\
         A path is made of segments; `{{name}}` is one whole segment. Where two routes match a \
         request, the one with the\nliteral segment first wins; two routes of the same shape are \
         an error.\n\n\
         Templates are text with holes: `{{path.name}}`, `{{identity}}`, `{{header.name}}`, \
         `{{query.name}}`, in commands also\n`{{body:/json/pointer}}`; `{{{{` and `}}}}` are \
         braces.\n"
    );
    for (title, keys) in ROUTE_KEYS {
        let _ = write!(out, "\n### `{title}`\n\n| key | |\n|---|---|\n");
        for (key, doc) in *keys {
            let _ = writeln!(out, "| `{key}` | {doc} |");
        }
    }
    settings(&mut out);
    out
}

fn settings(out: &mut String) {
    let defaults = Settings::default();
    out.push_str("\n## Settings\n");
    let mut group = "";
    for setting in TABLE {
        if setting.group != group {
            group = setting.group;
            let _ = write!(
                out,
                "\n### {group}\n\n| key, flag, variable | default | allowed | |\n\
                 |---|---|---|---|\n"
            );
        }
        let restart = match setting.apply {
            Apply::Reload => "",
            Apply::Restart => " *Restart.*",
        };
        let flag = match (setting.secret)() {
            true => String::new(), // Every user of the machine could read it.
            false => format!("`--{}`<br>", setting.flag()),
        };
        let _ = writeln!(
            out,
            "| `{}`<br>{flag}`{}` | `{}` | {} | {}{restart} |",
            setting.key,
            setting.variable(),
            setting.default_shown(&defaults),
            (setting.says)(),
            setting.doc.trim(),
        );
    }
    out.push_str("\n*Restart*: a change takes effect with the next start, not with a reload.\n");
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, Sources, load};
    use super::*;

    fn file(text: &str) -> Sources {
        let (name, text) = ("example.toml".into(), text.into());
        Sources {
            file: Some(ConfigFile { name, text }),
            ..Sources::default()
        }
    }

    #[test]
    fn the_config_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
        let page = page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).expect("docs/ can be written");
        }
        let stands = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stands == page,
            "docs/config.md is stale: UPDATE=1 cargo test --lib page"
        );
    }

    #[test]
    fn the_example_of_the_page_is_a_good_config() {
        let loaded = load(file(EXAMPLE)).expect("good");
        assert_eq!(loaded.report.findings, []);
        assert_eq!(loaded.config.streams.len(), 1);
    }

    /// An unknown key is answered with the known ones: they must be those of the page.
    #[test]
    fn the_page_lists_the_keys_that_the_reader_knows() {
        for (title, keys) in ROUTE_KEYS {
            let report = load(file(&format!("{title}\nzqzqzq = 1\n"))).expect_err("unknown");
            let mut findings = report.findings.iter();
            let unknown = findings
                .find(|it| it.message.contains("zqzqzq"))
                .expect("found");
            let known = unknown.help.strip_prefix("known here: ").expect("a list");
            let mut known: Vec<_> = known.split(", ").collect();
            let mut listed: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
            known.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, known, "{title}");
        }
    }
}
