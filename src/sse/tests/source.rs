//! A subscriber's source: every state × event.

use std::fmt::Write as _;

use crate::log::{Cut, Seq};
use crate::model::{Offset, Partition, ShardId, UnixMillis};
use crate::sse::request::{CatchUpId, PageCursor};
use crate::sse::source::{Changes, EVENTS, Source};

const ID: CatchUpId = CatchUpId(1);

fn changes() -> Box<Changes> {
    Box::new(Changes {
        seq: Seq(1),
        below: Cut::start(),
        time: UnixMillis(0),
        after: None,
    })
}

fn states() -> Vec<Source> {
    vec![
        Source::Window,
        Source::Rejoining,
        Source::Undecided(None),
        Source::Undecided(Some(changes())),
        Source::AwaitingEpochCheck(None),
        Source::AwaitingEpochCheck(Some(changes())),
        Source::AwaitingPage(changes()),
        Source::SendingPage(changes()),
        Source::AwaitingCatchUp,
        Source::AwaitingBlock(ID),
        Source::ReadingBlock(ID, 3),
        Source::Disconnecting,
        Source::Stalled,
    ]
}

fn name(source: &Source) -> String {
    let text = format!("{source:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next();
    let name = name.expect("a first part");
    match source {
        Source::Undecided(Some(_)) | Source::AwaitingEpochCheck(Some(_)) => {
            format!("{name}, pages")
        }
        _ => name.to_owned(),
    }
}

type Event = (&'static str, fn(&mut Source) -> bool);

fn events() -> Vec<Event> {
    const NEXT: PageCursor = PageCursor {
        shard: ShardId(0),
        partition: Partition(0),
        offset: Offset(7),
    };
    vec![
        ("on_window_reaches_back", Source::on_window_reaches_back),
        ("on_changes_needed", |it| it.on_changes_needed(changes())),
        ("on_catch_up_needed", Source::on_catch_up_needed),
        ("on_changes_resumed", Source::on_changes_resumed),
        ("on_cut_back", Source::on_cut_back),
        ("on_epoch_check_needed", Source::on_epoch_check_needed),
        ("on_diverged", Source::on_diverged),
        ("on_epochs_checked", Source::on_epochs_checked),
        ("on_epoch_check_failed", Source::on_epoch_check_failed),
        ("on_epoch_changed", Source::on_epoch_changed),
        ("on_window_read", Source::on_window_read),
        ("on_evicted", Source::on_evicted),
        ("on_heartbeat_ahead", Source::on_heartbeat_ahead),
        ("on_page", |it| it.on_page(NEXT)),
        ("on_last_page", Source::on_last_page),
        ("on_page_failed", Source::on_page_failed),
        ("on_page_sent", Source::on_page_sent),
        ("on_page_overdue", Source::on_page_overdue),
        ("on_joined", |it| it.on_joined(ID)),
        ("on_block", |it| it.on_block(ID)),
        ("on_frames_read", |it| it.on_frames_read(9)),
        ("on_block_read", Source::on_block_read),
        ("on_left_behind", |it| it.on_left_behind(ID)),
        ("on_catch_up_ended", |it| it.on_catch_up_ended(ID)),
        ("on_catch_up_stalled", |it| it.on_catch_up_stalled(ID)),
    ]
}

/// A `-` means that the event changes nothing in this state.
#[test]
fn every_state_and_event() {
    let events = events();
    let names: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, EVENTS, "all events, in their order");
    let mut table = String::new();
    for (event, act) in events {
        writeln!(table, "{event}").expect("a String takes all");
        for mut state in states() {
            let before = name(&state);
            let after = if act(&mut state) {
                name(&state)
            } else {
                assert_eq!(name(&state), before, "{event} changes what it refuses");
                "-".to_owned()
            };
            writeln!(table, "    {before:<25} => {after}").expect("a String takes all");
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn an_event_of_another_catch_up_read_changes_nothing() {
    let other = CatchUpId(2);
    for mut state in states() {
        let before = name(&state);
        let changed = state.on_block(other)
            || state.on_left_behind(other)
            || state.on_catch_up_ended(other)
            || state.on_catch_up_stalled(other);
        assert!(!changed && name(&state) == before, "{before}");
    }
}
