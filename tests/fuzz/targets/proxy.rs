//! The header of the PROXY protocol, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    sluicegate_fuzz::http::check_any_proxy_header(data);
});
