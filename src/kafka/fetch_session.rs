//! What a Fetch names. In a fetch session (KIP-227) a broker remembers the partitions that it was
//! asked for. The first request and its response name all of them, and later ones only what has
//! changed.
//!
//! Each lane has one session per broker, which outlives a connection. A partition stays in it while
//! it is due. A partition that is paused, waits after a failure or is read elsewhere is taken out,
//! because the broker would respond for it at once, again and again. The last bounds of each
//! partition are kept, since a response that does not name it means that they have not changed.
//!
//! Of live topics, a read that a response does not name stays in flight: the broker remembers it,
//! so the next request asks for it too. Requests and responses then cost as much as what they name,
//! with a thousand idle partitions as with none. A response also confirms all reads that it does
//! not name, which the session notes once ([`FetchSessions::confirmed`]). Whatever concerns a read
//! that is kept so lets all of the session's reads go ([`FetchSessions::regroup`]), and the next
//! request compares all of them with what the broker remembers.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{self, FetchRequest};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Code;
use super::bounds::Bounds;
use super::context::epoch_on_wire;
use super::due::DueRead;
use super::event::{Lane, LinkId, ReadKey, TopicHandle};
use super::topics::Topics;
use super::view::{BrokerId, ClusterView};
use crate::model::{Instant, Partition, index_of};

/// The first version of Fetch with sessions.
const SESSIONS_FROM: i16 = 7;
/// The first version of Fetch that names topics by id.
const IDS_FROM: i16 = 13;
/// The epoch that begins a session.
const BEGIN: i32 = 0;

/// A Fetch that is to be sent to one broker, for the reads of one lane.
#[derive(Clone, Copy)]
pub(super) struct FetchPlan<'a> {
    pub(super) lane: Lane,
    pub(super) node: BrokerId,
    /// The reads that are due, sorted by partition.
    pub(super) group: &'a [DueRead],
    /// Its number among the client's Fetch requests. It decides with which partition a request
    /// that names all of them begins.
    pub(super) number: u64,
    pub(super) link: LinkId,
    /// The newest version that the broker knows.
    pub(super) newest: i16,
}

impl FetchPlan<'_> {
    /// The group, rotated by the request's number.
    fn rotated(&self) -> impl Iterator<Item = &DueRead> {
        let first = index_of(self.number % self.group.len().max(1) as u64);
        let (tail, head) = self.group.split_at(first);
        head.iter().chain(tail)
    }
}

/// A response that changed nothing for the reads that it did not name.
#[derive(Clone, Copy, Debug)]
struct Confirmation {
    /// The number of its request.
    fetch: u64,
    at: Instant,
}

/// The topics and brokers that a Fetch request names.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) topics: &'a Topics,
    pub(super) view: &'a ClusterView,
}

#[derive(Debug, Default)]
pub(super) struct FetchSessions {
    all: Vec<FetchSession>,
    /// Scratch for the next state of a session.
    spare: Vec<SessionEntry>,
}

#[derive(Debug)]
struct FetchSession {
    lane: Lane,
    node: BrokerId,
    /// The link of its last request.
    link: LinkId,
    /// 0 if the broker has given none.
    id: i32,
    /// The epoch of the request in flight, or of the next one.
    epoch: i32,
    /// Whether the session names topics by id. That can't change within a session
    /// (FETCH_SESSION_TOPIC_ID_ERROR).
    by_id: bool,
    /// The partitions that the broker remembers, sorted.
    entries: Vec<SessionEntry>,
    /// Whether a request is in flight.
    asked: bool,
    /// The number of the last request.
    fetch: u64,
    /// Whether reads that no response names stay in flight.
    keeps: bool,
    /// Whether all reads must be let go.
    regroup: bool,
    /// The reads of the last request, which the response may not name.
    fresh: Vec<ReadKey>,
    /// Partitions of reads that have left the session. The next request names them or takes them
    /// out.
    released: Vec<(TopicHandle, Partition)>,
    /// The last response that confirmed the kept reads.
    confirmed: Option<Confirmation>,
}

/// A partition as the broker remembers it.
#[derive(Clone, Copy, Debug)]
struct SessionEntry {
    due: DueRead,
    id: Uuid,
    /// The bounds that it reported last. `None`: none yet, or an error.
    told: Option<Bounds>,
}

/// Which partitions a Fetch response reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// Every partition that was asked for.
    All,
    /// The partitions that have changed.
    News,
    /// Only that the session is over. Another begins with the next request.
    Over,
}

