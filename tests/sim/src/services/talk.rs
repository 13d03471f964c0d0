//! What shards, nodes and clients say to each other.

use super::groups::Offer;
use bifro_core::client::Client;
use bifro_core::delivered::Over;
use bifro_core::ids::{InboxSeq, NodeId, PublisherKey, RangeIdx, ReqId};
use bifro_core::inquiry::{Holder, Inquiry};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{GroupName, LivePlaces, Origin, PortError};
use bifro_mqtt::topic::filter_matches;
use bifro_store::services::Message as ServiceMessage;
use std::sync::Arc;

/// What is published to.
pub(crate) const TOPICS: [&str; 7] = ["a/1", "a/2", "b/1", "b/x/y", "c", "r/1", "r/2"];

/// The topics from here on have retained messages.
pub(crate) const RETAINED_FROM: usize = 5;

/// What is subscribed to.
pub(crate) const FILTERS: [&str; 10] =
    ["a/1", "a/+", "b/#", "+/1", "#", "c", "b/x/y", "r/+", "$share/mixed/#", "$share/sessions/+/1"];

/// The filters from here on are of groups. The first one's members have sessions or not, the second one's all have.
pub(crate) const GROUPS_FROM: usize = 8;
pub(crate) const MIXED: usize = GROUPS_FROM;
pub(crate) const SESSIONS: usize = GROUPS_FROM + 1;

/// A filter without prefix.
pub(crate) fn filter_of(filter: usize) -> &'static str {
    let full = FILTERS[filter];
    full.strip_prefix("$share/").and_then(|shared| shared.split_once('/')).map_or(full, |(_, filter)| filter)
}

/// The group it is of.
pub(crate) fn group_of(filter: usize) -> Option<GroupName> {
    let (name, _) = FILTERS[filter].strip_prefix("$share/")?.split_once('/')?;
    Some(GroupName { name: name.into(), ordered: false })
}

/// Whether a topic's messages are for a filter, by their places in the lists.
pub(crate) fn is_for(topic: u32, filter: usize) -> bool {
    filter_matches(filter_of(filter), TOPICS[topic as usize])
}

/// One message: the how manyth of which publisher to which topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) publisher: u32,
    pub(crate) topic: u32,
    pub(crate) seq: u32,
    /// It is published with QoS 2.
    pub(crate) once: bool,
}

impl Mark {
    /// The message.
    pub(crate) fn message(self) -> Arc<Message> {
        let payload: Vec<u8> =
            [self.publisher, self.topic, self.seq, self.once.into()].into_iter().flat_map(u32::to_le_bytes).collect();
        let view = MessageView {
            topic: TOPICS[self.topic as usize],
            properties: &[],
            payload: &payload,
            qos: if self.once { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
            retain: self.is_retained(),
            expiry_at: None,
            publisher: PublisherKey(u64::from(self.publisher) + 1),
        };
        view.to_message()
    }

    /// Which one a message is.
    pub(crate) fn of(message: &Message) -> Self {
        let word = |at: usize| message.payload()[at..].first_chunk().map_or(u32::MAX, |word| u32::from_le_bytes(*word));
        Self { publisher: word(0), topic: word(4), seq: word(8), once: word(12) == 1 }
    }

    /// Whether it is to be retained.
    pub(crate) const fn is_retained(self) -> bool {
        self.topic as usize >= RETAINED_FROM
    }
}

/// A client's connection, counted over the whole simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

/// What a client says.
#[derive(Clone, Debug)]
pub(crate) enum ToServer {
    /// It wants its session.
    Attach(Client),
    /// It has none.
    Open,
    /// It has no session, and subscribes to one of [`FILTERS`].
    Listen(usize),
    /// It subscribes to one of [`FILTERS`].
    Subscribe(usize),
    /// It does not any more.
    Unsubscribe(usize),
    /// It has these messages.
    Acknowledge(InboxSeq),
    /// It publishes with QoS 1.
    Publish(Mark),
    /// It publishes with QoS 2, under this packet identifier, and says whether it may have done so before.
    PublishOnce { mark: Mark, packet_id: u16, is_repeated: bool },
    /// PUBREL.
    Release { packet_id: u16 },
    /// It goes in order.
    Disconnect,
    /// It is gone.
    Broken,
}

/// What a client hears.
#[derive(Clone, Debug)]
pub(crate) enum ToClient {
    /// It has its session, which goes on or is new, with these subscriptions.
    Accepted { present: bool, filters: Vec<usize> },
    /// A message.
    Message { mark: Mark, seq: Option<InboxSeq> },
    /// SUBACK.
    Subscribed(usize, bool),
    /// UNSUBACK.
    Unsubscribed(usize),
    /// PUBACK, with an error if it is false.
    Published(Mark, bool),
    /// PUBREC, with an error if it is not taken.
    Received { packet_id: u16, taken: bool },
    /// PUBCOMP.
    Completed { packet_id: u16 },
    /// The connection is over.
    Closed,
}

/// A link, counted over the whole simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Who is at the end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    pub(crate) nonce: u64,
    pub(crate) shard: u16,
}

