//! Reads `[[command]]` routes. A new key is a line here, a field of [`CommandRoute`] and a row of
//! `page.rs`.

use std::time::Duration;

use super::diagnose::line_of;
use super::kind::OneOf;
use super::read::{ReadRoute, Reader, no_other_place};
use super::section::Section;
use super::unit::Time;
use super::{CommandRoute, HeaderNames, Idempotency, PathPattern, TemplateContext};

impl<'a> Reader<'a, '_> {
    /// Reads one route, and reports what is wrong with it.
    pub(super) fn command(
        &mut self,
        mut section: Section<'a>,
        default_timeout: Duration,
        names: &HeaderNames,
    ) -> Option<ReadRoute<CommandRoute>> {
        let (name, route) = self.head(&mut section, true, "\"POST /path\"");
        let cluster = self.cluster(&mut section);
        let topic = self.topic(&mut section, "topic", "\"commands\"");
        let replies = self.topic(&mut section, "replies", "\"replies\"");
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
        Some(ReadRoute {
            route: CommandRoute {
                name: name.value,
                line: line_of(self.text(), route.at.start),
                method,
                path,
                cluster,
                topic: topic.value,
                replies: replies.value,
                key,
                headers,
                idempotency: idempotency.map_or_else(Default::default, |it| it.value),
                timeout: timeout.as_ref().map_or(default_timeout, |it| it.value),
                forward,
            },
            at,
            topic_at: topic.at,
            replies_at: Some(replies.at),
            timeout_at: timeout.map(|it| it.at),
            event_at: None,
        })
    }
}
