//! The lines that `sluicegate tap` prints, one for each record.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::config::{Output, TapArgs};
use crate::control::TapItem;
use crate::log::Record;
use crate::model::Partition;

/// Most bytes of a key, a value or a header that a text line shows.
const SHOWN_BYTES_MAX: usize = 1_000;

/// One line about a record, or about records that can't be decoded.
#[must_use]
pub fn tap_line(item: &TapItem<'_>, args: &TapArgs) -> String {
    match (item, args.output) {
        (TapItem::Record(partition, record), Output::Text) => text(*partition, record, args),
        (TapItem::Record(partition, record), Output::Json) => {
            let mut line = json!({
                "partition": partition.0,
                "offset": record.offset.0,
                "timestamp_ms": record.timestamp.0,
                "key_bytes": record.key.map(<[u8]>::len),
                "value_bytes": record.value.map(<[u8]>::len),
            });
            if args.payload {
                let headers = record.headers;
                let headers = headers.map(|(name, value)| json!([shown(name), value.map(shown)]));
                line["key"] = json!(record.key.map(shown));
                line["headers"] = headers.collect();
                line["value"] = json!(record.value.map(shown));
            }
            line.to_string()
        }
        (TapItem::Undecodable(partition, from, to, why), _) => {
            let (partition, from, to) = (partition.0, from.0, to.0);
            format!("{partition}@{from} to {to}: can't be decoded: {why}")
        }
    }
}

fn text(partition: Partition, record: &Record<'_>, args: &TapArgs) -> String {
    let size = match record.value {
        Some(value) => format!("{} bytes", value.len()),
        None => "no value (deletes the key)".to_owned(),
    };
    let place = format!("{}@{}", partition.0, record.offset.0);
    let mut line = format!("{place:<12} {:>8} ago  {size}", age(record.timestamp.0));
    if args.payload {
        let key = record.key.map_or_else(|| "null".into(), shown);
        line.push_str(&format!("\n    key: {key}"));
        for (name, value) in record.headers {
            let value = value.map_or_else(|| "null".into(), shown);
            line.push_str(&format!("\n    {}: {value}", shown(name)));
        }
        if let Some(value) = record.value {
            line.push_str(&format!("\n    {}", shown(value)));
        }
    }
    line
}

/// The time since a timestamp in milliseconds, in its largest unit.
fn age(timestamp: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    match now.saturating_sub(timestamp).max(0) {
        ms @ 0..1_000 => format!("{ms}ms"),
        ms @ 1_000..120_000 => format!("{}s", ms / 1_000),
        ms @ 120_000..7_200_000 => format!("{}min", ms / 60_000),
        ms @ 7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        ms => format!("{}d", ms / 86_400_000),
    }
}

/// Bytes as text that a terminal can show: control characters are escaped, long text is cut.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let text = String::from_utf8_lossy(cut);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if cut.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("äöü".as_bytes()), "äöü");
        let long = vec![b'x'; SHOWN_BYTES_MAX + 1];
        assert_eq!(shown(&long).chars().count(), SHOWN_BYTES_MAX + 1);
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(age(i64::MAX), "0ms", "a clock that differs");
        assert!(age(0).ends_with('d'));
    }
}
