//! The schemas of a config.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::BodySchema;

/// Compiled schemas by the path that the config names. Routes with the same path share one.
#[derive(Clone, Debug, Default)]
pub struct Schemas(BTreeMap<PathBuf, Arc<BodySchema>>);

impl Schemas {
    /// Adds the schema of a file.
    pub fn insert(&mut self, path: PathBuf, schema: BodySchema) {
        self.0.insert(path, Arc::new(schema));
    }

    /// The schema of a file. `None` if none was added.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Arc<BodySchema>> {
        self.0.get(path)
    }
}
