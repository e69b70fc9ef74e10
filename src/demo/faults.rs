//! What the page does to the demo: it kills gateways, stops the broker, and starts watchers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::child::{Gateway, RestartError, Restarted, Restarting, Status};
use super::listener::BrokerHandle;
use super::outside::OutsideCommands;
use super::watchers::{Figures, Watchers};

/// Time for the commands that are appended while gateways are down.
const OUTSIDE_TIMEOUT: Duration = Duration::from_secs(1);

/// Handles to the parts that the page may disturb.
pub(crate) struct Faults {
    /// The supervisors of the gateways.
    gateways: Vec<Gateway>,
    outside: OutsideCommands,
    /// Weak: the page must not keep the broker alive at the demo's end.
    broker: Weak<BrokerHandle>,
    is_broker_stopped: AtomicBool,
    watchers: Mutex<Option<Watchers>>,
}

/// The result of killing gateways.
#[derive(Debug)]
pub(crate) struct Killed {
    /// Each killed gateway's restart.
    pub(crate) restarts: Vec<Restarted>,
    /// Number of commands appended while the gateways were down.
    pub(crate) commands_meanwhile: usize,
}

impl Faults {
    pub(crate) fn new(
        gateways: Vec<Gateway>,
        outside: OutsideCommands,
        broker: Weak<BrokerHandle>,
    ) -> Self {
        Self {
            gateways,
            outside,
            broker,
            is_broker_stopped: AtomicBool::new(false),
            watchers: Mutex::default(),
        }
    }

    /// The status of each gateway.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = Status> {
        self.gateways.iter().map(Gateway::status)
    }

    /// Whether the broker is stopped.
    pub(crate) fn is_broker_stopped(&self) -> bool {
        self.is_broker_stopped.load(Ordering::Relaxed)
    }

    /// Kills one gateway (by its place), or all of them (SIGKILL), and waits until each has been
    /// started again. Meanwhile Ana and Bo pay each other directly through Kafka.
    pub(crate) async fn kill(&self, place: Option<usize>) -> Result<Killed, RestartError> {
        let chosen = match place {
            Some(place) => self.gateways.get(place..=place).unwrap_or_default(),
            None => &self.gateways,
        };
        let mut restarting: Vec<Restarting> = Vec::new();
        for gateway in chosen {
            restarting.push(gateway.restart()?);
        }
        for gateway in chosen {
            gateway.until_down().await;
        }
        let commands_meanwhile = self.append_outside().await;
        let mut restarts = Vec::new();
        for restarting in restarting {
            restarts.push(restarting.done().await?);
        }
        Ok(Killed {
            restarts,
            commands_meanwhile,
        })
    }

    async fn append_outside(&self) -> usize {
        match timeout(OUTSIDE_TIMEOUT, self.outside.append()).await {
            Ok(Ok(commands)) => return commands,
            Ok(Err(error)) => {
                tracing::warn!("could not append commands while a gateway was down: {error}");
            }
            Err(_) => tracing::warn!("could not append commands while a gateway was down, in time"),
        }
        0
    }

    /// Stops or starts every node of the broker. A stopped node keeps its records.
    pub(crate) fn stop_broker(&self, stop: bool) {
        let Some(broker) = self.broker.upgrade() else {
            return; // The demo is ending.
        };
        broker.with(move |broker| {
            for node in broker.nodes() {
                if stop {
                    broker.stop_node(node);
                } else {
                    broker.start_node(node);
                }
            }
        });
        self.is_broker_stopped.store(stop, Ordering::Relaxed);
    }

    /// Starts the watchers of the gateways at `addresses`, if none run.
    pub(crate) fn start_watchers(&self, addresses: Vec<SocketAddr>) -> std::io::Result<()> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.is_none() {
            let gateways = self.gateways.clone();
            let pids = move || gateways.iter().filter_map(|it| it.status().pid).collect();
            *watchers = Some(Watchers::start(addresses, self.outside.clone(), pids)?);
        }
        Ok(())
    }

    /// Ends the watchers.
    pub(crate) fn stop_watchers(&self) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        *watchers = None;
    }

    /// What the watchers see, if they run.
    pub(crate) fn watched(&self) -> Option<Figures> {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.as_ref().map(Watchers::figures)
    }
}
