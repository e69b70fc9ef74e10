//! Commands between HTTP and the log: what makes two requests the same command, which are open,
//! which are answered. Knows neither the broker nor HTTP: it is given names, records and the time.
//!
//! A command has a key K (route, identity, idempotency key) and a fingerprint F (what it asks for).
//! [`CommandTable`] is the one owner of both tables of a route's home shard: [`OpenCommands`]
//! (sent, not answered; an entry outlives the clients that wait for it, so a client that gave up
//! cannot turn its own retry into a second command) and [`ReplyIndex`] (answered within the window,
//! from the replies topic alone, so every peer has the same).

mod bodies;
mod open;
mod recipe;
mod record;
mod replies;
mod reply;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod trace;

pub use open::{Admission, Expired, Limit, OpenCommands, OpenLimits, OpenStats, Waiters};
pub use recipe::{
    FingerprintParts, IdempotencyHash, RECIPE, command_key, fingerprint, fingerprints_differ,
};
pub use record::{
    ClientHeader, CommandHeaders, CommandParts, CommandRecord, HeaderNames, PartitionBy,
    RecordError,
};
pub use replies::{ReplyIndex, ReplyIndexSettings, ReplyRecord, ReplyStats, StoredReply};
pub use reply::{Flaw, Header, LeftOut, Reply, ReplyError, ReplyHeaders, ReplyResult};
pub use table::{Admitted, AnsweredExchange, CommandTable, Notice, ReplyCounts};
