//! Which second snapshot a shard can take over: one with other routes, and with everything else as
//! it is. All shards of a process decide alike, since they compare the same two snapshots.

use crate::config::ClusterConfig;

use super::snapshot::{CommandPlan, Snapshot};

/// The first difference between two snapshots that a shard can't take over. `None`: it can.
pub(super) fn difference(now: &Snapshot, next: &Snapshot) -> Option<String> {
    layout(now, next)
        .or_else(|| settings(now, next))
        .or_else(|| clusters(now, next))
        .or_else(|| topics(now, next))
        .or_else(|| links(now, next))
}

fn layout(now: &Snapshot, next: &Snapshot) -> Option<String> {
    (now.layout != next.layout).then(|| "the number of shards differs".into())
}

fn settings(now: &Snapshot, next: &Snapshot) -> Option<String> {
    if now.config.headers != next.config.headers {
        return Some("[kafka.headers] differs".into());
    }
    if now.config.issuers != next.config.issuers {
        return Some("[[issuer]] differs".into());
    }
    let key = now.config.settings.differs_in(&next.config.settings)?;
    Some(format!("{key} differs"))
}

fn clusters(now: &Snapshot, next: &Snapshot) -> Option<String> {
    let added = next.clusters().find(|(id, _)| !now.has_cluster(*id));
    if let Some((id, _)) = added {
        return Some(format!("{} is new", next.cluster_name(id)));
    }
    now.clusters().find_map(|(id, was)| {
        let how = match (was, next.has_cluster(id)) {
            (_, false) => "is gone",
            (Some(was), true) if !next.cluster(id).is_some_and(|is| same(was, is)) => "differs",
            _ => return None,
        };
        Some(format!("{} {how}", now.cluster_name(id)))
    })
}

/// Whether a cluster is reached and trusted alike. Its place in the file does not matter.
fn same(was: &ClusterConfig, is: &ClusterConfig) -> bool {
    let ClusterConfig {
        name,
        line: _,
        bootstrap,
        log_id,
        tls,
        sasl,
        lines: _,
    } = was;
    (name, bootstrap, log_id, tls, sasl) == (&is.name, &is.bootstrap, &is.log_id, &is.tls, &is.sasl)
}

fn topics(now: &Snapshot, next: &Snapshot) -> Option<String> {
    let gone = now.indexed().find(|(id, _)| next.topics.get(*id).is_none());
    if let Some((_, plan)) = gone {
        return Some(format!("{} is gone", now.topic_name(plan)));
    }
    next.indexed().find_map(|(id, plan)| {
        let name = next.topic_name(plan);
        match now.topics.get(id) {
            None => Some(format!("{name} is new")),
            Some(was) => was
                .lacks(plan)
                .map(|what| format!("{name} would have to {what}")),
        }
    })
}

