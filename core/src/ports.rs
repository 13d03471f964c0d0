//! The ports behind which the broker's stateful services live. They speak in request ids and completions, not in futures:
//! a request is handed in, and its [`Completion`] comes out of [`Out`], in the same call or in a later one.
//!
//! Every shard owns one [`Services`] value. It is a machine without I/O: what it wants to tell its peers on other shards
//! it puts into [`Out::sends`], and the driver carries it over the mesh, first in first out per pair of shards.

mod inbox;

pub use inbox::{
    AttachTerms, Attached, DetachState, FutureWill, InFlight, InHand, Inbox, InboxMessage, InboxOwner, Left, Origin,
};

use crate::client::Client;
use crate::ids::{ConnRef, NodeIdx, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use crate::message::{Message, QoS};
use crate::nodes::Nodes;
use crate::ranges::{RangeAnswer, RangeOrder};
use crate::tenant::{TenantCtx, TenantName};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How a subscription wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubOptions {
    /// Granted QoS: the highest its messages are delivered with.
    pub qos: QoS,
    /// The subscriber's own messages are not for it [MQTT5-3.8.3-3].
    pub no_local: bool,
    /// Keep the retain flag as published [MQTT5-3.3.1-13].
    pub retain_as_published: bool,
    /// Subscription Identifier, if the client gave one; 1 to 268,435,455.
    pub subscription_id: Option<core::num::NonZeroU32>,
    /// Deliveries are to be checked one by one: the permission covers the filter only partly.
    pub check_deliveries: bool,
}

/// A `$share` or `$oshare` group a subscription belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupName {
    /// The ShareName.
    pub name: Box<str>,
    /// `$oshare`: the member is chosen by publisher, so that one publisher's messages stay in order.
    pub ordered: bool,
}

/// Who gets the messages of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// The live subscribers of one filter on one shard; the shard fans out from this place of its fan-out table.
    Live {
        /// Shard that fans out.
        shard: ShardId,
        /// Place in its fan-out table.
        slot: Slot,
    },
    /// One persistent session's subscription, stored at its inbox.
    Inbox {
        /// Range that holds the inbox.
        range: RangeIdx,
        /// The inbox's place in that range.
        inbox: Slot,
        /// The subscription's place in the inbox.
        subscription: u32,
    },
    /// Subscribers of a shard of another node, which fans out there.
    Remote {
        /// The node.
        node: NodeIdx,
        /// The shard of it that has announced them.
        shard: ShardId,
        /// Which of its members, if it is a group that they listen as; else 0.
        nth: u32,
    },
}

/// A group that matched, with all its members.
#[derive(Debug)]
pub struct GroupMatch {
    /// Which group.
    pub group: GroupName,
    /// The filter it shares, without prefix.
    pub filter: Box<str>,
    /// Members, in a stable order.
    pub members: Vec<Receiver>,
}

/// Places of one shard's fan-out table; shared because they cross shards with each message.
pub type LivePlaces = Arc<[Slot]>;

/// Places (inbox, subscription) in one range; shared because they cross shards with each message.
pub type InboxPlaces = Arc<[(Slot, u32)]>;

/// Everybody a topic's messages go to, grouped the way they are delivered.
#[derive(Debug, Default)]
pub struct Matches {
    /// Live subscribers: per shard the places of its fan-out table, shards ascending.
    pub live: Vec<(ShardId, LivePlaces)>,
    /// Persistent sessions: per range the (inbox, subscription) places, ranges ascending.
    pub inboxes: Vec<(RangeIdx, InboxPlaces)>,
    /// Other nodes with subscribers, ascending: each gets the message once.
    pub nodes: Vec<NodeIdx>,
    /// Shared groups: one member of each gets the message.
    pub groups: Vec<Arc<GroupMatch>>,
}

impl Matches {
    /// Nobody listens.
    pub const fn is_empty(&self) -> bool {
        self.live.is_empty() && self.inboxes.is_empty() && self.nodes.is_empty() && self.groups.is_empty()
    }
}

