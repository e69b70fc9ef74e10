//! The nodes of a cluster: where clients reach them, which of them run, where partitions go.

use crate::model::{low_u16, u16_of, u32_of};
use std::ops::Range;

use kafka_protocol::error::ResponseError;

use super::{NodeId, Refusal};

/// A broker process of the cluster, with the address that clients connect to.
#[derive(Debug)]
pub(super) struct Node {
    host: String,
    port: u16,
    state: NodeState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeState {
    Running,
    /// Runs and keeps its connections, but answers nothing.
    Frozen,
    Stopped,
}

impl Node {
    /// The host that clients connect to.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port that clients connect to, as the wire has it.
    pub(super) fn port(&self) -> i32 {
        i32::from(self.port)
    }
}

/// The nodes, numbered from 1. A stopped node stays in the list.
#[derive(Debug)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    /// `count` running nodes without an address.
    pub(super) fn new(count: u16) -> Self {
        let node = |_| Node {
            host: "127.0.0.1".to_owned(),
            port: 0,
            state: NodeState::Running,
        };
        Self((0..count).map(node).collect())
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.0.get(usize::from(id.0).checked_sub(1)?)
    }

    fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.0.get_mut(usize::from(id.0).checked_sub(1)?)
    }

    /// The running nodes in order, frozen ones among them.
    pub(super) fn running(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let numbered = (1..).map(NodeId).zip(&self.0);
        numbered.filter(|(_, node)| node.state != NodeState::Stopped)
    }

    pub(super) fn is_running(&self, id: NodeId) -> bool {
        self.get(id)
            .is_some_and(|node| node.state != NodeState::Stopped)
    }

    pub(super) fn is_frozen(&self, id: NodeId) -> bool {
        self.get(id)
            .is_some_and(|node| node.state == NodeState::Frozen)
    }

    /// The controller, which is the transaction coordinator too: the first running node.
    pub(super) fn controller(&self) -> Option<(NodeId, &Node)> {
        self.running().next()
    }

    pub(super) fn advertise(&mut self, id: NodeId, host: &str, port: u16) {
        if let Some(node) = self.get_mut(id) {
            host.clone_into(&mut node.host);
            node.port = port;
        }
    }

    /// Starts a stopped node. False if there is no such node.
    pub(super) fn start(&mut self, id: NodeId) -> bool {
        let Some(node) = self.get_mut(id) else {
            return false;
        };
        if node.state == NodeState::Stopped {
            node.state = NodeState::Running;
        }
        true
    }

    /// Stops a node. False if there is no such node.
    pub(super) fn stop(&mut self, id: NodeId) -> bool {
        let node = self.get_mut(id);
        node.map(|node| node.state = NodeState::Stopped).is_some()
    }

    /// Freezes a running node: it keeps its connections, but answers nothing.
    pub(super) fn freeze(&mut self, id: NodeId) {
        if let Some(node) = self.get_mut(id)
            && node.state == NodeState::Running
        {
            node.state = NodeState::Frozen;
        }
    }

    /// Thaws a node. False if it was not frozen.
    pub(super) fn thaw(&mut self, id: NodeId) -> bool {
        let frozen = self.is_frozen(id);
        if let Some(node) = self.get_mut(id).filter(|_| frozen) {
            node.state = NodeState::Running;
        }
        frozen
    }

    /// The addresses of the leaders that a response names, each once. Ids that name no node, such
    /// as -1, are left out.
    pub(super) fn endpoints(
        &self,
        leaders: impl Iterator<Item = i32>,
    ) -> impl Iterator<Item = (i32, &Node)> {
        let mut ids: Vec<u16> = leaders.filter_map(|id| u16::try_from(id).ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter_map(|id| Some((i32::from(id), self.get(NodeId(id))?)))
    }

    /// How many replicas a partition has if its topic asks for `replication`; 0 asks for the
    /// default.
    pub(super) fn replication(&self, replication: u16) -> Result<u16, Refusal> {
        let nodes = u16_of(self.0.len());
        if replication == 0 {
            return Ok(nodes.min(3));
        }
        if replication <= nodes {
            return Ok(replication);
        }
        let text = format!(
            "Unable to replicate the partition {replication} time(s): only {nodes} broker(s)."
        );
        Err(Refusal::new(ResponseError::InvalidReplicationFactor, text))
    }

    /// The replicas of new partitions: partition p is on the nodes p, p + 1, ... in turn. The first
    /// is its preferred leader.
    pub(super) fn spread(&self, partitions: Range<u32>, replication: u16) -> Vec<Vec<NodeId>> {
        let nodes = u32_of(self.0.len());
        let on = |p: u32| {
            let node = |k: u16| NodeId(low_u16(u64::from((p + u32::from(k)) % nodes)) + 1);
            (0..replication).map(node).collect()
        };
        partitions.map(on).collect()
    }

    /// Checks replicas that a client assigned.
    pub(super) fn check_assignment(&self, assignment: &[Vec<NodeId>]) -> Result<(), Refusal> {
        let legal = |replicas: &Vec<NodeId>| {
            let known = replicas.iter().all(|&node| self.get(node).is_some());
            let mut distinct = replicas.clone();
            distinct.sort_unstable();
            distinct.dedup();
            known && !replicas.is_empty() && distinct.len() == replicas.len()
        };
        let equal = assignment
            .windows(2)
            .all(|pair| pair[0].len() == pair[1].len());
        if equal && assignment.iter().all(legal) {
            return Ok(());
        }
        let text = "each partition needs the same number of distinct, existing brokers";
        Err(Refusal::new(ResponseError::InvalidReplicaAssignment, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_node_runs_and_a_stopped_one_neither_runs_nor_thaws() {
        let mut nodes = Nodes::new(2);
        let first = NodeId(1);
        nodes.freeze(first);
        assert!(nodes.is_running(first) && nodes.is_frozen(first));
        assert!(nodes.stop(first));
        assert!(!nodes.is_running(first) && !nodes.thaw(first));
        assert_eq!(nodes.controller().map(|(id, _)| id), Some(NodeId(2)));
        nodes.freeze(first);
        assert!(nodes.start(first) && !nodes.is_frozen(first));
        assert!(!nodes.start(NodeId(0)) && !nodes.stop(NodeId(3)));
    }
}
