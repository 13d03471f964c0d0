//! Listener stages: what lies between a socket's bytes and MQTT's bytes, as machines that do no I/O.
//!
//! ```text
//!  socket ──► PROXY header ──► TLS ──► WebSocket ──► MQTT bytes          (receive)
//!  socket ◄─────────────────── TLS ◄── WebSocket ◄── MQTT bytes          (send)
//! ```
//! Each stage is optional. A [`Pipeline`] belongs to one connection, on the shard that accepted it. Plain TCP has none, and
//! one whose only stage was a PROXY header becomes [`Pipeline::is_passthrough`] and can be dropped.
//!
//! Invariants:
//! - Memory is bounded in every state by the limits named in each stage; nothing is allocated on the word of a length field.
//! - A pipeline never blocks and never keeps outgoing bytes: what is to be sent is in the caller's buffer when a call returns.
//! - After an error, after the peer closed, and after [`Pipeline::close`], no application bytes come out and none go in.

pub mod proxy;
pub mod tls;
pub mod websocket;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

use bifro_mqtt::wire::Wire;
pub use ipnet::IpNet;
use proxy::{ProxyConfig, ProxyError, ProxyHeader, Source};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;
use tls::{TlsCell, TlsError, TlsSession};
use websocket::{WebSocket, WsConfig, WsError};

/// The stages of one listener. Cheap to clone; shards hold clones that share the TLS cell.
#[derive(Clone, Debug, Default)]
pub struct ListenerStages {
    /// Expect a PROXY protocol header.
    pub proxy: Option<Arc<ProxyConfig>>,
    /// Terminate TLS. The cell's content may be replaced at any time: new connections take the new one.
    pub tls: Option<Arc<TlsCell>>,
    /// Speak WebSocket.
    pub ws: Option<Arc<WsConfig>>,
}

/// Why a connection's stages gave up. Unless said otherwise the caller sends what is in `net`, then closes.
#[derive(Debug, Error)]
pub enum StageError {
    /// The PROXY header is missing, malformed or from somebody not entitled to send one.
    #[error("PROXY header: {0}")]
    Proxy(#[from] ProxyError),
    /// TLS failed; `net` holds the alert.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The WebSocket handshake or framing was violated; `net` holds the HTTP error or the close frame.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] WsError),
    /// Application bytes were sent before the handshakes were over. Nothing changed.
    #[error("application bytes before the end of the handshake")]
    HandshakeIncomplete,
    /// Application bytes were sent after the connection was closed. Nothing changed.
    #[error("application bytes after the close")]
    Closed,
}

/// The stages of one connection.
///
/// Call [`receive`](Self::receive) with whatever the socket gave, [`send`](Self::send) with what the session wants sent, in
/// any order; after each call send what was appended to `net`.
#[derive(Debug)]
pub struct Pipeline {
    peer: Option<SocketAddr>,
    proxy: Option<ProxyHeader>,
    /// Boxed: it is seven times the rest, and WebSocket connections without it are many.
    tls: Option<Box<TlsSession>>,
    ws: Option<WebSocket>,
    /// No application bytes pass any more: failed, closed by us, or closed by the peer.
    closed: bool,
    peer_closed: bool,
}

impl Pipeline {
    /// The pipeline for a connection from `peer` (`None` for a unix socket), or `None` if its bytes need no stage.
    ///
    /// A connection that must not send a PROXY header where one is required gets a pipeline too: it fails on the first byte.
    /// See [`ProxyConfig::refuses`] for closing it at once.
    pub fn new(stages: &ListenerStages, peer: Option<SocketAddr>) -> Option<Box<Self>> {
        let pipeline = Self {
            peer: peer.map(canonical),
            proxy: stages.proxy.as_ref().and_then(|config| ProxyHeader::expect(config, peer.map(|peer| peer.ip()))),
            tls: stages.tls.as_ref().map(|cell| Box::new(TlsSession::new(cell.current()))),
            ws: stages.ws.as_ref().map(|config| WebSocket::new(Arc::clone(config))),
            closed: false,
            peer_closed: false,
        };
        (!pipeline.is_passthrough()).then(|| Box::new(pipeline))
    }

    /// Takes all of `bytes` from the socket, appends application bytes to `app` and bytes for the socket to `net`
    /// (handshakes, pongs, alerts, error responses, close frames).
    ///
    /// # Errors
    /// When the peer breaks a stage's protocol. `app` may hold bytes that came before the offence, and `net` what is still to
    /// be sent before closing. Later calls ignore their input.
    pub fn receive(&mut self, bytes: &[u8], app: &mut Vec<u8>, net: &mut Vec<u8>) -> Result<(), StageError> {
        if self.closed {
            return Ok(());
        }
        let result = self.through_proxy(bytes, app, net);
        if result.is_err() {
            self.closed = true;
            if let Some(tls) = &mut self.tls {
                tls.close(net);
            }
        }
        result
    }

