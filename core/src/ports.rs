//! The ports behind which the broker's stateful services live. They speak in request ids and completions, not in futures:
//! a request is handed in, and its [`Completion`] comes out of [`Out`], in the same call or in a later one.
//!
//! Every shard owns one [`Services`] value. It is a machine without I/O: what it wants to tell its peers on other shards
//! it puts into [`Out::sends`], and the driver carries it over the mesh, first in first out per pair of shards.

use crate::client::Client;
use crate::ids::{ConnRef, InboxSeq, NodeIdx, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use crate::message::{Message, QoS};
use crate::nodes::Nodes;
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
    /// The node does not lead a range any more that it did: of a message that is on its way there nobody knows whether inboxes of that range
    /// will have it.
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

/// One queued message of an inbox.
#[derive(Clone, Debug)]
pub struct InboxMessage {
    /// Its place in the inbox; named again at commit. QoS 0 messages that were never stored have none.
    pub seq: Option<InboxSeq>,
    /// The message.
    pub message: Arc<Message>,
    /// QoS to deliver with: the lower of publish and subscription, the highest over all that matched.
    pub qos: QoS,
    /// Retain flag to deliver with.
    pub retain: bool,
    /// Ids of all subscriptions that matched, ascending.
    pub subscription_ids: smallvec::SmallVec<[core::num::NonZeroU32; 1]>,
    /// Ask the permission again before delivery.
    pub check_delivery: bool,
}

/// What an inbox hands to the connection that attaches to it.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// An earlier session goes on: Session Present.
    pub present: bool,
    /// Place of the inbox, for the caller's later requests.
    pub inbox: Option<(RangeIdx, Slot)>,
    /// Fences off earlier owners: every later request carries it.
    pub epoch: u64,
    /// The inbox outlives the process, and is to be told of each step of a QoS 2 exchange before the client is:
    /// [`Inbox::note_received`], [`Inbox::release`], [`Inbox::hold`].
    pub durable: bool,
    /// Subscriptions of the session: full filter as the client wrote it, and options.
    pub subscriptions: Vec<(Box<str>, SubOptions)>,
    /// Packet ids of QoS 2 publishes received but not yet released.
    pub received_qos2: Vec<u16>,
    /// Messages that were in flight to the client, in the order they were first sent.
    pub in_flight: Vec<InFlight>,
}

/// A message in flight to a client whose connection went away.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Packet id it was sent with, and is sent again with [MQTT-4.4.0-1].
    pub packet_id: core::num::NonZeroU16,
    /// QoS 2: PUBREC has arrived, PUBREL is what has to be sent again. The message is not needed any more.
    pub released: bool,
    /// The message.
    pub message: InboxMessage,
}

/// A message that a connection leaves behind.
#[derive(Clone, Debug)]
pub enum Left {
    /// The inbox has it, at this place.
    Stored(InboxSeq),
    /// It came from no inbox, as retained messages do; from now on it is the inbox's.
    Unstored(Box<InboxMessage>),
}

/// What a connection has of its inbox's messages: tells who leads the inbox next what it need not push again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InHand {
    /// Those that were pushed to it and are not done.
    pub seqs: Vec<InboxSeq>,
    /// One beyond the last that was pushed to it: all before it that are not in hand are done.
    pub next: InboxSeq,
}

/// What a connection leaves with its inbox when it goes.
#[derive(Clone, Debug, Default)]
pub struct DetachState {
    /// What it has of the inbox's messages.
    pub in_hand: InHand,
    /// Packet ids of QoS 2 publishes received but not yet released.
    pub received_qos2: Vec<u16>,
    /// In flight to the client, in the order first sent: packet id, PUBREC seen, message.
    pub in_flight: Vec<(core::num::NonZeroU16, bool, Left)>,
    /// Messages of QoS 1 and 2 that came from no inbox and were not sent yet, in order.
    pub waiting: Vec<InboxMessage>,
    /// Will to publish when its delay is over or the session ends, whichever comes first [MQTT5-3.1.3-9].
    pub will: Option<(core::time::Duration, Arc<Message>)>,
    /// Session Expiry Interval from now, in seconds; `u32::MAX` = never [MQTT5-3.1.2.11.2]. 0 ends the session now.
    pub expiry_s: u32,
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

/// Persistent sessions: subscriptions, queue, QoS 2 state, will, expiry.
pub trait Inbox {
    /// Attaches `conn` to its client's inbox; creates one if there is none or [`AttachTerms::clean_start`] discards it. Messages
    /// follow as [`Completion::InboxPush`], first those in flight were handed over in [`Attached`].
    fn attach(
        &mut self,
        now: Instant,
        req: ReqId,
        conn: ConnRef,
        client: &Client,
        tenant: &TenantCtx,
        terms: AttachTerms,
    );

