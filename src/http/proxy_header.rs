//! The header of the PROXY protocol, version 2: what a proxy in front of the gateway sends before a
//! client's first byte, so that the gateway knows the client's address
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, clause numbers are its own).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of every header (2.2). No request and no TLS record begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses: the signature, version and command, family, and a length.
const FIXED_BYTES: usize = 16;

/// Most bytes of a whole header. Proxies send some hundred: addresses, and what they know of the
/// client's TLS session.
const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Kind of the field with a checksum of the header (2.2.3, `PP2_TYPE_CRC32C`).
const CRC32C: u8 = 0x03;

/// What a header says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxySource {
    /// The address of the client.
    Client(SocketAddr),
    /// The proxy itself has opened the connection, such as for a health check, or it does not know
    /// the client's address. The connection's own address counts.
    Proxy,
}

/// The bytes are no header of version 2, or one that is malformed. Close the connection: it may be
/// a client that has bypassed the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxyHeader;

/// Reads a header piece by piece.
#[derive(Debug, Default)]
pub struct ProxyHeader(Vec<u8>);

impl ProxyHeader {
    /// Takes received bytes. Returns the header's source once it is whole, with how many of `input`
    /// belong to it: the rest is the client's. `None`: more is needed, and all of `input` was
    /// taken.
    ///
    /// # Errors
    /// The bytes are not the beginning of a good header.
    pub fn on_bytes(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(usize, ProxySource)>, BadProxyHeader> {
        let before = self.0.len();
        let room = PROXY_HEADER_BYTES_MAX - before;
        let (taken, _) = input.split_at(input.len().min(room));
        self.0.extend_from_slice(taken);
        let Some((whole, source)) = parse(&self.0)? else {
            return Ok(None);
        };
        Ok(Some((whole - before, source)))
    }
}

/// Reads the header at the start of `bytes`. Returns its length and its source; `None` if more
/// bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(usize, ProxySource)>, BadProxyHeader> {
    if bytes
        .iter()
        .zip(SIGNATURE)
        .any(|(byte, wanted)| byte != wanted)
    {
        return Err(BadProxyHeader);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, len_high, len_low] = *fixed;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if FIXED_BYTES + len > PROXY_HEADER_BYTES_MAX {
        return Err(BadProxyHeader);
    }
    let Some(content) = rest.get(..len) else {
        return Ok(None);
    };
    let whole = FIXED_BYTES + len;
    // The high half is the version; the low half is LOCAL or PROXY (2.2).
    match command {
        // Family and addresses of LOCAL do not count.
        0x20 => return Ok(Some((whole, ProxySource::Proxy))),
        0x21 => {}
        _ => return Err(BadProxyHeader),
    }
    // Family and transport. A receiver must accept UNSPEC and may ignore Unix addresses (2.2).
    let (source, fields) = match family {
        0x11 => ipv4(content)?,
        0x21 => ipv6(content)?,
        0x31 => (
            ProxySource::Proxy,
            content.get(216..).ok_or(BadProxyHeader)?,
        ),
        0x00 => (ProxySource::Proxy, &[][..]),
        // A stream is not carried by datagrams.
        _ => return Err(BadProxyHeader),
    };
    let (header, _) = bytes.split_at(whole);
    check_fields(fields, header)?;
    Ok(Some((whole, source)))
}

/// Source and destination address, then source and destination port.
fn ipv4(content: &[u8]) -> Result<(ProxySource, &[u8]), BadProxyHeader> {
    let (address, fields) = content.split_first_chunk::<12>().ok_or(BadProxyHeader)?;
    let [a, b, c, d, .., port_high, port_low, _, _] = *address;
    let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let port = u16::from_be_bytes([port_high, port_low]);
    Ok((ProxySource::Client(SocketAddr::new(ip, port)), fields))
}

fn ipv6(content: &[u8]) -> Result<(ProxySource, &[u8]), BadProxyHeader> {
    let (address, fields) = content.split_first_chunk::<36>().ok_or(BadProxyHeader)?;
    let (ip, _) = address.split_first_chunk::<16>().ok_or(BadProxyHeader)?;
    let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
    let port = u16::from_be_bytes([address[32], address[33]]);
    Ok((ProxySource::Client(SocketAddr::new(ip, port)), fields))
}

/// Fields after the addresses: kind, length, value (2.2). Only a checksum is looked at.
fn check_fields(mut fields: &[u8], header: &[u8]) -> Result<(), BadProxyHeader> {
    while let Some(([kind, high, low], rest)) = fields.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) = rest.split_at_checked(len).ok_or(BadProxyHeader)?;
        if *kind == CRC32C {
            let value: [u8; 4] = value.try_into().map_err(|_| BadProxyHeader)?;
            // 2.2.3: computed over the whole header, with the checksum itself as zero.
            let (before, _) = header.split_at(header.len() - next.len() - value.len());
            let sum = crc32c::crc32c(before);
            let sum = crc32c::crc32c_append(sum, &[0; 4]);
            let sum = crc32c::crc32c_append(sum, next);
            if sum != u32::from_be_bytes(value) {
                return Err(BadProxyHeader);
            }
        }
        fields = next;
    }
    if fields.is_empty() {
        Ok(())
    } else {
        Err(BadProxyHeader)
    }
}

