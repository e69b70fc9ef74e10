//! An event-stream reader that follows the rules of browsers (WHATWG HTML 9.2.6): it dispatches
//! what an `EventSource` would.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::chunks::Chunks;
use super::client::{Connection, PATIENCE, Request};

/// One event as a page receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's name; `message` if the stream has none.
    pub name: String,
    pub data: String,
    /// The value of `lastEventId` at this event.
    pub id: String,
}

/// An open event stream and its parser.
pub struct Events {
    connection: Connection,
    body: Chunks,
    /// Bytes of an incomplete line.
    rest: Vec<u8>,
    /// The last line ended with CR. An LF directly after it belongs to it.
    after_cr: bool,
    name: String,
    data: String,
    has_data: bool,
    /// The `id` field so far, and the last dispatched one.
    id: String,
    last_event_id: String,
    retry: Option<u64>,
    comments: usize,
    positions: usize,
    ended: bool,
}

impl Events {
    /// Opens a stream without an event id.
    pub fn open(address: SocketAddr, target: &str) -> Self {
        Self::ask(address, Request::get(target))
    }

    /// Resumes a stream by an event id, as a browser does. It keeps this id until another arrives.
    pub fn resume(address: SocketAddr, target: &str, last_event_id: &str) -> Self {
        let request = Request::get(target).header("last-event-id", last_event_id);
        let mut events = Self::ask(address, request);
        events.id = last_event_id.to_owned();
        events.last_event_id = last_event_id.to_owned();
        events
    }

    /// Opens a stream by any request.
    pub fn ask(address: SocketAddr, request: Request) -> Self {
        Self::over(Connection::open(address), request)
    }

    /// Resumes a stream, and retries while the topic is being loaded: until then a stream ends with
    /// `retry:` alone.
    pub fn resume_when_ready(address: SocketAddr, target: &str, last_event_id: &str) -> Self {
        let until = Instant::now() + PATIENCE;
        loop {
            let request = Request::get(target).header("last-event-id", last_event_id);
            match Self::try_over(Connection::open(address), request) {
                Ok(mut events) => {
                    if !events.is_sent_away(until) {
                        events.id = last_event_id.to_owned();
                        events.last_event_id = last_event_id.to_owned();
                        return events;
                    }
                }
                Err(other) => panic!("no stream: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the stream ends with only `retry:`. Bytes that have arrived are kept.
    fn is_sent_away(&mut self, until: Instant) -> bool {
        let has = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|it| it == word);
        loop {
            if has(&self.rest, b"id:") || has(&self.rest, b"data:") {
                return false;
            }
            if !self.connection.more(until) {
                return true;
            }
            self.rest.extend(self.connection.take_ahead());
        }
    }

    /// Opens a stream on a connection.
    pub fn over(connection: Connection, request: Request) -> Self {
        let opened = Self::try_over(connection, request);
        opened.unwrap_or_else(|(status, headers)| panic!("{status} {headers:?}"))
    }

    /// Opens a stream, or returns the response's head if it is not a stream.
    fn try_over(
        mut connection: Connection,
        request: Request,
    ) -> Result<Self, (u16, Vec<(String, String)>)> {
        connection.send(&request.header("accept", "text/event-stream").bytes());
        let head = connection.head(Instant::now() + PATIENCE);
        let (status, headers) = head.expect("a stream begins with a head");
        if status != 200 {
            return Err((status, headers));
        }
        let has = |name: &str, value: &str| headers.iter().any(|(n, v)| n == name && v == value);
        assert!(has("content-type", "text/event-stream"), "{headers:?}");
        // RFC 9111 5.2.2.6: `no-transform`, because a compressing proxy would delay events.
        assert!(
            has("cache-control", "no-store, no-transform"),
            "{headers:?}"
        );
        assert!(has("transfer-encoding", "chunked"), "{headers:?}");
        let mut events = Self {
            rest: Vec::new(),
            connection,
            body: Chunks::of_stream(),
            after_cr: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            id: String::new(),
            last_event_id: String::new(),
            retry: None,
            comments: 0,
            positions: 0,
            ended: false,
        };
        events.take_ahead();
        Ok(events)
    }

    /// The next event with a record, or `None` if none arrives in time or the stream ends.
    pub fn next_within(&mut self, time: Duration) -> Option<Event> {
        let until = Instant::now() + time;
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = self.on_line(&line) {
                    return Some(event);
                }
            }
            match self.connection.try_more(until) {
                Ok(true) => self.take_ahead(),
                // A reset, as after a kill, ends a stream like an orderly close.
                Ok(false) => self.ended = true,
                Err(said) if said.contains("reset") => self.ended = true,
                Err(_) => return None,
            }
            if self.ended {
                return None;
            }
        }
    }

    /// The next event. The test fails if none arrives.
    pub fn next(&mut self) -> Event {
        let event = self.next_within(PATIENCE);
        event.unwrap_or_else(|| panic!("no event came; ended: {}", self.ended))
    }

    /// Reads until an id has arrived, at the latest that of the next event. From then on a reader
    /// can resume.
    pub fn wait_for_id(&mut self) -> String {
        let until = Instant::now() + PATIENCE;
        while self.last_event_id.is_empty() {
            while let Some(line) = self.line() {
                assert!(self.on_line(&line).is_none(), "an id comes before events");
                if !self.last_event_id.is_empty() {
                    return self.last_event_id.clone();
                }
            }
            assert!(
                self.connection.more(until),
                "the stream ended before its first id"
            );
            self.take_ahead();
        }
        self.last_event_id.clone()
    }

    /// Decodes the chunks of what has been read.
    fn take_ahead(&mut self) {
        let bytes = self.connection.take_ahead();
        let used = self.body.read(&bytes, &mut self.rest);
        assert_eq!(used, bytes.len(), "nothing comes behind the last chunk");
    }

    /// The `Last-Event-ID` that a browser would send now.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The value of the last `retry:` field.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Number of comments so far, which are heartbeats.
    pub fn comments(&self) -> usize {
        self.comments
    }

    /// Positions so far: ids that arrived as an event without a record.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Whether the server has closed the stream.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the stream ended with its last chunk, so that no event was truncated.
    pub fn ended_whole(&self) -> bool {
        self.ended && self.body.is_whole()
    }

    /// The number of chunks so far.
    pub fn chunks(&self) -> usize {
        self.body.count
    }

    /// The next whole line without its end.
    fn line(&mut self) -> Option<String> {
        if self.after_cr && self.rest.first() == Some(&b'\n') {
            self.rest.remove(0);
        }
        if !self.rest.is_empty() {
            self.after_cr = false;
        }
        let end = self.rest.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        self.after_cr = line[end] == b'\r';
        let line = String::from_utf8(line[..end].to_vec());
        Some(line.expect("an event stream is UTF-8"))
    }

    fn on_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry = value.parse().ok().or(self.retry),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.last_event_id.clone_from(&self.id);
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        data.pop();
        let name = if name.is_empty() {
            "message".to_owned()
        } else {
            name
        };
        let id = self.last_event_id.clone();
        if name == "position" {
            assert_eq!(data, "{}", "a position shows no record");
            self.positions += 1;
            return None;
        }
        Some(Event { name, data, id })
    }
}
