//! Kinds of setting: how a value is parsed, which bounds it has, and how it is printed.
//!
//! Sizes and durations, which carry units, are in `unit.rs`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use crate::model::Secret;

/// A value before it is parsed as a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Text of a flag or a variable, from which every kind can be parsed.
    Word(String),
    /// A TOML string of the file.
    Text(String),
    /// A TOML integer of the file.
    Integer(i64),
    /// A TOML boolean of the file.
    Bool(bool),
    /// A TOML array of the file.
    List(Vec<Raw>),
    /// A TOML table of the file.
    Table(Vec<(String, Raw)>),
    /// Any other TOML value, such as a date, by the name of its type.
    Other(&'static str),
}

impl Raw {
    fn describe(&self) -> String {
        match self {
            Self::Word(text) | Self::Text(text) => format!("`{text}`"),
            Self::Integer(n) => format!("the number {n}"),
            Self::Bool(b) => format!("`{b}`"),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
            Self::Other(what) => format!("a {what}"),
        }
    }

    pub(super) fn text(&self, wanted: &str) -> Result<&str, String> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            other => Err(format!("expected {wanted}, found {}", other.describe())),
        }
    }
}

/// How one kind of value is parsed and printed. Parsing what `show` returns gives the same value.
pub trait Kind {
    /// The type of a parsed value.
    type Value;
    /// Parses a value. The error is a sentence that says what to write instead.
    ///
    /// # Errors
    /// The value is of another kind or out of bounds.
    fn read(&self, raw: &Raw) -> Result<Self::Value, String>;
    /// Prints a value as the file has it, without quotes.
    fn show(&self, value: &Self::Value) -> String;
    /// What values are allowed, for help and documentation: "64KiB to 16GiB".
    fn describe(&self) -> String;
    /// Whether values are secret. A secret has no flag, because every user of the machine can read
    /// the arguments of a process.
    fn is_secret(&self) -> bool {
        false
    }
}

