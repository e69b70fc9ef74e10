//! Decides from where a subscriber is served: what its client holds against what this shard has.

use super::cursor::Cursor;
use super::epochs::Verdict;
use super::ids::Ids;
use super::lines;
use super::log_view::LogView;
use super::progress::ClientProgress;
use super::request::{FeedCounts, FeedSettings, StartFrom, Subscribe};
use super::source::{Changes, Source};
use super::subscriber::{Own, Subscriber};
use crate::log::{EventId, GapReason, Next, Notice};
use crate::model::{Now, Partition, UnixMillis};

/// Plans one subscriber's source. Records that the client lacks and the log no longer has are
/// written as gaps.
pub(super) struct Planner<'a> {
    pub(super) settings: &'a FeedSettings,
    pub(super) log: &'a LogView,
    pub(super) ids: &'a mut Ids,
    pub(super) counts: &'a mut FeedCounts,
    pub(super) now: Now,
}

impl Planner<'_> {
    /// Writes a new subscriber's first bytes and decides what it reads.
    pub(super) fn open(&mut self, new: &mut Subscriber, request: &Subscribe<'_>, retry_ms: u64) {
        let (encoding, start) = (request.encoding, request.start);
        let own = new.own();
        own.source = Source::Undecided(None);
        lines::put_retry(own.unsent.out(), retry_ms);
        let Some(text) = request.last_event_id.filter(|id| !id.is_empty()) else {
            return self.start(new, encoding, start, None);
        };
        match EventId::parse(text).map(|id| id.progress) {
            Err(_) => self.start(new, encoding, start, Some(GapReason::Unreadable)),
            // "Start over": what the client has does not count.
            Ok(None) => self.start(new, encoding, start, None),
            Ok(Some(progress)) if progress.tag != self.settings.tag => {
                // Every record of the new log is new to the client.
                let start = if self.settings.compacted {
                    StartFrom::Snapshot
                } else {
                    StartFrom::Earliest
                };
                self.start(new, encoding, start, Some(GapReason::Recreated));
            }
            Ok(Some(progress)) => {
                own.unsent.push(b"\n");
                own.progress = Some(ClientProgress::private(progress.cut, progress.time));
                self.resume(new, encoding);
            }
        }
    }

    /// Starts a client that holds nothing that counts. `why`: the client brought an id, which is of
    /// no use here, so its start is a gap.
    ///
    /// | start | compacted topic | other topic |
    /// |---|---|---|
    /// | live | from the newest step on | from the newest step on |
    /// | earliest | the window if it has the whole log, else a snapshot | from the log's start on |
    /// | snapshot | a snapshot | from the log's start on |
    ///
    /// A snapshot is *changes* since the log's start: the newest record of each key.
    fn start(
        &mut self,
        new: &mut Subscriber,
        encoding: usize,
        start: StartFrom,
        why: Option<GapReason>,
    ) {
        let snapshot = start == StartFrom::Snapshot && self.settings.compacted;
        self.set_start(new.own(), start, snapshot);
        self.put_start(new.own(), snapshot, why);
        if !self.settings.compacted || start == StartFrom::Live {
            return self.resume(new, encoding);
        }
        // A client that has seen nothing can't have missed a delete. So it is sent no `tombstones`
        // gap, however old the log's time is, as `resume` would send one.
        if snapshot || !self.read_window(new, encoding) {
            self.read_changes(new);
        }
    }

    /// Sets what a client counts as holding before its first record.
    fn set_start(&self, own: &mut Own, start: StartFrom, snapshot: bool) {
        let (log, time) = (self.log, self.log.time());
        own.progress = Some(match start {
            StartFrom::Live => ClientProgress::private(log.cut().clone(), time),
            // Until the snapshot is complete, its ids ask to start over.
            StartFrom::Snapshot if snapshot => ClientProgress::start_over(),
            StartFrom::Snapshot | StartFrom::Earliest => {
                ClientProgress::private(log.start().clone(), time)
            }
        });
    }

    /// Writes the first bytes of a client that starts. The id comes first. Without it, a client
    /// that disconnects before its first event would start again and miss the events between.
    fn put_start(&mut self, own: &mut Own, snapshot: bool, why: Option<GapReason>) {
        match why {
            Some(why) => {
                self.counts.gaps += 1;
                own.put_gap(None, why, self.ids);
            }
            // Nothing counts yet, so there is no position. The line ends the `retry:` field.
            None if snapshot => own.unsent.push(b"\n"),
            None => own.put_position(self.settings.position_events, self.ids),
        }
    }

    /// Decides what an `Undecided` subscriber reads, once its client's progress is known to be in
    /// the log. All that interrupted pages have shown is in it: pages show what this instance has
    /// read, which is void as a whole if it is cut back, and the doubt was about partitions in
    /// which the client is ahead.
    pub(super) fn resume(&mut self, subscriber: &mut Subscriber, encoding: usize) {
        let source = &mut subscriber.own().source;
        debug_assert!(matches!(source, Source::Undecided(_)), "{source:?}");
        match self.log.verdict(&subscriber.own().progress().cut) {
            Verdict::InLog => self.resume_in_log(subscriber, encoding),
            Verdict::Unknown => {
                subscriber.own().source.on_epoch_check_needed();
            }
            Verdict::Diverged => {
                subscriber.own().source.on_diverged();
            }
        }
    }

    /// The leaders have said where the log still has what the client holds: `ends` names the
    /// partitions where the client holds more.
    pub(super) fn resume_checked(
        &mut self,
        subscriber: &mut Subscriber,
        encoding: usize,
        ends: &[(Partition, Next)],
    ) {
        if !ends.is_empty() {
            subscriber.own().source.on_cut_back();
        }
        self.cut_back(subscriber.own(), ends);
        self.resume_in_log(subscriber, encoding);
    }

    /// Writes a gap per partition in which the client holds records of a lost branch. Of a log the
    /// client then gets the records that are there instead. On a compacted topic the newest record
    /// of a key may be older than what the client was shown, so the client gets a snapshot.
    fn cut_back(&mut self, own: &mut Own, ends: &[(Partition, Next)]) {
        for (i, &(partition, end)) in ends.iter().enumerate() {
            let to = own.progress().cut.get(partition).offset;
            // A client that disconnects between two gaps is sent the second gap when it resumes:
            // the first gap's id goes back in its own partition only.
            if !self.settings.compacted {
                own.progress_mut().cut.set(partition, end);
            } else if i + 1 == ends.len() {
                own.progress = Some(ClientProgress::start_over());
            }
            self.counts.gaps += 1;
            let missing = (partition, end.offset, to);
            own.put_gap(Some(missing), GapReason::Truncated, self.ids);
        }
    }

    /// Interrupted pages of *changes* if there are any, else the window if it reaches back to what
    /// the client holds, else *changes* or a catch-up read. What retention has taken is written as
    /// gaps.
    fn resume_in_log(&mut self, subscriber: &mut Subscriber, encoding: usize) {
        if subscriber.own().source.on_changes_resumed() {
            return;
        }
        if self.read_window(subscriber, encoding) {
            return;
        }
        for (partition, start) in self.log.lost(&subscriber.own().progress().cut) {
            let own = subscriber.own();
            self.counts.gaps += 1;
            let gap = Notice {
                partition,
                from: own.progress().cut.get(partition).offset,
                to: start.offset,
                reason: GapReason::Retention,
            };
            own.skip(gap, self.ids);
        }
        if self.read_window(subscriber, encoding) {
            return;
        }
        if !self.settings.compacted {
            subscriber.own().source.on_catch_up_needed();
            return;
        }
        let own = subscriber.own();
        let progress = own.progress();
        if !progress.starts_over() && !self.keeps_deletes_since(progress.time) {
            own.progress = Some(ClientProgress::start_over());
            self.counts.gaps += 1;
            own.put_gap(None, GapReason::Tombstones, self.ids);
        }
        self.read_changes(subscriber);
    }

    /// Whether the log still has every delete since `time`. 10 % of the retention are kept as a
    /// margin.
    fn keeps_deletes_since(&self, time: UnixMillis) -> bool {
        let kept = self.settings.delete_retention.as_millis();
        let away = i128::from(self.now.wall.0) - i128::from(time.0);
        away <= i128::try_from(kept / 10 * 9).unwrap_or(i128::MAX)
    }

    /// Reads the window, if it has all that the client lacks.
    fn read_window(&self, subscriber: &mut Subscriber, encoding: usize) -> bool {
        let own = subscriber.own();
        let progress = own.progress();
        if progress.starts_over() {
            return false;
        }
        let Some(seq) = self.log.start_for(encoding, &progress.cut) else {
            return false;
        };
        own.source.on_window_reaches_back();
        subscriber.cursor = Cursor::at(seq);
        true
    }

    /// Reads *changes* from the client's progress to the newest step.
    fn read_changes(&self, subscriber: &mut Subscriber) {
        let changes = Box::new(Changes {
            seq: self.log.newest(),
            below: self.log.cut().clone(),
            time: self.log.time(),
            after: None,
        });
        subscriber.own().source.on_changes_needed(changes);
    }
}
