//! A client of event streams: it reads, it is cut anywhere, it comes back by its last id on any
//! peer. What it was shown is the ledger that is held against the truth.

use sluicegate::shard::SocketId;

/// One event, as a browser would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The `event:` field; empty if there was none.
    pub(super) name: String,
    /// The `data:` lines.
    pub(super) data: String,
    /// The newest id by then.
    pub(super) id: String,
    /// On which of its connections.
    pub(super) connection: u32,
    /// Whether that began without an id that counts.
    pub(super) fresh: bool,
}

/// A client.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The path it asks for.
    pub(super) path: String,
    /// The key it filters by, if any.
    pub(super) key: Option<String>,
    /// Where it is connected: peer, shard, socket.
    pub(super) at: Option<(usize, (usize, SocketId))>,
    /// What it sends as `Last-Event-ID`.
    pub(super) last_id: String,
    /// The first id it was given: where a live stream begins.
    pub(super) first_id: Option<String>,
    /// What it was shown.
    pub(super) events: Vec<Event>,
    /// How often it connected.
    pub(super) connections: u32,
    /// Bytes of the present connection that make no whole line yet.
    line: Vec<u8>,
    head: bool,
    fresh: bool,
    fields: (String, Option<String>),
    /// An id whose blank line has not come: a cut discards it with its event.
    pending_id: Option<String>,
    /// The status lines it was answered with, other than 200.
    pub(super) refusals: u32,
    /// It reads nothing for now, as a phone in a tunnel.
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
            fresh: true,
            fields: (String::new(), None),
            pending_id: None,
            refusals: 0,
            stalled: false,
        }
    }

    /// A new connection begins; what the last one left unfinished is void, as in a browser.
    pub(super) fn request(&mut self) -> String {
        self.connections += 1;
        self.line.clear();
        self.head = true;
        self.fields = (String::new(), None);
        self.pending_id = None;
        self.fresh = self.last_id.is_empty() || self.last_id.starts_with('-');
        let id = match self.last_id.as_str() {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        format!("GET {} HTTP/1.1\r\nHost: fleet\r\n{id}\r\n", self.path)
    }

    /// Bytes came.
    pub(super) fn on_bytes(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("events are text");
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if self.head {
                self.on_head(line);
            } else {
                self.on_line(line);
            }
        }
    }

    fn on_head(&mut self, line: &str) {
        if line.starts_with("HTTP/1.1") && !line.starts_with("HTTP/1.1 200") {
            self.refusals += 1;
        }
        if line.is_empty() {
            self.head = false;
        }
    }

    /// The WHATWG rules, as far as our streams use them: a blank line dispatches, and an id counts
    /// from then on, also where there is no data.
    fn on_line(&mut self, line: &str) {
        if line.is_empty() {
            let (name, data) = std::mem::take(&mut self.fields);
            if let Some(id) = self.pending_id.take() {
                self.first_id.get_or_insert_with(|| id.clone());
                self.last_id = id;
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
