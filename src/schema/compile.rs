//! A schema file as a validator.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ReferencingError, ValidationError, Validator};
use serde_json::Value;

use super::meter::{Meter, Metered, MeteredValue, is_void};
use super::{Effort, VIOLATIONS_MAX, Verdict, Violation, tree};

/// Longest schema file in bytes.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Most bytes of a compiled pattern, and of its cache of states. A larger pattern could take
/// microseconds per byte of a string.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// The drafts that a schema may have, by what its `$schema` says. The first is the default.
const DRAFTS: [(&str, Draft); 3] = [
    (
        "https://json-schema.org/draft/2020-12/schema",
        Draft::Draft202012,
    ),
    (
        "https://json-schema.org/draft/2019-09/schema",
        Draft::Draft201909,
    ),
    ("http://json-schema.org/draft-07/schema", Draft::Draft7),
];

/// Why a file is not a schema that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The file is over [`SCHEMA_BYTES_MAX`].
    #[error("it has more than {SCHEMA_BYTES_MAX} bytes")]
    TooLarge,
    /// The file is not JSON. The text says where.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// Its `$schema` names another draft.
    #[error("`$schema` names `{0}`")]
    Draft(String),
    /// A reference leads out of the file.
    #[error("a reference leads to `{0}`, and nothing is fetched")]
    Remote(String),
    /// The schema breaks the rules of its draft, or a reference leads nowhere.
    #[error("at `{pointer}`: {why}")]
    Invalid {
        /// The JSON pointer of the place in the file.
        pointer: String,
        /// What is wrong there.
        why: String,
    },
}

impl SchemaError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::TooLarge => "split the route, or describe less",
            Self::NotJson(_) => "a schema is one JSON document; a name may be in an object once",
            Self::Draft(_) => {
                "use https://json-schema.org/draft/2020-12/schema, \
                 https://json-schema.org/draft/2019-09/schema or \
                 http://json-schema.org/draft-07/schema#"
            }
            Self::Remote(_) => "copy that schema into `$defs` of this file, with its `$id`",
            Self::Invalid { .. } => {
                "correct the schema; patterns have no look-around and no back-references"
            }
        }
    }
}

/// A compiled schema of request bodies.
pub struct BodySchema {
    validator: Validator<Metered>,
}

const _: () = {
    const fn shared_by_shards<T: Send + Sync>() {}
    shared_by_shards::<BodySchema>();
};

impl BodySchema {
    /// Compiles the text of a schema file.
    ///
    /// # Errors
    /// The text is not a schema, or needs another file.
    pub fn compile(text: &[u8]) -> Result<Self, SchemaError> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooLarge);
        }
        let schema = tree::read(text).map_err(SchemaError::NotJson)?;
        // The `regex` engine takes a time that is linear in the text, whatever the pattern.
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let options = jsonschema::options_for::<Metered>()
            .with_draft(draft(&schema)?)
            .with_pattern_options(patterns)
            .offline();
        let validator = options.build(&schema).map_err(|error| refuse(&error))?;
        Ok(Self { validator })
    }

    /// Checks a body.
    #[must_use]
    pub fn check(&self, body: &[u8], effort: Effort) -> Verdict {
        let value = match tree::read(body) {
            Ok(value) => value,
            Err(why) => return Verdict::NotJson(why),
        };
        let meter = Meter::new(effort);
        let is_valid = self.validator.is_valid(MeteredValue::new(&value, &meter));
        match (meter.is_spent(), is_valid) {
            (true, _) => Verdict::Unfinished,
            (false, true) => Verdict::Valid,
            (false, false) => self.violations(&value, effort),
        }
    }

    /// The first violations of a body that is known to be invalid.
    fn violations(&self, value: &Value, effort: Effort) -> Verdict {
        let meter = Meter::new(effort);
        let errors = self.validator.iter_errors(MeteredValue::new(value, &meter));
        let known = errors.filter(|error| !is_void(error));
        let mut violations: Vec<_> = known
            .take(VIOLATIONS_MAX)
            .map(|error| Violation::of(&error))
            .collect();
        // If the limit was reached first, other violations may be missing, but these are true.
        if meter.is_spent() && violations.len() < VIOLATIONS_MAX && effort == Effort::IN_TURN {
            return Verdict::Unfinished;
        }
        if violations.is_empty() {
            violations.push(Violation::of_all());
        }
        Verdict::Invalid(violations)
    }
}

impl fmt::Debug for BodySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodySchema")
    }
}

fn draft(schema: &Value) -> Result<Draft, SchemaError> {
    let Some(named) = schema.get("$schema") else {
        return Ok(DRAFTS[0].1);
    };
    let named = named.as_str().unwrap_or_default();
    let plain = named.strip_suffix('#').unwrap_or(named);
    let found = DRAFTS.iter().find(|(uri, _)| *uri == plain);
    let found = found.map(|(_, draft)| *draft);
    found.ok_or_else(|| SchemaError::Draft(named.to_owned()))
}

fn refuse(error: &ValidationError<'_>) -> SchemaError {
    if let ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) =
        error.kind()
    {
        return SchemaError::Remote(uri.clone());
    }
    SchemaError::Invalid {
        pointer: error.instance_path().to_string(),
        why: error.masked().to_string(),
    }
}