/// Why a node did not take a message over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As a port refuses.
    Port(PortError),
    /// Nobody there is a member of the group any more.
    NoMember,
}

/// One thing that a link carries. As in bifro-net's `broker/frames.rs`, but that nobody has to read bytes.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// From services to services; of the one tenant, or of none.
    Service { tenant: bool, bytes: Vec<u8> },
    /// A message for whoever listens on the node, or for a member of a group.
    Deliver { publish: u64, origin: Option<Origin>, group: Option<(Box<str>, GroupName)>, message: Arc<Message> },
    /// These were taken over.
    Taken(Vec<u64>),
    /// So was this one, of QoS 2, which these ranges have noted, and connections, if they are `live`.
    TakenOnce { publish: u64, live: bool, ranges: Vec<RangeIdx> },
    /// Connections need not recognise these any more.
    Forget { publish: u64, over: Over },
    /// Which groups have this one?
    Inquire { publish: u64, inquiry: Inquiry },
    /// These.
    Found { publish: u64, groups: Vec<u64> },
    /// This one was not.
    Refused { publish: u64, refusal: Refusal },
}

/// What the shards of a node tell each other. As in bifro-net's `broker/peer.rs`.
#[derive(Debug)]
pub(crate) enum PeerMessage {
    /// From services to services.
    Service(ServiceMessage),
    /// A message for connections of the receiver, and the publish that waits.
    Deliver { message: Arc<Message>, places: LivePlaces, origin: Option<Origin>, publish: Option<ReqId> },
    /// Connections need not recognise these publishes any more.
    Forget { over: Over, publish: Option<ReqId> },
    /// This publish of the receiver has been taken over, or forgotten, here.
    Taken(ReqId),
    /// A message for a member of a group.
    Offer(Offer),
    /// It is taken over, or not.
    Offered { publish: ReqId, result: Result<(), PortError> },
    /// Somebody is given a publish of the receiver, and may note it.
    Noted { publish: ReqId, holder: Holder },
    /// Which groups have a publish of the sender?
    Inquire { inquiry: Inquiry, publish: ReqId },
    /// These.
    Found { publish: ReqId, groups: Vec<u64> },
}

/// What one end of a link sends so that it arrives, and in order.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// The handshake's answer.
    Answer,
    /// Who this end is.
    Greet(Hello),
    /// What a turn had for the other end.
    Batch(Vec<Frame>),
}

/// What one end of a link sends once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// It lives.
    Ping,
    /// The link is over; or there is no such link here.
    Close,
}

/// What a link brings to a shard.
#[derive(Clone, Debug)]
pub(crate) enum LinkInput {
    /// Somebody calls.
    Called(LinkId),
    /// Something arrived.
    Parcel(LinkId, Parcel),
    /// Something arrived.
    Note(LinkId, Note),
}

/// What a shard wants of links.
#[derive(Clone, Debug)]
pub(crate) enum LinkOutput {
    /// A shard of a node is to be called.
    Dial { link: LinkId, node: NodeId, shard: u16 },
    /// To be sent.
    Parcel(LinkId, Parcel),
    /// To be sent.
    Note(LinkId, Note),
    /// This end is over: what it has sent and has not arrived is lost.
    Over(LinkId),
}
