//! Where each setting's value came from.

use std::ops::Range;

use super::settings::TABLE;

/// Where one value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// The file.
    File {
        /// Bytes of the value in the file.
        at: Range<usize>,
        /// Its line, from 1.
        line: usize,
    },
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// One origin a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// In the order of [`TABLE`].
    each: Vec<Origin>,
    /// Settings that were said and could not be read, and tables with keys that nobody knows.
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

    /// Something in a table, or the setting of that key, could not be read.
    pub(super) fn on_unread(&mut self, key: &str) {
        self.unread.push(key.to_owned());
    }

    /// Whether all that was said in a table was read.
    pub(super) fn is_read(&self, table: &str) -> bool {
        let within = |key: &String| {
            let rest = key.strip_prefix(table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.unread.iter().any(within)
    }

    /// The origin of the setting at this place of [`TABLE`].
    ///
    /// # Panics
    /// `TABLE` has no such place.
    #[must_use]
    pub fn of(&self, index: usize) -> &Origin {
        &self.each[index]
    }

    fn by_key(&self, key: &str) -> (usize, &Origin) {
        let index = TABLE.iter().position(|it| it.key == key);
        let index = index.expect("keys are written as the table has them");
        (index, &self.each[index])
    }

    /// Where a finding about `key` points to, if its value is from the file.
    pub(super) fn at(&self, key: &str) -> Option<Range<usize>> {
        match self.by_key(key).1 {
            Origin::File { at, .. } => Some(at.clone()),
            _ => None,
        }
    }

    /// How a message calls the setting: by the name it was set with.
    pub(super) fn name(&self, key: &str) -> String {
        let (index, origin) = self.by_key(key);
        match origin {
            Origin::Default | Origin::File { .. } => format!("`{key}`"),
            Origin::Environment => format!("`{}`", TABLE[index].variable()),
            Origin::Flag => format!("`--{}`", TABLE[index].flag()),
        }
    }
}
