//! Clients that send frames to cost the gateway work: each is sent away with GOAWAY, memory stays
//! bounded, and no more is produced than streams were allowed (RFC 9113 10.5).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::PATIENCE;
use crate::gateway::Gateway;
use crate::ground::development;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Error codes (RFC 9113 7).
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames that a flood sends.
const FRAMES: usize = 1_000_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A block of fields for a request, without compression (RFC 7541 6.2.2).
fn fields(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A request without a body, or the head of one with a body.
fn head(stream: u32, method: &str, path: &str, ends: bool) -> Vec<u8> {
    frame(1, 4 | u8::from(ends), stream, &fields(method, path))
}

/// Opens a connection, sends SETTINGS, and then what `flood` makes until the gateway closes the
/// connection. Returns the code of its GOAWAY and the frames that were sent.
fn flood(address: SocketAddr, mut flood: impl FnMut(usize) -> Vec<u8>) -> (Option<u32>, usize) {
    let mut socket = TcpStream::connect(address).expect("connect");
    let mut reader = socket.try_clone().expect("a second handle");
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut part = [0; 16 * 1024];
        // A reset may follow the GOAWAY, because more was sent than is discarded.
        while let Ok(count @ 1..) = reader.read(&mut part) {
            bytes.extend_from_slice(&part[..count]);
        }
        goaway(&bytes)
    });
    socket
        .set_write_timeout(Some(PATIENCE))
        .expect("a bound for writes");
    let mut first = PREFACE.to_vec();
    first.extend_from_slice(&frame(4, 0, 0, &[]));
    socket.write_all(&first).expect("written");
    let mut sent = 0;
    while sent < FRAMES {
        let batch: Vec<u8> = (sent..sent + 100).flat_map(&mut flood).collect();
        match socket.write_all(&batch) {
            Ok(()) => sent += 100,
            Err(error) => {
                let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(kinds.contains(&error.kind()), "{error}");
                break;
            }
        }
    }
    (read.join().expect("no panic"), sent)
}

/// The error code of the first GOAWAY that is no mere warning.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    while bytes.len() >= 9 {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let (kind, payload) = (bytes[3], bytes.get(9..9 + len)?);
        if kind == 7 {
            let code: [u8; 4] = payload[4..8].try_into().expect("four bytes");
            return Some(u32::from_be_bytes(code));
        }
        bytes = &bytes[9 + len..];
    }
    None
}

/// Resident memory in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()));
    let status = status.expect("a process of ours");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|it| it.parse().ok()).expect("a number")
}

#[test]
fn idle_frames_end_the_connection() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let address = gateway.address();
    let before = resident(&gateway);
    let ping = |_| frame(6, 0, 0, &[0; 8]);
    let settings = |_| frame(4, 0, 0, &[]);
    let priority = |_| frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    let unknown = |_| frame(0xfa, 0, 0, &[]);
    let window = |_| frame(8, 0, 0, &[0, 0, 0, 1]);
    let empty = |n| match n {
        0 => head(1, "POST", "/items/a/orders", false),
        _ => frame(0, 0, 1, &[]),
    };
    type MakeFrame<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let floods: [(&str, MakeFrame<'_>); 6] = [
        ("PING", &ping),
        ("SETTINGS", &settings),
        ("PRIORITY", &priority),
        ("unknown", &unknown),
        ("WINDOW_UPDATE", &window),
        ("empty DATA", &empty),
    ];
    for (name, make) in floods {
        let began = Instant::now();
        let (code, sent) = flood(address, make);
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{name}");
        // What the kernel's buffers took may be sent, no more.
        assert!(sent < FRAMES, "{name}: all frames were taken");
        assert!(began.elapsed() < Duration::from_secs(20), "{name}");
    }
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
    let floods = gateway.metric("sluicegate_http2_goaways_total", "cause=\"flood\"");
    assert_eq!(floods, 6.0);
    assert_eq!(gateway.get("/items/none").status, 404, "others are served");
}

/// CVE-2023-44487: each request is reset at once.
#[test]
fn rapid_resets_end_the_connection() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let rapid = |n: usize| {
        let stream = u32::try_from(n * 2 + 1).expect("small");
        let mut both = head(stream, "POST", "/items/a/orders", true);
        both.extend_from_slice(&frame(3, 0, stream, &[0, 0, 0, 8]));
        both
    };
    let (code, sent) = flood(gateway.address(), rapid);
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert!(sent < FRAMES);
    // The client had 200 resets. A request that was reset before it was looked at produced nothing.
    assert!(
        app.commands_in_log().len() <= 200,
        "{}",
        app.commands_in_log().len()
    );
    assert_eq!(gateway.get("/items/none").status, 404, "others are served");
}

/// CVE-2025-8671: the client makes the gateway reset each request, by breaking a rule.
#[test]
fn made_resets_end_the_connection() {
    let app = App::new(development());
    let gateway = app.gateway(1);
    let made = |n: usize| {
        let stream = u32::try_from(n * 2 + 1).expect("small");
        let mut both = head(stream, "POST", "/items/a/orders", true);
        // A window that grows by nothing is an error of the stream.
        both.extend_from_slice(&frame(8, 0, stream, &[0, 0, 0, 0]));
        both
    };
    let (code, sent) = flood(gateway.address(), made);
    assert!(code.is_some(), "GOAWAY");
    assert!(sent < FRAMES);
    assert!(
        app.commands_in_log().len() <= 200,
        "{}",
        app.commands_in_log().len()
    );
    assert_eq!(gateway.get("/items/none").status, 404, "others are served");
}

/// CVE-2024-27316: a head that never ends.
#[test]
fn endless_heads_end_the_connection() {
    let app = App::new(development());
    let gateway = app.gateway_with(1, "[http]\nhead_timeout = \"1s\"\n");
    let before = resident(&gateway);
    let endless = |n: usize| match n {
        0 => frame(1, 0, 1, &fields("GET", "/items/a")),
        _ => frame(9, 0, 1, b"\x00\x01x\x01y"),
    };
    let (code, sent) = flood(gateway.address(), endless);
    assert!(
        matches!(code, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)),
        "{code:?}"
    );
    assert!(sent < FRAMES);
    // One that stops in the middle: the time for a head is over.
    let mut socket = TcpStream::connect(gateway.address()).expect("connect");
    let mut bytes = PREFACE.to_vec();
    bytes.extend_from_slice(&frame(4, 0, 0, &[]));
    bytes.extend_from_slice(&frame(1, 0, 1, &fields("GET", "/items/a")));
    socket.write_all(&bytes).expect("written");
    let mut said = Vec::new();
    socket.set_read_timeout(Some(PATIENCE)).expect("a bound");
    socket.read_to_end(&mut said).expect("the end");
    assert_eq!(goaway(&said), Some(0), "{said:?}");
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}
