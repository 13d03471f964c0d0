//! Shared groups, as in bifro-net's `broker/shared.rs` and `broker/inquiry.rs`: each message goes to one member, on whatever node; and before one of QoS 2 that may have been
//! tried is offered a second time, whoever may have noted it is asked which groups have it. The first member is drawn from the publish's number; nobody is passed over for want of credit.

use super::exactly_once::Exchange;
use super::publishing::Waiter;
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{Frame, Mark, PeerMessage, Refusal, ToClient, filter_of, group_of};
use bifro_core::delivered::content_of;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId};
use bifro_core::inquiry::{Groups, Holder, Inquiry};
use bifro_core::message::Message;
use bifro_core::origins::group_id;
use bifro_core::ports::{GroupMatch, Inbox, Matches, Origin, PortError, Receiver, Services};
use bifro_core::rng::Prng;
use std::sync::Arc;

/// A message on its way through a group.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(super) message: Arc<Message>,
    pub(super) group: Arc<GroupMatch>,
    /// Member whose turn it is, and how many have not been asked yet, this one included.
    at: usize,
    left: usize,
    /// The publish that waits, and the shard it waits on.
    pub(super) publish: (ShardId, ReqId),
    /// If it is recognised.
    pub(super) origin: Option<Origin>,
}

/// Whether a group has no members on other nodes.
fn is_all_here(group: &GroupMatch) -> bool {
    !group.members.iter().any(|member| matches!(member, Receiver::Remote { .. }))
}

impl Shard {
    /// Gives a message to one member of a group.
    pub(super) fn deliver_shared(&mut self, message: &Arc<Message>, group: &Arc<GroupMatch>, publish: ReqId) {
        let members = group.members.len();
        let Some(publish) = self.open_part(publish) else { return };
        let at = Prng::new(publish.0).derive(group_id(&group.filter, &group.group)).below(members as u64) as usize;
        let origin = self.publishes.exchange(publish).map(|exchange| exchange.origin.for_group(group));
        let (message, group) = (message.clone(), group.clone());
        self.offer(Offer { message, group, at, left: members, publish: (self.me, publish), origin });
    }

    /// Offers it to the member whose turn it is, then to the ones after it.
    pub(super) fn offer(&mut self, mut offer: Offer) {
        while offer.left > 0 {
            match offer.group.members[offer.at] {
                Receiver::Live { shard, slot } if shard == self.me => {
                    if self.give(slot.index, &offer) {
                        self.note_holder(&offer, Holder::Live);
                        return self.group_part_done(offer.publish, Ok(()));
                    }
                }
                Receiver::Live { shard, .. } => return self.outputs.mesh.push((shard, PeerMessage::Offer(offer))),
                Receiver::Inbox { range, inbox, subscription } => {
                    let req = self.await_completion(Awaited::GroupPart(offer.publish));
                    self.note_holder(&offer, Holder::Range(range));
                    let place = [(inbox, subscription)].into();
                    return self.services.insert(self.now, req, TENANT, (range, &place), &offer.message, offer.origin);
                }
                Receiver::Remote { node, .. } => {
                    if self.offer_to_node(node, &offer) {
                        return;
                    }
                }
            }
            offer.at = (offer.at + 1) % offer.group.members.len();
            offer.left -= 1;
        }
        let result = if is_all_here(&offer.group) { Ok(()) } else { Err(PortError::Unavailable) };
        self.group_part_done(offer.publish, result);
    }

    /// Whether a connection here is a member still; then it has the message, unless one was given it before.
    fn give(&mut self, at: u32, offer: &Offer) -> bool {
        let listens = |filter: usize| {
            filter_of(filter) == &*offer.group.filter && group_of(filter).as_ref() == Some(&offer.group.group)
        };
        if !self.conns.listens_to(at).is_some_and(listens) {
            return false;
        }
        let message = &offer.message;
        if offer.origin.is_none_or(|origin| self.delivered.take(&origin, message.topic(), message.payload())) {
            self.say(at, ToClient::Message { mark: Mark::of(message), seq: None });
        }
        true
    }

    fn offer_to_node(&mut self, node: NodeIdx, offer: &Offer) -> bool {
        let (req, group) = (self.next_req(), (offer.group.filter.clone(), offer.group.group.clone()));
        let deliver =
            Frame::Deliver { publish: req.0, origin: offer.origin, group: Some(group), message: offer.message.clone() };
        if !self.remotes.send_if_up(node, req, deliver) {
            return false;
        }
        self.note_holder(offer, Holder::Node(node));
        self.requests.insert(req, Awaited::Member(offer.clone()));
        true
    }

