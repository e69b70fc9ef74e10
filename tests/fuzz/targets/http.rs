//! The bytes of a connection in pieces of any size: the sizes must never change what was read.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 16).min(rest.len() / 2);
    let (cuts, bytes) = rest.split_at(2 * count);
    let cuts: Vec<u16> = cuts.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
    sluicegate_fuzz::http::check_any_bytes(bytes, &cuts);
});
