//! The records of a fetch response: batches, codecs and limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicegate_fuzz::kafka::records::check_any_bytes(data));