/// An integer within these bounds.
pub struct Count<T>(pub RangeInclusive<T>);
/// A boolean: `true` or `false`.
pub struct Switch;
/// Text without control characters, of 1 to this many bytes.
pub struct Text(pub usize);
/// IP address and port: `127.0.0.1:8080`.
pub struct Address;
/// A path of the file system, which need not exist.
pub struct FilePath;
/// `host:port` of a Kafka broker.
pub struct Broker;
/// CPU numbers and ranges: `0-3,8`.
pub struct Cpus;
/// A secret, or where to find it.
pub struct SecretText;
/// One of a few words, upper or lower case.
pub struct OneOf<T: 'static>(pub &'static [(&'static str, T)]);
/// One of a few numbers, such as statuses.
pub struct OneOfNumbers<T: 'static>(pub &'static [(i64, T)]);
/// A list of at most this many values of a kind. Flags repeat or use commas; variables use commas.
pub struct ListOf<K>(pub K, pub usize);
/// An optional value. `none` unsets it, and the text says what the gateway does then.
pub struct Maybe<K>(pub K, pub &'static str);

impl<T: Copy + PartialOrd + Display + FromStr + TryFrom<i64>> Kind for Count<T> {
    type Value = T;

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let number = match raw {
            Raw::Integer(n) => T::try_from(*n).ok(),
            Raw::Word(text) => text.parse().ok(),
            Raw::Text(text) if text.parse::<i64>().is_ok() => {
                return Err(format!("write {text} without quotes"));
            }
            _ => None,
        };
        match number {
            Some(n) => within(self, n, &self.0),
            None => Err(format!("expected a number, found {}", raw.describe())),
        }
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        format!("{} to {}", self.0.start(), self.0.end())
    }
}

impl Kind for Switch {
    type Value = bool;

    fn read(&self, raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Bool(b) => Ok(*b),
            Raw::Word(text) if text == "true" => Ok(true),
            Raw::Word(text) if text == "false" => Ok(false),
            other => Err(format!(
                "expected true or false, found {}",
                other.describe()
            )),
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "true or false".into()
    }
}

impl Kind for Text {
    type Value = String;

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text("a string")?;
        let plain = !text.chars().any(char::is_control);
        if text.is_empty() {
            Err("it is empty".into())
        } else if plain && text.len() <= self.0 {
            Ok(text.to_owned())
        } else {
            Err("it is too long, or has control characters".into())
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn describe(&self) -> String {
        format!("text of 1 to {} bytes, no control characters", self.0)
    }
}

impl Kind for Address {
    type Value = SocketAddr;

    fn read(&self, raw: &Raw) -> Result<SocketAddr, String> {
        let text = raw.text("an address such as \"127.0.0.1:8080\"")?;
        let port_only = text.strip_prefix(':').unwrap_or(text);
        text.parse().map_err(|_| match port_only.parse::<u16>() {
            Ok(port) => {
                format!("`{text}` has no address: \"127.0.0.1:{port}\" or \"0.0.0.0:{port}\"?")
            }
            Err(_) => format!("`{text}` is not an IP address and a port"),
        })
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "ip:port such as 127.0.0.1:8080 or [::]:8080; port 0 takes any free one".into()
    }
}

impl Kind for FilePath {
    type Value = PathBuf;

    fn read(&self, raw: &Raw) -> Result<PathBuf, String> {
        match raw.text("a path")? {
            "" => Err("the path is empty".into()),
            text => Ok(text.into()),
        }
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn describe(&self) -> String {
        "a path".into()
    }
}

/// Host and port of a Kafka broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// Host name or IP address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port of the broker, never zero.
    pub port: u16,
}

impl BrokerAddress {
    /// The address that Kafka listens on by default.
    pub(super) fn local() -> Self {
        let host = "localhost".into();
        Self { host, port: 9092 }
    }
}

impl Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Kind for Broker {
    type Value = BrokerAddress;

    fn read(&self, raw: &Raw) -> Result<BrokerAddress, String> {
        let text = raw.text("a broker such as \"localhost:9092\"")?;
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(format!("a broker has no `{scheme}://`: write \"{rest}\""));
        }
        if text.contains(',') {
            let each: Vec<_> = text.split(',').map(str::trim).collect();
            let each = each.join("\", \"");
            return Err(format!("several brokers are a list: [\"{each}\"]"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("`{text}` has no port: \"{text}:9092\"?"));
        };
        let Some(port) = port.parse().ok().filter(|port| *port > 0) else {
            return Err(format!("`{port}` is not a port from 1 to 65535"));
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(format!(
                "write an IPv6 address in brackets: \"[{host}]:{port}\""
            ));
        }
        let host = bare.unwrap_or(host);
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(legal) {
            return Err(format!("`{host}` is not a host name or an IP address"));
        }
        let host = host.to_owned();
        Ok(BrokerAddress { host, port })
    }

    fn show(&self, value: &BrokerAddress) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "host:port".into()
    }
}

/// Highest number of CPUs that can be pinned to: `cpu_set_t` holds 1024.
const CPUS_MAX: usize = 1024;

impl Kind for Cpus {
    type Value = Vec<usize>;

    fn read(&self, raw: &Raw) -> Result<Vec<usize>, String> {
        let text = raw.text("CPUs such as \"0-3,8\"")?;
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
                (Ok(from), Ok(to)) if from <= to && to < CPUS_MAX => cpus.extend(from..=to),
                _ => return Err(format!("`{part}` is no CPU and no range of them")),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(cpus)
    }

    fn show(&self, value: &Vec<usize>) -> String {
        let numbers: Vec<_> = value.iter().map(usize::to_string).collect();
        numbers.join(",")
    }

    fn describe(&self) -> String {
        format!("numbers and ranges such as 0-3,8, below {CPUS_MAX}")
    }
}

/// Longest secret in bytes, whether in the config or in a file.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// A secret, or where to find it when the process starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The secret is in the config itself.
    Here(Secret),
    /// The name of the environment variable that holds the secret.
    Env(String),
    /// The path of the file that holds the secret. Line breaks at its end are removed.
    File(PathBuf),
    /// The name of a systemd credential: a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl Kind for SecretText {
    type Value = SecretSource;

    fn read(&self, raw: &Raw) -> Result<SecretSource, String> {
        const FORMS: &str =
            "a string, { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";
        let table = match raw {
            Raw::Table(table) => table,
            raw => {
                // Do not quote the value in the error: it may be the secret.
                let text = raw.text(FORMS).map_err(|_| format!("write {FORMS}"))?;
                let fits = (1..=SECRET_BYTES_MAX).contains(&text.len());
                return if fits {
                    Ok(SecretSource::Here(Secret::new(text)))
                } else {
                    Err("it is empty, or too long".into())
                };
            }
        };
        match table.as_slice() {
            [(key, Raw::Text(text))] if !text.is_empty() => match key.as_str() {
                "env" => Ok(SecretSource::Env(text.clone())),
                "file" => Ok(SecretSource::File(text.into())),
                "credential" if !text.contains('/') => Ok(SecretSource::Credential(text.clone())),
                _ => Err(format!("`{key}` does not say where it is: write {FORMS}")),
            },
            _ => Err(format!("write {FORMS}")),
        }
    }

    fn show(&self, value: &SecretSource) -> String {
        match value {
            SecretSource::Here(_) => "[secret]".into(),
            SecretSource::Env(name) => format!("{{ env = \"{name}\" }}"),
            SecretSource::File(path) => format!("{{ file = \"{}\" }}", path.display()),
            SecretSource::Credential(name) => format!("{{ credential = \"{name}\" }}"),
        }
    }

    fn describe(&self) -> String {
        "text, or in the file `{ env = \"NAME\" }`, `{ file = \"PATH\" }`, \
         `{ credential = \"NAME\" }`"
            .into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

impl<T: Copy + PartialEq> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let text = raw.text("a word")?;
        // Kafka writes its mechanisms in capitals (`SCRAM-SHA-256`), so accept both.
        let lower = text.to_ascii_lowercase();
        let found = self.0.iter().find(|(word, _)| *word == lower);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words = self.0.iter().map(|(word, _)| *word);
            let hint = super::diagnose::nearest(&lower, words);
            let hint = hint.map(|word| format!(": did you mean `{word}`?"));
            format!("`{text}` is not a known value{}", hint.unwrap_or_default())
        })
    }

    fn show(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, it)| it == value);
        found.map_or("", |(word, _)| word).to_owned()
    }

    fn describe(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.as_slice() {
            [only] => only.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
            [] => String::new(),
        }
    }
}

