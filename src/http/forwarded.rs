//! The address of a client behind proxies: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address that it was asked from. So the last addresses are those of
//! trusted proxies, and the one before them is the client's. Everything further ahead was sent by
//! the client and is not believed.

use std::net::{IpAddr, Ipv6Addr};

use super::headers::Headers;
use super::list;
use super::split::split_once;

/// The header in which proxies report the address of their client. They must use the same one, and
/// append to it: a client can send the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`: a list of addresses.
    XForwardedFor,
    /// `Forwarded`: the parameter `for` of each element (RFC 7239 5.2).
    Forwarded,
}

/// Addresses of one request that are examined, from the last to the first. A chain of proxies is
/// not that long.
const HOPS_MAX: usize = 32;

/// The address of the client that a request came from. `peer` is the other end of the connection,
/// and `is_proxy` says which addresses belong to trusted proxies. An address that can't be read
/// (`unknown`, RFC 7239 6.2) ends the search: the proxy that reported it stands for its client.
#[must_use]
pub fn client_address(
    peer: IpAddr,
    headers: &Headers<'_>,
    by: ForwardedBy,
    is_proxy: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    if !is_proxy(peer) {
        return client;
    }
    let name = match by {
        ForwardedBy::XForwardedFor => "x-forwarded-for",
        ForwardedBy::Forwarded => "forwarded",
    };
    // Lines of one name are one list (RFC 9110 5.3). Only the last hops are kept, in a ring. Quotes
    // do not count here: a client could open one that hides what its proxy appends. What a proxy
    // appends has no comma of its own.
    let mut hops = [None; HOPS_MAX];
    let mut count = 0;
    let all = headers
        .get_all(name)
        .flat_map(|line| line.split(|&b| b == b','));
    for hop in all.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        if let Some(place) = hops.get_mut(count % HOPS_MAX) {
            *place = Some(hop);
        }
        count += 1;
    }
    for back in 1..=count.min(HOPS_MAX) {
        let hop = hops.get((count - back) % HOPS_MAX).copied().flatten();
        let address = hop.and_then(|hop| match by {
            ForwardedBy::XForwardedFor => address_of(hop),
            ForwardedBy::Forwarded => address_of(parameter_for(hop)?),
        });
        let Some(address) = address else {
            break;
        };
        client = address;
        if !is_proxy(address) {
            break;
        }
    }
    client
}

/// The value of the parameter `for`, without its quotes. Two are none.
fn parameter_for(element: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    for pair in list::parts(element, b';') {
        let Some((name, value)) = split_once(pair, b'=') else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
    }
    match found? {
        [b'"', inner @ .., b'"'] => Some(inner),
        plain => Some(plain),
    }
}

/// The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or
/// `[2001:db8::1]:80`.
fn address_of(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if !port.is_empty() && !port.starts_with(':') {
                return None;
            }
            address.parse::<Ipv6Addr>().ok()?.into()
        }
        None => match text.split_once(':') {
            // One colon: a port follows an IPv4 address.
            Some((address, port)) if !port.contains(':') => {
                IpAddr::V4(address.parse::<std::net::Ipv4Addr>().ok()?)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::headers_of;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn is_proxy(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
    }

    fn client(peer: &str, by: ForwardedBy, headers: &[(&str, &str)]) -> String {
        let head = headers_of(headers);
        client_address(ip(peer), &head.headers(), by, is_proxy).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let by = ForwardedBy::XForwardedFor;
        for (peer, sent, expected) in [
            ("10.0.0.1", &["192.0.2.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            (
                "10.0.0.1",
                &["203.0.113.9, 192.0.2.1, 10.0.0.2"],
                "192.0.2.1",
            ),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            // An entry that can't be read is not skipped: the sender of the rest is unknown.
            ("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["192.0.2.1, [2001:db8::1]x"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            // A peer that is no proxy can claim nothing.
            ("192.0.2.7", &["203.0.113.9"], "192.0.2.7"),
        ] {
            let headers: Vec<_> = sent.iter().map(|it| ("X-Forwarded-For", *it)).collect();
            assert_eq!(client(peer, by, &headers), expected, "{sent:?}");
        }
        let other = [("Forwarded", "for=203.0.113.9")];
        assert_eq!(client("10.0.0.1", by, &other), "10.0.0.1", "another header");
    }

    // RFC 7239 4 and 6.
    #[test]
    fn forwarded_names_the_client_in_for() {
        let by = ForwardedBy::Forwarded;
        for (sent, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
            ("proto=http; for=\"192.0.2.1:80\"", "192.0.2.1"),
            ("for=203.0.113.9, for=192.0.2.1, for=10.0.0.9", "192.0.2.1"),
            ("for=192.0.2.1;for=203.0.113.9", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown, for=10.0.0.9", "10.0.0.9"),
            ("by=192.0.2.1", "10.0.0.1"),
        ] {
            assert_eq!(
                client("10.0.0.1", by, &[("Forwarded", sent)]),
                expected,
                "{sent}"
            );
        }
        let other = [("X-Forwarded-For", "203.0.113.9")];
        assert_eq!(client("10.0.0.1", by, &other), "10.0.0.1", "another header");
    }

    proptest! {
        /// Whatever a client sends ahead, the address that the proxy appends decides.
        #[test]
        fn a_client_can_not_choose_its_address(
            sent in prop::collection::vec("[ -~]{0,40}", 0..40), forwarded: bool,
        ) {
            let (by, name, appended) = if forwarded {
                (ForwardedBy::Forwarded, "Forwarded", "for=192.0.2.1")
            } else {
                (ForwardedBy::XForwardedFor, "X-Forwarded-For", "192.0.2.1")
            };
            let mut headers: Vec<_> = sent.iter().map(|it| (name, &**it)).collect();
            let line = format!("{}, {appended}", sent.join(", "));
            prop_assert_eq!(client("10.0.0.1", by, &[(name, &line)]), "192.0.2.1");
            headers.push((name, appended));
            prop_assert_eq!(client("10.0.0.1", by, &headers), "192.0.2.1");
        }
    }
}
