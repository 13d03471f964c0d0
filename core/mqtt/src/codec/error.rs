//! The ways in which received bytes can fail to be a packet: one variant each, with the MQTT 5 reason it is answered
//! with.
//!
//! 0x81 stands for bytes that cannot be parsed, 0x82 for a packet that can be parsed but is forbidden [MQTT5-4.13.1-1];
//! which is which follows the specification's wording clause by clause.

use crate::property::PropertyId;
use crate::reason::Reason;
use bifro_core::client::Version;
use core::fmt;

/// How a packet is wrong. The connection is to be closed, whichever it is [MQTT-4.8.0-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Larger than accepted, as the fixed header says.
    PacketTooLarge,
    /// The first packet of a connection is not CONNECT [MQTT-3.1.0-1].
    NotConnect,
    /// Packet type 0, or AUTH before MQTT 5.
    PacketTypeReserved,
    /// Reserved bits of the fixed header are not what the packet type demands [MQTT-2.2.2-2].
    FlagsReserved,
    /// PUBLISH with both QoS bits set [MQTT-3.3.1-4].
    QosReserved,
    /// PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2].
    DupWithoutQos,
    /// Variable byte integer of more than four bytes.
    VarIntTooLong,
    /// Variable byte integer of more bytes than it needs [MQTT5-1.5.5-1].
    VarIntNotMinimal,
    /// A field runs past the end of the packet or of its block of properties.
    Truncated,
    /// Bytes are left over after the last field.
    TrailingBytes,
    /// A string is not UTF-8 [MQTT-1.5.3-1].
    StringNotUtf8,
    /// A string contains U+0000 [MQTT-1.5.3-2].
    StringHasNul,
    /// Packet identifier 0 [MQTT-2.3.1-1].
    PacketIdZero,
    /// CONNECT with a protocol name that is neither `MQTT` nor `MQIsdp` [MQTT-3.1.2-1].
    ProtocolNameUnknown,
    /// CONNECT with a protocol level the name does not have [MQTT-3.1.2-2].
    ProtocolLevelUnknown {
        /// The level, bridge bit included.
        level: u8,
    },
    /// CONNECT with the reserved connect flag [MQTT-3.1.2-3].
    ConnectFlagReserved,
    /// CONNECT with Will QoS or Will Retain but no will [MQTT-3.1.2-13] [MQTT-3.1.2-15].
    WillFlagsWithoutWill,
    /// CONNECT with Will QoS 3 [MQTT-3.1.2-14].
    WillQosReserved,
    /// CONNECT of 3.x with a password but no user name [MQTT-3.1.2-22].
    PasswordWithoutUserName,
    /// CONNACK with reserved acknowledge flags [MQTT5-3.2.2-1].
    ConnAckFlagsReserved,
    /// PUBLISH with neither topic name [MQTT-4.7.3-1] nor topic alias.
    TopicMissing,
    /// SUBSCRIBE or UNSUBSCRIBE without filters [MQTT-3.8.3-3] [MQTT-3.10.3-2].
    FiltersMissing,
    /// SUBSCRIBE with reserved option bits [MQTT-3.8.3-4] [MQTT5-3.8.3-5].
    SubscribeOptionsReserved,
    /// SUBSCRIBE with QoS 3 [MQTT-3.8.3-4].
    SubscribeQosReserved,
    /// SUBSCRIBE with Retain Handling 3.
    RetainHandlingReserved,
    /// SUBACK, or UNSUBACK of MQTT 5, without codes.
    CodesMissing,
    /// A reason or return code that the packet type does not have.
    ReasonUnknown {
        /// The code.
        code: u8,
    },
    /// A property identifier that does not exist.
    PropertyUnknown {
        /// First byte of the identifier.
        id: u8,
    },
    /// A property in a packet that must not have it.
    PropertyNotAllowed(PropertyId),
    /// A property twice that may stand once.
    PropertyRepeated(PropertyId),
    /// A property with a value outside its range.
    PropertyOutOfRange(PropertyId),
    /// Authentication Data without Authentication Method.
    AuthDataWithoutMethod,
    /// AUTH without Authentication Method.
    AuthMethodMissing,
}

