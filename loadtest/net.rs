//! URLs, epoll, and the limit of open files. Epoll is level-triggered, so unread bytes are reported
//! again.

use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files of a run besides its sockets.
const FILES_BESIDE_SOCKETS: u64 = 64;

/// Waits until one of many sockets is readable.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

/// Most sockets that one wait reports; the others are reported by the next.
const REPORTED_MAX: usize = 512;

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Adds a socket, which [`Self::wait`] returns by `name` whenever it is readable.
    pub(crate) fn add(&self, socket: &impl AsFd, name: usize) -> Result<()> {
        let name = epoll::EventData::new_u64(name as u64);
        epoll::add(&self.epoll, socket, name, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Stops waiting for a socket that stays open.
    pub(crate) fn remove(&self, socket: &impl AsFd) -> Result<()> {
        epoll::delete(&self.epoll, socket)?;
        Ok(())
    }

    /// Waits for readable sockets and returns their names; none after `at_most`.
    pub(crate) fn wait(&self, at_most: Duration, names: &mut Vec<usize>) -> Result<()> {
        let timeout = Timespec::try_from(at_most)?;
        let mut buffer = [const { MaybeUninit::uninit() }; REPORTED_MAX];
        let ready = match epoll::wait(&self.epoll, &mut buffer, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        names.extend(ready.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }
}

/// A parsed URL with scheme `http` or `https`.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// The name or address, as TLS verifies it.
    pub(crate) host: String,
    /// Host and port, as the request's `Host` shows them.
    pub(crate) authority: String,
    /// The path with its query.
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => bail!("`{text}` is no URL: it begins with http:// or https://"),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') || path.contains([' ', '\r', '\n', '#']) {
            bail!("`{text}` is no URL for requests: no user, space or fragment");
        }
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let mut found = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("`{host}` has no address"))?;
        Ok(Self {
            tls,
            address: found
                .next()
                .with_context(|| format!("`{host}` has no address"))?,
            host: host.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// The host without brackets, and the port if there is one.
fn split_port(authority: &str) -> Result<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').context("an address without `]`")?;
            (host, port.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port
        .map(|digits| {
            digits
                .parse()
                .with_context(|| format!("`{digits}` is no port"))
        })
        .transpose()?;
    anyhow::ensure!(!host.is_empty(), "`{authority}` has no host");
    Ok((host, port))
}

/// Raises the limit of open files for this many sockets, if the system allows.
pub(crate) fn allow_sockets(sockets: usize) -> Result<()> {
    let wanted = sockets as u64 + FILES_BESIDE_SOCKETS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let new = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    let hard = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, new).with_context(|| {
        format!(
            "{sockets} connections need {wanted} open files, and {hard} are allowed: raise \
             `ulimit -Hn`, or use several processes"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_parts() {
        let url: Url = "https://127.0.0.1:8443/items/{n}?x=1"
            .parse()
            .expect("a URL");
        assert!(url.tls && url.address.port() == 8443 && url.path == "/items/{n}?x=1");
        assert_eq!(
            (&url.host[..], &url.authority[..]),
            ("127.0.0.1", "127.0.0.1:8443")
        );
        let url: Url = "http://[::1]".parse().expect("a URL");
        assert!(!url.tls && url.address.port() == 80 && url.path == "/" && url.host == "::1");
        for bad in [
            "127.0.0.1:80",
            "ftp://h/",
            "http:///x",
            "http://h:x/",
            "http://127.0.0.1/a b",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