/// Why a port refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortError {
    /// A quota or limit is reached: 0x97.
    QuotaExceeded,
    /// The session is no longer the owner of what it asked about.
    NotOwner,
    /// Not now; the client may retry: 0x83.
    Unavailable,
}

/// A way to another node. Messages that take the same way arrive in order, each once, or the way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// The link that this shard has to the node.
    To(NodeIdx),
    /// The link that a shard of the node has to this shard.
    From(NodeIdx, ShardId),
}

/// A message of the services for the services of another node.
#[derive(Debug)]
pub struct RemoteSend {
    /// Which way.
    pub via: Via,
    /// The tenant it concerns, which has another number there.
    pub tenant: Option<TenantIdx>,
    /// What it says, as the services write it.
    pub bytes: Vec<u8>,
}

/// Where two networks meet: what a machine wants sent, and what it has answered.
#[derive(Debug)]
pub struct Out<M> {
    /// Messages for the same service on other shards, in order.
    pub sends: Vec<(ShardId, M)>,
    /// Messages for other nodes, in order.
    pub remote: Vec<RemoteSend>,
    /// Answers and notifications for the local driver, in order.
    pub completions: Vec<Completion>,
}

impl<M> Out<M> {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.remote.is_empty() && self.completions.is_empty()
    }
}

impl<M> Default for Out<M> {
    fn default() -> Self {
        Self { sends: Vec::new(), remote: Vec::new(), completions: Vec::new() }
    }
}

/// What the driver hears from its services.
#[derive(Debug)]
pub enum Completion {
    /// [`SessionDict::register`]: the connection is the only owner of its client id now; the old one is gone.
    Registered {
        /// The request.
        req: ReqId,
    },
    /// The connection must go: another one has registered its client id. Answer with [`SessionDict::unregister`].
    Kick {
        /// Connection on this shard.
        conn: ConnRef,
    },
    /// [`Dist::add_route`] is done: from now on every publish on this node finds the route.
    RouteAdded {
        /// The request.
        req: ReqId,
        /// Refusal, if any; then there is no route.
        result: Result<(), PortError>,
    },
    /// [`Dist::request_matches`] is done; [`Dist::matches`] may have forgotten again, so the answer is here.
    Matched {
        /// The request.
        req: ReqId,
        /// The answer.
        matches: Rc<Matches>,
    },
    /// [`Inbox::attach`] is done.
    Attached {
        /// The request.
        req: ReqId,
        /// The inbox and what it remembers.
        result: Result<Box<Attached>, PortError>,
    },
    /// [`Inbox::detach`] or [`Inbox::discard`] is done.
    Detached {
        /// The request.
        req: ReqId,
    },
    /// [`Inbox::subscribe`] is done, route included.
    InboxSubscribed {
        /// The request.
        req: ReqId,
        /// Whether the filter was subscribed already.
        result: Result<bool, PortError>,
    },
    /// [`Inbox::unsubscribe`] is done.
    InboxUnsubscribed {
        /// The request.
        req: ReqId,
        /// Whether there was such a subscription.
        existed: bool,
    },
    /// [`Inbox::note_received`], [`Inbox::forget`], [`Inbox::release`] or [`Inbox::hold`] is done, and survives the process.
    InboxDone {
        /// The request.
        req: ReqId,
        /// [`PortError::NotOwner`] if another connection has the inbox by now. Nothing was done then.
        result: Result<(), PortError>,
    },
    /// Answers [`Inbox::inquire`].
    Found {
        /// The request.
        req: ReqId,
        /// Groups that have the publish.
        groups: Vec<u64>,
    },
    /// Another leads the range of the connection's inbox: the connection is to say what it has of it, by [`Inbox::reattach`].
    InboxMoved {
        /// Connection on this shard.
        conn: ConnRef,
    },
    /// Nobody leads the range of the connection's inbox, or whoever does counts on the connection no more: it must go, and may attach again at
    /// once.
    InboxLost {
        /// Connection on this shard.
        conn: ConnRef,
    },
    /// What ranges the node leads has changed, or another leads one of them by now: of a message that is on its way there, or to inboxes here if
    /// it is this node, nobody knows whether all will have it.
    LeaderLost {
        /// The node.
        node: NodeIdx,
    },
    /// A tenant has sessions here that this shard may not have met: it has to, and to tell the others.
    TenantFound {
        /// Its name.
        name: TenantName,
    },
    /// [`Inbox::insert`] is done: every inbox named has the message, or has dropped it by its overflow rule.
    Inserted {
        /// The request.
        req: ReqId,
        /// Refusal of the whole insertion, if any: the publisher must not be told that it succeeded.
        result: Result<(), PortError>,
    },
    /// Messages for the live owner of an inbox, in order.
    InboxPush {
        /// Connection on this shard.
        conn: ConnRef,
        /// The messages.
        messages: Vec<InboxMessage>,
    },
    /// [`Retain::set`] is done.
    RetainSet {
        /// The request.
        req: ReqId,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// [`Retain::find`] is done.
    Retained {
        /// The request.
        req: ReqId,
        /// What matched, oldest first per topic order of the index, already within the limits.
        messages: Vec<RetainedMessage>,
    },
    /// A will's delay is over or its session has expired: publish it on behalf of this client.
    WillDue {
        /// Whose will.
        client: Client,
        /// The will.
        will: Arc<Message>,
    },
    /// A message that a departed or full member of a shared group gave back, to be delivered to another.
    Redeliver {
        /// Tenant.
        tenant: TenantIdx,
        /// The group's filter, without prefix.
        filter: Box<str>,
        /// The group.
        group: GroupName,
        /// The message.
        message: Arc<Message>,
    },
    /// Something an operator may want to know.
    Event(crate::event::Event),
}

/// One retained message with its publisher, whose permission is asked again before each delivery.
#[derive(Clone, Debug)]
pub struct RetainedMessage {
    /// The message.
    pub message: Arc<Message>,
    /// Who set it.
    pub publisher: Client,
}

/// One owner per (tenant, client id).
pub trait SessionDict {
    /// Makes `conn` the owner of the client id. If another connection is, it is kicked first, wherever it is; the
    /// completion comes when it has unregistered, or when the takeover deadline has passed.
    fn register(&mut self, now: Instant, req: ReqId, conn: ConnRef, client: &Client, tenant: &TenantCtx);

