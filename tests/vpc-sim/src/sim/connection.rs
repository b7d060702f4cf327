//! HTTP/1.1 on one accepted socket, the same for all servers.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

/// A keep-alive connection that sends no request is closed after this; the SDKs' pools keep theirs for 90 s.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Serves until the peer closes, is idle too long, or `respond` fails, which drops the connection without an answer.
pub(crate) async fn http_connection<F, B, E>(stream: TcpStream, respond: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .await;
    // Broken connections are the peer's business, and lost answers are made by failing here.
    drop(served);
}
