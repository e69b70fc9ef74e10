//! Partitions that stand still although brokers answer: one has no leader, or a transaction holds
//! back what was written behind it. Elections and transactions pass, so the log names only what
//! lasts.

use std::time::Duration;

use super::writes::Line;
use crate::model::Instant;

/// For how long a partition stands still before the log names it: longer than an election takes.
const TELL_AFTER: Duration = Duration::from_secs(10);
/// From one WARN of a topic to the next: long transactions may follow each other all day.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What the log was told of a topic's partitions that stand still.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    since: Option<Instant>,
    /// The state that lasts was named.
    is_told: bool,
    last_told: Option<Instant>,
}

impl HeldUp {
    /// Says what to log, if `why` a partition stands still is news, or its end is.
    pub(super) fn on_look(&mut self, why: Option<String>, now: Instant) -> Option<Line> {
        let Some(why) = why else {
            self.since = None;
            let was_told = std::mem::take(&mut self.is_told);
            return was_told.then(|| Line::Info("no partition of it stands still any more".into()));
        };
        let lasts = now.since(*self.since.get_or_insert(now)) >= TELL_AFTER;
        let due = self.last_told.is_none_or(|it| now.since(it) >= TELL_EVERY);
        if self.is_told || !lasts || !due {
            return None;
        }
        (self.is_told, self.last_told) = (true, Some(now));
        Some(Line::Warn(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stands_still_is_named_once_and_so_is_its_end() {
        let mut held_up = HeldUp::default();
        let mut look = |why: bool, second: u64| {
            let now = Instant::from_nanos(second * 1_000_000_000);
            held_up.on_look(why.then(|| "no leader".into()), now)
        };
        // An election passes.
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
