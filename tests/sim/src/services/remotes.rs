//! The ways to other nodes and what goes over them, as in bifro-net's `broker/remote.rs`: messages for their sessions, what services tell each other, and
//! answers, which stand behind everything else in a turn's batch.

use super::exactly_once::Exchange;
use super::publishing::{Scope, Waiter};
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{Frame, Refusal};
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId};
use bifro_core::inquiry::Holder;
use bifro_core::message::Message;
use bifro_core::nodes::Nodes;
use bifro_core::ports::{Matches, PortError, RemoteSend, Services, Via};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The way from this shard to another node.
#[derive(Debug, Default)]
struct Outgoing {
    is_up: bool,
    /// Frames that wait for the end of the turn, or for a link.
    batch: Vec<Frame>,
    /// What the node has not answered, and which publish each is: one that is tried again is sent under another number.
    open: BTreeMap<u64, ReqId>,
}

/// The way back to a shard of another node.
#[derive(Debug, Default)]
struct Incoming {
    taken: Vec<u64>,
    batch: Vec<Frame>,
}

/// Ways to and from other nodes.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    outgoing: BTreeMap<NodeIdx, Outgoing>,
    incoming: BTreeMap<(NodeIdx, ShardId), Incoming>,
}

impl Remotes {
    /// All other nodes.
    pub(super) fn nodes(&self) -> Vec<NodeIdx> {
        self.outgoing.keys().copied().collect()
    }

    /// Sends what a node answers as the request. False: the node is gone.
    pub(super) fn send(&mut self, node: NodeIdx, req: ReqId, frame: Frame) -> bool {
        let Some(outgoing) = self.outgoing.get_mut(&node) else { return false };
        outgoing.open.insert(req.0, req);
        outgoing.batch.push(frame);
        true
    }

    /// As [`Self::send`], if the way is there.
    pub(super) fn send_if_up(&mut self, node: NodeIdx, req: ReqId, frame: Frame) -> bool {
        self.outgoing.get(&node).is_some_and(|outgoing| outgoing.is_up) && self.send(node, req, frame)
    }

    /// What this turn has for each way that is up.
    pub(super) fn batches(&mut self) -> Vec<(Via, Vec<Frame>)> {
        let mut batches = Vec::new();
        for (&(node, shard), from) in &mut self.incoming {
            if !from.taken.is_empty() {
                from.batch.push(Frame::Taken(std::mem::take(&mut from.taken)));
            }
            batches.push((Via::From(node, shard), std::mem::take(&mut from.batch)));
        }
        for (&node, to) in self.outgoing.iter_mut().filter(|(_, to)| to.is_up) {
            batches.push((Via::To(node), std::mem::take(&mut to.batch)));
        }
        batches.retain(|(_, frames)| !frames.is_empty());
        batches
    }
}

impl Shard {
    /// Other nodes have come or gone.
    pub(super) fn set_nodes(&mut self, nodes: &Arc<Nodes>) {
        let gone = self.remotes.outgoing.extract_if(.., |node, _| nodes.get(*node).is_none());
        let lost: Vec<ReqId> = gone.flat_map(|(_, outgoing)| outgoing.open.into_values()).collect();
        let gone = self.remotes.incoming.extract_if(.., |(node, _), _| nodes.get(*node).is_none());
        for ((node, shard), _) in gone {
            self.publishes.forget_unmatched(node, shard);
        }
        for node in &nodes.others {
            self.remotes.outgoing.entry(node.idx).or_default();
        }
        self.services.set_nodes(self.now, nodes);
        self.forwards_lost(lost);
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
        let lost = outgoing.open.extract_if(.., |_, req| !is_forgotten(req)).map(|(_, req)| req).collect();
        self.forwards_lost(lost);
    }

    /// Nobody will know what became of these, which are told in the order in which they were published.
    fn forwards_lost(&mut self, mut lost: Vec<ReqId>) {
        lost.sort_unstable();
        for req in lost {
            self.remote_answered(req, Err(Refusal::Port(PortError::Unavailable)));
        }
    }

