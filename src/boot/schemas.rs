//! The schema files that the config names. They are read once, before anything is bound. A schema
//! that cannot be used stops the start; its route is never served unchecked.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use super::BootError;
use crate::config::{CommandRoute, Config, SchemaFile};
use crate::schema::{BodySchema, SCHEMA_BYTES_MAX, Schemas};

/// Every schema of the config, compiled.
pub(super) fn all(config: &Config) -> Result<Schemas, BootError> {
    let mut schemas = Schemas::default();
    for (route, file) in files(config) {
        schemas.insert(file.path.clone(), compile(route, file)?);
    }
    Ok(schemas)
}

/// Every schema file that cannot be used.
pub(super) fn refusals(config: &Config) -> Vec<BootError> {
    let each = files(config).map(|(route, file)| compile(route, file));
    each.filter_map(Result::err).collect()
}

/// Each file once, with the first route that names it.
fn files(config: &Config) -> impl Iterator<Item = (&CommandRoute, &SchemaFile)> {
    let mut seen = BTreeSet::new();
    let all = config.commands.iter();
    let all = all.filter_map(|route| Some((route, route.schema.as_ref()?)));
    all.filter(move |(_, file)| seen.insert(&file.path))
}

fn compile(route: &CommandRoute, file: &SchemaFile) -> Result<BodySchema, BootError> {
    let refused = |why: String, help: &'static str| BootError::Schema {
        route: route.name.clone(),
        path: file.path.display().to_string(),
        why,
        help,
        at: file.at.clone(),
    };
    let text = read(&file.path).map_err(|error| {
        let help = "correct the path, which is relative to the config file, or let this process \
                    read it";
        refused(error.to_string(), help)
    })?;
    BodySchema::compile(&text).map_err(|error| refused(error.to_string(), error.help()))
}

/// Reads a file, and one byte over the limit if it has more.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut text = Vec::new();
    file.take(SCHEMA_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}
