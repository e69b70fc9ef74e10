//! What a cluster shows of a topic, and what follows from it for the next incarnation.

use std::sync::Arc;

use crate::kafka::TopicView;
use crate::model::{HashSecret, LogIdentity, LogTag, low_u32, millis};
use crate::shard::message::Incarnation;
use crate::shard::snapshot::Snapshot;
use crate::shard::topic_plan::TopicPlan;

use super::health::compacted;

const DAY_MS: u64 = 86_400_000;

/// The topic's properties in its cluster.
#[derive(Debug, Default)]
pub(super) struct ShownTopic {
    /// `None`: the cluster has not shown the topic yet.
    view: Option<Arc<TopicView>>,
    /// The id of the cluster when the incarnation began.
    cluster_id: String,
}

/// How a view compares to the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViewChange {
    /// The topic id is the same.
    pub(super) same_id: bool,
    /// The cleanup.policy is the same.
    pub(super) same_policy: bool,
}

impl ShownTopic {
    /// The newest view.
    pub(super) const fn view(&self) -> Option<&Arc<TopicView>> {
        self.view.as_ref()
    }

    /// Takes over a view. A config that can't be read any more stays as it was read last.
    pub(super) fn on_view(&mut self, view: Arc<TopicView>) -> ViewChange {
        let known = self.view.take();
        let same_id = known.as_ref().is_some_and(|known| known.id == view.id);
        let view = match known.as_ref().filter(|_| same_id) {
            Some(known) => with_known_config(view, known),
            None => view,
        };
        let same_policy = known.is_some_and(|known| compacted(&known) == compacted(&view));
        self.view = Some(view);
        ViewChange {
            same_id,
            same_policy,
        }
    }

    /// The incarnation that begins belongs to this cluster.
    pub(super) fn on_cluster(&mut self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.cluster_id);
    }

    /// Whether the topic is compacted, if its config can be read.
    pub(super) fn compacted(&self) -> Option<bool> {
        self.view.as_deref().and_then(compacted)
    }

    /// Whether slices keep the topic's newest records.
    pub(super) fn is_cached(&self, plan: &TopicPlan) -> bool {
        self.view.as_ref().is_some_and(|view| cached(plan, view))
    }

    /// The incarnation that begins now. `streamed`: its events are encoded.
    pub(super) fn incarnation(
        &self,
        number: u32,
        streamed: bool,
        view: &TopicView,
        plan: &TopicPlan,
        snapshot: &Snapshot,
    ) -> Incarnation {
        let secret = HashSecret::derived_from(self.cluster_id.as_bytes());
        let identity = snapshot.log_identity(plan).or(view.id);
        // Without a topic id, cluster and name at least keep other topics' ids apart.
        let named =
            || LogTag((low_u32(secret.hash(plan.name.as_str().as_bytes()).0)).to_be_bytes());
        let config = view.config.as_ref();
        Incarnation {
            number,
            tag: identity.map_or_else(named, LogIdentity::tag),
            secret,
            compacted: config.is_some_and(|c| c.compacted),
            cached: cached(plan, view),
            partitions: view.partitions,
            streamed,
            delete_retention_ms: config.map_or(DAY_MS, |c| millis(c.delete_retention)),
        }
    }
}

/// A view whose config can't be read any more, with the one that was read last.
fn with_known_config(view: Arc<TopicView>, known: &TopicView) -> Arc<TopicView> {
    let config = view.config.or(known.config);
    if config == view.config {
        view
    } else {
        Arc::new(TopicView {
            config,
            ..(*view).clone()
        })
    }
}

/// Whether slices keep the newest records of a topic with this view.
fn cached(plan: &TopicPlan, view: &TopicView) -> bool {
    let compacted = view.config.as_ref().is_some_and(|config| config.compacted);
    plan.cached || compacted && !plan.encodings.is_empty()
}