    /// A node has answered an offer.
    pub(super) fn member_answered(&mut self, mut offer: Offer, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.group_part_done(offer.publish, Ok(())),
            Err(Refusal::Port(error)) => self.group_part_done(offer.publish, Err(error)),
            Err(Refusal::NoMember) => {
                offer.at = (offer.at + 1) % offer.group.members.len();
                offer.left -= 1;
                self.offer(offer);
            }
        }
    }

    /// Gives a message of another node to one of the members here.
    pub(super) fn deliver_to_member(
        &mut self,
        message: &Arc<Message>,
        group: Option<&Arc<GroupMatch>>,
        publish: ReqId,
    ) {
        let is_here = |receiver: &&Receiver| !matches!(receiver, Receiver::Remote { .. });
        let members: Vec<_> = group.iter().flat_map(|group| &group.members).filter(is_here).copied().collect();
        match group.filter(|_| !members.is_empty()) {
            Some(group) => {
                let (group, filter) = (group.group.clone(), group.filter.clone());
                self.deliver_shared(message, &Arc::new(GroupMatch { group, filter, members }), publish);
            }
            None => {
                if let Some(Waiter::Node(node, shard, publish)) = self.publishes.take(publish) {
                    self.answer(node, shard, publish, Err(Refusal::NoMember));
                }
            }
        }
    }

    pub(super) fn group_part_done(&mut self, (shard, publish): (ShardId, ReqId), result: Result<(), PortError>) {
        if shard == self.me {
            self.publish_part_done(publish, result);
        } else {
            self.outputs.mesh.push((shard, PeerMessage::Offered { publish, result }));
        }
    }

    fn note_holder(&mut self, offer: &Offer, holder: Holder) {
        if offer.origin.is_some() {
            self.note_holder_of(offer.publish, holder);
        }
    }

    /// Somebody is given a publish, and may note it.
    pub(super) fn note_holder_of(&mut self, (shard, publish): (ShardId, ReqId), holder: Holder) {
        if shard == self.me {
            self.publishes.note(publish, holder);
        } else {
            self.outputs.mesh.push((shard, PeerMessage::Noted { publish, holder }));
        }
    }

    /// Whether a publish is to wait until it is known which groups have it; then that is asked.
    pub(super) fn inquires(&mut self, message: &Arc<Message>, matches: &Matches, publish: ReqId) -> bool {
        if matches.groups.is_empty() {
            return false;
        }
        let attempt = self.next_req();
        let Some(exchange) = self.publishes.exchange_mut(publish) else { return false };
        exchange.origin.attempt = attempt.0;
        if matches!(exchange.groups, Groups::Known(_)) {
            return false;
        }
        exchange.groups = Groups::Asking(Vec::new());
        let content = content_of(message.topic(), message.payload());
        let inquiry = Inquiry { origin: exchange.origin, content };
        self.wait_to_inquire(message, publish);
        for range in (0..self.services.inbox_ranges()).map(RangeIdx) {
            let req = self.await_completion(Awaited::Part { publish, is_retained: false });
            self.publishes.expect_parts(publish, 1);
            self.services.inquire(self.now, req, range, inquiry.origin);
        }
        for node in self.remotes.nodes() {
            let req = self.await_completion(Awaited::Inquired(publish));
            self.publishes.expect_parts(publish, 1);
            self.remotes.send(node, req, Frame::Inquire { publish: req.0, inquiry });
        }
        self.inquire_at_shards(publish, &inquiry);
        self.outputs.inquired += 1;
        true
    }

    fn inquire_at_shards(&mut self, publish: ReqId, inquiry: &Inquiry) {
        self.publishes.expect_parts(publish, self.shards.into());
        for shard in (0..self.shards).map(ShardId).filter(|&shard| shard != self.me) {
            self.outputs.mesh.push((shard, PeerMessage::Inquire { inquiry: *inquiry, publish }));
        }
        let groups = self.delivered.inquire(self.now, inquiry);
        self.found(publish, &groups);
    }

    /// Another node asks.
    pub(super) fn inquire_for_node(&mut self, (node, shard): (NodeIdx, ShardId), publish: u64, inquiry: &Inquiry) {
        let req = self.next_req();
        let mut asking = Exchange::of_node(inquiry.origin);
        asking.groups = Groups::Asking(Vec::new());
        self.enter_as(req, Waiter::Node(node, shard, publish), Some(asking));
        self.inquire_at_shards(req, inquiry);
        self.publish_part_done(req, Ok(()));
    }

    /// Somebody has answered.
    pub(super) fn found(&mut self, publish: ReqId, groups: &[u64]) {
        if let Some(exchange) = self.publishes.exchange_mut(publish) {
            exchange.groups.hear(groups);
        }
        self.publish_part_done(publish, Ok(()));
    }
}
