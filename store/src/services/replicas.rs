//! Retained messages on every node ([`bifro_range::retain`] has the rules of which one stays).
//!
//! What is set here is told to all nodes with copies that this shard's links reach, and the publisher hears of it when all of them have it safe; as with
//! subscribers ([`super::cluster`]), a node whose link has been down for [`LINK_LEASE`](bifro_core::limits::LINK_LEASE) is not waited for. When a
//! link comes up, each shard offers the versions of all its topics over it, and the node asks for those that it lacks.

use super::RangeServices;
use super::cluster::Unanswered;
use super::message::{Message, Retain as RetainMessage};
use super::wire::{Offer, Remote};
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId, TenantIdx};
use bifro_core::ports::Via;
use bifro_core::time::Instant;
use bifro_range::ReplyTo;
use bifro_range::retain::{Replica, Version};
use std::collections::BTreeMap;

/// A message that was set here, on its way to the other nodes.
#[derive(Debug)]
pub(super) struct Replication {
    to: ReplyTo,
    tenant: TenantIdx,
    replica: Vec<u8>,
    unanswered: Unanswered,
}

/// A message that was set on another node, on its way into its range here.
#[derive(Debug)]
pub(super) struct Merging {
    node: NodeIdx,
    shard: ShardId,
    /// Of which link; an answer over a later one would be taken for another.
    session: u32,
    token: u32,
}

impl RangeServices {
    /// What another node says of retained messages. False if it cannot be read, or is none for this way.
    pub(super) fn hear_retain(&mut self, now: Instant, via: Via, tenant: Option<TenantIdx>, message: Remote) -> bool {
        match (via, tenant, message) {
            (Via::From(node, shard), Some(tenant), Remote::Retain { token, replica }) => {
                return self.hear_replica(now, (node, shard), tenant, token, &replica);
            }
            (Via::To(node), None, Remote::Retained { token }) => self.replication_answered(token, node),
            (Via::From(node, shard), Some(tenant), Remote::Offer { offers }) => {
                self.hear_offers(node, shard, tenant, offers);
            }
            (Via::To(node), Some(tenant), Remote::Want { topics }) => self.hear_wants(now, node, tenant, &topics),
            (Via::From(node, shard), None, Remote::FindOn { guest }) => self.find_on(now, (node, shard), guest),
            (Via::From(node, shard), Some(tenant), request) => {
                return self.hear_guest(now, (node, shard), tenant, request);
            }
            (Via::To(node), _, answer) => return self.hear_keeper(now, node, answer),
            _ => return false,
        }
        true
    }

    /// What was set here is safe here: the other nodes are told.
    pub(super) fn replicate(&mut self, to: ReplyTo, tenant: TenantIdx, replica: Vec<u8>) {
        let (unanswered, linked) = self.keepers();
        if unanswered.is_empty() {
            return self.replicated(to);
        }
        let replication = Replication { to, tenant, replica: replica.clone(), unanswered };
        let token = self.replications.insert(replication);
        let token = Some(u32::try_from(token).expect("fewer than 2^32 messages are on their way"));
        self.send_to_nodes(&linked, tenant, &Remote::Retain { token, replica });
    }

    fn replicated(&mut self, to: ReplyTo) {
        let done = RetainMessage::SetDone { req: to.req, result: Ok(()) };
        self.send(to.shard, Message::Retain(done));
    }

    /// A node has a message safe.
    pub(super) fn replication_answered(&mut self, token: u32, node: NodeIdx) {
        let token = token as usize;
        let Some(replication) = self.replications.get_mut(token) else { return };
        replication.unanswered.retain(|of| *of != node);
        if replication.unanswered.is_empty() {
            let to = self.replications.remove(token).to;
            self.replicated(to);
        }
    }

    /// These nodes need not answer any more.
    pub(super) fn release_replications(&mut self, is_released: impl Fn(NodeIdx) -> bool) {
        let mut done = Vec::new();
        for (token, replication) in &mut self.replications {
            replication.unanswered.retain(|node| !is_released(*node));
            if replication.unanswered.is_empty() {
                done.push(token);
            }
        }
        for token in done {
            let to = self.replications.remove(token).to;
            self.replicated(to);
        }
    }

