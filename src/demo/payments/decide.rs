//! Decides the outcome of a command. Reads the ledger and changes nothing.

use serde_json::json;

use super::account_id::AccountId;
use super::command::{Answer, Command, Open, Transfer, clip};
use super::entry::{Account, Activity, JournalEntry, Kind, Reply};
use super::ledger::{ACCOUNTS_MAX, Holder, Ledger, REQUESTS_MAX, Request, opened};
use super::problem::Problem;

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A duplicate: the reply of its first execution. Nothing is journalled.
    Known(Reply),
    /// A new command: the entry must be journalled, absorbed and relayed.
    Fresh(Box<JournalEntry>),
}

/// The effects of a command that is executed.
struct Effect {
    status: u16,
    version: u64,
    body: serde_json::Value,
    accounts: Vec<Account>,
    activity: Vec<Activity>,
}

/// A transfer of money between two accounts.
struct MoneyTransfer<'a> {
    from: &'a Holder,
    to: &'a Holder,
    amount_cents: u64,
    note: &'a str,
    request: Option<&'a str>,
}

impl Ledger {
    /// Decides the outcome of `command`.
    pub(crate) fn decide(&self, command: &Command) -> Decision {
        let progress = self.progress(command.source.partition);
        if let Some(reply) = progress.and_then(|progress| progress.seen.get(command.key())) {
            return Decision::Known(reply.clone());
        }
        let is_full =
            progress.is_some_and(|progress| progress.seen.is_full(command.source.appended_ms));
        let outcome = if is_full {
            Err(Problem::Overloaded)
        } else {
            self.carry_out(command)
        };
        let entry = match outcome {
            Ok(effect) => effect.entry(command),
            Err(problem) => self.refusal(command, &problem),
        };
        Decision::Fresh(Box::new(entry))
    }

    /// Decides and absorbs a command, as one step of the service does.
    #[cfg(test)]
    pub(crate) fn apply(&mut self, command: &Command) -> Decision {
        let decision = self.decide(command);
        if let Decision::Fresh(entry) = &decision {
            assert!(self.absorb(entry), "a command is read once");
        }
        decision
    }

    fn carry_out(&self, command: &Command) -> Result<Effect, Problem> {
        match command.operation.as_slice() {
            b"open" => self.open(command, &Open::read(command)?),
            b"pay" => {
                let me = self.acting_holder(command)?;
                self.pay(command, me, &Transfer::read(command)?)
            }
            b"request" => {
                let me = self.acting_holder(command)?;
                self.ask(command, me, &Transfer::read(command)?)
            }
            b"answer" => {
                let me = self.acting_holder(command)?;
                self.answer(command, me, &Answer::read(command)?)
            }
            _ => Err(Problem::UnknownOperation),
        }
    }

    fn refusal(&self, command: &Command, problem: &Problem) -> JournalEntry {
        let holder = self.acting_holder(command).ok();
        let account = holder.map(|s| (&s.account.account, s.account.version));
        JournalEntry {
            source: Some(command.source),
            reply: Some(Reply {
                correlation: command.correlation.clone(),
                status: problem.status(),
                etag: holder.map(|s| s.account.version),
                retry: problem.is_retry(),
                body: problem.body(account),
            }),
            accounts: Vec::new(),
            activity: Vec::new(),
        }
    }

    /// The account that a command concerns.
    fn acting_holder(&self, command: &Command) -> Result<&Holder, Problem> {
        let name = String::from_utf8_lossy(&command.account);
        AccountId::new(&name)
            .and_then(|id| self.account(&id))
            .ok_or_else(|| Problem::UnknownAccount(clip(&name)))
    }

    /// The account that a body names as the other side.
    fn other(&self, me: &Holder, id: &AccountId) -> Result<&Holder, Problem> {
        if *id == me.account.account {
            return Err(Problem::Invalid("`to` is the account itself".into()));
        }
        self.account(id)
            .ok_or_else(|| Problem::Invalid(format!("`to`: no account is named `{id}`")))
    }

    fn open(&self, command: &Command, open: &Open) -> Result<Effect, Problem> {
        let text = String::from_utf8_lossy(&command.account);
        let id = AccountId::new(&text).ok_or_else(|| {
            Problem::Invalid("an account id is 1 to 32 of a-z, 0-9 and `-`".into())
        })?;
        if let Some(holder) = self.account(&id) {
            // PUT of an existing account is not an error: PUT is idempotent (RFC 9110 9.2.2).
            let account = &holder.account;
            return Ok(Effect::quiet(200, account.version, json!(account)));
        }
        if self.accounts().len() >= ACCOUNTS_MAX {
            return Err(Problem::Limit("no more accounts can be opened"));
        }
        let event = command.source.name('o');
        let (account, activity) = opened(id, &open.name, &event, command.source.appended_ms);
        Ok(Effect {
            accounts: vec![account.clone()],
            activity: vec![activity],
            ..Effect::quiet(201, account.version, json!(account))
        })
    }

    fn pay(&self, command: &Command, me: &Holder, transfer: &Transfer) -> Result<Effect, Problem> {
        let to = self.other(me, &transfer.to)?;
        is_current(command, me)?;
        transfer_money(
            command,
            MoneyTransfer {
                from: me,
                to,
                amount_cents: transfer.amount_cents,
                note: &transfer.note,
                request: None,
            },
        )
    }

