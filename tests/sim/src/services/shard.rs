//! One shard: the real services, and as much of bifro-net's driver (`broker/shard.rs`, `broker/completion.rs`) as makes clients, links and services
//! meet. A turn takes everything that has come, in the driver's order, and ends by handing over what it has for others.

use super::connections::Conns;
use super::groups::Offer;
use super::publishing::Publishes;
use super::remotes::Remotes;
use super::talk::{ConnId, Hello, LinkId, LinkInput, LinkOutput, Mark, PeerMessage, ToClient, ToServer};
use super::uplinks::Uplinks;
use bifro_core::delivered::{Delivered, Over};
use bifro_core::ids::{NodeIdx, ReqId, ShardId, TenantIdx};
use bifro_core::nodes::Nodes;
use bifro_core::ports::{Completion, Dist, Out, PortError, Retain, RetainedMessage, Services};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::{Instant, earlier};
use bifro_store::services::{Message, RangeServices};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The one tenant.
pub(crate) const TENANT: TenantIdx = TenantIdx(0);
/// From one turn to the next, after which a shard looks first whether its links have ended.
const STOOD_STILL: Duration = Duration::from_millis(1_100);
/// A shard turns at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Who waits for the completion of a request.
#[derive(Debug)]
pub(super) enum Awaited {
    /// A connection, to own its client id.
    Register(u32),
    /// A connection, for its inbox.
    Attach(u32),
    /// A connection that left its inbox gives up its client id afterwards.
    Leave(u32),
    /// A connection, for SUBACK.
    Subscribe(u32, usize),
    /// A connection, for UNSUBACK.
    Unsubscribe(u32, usize),
    /// A connection without a session, for the route of this filter.
    Route(u32, usize),
    /// Messages of a topic wait for their receivers.
    Match(Arc<str>),
    /// A publish waits for a node to forget it.
    Forgotten { node: NodeIdx, publish: ReqId, over: Over },
    /// A publish of some shard waits for the inbox of a group's member.
    GroupPart((ShardId, ReqId)),
    /// A message for a group waits for a member of another node.
    Member(Offer),
    /// A publish waits for a node to say which groups have it.
    Inquired(ReqId),
    /// A connection, for its inbox to forget an identifier.
    Released(u32, u16),
    /// A publish waits for inboxes to store it or to take a step, or for its retained message to be safe.
    Part { publish: ReqId, is_retained: bool },
    /// The simulation asks for all retained messages.
    Retained,
}

/// What has come and waits for its turn.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) clients: VecDeque<(ConnId, ToServer)>,
    pub(crate) mesh: VecDeque<(ShardId, PeerMessage)>,
    pub(crate) nodes: VecDeque<Arc<Nodes>>,
    pub(crate) links: VecDeque<LinkInput>,
}

impl Inputs {
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.mesh.is_empty() && self.nodes.is_empty() && self.links.is_empty()
    }
}

/// What a turn has for others.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) clients: Vec<(ConnId, ToClient)>,
    pub(crate) mesh: Vec<(ShardId, PeerMessage)>,
    pub(crate) links: Vec<LinkOutput>,
    /// Publishes that were not taken over in time, whether or not the client hears it.
    pub(crate) given_up: Vec<Mark>,
    /// How often it was asked which groups have a publish.
    pub(crate) inquired: u64,
}

/// See the module's page.
pub(crate) struct Shard {
    pub(super) me: ShardId,
    /// Of this node.
    pub(super) shards: u16,
    pub(crate) services: RangeServices,
    pub(super) tenant: Arc<TenantCtx>,
    pub(super) now: Instant,
    next_req: u64,
    /// Tells this shard's links from all others'.
    links: u64,
    pub(super) requests: BTreeMap<ReqId, Awaited>,
    pub(super) publishes: Publishes,
    pub(super) remotes: Remotes,
    pub(crate) uplinks: Uplinks,
    pub(super) conns: Conns,
    pub(super) delivered: Delivered,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
    /// The last answer to [`Self::look_for_retained`].
    pub(crate) retained: Option<Vec<RetainedMessage>>,
    drained: Out<Message>,
}

impl Shard {
    /// A shard of a process that has just started. `links` is a number that no other shard's process has.
    pub(crate) fn new(
        me: Hello,
        shards: u16,
        services: RangeServices,
        tenant: Arc<TenantCtx>,
        links: u64,
        now: Instant,
    ) -> Self {
        Self {
            me: ShardId(me.shard),
            shards,
            services,
            tenant,
            now,
            next_req: 0,
            links: links << 32,
            requests: BTreeMap::new(),
            publishes: Publishes::default(),
            remotes: Remotes::default(),
            uplinks: Uplinks::new(me),
            conns: Conns::default(),
            delivered: Delivered::default(),
            inputs: Inputs::default(),
            outputs: Outputs::default(),
            retained: None,
            drained: Out::default(),
        }
    }

    pub(super) fn next_req(&mut self) -> ReqId {
        self.next_req += 1;
        ReqId(self.next_req)
    }

    pub(super) fn await_completion(&mut self, awaited: Awaited) -> ReqId {
        let req = self.next_req();
        self.requests.insert(req, awaited);
        req
    }

