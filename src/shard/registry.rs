//! What the process has named so far. The control side owns the registry and plans every snapshot
//! with it, so that what two snapshots call by one number is one thing.
//!
//! Plan with a clone, and keep the clone only if the shards take the snapshot over: a rejected
//! snapshot leaves nothing behind.

use std::collections::BTreeMap;

use crate::config::{CommandRoute, QueryRoute, StreamRoute};
use crate::metrics::RouteKind;
use crate::model::{ClusterId, Id, IdTable, RouteId, ShardId, TopicId, TopicName, u16_of};

use super::topic_plan::{Link, TopicPlan};

/// Numbers of clusters, topics and routes, and the plan of each topic.
///
/// A plan only grows. Its topic was loaded for all that any snapshot asked of it, and stays so when
/// a route is removed.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    clusters: Numbers<Option<String>, ClusterId>,
    topics: Numbers<(ClusterId, TopicName), TopicId>,
    routes: Numbers<(RouteKind, String), RouteId>,
    plans: IdTable<TopicId, TopicPlan>,
    links: IdTable<RouteId, Link>,
    /// A topic never moves, since its state is at its home.
    homes: IdTable<TopicId, ShardId>,
    /// How many groups of linked topics have a home. The next group takes the next shard.
    groups: usize,
}

