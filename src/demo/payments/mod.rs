//! Person-to-person payments as a pure service: no clock, socket or topic, only decisions.
//!
//! Think of a till with a book. [`Ledger::decide`] looks at a command and says what would follow:
//! one [`Entry`] (the reply, the accounts as they are afterwards, what happened to whom).
//! [`Ledger::absorb`] writes an entry into the book, and is the only way the book changes, so
//! reading all entries again (the journal) gives the same book. Because an entry is one record, a
//! command's reply and its effects are kept together or not at all.
//!
//! A command may reach the service twice. The second time it is answered with the first reply and
//! has no effect; [`seen`] holds the rule by which a command may be forgotten.

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
pub(crate) use entry::{Account, Activity, Entry, Reply};
pub(crate) use ledger::Ledger;