impl DecodeError {
    /// The reason an MQTT 5 client is told.
    pub const fn reason(self) -> Reason {
        match self {
            Self::PacketTooLarge => Reason::PACKET_TOO_LARGE,
            Self::ProtocolNameUnknown | Self::ProtocolLevelUnknown { .. } => Reason::UNSUPPORTED_PROTOCOL_VERSION,
            Self::NotConnect
            | Self::PacketIdZero
            | Self::TopicMissing
            | Self::FiltersMissing
            | Self::SubscribeQosReserved
            | Self::RetainHandlingReserved
            | Self::CodesMissing
            | Self::ReasonUnknown { .. }
            | Self::PropertyRepeated(_)
            | Self::PropertyOutOfRange(_)
            | Self::AuthDataWithoutMethod
            | Self::AuthMethodMissing => Reason::PROTOCOL_ERROR,
            Self::PacketTypeReserved
            | Self::FlagsReserved
            | Self::QosReserved
            | Self::DupWithoutQos
            | Self::VarIntTooLong
            | Self::VarIntNotMinimal
            | Self::Truncated
            | Self::TrailingBytes
            | Self::StringNotUtf8
            | Self::StringHasNul
            | Self::ConnectFlagReserved
            | Self::WillFlagsWithoutWill
            | Self::WillQosReserved
            | Self::PasswordWithoutUserName
            | Self::ConnAckFlagsReserved
            | Self::SubscribeOptionsReserved
            | Self::PropertyUnknown { .. }
            | Self::PropertyNotAllowed(_) => Reason::MALFORMED_PACKET,
        }
    }

    /// How to write the CONNACK that refuses a CONNECT which was wrong in this way: as the version that the client can
    /// be assumed to read. None: close without an answer, as 3.1.1 demands [MQTT-3.1.4-1] and 5.0 allows
    /// [MQTT5-3.1.4-1].
    pub const fn connack_version(self) -> Option<Version> {
        match self {
            // Return code 1, which every 3.x client knows [MQTT-3.1.2-2].
            Self::ProtocolNameUnknown => Some(Version::V311),
            // A level from the future is more likely to read MQTT 5 [MQTT5-3.1.2-2].
            Self::ProtocolLevelUnknown { level } if level & 0x7F > Version::V5 as u8 => Some(Version::V5),
            Self::ProtocolLevelUnknown { .. } => Some(Version::V311),
            // Only MQTT 5 has properties, so the version is known.
            Self::PropertyUnknown { .. }
            | Self::PropertyNotAllowed(_)
            | Self::PropertyRepeated(_)
            | Self::PropertyOutOfRange(_)
            | Self::AuthDataWithoutMethod => Some(Version::V5),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::PacketTooLarge => "packet is larger than the maximum packet size",
            Self::NotConnect => "first packet is not CONNECT",
            Self::PacketTypeReserved => "packet type is reserved",
            Self::FlagsReserved => "reserved flags of the fixed header are wrong",
            Self::QosReserved => "PUBLISH has QoS 3",
            Self::DupWithoutQos => "PUBLISH has DUP and QoS 0",
            Self::VarIntTooLong => "variable byte integer is longer than four bytes",
            Self::VarIntNotMinimal => "variable byte integer is longer than needed",
            Self::Truncated => "field runs past the end of the packet",
            Self::TrailingBytes => "packet has bytes after its last field",
            Self::StringNotUtf8 => "string is not UTF-8",
            Self::StringHasNul => "string contains U+0000",
            Self::PacketIdZero => "packet identifier is 0",
            Self::ProtocolNameUnknown => "CONNECT has an unknown protocol name",
            Self::ProtocolLevelUnknown { level } => return write!(f, "CONNECT has the unknown protocol level {level}"),
            Self::ConnectFlagReserved => "CONNECT has the reserved flag set",
            Self::WillFlagsWithoutWill => "CONNECT has will QoS or will retain without a will",
            Self::WillQosReserved => "CONNECT has will QoS 3",
            Self::PasswordWithoutUserName => "CONNECT has a password without a user name",
            Self::ConnAckFlagsReserved => "CONNACK has reserved flags set",
            Self::TopicMissing => "PUBLISH has neither topic name nor topic alias",
            Self::FiltersMissing => "packet has no topic filters",
            Self::SubscribeOptionsReserved => "SUBSCRIBE has reserved option bits set",
            Self::SubscribeQosReserved => "SUBSCRIBE requests QoS 3",
            Self::RetainHandlingReserved => "SUBSCRIBE has retain handling 3",
            Self::CodesMissing => "acknowledgement has no codes",
            Self::ReasonUnknown { code } => return write!(f, "reason code 0x{code:02x} does not belong to the packet"),
            Self::PropertyUnknown { id } => return write!(f, "property 0x{id:02x} does not exist"),
            Self::PropertyNotAllowed(id) => return write!(f, "property {id:?} does not belong to the packet"),
            Self::PropertyRepeated(id) => return write!(f, "property {id:?} is there more than once"),
            Self::PropertyOutOfRange(id) => return write!(f, "property {id:?} has a value out of range"),
            Self::AuthDataWithoutMethod => "authentication data without authentication method",
            Self::AuthMethodMissing => "AUTH has no authentication method",
        };
        f.write_str(text)
    }
}

impl core::error::Error for DecodeError {}
