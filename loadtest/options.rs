//! Options that several scenarios share: where the load goes, how much there is, and for how long.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::net::Url;
use crate::socket::{Connector, TlsOptions};
use crate::template::Template;

/// Most threads of one run.
const THREADS_MAX: usize = 64;
/// Most bearer tokens that are read from a file.
const TOKENS_MAX: usize = 1_000_000;

/// Where requests go, and what they carry.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Target")]
pub(crate) struct TargetOptions {
    /// The resource, `http://host:port/path` or `https://…`. `{key}` in the path stands for a number
    /// below --keys. Several URLs: clients take them in turn, and retries go to the next one.
    #[arg(long = "url", required = true, value_name = "URL")]
    pub(crate) urls: Vec<Url>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// What requests carry, and from where they come.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Client")]
pub(crate) struct ClientOptions {
    /// Number of different values of `{key}` in path and body.
    #[arg(long, default_value_t = 1)]
    pub(crate) keys: u64,
    /// A header that every request carries. Repeatable.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// A file of bearer tokens, one per line. Clients take them in turn.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Local addresses to connect from, in turn. One address has some 28,000 ports; 127.0.0.2,
    /// 127.0.0.3 … have as many each.
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
    /// Process id of a server, to measure its CPU and memory. Repeatable: they are added up.
    #[arg(long = "pid")]
    pub(crate) pids: Vec<u32>,
}

/// The tokens and headers of requests, read and checked.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) urls: Vec<Url>,
    pub(crate) paths: Vec<Template>,
    pub(crate) keys: u64,
    pub(crate) connector: Connector,
    headers: String,
    tokens: Vec<String>,
}

impl TargetOptions {
    /// Reads the files that the options name, and checks all values.
    pub(crate) fn target(&self) -> Result<Target> {
        self.client.target(&self.urls)
    }
}

impl ClientOptions {
    /// The target at these URLs.
    pub(crate) fn target(&self, urls: &[Url]) -> Result<Target> {
        ensure!(!urls.is_empty(), "there is no URL");
        ensure!(self.keys > 0, "--keys is at least 1");
        let mut headers = String::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("--header `{header}` has no colon"))?;
            let sound = |text: &str| !text.contains(['\r', '\n', '\0']);
            ensure!(
                !name.trim().is_empty() && sound(header),
                "--header `{}` is no header",
                header.escape_debug()
            );
            headers.push_str(&format!("{}: {}\r\n", name.trim(), value.trim()));
        }
        let tokens = match &self.tokens {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("can't read --tokens {}", path.display()))?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let tokens: Vec<String> = lines.map(str::to_owned).take(TOKENS_MAX).collect();
                ensure!(!tokens.is_empty(), "{} has no token", path.display());
                tokens
            }
        };
        let paths = urls.iter().map(|url| Template::parse(&url.path));
        Ok(Target {
            paths: paths.collect::<Result<_>>()?,
            urls: urls.to_vec(),
            keys: self.keys,
            connector: Connector::new(&self.tls, &self.sources)?,
            headers,
            tokens,
        })
    }
}

impl Target {
    /// The URL that client `client` uses on attempt `attempt`, as an index.
    pub(crate) const fn place(&self, client: u64, attempt: u64) -> usize {
        ((client + attempt) % self.urls.len() as u64) as usize
    }

    /// Appends a request's head without its last empty line: request line, `Host`, and the headers
    /// of the options. `client` selects the token.
    pub(crate) fn put_head(
        &self,
        method: &str,
        place: usize,
        key: u64,
        client: u64,
        into: &mut Vec<u8>,
    ) {
        into.extend_from_slice(method.as_bytes());
        into.push(b' ');
        self.paths[place].put(key, into);
        into.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        into.extend_from_slice(self.urls[place].authority.as_bytes());
        into.extend_from_slice(b"\r\n");
        into.extend_from_slice(self.headers.as_bytes());
        if !self.tokens.is_empty() {
            let token = &self.tokens[client as usize % self.tokens.len()];
            into.extend_from_slice(b"Authorization: Bearer ");
            into.extend_from_slice(token.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
    }
}

/// How long a run is, and on how many threads.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunOptions {
    /// Seconds to measure, including the warm-up.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds at the start that are not in the results. Default: a tenth of --seconds.
    #[arg(long)]
    pub(crate) warm_up: Option<f64>,
    /// Threads that send and receive. One thread drives some 100,000 requests per second.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

impl RunOptions {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.seconds > 0.0 && self.seconds <= 86_400.0 * 30.0,
            "--seconds is more than 0 and at most 30 days"
        );
        ensure!(
            (1..=THREADS_MAX).contains(&self.threads),
            "--threads is 1 to {THREADS_MAX}"
        );
        let warm_up = self.warm_up.unwrap_or(0.0);
        ensure!(
            (0.0..self.seconds).contains(&warm_up),
            "--warm-up is less than --seconds"
        );
        Ok(())
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up.unwrap_or(self.seconds / 10.0))
    }

    /// How many of `all` clients or connections each thread has.
    pub(crate) fn shares(&self, all: usize) -> Vec<std::ops::Range<usize>> {
        let threads = self.threads.min(all.max(1));
        (0..threads)
            .map(|thread| all * thread / threads..all * (thread + 1) / threads)
            .collect()
    }
}
