//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK, sections 3.8 to 3.11.

use super::reader::Reader;
use super::writer::{put_packet, put_properties, put_str};
use super::{DecodeError, PacketType};
use crate::packet::{PacketId, SubAck, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters};
use crate::property::{Properties, PropertyOwner};
use crate::reason::Reason;
use alloc::vec::Vec;
use bifro_core::client::Version;

/// The variable header that all four have.
fn decode_header<'a>(
    body: &mut Reader<'a>,
    version: Version,
    owner: PropertyOwner,
) -> Result<(PacketId, Properties<'a>), DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = if version == Version::V5 { body.properties(owner)? } else { Properties::default() };
    Ok((packet_id, properties))
}

fn put_header(out: &mut Vec<u8>, version: Version, packet_id: PacketId, properties: Properties<'_>) {
    out.extend_from_slice(&packet_id.get().to_be_bytes());
    if version == Version::V5 {
        put_properties(out, properties);
    }
}

/// Decodes the body of a SUBSCRIBE.
pub(super) fn decode(mut body: Reader<'_>, version: Version) -> Result<Subscribe<'_>, DecodeError> {
    let (packet_id, properties) = decode_header(&mut body, version, PropertyOwner::Subscribe)?;
    let filters = SubscribeFilters::decode(body, version)?;
    Ok(Subscribe { packet_id, properties, filters })
}

/// Appends a SUBSCRIBE; 3.x gets the requested QoS and no other option.
pub(super) fn encode(subscribe: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Subscribe.first_byte(), |out| {
        put_header(out, version, subscribe.packet_id, subscribe.properties);
        for filter in subscribe.filters.iter() {
            put_str(out, filter.filter);
            out.push(if version == Version::V5 { filter.option_bits() } else { filter.qos as u8 });
        }
    });
}

/// Decodes the body of an UNSUBSCRIBE.
pub(super) fn decode_end(mut body: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, DecodeError> {
    let (packet_id, properties) = decode_header(&mut body, version, PropertyOwner::Unsubscribe)?;
    let filters = UnsubscribeFilters::decode(body)?;
    Ok(Unsubscribe { packet_id, properties, filters })
}

/// Appends an UNSUBSCRIBE.
pub(super) fn encode_end(unsubscribe: &Unsubscribe<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
        put_header(out, version, unsubscribe.packet_id, unsubscribe.properties);
        out.extend_from_slice(unsubscribe.filters.raw);
    });
}

/// Codes of one kind of acknowledgement, at least one of them, all known [MQTT-3.9.3-2] [MQTT5-3.9.3-2]
/// [MQTT5-3.11.3-2].
fn decode_codes(codes: &[u8], is_known: impl Fn(Reason) -> bool) -> Result<&[u8], DecodeError> {
    if codes.is_empty() {
        return Err(DecodeError::CodesMissing);
    }
    match codes.iter().find(|&&code| !is_known(Reason(code))) {
        Some(&code) => Err(DecodeError::ReasonUnknown { code }),
        None => Ok(codes),
    }
}

/// Decodes the body of a SUBACK.
pub(super) fn decode_ack(mut body: Reader<'_>, version: Version) -> Result<SubAck<'_>, DecodeError> {
    let (packet_id, properties) = decode_header(&mut body, version, PropertyOwner::Ack)?;
    let codes = decode_codes(body.rest(), |code| match version {
        Version::V5 => code.is_allowed_in(PacketType::SubAck),
        // Failure came with 3.1.1, but servers say it to 3.1 as well: it has no other way to hear of it.
        Version::V31 | Version::V311 => matches!(code.0, 0..=2 | 0x80),
    })?;
    Ok(SubAck { packet_id, properties, codes })
}

/// Appends a SUBACK.
pub(super) fn encode_ack(ack: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, PacketType::SubAck.first_byte(), |out| {
        put_header(out, version, ack.packet_id, ack.properties);
        out.extend_from_slice(ack.codes);
    });
}

/// Decodes the body of an UNSUBACK.
pub(super) fn decode_end_ack(mut body: Reader<'_>, version: Version) -> Result<SubAck<'_>, DecodeError> {
    let (packet_id, properties) = decode_header(&mut body, version, PropertyOwner::Ack)?;
    let codes = if version == Version::V5 {
        decode_codes(body.rest(), |code| code.is_allowed_in(PacketType::UnsubAck))?
    } else {
        body.finish()?;
        &[]
    };
    Ok(SubAck { packet_id, properties, codes })
}

/// Appends an UNSUBACK; 3.x gets no codes.
pub(super) fn encode_end_ack(ack: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
        put_header(out, version, ack.packet_id, ack.properties);
        if version == Version::V5 {
            out.extend_from_slice(ack.codes);
        }
    });
}
