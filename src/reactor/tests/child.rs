//! Tests that need a process of their own. They run this test binary again with one test and a
//! variable.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::echo::Message;
use super::{Fixture, ask, connect, plan};

/// Variable that is set for the child. Its value selects what the child does.
const CHILD: &str = "SLUICEGATE_REACTOR_CHILD";

/// Runs this test binary for one test, in which `CHILD` is set.
fn child(test: &str) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned")
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_panic_on_a_shard_ends_the_process_with_70() {
    if is_child() {
        let fixture = Fixture::start(2, plan());
        fixture.send(1, Message::Panic);
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let test = "reactor::tests::child::a_panic_on_a_shard_ends_the_process_with_70";
    let output = child(test).wait_with_output().expect("ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(
        said.contains("as told") && said.contains("'shard-1'"),
        "{said}"
    );
}

/// The child has descriptors for some clients only. The others wait in the kernel's queue and are
/// served when the first ones close.
#[test]
fn accepting_goes_on_when_descriptors_are_free_again() {
    if is_child() {
        return echo_with_few_descriptors();
    }
    let test = "reactor::tests::child::accepting_goes_on_when_descriptors_are_free_again";
    let mut child = child(test);
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = stdout.lines().map(|line| line.expect("text"));
    // The harness prints the test's name on the same line.
    let address = lines.find_map(|line| Some(line.split_once("listens on ")?.1.to_owned()));
    let address = address.expect("an address").parse().expect("an address");
    let mut clients: Vec<_> = (0..80).map(|_| connect(address)).collect();
    let late = clients.split_off(10);
    clients
        .iter_mut()
        .for_each(|client| ask(client, b"among the first"));
    // The child cannot have accepted all of the others, but they are connected.
    let mut waiting = late.into_iter().rev().collect::<Vec<_>>();
    let quick = Some(Duration::from_millis(300));
    waiting[0].set_read_timeout(quick).expect("socket");
    waiting[0].write_all(b"x").expect("sent");
    assert!(
        waiting[0].read(&mut [0]).is_err(),
        "the child has descriptors for all"
    );
    // Each of the others is accepted when an earlier one closes.
    drop(clients);
    for mut client in waiting.into_iter().rev().take(60) {
        ask(&mut client, b"later");
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("ran").success());
}

fn echo_with_few_descriptors() {
    let open = std::fs::read_dir("/proc/self/fd").expect("proc").count() as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(open + 60),
        maximum,
    };
    // Set it before the first accept, because an accept request keeps the limit of the time it was
    // made.
    setrlimit(Resource::Nofile, few).expect("lowered");
    let fixture = Fixture::start(1, plan());
    println!("listens on {}", fixture.address);
    // The parent closes standard input when the child should end.
    let _ = std::io::stdin().read(&mut [0]);
}
