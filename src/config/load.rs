//! From text to a [`Config`]: default, file, environment, flags, each over the one before; then the
//! checks. Pure: files, environment and arguments are brought by whoever calls.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue};

use super::cross::{self, Routes};
use super::diagnose::{Findings, Report, line_of, nearest};
use super::kind::Raw;
use super::origin::{Origin, Origins};
use super::read::Reader;
use super::section::{Section, raw};
use super::settings::{Setting, Settings, TABLE};
use super::{Config, HeaderNames};

/// Bytes a config file may have.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Environment names that are not settings.
const OTHER_VARIABLES: [&str; 1] = ["SLUICEGATE_CONFIG"];

/// A config file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Everything a config is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<ConfigFile>,
    /// The environment, all of it.
    pub environment: Vec<(String, String)>,
    /// Keys of settings that were flags, with their values.
    pub flags: Vec<(&'static str, String)>,
    /// CPUs the process may run on, for the memory sum where `shards` is not set.
    pub cpus: u16,
}

/// A config that is right in itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Where each setting came from.
    pub origins: Origins,
    /// Warnings, to be shown; no errors.
    pub report: Report,
}

/// Makes a config.
///
/// # Errors
/// All that is wrong with it, warnings among it.
pub fn load(sources: Sources) -> Result<Loaded, Report> {
    let file = sources.file.clone().unwrap_or_default();
    let mut findings = Findings::default();
    let (config, origins) = assemble(&sources, &file.text, &mut findings);
    let refused = findings.any_error();
    let report = Report::new(file.name, file.text, findings);
    match refused {
        true => Err(report),
        false => Ok(Loaded {
            config,
            origins,
            report,
        }),
    }
}

fn assemble(sources: &Sources, text: &str, findings: &mut Findings) -> (Config, Origins) {
    let (mut settings, mut origins) = (Settings::default(), Origins::default());
    let Some(document) = parse(text, findings) else {
        return (Config::default(), origins);
    };
    let mut top = Section::new("", document.get_ref(), document.span());
    let headers = file_settings(&mut top, text, &mut settings, &mut origins, findings);
    environment(&sources.environment, &mut settings, &mut origins, findings);
    flags(&sources.flags, &mut settings, &mut origins, findings);

    let mut reader = Reader { text, findings };
    let headers = headers.map_or_else(HeaderNames::default, |it| reader.header_names(it));
    let routes = routes(&mut reader, &mut top, &settings, &headers);
    top.finish(elsewhere, findings);
    routes.check(&settings, findings);
    cross::settings(&settings, &origins, findings);
    let config = Config {
        headers,
        commands: routes.commands.into_iter().map(|it| it.route).collect(),
        queries: routes.queries.into_iter().map(|it| it.route).collect(),
        streams: routes.streams.into_iter().map(|it| it.route).collect(),
        settings,
    };
    cross::whole(&config, sources.cpus, &origins, findings);
    (config, origins)
}

/// The document; or nothing, if its syntax is wrong: what could be read of it might mislead.
fn parse<'a>(text: &'a str, findings: &mut Findings) -> Option<toml::Spanned<DeTable<'a>>> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
        findings.error(
            None,
            message,
            "a config is a page or two; is this the right file?",
        );
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let help = "docs/config.md has examples; TOML is described at https://toml.io";
        findings.error(error.span(), format!("not TOML: {}", error.message()), help);
    }
    errors.is_empty().then_some(document)
}

