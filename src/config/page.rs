//! Generates `docs/config.md`: settings from the table, keys of routes from the list below. A test
//! compares that list with the keys that the reader accepts.

use std::fmt::Write as _;

use super::recipes::{RECIPES, Recipe};
use super::settings::{Apply, Settings, TABLE};

/// The example file of the page. A test loads it.
const EXAMPLE: &str = include_str!("example.toml");

/// A table of the file with its keys, each with its description.
type Keys = (&'static str, &'static [(&'static str, &'static str)]);

const ROUTE_KEYS: &[Keys] = &[
    (
        "[[command]]",
        &[
            (
                "name",
                "Required. Unique; letters, digits, `.`, `_`, `-`. It is part of what \
                 identifies a command, so a renamed route does not recognise retries of earlier \
                 commands.",
            ),
            (
                "route",
                "Required. Method and path: POST, PUT, PATCH or DELETE.",
            ),
            ("topic", "Required. The topic that commands are written to."),
            (
                "cluster",
                "The `[[cluster]]` of both topics. Default: the one of `[kafka]`.",
            ),
            (
                "replies",
                "The topic that replies are read from. It must not be a topic of commands. Without \
                 it the route is *one-way*: a command is answered as soon as its record is \
                 appended.",
            ),
            (
                "key",
                "Template of the record's key. Without it, the command's identity chooses the \
                 partition, so that duplicate records share one.",
            ),
            (
                "headers",
                "Table of record headers to add: name = template.",
            ),
            (
                "idempotency",
                "`optional` (default), or `required`: a request without `Idempotency-Key` gets \
                 400.",
            ),
            (
                "timeout",
                "How long a client waits for the reply, 10ms to 5min. Default: `commands.timeout`.",
            ),
            (
                "forward",
                "List of request headers to put on the record. Never credentials.",
            ),
            (
                "schema",
                "File with a JSON Schema (2020-12, 2019-09 or draft 7) for the body, relative to \
                 the config file. A body that does not match it gets 422, and nothing is written. \
                 The schema must be complete: no reference to another file is followed.",
            ),
            (
                "params",
                "Types of parameters: `path.NAME` and `query.NAME`, each `string`, `integer`, \
                 `number`, `boolean` or `uuid`, or a table with `type`, `min` and `max` (of an \
                 integer), `values` (a list of texts) and `required` (of a query). Another value \
                 gets 400.",
            ),
            (
                "dedupe",
                "How a retry is recognised, at any instance. `replies` (default): by the reply of \
                 the earlier attempt. `strict`: also by its record, while it is not answered. \
                 `local`: by the replies this instance has read so far, without asking Kafka.",
            ),
            (
                "in_flight",
                "What a request gets whose command is in flight: `join` (default) waits for its \
                 reply, `conflict` is 409 at once.",
            ),
            (
                "condition",
                "`optional` (default), or `required`: a request with neither `If-Match` nor \
                 `If-None-Match` gets 428.",
            ),
            (
                "tombstone",
                "`true`: a DELETE writes a record without a value, which deletes its key from a \
                 compacted topic. Default: `false`.",
            ),
            (
                "one_way_status",
                "The status of a command that was appended, on a route without `replies`: 202 \
                 (default) or 204.",
            ),
            (
                "cors",
                "Table over `[cors]` for this route: `origins`, `credentials`, `allow_headers`, \
                 `expose_headers`, `max_age`. A key that is absent is that of `[cors]`. \
                 `origins = [\"*\"]` lets any page use the route, without cookies.",
            ),
            (
                "rate",
                "How often one client may ask: a table of `requests`, `per` (1s to 1d) and \
                 `burst`, the requests that it may send at once (default: `requests`). Beyond it, \
                 a request gets 429, and a stream is closed with the time to wait. A client is an \
                 identity, or an anonymous address (IPv6: its /64 network).",
            ),
        ],
    ),
    (
        "[[query]]",
        &[
            ("name", "Unique. Default: `GET` and the path."),
            ("route", "Required. `GET` and a path."),
            (
                "topic",
                "Required. The topic whose newest record of each key is served.",
            ),
            (
                "cluster",
                "The topic's `[[cluster]]`. Default: that of `[kafka]`.",
            ),
            (
                "key",
                "Template of the record's key. Without it, the route returns the collection of \
                 all.",
            ),
            (
                "partitioner",
                "`murmur2`: every producer of the topic chooses a key's partition as Java's \
                 clients do, and the number of partitions has never changed. A batch that can't be \
                 decoded then affects only the keys of its own partition, not every key that \
                 is not found. Default: none.",
            ),
            (
                "cors",
                "Table over `[cors]` for this route: `origins`, `credentials`, `allow_headers`, \
                 `expose_headers`, `max_age`. A key that is absent is that of `[cors]`. \
                 `origins = [\"*\"]` lets any page use the route, without cookies.",
            ),
            (
                "rate",
                "How often one client may ask: a table of `requests`, `per` (1s to 1d) and \
                 `burst`, the requests that it may send at once (default: `requests`). Beyond it, \
                 a request gets 429, and a stream is closed with the time to wait. A client is an \
                 identity, or an anonymous address (IPv6: its /64 network).",
            ),
        ],
    ),
    (
        "[[stream]]",
        &[
            ("name", "Unique. Default: `GET` and the path."),
            ("route", "Required. `GET` and a path."),
            ("topic", "Required. The topic whose records are sent."),
            (
                "cluster",
                "The topic's `[[cluster]]`. Default: that of `[kafka]`.",
            ),
            (
                "filter",
                "`filter.key`: template of a key. Only records with this key are sent. Without it: \
                 all.",
            ),
            (
                "start",
                "`live` (default), `earliest`, or `snapshot`: the newest record of each key \
                 first (compacted topics).",
            ),
            (
                "slow",
                "What happens to a client that falls behind: `disconnect` (default; it resumes \
                 by its last event id), or `conflate` (compacted topics).",
            ),
            (
                "event",
                "The `event:` field of data events. Default: none, so browsers call `onmessage`.",
            ),
            (
                "cors",
                "Table over `[cors]` for this route: `origins`, `credentials`, `allow_headers`, \
                 `expose_headers`, `max_age`. A key that is absent is that of `[cors]`. \
                 `origins = [\"*\"]` lets any page use the route, without cookies.",
            ),
            (
                "rate",
                "How often one client may ask: a table of `requests`, `per` (1s to 1d) and \
                 `burst`, the requests that it may send at once (default: `requests`). Beyond it, \
                 a request gets 429, and a stream is closed with the time to wait. A client is an \
                 identity, or an anonymous address (IPv6: its /64 network).",
            ),
        ],
    ),
    (
        "[[certificate]]",
        &[
            (
                "certificate",
                "Required. Certificate chain in PEM, the server's own first. Clients that ask for \
                 one of its DNS names (SNI) get it; `*.example.com` stands for one label. Other \
                 clients get `tls.certificate`.",
            ),
            ("key", "Required. Its private key in PEM."),
        ],
    ),
    (
        "[[cluster]]",
        &[
            (
                "name",
                "Required. The name that routes refer to. Metrics, `/status` and messages show \
                 `name/topic` or the cluster's name for everything that is not of `[kafka]`.",
            ),
            (
                "bootstrap",
                "Required. Brokers to connect to first. Limits, times, `client_id` and `rack` are \
                 those of `[kafka]`.",
            ),
            (
                "log_id",
                "Name of its logs, if they are copies with the same offsets of another cluster's \
                 logs: see `kafka.log_id`.",
            ),
            (
                "tls",
                "Table `[cluster.tls]`, below its `[[cluster]]`: the keys of `[kafka.tls]`, for \
                 this cluster alone and in the file only. Without it, connections are plaintext, \
                 whatever `[kafka.tls]` allowed.",
            ),
            (
                "sasl",
                "Table `[cluster.sasl]`, likewise with the keys of `[kafka.sasl]`. Without it, \
                 connections do not authenticate: the credentials of `[kafka.sasl]` are never sent \
                 to this cluster.",
            ),
        ],
    ),
    (
        "[kafka.headers]",
        &[
            (
                "preset",
                "`default`, `zilla` or `spring`: the defaults of the names below.",
            ),
            (
                "correlation_id",
                "On commands and replies: matches a reply with its command.",
            ),
            ("reply_to", "On commands: the replies topic."),
            (
                "identity",
                "On commands: the authenticated client, if there is one.",
            ),
            ("if_match", "On commands: the `If-Match` of the request."),
            (
                "if_none_match",
                "On commands: the `If-None-Match` of the request; `*` asks to create only.",
            ),
            (
                "idempotency_key",
                "On commands: the `Idempotency-Key` of the request.",
            ),
            ("method", "On commands: the method of the request."),
            ("path", "On commands: path and query of the request."),
            ("status", "On replies: the HTTP status of the response."),
            (
                "retry",
                "On replies: `true` means that nothing was applied, so a retry may be executed.",
            ),
            (
                "etag",
                "On events and replies: the entity's validator (its `ETag`).",
            ),
        ],
    ),
];

