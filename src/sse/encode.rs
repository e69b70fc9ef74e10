//! Events as bytes: what the home does once per record and encoding.

use crate::log::{Batch, Block, Cut, GapReason};
use crate::model::{LogTag, Offset, Partition, UnixMillis};

/// The name of a stream's events, from the config. Text without control characters, not one of the
/// names the stream itself uses ([`EventName::RESERVED`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(Box<str>);

impl EventName {
    /// Names with a meaning of their own on every stream.
    pub const RESERVED: [&'static str; 4] = ["base64", "challenge", "delete", "gap"];

    /// Checks a name.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn new(name: &str) -> Result<Self, &'static str> {
        match name {
            "" => Err("an event name can't be empty"),
            _ if name.len() > 128 => Err("an event name has at most 128 bytes"),
            _ if name.chars().any(char::is_control) => {
                Err("an event name can't have control characters")
            }
            _ if name.starts_with(' ') => Err("an event name can't start with a space"),
            _ if Self::RESERVED.contains(&name) => {
                Err("`base64`, `challenge`, `delete` and `gap` are events of the stream itself")
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// As text; a value that is not UTF-8 as base64 under `event: base64`.
    #[default]
    Auto,
    /// Every value as base64 (RFC 4648 4, padded), under the stream's own event name.
    Base64,
}

/// One way to write a topic's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The name of data events; `None`: no `event:` line, so `onmessage` gets them.
    pub event: Option<EventName>,
    /// How values are written.
    pub payload: Payload,
}

/// Writes a topic's blocks under one encoding, at its home.
#[derive(Debug)]
pub struct Encoder;

impl Encoder {
    /// An encoder for the log with this tag.
    #[must_use]
    pub fn new(_encoding: Encoding, _tag: LogTag) -> Self {
        todo!()
    }

    /// The events of a batch, which leads from `before` to `after`; `time` as [`crate::log::Step`]
    /// has it. `None` if the batch has no record.
    pub fn records(
        &mut self,
        _batch: &Batch,
        _before: &Cut,
        _after: &Cut,
        _time: UnixMillis,
    ) -> Option<Block> {
        todo!()
    }

    /// A `gap` for every stream of the topic, for a step whose change is `Gap` or `Truncate`; its
    /// id is `after`.
    pub fn gap(
        &mut self,
        _partition: Partition,
        _from: Offset,
        _to: Offset,
        _reason: GapReason,
        _after: &Cut,
        _time: UnixMillis,
    ) -> Block {
        todo!()
    }
}
