//! Person-to-person payments as a pure service, without clock, socket or topic.
//!
//! [`Ledger::decide`] reads the ledger and returns what would follow from a command: one
//! [`JournalEntry`] with the reply, the changed accounts and the events. [`Ledger::absorb`] applies
//! an entry. Entries are the only changes, so replaying the journal rebuilds the ledger. An entry
//! is one record, so a command's reply and effects are stored together or not at all.
//!
//! A command may reach the service twice. The duplicate gets the first reply and has no effect.
//! [`seen`] has the rule for when a command may be forgotten.

mod account_id;
mod checkpoint;
mod command;
mod decide;
mod entry;
mod ledger;
mod problem;
#[cfg(test)]
mod properties;
mod seen;
#[cfg(test)]
mod tests;

pub(crate) use checkpoint::{Page, Restore};
pub(crate) use command::{Command, Source};
pub(crate) use decide::Decision;
pub(crate) use entry::{Account, Activity, JournalEntry, Reply};
pub(crate) use ledger::Ledger;
