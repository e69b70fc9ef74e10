//! Properties of the service over any history of commands.

use proptest::prelude::*;

use super::command::Command;
use super::decide::Decision;
use super::entry::{Account, Activity, JournalEntry};
use super::ledger::{Ledger, WELCOME_CENTS};
use super::tests::{book, command, reply};

/// Any command. Its offset is set when it is used.
fn any_command() -> impl Strategy<Value = Command> {
    let who = || prop::sample::select(vec!["ana", "bo", "cleo", "dan"]);
    let body = prop_oneof![
        4 => (who(), 1..6_000u32)
            .prop_map(|(to, n)| format!(r#"{{"to":"{to}","amount_cents":{n}}}"#)),
        2 => (0..40u8, any::<bool>())
            .prop_map(|(n, yes)| format!(r#"{{"request":"r0-{n}","accept":{yes}}}"#)),
        1 => Just(r#"{"name":"Dan"}"#.to_owned()),
    ];
    let operation = prop::sample::select(vec!["pay", "pay", "request", "answer", "open"]);
    let if_match = prop::option::weighted(0.3, (1..4u8).prop_map(|v| format!("\"{v}\"")));
    (operation, who(), body, if_match, 0..30u8, 0..3i32).prop_map(
        |(operation, account, body, if_match, k, partition)| {
            let mut command = command(0, operation, account, &body);
            command.if_match = if_match.map(String::into_bytes);
            // Few command keys, so that many commands are duplicates. A key has one partition
            // (DESIGN, (d)).
            command.correlation = format!("{partition}k{k}.F").into();
            command.source.partition = partition;
            command
        },
    )
}

fn any_history() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_command(), 1..60).prop_map(|mut commands| {
        for (offset, command) in commands.iter_mut().enumerate() {
            command.source.offset = offset as i64;
        }
        commands
    })
}

fn total(accounts: &[Account]) -> u64 {
    accounts.iter().map(|a| a.balance_cents).sum()
}

fn accounts_of(ledger: &Ledger) -> Vec<Account> {
    ledger.accounts().map(|s| s.account.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Money is neither created nor lost, except for each account's opening balance.
    #[test]
    fn the_sum_of_balances_is_the_sum_of_gifts(history in any_history()) {
        let mut ledger = book();
        for command in &history {
            ledger.apply(command);
            let accounts = accounts_of(&ledger);
            prop_assert_eq!(total(&accounts), accounts.len() as u64 * WELCOME_CENTS);
        }
    }

    /// Replaying the journal, even with entries written twice, gives the same ledger, which decides
    /// the same.
    #[test]
    fn the_journal_read_again_gives_the_same_book(
        history in any_history(),
        twice in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut ledger = book();
        let mut journal = Ledger::opening(0);
        for command in &history {
            if let Decision::Fresh(entry) = ledger.apply(command) {
                journal.push(*entry);
            }
        }
        let mut again = Ledger::default();
        for (entry, twice) in journal.iter().zip(twice.iter().chain(std::iter::repeat(&false))) {
            let bytes = serde_json::to_vec(entry).expect("JSON");
            let entry: JournalEntry = serde_json::from_slice(&bytes).expect("its own JSON");
            prop_assert!(again.absorb(&entry));
            if *twice {
                prop_assert!(!again.absorb(&entry));
            }
        }
        prop_assert_eq!(&again, &ledger);
        for command in &history {
            prop_assert_eq!(again.decide(command), ledger.decide(command));
        }
    }

    /// However often and late a command is repeated, it has one effect and one reply.
    #[test]
    fn duplicates_have_one_effect(
        history in any_history(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut ledger = book();
        let mut answers = std::collections::HashMap::new();
        for (later, (command, pick)) in (1_000..).zip(history.iter().zip(picks)) {
            let answer = reply(ledger.apply(command));
            let key = command.key().to_owned();
            let first = answers.entry(key).or_insert_with(|| answer.clone());
            prop_assert_eq!(&*first, &answer);
            let before = accounts_of(&ledger);
            let upto = command.source.offset as usize + 1;
            let mut again = history[pick.index(upto)].clone();
            again.source.offset = later;
            let known = Decision::Known(answers[again.key()].clone());
            prop_assert_eq!(ledger.apply(&again), known);
            prop_assert_eq!(accounts_of(&ledger), before);
        }
    }

    /// Each account's events are numbered without gaps, and the last one has the balance.
    #[test]
    fn everybody_is_told_everything_in_order(history in any_history()) {
        let mut ledger = book();
        let mut last: std::collections::BTreeMap<String, Activity> = Ledger::opening(0)
            .into_iter()
            .flat_map(|entry| entry.activity)
            .map(|activity| (activity.account.to_string(), activity))
            .collect();
        for command in &history {
            let Decision::Fresh(entry) = ledger.apply(command) else { continue };
            for activity in entry.activity {
                let told = last.get(activity.account.as_str()).map_or(0, |a| a.event);
                prop_assert_eq!(activity.event, told + 1);
                last.insert(activity.account.to_string(), activity);
            }
        }
        for account in accounts_of(&ledger) {
            let told = &last[account.account.as_str()];
            prop_assert_eq!(told.balance_cents, account.balance_cents);
            prop_assert_eq!(told.version, account.version);
        }
    }
}
