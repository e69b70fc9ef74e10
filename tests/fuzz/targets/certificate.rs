//! The fields of a certificate: whatever its bytes are, reading them ends, and its names are plain.
#![no_main]

use sluicegate_fuzz::x509::CertificateFields;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(fields) = CertificateFields::read(data) else { return };
    assert!(!fields.subject.chars().any(char::is_control));
    for (_, name) in &fields.names {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
    }
});
