//! Other people's processes that must not outlive a test, whatever becomes of it: each runs under a
//! shell that waits for the end of its standard input, which is the end of whoever holds the other
//! side. So a panic, a kill -9 of the tests, or the end of the test program with a shared cluster
//! still standing: all of them end the process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const GUARD: &str = r#"
log=$1; shift
"$@" >>"$log" 2>&1 &
echo $!
read -r _
kill -9 $! 2>/dev/null
"#;

/// A node that is being killed may still write: then the folder is not empty, and another try is due.
const CLEANER: &str = r#"
read -r _
for _ in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" 2>/dev/null && exit; sleep 0.3; done
"#;

/// A process of ours.
#[derive(Debug)]
pub struct Guarded {
    guard: Child,
    pid: Pid,
}

impl Guarded {
    /// Starts a program; what it says goes to `log`.
    pub fn spawn(program: &[&str], log: &Path, folder: &Path) -> Self {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(log)
            .args(program)
            .current_dir(folder)
            // Ctrl-C is for the tests; the guard then sees their end.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = guard.stdout.take().expect("piped above");
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("the guard says the process id");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.unwrap_or_else(|| panic!("{program:?}: {line:?}"));
        Self { guard, pid }
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    /// Sends a signal. The guard does not wait for the process, so its id is never another's.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}"));
    }

    /// Whether it still runs (or is stopped).
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()));
        // The state stands behind the name, which may hold anything, in brackets.
        let state = stat.ok().and_then(|stat| {
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            Some(state)
        });
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Waits until it is gone.
    pub fn wait_gone(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.runs() {
            assert!(Instant::now() < until, "process {:?} did not end", self.pid);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.stdin = None; // The guard ends it.
        let _ended = self.guard.wait();
    }
}

/// A folder that is gone when nobody holds this any more.
#[derive(Debug)]
pub struct Cleaner(Child);

impl Cleaner {
    pub fn of(folder: &Path) -> Self {
        let cleaner = Command::new("sh")
            .args(["-c", CLEANER, "cleaner"])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn();
        Self(cleaner.expect("a shell"))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.0.stdin = None;
        let _ended = self.0.wait();
    }
}
