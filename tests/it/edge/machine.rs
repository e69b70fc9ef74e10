//! Resources of the machine: descriptors, CPUs, kernel memory, clients' hosts.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluicegate::broker::{NodeId, Settings};
use sluicegate::demo::listener::BrokerHandle;

use crate::app::App;
use crate::client::{Connection, PATIENCE, Request, Response};
use crate::gateway::{BINARY, Gateway, config_file};
use crate::ground::{Ground, development, random};

/// The soft and the hard limit of open files of a process.
fn open_files(gateway: &Gateway) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid()));
    let limits = limits.expect("a process of ours");
    let line = limits.lines().find(|it| it.starts_with("Max open files"));
    let numbers: Vec<u64> = line
        .expect("Linux has it")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

/// Runs the gateway under a shell that first does something to itself.
fn under(shell: &str) -> Vec<String> {
    ["sh", "-c", &format!("{shell}; exec \"$0\" \"$@\"")]
        .map(String::from)
        .into()
}

#[test]
fn the_soft_limit_of_open_files_is_raised_and_a_low_one_is_named() {
    let app = App::new(development());
    let limits = under("ulimit -Sn 100; ulimit -Hn 2000");
    let gateway = Gateway::launch_under(&limits, &app.config(1, ""), &[]);
    gateway.wait_serving();
    assert_eq!(open_files(&gateway), (2000, 2000));
    gateway.wait_said_text("http.connections_max is 100000");
    assert!(
        gateway.said().contains("limit of 2000 open files"),
        "{}",
        gateway.said()
    );
    let few = "[http]\nconnections_max = 1000\n";
    let gateway = Gateway::launch_under(&limits, &app.config(1, few), &[]);
    gateway.wait_serving();
    assert!(
        !gateway.said().contains("connections_max"),
        "{}",
        gateway.said()
    );
}

#[test]
fn check_names_a_limit_of_open_files_that_is_too_low() {
    let config = App::new(development()).config(1, "");
    let (_folder, path) = config_file(&config);
    let done = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 500; exec \"$0\" check --config \"$1\"",
            BINARY,
        ])
        .arg(&path)
        .env("NO_COLOR", "1")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("http.connections_max is 100000"), "{said}");
    assert!(words.contains("limit of 500 open files"), "{said}");
}

/// A gateway that closed every client would call itself ready.
#[test]
fn a_limit_of_open_files_that_leaves_clients_none_is_refused() {
    let config = App::new(development()).config(2, "");
    let (_folder, path) = config_file(&config);
    for subcommand in ["run", "check"] {
        let done = Command::new("sh")
            .args([
                "-c",
                "ulimit -n 40; exec \"$0\" \"$1\" --config \"$2\"",
                BINARY,
                subcommand,
            ])
            .arg(&path)
            .env("NO_COLOR", "1")
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{subcommand}: {said}");
        assert!(said.contains("may open 40 files"), "{subcommand}: {said}");
    }
}

/// More clients than `http.connections_max`: a state like any other shortage, and it ends.
#[test]
fn clients_beyond_the_limit_of_connections_are_reported() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = Gateway::start(&app.config(2, "[http]\nconnections_max = 16\n"));
    let clients: Vec<_> = (0..24).map(|_| gateway.connect()).collect();
    let reported = |answer: &Response| answer.text().contains("http.connections_max (16)");
    let answer = gateway.wait_admin("/readyz", reported);
    assert_eq!(
        (answer.status, &answer.json()["degraded"]),
        (200, &true.into())
    );
    gateway.wait_said_text("used up http.connections_max (16)");
    let refused = gateway.metric("sluicegate_connections_refused_total", "connections");
    assert!(refused >= 1.0, "{refused}");
    drop(clients);
    gateway.wait_admin("/readyz", |answer| !reported(answer));
    let said = gateway.said();
    assert_eq!(said.matches("used up http.connections_max").count(), 1);
}

