//! Addresses to listen on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Whether two listening addresses have the same port, and the same host or hosts of which one
/// includes the other. `0.0.0.0` includes all IPv4 hosts, and `[::]` includes all hosts. Port 0
/// means any free port, so it never overlaps.
#[must_use]
pub fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |wide: IpAddr, ip: IpAddr| {
        wide == Ipv6Addr::UNSPECIFIED || wide.is_unspecified() && ip.is_ipv4()
    };
    let meet = a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip);
    meet && a.port() == b.port() && a.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_by_port_and_host() {
        let overlaps = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|it| it.parse().expect("an address"));
            assert_eq!(overlap(&a, &b), overlap(&b, &a));
            overlap(&a, &b)
        };
        assert!(overlaps("127.0.0.1:1", "127.0.0.1:1"));
        assert!(overlaps("127.0.0.1:1", "0.0.0.0:1"));
        assert!(overlaps("127.0.0.1:1", "[::]:1"));
        assert!(overlaps("0.0.0.0:1", "[::]:1"));
        assert!(overlaps("[::1]:1", "[::]:1"));
        assert!(overlaps("127.0.0.1:1", "[::ffff:127.0.0.1]:1"));
        assert!(overlaps("127.0.0.1:1", "[::ffff:0.0.0.0]:1"));
        assert!(!overlaps("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!overlaps("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlaps("[::1]:1", "0.0.0.0:1"));
        assert!(!overlaps("0.0.0.0:0", "127.0.0.1:0"));
    }
}
