//! A minimal server: accepts, answers with one head, then sends the same bytes to every client with
//! one `send` each, on a schedule. It does no parsing, and has no timer but the schedule and no
//! state per client but the socket. A gateway's cost is given as a multiple of this.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::net::{Poller, allow_sockets};
use crate::record::{SIZE_MIN, Stamp, now_us};
use crate::report::{Output, ReportOptions};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\nretry: 1000\n\n";

/// Bytes of a frame besides record and id: `data: `, two line breaks, `id: `, the empty line.
const FRAME_OVERHEAD: usize = 6 + 1 + 4 + 1 + 1;

/// Fewest digits of an id, so that each id is unique.
const ID_SIZE_MIN: usize = 12;

/// Time for clients to notice that all of them are open.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on. The first line printed has the real one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Number of clients to wait for before sending.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events per second to each client.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Events that are due and sent together.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// Bytes of an event's record.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Bytes of an event on the connection, including its id and line breaks.
    #[arg(long, default_value_t = 260)]
    frame: usize,
    /// Number of events to send.
    #[arg(long, default_value_t = 200)]
    events: u64,
    /// Answer GETs instead, and answer none for so many milliseconds of every second: what a load
    /// generator makes of a server that stalls.
    #[arg(long, value_name = "STALL_MS")]
    gets: Option<u64>,
    /// With --gets: seconds until the server ends.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(args: &Args, options: &ReportOptions) -> Result<Vec<String>> {
    if let Some(stall_ms) = args.gets {
        return crate::stall::run(args.listen, stall_ms, args.seconds);
    }
    ensure!(args.size >= SIZE_MIN, "--size is at least {SIZE_MIN}");
    let frame_min = args.size + FRAME_OVERHEAD + ID_SIZE_MIN;
    ensure!(args.frame >= frame_min, "--frame is at least {frame_min}");
    ensure!(
        args.rate > 0.0 && args.burst > 0,
        "--rate and --burst are positive"
    );
    allow_sockets(args.clients)?;
    let listener = TcpListener::bind(args.listen)?;
    if options.output == Output::Text {
        println!("listening {}", listener.local_addr()?);
        std::io::stdout().flush()?;
    }
    let mut clients = accept_all(&listener, args.clients)?;
    std::thread::sleep(PAUSE);
    let every = Duration::from_secs_f64(args.burst as f64 / args.rate);
    let (start, start_us, writer) = (Instant::now(), now_us(), now_us());
    let (mut number, mut tick, mut short) = (0, 0, 0);
    let mut frames = Vec::new();
    while number < args.events {
        let due = every * tick;
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        frames.clear();
        for _ in 0..args.burst {
            let stamp = Stamp {
                writer,
                lane: 0,
                number,
                due_us: start_us + due.as_micros() as u64,
            };
            put_frame(&stamp, args, &mut frames);
            number += 1;
        }
        short += send_all(&mut clients, &frames);
        tick += 1;
    }
    // The clients disconnect when they have all events.
    for client in &mut clients {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        let _ = client.read(&mut [0; 16]);
    }
    match options.output {
        Output::Text => println!("sent {number}"),
        Output::Json => println!("{{\"scenario\":\"raw\",\"figures\":{{\"sent\":{number}}}}}"),
    }
    Ok(match short {
        0 => Vec::new(),
        short => vec![format!("{short} sends came up short")],
    })
}

/// Accepts clients and answers each request when it arrives.
fn accept_all(listener: &TcpListener, wanted: usize) -> Result<Vec<TcpStream>> {
    let (poller, mut clients, mut names) = (Poller::new()?, Vec::new(), Vec::new());
    listener.set_nonblocking(true)?;
    poller.add(listener, wanted)?;
    let mut answered = 0;
    while answered < wanted {
        poller.wait(Duration::from_secs(1), &mut names)?;
        for name in names.drain(..) {
            if name == wanted {
                let accepted = match listener.accept() {
                    Ok((accepted, _)) => accepted,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                accepted.set_nodelay(true)?;
                accepted.set_nonblocking(true)?;
                ensure!(clients.len() < wanted, "more clients than --clients");
                poller.add(&accepted, clients.len())?;
                clients.push(accepted);
                continue;
            }
            let client: &mut TcpStream = &mut clients[name];
            let asked = client.read(&mut [0; 4096])?;
            ensure!(asked > 0, "a client left");
            client.write_all(HEAD)?;
            answered += 1;
        }
    }
    Ok(clients)
}

/// Writes one event of exactly the requested size.
fn put_frame(stamp: &Stamp, args: &Args, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(b"data: ");
    stamp.write(args.size, into);
    into.extend_from_slice(b"\nid: ");
    let width = args.frame - args.size - FRAME_OVERHEAD;
    write!(into, "{:0width$}\n\n", stamp.number).expect("a Vec takes all");
    debug_assert_eq!(into.len() - start, args.frame);
}

/// Sends to each client once. Returns how many did not accept all bytes, which should be 0.
fn send_all(clients: &mut [TcpStream], bytes: &[u8]) -> u64 {
    let mut short = 0;
    for client in clients {
        // The standard library's `write` on a socket is `send` with MSG_NOSIGNAL.
        short += u64::from(!matches!(client.write(bytes), Ok(sent) if sent == bytes.len()));
    }
    short
}
