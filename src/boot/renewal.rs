//! Renews TLS towards clients while the process runs: certificates, keys and authorities whose
//! files change, and the keys of session tickets. Shards receive each change as one acceptor.
//! Connections keep what they began with.

use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::Control;
use super::server_tls::{Renewed, ServerTls};
use crate::control::{FileChange, WatchedFiles};
use crate::shard::{Message, ShardMessage};
use crate::tls::TICKET_KEY_AGE_MAX;

/// How often the lifetime of the certificates is looked at.
const EXPIRY_CHECK_EVERY: Duration = Duration::from_secs(600);

/// The share of a certificate's lifetime that is left when the log warns: nine days of 90.
const EXPIRY_WARNING_SHARE: f64 = 0.1;

impl Control {
    /// Renews TLS whenever files change, on SIGHUP, and when the keys of tickets are old. Returns
    /// when the runtime ends.
    pub(super) async fn renew_tls(&self, tls: Option<(ServerTls, WatchedFiles)>) {
        let Some((tls, mut files)) = tls else {
            return std::future::pending().await;
        };
        // A file may have changed between the first reading and the watch.
        let Some(mut tls) = self.read_again(tls, FileChange::Changed).await else {
            return;
        };
        let mut warned = self.warn_of_expiry(&tls, false);
        let after = |time| interval_at(Instant::now() + time, time);
        let mut tickets = after(TICKET_KEY_AGE_MAX);
        let mut expiry = after(EXPIRY_CHECK_EVERY);
        loop {
            tokio::select! {
                change = files.changed() => {
                    let Some(next) = self.read_again(tls, change).await else {
                        return;
                    };
                    tls = next;
                    warned = self.warn_of_expiry(&tls, warned);
                }
                _ = tickets.tick() => match tls.rotate_tickets() {
                    Ok(()) => self.send_acceptor(&tls).await,
                    Err(error) => tracing::warn!("the keys of TLS tickets stay: {error}"),
                },
                _ = expiry.tick() => warned = self.warn_of_expiry(&tls, warned),
            }
        }
    }

    /// Reads the files again. A file system may hang, so this does not happen on the control
    /// thread.
    async fn read_again(&self, mut tls: ServerTls, change: FileChange) -> Option<ServerTls> {
        let read = tokio::task::spawn_blocking(move || {
            let renewed = tls.renew();
            (tls, renewed)
        });
        let (tls, renewed) = read.await.ok()?;
        match renewed {
            Ok(Renewed::Changed) => {
                self.send_acceptor(&tls).await;
                self.tls_status.on_renewed(tls.first_to_end().0);
                tracing::info!("TLS certificates, keys and authorities are renewed");
            }
            Ok(Renewed::Unchanged) => {
                self.tls_status.on_unchanged();
                if change == FileChange::Hangup {
                    tracing::info!("TLS certificates, keys and authorities are unchanged");
                }
            }
            Err(error) => {
                tracing::warn!("TLS files are not renewed, the earlier ones stay in use: {error}");
                self.tls_status.on_refused(error.to_string());
            }
        }
        Some(tls)
    }

    async fn send_acceptor(&self, tls: &ServerTls) {
        for shard in self.shards() {
            let acceptor = ShardMessage::Tls(tls.acceptor().clone());
            self.send(shard, Message::Shard(acceptor)).await;
        }
    }

    /// Warns once when little of a certificate's lifetime is left. Returns whether that is so.
    fn warn_of_expiry(&self, tls: &ServerTls, warned: bool) -> bool {
        let (until, share) = tls.first_to_end();
        let ends_soon = share < EXPIRY_WARNING_SHARE;
        if ends_soon && !warned {
            let left = until.0.saturating_sub(super::server_tls::unix_now().0) / 3_600_000;
            tracing::warn!("a TLS certificate ends in {left} hours: renew its file");
        }
        ends_soon
    }
}
