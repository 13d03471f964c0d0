//! Typed events for operators (BifroMQ's event types, as far as they apply to one node). Per-message events are emitted only
//! for tenants in debug mode.

use crate::client::Client;
use crate::message::QoS;
use alloc::boxed::Box;
use core::net::SocketAddr;

/// Why an event's message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The session was closed meanwhile.
    SessionClosed,
    /// A queue was full.
    Overflow,
    /// The subscriber may not receive the topic.
    NoSubPermission,
    /// The subscriber is the publisher and asked not to hear itself.
    NoLocal,
    /// The connection could not take it.
    ChannelError,
    /// The message expired.
    Expired,
    /// A quota is used up.
    ResourceExhausted,
    /// Larger than the client's Maximum Packet Size.
    Oversize,
}

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind { $($(#[$doc])* $variant),* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in logs, metrics and `[events]`; BifroMQ's, in lower case.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name),* } }
        }
    };
}

events! {
    /// An authentication provider failed or refused for a reason of its own.
    AuthError = "auth_error";
    /// The client left an enhanced authentication unfinished.
    EnhancedAuthAbortByClient = "enhanced_auth_abort_by_client";
    /// Wrong credentials.
    UnauthenticatedClient = "unauthenticated_client";
    /// Not admitted.
    NotAuthorizedClient = "not_authorized_client";
    /// The connection broke before a session existed.
    ChannelError = "channel_error";
    /// No CONNECT within the deadline.
    ConnectTimeout = "connect_timeout";
    /// The client identifier was refused.
    IdentifierRejected = "identifier_rejected";
    /// The peer broke the protocol before a session existed.
    ProtocolError = "protocol_error";
    /// The will topic is not well-formed.
    MalformedWillTopic = "malformed_will_topic";
    /// A protocol version that is unknown or disabled.
    UnacceptedProtocolVer = "unaccepted_protocol_ver";
    /// A session is connected.
    ClientConnected = "client_connected";
    /// A packet could not be decoded.
    BadPacket = "bad_packet";
    /// The client said DISCONNECT, or closed without it.
    ByClient = "by_client";
    /// The server ended the session.
    ByServer = "by_server";
    /// The server is over its budget.
    ServerBusy = "server_busy";
    /// A tenant's resource is used up.
    ResourceThrottled = "resource_throttled";
    /// The connection broke.
    ClientChannelError = "client_channel_error";
    /// Keep Alive ran out.
    Idle = "idle";
    /// The persistent session could not be reached.
    InboxTransientError = "inbox_transient_error";
    /// A topic name that breaks a limit.
    InvalidTopic = "invalid_topic";
    /// A topic name that is not well-formed.
    MalformedTopic = "malformed_topic";
    /// A topic filter that breaks a limit.
    InvalidTopicFilter = "invalid_topic_filter";
    /// A topic filter that is not well-formed.
    MalformedTopicFilter = "malformed_topic_filter";
    /// Another connection took the client id over.
    Kicked = "kicked";
    /// The client was sent to another server.
    ServerRedirected = "server_redirected";
    /// Re-authentication failed, or credentials expired.
    ReAuthFailed = "re_auth_failed";
    /// The peer broke the protocol.
    ProtocolViolation = "protocol_violation";
    /// More QoS 1 and 2 publishes in flight than Receive Maximum allows.
    ExceedReceivingLimit = "exceed_receiving_limit";
    /// More publishes per second than allowed.
    ExceedPubRate = "exceed_pub_rate";
    /// Too many filters in a SUBSCRIBE.
    TooLargeSubscription = "too_large_subscription";
    /// Too many filters in an UNSUBSCRIBE.
    TooLargeUnsubscription = "too_large_unsubscription";
    /// A packet was not sent because of the client's Maximum Packet Size.
    OversizePacketDropped = "oversize_packet_dropped";
    /// PINGREQ (debug).
    PingReq = "ping_req";
    /// A publish was discarded by a rate limit.
    Discard = "discard";
    /// A subscriber does not keep up.
    SubStalled = "sub_stalled";
    /// A will was published.
    WillDisted = "will_disted";
    /// A will could not be published.
    WillDistError = "will_dist_error";
    /// A publish could not be taken over in time.
    PubDistError = "pub_dist_error";
    /// PUBACK sent (debug).
    PubAcked = "pub_acked";
    /// PUBREC sent (debug).
    PubReced = "pub_reced";
    /// A retained message was set.
    MsgRetained = "msg_retained";
    /// A retained message was cleared.
    RetainMsgCleared = "retain_msg_cleared";
    /// Retained messages were delivered to a new subscription.
    RetainMsgMatched = "retain_msg_matched";
    /// A retained message could not be set.
    MsgRetainedError = "msg_retained_error";
    /// Retained messages could not be looked up.
    MatchRetainError = "match_retain_error";
    /// A message was sent (debug).
    Pushed = "pushed";
    /// A message was dropped.
    Dropped = "dropped";
    /// A QoS 1 or 2 message was confirmed by the client (debug).
    Confirmed = "confirmed";
    /// A publish was refused by permission.
    PubActionDisallow = "pub_action_disallow";
    /// A subscription was refused by permission.
    SubActionDisallow = "sub_action_disallow";
    /// A subscription was removed because permission was revoked.
    SubRevoked = "sub_revoked";
    /// A subscription was acknowledged.
    SubAcked = "sub_acked";
    /// An unsubscription was acknowledged.
    UnsubAcked = "unsub_acked";
    /// A message reached more shared groups than allowed.
    GroupFanoutThrottled = "group_fanout_throttled";
    /// A message reached more persistent sessions than allowed.
    PersistentFanoutThrottled = "persistent_fanout_throttled";
    /// A message cost more bytes over persistent sessions than allowed.
    PersistentFanoutBytesThrottled = "persistent_fanout_bytes_throttled";
    /// An inbox dropped messages because it was full.
    Overflowed = "overflowed";
    /// A tenant's quota is used up.
    OutOfTenantResource = "out_of_tenant_resource";
    /// A session came into being.
    MqttSessionStart = "mqtt_session_start";
    /// A session ended for good.
    MqttSessionStop = "mqtt_session_stop";
}

/// One event. `detail` is a sentence for people; the other fields are for filters.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Whom it concerns, once authentication has told.
    pub client: Option<Client>,
    /// Peer address, where there is no client yet.
    pub peer: Option<SocketAddr>,
    /// Topic or filter, where there is one.
    pub topic: Option<Box<str>>,
    /// QoS, where there is one.
    pub qos: Option<QoS>,
    /// Why a message was dropped.
    pub dropped: Option<DropReason>,
    /// What there is to say beyond that.
    pub detail: Box<str>,
}

impl Event {
    /// An event about `client`.
    pub fn of(kind: EventKind, client: Option<&Client>, detail: impl Into<Box<str>>) -> Self {
        Self { kind, client: client.cloned(), peer: None, topic: None, qos: None, dropped: None, detail: detail.into() }
    }

    /// With a topic or filter.
    #[must_use]
    pub fn on(mut self, topic: &str) -> Self {
        self.topic = Some(topic.into());
        self
    }
}
