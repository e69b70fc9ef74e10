//! Generates `docs/metrics.md` from the table.

use std::fmt::Write as _;

use super::table::{
    BrokerMetrics, CommandMetrics, General, KafkaMetrics, PartitionMetrics, ProcessMetrics,
    RouteMetrics, Row, StreamMetrics, TopicMetrics,
};

/// Returns the text that `docs/metrics.md` must have.
fn page() -> String {
    let mut out = String::from(
        "# Metrics\n\nThis page is generated from the table in `src/metrics/table.rs`; \
         `UPDATE=1 cargo test --lib page` rewrites it.\n\n\
         `GET /metrics` on the admin port, Prometheus text 0.0.4. Values are sums over the shards \
         of the process.\nHistograms have bounds from 1.024 µs to 68.7 s, each twice the one \
         before.\n",
    );
    section(&mut out, "The process", &[], ProcessMetrics::ROWS);
    section(&mut out, "Its shards", &[], General::ROWS);
    section(&mut out, "Each route", &["route"], RouteMetrics::ROWS);
    section(
        &mut out,
        "Each command route",
        &["route"],
        CommandMetrics::ROWS,
    );
    section(
        &mut out,
        "Each stream route",
        &["route"],
        StreamMetrics::ROWS,
    );
    section(&mut out, "Requests to brokers", &[], KafkaMetrics::ROWS);
    section(&mut out, "Each broker", &["broker"], BrokerMetrics::ROWS);
    section(&mut out, "Each topic", &["topic"], TopicMetrics::ROWS);
    section(
        &mut out,
        "Each partition",
        &["topic", "partition"],
        PartitionMetrics::ROWS,
    );
    out
}

fn section<G>(out: &mut String, heading: &str, labels: &[&str], rows: &[Row<G>]) {
    let _ = write!(
        out,
        "\n## {heading}\n\n| name | type | labels | |\n|---|---|---|---|\n"
    );
    for row in rows {
        let labels = labels.iter().copied().chain((row.labels)());
        let labels: Vec<_> = labels.map(|label| format!("`{label}`")).collect();
        let (name, kind, labels, help) = (row.name, row.kind, labels.join(", "), row.help.trim());
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {help} |");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_metrics_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = super::page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).expect("docs/ can be written");
        }
        let stands = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stands == page,
            "docs/metrics.md is stale: UPDATE=1 cargo test --lib page"
        );
    }
}
