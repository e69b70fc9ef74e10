//! Ranges of IP addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of IP addresses: all that begin with the same bits. `10.0.0.0/8` is the range from
/// `10.0.0.0` to `10.255.255.255`. An IPv4 address and the same address within IPv6
/// (`::ffff:10.0.0.1`) count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address of the range: every bit behind the prefix is 0.
    first: IpAddr,
    prefix: u8,
}

/// Why a text is not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNetwork {
    /// It is not an IP address, or not an address and a number of bits.
    Syntax,
    /// The prefix is longer than an address of this kind.
    Prefix {
        /// The bits of such an address.
        bits: u8,
    },
    /// The address is not the first of the range, so one of the two is a mistake.
    Inside(Network),
}

impl Network {
    /// Parses `10.0.0.0/8`, `fd00::/8`, or a single address.
    ///
    /// # Errors
    /// The text is malformed, or the address has bits behind the prefix.
    pub fn parse(text: &str) -> Result<Self, NotNetwork> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let given: IpAddr = address.parse().map_err(|_| NotNetwork::Syntax)?;
        let address = given.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            // The prefix of `::ffff:10.0.0.0/104` counts the bits of an IPv6 address.
            Some(_) if given.is_ipv6() && address.is_ipv4() => return Err(NotNetwork::Syntax),
            Some(digits) => {
                let plain = digits.bytes().all(|b| b.is_ascii_digit());
                let number = digits.parse::<u8>().ok().filter(|_| plain);
                number.ok_or(NotNetwork::Syntax)?
            }
        };
        if prefix > bits {
            return Err(NotNetwork::Prefix { bits });
        }
        let first = first_of(address, prefix);
        let network = Self { first, prefix };
        if first == address {
            Ok(network)
        } else {
            Err(NotNetwork::Inside(network))
        }
    }

    /// Whether an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && first_of(address, self.prefix) == self.first
    }
}

/// The address with its first `prefix` bits, and 0 in all others.
fn first_of(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ] {
            let contains = |address: &str| {
                let address = address.parse().expect("an address");
                network(range).contains(address)
            };
            assert!(contains(inside), "{range} has {inside}");
            assert!(!contains(outside), "{range} has not {outside}");
        }
    }

    #[test]
    fn a_range_that_may_not_be_meant_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "a",
            "10.0.0.0/x",
            "10.0.0.0 /8",
            "[::1]",
            "localhost",
            "10.0.0.0/256",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(Network::parse(text), Err(NotNetwork::Syntax), "{text:?}");
        }
        let too_long = |bits| Err(NotNetwork::Prefix { bits });
        assert_eq!(Network::parse("10.0.0.0/33"), too_long(32));
        assert_eq!(Network::parse("::/129"), too_long(128));
        let inside = Err(NotNetwork::Inside(network("10.0.0.0/8")));
        assert_eq!(Network::parse("10.1.0.0/8"), inside);
    }

    proptest! {
        /// Two addresses are in one network exactly if their first bits are equal.
        #[test]
        fn membership_is_equality_of_the_first_bits(
            one: u128, other: u128, six: bool, prefix in 0..=128_u8,
        ) {
            let address = |bits: u128| -> IpAddr {
                if six {
                    Ipv6Addr::from_bits(bits).into()
                } else {
                    Ipv4Addr::from_bits(u32::try_from(bits >> 96).expect("32 bits")).into()
                }
            };
            let prefix = if six { prefix } else { prefix.min(32) };
            let (one_ip, other_ip) = (address(one), address(other));
            prop_assume!(one_ip.to_canonical() == one_ip && other_ip.to_canonical() == other_ip);
            let network = Network { first: first_of(one_ip, prefix), prefix };
            prop_assert!(network.contains(one_ip));
            let same = (0..u32::from(prefix)).all(|bit| {
                (one >> (127 - bit)) & 1 == (other >> (127 - bit)) & 1
            });
            prop_assert_eq!(network.contains(other_ip), same);
            prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
        }
    }
}
