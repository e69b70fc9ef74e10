//! A topic's configuration: Kafka's keys and defaults, and those that this broker acts on.

use crate::model::index_of;
use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::Refusal;

/// The values that a key accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Boolean,
    Word(&'static [&'static str]),
    Int { min: i64 },
    Long { min: i64 },
    Double,
    Words(&'static [&'static str]),
}

impl Kind {
    /// The `config_type` that DescribeConfigs reports for the key.
    pub(super) const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Word(_) => 2,
            Self::Int { .. } => 3,
            Self::Long { .. } => 5,
            Self::Double => 6,
            Self::Words(_) => 7,
        }
    }

    fn accepts(self, value: &str) -> bool {
        let number = value.parse::<i64>().ok();
        match self {
            Self::Boolean => matches!(value, "true" | "false"),
            Self::Word(words) => words.contains(&value),
            Self::Int { min } => number.is_some_and(|n| n >= min && n <= i64::from(i32::MAX)),
            Self::Long { min } => number.is_some_and(|n| n >= min),
            Self::Double => value.parse::<f64>().is_ok_and(|d| (0.0..=1.0).contains(&d)),
            Self::Words(words) => split(value).all(|word| words.contains(&word)),
        }
    }
}

/// A key: its name, Kafka 4.3's default, the values it accepts.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
}

const fn key(name: &'static str, default: &'static str, kind: Kind) -> Key {
    Key {
        name,
        default,
        kind,
    }
}

const ANY: Kind = Kind::Long { min: i64::MIN };
const FROM_MINUS_ONE: Kind = Kind::Long { min: -1 };
const FROM_ZERO: Kind = Kind::Long { min: 0 };

