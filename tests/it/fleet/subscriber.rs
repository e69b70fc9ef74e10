//! A client of event streams: it reads, is cut anywhere, and resumes by its last id at any gateway.
//! The events it received are compared with the topic's records.

use sluicegate::shard::SocketId;

use crate::chunks::Chunks;

/// One event, as a browser would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The `event:` field; empty if there was none.
    pub(super) name: String,
    /// The `data:` lines, joined by line breaks.
    pub(super) data: String,
    /// The newest id at this event.
    pub(super) id: String,
    /// Number of the connection that it arrived on.
    pub(super) connection: u32,
    /// Whether that connection started without a valid id.
    pub(super) fresh: bool,
}

/// A client of one event stream.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The path that it requests.
    pub(super) path: String,
    /// The key it filters by, if any.
    pub(super) key: Option<String>,
    /// Its connection: gateway, shard, socket.
    pub(super) at: Option<(usize, (usize, SocketId))>,
    /// The `Last-Event-ID` that it sends next.
    pub(super) last_id: String,
    /// The first id that it received: the start of a live stream.
    pub(super) first_id: Option<String>,
    /// The events that it has received.
    pub(super) events: Vec<Event>,
    /// Number of connections that it has made.
    pub(super) connections: u32,
    /// Bytes of an incomplete line on the current connection.
    line: Vec<u8>,
    head: bool,
    /// The parser of an HTTP/1.1 response's body. A body of HTTP/1.0 has no framing.
    body: Option<Chunks>,
    data: Vec<u8>,
    /// Chunks that were read completely.
    pub(super) chunks: u64,
    fresh: bool,
    fields: (String, Option<String>),
    /// An id without its blank line yet. If the connection is cut, the id is discarded with its
    /// event.
    pending_id: Option<String>,
    /// Number of responses other than 200.
    pub(super) refusals: u32,
    /// The client stores an id only with an event, as many libraries do.
    forgetful: bool,
    /// The client reads nothing now, like a phone in a tunnel.
    pub(super) stalled: bool,
}

impl Subscriber {
    pub(super) fn new(path: String, key: Option<String>) -> Self {
        Self {
            path,
            key,
            at: None,
            last_id: String::new(),
            first_id: None,
            events: Vec::new(),
            connections: 0,
            line: Vec::new(),
            head: true,
            body: None,
            data: Vec::new(),
            chunks: 0,
            fresh: true,
            fields: (String::new(), None),
            pending_id: None,
            refusals: 0,
            forgetful: false,
            stalled: false,
        }
    }

    /// A client that stores an id only with an event.
    pub(super) fn forgetful(self, forgetful: bool) -> Self {
        Self { forgetful, ..self }
    }

    /// Starts a new connection. Incomplete lines of the last one are discarded, as in a browser.
    pub(super) fn request(&mut self) -> String {
        self.connections += 1;
        self.line.clear();
        self.head = true;
        // A quarter of the connections goes through an HTTP/1.0 proxy.
        let old = self.connections % 4 == 3;
        self.body = (!old).then(Chunks::of_stream);
        self.fields = (String::new(), None);
        self.pending_id = None;
        self.fresh = self.last_id.is_empty() || self.last_id.starts_with('-');
        let id = match self.last_id.as_str() {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
        format!("GET {} {version}\r\nHost: fleet\r\n{id}\r\n", self.path)
    }

    /// Bytes of the stream have arrived.
    pub(super) fn on_bytes(&mut self, mut bytes: &[u8]) {
        while self.head
            && let Some((&byte, rest)) = bytes.split_first()
        {
            bytes = rest;
            self.line.push(byte);
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8(line).expect("a head is ASCII");
                self.on_head(line.strip_suffix("\r\n").expect("a line of a head"));
            }
        }
        let mut data = std::mem::take(&mut self.data);
        match &mut self.body {
            Some(body) => {
                let used = body.read(bytes, &mut data);
                assert_eq!(used, bytes.len(), "nothing comes behind the last chunk");
                self.chunks += body.count as u64;
                body.count = 0;
            }
            None => data.extend_from_slice(bytes),
        }
        for byte in data.drain(..) {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("events are text");
            self.on_line(&line);
        }
        self.data = data;
    }

    /// The gateway has closed the connection. It must have sent the last chunk: no event is cut.
    pub(super) fn on_close(&mut self) {
        if let Some(body) = &self.body {
            assert!(body.is_whole(), "a body without its last chunk");
        }
    }

    fn on_head(&mut self, line: &str) {
        if line.starts_with("HTTP/1.1") && !line.starts_with("HTTP/1.1 200") {
            self.refusals += 1;
            self.body = None; // A problem response has a known length.
        }
        if line.is_empty() {
            self.head = false;
        }
        let chunked = line == "transfer-encoding: chunked";
        assert!(!chunked || self.body.is_some(), "chunks for HTTP/1.0");
    }

    /// Handles a line by the WHATWG rules, as far as the gateway's streams use them: a blank line
    /// dispatches, and an id counts from then on, even without data.
    fn on_line(&mut self, line: &str) {
        if line.is_empty() {
            let (name, data) = std::mem::take(&mut self.fields);
            // Some libraries ignore an id without an event.
            let counts = data.is_some() || !self.forgetful;
            if let Some(id) = self.pending_id.take().filter(|_| counts) {
                self.first_id.get_or_insert_with(|| id.clone());
                self.last_id = id;
            }
            if name == "position" {
                assert_eq!(data.as_deref(), Some("{}"), "it shows no record");
                return;
            }
            if let Some(data) = data {
                let (connection, fresh) = (self.connections, self.fresh);
                self.events.push(Event {
                    name,
                    data,
                    id: self.last_id.clone(),
                    connection,
                    fresh,
                });
            }
            return;
        }
        if line.starts_with(':') {
            return; // A comment.
        }
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "data" => match &mut self.fields.1 {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.fields.1 = Some(value.to_owned()),
            },
            "event" => value.clone_into(&mut self.fields.0),
            "id" => self.pending_id = Some(value.to_owned()),
            "retry" => {}
            other => panic!("an unknown field: {other:?}"),
        }
    }
}
