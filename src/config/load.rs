//! Builds a [`Config`] from text: defaults, then the file, the environment and flags, each
//! overriding the one before, then the checks. This module does no I/O: the caller supplies the
//! file's text, the environment and the arguments.

use std::ops::Range;

use toml::de::DeTable;

use super::cross::{self, Routes};
use super::diagnose::{Finding, Findings, Report, Severity, line_of, nearest};
use super::kind::Raw;
use super::origin::{Origin, Origins};
use super::read::Reader;
use super::section::Section;
use super::settings::{Setting, Settings, TABLE};
use super::sources::{ConfigFile, FILE_BYTES_MAX, Sources};
use super::{Config, HeaderNames};

/// Variables with our prefix that are not settings.
const OTHER_VARIABLES: [&str; 1] = ["SLUICEGATE_CONFIG"];

/// A valid config with where its values came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The config that [`load`] validated.
    pub config: Config,
    /// Where each setting's value came from.
    pub origins: Origins,
    /// Warnings for the user. It holds no errors.
    pub report: Report,
}

impl Loaded {
    /// Returns the config, or an error report if there are reasons against it that only the system
    /// knows, such as a file that cannot be read.
    ///
    /// # Errors
    /// The report, with one error per reason.
    pub fn reject_for(mut self, reasons: impl IntoIterator<Item = Reason>) -> Result<Self, Report> {
        for Reason { message, key, at } in reasons {
            let at = at.or_else(|| self.origins.at_key(&key?));
            self.add(Severity::Error, message, at);
        }
        match self.report.errors() {
            0 => Ok(self),
            _ => Err(self.report),
        }
    }

    /// Adds warnings that need I/O to find, such as a limit on file descriptors that is too low.
    pub fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        for message in warnings {
            self.add(Severity::Warning, message, None);
        }
    }

    fn add(&mut self, severity: Severity, message: String, at: Option<Range<usize>>) {
        self.report.findings.push(Finding {
            severity,
            message,
            at,
            also: Vec::new(),
            help: String::new(),
        });
    }
}

/// A reason against a config that only the system knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The problem, and what to do about it.
    pub message: String,
    /// The key of the setting that it concerns, if it is one of the table of settings.
    pub key: Option<String>,
    /// Byte range in the config file, if it concerns a value that is no setting.
    pub at: Option<Range<usize>>,
}

/// Builds and checks a config.
///
/// # Errors
/// A report of every error and warning, not only the first.
pub fn load(sources: Sources) -> Result<Loaded, Report> {
    let file = sources.file.clone().unwrap_or_default();
    let mut findings = Findings::default();
    let (config, origins) = assemble(&sources, &file, &mut findings);
    let refused = findings.any_error();
    let report = Report::new(file.name, file.text, findings);
    if refused {
        Err(report)
    } else {
        Ok(Loaded {
            config,
            origins,
            report,
        })
    }
}

fn assemble(sources: &Sources, file: &ConfigFile, findings: &mut Findings) -> (Config, Origins) {
    let text = &*file.text;
    let Some(document) = parse(text, findings) else {
        return (Config::default(), Origins::default());
    };
    let mut top = Section::new("", document.get_ref(), document.span());
    let mut layers = Layers::new(findings);
    let headers = layers.file(&mut top, text);
    layers.environment(&sources.environment);
    layers.flags(&sources.flags);
    let (settings, origins) = (layers.settings, layers.origins);

    let mut reader = Reader::new(&file.name, text, findings);
    let headers = headers.map_or_else(HeaderNames::default, |it| reader.header_names(it));
    let sections = reader.array(&mut top, "certificate", "tls");
    let certificates = reader.certificates(sections);
    let sections = reader.array(&mut top, "cluster", "kafka");
    let clusters = reader.clusters(sections);
    let routes = routes(&mut reader, &mut top, &settings, &headers);
    top.finish(elsewhere, findings);
    routes.check(&settings, findings);
    cross::settings(&settings, sources.cpus, &origins, findings);
    let config = Config {
        headers,
        certificates,
        clusters,
        commands: routes.commands.into_iter().map(|it| it.route).collect(),
        queries: routes.queries.into_iter().map(|it| it.route).collect(),
        streams: routes.streams.into_iter().map(|it| it.route).collect(),
        settings,
    };
    cross::whole(&config, sources, &origins, findings);
    (config, origins)
}

