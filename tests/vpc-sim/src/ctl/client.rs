//! The asking side: blocking, single-threaded, so that `exec` can still enter a sandbox afterwards.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Request;
use super::server::socket_address;

/// A simulator answers at once, unless it is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// A request that got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no simulator runs for {state_dir} (start one: vpc-sim up)")]
    Connect {
        /// Names the simulator.
        state_dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The conversation broke off.
    #[error("the simulator does not answer")]
    Talk(#[source] std::io::Error),
    /// Not what a simulator says.
    #[error("the answer is no JSON")]
    Answer(#[source] serde_json::Error),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the simulator of a state directory.
///
/// # Errors
/// When there is none, or it refuses.
pub fn request(state_dir: &Path, request: &Request) -> Result<Value, ClientError> {
    let connect = |source| ClientError::Connect {
        state_dir: state_dir.to_owned(),
        source,
    };
    let address = socket_address(state_dir).map_err(connect)?;
    let mut stream = UnixStream::connect_addr(&address).map_err(connect)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(ClientError::Talk)?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Answer)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(ClientError::Talk)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(ClientError::Talk)?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(ClientError::Answer)?;
    match answer.get("error").and_then(Value::as_str) {
        Some(problem) => Err(ClientError::Refused(problem.to_owned())),
        None => Ok(answer["ok"].take()),
    }
}
