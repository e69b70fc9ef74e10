//! TCP and Unix sockets for a shard: non-blocking, without SIGPIPE, without Nagle's algorithm.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
    sockopt,
};
use socket2::{Domain, Protocol, Type};

/// Most slices of one `sendmsg` (`UIO_MAXIOV`).
pub const SLICES_MAX: usize = 1024;

/// Unanswered keepalive probes after which the other end has vanished.
const KEEPALIVE_PROBES: u32 = 4;

/// A bound or listening socket with SO_REUSEADDR and SO_REUSEPORT. It blocks, because io_uring
/// completes an accept on a non-blocking listener with `EAGAIN` instead of waiting.
#[derive(Debug)]
pub struct Listener(socket2::Socket);

impl Listener {
    /// Binds an address that other sockets of this user may share, each with its own queue. Clients
    /// are refused until [`Self::listen`].
    ///
    /// # Errors
    /// The kernel's error, such as an address in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = unbound(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(Self(socket))
    }

    /// Binds an address on which no other socket listens, and listens at once. Sockets that are
    /// bound later may share it.
    ///
    /// The kernel checks `SO_REUSEPORT` of both sockets when the second one binds. So this socket
    /// binds without the option and sets it once it has the port. A process that starts at the same
    /// moment cannot bind in between.
    ///
    /// # Errors
    /// `AddrInUse` if any other socket listens on the address; otherwise the kernel's error.
    pub fn bind_alone(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let socket = unbound(address)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        socket.set_reuse_port(true)?;
        Ok(Self(socket))
    }

    /// Binds a Unix socket to a path at which there is no file. Clients are refused until
    /// [`Self::listen`].
    ///
    /// # Errors
    /// The kernel's error, such as a folder that this process may not write to.
    pub fn bind_unix(path: &Path) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        Ok(Self(socket))
    }

    /// Another descriptor of the same socket and queue, for another shard: a Unix socket has no
    /// SO_REUSEPORT.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Starts to queue clients. Further calls have no effect.
    ///
    /// # Errors
    /// `AddrInUse` if another process has started to listen meanwhile.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        self.0.listen(backlog)
    }

    /// Closes connections after their other end has vanished: it acknowledges nothing for `after`,
    /// even if nothing was sent to it. An end that answers but reads nothing for this time is
    /// closed too, because Linux counts a closed window as unacknowledged. Sockets that are
    /// accepted later inherit this from their listener, without a system call of their own.
    /// # Errors
    /// None on a TCP socket.
    pub fn drop_vanished(&self, after: Duration) -> io::Result<()> {
        let idle = after / 2;
        let interval = idle / KEEPALIVE_PROBES;
        let whole = |time: Duration| time.max(Duration::from_secs(1));
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(whole(idle))
            .with_interval(whole(interval))
            .with_retries(KEEPALIVE_PROBES);
        self.0.set_tcp_keepalive(&keepalive)?;
        self.0.set_tcp_user_timeout(Some(after))
    }

    /// The bound address with the real port.
    ///
    /// # Errors
    /// Never for a bound IPv4 or IPv6 socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = self.0.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Accepts the next connection without waiting. Only for a listener on which no ring accepts
    /// any more, because it becomes non-blocking.
    ///
    /// # Errors
    /// `WouldBlock` if the queue is empty, else the error of accept.
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