/// The parsed document. `None` after a syntax error: findings about a partially parsed file would
/// mislead.
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
    if !errors.is_empty()
        && let Some((language, first_line)) = other_language(text)
    {
        let message = format!("this is {language}, and a config is TOML");
        let help = "write `[kafka]` and `bootstrap = [\"localhost:9092\"]`, for example; \
                    `sluicegate init` writes a whole config";
        findings.error(first_line, message, help);
        hide_secrets(text, findings);
        return None;
    }
    // One mistake often has several errors: the parser loses its place. The first is the cause.
    for error in errors.iter().take(1) {
        let help = "docs/config.md has examples; TOML is described at https://toml.io";
        findings.error(error.span(), format!("not TOML: {}", error.message()), help);
    }
    if !errors.is_empty() {
        hide_secrets(text, findings);
    }
    errors.is_empty().then_some(document)
}

/// The language of a file that is not TOML, if its first line shows it, with that line's range.
fn other_language(text: &str) -> Option<(&'static str, Range<usize>)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let at = start..start + line.trim_end().len();
        start += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key_end = line.find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
        let after_key = key_end.map_or("", |end| &line[end..]);
        let is_yaml = line == "---"
            || line.starts_with("- ")
            || (after_key.starts_with(':') && !after_key.contains('='));
        return match line {
            _ if is_yaml => Some(("YAML", at)),
            _ if line.starts_with('{') => Some(("JSON", at)),
            _ if line.starts_with('<') => Some(("XML", at)),
            _ => None,
        };
    }
    None
}

/// Hides every value that follows the name of a secret setting. The file has syntax errors, so its
/// tables are unknown and a name alone must decide.
fn hide_secrets(text: &str, findings: &mut Findings) {
    for setting in TABLE.iter().filter(|it| (it.secret)()) {
        let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
        for (at, _) in text.match_indices(name) {
            let start = at + name.len();
            let line = text[start..].lines().next().unwrap_or_default();
            if let Some(value) = line.trim_start().strip_prefix('=') {
                let end = start + line.len();
                findings.secrets.push(end - value.len()..end);
            }
        }
    }
}

/// Settings while the sources are applied in order of precedence.
struct Layers<'f> {
    settings: Settings,
    origins: Origins,
    findings: &'f mut Findings,
}

impl<'f> Layers<'f> {
    fn new(findings: &'f mut Findings) -> Self {
        let (settings, origins) = (Settings::default(), Origins::default());
        Self {
            settings,
            origins,
            findings,
        }
    }

