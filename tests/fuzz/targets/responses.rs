//! Responses of brokers, by API and version: a broker is trusted with data, not with our life.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicegate_fuzz::kafka::check_any_response(data));
