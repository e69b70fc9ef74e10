//! Each codec under its cap.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicegate_fuzz::kafka::records::check_any_codec(data));
