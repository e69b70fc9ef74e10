//! Where each setting's value came from.

use std::ops::Range;

use super::settings::TABLE;

/// Where one setting's value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The default, because no source sets it.
    #[default]
    Default,
    /// The config file sets the value.
    File {
        /// Byte range of the value in the file.
        at: Range<usize>,
        /// Line of the value, counted from 1.
        line: usize,
    },
    /// A `SLUICEGATE_*` variable sets the value.
    Environment,
    /// A flag of the command line sets the value.
    Flag,
}

/// The origin of every setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// One origin per setting, in the order of [`TABLE`].
    each: Vec<Origin>,
    /// Keys of settings that were given an invalid value, and of tables with unknown keys.
    unread: Vec<String>,
}

impl Default for Origins {
    fn default() -> Self {
        let each = vec![Origin::Default; TABLE.len()];
        Self {
            each,
            unread: Vec::new(),
        }
    }
}

impl Origins {
    pub(super) fn set(&mut self, index: usize, origin: Origin) {
        self.each[index] = origin;
    }

    /// Records that the setting `key` has an invalid value, or the table `key` an unknown key.
    pub(super) fn on_unread(&mut self, key: &str) {
        self.unread.push(key.to_owned());
    }

    /// Whether every given value of a table is valid and every key of it known.
    pub(super) fn is_read(&self, table: &str) -> bool {
        let within = |key: &String| {
            let rest = key.strip_prefix(table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.unread.iter().any(within)
    }

    /// The origin of the setting at `index` of [`TABLE`].
    ///
    /// # Panics
    /// `index` is beyond the end of `TABLE`.
    #[must_use]
    pub fn of(&self, index: usize) -> &Origin {
        &self.each[index]
    }

    /// Whether no source sets the setting `key`, so that it has its default.
    ///
    /// # Panics
    /// No setting has this key.
    #[must_use]
    pub fn is_default(&self, key: &str) -> bool {
        *self.by_key(key).1 == Origin::Default
    }

    fn by_key(&self, key: &str) -> (usize, &Origin) {
        let index = TABLE.iter().position(|it| it.key == key);
        let index = index.expect("keys are written as the table has them");
        (index, &self.each[index])
    }

    /// Byte range for a finding about `key`, if the file sets its value.
    pub(super) fn at(&self, key: &str) -> Option<Range<usize>> {
        match self.by_key(key).1 {
            Origin::File { at, .. } => Some(at.clone()),
            _ => None,
        }
    }

    /// Byte range of the value of `key`, if it is the key of a setting and the file sets its value.
    pub(super) fn at_key(&self, key: &str) -> Option<Range<usize>> {
        let is_known = TABLE.iter().any(|it| it.key == key);
        is_known.then(|| self.at(key)).flatten()
    }

    /// The setting's name for messages, in the form it was set by: key, variable or flag.
    pub(super) fn name(&self, key: &str) -> String {
        let (index, origin) = self.by_key(key);
        match origin {
            Origin::Default | Origin::File { .. } => format!("`{key}`"),
            Origin::Environment => format!("`{}`", TABLE[index].variable()),
            Origin::Flag => format!("`--{}`", TABLE[index].flag()),
        }
    }
}