/// More clients than descriptors. Connected clients are served, further ones are closed at once,
/// and the admin port, the brokers and freed descriptors work.
#[test]
fn clients_never_use_up_what_admin_and_brokers_need() {
    let broker = BrokerHandle::start(Settings::default(), random(), ([127, 0, 0, 1], 0).into());
    let broker = broker.expect("a free port");
    let app = App::new(&Ground::at(&broker.bootstrap()));
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = Gateway::launch_under(&under("ulimit -n 400"), &app.config(2, ""), &[]);
    gateway.wait_serving();
    gateway.wait_until(&Request::get("/items/a"), |it| it.text() == "1");
    let mut clients: Vec<Connection> = (0..500).map(|_| gateway.connect()).collect();
    let refused = || gateway.metric("sluicegate_connections_refused_total", "descriptors");
    let until = Instant::now() + PATIENCE;
    while refused() + (gateway.status_sum("connections") as f64) < 500.0 {
        assert!(Instant::now() < until, "{} refused", refused());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(refused() > 100.0, "{}", refused());
    // The admin port answers and reports the shortage. Connected clients are served.
    assert_eq!(gateway.admin_get("/livez").status, 200);
    let ready = gateway.wait_admin("/readyz", |it| it.text().contains("file descriptors"));
    assert_eq!(
        (ready.status, &ready.json()["degraded"]),
        (200, &true.into())
    );
    gateway.wait_said_text("clients have used up the file descriptors");
    // Surplus clients have been closed, without a byte and without a wait.
    clients.last_mut().expect("500 of them").expect_close();
    // Brokers can be reached again, for reads and for writes.
    broker.with(|it| it.cut_connections(NodeId(1)));
    app.produce(&app.items).keyed([("a", "2")]);
    let until = Instant::now() + PATIENCE;
    while clients[0].ask(&Request::get("/items/a")).text() != "2" {
        assert!(Instant::now() < until, "{}", gateway.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let hasty = Request::post("/hasty/a", "{}");
    while app.commands_in_log().is_empty() {
        assert!(Instant::now() < until, "{}", gateway.said());
        let answer = clients[1].ask(&hasty);
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    }
    // Freed descriptors serve other clients.
    clients.truncate(10);
    gateway.wait_admin("/status", |_| gateway.status_sum("connections") < 100);
    assert_eq!(gateway.get("/items/a").text(), "2");
    gateway.wait_admin("/readyz", |it| !it.text().contains("file descriptors"));
    assert_eq!(
        gateway
            .said()
            .matches("used up the file descriptors")
            .count(),
        1
    );
}

/// Bytes that the kernel holds for the clients of a port, by connection (proc(5), `tx_queue`).
fn send_queues(address: SocketAddr) -> Vec<usize> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let local = format!(":{:04X}", address.port());
    let queue = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields[1].ends_with(&local) && fields[3] == "01";
        let (queue, _) = fields[4].split_once(':')?;
        ours.then(|| usize::from_str_radix(queue, 16).expect("hex"))
    };
    table.lines().skip(1).filter_map(queue).collect()
}

#[test]
fn the_kernel_keeps_little_for_a_stream_that_is_not_read() {
    let app = App::new(development());
    let settings = "[streams]\nsend_buffer_bytes = \"32KiB\"\n";
    let gateway = app.gateway_with(1, settings);
    let streams: Vec<TcpStream> = (0..3)
        .map(|_| {
            let socket = TcpStream::connect(gateway.address()).expect("it listens");
            let request = Request::get("/events/all").bytes();
            std::io::Write::write_all(&mut &socket, &request).expect("sent");
            socket
        })
        .collect();
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 3);
    let value = "v".repeat(100_000);
    for n in 0..120 {
        app.produce(&app.events)
            .keyed([(n.to_string().as_str(), value.as_str())]);
    }
    let until = Instant::now() + PATIENCE;
    let sent = || gateway.metric("sluicegate_sent_bytes_total", "");
    let mut before = (0.0, vec![]);
    // Until the queues stop changing.
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = (sent(), send_queues(gateway.address()));
        if now == before && now.1.len() == 3 && now.1.iter().all(|it| *it > 0) {
            break;
        }
        assert!(Instant::now() < until, "{now:?}");
        before = now;
    }
    // 32 KiB are doubled, and one segment may be begun below the limit.
    assert!(before.1.iter().all(|it| *it <= 192 << 10), "{before:?}");
    drop(streams);
}

/// CPUs on which shards' threads may run, each list once, in the kernel's notation. (A shard has
/// two threads with its name: glommio starts one for blocking calls.)
fn cpus_of_shards(gateway: &Gateway) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("a process of ours");
    let mut shards = BTreeSet::new();
    for task in tasks.flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("shard-") {
            let status = read("status");
            let list = status
                .lines()
                .find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
            shards.insert(list.expect("Linux has it").trim().to_owned());
        }
    }
    shards
}

#[test]
fn shards_are_pinned_only_where_they_fill_the_machine_or_are_told_to() {
    let app = App::new(development());
    let config = app.config(1, "");
    let all = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let all = all
        .lines()
        .find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
    let all = all.expect("Linux has it").trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let lists = |flags: &[&str]| {
        let gateway = Gateway::launch_with(&config, flags);
        gateway.wait_serving();
        cpus_of_shards(&gateway)
    };
    let one = |list: &str| BTreeSet::from([list.to_owned()]);
    if cpus > 1 {
        let free = lists(&["--shards=1"]);
        assert_eq!(free, one(&all), "two gateways of one shard share no CPU");
    }
    let pinned = lists(&[&format!("--shards={cpus}")]);
    assert_eq!(pinned.len(), cpus, "{pinned:?}");
    assert_eq!(lists(&["--shards=1", "--cpus=0"]), one("0"));
}

