//! Event streams from Kafka as one writes them by hand: axum, tokio and rskafka.
//!
//!     rival-service serve  BOOTSTRAP TOPIC    serves GET /events and GET /keys/{key}/events
//!     rival-service bridge BOOTSTRAP TOPIC http://HOST:PORT
//!                                             posts each record to nchan: /publish/events and
//!                                             /publish/keys/KEY
//!
//! `serve` formats an event once and shares its bytes with all its clients, as a careful author
//! would. It has no ids: a client that connects again has lost what it missed. Both print
//! `listening ADDRESS` or `bridging` once they read from the end of every partition.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, RwLock};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt as _;
use rskafka::client::ClientBuilder;
use rskafka::client::consumer::{StartOffset, StreamConsumerBuilder};
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::BroadcastStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events that a client may lag behind. One that lags more misses some.
const LAG_MAX: usize = 1024;
/// Records between the readers of partitions and what takes them.
const RECORDS_MAX: usize = 10_000;

/// Who receives what: one channel for all, and one per key that somebody watches.
#[derive(Clone)]
struct Hub {
    all: broadcast::Sender<Bytes>,
    keys: Arc<RwLock<HashMap<String, broadcast::Sender<Bytes>>>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", bootstrap, topic] => serve(bootstrap, topic).await,
        ["bridge", bootstrap, topic, url] => bridge(bootstrap, topic, url).await,
        _ => bail!("usage: rival-service serve|bridge BOOTSTRAP TOPIC [URL]"),
    }
}

/// The records of a topic from now on: key and value.
async fn records(bootstrap: &str, topic: &str) -> Result<mpsc::Receiver<Record>> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await?;
    let topics = client.list_topics().await?;
    let found = topics.into_iter().find(|it| it.name == topic);
    let partitions = found.context("no such topic")?.partitions;
    let (records_in, records) = mpsc::channel(RECORDS_MAX);
    for partition in partitions {
        let unknown = UnknownTopicHandling::Error;
        let of = Arc::new(client.partition_client(topic, partition, unknown).await?);
        let end = of.get_offset(OffsetAt::Latest).await?;
        let records_in = records_in.clone();
        tokio::spawn(async move {
            let mut stream = StreamConsumerBuilder::new(of, StartOffset::At(end))
                .with_max_wait_ms(500)
                .build();
            while let Some(Ok((next, _high_watermark))) = stream.next().await {
                if records_in.send(next.record).await.is_err() {
                    return;
                }
            }
            eprintln!("error: the reader of partition {partition} has ended");
            std::process::exit(1);
        });
    }
    Ok(records)
}

async fn serve(bootstrap: &str, topic: &str) -> Result<()> {
    let mut records = records(bootstrap, topic).await?;
    let hub = Hub { all: broadcast::channel(LAG_MAX).0, keys: Arc::default() };
    let from = hub.clone();
    tokio::spawn(async move {
        while let Some(record) = records.recv().await {
            from.publish(&record);
        }
    });
    let app = Router::new()
        .route("/events", get(all))
        .route("/keys/{key}/events", get(one))
        .with_state(hub);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

impl Hub {
    fn publish(&self, record: &Record) {
        let value = record.value.as_deref().unwrap_or_default();
        let mut event = Vec::with_capacity(value.len() + 8);
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(value);
        event.extend_from_slice(b"\n\n");
        let event = Bytes::from(event);
        if let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
            let keys = self.keys.read().expect("no writer panics");
            if let Some(watchers) = keys.get(key) {
                // An error means that nobody listens.
                let _ = watchers.send(event.clone());
            }
        }
        let _ = self.all.send(event);
    }
}

async fn all(State(hub): State<Hub>) -> Response {
    stream(hub.all.subscribe())
}

async fn one(State(hub): State<Hub>, Path(key): Path<String>) -> Response {
    let mut keys = hub.keys.write().expect("no writer panics");
    stream(keys.entry(key).or_insert_with(|| broadcast::channel(LAG_MAX).0).subscribe())
}

fn stream(events: broadcast::Receiver<Bytes>) -> Response {
    let first = tokio_stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"retry: 2000\n\n"))]);
    let events = BroadcastStream::new(events).filter_map(async |event| event.ok().map(Ok));
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (head, Body::from_stream(first.chain(events))).into_response()
}

/// Posts records to nchan on one connection for all and one for keys, several requests at a time.
async fn bridge(bootstrap: &str, topic: &str, url: &str) -> Result<()> {
    let mut records = records(bootstrap, topic).await?;
    let address = url.strip_prefix("http://").context("a URL of http")?;
    let (reader, mut writer) = TcpStream::connect(address).await?.into_split();
    println!("bridging");
    tokio::spawn(async move {
        if let Err(error) = read_answers(BufReader::new(reader)).await {
            eprintln!("error: nchan: {error:#}");
            std::process::exit(1);
        }
    });
    while let Some(record) = records.recv().await {
        let value = record.value.as_deref().unwrap_or_default();
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        let to = key.map_or_else(|| "events".into(), |key| format!("keys/{key}"));
        let head = format!(
            "POST /publish/{to} HTTP/1.1\r\nHost: nchan\r\nContent-Length: {}\r\n\r\n",
            value.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(value);
        writer.write_all(&request).await?;
    }
    Ok(())
}

async fn read_answers(mut from: BufReader<tokio::net::tcp::OwnedReadHalf>) -> Result<()> {
    let mut line = String::new();
    loop {
        let (mut length, mut status) = (0, String::new());
        loop {
            line.clear();
            if from.read_line(&mut line).await? == 0 {
                bail!("it closed the connection");
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if text.starts_with("http/1.1 ") {
                status = text;
            } else if let Some(digits) = text.strip_prefix("content-length: ") {
                length = digits.parse()?;
            }
        }
        // 201: there are subscribers. 202: there are none.
        if !status.starts_with("http/1.1 20") {
            bail!("{status}");
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
    }
}
