//! Kinds of setting: how a value reads, what it must lie within, how it shows.
//!
//! Durations and sizes carry units everywhere. A bare number is an error that shows both readings,
//! because `timeout = 10` is a question, not an answer.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// 1024 bytes.
pub const KIB: usize = 1024;
/// 1024 KiB.
pub const MIB: usize = 1024 * KIB;
/// 1024 MiB.
pub const GIB: usize = 1024 * MIB;

/// A value before its kind is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// From a flag or the environment: text whatever the kind.
    Word(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Integer(i64),
    /// A boolean of the file.
    Bool(bool),
    /// An array of the file.
    List(Vec<Raw>),
    /// Something else of the file: a table, a date, a float, as the file has it.
    Other(&'static str),
}

impl Raw {
    fn describe(&self) -> String {
        match self {
            Self::Word(text) | Self::Text(text) => format!("`{text}`"),
            Self::Integer(n) => format!("the number {n}"),
            Self::Bool(b) => format!("`{b}`"),
            Self::List(_) => "a list".into(),
            Self::Other(what) => format!("a {what}"),
        }
    }

    fn text(&self, wanted: &str) -> Result<&str, String> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            other => Err(format!("expected {wanted}, found {}", other.describe())),
        }
    }
}

/// How one kind of value is read and shown. `show` of what `read` gave reads the same again.
pub trait Kind {
    /// What the program gets.
    type Value;
    /// Reads a value; the error is a sentence that says what to write instead.
    ///
    /// # Errors
    /// The value is not of this kind or out of its bounds.
    fn read(&self, raw: &Raw) -> Result<Self::Value, String>;
    /// The value as the file would have it, without quotes.
    fn show(&self, value: &Self::Value) -> String;
    /// What is allowed, for the documentation: "64KiB to 16GiB".
    fn says(&self) -> String;
}

