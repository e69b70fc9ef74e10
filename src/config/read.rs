//! Reads routes from the file: what all kinds share, `[[query]]` and `[[stream]]`. Commands are in
//! `read_command.rs`. Each route is checked by itself here; `cross.rs` checks routes against each
//! other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::diagnose::{Findings, line_of};
use super::kind::{OneOf, Raw, Text};
use super::section::{Placed, Section, part_of, raw};
use super::{
    CommandMethod, Filter, Part, Partitioner, PathPattern, QueryRoute, Slow, Start, StreamRoute,
    Template, TemplateContext, TextError,
};
use crate::model::{EventName, TopicName};

/// Most routes of one kind. Each has tables on every shard, and time series in the metrics.
pub const ROUTES_MAX: usize = 500;

/// A route with the byte ranges of the keys that may conflict with other routes.
pub(super) struct ReadRoute<R> {
    pub(super) route: R,
    /// Byte range of the route's table.
    pub(super) at: Range<usize>,
    /// Byte range of the value of `topic`.
    pub(super) topic_at: Range<usize>,
    /// Byte ranges of the values of `replies`, `timeout` and `event`, if the route has them.
    pub(super) replies_at: Option<Range<usize>>,
    pub(super) timeout_at: Option<Range<usize>>,
    pub(super) event_at: Option<Range<usize>>,
}

/// The requests and the name that a route takes. Known even if the rest of the route is invalid, so
/// that conflicts are still reported.
pub(super) struct Claim {
    pub(super) method: &'static str,
    pub(super) path: PathPattern,
    /// Byte range of the value of `route`.
    pub(super) route_at: Range<usize>,
    /// Line of the value of `route`, counted from 1.
    pub(super) line: usize,
    /// The name, if the file gives one. The default name is as unique as the path.
    pub(super) name: Option<Placed<String>>,
}

/// Reads one file. Keeps its text, for ranges and lines, and the findings so far.
pub(super) struct Reader<'a, 'f> {
    text: &'a str,
    /// The file's name, which may be a path.
    name: &'a str,
    pub(super) findings: &'f mut Findings,
    pub(super) claims: Vec<Claim>,
    /// Names of the file's `[[cluster]]` tables, in order.
    pub(super) cluster_names: Vec<String>,
}

/// The tables that declare routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    Command,
    Query,
    Stream,
}

/// Method and path of a route. `None` is `GET`, which no command has.
pub(super) type MethodAndPath = (Option<CommandMethod>, PathPattern);

const METHODS: &[(&str, Option<CommandMethod>)] = &[
    ("GET", None),
    ("POST", Some(CommandMethod::Post)),
    ("PUT", Some(CommandMethod::Put)),
    ("PATCH", Some(CommandMethod::Patch)),
    ("DELETE", Some(CommandMethod::Delete)),
];