/// Creates an unbound socket. Accepted sockets inherit `TCP_NODELAY` from their listener.
fn unbound(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The state of an outgoing connection after the first call.
#[derive(Debug)]
pub enum Connect {
    /// The connection is established already.
    Done(Socket),
    /// The connection is in progress. Poll it, then call [`Socket::take_error`].
    Pending(Socket),
}

/// A connected or connecting TCP socket, which is non-blocking. Dropping it closes the descriptor.
/// The kernel keeps the connection while a request on a ring refers to it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    /// Takes ownership of a non-blocking stream socket.
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl Socket {
    /// Starts to connect, with `TCP_NODELAY`.
    ///
    /// # Errors
    /// An error that is known at once: unreachable, refused, or no free descriptor.
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

    /// Sends bytes at once instead of waiting for more (`TCP_NODELAY`).
    ///
    /// # Errors
    /// None on an open TCP socket.
    pub fn set_nodelay(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(&self.0, true)?)
    }

    /// Limits the kernel's send buffer to `bytes` of payload, and about as much for the kernel's
    /// overhead.
    ///
    /// # Errors
    /// None on an open TCP socket.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        Ok(sockopt::set_socket_send_buffer_size(&self.0, bytes)?)
    }

    /// The number of the descriptor. The kernel assigns the lowest free number, so the process has
    /// at least about this many descriptors open.
    #[must_use]
    pub fn descriptor(&self) -> u64 {
        u64::try_from(self.0.as_raw_fd()).unwrap_or_default()
    }

    /// The address of the other end. A client of a Unix socket has no address; it is on this
    /// machine, so its address is loopback's with port 0.
    ///
    /// # Errors
    /// `NotConnected` if the connection has already ended.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getpeername(&self.0)?.ok_or(io::ErrorKind::NotConnected)?;
        if address.address_family() == AddressFamily::UNIX {
            return Ok((Ipv4Addr::LOCALHOST, 0).into());
        }
        SocketAddr::try_from(address).map_err(Into::into)
    }

    /// Takes the socket's pending error (`SO_ERROR`), which clears it.
    ///
    /// # Errors
    /// The pending error.
    pub fn take_error(&self) -> io::Result<()> {
        sockopt::socket_error(&self.0)??;
        Ok(())
    }

    /// Reads available bytes into `buffer`. 0 means that the other end has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if there are none, else the error of the connection.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                read => return Ok(read?.1),
            }
        }
    }

    /// Writes as much as the socket accepts, at most [`SLICES_MAX`] slices.
    ///
    /// # Errors
    /// `WouldBlock` if it accepts nothing, else the error of the connection.
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

    /// Sends a FIN after the written bytes. Errors are ignored: they mean that the connection has
    /// ended.
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

    fn listening() -> Listener {
        Listener::bind_alone(any_port(), 16).expect("a free port")
    }

    #[test]
    fn sockets_share_a_port_and_each_has_its_part_of_the_clients() {
        // Each queue has room for all clients; the kernel chooses between the two.
        let first = Listener::bind_alone(any_port(), 64).expect("a free port");
        let address = first.address().expect("address");
        assert_ne!(address.port(), 0);
        let second = Listener::bind(address).expect("the second joins");
        second.listen(64).expect("it listens too");
        let clients = [(); 32].map(|()| TcpStream::connect(address).expect("connect"));
        let count = |listener: &Listener| {
            let accepted = std::iter::from_fn(|| listener.accept_now().ok());
            accepted.count()
        };
        let (first, second) = (count(&first), count(&second));
        assert_eq!(first + second, clients.len());
        assert!(first > 0 && second > 0, "{first} and {second}");
    }

    #[test]
    fn a_port_that_is_shared_already_is_in_use_for_one_that_wants_it_alone() {
        let first = Listener::bind(any_port()).expect("bound");
        first.listen(16).expect("it listens");
        let error = Listener::bind_alone(first.address().expect("address"), 16);
        assert_eq!(error.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        let alone = listening();
        let error = Listener::bind_alone(alone.address().expect("address"), 16);
        assert_eq!(error.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_is_free_again_while_its_old_connections_end() {
        let first = listening();
        let address = first.address().expect("address");
        let client = TcpStream::connect(address).expect("connect");
        // The server closes first, so its side stays in TIME_WAIT.
        drop(first.accept_now().expect("one waits"));
        drop((client, first));
        Listener::bind_alone(address, 16).expect("free");
    }

    #[test]
    fn a_bound_port_that_does_not_listen_refuses_clients() {
        let listener = Listener::bind(any_port()).expect("bound");
        let address = listener.address().expect("address");
        TcpStream::connect(address).expect_err("refused");
        listener.listen(16).expect("it listens");
        TcpStream::connect(address).expect("accepted");
    }

    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let listener = listening();
        let after = Duration::from_secs(40);
        listener.drop_vanished(after).expect("options");
        let client = TcpStream::connect(listener.address().expect("address"));
        let accepted = listener.accept_now().expect("one waits");
        let socket = socket2::SockRef::from(&accepted.0);
        assert!(socket.tcp_nodelay().expect("option"));
        assert!(socket.keepalive().expect("option"));
        let seconds = Duration::from_secs;
        assert_eq!(socket.tcp_keepalive_time().expect("option"), seconds(20));
        assert_eq!(socket.tcp_keepalive_interval().expect("option"), seconds(5));
        assert_eq!(socket.tcp_keepalive_retries().expect("option"), 4);
        assert_eq!(socket.tcp_user_timeout().expect("option"), Some(after));
        drop(client);
    }

    #[test]
    fn a_send_buffer_holds_what_it_was_given_and_little_more() {
        let listener = listening();
        let client = TcpStream::connect(listener.address().expect("address")).expect("connect");
        let server = listener.accept_now().expect("one waits");
        server.set_send_buffer(16 << 10).expect("option");
        // Linux doubles the value, for its own overhead of each segment.
        let socket = socket2::SockRef::from(&server.0);
        assert_eq!(socket.send_buffer_size().expect("option"), 32 << 10);
        drop(client);
    }

    #[test]
    fn a_port_somebody_else_has_is_refused() {
        let other = std::net::TcpListener::bind(any_port()).expect("bound");
        let address = other.local_addr().expect("address");
        for refused in [Listener::bind(address), Listener::bind_alone(address, 16)] {
            assert_eq!(refused.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn accept_now_empties_the_queue_then_would_block() {
        let listener = listening();
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
        let listener = listening();
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
        let listener = listening();
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
