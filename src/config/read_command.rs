//! Reads `[[command]]` routes. A new key is a line here, a field of [`CommandRoute`] and a row of
//! `page.rs`.

use std::ops::Range;
use std::time::Duration;

use super::diagnose::{Findings, line_of};
use super::kind::{FilePath, OneOf, OneOfNumbers, Switch};
use super::read::{ReadRoute, Reader, RouteKind, no_other_place};
use super::section::{Placed, Section};
use super::unit::Time;
use super::{
    CommandMethod, CommandRoute, Condition, Dedupe, HeaderNames, Idempotency, InFlight,
    OneWayStatus, PathPattern, SchemaFile, TemplateContext,
};

impl<'a> Reader<'a, '_> {
    /// Reads one route, and reports what is wrong with it.
    pub(super) fn command(
        &mut self,
        mut section: Section<'a>,
        default_timeout: Duration,
        names: &HeaderNames,
    ) -> Option<ReadRoute<CommandRoute>> {
        if self.is_of_other_kind(&section, RouteKind::Command) {
            return None;
        }
        let (name, route) = self.head(&mut section, true, "\"POST /path\"");
        let cluster = self.cluster(&mut section);
        let topic = self.topic(&mut section, "topic", "\"commands\"");
        let replies = self.optional_topic(&mut section, "replies");
        let fallback = PathPattern { segments: vec![] };
        let path = route.as_ref().map(|it| it.value.1.clone());
        // Without a path no parameter is known. The missing path is already reported.
        let against = path.as_ref().unwrap_or(&fallback);
        let key = self.template(
            section.get("key"),
            "key",
            against,
            TemplateContext::Command,
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
        let schema = section.read("schema", &FilePath, self.findings);
        let params = self.params(&mut section, path.as_ref());
        let choices = self.choices(&mut section);
        let edge = self.edge(&mut section, "command");
        let at = section.at.clone();
        section.finish(no_other_place, self.findings);

        let (name, route, topic, replies) = (name?, route?, topic?, replies?);
        let (method, path) = route.value;
        let method = method?; // A GET was reported above.
        let idempotency = idempotency.map_or_else(Default::default, |it| it.value);
        let facts = RouteFacts {
            method,
            has_key: key.is_some(),
            has_replies: replies.is_some(),
            idempotency,
            schema_at: schema.as_ref().map(|it| it.at.clone()),
            route_at: &route.at,
        };
        choices.check(&facts, self.findings);
        Some(ReadRoute {
            route: CommandRoute {
                name: name.value,
                line: line_of(self.text(), route.at.start),
                method,
                path,
                cluster,
                topic: topic.value,
                replies: replies.as_ref().map(|it| it.value.clone()),
                key,
                headers,
                idempotency,
                timeout: timeout.as_ref().map_or(default_timeout, |it| it.value),
                forward,
                schema: schema.map(|it| SchemaFile {
                    path: self.beside_the_file(&it.value),
                    at: it.at,
                }),
                params,
                dedupe: value(choices.dedupe),
                in_flight: value(choices.in_flight),
                condition: value(choices.condition),
                tombstone: value(choices.tombstone),
                one_way_status: value(choices.one_way_status),
                edge,
            },
            at,
            topic_at: topic.at,
            replies_at: replies.map(|it| it.at),
            timeout_at: timeout.map(|it| it.at),
            event_at: None,
        })
    }
    /// Reads the keys that choose between a few behaviours.
    fn choices(&mut self, section: &mut Section<'a>) -> Choices {
        let dedupe = OneOf(&[
            ("replies", Dedupe::Replies),
            ("strict", Dedupe::Strict),
            ("local", Dedupe::Local),
        ]);
        let in_flight = OneOf(&[("join", InFlight::Join), ("conflict", InFlight::Conflict)]);
        let condition = OneOf(&[
            ("optional", Condition::Optional),
            ("required", Condition::Required),
        ]);
        let one_way_status = OneOfNumbers(&[
            (202, OneWayStatus::Accepted),
            (204, OneWayStatus::NoContent),
        ]);
        Choices {
            dedupe: section.read("dedupe", &dedupe, self.findings),
            in_flight: section.read("in_flight", &in_flight, self.findings),
            condition: section.read("condition", &condition, self.findings),
            tombstone: section.read("tombstone", &Switch, self.findings),
            one_way_status: section.read("one_way_status", &one_way_status, self.findings),
        }
    }
}

