//! Consumer groups of the development broker, used by another client: kcat, which uses librdkafka.

use std::process::Command;

use crate::ground;
use crate::kcat::Produce;

/// Reads `count` records as a member of the group, and commits them.
fn read_as(group: &str, bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let out = Command::new("timeout")
        .args(["60", "kcat", "-G", group, "-b", bootstrap, "-q", "-c"])
        .args([
            &count.to_string(),
            "-X",
            "auto.offset.reset=earliest",
            topic,
        ])
        .output()
        .expect("kcat runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).expect("the values are text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_group_goes_on_where_it_committed() {
    let ground = ground::development();
    let topic = ground.topic("groups", 1, &[]);
    let values: Vec<String> = (0..20).map(|number| format!("v{number}")).collect();
    Produce::to(ground.bootstrap(), &topic).values(values.iter().map(String::as_str));
    let group = format!("{topic}-group");
    let first = read_as(&group, ground.bootstrap(), &topic, 8);
    assert_eq!(first, values[..8]);
    let second = read_as(&group, ground.bootstrap(), &topic, 12);
    assert_eq!(second, values[8..], "the next member reads on");
}
