//! The records that compaction and retention keep.

use super::*;

const DAY_MS: u64 = 86_400_000;

fn compacted() -> (Rig, ConnectionId) {
    Rig::with_topic(&[
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "1000"),
    ])
}

fn owned(values: &[(u64, &str)]) -> Vec<(u64, String)> {
    values
        .iter()
        .map(|(offset, value)| (*offset, (*value).to_owned()))
        .collect()
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset() {
    let (mut rig, c) = compacted();
    rig.append(
        c,
        &[("a", Some("a1")), ("b", Some("b1")), ("a", Some("a2"))],
    );
    rig.append(c, &[("b", Some("b2"))]);
    rig.append(c, &[("c", Some("c1")), ("a", Some("a3"))]);
    rig.append(c, &[("c", Some("newest batch"))]);
    rig.broker.compact("t").unwrap();
    let left = [(3, "b2"), (4, "c1"), (5, "a3"), (6, "newest batch")];
    assert_eq!(rig.values(), owned(&left));
    let data = rig.fetch(c, 0, false);
    let records = data.records.unwrap();
    assert_eq!(batches(&records).0, [(3, 3), (4, 5), (6, 6)]);
    assert_eq!((data.log_start_offset, data.high_watermark), (0, 7));
    rig.broker.compact("t").unwrap();
    assert_eq!(rig.values(), owned(&left), "a second time changes nothing");
}

#[test]
fn a_batch_keeps_its_span_and_gets_a_right_checksum() {
    let (mut rig, c) = compacted();
    let three = Batch::of(&[("a", Some("a1")), ("b", Some("b1")), ("a", Some("a2"))]);
    for codec in 1..=4 {
        rig.produce(c, compress(&three.bytes(), codec));
    }
    rig.append(c, &[("z", Some("z"))]);
    rig.broker.compact("t").unwrap();
    assert_eq!(rig.values(), owned(&[(10, "b1"), (11, "a2"), (12, "z")]));
    let records = rig.fetch(c, 0, false).records.unwrap();
    let (header, whole) = batch::Header::read(&records).unwrap();
    assert_eq!(
        (header.base_offset, header.last_offset_delta, header.count),
        (9, 2, 2)
    );
    assert_eq!(header.crc, batch::checksum(&records[..whole]));
    assert_eq!(header.codec(), 0, "stored without compression");
}

#[test]
fn tombstones_stay_for_their_time() {
    let (mut rig, c) = compacted();
    rig.append(c, &[("a", Some("a1"))]);
    rig.append(c, &[("a", None)]);
    rig.append(c, &[("z", Some("z"))]);
    rig.broker.compact("t").unwrap();
    assert_eq!(rig.values(), owned(&[(1, "(null)"), (2, "z")]));
    rig.pass(1_000);
    rig.broker.compact("t").unwrap();
    assert_eq!(rig.values().len(), 2, "not a millisecond early");
    rig.pass(1);
    rig.broker.compact("t").unwrap();
    assert_eq!(rig.values(), owned(&[(2, "z")]));
}

#[test]
fn what_can_t_be_decoded_stays_whole() {
    let (mut rig, c) = compacted();
    rig.append(c, &[("a", Some("a1"))]);
    let mut broken = Batch::one("x").bytes();
    broken[61] = 0x7f;
    rig.broker.plant("t", P0, &broken).unwrap();
    rig.append(c, &[("a", Some("a2"))]);
    rig.append(c, &[("z", Some("z"))]);
    rig.broker.compact("t").unwrap();
    let records = rig.fetch(c, 0, false).records.unwrap();
    assert_eq!(batches(&records).0, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_compacted_topic_is_compacted_by_itself() {
    let (mut rig, c) = compacted();
    let value = "x".repeat(100_000);
    for _ in 0..30 {
        rig.append(c, &[("a", Some(&value))]);
    }
    rig.pass(1_000);
    assert_eq!(rig.values().len(), 2);
    assert!(rig.broker.cluster.store.bytes() < 210_000);
}

#[test]
fn records_leave_by_age_and_by_size() {
    let (mut rig, c) = Rig::with_topic(&[("retention.ms", "86400000")]);
    rig.append(c, &[("a", Some("old"))]);
    rig.pass(DAY_MS);
    let young = Batch::one("young").at(rig.now.wall.0);
    rig.produce(c, young.bytes());
    rig.pass(1_000);
    assert_eq!(rig.values(), owned(&[(1, "young")]));
    assert_eq!(rig.broker.bounds("t", P0).unwrap()[0], Offset(1));
    rig.broker
        .configure("t", "retention.bytes", Some("100"))
        .unwrap();
    for _ in 0..5 {
        let young = Batch::one("more").at(rig.now.wall.0);
        rig.produce(c, young.bytes());
    }
    rig.pass(1_000);
    let [start, _, end] = rig.broker.bounds("t", P0).unwrap();
    assert_eq!(
        (start, end),
        (Offset(5), Offset(7)),
        "never below the limit"
    );
    let mut rest = 0;
    while rig.broker.next_deadline().is_some() && rest < 3 {
        rig.pass(2 * DAY_MS);
        rest += 1;
    }
    assert_eq!(rig.broker.cluster.store.bytes(), 0);
    assert_eq!(
        rig.broker.next_deadline(),
        None,
        "an empty broker has nothing to do"
    );
}
