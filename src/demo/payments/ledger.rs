//! The ledger: balances, open requests, and the commands that were answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::account_id::AccountId;
use super::entry::{Account, Activity, JournalEntry, Kind};
use super::seen::Seen;

/// Balance of a new account in cents.
pub(super) const WELCOME_CENTS: u64 = 10_000;
/// Most accounts of the ledger.
pub(super) const ACCOUNTS_MAX: usize = 10_000;
/// Most open requests to one account.
pub(super) const REQUESTS_MAX: u32 = 20;

/// All state of the service. It changes only by journal entries and checkpoints, so replaying them
/// rebuilds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    accounts: BTreeMap<AccountId, Holder>,
    requests: BTreeMap<Box<str>, Request>,
    partitions: BTreeMap<i32, PartitionProgress>,
}

/// An account with the number of its last event and of its open requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The account as its record shows it.
    pub(super) account: Account,
    /// Number of the account's last event.
    pub(super) events: u64,
    /// Number of requests that wait for the owner's answer.
    pub(super) asked: u32,
}

/// An open request of one person for another's money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The account that asks and would receive the money.
    pub(super) payee: AccountId,
    /// The account that is asked to pay.
    pub(super) payer: AccountId,
    /// The amount of money in cents.
    pub(super) amount_cents: u64,
    /// The note of the account that asks.
    pub(super) note: Box<str>,
}

/// Progress in one partition of the commands topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionProgress {
    /// Offset after the last command with an entry.
    next_offset: i64,
    /// Replies to this partition's recent commands.
    pub(super) seen: Seen,
}

impl Ledger {
    /// The first entries of a journal: three accounts. `at_ms` is now, in milliseconds since the
    /// epoch.
    pub(crate) fn opening(at_ms: i64) -> Vec<JournalEntry> {
        [("ana", "Ana"), ("bo", "Bo"), ("cleo", "Cleo")]
            .into_iter()
            .map(|(id, name)| {
                let id = AccountId::new(id).expect("a literal within the rule");
                opened(id, name, "welcome", at_ms)
            })
            .map(|(account, activity)| JournalEntry {
                source: None,
                reply: None,
                accounts: vec![account],
                activity: vec![activity],
            })
            .collect()
    }

    /// Applies an entry. Returns false, without a change, if it was applied before: a write to the
    /// journal may be repeated, so an entry may be in it twice.
    pub(crate) fn absorb(&mut self, entry: &JournalEntry) -> bool {
        let is_new = match entry.source {
            Some(_) => self.recall(entry),
            None => !self.knows_any(&entry.accounts),
        };
        if !is_new {
            return false;
        }
        for account in &entry.accounts {
            self.accounts
                .entry(account.account.clone())
                .and_modify(|holder| holder.account = account.clone())
                .or_insert_with(|| Holder::new(account.clone()));
        }
        for activity in &entry.activity {
            self.apply_activity(activity);
        }
        true
    }

    /// Remembers an entry's reply without applying its effects. Returns false if it was applied
    /// before.
    pub(super) fn recall(&mut self, entry: &JournalEntry) -> bool {
        let Some(source) = entry.source else {
            return true;
        };
        let progress = self.partitions.entry(source.partition).or_default();
        if source.offset < progress.next_offset {
            return false;
        }
        progress.next_offset = source.offset + 1;
        // Do not keep a reply that asks for a retry: the retry must be executed.
        if let Some(reply) = entry.reply.as_ref().filter(|reply| !reply.retry) {
            let key = super::command::key_of(&reply.correlation);
            progress.seen.remember(key, reply, source.appended_ms);
        }
        true
    }

    /// Applies the content of a checkpoint's page.
    pub(super) fn restore(
        &mut self,
        next_offsets: Vec<(i32, i64)>,
        people: Vec<Holder>,
        requests: Vec<(Box<str>, Request)>,
    ) {
        for (partition, next_offset) in next_offsets {
            self.partitions.entry(partition).or_default().next_offset = next_offset;
        }
        let named = |holder: Holder| (holder.account.account.clone(), holder);
        self.accounts.extend(people.into_iter().map(named));
        self.requests.extend(requests);
    }

    /// All entries so far were relayed to their topics by `at_ms`, by the clock that stamps
    /// commands.
    pub(crate) fn on_relayed(&mut self, at_ms: i64) {
        for progress in self.partitions.values_mut() {
            progress.seen.on_relayed(at_ms);
        }
    }

    /// Next offset to read of a partition of the commands topic.
    pub(crate) fn next_offset(&self, partition: i32) -> i64 {
        self.partitions
            .get(&partition)
            .map_or(0, |progress| progress.next_offset)
    }

    /// Whether no entry was ever applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    pub(super) fn account(&self, id: &AccountId) -> Option<&Holder> {
        self.accounts.get(id)
    }

    pub(super) fn accounts(&self) -> impl ExactSizeIterator<Item = &Holder> {
        self.accounts.values()
    }

    pub(super) fn request(&self, id: &str) -> Option<&Request> {
        self.requests.get(id)
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &Request)> {
        self.requests.iter().map(|(id, request)| (&**id, request))
    }

    pub(super) fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        self.partitions
            .iter()
            .map(|(p, progress)| (*p, progress.next_offset))
    }

    pub(super) fn progress(&self, partition: i32) -> Option<&PartitionProgress> {
        self.partitions.get(&partition)
    }

    fn knows_any(&self, accounts: &[Account]) -> bool {
        accounts
            .iter()
            .any(|a| self.accounts.contains_key(&a.account))
    }

    /// Applies one event: opens or closes a request, and counts the event.
    fn apply_activity(&mut self, activity: &Activity) {
        match (activity.kind, &activity.with) {
            (Kind::Asked, Some(payee)) => {
                let request = Request {
                    payee: payee.clone(),
                    payer: activity.account.clone(),
                    amount_cents: activity.amount_cents,
                    note: activity.note.clone(),
                };
                self.requests.insert(activity.id.clone(), request);
                self.holder(&activity.account).asked += 1;
            }
            (Kind::Paid | Kind::Declined, _) => {
                if let Some(id) = &activity.request {
                    self.requests.remove(id);
                    self.holder(&activity.account).asked -= 1;
                }
            }
            _ => {}
        }
        self.holder(&activity.account).events = activity.event;
    }

    fn holder(&mut self, id: &AccountId) -> &mut Holder {
        self.accounts
            .get_mut(id)
            .expect("only people with an account are told anything")
    }
}

impl Holder {
    fn new(account: Account) -> Self {
        Self {
            account,
            events: 0,
            asked: 0,
        }
    }
}

/// A new account with its opening balance, and the event of its opening.
pub(super) fn opened(id: AccountId, name: &str, event: &str, at_ms: i64) -> (Account, Activity) {
    let account = Account {
        account: id.clone(),
        name: name.into(),
        balance_cents: WELCOME_CENTS,
        version: 1,
    };
    let activity = Activity {
        account: id,
        event: 1,
        kind: Kind::Opened,
        with: None,
        amount_cents: WELCOME_CENTS,
        balance_cents: WELCOME_CENTS,
        version: 1,
        id: event.into(),
        request: None,
        note: "".into(),
        at_ms,
    };
    (account, activity)
}
