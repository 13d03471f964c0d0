//! The client's side of WebSocket: the upgrade, then masked binary frames (RFC 6455). Headers are tungstenite's.

use std::io::{self, Cursor, Read};
use std::net::SocketAddr;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest answer to the upgrade request.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub struct WebSocket {
    /// What the answer has to contain; none once it has come.
    awaits: Option<String>,
    /// Differs from frame to frame. It keeps old proxies from mistaking frames for requests; nobody attacks a benchmark.
    mask: u32,
    closed: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl WebSocket {
    /// Appends the upgrade request to `out`.
    ///
    /// # Errors
    /// Never at present.
    pub fn new(path: &str, target: SocketAddr, out: &mut Vec<u8>) -> io::Result<Self> {
        let key = generate_key();
        out.extend_from_slice(
            format!(
                "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            )
            .as_bytes(),
        );
        Ok(Self { awaits: Some(derive_accept_key(key.as_bytes())), mask: 0x5eed_cafe, closed: false })
    }

    /// The upgrade is through.
    pub const fn is_open(&self) -> bool {
        self.awaits.is_none()
    }

    /// The broker has sent a close frame: nothing more will come.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the answer to the upgrade off `plain`, if it is there and still due.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn upgrade(&mut self, plain: &mut Vec<u8>) -> io::Result<()> {
        let Some(accept) = &self.awaits else { return Ok(()) };
        let Some(end) = plain.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if plain.len() > ANSWER_BYTES_MAX {
                Err(invalid("an endless answer to the upgrade"))
            } else {
                Ok(())
            };
        };
        let answer = String::from_utf8_lossy(&plain[..end]);
        let status = answer.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(invalid(format!("the broker refused the upgrade to WebSocket: {status}")));
        }
        let accepted = answer
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == accept);
        if !accepted {
            return Err(invalid("the answer to the upgrade is not for this request"));
        }
        plain.drain(..end + 4);
        self.awaits = None;
        Ok(())
    }

    /// Appends one masked binary frame with `payload` to `out`.
    pub fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.put(OpCode::Data(Data::Binary), payload, out);
    }

    fn put(&mut self, opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
        self.mask = self.mask.wrapping_mul(0x9e37_79b1).wrapping_add(1);
        let mask = self.mask.to_ne_bytes();
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        header.format(payload.len() as u64, out).expect("writing to a vector cannot fail, and nothing else in it can");
        let from = out.len();
        out.extend_from_slice(payload);
        let (words, rest) = out[from..].as_chunks_mut::<4>();
        words.iter_mut().for_each(|word| *word = (u32::from_ne_bytes(*word) ^ self.mask).to_ne_bytes());
        rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// Takes whole frames off `plain`; appends what they carry to `payload`, and answers to pings to `out`.
    ///
    /// # Errors
    /// If the broker breaks a rule.
    pub fn unframe(&mut self, plain: &mut Vec<u8>, payload: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        let mut cursor = Cursor::new(&plain[..]);
        let mut used = 0;
        while let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? {
            let rest = (plain.len() as u64).saturating_sub(cursor.position());
            if length > rest {
                break;
            }
            let from = payload.len();
            match header.opcode {
                OpCode::Data(Data::Binary | Data::Continue) => {
                    payload.resize(from + length as usize, 0);
                    cursor.read_exact(&mut payload[from..])?;
                }
                OpCode::Control(Control::Ping | Control::Pong) => {
                    let mut body = vec![0; length as usize];
                    cursor.read_exact(&mut body)?;
                    if header.opcode == OpCode::Control(Control::Ping) {
                        self.put(OpCode::Control(Control::Pong), &body, out);
                    }
                }
                OpCode::Control(Control::Close) => {
                    self.closed = true;
                    break;
                }
                other => return Err(invalid(format!("a WebSocket frame of kind {other}"))),
            }
            used = cursor.position() as usize;
        }
        plain.drain(..used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> WebSocket {
        let mut out = Vec::new();
        let target = SocketAddr::from(([127, 0, 0, 1], 8083));
        let mut socket = WebSocket::new("/mqtt", target, &mut out).expect("made");
        let request = String::from_utf8(out).expect("text");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        let mut answer = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {accept}\r\n\r\nrest").into_bytes();
        socket.upgrade(&mut answer).expect("accepted");
        assert!(socket.is_open() && answer == b"rest");
        socket
    }

    #[test]
    fn a_refusal_and_a_foreign_answer_are_told_apart_from_success() {
        let target = SocketAddr::from(([127, 0, 0, 1], 8083));
        for answer in ["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: x\r\n\r\n"] {
            let mut socket = WebSocket::new("/mqtt", target, &mut Vec::new()).expect("made");
            socket.upgrade(&mut answer.as_bytes().to_vec()).expect_err("not this");
        }
    }

    #[test]
    fn frames_are_masked_and_come_apart_again_wherever_they_are_cut() {
        let mut socket = open();
        let mut wire = Vec::new();
        for length in [0, 1, 3, 4, 125, 126, 70_000] {
            socket.frame(&vec![b'x'; length], &mut wire);
        }
        // A masked frame is what a server gets; without its mask it is what a client gets.
        let mut served = Vec::new();
        let mut cursor = Cursor::new(&wire[..]);
        while let Some((header, length)) = FrameHeader::parse(&mut cursor).expect("well-formed") {
            let mask = header.mask.expect("clients mask");
            let mut body = vec![0; length as usize];
            cursor.read_exact(&mut body).expect("whole");
            body.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
            assert!(body.iter().all(|&byte| byte == b'x'));
            FrameHeader { mask: None, ..header }.format(length, &mut served).expect("a vector");
            served.extend_from_slice(&body);
        }
        for cut in [1, 7, 1000] {
            let (mut plain, mut payload) = (Vec::new(), Vec::new());
            for piece in served.chunks(cut) {
                plain.extend_from_slice(piece);
                socket.unframe(&mut plain, &mut payload, &mut Vec::new()).expect("well-formed");
            }
            assert_eq!((payload.len(), plain.len()), (1 + 3 + 4 + 125 + 126 + 70_000, 0));
        }
    }

    #[test]
    fn a_ping_is_answered_and_a_close_ends_the_connection() {
        let mut socket = open();
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        socket.unframe(&mut vec![0x89, 2, b'h', b'i'], &mut payload, &mut out).expect("a ping");
        assert!(payload.is_empty() && out[0] == 0x8a && out.len() == 2 + 4 + 2);
        assert!(!socket.is_closed());
        socket.unframe(&mut vec![0x88, 0], &mut payload, &mut out).expect("a close");
        assert!(socket.is_closed());
    }
}
