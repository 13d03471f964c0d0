//! Dist's port: routes to their partitions, matches from the cache. The protocol between partitions and caches, and why it
//! never answers a publish with what was true before a SUBACK, is described in [`bifro_range::dist`].

use super::RangeServices;
use super::cluster::Unanswered;
use super::message::{Dist as DistMessage, Message};
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::ports::{Completion, Dist, GroupName, Matches, PortError, Receiver};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::dist::{DistEffect, RouteFilter, first_level, spans_partitions};
use bifro_range::{TenantKey, TenantKeyRef};
use std::rc::Rc;
use std::sync::Arc;

/// Who wants a route added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The driver.
    Request(ReqId),
    /// An inbox here, for one of its subscriptions.
    Inbox { range: RangeIdx, inbox: Slot, subscription: u32 },
    /// A shard of another node, over its `session`th link.
    Node { node: NodeIdx, shard: ShardId, session: u32, token: Option<u32> },
}

/// A route on its way into its partitions.
#[derive(Debug)]
pub(super) struct Addition {
    origin: Origin,
    pub(super) tenant: TenantIdx,
    pub(super) route: Arc<RouteFilter>,
    receiver: Receiver,
    /// Partitions here that have not answered.
    unanswered: usize,
    /// Other nodes that have not.
    pub(super) unanswered_nodes: Unanswered,
    refusal: Option<PortError>,
}

impl Dist for RangeServices {
    fn add_route(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: &TenantCtx,
        filter: &str,
        group: Option<&GroupName>,
        receiver: Receiver,
    ) {
        let route = Arc::new(RouteFilter::new(filter, group));
        self.add_to_partitions(Origin::Request(req), tenant.idx, route, receiver);
        self.settle(now);
    }

    fn remove_route(
        &mut self,
        now: Instant,
        tenant: TenantIdx,
        filter: &str,
        group: Option<&GroupName>,
        receiver: Receiver,
    ) {
        self.remove_everywhere(tenant, &Arc::new(RouteFilter::new(filter, group)), receiver);
        self.settle(now);
    }

    fn matches(&mut self, tenant: TenantIdx, topic: &str) -> Option<Rc<Matches>> {
        let found = self.cache.matches(TenantKeyRef { tenant, name: topic }).cloned();
        let counter = if found.is_some() { &self.metrics.match_cache_hits } else { &self.metrics.match_cache_misses };
        counter.add(1);
        found
    }

    fn request_matches(&mut self, now: Instant, req: ReqId, tenant: TenantIdx, topic: &str) {
        if !self.puts_off(req, tenant, topic) {
            self.ask_partition(req, tenant, topic);
        }
        self.settle(now);
    }

    fn request_group(&mut self, now: Instant, req: ReqId, tenant: TenantIdx, filter: &str, group: &GroupName) {
        // Of a filter that is everywhere, this shard's copy is as good as any.
        let to = if spans_partitions(filter) { self.shard } else { self.place(tenant, first_level(filter)) };
        let route = Arc::new(RouteFilter::new(filter, Some(group)));
        self.send(to, Message::Dist(DistMessage::MatchGroup { req, tenant, route }));
        self.settle(now);
    }
}

impl RangeServices {
    pub(super) fn ask_partition(&mut self, req: ReqId, tenant: TenantIdx, topic: &str) {
        let partition = self.place(tenant, first_level(topic));
        if let Some(topic) = self.cache.ask(TenantKeyRef { tenant, name: topic }, partition, req) {
            self.send(partition, Message::Dist(DistMessage::MatchTopic { tenant, topic }));
        }
    }

    pub(super) fn add_to_partitions(
        &mut self,
        origin: Origin,
        tenant: TenantIdx,
        route: Arc<RouteFilter>,
        receiver: Receiver,
    ) {
        let partitions = self.partitions(tenant, &route.filter);
        let unanswered = partitions.len();
        let unanswered_nodes = Unanswered::new();
        let addition =
            Addition { origin, tenant, route: route.clone(), receiver, unanswered, unanswered_nodes, refusal: None };
        let token = u32::try_from(self.additions.insert(addition)).expect("fewer than 2^32 routes are being added");
        if !matches!(origin, Origin::Node { .. }) {
            self.additions[token as usize].unanswered_nodes = self.announce(token, tenant, &route, receiver);
        }
        for partition in partitions {
            let route = route.clone();
            self.send(partition, Message::Dist(DistMessage::AddRoute { token, tenant, route, receiver }));
        }
    }

    /// Removes a route of this node's, here and on the others.
    pub(super) fn remove_everywhere(&mut self, tenant: TenantIdx, route: &Arc<RouteFilter>, receiver: Receiver) {
        self.remove_from_partitions(tenant, route, receiver);
        self.withdraw(tenant, route, receiver);
    }

