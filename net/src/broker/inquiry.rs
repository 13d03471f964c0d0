//! Which groups have a QoS 2 publish that may have been tried before, by this node or by one that has died since. Any member of a group may have it, and whoever has noted it
//! for one that has gone meanwhile: so all ranges, all nodes and all shards are asked before it is offered to a group.
//!
//! [`bifro_core::inquiry`] has what is known of a publish. One that its client may have sent before begins as *unknown*. Whoever answers takes nothing more of what is on its way of the tries before ([`bifro_core::origins`]), so
//! that no group gets the publish by a try that was held for lost after all. What the same client publishes to the same topic meanwhile waits in line ([`super::again`]).
//!
//! A connection without a session on a node that is taken for dead and lives may have had the message, and cannot be asked: then the group gets it again, but not that connection.

use super::Broker;
use super::again::line_of;
use super::completion::Awaited;
use super::exactly_once::Exchange;
use super::publish::{Parts, PublishTable, Publisher, Waiter, Waiting};
use bifro_core::delivered::content_of;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId};
use bifro_core::inquiry::{Groups, Holder, Inquiry};
use bifro_core::message::MessageView;
use bifro_core::ports::{GroupMatch, Matches, Origin, Services};

impl PublishTable {
    fn exchange_mut(&mut self, publish: ReqId) -> Option<&mut Exchange> {
        self.waiting.get_mut(&publish)?.exchange.as_deref_mut()
    }

    /// Somebody is given a publish, and may note it.
    pub(super) fn note(&mut self, publish: ReqId, holder: Holder) {
        if let Some(exchange) = self.exchange_mut(publish) {
            exchange.note(holder);
        }
    }

    /// Whether a group is known to have a publish.
    pub(super) fn is_found_in(&self, publisher: Publisher, group: &GroupMatch) -> bool {
        let Publisher::Entered(publish) = publisher else { return false };
        let exchange = self.waiting.get(&publish).and_then(|waiting| waiting.exchange.as_deref());
        exchange.is_some_and(|exchange| exchange.groups.include(group))
    }

    /// As whom the members of a group know a publish, if it is one that is recognised.
    pub(super) fn origin_for(&self, publish: ReqId, group: &GroupMatch) -> Option<Box<Origin>> {
        let exchange = self.waiting.get(&publish)?.exchange.as_deref()?;
        Some(Box::new(exchange.origin.for_group(group)))
    }
}

impl<S: Services> Broker<S> {
    /// Whether a publish is to wait until it is known which groups have it; then that is asked.
    pub(super) fn inquires(
        &mut self,
        view: &MessageView<'_>,
        matches: &Matches,
        parts: Parts,
        publisher: Publisher,
    ) -> bool {
        let Publisher::Entered(publish) = publisher else { return false };
        if matches.groups.is_empty() || !parts.groups {
            return false;
        }
        let attempt = self.next_req_id().0;
        let Some(exchange) = self.publishes.exchange_mut(publish) else { return false };
        exchange.origin.attempt = attempt;
        if matches!(exchange.groups, Groups::Known(_)) {
            return false;
        }
        exchange.groups = Groups::Asking(Vec::new());
        let inquiry = Inquiry { origin: exchange.origin, content: content_of(view.topic, view.payload) };
        self.metrics.publishes_inquired.add(1);
        self.wait_to_inquire(publish, parts);
        self.inquire(publish, &inquiry);
        true
    }

    /// A publish is routed once it is known which groups have it, to the same receivers, and others wait for it meanwhile.
    fn wait_to_inquire(&mut self, publish: ReqId, parts: Parts) {
        let again = self.publishes.waiting.get_mut(&publish).and_then(|waiting| waiting.again.as_mut());
        if let Some(again) = again {
            again.parts = parts;
            let line = line_of(again);
            self.publishes.retries.hold(self.now, line, publish);
        }
    }

    fn inquire(&mut self, publish: ReqId, inquiry: &Inquiry) {
        for range in (0..self.services.peek().inbox_ranges()).map(RangeIdx) {
            let req = self.next_req_id();
            self.requests.insert(req, Awaited::PublishPart(publish));
            self.publishes.expect_parts(publish, 1);
            self.services.ask().inquire(self.now, req, range, inquiry.origin);
        }
        for node in self.remotes.nodes() {
            if self.inquire_at_node(node, publish, inquiry) {
                self.publishes.expect_parts(publish, 1);
            }
        }
        self.inquire_at_shards(publish, inquiry);
    }

    fn inquire_at_shards(&mut self, publish: ReqId, inquiry: &Inquiry) {
        self.publishes.expect_parts(publish, self.settings.shards.into());
        for shard in (0..self.settings.shards).map(ShardId).filter(|&shard| shard != self.shard) {
            let inquire = super::ShardMessage::Inquire { inquiry: *inquiry, publish: publish.0 };
            self.to_peers.push((shard, inquire));
        }
        let groups = self.delivered.inquire(self.now, inquiry);
        self.found(publish, &groups);
    }

    /// Another node asks. It hears when all shards have answered.
    pub(super) fn inquire_for_node(&mut self, (node, shard): (NodeIdx, ShardId), publish: u64, inquiry: &Inquiry) {
        let req = self.next_req_id();
        let mut asking = Exchange::of_node(inquiry.origin);
        asking.groups = Groups::Asking(Vec::new());
        self.enter_as(req, Waiter::Node(node, shard, publish), Some(Box::new(asking)));
        self.inquire_at_shards(req, inquiry);
        self.publish_part_done(req, Ok(()));
    }

    /// A range has answered.
    pub(super) fn range_found(&mut self, req: ReqId, groups: &[u64]) {
        if let Some(Awaited::PublishPart(publish)) = self.requests.remove(&req) {
            self.found(publish, groups);
        }
    }

    /// Somebody has answered.
    pub(super) fn found(&mut self, publish: ReqId, groups: &[u64]) {
        if let Some(exchange) = self.publishes.exchange_mut(publish) {
            exchange.groups.hear(groups);
        }
        self.publish_part_done(publish, Ok(()));
    }

    /// All parts of a publish are done. True if they were questions of which groups have it: now it is routed. One that was not answered is asked once more when it is
    /// tried again.
    pub(super) fn ends_inquiry(&mut self, publish: ReqId) -> bool {
        let waiting = self.publishes.waiting.get_mut(&publish).filter(|waiting| waiting.failed.is_none());
        let Some(Waiting { exchange: Some(exchange), again, parts, .. }) = waiting else { return false };
        // Another node's question has nothing to route.
        let Some(again) = again.take_if(|_| exchange.groups.settle()) else { return false };
        *parts = 1;
        self.publishes.retries.push(self.now, publish, *again);
        true
    }
}
