//! The ledger: balances, open requests, and the commands that were answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Account, AccountId, Activity, Entry, Kind};
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
    accounts: BTreeMap<AccountId, Standing>,
    requests: BTreeMap<Box<str>, Request>,
    lanes: BTreeMap<i32, Lane>,
}

/// An account with the number of its last event and of its open requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
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
pub(super) struct Lane {
    /// Offset after the last command with an entry.
    next_offset: i64,
    /// Replies to this partition's recent commands.
    pub(super) seen: Seen,
}

impl Ledger {
    /// The first entries of a journal: three accounts. `at_ms` is now, in milliseconds since the
    /// epoch.
    pub(crate) fn opening(at_ms: i64) -> Vec<Entry> {
        [("ana", "Ana"), ("bo", "Bo"), ("cleo", "Cleo")]
            .into_iter()
            .map(|(id, name)| {
                let id = AccountId::new(id).expect("a literal within the rule");
                opened(id, name, "welcome", at_ms)
            })
            .map(|(account, activity)| Entry {
                source: None,
                reply: None,
                accounts: vec![account],
                activity: vec![activity],
            })
            .collect()
    }

    /// Applies an entry. Returns false, without a change, if it was applied before: a write to the
    /// journal may be repeated, so an entry may be in it twice.
    pub(crate) fn absorb(&mut self, entry: &Entry) -> bool {
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
                .and_modify(|standing| standing.account = account.clone())
                .or_insert_with(|| Standing::new(account.clone()));
        }
        for activity in &entry.activity {
            self.note(activity);
        }
        true
    }

    /// Remembers an entry's reply without applying its effects. Returns false if it was applied
    /// before.
    pub(super) fn recall(&mut self, entry: &Entry) -> bool {
        let Some(source) = entry.source else {
            return true;
        };
        let lane = self.lanes.entry(source.partition).or_default();
        if source.offset < lane.next_offset {
            return false;
        }
        lane.next_offset = source.offset + 1;
        // Do not keep a reply that asks for a retry: the retry must be executed.
        if let Some(reply) = entry.reply.as_ref().filter(|reply| !reply.retry) {
            let key = super::command::key_of(&reply.correlation);
            lane.seen.remember(key, reply, source.appended_ms);
        }
        true
    }

    /// Applies the content of a checkpoint's page.
    pub(super) fn restore(
        &mut self,
        next_offsets: Vec<(i32, i64)>,
        people: Vec<Standing>,
        requests: Vec<(Box<str>, Request)>,
    ) {
        for (partition, next_offset) in next_offsets {
            self.lanes.entry(partition).or_default().next_offset = next_offset;
        }
        let named = |standing: Standing| (standing.account.account.clone(), standing);
        self.accounts.extend(people.into_iter().map(named));
        self.requests.extend(requests);
    }

    /// All entries so far were relayed to their topics by `at_ms`, by the clock that stamps
    /// commands.
    pub(crate) fn on_relayed(&mut self, at_ms: i64) {
        for lane in self.lanes.values_mut() {
            lane.seen.on_relayed(at_ms);
        }
    }

    /// Next offset to read of a partition of the commands topic.
    pub(crate) fn next_offset(&self, partition: i32) -> i64 {
        self.lanes
            .get(&partition)
            .map_or(0, |lane| lane.next_offset)
    }

    /// Whether no entry was ever applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    pub(super) fn account(&self, id: &AccountId) -> Option<&Standing> {
        self.accounts.get(id)
    }

    pub(super) fn accounts(&self) -> impl ExactSizeIterator<Item = &Standing> {
        self.accounts.values()
    }

    pub(super) fn request(&self, id: &str) -> Option<&Request> {
        self.requests.get(id)
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &Request)> {
        self.requests.iter().map(|(id, request)| (&**id, request))
    }

    pub(super) fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        self.lanes.iter().map(|(p, lane)| (*p, lane.next_offset))
    }

    pub(super) fn lane(&self, partition: i32) -> Option<&Lane> {
        self.lanes.get(&partition)
    }

    fn knows_any(&self, accounts: &[Account]) -> bool {
        accounts
            .iter()
            .any(|a| self.accounts.contains_key(&a.account))
    }

    /// Applies one event: opens or closes a request, and counts the event.
    fn note(&mut self, activity: &Activity) {
        match (activity.kind, &activity.with) {
            (Kind::Asked, Some(payee)) => {
                let request = Request {
                    payee: payee.clone(),
                    payer: activity.account.clone(),
                    amount_cents: activity.amount_cents,
                    note: activity.note.clone(),
                };
                self.requests.insert(activity.id.clone(), request);
                self.standing(&activity.account).asked += 1;
            }
            (Kind::Paid | Kind::Declined, _) => {
                if let Some(id) = &activity.request {
                    self.requests.remove(id);
                    self.standing(&activity.account).asked -= 1;
                }
            }
            _ => {}
        }
        self.standing(&activity.account).events = activity.event;
    }

    fn standing(&mut self, id: &AccountId) -> &mut Standing {
        self.accounts
            .get_mut(id)
            .expect("only people with an account are told anything")
    }
}

impl Standing {
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
