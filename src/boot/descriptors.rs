//! File descriptors: some are reserved for what must work when clients have used up the rest.

use std::sync::{Mutex, PoisonError};

use crate::config::Config;
use crate::control::ADMIN_CONNECTIONS_MAX;
use crate::metrics::{Check, CheckState};
use crate::shard::{Layout, Level, Note};

/// Descriptors reserved for each cluster and home shard: connections to 4 brokers.
const BROKERS_PER_HOME: u64 = 16;
/// Descriptors reserved for each cluster at least.
const BROKERS_MIN: u64 = 64;
/// Descriptors reserved for files that are read again, programs that print tokens, and name
/// resolution.
const OTHERS: u64 = 32;
/// Descriptors reserved for the admin port, and as many for the health port if there is one.
const PER_ADMIN_PORT: u64 = ADMIN_CONNECTIONS_MAX as u64 + 1;
/// Descriptor reserved for the next client, which is accepted only to be closed.
const ACCEPTED: u64 = 1;
/// Descriptors that each shard has open before any client connects: its rings and its waker.
const PER_SHARD: u64 = 16;
/// Fewest clients that the process starts for. The reserve gets as many descriptors.
const CLIENTS_MIN: u64 = 16;

const _: () = {
    // With the usual limit of 1,024, one cluster and few shards, clients get most descriptors.
    assert!(BROKERS_MIN + 2 * PER_ADMIN_PORT + OTHERS + ACCEPTED <= 1024 / 4);
    assert!(BROKERS_PER_HOME <= BROKERS_MIN);
};

/// How the descriptors of the process are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// The most descriptors that the process may have open (`RLIMIT_NOFILE`).
    limit: u64,
    /// How many of them are reserved from clients.
    reserve: u64,
    /// How many the shards have open before any client connects.
    taken: u64,
}

impl Descriptors {
    pub(super) fn new(config: &Config, layout: Layout, limit: u64) -> Self {
        let clusters = config.cluster_indexes().count() as u64;
        let homes = u64::from(layout.homes());
        let brokers = clusters * BROKERS_MIN.max(BROKERS_PER_HOME * homes);
        let health = u64::from(config.settings.health.listen.is_some());
        let admin = (1 + health) * PER_ADMIN_PORT;
        let reserve = brokers + admin + OTHERS + ACCEPTED;
        let taken = PER_SHARD * u64::from(layout.shards);
        Self {
            limit,
            // If the limit is so low that clients would get hardly any, they get half of what the
            // shards leave.
            reserve: reserve.min(limit.saturating_sub(taken) / 2),
            taken,
        }
    }

    /// A client with this descriptor number or a larger one is closed.
    pub(super) const fn clients_below(self) -> u64 {
        self.limit - self.reserve
    }

    /// About how many clients can be connected.
    const fn room(self) -> u64 {
        self.clients_below().saturating_sub(self.taken)
    }

    /// The limit, and the lowest limit that is enough, if hardly any client could be served.
    pub(super) fn no_room(self) -> Option<(u64, u64)> {
        let needed = self.taken + 2 * CLIENTS_MIN;
        (self.limit < needed).then_some((self.limit, needed))
    }

    /// The warning if the config allows more clients than there are descriptors.
    pub(super) fn shortage(self, config: &Config) -> Option<String> {
        let wanted = config.settings.http.connections_max as u64;
        let room = self.room();
        (room < wanted).then(|| {
            let Self { limit, reserve, .. } = self;
            format!(
                "http.connections_max is {wanted}, and the limit of {limit} open files leaves room \
                 for about {room} clients ({reserve} are kept for brokers and the admin port): \
                 raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, \
                 ulimit -Hn), or lower http.connections_max"
            )
        })
    }
}

/// The control thread's view of whether clients are closed because a limit of the process is
/// reached.
#[derive(Debug, Default)]
pub(super) struct Crowding(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Clients closed because of the limit, and failed accepts, so far.
    seen: (u64, u64),
    /// Ticks since one of the counts grew. `None` while the limit is not reached.
    quiet: Option<u32>,
}

/// Ticks (seconds) without a closed client after which the limit counts as no longer reached.
const QUIET_TICKS: u32 = 10;

