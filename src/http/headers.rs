//! The headers of a request: places in its head, looked up without regard to case.

use super::list;
use super::problem::{Fault, Refusal};

/// Where one header lies in the head. 16 bits each: a head is at most 65,535 bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: u16,
    name_len: u16,
    value: u16,
    value_len: u16,
}

/// Where the headers of one head lie. A shard has one table and uses it for every request, so that
/// a [`Request`](super::Request) is a few words and its headers are written once.
#[derive(Debug, Default)]
pub struct HeaderTable {
    places: Vec<Place>,
}

impl HeaderTable {
    /// A table without a head.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Starts a head. The parser adds at most [`HEADERS_MAX`](super::HEADERS_MAX) headers.
    pub(super) fn clear(&mut self) {
        self.places.clear();
    }

    /// Adds a header. Both parts are slices of `head`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "HEAD_BYTES_MAX is u16::MAX"
    )]
    pub(super) fn push(&mut self, head: &[u8], name: &str, value: &[u8]) {
        debug_assert!(
            head.len() <= super::limits::HEAD_BYTES_MAX,
            "limits are clamped"
        );
        let start = head.as_ptr() as usize;
        let place = |part: &[u8]| (part.as_ptr() as usize).wrapping_sub(start) as u16;
        self.places.push(Place {
            name: place(name.as_bytes()),
            name_len: name.len() as u16,
            value: place(value),
            value_len: value.len() as u16,
        });
    }

    /// The headers of `head`, from which these places were taken.
    pub(super) fn headers<'b>(&'b self, head: &'b [u8]) -> Headers<'b> {
        let places = &self.places;
        Headers { head, places }
    }
}

/// The headers of a request in their order. Names are tokens without `_`; values hold no control
/// byte but the tab, and no whitespace at either end, but any byte from 0x80 up.
#[derive(Clone, Copy, Default)]
pub struct Headers<'b> {
    head: &'b [u8],
    places: &'b [Place],
}

impl<'b> Headers<'b> {
    #[expect(
        clippy::indexing_slicing,
        reason = "`HeaderTable::push` took the place from this head"
    )]
    fn name(&self, place: Place) -> &'b [u8] {
        let at = usize::from(place.name);
        &self.head[at..at + usize::from(place.name_len)]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`HeaderTable::push` took the place from this head"
    )]
    fn value(&self, place: Place) -> &'b [u8] {
        let at = usize::from(place.value);
        &self.head[at..at + usize::from(place.value_len)]
    }

    /// The number of header lines.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the head has no header lines.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The first value of `name`. Use [`one`](Self::one) if repetition would matter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.get_all(name).next()
    }

    /// The value of `name`, which may occur once.
    ///
    /// # Errors
    /// The name occurs twice: which of two values counts must never depend on the reader.
    pub fn one(&self, name: &str) -> Result<Option<&'b [u8]>, Refusal> {
        let mut all = self.get_all(name);
        let first = all.next();
        match all.next() {
            Some(_) => Err(Refusal::new(
                Fault::MalformedHeader,
                "a header that may stand only once is repeated",
            )),
            None => Ok(first),
        }
    }

    /// All values under `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + 'a {
        self.places
            .iter()
            .filter(move |place| {
                usize::from(place.name_len) == name.len()
                    && self.name(**place).eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|place| self.value(*place))
    }

    /// Whether the comma-separated lists under `name` hold `member`, compared without regard to
    /// case (`Connection`, `Cache-Control`).
    #[must_use]
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.get_all(name)
            .flat_map(list::members)
            .any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Names as they were sent, and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + '_ {
        self.places.iter().map(|place| {
            let name = std::str::from_utf8(self.name(*place)).expect("tokens are ASCII");
            (name, self.value(*place))
        })
    }

    /// Like [`iter`](Self::iter), without the headers that `Connection` names: those are meant for
    /// this recipient alone, and a gateway must not forward them (RFC 9110 7.6.1).
    pub fn end_to_end(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + '_ {
        let names_some = self.get("connection").is_some();
        let ends_here = move |name: &str| names_some && self.lists("connection", name);
        self.iter().filter(move |(name, _)| !ends_here(name))
    }
}

impl std::fmt::Debug for Headers<'_> {
    /// Names only: values may be credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(n, _)| n)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Limits, Received};
    use super::*;

    #[test]
    fn what_connection_names_ends_here() {
        let head = "GET / HTTP/1.1\r\nhost: x\r\nX-Tenant: a\r\nconnection: close, x-TENANT\r\n\
                    x-other: b\r\nConnection: X-Third\r\nx-third: c\r\nx-tenant: d\r\n\r\n";
        let mut connection = Connection::new();
        let mut table = HeaderTable::new();
        let received = connection.receive(head.as_bytes(), &Limits::default(), &mut table);
        let Received::Request(request, _) = received else {
            panic!("not a request");
        };
        let names = request.headers.end_to_end().map(|(name, _)| name);
        let names: Vec<&str> = names.collect();
        assert_eq!(
            names,
            ["host", "connection", "x-other", "Connection"],
            "RFC 9110 7.6.1"
        );
    }
}
