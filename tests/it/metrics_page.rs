//! A strict parser of Prometheus' text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

/// Parses and checks a page. Returns the names of its families.
pub fn check(page: &str) -> BTreeSet<String> {
    assert!(page.ends_with('\n'), "the last line ends too");
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut buckets: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help text");
            assert!(!help.is_empty() && !families.contains_key(name), "{line}");
            name.clone_into(&mut current);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            families.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let (name, labels, value) = sample(line);
        assert!(
            samples.insert((name.clone(), labels.clone())),
            "twice: {line}"
        );
        let kind = families
            .get(&current)
            .unwrap_or_else(|| panic!("no TYPE: {line}"));
        let suffix = name
            .strip_prefix(&*current)
            .unwrap_or_else(|| panic!("apart: {line}"));
        match (kind.as_str(), suffix) {
            ("histogram", "_bucket") => {
                let (rest, le) = without_le(&labels);
                let bucket = buckets.entry(format!("{current}{rest:?}"));
                let (last_le, last) = bucket.or_insert((f64::NEG_INFINITY, 0.0));
                assert!(le > *last_le && value >= *last, "buckets add up: {line}");
                (*last_le, *last) = (le, value);
            }
            ("histogram", "_count") => {
                let key = format!("{current}{labels:?}");
                let (le, last) = buckets
                    .get(&key)
                    .unwrap_or_else(|| panic!("no bucket: {line}"));
                assert_eq!((*le, *last), (f64::INFINITY, value), "{line}");
            }
            ("histogram", "_sum") | ("counter" | "gauge", "") => {}
            _ => panic!("a {kind} has no such sample: {line}"),
        }
        assert!(kind == "gauge" || value >= 0.0, "{line}");
    }
    families.into_keys().collect()
}

type Labels = Vec<(String, String)>;

fn sample(line: &str) -> (String, Labels, f64) {
    let (left, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("a sample: {line:?}"));
    let value = value
        .parse()
        .unwrap_or_else(|_| panic!("a number: {line:?}"));
    let (name, labels) = match left.split_once('{') {
        None => (left, Vec::new()),
        Some((name, rest)) => (name, labels(rest, line)),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(
        name.starts_with("sluicegate_") && name.chars().all(legal),
        "{line}"
    );
    (name.to_owned(), labels, value)
}

fn labels(mut rest: &str, line: &str) -> Labels {
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("a label: {line}"));
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars
                .next()
                .unwrap_or_else(|| panic!("an open label: {line}"))
            {
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    other => panic!("an escape {other:?}: {line}"),
                },
                (at, '"') => break at,
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                assert_eq!(rest, "}", "{line}");
                return labels;
            }
        }
    }
}

fn without_le(labels: &Labels) -> (Labels, f64) {
    let (le, rest): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(name, _)| name == "le");
    let [(_, le)] = &le[..] else {
        panic!("a bucket has one `le`: {labels:?}")
    };
    let le = match le.as_str() {
        "+Inf" => f64::INFINITY,
        le => le.parse().expect("a bound is a number"),
    };
    (rest, le)
}
