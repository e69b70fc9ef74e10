//! The demo's addresses, the gateway's generated config, and the text that is printed.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::topics::{BALANCES, COMMANDS, PAYMENTS, REPLIES};

/// Number of gateways. The browser module knows all of them, and moves to another when one dies.
pub(crate) const GATEWAYS: usize = 2;

/// The addresses of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GatewayAddresses {
    /// The address for commands, queries and streams.
    pub(crate) listen: SocketAddr,
    /// The address of the admin port.
    pub(crate) admin: SocketAddr,
}

impl GatewayAddresses {
    /// The gateway's URL for browsers and curl.
    pub(crate) fn url(&self) -> String {
        url(self.listen)
    }
}

/// The addresses of all parts of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The addresses of the gateways.
    pub(crate) gateways: [GatewayAddresses; GATEWAYS],
    /// The broker's address for Kafka clients.
    pub(crate) kafka: SocketAddr,
    /// The address of the web page.
    pub(crate) page: SocketAddr,
}

impl Addresses {
    /// The first gateway's URL for browsers and curl.
    pub(crate) fn gateway_url(&self) -> String {
        self.gateways[0].url()
    }

    /// Generates the config file of a gateway.
    pub(crate) fn gateway_toml(&self, gateway: &GatewayAddresses) -> String {
        let (commands, replies) = (COMMANDS.name, REPLIES.name);
        let (balances, payments) = (BALANCES.name, PAYMENTS.name);
        let mut toml = format!(
            r#"# Written by `sluicegate demo`; gone when it ends.
listen = ["{gateway}"]
auth = "none"                            # a demo: everybody may do everything
drain_grace = "0s"                       # the page moves by itself: no balancer has to notice
drain = "1s"

[log]
level = "warn"                           # the page says what happens; "info" to read along

[kafka]
bootstrap = ["{kafka}"]

[admin]
listen = "{admin}"

[http]
connections_max = 4096                   # enough for 1,000 watchers

[cors]                                   # the page is another origin than the gateway
origins = [{origins}]

[streams]
retry = "500ms"                          # browsers come back quickly after a kill

[[query]]                                # newest record per key, from memory
route = "GET /accounts/{{id}}"
topic = "{balances}"
key = "{{path.id}}"

[[query]]
route = "GET /accounts"
topic = "{balances}"

[[stream]]                               # all that happens to one person
route = "GET /accounts/{{id}}/events"
topic = "{payments}"
filter.key = "{{path.id}}"
start = "earliest"

[[stream]]                               # every balance as it is, then each change
route = "GET /balances/events"
topic = "{balances}"
start = "snapshot"

[[stream]]                               # everything that happens, from now on
route = "GET /payments/events"
topic = "{payments}"
start = "live"
"#,
            gateway = gateway.listen,
            admin = gateway.admin,
            kafka = connectable(self.kafka),
            origins = self.page_origins(),
        );
        for (name, route) in [
            ("pay", "POST /accounts/{id}/payments"),
            ("request", "POST /accounts/{id}/requests"),
            ("answer", "POST /accounts/{id}/answers"),
            ("open", "PUT /accounts/{id}"),
        ] {
            let _ = write!(
                toml,
                r#"
[[command]]                              # request -> record -> correlated reply -> response
name = "{name}"
route = "{route}"
topic = "{commands}"
replies = "{replies}"
key = "{{path.id}}"
headers = {{ operation = "{name}" }}
idempotency = "required"
timeout = "10s"
"#
            );
        }
        toml
    }

    /// The origins that browsers may use for the page.
    fn page_origins(&self) -> String {
        let page = connectable(self.page);
        let mut origins = vec![format!("\"{}\"", url(page))];
        if page.ip().is_loopback() {
            origins.push(format!("\"http://localhost:{}\"", page.port()));
        }
        origins.join(", ")
    }

