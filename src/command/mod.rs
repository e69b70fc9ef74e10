//! Commands between HTTP and the log: what makes two requests the same command, which commands are
//! in flight, and which are answered. This room knows neither the broker nor HTTP; it takes names,
//! records and the time.
//!
//! A command has a *command key* (hash of route, identity and idempotency key) and a *fingerprint*
//! (hash of what the request asks for). [`CommandTable`] owns the two tables of a route's home
//! shard, so no race is possible within the process:
//! - [`OpenCommands`]: commands in flight. An entry outlives the exchanges that wait for it;
//!   otherwise the retry of a client that gave up would be a second command.
//! - [`ReplyIndex`]: replies within the window. The index is built from the replies topic alone, so
//!   every instance has the same.
//!
//! With `dedupe = "strict"` there is a [`CommandIndex`] too: unanswered commands of the commands
//! topic, whichever instance appended them.

mod bodies;
mod correlation;
mod generations;
mod location;
mod open;
mod passed;
mod places;
mod recipe;
mod record;
mod replies;
mod reply;
mod shelves;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod unanswered;

pub use location::{CommandLocation, LocatedCommand};
pub use open::{
    Admission, Answered, AnsweredWaiter, Attempt, Expired, Limit, NewWaiter, OpenCommands,
    OpenLimits, OpenStats, WAITERS_PER_COMMAND, Waiters,
};
pub use recipe::{
    FingerprintParts, IdempotencyHash, RECIPE, command_key, fingerprint, fingerprints_differ,
};
pub use record::{
    ClientHeader, CommandHeaders, CommandParts, CommandRecord, HeaderNames, PartitionBy,
    RecordError,
};
pub use replies::{ReplyIndex, ReplyIndexSettings, ReplyRecord, ReplyStats, StoredReply};
pub use reply::{Flaw, Header, LeftOut, Reply, ReplyError, ReplyHeaders, ReplyResult};
pub use table::{Admitted, AnsweredExchange, CommandTable, Known, Notice, ReplyCounts};
pub use unanswered::{CommandIndex, CommandIndexSettings, CommandIndexStats, Unanswered};
