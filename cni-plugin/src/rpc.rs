//! Calls over Unix sockets: to ipamd, and to the network policy agent.
//!
//! The only asynchronous part of the plugin: a current-thread runtime that exists for these calls alone, with one HTTP/2
//! connection per call and without the pooling, balancing and reconnecting of a full channel. Invariant: each call ends by
//! its deadline. Whether an absent peer is waited for is the caller's choice ([`Patience`]); repeating a call that broke off
//! is safe because all of them are idempotent: the same key gets the same answer.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tonic::{Code, Response, Status};
use tower::Service;

use crate::clock::Deadline;

/// What messages call it.
pub(crate) const IPAMD: &str = "ipamd";
/// The authority that gRPC clients use for a peer behind a Unix socket.
const ORIGIN: &str = "http://localhost";
/// How often a missing peer is looked for. A restart takes tenths of a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Room for events: one connection and the runtime's own wake-up. The default of 1,024 is pages that a short process touches for
/// nothing.
const EVENTS: usize = 4;
/// Turns of the runtime until a request has been written: connect, preface, settings, request.
const TURNS_TO_SEND: u32 = 3;

/// Runs calls, one at a time.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Never shut down: the process ends with its last call, and the kernel clears up faster than we could.
    runtime: ManuallyDrop<Runtime>,
}

/// Who is called, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// For messages.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// If it is not there.
    pub(crate) patience: Patience,
    /// For the whole call.
    pub(crate) deadline: Deadline,
}

/// What to do when nobody listens, or the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Try again until then: the peer restarts.
    Until(Deadline),
    /// Fail at once: there is another way.
    Once,
}

impl Patience {
    fn lasts(self) -> bool {
        match self {
            Self::Until(deadline) => !deadline.has_passed(),
            Self::Once => false,
        }
    }
}

/// A call without an answer, or with a refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// No runtime: the process is out of descriptors.
    #[error("prepare to call {peer}")]
    Runtime {
        /// Who was to be called.
        peer: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{peer} is not reachable at {socket}")]
    Absent {
        /// Who was called.
        peer: &'static str,
        /// Where.
        socket: PathBuf,
        /// What the kernel said last.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer came.
    #[error("connection to {peer} at {socket} broke")]
    Broken {
        /// Who was called.
        peer: &'static str,
        /// Where.
        socket: PathBuf,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It listens and does not answer.
    #[error("{peer} at {socket} did not answer within {:.1} s", .waited.as_secs_f64())]
    Silent {
        /// Who was called.
        peer: &'static str,
        /// Where.
        socket: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// It refused.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Refused {
        /// Class.
        code: Code,
        /// Reason.
        message: String,
    },
}

impl Caller {
    /// Makes the runtime.
    pub(crate) fn new(peer: &'static str) -> Result<Self, RpcError> {
        let mut builder = Builder::new_current_thread();
        builder.enable_io().enable_time().max_io_events_per_tick(EVENTS);
        let runtime = builder.build();
        runtime
            .map(|runtime| Self {
                runtime: ManuallyDrop::new(runtime),
            })
            .map_err(|source| RpcError::Runtime { peer, source })
    }

    /// One call. `request` may run more than once.
    pub(crate) fn call<T>(
        &self,
        peer: &Peer,
        request: impl AsyncFn(Connection, Uri) -> Result<Response<T>, Status>,
    ) -> Result<T, RpcError> {
        self.call_and(peer, request, || ()).0
    }

    /// One call, and something else to do while the peer works on it. The work runs on this thread, exactly once, whatever
    /// becomes of the call.
    pub(crate) fn call_and<T, W>(
        &self,
        peer: &Peer,
        request: impl AsyncFn(Connection, Uri) -> Result<Response<T>, Status>,
        work: impl FnOnce() -> W,
    ) -> (Result<T, RpcError>, W) {
        let waited = peer.deadline.remaining();
        self.runtime.block_on(async {
            let mut absent = None;
            let call = tokio::time::timeout(waited, attempts(peer, &request, &mut absent));
            let (answer, work) = with_work(call, work).await;
            let answer = answer.unwrap_or_else(|_| {
                let (peer, socket) = (peer.name, peer.socket.clone());
                Err(match absent {
                    Some(source) => RpcError::Absent { peer, socket, source },
                    None => RpcError::Silent { peer, socket, waited },
                })
            });
            (answer, work)
        })
    }
}

/// Tries until there is an answer. `absent` tells the caller, whose timer may end this at any time, why it waits.
async fn attempts<T>(
    peer: &Peer,
    request: &impl AsyncFn(Connection, Uri) -> Result<Response<T>, Status>,
    absent: &mut Option<io::Error>,
) -> Result<T, RpcError> {
    loop {
        let stream = match UnixStream::connect(&peer.socket).await {
            Ok(stream) => stream,
            Err(error) if may_come_back(&error, peer.patience) => {
                *absent = Some(error);
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Err(source) => {
                return Err(RpcError::Absent {
                    peer: peer.name,
                    socket: peer.socket.clone(),
                    source,
                });
            }
        };
        *absent = None;
        match attempt(stream, request).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused(code, message)) => return Err(RpcError::Refused { code, message }),
            Err(Failure::Broken(_)) if peer.patience.lasts() => tokio::time::sleep(LOOK_AGAIN).await,
            Err(Failure::Broken(source)) => {
                return Err(RpcError::Broken {
                    peer: peer.name,
                    socket: peer.socket.clone(),
                    source,
                });
            }
        }
    }
}

/// A full queue of connections (`EAGAIN`) means a peer that is there and slow: always worth another look.
fn may_come_back(error: &io::Error, patience: Patience) -> bool {
    let kind = error.kind();
    let gone = matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    kind == io::ErrorKind::WouldBlock || (gone && patience.lasts())
}

enum Failure {
    Broken(Box<dyn Error + Send + Sync>),
    Refused(Code, String),
}

async fn attempt<T>(
    stream: UnixStream,
    request: &impl AsyncFn(Connection, Uri) -> Result<Response<T>, Status>,
) -> Result<T, Failure> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| Failure::Broken(error.into()))?;
    let driver = tokio::spawn(connection);
    let answer = request(Connection(sender), Uri::from_static(ORIGIN)).await;
    driver.abort();
    // Only a status that was made on this side has a source: the peer's own travels as code and text.
    answer
        .map(Response::into_inner)
        .map_err(|status| match status.source() {
            Some(_) => Failure::Broken(status.into()),
            None => Failure::Refused(status.code(), status.message().to_owned()),
        })
}

/// Starts `call`, gives it the turns it needs to send its request, does `work`, and waits for the answer.
async fn with_work<T, W>(call: impl Future<Output = T>, work: impl FnOnce() -> W) -> (T, W) {
    let mut call = pin!(call);
    let mut work = Some(work);
    let (mut turns, mut done) = (0, None);
    let answer = poll_fn(|context| {
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        if turns < TURNS_TO_SEND {
            turns += 1;
            context.waker().wake_by_ref();
        } else if let Some(work) = work.take() {
            done = Some(work());
            context.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    let work = done
        .or_else(|| work.map(|work| work()))
        .expect("the work is taken only to be done");
    (answer, work)
}

/// One HTTP/2 connection, as the generated clients want it.
#[derive(Debug)]
pub(crate) struct Connection(SendRequest<Body>);

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// An error with all its sources, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
