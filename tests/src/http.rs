//! The least of an HTTP client: enough to read metrics, and to send what no well-behaved client would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, without the status line.
    pub head: String,
    /// Body.
    pub body: String,
}

/// Sends raw bytes and reads until the server closes.
///
/// # Panics
/// If there is no connection, or no HTTP answer.
pub fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the admin listens");
    stream.set_read_timeout(Some(crate::PATIENCE)).expect("a timeout");
    // The server may close before it has read everything; its answer still counts.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (top, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let (line, head) = top.split_once("\r\n").unwrap_or((top, ""));
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no HTTP answer: {text:?}")),
        head: head.into(),
        body: body.into(),
    }
}

/// GET.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    send(address, request.as_bytes())
}

/// The values of a metric on a page of metrics, one for each combination of labels; none if it is not there.
pub fn metric_values(admin: SocketAddr, page: &str, name: &str) -> Vec<f64> {
    let text = get(admin, page).body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let bare = key.split('{').next()?;
        (bare == name).then(|| value.parse::<f64>().ok())?
    });
    values.collect()
}
