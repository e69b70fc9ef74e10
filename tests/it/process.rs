//! External processes that must not outlive a test. Each runs under a shell that waits for the end
//! of its standard input. The test holds the other end. So a panic, a SIGKILL of the tests, or a
//! normal end of the test program with a shared cluster still running all end the process.

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

/// A node that is being killed may still write, so the folder is not empty and must be removed
/// again.
const CLEANER: &str = r#"
read -r _
for _ in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" 2>/dev/null && exit; sleep 0.3; done
"#;

/// A guarded process of the tests.
#[derive(Debug)]
pub struct Guarded {
    guard: Child,
    pid: Pid,
}

impl Guarded {
    /// Starts a program and sends its output to `log`.
    pub fn spawn(program: &[&str], log: &Path, folder: &Path) -> Self {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(log)
            .args(program)
            .current_dir(folder)
            // Ctrl-C ends the tests. The guard then sees the end of its input.
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

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    /// Sends a signal. The guard does not reap the process, so its id is never reused meanwhile.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}"));
    }

    /// Whether the process still exists, running or stopped.
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()));
        // The state follows the name, which is in parentheses and may contain anything.
        let state = stat.ok().and_then(|stat| {
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            Some(state)
        });
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Waits until the process has ended.
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

/// Removes a folder when it is dropped.
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