    /// `conn` has closed its session (will handed over, inbox detached) or never got one.
    fn unregister(&mut self, now: Instant, conn: ConnRef, client: &Client, tenant: &TenantCtx);
}

/// Routes: topic filters to receivers.
pub trait Dist {
    /// Adds a route. `filter` is without prefix. Completes with [`Completion::RouteAdded`] after every shard's cache has
    /// forgotten the topics it concerns.
    fn add_route(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: &TenantCtx,
        filter: &str,
        group: Option<&GroupName>,
        receiver: Receiver,
    );

    /// Removes a route; no completion, caches forget as soon as they hear of it.
    fn remove_route(
        &mut self,
        now: Instant,
        tenant: TenantIdx,
        filter: &str,
        group: Option<&GroupName>,
        receiver: Receiver,
    );

    /// The receivers of a topic, if this shard remembers them.
    fn matches(&mut self, tenant: TenantIdx, topic: &str) -> Option<Rc<Matches>>;

    /// Asks for the receivers of a topic; completes with [`Completion::Matched`].
    fn request_matches(&mut self, now: Instant, req: ReqId, tenant: TenantIdx, topic: &str);

    /// Asks for the members of one shared group; completes with [`Completion::Matched`] holding at most that group.
    fn request_group(&mut self, now: Instant, req: ReqId, tenant: TenantIdx, filter: &str, group: &GroupName);
}

/// Retained messages.
pub trait Retain {
    /// Stores `message` as its topic's retained message, or clears the topic if the payload is empty [MQTT-3.3.1-10].
    fn set(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, publisher: &Client, message: &Arc<Message>);

    /// Finds the retained messages whose topics match `filter` (without prefix), within the tenant's limits.
    fn find(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, filter: &str);
}

/// One shard's end of all services.
pub trait Services: SessionDict + Dist + Inbox + Retain {
    /// What the services of two shards tell each other.
    type Message: Send + 'static;

