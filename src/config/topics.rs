//! What the routes require of topics: how each is used, whether it must be compacted, and which
//! topics share a home.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterIndex, Config, Cors, Dedupe, Slow, Start, Template};
use crate::model::TopicName;

/// One topic and how the routes use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicUse {
    /// The cluster that has the topic.
    pub cluster: ClusterIndex,
    /// The topic's name within its cluster.
    pub topic: TopicName,
    /// Whether commands are written to it.
    pub commands: bool,
    /// Whether its unanswered commands are indexed: a route with `dedupe = "strict"` writes to it.
    pub indexed: bool,
    /// Whether replies are read from it.
    pub replies: bool,
    /// Whether queries are answered from it.
    pub query: bool,
    /// Whether streams send its records.
    pub stream: bool,
    /// Whether a route needs `cleanup.policy=compact`: streams that start with a snapshot or
    /// conflate.
    pub compacted: bool,
    /// Name and line of the first route that needs the topic compacted.
    pub compacted_by: Option<(String, usize)>,
}

impl TopicUse {
    /// Whether the gateway reads the topic, and not only writes to it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.replies || self.indexed || self.query || self.stream
    }

    /// Whether a new topic is created with `cleanup.policy=compact`: a query or a snapshot reads
    /// the newest record of each key, which retention would delete.
    #[must_use]
    pub fn is_created_compacted(&self) -> bool {
        self.query || self.compacted
    }

    /// The topic configs with which it is created, apart from the cluster's defaults.
    #[must_use]
    pub fn configs(&self) -> &'static [(&'static str, &'static str)] {
        if self.is_created_compacted() {
            &[("cleanup.policy", "compact")]
        } else {
            &[]
        }
    }
}

impl Config {
    /// Names of the request headers that routes forward or read in a template, and those that a
    /// CORS policy lists, in lower case. CORS must allow a page of another origin to send them.
    #[must_use]
    pub fn cors_request_headers(&self, policy: &Cors) -> BTreeSet<String> {
        let commands = self.commands.iter();
        let forwarded = commands.clone().flat_map(|route| &route.forward);
        let of_records = commands.clone().flat_map(|route| {
            let headers = route.headers.iter().map(|(_, template)| template);
            headers.chain(&route.key)
        });
        let of_queries = self.queries.iter().filter_map(|route| route.key.as_ref());
        let of_streams = self.streams.iter();
        let of_streams = of_streams.filter_map(|route| route.filter.key.as_ref());
        let read = of_records.chain(of_queries).chain(of_streams);
        let read = read.flat_map(Template::headers).map(str::to_owned);
        let listed = &policy.allow_headers;
        let named = forwarded
            .chain(listed)
            .map(|name| name.to_ascii_lowercase());
        read.chain(named).collect()
    }

    /// Every topic of the routes, in order of cluster and name.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicUse> {
        let mut uses = BTreeMap::new();
        for route in &self.commands {
            let commands = usage(&mut uses, route.cluster, &route.topic);
            commands.commands = true;
            commands.indexed |= route.dedupe == Dedupe::Strict;
            if let Some(replies) = &route.replies {
                usage(&mut uses, route.cluster, replies).replies = true;
            }
        }
        for route in &self.queries {
            usage(&mut uses, route.cluster, &route.topic).query = true;
        }
        for route in &self.streams {
            let usage = usage(&mut uses, route.cluster, &route.topic);
            usage.stream = true;
            if route.start == Start::Snapshot || route.slow == Slow::Conflate {
                usage.compacted = true;
                usage
                    .compacted_by
                    .get_or_insert((route.name.clone(), route.line));
            }
        }
        uses.into_values().collect()
    }

    /// Groups of topics that must share a home, because a command route links them. Each topic is
    /// in one group, most of them alone. The order of groups and members is that of names, so it is
    /// the same in every process with the same routes.
    #[must_use]
    pub fn linked_topics(&self) -> Vec<Vec<(ClusterIndex, TopicName)>> {
        let topics = self.topics().into_iter();
        let mut groups: Vec<_> = topics.map(|it| vec![(it.cluster, it.topic)]).collect();
        for route in &self.commands {
            let find = |name: &TopicName| {
                let topic = (route.cluster, name.clone());
                groups.iter().position(|group| group.contains(&topic))
            };
            let replies = route.replies.as_ref().and_then(find);
            let (Some(a), Some(b)) = (find(&route.topic), replies) else {
                continue;
            };
            if a != b {
                let moved = groups.remove(a.max(b));
                groups[a.min(b)].extend(moved);
                groups[a.min(b)].sort();
            }
        }
        groups
    }
}

fn usage<'a>(
    uses: &'a mut BTreeMap<(ClusterIndex, TopicName), TopicUse>,
    cluster: ClusterIndex,
    topic: &TopicName,
) -> &'a mut TopicUse {
    let key = (cluster, topic.clone());
    uses.entry(key).or_insert_with(|| TopicUse {
        cluster,
        topic: topic.clone(),
        commands: false,
        indexed: false,
        replies: false,
        query: false,
        stream: false,
        compacted: false,
        compacted_by: None,
    })
}
