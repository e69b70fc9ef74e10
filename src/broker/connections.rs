//! Connections: bytes become requests, one at a time; responses become bytes; requests wait.
//!
//! As in Kafka, the next request of a connection is served only after the response to the previous
//! one: a long poll holds up the requests behind it, a throttle mutes the connection, and a client
//! that does not read its responses is not served further. So at most one request waits per
//! connection, with one deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::ApiKey;

use super::apis::{self, Answer};
use super::cluster::Cluster;
use super::fetch::Poll;
use super::group_members::{GroupResponse, GroupWait};
use super::{ConnectionId, NodeId, Violation};
use crate::model::{Instant, Now};

/// Unserved input of a connection beyond which no more is wanted, except the rest of a frame.
const INPUT_WANTED_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Connection {
    node: NodeId,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    waiting: Waiting,
}

/// What a connection waits for before it serves its next request.
#[derive(Debug)]
enum Waiting {
    Nothing,
    /// A Fetch that waits for records or for its deadline.
    Poll {
        poll: Box<Poll>,
        correlation: i32,
    },
    /// A JoinGroup or SyncGroup that waits for other members. The group has the deadline.
    Group {
        wait: GroupWait,
        correlation: i32,
    },
    /// The end of a throttle.
    Muted {
        until: Instant,
    },
    /// The time to send a response.
    Late {
        bytes: Vec<u8>,
        until: Instant,
    },
}

impl Connection {
    fn deadline(&self) -> Option<Instant> {
        match &self.waiting {
            Waiting::Nothing | Waiting::Group { .. } => None,
            Waiting::Poll { poll, .. } => Some(poll.deadline()),
            Waiting::Muted { until } | Waiting::Late { until, .. } => Some(*until),
        }
    }

    fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// The length of the frame that the input begins with, without its length field.
    fn frame_length(&self) -> Option<i32> {
        self.input.first_chunk().map(|len| i32::from_be_bytes(*len))
    }
}

