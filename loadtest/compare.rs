//! `compare`: runs one scenario against two targets, or two builds of the gateway, A B A B, and
//! prints for each figure the ratio A to B with its 95 % interval. Whatever else the machine does
//! then meets both sides.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::engine::Stop;
use crate::gateways::{self, Gateway, GatewayCommand};
use crate::report::{Number, ReportOptions};

/// Student's t for a two-sided 95 % interval, by degrees of freedom from 1.
const T_95: [f64; 19] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
];
/// Figures that are compared unless --figure names others.
const FIGURES: [&str; 5] = [
    "cpu_us_per_delivery",
    "cpu_us_per_request",
    "p50_us",
    "p99_us",
    "resident_mib",
];

/// Options of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Side A: `http://host:port`, put in place of `{target}`; or with --config, a gateway's
    /// program.
    #[arg(long)]
    a: String,
    /// Side B.
    #[arg(long)]
    b: String,
    /// Process id of side A, put in place of `{pid}`.
    #[arg(long)]
    a_pid: Option<u32>,
    /// Process id of side B.
    #[arg(long)]
    b_pid: Option<u32>,
    /// Both sides are programs of the gateway, started with this config for each pair.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Options for the gateway of side A, with --config: `--a-options '--shards 2'`. They are
    /// divided at spaces.
    #[arg(
        long,
        value_name = "OPTIONS",
        allow_hyphen_values = true,
        default_value = ""
    )]
    a_options: String,
    /// Options for the gateway of side B.
    #[arg(
        long,
        value_name = "OPTIONS",
        allow_hyphen_values = true,
        default_value = ""
    )]
    b_options: String,
    /// The broker of gateways that are started here.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Number of pairs.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Figures to compare. Repeatable.
    #[arg(long = "figure")]
    figures: Vec<String>,
    /// The scenario and its options, with `{target}` and `{pid}`.
    #[arg(last = true, required = true)]
    scenario: Vec<String>,
}

/// One figure of both sides, by pair.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    a: Vec<f64>,
    b: Vec<f64>,
}

