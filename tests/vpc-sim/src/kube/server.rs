//! The API server's HTTP side: connections, bodies that go on for as long as a watch does, and what makes it unreachable.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::api::answer;
use super::refusal::Refusal;
use super::request::{Asked, Reply, WatchOrder};
use super::watch::{Flow, Watch};
use super::{Kube, Reach, Shared};
use crate::sim::http_connection;

/// Longest request read; the API server's own limit is 3 MiB.
const BODY_MAX: usize = 3 << 20;
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 1_024;
/// Lines that wait for a slow reader.
const LINES_MAX: usize = 64;
/// An idle watch gets a bookmark that often, as from the API server.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long the old address is tried for when the API is to serve again.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

impl Kube {
    /// Serves the API until dropped. While it is made to refuse connections, nobody listens at the address.
    ///
    /// # Errors
    /// When the listener fails for good, or its address was taken while nobody listened.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        let mut conduct = self.0.conduct.subscribe();
        let mut listener = Some(listener);
        loop {
            // The sender lives in `self`, so neither wait can fail.
            if conduct
                .wait_for(|conduct| conduct.reach == Reach::Serving)
                .await
                .is_err()
            {
                return Ok(());
            }
            let open = match listener.take() {
                Some(open) => open,
                None => listen_again(address).await?,
            };
            tokio::select! {
                ended = accept(Arc::clone(&self.0), open) => return ended,
                _ = conduct.wait_for(|conduct| conduct.reach == Reach::Refusing) => {}
            }
        }
    }
}

/// Somebody else's connection may have the port as its own for a moment.
async fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let end = Instant::now() + LISTEN_AGAIN;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// Dropping this closes the listener and every connection.
async fn accept(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    let address: Arc<str> = listener.local_addr()?.to_string().into();
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            },
            Some(_) = connections.join_next() => continue,
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let (shared, address) = (Arc::clone(&shared), Arc::clone(&address));
        connections.spawn(http_connection(stream, move |request| {
            respond(Arc::clone(&shared), Arc::clone(&address), request)
        }));
    }
}

/// A document, or a watch.
#[derive(Debug)]
enum Payload {
    Document(Option<Bytes>),
    Lines(Receiver<Bytes>),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Document(document) => Poll::Ready(document.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines) => lines
                .poll_recv(context)
                .map(|line| line.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Document(document) => {
                let length = document.as_ref().map_or(0, Bytes::len);
                hyper::body::SizeHint::with_exact(u64::try_from(length).unwrap_or_default())
            }
            Self::Lines(_) => hyper::body::SizeHint::default(),
        }
    }
}

async fn respond(
    shared: Arc<Shared>,
    address: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let latency = shared.conduct.borrow().latency;
    if !latency.is_zero() {
        sleep(latency).await;
    }
    let (parts, body) = request.into_parts();
    let replied = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => {
            let asked = Asked::new(parts.method, &parts.uri, &parts.headers, body.to_bytes());
            shared.count(&asked);
            shared.with_store(|store| answer(store, OffsetDateTime::now_utc(), &address, &asked))
        }
        Err(_) => Err(Refusal::too_long()),
    };
    Ok(match replied {
        Ok(Reply::Object(status, object)) => json(status, &object),
        Ok(Reply::Text(text)) => response(200, "text/plain", Payload::Document(Some(text.into()))),
        Ok(Reply::Watch(order)) => {
            let (lines, reader) = channel(LINES_MAX);
            tokio::spawn(feed(shared, *order, lines));
            response(200, "application/json", Payload::Lines(reader))
        }
        Err(refusal) => json(refusal.code(), &refusal.status()),
    })
}

fn json(status: u16, object: &serde_json::Value) -> Response<Payload> {
    let mut text = object.to_string();
    text.push('\n');
    response(status, "application/json", Payload::Document(Some(text.into())))
}

fn response(status: u16, kind: &'static str, body: Payload) -> Response<Payload> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, "no-cache, private")
        .body(body)
        .expect("constant headers and a known status make a response")
}

/// Sends a watch's lines until its time is over or its reader is gone. Its time is over for a reader that has stopped reading too,
/// and amid changes that never stop.
async fn feed(shared: Arc<Shared>, order: WatchOrder, lines: Sender<Bytes>) {
    let mut versions = shared.versions.subscribe();
    let (mut watch, first, mut flow) = shared.with_store(|store| Watch::begin(order, store));
    let mut pending = first;
    let end = Instant::now() + watch.length();
    let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
    loop {
        for line in pending.drain(..) {
            match timeout_at(end, lines.send(line)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        if flow == Flow::Ends {
            return;
        }
        // Marked as seen before the look at the store: what comes after it wakes us again.
        versions.borrow_and_update();
        (pending, flow) = shared.with_store(|store| watch.more(store));
        if !pending.is_empty() {
            if Instant::now() >= end {
                flow = Flow::Ends;
            }
            continue;
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
            () = sleep_until(bookmark_at.min(end)) => {
                pending.extend(watch.bookmark());
                bookmark_at = Instant::now() + BOOKMARK_EVERY;
                if Instant::now() >= end {
                    flow = Flow::Ends;
                }
            }
        }
    }
}
