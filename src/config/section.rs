//! A table of the file while it is read: each key is asked for once by name, and what nobody asked
//! for is unknown. So the list of known keys is the reading itself.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::{Findings, nearest};
use super::kind::{Kind, Raw};
use super::settings::{Setting, Settings};

/// A value and where it stands in the file.
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
    /// As messages call it: `[kafka]`, `[[command]]`; empty for the top of the file.
    title: String,
    table: &'a DeTable<'a>,
    /// Where it stands.
    pub(super) at: Range<usize>,
    known: Vec<&'static str>,
    /// One of its keys is a secret, so what is unknown may be one, misspelt.
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
            hides: false,
        }
    }

    /// Whether a key is there, whatever stands behind it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// The value of a key, which is known from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        let found = self.table.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| value)
    }

    /// Reads the setting that stands under `key` here, where `name` is what messages call it; gives
    /// its place if that went well. A secret is hidden, however it went.
    pub(super) fn put(
        &mut self,
        (key, name): (&'static str, &str),
        setting: &Setting,
        settings: &mut Settings,
        findings: &mut Findings,
    ) -> Option<Range<usize>> {
        let secret = (setting.secret)();
        self.hides |= secret;
        let value = self.get(key)?;
        let read = (setting.put)(settings, &raw(value.get_ref()));
        // Where a secret is may be seen, if it is that.
        if secret && (read.is_err() || value.get_ref().as_table().is_none()) {
            findings.secrets.push(value.span());
        }
        match read {
            Ok(()) => Some(value.span()),
            Err(why) => {
                let message = format!("`{name}`: {why}");
                findings.error(value.span(), message, (setting.says)());
                None
            }
        }
    }

    /// The key's value, if it is there and of its kind; if it is there and is not, that is found.
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
                findings.error(value.span(), format!("`{key}`: {why}"), kind.says());
                None
            }
        }
    }

    /// As `read`, and a missing key is found too, with `example` as what to write.
    pub(super) fn required<K: Kind>(
        &mut self,
        key: &'static str,
        kind: &K,
        example: &str,
        findings: &mut Findings,
    ) -> Option<Placed<K::Value>> {
        if !self.has(key) {
            let message = format!("{} has no `{key}`", self.title);
            findings.error(self.at.clone(), message, format!("add `{key} = {example}`"));
        }
        self.read(key, kind, findings)
    }

    /// A table below this one.
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

    /// Every key with its place, for tables whose keys are the user's.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a str, Range<usize>, &'a Spanned<DeValue<'a>>)> {
        let entry = |(name, value): (&'a Spanned<_>, &'a Spanned<_>)| {
            let text: &'a std::borrow::Cow<'a, str> = name.get_ref();
            (&**text, name.span(), value)
        };
        self.table.iter().map(entry)
    }

    /// What nobody asked for is unknown. `elsewhere` knows where a key stands that is not ours.
    /// True: there was no such key.
    pub(super) fn finish(
        self,
        elsewhere: fn(&str) -> Option<String>,
        findings: &mut Findings,
    ) -> bool {
        let mut all_known = true;
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
            // A name that is right elsewhere is no typing error.
            let meant = || nearest(name, self.known.iter().copied());
            let help = match (elsewhere(name), meant(), self.known.as_slice()) {
                (Some(place), ..) => place,
                (None, Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, None, []) => "remove it".into(),
                (None, None, known) => format!("known here: {}", known.join(", ")),
            };
            findings.error(at, format!("unknown key `{name}` {place}"), help);
        }
        all_known
    }
}

/// A value without its places.
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

/// Where a part of a string stands in the file: exact if the string stands there as it reads, the
/// whole string if it has escapes.
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
