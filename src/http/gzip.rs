//! Bodies in gzip (RFC 9110 8.4.1.3): whether a client takes them, and the encoder. The gateway
//! itself accepts no coded body, so nothing here decompresses.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::headers::Headers;
use super::list;

/// The smallest body that is compressed. A smaller one fits one packet either way.
pub const GZIP_BYTES_MIN: usize = 1024;

/// Whether the client takes gzip: `Accept-Encoding` lists `gzip`, `x-gzip` or `*` with a weight
/// above zero (RFC 9110 12.5.3). Without the header it may take it, but did not ask for it.
#[must_use]
pub fn accepts_gzip(headers: &Headers<'_>) -> bool {
    let (mut named, mut any) = (None, None);
    for member in headers.get_all("accept-encoding").flat_map(list::members) {
        let mut parts = list::parts(member, b';');
        let Some(coding) = parts.next() else { continue };
        let accepted = !parts.any(super::accept::is_zero_weight);
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        if is(b"gzip") || is(b"x-gzip") {
            named = Some(named.unwrap_or(false) || accepted);
        } else if is(b"*") {
            any = Some(accepted);
        }
    }
    named.or(any).unwrap_or(false)
}

/// Whether content of this type becomes smaller: text, JSON, XML. Images and archives are
/// compressed already.
#[must_use]
pub fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/').unwrap_or((&essence, ""));
    kind == "text"
        || subtype.ends_with("+json")
        || subtype.ends_with("+xml")
        || matches!(subtype, "json" | "xml" | "javascript" | "x-ndjson" | "yaml")
}

/// Compresses one body, in as many pieces as it comes in.
#[derive(Debug)]
pub struct GzipEncoder(GzEncoder<Vec<u8>>);

impl Default for GzipEncoder {
    fn default() -> Self {
        // The fastest level: JSON shrinks to a fifth, and a better level costs three times as much
        // for a tenth less.
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }
}

impl GzipEncoder {
    /// Memory of an encoder at most: its tables, and output of a piece that is not taken yet.
    pub const BYTES_MAX: usize = 512 * 1024;

    /// Compresses a piece. Appends to `out` what is ready, which may be nothing.
    pub fn piece(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.0.write_all(bytes).expect("a vector takes all bytes");
        out.append(self.0.get_mut());
    }

    /// Appends all that was compressed so far, so that the client can read it.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.0.flush().expect("a vector takes all bytes");
        out.append(self.0.get_mut());
    }

    /// Ends the body.
    pub fn end(self, out: &mut Vec<u8>) {
        let mut rest = self.0.finish().expect("a vector takes all bytes");
        out.append(&mut rest);
    }
}

/// Compresses a whole body.
#[must_use]
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let (mut encoder, mut out) = (GzipEncoder::default(), Vec::new());
    encoder.piece(body, &mut out);
    encoder.end(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::super::tests::headers_of;
    use super::*;

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        decoder.read_to_end(&mut all).expect("a gzip member");
        all
    }

    // RFC 9110 12.5.3.
    #[test]
    fn a_client_takes_gzip_if_it_says_so() {
        for (accept, taken) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1, gzip;q=0.8, *;q=0.1", true),
            ("*", true),
            ("gzip ; q=0.001", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("br", false),
            ("identity", false),
            ("", false),
            ("gzipped", false),
            ("deflate;x=\"gzip, gzip\"", false),
        ] {
            let head = headers_of(&[("Accept-Encoding", accept)]);
            assert_eq!(accepts_gzip(&head.headers()), taken, "{accept}");
        }
        assert!(!accepts_gzip(&headers_of(&[]).headers()));
    }

    #[test]
    fn text_is_compressed_and_images_are_not() {
        for text in [
            "application/json",
            "application/json; charset=utf-8",
            "application/vnd.x+json",
            "Application/Problem+JSON",
            "text/csv",
            "image/svg+xml",
            "application/x-ndjson",
        ] {
            assert!(is_compressible(text), "{text}");
        }
        for other in [
            "image/png",
            "application/octet-stream",
            "application/zip",
            "",
            "json",
        ] {
            assert!(!is_compressible(other), "{other}");
        }
    }

    fn any_piece() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..600)
    }

    proptest! {
        /// Pieces and flushes anywhere do not change what the client reads.
        #[test]
        fn a_body_in_pieces_is_the_body(
            pieces in prop::collection::vec((any_piece(), any::<bool>()), 0..20),
        ) {
            let (mut encoder, mut out) = (GzipEncoder::default(), Vec::new());
            for (piece, flush) in &pieces {
                encoder.piece(piece, &mut out);
                if *flush {
                    encoder.flush(&mut out);
                }
            }
            encoder.end(&mut out);
            let body: Vec<u8> = pieces.into_iter().flat_map(|(piece, _)| piece).collect();
            prop_assert_eq!(unpacked(&out), body.clone());
            prop_assert_eq!(unpacked(&gzip(&body)), body);
        }
    }
}
