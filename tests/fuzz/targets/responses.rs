//! Responses of brokers, by API and version: a broker is trusted with data, not with our life.
#![no_main]

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsResponse, DescribeConfigsResponse, FetchResponse, InitProducerIdResponse,
    ListOffsetsResponse, MetadataResponse, ProduceResponse,
};
use kafka_protocol::protocol::Decodable;

fn decode<R: Decodable>(bytes: &[u8], version: i16) {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let _decoded = R::decode(&mut bytes, version);
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let version = |least: u8, most: u8| i16::from(least + (which >> 3) % (most - least + 1));
    // The versions we ask for.
    match which & 7 {
        0 => decode::<ProduceResponse>(rest, version(3, 13)),
        1 => decode::<FetchResponse>(rest, version(4, 16)),
        2 => decode::<ListOffsetsResponse>(rest, version(2, 8)),
        3 => decode::<MetadataResponse>(rest, version(4, 12)),
        4 => decode::<ApiVersionsResponse>(rest, version(0, 3)),
        5 => decode::<InitProducerIdResponse>(rest, version(0, 4)),
        _ => decode::<DescribeConfigsResponse>(rest, version(1, 4)),
    }
});
