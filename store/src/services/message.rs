//! What the services of two shards tell each other.
//!
//! Requests go to the shard that owns the state, answers come back with the request id of the asker. Settings do not travel: every shard knows its tenants.

mod step;

pub use step::Step;

use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, InboxSeq, NodeId, NodeIdx, RangeIdx, ReqId, ShardId, TenantIdx};
use bifro_core::message::Message as Published;
use bifro_core::ports::{
    AttachTerms, Attached, DetachState, InHand, InboxMessage, InboxPlaces, Matches, Origin, PortError, Receiver,
    RetainedMessage, SubOptions,
};
use bifro_range::dist::RouteFilter;
use bifro_range::inbox::OwnerRef;
use bifro_range::retain::{Replica, Version};
use std::sync::Arc;

/// A message between the services of two shards. Opaque to the mesh.
#[derive(Debug)]
pub enum Message {
    /// Of the session dictionary.
    Dict(Dict),
    /// Of dist.
    Dist(Dist),
    /// Of the inboxes.
    Inbox(Inbox),
    /// Of retain.
    Retain(Retain),
    /// Of who leads which range.
    Reign(Reign),
    /// To the range's shard: what is asked of its leader.
    Asked(Box<Asked>),
}

/// What is asked of a range's leader.
#[derive(Debug)]
pub struct Asked {
    /// Node that asks.
    pub node: NodeIdx,
    /// Its shard.
    pub shard: ShardId,
    /// Term in which it takes this node for the leader.
    pub term: u64,
    /// How it counts this leader.
    pub claim: u32,
    /// A request.
    pub request: Inbox,
}

/// Of who leads which range.
#[derive(Debug)]
pub enum Reign {
    /// To every shard: this node leads a range, and all live nodes know its routes.
    Leads {
        /// The range.
        range: RangeIdx,
        /// In which term.
        term: u64,
    },
    /// To every shard: it does not any more. Answered by `Ended`, and later by `Confirmed`.
    Ends {
        /// The range.
        range: RangeIdx,
        /// The term.
        term: u64,
    },
    /// The shard does not count on it any more.
    Ended {
        /// The range.
        range: RangeIdx,
        /// The term.
        term: u64,
    },
    /// Nor does any shard of another node whose link arrives there.
    Confirmed {
        /// The range.
        range: RangeIdx,
        /// The term.
        term: u64,
    },
    /// To every shard: nothing that a node has claimed is true any more. Answered by `Forgotten`.
    Forget {
        /// The node, which has died.
        node: NodeIdx,
    },
    /// The shard does not count on its claims any more.
    Forgotten {
        /// The node.
        node: NodeIdx,
    },
    /// To every shard: the link of another node's shard has ended, or the node has died.
    OwnersLost {
        /// The node.
        node: NodeIdx,
        /// Its shard; none: all of them.
        shard: Option<ShardId>,
    },
    /// To a host's shard: what another node's host has sent.
    Frame {
        /// The node.
        from: NodeId,
        /// A frame.
        bytes: Vec<u8>,
    },
}

/// Of the session dictionary.
#[derive(Debug)]
pub enum Dict {
    /// Make `conn` the owner.
    Register {
        /// Answered by `Registered`.
        req: ReqId,
        /// Who wants to be the owner.
        conn: ConnRef,
        /// Tenant.
        tenant: TenantIdx,
        /// Whose id it is about.
        client: Client,
    },
    /// `conn` is not the owner any more.
    Unregister {
        /// Who was.
        conn: ConnRef,
        /// Tenant.
        tenant: TenantIdx,
        /// Whose id it is about.
        client: Client,
    },
    /// `conn` was the owner on another node, and is named here now.
    Reregister {
        /// Who was.
        conn: ConnRef,
        /// Tenant.
        tenant: TenantIdx,
        /// Whose id it is about.
        client: Client,
    },
    /// To the connection's shard: it is the owner.
    Registered {
        /// The connection.
        conn: ConnRef,
        /// The request.
        req: ReqId,
    },
    /// To the shard where the links of another node's shard arrive: the answer for a connection of that shard.
    Answer {
        /// The connection.
        conn: ConnRef,
        /// Its request: it is the owner now. None: it has to go.
        req: Option<ReqId>,
    },
    /// To the connection's shard: it has to go.
    Kick {
        /// Which.
        conn: ConnRef,
    },
}

