//! The application that scenarios use: one topic of each kind, and the routes over them. Every
//! scenario has an application of its own, so none sees another's records.

use super::gateway::{self, Gateway};
use super::ground::Ground;
use super::kcat::{self, Produce, Record};
use super::service::{Reply, Service};

/// Partitions of an [`App`]'s topics, if a scenario needs no other number.
const PARTITIONS: u32 = 3;

/// The topics of one application, and their routes.
#[derive(Debug)]
pub struct App {
    bootstrap: String,
    pub commands: String,
    pub replies: String,
    /// A compacted topic, for queries and snapshots.
    pub items: String,
    /// A topic that is not compacted, for streams.
    pub events: String,
}

impl App {
    /// Creates an application with new topics on a cluster.
    pub fn new(ground: &Ground) -> Self {
        Self {
            bootstrap: ground.bootstrap().to_owned(),
            commands: ground.topic("commands", PARTITIONS, &[]),
            replies: ground.topic("replies", PARTITIONS, &[]),
            items: ground.compacted("items", PARTITIONS),
            events: ground.topic("events", PARTITIONS, &[]),
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Starts a gateway with this many shards for the application.
    pub fn gateway(&self, shards: u16) -> Gateway {
        self.gateway_with(shards, "")
    }

    /// Starts a gateway with additional tables of settings.
    pub fn gateway_with(&self, shards: u16, settings: &str) -> Gateway {
        Gateway::start(&self.config(shards, settings))
    }

    /// The config of a gateway, with additional tables of settings.
    pub fn config(&self, shards: u16, settings: &str) -> String {
        let Self {
            commands,
            replies,
            items,
            events,
            ..
        } = self;
        let mut config = gateway::settings(&self.bootstrap, shards);
        config.push_str(settings);
        let routes = [
            ("order", "POST /items/{id}/orders", "optional", "30s"),
            ("put", "PUT /items/{id}", "optional", "30s"),
            ("patch", "PATCH /items/{id}", "optional", "30s"),
            ("delete", "DELETE /items/{id}", "optional", "30s"),
            ("careful", "POST /careful/{id}", "required", "30s"),
            ("hasty", "POST /hasty/{id}", "optional", "300ms"),
        ];
        for (name, route, idempotency, timeout) in routes {
            config.push_str(&format!(
                "\n[[command]]\nname = \"{name}\"\nroute = \"{route}\"\ntopic = \"{commands}\"\n\
                 replies = \"{replies}\"\nkey = \"{{path.id}}\"\n\
                 headers = {{ operation = \"{name}\" }}\n\
                 idempotency = \"{idempotency}\"\ntimeout = \"{timeout}\"\n\
                 forward = [\"content-type\"]\n"
            ));
        }
        config.push_str(&format!(
            "\n[[query]]\nroute = \"GET /items/{{id}}\"\ntopic = \"{items}\"\nkey = \"{{path.id}}\"\n\
             \n[[query]]\nroute = \"GET /items\"\ntopic = \"{items}\"\n"
        ));
        let streams = [
            ("/events/live", events, "live", ""),
            ("/events/all", events, "earliest", ""),
            (
                "/events/of/{key}",
                events,
                "earliest",
                "filter.key = \"{path.key}\"\n",
            ),
            ("/items-now", items, "snapshot", ""),
            (
                "/items-now/{key}",
                items,
                "snapshot",
                "filter.key = \"{path.key}\"\n",
            ),
        ];
        for (path, topic, start, more) in streams {
            config.push_str(&format!(
                "\n[[stream]]\nroute = \"GET {path}\"\ntopic = \"{topic}\"\nstart = \"{start}\"\n{more}"
            ));
        }
        config
    }

    /// Starts a service that answers the application's commands.
    pub fn service(
        &self,
        behaviour: impl FnMut(&Record) -> Option<Reply> + Send + 'static,
    ) -> Service {
        Service::start(&self.bootstrap, &self.commands, &self.replies, behaviour)
    }

    /// A producer that writes to a topic.
    pub fn produce(&self, topic: &str) -> Produce {
        Produce::to(&self.bootstrap, topic)
    }

    /// The commands in the log, read by another Kafka client.
    pub fn commands_in_log(&self) -> Vec<Record> {
        kcat::read(&self.bootstrap, &self.commands)
    }
}
