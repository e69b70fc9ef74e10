//! Reads routes from the file: `[[command]]`, `[[query]]`, `[[stream]]`, `[kafka.headers]`. What is
//! wrong within one route is found here; what is wrong between them, in `cross.rs`.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnose::{Findings, line_of};
use super::kind::{ListOf, OneOf, Raw, Text, Time};
use super::section::{Placed, Section, part_of, raw};
use super::template::is_token;
use super::{
    CommandMethod, CommandRoute, Filter, HeaderNames, Idempotency, Part, PathPattern, Place,
    QueryRoute, Slow, Start, StreamRoute, Template, TextError,
};
use crate::model::TopicName;

/// Routes of one kind a file may have: each has tables on every shard and series in the metrics.
pub const ROUTES_MAX: usize = 500;

/// A route and the places of what others may clash with.
pub(super) struct Routed<R> {
    pub(super) route: R,
    /// Of the table.
    pub(super) at: Range<usize>,
    /// Of `route = "…"`.
    pub(super) route_at: Range<usize>,
    /// Of `name = "…"`, or of the route if the name is its default.
    pub(super) name_at: Range<usize>,
    /// Of `topic = "…"`.
    pub(super) topic_at: Range<usize>,
    /// Of `replies`, `timeout` or `event`, as far as the route has them.
    pub(super) replies_at: Option<Range<usize>>,
    pub(super) timeout_at: Option<Range<usize>>,
    pub(super) event_at: Option<Range<usize>>,
}

/// Reading one file: its text, for places and lines, and what was found so far.
pub(super) struct Reader<'a, 'f> {
    pub(super) text: &'a str,
    pub(super) findings: &'f mut Findings,
}

const METHODS: &[(&str, Option<CommandMethod>)] = &[
    ("GET", None),
    ("POST", Some(CommandMethod::Post)),
    ("PUT", Some(CommandMethod::Put)),
    ("PATCH", Some(CommandMethod::Patch)),
    ("DELETE", Some(CommandMethod::Delete)),
];