/// A cgroup with a CPU quota, version 1 or 2. Removed when dropped.
struct Quota(std::path::PathBuf);

impl Quota {
    /// Half a CPU. `None` if this machine does not allow one.
    fn half() -> Option<Self> {
        let name = format!("sluicegate-test-{}", std::process::id());
        let (v1, v2) = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup");
        let made = |root: &str, file: &str, text: &str| {
            let folder = std::path::Path::new(root).join(&name);
            fs::create_dir(&folder).ok()?;
            let quota = Self(folder);
            fs::write(quota.0.join(file), text).ok()?;
            Some(quota)
        };
        made(v1, "cpu.cfs_quota_us", "50000").or_else(|| made(v2, "cpu.max", "50000 100000"))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        // Its last process may still be ending.
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_cpu_quota_bounds_the_number_of_shards() {
    let Some(quota) = Quota::half() else {
        eprintln!("skipped: no cgroup with a CPU quota can be made here");
        return;
    };
    let app = App::new(development());
    let config = app.config(2, "").replacen("shards = 2\n", "", 1);
    let join = under(&format!("echo $$ >{}/cgroup.procs", quota.0.display()));
    let gateway = Gateway::launch_under(&join, &config, &[]);
    gateway.wait_serving();
    assert_eq!(
        gateway.metric("sluicegate_shards", ""),
        1.0,
        "half a CPU is one shard"
    );
    drop(gateway);
}

/// A network namespace with a cable that can be cut: no FIN and no reset leaves it.
struct Network {
    name: String,
    inside: String,
    ours: String,
}

fn ip(arguments: &str) {
    let words = arguments.split_whitespace();
    let done = Command::new("ip").args(words).output();
    let done = done.expect("ip, which tests/setup installs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success(),
        "ip {arguments}: {said} (this test needs root)"
    );
}

impl Network {
    fn new() -> Self {
        let number = random() % 60_000;
        let (name, outside) = (format!("sg{number}"), format!("sgo{number}"));
        let inside = format!("sgi{number}");
        let subnet = format!("10.{}.{}", 64 + number / 256 % 64, number % 256);
        ip(&format!("netns add {name}"));
        let network = Self {
            ours: format!("{subnet}.1"),
            name: name.clone(),
            inside: inside.clone(),
        };
        ip(&format!(
            "link add {outside} type veth peer name {inside} netns {name}"
        ));
        ip(&format!("addr add {subnet}.1/24 dev {outside}"));
        ip(&format!("link set {outside} up"));
        ip(&format!("-n {name} addr add {subnet}.2/24 dev {inside}"));
        ip(&format!("-n {name} link set {inside} up"));
        network
    }

    /// A client within it that reads a stream.
    fn stream(&self, url: &str) -> Child {
        let mut client = Command::new("ip");
        client.args(["netns", "exec", &self.name, "curl", "-sN", url]);
        client.stdout(Stdio::null()).stderr(Stdio::null());
        client.spawn().expect("curl, which tests/setup installs")
    }

    fn cut(&self) {
        ip(&format!("-n {} link set {} down", self.name, self.inside));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // This removes the cable, too.
        let _gone = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A host that is switched off sends nothing. Its streams are closed, both a quiet stream and a
/// stream with bytes in transit.
#[test]
fn clients_whose_host_vanishes_are_noticed() {
    let app = App::new(development());
    let network = Network::new();
    let settings = "[http]\nvanished_timeout = \"3s\"\nwrite_timeout = \"3s\"\n";
    let config = app.config(1, settings).replacen(
        "listen = [\"127.0.0.1:0\"]",
        &format!("auth = \"none\"\nlisten = [\"{}:0\"]", network.ours),
        1,
    );
    let gateway = Gateway::start(&config);
    let url = |path: &str| format!("http://{}{path}", gateway.address());
    let mut clients = [
        network.stream(&url("/events/live")),
        network.stream(&url("/items-now")),
    ];
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 2);
    // The host answers probes: a quiet client stays connected.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(gateway.status_sum("streams"), 2);
    network.cut();
    app.produce(&app.events)
        .keyed([("a", "on its way to nobody")]);
    gateway.wait_admin("/status", |_| gateway.status_sum("streams") == 0);
    let ended = gateway.metric("sluicegate_streams_ended_total", "reason=\"client\"");
    assert_eq!(ended, 2.0);
    for client in &mut clients {
        let _gone = client.kill();
        let _status = client.wait();
    }
}
