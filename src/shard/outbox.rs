//! What the parts of a shard send during a turn, by receiver. Messages to the shard itself are
//! handled within the turn; the others leave with it.

use std::collections::VecDeque;

use crate::model::{ExchangeId, ShardId};

use super::io::Outputs;
use super::message::{
    ControlMessage, EdgeMessage, HomeMessage, Level, Message, Note, ProjectionMessage,
};
use super::snapshot::TopicId;

/// Messages of one turn. Between two shards they keep their order. The driver bounds what waits
/// for a full inbox.
#[derive(Debug)]
pub(super) struct Outbox {
    me: ShardId,
    own: VecDeque<Message>,
    others: Vec<(ShardId, Message)>,
    control: Vec<ControlMessage>,
}

impl Outbox {
    pub(super) const fn new(me: ShardId) -> Self {
        Self {
            me,
            own: VecDeque::new(),
            others: Vec::new(),
            control: Vec::new(),
        }
    }

    /// To a shard's home side.
    pub(super) fn to_home(&mut self, home: ShardId, message: HomeMessage) {
        self.send(home, Message::Home(message));
    }

    /// To a shard's projection of a topic.
    pub(super) fn to_projection(
        &mut self,
        shard: ShardId,
        topic: TopicId,
        message: ProjectionMessage,
    ) {
        self.send(shard, Message::Projection(topic, message));
    }

    /// To the shard of an exchange.
    pub(super) fn to_edge(&mut self, exchange: ExchangeId, message: EdgeMessage) {
        self.send(exchange.shard, Message::Edge(exchange, message));
    }

    pub(super) fn to_control(&mut self, message: ControlMessage) {
        self.control.push(message);
    }

    /// A line for the operator.
    pub(super) fn note(&mut self, level: Level, text: String) {
        self.to_control(ControlMessage::Note(Note { level, text }));
    }

    fn send(&mut self, to: ShardId, message: Message) {
        if to == self.me {
            self.own.push_back(message);
        } else {
            self.others.push((to, message));
        }
    }

    /// The next message from this shard to itself.
    pub(super) fn next_own(&mut self) -> Option<Message> {
        self.own.pop_front()
    }

    /// Moves what leaves the shard to the turn's outputs.
    pub(super) fn leave(&mut self, outputs: &mut Outputs<Message, ControlMessage>) {
        outputs.messages.append(&mut self.others);
        outputs.control.append(&mut self.control);
    }
}

#[cfg(test)]
impl Outbox {
    /// Takes every message to a shard: first those to itself, then those to others.
    pub(super) fn drain(&mut self) -> Vec<(ShardId, Message)> {
        let own = self.own.drain(..).map(|message| (self.me, message));
        own.chain(self.others.drain(..)).collect()
    }

    /// Takes the log lines.
    pub(super) fn drain_notes(&mut self) -> Vec<String> {
        let text = |message| match message {
            ControlMessage::Note(note) => Some(note.text),
            _ => None,
        };
        self.control.drain(..).filter_map(text).collect()
    }
}
