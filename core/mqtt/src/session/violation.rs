//! Every way a client can be refused or put out: one variant each, with what the client is told and what operators see.

use crate::reason::Reason;
use bifro_core::event::EventKind;

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident: $reason:ident, $event:ident, $detail:literal;)*) => {
        /// Why a connection is refused or ended from the server's side.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Violation { $($(#[$doc])* $name),* }

        impl Violation {
            /// The reason code an MQTT 5 client is told.
            pub(super) const fn reason(self) -> Reason { match self { $(Self::$name => Reason::$reason),* } }

            /// The event operators see.
            pub(super) const fn event(self) -> EventKind { match self { $(Self::$name => EventKind::$event),* } }

            /// The sentence for people.
            pub(super) const fn detail(self) -> &'static str { match self { $(Self::$name => $detail),* } }
        }
    };
}

violations! {
    /// [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
    FirstNotConnect: PROTOCOL_ERROR, ProtocolError, "the first packet is not CONNECT";
    /// [MQTT5-3.1.2-30]: AUTH and DISCONNECT are all that is allowed during an enhanced authentication.
    BeforeConnAck: PROTOCOL_ERROR, ProtocolError, "a packet other than AUTH or DISCONNECT during authentication";
    /// The shard's memory budget is used up.
    OverBudget: QUOTA_EXCEEDED, ServerBusy, "the server is over its memory budget";
    /// [MQTT-3.1.3-8] [MQTT-3.1.3-9]; MQTT 3.1 wants at least one character.
    ClientIdEmpty: CLIENT_IDENTIFIER_NOT_VALID, IdentifierRejected, "an empty client identifier is not allowed here";
    /// [MQTT5-3.1.3-8]
    ClientIdTooLong: CLIENT_IDENTIFIER_NOT_VALID, IdentifierRejected, "the client identifier is too long";
    /// [MQTT-3.1.2-2] [MQTT5-3.1.2-2]
    VersionDisabled: UNSUPPORTED_PROTOCOL_VERSION, UnacceptedProtocolVer, "this protocol version is disabled";
    /// [MQTT-4.7.1-1] [MQTT-4.7.3-1]
    WillTopicMalformed: TOPIC_NAME_INVALID, MalformedWillTopic, "the will topic is not a topic name";
    /// The will topic is longer or deeper than allowed.
    WillTopicInvalid: TOPIC_NAME_INVALID, MalformedWillTopic, "the will topic breaks a limit";
    /// Larger than the setting allows.
    WillTooLarge: PACKET_TOO_LARGE, ResourceThrottled, "the will payload is too large";
    /// [MQTT5-3.2.2-12]
    WillQos: QOS_NOT_SUPPORTED, ProtocolError, "the will's QoS is above Maximum QoS";
    /// [MQTT5-3.2.2-13]
    WillRetain: RETAIN_NOT_SUPPORTED, ProtocolError, "the will is to be retained, but retained messages are off";
    /// The client may not publish the will's topic.
    WillDenied: NOT_AUTHORIZED, NotAuthorizedClient, "no permission to publish the will";
    /// The will's payload is not UTF-8 although its format indicator says so.
    WillPayloadFormat: PAYLOAD_FORMAT_INVALID, ProtocolError, "the will's payload is not UTF-8";
    /// [MQTT5-3.3.2-14]
    WillResponseTopic: PROTOCOL_ERROR, ProtocolError, "the will's response topic has wildcards";
    /// Unknown user or wrong password.
    BadCredentials: BAD_USER_NAME_OR_PASSWORD, UnauthenticatedClient, "wrong credentials";
    /// Known, but not admitted.
    NotAdmitted: NOT_AUTHORIZED, NotAuthorizedClient, "not admitted";
    /// Banned.
    Banned: BANNED, NotAuthorizedClient, "banned";
    /// [MQTT5-4.12.0-1]
    BadMethod: BAD_AUTHENTICATION_METHOD, AuthError, "the authentication method is not supported";
    /// The provider failed: fail closed.
    AuthUnavailable: SERVER_UNAVAILABLE, AuthError, "authentication is not available";
    /// [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
    AuthMethodChanged: BAD_AUTHENTICATION_METHOD, ProtocolViolation, "AUTH with another method than CONNECT";
    /// [MQTT5-4.12.0-7]
    AuthWithoutMethod: PROTOCOL_ERROR, ProtocolViolation, "AUTH, but CONNECT had no authentication method";
    /// [MQTT5-4.12.0-3]
    AuthUnexpected: PROTOCOL_ERROR, ProtocolViolation, "AUTH out of turn";
    /// [MQTT5-4.12.1-2]
    ReAuthRefused: NOT_AUTHORIZED, ReAuthFailed, "re-authentication failed";
    /// The credentials were good for a time, and the time is over.
    CredentialsExpired: NOT_AUTHORIZED, ReAuthFailed, "the credentials have expired";
    /// The tenant's CONNECTs per second are used up.
    ConnectRate: CONNECTION_RATE_EXCEEDED, ResourceThrottled, "too many CONNECTs per second";
    /// The tenant's connections are used up.
    ConnectionQuota: QUOTA_EXCEEDED, ResourceThrottled, "too many connections";
    /// The tenant's session memory is used up.
    MemoryQuota: QUOTA_EXCEEDED, ResourceThrottled, "too much session memory in use";
    /// The tenant's persistent sessions are used up.
    PersistentQuota: QUOTA_EXCEEDED, ResourceThrottled, "too many persistent sessions";
    /// The inbox did not answer.
    InboxUnavailable: SERVER_UNAVAILABLE, InboxTransientError, "the session's inbox cannot be reached";
    /// [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
    SecondConnect: PROTOCOL_ERROR, ProtocolViolation, "a second CONNECT";
    /// CONNACK, SUBACK, UNSUBACK and PINGRESP come from servers only.
    ServerPacket: PROTOCOL_ERROR, ProtocolViolation, "a packet that only servers send";
    /// [MQTT5-3.2.2-11]
    QosNotSupported: QOS_NOT_SUPPORTED, ProtocolViolation, "PUBLISH with a QoS above Maximum QoS";
    /// [MQTT5-3.2.2-14]
    RetainNotSupported: RETAIN_NOT_SUPPORTED, ProtocolViolation, "PUBLISH with RETAIN, but retained messages are off";
    /// [MQTT5-3.3.4-6]
    SubscriptionIdFromClient: PROTOCOL_ERROR, ProtocolViolation, "PUBLISH with a subscription identifier";
    /// [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
    AliasInvalid: TOPIC_ALIAS_INVALID, ProtocolViolation, "the topic alias is 0 or above Topic Alias Maximum";
    /// No topic, and an alias that stands for none on this connection (section 3.3.2.3.4).
    AliasUnknown: PROTOCOL_ERROR, ProtocolViolation, "the topic alias stands for nothing";
    /// Neither topic nor alias.
    TopicMissing: PROTOCOL_ERROR, ProtocolViolation, "PUBLISH with neither topic nor alias";
    /// [MQTT-3.3.2-2] [MQTT5-3.3.2-2]
    TopicMalformed: TOPIC_NAME_INVALID, MalformedTopic, "the topic is not a topic name";
    /// Longer or deeper than allowed.
    TopicInvalid: TOPIC_NAME_INVALID, InvalidTopic, "the topic breaks a limit";
    /// [MQTT5-3.3.2-14]
    ResponseTopicInvalid: PROTOCOL_ERROR, ProtocolViolation, "the response topic is not a topic name";
    /// The payload is above the tenant's limit.
    PayloadTooLarge: PACKET_TOO_LARGE, BadPacket, "the payload is too large";
    /// The payload is not UTF-8 although its format indicator says so, and there is no acknowledgement to say it in.
    PayloadFormat: PAYLOAD_FORMAT_INVALID, ProtocolViolation, "the payload is not UTF-8";
    /// [MQTT5-3.3.4-7]
    ReceiveMaximum: RECEIVE_MAXIMUM_EXCEEDED, ExceedReceivingLimit, "more publishes in flight than Receive Maximum";
    /// More publishes per second than allowed.
    PublishRate: MESSAGE_RATE_TOO_HIGH, ExceedPubRate, "too many publishes per second";
    /// The acknowledgement belongs to the other QoS.
    WrongAcknowledgement: PROTOCOL_ERROR, ProtocolViolation, "an acknowledgement of the wrong kind";
    /// [MQTT5-3.8.3-4]
    SharedNoLocal: PROTOCOL_ERROR, ProtocolViolation, "No Local on a shared subscription";
    /// Section 3.14.2.2.2 of MQTT 5.0.
    ExpiryAfterZero: PROTOCOL_ERROR, ProtocolViolation, "DISCONNECT sets a session expiry that CONNECT had as zero";
    /// Not even CONNACK fits the client's Maximum Packet Size [MQTT5-3.1.2-24].
    ConnAckTooLarge: PACKET_TOO_LARGE, OversizePacketDropped, "CONNACK does not fit the client's Maximum Packet Size";
    /// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
    KeepAlive: KEEP_ALIVE_TIMEOUT, Idle, "nothing heard for one and a half Keep Alive";
}

impl Violation {
    /// The peer broke the protocol; else the server is at a limit of its own.
    pub(super) const fn is_peers_fault(self) -> bool {
        matches!(
            self.event(),
            EventKind::ProtocolError
                | EventKind::ProtocolViolation
                | EventKind::MalformedTopic
                | EventKind::ExceedReceivingLimit
        )
    }
}
