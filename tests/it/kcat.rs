//! Reading and writing topics by another client: kcat, which uses librdkafka.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One record as kcat prints it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Record {
    pub partition: u32,
    pub offset: u64,
    /// Timestamp in milliseconds since 1970, set by the producer or the log.
    #[serde(rename = "ts")]
    pub time: u64,
    pub key: Option<String>,
    #[serde(rename = "payload")]
    pub value: Option<String>,
    /// Header names and values alternately.
    #[serde(default)]
    headers: Vec<Option<String>>,
}

impl Record {
    /// A record that another program with librdkafka has read.
    pub fn new(
        (partition, offset, time): (u32, u64, u64),
        key: Option<String>,
        value: Option<String>,
        headers: Vec<Option<String>>,
    ) -> Self {
        Self {
            partition,
            offset,
            time,
            key,
            value,
            headers,
        }
    }

    /// The last header of this name, as in Kafka's own clients.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.headers.chunks(2);
        let mut named = pairs.filter(|pair| pair[0].as_deref() == Some(name));
        named.next_back().and_then(|pair| pair.get(1)?.as_deref())
    }
}

/// Destination and options of produced records.
#[derive(Clone, Debug)]
pub struct Produce {
    arguments: Vec<String>,
}

impl Produce {
    pub fn to(bootstrap: &str, topic: &str) -> Self {
        let arguments = ["-P", "-b", bootstrap, "-t", topic, "-X", "linger.ms=1"];
        let arguments = arguments.map(str::to_owned).to_vec();
        Self { arguments }
    }

    fn and(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|it| (*it).to_owned()));
        self
    }

    pub fn partition(self, partition: u32) -> Self {
        self.and(&["-p", &partition.to_string()])
    }

    /// Sets an option of librdkafka.
    pub fn option(self, option: &str) -> Self {
        self.and(&["-X", option])
    }

    /// Sets the compression: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub fn codec(self, codec: &str) -> Self {
        self.and(&["-z", codec])
    }

    /// Adds a header to every record. Without a value it is null.
    pub fn header(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.and(&["-H", &format!("{name}={value}")]),
            None => self.and(&["-H", name]),
        }
    }

    /// Produces records with keys. An empty value is a tombstone.
    pub fn keyed<'a>(self, records: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let records = records.into_iter();
        let lines: String = records
            .map(|(key, value)| format!("{key}\t{value}\n"))
            .collect();
        self.and(&["-K", "\t", "-Z"]).run(lines.as_bytes());
    }

    /// Produces one record with a key and these bytes, which must not contain the key's delimiter.
    pub fn keyed_bytes(self, key: &str, value: &[u8]) {
        let line = [key.as_bytes(), b"\t", value, b"\n"].concat();
        self.and(&["-K", "\t"]).run(&line);
    }

    /// Produces records without keys, none of them empty.
    pub fn values<'a>(self, values: impl IntoIterator<Item = &'a str>) {
        let lines: String = values
            .into_iter()
            .map(|value| format!("{value}\n"))
            .collect();
        self.run(lines.as_bytes());
    }

    /// Produces one record without a key, with exactly these bytes.
    pub fn bytes(self, value: &[u8]) {
        self.and(&["-D", "\u{1}"]).run(value);
    }

    fn run(self, input: &[u8]) {
        let mut kcat = Command::new("kcat")
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kcat, which tests/setup installs");
        let mut stdin = kcat.stdin.take().expect("piped above");
        stdin
            .write_all(input)
            .expect("kcat reads what it is to write");
        drop(stdin);
        let done = kcat.wait_with_output().expect("kcat ends");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "kcat {:?}: {said}", self.arguments);
    }
}

/// Reads all committed records of a topic up to its present end, in offset order within each
/// partition.
pub fn read(bootstrap: &str, topic: &str) -> Vec<Record> {
    let done = Command::new("kcat")
        .args([
            "-C",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-J",
        ])
        .args([
            "-X",
            "isolation.level=read_committed",
            "-X",
            "check.crcs=true",
        ])
        .output()
        .expect("kcat, which tests/setup installs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "kcat -C {topic}: {said}");
    let text = String::from_utf8(done.stdout).expect("JSON is UTF-8");
    text.lines().map(parse).collect()
}

/// Reads a topic's records until there are `count`, or until the deadline.
pub fn read_until(bootstrap: &str, topic: &str, count: usize) -> Vec<Record> {
    let until = Instant::now() + super::client::PATIENCE;
    loop {
        let records = read(bootstrap, topic);
        if records.len() >= count || Instant::now() > until {
            return records;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn parse(line: &str) -> Record {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("kcat -J: {error}: {line}"))
}
