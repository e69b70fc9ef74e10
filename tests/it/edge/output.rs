//! A standard error that accepts nothing: closed, a pipe that nobody reads, a full disk, a file at
//! its limit. The gateway serves, counts dropped lines, reports them in `/readyz`, and ends
//! normally.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request, Response, ask};
use crate::gateway::{binary, config_file};
use crate::ground::development;

/// A gateway with a standard error that the test chooses.
struct Process {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts a gateway under a shell line that may change what it inherits.
    fn start(shell: &str, stderr: impl Into<Stdio>) -> Self {
        let app = App::new(development());
        app.produce(&app.items).keyed([("a", "1")]);
        let (folder, path) = config_file(&app.config(2, ""));
        // The log can't report the ports, so choose them here.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [listen, admin] = ports.map(|port| port.local_addr().expect("bound"));
        let child = Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$@\""), "sh"])
            .arg(binary())
            .arg("run")
            .arg(format!("--listen={listen}"))
            .arg(format!("--admin-listen={admin}"))
            .arg("--config")
            .arg(path)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("a shell");
        let process = Self {
            child,
            listen,
            admin,
            _folder: folder,
        };
        process.until("it serves", || {
            let ready = process.try_admin("/readyz");
            ready.is_some_and(|it| it.status == 200)
        });
        process
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
            let runs = stat.is_ok_and(|stat| !stat.contains(") Z "));
            assert!(
                runs && Instant::now() < until,
                "never: {what}; runs: {runs}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("a process of ours");
    }

    fn try_admin(&self, target: &str) -> Option<Response> {
        let socket = std::net::TcpStream::connect(self.admin).ok()?;
        let mut connection = Connection::over(Box::new(socket));
        let host = self.admin;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.send(request.as_bytes());
        Some(connection.response(false))
    }

    fn admin(&self, target: &str) -> Response {
        self.try_admin(target).expect("the admin port is open")
    }

    fn dropped(&self) -> u64 {
        let page = self.admin("/metrics");
        let mut lines = page.text().lines();
        let name = "sluicegate_log_lines_dropped_total ";
        let value = lines.find_map(|line| line.strip_prefix(name));
        value.expect("the metric").parse().expect("a number")
    }

    /// Makes the gateway log: every SIGHUP is a line.
    fn drops_lines(&self) {
        let before = self.dropped();
        self.until("it drops lines", || {
            // Signals that arrive together count as one.
            for _ in 0..50 {
                self.signal(Signal::HUP);
                std::thread::sleep(Duration::from_micros(500));
            }
            self.dropped() > before
        });
    }

    /// The gateway serves, is ready, and reports dropped lines.
    fn serves_degraded(&self, why: &str) {
        for _ in 0..20 {
            let answer = ask(self.listen, &Request::get("/items/a"));
            assert_eq!((answer.status, answer.text()), (200, "1"));
        }
        let ready = self.admin("/readyz");
        assert_eq!(ready.status, 200, "{ready:?}");
        let ready = ready.json();
        assert_eq!(ready["degraded"], true, "{ready}");
        let mut checks = ready["checks"].as_array().expect("a list").iter();
        let log = checks
            .find(|it| it["name"] == "log")
            .expect("the log's check");
        let detail = log["detail"].as_str().expect("text");
        assert!(detail.contains(why), "{detail}");
    }

    fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
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

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Reads a log until a line contains this text.
fn read_until(reader: &mut BufReader<PipeReader>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(
            reader.read_line(&mut line).expect("text") > 0,
            "no `{text}`"
        );
    }
}

#[test]
fn a_gateway_outlives_the_reader_of_its_log() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut process = Process::start("", writer);
    drop(reader);
    process.drops_lines();
    process.serves_degraded("Broken pipe");
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn a_gateway_serves_while_nobody_reads_its_log_and_says_then_what_is_lost() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut filler = writer.try_clone().expect("a descriptor");
    let mut process = Process::start("", writer);
    // Fills the pipe. The thread blocks until the pipe is read or closed.
    let filler = std::thread::spawn(move || {
        let _ = filler.write_all(&[b'\n'; 1 << 20]);
    });
    process.drops_lines();
    process.serves_degraded("stopped reading");
    let mut reader = BufReader::new(reader);
    read_until(&mut reader, "log lines were dropped");
    let rest = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    process.until("it is healthy again", || {
        process.admin("/readyz").json()["degraded"] == false
    });
    assert_eq!(process.end().code(), Some(0));
    filler.join().expect("no panic");
    rest.join().expect("no panic").expect("it can be read");
}

#[test]
fn a_gateway_ends_while_nobody_reads_its_log() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let mut filler = writer.try_clone().expect("a descriptor");
    let mut process = Process::start("", writer);
    std::thread::spawn(move || {
        let _ = filler.write_all(&[b'\n'; 1 << 20]);
    });
    process.drops_lines();
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn a_gateway_outlives_a_full_disk_and_a_file_at_its_limit() {
    let full = File::options().write(true).open("/dev/full");
    let mut process = Process::start("", full.expect("/dev/full"));
    process.drops_lines();
    process.serves_degraded("No space left");
    assert_eq!(process.end().code(), Some(0));

    // RLIMIT_FSIZE sends a signal that kills by default.
    let folder = tempfile::tempdir().expect("a folder");
    let log = File::create(folder.path().join("log")).expect("a file");
    let mut process = Process::start("ulimit -f 4;", log);
    process.drops_lines();
    process.serves_degraded("File too large");
    assert_eq!(process.end().code(), Some(0));
}

/// Runs a command line to its end with outputs that accept nothing.
fn code(arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Option<i32> {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    let ended = command.stdout(stdout).stderr(stderr).status();
    ended.expect("the binary was built").code()
}

/// A pipe without a reader, or a device without room.
fn takes_nothing() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let full = File::options().write(true).open("/dev/full");
    [writer.into(), full.expect("/dev/full").into()]
}

#[test]
fn exit_codes_stay_what_they_are_when_nobody_reads_why() {
    let (_folder, path) = config_file("shards = \"many\"\n");
    let path = path.to_str().expect("UTF-8");
    let any = "127.0.0.1:0";
    let taken = TcpListener::bind(any).expect("a free port");
    let taken = taken.local_addr().expect("bound").to_string();
    for (arguments, wanted) in [
        (&["run", "--config", path][..], 78),
        (&["run", "--config", "/nowhere.toml"], 78),
        (&["run"], 78),
        (&["check"], 78),
        (&["run", "--no-such-flag"], 2),
        (
            &["demo", "--page-listen", "192.0.2.1:1", "--listen", any],
            69,
        ),
    ] {
        for stderr in takes_nothing() {
            let got = code(arguments, Stdio::null(), stderr);
            assert_eq!(got, Some(wanted), "{arguments:?}");
        }
    }
    drop(taken);
    // `version
    // head -0` succeeds. A full disk is an error, and not a panic.
    for stderr in takes_nothing() {
        let [closed, full] = takes_nothing();
        assert_eq!(code(&["version"], closed, Stdio::null()), Some(0));
        assert_eq!(code(&["version"], full, stderr), Some(1));
    }
}