/// Bytes, with a unit: `"64KiB"`.
pub struct Size(pub RangeInclusive<usize>);
/// Time, with a unit: `"10s"`.
pub struct Time(pub RangeInclusive<Duration>);
/// A number of things.
pub struct Count<T>(pub RangeInclusive<T>);
/// `true` or `false`.
pub struct Switch;
/// Free text without control characters, of 1 to this many bytes.
pub struct Text(pub usize);
/// `ip:port`.
pub struct Address;
/// A path of the file system.
pub struct FilePath;
/// `host:port` of a Kafka broker.
pub struct Broker;
/// CPU numbers and ranges: `0-3,8`.
pub struct Cpus;
/// One of a few words.
pub struct OneOf<T: 'static>(pub &'static [(&'static str, T)]);
/// At most this many of a kind; repeated or with commas in flags and environment.
pub struct ListOf<K>(pub K, pub usize);
/// May be left out, or set to `none`; then the sentence says what happens.
pub struct Maybe<K>(pub K, pub &'static str);

const SIZES: [(&str, usize); 7] = [
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Kind for Size {
    type Value = usize;

    fn read(&self, raw: &Raw) -> Result<usize, String> {
        let (number, unit) = with_unit(raw, "a size such as \"64KiB\"", "B", "KiB")?;
        let Some(&(_, scale)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let help = "sizes end in B, KiB, MiB, GiB, kB, MB or GB";
            return Err(format!("`{unit}` is not a unit of size: {help}"));
        };
        let bytes = number.saturating_mul(scale as u64);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        within(self, bytes, &self.0)
    }

    fn show(&self, value: &usize) -> String {
        show_size(*value)
    }

    fn says(&self) -> String {
        format!(
            "{} to {}",
            show_size(*self.0.start()),
            show_size(*self.0.end())
        )
    }
}

/// Bytes in the largest binary unit that divides them: `64KiB`.
#[must_use]
pub fn show_size(bytes: usize) -> String {
    let binary = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
    match binary
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
    {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

const TIMES: [(&str, u64); 8] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("µs", 1),
];

impl Kind for Time {
    type Value = Duration;

    fn read(&self, raw: &Raw) -> Result<Duration, String> {
        let (number, unit) = with_unit(raw, "a duration such as \"10s\"", "s", "ms")?;
        let Some(&(_, scale)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            let help = "durations end in us, ms, s, min, h or d";
            return Err(format!("`{unit}` is not a unit of time: {help}"));
        };
        within(
            self,
            Duration::from_micros(number.saturating_mul(scale)),
            &self.0,
        )
    }

    fn show(&self, value: &Duration) -> String {
        show_time(*value)
    }

    fn says(&self) -> String {
        format!(
            "{} to {}",
            show_time(*self.0.start()),
            show_time(*self.0.end())
        )
    }
}

/// A duration in the largest unit that divides it: `10s`.
#[must_use]
pub fn show_time(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let exact = |scale: u64| micros > 0 && micros.is_multiple_of(scale);
    match TIMES.iter().find(|(_, scale)| exact(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", micros / scale),
        None => "0s".into(),
    }
}

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

    fn says(&self) -> String {
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

    fn says(&self) -> String {
        "true or false".into()
    }
}

impl Kind for Text {
    type Value = String;

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text("a string")?;
        let plain = !text.chars().any(char::is_control);
        match plain && (1..=self.0).contains(&text.len()) {
            true => Ok(text.to_owned()),
            false if text.is_empty() => Err("it is empty".into()),
            false => Err("it is too long, or has control characters".into()),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn says(&self) -> String {
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

    fn says(&self) -> String {
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

    fn says(&self) -> String {
        "a path".into()
    }
}

/// Where a broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
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
                "an IPv6 address stands in brackets: \"[{host}]:{port}\""
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

    fn says(&self) -> String {
        "host:port".into()
    }
}

/// CPUs a machine may have, as far as placement goes (`cpu_set_t` holds 1024).
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

    fn says(&self) -> String {
        format!("numbers and ranges such as 0-3,8, below {CPUS_MAX}")
    }
}

impl<T: Copy + PartialEq> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let text = raw.text("a word")?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words = self.0.iter().map(|(word, _)| *word);
            let hint = super::diagnose::nearest(text, words);
            let hint = hint.map(|word| format!(": did you mean `{word}`?"));
            format!("`{text}` is not known here{}", hint.unwrap_or_default())
        })
    }

    fn show(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, it)| it == value);
        found.map_or("", |(word, _)| word).to_owned()
    }

    fn says(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.as_slice() {
            [only] => only.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
            [] => String::new(),
        }
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
            Raw::Text(text) => return Err(format!("a list stands in brackets: [\"{text}\"]")),
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

    fn says(&self) -> String {
        format!("a list of at most {}: {}", self.1, self.0.says())
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

    fn says(&self) -> String {
        format!("{}; `none`: {}", self.0.says(), self.1)
    }
}

/// Splits `64KiB`; a bare number gets both readings shown.
fn with_unit<'a>(
    raw: &'a Raw,
    wanted: &str,
    one: &str,
    other: &str,
) -> Result<(u64, &'a str), String> {
    let readings = |n: &dyn Display| {
        format!("`{n}` has no unit: write \"{n}{one}\" or \"{n}{other}\", whichever is meant")
    };
    if let Raw::Integer(n) = raw {
        return Err(readings(n));
    }
    let text = raw.text(wanted)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    match number.parse::<u64>() {
        Ok(n) if unit.trim().is_empty() => Err(readings(&n)),
        Ok(n) => Ok((n, unit.trim())),
        Err(_) => Err(format!("expected {wanted}, found `{text}`")),
    }
}

fn within<K: Kind<Value = T>, T: PartialOrd>(
    kind: &K,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<T, String> {
    match bounds.contains(&value) {
        true => Ok(value),
        false => Err(format!("{} is out of bounds", kind.show(&value))),
    }
}
