//! CONNECT and CONNACK, sections 3.1 and 3.2.

use super::reader::Reader;
use super::writer::{put_binary, put_packet, put_properties, put_str};
use super::{DecodeError, PacketType};
use crate::packet::{ConnAck, Connect, Will};
use crate::property::{Properties, PropertyOwner};
use crate::reason::Reason;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::message::QoS;

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// Set in the protocol level by bridges.
const BRIDGE: u8 = 0x80;

/// Largest CONNACK return code of 3.x.
const RETURN_CODE_MAX: u8 = 5;

/// The connect flags, consistent among themselves.
#[derive(Clone, Copy, Debug)]
struct Flags {
    bits: u8,
    will_qos: QoS,
}

impl Flags {
    fn decode(bits: u8, version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.1.2-3] [MQTT5-3.1.2-3]
        if bits & 1 != 0 {
            return Err(DecodeError::ConnectFlagReserved);
        }
        // [MQTT-3.1.2-14] [MQTT5-3.1.2-12]
        let will_qos = QoS::from_bits(bits >> WILL_QOS_SHIFT & 3).ok_or(DecodeError::WillQosReserved)?;
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15] [MQTT5-3.1.2-11] [MQTT5-3.1.2-13]
        if bits & WILL == 0 && (will_qos != QoS::AtMostOnce || bits & WILL_RETAIN != 0) {
            return Err(DecodeError::WillFlagsWithoutWill);
        }
        // [MQTT-3.1.2-22]; MQTT 5 allows a password alone.
        if bits & (PASSWORD | USER_NAME) == PASSWORD && version != Version::V5 {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        Ok(Self { bits, will_qos })
    }

    const fn has(self, flag: u8) -> bool {
        self.bits & flag != 0
    }
}

/// Decodes the body of a CONNECT: fields in the one order there is [MQTT-3.1.3-1] [MQTT5-3.1.3-1].
pub(super) fn decode(mut body: Reader<'_>) -> Result<Connect<'_>, DecodeError> {
    let (version, bridge) = decode_protocol(&mut body)?;
    let flags = Flags::decode(body.u8()?, version)?;
    let keep_alive = body.u16()?;
    let properties = decode_properties(&mut body, version, PropertyOwner::Connect)?;
    // [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
    let client_id = body.string()?;
    // [MQTT-3.1.2-9] [MQTT5-3.1.2-9]
    let will = if flags.has(WILL) { Some(decode_will(&mut body, flags, version)?) } else { None };
    // MQTT 3.1 lets Remaining Length overrule the flags: a user name and password that are announced may be missing.
    let announced = |flag, body: &Reader<'_>| flags.has(flag) && !(version == Version::V31 && body.is_empty());
    // [MQTT-3.1.2-19] [MQTT-3.1.3-11] [MQTT5-3.1.2-17] [MQTT5-3.1.3-12]
    let username = if announced(USER_NAME, &body) { Some(body.string()?) } else { None };
    // [MQTT-3.1.2-21] [MQTT5-3.1.2-19]
    let password = if announced(PASSWORD, &body) { Some(body.binary()?) } else { None };
    // Nor may there be what is not announced [MQTT-3.1.2-18] [MQTT-3.1.2-20] [MQTT5-3.1.2-16] [MQTT5-3.1.2-18].
    body.finish()?;
    let clean_start = flags.has(CLEAN_START);
    Ok(Connect { version, bridge, clean_start, keep_alive, properties, client_id, will, username, password })
}

/// Protocol name and level [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT5-3.1.2-1] [MQTT5-3.1.2-2].
fn decode_protocol(body: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let is_named_mqtt = match body.binary()? {
        b"MQTT" => true,
        b"MQIsdp" => false,
        _ => return Err(DecodeError::ProtocolNameUnknown),
    };
    let level = body.u8()?;
    let bridge = level & BRIDGE != 0;
    match (is_named_mqtt, level & !BRIDGE) {
        (false, 3) => Ok((Version::V31, bridge)),
        (true, 4) => Ok((Version::V311, bridge)),
        (true, 5) if !bridge => Ok((Version::V5, false)),
        _ => Err(DecodeError::ProtocolLevelUnknown { level }),
    }
}

fn decode_properties<'a>(
    body: &mut Reader<'a>,
    version: Version,
    owner: PropertyOwner,
) -> Result<Properties<'a>, DecodeError> {
    if version == Version::V5 { body.properties(owner) } else { Ok(Properties::default()) }
}