/// Returns the text that `docs/config.md` must have.
fn page() -> String {
    let mut out = format!(
        "# Configuration\n\n\
         This page is generated from the tables in `src/config/`; `UPDATE=1 cargo test --lib page` \
         rewrites it.\n\n\
         Routes are declared in one TOML file (`--config`, `SLUICEGATE_CONFIG`). Every setting can \
          be given in the file, in the environment\nor on the command line. A flag overrides the \
          environment, which overrides the file, which overrides the default.\n\
          `sluicegate check` reports all errors of a config at once. `sluicegate config show` \
           lists every value and where it came from.\n\n\
         - Durations and sizes carry units: `10ms`, `10s`, `5min`, `1h`, `1d`; `64KiB`, `1MiB`, \
         `2GiB`, also `kB`, `MB`, `GB`.\n\
         - Lists are TOML arrays in the file. Variables use commas; flags use commas or are \
          repeated.\n\
          - `none` unsets an optional value.\n\
         - Unknown keys are errors, unknown `SLUICEGATE_*` variables are warnings.\n\n\
         ```toml\n{EXAMPLE}```\n\n## Routes\n\n\
         A path consists of segments, and `{{name}}` is one whole segment. If two routes match a \
          request, the one with a\nliteral segment where they first differ wins. Two routes that \
          match the same requests are an error.\n\n\
          Templates are text with placeholders: `{{path.name}}`, `{{identity}}`, \
           `{{header.name}}`, `{{query.name}}`, and in\ncommands `{{body:/json/pointer}}`. \
           `{{{{` and `}}}}` are literal braces.\n"
    );
    for (title, keys) in ROUTE_KEYS {
        let _ = write!(out, "\n### `{title}`\n\n| key | |\n|---|---|\n");
        for (key, doc) in *keys {
            let _ = writeln!(out, "| `{key}` | {doc} |");
        }
    }
    recipes(&mut out);
    settings(&mut out);
    out
}

