//! What the services of two nodes tell each other, as bytes: rkyv's archive of [`Remote`], without alignment, checked whenever it is read.
//! Tenants do not stand in it: they have other numbers elsewhere, so the driver names them.

mod inbox;

pub(super) use inbox::RemoteInbox;

use bifro_core::ids::{ConnRef, NodeId, NodeIdx, ShardId, Slot};
use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::ports::GroupName;
use bifro_mqtt::topic::{ParsedFilter, TopicLimits};
use bifro_range::dist::RouteFilter;
use bifro_range::retain::Version;
use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize, Serialize};

/// Whether a session of any tenant can have this filter: what all of them keep to [MQTT-1.5.3] [MQTT5-1.5.4].
pub(super) fn is_filter(text: &str) -> bool {
    let bytes_max = usize::from(u16::MAX);
    let limits = TopicLimits { bytes_max, levels_max: TOPIC_LEVELS_HARD_MAX, level_bytes_max: bytes_max };
    ParsedFilter::parse(text, &limits).is_ok()
}

/// A message of one shard's services to those of another node.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) enum Remote {
    /// The sender has a subscriber that no message has told of yet.
    Add {
        /// To be answered by `Added`, if the subscriber waits.
        token: Option<u32>,
        /// What it listens to.
        route: Route,
        /// Which member of the sender's it is, if it is in a group.
        nth: u32,
    },
    /// From now on every publish here finds the route.
    Added {
        /// From `Add`.
        token: u32,
    },
    /// The sender has no such subscriber any more.
    Remove {
        /// What it listened to.
        route: Route,
        /// As in `Add`.
        nth: u32,
    },
    /// Since the link is up the sender has told everything it listens to.
    Told,
    /// Back over the receiver's link: may the sender's node go on relying on what it was told? Answered by `MayRely`.
    Relies {
        /// What its clock shows.
        at: u64,
    },
    /// It may, for a while from then on.
    MayRely {
        /// From `Relies`.
        at: u64,
    },
    /// A topic's retained message.
    Retain {
        /// To be answered by `Retained`, if somebody waits.
        token: Option<u32>,
        /// A [`bifro_range::retain::Replica`].
        replica: Vec<u8>,
    },
    /// It is safe here.
    Retained {
        /// From `Retain`.
        token: u32,
    },
    /// What the sender knows of topics with retained messages.
    Offer {
        /// Each with its version.
        offers: Vec<Offer>,
    },
    /// Of what the receiver has offered, the sender lacks these topics.
    Want {
        /// The topics.
        topics: Vec<String>,
    },
    /// The sender has no copies of retained messages: set, or clear, a topic's for it.
    SetRetained {
        /// Answered by `RetainedSet`.
        req: u64,
        /// A [`bifro_range::retain::Replica`] without a version of its own.
        replica: Vec<u8>,
    },
    /// Back: all nodes with copies have it safe, or it was refused.
    RetainedSet {
        /// From `SetRetained`.
        req: u64,
        /// A quota is used up.
        is_refused: bool,
    },
    /// The sender has no copies of retained messages: find those whose topics match.
    FindRetained {
        /// Answered by `FoundRetained`.
        req: u64,
        /// The filter.
        filter: String,
    },
    /// Back: the next of those.
    FoundRetained {
        /// From `FindRetained`.
        req: u64,
        /// Where there are more, to be asked for by `FindOn`.
        more: Option<u64>,
        /// As in `SetRetained`.
        replicas: Vec<Vec<u8>>,
    },
    /// The sender has taken in what came of `FoundRetained`.
    FindOn {
        /// From there.
        guest: u64,
    },
    /// What replicas of ranges tell each other: a frame of their hosts.
    Raft {
        /// The frame.
        frame: Vec<u8>,
    },
    /// Back over the receiver's link: the sender leads a range, whose routes the receiver's node has. Answered by `Follows`.
    Leads {
        /// The range.
        range: u16,
        /// In which term.
        term: u64,
    },
    /// Likewise: not any more. Answered by `Ended`.
    Ends {
        /// The range.
        range: u16,
        /// The term.
        term: u64,
    },
    /// The sender does not count on it any more.
    Ended {
        /// The range.
        range: u16,
        /// The term.
        term: u64,
    },
    /// The sender has heard the next `Leads` of those that the link has brought.
    Follows,
    /// A connection wants to own its client id.
    Register {
        /// Answered by `Registered`; none: it owned it elsewhere, and needs no answer.
        req: Option<u64>,
        /// The connection, on the sending node.
        conn: Conn,
        /// The client id.
        client_id: String,
    },
    /// A connection of the receiver's owns its client id.
    Registered {
        /// The connection.
        conn: Conn,
        /// Its request.
        req: u64,
    },
    /// A connection of the receiver's has to go: another one has its client id.
    Kick {
        /// The connection.
        conn: Conn,
    },
    /// A connection of the sender's has gone, or does not want its client id here any more.
    Unregister {
        /// The connection.
        conn: Conn,
        /// The client id.
        client_id: String,
    },
    /// Of an inbox.
    Inbox(RemoteInbox),
}

