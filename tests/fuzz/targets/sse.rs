//! A record as an event: whatever its key, value and etag are, a reader that follows the WHATWG
//! rules gets exactly one event, with this data and with an id that can be read.
#![no_main]

use bytes::Bytes;
use sluicegate_fuzz::log::{BatchBuilder, Cut, EventId, Next, RecordParts};
use sluicegate_fuzz::model::{HashSecret, LeaderEpoch, LogTag, Offset, Partition, UnixMillis};
use sluicegate_fuzz::sse::{Encoder, Encoding};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [flags, key_len, etag_len, rest @ ..] = data else { return };
    let (key, rest) = rest.split_at(usize::from(*key_len).min(rest.len()));
    let (etag, value) = rest.split_at(usize::from(*etag_len % 100).min(rest.len()));
    let (has_key, has_value) = (flags & 1 != 0, flags & 2 != 0);
    let bytes = encode(has_key.then_some(key), has_value.then_some(value), etag);
    let (name, data, id) = read(&bytes);
    match (has_value, std::str::from_utf8(value)) {
        (false, _) => assert_eq!(name, "delete"),
        (true, Ok(text)) => {
            assert_eq!(name, "");
            assert_eq!(data, text.replace("\r\n", "\n").replace('\r', "\n"));
        }
        (true, Err(_)) => assert_eq!(name, "base64"),
    }
    let id = EventId::parse(id.as_bytes()).expect("our own id");
    assert_eq!(id.progress.expect("a cut").cut.get(Partition(3)).offset, Offset(8));
    let plain = |b: &u8| b.is_ascii_graphic() && !b"\"\\,".contains(b);
    assert!(!id.etag.is_empty() && id.etag.iter().all(plain), "{:?}", id.etag);
});

fn encode(key: Option<&[u8]>, value: Option<&[u8]>, etag: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = |part: &[u8]| {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(part);
        (start, part.len() as u32)
    };
    let (key, value) = (key.map(&mut part), value.map(&mut part));
    // One header, as Kafka writes it: zigzag varints before the name and the value. These lengths
    // fit one or two bytes.
    let mut header = vec![8];
    header.extend_from_slice(b"etag");
    match etag.len() * 2 {
        len @ 0..0x80 => header.push(len as u8),
        len => header.extend([len as u8 | 0x80, (len >> 7) as u8]),
    }
    header.extend_from_slice(etag);
    let headers = part(&header);
    let mut batch = BatchBuilder::new(Partition(3));
    batch.buffer(Bytes::from(bytes), LeaderEpoch(Some(1)));
    let (offset, timestamp) = (Offset(7), UnixMillis(0));
    batch.push(RecordParts { offset, timestamp, key, value, headers, header_count: 1 });
    let mut batch = batch.finish();
    batch.hash_keys(&HashSecret::new([1; 16]));
    let mut after = Cut::start();
    after.set(Partition(3), Next { offset: Offset(8), epoch: LeaderEpoch(Some(1)) });
    let mut encoder = Encoder::new(Encoding::default(), LogTag([1, 2, 3, 4]));
    let block = encoder.records(&batch, &Cut::start(), &after, UnixMillis(0));
    block.expect("it has a record").bytes().to_vec()
}

/// Name, data and id of the one event in `bytes`.
fn read(bytes: &[u8]) -> (String, String, String) {
    let text = std::str::from_utf8(bytes).expect("an event stream is UTF-8");
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let body = text.strip_suffix("\n\n").expect("a blank line ends an event");
    assert!(!body.contains("\n\n"), "one event: {text:?}");
    let (mut name, mut data, mut id) = (String::new(), None::<String>, String::new());
    for line in body.split('\n') {
        let (field, value) = line.split_once(':').expect("a field");
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "id" => {
                assert!(id.is_empty() && !value.contains('\0'));
                id = value.to_owned();
            }
            "data" => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            other => panic!("no field of ours: {other:?}"),
        }
    }
    (name, data.expect("an event without data is none"), id)
}
