//! Types that several rooms share, with their bounds and their textual form. They have no behaviour
//! beyond construction, comparison and conversion.

mod address;
mod client_certificate;
mod command;
mod etag;
mod event_name;
mod exchange;
mod footprint;
mod id;
mod identity;
mod json;
mod key;
mod narrow;
mod network;
mod planted;
mod planted_panics;
mod position;
mod random;
mod secret;
mod tenant;
mod time;
mod topic;

pub use address::overlap;
pub use client_certificate::{CertificateName, ClientCertificate};
pub use command::{CommandKey, CorrelationId, Fingerprint};
pub use etag::Etag;
pub use event_name::EventName;
pub use exchange::ExchangeId;
pub use footprint::{hash_row_bytes, tree_row_bytes};
pub use id::{ClusterId, Id, IdTable, RouteId, TopicId};
pub use identity::Identity;
pub use json::{JSON_LEVELS_MAX, NotJson, check_json};
pub use key::{HashSecret, KeyHash};
pub use narrow::{
    i32_of, in_proportion, index_of, low_u8, low_u16, low_u32, millis, millis_i32, u8_of, u16_of,
    u32_of,
};
pub use network::{Network, NotNetwork};
pub use planted::{Bug, is_planted};
#[cfg(feature = "planted")]
pub use planted::{invent_identities, invents_identities, plant};
#[cfg(feature = "planted")]
pub use planted_panics::plant_panics;
pub use planted_panics::{PanicAt, panic_if_planted};
pub use position::{LeaderEpoch, Offset, Partition};
pub use random::FastRandom;
pub use secret::Secret;
pub use tenant::Tenant;
pub use time::{Instant, Now, UnixMillis};
pub use topic::{LogIdentity, LogTag, TopicName};

/// A shard's number in the process, from 0. Shard 0 holds the directory of each cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The control thread, as sender or receiver of a message.
    pub const CONTROL: Self = Self(u16::MAX);
}

/// Most shards of a process. A collection visits them one after the other, so more would make it
/// slow.
pub const SHARDS_MAX: u16 = 256;
