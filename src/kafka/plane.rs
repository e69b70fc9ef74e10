//! The one face of the room.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;

use super::error::ProduceRefused;
use super::event::{Event, Isolation, LinkId, ReadKey, StartAt, TopicHandle};
use super::settings::{Address, Settings};
use super::view::ClusterView;
use crate::model::{Instant, Now, Partition, TopicName, UnixMillis};

/// Who asks the cluster for its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryRole {
    /// This plane, for all planes of the process: it must `watch` every topic any of them uses,
    /// and its `Event::View` must reach their `on_view`.
    Own,
    /// Another plane: views come by `on_view`.
    Fed,
}

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRecord {
    /// `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order; repeats are kept. Names are UTF-8 by Kafka's rule.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The record's time; the topic's `message.timestamp.type` may replace it.
    pub timestamp: UnixMillis,
}

/// The data plane of one shard for one cluster.
#[derive(Debug)]
pub struct Plane {}

impl Plane {
    /// A plane that has not connected yet. Its jitter comes from `seed` alone.
    #[must_use]
    pub fn new(_settings: Settings, _seed: u64, _role: DirectoryRole, _now: Now) -> Self {
        Self {}
    }
    /// Takes an interest in a topic: looked up now and again, `Event::Topic` or `Event::Missing`
    /// tells. The same name gives the same handle.
    pub fn watch(&mut self, _topic: &TopicName) -> TopicHandle {
        TopicHandle(0)
    }
    /// Begins to read a partition, for ever until `stop`. It need not exist yet. A read of the same
    /// key that goes on already is replaced.
    pub fn read(&mut self, _read: ReadKey, _from: StartAt) {}
    /// Ends a read: nothing more comes from it.
    pub fn stop(&mut self, _read: ReadKey) {}
    /// Leaves a read out of the next Fetch. What is on its way still comes.
    pub fn pause(&mut self, _read: ReadKey) {}
    /// Goes on with a paused read.
    pub fn resume(&mut self, _read: ReadKey) {}
    /// Takes a record to append; `Event::Produced` tells what became of it.
    ///
    /// # Errors
    /// Nothing was taken, no event follows.
    pub fn produce(
        &mut self,
        _topic: TopicHandle,
        _partition: Partition,
        _record: ProduceRecord,
        _ticket: u64,
        _now: Now,
    ) -> Result<(), ProduceRefused> {
        Err(ProduceRefused::Full)
    }
    /// Asks the leaders for the ends of all partitions: one question sent after this call, answered
    /// by `Event::Ends` or `Event::EndsFailed`.
    pub fn ends(&mut self, _topic: TopicHandle, _isolation: Isolation, _ticket: u64, _now: Now) {}
    /// A newer view, from the plane with the directory.
    pub fn on_view(&mut self, _view: Arc<ClusterView>, _now: Now) {}
    /// Asks for metadata soon (rate-limited): a fed plane met a stale view. Only where the
    /// directory is.
    pub fn refresh(&mut self) {}
    /// A connection to make. Answered by `on_opened` or `on_open_failed`.
    pub fn next_open(&mut self) -> Option<(LinkId, Address)> {
        None
    }
    /// A connection to close (or to stop making). Its id is dead now.
    pub fn next_close(&mut self) -> Option<LinkId> {
        None
    }
    /// The connection stands.
    pub fn on_opened(&mut self, _link: LinkId, _now: Now) {}
    /// The connection could not be made. Nothing is left to close.
    pub fn on_open_failed(&mut self, _link: LinkId, _error: ErrorKind, _now: Now) {}
    /// Bytes came. Copied: the driver may reuse its buffer.
    pub fn on_bytes(&mut self, _link: LinkId, _bytes: &[u8], _now: Now) {}
    /// The connection ended, by the broker or by failure. The driver closes the socket by itself.
    pub fn on_closed(&mut self, _link: LinkId, _now: Now) {}
    /// A connection with bytes to write that has not been offered since they came. The driver
    /// writes what the socket takes and remembers the link itself until its socket is writable
    /// again, if `outgoing` is not empty then.
    pub fn next_writable(&mut self) -> Option<LinkId> {
        None
    }
    /// What is to be written to a link: empty if nothing, or if the link is dead.
    #[must_use]
    pub fn outgoing(&self, _link: LinkId) -> &[u8] {
        &[]
    }
    /// So many bytes of `outgoing` were taken by the socket.
    pub fn on_written(&mut self, _link: LinkId, _bytes: usize) {}
    /// Does all that is due: timeouts, retries, new requests. Once a turn, after what happened was
    /// told; records produced in one turn share a batch.
    pub fn on_time(&mut self, _now: Now) {}
    /// When `on_time` next has work, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
    /// The next thing to tell, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        None
    }
}
