//! The opening handshake: an HTTP/1.1 request, checked and answered once it is complete.
//!
//! `Origin` is not checked: MQTT authenticates by CONNECT, not by cookies. A request is never held beyond
//! [`UPGRADE_BYTES_MAX`], and bytes that cannot become a GET request (TLS, MQTT) are refused at the first wrong one.

use super::WsConfig;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

/// Longest upgrade request, in bytes; a longer one is refused with status 431.
pub const UPGRADE_BYTES_MAX: usize = 8 << 10;

const METHOD: &[u8] = b"GET ";

/// Names MQTT goes by. The first is the specification's, the others are those of older clients.
const SUBPROTOCOLS: [&str; 3] = ["mqtt", "mqttv3.1", "mqttv3.1.1"];

/// Why an upgrade was refused; each is answered with an HTTP response of [`UpgradeRefusal::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UpgradeRefusal {
    /// Not an HTTP/1.1 request, or without a valid WebSocket key.
    #[error("not a valid WebSocket request")]
    Malformed,
    /// Another method than GET.
    #[error("method is not GET")]
    Method,
    /// Another path than the listener's.
    #[error("unknown path")]
    Path,
    /// Not an upgrade to WebSocket.
    #[error("no upgrade to WebSocket asked for")]
    NoUpgrade,
    /// Another version of WebSocket than 13.
    #[error("unsupported WebSocket version")]
    Version,
    /// No subprotocol offered that we know [MQTT-6.0.0-3] [MQTT5-6.0.0-3].
    #[error("no known subprotocol offered")]
    Subprotocol,
    /// More than [`UPGRADE_BYTES_MAX`], or too many headers.
    #[error("request too long")]
    TooLong,
}

impl UpgradeRefusal {
    /// The HTTP status that answers it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Subprotocol => 400,
            Self::Path => 404,
            Self::Method => 405,
            Self::NoUpgrade | Self::Version => 426,
            Self::TooLong => 431,
        }
    }

    /// The response to it, complete.
    const fn response(self) -> &'static [u8] {
        match self {
            Self::Malformed | Self::Subprotocol => {
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Path => b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Self::Method => {
                b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::NoUpgrade | Self::Version => {
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                  Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            }
            Self::TooLong => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
        }
    }
}

impl From<tungstenite::Error> for UpgradeRefusal {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        match error {
            Error::Protocol(ProtocolError::WrongHttpMethod) => Self::Method,
            Error::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
            ) => Self::NoUpgrade,
            Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => Self::Version,
            Error::Capacity(CapacityError::TooManyHeaders) => Self::TooLong,
            _ => Self::Malformed,
        }
    }
}

/// What the handshake agreed on.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) forwarded_for: Option<SocketAddr>,
    pub(super) frame_bytes_max: u64,
}

/// Collects and answers the request of one connection.
#[derive(Debug)]
pub(super) struct Upgrade {
    config: Arc<WsConfig>,
    held: Vec<u8>,
}

impl Upgrade {
    /// Waits for the first byte.
    pub(super) const fn new(config: Arc<WsConfig>) -> Self {
        Self { config, held: Vec::new() }
    }

    /// Takes bytes until the request is complete; then its outcome and how many of `bytes` belonged to it. The answer, either
    /// way, is appended to `net`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        peer: Option<SocketAddr>,
        net: &mut Vec<u8>,
    ) -> Result<Option<(Accepted, usize)>, UpgradeRefusal> {
        let result = self.collect(bytes).and_then(|complete| match complete {
            Some((request, used)) => self.answer(&request, peer, net).map(|accepted| Some((accepted, used))),
            None => Ok(None),
        });
        if let Err(refusal) = result {
            self.held = Vec::new();
            net.extend_from_slice(refusal.response());
        }
        result
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<Option<(Request, usize)>, UpgradeRefusal> {
        let before = self.held.len();
        let taken = bytes.len().min(UPGRADE_BYTES_MAX - before);
        self.held.extend_from_slice(&bytes[..taken]);
        self.check_method()?;
        // The end of the request is an empty line: only a chunk that brings a line's end can complete it.
        if self.held[before..].contains(&b'\n')
            && let Some((length, request)) = Request::try_parse(&self.held)?
        {
            self.held = Vec::new();
            return Ok(Some((request, length - before)));
        }
        if self.held.len() == UPGRADE_BYTES_MAX { Err(UpgradeRefusal::TooLong) } else { Ok(None) }
    }

    /// Refuses what does not begin like a GET request.
    fn check_method(&self) -> Result<(), UpgradeRefusal> {
        let wrong = self.held.iter().zip(METHOD).find(|(held, expected)| held != expected);
        match wrong {
            None => Ok(()),
            Some((held, _)) if held.is_ascii_uppercase() || *held == b' ' => Err(UpgradeRefusal::Method),
            Some(_) => Err(UpgradeRefusal::Malformed),
        }
    }

    fn answer(
        &self,
        request: &Request,
        peer: Option<SocketAddr>,
        net: &mut Vec<u8>,
    ) -> Result<Accepted, UpgradeRefusal> {
        if request.uri().path() != self.config.path {
            return Err(UpgradeRefusal::Path);
        }
        let mut response = create_response(request)?;
        let subprotocol = choose_subprotocol(request.headers()).ok_or(UpgradeRefusal::Subprotocol)?;
        // [MQTT-6.0.0-4] [MQTT5-6.0.0-4]: the name chosen is returned.
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        write_response(net.by_ref(), &response)?;
        let forwarded_for = forwarded_for(request.headers(), peer, &self.config);
        Ok(Accepted { forwarded_for, frame_bytes_max: self.config.frame_bytes_max })
    }
}

/// `mqtt` if it is among the names offered [MQTT-6.0.0-3] [MQTT5-6.0.0-3], else the first older name that is.
fn choose_subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = || {
        let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim)
    };
    let known = |name: &str| SUBPROTOCOLS.into_iter().find(|known| *known == name);
    offered()
        .find(|name| *name == SUBPROTOCOLS[0])
        .or_else(|| offered().find(|name| known(name).is_some()))
        .and_then(known)
}

/// The client's address according to `X-Forwarded-For`, if whoever sent the request is trusted to know.
///
/// Each proxy appends the address it was called from, so only the end of the list can be believed: from there trusted
/// proxies are skipped, and the first address that is none of them is the client's.
fn forwarded_for(headers: &HeaderMap, peer: Option<SocketAddr>, config: &WsConfig) -> Option<SocketAddr> {
    let trusted = |ip: IpAddr| crate::stage::within(&config.trust_forwarded_for, ip);
    // A unix socket's peer is a local process that was let in by the file's permissions.
    let believed = !config.trust_forwarded_for.is_empty() && peer.is_none_or(|peer| trusted(peer.ip()));
    if !believed {
        return None;
    }
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").into_iter().map_while(|line| line.to_str().ok()).collect();
    let mut client = None;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(address) = parse_hop(hop.trim()) else { break };
        client = Some(address);
        if !trusted(address.ip()) {
            break;
        }
    }
    client
}

/// `address`, `address:port`, `[address]` or `[address]:port`; port 0 stands for none.
fn parse_hop(hop: &str) -> Option<SocketAddr> {
    if let Ok(address) = hop.parse::<SocketAddr>() {
        return Some(super::super::canonical(address));
    }
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip.to_canonical(), 0))
}