impl FetchSessions {
    /// The request for a plan, in a version that the broker knows. If the session keeps reads, they
    /// are asked for as well; otherwise the group is all that is asked for. Without `wanted` no
    /// session is used. `None`: the kept reads must be let go first.
    pub(super) fn ask(
        &mut self,
        plan: FetchPlan<'_>,
        known: Known<'_>,
        wanted: bool,
    ) -> Option<(i16, FetchRequest)> {
        let Known { topics, view } = known;
        let FetchPlan {
            lane,
            node,
            group,
            link,
            newest,
            ..
        } = plan;
        let names = Names::of(group, topics);
        let ids = newest >= IDS_FROM && names.all_have_ids();
        let of = |it: &FetchSession| (it.lane, it.node) == (lane, node);
        let session = self.all.iter().position(of);
        let kept = session.map(|at| &mut self.all[at]).filter(|it| it.keeps);
        // A session that keeps reads goes on as it is, or not at all.
        let by_id = match kept {
            None => ids,
            Some(session) => {
                let by_id = session.by_id && (ids || group.is_empty());
                if session.link != link || session.epoch == BEGIN || by_id != session.by_id {
                    session.regroup = true;
                    return None;
                }
                by_id
            }
        };
        let version = if by_id {
            newest
        } else {
            newest.min(IDS_FROM - 1)
        };
        let names = Names { by_id, ..names };
        let request = FetchRequest::default();
        if !wanted || version < SESSIONS_FROM {
            return Some((version, request.with_topics(names.topics(plan.rotated()))));
        }
        let at = session.unwrap_or_else(|| {
            self.all.retain(|it| view.address(it.node).is_some());
            self.all.push(FetchSession::new(lane, node, link));
            self.all.len() - 1
        });
        let session = &mut self.all[at];
        session.link = link;
        if session.by_id != by_id {
            session.epoch = BEGIN;
        }
        let begins = session.epoch == BEGIN;
        if begins {
            session.by_id = by_id;
            session.entries.clear();
        }
        (session.asked, session.fetch) = (true, plan.number);
        session.fresh.clear();
        session.fresh.extend(group.iter().map(|due| due.key));
        let (changed, gone) = if session.keeps {
            session.update(group, &names)
        } else {
            session.merge(group, &names, &mut self.spare)
        };
        session.released.clear();
        let request = request
            .with_session_id(session.id)
            .with_session_epoch(session.epoch);
        let request = if begins {
            request.with_topics(names.topics(plan.rotated()))
        } else {
            request
                .with_topics(names.topics(changed.iter()))
                .with_forgotten_topics_data(forgotten(&gone, topics, by_id))
        };
        Some((version, request))
    }

