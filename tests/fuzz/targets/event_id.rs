//! Event ids as clients send them back: an id that can be read is exactly what would be written for
//! it.
#![no_main]

use sluicegate_fuzz::log::{EventId, Progress};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(progress) = Progress::decode(data) {
        assert_eq!(progress.encode().as_bytes(), data, "one cut has one text");
    }
    if let Ok(id) = EventId::parse(data) {
        assert!(data.ends_with(id.etag));
        if let Some(progress) = &id.progress {
            let partitions = progress.cut.iter().count();
            assert!(partitions <= Progress::PARTITIONS_MAX);
        }
    }
});
