//! Properties that hold for any response. Property tests and the fuzzer share them.

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages as kp;
use kafka_protocol::protocol::{Decodable as _, Request};

use super::{shape, wire};

/// Reads `bytes` as the response of a broker: the first two say to which API and in which version,
/// of those we ask for.
///
/// # Panics
/// If the schema of a response and the decoder of the codec crate differ about where it ends.
pub fn check_any_response(bytes: &[u8]) {
    let &[which, version, ref body @ ..] = bytes else {
        return;
    };
    match which % 10 {
        0 => check::<kp::ProduceRequest>(version, body),
        1 => check::<kp::FetchRequest>(version, body),
        2 => check::<kp::ListOffsetsRequest>(version, body),
        3 => check::<kp::MetadataRequest>(version, body),
        4 => check::<kp::ApiVersionsRequest>(version, body),
        5 => check::<kp::InitProducerIdRequest>(version, body),
        6 => check::<kp::DescribeConfigsRequest>(version, body),
        7 => check::<kp::OffsetForLeaderEpochRequest>(version, body),
        8 => check::<kp::SaslHandshakeRequest>(version, body),
        _ => check::<kp::SaslAuthenticateRequest>(version, body),
    }
}

fn check<R: Request>(version: u8, body: &[u8]) {
    // Every version that the codec crate can read, of which those we ask for are some.
    let range = R::VERSIONS;
    let span = u8::try_from(range.max - range.min + 1).expect("versions are few");
    let version = range.min + i16::from(version % span);
    let mut rest = Bytes::copy_from_slice(body);
    let _as_it_comes = wire::decode::<R>(rest.clone(), version);
    let Some(after) = shape::after(R::KEY, version, body) else {
        return;
    };
    if R::Response::decode(&mut rest, version).is_ok() {
        assert_eq!(rest.remaining(), after.len(), "{} {version}", R::KEY);
    }
}
