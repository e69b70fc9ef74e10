//! One shard as a pure struct: `turn(now, inputs, io) → outputs`. The struct holds no socket,
//! clock, thread or runtime. The reactor drives it with real ones, the fleet with byte pipes and a
//! seed. The same seed gives the same history.
//!
//! A shard has three sides. Its *home* does all Kafka work of some topics and orders their records.
//! Its *projections* apply the steps of every topic, keep a range of the keys and feed the streams.
//! Its *edge* serves clients. One side asks another, on this shard or on another one, with a
//! [`Message`]. A message to the shard itself is handled in the same turn.

mod active;
mod ciphertext;
mod client_limits;
mod deferred;
mod difference;
mod edge;
mod gcra;
mod guard;
mod home;
mod io;
mod labels;
mod limits;
mod message;
mod outbox;
mod page_memory;
mod projection;
mod projections;
mod random;
mod registry;
mod report;
mod serving;
mod setup;
mod snapshot;
mod timers;
mod topic_feed;
mod topic_plan;
mod totals;
mod wait_queue;
mod work_limits;

use crate::model::{Now, ShardId};

pub use guard::is_guarded;
pub use io::{
    Inputs, Io, ListenerId, Open, OpenTicket, Outputs, Part, Read, Remote, SocketEvent, SocketId,
    Turn, Write,
};
pub use message::{
    Answer, ChangesRequest, ClusterMessage, CommandRequest, ControlMessage, EdgeMessage,
    FeedMessage, Found, HistoryMessage, HomeMessage, Incarnation, Level, Message, Note,
    ProjectionMessage, ShardMessage, Standing, TopicMessage,
};
pub use random::RandomKey;
pub use registry::{NumbersExhausted, Registry};
pub use setup::{ClusterSecurity, ListenerKind, ShardSetup};
pub use snapshot::{ClusterId, CommandPlan, Layout, QueryPlan, Snapshot, StreamPlan, TopicId};
pub use topic_plan::TopicPlan;
pub use totals::ClientTotals;
pub use work_limits::WorkLimits;

use serving::{Serving, TurnContext};

/// One shard. Driven by [`Turn::turn`].
#[derive(Debug)]
pub struct Shard(State);

#[derive(Debug)]
enum State {
    /// No snapshot is loaded yet, so nothing is served.
    Unloaded(Box<Unloaded>),
    Serving(Box<Serving>),
}

/// A shard before its first snapshot.
#[derive(Debug)]
struct Unloaded {
    setup: ShardSetup,
    /// Messages of other shards, which may have their snapshot earlier. Bounded by what a home may
    /// have in flight until all shards report what they applied.
    early: Vec<(ShardId, Message)>,
}

impl Shard {
    /// A shard that waits for its first snapshot.
    #[must_use]
    pub fn new(setup: ShardSetup) -> Self {
        let early = Vec::new();
        Self(State::Unloaded(Box::new(Unloaded { setup, early })))
    }

    /// Handles one message, and the messages that the shard sends itself because of it.
    fn on_message<I: Io>(&mut self, from: ShardId, message: Message, cx: &mut TurnContext<'_, I>) {
        match &mut self.0 {
            State::Serving(serving) => serving.on_message(from, message, cx),
            State::Unloaded(unloaded) => match message {
                Message::Shard(ShardMessage::Load(snapshot)) => {
                    let early = std::mem::take(&mut unloaded.early);
                    let serving = Serving::new(&mut unloaded.setup, snapshot, cx.now);
                    self.0 = State::Serving(Box::new(serving));
                    for (from, message) in early {
                        self.on_message(from, message, cx);
                    }
                }
                Message::Shard(ShardMessage::Ask(number)) => {
                    let report = ControlMessage::Report(number, Box::default());
                    cx.outputs.control.push(report);
                }
                Message::Shard(ShardMessage::Stop) => cx.outputs.ended = true,
                Message::Shard(
                    ShardMessage::Tls(_) | ShardMessage::Leave | ShardMessage::Drain { .. },
                )
                | Message::Home(_)
                | Message::Projection(..)
                | Message::Edge(..) => unloaded.early.push((from, message)),
            },
        }
    }
}

impl Turn for Shard {
    type Message = Message;
    type Control = ControlMessage;

    fn turn<I: Io>(
        &mut self,
        now: Now,
        inputs: &mut Inputs<Message>,
        io: &mut I,
        outputs: &mut Outputs<Message, ControlMessage>,
    ) {
        let mut cx = TurnContext { now, io, outputs };
        while let Some((from, message)) = inputs.messages.pop_front() {
            self.on_message(from, message, &mut cx);
            if cx.io.spent(Part::Messages) {
                break;
            }
        }
        cx.outputs.more |= !inputs.messages.is_empty();
        match &mut self.0 {
            State::Serving(serving) => {
                serving.on_last_turn(inputs.last_turn.take());
                serving.turn(&mut inputs.sockets, &mut cx);
            }
            State::Unloaded(_) => debug_assert!(
                inputs.sockets.is_empty(),
                "no socket is open before the first snapshot"
            ),
        }
    }
}