    /// What a node has not answered is sent again, over its new link.
    pub(super) fn send_replications_again(&mut self, node: NodeIdx) {
        let mut messages = Vec::new();
        for (token, replication) in &self.replications {
            if replication.unanswered.contains(&node) {
                let token = Some(u32::try_from(token).expect("it was one"));
                let replica = replication.replica.clone();
                messages.push((replication.tenant, Remote::Retain { token, replica }));
            }
        }
        for (tenant, message) in messages {
            self.send_remote(Via::To(node), Some(tenant), &message);
        }
    }

    /// A shard of another node offers what it has; the ranges of these topics know what is lacking.
    pub(super) fn hear_offers(&mut self, node: NodeIdx, shard: ShardId, tenant: TenantIdx, offers: Vec<Offer>) {
        let Some(ctx) = self.tenants.get(tenant).cloned().filter(|_| self.keeps_retained()) else { return };
        let mut by_range: BTreeMap<RangeIdx, Vec<(String, Version)>> = BTreeMap::new();
        for offer in offers {
            let version = offer.version();
            by_range.entry(self.range_of(&ctx, &offer.topic)).or_default().push((offer.topic, version));
        }
        for (range, offers) in by_range {
            let offered = RetainMessage::Offered { node, shard, range, tenant, offers };
            self.send(self.home(range), Message::Retain(offered));
        }
    }

    /// What another node has is looked for in a range here.
    pub(super) fn handle_offered(
        &mut self,
        from: ShardId,
        (node, shard): (NodeIdx, ShardId),
        (range, tenant): (RangeIdx, TenantIdx),
        mut offers: Vec<(String, Version)>,
    ) {
        let table = &self.retained[self.local(range)].machine;
        offers.retain(|(topic, version)| table.is_older(tenant, topic, *version));
        let topics: Vec<String> = offers.into_iter().map(|(topic, _)| topic).collect();
        if !topics.is_empty() {
            self.send(from, Message::Retain(RetainMessage::Wanted { node, shard, tenant, topics }));
        }
    }

    /// A range here lacks what another node has.
    pub(super) fn handle_wanted(&mut self, node: NodeIdx, shard: ShardId, tenant: TenantIdx, topics: Vec<String>) {
        self.send_remote(Via::From(node, shard), Some(tenant), &Remote::Want { topics });
    }

    /// A node lacks what this shard has offered it.
    pub(super) fn hear_wants(&mut self, now: Instant, node: NodeIdx, tenant: TenantIdx, topics: &[String]) {
        let Some(ctx) = self.tenants.get(tenant).cloned() else { return };
        for topic in topics {
            let range = self.range_of(&ctx, topic);
            if self.home(range) != self.shard {
                continue;
            }
            let replica = self.retained[self.local(range)].machine.replica(tenant, topic);
            if let Some(replica) = replica {
                let message = Remote::Retain { token: None, replica: replica.encode(now) };
                self.send_remote(Via::To(node), Some(tenant), &message);
            }
        }
    }

    /// A message was set on another node. False if it cannot be read.
    pub(super) fn hear_replica(
        &mut self,
        now: Instant,
        (node, shard): (NodeIdx, ShardId),
        tenant: TenantIdx,
        token: Option<u32>,
        bytes: &[u8],
    ) -> bool {
        let Ok(replica) = Replica::decode(bytes, now) else { return false };
        if !self.keeps_retained() {
            // Whoever sends it does not know that yet.
            if let Some(token) = token {
                self.send_remote(Via::From(node, shard), None, &Remote::Retained { token });
            }
            return true;
        }
        let Some(ctx) = self.tenants.get(tenant).cloned() else { return true };
        let range = self.range_of(&ctx, replica.retained.message.topic());
        let session = self.link_session(node, shard);
        let req = token.map(|token| {
            let merging = self.mergings.insert(Merging { node, shard, session, token });
            ReqId(merging as u64)
        });
        let merge = RetainMessage::Merge { req, range, tenant, replica: Box::new(replica) };
        self.send(self.home(range), Message::Retain(merge));
        true
    }

    /// A message of another node is safe here.
    pub(super) fn handle_merged(&mut self, req: ReqId) {
        let Some(merging) = usize::try_from(req.0).ok().and_then(|key| self.mergings.try_remove(key)) else { return };
        let Merging { node, shard, session, token } = merging;
        if self.link_session(node, shard) == session {
            self.send_remote(Via::From(node, shard), None, &Remote::Retained { token });
        }
    }
}
