//! Where a client resumes its stream: the header `Last-Event-ID`, or a query parameter for clients
//! that can't set a header.

use std::borrow::Cow;

use super::problem::{Fault, Refusal};
use super::request::Request;

/// The id that a request carries, if it is not empty. The header takes precedence over the query:
/// an `EventSource` that reconnects sends its new id in the header and the old one in its address.
///
/// # Errors
/// The header is repeated, or query parameters name different ids. Which of two ids counts must
/// never depend on the reader.
pub fn last_event_id<'b>(request: &Request<'b>) -> Result<Option<Cow<'b, [u8]>>, Refusal> {
    let header = request.headers.one("last-event-id")?;
    let mut named = request.query.pairs().filter(|(name, _)| is_spelling(name));
    let first = named.next().map(|(_, value)| value);
    if let Some(first) = &first
        && named.any(|(_, value)| value != *first)
    {
        let detail = "the query has two different values of `lastEventId`";
        return Err(Refusal::new(Fault::AmbiguousTarget, detail));
    }
    let header = header.filter(|id| !id.is_empty()).map(Cow::Borrowed);
    let query = first.filter(|id| !id.is_empty()).map(|id| match id {
        Cow::Borrowed(id) => Cow::Borrowed(id.as_bytes()),
        Cow::Owned(id) => Cow::Owned(id.into_bytes()),
    });
    Ok(header.or(query))
}

/// Whether a name is `lastEventId`, ignoring case and separators. Client libraries have no common
/// spelling: `lastEventId`, `lastEventID`, `last_event_id`, `Last-Event-ID`.
fn is_spelling(name: &str) -> bool {
    let letters = name.bytes();
    let letters = letters.filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b' '));
    letters
        .map(|byte| byte.to_ascii_lowercase())
        .eq(*b"lasteventid")
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, HeaderTable, Limits, Received};
    use super::*;

    fn read(query: &str, headers: &str) -> Result<Option<String>, Fault> {
        let bytes = format!("GET /events{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let mut connection = Connection::new();
        match connection.receive(
            bytes.as_bytes(),
            &Limits::default(),
            &mut HeaderTable::new(),
        ) {
            Received::Request(request, _) => match last_event_id(&request) {
                Ok(id) => {
                    Ok(id.map(|id| String::from_utf8(id.into_owned()).expect("the test's own")))
                }
                Err(refusal) => Err(refusal.fault),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_spelling_is_read_that_differs_in_case_and_separators() {
        for name in [
            "lastEventId",
            "lastEventID",
            "LASTEVENTID",
            "lasteventid",
            "last_event_id",
            "last-event-id",
            "Last-Event-ID",
            "Last.Event.Id",
            "last+event%20id",
            "last%5Fevent%2Did",
            "_last__event--id",
        ] {
            let id = read(&format!("?x=y&{name}=A.b%2D1&z"), "");
            assert_eq!(id, Ok(Some("A.b-1".into())), "{name}");
        }
        for name in [
            "id",
            "lastEvent",
            "lastEventIds",
            "xlastEventId",
            "last/EventId",
        ] {
            assert_eq!(read(&format!("?{name}=A"), ""), Ok(None), "{name}");
        }
    }

    #[test]
    fn the_header_wins_unless_it_is_empty() {
        let query = "?lastEventId=old";
        assert_eq!(
            read(query, "Last-Event-ID: new\r\n"),
            Ok(Some("new".into()))
        );
        assert_eq!(read(query, "last-event-id:\r\n"), Ok(Some("old".into())));
        assert_eq!(read("", "last-event-id:\r\n"), Ok(None));
        assert_eq!(read("?lastEventId=", ""), Ok(None));
        assert_eq!(read("?lastEventId", ""), Ok(None));
    }

    #[test]
    fn two_ids_are_refused_and_one_said_twice_is_not() {
        let equal = "Last-Event-ID: A\r\nlast-event-id: A\r\n";
        assert_eq!(read("", equal), Err(Fault::MalformedHeader));
        assert_eq!(
            read("?lastEventId=A&last_event_id=B", ""),
            Err(Fault::AmbiguousTarget)
        );
        assert_eq!(
            read("?lastEventId=A&lastEventId=", "Last-Event-ID: C\r\n"),
            Err(Fault::AmbiguousTarget)
        );
        assert_eq!(
            read("?lastEventId=A&Last-Event-ID=A", ""),
            Ok(Some("A".into()))
        );
    }
}
