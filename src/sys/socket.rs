//! TCP sockets as a shard needs them: never waiting, without SIGPIPE, without Nagle.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
    sockopt,
};
use socket2::{Domain, Protocol, Type};

/// Slices one `sendmsg` takes (`UIO_MAXIOV`).
pub const SLICES_MAX: usize = 1024;

/// A listening socket: reuseaddr, reuseport. Blocking, as a ring answers an accept on a nonblocking
/// one with `EAGAIN` instead of waiting.
#[derive(Debug)]
pub struct Listener(socket2::Socket);

impl Listener {
    /// Binds and listens. Others of this user may bind the same address (the next version of this
    /// process, the other shards), each with a queue of its own.
    ///
    /// # Errors
    /// What the kernel says: in use, not ours, not allowed.
    pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Self(socket))
    }

    /// Where it listens; the port is the real one.
    ///
    /// # Errors
    /// Never for a bound socket of an internet family.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = self.0.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// The next connection of the queue, now or `WouldBlock`. Only for a listener no ring accepts
    /// on any more: it becomes nonblocking.
    ///
    /// # Errors
    /// `WouldBlock` once the queue is empty; else what accept says.
    pub fn accept_now(&self) -> io::Result<Socket> {
        self.0.set_nonblocking(true)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(Socket(rustix::net::accept_with(&self.0, flags)?))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How an outgoing connection begins.
#[derive(Debug)]
pub enum Connect {
    /// It stands already.
    Done(Socket),
    /// A poll will say, then [`Socket::take_error`].
    Pending(Socket),
}

/// A connected or connecting TCP socket, nonblocking. Dropping it closes the descriptor; the kernel
/// keeps the connection for as long as a ring's request holds it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    /// Takes a nonblocking stream socket.
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl Socket {
    /// Begins to connect, with Nagle off.
    ///
    /// # Errors
    /// What can be said at once: unreachable, refused, no descriptor left.
    pub fn connect(address: SocketAddr) -> io::Result<Connect> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let socket = Self(fd);
        socket.set_nodelay()?;
        match rustix::net::connect(&socket.0, &address) {
            Ok(()) => Ok(Connect::Done(socket)),
            Err(rustix::io::Errno::INPROGRESS) => Ok(Connect::Pending(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what is written without waiting for more.
    ///
    /// # Errors
    /// None on a TCP socket that lives.
    pub fn set_nodelay(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(&self.0, true)?)
    }

    /// The other end's address.
    ///
    /// # Errors
    /// `NotConnected` when it is gone already.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getpeername(&self.0)?.ok_or(io::ErrorKind::NotConnected)?;
        SocketAddr::try_from(address).map_err(Into::into)
    }

    /// The error that waits on the socket, which is thereby taken.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> io::Result<()> {
        sockopt::socket_error(&self.0)??;
        Ok(())
    }

    /// Reads what is there into `buffer`; 0 is the peer's end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is, else what broke the connection.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                read => return Ok(read?.1),
            }
        }
    }

    /// Writes as much as the socket takes, at most 1,024 slices of it.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing, else what broke the connection.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(SLICES_MAX)];
        loop {
            let written = match slices {
                [only] => rustix::net::send(&self.0, only, SendFlags::NOSIGNAL),
                many => {
                    let mut none = SendAncillaryBuffer::default();
                    rustix::net::sendmsg(&self.0, many, &mut none, SendFlags::NOSIGNAL)
                }
            };
            match written {
                Err(rustix::io::Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    /// Sends the FIN behind what was written. An error means that the connection is gone, which is
    /// as good.
    pub fn end_writes(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().expect("address")
    }

    #[test]
    fn shards_share_a_port_and_the_backlog_is_asked_for() {
        let first = Listener::bind(any_port(), 4096).expect("first");
        let address = first.address().expect("address");
        assert_ne!(address.port(), 0);
        Listener::bind(address, 4096).expect("the second joins");
    }

    #[test]
    fn a_port_somebody_else_has_is_refused() {
        let other = std::net::TcpListener::bind(any_port()).expect("bound");
        let error = Listener::bind(other.local_addr().expect("address"), 4096);
        assert_eq!(error.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn accept_now_empties_the_queue_then_would_block() {
        let listener = Listener::bind(any_port(), 16).expect("bound");
        let address = listener.address().expect("address");
        let client = TcpStream::connect(address).expect("connect");
        let accepted = listener.accept_now().expect("one waits");
        let peer = accepted.peer().expect("connected");
        assert_eq!(peer, client.local_addr().expect("address"));
        let empty = listener.accept_now().expect_err("no other");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn slices_arrive_in_order_and_a_fin_follows() {
        let listener = Listener::bind(any_port(), 16).expect("bound");
        let address = listener.address().expect("address");
        let mut client = TcpStream::connect(address).expect("connect");
        let server = listener.accept_now().expect("one waits");
        let blocked = server.read(&mut [0; 8]).expect_err("nothing sent");
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        let parts: Vec<String> = (0..2000).map(|i| format!("{i},")).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p.as_bytes())).collect();
        let taken = server.write(&slices).expect("written");
        assert_eq!(
            taken,
            parts[..SLICES_MAX].concat().len(),
            "the first 1,024 slices"
        );
        server.end_writes();
        let mut got = String::new();
        client.read_to_string(&mut got).expect("until the end");
        assert_eq!(got, parts[..SLICES_MAX].concat());
    }

    #[test]
    fn a_write_to_a_dead_peer_is_an_error_and_no_signal() {
        let listener = Listener::bind(any_port(), 16).expect("bound");
        let address = listener.address().expect("address");
        drop(TcpStream::connect(address).expect("connect"));
        let server = listener.accept_now().expect("one waits");
        let failed = (0..1000).find_map(|_| server.write(&[IoSlice::new(&[0; 4096])]).err());
        let kind = failed.expect("the peer resets").kind();
        assert!(matches!(
            kind,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ));
    }
}
