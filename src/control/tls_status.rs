//! The state of TLS towards clients, for `/readyz` and `/metrics`.

use std::sync::{Mutex, PoisonError};

use crate::metrics::{Check, CheckState, ProcessMetrics};
use crate::model::UnixMillis;

/// The name of the check in `/readyz`.
const CHECK: &str = "tls certificates";

/// Whether certificates, keys and authorities could be renewed, and how long the certificates are
/// valid. The control thread sets it; the admin port reads it.
#[derive(Debug, Default)]
pub struct TlsStatus(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    renewed: u64,
    refused: u64,
    /// Why the files as they are now cannot be used.
    refusal: Option<String>,
    /// When the first certificate ends. `None`: without TLS.
    valid_until: Option<UnixMillis>,
}

impl TlsStatus {
    /// The files in use: their first certificate ends then.
    pub fn on_start(&self, valid_until: UnixMillis) {
        self.with(|state| state.valid_until = Some(valid_until));
    }

    /// Other files are in use since now.
    pub fn on_renewed(&self, valid_until: UnixMillis) {
        self.with(|state| {
            state.renewed += 1;
            state.refusal = None;
            state.valid_until = Some(valid_until);
        });
    }

    /// The files are as they were when they were last used.
    pub fn on_unchanged(&self) {
        self.with(|state| state.refusal = None);
    }

    /// The files cannot be used, so those read before stay in use.
    pub fn on_refused(&self, why: String) {
        self.with(|state| {
            state.refused += 1;
            state.refusal = Some(why);
        });
    }

    /// The check for `/readyz`. `None` without TLS.
    #[must_use]
    pub fn check(&self, now: UnixMillis) -> Option<Check> {
        self.with(|state| {
            let valid_until = state.valid_until?;
            Some(match &state.refusal {
                _ if now > valid_until => {
                    Check::new(CHECK, CheckState::Degraded, "a certificate has expired")
                }
                Some(why) => {
                    let detail = format!("the earlier files stay in use: {why}");
                    Check::new(CHECK, CheckState::Degraded, detail)
                }
                None => Check::new(CHECK, CheckState::Ready, "valid"),
            })
        })
    }

    /// Fills in the process's metrics.
    pub(super) fn expose(&self, metrics: &mut ProcessMetrics) {
        self.with(|state| {
            metrics.tls_renewals.0 = state.renewed;
            metrics.tls_renewals_refused.0 = state.refused;
            let valid_until = state.valid_until.map_or(0, |it| it.0 / 1000);
            let valid_until = u64::try_from(valid_until).unwrap_or(0);
            metrics.tls_certificate_expiry.set(valid_until);
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_lasts_until_the_files_are_good() {
        let status = TlsStatus::default();
        let check = |now| status.check(UnixMillis(now)).map(|it| (it.state, it.ok));
        assert_eq!(check(0), None);
        status.on_start(UnixMillis(10_000));
        assert_eq!(check(0), Some((CheckState::Ready, true)));
        status.on_refused("tls.key: junk".into());
        assert_eq!(check(0), Some((CheckState::Degraded, true)));
        let detail = status.check(UnixMillis(0)).expect("it has TLS").detail;
        assert!(detail.contains("tls.key: junk"), "{detail}");
        status.on_unchanged();
        assert_eq!(check(0), Some((CheckState::Ready, true)));
        assert_eq!(check(10_001), Some((CheckState::Degraded, true)));
        status.on_renewed(UnixMillis(20_000));
        assert_eq!(check(10_001), Some((CheckState::Ready, true)));
        let mut metrics = ProcessMetrics::default();
        status.expose(&mut metrics);
        assert_eq!(metrics.tls_renewals.0, 1);
        assert_eq!(metrics.tls_renewals_refused.0, 1);
        assert_eq!(metrics.tls_certificate_expiry.0, 20);
    }
}