    pub(super) fn next_link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    /// One turn.
    pub(crate) fn turn(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.now, now);
        self.services.begin_turn(now);
        if now.since(before) > STOOD_STILL {
            // Other nodes may have taken this one for dead: what its clients send now must not be judged by what was known before.
            self.handle_links();
        }
        self.services.poll(now);
        self.settle();
        while let Some((conn, said)) = self.inputs.clients.pop_front() {
            self.handle_client(conn, said);
            self.settle();
        }
        while let Some((from, message)) = self.inputs.mesh.pop_front() {
            self.handle_peer(from, message);
            self.settle();
        }
        while let Some(nodes) = self.inputs.nodes.pop_front() {
            self.set_nodes(&nodes);
            self.set_links_nodes(&nodes);
        }
        self.handle_links();
        self.expire_publishes();
        self.try_again();
        if self.services.next_timeout().is_some_and(|at| at <= now) {
            self.services.handle_timeout(now);
        }
        self.settle();
        while self.services.end_turn(now) {
            self.settle();
        }
        if let Some(what) = self.services.overlooked() {
            panic!("a turn has ended with {what}");
        }
        self.flush_links();
    }

    /// When to turn again even if nothing comes.
    pub(crate) fn next_turn(&self) -> Instant {
        let next = earlier(self.services.next_timeout(), self.publishes.next_deadline());
        let next = earlier(next, self.uplinks.next_timeout());
        next.map_or(self.now + HEARTBEAT, |at| at.min(self.now + HEARTBEAT))
    }

    /// Carries out what the services have asked for, until nothing is left.
    pub(super) fn settle(&mut self) {
        loop {
            let mut drained = std::mem::take(&mut self.drained);
            self.services.drain(&mut drained);
            if drained.is_empty() {
                return;
            }
            let sends = drained.sends.drain(..).map(|(to, message)| (to, PeerMessage::Service(message)));
            self.outputs.mesh.extend(sends);
            for send in drained.remote.drain(..) {
                self.send_service(send);
            }
            for completion in drained.completions.drain(..) {
                self.handle_completion(completion);
            }
            self.drained = drained;
        }
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Registered { req } => {
                if let Some(Awaited::Register(conn)) = self.requests.remove(&req) {
                    self.handle_registered(conn);
                }
            }
            Completion::Kick { conn } | Completion::InboxLost { conn } => self.close(conn.slot.index),
            Completion::InboxMoved { conn } => self.handle_moved(conn.slot.index),
            Completion::LeaderLost { node } => self.leader_lost(node),
            Completion::Matched { req, matches } => {
                if let Some(Awaited::Match(topic)) = self.requests.remove(&req) {
                    self.handle_matched(topic, &matches);
                }
            }
            Completion::Attached { req, result } => {
                if let Some(Awaited::Attach(conn)) = self.requests.remove(&req) {
                    self.handle_attached(conn, result);
                }
            }
            Completion::Detached { req } => {
                if let Some(Awaited::Leave(conn)) = self.requests.remove(&req) {
                    self.unregister(conn);
                }
            }
            Completion::InboxSubscribed { req, result } => {
                if let Some(Awaited::Subscribe(conn, filter)) = self.requests.remove(&req) {
                    self.say(conn, ToClient::Subscribed(filter, result.is_ok()));
                }
            }
            Completion::InboxUnsubscribed { req, .. } => {
                if let Some(Awaited::Unsubscribe(conn, filter)) = self.requests.remove(&req) {
                    self.say(conn, ToClient::Unsubscribed(filter));
                }
            }
            Completion::Inserted { req, result } | Completion::RetainSet { req, result } => {
                self.handle_stored(req, result);
            }
            Completion::Found { req, groups } => {
                if let Some(Awaited::Part { publish, .. }) = self.requests.remove(&req) {
                    self.found(publish, &groups);
                }
            }
            Completion::InboxDone { req, result } => match self.requests.remove(&req) {
                Some(Awaited::Part { publish, .. }) => self.publish_part_done(publish, result),
                Some(Awaited::Released(conn, packet_id)) if result.is_ok() => self.finish_release(conn, packet_id),
                _ => {}
            },
            Completion::InboxPush { conn, messages } => self.push(conn.slot.index, &messages),
            Completion::Retained { req, messages } => {
                if let Some(Awaited::Retained) = self.requests.remove(&req) {
                    self.retained = Some(messages);
                }
            }
            // There is one tenant, and all shards know it.
            Completion::TenantFound { .. } | Completion::Event(_) => {}
            Completion::RouteAdded { req, result } => {
                if let Some(Awaited::Route(conn, filter)) = self.requests.remove(&req) {
                    self.say(conn, ToClient::Subscribed(filter, result.is_ok()));
                }
            }
            Completion::WillDue { .. } | Completion::Redeliver { .. } => {
                panic!("nobody asked for {completion:?}")
            }
        }
    }

    fn handle_stored(&mut self, req: ReqId, result: Result<(), PortError>) {
        match self.requests.remove(&req) {
            Some(Awaited::Part { publish, is_retained }) => {
                if is_retained && result.is_err() {
                    self.publishes.give_up_tries(publish);
                }
                self.publish_part_done(publish, result);
            }
            Some(Awaited::GroupPart(publish)) => self.group_part_done(publish, result),
            _ => {}
        }
    }

    /// Asks for the receivers of a topic.
    pub(super) fn ask_for_matches(&mut self, topic: &Arc<str>) {
        let req = self.await_completion(Awaited::Match(topic.clone()));
        self.services.request_matches(self.now, req, TENANT, topic);
    }

    /// Asks for all retained messages; the answer will be in [`Self::retained`].
    pub(crate) fn look_for_retained(&mut self) {
        self.retained = None;
        let (req, tenant) = (self.await_completion(Awaited::Retained), self.tenant.clone());
        self.services.find(self.now, req, &tenant, "#");
        self.settle();
    }
}