    /// A way to or from a node is there.
    pub(super) fn link_up(&mut self, via: Via) {
        match via {
            Via::To(node) => {
                let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { return };
                outgoing.is_up = true;
            }
            Via::From(node, shard) => {
                if self.remotes.incoming.insert((node, shard), Incoming::default()).is_some() {
                    // Nobody has said yet that its earlier link is over.
                    self.publishes.forget_unmatched(node, shard);
                }
            }
        }
        self.services.link_up(self.now, via);
        self.settle();
    }

    /// It is not there any more.
    pub(super) fn link_down(&mut self, via: Via) {
        let mut lost = BTreeMap::new();
        match via {
            Via::To(node) => {
                if let Some(outgoing) = self.remotes.outgoing.get_mut(&node) {
                    outgoing.is_up = false;
                    outgoing.batch.clear();
                    lost = std::mem::take(&mut outgoing.open);
                }
            }
            Via::From(node, shard) => {
                self.remotes.incoming.remove(&(node, shard));
                self.publishes.forget_unmatched(node, shard);
            }
        }
        self.services.link_down(self.now, via);
        self.forwards_lost(lost.into_values().collect());
        self.settle();
    }

    /// Takes what a link brought.
    pub(super) fn receive_batch(&mut self, via: Via, frames: Vec<Frame>) {
        for frame in frames {
            match (frame, via) {
                (Frame::Service { tenant, bytes }, _) => {
                    let read = self.services.receive_remote(self.now, via, tenant.then_some(TENANT), &bytes);
                    assert!(read, "nodes of one version understand each other");
                    // An answer behind the end of a reign is none any more.
                    self.settle();
                }
                (Frame::Deliver { publish, origin, group, message }, Via::From(node, shard)) => {
                    if group.is_none() && !self.services.is_followed_by(node, shard) {
                        self.answer(node, shard, publish, Err(Refusal::Port(PortError::Unavailable)));
                        continue;
                    }
                    let waiter = Waiter::Node(node, shard, publish);
                    let publish = self.next_req();
                    self.enter_as(publish, waiter, origin.map(Exchange::of_node));
                    let seen = self.services.reigns_seen();
                    let here = Scope::Here { seen };
                    self.route(message, publish, group.map_or(here, |group| Scope::Member(Rc::new(group))));
                }
                (Frame::Taken(publishes), Via::To(node)) => {
                    publishes.into_iter().for_each(|publish| self.node_answered(node, publish, Ok(())));
                }
                (Frame::Forget { publish, over }, Via::From(node, shard)) => {
                    self.forget_for_node((node, shard), publish, &over);
                }
                (Frame::TakenOnce { publish, live, ranges }, Via::To(node)) => {
                    let outgoing = self.remotes.outgoing.get(&node);
                    if let Some(&of) = outgoing.and_then(|outgoing| outgoing.open.get(&publish)) {
                        let of = match self.requests.get(&of) {
                            Some(Awaited::Member(offer)) => offer.publish,
                            _ => (self.me, of),
                        };
                        let live = live.then_some(Holder::Node(node));
                        for holder in live.into_iter().chain(ranges.into_iter().map(Holder::Range)) {
                            self.note_holder_of(of, holder);
                        }
                    }
                    self.node_answered(node, publish, Ok(()));
                }
                (Frame::Inquire { publish, inquiry }, Via::From(node, shard)) => {
                    self.inquire_for_node((node, shard), publish, &inquiry);
                }
                (Frame::Found { publish, groups }, Via::To(node)) => {
                    let req = self.remotes.outgoing.get_mut(&node).and_then(|to| to.open.remove(&publish));
                    if let Some(Awaited::Inquired(publish)) = req.and_then(|req| self.requests.remove(&req)) {
                        self.found(publish, &groups);
                    }
                }
                (Frame::Refused { publish, refusal }, Via::To(node)) => {
                    self.node_answered(node, publish, Err(refusal));
                }
                (frame, via) => panic!("{frame:?} does not come {via:?}"),
            }
        }
        self.settle();
    }

