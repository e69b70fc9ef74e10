//! Requests and responses as bytes: the versions that the client speaks, and their encoding by the
//! `kafka-protocol` crate. Its encoder fails if a field is set that the version lacks, so callers
//! build a request for a version.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use bytes::{Buf, Bytes};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::{KafkaError, shape};

/// The APIs that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    Versions,
    InitProducerId,
    DescribeConfigs,
    SaslHandshake,
    SaslAuthenticate,
    EpochEnds,
}

impl Api {
    const ALL: [Self; 10] = [
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::Versions,
        Self::InitProducerId,
        Self::DescribeConfigs,
        Self::SaslHandshake,
        Self::SaslAuthenticate,
        Self::EpochEnds,
    ];

    pub(super) const fn key(self) -> i16 {
        self.ours().0
    }

    /// The API's key, and the range of versions that this code understands.
    const fn ours(self) -> (i16, i16, i16) {
        match self {
            Self::Produce => (0, 3, 13), // From 13 on, topics by id.
            Self::Fetch => (1, 4, 16),   // From 13 on, topics by id.
            Self::ListOffsets => (2, 2, 8),
            Self::Metadata => (3, 4, 12), // Below 4 the broker creates what it is asked for.
            Self::Versions => (18, 0, 3),
            Self::InitProducerId => (22, 0, 4),
            Self::DescribeConfigs => (32, 1, 4),
            Self::SaslHandshake => (17, 1, 1), // In 0, the messages of SASL have no frames.
            Self::SaslAuthenticate => (36, 0, 2),
            Self::EpochEnds => (23, 2, 4), // Below 2 it can't be fenced.
        }
    }
}

/// The newest version of each API that both sides speak. -1 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions([i16; Api::ALL.len()]);

impl Versions {
    pub(super) const NONE: Self = Self([-1; Api::ALL.len()]);

    /// The versions in common with a broker that offers `theirs`.
    pub(super) fn negotiate(theirs: &[ApiVersion]) -> Self {
        let newest = |api: Api| {
            let (key, min, max) = api.ours();
            let offer = theirs.iter().find(|offer| offer.api_key == key)?;
            let version = max.min(offer.max_version);
            (version >= min.max(offer.min_version)).then_some(version)
        };
        Self(Api::ALL.map(|api| newest(api).unwrap_or(-1)))
    }

    /// The version to use.
    ///
    /// # Errors
    /// The broker offers no version that the client speaks.
    #[expect(clippy::indexing_slicing, reason = "one entry for each of Api::ALL")]
    pub(super) fn of(&self, api: Api) -> Result<i16, KafkaError> {
        match self.0[api as usize] {
            -1 => Err(KafkaError::Protocol(match api {
                Api::Produce => "the broker offers no usable version of Produce",
                Api::Fetch => "the broker offers no usable version of Fetch",
                Api::ListOffsets => "the broker offers no usable version of ListOffsets",
                Api::Metadata => "the broker offers no usable version of Metadata",
                Api::Versions => "the broker offers no usable version of ApiVersions",
                Api::InitProducerId => "the broker offers no usable version of InitProducerId",
                Api::DescribeConfigs => "the broker offers no usable version of DescribeConfigs",
                Api::SaslHandshake => "the broker offers no usable version of SaslHandshake",
                Api::SaslAuthenticate => "the broker offers no usable version of SaslAuthenticate",
                Api::EpochEnds => "the broker offers no usable version of OffsetForLeaderEpoch",
            })),
            version => Ok(version),
        }
    }
}

/// Appends one request, with its length before it.
#[expect(
    clippy::indexing_slicing,
    reason = "start is where this request begins in out"
)]
pub(super) fn encode<R: Request>(
    out: &mut Vec<u8>,
    client_id: &StrBytes,
    correlation: i32,
    version: i16,
    request: &R,
) {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    header
        .encode(out, R::header_version(version))
        .and_then(|()| request.encode(out, version))
        .expect("a request sets only fields of its version");
    let len = i32::try_from(out.len() - start - 4).expect("requests are bounded in bytes");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// A response behind its correlation id, and the version that it is encoded in.
#[derive(Debug)]
pub(super) struct ResponseBody {
    pub(super) version: i16,
    pub(super) bytes: Bytes,
}

impl ResponseBody {
    /// Reads it as the response to an `R`. See [`decode`].
    pub(super) fn decode<R: Request>(self) -> Result<R::Response, KafkaError> {
        decode::<R>(self.bytes, self.version)
    }
}

/// Decodes a response to an `R`, after its correlation id. Rejects counts of elements that its
/// bytes can't hold, or that exceed all needs, before memory is allocated for them.
pub(super) fn decode<R: Request>(mut body: Bytes, version: i16) -> Result<R::Response, KafkaError> {
    let malformed = KafkaError::Protocol("a response that can't be decoded");
    if <R::Response as HeaderVersion>::header_version(version) > 0 {
        skip_tagged_fields(&mut body).ok_or_else(|| malformed.clone())?;
    }
    shape::after(R::KEY, version, &body).ok_or(KafkaError::Protocol(
        "a response with more elements than its bytes hold, or than 262144",
    ))?;
    R::Response::decode(&mut body, version).map_err(|_| malformed)
}

/// Skips the rest of a flexible header (KIP-482) after its correlation id. No field is defined.
fn skip_tagged_fields(body: &mut Bytes) -> Option<()> {
    for _ in 0..unsigned_varint(body)? {
        unsigned_varint(body)?;
        let len = unsigned_varint(body)? as usize;
        (len <= body.len()).then(|| body.advance(len))?;
    }
    Some(())
}

fn unsigned_varint(body: &mut Bytes) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *body.first()?;
        body.advance(1);
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The first request of a connection.
pub(super) fn greeting(version: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    match version {
        0 => request,
        // KIP-511: names as brokers accept them.
        _ => request
            .with_client_software_name(StrBytes::from_static_str("sluicegate"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION"))),
    }
}