impl Crowding {
    /// Call once a second with the clients closed and the accepts failed, of all shards. Returns
    /// what to log. `begins` receives whether clients were closed.
    pub(super) fn on_tick(
        &self,
        now: (u64, u64),
        begins: impl FnOnce(bool) -> String,
        ends: &str,
    ) -> Option<Note> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The ring accepts every queued client at once, so a burst may briefly take all descriptors
        // until the surplus is closed. That counts as the same shortage.
        let closed = now.0 > state.seen.0;
        let grew = now != state.seen;
        state.seen = now;
        let was = state.quiet;
        state.quiet = match was {
            _ if grew => Some(0),
            Some(ticks) if ticks + 1 < QUIET_TICKS => Some(ticks + 1),
            _ => None,
        };
        let (level, text) = match (was, state.quiet) {
            (None, Some(_)) => (Level::Warn, begins(closed)),
            (Some(_), None) => (Level::Info, ends.to_owned()),
            _ => return None,
        };
        Some(Note { level, text })
    }

    /// The check in `/readyz` while the limit is reached. Clients that are connected are still
    /// served.
    pub(super) fn check(&self, name: &str, detail: impl FnOnce() -> String) -> Option<Check> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.quiet?;
        Some(Check::new(name, CheckState::Degraded, detail()))
    }
}

impl Descriptors {
    /// Describes a shortage. `closed`: clients were closed because of it.
    pub(super) fn crowded(self, closed: bool) -> String {
        let Self { limit, reserve, .. } = self;
        if !closed {
            return failed_text(limit);
        }
        format!(
            "clients have used up the file descriptors (limit {limit}, {reserve} of them \
             reserved); more are closed at once: raise the hard limit of open files, or lower \
             http.connections_max"
        )
    }
}

fn failed_text(limit: u64) -> String {
    format!(
        "accepting clients failed for lack of file descriptors or kernel memory (EMFILE, ENFILE, \
         ENOBUFS or ENOMEM; this process may open {limit} files) and is tried again every 100 ms"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Layout = Layout {
        shards: 2,
        kafka_shards: 0,
    };

    #[test]
    fn a_part_of_the_descriptors_is_kept_from_clients() {
        let config = Config::default();
        let usual = Descriptors::new(&config, TWO, 1024);
        assert_eq!((usual.reserve, usual.clients_below()), (162, 862));
        let few = Descriptors::new(&config, TWO, 100);
        assert_eq!(few.clients_below(), 66, "clients have half of the rest");
        let homes = Layout { shards: 16, ..TWO };
        assert_eq!(Descriptors::new(&config, homes, 1 << 20).reserve, 354);
    }

    #[test]
    fn a_limit_that_leaves_no_client_one_is_refused() {
        let config = Config::default();
        let no_room = |limit| Descriptors::new(&config, TWO, limit).no_room();
        assert_eq!(no_room(64), None);
        assert_eq!(no_room(63), Some((63, 64)));
        assert_eq!(no_room(0), Some((0, 64)));
        let many = Layout { shards: 64, ..TWO };
        let many = Descriptors::new(&config, many, 1024);
        assert_eq!(many.no_room(), Some((1024, 1056)), "the shards take all");
    }

    #[test]
    fn a_limit_below_what_the_config_allows_is_named() {
        let mut config = Config::default();
        config.settings.http.connections_max = 830;
        let usual = Descriptors::new(&config, TWO, 1024);
        assert_eq!(usual.shortage(&config), None);
        config.settings.http.connections_max = 831;
        let text = usual.shortage(&config).expect("one too many");
        for part in ["831", "1024", "about 830 clients", "http.connections_max"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let unlimited = Descriptors::new(&config, TWO, u64::MAX);
        assert_eq!(unlimited.shortage(&config), None);
    }

    #[test]
    fn a_shortage_is_logged_once_and_its_end_too() {
        let (crowding, descriptors) = (
            Crowding::default(),
            Descriptors::new(&Config::default(), TWO, 1024),
        );
        let tick = |refused, failed| {
            let begins = |closed| descriptors.crowded(closed);
            let note = crowding.on_tick((refused, failed), begins, "over");
            note.map(|note| (note.level, note.text))
        };
        assert_eq!(tick(0, 0), None);
        assert!(crowding.check("descriptors", String::new).is_none());
        let (level, text) = tick(3, 0).expect("it begins");
        assert!(level == Level::Warn && text.contains("used up"), "{text}");
        assert_eq!(tick(9, 0), None, "it goes on");
        assert!(crowding.check("descriptors", String::new).is_some());
        for _ in 1..QUIET_TICKS {
            assert_eq!(tick(9, 0), None);
        }
        assert_eq!(tick(9, 0).map(|it| it.0), Some(Level::Info));
        assert!(crowding.check("descriptors", String::new).is_none());
        let (_, text) = tick(10, 1).expect("a burst");
        assert!(text.contains("used up"), "{text}");
        for _ in 0..QUIET_TICKS {
            tick(10, 1);
        }
        let (_, text) = tick(10, 2).expect("it begins again");
        assert!(text.contains("EMFILE"), "{text}");
    }
}
