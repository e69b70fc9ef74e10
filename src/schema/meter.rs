//! A body as the validator sees it: the tree, and a meter that counts each visit of a value.
//!
//! The validator has no limit of its own. A keyword such as `anyOf` that leads to itself visits the
//! leaves of a body once for every path to them, so a body of 240 bytes can take for ever; and the
//! validator collects every violation before it returns the first. Once the meter is spent, every
//! array and object appears to be empty: what runs ends soon, and its result is void.

use std::borrow::Cow;
use std::cell::Cell;

use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use jsonschema::{JsonType, ValidationError};
use serde_json::{Map, Number, Value};

use super::Effort;

/// Bytes of a string that count as one step. To match a pattern takes a few ns per byte.
const STRING_BYTES_PER_STEP: usize = 8;

/// What is left of an [`Effort`].
#[derive(Debug)]
pub(super) struct Meter {
    steps: Cell<u64>,
    violations: Cell<u32>,
}

impl Meter {
    pub(super) const fn new(effort: Effort) -> Self {
        Self {
            steps: Cell::new(effort.steps),
            violations: Cell::new(effort.violations),
        }
    }

    /// Whether a limit was reached, so that no later result counts.
    pub(super) fn is_spent(&self) -> bool {
        self.steps.get() == 0 || self.violations.get() == 0
    }

    /// Counts steps. Returns false once a limit is reached.
    fn take(&self, steps: usize) -> bool {
        let left = self.steps.get().saturating_sub(steps as u64);
        self.steps.set(left);
        !self.is_spent()
    }

    /// Counts a violation. Returns false once a limit is reached.
    fn take_violation(&self) -> bool {
        let left = self.violations.get().saturating_sub(1);
        self.violations.set(left);
        !self.is_spent()
    }
}

/// The representation of JSON that counts.
#[derive(Debug)]
pub(super) struct Metered;

/// A value of a body. `meter` is `None` for the name of a member, which has no values inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeteredValue<'a> {
    value: &'a Value,
    meter: Option<&'a Meter>,
}

impl<'a> MeteredValue<'a> {
    pub(super) const fn new(value: &'a Value, meter: &'a Meter) -> Self {
        Self {
            value,
            meter: Some(meter),
        }
    }

    fn take(&self, steps: usize) -> bool {
        self.meter.is_none_or(|meter| meter.take(steps))
    }

    /// The same meter at a value inside.
    const fn inner(&self, value: &'a Value) -> Self {
        Self {
            value,
            meter: self.meter,
        }
    }
}

impl Json for Metered {
    type Node<'a> = MeteredValue<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        buffer: &mut Value,
        string: &str,
        f: impl FnOnce(MeteredValue<'_>) -> T,
    ) -> T {
        *buffer = Value::String(string.to_owned());
        f(MeteredValue {
            value: buffer,
            meter: None,
        })
    }
}

impl<'a> Node<'a, Metered> for MeteredValue<'a> {
    type Object = MeteredObject<'a>;
    type Array = MeteredArray<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<MeteredObject<'a>> {
        let members = self.value.as_object()?;
        let at = *self;
        Some(MeteredObject { at, members })
    }

    fn as_array(&self) -> Option<MeteredArray<'a>> {
        let items = self.value.as_array()?;
        let at = *self;
        Some(MeteredArray { at, items })
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.value.as_str()?;
        self.take(1 + text.len() / STRING_BYTES_PER_STEP);
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn json_type(&self) -> JsonType {
        match self.value {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        cmp::equal(self.value, expected)
    }

    /// Called for each violation, and for nothing else. What is made after a limit was reached gets
    /// a value of its own, by which [`is_void`] knows it.
    fn to_value(&self) -> Cow<'a, Value> {
        match self.meter {
            Some(meter) if !meter.take_violation() => Cow::Owned(Value::Null),
            _ => Cow::Borrowed(self.value),
        }
    }

    fn identity(&self) -> Option<NodeIdentity> {
        let address = std::ptr::from_ref::<Value>(self.value);
        Some(NodeIdentity::new(address as usize))
    }
}

/// Whether a violation was made after a limit was reached: a part of the body that appeared to be
/// empty may have caused it.
pub(super) fn is_void(violation: &ValidationError<'_>) -> bool {
    matches!(violation.instance(), Cow::Owned(_))
}

#[derive(Clone, Copy)]
pub(super) struct MeteredObject<'a> {
    at: MeteredValue<'a>,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a, Metered> for MeteredObject<'a> {
    type Node = MeteredValue<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, key: &String) -> Option<MeteredValue<'a>> {
        if !self.at.take(1) {
            return None;
        }
        let value = self.members.get(key.as_str())?;
        Some(self.at.inner(value))
    }

    fn members(&self) -> Members<'a> {
        let (at, members) = (self.at, self.members.iter());
        Members { at, members }
    }
}

pub(super) struct Members<'a> {
    at: MeteredValue<'a>,
    members: serde_json::map::Iter<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, MeteredValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if !self.at.take(1) {
            return None;
        }
        let (name, value) = self.members.next()?;
        Some((name.as_str(), self.at.inner(value)))
    }
}

#[derive(Clone, Copy)]
pub(super) struct MeteredArray<'a> {
    at: MeteredValue<'a>,
    items: &'a [Value],
}

impl<'a> Array<'a, Metered> for MeteredArray<'a> {
    type Node = MeteredValue<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn elements(&self) -> Elements<'a> {
        let (at, items) = (self.at, self.items.iter());
        Elements { at, items }
    }

    fn is_unique(&self) -> bool {
        // It hashes every value inside.
        self.at.take(self.items.len()) && jsonschema::json::unique::is_unique(self.items)
    }
}

pub(super) struct Elements<'a> {
    at: MeteredValue<'a>,
    items: std::slice::Iter<'a, Value>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = MeteredValue<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.at.take(1) {
            return None;
        }
        Some(self.at.inner(self.items.next()?))
    }
}
