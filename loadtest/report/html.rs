//! The report as one HTML page that needs no network: a verdict and the figures that matter first,
//! then curves, series, errors, and how to repeat the run.

use std::fmt::Write as _;

use anyhow::Result;

use super::charts::{Axes, Curve, percentiles, series};
use super::{Number, Report};
use crate::engine::Measured;
use crate::latency::PERCENTILES;

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 0 auto;
  max-width: 980px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
.sub { color: #57606a; margin: 0 0 16px; overflow-wrap: anywhere; }
.verdict { padding: 10px 14px; border-radius: 6px; font-weight: 600; }
.good { background: #dafbe1; color: #0a5c24; } .bad { background: #ffebe9; color: #a40e26; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0; }
.tile { border: 1px solid #d0d7de; border-radius: 6px; padding: 10px 12px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { color: #57606a; font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid #eaeef2;
  vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
pre { background: #f6f8fa; padding: 10px 12px; border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
";

/// The page.
pub(super) fn page(report: &Report, thresholds: &[(String, bool)]) -> Result<String> {
    let mut html = String::new();
    let title = format!("Load test: {}", report.scenario.name);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1><p class=\"sub\">{}</p>",
        escape(&report.scenario.targets.join(", "))
    );
    verdict(report, &mut html);
    for (index, group) in report.groups.iter().enumerate() {
        // Writer and service are the harness's own; the tables have them.
        if index == 0 || ["queries", "commands"].contains(&group.name) {
            tiles(report, group, index, &mut html);
        }
    }
    warnings(report, &mut html);
    html.push_str(
        "<h2>Delays</h2><p>From the time an event or request was due, so a stall \
        of the server shows in all that it held up.</p>",
    );
    percentile_table(report, &mut html);
    html.push_str(&curves(report)?);
    errors(report, &mut html);
    if !thresholds.is_empty() {
        html.push_str("<h2>Thresholds</h2><table>");
        for (condition, failed) in thresholds {
            let word = if *failed { "failed" } else { "passed" };
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{word}</td></tr>",
                escape(condition)
            );
        }
        html.push_str("</table>");
    }
    machine(report, &mut html);
    figures(report, &mut html);
    html.push_str("</body></html>\n");
    Ok(html)
}

fn verdict(report: &Report, html: &mut String) {
    let (class, text) = match &report.failures[..] {
        [] => (
            "good",
            "Passed: nothing was missing, doubled or out of order, and no threshold \
            was crossed."
                .to_owned(),
        ),
        failures => ("bad", format!("Failed: {}", failures.join("; "))),
    };
    let _ = write!(html, "<p class=\"verdict {class}\">{}</p>", escape(&text));
}

fn tiles(report: &Report, group: &Measured, index: usize, html: &mut String) {
    let before = match index {
        0 => String::new(),
        _ => format!("{}.", group.name),
    };
    let value = |name: &str| report.value(&format!("{before}{name}"));
    let ms = |name: &str| value(name).map(|us| format!("{:.2} ms", us / 1000.0));
    let unit = group.unit.replace('_', " ");
    let per_s = value(&format!("{}_per_s", group.unit)).map(|rate| format!("{rate:.0}"));
    let each = format!("cpu_us_per_{}", super::singular(group.unit));
    let cpu = value(&each).map(|us| format!("{us:.2} µs"));
    let rows = [
        (per_s, format!("{unit} per second")),
        (ms("p50_us"), "median delay".to_owned()),
        (ms("p99_us"), "p99 delay".to_owned()),
        (ms("max_us"), "longest delay".to_owned()),
        (
            cpu,
            format!("server CPU per {}", super::singular(group.unit)),
        ),
        (
            value("errors").map(|count| format!("{count:.0}")),
            "errors".to_owned(),
        ),
    ];
    let _ = write!(html, "<h2>{}</h2><div class=\"tiles\">", escape(group.name));
    for (shown, name) in rows {
        if let Some(shown) = shown {
            let _ = write!(
                html,
                "<div class=\"tile\"><b>{shown}</b><span>{name}</span></div>"
            );
        }
    }
    html.push_str("</div>");
}

fn warnings(report: &Report, html: &mut String) {
    if report.warnings.is_empty() {
        return;
    }
    html.push_str("<h2>How far to trust this</h2><ul>");
    for warning in &report.warnings {
        let _ = write!(html, "<li>{}</li>", escape(warning));
    }
    html.push_str("</ul>");
}

fn percentile_table(report: &Report, html: &mut String) {
    html.push_str("<div class=\"scroll\"><table><tr><th></th>");
    for (name, _) in PERCENTILES {
        let name = name.trim_end_matches("_us").replace('_', ".");
        let _ = write!(html, "<th class=\"n\">{name}</th>");
    }
    html.push_str("<th class=\"n\">max</th><th class=\"n\">samples</th></tr>");
    for group in &report.groups {
        let latency = &group.totals.latency;
        let _ = write!(html, "<tr><td>{}</td>", escape(group.name));
        for (_, quantile) in PERCENTILES {
            let ms = latency.at(quantile) as f64 / 1000.0;
            let _ = write!(html, "<td class=\"n\">{ms:.2} ms</td>");
        }
        let max = latency.max() as f64 / 1000.0;
        let count = latency.count();
        let _ = write!(
            html,
            "<td class=\"n\">{max:.2} ms</td><td class=\"n\">{count}</td></tr>"
        );
    }
    html.push_str("</table></div>");
}

fn curves(report: &Report) -> Result<String> {
    let curve = |group: &Measured| Curve {
        name: group.name.to_owned(),
        points: if group.totals.latency.is_empty() {
            Vec::new()
        } else {
            let points = group.totals.latency.curve().into_iter();
            points.map(|(x, us)| (x, us as f64 / 1000.0)).collect()
        },
    };
    let shown: Vec<Curve> = report.groups.iter().map(curve).collect();
    let mut html = percentiles(&shown)?;
    let whole = report.groups.iter().map(|group| group.series.len()).max();
    let whole = whole.unwrap_or(0).saturating_sub(1).max(1);
    let per_second = |of: &dyn Fn(&crate::engine::Second) -> Option<f64>| -> Vec<Curve> {
        let groups = report.groups.iter().map(|group| Curve {
            name: group.name.to_owned(),
            // The last second is not whole.
            points: (group.series.iter().enumerate().take(whole))
                .filter_map(|(second, it)| Some((second as f64, of(it)?)))
                .collect(),
        });
        groups.collect()
    };
    let rate = per_second(&|second| Some(second.done as f64));
    let axes = Axes {
        title: "Done per second",
        x: "second",
        y: "per second",
    };
    html.push_str("<h2>Over time</h2>");
    html.push_str(&series(&rate, &axes)?);
    let p99 = per_second(&|second| {
        (!second.latency.is_empty()).then(|| second.latency.at(0.99) as f64 / 1000.0)
    });
    let axes = Axes {
        title: "p99 of each second",
        x: "second",
        y: "ms",
    };
    html.push_str(&series(&p99, &axes)?);
    Ok(html)
}

fn errors(report: &Report, html: &mut String) {
    let any = report
        .groups
        .iter()
        .any(|group| group.totals.errors.total() > 0);
    if !any {
        return;
    }
    html.push_str(
        "<h2>Errors</h2><div class=\"scroll\"><table><tr><th></th><th>cause</th>\
         <th class=\"n\">count</th><th>first</th></tr>",
    );
    for group in &report.groups {
        for (cause, it) in group.totals.errors.iter() {
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(group.name),
                escape(cause),
                it.count,
                escape(&it.example)
            );
        }
    }
    html.push_str("</table></div>");
}

fn machine(report: &Report, html: &mut String) {
    let machine = &report.machine;
    let _ = write!(
        html,
        "<h2>Machine and command</h2><p>{}, {} CPUs, {} GiB, Linux {}; load average {}; \
         sluicegate-load {}</p><pre>{}</pre>",
        escape(&machine.cpu),
        machine.cpus,
        machine.memory_gib,
        escape(&machine.kernel),
        escape(&machine.load),
        escape(&machine.version),
        escape(&machine.command)
    );
}

fn figures(report: &Report, html: &mut String) {
    html.push_str("<h2>All figures</h2><table>");
    for (name, value) in &report.figures {
        let name = escape(name);
        let _ = write!(
            html,
            "<tr><td>{name}</td><td class=\"n\">{}</td></tr>",
            Number(*value)
        );
    }
    html.push_str("</table>");
}

/// Text that is safe inside HTML: it may be a server's.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
