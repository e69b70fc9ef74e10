//! A table of the file while it is read. The reader asks for each key by name, and every key it
//! never asked for is unknown. So no second list of known keys can differ from what is read.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::{Findings, nearest};
use super::kind::{Kind, Raw};
use super::settings::{Setting, Settings};

/// A value with its byte range in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

impl<T> Placed<T> {
    pub(super) fn new(value: T, at: Range<usize>) -> Self {
        Self { value, at }
    }
}

pub(super) struct Section<'a> {
    /// The table's name in messages: `[kafka]`, `[[command]]`. Empty for the top of the file.
    title: String,
    table: &'a DeTable<'a>,
    /// Byte range of the table.
    pub(super) at: Range<usize>,
    known: Vec<&'static str>,
    /// Required keys that the table does not have, each with an example of a value.
    missing: Vec<(&'static str, String)>,
    /// Whether one of the table's keys is a secret. An unknown key may then be that key misspelt,
    /// so its value is hidden too.
    hides: bool,
}

impl<'a> Section<'a> {
    pub(super) fn new(title: impl Into<String>, table: &'a DeTable<'a>, at: Range<usize>) -> Self {
        let (title, known) = (title.into(), Vec::new());
        Self {
            title,
            table,
            at,
            known,
            missing: Vec::new(),
            hides: false,
        }
    }

    /// Whether the table has the key, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// Returns the value of a key, which stays unknown.
    pub(super) fn peek(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let found = self.table.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| value)
    }

    /// Returns the value of a key and marks the key as known.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.peek(key)
    }

    /// Reads a setting from `key` of this table into `settings`; messages call it `name`. Returns
    /// the value's range if it is valid. A secret is hidden even if it is not valid.
    pub(super) fn put(
        &mut self,
        key: &'static str,
        name: &str,
        setting: &Setting,
        settings: &mut Settings,
        findings: &mut Findings,
    ) -> Option<Range<usize>> {
        let secret = (setting.secret)();
        self.hides |= secret;
        let value = self.get(key)?;
        let read = (setting.put)(settings, &raw(value.get_ref()));
        // A valid table names the secret's source, such as a file: that may be shown.
        if secret && (read.is_err() || value.get_ref().as_table().is_none()) {
            findings.secrets.push(value.span());
        }
        match read {
            Ok(()) => Some(value.span()),
            Err(why) => {
                let message = format!("`{name}`: {why}");
                findings.error(value.span(), message, (setting.describe)());
                None
            }
        }
    }

    /// Reads an optional key. A value of the wrong kind is reported and returns `None`.
    pub(super) fn read<K: Kind>(
        &mut self,
        key: &'static str,
        kind: &K,
        findings: &mut Findings,
    ) -> Option<Placed<K::Value>> {
        let value = self.get(key)?;
        match kind.read(&raw(value.get_ref())) {
            Ok(read) => Some(Placed::new(read, value.span())),
            Err(why) => {
                findings.error(value.span(), format!("`{key}`: {why}"), kind.describe());
                None
            }
        }
    }

    /// Reads a required key. If it is missing, [`Self::finish`] reports that and suggests
    /// `example`.
    pub(super) fn required<K: Kind>(
        &mut self,
        key: &'static str,
        kind: &K,
        example: &str,
        findings: &mut Findings,
    ) -> Option<Placed<K::Value>> {
        if !self.has(key) {
            self.missing.push((key, example.to_owned()));
        }
        self.read(key, kind, findings)
    }

    /// Opens an inner table; messages call it `title`.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        title: &str,
        findings: &mut Findings,
    ) -> Option<Section<'a>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{key}` is a {}, not a table", value.get_ref().type_str());
            findings.error(
                value.span(),
                message,
                format!("write `{title}` on a line of its own"),
            );
            return None;
        };
        Some(Section::new(title, table, value.span()))
    }

    /// Every key with its range and value, for tables with keys of the user's choice.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a str, Range<usize>, &'a Spanned<DeValue<'a>>)> {
        let entry = |(name, value): (&'a Spanned<_>, &'a Spanned<_>)| {
            let text: &'a std::borrow::Cow<'a, str> = name.get_ref();
            (&**text, name.span(), value)
        };
        self.table.iter().map(entry)
    }

    /// Reports every key that was not read as unknown, and every required key that is missing.
    /// Returns whether all keys are known. `elsewhere` names the right table for a key that belongs
    /// to another one.
    pub(super) fn finish(
        self,
        elsewhere: fn(&str) -> Option<String>,
        findings: &mut Findings,
    ) -> bool {
        let mut all_known = true;
        let mut missing = self.missing.clone();
        for (name, at, value) in self
            .entries()
            .filter(|(name, ..)| !self.known.contains(name))
        {
            all_known = false;
            if self.hides {
                findings.secrets.push(value.span());
            }
            let place = match self.title.as_str() {
                "" => "at the top of the file".to_owned(),
                title => format!("in {title}"),
            };
            // If the key belongs to another table, it is misplaced, not misspelt: say that first.
            let meant = nearest(name, self.known.iter().copied());
            // The required key is there, misspelt: that is one mistake.
            missing.retain(|(key, _)| Some(*key) != meant);
            let help = match (elsewhere(name), meant, self.known.as_slice()) {
                (Some(place), ..) => place,
                (None, Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, None, []) => "remove it".into(),
                (None, None, known) => format!("known keys: {}", known.join(", ")),
            };
            findings.error(at, format!("unknown key `{name}` {place}"), help);
        }
        for (key, example) in missing {
            let message = format!("{} has no `{key}`", self.title);
            findings.error(self.at.clone(), message, format!("add `{key} = {example}`"));
        }
        all_known
    }
}

/// Copies a TOML value without its byte ranges.
pub(super) fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Raw::Integer(n),
            Err(_) => Raw::Other("number beyond 64 bits"),
        },
        DeValue::Boolean(b) => Raw::Bool(*b),
        DeValue::Array(list) => Raw::List(list.iter().map(|it| raw(it.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("number with a point"),
        DeValue::Datetime(_) => Raw::Other("date"),
        DeValue::Table(table) => {
            let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                (name.to_string(), raw(value.get_ref()))
            };
            Raw::Table(table.iter().map(entry).collect())
        }
    }
}

/// Byte range in the file of a part of a string. A string with escapes differs from its source
/// text, so then the range is that of the whole string.
pub(super) fn part_of(
    source: &str,
    whole: &Range<usize>,
    text: &str,
    part: &Range<usize>,
) -> Range<usize> {
    let inner = whole.start + 1..whole.end.saturating_sub(1);
    match source.get(inner.clone()) {
        Some(found) if found == text => inner.start + part.start..inner.start + part.end,
        _ => whole.clone(),
    }
}