/// All connections of all nodes.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: BTreeMap<ConnectionId, Connection>,
    /// Contains an entry for each waiting connection, except at frozen nodes.
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    polls: BTreeSet<ConnectionId>,
    writable: BTreeSet<ConnectionId>,
    cut: VecDeque<ConnectionId>,
    ids: u64,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn open(&mut self, node: NodeId) -> ConnectionId {
        let id = ConnectionId(self.ids);
        self.ids += 1;
        let connection = Connection {
            node,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            waiting: Waiting::Nothing,
        };
        self.by_id.insert(id, connection);
        id
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        self.stop_waiting(id);
        self.by_id.remove(&id);
        self.writable.remove(&id);
        self.cut.retain(|cut| *cut != id);
    }

    /// Closes a connection from the broker's side. [`Self::next_cut`] reports it to the driver.
    pub(super) fn cut(&mut self, id: ConnectionId) {
        if self.by_id.contains_key(&id) {
            self.close(id);
            self.cut.push_back(id);
        }
    }

    pub(super) fn of_node(&self, node: NodeId) -> Vec<ConnectionId> {
        let of_node = self.by_id.iter().filter(|(_, c)| c.node == node);
        of_node.map(|(id, _)| *id).collect()
    }

    pub(super) fn next_cut(&mut self) -> Option<ConnectionId> {
        self.cut.pop_front()
    }

    pub(super) fn next_writable(&mut self, cluster: &Cluster) -> Option<ConnectionId> {
        let thawed = |id: &&ConnectionId| {
            let connection = self.by_id.get(id);
            connection.is_some_and(|c| !cluster.nodes.is_frozen(c.node))
        };
        let id = *self.writable.iter().find(thawed)?;
        self.writable.remove(&id);
        Some(id)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn outgoing(&self, id: ConnectionId, cluster: &Cluster) -> &[u8] {
        match self.by_id.get(&id) {
            Some(c) if !cluster.nodes.is_frozen(c.node) => &c.output[c.written..],
            _ => &[],
        }
    }

    /// Drops `n` bytes that were written.
    pub(super) fn on_written(&mut self, id: ConnectionId, n: usize) {
        let Some(connection) = self.by_id.get_mut(&id) else {
            return;
        };
        connection.written = (connection.written + n).min(connection.output.len());
        if connection.written == connection.output.len() {
            connection.output.clear();
            connection.written = 0;
            // Free the buffer of a large response.
            connection.output.shrink_to(INPUT_WANTED_BYTES);
        }
    }

    pub(super) fn wants_bytes(&self, id: ConnectionId, cluster: &Cluster) -> bool {
        let Some(connection) = self.by_id.get(&id) else {
            return false;
        };
        let whole = connection.frame_length().map_or(0, |len| {
            let len = usize::try_from(len).unwrap_or(0);
            len.min(cluster.settings.frame_bytes_max) + 4
        });
        connection.input.len() < whole.max(INPUT_WANTED_BYTES)
    }

    pub(super) fn push(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        cluster: &Cluster,
    ) -> Result<(), Violation> {
        let connection = self.by_id.get_mut(&id).ok_or(Violation::Gone)?;
        let max = cluster.settings.frame_bytes_max.saturating_mul(2) + INPUT_WANTED_BYTES;
        if connection.input.len() + bytes.len() > max {
            return Err(Violation::Flood);
        }
        connection.input.extend_from_slice(bytes);
        Ok(())
    }

    /// Serves a connection's requests until it has to wait.
    pub(super) fn advance(
        &mut self,
        id: ConnectionId,
        cluster: &mut Cluster,
        now: Now,
    ) -> Result<(), Violation> {
        let frame_bytes_max = cluster.settings.frame_bytes_max;
        loop {
            let Some(connection) = self.by_id.get_mut(&id) else {
                return Ok(());
            };
            let busy = !matches!(connection.waiting, Waiting::Nothing)
                || cluster.nodes.is_frozen(connection.node)
                || connection.unwritten() >= frame_bytes_max;
            let Some(announced) = connection.frame_length().filter(|_| !busy) else {
                return Ok(());
            };
            let len = usize::try_from(announced).unwrap_or(usize::MAX);
            if len > frame_bytes_max {
                return Err(Violation::FrameLength(announced));
            }
            if connection.input.len() < 4 + len {
                return Ok(());
            }
            let mut frame = connection.input.split_to(4 + len).freeze();
            let frame = frame.split_off(4);
            let answer = apis::serve(cluster, connection.node, frame, now)?;
            self.on_answer(id, answer, cluster, now);
        }
    }

    fn on_answer(&mut self, id: ConnectionId, answer: Answer, cluster: &mut Cluster, now: Now) {
        match answer {
            Answer::Silence => {}
            Answer::Cut => self.cut(id),
            Answer::Frame { bytes, mute_ms } => {
                self.send(id, &bytes);
                if mute_ms > 0 {
                    let until = now.mono.after(Duration::from_millis(u64::from(mute_ms)));
                    self.wait(id, Waiting::Muted { until });
                }
            }
            Answer::Late { bytes, after_ms } => {
                let until = now.mono.after(Duration::from_millis(u64::from(after_ms)));
                self.wait(id, Waiting::Late { bytes, until });
            }
            Answer::Poll { poll, correlation } => {
                self.wait(id, Waiting::Poll { poll, correlation });
                self.try_poll(id, cluster, now);
            }
            Answer::Group { wait, correlation } => {
                self.wait(id, Waiting::Group { wait, correlation });
                self.try_poll(id, cluster, now);
            }
        }
    }

    fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.output.extend_from_slice(bytes);
            self.writable.insert(id);
        }
    }

    fn wait(&mut self, id: ConnectionId, waiting: Waiting) {
        self.stop_waiting(id);
        if let Some(connection) = self.by_id.get_mut(&id) {
            if matches!(waiting, Waiting::Poll { .. } | Waiting::Group { .. }) {
                self.polls.insert(id);
            }
            connection.waiting = waiting;
            if let Some(deadline) = connection.deadline() {
                self.deadlines.insert((deadline, id));
            }
        }
    }

    fn stop_waiting(&mut self, id: ConnectionId) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            if let Some(deadline) = connection.deadline() {
                self.deadlines.remove(&(deadline, id));
            }
            connection.waiting = Waiting::Nothing;
            self.polls.remove(&id);
        }
    }

    /// Answers a request that waits, if it can be answered. Returns whether it was.
    fn try_poll(&mut self, id: ConnectionId, cluster: &mut Cluster, now: Now) -> bool {
        let Some(connection) = self.by_id.get(&id) else {
            return false;
        };
        if cluster.nodes.is_frozen(connection.node) {
            return false;
        }
        let bytes = match &connection.waiting {
            Waiting::Poll { poll, correlation } => {
                let response = cluster.fetch().try_poll(poll, now);
                response.map(|it| apis::frame(ApiKey::Fetch, poll.version, *correlation, &it))
            }
            Waiting::Group { wait, correlation } => {
                let (version, correlation) = (wait.version(), *correlation);
                wait.try_answer(&cluster.groups).map(|it| match it {
                    GroupResponse::Join(it) => {
                        apis::frame(ApiKey::JoinGroup, version, correlation, &it)
                    }
                    GroupResponse::Sync(it) => {
                        apis::frame(ApiKey::SyncGroup, version, correlation, &it)
                    }
                })
            }
            Waiting::Nothing | Waiting::Muted { .. } | Waiting::Late { .. } => None,
        };
        let Some(bytes) = bytes else {
            return false;
        };
        self.stop_waiting(id);
        self.send(id, &bytes);
        true
    }

    /// Tries all polls after the cluster changed, and serves the requests behind those that were
    /// answered, until nothing changes any more.
    pub(super) fn wake(&mut self, cluster: &mut Cluster, now: Now) {
        while cluster.take_changed() {
            let polls: Vec<_> = self.polls.iter().copied().collect();
            for id in polls {
                if self.try_poll(id, cluster, now) {
                    self.advance_or_cut(id, cluster, now);
                }
            }
        }
    }

    /// Answers long polls that have timed out, sends delayed responses, and ends throttles that are
    /// over.
    pub(super) fn on_time(&mut self, cluster: &mut Cluster, now: Now) {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now.mono);
        let due: Vec<_> = due.copied().collect();
        for (deadline, id) in due {
            let node = self.by_id.get(&id).map(|c| c.node);
            if node.is_some_and(|node| cluster.nodes.is_frozen(node)) {
                self.deadlines.remove(&(deadline, id)); // `on_thaw` inserts it again.
                continue;
            }
            if !self.try_poll(id, cluster, now) {
                let late = self
                    .by_id
                    .get_mut(&id)
                    .and_then(|it| match &mut it.waiting {
                        Waiting::Late { bytes, .. } => Some(std::mem::take(bytes)),
                        _ => None,
                    });
                self.stop_waiting(id);
                if let Some(bytes) = late {
                    self.send(id, &bytes);
                }
            }
            self.advance_or_cut(id, cluster, now);
        }
    }

    /// Answers what waited at a node that is no longer frozen.
    pub(super) fn on_thaw(&mut self, node: NodeId, cluster: &mut Cluster, now: Now) {
        for id in self.of_node(node) {
            let deadline = self.by_id.get(&id).and_then(Connection::deadline);
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, id));
            }
            self.try_poll(id, cluster, now);
            self.advance_or_cut(id, cluster, now);
        }
    }

    /// As [`Self::advance`], but cuts the connection at a violation: no caller can close it.
    pub(super) fn advance_or_cut(&mut self, id: ConnectionId, cluster: &mut Cluster, now: Now) {
        if self.advance(id, cluster, now).is_err() {
            self.cut(id);
        }
    }
}