/// A command needs both of its topics at one home, and a home never moves. A command route keeps
/// its topics, even if a snapshot in between left it out: a retry would not be recognised in
/// another topic of replies.
fn links(now: &Snapshot, next: &Snapshot) -> Option<String> {
    let routes = next.commands.iter().zip(&next.config.commands);
    let moved = routes.clone().find(|(plan, _)| {
        let link = now.links.get(plan.id);
        link.is_some_and(|it| (it.commands, it.replies) != (plan.commands, plan.replies))
    });
    if let Some((_, route)) = moved {
        return Some(format!("command `{}` would have other topics", route.name));
    }
    let apart =
        |plan: &CommandPlan| next.topic(plan.commands).home != next.topic(plan.table()).home;
    let mut apart = routes.filter(|(plan, _)| apart(plan));
    let (plan, route) = apart.next()?;
    let (topic, replies) = (&route.topic, &next.topic(plan.table()).name);
    Some(format!(
        "command `{}` would link topic `{topic}` and topic `{replies}`, whose shards differ",
        route.name
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{ConfigFile, Sources, load};
    use crate::shard::registry::Registry;
    use crate::shard::snapshot::Layout;

    const SETTINGS: &str = "kafka.bootstrap = [\"localhost:9092\"]\n";
    const EDGE: &str = "[[cluster]]\nname = \"edge\"\nbootstrap = [\"edge:9092\"]\n";
    const PAY: &str = "[[command]]\nname = \"pay\"\nroute = \"POST /payments/{id}\"\n\
                       topic = \"payments\"\nreplies = \"replies\"\nkey = \"{path.id}\"\n";
    const ORDER: &str = "[[command]]\nname = \"order\"\nroute = \"POST /orders/{id}\"\n\
                         topic = \"orders\"\nreplies = \"order-replies\"\nkey = \"{path.id}\"\n";
    const BALANCE: &str = "[[query]]\nroute = \"GET /balances/{id}\"\ntopic = \"balances\"\n\
                           key = \"{path.id}\"\n";
    const EVENTS: &str = "[[stream]]\nroute = \"GET /events\"\ntopic = \"balances\"\n";

    fn plan(registry: &mut Registry, parts: &[&str]) -> Snapshot {
        let file = ConfigFile {
            name: "gateway.toml".into(),
            text: parts.concat(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 2,
            ..Sources::default()
        };
        let loaded = load(sources).map_err(|report| report.render(false));
        let layout = Layout {
            shards: 2,
            kafka_shards: 0,
        };
        let config = Arc::new(loaded.expect("a correct config").config);
        Snapshot::new(1, config, layout, registry).expect("few names")
    }

    /// The difference of a second snapshot from the one that the shards serve.
    fn second(parts: &[&str]) -> Option<String> {
        let mut registry = Registry::default();
        let now = plan(
            &mut registry,
            &[SETTINGS, EDGE, PAY, ORDER, BALANCE, EVENTS],
        );
        difference(&now, &plan(&mut registry, parts))
    }

    #[test]
    fn other_routes_are_taken_over() {
        let all = [SETTINGS, EDGE, PAY, ORDER, BALANCE, EVENTS];
        assert_eq!(second(&all), None);
        // Another order, one fewer, one more of the same topic, and a changed one.
        assert_eq!(second(&[SETTINGS, EDGE, EVENTS, BALANCE, ORDER, PAY]), None);
        assert_eq!(second(&[SETTINGS, EDGE, PAY, BALANCE]), None);
        let more = EVENTS.replace("/events", "/of/{id}") + "filter.key = \"{path.id}\"\n";
        assert_eq!(second(&[SETTINGS, EDGE, PAY, BALANCE, EVENTS, &more]), None);
        let changed = PAY.replace("/payments/{id}", "/v2/payments/{id}") + "timeout = \"1s\"\n";
        assert_eq!(second(&[SETTINGS, EDGE, &changed, ORDER, BALANCE]), None);
    }

    #[test]
    fn any_other_difference_is_named() {
        let said = |parts: &[&str]| second(parts).expect("a difference");
        let routes = [PAY, ORDER, BALANCE, EVENTS].concat();
        let routes = routes.as_str();
        let new = BALANCE.replace("balances", "accounts");
        assert_eq!(
            said(&[SETTINGS, EDGE, routes, &new]),
            "topic `accounts` is new"
        );
        assert_eq!(said(&[SETTINGS, routes]), "cluster `edge` is gone");
        let other = EDGE.replace("edge:9092", "edge:9093");
        assert_eq!(said(&[SETTINGS, &other, routes]), "cluster `edge` differs");
        let more = EDGE.replace("\"edge\"", "\"west\"");
        assert_eq!(
            said(&[SETTINGS, EDGE, &more, routes]),
            "cluster `west` is new"
        );
        let retry = "streams.retry = \"9s\"\n";
        assert_eq!(
            said(&[SETTINGS, retry, EDGE, routes]),
            "streams.retry differs"
        );
        let headers = "kafka.headers.status = \"status\"\n";
        assert_eq!(
            said(&[SETTINGS, headers, EDGE, routes]),
            "[kafka.headers] differs"
        );
        let list = "[[query]]\nroute = \"GET /balances\"\ntopic = \"balances\"\n";
        let asks = "topic `balances` would have to have a collection";
        assert_eq!(said(&[SETTINGS, EDGE, routes, list]), asks);
        let named = EVENTS.replace("/events", "/named") + "event = \"balance\"\n";
        let asks = "topic `balances` would have to write its events in another way";
        assert_eq!(said(&[SETTINGS, EDGE, routes, &named]), asks);
        let linked = PAY.replace("\"payments\"", "\"orders\"");
        let other = "command `pay` would have other topics";
        assert_eq!(said(&[SETTINGS, EDGE, &linked, ORDER, BALANCE]), other);
        let linked = PAY.replace("\"replies\"", "\"order-replies\"");
        let linked = linked.replace("pay\"", "pay-late\"");
        let linked = linked.replace("/payments", "/late-payments");
        let apart = "command `pay-late` would link topic `payments` and topic `order-replies`, \
                     whose shards differ";
        assert_eq!(said(&[SETTINGS, EDGE, routes, &linked]), apart);
    }
}