fn decode_will<'a>(body: &mut Reader<'a>, flags: Flags, version: Version) -> Result<Will<'a>, DecodeError> {
    Ok(Will {
        qos: flags.will_qos,
        retain: flags.has(WILL_RETAIN),
        properties: decode_properties(body, version, PropertyOwner::Will)?,
        // [MQTT-3.1.3-10] [MQTT5-3.1.3-11]
        topic: body.string()?,
        payload: body.binary()?,
    })
}

/// Appends a CONNECT as its own version writes it.
pub(super) fn encode(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let is_v5 = connect.version == Version::V5;
    let name = if connect.version == Version::V31 { "MQIsdp" } else { "MQTT" };
    let bridge = if connect.bridge && !is_v5 { BRIDGE } else { 0 };
    put_packet(out, PacketType::Connect.first_byte(), |out| {
        put_str(out, name);
        out.extend_from_slice(&[connect.version as u8 | bridge, flag_bits(connect)]);
        out.extend_from_slice(&connect.keep_alive.to_be_bytes());
        if is_v5 {
            put_properties(out, connect.properties);
        }
        put_str(out, connect.client_id);
        if let Some(will) = &connect.will {
            if is_v5 {
                put_properties(out, will.properties);
            }
            put_str(out, will.topic);
            put_binary(out, will.payload);
        }
        if let Some(username) = connect.username {
            put_str(out, username);
        }
        if let Some(password) = connect.password {
            put_binary(out, password);
        }
    });
}

fn flag_bits(connect: &Connect<'_>) -> u8 {
    let flag = |is_set, bit| if is_set { bit } else { 0 };
    let will =
        connect.will.map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | flag(will.retain, WILL_RETAIN));
    will | flag(connect.clean_start, CLEAN_START)
        | flag(connect.username.is_some(), USER_NAME)
        | flag(connect.password.is_some(), PASSWORD)
}

/// Decodes the body of a CONNACK.
pub(super) fn decode_ack(mut body: Reader<'_>, version: Version) -> Result<ConnAck<'_>, DecodeError> {
    let flags = body.u8()?;
    let session_present = match version {
        // A reserved byte that is not used.
        Version::V31 => false,
        // [MQTT5-3.2.2-1]
        Version::V311 | Version::V5 if flags > 1 => return Err(DecodeError::ConnAckFlagsReserved),
        Version::V311 | Version::V5 => flags == 1,
    };
    let code = body.u8()?;
    let reason = Reason(code);
    // [MQTT5-3.2.2-8]
    let is_known =
        if version == Version::V5 { reason.is_allowed_in(PacketType::ConnAck) } else { code <= RETURN_CODE_MAX };
    if !is_known {
        return Err(DecodeError::ReasonUnknown { code });
    }
    let properties = decode_properties(&mut body, version, PropertyOwner::ConnAck)?;
    body.finish()?;
    Ok(ConnAck { session_present, reason, properties })
}

/// Appends a CONNACK. A reason that is a return code of 3.x already, as decoding one yields, stays what it is there.
pub(super) fn encode_ack(ack: &ConnAck<'_>, version: Version, out: &mut Vec<u8>) {
    let code = match version {
        Version::V5 => ack.reason.0,
        Version::V31 | Version::V311 if ack.reason.0 <= RETURN_CODE_MAX => ack.reason.0,
        Version::V31 | Version::V311 => ack.reason.to_v3_connack(),
    };
    let session_present = ack.session_present && version != Version::V31;
    put_packet(out, PacketType::ConnAck.first_byte(), |out| {
        out.extend_from_slice(&[u8::from(session_present), code]);
        if version == Version::V5 {
            put_properties(out, ack.properties);
        }
    });
}
