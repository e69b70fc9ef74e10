//! A blocking client of HTTP/2: the h2 crate as a client. A thread drives the connection.

use std::future::Future;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::client::{PATIENCE, Request, Response};

pub struct Client {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    authority: String,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response whose body is being read.
pub struct Streamed {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: RecvStream,
    /// What was read and not yet taken.
    text: Vec<u8>,
}

impl Client {
    /// Connects with prior knowledge.
    pub fn open(address: SocketAddr) -> Self {
        Self::with_windows(address, 1 << 20, 1 << 24)
    }

    /// Connects with receive windows of these sizes: of each stream, and of the connection.
    pub fn with_windows(address: SocketAddr, stream: u32, connection: u32) -> Self {
        let (report, reported) = std::sync::mpsc::sync_channel(1);
        let connection = std::thread::spawn(move || {
            runtime().block_on(async {
                let socket = TcpStream::connect(address).await.expect("connect");
                let mut builder = Builder::new();
                builder
                    .initial_window_size(stream)
                    .initial_connection_window_size(connection);
                let (send, connection) = builder.handshake(socket).await.expect("a handshake");
                report.send(send).expect("the test waits");
                connection.await
            })
        });
        let send = reported.recv_timeout(PATIENCE);
        Self {
            runtime: runtime(),
            send: send.expect("a connection"),
            authority: address.to_string(),
            connection,
        }
    }

    fn wait<T>(runtime: &Runtime, what: impl Future<Output = T>) -> T {
        let timed = async { tokio::time::timeout(PATIENCE, what).await };
        runtime.block_on(timed).expect("an answer in time")
    }

    fn head(&self, request: &Request) -> http::Request<()> {
        let (method, target, headers, _) = request.parts();
        let uri = format!("http://{}{target}", self.authority);
        let mut head = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            head = head.header(name, value);
        }
        head.body(()).expect("a request")
    }

    /// Sends a request, whose response is read with [`Self::finish`].
    pub fn send(&mut self, request: &Request) -> h2::client::ResponseFuture {
        let head = self.head(request);
        let (.., body) = request.parts();
        let body = body.to_vec();
        let ready = self.send.clone().ready();
        let mut send = Self::wait(&self.runtime, ready).expect("a free stream");
        let (response, mut stream) = send.send_request(head, body.is_empty()).expect("sent");
        if !body.is_empty() {
            stream.send_data(body.into(), true).expect("sent");
        }
        response
    }

    /// Reads a response to its end.
    pub fn finish(&self, response: h2::client::ResponseFuture) -> Result<Response, h2::Error> {
        Self::wait(&self.runtime, async move {
            let (head, mut body) = response.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                body.flow_control().release_capacity(part.len())?;
                bytes.extend_from_slice(&part);
            }
            Ok(Response {
                status: head.status.as_u16(),
                headers: fields(&head.headers),
                body: bytes,
            })
        })
    }

    pub fn ask(&mut self, request: &Request) -> Response {
        let response = self.send(request);
        self.finish(response).expect("a response")
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    /// Begins to read a response.
    pub fn stream(&mut self, request: &Request) -> Streamed {
        let response = self.send(request);
        let (head, body) = Self::wait(&self.runtime, response)
            .expect("a response")
            .into_parts();
        Streamed {
            status: head.status.as_u16(),
            headers: fields(&head.headers),
            body,
            text: Vec::new(),
        }
    }

    /// Waits until a stream's text has `needle`, and takes everything up to its end.
    pub fn read_to(&self, stream: &mut Streamed, needle: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&stream.text).into_owned();
            if let Some(at) = text.find(needle) {
                stream.text.drain(..at + needle.len());
                return text[..at + needle.len()].to_owned();
            }
            let part = Self::wait(&self.runtime, stream.body.data());
            let part = part.expect("the stream goes on").expect("a part");
            let released = stream.body.flow_control().release_capacity(part.len());
            released.expect("what was read is released");
            stream.text.extend_from_slice(&part);
        }
    }

    /// Reads a stream to its end. Returns what was left, or why the stream was reset.
    pub fn read_to_end(&self, mut stream: Streamed) -> Result<String, Option<Reason>> {
        while let Some(part) = Self::wait(&self.runtime, stream.body.data()) {
            let part = part.map_err(|error| error.reason())?;
            let released = stream.body.flow_control().release_capacity(part.len());
            released.expect("what was read is released");
            stream.text.extend_from_slice(&part);
        }
        Ok(String::from_utf8_lossy(&stream.text).into_owned())
    }

    /// Waits for the end of the connection, which the gateway brings about.
    pub fn wait_closed(self) -> Result<(), h2::Error> {
        let until = Instant::now() + PATIENCE;
        while !self.connection.is_finished() {
            assert!(Instant::now() < until, "the connection ends");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.connection.join().expect("no panic")
    }

    /// Whether the server still takes requests.
    pub fn is_open(&self) -> bool {
        let send = self.send.clone();
        Self::wait(&self.runtime, async move { send.ready().await.is_ok() })
    }
}

/// For the waits of one thread.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = headers.iter();
    fields
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}