    fn ask(&self, command: &Command, me: &Holder, transfer: &Transfer) -> Result<Effect, Problem> {
        let payer = self.other(me, &transfer.to)?;
        is_current(command, me)?;
        if payer.asked >= REQUESTS_MAX {
            return Err(Problem::Limit("too many requests wait for that person"));
        }
        let id = command.source.name('r');
        let told = |to: &Holder, kind, with: &Holder| {
            to.activity(command, kind, with, transfer.amount_cents, &id)
                .with_note(&transfer.note)
        };
        Ok(Effect {
            activity: vec![
                told(me, Kind::Requested, payer),
                told(payer, Kind::Asked, me),
            ],
            ..Effect::quiet(201, me.account.version, me.result("request", &id))
        })
    }

    fn answer(&self, command: &Command, me: &Holder, answer: &Answer) -> Result<Effect, Problem> {
        let request = self
            .request(&answer.request)
            .filter(|request| request.payer == me.account.account)
            .ok_or_else(|| Problem::UnknownRequest(clip(&answer.request).into()))?;
        is_current(command, me)?;
        let payee = self
            .account(&request.payee)
            .expect("the sender has an account, and no account is ever closed");
        if answer.accept {
            transfer_money(
                command,
                MoneyTransfer {
                    from: me,
                    to: payee,
                    amount_cents: request.amount_cents,
                    note: &request.note,
                    request: Some(&answer.request),
                },
            )
        } else {
            Ok(decline(command, me, payee, request, &answer.request))
        }
    }
}

/// Transfers money if the payer's balance is large enough.
fn transfer_money(command: &Command, money: MoneyTransfer<'_>) -> Result<Effect, Problem> {
    let MoneyTransfer {
        from,
        to,
        amount_cents,
        ..
    } = money;
    let balance_cents = from.account.balance_cents;
    let left = balance_cents
        .checked_sub(amount_cents)
        .ok_or(Problem::Overdraft {
            balance_cents,
            amount_cents,
        })?;
    let payer = from.with_balance(left);
    let payee = to.with_balance(to.account.balance_cents + amount_cents);
    let id = command.source.name('p');
    let told = |holder: &Holder, kind, with: &Holder| {
        let activity = holder.activity(command, kind, with, amount_cents, &id);
        Activity {
            request: money.request.map(Into::into),
            ..activity.with_note(money.note)
        }
    };
    Ok(Effect {
        status: 201,
        version: payer.account.version,
        body: payer.result("payment", &id),
        activity: vec![
            told(&payer, Kind::Paid, to),
            told(&payee, Kind::Received, from),
        ],
        accounts: vec![payer.account, payee.account],
    })
}

/// Declines a request. No balance changes, so no version does.
fn decline(command: &Command, me: &Holder, payee: &Holder, request: &Request, id: &str) -> Effect {
    let told = |holder: &Holder, kind, with: &Holder| {
        let name = command.source.name('d');
        let activity = holder.activity(command, kind, with, request.amount_cents, &name);
        Activity {
            request: Some(id.into()),
            ..activity.with_note(&request.note)
        }
    };
    Effect {
        activity: vec![
            told(me, Kind::Declined, payee),
            told(payee, Kind::Refused, me),
        ],
        ..Effect::quiet(200, me.account.version, me.result("request", id))
    }
}

/// Optimistic locking (RFC 9110 13.1.1): a command with `If-Match` applies only to the versions it
/// names.
fn is_current(command: &Command, me: &Holder) -> Result<(), Problem> {
    let Some(wanted) = &command.if_match else {
        return Ok(());
    };
    let present = me.account.version;
    let names = |tag: &str| match tag.trim() {
        "*" => true,
        // Weak validators never match here (RFC 9110 8.8.3.2).
        weak if weak.starts_with("W/") => false,
        tag => {
            let tag = tag.trim_matches('"');
            // A client may send a whole event id. Its etag follows the last dot.
            let tag = tag.rsplit_once('.').map_or(tag, |(_, etag)| etag);
            tag == present.to_string()
        }
    };
    if String::from_utf8_lossy(wanted).split(',').any(names) {
        Ok(())
    } else {
        Err(Problem::Stale { present })
    }
}

impl Holder {
    /// Copies the account with a new balance and the next version.
    fn with_balance(&self, balance_cents: u64) -> Self {
        let mut after = self.clone();
        after.account.balance_cents = balance_cents;
        after.account.version += 1;
        after
    }

    /// Builds the owner's next event.
    fn activity(
        &self,
        command: &Command,
        kind: Kind,
        with: &Self,
        amount_cents: u64,
        id: &str,
    ) -> Activity {
        Activity {
            account: self.account.account.clone(),
            event: self.events + 1,
            kind,
            with: Some(with.account.account.clone()),
            amount_cents,
            balance_cents: self.account.balance_cents,
            version: self.account.version,
            id: id.into(),
            request: None,
            note: "".into(),
            at_ms: command.source.appended_ms,
        }
    }

    /// Body of a reply: the account after the command, and the id of what it created.
    fn result(&self, what: &str, id: &str) -> serde_json::Value {
        let mut body = json!(self.account);
        body[what] = json!(id);
        body
    }
}

impl Activity {
    fn with_note(self, note: &str) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }
}

impl Effect {
    /// A result without changed balances and without events.
    fn quiet(status: u16, version: u64, body: serde_json::Value) -> Self {
        Self {
            status,
            version,
            body,
            accounts: Vec::new(),
            activity: Vec::new(),
        }
    }

    fn entry(self, command: &Command) -> JournalEntry {
        JournalEntry {
            source: Some(command.source),
            reply: Some(Reply {
                correlation: command.correlation.clone(),
                status: self.status,
                etag: Some(self.version),
                retry: false,
                body: self.body.to_string().into(),
            }),
            accounts: self.accounts,
            activity: self.activity,
        }
    }
}
