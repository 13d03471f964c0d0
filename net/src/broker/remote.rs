//! Other nodes: messages for their subscribers, what the services tell each other, and answers.
//!
//! A message goes to a node once, over the link of the publisher's shard, in one batch with everything else this turn has for that node. The shard
//! where it arrives routes it among the node's own subscribers, as if it had been published there, and answers when all have taken it over.
//!
//! # Invariants
//! - What nobody waits for is dropped at a full queue, what a publisher waits for is refused: nothing is acknowledged that was not taken over.
//! - A publish that a live node has not answered fails when its link ends, since nobody knows whether it arrived. A node that
//!   has died has no subscribers, and is not waited for; unless its sessions go on elsewhere, when it fails too.
//! - A message of another node goes to no third one.

mod receiving;

use super::Broker;
use super::completion::Awaited;
use super::exactly_once::Exchange;
use super::frames::{self, Forward, Refusal, Sent};
use super::publish::Publisher;
use super::shared::{GroupTurn, WaitsOn};
use crate::links::Blocks;
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId, TenantIdx};
use bifro_core::inquiry::{Groups, Holder, Inquiry};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::nodes::Nodes;
use bifro_core::ports::{GroupMatch, Matches, Origin, PortError, RemoteSend, Services, Via};
use bifro_core::time::Instant;
use bifro_mqtt::session::Published;
use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// Bytes of one batch at which a node counts as behind: connections that send more than their share wait.
const NODE_BEHIND_BYTES: usize = 1 << 20;
/// Bytes that may wait for a node on one shard; beyond, messages are dropped or refused.
const NODE_QUEUE_BYTES: usize = 16 << 20;
/// Bytes of the longest thing that another node's services say; a link that brings more is closed.
const SERVICE_BYTES: usize = 256 << 20;
/// Bytes of the longest message that goes to another node; longer ones are refused.
const FORWARD_BYTES: usize = 15 << 20;

/// The way from this shard to another node.
#[derive(Debug, Default)]
struct Outgoing {
    is_up: bool,
    /// Frames that wait for the end of the turn, for the link to take them, or for a link.
    batch: Blocks,
    /// See [`frames::put_forward`].
    last_head: Sent,
    /// What the node has not answered, and which request each is: a publish that is tried again is sent under another number.
    open: HashMap<u64, ReqId>,
    /// The beginning of what the node's services say, which came ahead.
    partial: Vec<u8>,
}

impl Outgoing {
    /// Why a message cannot go this way, whether it is up or not.
    fn refusal(&self, view: &MessageView<'_>) -> Option<PortError> {
        if is_too_long(view) {
            return Some(PortError::QuotaExceeded);
        }
        (self.batch.queued() > NODE_QUEUE_BYTES).then_some(PortError::Unavailable)
    }

    fn put_forward(&mut self, forward: &Forward<'_>, now: Instant) {
        frames::put_forward(forward, now, &mut self.batch, &mut self.last_head);
    }
}

/// The way back to a shard of another node.
#[derive(Debug, Default)]
struct Incoming {
    taken: Vec<u64>,
    batch: Blocks,
    /// See [`frames::Last`].
    last_head: Vec<u8>,
    /// As in [`Outgoing`].
    partial: Vec<u8>,
}

/// Ways to and from other nodes.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    outgoing: HashMap<NodeIdx, Outgoing>,
    incoming: HashMap<(NodeIdx, ShardId), Incoming>,
}

impl Remotes {
    /// Bytes that wait for other nodes.
    pub(super) fn bytes(&self) -> u64 {
        let outgoing =
            self.outgoing.values().map(|of| of.batch.capacity() + of.partial.capacity() + of.last_head.capacity());
        let incoming =
            self.incoming.values().map(|of| of.batch.capacity() + of.partial.capacity() + of.last_head.capacity());
        outgoing.chain(incoming).sum::<usize>() as u64
    }

