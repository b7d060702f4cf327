//! One HTTP connection to IMDS.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use vpc_types::InstanceId;

use super::TokenPolicy;
use super::tree::{Clock, Unreadable, read};
use crate::sim::{Asker, Shared, http_connection};

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// Longest life of a token: six hours.
const TTL_MAX: u64 = 21_600;
/// TTL of everything but token answers.
const ORDINARY_TTL: i32 = 64;

/// Serves a connection until its peer closes it.
pub(crate) async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, asker: Asker) {
    let (Ok(peer), Ok(socket)) = (stream.peer_addr(), stream.as_fd().try_clone_to_owned()) else {
        return;
    };
    let socket = Arc::new(socket);
    http_connection(stream, move |request| {
        let (shared, socket, asker) = (Arc::clone(&shared), Arc::clone(&socket), asker.clone());
        async move {
            let instance = match asker {
                Asker::Fixed(instance) => Some(instance),
                Asker::ByAddress => shared.with_model(|model, _| model.instance_at(peer.ip().to_canonical()).cloned()),
            };
            match instance {
                None => Ok(empty(StatusCode::NOT_FOUND)),
                Some(instance) => respond(&shared, &socket, &instance, &request),
            }
        }
    })
    .await;
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("IMDS is gone on purpose")]
struct Silence;

type Reaction = Result<Response<Full<Bytes>>, Silence>;

fn respond(shared: &Shared, socket: &OwnedFd, instance: &InstanceId, request: &Request<Incoming>) -> Reaction {
    let path = request.uri().path();
    match *request.method() {
        Method::PUT => issue_token(shared, socket, instance, request, path),
        Method::GET | Method::HEAD => {
            set_ttl(socket, ORDINARY_TTL);
            look_up(shared, instance, request, path)
        }
        _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

fn issue_token(
    shared: &Shared,
    socket: &OwnedFd,
    instance: &InstanceId,
    request: &Request<Incoming>,
    path: &str,
) -> Reaction {
    // A proxy in front would hand the token to strangers; versions exist for reading only.
    if request.headers().contains_key("x-forwarded-for") || path != "/latest/api/token" {
        return Ok(empty(StatusCode::FORBIDDEN));
    }
    // The state of IMDS concerns tokens too; any path that exists tells it.
    let clock = clock_of(shared);
    match shared.with_model(|model, now| read(model, now, clock, instance, "meta-data")) {
        Err(Unreadable::Gone) => return Err(Silence),
        Err(Unreadable::Disabled) => return Ok(empty(StatusCode::FORBIDDEN)),
        Err(Unreadable::NotFound) | Ok(_) => {}
    }
    let life = request
        .headers()
        .get(TTL_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(life) = life.filter(|life| (1..=TTL_MAX).contains(life)) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let now = shared.with_model(|_, now| now);
    let mut tokens = shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let token = tokens.issue(now, instance.clone(), Duration::from_secs(life));
    set_ttl(socket, i32::from(shared.imds_options().hop_limit));
    let mut response = text(token);
    response.headers_mut().insert(TTL_HEADER, life.into());
    Ok(response)
}

fn clock_of(shared: &Shared) -> Clock {
    Clock {
        epoch: shared.epoch(),
        launch: shared.imds_options().launch,
    }
}

fn look_up(shared: &Shared, instance: &InstanceId, request: &Request<Incoming>, path: &str) -> Reaction {
    let token = request
        .headers()
        .get(TOKEN_HEADER)
        .map(|value| value.to_str().unwrap_or_default());
    let now = shared.with_model(|_, now| now);
    let is_allowed = match token {
        Some(token) => {
            let mut tokens = shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.is_valid(now, instance, token)
        }
        None => shared.imds_options().tokens == TokenPolicy::Optional,
    };
    if !is_allowed {
        return Ok(empty(StatusCode::UNAUTHORIZED));
    }
    // `/latest/…`, or a dated version, which all show the same.
    let below = path
        .trim_start_matches('/')
        .split_once('/')
        .map_or("", |(_, below)| below);
    let clock = clock_of(shared);
    let found = shared.with_model(|model, now| read(model, now, clock, instance, below));
    match found {
        Ok(found) => Ok(text(found)),
        Err(Unreadable::NotFound) => Ok(empty(StatusCode::NOT_FOUND)),
        Err(Unreadable::Disabled) => Ok(empty(StatusCode::FORBIDDEN)),
        Err(Unreadable::Gone) => Err(Silence),
    }
}

/// The kernel refuses only a TTL of 0, which then leaves the ordinary one: harmless for a metadata answer.
fn set_ttl(socket: &OwnedFd, ttl: i32) {
    let _ = setsockopt(socket, sockopt::Ipv4Ttl, &ttl);
}

fn text(text: String) -> Response<Full<Bytes>> {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::SERVER, "EC2ws")
        .body(Full::from(text))
        .expect("constant headers make a response")
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = text(String::new());
    *response.status_mut() = status;
    response
}