impl<T: Copy + PartialEq> Kind for OneOfNumbers<T> {
    type Value = T;

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let bounds = Count(i64::MIN..=i64::MAX);
        let number = bounds.read(raw)?;
        let found = self.0.iter().find(|(known, _)| *known == number);
        let found = found.map(|(_, value)| *value);
        found.ok_or_else(|| format!("expected {}, found {number}", self.describe()))
    }

    fn show(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, it)| it == value);
        found.map_or_else(String::new, |(number, _)| number.to_string())
    }

    fn describe(&self) -> String {
        let numbers: Vec<_> = self
            .0
            .iter()
            .map(|(number, _)| number.to_string())
            .collect();
        numbers.join(" or ")
    }
}

impl<K: Kind> Kind for ListOf<K> {
    type Value = Vec<K::Value>;

    fn read(&self, raw: &Raw) -> Result<Vec<K::Value>, String> {
        let parts: Vec<Raw> = match raw {
            Raw::List(list) => list.clone(),
            Raw::Word(text) if text.is_empty() => vec![],
            Raw::Word(text) => text
                .split(',')
                .map(|w| Raw::Word(w.trim().into()))
                .collect(),
            Raw::Text(text) => {
                let each: Vec<_> = text.split(',').map(str::trim).collect();
                let each = each.join("\", \"");
                return Err(format!("write a list in brackets: [\"{each}\"]"));
            }
            other => return Err(format!("expected a list, found {}", other.describe())),
        };
        if parts.len() > self.1 {
            return Err(format!("at most {} entries", self.1));
        }
        parts.iter().map(|part| self.0.read(part)).collect()
    }

    fn show(&self, value: &Vec<K::Value>) -> String {
        let parts: Vec<_> = value.iter().map(|part| self.0.show(part)).collect();
        parts.join(",")
    }

    fn describe(&self) -> String {
        format!("a list of at most {}: {}", self.1, self.0.describe())
    }
}

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, raw: &Raw) -> Result<Self::Value, String> {
        match raw {
            Raw::Word(text) | Raw::Text(text) if text == "none" => Ok(None),
            raw => self.0.read(raw).map(Some),
        }
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or("none".into(), |value| self.0.show(value))
    }

    fn is_secret(&self) -> bool {
        self.0.is_secret()
    }

    fn describe(&self) -> String {
        format!("{}; `none`: {}", self.0.describe(), self.1)
    }
}

pub(super) fn within<K: Kind<Value = T>, T: PartialOrd>(
    kind: &K,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<T, String> {
    if bounds.contains(&value) {
        Ok(value)
    } else {
        Err(format!("{} is out of bounds", kind.show(&value)))
    }
}
