//! Responses of brokers, by API and version: a broker may send wrong data, but its bytes must never
//! crash the gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicegate_fuzz::kafka::check_any_response(data));