/// Reads every setting of the file; gives `[kafka.headers]` to who knows routes.
fn file_settings<'a>(
    top: &mut Section<'a>,
    text: &str,
    settings: &mut Settings,
    origins: &mut Origins,
    findings: &mut Findings,
) -> Option<Section<'a>> {
    let mut headers = None;
    let mut group: Option<(&str, Option<Section<'a>>)> = None;
    for (index, setting) in TABLE.iter().enumerate() {
        let (section, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if section.is_empty() {
            let value = top.get(key);
            put(setting, index, value, text, settings, origins, findings);
            continue;
        }
        // Settings of a group stand together in the table.
        if group.as_ref().is_none_or(|(name, _)| *name != section) {
            finish(group.take(), &mut headers, findings);
            let opened = top.table(section, &format!("[{section}]"), findings);
            group = Some((section, opened));
        }
        if let Some((_, Some(opened))) = &mut group {
            let value = opened.get(key);
            put(setting, index, value, text, settings, origins, findings);
        }
    }
    finish(group, &mut headers, findings);
    headers
}

fn finish<'a>(
    group: Option<(&str, Option<Section<'a>>)>,
    headers: &mut Option<Section<'a>>,
    findings: &mut Findings,
) {
    let Some((name, Some(mut section))) = group else {
        return;
    };
    if name == "kafka" {
        *headers = section.table("headers", "[kafka.headers]", findings);
    }
    section.finish(elsewhere, findings);
}

fn put(
    setting: &Setting,
    index: usize,
    value: Option<&toml::Spanned<DeValue<'_>>>,
    text: &str,
    settings: &mut Settings,
    origins: &mut Origins,
    findings: &mut Findings,
) {
    let Some(value) = value else { return };
    let at = value.span();
    match (setting.put)(settings, &raw(value.get_ref())) {
        Ok(()) => {
            let line = line_of(text, at.start);
            origins.set(index, Origin::File { at, line });
        }
        Err(why) => {
            findings.error(at, format!("`{}`: {why}", setting.key), (setting.says)());
        }
    }
}

fn environment(
    variables: &[(String, String)],
    settings: &mut Settings,
    origins: &mut Origins,
    findings: &mut Findings,
) {
    let known: Vec<String> = TABLE.iter().map(Setting::variable).collect();
    let links = service_links(variables);
    for (name, value) in variables {
        if !name.starts_with("SLUICEGATE_") || OTHER_VARIABLES.contains(&&**name) {
            continue;
        }
        let Some(index) = known.iter().position(|it| it == name) else {
            if !links.contains(name.as_str()) {
                let near = nearest(name, known.iter().map(String::as_str));
                let help = near.map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{name}` is set in the environment and is no setting");
                findings.warning(None, message, help.unwrap_or_else(|| "unset it".into()));
            }
            continue;
        };
        // An empty variable is how shells and compose files say "not set".
        if !value.is_empty() {
            text(
                index,
                value,
                Origin::Environment,
                name,
                settings,
                origins,
                findings,
            );
        }
    }
}

/// Kubernetes gives every pod variables for every service of its namespace; for one whose name
/// begins with `sluicegate` they look like ours: `SLUICEGATE_SERVICE_HOST`,
/// `SLUICEGATE_PORT_8080_TCP_ADDR`.
fn service_links(variables: &[(String, String)]) -> HashSet<&str> {
    let link = |name: &&str| {
        let port = name.rsplit_once("_PORT").map(|(_, rest)| rest);
        let numbered = |rest: &str| {
            let rest = rest.strip_prefix('_').unwrap_or(rest);
            rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit())
        };
        name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || port.is_some_and(numbered)
            || (name.contains("_PORT_") && name.ends_with("_PORT"))
    };
    variables
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(link)
        .collect()
}

fn flags(
    flags: &[(&'static str, String)],
    settings: &mut Settings,
    origins: &mut Origins,
    findings: &mut Findings,
) {
    for (key, value) in flags {
        let index = TABLE.iter().position(|it| it.key == *key);
        let index = index.expect("flags are made from the table");
        let name = format!("--{}", TABLE[index].flag());
        text(
            index,
            value,
            Origin::Flag,
            &name,
            settings,
            origins,
            findings,
        );
    }
}

fn text(
    index: usize,
    value: &str,
    origin: Origin,
    name: &str,
    settings: &mut Settings,
    origins: &mut Origins,
    findings: &mut Findings,
) {
    match (TABLE[index].put)(settings, &Raw::Word(value.to_owned())) {
        Ok(()) => origins.set(index, origin),
        Err(why) => {
            findings.error(None, format!("`{name}`: {why}"), (TABLE[index].says)());
        }
    }
}

fn routes<'a>(
    reader: &mut Reader<'a, '_>,
    top: &mut Section<'a>,
    settings: &Settings,
    names: &HeaderNames,
) -> Routes {
    let commands = reader.array(top, "command", "commands");
    let queries = reader.array(top, "query", "cache");
    let streams = reader.array(top, "stream", "streams");
    let timeout = settings.commands.timeout;
    let command = |it| reader.command(it, timeout, names);
    let commands = commands.into_iter().filter_map(command).collect();
    let queries = queries
        .into_iter()
        .filter_map(|it| reader.query(it))
        .collect();
    let streams = streams
        .into_iter()
        .filter_map(|it| reader.stream(it))
        .collect();
    Routes {
        commands,
        queries,
        streams,
    }
}

/// Where a key of a setting belongs that stands in the wrong table.
fn elsewhere(key: &str) -> Option<String> {
    let leaf = |it: &&Setting| it.key.rsplit('.').next() == Some(key);
    let setting = TABLE.iter().find(leaf)?;
    Some(match setting.key.split_once('.') {
        Some((section, key)) => format!("`{key}` stands in `[{section}]`"),
        None => format!("`{key}` stands at the top of the file, before any `[table]`"),
    })
}
