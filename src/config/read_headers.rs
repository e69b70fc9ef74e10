//! Reads the settings about headers: names in `[kafka.headers]`, the `headers` that a command adds
//! to its record, and the request headers that it forwards.

use std::ops::Range;

use super::kind::{ListOf, OneOf, Text};
use super::read::{Reader, no_other_place};
use super::section::Section;
use super::template::is_token;
use super::{HeaderNames, PathPattern, Template, TemplateContext};

/// Request headers that are never copied to a record: credentials, and headers of the connection
/// (RFC 9110 7.6.1).
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
    /// Reads `[kafka.headers]`: a preset, and names that override it.
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

    /// Reads a command's `headers = { name = "template" }`.
    pub(super) fn record_headers(
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
                let help = if own {
                    "the gateway sets this header itself; see [kafka.headers]"
                } else {
                    "a name has 1 to 128 bytes and no control characters"
                };
                let message = format!("a command can't set the record header `{name}`");
                self.findings.error(at, message, help);
            }
            let template = self.template(
                Some(value),
                name,
                path,
                TemplateContext::Command,
                path_known,
            );
            headers.extend(template.map(|template| (name.to_owned(), template)));
        }
        headers
    }

    /// Reads a command's list of request headers to forward.
    pub(super) fn forward(
        &mut self,
        section: &mut Section<'a>,
        names: &HeaderNames,
    ) -> Vec<String> {
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
                    "the gateway sets this header itself; see [kafka.headers]",
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
}
