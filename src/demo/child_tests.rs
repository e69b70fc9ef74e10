//! The supervisor with a stand-in for the gateway: `sleep`, and a `/readyz` that the test serves.

use std::sync::Weak;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::child::{Gateway, GatewayError, Launch, State, Supervisor};
use super::faults::Faults;
use super::listener::BrokerHandle;
use super::outside::OutsideCommands;
use super::topics;
use crate::broker::Settings;

/// A broker with the commands topic, for the payments while the gateway is down.
fn broker() -> BrokerHandle {
    let any = "127.0.0.1:0".parse().expect("an address");
    let broker = BrokerHandle::start(Settings::default(), 1, any).expect("a broker");
    let made = broker.with(|b| b.create_topic("payments-commands", 5, &[]));
    made.expect("a topic");
    broker
}

async fn launch(script: &str) -> Launch {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let admin = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 256]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    });
    Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        admin,
    }
}

fn is_running(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::test_kill_process(pid).is_ok()
}

async fn until(gateway: &Gateway, what: impl Fn(&super::child::Status) -> bool) {
    for _ in 0..500 {
        if what(&gateway.status()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {:?}", gateway.status());
}

#[tokio::test]
async fn a_restart_kills_and_starts_and_something_happens_between() {
    let broker = broker();
    let outside = OutsideCommands {
        bootstrap: broker.bootstrap(),
    };
    let launch = launch("exec sleep 1000").await;
    let (supervisor, gateway) = Supervisor::start(launch).await.expect("it starts");
    let faults = Faults::new(vec![gateway.clone()], outside, Weak::new());
    let (stop, stopped) = oneshot::channel();
    let kept = tokio::spawn(supervisor.supervise(stopped));
    let first = gateway.status().pid.expect("a process");
    assert_eq!(gateway.status().state, State::Up);

    let killed = faults.kill(None).await.expect("it restarts");
    let restarted = killed.restarts[0];
    assert_eq!(restarted.killed_pid, Some(first));
    assert!(!is_running(first), "kill means gone");
    let second = restarted.pid.expect("a process");
    assert!(second != first && is_running(second));
    assert_eq!((killed.commands_meanwhile, restarted.restarts), (2, 1));
    let appended: usize = broker.with(|broker| {
        let partitions = 0..u32::from(topics::COMMANDS.partitions);
        let count = |p| broker.dump("payments-commands", crate::model::Partition(p));
        partitions
            .map(|p| count(p).expect("a partition").len())
            .sum()
    });
    assert_eq!(appended, 2);

    drop(stop);
    kept.await.expect("no panic");
    assert!(!is_running(second), "the end is the child's end, too");
}

#[tokio::test]
async fn a_gateway_that_dies_by_itself_is_started_again() {
    let launch = launch("exec sleep 1000").await;
    let (supervisor, gateway) = Supervisor::start(launch).await.expect("it starts");
    let (_stop, stopped) = oneshot::channel();
    let kept = tokio::spawn(supervisor.supervise(stopped));
    let first = gateway.status().pid.expect("a process");
    let pid = Pid::from_raw(first.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    until(&gateway, |s| s.state == State::Up && s.restarts == 1).await;
    assert_ne!(gateway.status().pid, Some(first));
    kept.abort();
}

#[tokio::test]
async fn a_gateway_that_cannot_start_ends_the_demo() {
    let mut launch = launch("exit 78").await;
    launch.admin = "127.0.0.1:1"
        .parse()
        .expect("an address that nobody serves");
    let ended = Supervisor::start(launch.clone()).await;
    match ended.map(|_| ()) {
        Err(GatewayError::Ended(status)) => assert_eq!(status.code(), Some(78)),
        other => panic!("{other:?}"),
    }
    launch.program = "/no/such/program".into();
    let ended = Supervisor::start(launch).await;
    let error = ended.map(|_| ()).expect_err("there is no program");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}
