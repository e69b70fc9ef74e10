//! Checks one stream by the numbers in its records: none may be missing and none repeated, over all
//! of its connections. Each event must also have a new id.

use ahash::AHashMap;

use crate::record::Stamp;

/// What is wrong with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// So many events of its lane are missing before it.
    Missing(u64),
    /// It arrived before, or after a later one of its lane.
    Twice,
    /// It has no id, or that of the event before.
    WithoutId,
}

impl Fault {
    /// The kind as reports name it.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Twice => "twice",
            Self::WithoutId => "without_id",
        }
    }
}

/// The state of one stream's check.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The writer starts after the stream is open, so its first record must arrive too.
    whole: bool,
    writer: u64,
    /// The number of the next record of each lane.
    next: AHashMap<u32, u64>,
    last_id: Vec<u8>,
}

impl Ledger {
    pub(crate) fn new(whole: bool) -> Self {
        Self {
            whole,
            writer: 0,
            next: AHashMap::new(),
            last_id: Vec::new(),
        }
    }

    /// The id of the last event, by which the stream resumes.
    pub(crate) fn last_id(&self) -> &[u8] {
        &self.last_id
    }

    /// An id without an event's record: a position.
    pub(crate) fn on_position(&mut self, id: Option<&[u8]>) {
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            self.last_id.clear();
            self.last_id.extend_from_slice(id);
        }
    }

    /// Checks an event against those before it.
    pub(crate) fn on_event(
        &mut self,
        stamp: &Stamp,
        id: Option<&[u8]>,
        mut fault: impl FnMut(Fault),
    ) {
        match id {
            Some(id) if !id.is_empty() && id != self.last_id => {
                self.last_id.clear();
                self.last_id.extend_from_slice(id);
            }
            _ => fault(Fault::WithoutId),
        }
        if stamp.writer != self.writer {
            self.writer = stamp.writer;
            self.next.clear();
        }
        let first = if self.whole { 0 } else { stamp.number };
        let next = self.next.entry(stamp.lane).or_insert(first);
        if stamp.number < *next {
            fault(Fault::Twice);
            return;
        }
        if stamp.number > *next {
            fault(Fault::Missing(stamp.number - *next));
        }
        *next = stamp.number + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp {
            writer: 7,
            lane: 2,
            number,
            due_us: 0,
        }
    }

    fn faults(whole: bool, numbers: &[u64]) -> Vec<Fault> {
        let (mut ledger, mut faults) = (Ledger::new(whole), Vec::new());
        for (id, &number) in numbers.iter().enumerate() {
            let id = format!("{id}");
            ledger.on_event(&stamp(number), Some(id.as_bytes()), |it| faults.push(it));
        }
        faults
    }

    #[test]
    fn each_fault_is_told_apart() {
        assert_eq!(faults(false, &[5, 6, 7]), []);
        assert_eq!(faults(false, &[5, 8]), [Fault::Missing(2)]);
        assert_eq!(faults(false, &[5, 6, 6, 7]), [Fault::Twice]);
        assert_eq!(faults(false, &[5, 6, 5, 7]), [Fault::Twice]);
        assert_eq!(faults(true, &[2, 3]), [Fault::Missing(2)]);
    }

    #[test]
    fn every_event_has_a_new_id() {
        let (mut ledger, mut faults) = (Ledger::new(false), Vec::new());
        for (number, id) in [None, Some(&b"a"[..]), Some(b"a"), Some(b"")]
            .into_iter()
            .enumerate()
        {
            ledger.on_event(&stamp(number as u64), id, |it| faults.push(it));
        }
        assert_eq!(faults, [Fault::WithoutId; 3]);
        ledger.on_position(Some(b"p"));
        ledger.on_position(None);
        assert_eq!(ledger.last_id(), b"p");
    }
}