    /// What the services want said on another node.
    pub(super) fn send_service(&mut self, send: RemoteSend) {
        let batch = match send.via {
            Via::To(node) => self.remotes.outgoing.get_mut(&node).filter(|to| to.is_up).map(|to| &mut to.batch),
            Via::From(node, shard) => self.remotes.incoming.get_mut(&(node, shard)).map(|from| &mut from.batch),
        };
        if let Some(batch) = batch {
            batch.push(Frame::Service { tenant: send.tenant.is_some(), bytes: send.bytes });
        }
    }

    /// Tells another node what became of its publish, which these ranges have noted, and connections, if they are `live`.
    pub(super) fn answer(
        &mut self,
        node: NodeIdx,
        shard: ShardId,
        publish: u64,
        result: Result<(bool, Vec<RangeIdx>), Refusal>,
    ) {
        let Some(from) = self.remotes.incoming.get_mut(&(node, shard)) else { return };
        match result {
            Ok((false, ranges)) if ranges.is_empty() => from.taken.push(publish),
            Ok((live, ranges)) => from.batch.push(Frame::TakenOnce { publish, live, ranges }),
            Err(refusal) => from.batch.push(Frame::Refused { publish, refusal }),
        }
    }

    /// Tells another node which groups have its publish here.
    pub(super) fn answer_inquiry(&mut self, (node, shard): (NodeIdx, ShardId), publish: u64, groups: Vec<u64>) {
        if let Some(from) = self.remotes.incoming.get_mut(&(node, shard)) {
            from.batch.push(Frame::Found { publish, groups });
        }
    }

    /// Hands a message to the other nodes that listen.
    pub(super) fn forward_to_nodes(&mut self, message: &Arc<Message>, matches: &Matches, publish: ReqId) {
        for &node in &matches.nodes {
            if !self.remotes.outgoing.contains_key(&node) {
                continue;
            }
            let (part, forward) = (self.open_part(publish), self.next_req().0);
            let exchange = part.and_then(|part| self.publishes.exchange(part));
            let origin = exchange.map(|exchange| exchange.origin);
            let Some(outgoing) = self.remotes.outgoing.get_mut(&node) else { continue };
            outgoing.open.extend(part.map(|part| (forward, part)));
            outgoing.batch.push(Frame::Deliver { publish: forward, origin, group: None, message: message.clone() });
        }
    }

    fn node_answered(&mut self, node: NodeIdx, forward: u64, result: Result<(), Refusal>) {
        let outgoing = self.remotes.outgoing.get_mut(&node);
        if let Some(req) = outgoing.and_then(|outgoing| outgoing.open.remove(&forward)) {
            self.remote_answered(req, result);
        }
    }

    fn remote_answered(&mut self, req: ReqId, result: Result<(), Refusal>) {
        match self.requests.remove(&req) {
            Some(Awaited::Forgotten { node, publish, over }) => {
                if result.is_ok() || !self.have_node_forget(node, publish, &over) {
                    self.publish_part_done(publish, Ok(()));
                }
            }
            Some(Awaited::Member(offer)) => self.member_answered(offer, result),
            Some(Awaited::Inquired(publish)) => self.publish_part_done(publish, Err(PortError::Unavailable)),
            _ => {
                let result = match result {
                    Ok(()) | Err(Refusal::NoMember) => Ok(()),
                    Err(Refusal::Port(error)) => Err(error),
                };
                self.publish_part_done(req, result);
            }
        }
    }

    /// Has a node's connections forget publishes, and `publish` wait for that. False: the node is gone, and has none.
    pub(super) fn have_node_forget(&mut self, node: NodeIdx, publish: ReqId, over: &Over) -> bool {
        let req = self.next_req();
        if !self.remotes.send(node, req, Frame::Forget { publish: req.0, over: over.clone() }) {
            return false;
        }
        self.requests.insert(req, Awaited::Forgotten { node, publish, over: over.clone() });
        true
    }
}
