//! Connections without sessions, and the QoS 2 publishes that they were given, as in bifro-net's `broker/delivered.rs` and `broker/peer.rs`.

use super::publishing::Waiter;
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{Mark, PeerMessage, ToClient, filter_of, group_of};
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, ReqId, ShardId, Slot};
use bifro_core::message::Message;
use bifro_core::ports::{Attached, Dist, Matches, Origin, Receiver, Services};
use std::sync::Arc;

impl Shard {
    /// A connection without a session subscribes.
    pub(super) fn listen(&mut self, at: u32, filter: usize) {
        let (req, tenant) = (self.await_completion(Awaited::Route(at, filter)), self.tenant.clone());
        let receiver = self.receiver_of(at);
        self.services.add_route(self.now, req, &tenant, filter_of(filter), group_of(filter).as_ref(), receiver);
    }

    /// It is gone.
    pub(super) fn stop_listening(&mut self, at: u32, filter: usize) {
        let receiver = self.receiver_of(at);
        self.services.remove_route(self.now, TENANT, filter_of(filter), group_of(filter).as_ref(), receiver);
    }

    /// A connection has one filter, and the number of its place in the fan-out table.
    const fn receiver_of(&self, at: u32) -> Receiver {
        Receiver::Live { shard: self.me, slot: Slot { index: at, generation: 0 } }
    }

    /// Gives a message to connections of this node.
    pub(super) fn deliver_to_connections(&mut self, message: &Arc<Message>, matches: &Matches, publish: ReqId) {
        if matches.live.is_empty() {
            return;
        }
        let origin = self.publishes.note_live(publish);
        for (shard, places) in &matches.live {
            if *shard == self.me {
                self.deliver_here(message, places, origin.as_ref());
                continue;
            }
            let (message, places, publish) = (message.clone(), places.clone(), self.open_part(publish));
            self.outputs.mesh.push((*shard, PeerMessage::Deliver { message, places, origin, publish }));
        }
    }

    fn deliver_here(&mut self, message: &Arc<Message>, places: &[Slot], origin: Option<&Origin>) {
        if origin.is_none_or(|origin| self.delivered.take(origin, message.topic(), message.payload())) {
            let mark = Mark::of(message);
            places.iter().for_each(|place| self.say(place.index, ToClient::Message { mark, seq: None }));
        }
    }

    /// Takes what another shard of this node says.
    pub(super) fn handle_peer(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::Service(message) => self.services.receive(self.now, from, message),
            PeerMessage::Deliver { message, places, origin, publish } => {
                self.deliver_here(&message, &places, origin.as_ref());
                self.outputs.mesh.extend(publish.map(|publish| (from, PeerMessage::Taken(publish))));
            }
            PeerMessage::Forget { over, publish } => {
                self.delivered.forget(self.now, &over);
                self.outputs.mesh.extend(publish.map(|publish| (from, PeerMessage::Taken(publish))));
            }
            PeerMessage::Taken(publish) => self.publish_part_done(publish, Ok(())),
            PeerMessage::Offer(offer) => self.offer(offer),
            PeerMessage::Offered { publish, result } => self.publish_part_done(publish, result),
            PeerMessage::Noted { publish, holder } => self.publishes.note(publish, holder),
            PeerMessage::Inquire { inquiry, publish } => {
                let groups = self.delivered.inquire(self.now, &inquiry);
                self.outputs.mesh.push((from, PeerMessage::Found { publish, groups }));
            }
            PeerMessage::Found { publish, groups } => self.found(publish, &groups),
        }
    }

    /// Connections of this node need not recognise publishes any more. Returns how many other shards will say that they have heard it.
    pub(super) fn forget_delivered(&mut self, over: &Over, publish: Option<ReqId>) -> usize {
        self.delivered.forget(self.now, over);
        for shard in (0..self.shards).map(ShardId).filter(|&shard| shard != self.me) {
            self.outputs.mesh.push((shard, PeerMessage::Forget { over: over.clone(), publish }));
        }
        usize::from(self.shards) - 1
    }

    /// Another node says so. It hears when all shards have forgotten them.
    pub(super) fn forget_for_node(&mut self, (node, shard): (NodeIdx, ShardId), publish: u64, over: &Over) {
        let req = self.next_req();
        self.enter_as(req, Waiter::Node(node, shard, publish), None);
        let peers = self.forget_delivered(over, Some(req));
        self.publishes.expect_parts(req, peers);
        self.publish_part_done(req, Ok(()));
    }

    /// A client has its session back.
    pub(super) fn settle_delivered(&mut self, attached: &Attached) {
        let Some(over) = Over::noted(attached) else { return };
        self.forget_delivered(&over, None);
        for node in self.remotes.nodes() {
            let nobody = self.next_req();
            self.have_node_forget(node, nobody, &over);
        }
    }
}