    /// Three commands to try: a command, a query, a stream.
    pub(crate) fn lines_to_try(&self) -> [(&'static str, String); 3] {
        let gateway = self.gateway_url();
        [
            (
                "command",
                format!(
                    "curl -i {gateway}/accounts/ana/payments -H 'Content-Type: application/json' \
                     -H 'Idempotency-Key: lunch-1' -d '{{\"to\":\"bo\",\"amount_cents\":250}}'"
                ),
            ),
            ("query", format!("curl -i {gateway}/accounts/ana")),
            ("stream", format!("curl -N {gateway}/accounts/ana/events")),
        ]
    }

    /// All addresses in one line of JSON, for scripts.
    /// `gateway`, `admin`, `config` and `gateway_pid` are those of the first gateway.
    pub(crate) fn as_json(&self, dir: &ConfigDir, pids: &[Option<u32>]) -> String {
        let [command, query, stream] = self.lines_to_try();
        let gateways = self.gateways.iter().zip(pids).enumerate();
        let gateways: Vec<_> = gateways
            .map(|(place, (gateway, pid))| {
                json!({
                    "gateway": gateway.url(),
                    "admin": url(gateway.admin),
                    "config": dir.config(place),
                    "gateway_pid": pid,
                })
            })
            .collect();
        json!({
            "gateway": gateways[0]["gateway"],
            "admin": gateways[0]["admin"],
            "config": gateways[0]["config"],
            "gateway_pid": gateways[0]["gateway_pid"],
            "gateways": gateways,
            "kafka": connectable(self.kafka).to_string(),
            "page": url(self.page),
            "try": { command.0: command.1, query.0: query.1, stream.0: stream.1 },
        })
        .to_string()
    }

    /// All addresses as text for a terminal.
    pub(crate) fn as_text(&self, dir: &ConfigDir, pids: &[Option<u32>]) -> String {
        let mut text = format!(
            "\nSluicegate demo: two people, a payments service, and two gateways between them.\n\n\
             \x20 page      {page}   <- open this\n",
            page = url(self.page),
        );
        for (place, (gateway, pid)) in self.gateways.iter().zip(pids).enumerate() {
            let config = dir.config(place);
            let _ = match pid {
                Some(pid) => writeln!(
                    text,
                    "  gateway   {}   (pid {pid}, {}/readyz)\n  config    {}",
                    gateway.url(),
                    url(gateway.admin),
                    config.display(),
                ),
                None => writeln!(
                    text,
                    "  gateway   not started: sluicegate run --config {}",
                    config.display()
                ),
            };
        }
        let kafka = connectable(self.kafka);
        let _ = writeln!(text, "  kafka     {kafka}   (kcat -b {kafka} -L)\n\nTry:");
        for (_, line) in self.lines_to_try() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str(
            "\nThe broker is a development broker in this process's memory: nothing is kept, and \
             it is\nnot for production. Ctrl-C ends everything.\n",
        );
        text
    }
}

fn url(addr: SocketAddr) -> String {
    format!("http://{}", connectable(addr))
}

/// The address for connecting to a listener on `addr`: loopback for an unspecified address.
fn connectable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Prefix of the names of config directories.
const DIR_PREFIX: &str = "sluicegate-demo-";
/// File in a directory that its demo keeps locked while it runs.
const LOCK: &str = "lock";
/// A directory without a lock file that is older than this was left by a demo that died before it
/// created the file.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The directory of the generated config, removed on drop. If a demo is killed by SIGKILL, the next
/// demo of the same user removes its directory.
pub(crate) struct ConfigDir {
    dir: PathBuf,
    /// The locked file. The system releases the lock however this process ends.
    _lock: File,
}

impl ConfigDir {
    /// Creates the directory, readable for this user only, and writes the configs into it.
    pub(crate) fn write(addresses: &Addresses) -> io::Result<Self> {
        Self::write_in(&std::env::temp_dir(), addresses)
    }

    fn write_in(parent: &Path, addresses: &Addresses) -> io::Result<Self> {
        remove_abandoned(parent);
        // Tests run several demos in one process, and a left-over directory may have the same
        // process id.
        let made = (0..1_000)
            .map(|n| parent.join(format!("{DIR_PREFIX}{}-{n}", std::process::id())))
            .find_map(|dir| match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => Some(Ok(dir)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()));
        let dir = made?;
        let lock = File::create_new(dir.join(LOCK))?;
        lock.lock()?;
        let made = Self { dir, _lock: lock };
        for (place, gateway) in addresses.gateways.iter().enumerate() {
            std::fs::write(made.config(place), addresses.gateway_toml(gateway))?;
        }
        Ok(made)
    }