    /// Whether a node has much to take already.
    pub(super) fn is_node_behind(&self) -> bool {
        self.outgoing.values().any(|outgoing| outgoing.is_up && outgoing.batch.queued() > NODE_BEHIND_BYTES)
    }

    /// All other nodes.
    pub(super) fn nodes(&self) -> SmallVec<[NodeIdx; 2]> {
        let mut nodes: SmallVec<_> = self.outgoing.keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }

    fn batch(&mut self, via: Via) -> Option<&mut Blocks> {
        match via {
            Via::To(node) => self.outgoing.get_mut(&node).filter(|to| to.is_up).map(|to| &mut to.batch),
            Via::From(node, shard) => self.incoming.get_mut(&(node, shard)).map(|from| &mut from.batch),
        }
    }

    /// What has come ahead of what the other end's services say.
    fn partial(&mut self, via: Via) -> Option<&mut Vec<u8>> {
        match via {
            Via::To(node) => self.outgoing.get_mut(&node).map(|to| &mut to.partial),
            Via::From(node, shard) => self.incoming.get_mut(&(node, shard)).map(|from| &mut from.partial),
        }
    }

    /// What the messages that come over a way may follow.
    fn last_head(&mut self, via: Via) -> Option<&mut Vec<u8>> {
        match via {
            Via::To(_) => None,
            Via::From(node, shard) => self.incoming.get_mut(&(node, shard)).map(|from| &mut from.last_head),
        }
    }

    /// Offers each way's batch to `send`, which returns whether the link has taken it.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Via, &Bytes) -> bool) {
        for (&(node, shard), from) in &mut self.incoming {
            if !from.taken.is_empty() {
                frames::put_taken(&from.taken, &mut from.batch);
                from.taken.clear();
            }
            from.batch.hand_over(|block| send(Via::From(node, shard), block));
        }
        for (&node, to) in self.outgoing.iter_mut().filter(|(_, to)| to.is_up) {
            to.batch.hand_over(|block| send(Via::To(node), block));
        }
    }
}

/// Whether a message is refused by all other nodes.
pub(super) const fn is_too_long(view: &MessageView<'_>) -> bool {
    view.topic.len() + view.properties.len() + view.payload.len() > FORWARD_BYTES
}

impl<S: Services> Broker<S> {
    /// Other nodes have come or gone.
    pub(super) fn set_nodes(&mut self, nodes: &Arc<Nodes>) {
        let mut gone = Vec::new();
        self.remotes.outgoing.retain(|&node, outgoing| {
            let lives = nodes.get(node).is_some();
            if !lives {
                gone.extend(outgoing.open.drain().map(|(_, req)| req));
            }
            lives
        });
        for (node, shard) in
            self.remotes.incoming.extract_if(|(node, _), _| nodes.get(*node).is_none()).map(|(of, _)| of)
        {
            self.publishes.forget_unmatched(node, shard);
        }
        for node in &nodes.others {
            self.remotes.outgoing.entry(node.idx).or_default();
        }
        self.set_draining(nodes.my_duties().is_draining);
        self.services.ask().set_nodes(self.now, nodes);
        // Whoever listened there is gone with the node, or is a session that another one takes over.
        let is_replicated = self.services.peek().is_replicated();
        let refusal = if is_replicated { Refusal::Port(PortError::Unavailable) } else { Refusal::NoMember };
        self.forwards_lost(gone, refusal);
        self.settle();
    }