    /// Appends `wire` to `net` as the stages encode it: one WebSocket binary frame per call, in TLS records.
    ///
    /// # Errors
    /// [`StageError::HandshakeIncomplete`] and [`StageError::Closed`] when called out of turn; [`StageError::Tls`] when the
    /// keys may encrypt no more.
    pub fn send(&mut self, wire: &Wire, net: &mut Vec<u8>) -> Result<(), StageError> {
        if self.closed {
            return Err(StageError::Closed);
        }
        if !self.handshake_done() {
            return Err(StageError::HandshakeIncomplete);
        }
        if wire.is_empty() {
            return Ok(());
        }
        let mut header = Vec::new();
        if self.ws.is_some() {
            // [MQTT-6.0.0-1] [MQTT5-6.0.0-1]: MQTT control packets travel in binary frames.
            websocket::write_binary_header(wire.len(), &mut header);
        }
        let pieces = std::iter::once(header.as_slice()).chain(wire.pieces());
        match &mut self.tls {
            Some(tls) => tls.encrypt(pieces, net)?,
            None => {
                net.reserve(header.len() + wire.len());
                pieces.for_each(|piece| net.extend_from_slice(piece));
            }
        }
        Ok(())
    }

    /// Says goodbye in every stage that has a word for it: WebSocket close frame (1000), TLS close_notify. Does nothing
    /// if the pipeline has failed or the goodbye has been said before.
    pub fn close(&mut self, net: &mut Vec<u8>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut farewell = Vec::new();
        if let Some(ws) = &mut self.ws {
            ws.close(&mut farewell);
        }
        match &mut self.tls {
            Some(tls) => tls.farewell(&farewell, net),
            None => net.append(&mut farewell),
        }
    }

    /// The client's address as far as it is known: the socket's, replaced by that of a PROXY header and then by that of a
    /// trusted `X-Forwarded-For` (port 0 if it names none).
    pub fn peer(&self) -> Option<SocketAddr> {
        self.ws.as_ref().and_then(WebSocket::forwarded_for).or(self.peer)
    }

    /// DER of the client's own certificate, verified, once the TLS handshake is over; `None` if there is none.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref().and_then(|tls| tls.client_certificate())
    }

    /// Every stage is past its handshake: application bytes can flow.
    pub fn handshake_done(&self) -> bool {
        self.proxy.is_none()
            && self.tls.as_ref().is_none_or(|tls| tls.is_established())
            && self.ws.as_ref().is_none_or(WebSocket::is_open)
    }

    /// Nothing is left to do for this connection: drop the pipeline (after asking for [`Self::peer`]) and use the socket's
    /// bytes as they are.
    pub const fn is_passthrough(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.ws.is_none()
    }

    /// The peer has closed in an orderly way (WebSocket close frame or TLS close_notify) and the answer is in `net`: handle
    /// the application bytes that came before, send `net`, close the socket.
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    fn through_proxy(&mut self, bytes: &[u8], app: &mut Vec<u8>, net: &mut Vec<u8>) -> Result<(), StageError> {
        let Some(proxy) = &mut self.proxy else {
            return self.through_tls(bytes, app, net);
        };
        let Some((source, used)) = proxy.receive(bytes)? else {
            return Ok(());
        };
        match source {
            Source::Client(address) => self.peer = Some(canonical(address)),
            Source::Nameless => self.peer = None,
            Source::Connection => {}
            Source::NoHeader(held) => {
                self.proxy = None;
                self.through_tls(&held, app, net)?;
            }
        }
        self.proxy = None;
        self.through_tls(&bytes[used..], app, net)
    }

    fn through_tls(&mut self, bytes: &[u8], app: &mut Vec<u8>, net: &mut Vec<u8>) -> Result<(), StageError> {
        let peer = self.peer;
        let Some(tls) = &mut self.tls else {
            return self.through_ws(bytes, app, net);
        };
        let (ws, mut reply) = (&mut self.ws, Vec::new());
        let result = tls.receive(bytes, net, |plain| match ws {
            Some(ws) => ws.receive(plain, peer, app, &mut reply).map_err(StageError::from),
            None => {
                app.extend_from_slice(plain);
                Ok(())
            }
        });
        if matches!(result, Err(StageError::Tls(_))) {
            return result;
        }
        tls.encrypt(std::iter::once(reply.as_slice()), net)?;
        result?;
        if tls.peer_closed() || self.ws.as_ref().is_some_and(WebSocket::peer_closed) {
            tls.close(net);
            self.peer_closed = true;
            self.closed = true;
        }
        Ok(())
    }

    fn through_ws(&mut self, bytes: &[u8], app: &mut Vec<u8>, net: &mut Vec<u8>) -> Result<(), StageError> {
        let Some(ws) = &mut self.ws else {
            app.extend_from_slice(bytes);
            return Ok(());
        };
        ws.receive(bytes, self.peer, app, net)?;
        if ws.peer_closed() {
            self.peer_closed = true;
            self.closed = true;
        }
        Ok(())
    }
}

/// An IPv4 address that came through an IPv6 socket is written as IPv4, so that rules and limits see one form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether one of `networks` holds `ip`, in whichever form it is written.
fn within(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}