impl<'a, 'f> Reader<'a, 'f> {
    pub(super) fn new(name: &'a str, text: &'a str, findings: &'f mut Findings) -> Self {
        Self {
            text,
            name,
            findings,
            claims: Vec::new(),
            cluster_names: Vec::new(),
        }
    }

    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    /// A path of the file, which is relative to the folder of the file.
    pub(super) fn beside_the_file(&self, path: &Path) -> PathBuf {
        let folder = Path::new(self.name).parent();
        folder.map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// Opens every table of an array of tables, such as `[[command]]`.
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

    pub(super) fn query(&mut self, mut section: Section<'a>) -> Option<ReadRoute<QueryRoute>> {
        if self.is_of_other_kind(&section, RouteKind::Query) {
            return None;
        }
        let (name, route) = self.head(&mut section, false, "\"GET /path\"");
        let cluster = self.cluster(&mut section);
        let topic = self.topic(&mut section, "topic", "\"entities\"");
        let route = route.map(|it| Placed::new(it.value.1, it.at));
        let value = section.get("key");
        let path = route.as_ref().map(|it| &it.value);
        let key =
            path.and_then(|path| self.template(value, "key", path, TemplateContext::Get, true));
        let partitioners = OneOf(&[("murmur2", Partitioner::Murmur2)]);
        let partitioner = section.read("partitioner", &partitioners, self.findings);
        let edge = self.edge(&mut section, "query");
        let at = section.at.clone();
        let all_known = section.finish(no_other_place, self.findings);

        let (route, topic) = (route?, topic?);
        // An unknown key may be `key`, misspelt: that is already reported.
        if all_known && (value.is_none() || key.is_some()) {
            self.unused_params(&route, key.as_ref(), "key");
        }
        Some(ReadRoute {
            route: QueryRoute {
                name: name.map_or_else(|| format!("GET {}", route.value), |it| it.value),
                line: line_of(self.text, route.at.start),
                path: route.value,
                cluster,
                topic: topic.value,
                key,
                partitioner: partitioner.map(|it| it.value),
                edge,
            },
            at,
            topic_at: topic.at,
            replies_at: None,
            timeout_at: None,
            event_at: None,
        })
    }

    pub(super) fn stream(&mut self, mut section: Section<'a>) -> Option<ReadRoute<StreamRoute>> {
        if self.is_of_other_kind(&section, RouteKind::Stream) {
            return None;
        }
        let (name, route) = self.head(&mut section, false, "\"GET /path\"");
        let cluster = self.cluster(&mut section);
        let topic = self.topic(&mut section, "topic", "\"events\"");
        let route = route.map(|it| Placed::new(it.value.1, it.at));
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
        let edge = self.edge(&mut section, "stream");
        let at = section.at.clone();
        let all_known = section.finish(no_other_place, self.findings);

        let (route, topic) = (route?, topic?);
        if all_known && sound {
            self.unused_params(&route, filter.key.as_ref(), "filter.key");
        }
        let event_at = event.as_ref().map(|it| it.at.clone());
        let event = event.and_then(|it| match EventName::new(&it.value) {
            Ok(name) => Some(name),
            Err(why) => {
                self.findings.error(it.at, why, "choose another name");
                None
            }
        });
        Some(ReadRoute {
            route: StreamRoute {
                name: name.map_or_else(|| format!("GET {}", route.value), |it| it.value),
                line: line_of(self.text, route.at.start),
                path: route.value,
                cluster,
                topic: topic.value,
                filter,
                start: start.map_or_else(Default::default, |it| it.value),
                slow: slow.map_or_else(Default::default, |it| it.value),
                event,
                edge,
            },
            at,
            topic_at: topic.at,
            replies_at: None,
            timeout_at: None,
            event_at,
        })
    }

    /// Reads `filter.key`, and returns whether it is absent or valid.
    fn filter(&mut self, section: &mut Section<'a>, path: Option<&PathPattern>) -> (Filter, bool) {
        if let Some(value) = section.peek("filter")
            && let Raw::Text(text) = raw(value.get_ref())
        {
            section.get("filter");
            let help = format!("write `filter.key = \"{text}\"`");
            let message = "`filter` is a table with the key `key`";
            self.findings.error(value.span(), message, help);
            return (Filter::default(), false);
        }
        let has_filter = section.has("filter");
        let Some(mut terms) = section.table("filter", "[stream.filter]", self.findings) else {
            return (Filter::default(), !has_filter);
        };
        let value = terms.get("key");
        let key = path
            .and_then(|path| self.template(value, "filter.key", path, TemplateContext::Get, true));
        let all_known = terms.finish(no_other_place, self.findings);
        let sound = all_known && (value.is_none() || key.is_some());
        (Filter { key }, sound)
    }

    /// Reads name and route, and records them in `claims`.
    pub(super) fn head(
        &mut self,
        section: &mut Section<'a>,
        name_required: bool,
        example: &str,
    ) -> (Option<Placed<String>>, Option<Placed<MethodAndPath>>) {
        let name = self.name(section, name_required);
        let route = self.route(section, example);
        if let Some(route) = &route {
            let (method, path) = &route.value;
            self.claims.push(Claim {
                method: method.map_or("GET", CommandMethod::as_str),
                path: path.clone(),
                route_at: route.at.clone(),
                line: line_of(self.text, route.at.start),
                name: name.clone(),
            });
        }
        (name, route)
    }

    fn name(&mut self, section: &mut Section<'a>, required: bool) -> Option<Placed<String>> {
        let name = if required {
            section.required("name", &Text(64), "\"a-name\"", self.findings)?
        } else {
            section.read("name", &Text(64), self.findings)?
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        // A command's name is a segment of a path, which may not be `.` or `..`.
        if !name.value.bytes().all(legal) || name.value.bytes().all(|b| b == b'.') {
            let message = format!("`{}` is not a valid route name", name.value);
            let help = "use letters, digits, `.`, `_` and `-`, at most 64";
            self.findings.error(name.at.clone(), message, help);
        }
        Some(name)
    }

    fn route(&mut self, section: &mut Section<'a>, example: &str) -> Option<Placed<MethodAndPath>> {
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

    /// Whether a route has a method that its kind can't have, which is then reported. The table is
    /// probably of another kind, so nothing else about it is reported: its keys would all be wrong.
    pub(super) fn is_of_other_kind(&mut self, section: &Section<'a>, kind: RouteKind) -> bool {
        let Some(value) = section.peek("route") else {
            return false;
        };
        let Raw::Text(text) = raw(value.get_ref()) else {
            return false; // That is reported when the route is read.
        };
        let method = text.split(' ').next().unwrap_or_default();
        let known = METHODS.iter().find(|(name, _)| *name == method);
        let path = text.strip_prefix(method).unwrap_or_default().trim();
        let (message, help) = match (known, kind) {
            (Some((_, None)), RouteKind::Command) => (
                "a command is not a GET".to_owned(),
                "write `[[query]]` for the newest record of a key, or `[[stream]]` for events; a \
                 command is a POST, PUT, PATCH or DELETE"
                    .to_owned(),
            ),
            (Some((_, Some(_))), RouteKind::Query) => (
                format!("a query is a GET, not a {method}"),
                format!("write \"GET {path}\", or use `[[command]]`"),
            ),
            (Some((_, Some(_))), RouteKind::Stream) => (
                format!("a stream is a GET, not a {method}"),
                format!("write \"GET {path}\", or use `[[command]]`"),
            ),
            _ => return false,
        };
        self.findings.error(value.span(), message, help);
        true
    }

    pub(super) fn topic(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        example: &str,
    ) -> Option<Placed<TopicName>> {
        let text = section.required(key, &Text(1000), example, self.findings)?;
        self.topic_name(text)
    }

    /// Reads the name of an optional topic. The outer `None`: there is one, and it is invalid.
    pub(super) fn optional_topic(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
    ) -> Option<Option<Placed<TopicName>>> {
        if section.get(key).is_none() {
            return Some(None);
        }
        let text = section.read(key, &Text(1000), self.findings)?;
        self.topic_name(text).map(Some)
    }

    fn topic_name(&mut self, text: Placed<String>) -> Option<Placed<TopicName>> {
        match TopicName::new(&text.value) {
            Ok(topic) => Some(Placed::new(topic, text.at)),
            Err(why) => {
                let message = format!("`{}` is not a valid topic name", text.value);
                self.findings.error(text.at, message, why);
                None
            }
        }
    }

    /// Reads an optional template. If the path is unknown, no error of the template is reported: it
    /// may only be that its parameters are not known.
    pub(super) fn template(
        &mut self,
        value: Option<&Spanned<DeValue<'a>>>,
        key: &str,
        path: &PathPattern,
        context: TemplateContext,
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
        match Template::parse(&text, path, context) {
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

    /// Rejects a path parameter that no template reads. Every value of it would return the same
    /// records, so that each client of a query or a stream could read everyone's.
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
                let placeholder = format!("{{path.{param}}}");
                let message = format!("`{{{param}}}` in the path is not used");
                let help = format!("add `{key} = \"{placeholder}\"`, or take it out of the path");
                self.findings.error(route.at.clone(), message, help);
            }
        }
    }
}

pub(super) fn no_other_place(_: &str) -> Option<String> {
    None
}