/// Of dist.
#[derive(Debug)]
pub enum Dist {
    /// Add a route to the partition here.
    AddRoute {
        /// Answered by `RouteAdded`.
        token: u32,
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
        /// Who listens.
        receiver: Receiver,
    },
    /// The partition has the route and no cache contradicts it.
    RouteAdded {
        /// The asker's number.
        token: u32,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// Remove a route from the partition here.
    RemoveRoute {
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
        /// Who listened.
        receiver: Receiver,
    },
    /// To a cache: forget what the sender's partition has said of these topics.
    Forget {
        /// Tenant.
        tenant: TenantIdx,
        /// The filter.
        route: Arc<RouteFilter>,
        /// Answer by `Forgotten`, if the sender waits for it.
        ack: Option<u32>,
    },
    /// The cache has forgotten.
    Forgotten {
        /// Tenant.
        tenant: TenantIdx,
        /// From `Forget`.
        ack: u32,
        /// It remembers or waits for other topics of the tenant here.
        interested: bool,
    },
    /// Who listens to a topic?
    MatchTopic {
        /// Tenant.
        tenant: TenantIdx,
        /// The topic.
        topic: Arc<str>,
    },
    /// These do.
    TopicMatched {
        /// Tenant.
        tenant: TenantIdx,
        /// The topic.
        topic: Arc<str>,
        /// The receivers.
        matches: Box<Matches>,
    },
    /// To every shard: what a shard of another node listens to is known here, or not any more.
    Heard {
        /// The node.
        node: NodeIdx,
        /// Its shard.
        shard: ShardId,
        /// Known.
        extent: super::hearing::Extent,
    },
    /// To every shard: of which shards of a node it has heard everything. Answered by `Heard`, of each.
    WhoHasHeard {
        /// The node.
        node: NodeIdx,
    },
    /// Who is a member of a group?
    MatchGroup {
        /// Answered by `GroupMatched`.
        req: ReqId,
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
    },
    /// These are.
    GroupMatched {
        /// The request.
        req: ReqId,
        /// At most the group.
        matches: Box<Matches>,
    },
}

/// Of the inboxes.
#[derive(Clone, Debug)]
pub enum Inbox {
    /// Make `conn` the owner of its client's session.
    Attach {
        /// Answered by `Attached`.
        req: ReqId,
        /// Range of the session.
        range: RangeIdx,
        /// Who attaches.
        conn: ConnRef,
        /// Tenant.
        tenant: TenantIdx,
        /// Whose session.
        client: Client,
        /// On which terms.
        terms: AttachTerms,
    },
    /// Answer.
    Attached {
        /// The request.
        req: ReqId,
        /// The inbox.
        result: Result<Box<Attached>, PortError>,
    },
    /// End the client's session.
    Discard {
        /// Answered by `Detached`.
        req: ReqId,
        /// Range of the session.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// Whose session.
        client: Client,
    },
    /// The owner goes on, under another leader.
    Reattach {
        /// Range of the session.
        range: RangeIdx,
        /// The connection, which hears only if it is refused.
        conn: ConnRef,
        /// Who owned what.
        owner: OwnerRef,
        /// What it has of the messages.
        in_hand: InHand,
    },
    /// The owner has gone.
    Detach {
        /// Answered by `Detached`.
        req: ReqId,
        /// Range of the session.
        range: RangeIdx,
        /// Who owned what.
        owner: OwnerRef,
        /// Whose session.
        client: Client,
        /// What it leaves.
        state: Box<DetachState>,
    },
    /// Answer.
    Detached {
        /// The request.
        req: ReqId,
    },
    /// Add a subscription.
    Subscribe {
        /// Answered by `Subscribed`.
        req: ReqId,
        /// Range of the session.
        range: RangeIdx,
        /// Who owns what.
        owner: OwnerRef,
        /// Full filter.
        filter: Box<str>,
        /// Options.
        options: SubOptions,
    },
    /// Answer.
    Subscribed {
        /// The request.
        req: ReqId,
        /// Whether it was subscribed already.
        result: Result<bool, PortError>,
    },
    /// Remove a subscription.
    Unsubscribe {
        /// Answered by `Unsubscribed`.
        req: ReqId,
        /// Range of the session.
        range: RangeIdx,
        /// Who owns what.
        owner: OwnerRef,
        /// Full filter.
        filter: Box<str>,
    },
    /// Answer.
    Unsubscribed {
        /// The request.
        req: ReqId,
        /// Whether there was one.
        existed: bool,
    },
    /// Store a message.
    Insert {
        /// Answered by `Inserted`.
        req: ReqId,
        /// Range of the sessions.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// Where.
        places: InboxPlaces,
        /// What.
        message: Arc<Published>,
        /// Which QoS 2 publish it is, if a repetition is to be recognised.
        origin: Option<Origin>,
    },
    /// Answer.
    Inserted {
        /// The request.
        req: ReqId,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// A step of a QoS 2 exchange.
    Step {
        /// Answered by `Done`, [`Step::Inquire`] by `Found`.
        req: ReqId,
        /// Range that takes it.
        range: RangeIdx,
        /// Which.
        step: Step,
    },
    /// Answer.
    Done {
        /// The request.
        req: ReqId,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// Answer.
    Found {
        /// The request.
        req: ReqId,
        /// Groups that have the publish.
        groups: Vec<u64>,
    },
    /// Forget that these publishes are in the inboxes here.
    Settle {
        /// Answered by `Settled`.
        token: u32,
        /// Range that forgets.
        range: RangeIdx,
        /// The publishes.
        origins: Arc<[Origin]>,
    },
    /// Answer.
    Settled {
        /// The asker's number.
        token: u32,
        /// Range that has forgotten.
        range: RangeIdx,
    },
    /// Messages are done with.
    Commit {
        /// Range of the session.
        range: RangeIdx,
        /// Who owns what.
        owner: OwnerRef,
        /// The messages.
        done: Vec<InboxSeq>,
    },
    /// To the connection's shard: messages for it.
    Push {
        /// Which.
        conn: ConnRef,
        /// The messages.
        messages: Vec<InboxMessage>,
    },
    /// To the connection's shard: its session counts on it no more.
    Lost {
        /// Which.
        conn: ConnRef,
    },
    /// An answer, or a push, of a range that may have had other leaders: to the shard it is for, or where another node's links arrive.
    Answer {
        /// The node it is for.
        node: NodeIdx,
        /// Its shard.
        shard: ShardId,
        /// How that shard counts the leader whose answer it is.
        claim: u32,
        /// What it hears.
        answer: Box<Self>,
    },
}

/// How an asker numbers what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedAs {
    /// As a request of its driver's.
    Req(ReqId),
    /// As an attach of its own that waits for all ranges.
    Token(u32),
}

impl Inbox {
    /// The range that is asked; none if this is no request.
    pub const fn range(&self) -> Option<RangeIdx> {
        match self {
            Self::Attach { range, .. }
            | Self::Discard { range, .. }
            | Self::Reattach { range, .. }
            | Self::Detach { range, .. }
            | Self::Subscribe { range, .. }
            | Self::Unsubscribe { range, .. }
            | Self::Insert { range, .. }
            | Self::Step { range, .. }
            | Self::Settle { range, .. }
            | Self::Commit { range, .. } => Some(*range),
            Self::Attached { .. }
            | Self::Detached { .. }
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::Inserted { .. }
            | Self::Done { .. }
            | Self::Found { .. }
            | Self::Settled { .. }
            | Self::Push { .. }
            | Self::Lost { .. }
            | Self::Answer { .. } => None,
        }
    }

