//! Where the gateway listens for clients: `listen` and `tls.listen`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::kind::{Address, Kind, Raw};

/// The longest path of a Unix socket: `sun_path` of Linux, with its final NUL, less what the name
/// gets while the socket is prepared.
const UNIX_PATH_BYTES_MAX: usize = 90;

/// The permissions of a Unix socket, if the config names none: owner and group may connect.
const UNIX_MODE: u32 = 0o660;

/// One place to listen for clients, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address or the path.
    pub on: ListenOn,
    /// Whether each connection begins with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
}

/// An address or a path to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenOn {
    /// An IP address with a port. Port 0 is any free port.
    Tcp(SocketAddr),
    /// This port of both loopback addresses, `127.0.0.1` and `::1`, as far as the machine has them.
    Localhost(u16),
    /// A Unix socket.
    Unix {
        /// The path of its file.
        path: PathBuf,
        /// The permissions of its file.
        mode: u32,
    },
}

impl Listen {
    /// The TCP addresses: none for a Unix socket, two for `localhost`.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let (first, second) = match &self.on {
            ListenOn::Tcp(address) => (Some(*address), None),
            ListenOn::Localhost(port) => (
                Some((Ipv4Addr::LOCALHOST, *port).into()),
                Some((Ipv6Addr::LOCALHOST, *port).into()),
            ),
            ListenOn::Unix { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            on: ListenOn::Tcp(address),
            proxy_protocol: false,
        }
    }
}

/// `127.0.0.1:8080`, `localhost:8080` or `unix:/run/gateway.sock`, and words with options.
pub(super) struct ListenAddress;

impl Kind for ListenAddress {
    type Value = Listen;

    fn read(&self, raw: &Raw) -> Result<Listen, String> {
        let text = raw.text("an address such as \"127.0.0.1:8080\"")?;
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        let mut listen = Listen {
            on: listen_on(first)?,
            proxy_protocol: false,
        };
        for word in words {
            match (word, &mut listen.on, word.strip_prefix("mode=")) {
                ("proxy_protocol", ..) => listen.proxy_protocol = true,
                (_, ListenOn::Unix { mode, .. }, Some(digits)) => {
                    let read = u32::from_str_radix(digits, 8).ok();
                    let read = read.filter(|mode| *mode <= 0o777);
                    *mode = read.ok_or_else(|| format!("`{word}`: write mode=660"))?;
                }
                (_, _, Some(_)) => return Err(format!("`{word}` is for Unix sockets")),
                _ => return Err(format!("`{word}`: options are proxy_protocol and mode=660")),
            }
        }
        Ok(listen)
    }

    fn show(&self, value: &Listen) -> String {
        let mut text = match &value.on {
            ListenOn::Tcp(address) => address.to_string(),
            ListenOn::Localhost(port) => format!("localhost:{port}"),
            ListenOn::Unix { path, mode } => {
                let mode = match *mode {
                    UNIX_MODE => String::new(),
                    mode => format!(" mode={mode:o}"),
                };
                format!("unix:{}{mode}", path.display())
            }
        };
        if value.proxy_protocol {
            text.push_str(" proxy_protocol");
        }
        text
    }

    fn describe(&self) -> String {
        "ip:port such as 127.0.0.1:8080 or [::]:8080 (port 0: any free one), localhost:port, or \
         unix:/path"
            .into()
    }
}

fn listen_on(text: &str) -> Result<ListenOn, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            _ if !path.starts_with('/') => Err(format!("`{path}` is not an absolute path")),
            _ if path.len() > UNIX_PATH_BYTES_MAX => Err(format!(
                "the path has more than {UNIX_PATH_BYTES_MAX} bytes"
            )),
            _ => Ok(ListenOn::Unix {
                path: path.into(),
                mode: UNIX_MODE,
            }),
        };
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        // Two addresses cannot have the same free port for sure, so 0 is no port here.
        let port: Option<u16> = port.parse().ok().filter(|port| *port != 0);
        return port
            .map(ListenOn::Localhost)
            .ok_or_else(|| format!("`{text}` has no port from 1 to 65535"));
    }
    Address.read(&Raw::Word(text.to_owned())).map(ListenOn::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Listen, String> {
        ListenAddress.read(&Raw::Word(text.into()))
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in [
            "127.0.0.1:8080",
            "[::]:0 proxy_protocol",
            "localhost:8080",
            "unix:/run/gateway.sock",
            "unix:/run/gateway.sock mode=600 proxy_protocol",
        ] {
            let listen = read(text).expect(text);
            assert_eq!(ListenAddress.show(&listen), text);
        }
        let both: Vec<_> = read("localhost:1").expect("two").addresses().collect();
        assert_eq!(both.len(), 2);
        assert_eq!(read("unix:/s").expect("a path").addresses().count(), 0);
    }

    #[test]
    fn what_is_no_place_to_listen_is_named() {
        for (text, why) in [
            ("8080", "127.0.0.1:8080"),
            ("localhost", "not an IP address"),
            ("localhost:0", "no port"),
            ("unix:relative", "absolute"),
            ("unix:", "absolute"),
            (&*format!("unix:/{}", "a".repeat(90)), "90 bytes"),
            ("unix:/s mode=999", "mode=660"),
            ("unix:/s mode=1777", "mode=660"),
            ("127.0.0.1:1 mode=600", "Unix"),
            ("127.0.0.1:1 proxy", "proxy_protocol"),
        ] {
            let said = read(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