/// The topic keys of Kafka 4.3 that make sense here, by name. The broker acts on `cleanup.policy`,
/// `delete.retention.ms`, `max.message.bytes`, `message.timestamp.*`, `min.*` and `retention.*`. It
/// stores and describes the others. Batches are stored as they came, so `compression.type` has one
/// value.
pub(super) const KEYS: &[Key] = &[
    key(
        "cleanup.policy",
        "delete",
        Kind::Words(&["compact", "delete"]),
    ),
    key("compression.type", "producer", Kind::Word(&["producer"])),
    key("delete.retention.ms", "86400000", FROM_ZERO),
    key("file.delete.delay.ms", "60000", FROM_ZERO),
    key(
        "flush.messages",
        "9223372036854775807",
        Kind::Long { min: 1 },
    ),
    key("flush.ms", "9223372036854775807", FROM_ZERO),
    key("index.interval.bytes", "4096", Kind::Int { min: 0 }),
    key(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Kind::Long { min: 1 },
    ),
    key("max.message.bytes", "1048588", Kind::Int { min: 0 }),
    key("message.timestamp.after.max.ms", "3600000", FROM_ZERO),
    key(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        FROM_ZERO,
    ),
    key(
        "message.timestamp.type",
        "CreateTime",
        Kind::Word(&["CreateTime", "LogAppendTime"]),
    ),
    key("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    key("min.compaction.lag.ms", "0", FROM_ZERO),
    key("min.insync.replicas", "1", Kind::Int { min: 1 }),
    key("preallocate", "false", Kind::Boolean),
    key("retention.bytes", "-1", ANY),
    key("retention.ms", "604800000", FROM_MINUS_ONE),
    key("segment.bytes", "1073741824", Kind::Int { min: 14 }),
    key("segment.index.bytes", "10485760", Kind::Int { min: 4 }),
    key("segment.jitter.ms", "0", FROM_ZERO),
    key("segment.ms", "604800000", Kind::Long { min: 1 }),
    key("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// The keys that a topic sets, and the values of those that the broker acts on.
#[derive(Clone, Debug)]
pub(super) struct TopicConfig {
    set: BTreeMap<&'static str, String>,
    pub compact: bool,
    pub delete: bool,
    pub delete_retention_ms: i64,
    pub message_bytes_max: usize,
    pub log_append_time: bool,
    pub after_max_ms: i64,
    pub before_max_ms: i64,
    pub dirty_ratio_min: f64,
    pub compaction_lag_min_ms: i64,
    pub insync_min: usize,
    pub retention_bytes: i64,
    pub retention_ms: i64,
}

/// Kafka's defaults, with no key set.
impl Default for TopicConfig {
    fn default() -> Self {
        Self::read(BTreeMap::new())
    }
}

impl TopicConfig {
    /// Reads a configuration from the keys that are set.
    ///
    /// # Errors
    /// INVALID_CONFIG for a key that Kafka does not have or a value that it does not accept.
    pub(super) fn new<'a>(
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refusal> {
        let mut set = BTreeMap::new();
        for (name, value) in entries {
            let key = find(name)?;
            if !key.kind.accepts(value) {
                let text = format!("Invalid value {value} for configuration {name}");
                return Err(Refusal::new(ResponseError::InvalidConfig, text));
            }
            set.insert(key.name, value.to_owned());
        }
        Ok(Self::read(set))
    }

    fn read(set: BTreeMap<&'static str, String>) -> Self {
        let text = |name: &str| -> String {
            let key = find(name).expect("named below, listed above");
            set.get(key.name)
                .map_or(key.default, String::as_str)
                .to_owned()
        };
        let number = |name: &str| text(name).parse::<i64>().expect("the kind was checked");
        let policy = text("cleanup.policy");
        let ratio = text("min.cleanable.dirty.ratio");
        Self {
            compact: split(&policy).any(|word| word == "compact"),
            delete: split(&policy).any(|word| word == "delete"),
            delete_retention_ms: number("delete.retention.ms"),
            message_bytes_max: index_of(number("max.message.bytes").cast_unsigned()),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            after_max_ms: number("message.timestamp.after.max.ms"),
            before_max_ms: number("message.timestamp.before.max.ms"),
            dirty_ratio_min: ratio.parse().expect("the kind was checked"),
            compaction_lag_min_ms: number("min.compaction.lag.ms"),
            insync_min: index_of(number("min.insync.replicas").cast_unsigned()),
            retention_bytes: number("retention.bytes"),
            retention_ms: number("retention.ms"),
            set,
        }
    }

    /// The value of `key`, and whether the topic sets it.
    pub(super) fn value(&self, key: &Key) -> (&str, bool) {
        match self.set.get(key.name) {
            Some(value) => (value, true),
            None => (key.default, false),
        }
    }

    /// The keys that the topic sets, with their values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// A copy with one key set or, with `None`, reset to its default.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn with(&self, name: &str, value: Option<&str>) -> Result<Self, Refusal> {
        find(name)?;
        let others = self.entries().filter(|(other, _)| *other != name);
        Self::new(others.chain(value.map(|value| (name, value))))
    }

    /// A copy with words added to the list of `name`, or removed from it.
    pub(super) fn with_words(&self, name: &str, words: &str, add: bool) -> Result<Self, Refusal> {
        let key = find(name)?;
        if !matches!(key.kind, Kind::Words(_)) {
            let text = format!("Config value append is not allowed for config key: {name}");
            return Err(Refusal::new(ResponseError::InvalidConfig, text));
        }
        let (old, _) = self.value(key);
        let mut list: Vec<&str> = split(old).collect();
        for word in split(words) {
            list.retain(|w| *w != word);
            if add {
                list.push(word);
            }
        }
        self.with(name, Some(&list.join(",")))
    }
}

fn find(name: &str) -> Result<&'static Key, Refusal> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        let text = format!("Unknown topic config name: {name}");
        Refusal::new(ResponseError::InvalidConfig, text)
    })
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for key in KEYS {
            assert!(key.kind.accepts(key.default), "{}", key.name);
        }
        assert!(KEYS.is_sorted_by_key(|key| key.name));
    }

    #[test]
    fn words_are_added_and_taken_away() {
        let config = TopicConfig::new([]).expect("nothing set");
        let both = config
            .with_words("cleanup.policy", "compact", true)
            .expect("a list");
        assert!(both.compact && both.delete);
        let one = both
            .with_words("cleanup.policy", "delete", false)
            .expect("a list");
        assert!(one.compact && !one.delete);
        assert!(config.with("retention.hours", None).is_err());
        assert!(config.with("retention.ms", Some("-2")).is_err());
    }
}