    /// Path of a gateway's config file.
    pub(crate) fn config(&self, place: usize) -> PathBuf {
        self.dir.join(match place {
            0 => "gateway.toml".to_owned(),
            _ => format!("gateway-{}.toml", place + 1),
        })
    }
}

impl Drop for ConfigDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Removes the directories of this user's demos that have ended. Errors are ignored.
fn remove_abandoned(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let named = entry.file_name();
        let ours = named.to_string_lossy().starts_with(DIR_PREFIX);
        // `DirEntry::metadata` does not follow links.
        let about = entry.metadata().ok().filter(|_| ours);
        let user = rustix::process::geteuid().as_raw();
        let ours = about.filter(|about| about.is_dir() && about.uid() == user);
        if ours.is_some_and(|about| is_abandoned(&entry.path(), &about)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the demo that created a directory has ended.
fn is_abandoned(dir: &Path, about: &Metadata) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let age = about.modified().ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age > LOCK_WAIT)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    fn addresses() -> Addresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let gateway = |listen, admin| GatewayAddresses {
            listen: at(listen),
            admin: at(admin),
        };
        Addresses {
            gateways: [gateway(1, 2), gateway(5, 6)],
            kafka: SocketAddr::from(([0, 0, 0, 0], 3)),
            page: at(4),
        }
    }

    #[test]
    fn the_gateway_takes_the_config_without_a_word() {
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: addresses().gateway_toml(&addresses().gateways[1]),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 2,
            ..Sources::default()
        };
        let loaded = match load(sources) {
            Ok(loaded) => loaded,
            Err(report) => panic!("{}", report.render(false)),
        };
        assert_eq!(loaded.report.render(false), "");
        let config = loaded.config;
        let listen = addresses().gateways[1].listen;
        assert_eq!(config.settings.listen, [listen.into()]);
        let admin = config.settings.admin.listen;
        assert_eq!(admin, Some(addresses().gateways[1].admin));
        let origins = &config.settings.cors.origins;
        assert_eq!(origins, &["http://127.0.0.1:4", "http://localhost:4"]);
        assert_eq!((config.commands.len(), config.queries.len()), (4, 2));
        assert_eq!(config.streams.len(), 3);
    }

    #[test]
    fn the_line_for_scripts_is_one_line_of_json() {
        let dir = ConfigDir::write(&addresses()).expect("a directory");
        let line = addresses().as_json(&dir, &[Some(7), None]);
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(json["gateway"], "http://127.0.0.1:1");
        assert_eq!(json["gateway_pid"], 7);
        assert_eq!(json["gateways"][1]["gateway"], "http://127.0.0.1:5");
        let stream = json["try"]["stream"].as_str().expect("a line");
        assert!(stream.starts_with("curl -N http://127.0.0.1:1/"));
    }

    #[test]
    fn the_config_is_gone_with_its_owner() {
        let dir = ConfigDir::write(&addresses()).expect("a directory");
        let paths = [dir.config(0), dir.config(1)];
        assert!(paths.iter().all(|path| path.exists()));
        drop(dir);
        assert!(!paths.iter().any(|path| path.exists()));
    }

    #[test]
    fn what_a_killed_demo_left_is_gone_with_the_next_start() {
        let parent = tempfile::tempdir().expect("a folder");
        let running = ConfigDir::write_in(parent.path(), &addresses()).expect("a directory");
        let left = parent.path().join("sluicegate-demo-1-0");
        std::fs::create_dir(&left).expect("a folder");
        std::fs::write(left.join(LOCK), "").expect("a file that nobody locks");
        // A directory that was just created and is not locked yet.
        let young = parent.path().join("sluicegate-demo-2-0");
        std::fs::create_dir(&young).expect("a folder");
        let other = parent.path().join("somebody-elses");
        std::fs::create_dir(&other).expect("a folder");
        let next = ConfigDir::write_in(parent.path(), &addresses()).expect("a directory");
        assert!(!left.exists());
        for kept in [&running.config(0), &next.config(0), &young, &other] {
            assert!(kept.exists(), "{kept:?}");
        }
    }
}
