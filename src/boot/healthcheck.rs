//! `sluicegate healthcheck`: asks the health port or the admin port of a running gateway, for
//! container images that have no other client.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Config;

/// Time for each step: connecting, sending, and each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks the gateway that runs with this config whether it is ready, or with `live` whether it runs.
/// Returns the body of its answer.
///
/// # Errors
/// It is not ready, does not answer, or the config has no port to ask.
pub fn healthcheck(config: &Config, live: bool) -> Result<String, String> {
    let settings = &config.settings;
    let listen = settings.health.listen.or(settings.admin.listen);
    let listen = listen.filter(|address| address.port() != 0);
    let address = listen.map(reachable).ok_or(
        "the config has neither health.listen nor admin.listen with a port: set health.listen",
    )?;
    let path = if live { "/livez" } else { "/readyz" };
    let asked = ask(address, path).map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = asked
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{address}{path}: no HTTP answer"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        Ok(body.to_owned())
    } else {
        Err(format!("{address}{path}: {status} {body}"))
    }
}

/// An address that a client on this machine can connect to.
const fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
