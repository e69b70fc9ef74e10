//! Checks one stream by the numbers in its records: none may be missing and none repeated. Each
//! event must also have a new id.

use crate::record::Stamp;

/// Number of violations of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Events that are missing before a later one.
    pub(crate) missing: u64,
    /// Events that arrived again, or late.
    pub(crate) twice: u64,
    /// Events without an id, or with the id of the previous event.
    pub(crate) without_id: u64,
}

/// The state of one stream's check.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The writer starts after the stream is open, so its first record must arrive too.
    whole: bool,
    writer: u64,
    /// The number of the next record of each partition. `None` before the first.
    next: Vec<Option<u64>>,
    last_id: Vec<u8>,
}

impl Ledger {
    pub(crate) const fn new(whole: bool) -> Self {
        Self {
            whole,
            writer: 0,
            next: Vec::new(),
            last_id: Vec::new(),
        }
    }

    /// Checks an event against those before it.
    pub(crate) fn note(&mut self, stamp: &Stamp, id: Option<&[u8]>, faults: &mut Faults) {
        match id {
            Some(id) if !id.is_empty() && id != self.last_id => {
                self.last_id.clear();
                self.last_id.extend_from_slice(id);
            }
            _ => faults.without_id += 1,
        }
        if stamp.writer != self.writer {
            self.writer = stamp.writer;
            self.next.clear();
        }
        let partition = stamp.partition as usize;
        if partition >= self.next.len() {
            self.next.resize(partition + 1, None);
        }
        let next = &mut self.next[partition];
        let first = if self.whole { 0 } else { stamp.number };
        let expected = next.unwrap_or(first);
        faults.missing += stamp.number.saturating_sub(expected);
        if stamp.number < expected {
            faults.twice += 1;
        }
        *next = Some(expected.max(stamp.number + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(whole: bool, numbers: &[u64]) -> Faults {
        let (mut ledger, mut faults) = (Ledger::new(whole), Faults::default());
        for (id, &number) in numbers.iter().enumerate() {
            let stamp = Stamp {
                writer: 7,
                partition: 2,
                number,
                due_us: 0,
            };
            ledger.note(&stamp, Some(format!("{id}").as_bytes()), &mut faults);
        }
        faults
    }

    #[test]
    fn each_fault_is_told_apart() {
        assert_eq!(faults(false, &[5, 6, 7]), Faults::default());
        assert_eq!(faults(false, &[5, 8]).missing, 2);
        assert_eq!(faults(false, &[5, 6, 6, 7]).twice, 1);
        assert_eq!(faults(false, &[5, 6, 5, 7]).twice, 1);
        assert_eq!(faults(true, &[2, 3]).missing, 2);
        let stamp = Stamp {
            writer: 1,
            partition: 0,
            number: 0,
            due_us: 0,
        };
        let (mut ledger, mut faults) = (Ledger::new(false), Faults::default());
        ledger.note(&stamp, None, &mut faults);
        let stamp = Stamp { number: 1, ..stamp };
        ledger.note(&stamp, Some(b"a"), &mut faults);
        let stamp = Stamp { number: 2, ..stamp };
        ledger.note(&stamp, Some(b"a"), &mut faults);
        assert_eq!(faults.without_id, 2);
    }
}
