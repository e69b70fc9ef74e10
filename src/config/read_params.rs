//! Reads `params` of a command.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnose::nearest;
use super::kind::{Count, Kind, ListOf, OneOf, Switch, Text};
use super::pattern::is_name;
use super::read::{Reader, no_other_place};
use super::section::{Section, raw};
use super::{ParamKind, ParamPlace, ParamRule, PathPattern, QUERY_PARAMS_MAX};

/// The name of a type, and how to make it.
type NamedKind = (&'static str, fn() -> ParamKind);

/// The types that a rule can name, without bounds.
const KINDS: &[NamedKind] = &[
    ("string", || ParamKind::Text),
    ("integer", || ParamKind::Integer {
        min: i64::MIN,
        max: i64::MAX,
    }),
    ("number", || ParamKind::Number),
    ("boolean", || ParamKind::Boolean),
    ("uuid", || ParamKind::Uuid),
];

impl<'a> Reader<'a, '_> {
    /// Reads a command's `params = { path.name = …, query.name = … }`.
    pub(super) fn params(
        &mut self,
        section: &mut Section<'a>,
        path: Option<&PathPattern>,
    ) -> Vec<ParamRule> {
        let Some(mut table) = section.table("params", "[command.params]", self.findings) else {
            return vec![];
        };
        let mut rules = Vec::new();
        if let Some(params) = table.table("path", "[command.params.path]", self.findings) {
            for (name, at, value) in params.entries() {
                let place = path.and_then(|path| path.params().position(|it| it == name));
                if let (Some(path), None) = (path, place) {
                    let message = format!("the path `{path}` has no `{{{name}}}`");
                    let near = nearest(name, path.params());
                    let help = near.map(|near| format!("did you mean `{near}`?"));
                    let help = help.unwrap_or_else(|| "name a parameter of the path".into());
                    self.findings.error(at, message, help);
                }
                let rule = self.param(name, value);
                rules.extend(rule.zip(place).map(|(rule, index)| ParamRule {
                    place: ParamPlace::Path(index),
                    ..rule
                }));
            }
        }
        if let Some(params) = table.table("query", "[command.params.query]", self.findings) {
            for (name, at, value) in params.entries() {
                if !is_name(name) {
                    let message = format!("`{name}` is not the name of a query parameter");
                    let help = "a name has letters, digits and `_`, at most 64";
                    self.findings.error(at, message, help);
                }
                rules.extend(self.param(name, value));
            }
            let typed = rules.iter().filter(|it| it.place == ParamPlace::Query);
            if typed.count() > QUERY_PARAMS_MAX {
                let message = format!("more than {QUERY_PARAMS_MAX} query parameters");
                let help = "describe them in the body";
                self.findings.error(params.at.clone(), message, help);
            }
        }
        table.finish(no_other_place, self.findings);
        rules
    }

    /// Reads the rule of one parameter: the name of a type, or a table.
    fn param(&mut self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Option<ParamRule> {
        let rule = |kind, required| ParamRule {
            place: ParamPlace::Query,
            name: name.to_owned(),
            kind,
            required,
        };
        let Some(table) = value.get_ref().as_table() else {
            return match Kind::read(&OneOf(KINDS), &raw(value.get_ref())) {
                Ok(kind) => Some(rule(kind(), false)),
                Err(why) => {
                    let help = "write `string`, `integer`, `number`, `boolean` or `uuid`, or a \
                                table such as { type = \"integer\", min = 1 }";
                    self.findings
                        .error(value.span(), format!("`{name}`: {why}"), help);
                    None
                }
            };
        };
        let mut section = Section::new(format!("the parameter `{name}`"), table, value.span());
        let kind = section.read("type", &OneOf(KINDS), self.findings);
        let any = Count(i64::MIN..=i64::MAX);
        let min = section.read("min", &any, self.findings);
        let max = section.read("max", &any, self.findings);
        let values = section.read("values", &ListOf(Text(128), 64), self.findings);
        let required = section.read("required", &Switch, self.findings);
        let all_known = section.finish(no_other_place, self.findings);
        let mut kind = kind.map_or(ParamKind::Text, |it| (it.value)());
        match &mut kind {
            ParamKind::Integer {
                min: low,
                max: high,
            } => {
                *low = min.map_or(*low, |it| it.value);
                *high = max.map_or(*high, |it| it.value);
                if low > high {
                    let message = format!("`{name}`: no integer is from {low} to {high}");
                    let help = "swap `min` and `max`";
                    self.findings.error(value.span(), message, help);
                }
            }
            _ => {
                if let Some(bound) = min.or(max) {
                    let message = format!("`{name}`: only an integer has bounds");
                    let help = "add `type = \"integer\"`, or remove the bound";
                    self.findings.error(bound.at, message, help);
                }
            }
        }
        if let Some(values) = values {
            if kind != ParamKind::Text || values.value.is_empty() {
                let message = format!("`{name}`: `values` are texts, at least one");
                let help = "write `values = [\"a\", \"b\"]` without `type`";
                self.findings.error(values.at, message, help);
            }
            kind = ParamKind::OneOf(values.value);
        }
        all_known.then(|| rule(kind, required.is_some_and(|it| it.value)))
    }
}