    /// The header of a response. An error of the session itself concerns no partition.
    pub(super) fn on_answer(&mut self, link: LinkId, id: i32, code: Code) -> Tells {
        // FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, INCONSISTENT_TOPIC_ID,
        // FETCH_SESSION_TOPIC_ID_ERROR.
        const NOT_FOUND: i16 = 70;
        let of_session = matches!(code.0, NOT_FOUND | 71 | 103 | 106);
        let Some(session) = self.of(link) else {
            return Tells::All;
        };
        session.asked = false;
        let begun = session.epoch == BEGIN;
        if code.0 != 0 || !begun && id != session.id {
            session.start_over();
            if code.0 == NOT_FOUND {
                session.id = 0;
            }
            return if of_session && !begun {
                Tells::Over
            } else {
                Tells::All
            };
        }
        session.id = id;
        session.epoch = match (id, session.epoch) {
            (0, _) => BEGIN, // The broker has no room for another session now.
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
        if begun { Tells::All } else { Tells::News }
    }

    /// A response reports these bounds of a partition. `None`: an error.
    pub(super) fn on_told(
        &mut self,
        link: LinkId,
        partition: (TopicHandle, Partition),
        told: Option<Bounds>,
    ) {
        if let Some(session) = self.of(link) {
            session.released.push(partition);
            if let Some(entry) = session.entry(partition) {
                entry.told = told;
            }
        }
    }

    /// The read of a partition that a response does not name is not in flight any more.
    pub(super) fn release(&mut self, link: LinkId, partition: (TopicHandle, Partition)) {
        if let Some(session) = self.of(link) {
            session.released.push(partition);
        }
    }

    /// A response reports changes, and its session may keep the reads that it does not name.
    /// Returns the reads of the last request, which are kept from now on unless the caller releases
    /// them. `None`: it keeps none.
    pub(super) fn keep(&mut self, link: LinkId, now: Instant) -> Option<Vec<ReadKey>> {
        let session = self.of(link)?;
        // Other lanes stop and pause reads all the time, and are not asked for long.
        let live = matches!(session.lane, Lane::Replies | Lane::Streams);
        if session.regroup || !live {
            return None;
        }
        session.keeps = true;
        session.confirmed = Some(Confirmation {
            fetch: session.fetch,
            at: now,
        });
        Some(std::mem::take(&mut session.fresh))
    }

    /// When a broker last confirmed the reads that the link's session keeps, for a read that was
    /// last asked for in Fetch number `asked_in`. Later requests ask for it without naming it.
    pub(super) fn confirmed(&self, link: LinkId, asked_in: u64) -> Option<Instant> {
        let session = self.all.iter().find(|session| session.link == link)?;
        let confirmed = session.confirmed.filter(|it| asked_in <= it.fetch)?;
        Some(confirmed.at)
    }

    /// Something concerns reads of a lane that may be kept. `None`: of any lane.
    pub(super) fn regroup(&mut self, lane: Option<Lane>) {
        let concerned = |it: &&mut FetchSession| lane.is_none_or(|lane| it.lane == lane);
        for session in self.all.iter_mut().filter(concerned) {
            session.regroup = true;
        }
    }

    /// The link of a session that must let its reads go, unless it waits for a response.
    pub(super) fn next_to_let_go(&self) -> Option<LinkId> {
        let lets_go = |it: &&FetchSession| it.regroup && !it.asked;
        self.all.iter().find(lets_go).map(|session| session.link)
    }

    /// No read is in flight on the link any more.
    pub(super) fn on_let_go(&mut self, link: LinkId) {
        if let Some(session) = self.of(link) {
            (session.keeps, session.regroup) = (false, false);
        }
    }

    /// Brokers that are to be asked though no read is due: they are asked for kept reads.
    pub(super) fn kept(&self) -> impl Iterator<Item = (Lane, BrokerId)> {
        let keeping =
            |it: &&FetchSession| it.keeps && !it.asked && it.entries.len() > it.released.len();
        self.all.iter().filter(keeping).map(|it| (it.lane, it.node))
    }

    /// The last bounds of a partition that a response does not name.
    pub(super) fn told(
        &mut self,
        link: LinkId,
        partition: (TopicHandle, Partition),
    ) -> Option<Bounds> {
        self.of(link)?.entry(partition)?.told
    }

    /// A request or a response was lost, so the state of the session is unknown.
    pub(super) fn on_lost(&mut self, link: LinkId) {
        if let Some(session) = self.of(link) {
            session.start_over();
        }
    }

    fn of(&mut self, link: LinkId) -> Option<&mut FetchSession> {
        self.all.iter_mut().find(|session| session.link == link)
    }
}

impl FetchSession {
    const fn new(lane: Lane, node: BrokerId, link: LinkId) -> Self {
        Self {
            lane,
            node,
            link,
            id: 0,
            epoch: BEGIN,
            by_id: false,
            entries: Vec::new(),
            asked: false,
            fetch: 0,
            keeps: false,
            regroup: false,
            fresh: Vec::new(),
            released: Vec::new(),
            confirmed: None,
        }
    }

    /// The next request begins another session, and ends this one by naming it. The bounds of this
    /// one are kept until then, since the rest of the response may depend on them.
    fn start_over(&mut self) {
        (self.epoch, self.asked, self.keeps) = (BEGIN, false, false);
    }

    fn entry(&mut self, partition: (TopicHandle, Partition)) -> Option<&mut SessionEntry> {
        let found = self.find(partition);
        found.ok().map(|at| &mut self.entries[at])
    }

    /// Adds `group` to the partitions that the broker remembers, and takes out those that were
    /// released and are not in it. Returns both, as [`Self::merge`] does.
    fn update(&mut self, group: &[DueRead], names: &Names) -> (Vec<DueRead>, Vec<SessionEntry>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for &due in group {
            let (id, told) = (names.id(due.key.topic), None);
            let entry = SessionEntry { due, id, told };
            match self.find(due.partition()) {
                Ok(at) if self.entries[at].id == id => {
                    if !self.entries[at].due.asks_the_same(&due) {
                        changed.push(due);
                    }
                    self.entries[at].due = due;
                }
                Ok(at) => {
                    gone.push(std::mem::replace(&mut self.entries[at], entry));
                    changed.push(due);
                }
                Err(at) => {
                    self.entries.insert(at, entry);
                    changed.push(due);
                }
            }
        }
        for partition in std::mem::take(&mut self.released) {
            let due = group.binary_search_by_key(&partition, DueRead::partition);
            if let (Err(_), Ok(at)) = (due, self.find(partition)) {
                gone.push(self.entries.remove(at));
            }
        }
        gone.sort_unstable_by_key(|entry| entry.due.partition());
        (changed, gone)
    }

