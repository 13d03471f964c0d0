//! MQTT 5 reason codes (section 2.4) and what the older versions get instead.

use crate::codec::PacketType;

/// A reason code of MQTT 5. The name says what it means; the same byte means different things in different packets, so
/// a few bytes have aliases as associated constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Reason { $($(#[$doc])* pub const $name: Self = Self($code);)* }

        impl core::fmt::Display for Reason {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                #[allow(unreachable_patterns, reason = "aliases share a byte; the first name is shown")]
                let name = match self.0 { $($code => stringify!($name),)* _ => "UNKNOWN" };
                write!(f, "0x{:02x} {name}", self.0)
            }
        }
    };
}

reasons! {
    /// Done.
    SUCCESS = 0x00;
    /// Granted with QoS 1.
    GRANTED_QOS_1 = 0x01;
    /// Granted with QoS 2.
    GRANTED_QOS_2 = 0x02;
    /// DISCONNECT: publish my will.
    DISCONNECT_WITH_WILL = 0x04;
    /// Nobody subscribes to the topic.
    NO_MATCHING_SUBSCRIBERS = 0x10;
    /// UNSUBACK: there was no such subscription.
    NO_SUBSCRIPTION_EXISTED = 0x11;
    /// AUTH: the exchange goes on.
    CONTINUE_AUTHENTICATION = 0x18;
    /// AUTH: start anew on a live connection.
    RE_AUTHENTICATE = 0x19;
    /// No better code.
    UNSPECIFIED_ERROR = 0x80;
    /// Could not be decoded.
    MALFORMED_PACKET = 0x81;
    /// Well-formed, but not allowed here.
    PROTOCOL_ERROR = 0x82;
    /// Valid, but not possible now; the client may retry.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83;
    /// CONNACK: version unknown or disabled.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84;
    /// CONNACK: the client id is not allowed.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85;
    /// CONNACK: wrong credentials.
    BAD_USER_NAME_OR_PASSWORD = 0x86;
    /// Not permitted.
    NOT_AUTHORIZED = 0x87;
    /// CONNACK: try again later.
    SERVER_UNAVAILABLE = 0x88;
    /// Over budget, try again later.
    SERVER_BUSY = 0x89;
    /// CONNACK: banned.
    BANNED = 0x8A;
    /// DISCONNECT: the server goes away.
    SERVER_SHUTTING_DOWN = 0x8B;
    /// Authentication method unknown or changed.
    BAD_AUTHENTICATION_METHOD = 0x8C;
    /// Keep Alive ran out.
    KEEP_ALIVE_TIMEOUT = 0x8D;
    /// Another connection has the client id now.
    SESSION_TAKEN_OVER = 0x8E;
    /// The filter is not allowed.
    TOPIC_FILTER_INVALID = 0x8F;
    /// The topic is not allowed.
    TOPIC_NAME_INVALID = 0x90;
    /// The packet id is taken.
    PACKET_IDENTIFIER_IN_USE = 0x91;
    /// There is no such packet id.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92;
    /// More in flight than Receive Maximum.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93;
    /// Alias 0 or above the maximum.
    TOPIC_ALIAS_INVALID = 0x94;
    /// Larger than Maximum Packet Size.
    PACKET_TOO_LARGE = 0x95;
    /// Too many publishes per second.
    MESSAGE_RATE_TOO_HIGH = 0x96;
    /// A limit or quota is reached.
    QUOTA_EXCEEDED = 0x97;
    /// Closed by an operator.
    ADMINISTRATIVE_ACTION = 0x98;
    /// The payload is not what its format indicator says.
    PAYLOAD_FORMAT_INVALID = 0x99;
    /// No retained messages here.
    RETAIN_NOT_SUPPORTED = 0x9A;
    /// QoS above Maximum QoS.
    QOS_NOT_SUPPORTED = 0x9B;
    /// Use another server for now.
    USE_ANOTHER_SERVER = 0x9C;
    /// Use another server from now on.
    SERVER_MOVED = 0x9D;
    /// No shared subscriptions here.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E;
    /// Too many connections per second.
    CONNECTION_RATE_EXCEEDED = 0x9F;
    /// Connected for as long as is allowed.
    MAXIMUM_CONNECT_TIME = 0xA0;
    /// No subscription ids here.
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1;
    /// No wildcards here.
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2;
}

impl Reason {
    /// Whether the code reports a failure (section 2.4).
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Whether a packet of this type may carry the code, as section 2.4 and the packets' own tables say.
    pub const fn is_allowed_in(self, packet: PacketType) -> bool {
        match packet {
            PacketType::ConnAck => {
                matches!(self.0, 0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
            }
            PacketType::PubAck | PacketType::PubRec => {
                matches!(self.0, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            PacketType::PubRel | PacketType::PubComp => matches!(self.0, 0 | 0x92),
            PacketType::SubAck => {
                matches!(self.0, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            PacketType::UnsubAck => matches!(self.0, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            PacketType::Disconnect => {
                matches!(self.0, 0 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2)
            }
            PacketType::Auth => matches!(self.0, 0 | 0x18 | 0x19),
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq
            | PacketType::PingResp => false,
        }
    }

    /// The CONNACK return code of MQTT 3.x that comes closest [MQTT-3.2.2-4].
    pub const fn to_v3_connack(self) -> u8 {
        match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_PROTOCOL_VERSION => 1,
            Self::CLIENT_IDENTIFIER_NOT_VALID => 2,
            Self::BAD_USER_NAME_OR_PASSWORD | Self::BAD_AUTHENTICATION_METHOD => 4,
            Self::NOT_AUTHORIZED | Self::BANNED => 5,
            _ => 3,
        }
    }
}
