//! QoS 2 publishes and connections without an inbox: there is no range that would note what they have ([`super::exactly_once`]), so the shard they are on does
//! ([`bifro_core::delivered`]), until it hears that the publish is over. The node that had it taken over says so, and waits for all to have heard it
//! as it does for ranges. The node where its client attaches next says so of what its inbox has noted, and waits for nobody.

use super::Broker;
use super::peer::ShardMessage;
use super::publish::Waiter;
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, ReqId, ShardId};
use bifro_core::message::MessageView;
use bifro_core::ports::{Attached, Origin, Services};

impl<S: Services> Broker<S> {
    /// Whether this shard's connections are to be given a publish: they were not before. Of what has no origin that is not known.
    pub(super) fn is_undelivered(&mut self, origin: Option<&Origin>, view: &MessageView<'_>) -> bool {
        let Some(origin) = origin else { return true };
        let is_new = self.delivered.take(origin, view.topic, view.payload);
        self.metrics.delivered_dropped.add(self.delivered.take_dropped());
        is_new
    }

    /// Connections of this node need not recognise publishes any more. Returns how many other shards will say that they have heard it.
    pub(super) fn forget_delivered(&mut self, over: &Over, publish: Option<ReqId>) -> usize {
        self.delivered.forget(self.now, over);
        let publish = publish.map(|publish| publish.0);
        for shard in (0..self.settings.shards).map(ShardId).filter(|&shard| shard != self.shard) {
            self.to_peers.push((shard, ShardMessage::Forget { over: Box::new(over.clone()), publish }));
        }
        usize::from(self.settings.shards) - 1
    }

    /// Another shard of this node says that publishes are over.
    pub(super) fn forget_for_peer(&mut self, from: ShardId, over: &Over, publish: Option<u64>) {
        self.delivered.forget(self.now, over);
        self.taken[from.index()].extend(publish);
    }

    /// Another node says so. It hears when all shards have forgotten them.
    pub(super) fn forget_for_node(&mut self, (node, shard): (NodeIdx, ShardId), publish: u64, over: &Over) {
        let req = self.next_req_id();
        self.enter_as(req, Waiter::Node(node, shard, publish), None);
        let peers = self.forget_delivered(over, Some(req));
        self.publishes.expect_parts(req, peers);
        self.publish_part_done(req, Ok(()));
    }

    /// A client has its session back. Whoever had it may have died before all had forgotten what its inbox has noted. Nobody waits for that: what the client
    /// publishes from now on goes the same ways.
    pub(super) fn settle_delivered(&mut self, attached: &Attached) {
        if !attached.durable || !self.services.peek().is_replicated() {
            return;
        }
        let Some(over) = Over::noted(attached) else { return };
        self.forget_delivered(&over, None);
        for node in self.remotes.nodes() {
            let nobody = self.next_req_id();
            self.have_node_forget(node, nobody, &over);
        }
    }
}
