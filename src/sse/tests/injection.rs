//! RELIABILITY, SSE injection: whatever bytes a record has, a reader sees one event with the
//! record's data and our id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::model::{Rec, TAG, batch, cut};
use super::parser::{Dispatch, parse};
use crate::log::EventId;
use crate::model::{EventName, UnixMillis};
use crate::sse::{Encoder, Encoding, Payload};

fn encode(encoding: &Encoding, record: Rec) -> Vec<u8> {
    let mut encoder = Encoder::new(encoding.clone(), TAG);
    let after = cut(&[record.offset + 1]);
    let block = encoder.records(&batch(0, &[record]), &cut(&[0]), &after, UnixMillis(5_000));
    block.expect("one record").bytes().to_vec()
}

/// Checks that there is a single event, with an id that leads behind the record.
fn only_event(bytes: &[u8]) -> Dispatch {
    assert!(!bytes.contains(&b'\0') || parse(bytes).events().any(|e| e.data.contains('\0')));
    let stream = parse(bytes);
    assert_eq!(
        stream.blocks.len(),
        1,
        "{:?}",
        String::from_utf8_lossy(bytes)
    );
    assert_eq!(stream.retry, None);
    let event = stream.events().next().expect("the record's event").clone();
    let id = EventId::parse(event.id.as_bytes()).expect("our own id");
    assert_eq!(id.progress.expect("a progress").cut, cut(&[8]));
    assert!(!id.etag.is_empty());
    event
}

const EVIL: [&str; 6] = [
    "x",
    "event: gap",
    "id: -.x",
    "data: y",
    "retry: 1",
    ": comment",
];

#[test]
fn three_line_ends_in_every_field() {
    for end in ["\r", "\n", "\r\n", "\n\n", "\r\r", "\r\n\r\n"] {
        for evil in EVIL {
            let bytes = format!("a{end}{evil}{end}{end}").into_bytes();
            let offset = 7;
            let (key, value) = (Some(bytes.clone()), Some(bytes.clone()));
            let etag = Some(bytes.clone());
            let record = Rec {
                offset,
                key,
                value,
                etag,
            };
            // In the value, the key and the etag at once.
            let event = only_event(&encode(&Encoding::default(), record.clone()));
            let text = String::from_utf8(bytes.clone()).expect("ASCII");
            let joined = text.replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!((&*event.event, event.data), ("message", joined));
            // In a tombstone's key.
            let value = None;
            let event = only_event(&encode(&Encoding::default(), Rec { value, ..record }));
            assert_eq!(event.event, "delete");
            let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            assert_eq!(data["key"], text);
        }
    }
}

#[test]
fn an_event_name_is_read_as_it_was_set() {
    let event = EventName::new("zahlung: ä").ok();
    assert!(event.is_some());
    let payload = Payload::Auto;
    let record = super::model::rec(7, "k", "v");
    let event = only_event(&encode(
        &Encoding {
            event,
            payload,
            ..Encoding::default()
        },
        record,
    ));
    assert_eq!(event.event, "zahlung: ä");
}

#[test]
fn what_is_not_text_is_declared_base64() {
    let mut record = super::model::rec(7, "k", "");
    record.value = Some(vec![0xff, b'\n', 0]);
    record.key = Some(vec![0xfe, b'\r']);
    let event = EventName::new("pay").ok();
    let auto = Encoding {
        event: event.clone(),
        ..Encoding::default()
    };
    let seen = only_event(&encode(&auto, record.clone()));
    assert_eq!((&*seen.event, &*seen.data), ("base64", "/woA"));
    let payload = Payload::Base64;
    let seen = only_event(&encode(
        &Encoding {
            event,
            payload,
            ..Encoding::default()
        },
        record.clone(),
    ));
    assert_eq!((&*seen.event, &*seen.data), ("pay", "/woA"));
    record.value = None;
    let seen = only_event(&encode(&auto, record.clone()));
    assert_eq!(
        (&*seen.event, &*seen.data),
        ("delete", r#"{"key_base64":"/g0="}"#)
    );
    record.key = None;
    let seen = only_event(&encode(&auto, record));
    assert_eq!((&*seen.event, &*seen.data), ("delete", r#"{"key":null}"#));
}

#[test]
fn an_empty_value_is_an_event_too() {
    let record = super::model::rec(7, "k", "");
    let seen = only_event(&encode(&Encoding::default(), record));
    assert_eq!((&*seen.event, &*seen.data), ("message", ""));
}

#[test]
fn the_etag_is_the_headers_or_the_position() {
    let mut record = super::model::rec(7, "k", "v");
    let etag = |record: &Rec| {
        let event = only_event(&encode(&Encoding::default(), record.clone()));
        event.id.split_once('.').expect("a dot").1.to_owned()
    };
    assert_eq!(etag(&record), format!("{TAG}-0-7"));
    record.etag = Some(b"v7.id:x".to_vec());
    assert_eq!(etag(&record), "v7=2Eid=3Ax");
    // HTTP can't carry this tag: the record counts as having none.
    record.etag = Some(b"v7\r\nid: x".to_vec());
    assert_eq!(etag(&record), format!("{TAG}-0-7"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any bytes in any field.
    #[test]
    fn any_record_is_one_event(
        key in proptest::option::of(any_bytes()),
        value in any_bytes(),
        etag in proptest::option::of(any_bytes()),
    ) {
        let record = Rec { offset: 7, key, value: Some(value.clone()), etag };
        let event = only_event(&encode(&Encoding::default(), record));
        match String::from_utf8(value.clone()) {
            Ok(text) => {
                let joined = text.replace("\r\n", "\n").replace('\r', "\n");
                prop_assert_eq!(event.data, joined);
            }
            Err(_) => prop_assert_eq!(event.data, STANDARD.encode(value)),
        }
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'\r'),
        Just(b'\n'),
        Just(b':'),
        Just(b' '),
        Just(0),
        Just(0xff),
        Just(0xef),
        Just(0xbb),
        Just(0xbf),
        any::<u8>(),
    ];
    let line = prop_oneof![Just(b"id: x\n".to_vec()), Just(b"event: gap\r".to_vec())];
    prop_oneof![
        proptest::collection::vec(byte, 0..40),
        line,
        "[ -~\r\n\u{2028}ä]{0,40}".prop_map(String::into_bytes),
    ]
}