    /// Deletes the client's inbox, if there is one (a transient session starts). Completes with [`Completion::Detached`], or with a refused
    /// [`Completion::Attached`].
    fn discard(&mut self, now: Instant, req: ReqId, client: &Client, tenant: &TenantCtx);

    /// The connection goes on with its inbox, which another leads now. A refusal is [`Completion::InboxLost`].
    fn reattach(&mut self, now: Instant, owner: InboxOwner<'_>, in_hand: InHand);

    /// The connection has gone; the session stays for its expiry interval.
    fn detach(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, state: DetachState);

    /// Adds or replaces a subscription (full filter as the client wrote it).
    fn subscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str, options: SubOptions);

    /// Removes a subscription.
    fn unsubscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str);

    /// Stores `message` in the inboxes named, all of one range, and pushes it to their live owners. Of a publish with an
    /// `origin` it is done once, until [`Inbox::forget`], however often it is asked for, even across a crash.
    fn insert(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: TenantIdx,
        inboxes: (RangeIdx, &InboxPlaces),
        message: &Arc<Message>,
        origin: Option<Origin>,
    );

    /// The client has done with these messages; the inbox forgets them and pushes as many more.
    fn commit(&mut self, now: Instant, owner: InboxOwner<'_>, done: Vec<InboxSeq>);

    /// Everybody has taken a QoS 2 publish of the inbox's client over: its packet identifier is remembered until
    /// [`Inbox::release`], so that the client's repetition is recognised [MQTT-4.3.3-2]. Completes with [`Completion::InboxDone`], as
    /// the next three do. Only for inboxes that are [`Attached::durable`].
    fn note_received(&mut self, now: Instant, req: ReqId, origin: Origin);

    /// [`Inbox::note_received`] is done, or the publish has failed: `range` need not recognise a repetition any more.
    fn forget(&mut self, now: Instant, req: ReqId, range: RangeIdx, origin: Origin);

    /// PUBREL: the identifier is free again. PUBCOMP waits for the completion.
    fn release(&mut self, now: Instant, req: ReqId, origin: Origin);

    /// PUBREC: the client has this QoS 2 message, and will be sent PUBREL for it whatever happens. PUBREL waits for the completion.
    fn hold(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, seq: InboxSeq);
}

/// What a connection asks of its inbox.
#[derive(Clone, Debug, Default)]
pub struct AttachTerms {
    /// The session there is ends, and another begins.
    pub clean_start: bool,
    /// Session Expiry Interval should the process end before the connection does, in seconds; `u32::MAX` = never.
    pub expiry_s: u32,
    /// Will, for the same case.
    pub will: Option<FutureWill>,
}

/// A will that nobody knows the hour of.
#[derive(Clone, Debug)]
pub struct FutureWill {
    /// From the end of the connection to the publication.
    pub delay: core::time::Duration,
    /// From the publication to the message's expiry [MQTT5-3.1.3.2.4].
    pub expiry: Option<core::time::Duration>,
    /// What is published.
    pub message: Arc<Message>,
}

impl FutureWill {
    /// The will of a connection that has ended: when it is due, and what is published then.
    pub fn due(&self, ended_at: Instant) -> (Instant, Arc<Message>) {
        let at = ended_at + self.delay;
        let expiry_at = self.expiry.map(|expiry| at + expiry);
        (at, crate::message::MessageView { expiry_at, ..self.message.view() }.to_message())
    }
}

/// A QoS 2 publish, as the inbox of its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The publisher's inbox.
    pub inbox: (RangeIdx, Slot),
    /// From [`Attached::epoch`].
    pub epoch: u64,
    /// The publish's packet identifier.
    pub packet_id: u16,
}

/// The connection that speaks for an inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxOwner<'a> {
    /// The connection.
    pub conn: ConnRef,
    /// Its client.
    pub client: &'a Client,
    /// Its tenant.
    pub tenant: TenantIdx,
    /// From [`Attached::inbox`].
    pub inbox: (RangeIdx, Slot),
    /// From [`Attached::epoch`].
    pub epoch: u64,
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

    /// Takes a message from the services of another shard.
    fn receive(&mut self, now: Instant, from: ShardId, message: Self::Message);

    /// Fires what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Services::handle_timeout`] wants to be called next.
    fn next_timeout(&self) -> Option<Instant>;

    /// Looks what the storage under the services has done meanwhile. True if there was anything.
    fn poll(&mut self, now: Instant) -> bool;

    /// Ends a turn: hands what it has changed to the storage. True if there is something to drain.
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

    /// Whether a topic's receivers are known, whoever's sessions they are. If not, [`Dist::request_matches`] is answered when they are, and what
    /// [`Dist::matches`] remembers may lack some of those that other nodes have.
    fn is_complete(&self) -> bool;

    /// Whether sessions of a node that dies go on elsewhere.
    fn is_replicated(&self) -> bool;

    /// Live nodes that have not told yet what all of their shards listen to: every message may concern them.
    fn unheard_nodes(&self) -> &[NodeIdx];
}
