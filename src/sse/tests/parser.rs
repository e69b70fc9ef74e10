//! An event-stream reader after WHATWG HTML 9.2.6, "interpreting an event stream", as an
//! `EventSource` would do it.

/// What a reader saw at a blank line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dispatch {
    /// The event's type; `message` if it has no name. Empty if nothing was dispatched: the block
    /// had no data, though its id counts.
    pub(super) event: String,
    pub(super) data: String,
    /// The `lastEventId` after this block.
    pub(super) id: String,
}

/// All that a stream contains. Lines after the last blank line are discarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) blocks: Vec<Dispatch>,
    pub(super) retry: Option<u64>,
}

impl Stream {
    /// The events that a page would see, without positions.
    pub(super) fn events(&self) -> impl Iterator<Item = &Dispatch> {
        let shown = |block: &&Dispatch| !matches!(&*block.event, "" | "position");
        self.blocks.iter().filter(shown)
    }

    /// The id of the last dispatched event, which may be a position. A reader that stores an id
    /// only with an event resumes from here.
    pub(super) fn last_dispatched_id(&self) -> Option<&str> {
        let dispatched = |block: &&Dispatch| !block.event.is_empty();
        let last = self.blocks.iter().rfind(dispatched)?;
        (!last.id.is_empty()).then_some(&*last.id)
    }

    /// What the reader sends when it connects again; `None`: nothing.
    pub(super) fn last_id(&self) -> Option<&str> {
        let id = self.blocks.last()?.id.as_str();
        (!id.is_empty()).then_some(id)
    }
}

/// Reads a stream that started with `id` as the last event id.
pub(super) fn parse_from(id: &str, bytes: &[u8]) -> Stream {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut stream = Stream::default();
    let (mut event, mut data, mut id) = (String::new(), String::new(), id.to_owned());
    for line in lines(text) {
        if line.is_empty() {
            let mut block = Dispatch {
                id: id.clone(),
                ..Dispatch::default()
            };
            if !data.is_empty() {
                data.pop(); // The last LF.
                block.data = std::mem::take(&mut data);
                block.event = match event.as_str() {
                    "" => "message".to_owned(),
                    name => name.to_owned(),
                };
            }
            event.clear();
            stream.blocks.push(block);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                stream.retry = value.parse().ok();
            }
            _ => {} // Comments, and fields nobody knows.
        }
    }
    stream
}

pub(super) fn parse(bytes: &[u8]) -> Stream {
    parse_from("", bytes)
}

/// Whole lines only: what has no line end yet does not count.
fn lines(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = text.find(['\r', '\n'])?;
        let line = &text[..end];
        let rest = &text[end..];
        text = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
        Some(line)
    })
}

#[test]
fn the_examples_of_the_standard() {
    let stream = parse(b"data: YHOO\ndata: +2\ndata: 10\n\n");
    assert_eq!(stream.blocks[0].data, "YHOO\n+2\n10");
    let text =
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third";
    let stream = parse(text);
    let seen: Vec<_> = stream.events().map(|e| (&*e.data, &*e.id)).collect();
    assert_eq!(seen, [("first event", "1"), ("second event", "")]);
    let stream = parse(b"data\n\ndata\ndata\n\ndata:");
    let seen: Vec<_> = stream.events().map(|e| &*e.data).collect();
    assert_eq!(seen, ["", "\n"]);
    // A block without data dispatches nothing, and its id counts.
    let stream = parse(b"id: 7\n\n");
    assert_eq!((stream.events().count(), stream.last_id()), (0, Some("7")));
}
