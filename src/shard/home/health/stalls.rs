//! Partitions that do not advance although brokers respond: one has no leader, or an open
//! transaction holds back the records behind it. Elections and transactions end by themselves, so
//! the log names only a stall that lasts.

use std::time::Duration;

use super::line::Line;
use crate::model::Instant;

/// How long a partition is stalled before the log names it: longer than an election takes.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// The shortest time between two WARNs of a topic: long transactions may follow each other all day.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What the log says about a topic's stalled partitions.
#[derive(Debug, Default)]
pub(super) struct StallReport {
    since: Option<Instant>,
    /// Whether the present stall was reported.
    is_reported: bool,
    last_reported: Option<Instant>,
}

impl StallReport {
    /// Takes why partitions are stalled now, if any is. Returns the line that reports a stall which
    /// lasts, or its end.
    pub(super) fn on_check(&mut self, why: Option<String>, now: Instant) -> Option<Line> {
        let Some(why) = why else {
            self.since = None;
            let was_reported = std::mem::take(&mut self.is_reported);
            return was_reported
                .then(|| Line::Info("no partition of it stands still any more".into()));
        };
        let lasts = now.since(*self.since.get_or_insert(now)) >= REPORT_AFTER;
        let due = self
            .last_reported
            .is_none_or(|it| now.since(it) >= REPORT_EVERY);
        if self.is_reported || !lasts || !due {
            return None;
        }
        (self.is_reported, self.last_reported) = (true, Some(now));
        Some(Line::Warn(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stands_still_is_named_once_and_so_is_its_end() {
        let mut stalls = StallReport::default();
        let mut look = |why: bool, second: u64| {
            let now = Instant::from_nanos(second * 1_000_000_000);
            stalls.on_check(why.then(|| "no leader".into()), now)
        };
        // An election that ends in time is not logged.
        assert_eq!(
            (look(true, 1), look(true, 9), look(false, 12)),
            Default::default()
        );
        let warn = Some(Line::Warn("no leader".into()));
        assert_eq!((look(true, 20), look(true, 29)), (None, None));
        assert_eq!(look(true, 30), warn);
        assert_eq!((look(true, 31), look(true, 3600)), (None, None));
        assert!(matches!(look(false, 3601), Some(Line::Info(_))));
        assert_eq!(look(false, 3602), None);
        // A new warning waits until a minute has passed since the last one.
        assert_eq!(look(true, 3610), None);
        assert_eq!(look(true, 3620), warn);
        assert!(look(false, 3621).is_some());
        assert_eq!((look(true, 3622), look(true, 3679)), (None, None));
        assert_eq!(look(true, 3680), warn);
    }
}
