//! The gateway as users run it: the built binary, a config file, a process of its own. Several of
//! them are instances that know nothing of each other.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Connection, PATIENCE, Request, Response, ask};

/// Path of the binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_sluicegate");

/// The binary to start: for measurements, another build.
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("SLUICEGATE_BINARY").unwrap_or_else(|| BINARY.into())
}

/// A running gateway. Dropping it kills it. If the test has failed, its log is printed.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
    /// Number of addresses that it will listen on for clients.
    listeners: usize,
}

/// Settings of every gateway in tests. Ports are free ones, which the log names.
pub fn settings(bootstrap: &str, shards: u16) -> String {
    let bootstrap: Vec<_> = bootstrap
        .split(',')
        .map(|broker| format!("\"{broker}\""))
        .collect();
    format!(
        "listen = [\"127.0.0.1:0\"]\nshards = {shards}\ndrain = \"1s\"\n\
         drain_grace = \"0s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [kafka]\nbootstrap = [{}]\n[log]\nlevel = \"info\"\n",
        bootstrap.join(", ")
    )
}

impl Gateway {
    /// Starts a gateway and waits until it serves.
    pub fn start(config: &str) -> Self {
        let gateway = Self::launch(config);
        gateway.wait_serving();
        gateway
    }

    /// Starts a gateway without waiting for it.
    pub fn launch(config: &str) -> Self {
        Self::launch_with(config, &[])
    }

    /// Starts a gateway with flags in addition to its file.
    pub fn launch_with(config: &str, flags: &[&str]) -> Self {
        Self::launch_under(&[], config, flags)
    }

    /// Starts a gateway through a program that becomes it. The program's arguments come before the
    /// gateway's.
    pub fn launch_under(program: &[String], config: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the config");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, config).expect("write the config");
        let mut command = match program {
            [] => Command::new(binary()),
            [first, words @ ..] => {
                let mut command = Command::new(first);
                command.args(words).arg(binary());
                command
            }
        };
        command.args(["run", "--config"]).arg(&path).args(flags);
        command.stdout(Stdio::null());
        let listeners = 1 + usize::from(config.contains("[tls]"));
        Self::spawn(command, folder, listeners)
    }

    /// Starts a command that serves, such as `run` or `dev`, and keeps its folder. The caller
    /// chooses what becomes of its standard output.
    pub fn spawn(mut command: Command, folder: tempfile::TempDir, listeners: usize) -> Self {
        let mut child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let said = Arc::new(Mutex::new(Vec::new()));
        let errors = child.stderr.take().expect("piped above");
        let lines = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(plain(&line));
            }
        });
        Self {
            child,
            said,
            folder,
            listeners,
        }
    }

    /// Waits until it listens for clients, after everything is loaded.
    pub fn wait_serving(&self) {
        self.wait_said("serving", |said| said.len() >= self.listeners);
    }

    /// The address of its first plain listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses("serving")[0]
    }

    /// The address of its first TLS listener.
    pub fn tls_address(&self) -> SocketAddr {
        self.addresses("serving")[1]
    }

    /// The address of its admin port, which is open before the gateway serves.
    pub fn admin(&self) -> SocketAddr {
        self.wait_said("admin port open", |said| !said.is_empty());
        self.addresses("admin port open")[0]
    }

    /// Sends one request on a connection of its own.
    pub fn ask(&self, request: &Request) -> Response {
        ask(self.address(), request)
    }

    pub fn get(&self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    /// Repeats a request until the response is `wanted`, for effects that pass through Kafka.
    pub fn wait_until(&self, request: &Request, wanted: impl Fn(&Response) -> bool) -> Response {
        self.wait_until_at(self.address(), request, wanted)
    }

    /// Like `wait_until`, at an address chosen by the test, before the gateway serves.
    pub fn wait_until_at(
        &self,
        address: SocketAddr,
        request: &Request,
        wanted: impl Fn(&Response) -> bool,
    ) -> Response {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = ask(address, request);
            if wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < until,
                "{request:?} is still answered {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// Sends a GET to the admin port.
    pub fn admin_get(&self, target: &str) -> Response {
        // The admin port checks `Host`.
        let admin = self.admin();
        let mut connection = Connection::open(admin);
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        connection.send(request.as_bytes());
        connection.response(false)
    }

    /// The sum of a metric over all its labels that contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.admin_get("/metrics");
        let lines = page.text().lines().filter(|line| {
            let named = line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']));
            named && line.contains(labels)
        });
        let value = |line: &str| -> f64 {
            let value = line.rsplit_once(' ').map(|(_, value)| value.parse());
            value
                .and_then(Result::ok)
                .unwrap_or_else(|| panic!("a sample: {line}"))
        };
        lines.map(value).sum()
    }

    /// The sum of a number over the shards, as `/status` has it.
    pub fn status_sum(&self, name: &str) -> u64 {
        let status = self.admin_get("/status").json();
        let shards = status["shards"].as_array().expect("a list of shards");
        let number = |shard: &serde_json::Value| shard["status"][name].as_u64().unwrap_or(0);
        shards.iter().map(number).sum()
    }

    /// Waits until the admin port's response is `wanted`, and returns it.
    pub fn wait_admin(&self, target: &str, wanted: impl Fn(&Response) -> bool) -> Response {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.admin_get(target);
            if wanted(&answer) {
                return answer;
            }
            if Instant::now() > until {
                panic!("{target} still says {answer:?}\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything it has written to standard error so far.
    pub fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// The folder of its config.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("a process of ours");
        let _status = self.child.wait().expect("a process of ours");
    }

    /// Sends SIGTERM, which starts a drain.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("a process of ours that was not waited for");
    }

    /// Waits for the process's end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a process of ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until its log has this text.
    pub fn wait_said_text(&self, text: &str) {
        self.wait_said(text, |said| !said.is_empty());
    }

    fn wait_said(&self, text: &str, enough: impl Fn(&[String]) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !enough(&self.lines(text)) {
            // The thread that reads its log may be late, so ask the system whether it has ended.
            let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
            let ended = has_ended(pid);
            if ended || Instant::now() > until {
                std::thread::sleep(Duration::from_millis(100));
                panic!(
                    "ended: {ended}; it never said `{text}`, but:\n{}",
                    self.said()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }

    /// The addresses in log lines with this text.
    pub fn addresses_said(&self, text: &str) -> Vec<SocketAddr> {
        self.addresses(text)
    }

    fn addresses(&self, text: &str) -> Vec<SocketAddr> {
        let address = |line: &String| {
            let (_, rest) = line.split_once("address=")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        self.lines(text).iter().filter_map(address).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- gateway {} said:\n{}\n---",
                self.child.id(),
                self.said()
            );
        }
    }
}

/// Runs the binary to its end. Returns exit code, standard output and standard error.
pub fn run_to_end(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let done = Command::new(binary())
        .args(arguments)
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built");
    let text = |bytes: &[u8]| plain(&String::from_utf8_lossy(bytes));
    (
        done.status.code().unwrap_or(-1),
        text(&done.stdout),
        text(&done.stderr),
    )
}

/// Writes a config into a folder that is removed when the returned handle is dropped.
pub fn config_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the config");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, text).expect("write the config");
    (folder, path)
}

fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Removes colour codes from a line.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            let _colour = chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}
