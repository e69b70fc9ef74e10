//! What a metric is made of: counters, gauges and histograms as plain integers, and each of them
//! split by an enum.

use std::time::Duration;

use super::Histogram;
use super::text::Samples;

/// Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter(pub u64);

/// Goes up and down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge(pub u64);

/// Time that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Counter {
    /// One more.
    pub fn bump(&mut self) {
        self.0 += 1;
    }

    /// `n` more.
    pub fn add(&mut self, n: u64) {
        self.0 += n;
    }
}

impl Gauge {
    /// One more.
    pub fn up(&mut self) {
        self.0 += 1;
    }

    /// One less.
    pub fn down(&mut self) {
        debug_assert!(self.0 > 0, "what goes down went up before");
        self.0 = self.0.saturating_sub(1);
    }

    /// Exactly this.
    pub fn set(&mut self, n: u64) {
        self.0 = n;
    }
}

/// A closed set of label values: an enum, so that nothing a client sends becomes a label.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of their discriminants from 0.
    const ALL: &'static [Self];
    /// Its place in `ALL`.
    fn index(self) -> usize;
    /// The label's value.
    fn as_str(self) -> &'static str;
}

/// One of `T` for each value of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By<L, T> {
    each: Box<[T]>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label, T: Clone + Default> Default for By<L, T> {
    fn default() -> Self {
        Self {
            each: vec![T::default(); L::ALL.len()].into(),
            label: std::marker::PhantomData,
        }
    }
}

impl<L: Label, T> By<L, T> {
    /// The one for `label`.
    pub fn at(&mut self, label: L) -> &mut T {
        &mut self.each[label.index()]
    }

    /// The one for `label`, to read.
    #[must_use]
    pub fn get(&self, label: L) -> &T {
        &self.each[label.index()]
    }
}

impl<L: Label> By<L, Counter> {
    /// One more of `label`.
    pub fn bump(&mut self, label: L) {
        self.at(label).bump();
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.each.iter().map(|it| it.0).sum()
    }
}

/// A type that a family of metrics can have.
pub(super) trait Family {
    /// The `TYPE` of the exposition.
    const TYPE: &'static str;
    /// The labels it adds, if it is split by some.
    fn labels() -> Vec<&'static str> {
        Vec::new()
    }
    /// Adds another shard's.
    fn merge(&mut self, other: &Self);
    /// Writes its samples.
    fn write(&self, out: &mut Samples<'_>);
}

impl Family for Counter {
    const TYPE: &'static str = "counter";

    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn write(&self, out: &mut Samples<'_>) {
        out.integer("", self.0);
    }
}

impl Family for Seconds {
    const TYPE: &'static str = "counter";

    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn write(&self, out: &mut Samples<'_>) {
        out.real("", self.0.as_secs_f64());
    }
}

impl Family for Gauge {
    const TYPE: &'static str = "gauge";

    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn write(&self, out: &mut Samples<'_>) {
        out.integer("", self.0);
    }
}

impl Family for Histogram {
    const TYPE: &'static str = "histogram";

    fn merge(&mut self, other: &Self) {
        Self::merge(self, other);
    }

    fn write(&self, out: &mut Samples<'_>) {
        out.histogram(self);
    }
}

impl<L: Label, T: Family> Family for By<L, T> {
    const TYPE: &'static str = T::TYPE;

    fn labels() -> Vec<&'static str> {
        [vec![L::NAME], T::labels()].concat()
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.each.iter_mut().zip(&other.each) {
            mine.merge(theirs);
        }
    }

    fn write(&self, out: &mut Samples<'_>) {
        for (label, each) in L::ALL.iter().zip(&self.each) {
            out.labelled(L::NAME, label.as_str(), |out| each.write(out));
        }
    }
}
