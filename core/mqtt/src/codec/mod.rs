//! Decoding and encoding of control packets.

use crate::packet::{Packet, PacketId};
use crate::reason::Reason;
use crate::wire::Wire;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::time::Instant;
use core::num::NonZeroU32;

/// How to decode.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Version of the connection; none until CONNECT has said, then only CONNECT is decoded.
    pub version: Option<Version>,
    /// Largest packet accepted, fixed header included [MQTT5-3.1.2.11.4].
    pub packet_bytes_max: u32,
}

/// Looks at the start of `bytes`. Returns the packet and its length, or none if more bytes are needed.
///
/// # Errors
/// One variant per way a peer can be wrong; the connection is to be closed.
pub fn decode<'a>(bytes: &'a [u8], options: &DecodeOptions) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let _ = (bytes, options);
    Ok(None)
}

/// How a packet is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Larger than accepted.
    PacketTooLarge,
}

impl DecodeError {
    /// The reason an MQTT 5 client is told.
    pub const fn reason(self) -> Reason {
        match self {
            Self::PacketTooLarge => Reason::PACKET_TOO_LARGE,
        }
    }
}

/// Appends `packet` as `version` writes it. For PUBLISH to subscribers use [`Fanout`].
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    let _ = (packet, version, out);
}

/// What distinguishes one subscriber's copy of a PUBLISH.
#[derive(Clone, Copy, Debug)]
pub struct PublishSpec<'a> {
    /// Version of the subscriber.
    pub version: Version,
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Packet identifier, for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Topic alias, and whether the topic goes with it (first use).
    pub alias: Option<(u16, bool)>,
    /// Subscription identifiers.
    pub subscription_ids: &'a [NonZeroU32],
    /// Largest packet the subscriber accepts; 0 = no limit.
    pub packet_bytes_max: u32,
}

/// One message on its way to many subscribers: encoded once per version and shape, then copied and patched.
#[derive(Debug)]
pub struct Fanout<'m> {
    /// The message.
    pub view: MessageView<'m>,
    owned: Option<Arc<Message>>,
    now: Instant,
}

impl<'m> Fanout<'m> {
    /// A fan-out of `view`. `owned` is the same message if the broker owns it already; `now` fixes the remaining expiry.
    pub const fn new(view: MessageView<'m>, owned: Option<Arc<Message>>, now: Instant) -> Self {
        Self { view, owned, now }
    }

    /// The message with an owner, made at the first call.
    pub fn message(&mut self) -> &Arc<Message> {
        self.owned.get_or_insert_with(|| self.view.to_message())
    }

    /// The message has expired.
    pub fn is_expired(&self) -> bool {
        self.view.expiry_at.is_some_and(|at| at <= self.now)
    }

    /// Appends the PUBLISH for one subscriber. False, and nothing written, if it would exceed the subscriber's Maximum
    /// Packet Size [MQTT5-3.1.2-24].
    pub fn append(&mut self, spec: &PublishSpec<'_>, wire: &mut Wire) -> bool {
        let _ = (spec, wire);
        true
    }
}
