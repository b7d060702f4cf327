//! A blocking gRPC client over a Unix socket: unary calls, HTTP/2 as far as they need it.
//!
//! Reads lengths and flags only. A reply without a message counts as a refusal: that is how gRPC sends a status that is not
//! OK. Flow control: replies are small, so a grant of credit now and then is enough.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Credit is granted after so many bytes; the peer starts with 65,535.
const GRANT: u32 = 16 << 10;
/// Longest a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// What goes out with the next request.
    pending: Vec<u8>,
    next_stream: u32,
    received: Vec<u8>,
    uncredited: u32,
}

impl Client {
    /// Connects. The preface leaves with the first request.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut pending = PREFACE.to_vec();
        frame(&mut pending, SETTINGS, 0, 0, &[]);
        Ok(Self {
            stream,
            pending,
            next_stream: 1,
            received: Vec::new(),
            uncredited: 0,
        })
    }

    /// Sends a request; `path` is `/package.Service/Method`.
    pub fn send(&mut self, path: &str, message: &[u8]) -> io::Result<()> {
        let mut headers = Vec::with_capacity(96);
        // Indexed: POST, http. Literals without indexing: path, authority, content-type (31 = 15 + 16), te.
        headers.extend([0x83, 0x86]);
        literal(&mut headers, &[0x04], path);
        literal(&mut headers, &[0x01], "localhost");
        literal(&mut headers, &[0x0f, 0x10], "application/grpc");
        literal(&mut headers, &[0x00, 2, b't', b'e'], "trailers");
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(message);
        frame(&mut self.pending, HEADERS, END_HEADERS, self.next_stream, &headers);
        frame(&mut self.pending, DATA, END_STREAM, self.next_stream, &body);
        self.next_stream += 2;
        self.stream.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Reads frames until the reply to the one outstanding request is complete.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let header = self.take(9)?;
            let len = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let payload = self.take(len)?;
            let (kind, flags) = (header[3], header[4]);
            match kind {
                DATA => {
                    self.uncredited += u32::try_from(len).unwrap_or(0);
                    message.extend_from_slice(&payload);
                }
                SETTINGS if flags & ACK == 0 => frame(&mut self.pending, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut self.pending, PING, ACK, 0, &payload),
                GOAWAY => return Err(io::Error::other("the peer closes the connection")),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                break;
            }
        }
        if self.uncredited > GRANT {
            let credit = self.uncredited.to_be_bytes();
            frame(&mut self.pending, WINDOW_UPDATE, 0, 0, &credit);
            self.uncredited = 0;
        }
        match message.get(5..) {
            Some(body) => Ok(body.to_vec()),
            None => Err(io::Error::other("the peer refused the request")),
        }
    }

    /// A request and its reply.
    pub fn call(&mut self, path: &str, message: &[u8]) -> io::Result<Vec<u8>> {
        self.send(path, message)?;
        self.receive()
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < len {
            let mut buffer = [0; 1024];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..count]);
        }
        let rest = self.received.split_off(len);
        Ok(std::mem::replace(&mut self.received, rest))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([len[1], len[2], len[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header field with a plain value shorter than 127 bytes.
fn literal(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    out.push(u8::try_from(value.len()).unwrap_or(0) & 0x7f);
    out.extend_from_slice(value.as_bytes());
}