    pub(super) fn remove_from_partitions(&mut self, tenant: TenantIdx, route: &Arc<RouteFilter>, receiver: Receiver) {
        for partition in self.partitions(tenant, &route.filter) {
            let route = route.clone();
            self.send(partition, Message::Dist(DistMessage::RemoveRoute { tenant, route, receiver }));
        }
    }

    /// The partitions that need a route of this filter.
    fn partitions(&self, tenant: TenantIdx, filter: &str) -> Vec<ShardId> {
        if spans_partitions(filter) {
            self.all_shards().collect()
        } else {
            vec![self.place(tenant, first_level(filter))]
        }
    }

    pub(super) fn handle_dist(&mut self, from: ShardId, message: DistMessage) {
        let mut effects = Vec::new();
        match message {
            DistMessage::AddRoute { token, tenant, route, receiver } => {
                let members_max = self.tenants.get(tenant).map_or(0, |tenant| tenant.settings.shared_group_members_max);
                self.routes.add(from, token, tenant, &route, receiver, members_max, &mut effects);
            }
            DistMessage::RouteAdded { token, result } => self.handle_route_added(token, result),
            DistMessage::RemoveRoute { tenant, route, receiver } => {
                self.routes.remove(tenant, &route, receiver, &mut effects);
            }
            DistMessage::Forget { tenant, route, ack } => {
                let interested = self.cache.forget(tenant, from, &route.filter);
                if let Some(ack) = ack {
                    self.send(from, Message::Dist(DistMessage::Forgotten { tenant, ack, interested }));
                }
            }
            DistMessage::Forgotten { tenant, ack, interested } => {
                self.routes.forgotten(from, tenant, ack, interested, &mut effects);
            }
            DistMessage::MatchTopic { tenant, topic } => self.routes.match_topic(from, tenant, topic, &mut effects),
            DistMessage::TopicMatched { tenant, topic, matches } => {
                let (matches, waiting) = self.cache.answered(TenantKey { tenant, name: topic }, from, *matches);
                for req in waiting {
                    self.complete(Completion::Matched { req, matches: matches.clone() });
                }
            }
            DistMessage::MatchGroup { req, tenant, route } => {
                let matches = Box::new(self.routes.match_group(tenant, &route));
                self.send(from, Message::Dist(DistMessage::GroupMatched { req, matches }));
            }
            DistMessage::Heard { node, shard, extent } => self.handle_heard(from, (node, shard), extent),
            DistMessage::WhoHasHeard { node } => self.tell_heard(from, node),
            DistMessage::GroupMatched { req, matches } => {
                self.complete(Completion::Matched { req, matches: Rc::new(*matches) });
            }
        }
        self.carry_out_dist(effects);
    }

    fn carry_out_dist(&mut self, effects: Vec<DistEffect>) {
        for effect in effects {
            let (to, message) = match effect {
                DistEffect::Forget { shard, tenant, route, ack } => (shard, DistMessage::Forget { tenant, route, ack }),
                DistEffect::Added { shard, token, result } => (shard, DistMessage::RouteAdded { token, result }),
                DistEffect::Matched { shard, tenant, topic, matches } => {
                    (shard, DistMessage::TopicMatched { tenant, topic, matches })
                }
            };
            self.send(to, Message::Dist(message));
        }
    }

    /// One partition has answered.
    fn handle_route_added(&mut self, token: u32, result: Result<(), PortError>) {
        let Some(addition) = self.additions.get_mut(token as usize) else { return };
        addition.unanswered -= 1;
        addition.refusal = addition.refusal.or(result.err());
        self.finish_addition(token as usize);
    }

    /// When all have answered, the route is added; if a partition has refused, it is taken out of the others, behind the addition on the
    /// same channels.
    pub(super) fn finish_addition(&mut self, token: usize) {
        let is_done = |addition: &Addition| addition.unanswered == 0 && addition.unanswered_nodes.is_empty();
        if !self.additions.get(token).is_some_and(is_done) {
            return;
        }
        let Addition { origin, tenant, route, receiver, refusal, .. } = self.additions.remove(token);
        let result = refusal.map_or(Ok(()), Err);
        if result.is_err() {
            self.remove_everywhere(tenant, &route, receiver);
        }
        match origin {
            Origin::Request(req) => self.complete(Completion::RouteAdded { req, result }),
            Origin::Inbox { range, inbox, subscription } => {
                self.handle_inbox_route(range, inbox, subscription, result);
            }
            Origin::Node { node, shard, session, token } => self.heard_added(node, shard, session, token),
        }
    }
}
