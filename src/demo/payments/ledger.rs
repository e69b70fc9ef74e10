//! The book: who has what, which requests are open, which commands were answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Account, AccountId, Activity, Entry, Kind};
use super::seen::Seen;

/// What each account starts with, in cents.
pub(super) const WELCOME_CENTS: u64 = 10_000;
/// Accounts the book may hold.
pub(super) const ACCOUNTS_MAX: usize = 10_000;
/// Open requests one person may be shown.
pub(super) const REQUESTS_MAX: u32 = 20;

/// All state of the service. Only [`Self::absorb`] changes what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    accounts: BTreeMap<AccountId, Standing>,
    requests: BTreeMap<Box<str>, Request>,
    lanes: BTreeMap<i32, Lane>,
}

/// An account, and what its owner was told so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The account as others see it.
    pub(super) account: Account,
    /// Number of the owner's last event.
    pub(super) events: u64,
    /// Requests that wait for the owner's answer.
    pub(super) asked: u32,
}

/// Somebody asks somebody for money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Who asks, and would get it.
    pub(super) payee: AccountId,
    /// Who is asked.
    pub(super) payer: AccountId,
    /// How much, in cents.
    pub(super) amount_cents: u64,
    /// What for.
    pub(super) note: Box<str>,
}

/// How far one partition of the commands topic is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// The offset after the last command that has an entry.
    next_offset: i64,
    /// Replies given.
    pub(super) seen: Seen,
}

impl Ledger {
    /// The entries an empty journal begins with: three people, each with a welcome gift. `at_ms`
    /// is now, in milliseconds since the epoch.
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

    /// Writes an entry into the book. False: it was there before (the journal may hold an entry
    /// twice, since its writes may be repeated), and nothing changed.
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

    /// Remembers what an entry answered, without what it did. False: it was there before.
    pub(super) fn recall(&mut self, entry: &Entry) -> bool {
        let Some(source) = entry.source else {
            return true;
        };
        let lane = self.lanes.entry(source.partition).or_default();
        if source.offset < lane.next_offset {
            return false;
        }
        lane.next_offset = source.offset + 1;
        // A reply that asks for a retry is not kept: the retry is to be carried out.
        if let Some(reply) = entry.reply.as_ref().filter(|reply| !reply.retry) {
            let key = super::command::key_of(&reply.correlation);
            lane.seen.remember(key, reply, source.appended_ms);
        }
        true
    }

    /// Puts in what a checkpoint holds.
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

    /// The relay has brought all entries so far to their topics, `at_ms` by the clock that stamps
    /// commands.
    pub(crate) fn on_relayed(&mut self, at_ms: i64) {
        for lane in self.lanes.values_mut() {
            lane.seen.on_relayed(at_ms);
        }
    }

    /// Where to read a partition of the commands topic: after the last command with an entry.
    pub(crate) fn next_offset(&self, partition: i32) -> i64 {
        self.lanes
            .get(&partition)
            .map_or(0, |lane| lane.next_offset)
    }

    /// Whether nothing was ever written.
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

    /// What follows from something having happened to somebody.
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

/// A new account with its gift, and the event that says so.
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