fn recipes(out: &mut String) {
    out.push_str("\n## Recipes\n");
    for Recipe { title, text, toml } in RECIPES {
        let _ = write!(out, "\n### {title}\n\n{text}\n\n```toml\n{toml}```\n");
    }
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
        let flag = if (setting.secret)() {
            String::new() // Every user of the machine could read it.
        } else {
            format!("`--{}`<br>", setting.flag())
        };
        let _ = writeln!(
            out,
            "| `{}`<br>{flag}`{}` | `{}` | {} | {}{restart} |",
            setting.key,
            setting.variable(),
            setting.default_text(&defaults),
            (setting.describe)(),
            setting.doc.trim(),
        );
    }
    out.push_str("\n*Restart*: a change takes effect at the next start, not with a reload.\n");
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

    #[test]
    fn the_recipes_of_the_page_are_good_configs() {
        for recipe in RECIPES {
            let loaded = load(file(recipe.toml));
            let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
            assert_eq!(loaded.report.findings, [], "{}", recipe.title);
        }
    }

    /// The finding about an unknown key lists the known ones, which must be those of the page.
    #[test]
    fn the_page_lists_the_keys_that_the_reader_knows() {
        for (title, keys) in ROUTE_KEYS {
            let report = load(file(&format!("{title}\nzqzqzq = 1\n"))).expect_err("unknown");
            let mut findings = report.findings.iter();
            let unknown = findings
                .find(|it| it.message.contains("zqzqzq"))
                .expect("found");
            let known = unknown.help.strip_prefix("known keys: ").expect("a list");
            let mut known: Vec<_> = known.split(", ").collect();
            let mut listed: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
            known.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, known, "{title}");
        }
    }
}
