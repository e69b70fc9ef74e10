//! The second step of a new user: a config and a service of their own, with `init` and `dev`.

mod live;
mod pages;
mod services;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::Request;
use crate::gateway::{self, Gateway, config_file, run_to_end};
use crate::kcat::{self, Produce};

/// An address of this machine that is free.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it is bound")
}

/// A running `sluicegate dev`, and the address of its broker.
struct Dev {
    gateway: Gateway,
    kafka: String,
}

impl Dev {
    /// Starts `dev` in a folder that has a `gateway.toml`, on free ports.
    fn start(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let kafka = free_address().to_string();
        let mut command = Command::new(gateway::binary());
        let output = File::create(folder.path().join("dev.out")).expect("a file");
        command
            .args(["dev", "gateway.toml", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--kafka-bootstrap", &kafka])
            .args(flags)
            .current_dir(folder.path())
            .stdout(output);
        let gateway = Gateway::spawn(command, folder, 1);
        gateway.wait_serving();
        Self { gateway, kafka }
    }

    /// Starts it in a folder that `init` has written.
    fn init(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        init(folder.path(), flags);
        Self::start(folder, &[])
    }

    /// What it printed to standard output.
    fn printed(&self) -> String {
        let path = self.gateway.folder().join("dev.out");
        std::fs::read_to_string(path).expect("it was created")
    }
}

/// Runs `sluicegate init` in a folder, and returns what it prints.
fn init(folder: &Path, flags: &[&str]) -> String {
    let done = Command::new(gateway::binary())
        .arg("init")
        .args(flags)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn dev_has_the_topics_of_the_config_and_creates_more_for_other_clients() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[[command]]\nname = \"c\"\nroute = \"POST /c\"\ntopic = \"commands\"\n\
                  replies = \"replies\"\n[[query]]\nroute = \"GET /q\"\ntopic = \"state\"\n\
                  [[stream]]\nroute = \"GET /s\"\ntopic = \"events\"\n";
    std::fs::write(folder.path().join("gateway.toml"), config).expect("write");
    let mut dev = Dev::start(folder, &["--partitions", "5"]);
    let printed = dev.printed();
    assert!(printed.contains("not for production"), "{printed}");
    assert!(printed.contains("  state   compacted\n"), "{printed}");
    assert!(printed.contains("  events\n"), "{printed}");
    let list = Command::new("kcat").args(["-b", &dev.kafka, "-L"]).output();
    let list = String::from_utf8(list.expect("kcat").stdout).expect("text");
    for topic in ["commands", "replies", "state", "events"] {
        let line = format!("topic \"{topic}\" with 5 partitions");
        assert!(list.contains(&line), "{line}: {list}");
    }
    // A topic that no route names is created by the first client that produces to it.
    Produce::to(&dev.kafka, "other").keyed([("k", "v")]);
    assert_eq!(kcat::read(&dev.kafka, "other").len(), 1);
    // The query is answered, from the same process.
    let answer = dev.gateway.get("/q");
    assert_eq!(
        (answer.status, answer.text().trim()),
        (200, "[]"),
        "{answer:?}"
    );
    // One signal ends both, at once although `run` would drain for seconds.
    let kafka: SocketAddr = dev.kafka.parse().expect("an address");
    let began = std::time::Instant::now();
    dev.gateway.signal(rustix::process::Signal::INT);
    assert_eq!(dev.gateway.wait().code(), Some(0));
    assert!(
        began.elapsed() < std::time::Duration::from_secs(5),
        "`drain_grace` is 0 here"
    );
    assert!(
        std::net::TcpStream::connect(kafka).is_err(),
        "the broker ended with it"
    );
}

#[test]
fn the_start_names_version_config_driver_shards_and_routes() {
    let dev = Dev::init(&[]);
    let said = dev.gateway.said();
    for words in [
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        "config=\"gateway.toml\"",
        "driver=\"io_uring\"",
        "cpus=",
        "shards=",
        "route command  POST /accounts/{id}/payments  payments-commands -> payments-replies",
        "route stream   GET /accounts/{id}/events",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Each curl line that `routes` prints is pasted into a shell as it is.
#[test]
fn each_curl_line_reaches_its_route() {
    let dev = Dev::init(&["--example", "orders"]);
    let path = dev.gateway.folder().join("gateway.toml");
    let address = dev.gateway.address().to_string();
    let arguments = [
        "routes",
        path.to_str().expect("UTF-8"),
        "--listen",
        &address,
    ];
    let (code, out, said) = run_to_end(&arguments, &[]);
    assert_eq!(code, 0, "{said}");
    let lines = out.lines().filter(|it| it.trim().starts_with("curl "));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 5, "{out}");
    for line in lines {
        let line = line.replacen("curl ", "curl -s --max-time 2 ", 1);
        let done = Command::new("sh").args(["-c", &line]).output().expect("sh");
        let answer = String::from_utf8_lossy(&done.stdout).into_owned();
        // There is no service, so a command gets no reply in time; a key has no record.
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let is_stream = line.contains(" -N ");
        let expected = if is_stream {
            answer.contains("retry:")
        } else if line.contains("Idempotency-Key") {
            status.is_empty() && done.status.code() == Some(28)
        } else {
            status == "200" || (status == "404" && answer.contains("not-found"))
        };
        assert!(expected, "{line}: {answer}");
    }
    let explain = [
        "routes",
        path.to_str().expect("UTF-8"),
        "--explain",
        "GET",
        "/orders/7",
    ];
    let (code, out, said) = run_to_end(&explain, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        out.contains("matches the query") && out.contains("{id} = 7"),
        "{out}"
    );
    let explain = [
        "routes",
        path.to_str().expect("UTF-8"),
        "--explain",
        "GET",
        "/x",
    ];
    let (code, out, _) = run_to_end(&explain, &[]);
    assert!(
        code == 1 && out.contains("segment 1 is `orders`, not `x`"),
        "{code}: {out}"
    );
}

#[test]
fn dev_takes_no_address_that_is_not_its_own() {
    let route = "[[query]]\nroute = \"GET /q\"\ntopic = \"state\"\n";
    let foreign = format!("[kafka]\nbootstrap = [\"kafka.example:9092\"]\n{route}");
    let (_folder, path) = config_file(&foreign);
    let path = path.to_str().expect("UTF-8");
    let (code, _, said) = run_to_end(&["dev", path], &[]);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("kafka.example:9092, which is not on this machine"),
        "{said}"
    );
    assert!(said.contains("gateway.toml:2:13"), "{said}");
    // Another broker has the address.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (code, _, said) = run_to_end(&["dev", path, "--kafka-bootstrap", &address], &[]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

/// A service that is started with `KAFKA` and answers a command, and one request to it.
fn pay(to: &str, key: &str) -> Request {
    let body = format!("{{\"to\":\"{to}\",\"amount_cents\":250}}");
    Request::post("/accounts/ana/payments", &body).header("Idempotency-Key", &format!("\"{key}\""))
}