    fn find(&self, partition: (TopicHandle, Partition)) -> Result<usize, usize> {
        let of = |entry: &SessionEntry| entry.due.partition();
        self.entries.binary_search_by_key(&partition, of)
    }

    /// Makes `group` the partitions that the broker remembers. Returns those that are new or
    /// changed, and those to take out.
    fn merge(
        &mut self,
        group: &[DueRead],
        names: &Names,
        spare: &mut Vec<SessionEntry>,
    ) -> (Vec<DueRead>, Vec<SessionEntry>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut next = std::mem::take(spare);
        let mut known = self.entries.drain(..).peekable();
        for &due in group {
            gone.extend(std::iter::from_fn(|| {
                known.next_if(|it| it.due.partition() < due.partition())
            }));
            let id = names.id(due.key.topic);
            let same = known.next_if(|it| it.due.partition() == due.partition());
            let told = match same {
                Some(entry) if entry.id == id => {
                    if !entry.due.asks_the_same(&due) {
                        changed.push(due);
                    }
                    entry.told
                }
                other => {
                    gone.extend(other); // The topic was re-created.
                    changed.push(due);
                    None
                }
            };
            next.push(SessionEntry { due, id, told });
        }
        gone.extend(known);
        *spare = std::mem::replace(&mut self.entries, next);
        (changed, gone)
    }
}

/// The names of the topics in a request.
struct Names {
    /// Sorted by handle, for a binary search.
    topics: Vec<(TopicHandle, StrBytes, Uuid)>,
    by_id: bool,
}

impl Names {
    fn of(group: &[DueRead], topics: &Topics) -> Self {
        let of_topics = group.chunk_by(|a, b| a.key.topic == b.key.topic);
        let name = |of_topic: &[DueRead]| {
            let topic = of_topic[0].key.topic;
            let (name, id) = topics.on_wire(topic);
            (topic, name, id)
        };
        Self {
            topics: of_topics.map(name).collect(),
            by_id: false,
        }
    }

    fn all_have_ids(&self) -> bool {
        self.topics.iter().all(|(_, _, id)| !id.is_nil())
    }

    fn get(&self, topic: TopicHandle) -> &(TopicHandle, StrBytes, Uuid) {
        let at = self.topics.binary_search_by_key(&topic, |it| it.0);
        &self.topics[at.expect("made of the same group")]
    }

    fn id(&self, topic: TopicHandle) -> Uuid {
        if self.by_id {
            self.get(topic).2
        } else {
            Uuid::nil()
        }
    }

    fn topics<'a>(&self, partitions: impl Iterator<Item = &'a DueRead>) -> Vec<FetchTopic> {
        let mut wanted: Vec<FetchTopic> = Vec::new();
        let mut last = None;
        for due in partitions {
            if last != Some(due.key.topic) {
                last = Some(due.key.topic);
                let (_, name, id) = self.get(due.key.topic);
                let topic = FetchTopic::default();
                wanted.push(if self.by_id {
                    topic.with_topic_id(*id)
                } else {
                    topic.with_topic(messages::TopicName(name.clone()))
                });
            }
            let topic = wanted.last_mut().expect("pushed above");
            topic.partitions.push(partition(due));
        }
        wanted
    }
}

fn partition(due: &DueRead) -> FetchPartition {
    FetchPartition::default()
        .with_partition(due.key.partition.0 as i32)
        .with_current_leader_epoch(epoch_on_wire(due.leader_epoch))
        .with_fetch_offset(due.next.offset.0 as i64)
        .with_partition_max_bytes(due.bytes_max as i32)
}

fn forgotten(gone: &[SessionEntry], topics: &Topics, by_id: bool) -> Vec<ForgottenTopic> {
    let same =
        |a: &SessionEntry, b: &SessionEntry| (a.due.key.topic, a.id) == (b.due.key.topic, b.id);
    let of_topics = gone.chunk_by(same);
    let forget = |of_topic: &[SessionEntry]| {
        let topic = ForgottenTopic::default();
        let topic = if by_id {
            topic.with_topic_id(of_topic[0].id)
        } else {
            let (name, _) = topics.on_wire(of_topic[0].due.key.topic);
            topic.with_topic(messages::TopicName(name))
        };
        let numbers = of_topic.iter().map(|it| it.due.key.partition.0 as i32);
        topic.with_partitions(numbers.collect())
    };
    of_topics.map(forget).collect()
}
