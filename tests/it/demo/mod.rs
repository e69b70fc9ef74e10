//! The demo as a new user sees it: one command, three lines to try, a page in a real browser.

pub mod browser;
mod cutter;
mod module;
mod page;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::PATIENCE;
use crate::kcat;

/// A running demo on free ports, and the JSON that it printed.
struct Demo {
    child: Child,
    fields: serde_json::Value,
}

impl Demo {
    fn start() -> Self {
        Self::start_with(&std::env::temp_dir())
    }

    /// Starts a demo that creates its directories in `temporary`.
    fn start_with(temporary: &Path) -> Self {
        let any = "127.0.0.1:0";
        let mut child = Command::new(crate::gateway::binary())
            .env("TMPDIR", temporary)
            .args(["demo", "-o", "json", "--listen", any, "--kafka-listen", any])
            .args(["--page-listen", any, "--admin-listen", any])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary was built");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped above");
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("it prints its addresses");
        let fields = serde_json::from_str(&line);
        let fields = fields.unwrap_or_else(|error| panic!("a line of JSON: {error}: {line:?}"));
        Self { child, fields }
    }

    fn field(&self, what: &str) -> &str {
        let text = self.fields[what].as_str();
        text.unwrap_or_else(|| panic!("{what}: {}", self.fields))
    }

    /// One of the three lines to try, as a user would paste it.
    fn line(&self, what: &str) -> &str {
        let text = self.fields["try"][what].as_str();
        text.unwrap_or_else(|| panic!("{what}: {}", self.fields))
    }

    fn terminate(&mut self) -> ExitStatus {
        self.end_by(Signal::TERM)
    }

    fn end_by(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("a process of ours");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a process of ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // The demo's gateway ends with it.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Runs a line in a shell.
fn shell(line: &str) -> String {
    let done = Command::new("sh")
        .args(["-c", line])
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    // 28: curl's time limit, which ends an open stream.
    assert!(
        [Some(0), Some(28)].contains(&done.status.code()),
        "{line}: {said}"
    );
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn the_three_lines_do_what_they_say() {
    let mut demo = Demo::start();
    let command = shell(demo.line("command"));
    assert!(command.starts_with("HTTP/1.1 2"), "{command}");
    let query = shell(demo.line("query"));
    let query = query.rsplit("\r\n\r\n").next().expect("a body");
    let state: serde_json::Value = serde_json::from_str(query.trim()).expect("JSON");
    assert!(state.is_object() || state.is_array(), "{state}");
    let stream = demo
        .line("stream")
        .replacen("curl ", "curl --max-time 2 ", 1);
    let stream = shell(&stream);
    assert!(
        stream.contains("\ndata: {") && stream.contains("\nid: "),
        "{stream}"
    );
    // Any Kafka client can read the topics.
    let records = kcat::read(demo.field("kafka"), "payments-commands");
    assert!(
        records
            .iter()
            .any(|record| record.header("operation") == Some("pay"))
    );
    let gateway: SocketAddr = demo
        .field("gateway")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    assert_eq!(demo.terminate().code(), Some(0));
    assert!(
        std::net::TcpStream::connect(gateway).is_err(),
        "the gateway ended with it"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken
        .local_addr()
        .map(|it| (taken, it))
        .expect("it is bound");
    let address = taken.1.to_string();
    for flag in [
        "--listen",
        "--kafka-listen",
        "--page-listen",
        "--admin-listen",
    ] {
        let flags = [
            "--listen",
            "--kafka-listen",
            "--page-listen",
            "--admin-listen",
        ];
        let mut arguments = vec!["demo"];
        for it in flags {
            arguments.extend([
                it,
                if it == flag {
                    address.as_str()
                } else {
                    "127.0.0.1:0"
                },
            ]);
        }
        let (code, _, said) = crate::gateway::run_to_end(&arguments, &[]);
        assert_eq!(code, 69, "{flag}: {said}");
        assert!(said.contains(flag) && said.contains(&address), "{said}");
    }
}

#[test]
fn nothing_stays_behind_however_a_demo_ends() {
    let temporary = tempfile::tempdir().expect("a folder");
    let left = || {
        std::fs::read_dir(temporary.path())
            .expect("a folder")
            .count()
    };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut demo = Demo::start_with(temporary.path());
        assert_eq!(left(), 1);
        assert_eq!(demo.end_by(signal).code(), Some(0), "{signal:?}");
        assert_eq!(left(), 0, "{signal:?}");
    }
    // After a SIGKILL only the next demo can clean up.
    let mut killed = Demo::start_with(temporary.path());
    killed.end_by(Signal::KILL);
    assert_eq!(left(), 1);
    let running = Demo::start_with(temporary.path());
    assert_eq!(left(), 1, "its own");
    let _beside = Demo::start_with(temporary.path());
    assert_eq!(left(), 2, "a running demo keeps what it has");
    drop(running);
}
