//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7), DISCONNECT (3.14) and AUTH (3.15): the packets whose end
//! may be left out in MQTT 5.

use super::reader::Reader;
use super::writer::{put_packet, put_properties};
use super::{DecodeError, PacketType};
use crate::packet::{Ack, Auth, Disconnect, PacketId};
use crate::property::{Properties, PropertyOwner};
use crate::reason::Reason;
use alloc::vec::Vec;
use bifro_core::client::Version;

/// Which acknowledgement of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckKind {
    const fn first_byte(self) -> u8 {
        match self {
            Self::PubAck => PacketType::PubAck.first_byte(),
            Self::PubRec => PacketType::PubRec.first_byte(),
            Self::PubRel => PacketType::PubRel.first_byte(),
            Self::PubComp => PacketType::PubComp.first_byte(),
        }
    }
}

/// Appends the four bytes that say success, the same in every version.
pub fn encode_ack(kind: AckKind, packet_id: PacketId, out: &mut Vec<u8>) {
    let [high, low] = packet_id.get().to_be_bytes();
    out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
}

/// Appends a PINGRESP.
pub fn encode_ping_resp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

/// The end of a packet of MQTT 5 that is short when there is little to say: no bytes mean success, and without
/// properties their length may be missing too.
fn decode_end<'a>(
    body: &mut Reader<'a>,
    packet: PacketType,
    owner: PropertyOwner,
) -> Result<(Reason, Properties<'a>), DecodeError> {
    let reason = if body.is_empty() { Reason::SUCCESS } else { Reason(body.u8()?) };
    // [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1]
    if !reason.is_allowed_in(packet) {
        return Err(DecodeError::ReasonUnknown { code: reason.0 });
    }
    let properties = if body.is_empty() { Properties::default() } else { body.properties(owner)? };
    Ok((reason, properties))
}

/// Appends the end of such a packet, as short as it may be.
fn put_end(out: &mut Vec<u8>, reason: Reason, properties: Properties<'_>) {
    let has_properties = !properties.raw().is_empty();
    if reason != Reason::SUCCESS || has_properties {
        out.push(reason.0);
    }
    if has_properties {
        put_properties(out, properties);
    }
}

/// Decodes the body of an acknowledgement of type `packet`.
pub(super) fn decode(packet: PacketType, mut body: Reader<'_>, version: Version) -> Result<Ack<'_>, DecodeError> {
    let packet_id = body.packet_id()?;
    let (reason, properties) = match version {
        Version::V5 => decode_end(&mut body, packet, PropertyOwner::Ack)?,
        Version::V31 | Version::V311 => (Reason::SUCCESS, Properties::default()),
    };
    body.finish()?;
    Ok(Ack { packet_id, reason, properties })
}

/// Appends an acknowledgement.
pub(super) fn encode(kind: AckKind, ack: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, kind.first_byte(), |out| {
        out.extend_from_slice(&ack.packet_id.get().to_be_bytes());
        if version == Version::V5 {
            put_end(out, ack.reason, ack.properties);
        }
    });
}

/// Decodes the body of a DISCONNECT.
pub(super) fn decode_disconnect(mut body: Reader<'_>, version: Version) -> Result<Disconnect<'_>, DecodeError> {
    let (reason, properties) = match version {
        Version::V5 => decode_end(&mut body, PacketType::Disconnect, PropertyOwner::Disconnect)?,
        Version::V31 | Version::V311 => (Reason::SUCCESS, Properties::default()),
    };
    body.finish()?;
    Ok(Disconnect { reason, properties })
}

/// Appends a DISCONNECT.
pub(super) fn encode_disconnect(disconnect: &Disconnect<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Disconnect.first_byte(), |out| {
        if version == Version::V5 {
            put_end(out, disconnect.reason, disconnect.properties);
        }
    });
}

/// Decodes the body of an AUTH. An empty one says success and nothing else; any other names its method (section
/// 3.15.2.2.2).
pub(super) fn decode_auth(mut body: Reader<'_>) -> Result<Auth<'_>, DecodeError> {
    let is_empty = body.is_empty();
    let (reason, properties) = decode_end(&mut body, PacketType::Auth, PropertyOwner::Auth)?;
    body.finish()?;
    if !is_empty && properties.authentication_method().is_none() {
        return Err(DecodeError::AuthMethodMissing);
    }
    Ok(Auth { reason, properties })
}

/// Appends an AUTH.
pub(super) fn encode_auth(auth: &Auth<'_>, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Auth.first_byte(), |out| put_end(out, auth.reason, auth.properties));
}
