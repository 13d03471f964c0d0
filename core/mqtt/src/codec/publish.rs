//! PUBLISH, section 3.3. Its length is computed before it is written, so that a payload is never moved.

use super::DecodeError;
use super::header::{DUP, PacketType, RETAIN};
use super::reader::Reader;
use super::writer::{VARINT_MAX, block_len, put_properties, put_str, put_varint, varint_len};
use crate::packet::{Publish, PublishProperties};
use crate::property::{Properties, PropertyId, PropertyOwner, PropertyValue, Validator};
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::message::QoS;

/// The first byte of a PUBLISH.
pub(super) const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    let dup = if dup { DUP } else { 0 };
    let retain = if retain { RETAIN } else { 0 };
    (PacketType::Publish as u8) << 4 | dup | (qos as u8) << 1 | retain
}

/// Decodes the body of a PUBLISH; `flags` are those of its first byte.
pub(super) fn decode(flags: u8, mut body: Reader<'_>, version: Version) -> Result<Publish<'_>, DecodeError> {
    let qos = QoS::from_bits(flags >> 1 & 3).ok_or(DecodeError::QosReserved)?;
    // [MQTT-3.3.2-1] [MQTT5-3.3.2-1]
    let topic = body.string()?;
    // [MQTT-2.3.1-1] [MQTT-2.3.1-5] [MQTT5-2.2.1-2]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(body.packet_id()?) };
    let properties = if version == Version::V5 { decode_properties(body.block()?)? } else { Default::default() };
    // [MQTT-4.7.3-1]; in MQTT 5 an alias may stand for the name.
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(DecodeError::TopicMissing);
    }
    let (dup, retain) = (flags & DUP != 0, flags & RETAIN != 0);
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: body.rest() })
}

/// Checks a block of properties and picks it apart, in one pass.
fn decode_properties(block: &[u8]) -> Result<PublishProperties<'_>, DecodeError> {
    let mut picked = PublishProperties { all: Properties::new(block), ..PublishProperties::default() };
    let mut reader = Reader::new(block);
    let mut validator = Validator::new(PropertyOwner::Publish);
    while !reader.is_empty() {
        match validator.read(&mut reader)? {
            (PropertyId::TopicAlias, PropertyValue::U16(alias)) => picked.topic_alias = Some(alias),
            (PropertyId::MessageExpiryInterval, PropertyValue::U32(seconds)) => picked.message_expiry = Some(seconds),
            (PropertyId::PayloadFormatIndicator, PropertyValue::Byte(format)) => picked.payload_is_utf8 = format == 1,
            (PropertyId::ResponseTopic, PropertyValue::Str(topic)) => picked.response_topic = Some(topic),
            (PropertyId::SubscriptionIdentifier, _) => picked.has_subscription_ids = true,
            _ => {}
        }
    }
    Ok(picked)
}

/// Appends a PUBLISH.
pub(super) fn encode(publish: &Publish<'_>, version: Version, out: &mut Vec<u8>) {
    // [MQTT-2.3.1-5] [MQTT5-2.2.1-2]
    assert!(
        publish.packet_id.is_some() == (publish.qos != QoS::AtMostOnce),
        "a PUBLISH has a packet identifier if and only if its QoS is above 0"
    );
    let properties = (version == Version::V5).then_some(publish.properties.all);
    let properties_len = properties.map_or(0, |block| {
        let len = block_len(block.raw());
        varint_len(len) + len as usize
    });
    let id_len = if publish.packet_id.is_some() { 2 } else { 0 };
    let body_len = 2 + publish.topic.len() + id_len + properties_len + publish.payload.len();
    let remaining = u32::try_from(body_len).unwrap_or(u32::MAX);
    assert!(remaining <= VARINT_MAX, "Remaining Length has 28 bits");
    out.reserve(1 + varint_len(remaining) + body_len);
    out.push(first_byte(publish.dup, publish.qos, publish.retain));
    put_varint(out, remaining);
    put_str(out, publish.topic);
    if let Some(id) = publish.packet_id {
        out.extend_from_slice(&id.get().to_be_bytes());
    }
    if let Some(block) = properties {
        put_properties(out, block);
    }
    out.extend_from_slice(publish.payload);
}