    /// Begins a turn: time has passed, and what was known of others may be worth nothing by now. All that clients are heard to say in the turn
    /// they have said before `now`. True if there is something to drain.
    fn begin_turn(&mut self, now: Instant) -> bool;

    /// Takes a message from the services of another shard.
    fn receive(&mut self, now: Instant, from: ShardId, message: Self::Message);

    /// Fires what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Services::handle_timeout`] wants to be called next.
    fn next_timeout(&self) -> Option<Instant>;

    /// Looks what the storage under the services has done meanwhile. True if there was anything.
    fn poll(&mut self, now: Instant) -> bool;

    /// Ends a turn: hands what it has changed to the storage. True if there is something to drain, after which it is to be called again:
    /// what comes of that would wait for the next turn, which nobody may begin for long.
    fn end_turn(&mut self, now: Instant) -> bool;

    /// Whether [`Services::poll`] would find nothing. To be asked after announcing a park and before parking.
    fn is_quiet(&self) -> bool;

    /// Whether what an earlier process left has been taken in. Clients are admitted when all shards say so.
    fn is_recovered(&self) -> bool;

    /// Moves what has gathered since the last call into `out`. To be called after any of the methods above.
    fn drain(&mut self, out: &mut Out<Self::Message>);

    /// Tenant settings and quotas have changed.
    fn set_tenant(&mut self, tenant: Arc<TenantCtx>);

    /// Other nodes have come or gone.
    fn set_nodes(&mut self, now: Instant, nodes: &Arc<Nodes>);

    /// A way to or from another node is there, or is there again: whatever was said over it before counts as forgotten.
    fn link_up(&mut self, now: Instant, via: Via);

    /// A way to or from another node has ended.
    fn link_down(&mut self, now: Instant, via: Via);

    /// Takes what the services of another node sent. False if it cannot be read: then the link is of no use.
    fn receive_remote(&mut self, now: Instant, via: Via, tenant: Option<TenantIdx>, bytes: &[u8]) -> bool;

    /// The node is about to end: what others can do in its place is to be theirs.
    fn hand_over(&mut self, now: Instant);

    /// Does what an operator wants of the ranges here, as far as they are this shard's.
    fn operate(&mut self, now: Instant, order: RangeOrder) -> RangeAnswer;

    /// Whether that is done, or cannot be. What is left by a node that goes before is taken over only when its silence is noticed.
    fn is_handed_over(&self) -> bool;

    /// Whether a topic's receivers are known but for those of [`Services::unheard_nodes`], whoever's sessions they are. If not, what [`Dist::matches`] remembers may lack some of
    /// those that other nodes have.
    fn is_complete(&self) -> bool;

    /// Whether they are all known, where sessions of nodes that die go on elsewhere. If not, [`Dist::request_matches`] is answered when they are. What must not be lost waits for
    /// that: an unheard node finds out itself who listens, but leaves a group that has members elsewhere to those.
    fn are_receivers_known(&self) -> bool;

    /// Whether sessions of a node that dies go on elsewhere.
    fn is_replicated(&self) -> bool;

    /// Whether a connection here is known to own its durable inbox. Not while the inbox has no leader that says so: the client may have gone on on another node
    /// meanwhile, and what is read from the connection may be what it said long ago.
    fn owns_inbox(&self, conn: Slot) -> bool;

    /// Live nodes that have not told yet what all of their shards listen to: every message may concern them.
    fn unheard_nodes(&self) -> &[NodeIdx];

    /// Whether a shard of another node, whose link arrives here, knows which ranges this node leads and which it leads no more. If not, a message of it for inboxes here is
    /// to be refused: it may have been sent after one that fails.
    fn is_followed_by(&self, node: NodeIdx, shard: ShardId) -> bool;

    /// Changes whenever what this node leads does, as far as this shard knows.
    fn reigns_seen(&self) -> u64;

    /// Ranges of persistent sessions that there are.
    fn inbox_ranges(&self) -> u16;
}
