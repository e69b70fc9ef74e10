//! A TCP proxy that cuts its connections on request, as a tunnel, a network change or a restarted
//! load balancer does.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A proxy that listens on a port of its own.
pub struct Cutter {
    address: SocketAddr,
    sockets: Arc<Mutex<Sockets>>,
}

#[derive(Default)]
struct Sockets {
    open: Vec<TcpStream>,
    /// What clients have sent, one entry per read.
    requests: Vec<String>,
}

impl Cutter {
    /// Starts a proxy that forwards to `to`.
    pub fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let sockets = Arc::<Mutex<Sockets>>::default();
        let known = sockets.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(to) else {
                    continue;
                };
                {
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    known.open.extend([copy_of(&client), copy_of(&server)]);
                }
                let (answers, sink) = (copy_of(&server), copy_of(&client));
                std::thread::spawn(move || forward(answers, sink, |_| {}));
                let known = known.clone();
                std::thread::spawn(move || {
                    forward(client, server, |bytes| {
                        let text = String::from_utf8_lossy(bytes).into_owned();
                        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                        known.requests.push(text);
                    });
                });
            }
        });
        Self { address, sockets }
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.open.drain(..) {
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }

    /// What clients have sent so far.
    pub fn requests(&self) -> Vec<String> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.requests.clone()
    }
}

fn copy_of(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("one more descriptor")
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        look(&buffer[..len]);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(Shutdown::Both);
}
