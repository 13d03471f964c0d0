//! A WebSocket client that can also do what none should: every frame is written by hand.

use bifro_tests::PATIENCE;
use bifro_tests::client::Stream;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Opcode of a continuation.
pub(crate) const CONTINUATION: u8 = 0;
/// Opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub(crate) const BINARY: u8 = 2;
/// Opcode of a close frame.
pub(crate) const CLOSE: u8 = 8;
/// Opcode of a ping.
pub(crate) const PING: u8 = 9;
/// Opcode of a pong.
pub(crate) const PONG: u8 = 10;
/// FIN in the first byte of a frame.
pub(crate) const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x5A, 0xC3, 0x01, 0xFE];

/// The head lines every WebSocket request has, but for the subprotocol.
pub(crate) const UPGRADE: &str = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A connection after the handshake. As a [`Stream`] it puts each write into one binary frame and shows the payload of what
/// comes back; a close frame is the end.
pub(crate) struct WsClient {
    stream: TcpStream,
    raw: Vec<u8>,
    payload: Vec<u8>,
}

/// Connects and agrees on `mqtt`.
pub(crate) fn connect(address: SocketAddr) -> WsClient {
    connect_with(address, "")
}

/// Connects with more header lines, each with its line end.
pub(crate) fn connect_with(address: SocketAddr, headers: &str) -> WsClient {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_nodelay(true).expect("a TCP option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: mqtt\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the broker reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer to the upgrade");
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("a head is text");
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("sec-websocket-protocol: mqtt\r\n"),
        "{head}"
    );
    WsClient { stream, raw: Vec::new(), payload: Vec::new() }
}

/// A masked frame; the length is in its shortest form.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl WsClient {
    /// Sends bytes that may be anything. An error means that the broker has closed, which the next read will tell.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame: first byte and payload; none if the connection is closed.
    pub(crate) fn recv_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((length, frame)) = self.parse() {
                self.raw.drain(..length);
                return Ok(Some(frame));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(n) => self.raw.extend_from_slice(&chunk[..n]),
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asserts that the broker says why with this close code, after whatever else it has to say, and closes.
    pub(crate) fn expect_close_code(&mut self, code: u16) {
        loop {
            let (first, payload) = self.recv_frame().expect("an answer in time").expect("a close frame before the end");
            if first == FIN | CLOSE {
                assert_eq!(payload, code.to_be_bytes());
                break;
            }
        }
        assert!(self.recv_frame().expect("the end in time").is_none(), "a frame after the close frame");
    }

    fn parse(&self) -> Option<(usize, (u8, Vec<u8>))> {
        let (&first, rest) = self.raw.split_first()?;
        let (&short, rest) = rest.split_first()?;
        assert_eq!(short & 0x80, 0, "a server does not mask");
        let (length, header) = match short {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).expect("a length that fits"), 10),
            short => (usize::from(short), 2),
        };
        let payload = self.raw.get(header..header + length)?;
        Some((header + length, (first, payload.to_vec())))
    }
}

impl Read for WsClient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() {
            match self.recv_frame()? {
                Some((first, payload)) if first & 0x0F == BINARY => self.payload = payload,
                Some((first, _)) if first & 0x0F == CLOSE => return Ok(0),
                Some(_) => {}
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.payload.len());
        buffer[..length].copy_from_slice(&self.payload[..length]);
        self.payload.drain(..length);
        Ok(length)
    }
}

impl Write for WsClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_all(&frame(FIN | BINARY, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for WsClient {
    fn set_timeout(&mut self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("a positive timeout");
    }
}
