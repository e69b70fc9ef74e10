//! Decompression with each codec, up to a limit of bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicegate_fuzz::kafka::records::check_any_codec(data));
