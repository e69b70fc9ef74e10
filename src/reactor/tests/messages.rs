//! Tests of messages and wakes between shards and the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::running::launch;
use super::super::{Clock, Plan, Undelivered};
use super::echo::{Echo, Message};
use super::{Fixture, PATIENCE, eventually, plan};
use crate::model::ShardId;

#[test]
fn order_survives_full_inboxes() {
    let narrow = Plan {
        inbox_batches_max: 2,
        ..plan()
    };
    let fixture = Fixture::start(2, narrow);
    fixture.send(1, Message::Slow(Duration::from_micros(700)));
    let (to, numbers) = (ShardId(1), 2000);
    fixture.send(0, Message::Count { to, numbers });
    let mut expected = 0;
    while expected < numbers {
        let (from, batch) = fixture.next();
        assert_eq!(from, ShardId(1));
        for message in batch {
            assert_eq!(message, Message::Number(expected));
            expected += 1;
        }
    }
}

#[test]
fn a_shard_may_write_to_itself() {
    let fixture = Fixture::start(1, plan());
    let (to, numbers) = (ShardId(0), 5);
    fixture.send(0, Message::Count { to, numbers });
    let mut got = Vec::new();
    while got.len() < 5 {
        got.extend(fixture.next().1);
    }
    assert_eq!(got, (0..5).map(Message::Number).collect::<Vec<_>>());
}

#[test]
fn a_full_inbox_gives_the_message_back() {
    let narrow = Plan {
        inbox_batches_max: 1,
        ..plan()
    };
    let fixture = Fixture::start(1, narrow);
    fixture.send(0, Message::Slow(Duration::from_millis(50)));
    let back = eventually("a full inbox", || {
        fixture.running.send(ShardId(0), Message::Number(9)).err()
    });
    assert!(matches!(back, Undelivered(Message::Number(9))));
    // The message to end must arrive.
    eventually("room", || {
        fixture
            .running
            .send(ShardId(0), Message::Slow(Duration::ZERO))
            .ok()
    });
    eventually("room", || {
        fixture.running.send(ShardId(0), Message::End).ok()
    });
}

#[test]
fn a_parked_shard_is_woken_by_a_foreign_thread() {
    let fixture = Fixture::start(1, plan());
    let mut slowest = Duration::ZERO;
    for round in 0..300_u32 {
        // At about the time the shard goes to sleep, and well after it.
        std::thread::sleep(Duration::from_micros(u64::from(round * 37 % 900)));
        let start = Instant::now();
        fixture.send(0, Message::Number(round));
        assert_eq!(fixture.next().1, [Message::Number(round)]);
        slowest = slowest.max(start.elapsed());
    }
    println!("slowest wake and answer: {slowest:?}");
}

/// One message wakes the shard. The next arrives at any time while it goes back to sleep.
#[test]
fn nothing_is_lost_on_the_way_to_sleep() {
    let fixture = Fixture::start(1, plan());
    let mut answers = 0;
    for round in 0..20_000_u32 {
        fixture.send(0, Message::Number(round));
        let start = Instant::now();
        while start.elapsed() < Duration::from_nanos(u64::from(round) * 7_919 % 120_000) {
            std::hint::spin_loop();
        }
        fixture.send(0, Message::Number(round));
        while answers < 2 * (round + 1) {
            assert!(
                start.elapsed() < PATIENCE,
                "round {round} was slept through"
            );
            match fixture.running.take() {
                Some((_, answer)) => answers += answer.len() as u32,
                None => std::thread::yield_now(),
            }
        }
    }
}

#[test]
fn control_is_called_when_there_is_something_to_take() {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let wake = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let running = launch(plan(), Clock::start(), vec![Echo::default], wake).expect("started");
    assert!(running.send(ShardId(0), Message::Number(1)).is_ok());
    eventually("the call", || {
        (calls.load(Ordering::SeqCst) > 0).then_some(())
    });
    assert_eq!(running.take(), Some((ShardId(0), vec![Message::Number(1)])));
    assert!(running.send(ShardId(0), Message::End).is_ok());
    running.join();
}

#[test]
fn what_is_sent_to_a_shard_that_has_ended_is_dropped() {
    let fixture = Fixture::start(2, plan());
    fixture.send(1, Message::End);
    let (to, numbers) = (ShardId(1), 10_000);
    fixture.send(0, Message::Count { to, numbers });
    fixture.send(0, Message::Number(7));
    // Shard 0 sends or drops all of them and continues. Some may have reached shard 1 in time.
    eventually("shard 0", || {
        let (from, batch) = fixture.running.take()?;
        (from == ShardId(0) && batch == [Message::Number(7)]).then_some(())
    });
}
