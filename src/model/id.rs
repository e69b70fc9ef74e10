//! Numbers of topics, clusters and routes. The registry of the process assigns them
//! (`shard/registry.rs`): a name has the same number in every snapshot, and no number is used for a
//! second name. So a message or an in-flight request may outlive the snapshot that it was made
//! under.

use std::marker::PhantomData;

/// A number assigned in order from 0. A table of numbers is a dense vector.
pub trait Id: Copy {
    /// The number with an index of a table. `None` if the type has no such number.
    fn at(index: usize) -> Option<Self>;
    /// The index of the number in a table.
    fn index(self) -> usize;
}

macro_rules! ids {
    ($( $(#[doc = $doc:literal])+ $Id:ident($int:ty) )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Id(pub $int);

        impl Id for $Id {
            fn at(index: usize) -> Option<Self> {
                <$int>::try_from(index).ok().map(Self)
            }

            fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )+ };
}

ids! {
    /// Number of a topic of a cluster. It is not Kafka's topic id, a UUID that identifies an
    /// incarnation.
    TopicId(u16)
    /// Number of a cluster. The one of `[kafka]` is 0.
    ClusterId(u8)
    /// Number of a route of any kind.
    RouteId(u16)
}

/// A table of values by their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdTable<I, T> {
    slots: Vec<Option<T>>,
    ids: PhantomData<I>,
}

impl<I, T> Default for IdTable<I, T> {
    fn default() -> Self {
        let (slots, ids) = (Vec::new(), PhantomData);
        Self { slots, ids }
    }
}

impl<I: Id, T> IdTable<I, T> {
    /// The value of a number, if it has one.
    #[must_use]
    pub fn get(&self, id: I) -> Option<&T> {
        self.slots.get(id.index())?.as_ref()
    }

    /// The value of a number, to change it.
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    /// Sets the value of a number and returns the earlier one.
    pub fn insert(&mut self, id: I, value: T) -> Option<T> {
        let index = id.index();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index].replace(value)
    }

    /// Every number that has a value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((I::at(index)?, slot.as_ref()?)))
    }

    /// The values, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(index, slot)| Some((I::at(index)?, slot.as_mut()?)))
    }

    /// The values in the order of their numbers.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// One past the highest number that has had a value: the length of a parallel table.
    #[must_use]
    pub fn end(&self) -> usize {
        self.slots.len()
    }
}
