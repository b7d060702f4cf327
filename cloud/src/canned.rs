//! An HTTP/1.1 server for tests that answers by a closure and keeps what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Lines of the head, header names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

pub(crate) enum Reply {
    Http(u16, Vec<(&'static str, String)>, String),
    /// A success that breaks off within its body.
    Cut(String),
    /// Never answers; the connection stays open.
    Hang,
    /// Ends the connection without an answer.
    Close,
}

impl Reply {
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::Http(status, Vec::new(), body.into())
    }
}

type Answer = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub(crate) struct Canned {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Canned {
    /// Serves until the runtime of the test ends.
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answer): (_, Answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&kept)));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<Request>>>) {
    while let Some(request) = read_request(&mut stream).await {
        let reply = answer(&request);
        seen.lock().unwrap().push(request);
        match reply {
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
            Reply::Cut(body) => {
                let head = format!("HTTP/1.1 200 Cut\r\ncontent-length: {}\r\n\r\n", body.len() + 100);
                let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
                return;
            }
            Reply::Http(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} Canned\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                let written = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
                if written.is_err() {
                    return;
                }
            }
        }
    }
}

/// `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header = |line: &str| {
        line.split_once(':')
            .map(|(key, text)| (key.to_lowercase(), text.trim().to_owned()))
    };
    let headers: Vec<_> = lines.filter_map(header).collect();
    let length = headers
        .iter()
        .find(|(key, _)| key == "content-length")
        .map_or(0, |(_, text)| text.parse().unwrap());
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes.split_off(head_end)).unwrap();
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}
