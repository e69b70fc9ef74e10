//! A server that answers GETs at once, except in the first part of every second, when it answers
//! nothing. It shows what a load generator makes of stalls: an open loop reports them, a closed
//! loop hides them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::net::Poller;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
/// Most connections.
const CONNECTIONS_MAX: usize = 4096;
/// Name of the listener among the sockets.
const LISTENER: usize = usize::MAX;

/// Serves until the time is up.
pub(crate) fn run(listen: SocketAddr, stall_ms: u64, seconds: u64) -> Result<Vec<String>> {
    ensure!(stall_ms < 1000, "a stall is shorter than its second");
    let listener = TcpListener::bind(listen)?;
    println!("listening {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    serve(
        &listener,
        Duration::from_millis(stall_ms),
        Duration::from_secs(seconds),
    )?;
    Ok(Vec::new())
}

/// Serves the listener's connections for so long, with a stall at the start of each second.
pub(crate) fn serve(listener: &TcpListener, stall: Duration, length: Duration) -> Result<()> {
    listener.set_nonblocking(true)?;
    let poller = Poller::new()?;
    poller.add(listener, LISTENER)?;
    let mut clients: Vec<Option<TcpStream>> = Vec::new();
    let (start, mut names, mut scratch) = (Instant::now(), Vec::new(), vec![0; 16 * 1024]);
    while start.elapsed() < length {
        let within = Duration::from_nanos(u64::from(start.elapsed().subsec_nanos()));
        std::thread::sleep(stall.saturating_sub(within));
        names.clear();
        poller.wait(Duration::from_millis(20), &mut names)?;
        for &name in &names {
            if name == LISTENER {
                accept(listener, &poller, &mut clients)?;
            } else if let Some(socket) = &mut clients[name]
                && !answer(socket, &mut scratch)
            {
                clients[name] = None;
            }
        }
    }
    Ok(())
}

fn accept(
    listener: &TcpListener,
    poller: &Poller,
    clients: &mut Vec<Option<TcpStream>>,
) -> Result<()> {
    match listener.accept() {
        Ok((socket, _)) if clients.len() < CONNECTIONS_MAX => {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            poller.add(&socket, clients.len())?;
            clients.push(Some(socket));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Answers each request that has arrived. Returns false if the client has closed.
fn answer(socket: &mut TcpStream, scratch: &mut [u8]) -> bool {
    let len = match socket.read(scratch) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
        Ok(0) | Err(_) => return false,
        Ok(len) => len,
    };
    // Requests of the harness have no body and are not cut: each ends with an empty line.
    let requests = memchr::memmem::find_iter(&scratch[..len], b"\r\n\r\n").count();
    (0..requests).all(|_| socket.write_all(ANSWER).is_ok())
}