    /// What is on its way to a node may be for sessions that it does not lead any more.
    pub(super) fn leader_lost(&mut self, node: NodeIdx) {
        if node == NodeIdx::HERE {
            return self.insertions_lost();
        }
        let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return };
        // What is to be forgotten is no matter of who leads.
        let is_forgotten = |req: &ReqId| matches!(self.requests.get(req), Some(Awaited::Forgotten { .. }));
        let lost = outgoing.open.extract_if(|_, req| !is_forgotten(req)).map(|(_, req)| req).collect();
        self.forwards_lost(lost, Refusal::Port(PortError::Unavailable));
    }

    /// Nobody will know what became of these, which are told in the order in which they were published.
    fn forwards_lost(&mut self, mut lost: Vec<ReqId>, refusal: Refusal) {
        lost.sort_unstable();
        for publish in lost {
            self.remote_answered(publish, Err(refusal));
        }
    }

    /// A way to or from a node is there.
    pub(super) fn link_up(&mut self, via: Via) {
        match via {
            Via::To(node) => {
                let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return };
                outgoing.is_up = true;
                outgoing.partial.clear();
            }
            Via::From(node, shard) => {
                if self.remotes.incoming.insert((node, shard), Incoming::default()).is_some() {
                    // Nobody has said yet that its earlier link is over.
                    self.publishes.forget_unmatched(node, shard);
                }
            }
        }
        self.metrics.links.add(1);
        self.services.ask().link_up(self.now, via);
        self.settle();
    }

    /// It is not there any more.
    pub(super) fn link_down(&mut self, via: Via) {
        let mut lost = Vec::new();
        match via {
            Via::To(node) => {
                if let Some(outgoing) = self.remotes.outgoing.get_mut(&node) {
                    outgoing.is_up = false;
                    outgoing.batch.clear();
                    outgoing.last_head.clear();
                    lost.extend(outgoing.open.drain().map(|(_, req)| req));
                }
            }
            Via::From(node, shard) => {
                self.remotes.incoming.remove(&(node, shard));
                self.publishes.forget_unmatched(node, shard);
            }
        }
        self.metrics.links.sub(1);
        self.services.ask().link_down(self.now, via);
        self.metrics.forwards_failed.add(lost.len() as u64);
        self.forwards_lost(lost, Refusal::Port(PortError::Unavailable));
        self.settle();
    }

    /// What the services want said on another node.
    pub(super) fn send_service(&mut self, send: &RemoteSend) {
        let name = send.tenant.map(|tenant| self.tenants.ctx(tenant).name.clone());
        if let Some(batch) = self.remotes.batch(send.via) {
            frames::put_service(name.as_deref().unwrap_or_default(), &send.bytes, batch);
        }
    }

    /// Tells another node what became of its publish.
    pub(super) fn answer(&mut self, node: NodeIdx, shard: ShardId, publish: u64, result: Result<(), Refusal>) {
        let Some(from) = self.remotes.incoming.get_mut(&(node, shard)) else { return };
        match result {
            Ok(()) => from.taken.push(publish),
            Err(refusal) => frames::put_refused(publish, refusal, &mut from.batch),
        }
    }

    /// A publish of another node has been taken over here, or has failed. An exchange has been noted.
    pub(super) fn answer_decided(
        &mut self,
        (node, shard): (NodeIdx, ShardId),
        publish: u64,
        outcome: Published,
        exchange: Option<&Exchange>,
    ) {
        let Some(from) = self.remotes.incoming.get_mut(&(node, shard)) else { return };
        if let Some(Groups::Asking(found)) = exchange.map(|exchange| &exchange.groups) {
            return frames::put_found(publish, found, &mut from.batch);
        }
        if let Some(noted) = exchange.filter(|exchange| exchange.is_live() || !exchange.ranges().is_empty()) {
            frames::put_noted(publish, noted.is_live(), noted.ranges(), &mut from.batch);
        }
        let result = match outcome {
            Published::Done { .. } => Ok(()),
            Published::Failed(error) => Err(Refusal::Port(error)),
        };
        self.answer(node, shard, publish, result);
    }

    /// Hands a message to the other nodes that listen, or of which nobody knows whether they do.
    pub(super) fn forward_to_nodes(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        matches: &Matches,
        publisher: &mut Publisher,
    ) {
        let unheard: smallvec::SmallVec<[NodeIdx; 4]> = self.services.peek().unheard_nodes().into();
        for &node in matches.nodes.iter().filter(|node| !unheard.contains(node)) {
            self.forward(node, tenant, view, false, publisher);
        }
        for node in unheard {
            self.forward(node, tenant, view, true, publisher);
        }
    }

    fn forward(
        &mut self,
        node: NodeIdx,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        unheard: bool,
        publisher: &mut Publisher,
    ) {
        if matches!(publisher, Publisher::Nobody) {
            return self.forward_unawaited(node, tenant, view, unheard);
        }
        let Some(outgoing) = self.remotes.outgoing.get(&node) else { return };
        let refusal = outgoing.refusal(view);
        let (part, number) = (self.open_part(publisher), self.next_req_id().0);
        if let Some(error) = refusal {
            self.metrics.forwards_failed.add(1);
            if let Some(part) = part {
                self.publish_part_done(part, Err(error));
            }
            return;
        }
        let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return };
        let publish = if part.is_some() { number } else { 0 };
        outgoing.open.extend(part.map(|part| (number, part)));
        let tenant = &self.tenants.ctx(tenant).name;
        let waiting = part.and_then(|part| self.publishes.waiting.get(&part));
        let origin = waiting.and_then(|waiting| waiting.exchange.as_ref()).map(|exchange| exchange.origin);
        let forward = Forward { publish, tenant, unheard, group: None, origin, message: *view };
        outgoing.put_forward(&forward, self.now);
        self.metrics.forwarded.add(1);
    }

    /// Hands a message that nobody waits for to another node, if there is a way and room on it.
    fn forward_unawaited(&mut self, node: NodeIdx, tenant: TenantIdx, view: &MessageView<'_>, unheard: bool) {
        let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return };
        if !outgoing.is_up || outgoing.refusal(view).is_some() {
            return self.metrics.forwards_failed.add(1);
        }
        let tenant = &self.tenants.ctx(tenant).name;
        let forward = Forward { publish: 0, tenant, unheard, group: None, origin: None, message: *view };
        outgoing.put_forward(&forward, self.now);
        self.metrics.forwarded.add(1);
    }

    /// Offers a message to the members of a group that another node has. False: nobody can say whether they would take it.
    #[expect(clippy::too_many_arguments, reason = "an offer's, as in `offer`, and the node")]
    pub(super) fn offer_to_node(
        &mut self,
        node: NodeIdx,
        tenant: TenantIdx,
        message: &Arc<Message>,
        group: &Arc<GroupMatch>,
        turn: GroupTurn,
        publish: WaitsOn,
        origin: Option<&Origin>,
    ) -> bool {
        let waits = publish.is_some() || message.view().qos != QoS::AtMostOnce;
        let req = self.next_req_id();
        let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return false };
        if !outgoing.is_up || outgoing.refusal(&message.view()).is_some() {
            return false;
        }
        let name = (&*group.filter, &*group.group.name, group.group.ordered);
        let (id, message_view) = (if waits { req.0 } else { 0 }, message.view());
        let forward = Forward {
            publish: id,
            tenant: &self.tenants.ctx(tenant).name,
            unheard: false,
            group: Some(name),
            origin: origin.copied(),
            message: message_view,
        };
        outgoing.put_forward(&forward, self.now);
        self.metrics.forwarded.add(1);
        if waits {
            outgoing.open.insert(id, req);
            self.note_holder(publish, origin, Holder::Node(node));
            let (message, group, origin) = (message.clone(), group.clone(), origin.copied().map(Box::new));
            self.requests.insert(req, Awaited::Member { tenant, message, group, turn, publish, origin });
        }
        true
    }

    /// Has a node's connections forget publishes, and `publish` wait for that. False: the node is gone, and has none.
    pub(super) fn have_node_forget(&mut self, node: NodeIdx, publish: ReqId, over: &Over) -> bool {
        let forgotten = Awaited::Forgotten { node, publish, over: Box::new(over.clone()) };
        self.ask_node(node, forgotten, |number, batch| frames::put_forget(number, over, batch))
    }

    /// Has a node say which groups have a publish, and `publish` wait for that. False: the node is gone, and has no members.
    pub(super) fn inquire_at_node(&mut self, node: NodeIdx, publish: ReqId, inquiry: &Inquiry) -> bool {
        self.ask_node(node, Awaited::Inquired(publish), |number, batch| frames::put_inquire(number, inquiry, batch))
    }

    /// Asks a node what it answers under a number. False: it is gone.
    fn ask_node(&mut self, node: NodeIdx, awaited: Awaited, put: impl FnOnce(u64, &mut Blocks)) -> bool {
        let (req, number) = (self.next_req_id(), self.next_req_id().0);
        let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return false };
        outgoing.open.insert(number, req);
        put(number, &mut outgoing.batch);
        self.requests.insert(req, awaited);
        true
    }

    fn node_found(&mut self, node: NodeIdx, publish: u64, groups: &[u64]) {
        let req = self.remotes.outgoing.get_mut(&node).and_then(|outgoing| outgoing.open.remove(&publish));
        if let Some(Awaited::Inquired(publish)) = req.and_then(|req| self.requests.remove(&req)) {
            self.found(publish, groups);
        }
    }

    /// Ranges of which another node says that they have noted a publish, and whether its connections have.
    fn node_noted(&mut self, node: NodeIdx, publish: u64, live: bool, ranges: impl Iterator<Item = RangeIdx>) {
        let req = self.remotes.outgoing.get(&node).and_then(|outgoing| outgoing.open.get(&publish));
        let Some(&req) = req else { return };
        let of = match self.requests.get(&req) {
            Some(Awaited::Member { publish, .. }) => *publish,
            _ => Some((self.shard, req.0)),
        };
        let Some(of) = of else { return };
        for holder in live.then_some(Holder::Node(node)).into_iter().chain(ranges.map(Holder::Range)) {
            self.note_holder_of(of, holder);
        }
    }

    fn node_answered(&mut self, node: NodeIdx, publish: u64, result: Result<(), Refusal>) {
        let outgoing = self.remotes.outgoing.get_mut(&node);
        if let Some(req) = outgoing.and_then(|outgoing| outgoing.open.remove(&publish)) {
            self.remote_answered(req, result);
        }
    }

    /// Another node has taken a message over, or has not.
    fn remote_answered(&mut self, req: ReqId, result: Result<(), Refusal>) {
        let Some(awaited) = self.requests.remove(&req) else {
            // Without members there is nobody who could have taken it over.
            let result = match result {
                Ok(()) | Err(Refusal::NoMember) => Ok(()),
                Err(Refusal::Port(error)) => Err(error),
            };
            self.publish_part_done(req, result);
            return;
        };
        match (awaited, result) {
            (Awaited::Member { publish, .. }, Ok(())) => self.group_part_done(publish, Ok(())),
            (Awaited::Member { tenant, message, group, turn, publish, origin }, Err(Refusal::NoMember)) => {
                self.offer_after(tenant, &message, &group, turn, publish, origin);
            }
            (Awaited::Member { publish, .. }, Err(Refusal::Port(error))) => self.group_part_done(publish, Err(error)),
            (Awaited::Inquired(publish), Err(_)) => self.publish_part_done(publish, Err(PortError::Unavailable)),
            (Awaited::Forgotten { publish, .. }, Ok(())) => self.publish_part_done(publish, Ok(())),
            (Awaited::Forgotten { node, publish, over }, Err(_)) => {
                let is_asked_again = self.have_node_forget(node, publish, &over);
                if !is_asked_again {
                    self.publish_part_done(publish, Ok(()));
                }
            }
            _ => {}
        }
    }

    /// Shows of how many nodes nobody knows what they listen to.
    pub(super) fn count_unheard(&self) {
        self.metrics.nodes_unheard.set(self.services.peek().unheard_nodes().len() as u64);
    }
}
