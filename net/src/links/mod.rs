//! Links: one shard's QUIC connections to the shards of other nodes, without tasks. The shard's turn drives them:
//! ```text
//! loop {
//!     links.read(now, &mut events);            // socket → QUIC → events; timers that are due
//!     for event in events.drain(..) { /* handle; links.send(..) */ }
//!     links.transmit(now);                     // queued messages → QUIC → socket
//!     /* park until the socket is readable or next_timeout(), not at all if has_more() */
//! }
//! ```
//! A link has two lanes, each a stream per direction: [`Lane::Control`] overtakes [`Lane::Bulk`]. Sending appends to a buffer; one
//! `transmit` makes few stream writes and few datagrams of whatever the turn has queued. Whoever has many messages to send writes them to
//! [`Blocks`], which a link takes as they are; what arrives is handed on as it lies in QUIC's memory.
//!
//! Each end proves the cluster's [`Secret`] over the TLS exporter in its greeting, its first frame, before anything else is accepted from
//! it. With [`Certificates`] each end's must be of the cluster's CA besides; without, TLS has none to check.
//!
//! Invariants:
//! - a link that came up goes down exactly once, and so does one that was dialled and did not come up; callers that never prove the secret
//!   are counted and make no events;
//! - between [`LinkEvent::Up`] and [`LinkEvent::Down`] messages of a lane arrive whole and in order, with none missing before the last;
//! - a [`LinkId`] is never given to two links.
//!
//! What is deliberately absent: dialling again, choosing between two links to one peer, backpressure on receiving. Those belong to the
//! owner, who takes what a turn brings.

mod certificates;
mod endpoint;
mod hello;
mod lane;
pub mod limits;
mod link;
mod secret;
mod socket;
pub mod tls;

#[cfg(test)]
mod tests;

pub use certificates::{CertificateFault, Certificates, ClusterPem};
pub use endpoint::Links;
pub use hello::Hello;
pub use lane::{Blocks, Lane, PREFIX_BYTES, next_message};
pub use limits::LinkLimits;
pub use secret::{End, PROOF_BYTES, Secret};

use crate::clock::Clock;
use bytes::Bytes;
use std::net::SocketAddr;

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// Where to listen, and to send from. Port 0 has the system choose.
    pub bind: SocketAddr,
    /// Who this end is.
    pub me: Hello,
    /// What the other nodes know, too.
    pub secret: Secret,
    /// Who this end is to TLS, and whom it takes; none: it takes any certificate, and the secret has to do.
    pub certificates: Option<Certificates>,
    /// The clock that every `now` is read from.
    pub clock: Clock,
    /// See there.
    pub limits: LinkLimits,
}

/// A link of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    index: u32,
    generation: u32,
}

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Both ends have proven the secret: it can be used.
    Up {
        /// The link.
        link: LinkId,
        /// Who is at the other end.
        peer: Hello,
        /// This end has called.
        dialled: bool,
    },
    /// Messages arrived.
    Messages {
        /// The link.
        link: LinkId,
        /// In order with the others of its lane.
        lane: Lane,
        /// The messages, each behind its length: see [`next_message`]. It may share up to 64 KiB of memory with its neighbours: copy what is
        /// kept for long.
        run: Bytes,
    },
    /// The link is gone, and its id with it.
    Down {
        /// The link.
        link: LinkId,
        /// [`LinkEvent::Up`] was reported before.
        was_up: bool,
        /// Why, for a log.
        reason: String,
    },
}

/// Why a message was not taken. Those taken before are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer does not take messages as fast as they are sent: try again when [`Links::queued_bytes`] is lower.
    #[error("the link's queue is full ({queued} bytes of {most})")]
    QueueFull {
        /// Bytes that wait.
        queued: usize,
        /// See [`LinkLimits::queued_bytes`].
        most: usize,
    },
    /// No link takes such a message.
    #[error("a message of {bytes} bytes is longer than the {most} a link takes")]
    TooLong {
        /// Bytes of the message.
        bytes: usize,
        /// See [`LinkLimits::message_bytes`].
        most: usize,
    },
    /// The link is not up yet, or not any longer.
    #[error("the link is not up")]
    NotUp,
}

/// What an endpoint has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes of the messages queued, their lengths included.
    pub bytes_sent: u64,
    /// Bytes of the messages handed on, their lengths included.
    pub bytes_received: u64,
    /// Datagrams given to the kernel.
    pub datagrams_sent: u64,
    /// Datagrams received, whatever was in them.
    pub datagrams_received: u64,
    /// Those that belonged to no link and could not begin one.
    pub datagrams_ignored: u64,
    /// Links that did not come up, called by either end, those of `proofs_refused` included.
    pub handshakes_failed: u64,
    /// Peers that did not prove the secret.
    pub proofs_refused: u64,
    /// Callers turned away, for there were too many that had proven nothing.
    pub callers_refused: u64,
}
