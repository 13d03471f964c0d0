//! Decoding and encoding of control packets of MQTT 3.1, 3.1.1 and 5.0, for both ends of a connection.
//!
//! Decoding borrows from the received bytes and allocates nothing; it accepts exactly what the specifications allow and
//! has one [`DecodeError`] for each way to fail. What depends on a session (topic syntax, topic aliases, identifiers in
//! use, which side may send what) is the session's to check. Encoding appends to a buffer. [`Fanout`] encodes one
//! PUBLISH for many subscribers.

mod ack;
mod connect;
mod error;
mod fanout;
mod header;
mod publish;
pub(crate) mod reader;
mod subscribe;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub use ack::{AckKind, encode_ack, encode_ping_resp};
pub use error::DecodeError;
pub use fanout::{Fanout, FanoutScratch, PublishSpec};
pub use header::{PacketType, packet_len};

use crate::packet::Packet;
use alloc::vec::Vec;
use bifro_core::client::Version;
use header::FirstByte;
use reader::Reader;
use writer::put_packet;

/// How to decode.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Version of the connection; none until CONNECT has said, then only CONNECT is decoded.
    pub version: Option<Version>,
    /// Largest packet accepted in bytes, fixed header included [MQTT5-3.1.2-24].
    pub packet_bytes_max: u32,
}

/// Looks at the start of `bytes`. Returns the packet and its length, or none if more bytes are needed; a packet that is
/// wrong in its fixed header is refused as soon as that byte is there.
///
/// # Errors
/// One variant per way a peer can be wrong; the connection is to be closed.
pub fn decode<'a>(bytes: &'a [u8], options: &DecodeOptions) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some((first, lengths)) = header::decode(bytes, options)? else { return Ok(None) };
    let Some(body) = bytes.get(lengths.header..lengths.packet) else { return Ok(None) };
    let body = Reader::new(body);
    let packet = match options.version {
        // Only CONNECT passes the fixed header before the version is known.
        None => Packet::Connect(connect::decode(body)?),
        Some(version) => decode_body(first, body, version)?,
    };
    Ok(Some((packet, lengths.packet)))
}

fn decode_body(first: FirstByte, body: Reader<'_>, version: Version) -> Result<Packet<'_>, DecodeError> {
    let packet_type = first.packet_type;
    Ok(match packet_type {
        // A second CONNECT is the session's to refuse, with a better reason than a decoder has [MQTT-3.1.0-2].
        PacketType::Connect => Packet::Connect(connect::decode(body)?),
        PacketType::ConnAck => Packet::ConnAck(connect::decode_ack(body, version)?),
        PacketType::Publish => Packet::Publish(publish::decode(first.flags, body, version)?),
        PacketType::PubAck => Packet::PubAck(ack::decode(packet_type, body, version)?),
        PacketType::PubRec => Packet::PubRec(ack::decode(packet_type, body, version)?),
        PacketType::PubRel => Packet::PubRel(ack::decode(packet_type, body, version)?),
        PacketType::PubComp => Packet::PubComp(ack::decode(packet_type, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::decode(body, version)?),
        PacketType::SubAck => Packet::SubAck(subscribe::decode_ack(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::decode_end(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::decode_end_ack(body, version)?),
        PacketType::PingReq => body.finish().map(|()| Packet::PingReq)?,
        PacketType::PingResp => body.finish().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(ack::decode_disconnect(body, version)?),
        PacketType::Auth => Packet::Auth(ack::decode_auth(body)?),
    })
}

/// Appends `packet` as `version` writes it; what the version does not have (properties, most reason codes) is left out.
/// For PUBLISH to subscribers use [`Fanout`].
///
/// # Panics
/// If the packet cannot be written: a field or the whole is too long, a PUBLISH has an identifier that does not go with
/// its QoS, or the packet is an AUTH and the version is not 5.0. No decoded packet does, written as the version it came
/// in.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    match packet {
        Packet::Connect(connect) => connect::encode(connect, out),
        Packet::ConnAck(ack) => connect::encode_ack(ack, version, out),
        Packet::Publish(publish) => publish::encode(publish, version, out),
        Packet::PubAck(ack) => ack::encode(AckKind::PubAck, ack, version, out),
        Packet::PubRec(ack) => ack::encode(AckKind::PubRec, ack, version, out),
        Packet::PubRel(ack) => ack::encode(AckKind::PubRel, ack, version, out),
        Packet::PubComp(ack) => ack::encode(AckKind::PubComp, ack, version, out),
        Packet::Subscribe(subscribe) => subscribe::encode(subscribe, version, out),
        Packet::SubAck(ack) => subscribe::encode_ack(ack, version, out),
        Packet::Unsubscribe(unsubscribe) => subscribe::encode_end(unsubscribe, version, out),
        Packet::UnsubAck(ack) => subscribe::encode_end_ack(ack, version, out),
        Packet::PingReq => put_packet(out, PacketType::PingReq.first_byte(), |_| {}),
        Packet::PingResp => encode_ping_resp(out),
        Packet::Disconnect(disconnect) => ack::encode_disconnect(disconnect, version, out),
        Packet::Auth(auth) => {
            assert!(version == Version::V5, "AUTH is a packet of MQTT 5");
            ack::encode_auth(auth, out);
        }
    }
}