    /// Reads every setting of the file. Returns the section `[kafka.headers]`, which the route
    /// reader reads.
    fn file<'a>(&mut self, top: &mut Section<'a>, text: &str) -> Option<Section<'a>> {
        let mut headers = None;
        let mut group: Option<(&str, Option<Section<'a>>)> = None;
        let mut inner: Option<(&str, Option<Section<'a>>)> = None;
        for (index, setting) in TABLE.iter().enumerate() {
            let Some((section, key)) = setting.key.rsplit_once('.') else {
                self.file_value(index, setting.key, top, text);
                continue;
            };
            let (outer, below) = section.split_once('.').unwrap_or((section, ""));
            // `TABLE` keeps the settings of a group together, and inner groups after their outer
            // group.
            if inner.as_ref().is_some_and(|(name, _)| *name != section) {
                self.finish(inner.take());
            }
            if group.as_ref().is_none_or(|(name, _)| *name != outer) {
                headers = headers.or(self.finish(group));
                let opened = top.table(outer, &format!("[{outer}]"), self.findings);
                group = Some((outer, opened));
            }
            let Some((_, Some(opened))) = &mut group else {
                continue;
            };
            if below.is_empty() {
                self.file_value(index, key, opened, text);
                continue;
            }
            let (_, inner) = inner.get_or_insert_with(|| {
                let title = format!("[{section}]");
                (section, opened.table(below, &title, self.findings))
            });
            if let Some(inner) = inner {
                self.file_value(index, key, inner, text);
            }
        }
        self.finish(inner);
        headers.or(self.finish(group))
    }

    /// Ends a group: its remaining keys are unknown, except `[kafka.headers]`, which is returned.
    fn finish<'a>(&mut self, group: Option<(&str, Option<Section<'a>>)>) -> Option<Section<'a>> {
        let (name, mut section) = group.and_then(|(name, it)| Some((name, it?)))?;
        let headers = match name {
            "kafka" => section.table("headers", "[kafka.headers]", self.findings),
            _ => None,
        };
        if !section.finish(elsewhere, self.findings) {
            self.origins.on_unread(name);
        }
        headers
    }

    fn file_value(
        &mut self,
        index: usize,
        key: &'static str,
        section: &mut Section<'_>,
        text: &str,
    ) {
        let setting = &TABLE[index];
        if let Some(at) = section.put(key, setting.key, setting, &mut self.settings, self.findings)
        {
            let line = line_of(text, at.start);
            self.origins.set(index, Origin::File { at, line });
        } else if section.has(key) {
            self.origins.on_unread(setting.key);
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let known: Vec<String> = TABLE.iter().map(Setting::variable).collect();
        for (name, value) in variables {
            if !name.starts_with("SLUICEGATE_") || OTHER_VARIABLES.contains(&&**name) {
                continue;
            }
            match known.iter().position(|it| it == name) {
                // Shells and compose files express "not set" as an empty variable.
                Some(_) if value.is_empty() => {}
                Some(index) => self.word(index, value, Origin::Environment, name),
                None if is_service_link(name) => {}
                None => {
                    let near = nearest(name, known.iter().map(String::as_str));
                    let help = near.map(|near| format!("did you mean `{near}`?"));
                    let help = help.unwrap_or_else(|| "unset it".into());
                    let message =
                        format!("`{name}` is set in the environment but is not a setting");
                    self.findings.warning(None, message, help);
                }
            }
        }
    }

    fn flags(&mut self, flags: &[(&'static str, String)]) {
        for (key, value) in flags {
            let index = TABLE.iter().position(|it| it.key == *key);
            let index = index.expect("flags are made from the table");
            let name = format!("--{}", TABLE[index].flag());
            self.word(index, value, Origin::Flag, &name);
        }
    }

    fn word(&mut self, index: usize, value: &str, origin: Origin, name: &str) {
        match (TABLE[index].put)(&mut self.settings, &Raw::Word(value.to_owned())) {
            Ok(()) => self.origins.set(index, origin),
            Err(why) => {
                let message = format!("`{name}`: {why}");
                self.findings
                    .error(None, message, (TABLE[index].describe)());
                self.origins.on_unread(TABLE[index].key);
            }
        }
    }
}

/// Whether the variable is one that Kubernetes sets in every pod for a service with a name that
/// begins with `sluicegate`, such as `SLUICEGATE_SERVICE_HOST` or `SLUICEGATE_PORT_80_TCP`.
fn is_service_link(name: &str) -> bool {
    let mut after_port = name.split("_PORT").skip(1);
    let port = |rest: &str| {
        let number = rest.strip_prefix('_').unwrap_or_default();
        rest.is_empty() || number.starts_with(|c: char| c.is_ascii_digit())
    };
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || after_port.any(port)
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
    let claims = std::mem::take(&mut reader.claims);
    Routes {
        claims,
        commands,
        queries,
        streams,
    }
}

/// Names the right table for a setting's key that is in the wrong one.
fn elsewhere(key: &str) -> Option<String> {
    let leaf = |it: &&Setting| it.key.rsplit('.').next() == Some(key);
    let setting = TABLE.iter().find(leaf)?;
    Some(match setting.key.rsplit_once('.') {
        Some((section, key)) => format!("`{key}` belongs in `[{section}]`"),
        None => format!("`{key}` belongs at the top of the file, before any `[table]`"),
    })
}
