//! The types of metrics: counters, gauges and histograms as plain integers, each optionally split
//! by an enum.

use std::time::Duration;

use super::Histogram;
use super::text::Samples;

/// A number that only increases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter(pub u64);

/// A number that increases and decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge(pub u64);

/// A sum of times, exposed in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Counter {
    /// Increases the counter by one.
    pub fn bump(&mut self) {
        self.0 += 1;
    }

    /// Increases the counter by `n`.
    pub fn add(&mut self, n: u64) {
        self.0 += n;
    }
}

impl Gauge {
    /// Increases the gauge by one.
    pub fn up(&mut self) {
        self.0 += 1;
    }

    /// Decreases the gauge by one.
    pub fn down(&mut self) {
        debug_assert!(self.0 > 0, "what goes down went up before");
        self.0 = self.0.saturating_sub(1);
    }

    /// Sets the gauge to `n`.
    pub fn set(&mut self, n: u64) {
        self.0 = n;
    }
}

/// An enum of label values. The set is closed, so that text from clients never becomes a label.
pub trait Label: Copy + 'static {
    /// Name of the label in the exposition.
    const NAME: &'static str;
    /// All values, in order of their discriminants from 0.
    const ALL: &'static [Self];
    /// Index of the value in `ALL`.
    fn index(self) -> usize;
    /// Text of the value in the exposition.
    fn as_str(self) -> &'static str;
}

/// One `T` for each value of the label `L`.
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
    /// The `T` of `label`, for changing it.
    pub fn at(&mut self, label: L) -> &mut T {
        &mut self.each[label.index()]
    }

    /// The `T` of `label`, for reading it.
    #[must_use]
    pub fn get(&self, label: L) -> &T {
        &self.each[label.index()]
    }
}

impl<L: Label> By<L, Counter> {
    /// Increases the counter of `label` by one.
    pub fn bump(&mut self, label: L) {
        self.at(label).bump();
    }

    /// Returns the sum over all label values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.each.iter().map(|it| it.0).sum()
    }
}

/// A type of metric family.
pub(super) trait Family {
    /// The family's `TYPE` in the exposition.
    const TYPE: &'static str;
    /// Names of the labels that the type adds.
    fn labels() -> Vec<&'static str> {
        Vec::new()
    }
    /// Adds the values of another shard.
    fn merge(&mut self, other: &Self);
    /// Writes the samples of the family.
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
