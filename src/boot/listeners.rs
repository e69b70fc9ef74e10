//! Where the gateway listens for clients, as the reactor and the shards need it.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::{Listen, ListenOn, Settings};
use crate::reactor::UnixPlace;
use crate::shard::ListenerKind;

/// All listeners of the config: addresses first, then Unix sockets, each in the order of the config
/// with plain ones before TLS.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) unix: Vec<UnixPlace>,
    /// How the connections of each begin, in the same order.
    pub(super) kinds: Vec<ListenerKind>,
}

impl Listeners {
    /// The listeners of the config. `localhost` is IPv4 alone on a machine without IPv6.
    pub(super) fn new(settings: &Settings) -> Self {
        let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        Self::on(settings, has_ipv6)
    }

    fn on(settings: &Settings, has_ipv6: bool) -> Self {
        let mut all = Self::default();
        let plain = settings.listen.iter().map(|listen| (listen, false));
        let secure = settings.tls.listen.iter().map(|listen| (listen, true));
        let mut unix_kinds = Vec::new();
        for (listen, tls) in plain.chain(secure) {
            let Listen { on, proxy_protocol } = listen;
            let mut kind = ListenerKind {
                tls,
                proxy_protocol: *proxy_protocol,
                is_unix: false,
            };
            match on {
                ListenOn::Unix { path, mode } => {
                    kind.is_unix = true;
                    unix_kinds.push(kind);
                    let (path, mode) = (path.clone(), *mode);
                    all.unix.push(UnixPlace { path, mode });
                }
                ListenOn::Tcp(address) => all.add(*address, kind),
                ListenOn::Localhost(_) => {
                    let addresses = listen.addresses();
                    for address in addresses.filter(|it| it.is_ipv4() || has_ipv6) {
                        all.add(address, kind);
                    }
                }
            }
        }
        all.kinds.append(&mut unix_kinds);
        all
    }

    fn add(&mut self, address: SocketAddr, kind: ListenerKind) {
        self.addresses.push(address);
        self.kinds.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    #[test]
    fn each_listener_has_its_kind_at_its_place() {
        let text = "listen = [\"unix:/run/a.sock proxy_protocol\", \"localhost:80\"]\n\
                    [tls]\nlisten = [\"unix:/run/b.sock mode=600\", \
                    \"127.0.0.1:443\"]\ncertificate = \"c\"\nkey = \"k\"\n";
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: text.into(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 1,
            ..Sources::default()
        };
        let loaded = load(sources).map_err(|report| report.render(false));
        let settings = loaded.expect("a good config").config.settings;
        let all = Listeners::on(&settings, true);
        let addresses: Vec<_> = all.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:80", "[::1]:80", "127.0.0.1:443"]);
        let modes: Vec<_> = all.unix.iter().map(|it| it.mode).collect();
        assert_eq!(modes, [0o660, 0o600]);
        let flags = |it: &ListenerKind| (it.tls, it.proxy_protocol, it.is_unix);
        let plain = (false, false, false);
        let wanted = [
            plain,
            plain,
            (true, false, false),
            (false, true, true),
            (true, false, true),
        ];
        assert_eq!(all.kinds.iter().map(flags).collect::<Vec<_>>(), wanted);
        assert_eq!(Listeners::on(&settings, false).addresses.len(), 2);
    }
}
