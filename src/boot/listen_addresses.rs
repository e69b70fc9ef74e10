//! Addresses of the config that this machine does not have. `run` could not listen on them; found
//! before, the error names the line of the file.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::config::{Listen, Loaded, Reason};

/// A reason against each listener whose address is not one of this machine.
#[must_use]
pub fn foreign_addresses(loaded: &Loaded) -> Vec<Reason> {
    let settings = &loaded.config.settings;
    let of = |all: &[Listen]| -> Vec<IpAddr> {
        let addresses = all.iter().filter(|it| !is_localhost(it));
        let addresses = addresses.flat_map(Listen::addresses);
        addresses.map(|it| it.ip()).collect()
    };
    let keys = [
        ("listen", of(&settings.listen)),
        ("tls.listen", of(&settings.tls.listen)),
        (
            "admin.listen",
            settings.admin.listen.iter().map(SocketAddr::ip).collect(),
        ),
        (
            "health.listen",
            settings.health.listen.iter().map(SocketAddr::ip).collect(),
        ),
    ];
    let mut reasons = Vec::new();
    for (key, addresses) in keys {
        for ip in addresses.into_iter().filter(|ip| !is_ours(*ip)) {
            reasons.push(Reason {
                message: format!(
                    "{key}: {ip} is not an address of this machine: use one of those that `ip \
                     addr` lists, or 0.0.0.0 for all of them"
                ),
                key: Some(key.to_owned()),
                at: None,
            });
        }
    }
    reasons
}

/// `localhost` is bound as far as the machine has its addresses.
const fn is_localhost(listen: &Listen) -> bool {
    matches!(listen.on, crate::config::ListenOn::Localhost(_))
}

/// Whether a socket can have the address. Another error than EADDRNOTAVAIL is for `run` to report.
fn is_ours(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    bound.map_or_else(
        |error| error.kind() != ErrorKind::AddrNotAvailable,
        |_| true,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    #[test]
    fn an_address_of_another_machine_is_named_with_its_line() {
        // RFC 5737: an address for documentation, which no machine has.
        let text = "auth = \"none\"\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:2\", \"localhost:4\", \
                    \"192.0.2.7:3\"]\n[[query]]\nroute = \"GET /a\"\ntopic = \"a\"\n";
        let file = ConfigFile {
            name: "g.toml".into(),
            text: text.into(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 1,
            ..Sources::default()
        };
        let loaded = load(sources).unwrap_or_else(|report| panic!("{}", report.render(false)));
        let reasons = foreign_addresses(&loaded);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(
            reasons[0]
                .message
                .starts_with("listen: 192.0.2.7 is not an address")
        );
        let report = loaded.reject_for(reasons).expect_err("rejected");
        assert!(
            report.render(false).contains("g.toml:2:10"),
            "{}",
            report.render(false)
        );
    }
}
