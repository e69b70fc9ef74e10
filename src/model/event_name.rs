//! Names of a stream's data events.

use std::fmt;

/// The name of a route's data events: text without control characters that is not one of the
/// gateway's own events ([`EventName::RESERVED`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(Box<str>);

impl EventName {
    /// Most bytes of a name.
    pub const LEN_MAX: usize = 128;

    /// Names with a fixed meaning: events of the gateway, and `error`, which browsers raise
    /// themselves when a connection fails.
    pub const RESERVED: [&'static str; 6] =
        ["base64", "challenge", "delete", "error", "gap", "position"];

    /// Creates a name, if it is valid.
    ///
    /// # Errors
    /// A sentence that describes the problem.
    pub fn new(name: &str) -> Result<Self, &'static str> {
        match name {
            "" => Err("an event name can't be empty"),
            _ if name.len() > Self::LEN_MAX => Err("an event name has at most 128 bytes"),
            _ if name.chars().any(char::is_control) => {
                Err("an event name can't have control characters")
            }
            // A reader removes one leading space (WHATWG HTML 9.2.6, "process the field").
            _ if name.starts_with(' ') => Err("an event name can't start with a space"),
            _ if Self::RESERVED.contains(&name) => Err(
                "`base64`, `challenge`, `delete`, `error`, `gap` and `position` are events of the \
                 gateway's own",
            ),
            _ => Ok(Self(name.into())),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_and_none_of_the_streams_own() {
        for name in ["a\rb", "a\nb", "a\r\nb", "a\0b", "", " a"] {
            assert!(EventName::new(name).is_err(), "{name:?}");
        }
        for name in EventName::RESERVED {
            let why = EventName::new(name).expect_err("it is reserved");
            assert!(why.contains(&format!("`{name}`")), "{name}: {why}");
        }
        let name = EventName::new("zahlung: ä").expect("a name");
        assert_eq!(name.as_str(), "zahlung: ä");
    }
}
