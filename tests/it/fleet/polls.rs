//! Asynchronous commands: what a client may learn at a command's location, and what another client
//! may learn there: nothing.

use sluicegate::model::Instant;

use super::account::{Account, Fate, Kind};
use super::caller::{Request, Verdict};
use super::random::Random;
use super::response::Response;

/// A location that a client was given.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) path: String,
    identity: Option<&'static str>,
}

impl Account {
    /// A location that was given to a client of another identity.
    pub(super) fn foreign_location(&self, own: &Request, random: &mut Random) -> Option<Location> {
        if self.locations.is_empty() {
            return None;
        }
        let location = random.pick(&self.locations);
        (location.identity != own.identity).then(|| location.clone())
    }

    /// 202 to a command. P1: its record is in the log.
    pub(super) fn on_accepted(
        &mut self,
        attempt: usize,
        response: &Response,
        now: Instant,
    ) -> Verdict {
        let tried = &self.attempts[attempt];
        let (identity, request) = (tried.request.identity, tried.request.clone());
        let there = self.correlation(attempt).is_some_and(|id| {
            self.replies.contains_key(id) || self.records.iter().any(|it| it.correlation == id)
        });
        assert!(
            there,
            "P1: accepted without a record: {:?}",
            self.attempts[attempt]
        );
        assert!(request.key.is_some() && response.header("retry-after").is_some());
        let path = response
            .header("location")
            .expect("202 has a location")
            .to_owned();
        self.end(attempt, Fate::Accepted, now);
        self.tally.accepted += 1;
        let location = Location { path, identity };
        self.locations.push(location.clone());
        Verdict::Poll(location)
    }

    /// The response at a location, for the client that was given it, and for another one. `None`:
    /// it is the service's reply.
    pub(super) fn on_polled(
        &mut self,
        attempt: usize,
        response: &Response,
        now: Instant,
    ) -> Option<Verdict> {
        let tried = &self.attempts[attempt];
        let reply = response.header("x-service").is_some();
        let foreign = matches!(tried.kind, Kind::Foreign);
        if foreign {
            let hidden = !reply && matches!(response.status, 404 | 503);
            assert!(hidden, "polled by another identity: {tried:?} {response:?}");
        } else if reply {
            return None;
        } else {
            // The reply window is longer than a world.
            let waits = matches!(response.status, 202 | 503 | 504);
            assert!(
                waits,
                "P3: polled by its own identity: {tried:?} {response:?}"
            );
        }
        self.end(attempt, Fate::Polled, now);
        let counter = if foreign {
            &mut self.tally.hidden
        } else {
            &mut self.tally.polled
        };
        *counter += 1;
        Some(Verdict::Wait)
    }
}