/// Request headers that never reach a record: credentials, and what belongs to one connection.
const NEVER_FORWARDED: [&str; 11] = [
    "authorization",
    "connection",
    "cookie",
    "host",
    "keep-alive",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl<'a> Reader<'a, '_> {
    /// Every table of an array of tables, such as `[[command]]`.
    pub(super) fn array(
        &mut self,
        top: &mut Section<'a>,
        key: &'static str,
        settings: &str,
    ) -> Vec<Section<'a>> {
        let title = format!("[[{key}]]");
        let Some(value) = top.get(key) else {
            return vec![];
        };
        let DeValue::Array(list) = value.get_ref() else {
            let help = format!("a route is `{title}`; settings for all of them are `[{settings}]`");
            self.findings.error(
                value.span(),
                format!("`{key}` is not a list of routes"),
                help,
            );
            return vec![];
        };
        if list.len() > ROUTES_MAX {
            let message = format!("more than {ROUTES_MAX} {title}");
            self.findings
                .error(value.span(), message, "split them over several gateways");
        }
        let mut sections = Vec::new();
        for entry in list.iter().take(ROUTES_MAX) {
            match entry.get_ref().as_table() {
                Some(table) => sections.push(Section::new(&*title, table, entry.span())),
                None => {
                    let message = format!("an entry of `{key}` is not a table");
                    let help = format!("write `{title}` and its keys below");
                    self.findings.error(entry.span(), message, help);
                }
            }
        }
        sections
    }

    pub(super) fn command(
        &mut self,
        mut section: Section<'a>,
        default_timeout: Duration,
        names: &HeaderNames,
    ) -> Option<Routed<CommandRoute>> {
        let name = self.name(&mut section, true);
        let route = self.route(&mut section, "\"POST /path\"");
        let topic = self.topic(&mut section, "topic", "\"commands\"");
        let replies = self.topic(&mut section, "replies", "\"replies\"");
        let fallback = PathPattern { segments: vec![] };
        let path = route.as_ref().map(|it| it.value.1.clone());
        // Without a path no parameter is known; its absence is found already.
        let against = path.as_ref().unwrap_or(&fallback);
        let key = self.template(
            section.get("key"),
            "key",
            against,
            Place::Command,
            path.is_some(),
        );
        let headers = self.record_headers(&mut section, against, path.is_some(), names);
        let idempotency = OneOf(&[
            ("optional", Idempotency::Optional),
            ("required", Idempotency::Required),
        ]);
        let idempotency = section.read("idempotency", &idempotency, self.findings);
        let bounds = Duration::from_millis(10)..=Duration::from_secs(300);
        let timeout = section.read("timeout", &Time(bounds), self.findings);
        let forward = self.forward(&mut section, names);
        let at = section.at.clone();
        section.finish(no_other_place, self.findings);

        let (name, route, topic, replies) = (name?, route?, topic?, replies?);
        let (method, path) = route.value;
        let Some(method) = method else {
            let help = "use `[[query]]` or `[[stream]]`, or POST, PUT, PATCH or DELETE";
            self.findings
                .error(route.at, "a command is not a GET", help);
            return None;
        };
        Some(Routed {
            route: CommandRoute {
                name: name.value,
                line: line_of(self.text, route.at.start),
                method,
                path,
                topic: topic.value,
                replies: replies.value,
                key,
                headers,
                idempotency: idempotency.map_or_else(Default::default, |it| it.value),
                timeout: timeout.as_ref().map_or(default_timeout, |it| it.value),
                forward,
            },
            at,
            route_at: route.at,
            name_at: name.at,
            topic_at: topic.at,
            replies_at: Some(replies.at),
            timeout_at: timeout.map(|it| it.at),
            event_at: None,
        })
    }

    pub(super) fn query(&mut self, mut section: Section<'a>) -> Option<Routed<QueryRoute>> {
        let name = self.name(&mut section, false);
        let route = self.route(&mut section, "\"GET /path\"");
        let topic = self.topic(&mut section, "topic", "\"entities\"");
        let route = self.get_only(route, "query");
        let value = section.get("key");
        let path = route.as_ref().map(|it| &it.value);
        let key = path.and_then(|path| self.template(value, "key", path, Place::Get, true));
        let at = section.at.clone();
        section.finish(no_other_place, self.findings);

        let (route, topic) = (route?, topic?);
        if value.is_none() || key.is_some() {
            self.unused_params(&route, key.as_ref(), "key");
        }
        let name = name.unwrap_or_else(|| default_name(&route));
        Some(Routed {
            route: QueryRoute {
                name: name.value,
                line: line_of(self.text, route.at.start),
                path: route.value,
                topic: topic.value,
                key,
            },
            at,
            route_at: route.at,
            name_at: name.at,
            topic_at: topic.at,
            replies_at: None,
            timeout_at: None,
            event_at: None,
        })
    }

    pub(super) fn stream(&mut self, mut section: Section<'a>) -> Option<Routed<StreamRoute>> {
        let name = self.name(&mut section, false);
        let route = self.route(&mut section, "\"GET /path\"");
        let topic = self.topic(&mut section, "topic", "\"events\"");
        let route = self.get_only(route, "stream");
        let path = route.as_ref().map(|it| &it.value);
        let (filter, sound) = self.filter(&mut section, path);
        let starts = OneOf(&[
            ("live", Start::Live),
            ("earliest", Start::Earliest),
            ("snapshot", Start::Snapshot),
        ]);
        let start = section.read("start", &starts, self.findings);
        let slows = OneOf(&[
            ("disconnect", Slow::Disconnect),
            ("conflate", Slow::Conflate),
        ]);
        let slow = section.read("slow", &slows, self.findings);
        let event = section.read("event", &Text(64), self.findings);
        let at = section.at.clone();
        section.finish(no_other_place, self.findings);

        let (route, topic) = (route?, topic?);
        if sound {
            self.unused_params(&route, filter.key.as_ref(), "filter.key");
        }
        let name = name.unwrap_or_else(|| default_name(&route));
        if let Some(event) = event
            .as_ref()
            .filter(|it| RESERVED_EVENTS.contains(&&*it.value))
        {
            let message = format!("`{}` is an event of the gateway's own", event.value);
            self.findings
                .error(event.at.clone(), message, "choose another name");
        }
        Some(Routed {
            route: StreamRoute {
                name: name.value,
                line: line_of(self.text, route.at.start),
                path: route.value,
                topic: topic.value,
                filter,
                start: start.map_or_else(Default::default, |it| it.value),
                slow: slow.map_or_else(Default::default, |it| it.value),
                event: event.as_ref().map(|it| it.value.clone()),
            },
            at,
            route_at: route.at,
            name_at: name.at,
            topic_at: topic.at,
            replies_at: None,
            timeout_at: None,
            event_at: event.map(|it| it.at),
        })
    }

    /// `filter.key = "template"`, and whether it could be read.
    fn filter(&mut self, section: &mut Section<'a>, path: Option<&PathPattern>) -> (Filter, bool) {
        let Some(mut terms) = section.table("filter", "[stream.filter]", self.findings) else {
            return (Filter::default(), true);
        };
        let value = terms.get("key");
        let key = path.and_then(|path| self.template(value, "filter.key", path, Place::Get, true));
        terms.finish(no_other_place, self.findings);
        let sound = value.is_none() || key.is_some();
        (Filter { key }, sound)
    }

    /// `[kafka.headers]`: a preset, and each name apart.
    pub(super) fn header_names(&mut self, mut section: Section<'a>) -> HeaderNames {
        let presets = OneOf(&[("default", 0), ("zilla", 1), ("spring", 2)]);
        let preset = section.read("preset", &presets, self.findings);
        let preset = HeaderNames::PRESETS[preset.map_or(0, |it| it.value)];
        let mut names = HeaderNames::preset(preset).expect("one of the presets");
        let mut taken: Vec<(String, Range<usize>)> = Vec::new();
        for (key, name) in names.by_key() {
            let Some(read) = section.read(key, &Text(128), self.findings) else {
                taken.push((name.clone(), section.at.clone()));
                continue;
            };
            *name = read.value;
            taken.push((name.clone(), read.at));
        }
        for (index, (name, at)) in taken.iter().enumerate() {
            if let Some((_, first)) = taken[..index].iter().find(|(other, _)| other == name) {
                let message = format!("two headers are named `{name}`");
                let finding = self
                    .findings
                    .error(at.clone(), message, "give each its own name");
                finding.also(Some(first.clone()), "the other");
            }
        }
        section.finish(no_other_place, self.findings);
        names
    }

    fn name(&mut self, section: &mut Section<'a>, required: bool) -> Option<Placed<String>> {
        let name = match required {
            true => section.required("name", &Text(64), "\"a-name\"", self.findings),
            false => section.read("name", &Text(64), self.findings),
        }?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !name.value.bytes().all(legal) {
            let message = format!("`{}` is no name for a route", name.value);
            let help = "use letters, digits, `.`, `_` and `-`, at most 64";
            self.findings.error(name.at.clone(), message, help);
        }
        Some(name)
    }

    fn route(
        &mut self,
        section: &mut Section<'a>,
        example: &str,
    ) -> Option<Placed<(Option<CommandMethod>, PathPattern)>> {
        let text = section.required("route", &Text(600), example, self.findings)?;
        let read = || {
            let all = 0..text.value.len();
            let Some((method, path)) = text.value.split_once(' ') else {
                let help = format!("write a method and a path, such as {example}");
                return Err(TextError::new(all, "a route is a method and a path", help));
            };
            let known = METHODS.iter().find(|(name, _)| *name == method);
            let Some((_, method)) = known else {
                let help = "methods are GET, POST, PUT, PATCH and DELETE, in capitals";
                let message = format!("`{method}` is not a method here");
                return Err(TextError::new(0..method.len(), message, help));
            };
            let start = text.value.len() - path.len();
            let path = PathPattern::parse(path).map_err(|mut error| {
                error.at = error.at.start + start..error.at.end + start;
                error
            })?;
            Ok((*method, path))
        };
        match read() {
            Ok(route) => Some(Placed::new(route, text.at)),
            Err(error) => {
                self.text_error(&text, error);
                None
            }
        }
    }

    fn get_only(
        &mut self,
        route: Option<Placed<(Option<CommandMethod>, PathPattern)>>,
        kind: &str,
    ) -> Option<Placed<PathPattern>> {
        let Placed { value, at } = route?;
        if let (Some(method), path) = &value {
            let message = format!("a {kind} is a GET, not a {}", method.as_str());
            let help = format!("write \"GET {path}\", or use `[[command]]`");
            self.findings.error(at, message, help);
            return None;
        }
        Some(Placed::new(value.1, at))
    }

    fn topic(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        example: &str,
    ) -> Option<Placed<TopicName>> {
        let text = section.required(key, &Text(1000), example, self.findings)?;
        match TopicName::new(&text.value) {
            Ok(topic) => Some(Placed::new(topic, text.at)),
            Err(why) => {
                let message = format!("`{}` can't be a topic", text.value);
                self.findings.error(text.at, message, why);
                None
            }
        }
    }

    /// A template, if the value is there and is one. Without a `path` only syntax can be wrong, and
    /// what names a parameter is left alone.
    fn template(
        &mut self,
        value: Option<&Spanned<DeValue<'a>>>,
        key: &str,
        path: &PathPattern,
        place: Place,
        path_known: bool,
    ) -> Option<Template> {
        let value = value?;
        let at = value.span();
        let Raw::Text(text) = raw(value.get_ref()) else {
            let found = value.get_ref().type_str();
            let message = format!("`{key}`: expected a template, found a {found}");
            self.findings
                .error(at, message, "write a string such as \"{path.id}\"");
            return None;
        };
        match Template::parse(&text, path, place) {
            Ok(template) => return Some(template),
            Err(_) if !path_known => {}
            Err(error) => self.text_error(&Placed::new(text, at), error),
        }
        None
    }

    fn text_error(&mut self, text: &Placed<String>, error: TextError) {
        let at = part_of(self.text, &text.at, &text.value, &error.at);
        self.findings.error(at, error.message, error.help);
    }

    /// `headers = { name = "template" }`.
    fn record_headers(
        &mut self,
        section: &mut Section<'a>,
        path: &PathPattern,
        path_known: bool,
        names: &HeaderNames,
    ) -> Vec<(String, Template)> {
        let Some(table) = section.table("headers", "[command.headers]", self.findings) else {
            return vec![];
        };
        let mut headers = Vec::new();
        for (name, at, value) in table.entries() {
            let own = names.all().any(|own| own == name);
            if own || name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                let help = match own {
                    true => "the gateway writes that one itself; see [kafka.headers]",
                    false => "a name has 1 to 128 bytes and no control characters",
                };
                let message = format!("a command can't set the record header `{name}`");
                self.findings.error(at, message, help);
            }
            let template = self.template(Some(value), name, path, Place::Command, path_known);
            headers.extend(template.map(|template| (name.to_owned(), template)));
        }
        headers
    }

    /// `forward = ["content-language"]`.
    fn forward(&mut self, section: &mut Section<'a>, names: &HeaderNames) -> Vec<String> {
        let list = section.read("forward", &ListOf(Text(128), 32), self.findings);
        let Some(list) = list else { return vec![] };
        let mut forward = Vec::new();
        for name in list.value {
            let lower = name.to_ascii_lowercase();
            let (bad, help) = if !is_token(&lower) {
                (true, "a header name has letters, digits and -")
            } else if NEVER_FORWARDED.contains(&&*lower) {
                (
                    true,
                    "credentials and connection headers never reach a record",
                )
            } else {
                let own = names.all().any(|own| *own == lower);
                (
                    own,
                    "the gateway writes that one itself; see [kafka.headers]",
                )
            };
            if bad {
                let message = format!("`{name}` can't be forwarded");
                self.findings.error(list.at.clone(), message, help);
            } else if !forward.contains(&lower) {
                forward.push(lower);
            }
        }
        forward
    }

    /// A parameter nobody reads would make every value of it the same page: for a query or a stream
    /// that shows everybody everything.
    fn unused_params(
        &mut self,
        route: &Placed<PathPattern>,
        template: Option<&Template>,
        key: &str,
    ) {
        let parts = template.map_or(&[][..], |template| &template.parts);
        for (param, wanted) in route.value.params().zip(0..) {
            let uses = |part: &Part| matches!(part, Part::Path { index, .. } if *index == wanted);
            if !parts.iter().any(uses) {
                let hole = format!("{{path.{param}}}");
                let message = format!("`{{{param}}}` in the path is not used");
                let help = format!("add `{key} = \"{hole}\"`, or take it out of the path");
                self.findings.error(route.at.clone(), message, help);
            }
        }
    }
}

/// Events the gateway sends itself.
const RESERVED_EVENTS: [&str; 4] = ["gap", "delete", "challenge", "error"];

fn default_name(route: &Placed<PathPattern>) -> Placed<String> {
    Placed::new(format!("GET {}", route.value), route.at.clone())
}

fn no_other_place(_: &str) -> Option<String> {
    None
}