    /// The tenant, where it is not clear from what the range knows.
    pub const fn tenant(&self) -> Option<TenantIdx> {
        match self {
            Self::Attach { tenant, .. } | Self::Discard { tenant, .. } => Some(*tenant),
            _ => None,
        }
    }

    /// How the asker numbers the request; none if it is not answered.
    pub const fn asked_as(&self) -> Option<AskedAs> {
        match self {
            Self::Attach { req, .. }
            | Self::Discard { req, .. }
            | Self::Detach { req, .. }
            | Self::Subscribe { req, .. }
            | Self::Unsubscribe { req, .. }
            | Self::Insert { req, .. }
            | Self::Step { req, .. } => Some(AskedAs::Req(*req)),
            Self::Settle { token, .. } => Some(AskedAs::Token(*token)),
            _ => None,
        }
    }
}

/// Of retain.
#[derive(Debug)]
pub enum Retain {
    /// Set or clear a topic's message.
    Set {
        /// Answered by `SetDone`.
        req: ReqId,
        /// Range of the topic.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// Who publishes it.
        publisher: Client,
        /// The message.
        message: Arc<Published>,
    },
    /// Answer.
    SetDone {
        /// The request.
        req: ReqId,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// Take over what another node knows of a topic, if it is newer.
    Merge {
        /// Answered by `Merged`, if somebody waits.
        req: Option<ReqId>,
        /// Range of the topic.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// The message, or that it was cleared.
        replica: Box<Replica>,
    },
    /// Answer.
    Merged {
        /// The request.
        req: ReqId,
    },
    /// Which of these, that a shard of another node has, are newer than what the range has?
    Offered {
        /// The node.
        node: NodeIdx,
        /// Its shard.
        shard: ShardId,
        /// Range of the topics.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// Topics and versions.
        offers: Vec<(String, Version)>,
    },
    /// These are.
    Wanted {
        /// The node.
        node: NodeIdx,
        /// Its shard.
        shard: ShardId,
        /// Tenant.
        tenant: TenantIdx,
        /// Topics.
        topics: Vec<String>,
    },
    /// Find messages in a range.
    Find {
        /// Answered by `Found`.
        req: ReqId,
        /// The range.
        range: RangeIdx,
        /// Tenant.
        tenant: TenantIdx,
        /// The filter.
        filter: Arc<str>,
    },
    /// Answer of one range.
    Found {
        /// The request.
        req: ReqId,
        /// What matched there.
        messages: Vec<RetainedMessage>,
    },
}
