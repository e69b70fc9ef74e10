//! Sockets and epoll. It is level-triggered, so unread bytes are reported again.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Waits until one of many sockets is readable.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = Vec::with_capacity(1024);
        Ok(Self { epoll, events })
    }

    /// Adds a socket, which [`Self::wait`] returns by `name` whenever it is readable.
    pub(crate) fn add(&self, socket: &impl AsFd, name: usize) -> Result<()> {
        let name = epoll::EventData::new_u64(name as u64);
        epoll::add(&self.epoll, socket, name, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Waits for readable sockets and returns their names; none after `at_most`.
    pub(crate) fn wait(&mut self, at_most: Duration, names: &mut Vec<usize>) -> Result<()> {
        let timeout = Timespec::try_from(at_most)?;
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        names.extend(self.events.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }
}

/// A parsed URL with scheme `http`.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) host: String,
    /// The path with its query.
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("`{text}` is no http:// URL");
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let found = with_port.to_socket_addrs()?.next();
        Ok(Self {
            address: found.with_context(|| format!("`{host}` has no address"))?,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl Url {
    /// Connects. The socket is non-blocking afterwards.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let socket = TcpStream::connect(self.address)
            .with_context(|| format!("can't connect to {}", self.address))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Raises the limit of open files for this many sockets, if the system allows.
pub(crate) fn allow_sockets(sockets: usize) -> Result<()> {
    let wanted = sockets as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let new = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, new)
        .with_context(|| format!("{wanted} open files are not allowed here (ulimit -n)"))
}
