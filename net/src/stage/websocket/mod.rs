//! MQTT over WebSocket (section 6 of both MQTT specifications, RFC 6455): the upgrade handshake, then binary frames that
//! carry the MQTT byte stream.
//!
//! ```text
//!  Upgrade ──101──► Open ──close frame from either side, or a violation──► closed
//! ```
//! tungstenite parses and answers the upgrade request and reads and writes frame headers. Frames' payloads are unmasked
//! straight into the application's buffer as they arrive: MQTT packets need not be aligned with frames, so there is nothing
//! to wait for, and neither a long frame nor a claim of one costs memory.

mod frames;
mod upgrade;

#[cfg(test)]
mod tests;

pub use frames::{CONTROL_BYTES_MAX, FrameViolation};
pub use upgrade::{UPGRADE_BYTES_MAX, UpgradeRefusal};

use frames::Frames;
pub(super) use frames::write_binary_header;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use upgrade::{Accepted, Upgrade};

/// A listener's WebSocket settings.
#[derive(Clone, Debug)]
pub struct WsConfig {
    /// The one path that is served, say `/mqtt`; a query is ignored.
    pub path: String,
    /// Longest frame accepted, in bytes of payload; a longer one closes the connection with 1009. The Maximum Packet Size is a
    /// good value.
    pub frame_bytes_max: u64,
    /// Networks of the reverse proxies whose `X-Forwarded-For` is believed. Empty: nobody's.
    pub trust_forwarded_for: Vec<IpNet>,
}

/// How a client broke WebSocket's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WsError {
    /// In the opening handshake.
    #[error("upgrade refused: {0}")]
    Upgrade(#[from] UpgradeRefusal),
    /// In a frame.
    #[error("frame refused: {0}")]
    Frame(#[from] FrameViolation),
}

/// One connection's WebSocket, server side.
#[derive(Debug)]
pub(super) struct WebSocket {
    state: State,
    forwarded_for: Option<SocketAddr>,
}

#[derive(Debug)]
enum State {
    Upgrade(Upgrade),
    Open(Frames),
}

impl WebSocket {
    /// A connection that has sent nothing yet.
    pub(super) const fn new(config: Arc<WsConfig>) -> Self {
        Self { state: State::Upgrade(Upgrade::new(config)), forwarded_for: None }
    }

    /// Takes `bytes` from the client, appends payload to `app` and answers to `net`. `peer` sent the request.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        peer: Option<SocketAddr>,
        app: &mut Vec<u8>,
        net: &mut Vec<u8>,
    ) -> Result<(), WsError> {
        match &mut self.state {
            State::Open(frames) => Ok(frames.receive(bytes, app, net)?),
            State::Upgrade(upgrade) => {
                let Some((accepted, used)) = upgrade.receive(bytes, peer, net)? else {
                    return Ok(());
                };
                let Accepted { forwarded_for, frame_bytes_max } = accepted;
                self.forwarded_for = forwarded_for;
                let mut frames = Frames::new(frame_bytes_max);
                // A client should wait for the answer before it sends frames, but nothing is gained by insisting.
                let result = frames.receive(&bytes[used..], app, net);
                self.state = State::Open(frames);
                Ok(result?)
            }
        }
    }

    /// Appends a close frame with code 1000, if the connection is open.
    pub(super) fn close(&mut self, net: &mut Vec<u8>) {
        if let State::Open(frames) = &mut self.state {
            frames.close(net);
        }
    }

    /// The handshake is over.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The client has sent a close frame; the answer has been given.
    pub(super) const fn peer_closed(&self) -> bool {
        match &self.state {
            State::Open(frames) => frames.peer_closed(),
            State::Upgrade(_) => false,
        }
    }

    /// The client's address as told by a trusted reverse proxy.
    pub(super) const fn forwarded_for(&self) -> Option<SocketAddr> {
        self.forwarded_for
    }
}
