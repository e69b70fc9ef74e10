//! Replays of a journal in memory.

use rskafka::record::{Record, RecordAndOffset};

use super::ServiceError;
use super::journal::{Line, LineContent, Replay};
use crate::demo::payments::{Command, Decision, JournalEntry, Ledger, Source};

/// A journal that is kept in memory.
#[derive(Default)]
struct TestJournal {
    lines: Vec<Line>,
    session: u64,
    relayed: i64,
}

impl TestJournal {
    fn write(&mut self, what: LineContent) {
        self.lines.push(Line {
            session: self.session,
            relayed: self.relayed,
            what,
        });
    }

    fn open(&mut self) {
        self.session += 1;
        self.write(LineContent::Opened);
    }

    fn on_relayed(&mut self) {
        self.relayed = self.lines.len() as i64;
    }

    fn read_from(&self, start: usize) -> Result<(Ledger, Vec<JournalEntry>), ServiceError> {
        let mut replay = Replay::new(start as i64);
        for (offset, line) in self.lines.iter().enumerate().skip(start) {
            replay.take(&RecordAndOffset {
                record: Record {
                    key: None,
                    value: Some(serde_json::to_vec(line).expect("JSON")),
                    headers: Default::default(),
                    timestamp: Default::default(),
                },
                offset: offset as i64,
            })?;
        }
        replay.done(start as i64)
    }
}

fn pay(offset: i64) -> Command {
    let (from, to) = match offset % 3 {
        0 => ("ana", "bo"),
        1 => ("bo", "cleo"),
        _ => ("cleo", "ana"),
    };
    Command {
        source: Source {
            partition: (offset % 2) as i32,
            offset,
            appended_ms: 0,
        },
        correlation: format!("k{offset}.F").into(),
        operation: if offset % 5 == 0 { "request" } else { "pay" }.into(),
        account: from.into(),
        if_match: None,
        body: format!(r#"{{"to":"{to}","amount_cents":{}}}"#, offset + 1).into(),
    }
}

/// A journal of commands in batches of `batch`, and the ledger that wrote it.
fn written(commands: i64, batch: i64) -> (TestJournal, Ledger) {
    let mut journal = TestJournal::default();
    let mut ledger = Ledger::default();
    journal.open();
    for entry in Ledger::opening(0) {
        ledger.absorb(&entry);
        journal.write(LineContent::Entry(entry));
    }
    for offset in 0..commands {
        if offset % batch == 0 {
            journal.on_relayed();
            ledger.on_relayed(0);
        }
        let Decision::Fresh(entry) = ledger.apply(&pay(offset)) else {
            panic!("each is new");
        };
        journal.write(LineContent::Entry(*entry));
    }
    (journal, ledger)
}

#[test]
fn what_the_last_batch_wrote_is_relayed_again() {
    let (journal, ledger) = written(10, 4);
    let (read, pending) = journal.read_from(0).expect("it is whole");
    assert_eq!(read, ledger);
    let offsets: Vec<_> = pending
        .iter()
        .filter_map(|e| e.source)
        .map(|s| s.offset)
        .collect();
    assert_eq!(offsets, [8, 9]);
}

#[test]
fn a_journal_without_its_beginning_reads_from_a_checkpoint() {
    let (mut journal, mut ledger) = written(10, 5);
    journal.on_relayed();
    ledger.on_relayed(0);
    let checkpoint = journal.lines.len();
    for page in ledger.checkpoint() {
        journal.write(LineContent::Page(page));
    }
    journal.on_relayed();
    for offset in 10..13 {
        let Decision::Fresh(entry) = ledger.apply(&pay(offset)) else {
            panic!("each is new");
        };
        journal.write(LineContent::Entry(*entry));
    }
    // Start within the entries before the checkpoint: those that remain still answer their
    // duplicates.
    let (read, pending) = journal.read_from(6).expect("a checkpoint follows");
    assert_eq!(pending.len(), 3);
    let is_known = |offset| matches!(read.decide(&pay(offset)), Decision::Known(_));
    assert_eq!(
        (is_known(0), is_known(9), is_known(12)),
        (false, true, true)
    );
    let fresh = |ledger: &Ledger| {
        let mut command = pay(20);
        command.operation = "pay".into();
        ledger.decide(&command)
    };
    assert_eq!(fresh(&read), fresh(&ledger));
    assert_eq!(read.next_offset(0), ledger.next_offset(0));
    // Start at the checkpoint, and within it.
    assert!(journal.read_from(checkpoint).is_ok());
    assert!(matches!(
        journal.read_from(checkpoint + 1),
        Err(ServiceError::Headless { .. })
    ));
}

#[test]
fn an_older_sessions_late_write_is_passed_over() {
    let (mut journal, mut ledger) = written(3, 1);
    journal.on_relayed();
    ledger.on_relayed(0);
    // A write that the old session assumed lost is appended after the new session's first record.
    let Decision::Fresh(late) = ledger.decide(&pay(4)) else {
        panic!("it is new");
    };
    journal.open();
    journal.session = 1;
    journal.write(LineContent::Entry(*late));
    journal.session = 2;
    let (read, _) = journal.read_from(0).expect("it is whole");
    assert_eq!(read, ledger);
    let Decision::Fresh(entry) = ledger.apply(&pay(3)) else {
        panic!("it is new");
    };
    journal.write(LineContent::Entry(*entry));
    let (read, pending) = journal.read_from(0).expect("it is whole");
    assert_eq!((read, pending.len()), (ledger, 1));
}

#[test]
fn a_record_nobody_wrote_is_named() {
    let (mut journal, _) = written(1, 1);
    journal.lines.clear();
    let mut replay = Replay::new(0);
    let garbage = RecordAndOffset {
        record: Record {
            key: None,
            value: None,
            headers: Default::default(),
            timestamp: Default::default(),
        },
        offset: 7,
    };
    let error = replay.take(&garbage).expect_err("it is no line");
    assert!(error.to_string().contains("record 7"), "{error}");
}
