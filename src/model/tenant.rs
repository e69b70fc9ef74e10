//! Whose limits a request counts against.

use std::net::{IpAddr, Ipv4Addr};

use super::Identity;

/// The client whose limits a request counts against: its identity, or for an anonymous client its
/// address. It serves limits only. An anonymous client that changes networks is another tenant, and
/// its retries still have the same command key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenant {
    /// A client with this identity, at any address.
    Known(Identity),
    /// Anonymous clients at this address.
    V4(Ipv4Addr),
    /// Anonymous clients in this network: the first 64 bits of their addresses. A host may use all
    /// addresses of its network.
    V6([u8; 8]),
}

impl Tenant {
    /// The tenant of a client with this identity, at this address.
    #[must_use]
    pub fn of(identity: &Identity, address: IpAddr) -> Self {
        if !identity.is_anonymous() {
            return Self::Known(identity.clone());
        }
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_an_ipv4_address_and_an_identity_are_tenants() {
        let of = |identity: &Identity, text: &str| {
            Tenant::of(identity, text.parse().expect("an address"))
        };
        let anonymous = |text| of(&Identity::ANONYMOUS, text);
        assert_eq!(anonymous("2001:db8::1"), anonymous("2001:db8::ffff:2"));
        assert_ne!(anonymous("2001:db8::1"), anonymous("2001:db8:0:1::1"));
        assert_eq!(anonymous("192.0.2.1"), anonymous("::ffff:192.0.2.1"));
        assert_ne!(anonymous("192.0.2.1"), anonymous("192.0.2.2"));
        let ann = Identity::new("https://idp", "ann");
        assert_eq!(of(&ann, "192.0.2.1"), of(&ann, "2001:db8::1"));
    }
}
