//! The commands of documents, run as they are written. A block `sh` runs to its end and must succeed;
//! a block `sh terminal` is started and left running, as in a terminal of its own. Each line of the
//! block `text` below must be in the output of the block above it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::free_address;
use crate::client::PATIENCE;
use crate::gateway::binary;

/// Time for a line to appear: the longest is the installation of a package.
const OUTPUT_TIME_MAX: Duration = Duration::from_secs(120);

/// One fenced block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut parts = page.split("\n```");
    let _before = parts.next();
    // Parts alternate: a block with its info string, then the text up to the next block.
    let block = |part: &str| {
        let (info, text) = part.split_once('\n').expect("an info string");
        Block {
            info: info.to_owned(),
            text: text.to_owned() + "\n",
        }
    };
    parts.step_by(2).map(block).collect()
}

/// The terminals in which the commands of one page run.
struct Terminals {
    _folder: tempfile::TempDir,
    /// The folder of the next command.
    here: PathBuf,
    /// Replacements for the fixed ports of the page.
    ports: Vec<(&'static str, String)>,
    left_running: Vec<Child>,
    started: usize,
}

impl Terminals {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = ["8080", "8081", "9092", "9464", "9465"];
        let free = |port| (port, free_address().port().to_string());
        Self {
            here: folder.path().to_owned(),
            _folder: folder,
            ports: ports.into_iter().map(free).collect(),
            left_running: Vec::new(),
            started: 0,
        }
    }

    fn with_free_ports(&self, text: &str) -> String {
        let ports = self.ports.iter();
        ports.fold(text.to_owned(), |text, (port, free)| {
            text.replace(&format!(":{port}"), &format!(":{free}"))
        })
    }

    /// Starts a block, and returns the process and the file of its output.
    fn start(&mut self, block: &Block) -> (Child, PathBuf) {
        self.started += 1;
        // A stream never ends by itself, and a gateway in another terminal may still be starting.
        let line = self.with_free_ports(&block.text);
        let line = line.replace("curl -N ", "curl -sN --max-time 3 ");
        let line = line.replace("curl -i ", "curl -si --retry 30 --retry-connrefused ");
        let address = |port: &str| self.with_free_ports(&format!("127.0.0.1:{port}"));
        let output = self.here.join(format!("{}.out", self.started));
        let file = File::create(&output).expect("a file");
        let folder = Path::new(&binary()).parent().expect("a folder").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-ec", &line])
            .current_dir(&self.here)
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("NO_COLOR", "1")
            .env("SLUICEGATE_LISTEN", address("8080"))
            .env("SLUICEGATE_ADMIN_LISTEN", address("9464"))
            .env("SLUICEGATE_KAFKA_BOOTSTRAP", address("9092"))
            .env("KAFKA", address("9092"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        (command.spawn().expect("bash"), output)
    }

    /// Runs a block, and returns the file of its output.
    fn run(&mut self, block: &Block) -> PathBuf {
        let (mut child, output) = self.start(block);
        if block.info == "sh terminal" {
            self.left_running.push(child);
            return output;
        }
        let status = child.wait().expect("a process of ours");
        let said = std::fs::read_to_string(&output).expect("it was created");
        // 28: curl's time limit, which ends a stream.
        let is_fine =
            status.success() || (block.text.contains("curl -N") && status.code() == Some(28));
        assert!(is_fine, "{}: {status}\n{said}", block.text);
        let folder = block.text.lines().find_map(|line| line.strip_prefix("cd "));
        if let Some(folder) = folder {
            self.here.push(folder);
        }
        output
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        for child in &mut self.left_running {
            if let Some(group) = Pid::from_raw(child.id() as i32) {
                let _gone = kill_process_group(group, Signal::KILL);
            }
            let _status = child.wait();
        }
    }
}

/// Waits until each line of the page's output is in the file.
fn expect_output(output: &Path, expected: &str) {
    let until = Instant::now() + OUTPUT_TIME_MAX.max(PATIENCE);
    for line in expected.lines() {
        loop {
            let said = std::fs::read_to_string(output).expect("it was created");
            if said.contains(line) {
                break;
            }
            assert!(Instant::now() < until, "{line:?} is not in:\n{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs the page's commands in order. Returns how many blocks of commands and of output there were.
fn run_page(page: &str) -> (usize, usize) {
    let mut terminals = Terminals::new();
    let (mut commands, mut outputs) = (0, 0);
    let mut last = None;
    for block in blocks(page) {
        match block.info.as_str() {
            "sh" | "sh terminal" => {
                last = Some(terminals.run(&block));
                commands += 1;
            }
            "text" => {
                let output = last.as_ref().expect("a command comes before its output");
                expect_output(output, &block.text);
                outputs += 1;
            }
            _ => {}
        }
    }
    (commands, outputs)
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_quick_start_works_as_it_is_written() {
    let (commands, outputs) = run_page(&page("docs/quickstart.md"));
    assert!(
        commands >= 10 && outputs >= 10,
        "{commands} commands, {outputs} outputs"
    );
}

/// The README's section on a topic of one's own.
#[test]
fn the_readme_works_as_it_is_written() {
    let page = page("README.md");
    let section = page
        .split("\n## Your own topic")
        .nth(1)
        .expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let (commands, outputs) = run_page(section);
    assert!(
        commands >= 4 && outputs >= 1,
        "{commands} commands, {outputs} outputs"
    );
}

#[test]
fn blocks_are_found_with_their_kind() {
    let page = "a\n```sh\none\n```\nb\n```text\ntwo\nthree\n```\n\n```sh terminal\nfour\n```\n";
    let found = blocks(page);
    let expected = [
        ("sh", "one\n"),
        ("text", "two\nthree\n"),
        ("sh terminal", "four\n"),
    ];
    let expected = expected.map(|(info, text)| Block {
        info: info.into(),
        text: text.into(),
    });
    assert_eq!(found, expected);
}
