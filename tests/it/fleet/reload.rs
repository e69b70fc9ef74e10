//! Further snapshots of a gateway, which its shards load while requests are in flight. Routes
//! change their places in the config, so that a place that outlives its snapshot means another
//! route.

use std::sync::Arc;

use sluicegate::config::{Config, ConfigFile, Sources};
use sluicegate::shard::{Layout, Registry, Snapshot, WorkLimits};

use super::random::Random;

/// The snapshots of one gateway.
pub(super) struct Snapshots {
    /// Loaded by each process at its start.
    pub(super) first: Arc<Snapshot>,
    /// The same routes in another order, with one route added.
    other: Arc<Snapshot>,
    /// Has a route of a new topic, so that a running process can't take it over.
    unsupported: Arc<Snapshot>,
}

impl Snapshots {
    /// Plans the snapshots of a config, which is TOML with its routes at the end.
    pub(super) fn new(text: &str, layout: Layout, work: WorkLimits) -> Self {
        let mut registry = Registry::default();
        let mut plan = |number, text: &str| {
            let config = Arc::new(load(text.to_owned()));
            let snapshot = Snapshot::new(number, config, layout, &mut registry);
            let mut snapshot = snapshot.expect("a few names have numbers");
            snapshot.work = work;
            Arc::new(snapshot)
        };
        let routes = text.find("[[").expect("a config has routes");
        let (settings, routes) = text.split_at(routes);
        let mut tables: Vec<_> = routes.split("[[").skip(1).collect();
        let added = tables[0].replacen(" /", " /v2/", 1);
        let added = added.replacen("name = \"", "name = \"v2-", 1);
        tables.reverse();
        let other = format!("{settings}[[{added}[[{}", tables.join("[["));
        let new = "[[query]]\nroute = \"GET /new/{key}\"\ntopic = \"new\"\nkey = \"{path.key}\"\n";
        Self {
            first: plan(1, text),
            other: plan(2, &other),
            unsupported: plan(3, &format!("{text}{new}")),
        }
    }

    /// Any of the three snapshots, drawn at random.
    pub(super) fn any(&self, random: &mut Random) -> &Arc<Snapshot> {
        match random.below(3) {
            0 => &self.first,
            1 => &self.other,
            _ => &self.unsupported,
        }
    }

    /// Whether a process that serves the others rejects this one.
    pub(super) fn is_unsupported(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(snapshot, &self.unsupported)
    }
}

fn load(text: String) -> Config {
    let file = Some(ConfigFile {
        name: "fleet.toml".into(),
        text,
    });
    let sources = Sources {
        file,
        environment: Vec::new(),
        flags: Vec::new(),
        cpus: 2,
        to_serve: true,
    };
    match sluicegate::config::load(sources) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}", report.render(false)),
    }
}