/// What holds for any bytes, for the property test and the fuzz target: pieces find what the whole
/// finds, and a header never takes more than there was.
///
/// # Panics
/// It does not hold.
#[cfg(any(test, fuzzing))]
pub fn check_any_bytes(bytes: &[u8]) {
    let whole = ProxyHeader::default().on_bytes(bytes);
    if let Ok(Some((taken, _))) = whole {
        assert!((FIXED_BYTES..=bytes.len()).contains(&taken));
        let (header, _) = bytes.split_at(taken);
        let alone = ProxyHeader::default().on_bytes(header);
        assert_eq!(alone, whole, "bytes behind a header do not change it");
    }
    for piece in [1, 7] {
        let mut header = ProxyHeader::default();
        let mut before = 0;
        let mut result = Ok(None);
        for part in bytes.chunks(piece) {
            result = header.on_bytes(part);
            match result {
                Ok(None) => before += part.len(),
                _ => break,
            }
        }
        let result = result.map(|done| done.map(|(taken, source)| (before + taken, source)));
        assert_eq!(result, whole, "in pieces of {piece}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("short");
        let fixed = [command, family, len.to_be_bytes()[0], len.to_be_bytes()[1]];
        [&SIGNATURE[..], &fixed, content].concat()
    }

    fn read(bytes: &[u8]) -> Result<Option<(usize, ProxySource)>, BadProxyHeader> {
        ProxyHeader::default().on_bytes(bytes)
    }

    /// 192.0.2.7:4660 to 10.0.0.1:443.
    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];

    fn client(text: &str) -> ProxySource {
        ProxySource::Client(text.parse().expect("an address"))
    }

    #[test]
    fn both_families_are_read_and_the_rest_is_the_clients() {
        let mut bytes = header(0x21, 0x11, &IPV4);
        let len = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(read(&bytes), Ok(Some((len, client("192.0.2.7:4660")))));
        let mut content = vec![0x20, 0x01, 0x0d, 0xb8];
        content.resize(32, 1);
        content.extend_from_slice(&[0, 80, 1, 187]);
        let bytes = header(0x21, 0x21, &content);
        let wanted = client("[2001:db8:101:101:101:101:101:101]:80");
        assert_eq!(read(&bytes), Ok(Some((bytes.len(), wanted))));
        // An IPv4 client of a proxy that listens on IPv6.
        let mut content = [0; 36];
        content[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        let bytes = header(0x21, 0x21, &content);
        assert_eq!(read(&bytes), Ok(Some((bytes.len(), client("192.0.2.7:0")))));
    }

    #[test]
    fn a_proxys_own_connection_keeps_its_address() {
        let content = [&IPV4[..], &[0x04, 0, 0]].concat();
        for bytes in [
            header(0x20, 0x11, &content),
            header(0x20, 0x00, b""),
            header(0x20, 0x12, b"ignored"),
            header(0x21, 0x00, b"anything"),
            header(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(read(&bytes), Ok(Some((bytes.len(), ProxySource::Proxy))));
        }
    }

    #[test]
    fn every_cut_waits_for_more_and_every_other_beginning_is_refused() {
        let whole = header(0x21, 0x11, &[&IPV4[..], &[0x04, 0, 2, 9, 9]].concat());
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Ok(None), "{end}");
        }
        for at in 0..SIGNATURE.len() {
            let mut other = whole.clone();
            other[at] ^= 0x20;
            assert_eq!(read(&other), Err(BadProxyHeader), "{at}");
        }
        for other in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 443\r\n",
            &[0x16, 0x03, 0x01],
        ] {
            assert_eq!(read(other), Err(BadProxyHeader));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (command, family, content) in [
            (0x11, 0x11, &IPV4[..]),   // version 1
            (0x22, 0x11, &IPV4[..]),   // an unknown command
            (0x21, 0x12, &IPV4[..]),   // datagrams
            (0x21, 0x41, &IPV4[..]),   // an unknown family
            (0x21, 0x11, &IPV4[..11]), // an address that is cut
            (0x21, 0x21, &IPV4[..]),
            (0x21, 0x31, &IPV4[..]),
            (0x21, 0x11, &[&IPV4[..], &[0x04, 0, 3, 9, 9]].concat()), // a field that is cut
            (0x21, 0x11, &[&IPV4[..], &[0x04]].concat()),
            (0x21, 0x11, &[0; PROXY_HEADER_BYTES_MAX]),
        ] {
            let bytes = header(command, family, content);
            assert_eq!(read(&bytes), Err(BadProxyHeader), "{command:x} {family:x}");
        }
    }

    #[test]
    fn a_checksum_is_verified() {
        let field = [CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 7];
        let mut bytes = header(0x21, 0x11, &[&IPV4[..], &field].concat());
        let sum = crc32c::crc32c(&bytes).to_be_bytes();
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&sum);
        assert!(matches!(read(&bytes), Ok(Some(_))));
        for bit in 0..32 {
            let mut changed = bytes.clone();
            changed[at + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&changed), Err(BadProxyHeader), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike_whole_and_in_pieces(
            command in 0x1f_u8..0x23,
            family in prop::sample::select(vec![0_u8, 0x11, 0x21, 0x31, 0x12]),
            content in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = header(command, family, &content);
            bytes.extend_from_slice(&rest);
            check_any_bytes(&bytes);
            check_any_bytes(&bytes[..cut.index(bytes.len())]);
        }
    }
}