impl Remote {
    pub(super) fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<Error>(self).expect("plain values can be archived").into_vec()
    }

    /// Whether it is about retained messages.
    pub(super) const fn is_of_retain(&self) -> bool {
        matches!(
            self,
            Self::Retain { .. }
                | Self::Retained { .. }
                | Self::Offer { .. }
                | Self::Want { .. }
                | Self::SetRetained { .. }
                | Self::RetainedSet { .. }
                | Self::FindRetained { .. }
                | Self::FoundRetained { .. }
                | Self::FindOn { .. }
        )
    }

    /// Whether it is about who leads.
    pub(super) const fn is_of_reigns(&self) -> bool {
        matches!(self, Self::Leads { .. } | Self::Ends { .. } | Self::Ended { .. } | Self::Follows)
    }

    /// None if the bytes are no message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        rkyv::from_bytes::<Self, Error>(bytes).ok()
    }
}

/// A filter, alone or with its group.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Route {
    filter: String,
    /// Its name, and whether it is ordered.
    group: Option<(String, bool)>,
}

impl From<&RouteFilter> for Route {
    fn from(route: &RouteFilter) -> Self {
        let group = route.group.as_ref().map(|group| (group.name.to_string(), group.ordered));
        Self { filter: route.filter.to_string(), group }
    }
}

impl From<Route> for RouteFilter {
    fn from(route: Route) -> Self {
        let group = route.group.map(|(name, ordered)| GroupName { name: name.into(), ordered });
        Self { filter: route.filter.into(), group }
    }
}

/// A topic and the version of what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) topic: String,
    at: u64,
    node: u64,
}

impl Offer {
    pub(super) fn new(topic: &str, version: Version) -> Self {
        Self { topic: topic.to_owned(), at: version.at, node: version.node.0 }
    }

    pub(super) const fn version(&self) -> Version {
        Version { at: self.at, node: NodeId(self.node) }
    }
}

/// A connection of the node that sends or receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(super) struct Conn {
    shard: u16,
    index: u32,
    generation: u32,
}

impl Conn {
    /// The connection, which is one of `node`'s.
    pub(super) const fn of(self, node: NodeIdx) -> ConnRef {
        let slot = Slot { index: self.index, generation: self.generation };
        ConnRef { node, shard: ShardId(self.shard), slot }
    }
}

impl From<ConnRef> for Conn {
    fn from(conn: ConnRef) -> Self {
        Self { shard: conn.shard.0, index: conn.slot.index, generation: conn.slot.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written_and_what_is_cut_short_is_refused() {
        let group = Some(GroupName { name: "g".into(), ordered: true });
        let route = RouteFilter { filter: "a/+/#".into(), group };
        let conn = ConnRef { node: NodeIdx(3), shard: ShardId(1), slot: Slot { index: 7, generation: 9 } };
        assert_eq!(RouteFilter::from(Route::from(&route)), route);
        assert_eq!(Conn::from(conn).of(NodeIdx(3)), conn);
        let messages = [
            Remote::Add { token: Some(1), route: Route::from(&route), nth: 2 },
            Remote::Told,
            Remote::Register { req: None, conn: conn.into(), client_id: "a client of some length".into() },
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Remote::decode(&bytes), Some(message));
            assert_eq!(Remote::decode(&bytes[..bytes.len() - 1]), None);
        }
    }

    /// One of each kind, and of each kind that inboxes have.
    fn every_message() -> Vec<Remote> {
        let group = Some(GroupName { name: "g".into(), ordered: true });
        let route = Route::from(&RouteFilter { filter: "a/+/#".into(), group });
        let conn = Conn { shard: 1, index: 7, generation: 9 };
        let (token, req, range, term) = (3, 4, 5, 6);
        let replica = b"a replica".to_vec();
        let offers = vec![Offer::new("t", Version { at: 8, node: NodeId(2) })];
        let mut messages = vec![
            Remote::Add { token: Some(token), route: route.clone(), nth: 2 },
            Remote::Added { token },
            Remote::Remove { route, nth: 2 },
            Remote::Told,
            Remote::Retain { token: None, replica: replica.clone() },
            Remote::Retained { token },
            Remote::Offer { offers },
            Remote::Want { topics: vec!["t".to_owned()] },
            Remote::SetRetained { req, replica: replica.clone() },
            Remote::RetainedSet { req, is_refused: true },
            Remote::FindRetained { req, filter: "a/#".to_owned() },
            Remote::FoundRetained { req, more: Some(11), replicas: vec![replica] },
            Remote::FindOn { guest: 11 },
            Remote::Raft { frame: b"a frame".to_vec() },
            Remote::Leads { range, term },
            Remote::Ends { range, term },
            Remote::Ended { range, term },
            Remote::Register { req: Some(req), conn, client_id: "a client of some length".to_owned() },
            Remote::Registered { conn, req },
            Remote::Kick { conn },
            Remote::Unregister { conn, client_id: "c".to_owned() },
        ];
        messages.extend(inbox::tests::all().into_iter().map(Remote::Inbox));
        messages
    }

    #[test]
    fn messages_are_as_recorded() {
        let frames: Vec<Vec<u8>> = every_message().iter().map(Remote::encode).collect();
        crate::recorded::check("services", &frames, |bytes| {
            let message = Remote::decode(bytes)?;
            Some((format!("{message:?}"), message.encode()))
        });
    }
}
