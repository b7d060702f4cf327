//! One HTTP connection to the EC2 endpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::{Call, Reply, answer, peek_action};
use crate::sim::{LostAnswers, Shared, http_connection};

/// Longest request read; a call with a thousand addresses stays far below.
const BODY_MAX: usize = 1 << 20;
/// How long a caller whose answer is lost is kept waiting at most.
const LOST_HOLD: Duration = Duration::from_secs(600);

/// Serves a connection until its peer closes it.
pub(crate) async fn serve_connection(shared: Arc<Shared>, stream: TcpStream) {
    http_connection(stream, move |request| respond(Arc::clone(&shared), request)).await;
}

type Reaction = Result<Response<Full<Bytes>>, Disconnect>;

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost on purpose")]
pub(crate) struct Disconnect;

impl From<Infallible> for Disconnect {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Reaction {
    let is_retry = is_retry(&request);
    let form = match *request.method() {
        Method::GET => request.uri().query().unwrap_or_default().as_bytes().to_vec().into(),
        Method::POST => match Limited::new(request.into_body(), BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(plain(413, "the request is too long or broke off")),
        },
        _ => return Ok(plain(405, "use GET or POST")),
    };
    if let Some(action) = peek_action(&form) {
        shared.count_attempt(action, is_retry);
    }
    let request_id = shared.new_request_id();
    let reply = shared.with_model(|model, now| {
        let call = Call {
            now,
            epoch: shared.epoch(),
            request_id: request_id.clone(),
        };
        answer(model, &call, &form)
    });
    match reply {
        Reply::Answer { status, body, latency } => {
            // A timer has a granularity of a millisecond, which no call without latency should pay.
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            Ok(xml(status, body, &request_id))
        }
        Reply::Lost => {
            if shared.lost_answers() == LostAnswers::Hang {
                tokio::time::sleep(LOST_HOLD).await;
            }
            Err(Disconnect)
        }
    }
}

/// The SDKs number the attempts of one call: `attempt=2; max=3`. The invocation id stays the same over them.
fn is_retry<B>(request: &Request<B>) -> bool {
    let attempt = request
        .headers()
        .get("amz-sdk-request")
        .and_then(|value| value.to_str().ok());
    attempt
        .and_then(|text| text.split(';').find_map(|part| part.trim().strip_prefix("attempt=")))
        .is_some_and(|n| n != "1")
}

fn xml(status: u16, body: Vec<u8>, request_id: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/xml;charset=UTF-8")
        .header("x-amzn-RequestId", request_id)
        .header(header::CACHE_CONTROL, "no-cache, no-store")
        .body(Full::from(body))
        .expect("constant headers and a known status make a response")
}

fn plain(status: u16, text: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(text))
        .expect("a known status makes a response")
}
