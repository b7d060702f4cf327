//! The answering side.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::apply::apply;
use super::{Request, Target};

/// Longest request read.
const LINE_MAX: u64 = 64 * 1024;
/// Conversations at once; more wait.
const CONVERSATIONS_MAX: usize = 64;

/// The name that a state directory stands for. Nothing is written there.
pub(super) fn socket_address(state_dir: &Path) -> io::Result<SocketAddr> {
    let absolute = std::path::absolute(state_dir)?;
    SocketAddr::from_abstract_name(format!("vpc-sim:{}", absolute.display()))
}

/// Takes the name. Do it before entering a sandbox: the name belongs to the network namespace it was taken in.
///
/// # Errors
/// `AddrInUse` when a simulator runs for this directory already.
pub fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&socket_address(state_dir)?)
}

/// Answers until dropped.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: UnixListener, target: Target) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut conversations = JoinSet::new();
    loop {
        while conversations.len() >= CONVERSATIONS_MAX {
            conversations.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        // An abstract name has no file mode that would keep others out.
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw()) {
            conversations.spawn(converse(stream, target.clone()));
        }
        while conversations.try_join_next().is_some() {}
    }
}

async fn converse(stream: UnixStream, target: Target) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        match (&mut reader).take(LINE_MAX).read_line(&mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let target = target.clone();
        // Asking the fabric blocks for a moment.
        let answer = tokio::task::spawn_blocking(move || respond(&target, &line)).await;
        let answer = answer.unwrap_or_else(|_| json!({"error": "the simulator failed; see its messages"}).to_string());
        if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn respond(target: &Target, line: &str) -> String {
    let request: Request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return json!({"error": format!("not a request: {error}")}).to_string(),
    };
    match apply(target, request) {
        Ok(value) => json!({"ok": value}).to_string(),
        Err(error) => json!({"error": error.to_string()}).to_string(),
    }
}