/// More different names than numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("since its start the process has named more different {0} than it has numbers for")]
pub struct NumbersExhausted(&'static str);

impl Registry {
    /// The number of a cluster. `None` is that of `[kafka]`, which must be asked for first.
    pub(super) fn cluster(&mut self, name: Option<&str>) -> Result<ClusterId, NumbersExhausted> {
        let name = name.map(str::to_owned);
        self.clusters.of(name).ok_or(NumbersExhausted("clusters"))
    }

    /// The number of a topic.
    pub(super) fn topic(
        &mut self,
        cluster: ClusterId,
        name: &TopicName,
    ) -> Result<TopicId, NumbersExhausted> {
        let topic = self.topics.of((cluster, name.clone()));
        let topic = topic.ok_or(NumbersExhausted("topics"))?;
        if self.plans.get(topic).is_none() {
            self.plans.insert(topic, TopicPlan::new(cluster, name));
        }
        Ok(topic)
    }

    /// The plan of a topic, to add to it.
    pub(super) fn plan(&mut self, topic: TopicId) -> &mut TopicPlan {
        let plan = self.plans.get_mut(topic);
        plan.expect("a number comes with a plan")
    }

    /// The plans of all topics.
    pub(super) const fn plans(&self) -> &IdTable<TopicId, TopicPlan> {
        &self.plans
    }

    /// The number of a command route. `link` names its topics in the snapshot that is planned.
    pub(super) fn command(
        &mut self,
        route: &CommandRoute,
        link: Link,
    ) -> Result<RouteId, NumbersExhausted> {
        let route = self.route(RouteKind::Command, &route.name)?;
        if self.links.get(route).is_none() {
            self.links.insert(route, link);
        }
        Ok(route)
    }

    /// The topics of every command route, as the first snapshot with the route named them.
    pub(super) const fn links(&self) -> &IdTable<RouteId, Link> {
        &self.links
    }

    /// The number of a query route.
    pub(super) fn query(&mut self, route: &QueryRoute) -> Result<RouteId, NumbersExhausted> {
        self.route(RouteKind::Query, &route.name)
    }

    /// The number of a stream route.
    pub(super) fn stream(&mut self, route: &StreamRoute) -> Result<RouteId, NumbersExhausted> {
        self.route(RouteKind::Stream, &route.name)
    }

    /// The kind belongs to the name: a query that becomes a stream is another route.
    fn route(&mut self, kind: RouteKind, name: &str) -> Result<RouteId, NumbersExhausted> {
        let route = self.routes.of((kind, name.to_owned()));
        route.ok_or(NumbersExhausted("routes"))
    }

    /// Gives each of the linked topics its home, one of the first `homes` shards. Those that have
    /// none get that of the others. If these have different homes, they keep them, and the snapshot
    /// can't be taken over.
    pub(super) fn place(&mut self, linked: &[TopicId], homes: u16) {
        let home = linked.iter().find_map(|topic| self.homes.get(*topic));
        let home = home.copied().unwrap_or_else(|| {
            let home = self.groups % usize::from(homes);
            self.groups += 1;
            ShardId(u16_of(home))
        });
        for &topic in linked {
            if self.homes.get(topic).is_none() {
                self.homes.insert(topic, home);
                self.plan(topic).home = home;
            }
        }
    }
}

/// Names and their numbers. A name is never forgotten, so its number is never another's.
#[derive(Clone, Debug)]
struct Numbers<N, I> {
    by_name: BTreeMap<N, I>,
}

impl<N, I> Default for Numbers<N, I> {
    fn default() -> Self {
        let by_name = BTreeMap::new();
        Self { by_name }
    }
}

impl<N: Ord, I: Id> Numbers<N, I> {
    /// The number of a name: the next one if the name is new. `None` if there is none left.
    fn of(&mut self, name: N) -> Option<I> {
        if let Some(id) = self.by_name.get(&name) {
            return Some(*id);
        }
        let id = I::at(self.by_name.len())?;
        self.by_name.insert(name, id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(registry: &mut Registry, name: &str) -> TopicId {
        let name = TopicName::new(name).expect("a legal name");
        let topic = registry.topic(ClusterId(0), &name);
        topic.expect("there are numbers left")
    }

    #[test]
    fn a_name_keeps_its_number_and_a_number_its_name() {
        let mut registry = Registry::default();
        let (a, b) = (topic(&mut registry, "a"), topic(&mut registry, "b"));
        // A snapshot without `a`, and one that names it again.
        let c = topic(&mut registry, "c");
        assert_eq!([a, b, c], [TopicId(0), TopicId(1), TopicId(2)]);
        assert_eq!(topic(&mut registry, "a"), a);
        assert_eq!(topic(&mut registry, "c"), c);
        let other = registry.cluster(None).expect("the first");
        let edge = registry.cluster(Some("edge")).expect("the second");
        assert_eq!((other, edge), (ClusterId(0), ClusterId(1)));
        assert_eq!(registry.cluster(Some("edge")), Ok(edge));
    }

    #[test]
    fn a_route_of_another_kind_is_another_route() {
        let mut registry = Registry::default();
        let query = registry.route(RouteKind::Query, "GET /a");
        let stream = registry.route(RouteKind::Stream, "GET /a");
        assert_eq!((query, stream), (Ok(RouteId(0)), Ok(RouteId(1))));
    }

    #[test]
    fn numbers_end_instead_of_repeating() {
        let mut numbers = Numbers::<u16, ClusterId>::default();
        for name in 0..=u16::from(u8::MAX) {
            assert_eq!(numbers.of(name), Some(ClusterId(name as u8)));
        }
        assert_eq!(numbers.of(256), None);
        assert_eq!(numbers.of(7), Some(ClusterId(7)));
    }

    #[test]
    fn a_topic_never_moves_and_linked_topics_share_a_home() {
        let mut registry = Registry::default();
        let names = ["a", "b", "c", "d", "e"];
        let [a, b, c, d, e] = names.map(|name| topic(&mut registry, name));
        registry.place(&[a, b], 2);
        registry.place(&[c], 2);
        let [first, second] = [ShardId(0), ShardId(1)];
        // Later snapshots: a new topic joins a linked one, another goes round, and a link between
        // two homes moves neither.
        registry.place(&[d, a], 2);
        registry.place(&[e], 2);
        registry.place(&[b, c], 2);
        let homes = [a, b, c, d, e].map(|topic| registry.plan(topic).home);
        assert_eq!(homes, [first, first, second, first, first]);
    }
}
