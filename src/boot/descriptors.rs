//! File descriptors: a part of them is kept for what must work when clients have used up the rest.

use std::sync::{Mutex, PoisonError};

use crate::config::Config;
use crate::control::ADMIN_CONNECTIONS_MAX;
use crate::metrics::{Check, CheckState};
use crate::shard::{Layout, Level, Note};

/// For each cluster and home shard: its connections to brokers, as many as 4 brokers need.
const BROKERS_PER_HOME: u64 = 16;
/// For each cluster at least.
const BROKERS_MIN: u64 = 64;
/// Files that are read again, programs that print tokens, names that are resolved.
const OTHERS: u64 = 32;
/// The next client, which is accepted to be closed.
const ACCEPTED: u64 = 1;
/// What each shard has open before any client comes: its rings and what wakes it.
const PER_SHARD: u64 = 16;

const _: () = {
    // With the usual limit of 1,024, one cluster and few shards, clients have most of it.
    assert!(BROKERS_MIN + ADMIN_CONNECTIONS_MAX as u64 + 1 + OTHERS + ACCEPTED <= 1024 / 4);
    assert!(BROKERS_PER_HOME <= BROKERS_MIN);
};

/// How the descriptors of the process are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// How many there may be (`RLIMIT_NOFILE`).
    limit: u64,
    /// How many of them clients are kept from.
    reserve: u64,
}

impl Descriptors {
    pub(super) fn new(config: &Config, layout: Layout, limit: u64) -> Self {
        let clusters = config.cluster_indexes().count() as u64;
        let homes = u64::from(layout.homes());
        let brokers = clusters * BROKERS_MIN.max(BROKERS_PER_HOME * homes);
        let admin = ADMIN_CONNECTIONS_MAX as u64 + 1;
        let reserve = brokers + admin + OTHERS + ACCEPTED;
        Self {
            limit,
            // With so few that hardly a client would have one, clients have half.
            reserve: reserve.min(limit / 2),
        }
    }

    /// A client whose descriptor has this number is one too many.
    pub(super) const fn clients_below(self) -> u64 {
        self.limit - self.reserve
    }

    /// What to say where the config allows more clients than there are descriptors for.
    pub(super) fn shortage(self, config: &Config, layout: Layout) -> Option<String> {
        let wanted = config.settings.http.connections_max as u64;
        let taken = PER_SHARD * u64::from(layout.shards);
        let room = self.clients_below().saturating_sub(taken);
        (room < wanted).then(|| {
            let Self { limit, reserve } = self;
            format!(
                "http.connections_max is {wanted}, and the limit of {limit} open files leaves room \
                 for about {room} clients ({reserve} are kept for brokers and the admin port): \
                 raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, \
                 ulimit -Hn), or lower http.connections_max"
            )
        })
    }
}

/// Whether clients are closed because descriptors are short, as the control thread sees it.
#[derive(Debug, Default)]
pub(super) struct Crowding(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Clients closed at once, and failed accepts, so far.
    seen: (u64, u64),
    /// Ticks since one of them grew; `None`: there are descriptors.
    quiet: Option<u32>,
}

/// Seconds without a closed client after which there are descriptors again.
const QUIET_TICKS: u32 = 10;

impl Crowding {
    /// Once a second, with what all shards have counted. Gives what to log.
    pub(super) fn on_tick(&self, now: (u64, u64), descriptors: Descriptors) -> Option<Note> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A burst may take all descriptors for a moment, until its surplus is closed: the ring
        // accepts whatever is queued at once. That is the same state.
        let closed = now.0 > state.seen.0;
        let grew = now != state.seen;
        state.seen = now;
        let was = state.quiet;
        state.quiet = match was {
            _ if grew => Some(0),
            Some(ticks) if ticks + 1 < QUIET_TICKS => Some(ticks + 1),
            _ => None,
        };
        match (was, state.quiet) {
            (None, Some(_)) => Some(Note {
                level: Level::Warn,
                text: match closed {
                    true => detail(descriptors),
                    false => failed_text(descriptors.limit),
                },
            }),
            (Some(_), None) => Some(Note {
                level: Level::Info,
                text: "there are file descriptors for clients again".into(),
            }),
            _ => None,
        }
    }

    /// The line of `/readyz` while it lasts. The process serves those that it has.
    pub(super) fn check(&self, descriptors: Descriptors) -> Option<Check> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.quiet?;
        let detail = detail(descriptors);
        Some(Check::new("descriptors", CheckState::Degraded, detail))
    }
}

fn detail(Descriptors { limit, reserve }: Descriptors) -> String {
    format!(
        "clients have used up the file descriptors (limit {limit}, {reserve} of them reserved); \
         more are closed at once: raise the hard limit of open files, or lower http.connections_max"
    )
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
        assert_eq!(few.clients_below(), 50, "clients have half of few");
        let homes = Layout { shards: 16, ..TWO };
        assert_eq!(Descriptors::new(&config, homes, 1 << 20).reserve, 354);
    }

    #[test]
    fn a_limit_below_what_the_config_allows_is_named() {
        let mut config = Config::default();
        config.settings.http.connections_max = 830;
        let usual = Descriptors::new(&config, TWO, 1024);
        assert_eq!(usual.shortage(&config, TWO), None);
        config.settings.http.connections_max = 831;
        let text = usual.shortage(&config, TWO).expect("one too many");
        for part in ["831", "1024", "about 830 clients", "http.connections_max"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let unlimited = Descriptors::new(&config, TWO, u64::MAX);
        assert_eq!(unlimited.shortage(&config, TWO), None);
    }

    #[test]
    fn a_shortage_is_logged_once_and_its_end_too() {
        let (crowding, descriptors) = (
            Crowding::default(),
            Descriptors::new(&Config::default(), TWO, 1024),
        );
        let tick = |refused, failed| {
            let note = crowding.on_tick((refused, failed), descriptors);
            note.map(|note| (note.level, note.text))
        };
        assert_eq!(tick(0, 0), None);
        assert!(crowding.check(descriptors).is_none());
        let (level, text) = tick(3, 0).expect("it begins");
        assert!(level == Level::Warn && text.contains("used up"), "{text}");
        assert_eq!(tick(9, 0), None, "it goes on");
        assert!(crowding.check(descriptors).is_some());
        for _ in 1..QUIET_TICKS {
            assert_eq!(tick(9, 0), None);
        }
        assert_eq!(tick(9, 0).map(|it| it.0), Some(Level::Info));
        assert!(crowding.check(descriptors).is_none());
        let (_, text) = tick(10, 1).expect("a burst");
        assert!(text.contains("used up"), "{text}");
        for _ in 0..QUIET_TICKS {
            tick(10, 1);
        }
        let (_, text) = tick(10, 2).expect("it begins again");
        assert!(text.contains("EMFILE"), "{text}");
    }
}