/// The keys that choose between a few behaviours, as far as the file has them.
struct Choices {
    dedupe: Option<Placed<Dedupe>>,
    in_flight: Option<Placed<InFlight>>,
    condition: Option<Placed<Condition>>,
    tombstone: Option<Placed<bool>>,
    one_way_status: Option<Placed<OneWayStatus>>,
}

/// What the choices of a route must fit.
struct RouteFacts<'a> {
    method: CommandMethod,
    has_key: bool,
    has_replies: bool,
    idempotency: Idempotency,
    schema_at: Option<Range<usize>>,
    route_at: &'a Range<usize>,
}

impl Choices {
    /// Reports choices that do not fit the rest of their route.
    fn check(&self, facts: &RouteFacts<'_>, findings: &mut Findings) {
        self.check_tombstone(facts, findings);
        if facts.has_replies {
            if let Some(status) = &self.one_way_status {
                let message = "a route with `replies` has the status of the reply";
                let help = "remove `one_way_status`, or `replies` if the service does not reply";
                findings.error(status.at.clone(), message, help);
            }
        } else {
            self.check_one_way(facts, findings);
        }
        if let Some(dedupe) = &self.dedupe
            && dedupe.value == Dedupe::Strict
            && facts.idempotency == Idempotency::Optional
        {
            let message = "`strict` protects only commands with an `Idempotency-Key`";
            let help = "add `idempotency = \"required\"`: without a key, a retry is a new command";
            findings.warning(dedupe.at.clone(), message, help);
        }
    }

    fn check_tombstone(&self, facts: &RouteFacts<'_>, findings: &mut Findings) {
        let Some(tombstone) = self.tombstone.as_ref().filter(|it| it.value) else {
            return;
        };
        if facts.method != CommandMethod::Delete {
            let message = format!("a {} does not write a tombstone", facts.method.as_str());
            let help = "a tombstone has no value, so the body would be lost: use DELETE";
            findings.error(tombstone.at.clone(), message, help);
        } else if !facts.has_key {
            let message = "a tombstone needs the key that it deletes";
            let help = "add `key = \"{path.…}\"`: brokers refuse one without a key";
            findings.error(tombstone.at.clone(), message, help);
        }
        if let Some(schema_at) = &facts.schema_at {
            let message = "a tombstone has no body, so there is nothing to check";
            let finding = findings.error(schema_at.clone(), message, "remove `schema`");
            finding.also(Some(tombstone.at.clone()), "its records have no value");
        }
    }

    /// A route without replies: a retry can't be recognised by the reply of the first attempt, and
    /// the client learns nothing from the service.
    fn check_one_way(&self, facts: &RouteFacts<'_>, findings: &mut Findings) {
        let dedupe = self.dedupe.as_ref();
        let is_strict = dedupe.is_some_and(|it| it.value == Dedupe::Strict);
        if facts.idempotency == Idempotency::Required && !is_strict {
            let at = dedupe.map_or(facts.route_at, |it| &it.at);
            let message = "without `replies`, a retry after the first attempt was appended is \
                           appended again";
            let help = "add `dedupe = \"strict\"`, which recognises it for `commands.open_limit`, \
                        or `replies`; the key joins only attempts that overlap at one instance";
            findings.warning(at.clone(), message, help);
        }
        if let Some(condition) = &self.condition
            && condition.value == Condition::Required
        {
            let message = "without `replies`, no client learns whether its condition held";
            let help = "add `replies`, so that the service can answer 412";
            findings.warning(condition.at.clone(), message, help);
        }
    }
}

/// The value that the file has, or the default.
fn value<T: Default>(read: Option<Placed<T>>) -> T {
    read.map_or_else(T::default, |it| it.value)
}
