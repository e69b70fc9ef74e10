//! The machine and the command line, for reports.

use serde_json::{Value, json};

/// Where and how a run took place.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) load: String,
    pub(crate) version: String,
    pub(crate) command: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = kib
            .split(' ')
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let load = read("/proc/loadavg");
        let load: Vec<&str> = load.split(' ').take(3).collect();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.join(" "),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpus": self.cpus,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
            "load": self.load,
            "version": self.version,
            "command": self.command,
        })
    }
}

/// The command line, without what may be secret.
fn command() -> String {
    let mut shown = vec!["sluicegate-load".to_owned()];
    let mut secret = false;
    for argument in std::env::args().skip(1) {
        let is_header = argument.to_ascii_lowercase().starts_with("--header");
        let hidden = match argument.split_once('=') {
            Some((name, _)) if is_header => format!("{name}=[secret]"),
            _ if secret => "[secret]".to_owned(),
            _ => argument.clone(),
        };
        secret = is_header && !argument.contains('=');
        shown.push(if hidden.contains(' ') {
            format!("'{hidden}'")
        } else {
            hidden
        });
    }
    shown.join(" ")
}
