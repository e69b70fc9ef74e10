//! Why the process cannot start, in the words of an operator: the setting, the problem, what to do.

use std::net::SocketAddr;
use std::ops::Range;

use crate::config::Reason;
use crate::reactor::ReactorError;
use crate::shard::NumbersExhausted;
use crate::tls::TlsError;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A kernel feature is missing, or an address cannot be bound.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// The configs of this process have named more routes or topics than there are numbers.
    #[error(transparent)]
    Numbers(#[from] NumbersExhausted),
    /// The admin port or the health port cannot be bound.
    #[error(
        "can't listen on {address} for the {port} port: {source}; free it or set {port}.listen"
    )]
    Admin {
        /// `admin` or `health`.
        port: &'static str,
        /// The address that the setting has.
        address: SocketAddr,
        /// The error that the kernel returned.
        source: std::io::Error,
    },
    /// A file that a setting names cannot be read.
    #[error("{key}: can't read {path}: {source}; correct the path, or let this process read it")]
    File {
        /// The setting's key, with its cluster.
        key: String,
        /// Byte range in the config file, if the key is no setting.
        at: Option<Range<usize>>,
        /// The path that the config names.
        path: String,
        /// The error that the kernel returned.
        source: std::io::Error,
    },
    /// A certificate or key file is invalid, or key and certificate do not match.
    #[error("{key}: {path}: {source}; {help}")]
    Pem {
        /// The setting's key, with its cluster.
        key: String,
        /// Byte range in the config file, if the key is no setting.
        at: Option<Range<usize>>,
        /// The path that the config names.
        path: String,
        /// Why the file is rejected.
        source: Box<TlsError>,
        /// What the file must contain.
        help: String,
    },
    /// A secret is not where the config says.
    #[error("{key}: {why}")]
    Secret {
        /// The setting's key, with its cluster.
        key: String,
        /// The problem, and what to do about it.
        why: String,
    },
    /// A file with a JSON Schema cannot be used.
    #[error("the schema of command `{route}`: {path}: {why}; {help}")]
    Schema {
        /// The route's name.
        route: String,
        /// The path of the file.
        path: String,
        /// Why the file is rejected.
        why: String,
        /// What to do about it.
        help: &'static str,
        /// Byte range of the setting in the config file.
        at: Range<usize>,
    },
    /// The keys that vouch for credentials can't be used.
    #[error("{setting}: {why}; correct the file or the setting")]
    Keys {
        /// The setting, or the issuer.
        setting: String,
        /// Why the keys can't be used.
        why: String,
        /// Byte range of the setting in the config file.
        at: Option<Range<usize>>,
    },
    /// The config names a CPU on which this process must not run.
    #[error(
        "cpus: this process may not run on CPU {cpu}, only on {allowed:?}; name some of those, or \
         widen its affinity (taskset, AllowedCPUs=, cpuset)"
    )]
    Cpu {
        /// The first CPU of the config that is not allowed.
        cpu: usize,
        /// The CPUs on which the process may run.
        allowed: Vec<usize>,
    },
    /// The limit of open files is too low to serve any client.
    #[error(
        "this process may open {limit} files, and its shards, brokers and clients need {needed} at \
         least: raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit \
         -Hn), or lower shards"
    )]
    Descriptors {
        /// The hard limit of open files.
        limit: u64,
        /// The lowest limit that is enough.
        needed: u64,
    },
    /// The operating system refused another operation.
    #[error("{what}: {source}")]
    System {
        /// The operation that was tried.
        what: &'static str,
        /// The error that the system returned.
        source: std::io::Error,
    },
}

impl BootError {
    /// The error as a reason against the config.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason {
            message: self.to_string(),
            key: match self {
                Self::File { key, .. } | Self::Pem { key, .. } | Self::Secret { key, .. } => {
                    Some(key.clone())
                }
                _ => None,
            },
            at: match self {
                Self::Schema { at, .. } => Some(at.clone()),
                Self::File { at, .. } | Self::Pem { at, .. } | Self::Keys { at, .. } => at.clone(),
                _ => None,
            },
        }
    }

    /// The exit code of sysexits: 78 if the config must change, else 69.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. }
            | Self::Schema { .. }
            | Self::Keys { .. }
            | Self::Pem { .. }
            | Self::Secret { .. }
            | Self::Cpu { .. }
            | Self::Descriptors { .. }
            | Self::Numbers(_) => 78,
            Self::Reactor(_) | Self::Admin { .. } | Self::System { .. } => 69,
        }
    }
}
