//! When metadata is requested: now and then, and urgently while a part of the client has met
//! something that newer metadata may resolve.

use std::time::Duration;

use super::backoff::Backoff;
use crate::model::{FastRandom, Instant};

/// Urgent requests in a row that are sent as fast as the shortest backoff allows.
const QUICK_MAX: u32 = 6;
/// The wait between further urgent requests during an election. A new leader is found this much
/// later at most. An election takes seconds when a node dies. Only one client of the process asks,
/// and only one broker.
const ELECTION_WAIT: Duration = Duration::from_millis(200);
/// The longest that an election takes. A leader that is still missing then may be missing for
/// hours.
const ELECTION_MAX: Duration = Duration::from_secs(10);
/// The longest wait after that. Half of it is jitter, so that many instances do not ask together.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The number of requests after which the wait doubles.
const REQUESTS_TO_DOUBLE: u32 = 5;

const _: () = {
    // The wait during an election is the shortest, and it only ever grows.
    assert!(ELECTION_WAIT.as_millis() < WAIT_MAX.as_millis());
};

/// The schedule of metadata requests.
#[derive(Debug)]
pub(super) struct MetadataSchedule {
    /// When to ask if nothing is urgent.
    due: Instant,
    last_response: Option<Instant>,
    urgent: bool,
    /// Urgent requests in a row, and when the first of them was sent.
    in_row: u32,
    row_since: Instant,
    /// How long after the last response the next urgent request is sent.
    wait: Duration,
}

impl MetadataSchedule {
    /// The first request is urgent.
    pub(super) const fn new() -> Self {
        Self {
            due: Instant::ZERO,
            last_response: None,
            urgent: true,
            in_row: 0,
            row_since: Instant::ZERO,
            wait: Duration::ZERO,
        }
    }

    /// Newer metadata may resolve a problem.
    pub(super) const fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Something has changed, or was added: the next urgent requests may be quick again.
    pub(super) const fn start_over(&mut self) {
        self.in_row = 0;
    }

    /// When the next request is due.
    pub(super) fn next(&self) -> Instant {
        match (self.urgent, self.last_response) {
            (false, _) => self.due,
            (true, None) => Instant::ZERO,
            (true, Some(last)) => self.due.min(last.after(self.wait)),
        }
    }

    /// Whether the requests in a row are still few.
    pub(super) const fn is_quick(&self) -> bool {
        self.in_row <= QUICK_MAX
    }

    /// A request is sent. `leaderless`: some partition has no leader.
    pub(super) fn on_request(
        &mut self,
        leaderless: bool,
        wait_min: Duration,
        now: Instant,
        jitter: &mut FastRandom,
    ) {
        if self.in_row == 0 {
            self.row_since = now;
        }
        // A request that is not urgent ends the row, unless a leader is still missing.
        self.in_row = match (self.urgent, leaderless) {
            (true, _) => self.in_row + 1,
            (false, true) => self.in_row,
            (false, false) => 0,
        };
        self.urgent = false;
        self.wait = self.next_wait(wait_min, now, jitter);
    }

    /// Notes when a Metadata response came last.
    pub(super) const fn on_response(&mut self, now: Instant) {
        self.last_response = Some(now);
    }

    /// Asks at `due` if nothing is urgent.
    pub(super) const fn set_due(&mut self, due: Instant) {
        self.due = due;
    }

    /// KRaft propagates a new leader to all brokers within about 0.1 s. So the first requests are
    /// quick, and later ones less frequent. Once an election would be over, the wait grows further:
    /// a partition without a leader by then may have none for hours.
    fn next_wait(&self, wait_min: Duration, now: Instant, jitter: &mut FastRandom) -> Duration {
        if self.is_quick() {
            return wait_min;
        }
        if now.since(self.row_since) < ELECTION_MAX {
            return ELECTION_WAIT.max(wait_min);
        }
        let (max, min) = (WAIT_MAX.max(wait_min), ELECTION_WAIT.max(wait_min));
        let by_then = ELECTION_MAX.as_millis() / ELECTION_WAIT.as_millis();
        let by_then = u32::try_from(by_then).unwrap_or(u32::MAX);
        let doubled = self.in_row.saturating_sub(by_then) / REQUESTS_TO_DOUBLE + 2;
        Backoff { min, max }.after(doubled.min(8), jitter)
    }
}