/// Runs all pairs. Returns why the comparison failed; empty if it did not.
pub(crate) fn run(args: &Args, options: &ReportOptions, stop: &Stop) -> Result<Vec<String>> {
    ensure!((1..=1000).contains(&args.pairs), "--pairs is 1 to 1000");
    if let Some(config) = &args.config {
        gateways::check(args.a.as_ref(), config)?;
        gateways::check(args.b.as_ref(), config)?;
    } else {
        ensure!(
            args.a_options.is_empty() && args.b_options.is_empty(),
            "--a-options and --b-options are for gateways that are started here: add --config"
        );
    }
    let names: Vec<String> = match &args.figures[..] {
        [] => FIGURES.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let mut rows: Vec<Row> = names
        .into_iter()
        .map(|name| Row {
            name,
            ..Row::default()
        })
        .collect();
    for pair in 0..args.pairs {
        // Both run while either is measured: a resting process costs nothing.
        let a = Side::start(&args.a, args.a_pid, &args.a_options, args)?;
        let b = Side::start(&args.b, args.b_pid, &args.b_options, args)?;
        for (side, is_a) in [(&a, true), (&b, false)] {
            let figures = side.measure(&args.scenario)?;
            for row in &mut rows {
                let value = figures.get(&row.name).and_then(Value::as_f64);
                let values = if is_a { &mut row.a } else { &mut row.b };
                values.extend(value);
            }
            if stop.is_set() {
                bail!("interrupted in pair {}", pair + 1);
            }
        }
        if !options.quiet {
            eprintln!("pair {} of {}", pair + 1, args.pairs);
        }
    }
    rows.retain(|row| row.a.len() == args.pairs && row.b.len() == args.pairs);
    ensure!(
        !rows.is_empty(),
        "no run has such a figure: {}",
        args.figures.join(", ")
    );
    let figures = print(&rows, options);
    let mut failures = Vec::new();
    for threshold in &options.fail_if {
        if let Some(found) = threshold.holds(&figures)? {
            failures.push(format!("--fail-if {threshold}: it is {found}"));
        }
    }
    Ok(failures)
}

/// One side while a pair runs.
struct Side {
    target: String,
    pid: Option<u32>,
    _gateway: Option<Gateway>,
}

impl Side {
    fn start(side: &str, pid: Option<u32>, options: &str, args: &Args) -> Result<Self> {
        let Some(config) = &args.config else {
            return Ok(Self {
                target: side.to_owned(),
                pid,
                _gateway: None,
            });
        };
        let gateway = Gateway::start(&GatewayCommand {
            binary: side.into(),
            config: config.clone(),
            bootstrap: args.bootstrap.clone(),
            options: options.split_whitespace().map(str::to_owned).collect(),
        })?;
        Ok(Self {
            target: format!("http://{}", gateway.address),
            pid: gateway.pid(),
            _gateway: Some(gateway),
        })
    }

    /// Runs the scenario once, in a process of its own, and returns its figures.
    fn measure(&self, scenario: &[String]) -> Result<Value> {
        let pid = self.pid.map(|pid| pid.to_string());
        if scenario.iter().any(|it| it.contains("{pid}")) {
            ensure!(
                pid.is_some(),
                "`{{pid}}` needs --a-pid and --b-pid, or --config"
            );
        }
        let mut child = Command::new(std::env::current_exe()?);
        for argument in scenario {
            let argument = argument.replace("{target}", &self.target);
            child.arg(argument.replace("{pid}", pid.as_deref().unwrap_or_default()));
        }
        child
            .args(["-o", "json", "--quiet"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = child.output().context("can't start the scenario")?;
        let json: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the scenario failed against {}", self.target))?;
        if !output.status.success() {
            bail!(
                "the scenario failed against {}: {}",
                self.target,
                json["failures"]
            );
        }
        Ok(json["figures"].clone())
    }
}

/// Prints the table, and returns the ratios as figures.
fn print(rows: &[Row], options: &ReportOptions) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for row in rows {
        let (mean, low, high) = interval(&row.a, &row.b);
        let name = &row.name;
        figures.extend([
            (format!("{name}.a"), median(&row.a)),
            (format!("{name}.b"), median(&row.b)),
            (format!("{name}.ratio"), mean),
            (format!("{name}.ratio_low"), low),
            (format!("{name}.ratio_high"), high),
        ]);
    }
    match options.output {
        crate::report::Output::Json => {
            let all: serde_json::Map<String, Value> = figures
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(*value)))
                .collect();
            println!(
                "{}",
                serde_json::json!({"scenario": "compare", "figures": all})
            );
        }
        crate::report::Output::Text => {
            println!(
                "{:24} {:>12} {:>12} {:>8}  interval",
                "figure", "A", "B", "A / B"
            );
            for row in rows {
                let (mean, low, high) = interval(&row.a, &row.b);
                let (a, b) = (Number(median(&row.a)), Number(median(&row.b)));
                let name = &row.name;
                println!("{name:24} {a:>12} {b:>12} {mean:>8.3}  {low:.3} to {high:.3}");
            }
        }
    }
    figures
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Geometric mean of the ratios of pairs, and its 95 % interval, by the t distribution of their
/// logarithms. One pair has no interval.
fn interval(a: &[f64], b: &[f64]) -> (f64, f64, f64) {
    let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a / b).ln()).collect();
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    if logs.len() < 2 {
        return (mean.exp(), 0.0, f64::INFINITY);
    }
    let square: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let t = T_95.get(logs.len() - 2).copied().unwrap_or(2.0);
    let half = t * (square / (count - 1.0) / count).sqrt();
    (mean.exp(), (mean - half).exp(), (mean + half).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_ratios_is_by_their_logarithms() {
        let (mean, low, high) = interval(&[2.0, 8.0], &[1.0, 1.0]);
        assert!((mean - 4.0).abs() < 1e-9 && low < 1e-3 && high > 1e4);
        let (mean, low, high) = interval(&[3.0; 5], &[2.0; 5]);
        assert!((mean - 1.5).abs() < 1e-9 && (low - high).abs() < 1e-9);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
