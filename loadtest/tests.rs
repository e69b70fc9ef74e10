//! The scenarios against small servers of the tests: each planted violation is found, stalls show
//! in an open loop and hide in a closed one, and what no run can use is named.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use crate::engine::Stop;
use crate::live::Live;
use crate::record::{Stamp, now_us};
use crate::report::Report;
use crate::{CommandLine, Scenario};

/// Runs a command line, without printing. Returns its report.
fn measure(line: &str) -> Result<Report> {
    let words = std::iter::once("sluicegate-load").chain(line.split_whitespace());
    let line = CommandLine::try_parse_from(words)?;
    let (stop, live) = (Stop::default(), Live::new(false, false));
    match &line.scenario {
        Scenario::Streams(args) => crate::scenarios::streams(args, live, &stop),
        Scenario::Queries(args) => crate::queries::run(args, live, &stop),
        Scenario::Commands(args) => crate::commands::run(args, live, &stop),
        Scenario::ConnectStorm(args) => crate::scenarios::connect_storm(args, live, &stop),
        Scenario::SlowReaders(args) => crate::scenarios::slow_readers(args, live, &stop),
        other => panic!("no test runs {other:?}"),
    }
}

/// Answers each request by a function of its number and its head, until the test ends.
fn server(answer: impl Fn(u64, &str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (answer, number) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (Ok(mut socket), answer, number) =
                (socket, Arc::clone(&answer), Arc::clone(&number))
            else {
                return;
            };
            std::thread::spawn(move || {
                let (mut request, mut piece) = (Vec::new(), [0; 4096]);
                while let Ok(len @ 1..) = socket.read(&mut piece) {
                    request.extend_from_slice(&piece[..len]);
                    while let Some(end) = whole(&request) {
                        let head = String::from_utf8_lossy(&request[..end]).into_owned();
                        request.drain(..end);
                        let bytes = answer(number.fetch_add(1, Ordering::SeqCst), &head);
                        if bytes.is_empty() || socket.write_all(&bytes).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// Where the first request ends, with its body.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let end = head + length.map_or(0, |digits| digits.parse().expect("a length"));
    (bytes.len() >= end).then_some(end)
}

fn sized(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A stream with records of these numbers, and ids `1`, `2` … unless `ids` says otherwise.
fn stream(numbers: &[u64], ids: &[&str]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1\n\n";
    let mut bytes = head.as_bytes().to_vec();
    // The records follow after all clients are connected.
    for (place, &number) in numbers.iter().enumerate() {
        let stamp = Stamp {
            writer: 1,
            lane: 0,
            number,
            due_us: now_us(),
        };
        bytes.extend_from_slice(b"data: ");
        stamp.write(100, &mut bytes);
        let own = (place + 1).to_string();
        let id = ids.get(place).copied().unwrap_or(&own);
        write!(bytes, "\nid: {id}\n\n").expect("a Vec takes all");
    }
    bytes
}

/// Serves streams: the head at once, the rest after half a second.
fn stream_server(numbers: &'static [u64], ids: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else {
                return;
            };
            std::thread::spawn(move || {
                let _ = socket.read(&mut [0; 4096]);
                let bytes = stream(numbers, ids);
                let head =
                    memchr::memmem::find(&bytes, b"\n\ndata").map_or(bytes.len(), |at| at + 2);
                let _ = socket.write_all(&bytes[..head]);
                std::thread::sleep(Duration::from_millis(500));
                let _ = socket.write_all(&bytes[head..]);
                let _ = socket.read(&mut [0; 1]); // Until the client closes.
            });
        }
    });
    address
}

/// The kinds of violation that a run found.
fn violations(report: &Report) -> Vec<String> {
    let mut kinds = report.violations();
    kinds.sort();
    kinds
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn planted_violations_of_a_stream_are_each_found() {
    let none: &[&str] = &[];
    let cases: [(&'static [u64], &'static [&'static str], &[&str]); 5] = [
        (&[0, 1, 2], &[], none),
        (&[0, 2], &[], &["missing"]),
        (&[0, 1, 1], &[], &["twice"]),
        (&[0, 1, 2, 0], &[], &["twice"]),
        (&[0, 1], &["a", "a"], &["without_id"]),
    ];
    for (numbers, ids, expected) in cases {
        let address = stream_server(numbers, ids);
        let line = format!("streams --url http://{address}/ --clients 3 --verify --seconds 1.5");
        let report = measure(&line).expect("it runs");
        assert_eq!(violations(&report), expected, "{numbers:?} {ids:?}");
        let each = numbers.len() as f64 * 3.0;
        assert_eq!(report.value("events"), Some(each), "{numbers:?}");
    }
}

#[test]
fn a_query_that_goes_backwards_is_found() {
    let address = server(|number, _| {
        let mut body = Vec::new();
        let stamp = Stamp {
            writer: 1,
            lane: 0,
            number: if number == 20 { 3 } else { number },
            due_us: 0,
        };
        stamp.write(100, &mut body);
        sized("200 OK", "", &String::from_utf8_lossy(&body))
    });
    let line = format!("queries --url http://{address}/x --connections 1 --rate 100 --seconds 1");
    let report = measure(&line).expect("it runs");
    assert_eq!(violations(&report), ["a query went backwards"]);
}

#[test]
fn two_answers_to_one_key_are_found_and_equal_ones_are_not() {
    for (differs, expected) in [
        (false, &[][..]),
        (true, &["two answers to one idempotency key"]),
    ] {
        let address = server(move |number, head| {
            let key = head
                .lines()
                .find(|line| line.starts_with("Idempotency-Key"));
            let key = key.expect("each command has one").to_owned();
            let body = if differs { number.to_string() } else { key };
            sized("201 Created", "", &body)
        });
        let line = format!(
            "commands --url http://{address}/pay/{{n}} --keys 5 --rate 100 --seconds 1 \
             --retry-share 0.5"
        );
        let report = measure(&line).expect("it runs");
        assert_eq!(violations(&report), expected);
        assert!(report.value("repeated").is_some_and(|count| count > 10.0));
    }
}

#[test]
fn a_command_that_fails_is_repeated_under_its_key() {
    let address = server(|number, _| match number % 3 {
        0 => sized(
            "503 Service Unavailable",
            "Retry-After: 0\r\n",
            "{\"title\":\"busy\"}",
        ),
        1 => Vec::new(), // Closes without an answer.
        _ => sized("200 OK", "", "{}"),
    });
    let line = format!("commands --url http://{address}/ --connections 2 --rate 10 --seconds 2");
    let report = measure(&line).expect("it runs");
    let done = report.value("requests").unwrap_or(0.0);
    assert!(done > 5.0, "{done} of some 18");
    assert!(violations(&report).is_empty());
    let errors = report.errors();
    assert!(
        errors
            .iter()
            .any(|(cause, example)| cause == "503" && example.contains("busy"))
    );
    assert!(errors.iter().any(|(cause, _)| cause == "connection closed"));
}

#[test]
fn a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (stall, length) = (Duration::from_millis(200), Duration::from_secs(8));
    let served: JoinHandle<Result<()>> =
        std::thread::spawn(move || crate::stall::serve(&listener, stall, length));
    let base = format!("queries --url http://{address}/ --connections 4 --seconds 3");
    let open = measure(&format!("{base} --rate 200")).expect("it runs");
    let closed = measure(&format!("{base} --closed-loop")).expect("it runs");
    let p99 = |report: &Report| report.value("p99_us").unwrap_or(0.0);
    println!(
        "p99 in an open loop {} µs, in a closed one {} µs",
        p99(&open),
        p99(&closed)
    );
    // A fifth of the requests is due within a stall of 200 ms.
    assert!(p99(&open) > 150_000.0, "{}", p99(&open));
    assert!(p99(&closed) < p99(&open), "{}", p99(&closed));
    drop(served);
}

#[test]
fn what_no_run_can_use_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let refused = closed.local_addr().expect("it is bound");
    drop(closed);
    let missing = server(|_, _| sized("404 Not Found", "", "{\"title\":\"No such route\"}"));
    let foreign = server(|_, _| b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec());
    for (line, expected) in [
        (
            format!("queries --url http://{refused}/"),
            "is the gateway running?",
        ),
        (
            format!("streams --url http://{refused}/ --clients 1"),
            "is the gateway running?",
        ),
        (
            format!("streams --url http://{missing}/ --clients 1"),
            "404: {\\\"title\\\"",
        ),
        (
            format!("streams --url http://{foreign}/ --clients 1"),
            "no HTTP/1.1 status line",
        ),
        (
            format!("queries --url http://{missing}/ --rate 0"),
            "--rate is more than 0",
        ),
        (
            format!("queries --url http://{missing}/ --connections 99999999"),
            "open files",
        ),
        (
            format!("commands --url http://{missing}/ --method GET"),
            "--method is POST",
        ),
        (
            "queries --url localhost:1".to_owned(),
            "begins with http://",
        ),
        (
            format!("queries --url http://{missing}/ --tokens /no/such"),
            "can't read --tokens",
        ),
        (
            format!("queries --url https://{missing}/ --cacert /no/such"),
            "can't read /no/such",
        ),
    ] {
        let error = measure(&line).map(|_| ()).expect_err(&line);
        let text = format!("{error:#}");
        assert!(text.contains(expected), "{line}: {text}");
    }
    // A server that answers otherwise than expected is a histogram of causes, not the end.
    let line = format!("queries --url http://{missing}/ --rate 100 --seconds 0.5");
    let errors = measure(&line).expect("it runs").errors();
    assert!(
        errors
            .iter()
            .any(|(cause, first)| cause == "404" && first.contains("No such route"))
    );
    let line = format!("queries --url http://{foreign}/ --rate 50 --seconds 0.5");
    let errors = measure(&line).expect("it runs").errors();
    assert!(errors.iter().any(|(cause, _)| cause == "malformed answer"));
}

#[test]
fn half_an_event_is_not_an_event() {
    let address = server(|_, _| {
        let whole = stream(&[0, 1], &[]);
        whole[..whole.len() - 8].to_vec()
    });
    let line = format!("streams --url http://{address}/ --clients 1 --verify --seconds 0.5");
    let report = measure(&line).expect("it runs");
    // The records come before the run begins, and the last one is not whole.
    assert_eq!(report.value("events"), Some(0.0));
    assert!(violations(&report).is_empty());
}

#[test]
fn clients_that_never_read_stay_apart_from_the_others() {
    let address = stream_server(&[0, 1, 2, 3], &[]);
    let line = format!("slow-readers --url http://{address}/ --clients 4 --slow 1 --seconds 1.5");
    let report = measure(&line).expect("it runs");
    assert_eq!(report.value("events"), Some(12.0));
    assert!(violations(&report).is_empty());
}

#[test]
fn streams_that_open_are_timed_from_when_they_were_due() {
    let address = stream_server(&[], &[]);
    let line = format!("connect-storm --url http://{address}/ --clients 20 --rate 100 --seconds 5");
    let report = measure(&line).expect("it runs");
    assert_eq!(report.value("opens"), Some(20.0));
    assert!(report.value("p99_us").is_some_and(|us| us < 1e6));
}

/// clap replaces `{n}` in a help text by a new line, so a placeholder of this name cannot be shown.
#[test]
fn no_help_has_claps_new_line_by_accident() {
    fn texts(command: &clap::Command, into: &mut Vec<String>) {
        let abouts = [command.get_about(), command.get_long_about()];
        let helps = command
            .get_arguments()
            .flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
        into.extend(
            abouts
                .into_iter()
                .chain(helps)
                .flatten()
                .map(ToString::to_string),
        );
        for inner in command.get_subcommands() {
            texts(inner, into);
        }
    }
    let mut all = Vec::new();
    texts(
        &<crate::CommandLine as clap::CommandFactory>::command(),
        &mut all,
    );
    let broken: Vec<&String> = all.iter().filter(|text| text.contains("{n}")).collect();
    assert!(
        all.len() > 100 && broken.is_empty(),
        "{} texts, {broken:?}",
        all.len()
    );
}
