//! The cluster behind the connections: its parts, and the API that each request is answered by. An
//! API borrows only the parts that it may touch.

use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;

use super::Settings;
use super::admin::AdminApi;
use super::configs::ConfigsApi;
use super::context::RequestContext;
use super::coordinator::Coordinator;
use super::fetch::FetchApi;
use super::fetch_session::FetchSessions;
use super::group_members::GroupApi;
use super::group_offsets::GroupOffsetsApi;
use super::groups::Groups;
use super::metadata::MetadataApi;
use super::nodes::Nodes;
use super::offsets::OffsetsApi;
use super::planned_faults::{PlannedFaults, Right};
use super::produce::ProduceApi;
use super::store::Store;
use super::topic_admin::{NewTopic, TopicAdmin};
use super::topic_config::TopicConfig;
use super::transactions::TransactionApi;
use crate::model::{FastRandom, Instant, Now};

/// How often retention and compaction are applied.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);

/// The state of the broker that all connections share.
#[derive(Debug)]
pub(super) struct Cluster {
    pub settings: Settings,
    pub nodes: Nodes,
    pub store: Store,
    pub coordinator: Coordinator,
    pub groups: Groups,
    pub sessions: FetchSessions,
    pub faults: PlannedFaults,
    random: FastRandom,
    upkeep_due: Option<Instant>,
}

impl Cluster {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        assert!(
            (1..=Settings::NODES_MAX).contains(&settings.nodes),
            "a cluster has 1 to {} nodes",
            Settings::NODES_MAX
        );
        let mut random = FastRandom::new(seed);
        Self {
            nodes: Nodes::new(settings.nodes),
            store: Store::new(settings.bytes_max),
            coordinator: Coordinator::default(),
            groups: Groups::new(FastRandom::new(random.next())),
            sessions: FetchSessions::new(random.next()),
            faults: PlannedFaults::default(),
            random,
            upkeep_due: None,
            settings,
        }
    }

    /// Creates the topics that a Metadata request names and allows to be created. A topic that
    /// can't be created stays unknown, and the response says so.
    pub(super) fn create_asked(&mut self, request: &MetadataRequest) {
        let Some(partitions) = self.settings.auto_create_partitions else {
            return;
        };
        if !request.allow_auto_topic_creation {
            return;
        }
        let named = request.topics.iter().flatten();
        for name in named.filter_map(|topic| topic.name.as_ref()) {
            if self.store.topics().get(name).is_some() || self.faults.denies(name, Right::Describe)
            {
                continue;
            }
            let topic = NewTopic {
                name: name.to_string(),
                partitions,
                replication: 0,
                assignment: Vec::new(),
                config: TopicConfig::default(),
            };
            let _refused = self.topic_admin().create(topic);
        }
    }

    pub(super) fn metadata(&self, ctx: RequestContext) -> MetadataApi<'_> {
        MetadataApi {
            ctx,
            cluster_id: &self.settings.cluster_id,
            nodes: &self.nodes,
            topics: self.store.topics(),
            faults: &self.faults,
        }
    }

    pub(super) fn offsets(&mut self, ctx: RequestContext) -> OffsetsApi<'_> {
        OffsetsApi {
            ctx,
            profile: self.settings.profile,
            topics: self.store.topics(),
            faults: &mut self.faults,
        }
    }

    pub(super) fn fetch(&mut self) -> FetchApi<'_> {
        FetchApi {
            settings: &self.settings,
            nodes: &self.nodes,
            topics: self.store.topics(),
            faults: &mut self.faults,
            sessions: &mut self.sessions,
        }
    }

    pub(super) fn produce(&mut self, ctx: RequestContext) -> ProduceApi<'_> {
        ProduceApi {
            ctx,
            nodes: &self.nodes,
            store: &mut self.store,
            coordinator: &mut self.coordinator,
            faults: &mut self.faults,
        }
    }

    pub(super) fn transactions(&mut self, ctx: RequestContext) -> TransactionApi<'_> {
        TransactionApi {
            ctx,
            nodes: &self.nodes,
            coordinator: &mut self.coordinator,
            store: &mut self.store,
        }
    }

    pub(super) fn group_members(&mut self, ctx: RequestContext) -> GroupApi<'_> {
        GroupApi {
            ctx,
            nodes: &self.nodes,
            groups: &mut self.groups,
        }
    }

    pub(super) fn group_offsets(&mut self, ctx: RequestContext) -> GroupOffsetsApi<'_> {
        GroupOffsetsApi {
            ctx,
            nodes: &self.nodes,
            topics: self.store.topics(),
            groups: &mut self.groups,
            coordinator: &mut self.coordinator,
        }
    }

    /// Gives groups the offsets of transactions that were committed.
    pub(super) fn apply_committed_offsets(&mut self) {
        for offset in self.coordinator.take_committed() {
            // This fails only if the group has too many offsets; it then reads some records again.
            let _full = self
                .groups
                .commit(&offset.group, offset.partition, offset.committed);
        }
    }

    pub(super) fn configs(&mut self, ctx: RequestContext) -> ConfigsApi<'_> {
        ConfigsApi {
            ctx,
            settings: &self.settings,
            store: &mut self.store,
            faults: &self.faults,
        }
    }

    pub(super) fn admin(&mut self, ctx: RequestContext) -> AdminApi<'_> {
        let admin = self.topic_admin();
        AdminApi { ctx, admin }
    }

    pub(super) fn topic_admin(&mut self) -> TopicAdmin<'_> {
        TopicAdmin {
            settings: &self.settings,
            nodes: &self.nodes,
            store: &mut self.store,
            coordinator: &mut self.coordinator,
            groups: &mut self.groups,
            random: &mut self.random,
        }
    }

    /// Whether anything changed since the last call that can end a long poll.
    pub(super) fn take_changed(&mut self) -> bool {
        let stored = self.store.take_changed();
        let groups = self.groups.take_changed();
        self.faults.take_changed() || stored || groups
    }

    /// The next time at which a transaction times out or upkeep is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let transaction = self.coordinator.next_deadline();
        let group = self.groups.next_deadline();
        [transaction, group, self.upkeep_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Aborts overdue transactions, and applies retention and compaction when they are due.
    pub(super) fn on_time(&mut self, now: Now) {
        self.coordinator.abort_overdue(now, &mut self.store);
        self.groups.on_time(now.mono);
        if self.upkeep_due.is_some_and(|due| now.mono >= due) {
            self.store.upkeep(now);
            self.upkeep_due = None;
        }
    }

    /// Schedules the next upkeep, while there are records.
    pub(super) fn schedule_upkeep(&mut self, now: Now) {
        if self.upkeep_due.is_none() && self.store.bytes() > 0 {
            self.upkeep_due = Some(now.mono.after(UPKEEP_PERIOD));
        }
    }
}
