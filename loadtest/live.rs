//! The line that shows how a run goes, once a second on standard error: a progress bar on a
//! terminal, plain lines elsewhere. And Ctrl-C, which ends the run in order.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::{Second, Stop};
use crate::latency::Latency;

/// The live line. Silent if it is not wanted.
#[derive(Debug)]
pub(crate) struct Live {
    wanted: bool,
    /// Whether results are text, so that other lines may be among them.
    text: bool,
    bar: Option<ProgressBar>,
    shown: u64,
    done_before: u64,
}

impl Live {
    pub(crate) const fn new(wanted: bool, text: bool) -> Self {
        Self {
            wanted,
            text,
            bar: None,
            shown: 0,
            done_before: 0,
        }
    }

    pub(crate) const fn is_text(&self) -> bool {
        self.text
    }

    pub(crate) fn begin(&mut self, length: Duration) {
        if !self.wanted || !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(
            Some(u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)),
            ProgressDrawTarget::stderr_with_hz(4),
        );
        let style = ProgressStyle::with_template("{bar:24} {elapsed:>4} {msg}");
        bar.set_style(style.expect("the template is a constant"));
        self.bar = Some(bar);
    }

    /// Shows the state once a second. `share` is how much of a goal is done, if there is one.
    pub(crate) fn show(
        &mut self,
        spent: Duration,
        share: Option<f64>,
        done: u64,
        errors: u64,
        series: &[Vec<Second>],
    ) {
        if !self.wanted || spent.as_secs() <= self.shown {
            return;
        }
        let seconds = spent.as_secs() - self.shown;
        self.shown = spent.as_secs();
        let rate = (done - self.done_before) / seconds.max(1);
        self.done_before = done;
        let mut last = Latency::new();
        for second in series.iter().filter_map(|series| series.last()) {
            last.add(&second.latency);
        }
        let p99 = if last.is_empty() {
            "-".into()
        } else {
            format!("{:.2} ms", last.at(0.99) as f64 / 1000.0)
        };
        let line = format!("{rate}/s, p99 {p99}, {errors} errors");
        match &self.bar {
            Some(bar) => {
                let length = bar.length().unwrap_or(1);
                let by_time = u64::try_from(spent.as_millis()).unwrap_or(length);
                let place = share.map_or(by_time, |share| (length as f64 * share) as u64);
                bar.set_position(place.min(length));
                bar.set_message(line);
            }
            None => eprintln!("{:>4} s  {line}", self.shown),
        }
    }

    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Makes the first Ctrl-C end the run with its summary, and the second one end the process.
pub(crate) fn stop_on_interrupt(stop: &Stop) -> Result<()> {
    let stop = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    stop.interrupt();
                }
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130);
                }
            });
        })?;
    Ok(())
}
