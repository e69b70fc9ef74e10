//! What `run` logs first: the process's version, where its config came from, what it runs on, and
//! its routes. An operator who reads a log then knows what was started.

use super::cpus;
use crate::config::{Loaded, route_lines};

/// The driver of the shards.
const DRIVER: &str = "io_uring";

/// Logs one line about the process and one for each route.
pub fn log_start(loaded: &Loaded) {
    let config = match loaded.report.name.as_str() {
        "" => "none",
        name => name,
    };
    let cpus = cpus();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config,
        driver = DRIVER,
        cpus,
        shards = loaded.config.settings.shards_on(cpus),
        "starting"
    );
    for route in route_lines(&loaded.config) {
        tracing::info!("route {route}");
    }
}
