//! What a shard does for the ranges it hosts when its node begins or ceases to lead them.
//!
//! ```text
//!              elected, all of the log applied        all records read        all live nodes know the routes
//! Following ────────────────────────────────► Loading ────────────────► Opening ──────────────────────────► Leading
//!     ▲                                          │                        │                                   │
//!     └──────────────────────────────────────────┴────────────────────────┴────────── another term ───────────┘
//! ```
//! The machine is made anew for each reign, of what is committed: what an earlier one had in memory counts for nothing. Connections
//! of its sessions go on with it (see [`super::reigns`]).

use super::message::Asked;
use super::placement::{Step, heir, is_placed, next_step, wanted};
use super::ranges::Service;
use super::{RangeServices, repeat_order};
use crate::host::{Change, Host, split_frame};
use crate::kv::Pair;
use bifro_core::ids::{ConnRef, InboxSeq, NodeId, NodeIdx, RangeId, RangeIdx, Slot};
use bifro_core::nodes::Node;
use bifro_core::ports::{Completion, Receiver, Via};
use bifro_core::tenant::{TenantCtx, TenantName};
use bifro_core::time::Instant;
use bifro_range::inbox::{InboxEffect, InboxTable, Loader};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How often a leader looks whether its range's replicas are where they belong.
const PLACE_INTERVAL: Duration = Duration::from_secs(1);

/// How long no node must have come or gone before leaders are moved to spread them.
const CALM: Duration = Duration::from_secs(30);

/// Finds a tenant by its name, on whichever shard.
pub type FindTenant = Arc<dyn Fn(&str) -> Arc<TenantCtx> + Send + Sync>;

/// What this node is to a range of this shard.
#[derive(Debug)]
pub(super) enum State {
    /// Not its leader.
    Following,
    /// Its leader, as soon as the shards here have forgotten an earlier reign.
    Waiting { term: u64 },
    /// Its leader, reading what there is.
    Loading { term: u64, loader: Box<Loader>, tenants: HashMap<TenantName, Arc<TenantCtx>> },
    /// Everything is read, and the driver has been told of the tenants.
    Loaded { term: u64, loader: Box<Loader> },
    /// The machine is there; these subscriptions are not known to all yet.
    Opening { term: u64, routes: HashSet<(Slot, u32)> },
    /// The machine serves whoever asks.
    Leading { term: u64 },
}

impl State {
    /// Whether it serves whoever asks.
    pub(super) const fn leads(&self) -> bool {
        matches!(self, Self::Leading { .. })
    }

    /// The term in which it leads with a machine.
    const fn reign(&self) -> Option<u64> {
        match self {
            Self::Opening { term, .. } | Self::Leading { term } => Some(*term),
            Self::Following | Self::Waiting { .. } | Self::Loading { .. } | Self::Loaded { .. } => None,
        }
    }
}

impl RangeServices {
    /// Takes in what has happened to the replicas here, and sends what they have for others.
    pub(super) fn follow_host(&mut self, now: Instant) {
        if self.reigns.is_none() {
            return;
        }
        loop {
            let changes = self.host.as_mut().map(Host::take_changes).unwrap_or_default();
            if changes.is_empty() {
                break;
            }
            for change in changes {
                self.take_change(now, change);
            }
        }
        let frames = self.host.as_mut().map(|host| host.take_frames().collect::<Vec<_>>());
        for (to, frame) in frames.into_iter().flatten() {
            self.send_frame(to, frame);
        }
    }

    fn take_change(&mut self, now: Instant, change: Change) {
        match change {
            Change::Leads { range, term } => {
                let Some(range) = inbox_range(range) else { return };
                self.end_reign(now, range);
                *self.state_mut(range) = State::Waiting { term: term.0 };
                self.begin_reign_that_waits(range);
            }
            Change::Follows { range, .. } => {
                if let Some(range) = inbox_range(range) {
                    self.end_reign(now, range);
                }
            }
            Change::Loaded { range, pairs, is_last } => {
                if let Some(range) = inbox_range(range) {
                    self.load(range, &pairs, is_last);
                }
            }
            Change::LoadFailed { range, error } => {
                if let Some(reigns) = &self.reigns {
                    (reigns.fatal)(&format!("{range} cannot be read: {error}"));
                }
            }
        }
    }

    fn state_mut(&mut self, range: RangeIdx) -> &mut State {
        let at = self.local(range);
        &mut self.states[at]
    }

    /// The reign that has begun goes on once nobody here takes the one before for it.
    pub(super) fn begin_reign_that_waits(&mut self, range: RangeIdx) {
        if self.is_ending(range) {
            return;
        }
        let at = self.local(range);
        let State::Waiting { term } = self.states[at] else { return };
        let loader = Box::new(Loader::new(InboxTable::durable(range, self.seed)));
        self.states[at] = State::Loading { term, loader, tenants: HashMap::new() };
        if let Some(host) = &mut self.host {
            host.begin_load(RangeId::of(Service::Inbox, range));
        }
    }

    fn load(&mut self, range: RangeIdx, pairs: &[Pair], is_last: bool) {
        let at = self.local(range);
        let Some(reigns) = &self.reigns else { return };
        let (find, fatal) = (&reigns.find_tenant, &reigns.fatal);
        let State::Loading { term, loader, tenants } = &mut self.states[at] else { return };
        for (key, value) in pairs {
            let mut met = |name: &str| match tenants.get(name) {
                Some(tenant) => tenant.clone(),
                None => {
                    let tenant = find(name);
                    tenants.entry(tenant.name.clone()).or_insert(tenant).clone()
                }
            };
            if let Err(error) = loader.load(key, value, &mut met) {
                let range = RangeId::of(Service::Inbox, range);
                return fatal(&format!("a record of {range} cannot be read (key {key:02x?}): {error}"));
            }
        }
        if !is_last {
            return;
        }
        let (term, tenants) = (*term, std::mem::take(tenants));
        if let State::Loading { loader, .. } = std::mem::replace(&mut self.states[at], State::Following) {
            self.states[at] = State::Loaded { term, loader };
        }
        let mut tenants: Vec<_> = tenants.into_values().collect();
        repeat_order(&mut tenants, |tenant| tenant.idx.0);
        for tenant in tenants {
            // The driver tells all shards, before anything that this shard has for them in a later turn.
            self.complete(Completion::TenantFound { name: tenant.name.clone() });
        }
    }

    /// Makes machines of what has been read. In a turn after it was: see [`State::Loaded`].
    pub(super) fn open_loaded(&mut self, now: Instant) {
        for at in 0..self.states.len() {
            let range = self.inboxes[at].idx;
            let (term, loader) = match std::mem::replace(&mut self.states[at], State::Following) {
                State::Loaded { term, loader } => (term, loader),
                other => {
                    self.states[at] = other;
                    continue;
                }
            };
            let mut effects = Vec::new();
            self.inboxes[at].machine = loader.finish(now, Some(first_place(term)), &mut effects);
            let routes = effects.iter().filter_map(|effect| match effect {
                InboxEffect::AddRoute { receiver: Receiver::Inbox { inbox, subscription, .. }, .. } => {
                    Some((*inbox, *subscription))
                }
                _ => None,
            });
            self.states[at] = State::Opening { term, routes: routes.collect() };
            self.carry_out_inbox(range, &mut effects);
            self.route_opened(range, None);
        }
    }

    pub(super) fn has_loaded(&self) -> bool {
        self.states.iter().any(|state| matches!(state, State::Loaded { .. }))
    }

    /// A subscription is known to all; after the last of them the range serves.
    pub(super) fn route_opened(&mut self, range: RangeIdx, subscription: Option<(Slot, u32)>) {
        if self.reigns.is_none() {
            return;
        }
        let at = self.local(range);
        let State::Opening { term, routes } = &mut self.states[at] else { return };
        if let Some(subscription) = subscription {
            routes.remove(&subscription);
        }
        if routes.is_empty() {
            let term = *term;
            self.states[at] = State::Leading { term };
            if let Some(reigns) = &mut self.reigns {
                reigns.place_at = Instant::default();
            }
            tracing::info!(range = range.0, term, sessions = self.inboxes[at].machine.totals().inboxes, "leads");
            self.proclaim(range, term);
        }
    }

    /// Everybody hears of the range's leader now, and so the connections of its sessions that go on.
    pub(super) fn expect_owners(&mut self, now: Instant, range: RangeIdx) {
        let at = self.local(range);
        self.inboxes[at].machine.expect_owners(now);
    }

    pub(super) fn end_reign(&mut self, now: Instant, range: RangeIdx) {
        let at = self.local(range);
        let Some(term) = std::mem::replace(&mut self.states[at], State::Following).reign() else { return };
        tracing::info!(range = range.0, term, "does not lead any more");
        let mut routes = Vec::new();
        for effect in self.inboxes[at].drop_held().collect::<Vec<_>>() {
            match effect {
                InboxEffect::Inserted { to, .. } => self.refuse_insertion(to),
                // The machine has forgotten the subscription already, and nobody else will take its route away.
                InboxEffect::RemoveRoute { tenant, route, receiver } => routes.push(((tenant, route), receiver)),
                _ => {}
            }
        }
        self.tell_metrics();
        let dropped = self.inboxes[at].machine.totals();
        self.dropped_told.0 -= dropped.dropped_full;
        self.dropped_told.1 -= dropped.dropped_expired;
        let table = std::mem::replace(&mut self.inboxes[at].machine, InboxTable::new(range, self.seed));
        let mut effects = Vec::new();
        table.retire(&mut effects);
        routes.extend(effects.into_iter().filter_map(|effect| match effect {
            InboxEffect::RemoveRoute { tenant, route, receiver } => Some(((tenant, route), receiver)),
            _ => None,
        }));
        self.abdicate(now, range, term, routes);
    }

    /// Whether requests of this term are for the machine here.
    pub(super) fn serves(&self, range: RangeIdx, term: u64) -> bool {
        matches!(self.states.get(self.local(range)), Some(State::Leading { term: of }) if *of == term)
    }

    /// Whether messages can be stored in the range here. Not before all know who leads it: see [`super::reigns`].
    pub(super) fn stores(&self, range: RangeIdx) -> bool {
        self.reigns.is_none() || self.states[self.local(range)].leads()
    }

    /// Somebody asks, here or on another node.
    pub(super) fn handle_asked(&mut self, now: Instant, asked: Asked) {
        let Asked { node, shard, term, claim, request } = asked;
        // Who is asked in another term has been or will be told, and asks again.
        if request.range().is_some_and(|range| self.serves(range, term)) {
            self.handle_inbox_request(now, (node, shard, claim), request);
        }
    }

    /// Connections of other nodes are lost to all ranges of this shard; they may go on if their node lives.
    pub(super) fn lose_owners(&mut self, now: Instant, is_lost: &dyn Fn(ConnRef) -> bool, may_go_on: bool) {
        for at in 0..self.states.len() {
            if self.states[at].reign().is_some() {
                let range = self.inboxes[at].idx;
                self.with_inboxes(range, |table, _, effects| table.lose_owners(now, is_lost, may_go_on, effects));
            }
        }
    }

    /// Sees to it that the replicas of the ranges that this shard leads are where they belong.
    pub(super) fn place_replicas(&mut self, now: Instant) {
        let Some(reigns) = self.reigns.as_mut().filter(|reigns| reigns.place_at <= now) else { return };
        reigns.place_at = now + PLACE_INTERVAL;
        if self.host.as_ref().is_some_and(Host::is_impaired) {
            // Its ranges stand still or refuse messages, so it does not matter that all change their leaders at once. Whoever is to go itself
            // would only hand them on.
            self.hand_over_to(now, |node| node.is_well && !node.duties.is_draining);
        }
        let (Some(cluster), Some(host)) = (&self.cluster, &mut self.host) else { return };
        let (nodes, hosts) = (cluster.nodes.clone(), cluster.nodes.hosts());
        let is_calm = now.since(cluster.changed_at) >= CALM;
        let (mut moving, mut moved) = (0, false);
        for (range, _) in self.inboxes.iter().zip(&self.states).filter(|(_, state)| state.leads()) {
            let id = RangeId::of(Service::Inbox, range.idx);
            let Some(members) = host.membership(id) else { continue };
            let wanted = wanted(id, &hosts);
            moving += u64::from(!is_placed(members, &wanted));
            // Who is no member yet lacks everything.
            let lag = |node: NodeId| nodes.lives(node).then(|| host.lag(id, node).unwrap_or(u64::MAX));
            let is_well = |node: NodeId| nodes.is_well(node);
            let next = next_step(nodes.me, members, &wanted, lag, is_well);
            // Clients of the range have to attach again: not more than one range at a time, and to spread leaders not while nodes come and go.
            let next = next.filter(|step| !(moved && matches!(step, Step::Transfer(_))));
            let may_spread = is_calm && !moved && !cluster.kept.contains(&range.idx);
            let heir = || heir(nodes.me, members, &wanted, lag, is_well).filter(|_| may_spread);
            let Some(step) = next.or_else(|| heir().map(Step::Transfer)) else { continue };
            moved |= matches!(step, Step::Transfer(_));
            let outcome = match step.clone() {
                Step::Change(target) => host.change_membership(now, id, target).map_err(|error| error.to_string()),
                Step::Transfer(to) => host.transfer_leadership(now, id, to).map_err(|error| error.to_string()),
            };
            match outcome {
                Ok(()) => tracing::info!(range = %id, ?step, "replicas move"),
                // It is tried again.
                Err(error) => tracing::debug!(range = %id, ?step, error, "replicas cannot move yet"),
            }
        }
        self.metrics.ranges_moving.set(moving);
        let held = self.inboxes.iter().filter(|range| host.has_replica(RangeId::of(Service::Inbox, range.idx)));
        self.metrics.ranges_held.set(held.count() as u64);
    }

    /// The node is about to end: others are to lead, as soon as they can.
    pub(super) fn hand_over_ranges(&mut self, now: Instant) {
        self.hand_over_to(now, |_| true);
    }

    /// Hands over every range that is led here to one of these nodes: to one that is well, if there is any, and of those to the one that lacks least.
    fn hand_over_to(&mut self, now: Instant, may_lead: impl Fn(&Node) -> bool) {
        let (Some(cluster), Some(host)) = (&self.cluster, &mut self.host) else { return };
        for range in &self.inboxes {
            let id = RangeId::of(Service::Inbox, range.idx);
            let Some(members) = host.membership(id) else { continue };
            // Of a range that is led elsewhere nobody's lag is known here.
            let able = cluster.nodes.others.iter().filter(|node| members.is_voter(node.id) && may_lead(node));
            let heirs = able.filter_map(|node| Some((!node.is_well, host.lag(id, node.id)?, node.id)));
            // Without an heir the others elect one when they miss this node.
            if let Some((_, _, heir)) = heirs.min()
                && let Err(error) = host.transfer_leadership(now, id, heir)
            {
                tracing::debug!(range = %id, %heir, %error, "a range is not handed over");
            }
        }
    }

    /// Whether no range is on its way any more to the node that is to lead it.
    pub(super) fn are_ranges_handed_over(&self) -> bool {
        let is_on_its_way = |host: &Host, idx| host.is_transferring(RangeId::of(Service::Inbox, idx));
        self.host.as_ref().is_none_or(|host| !self.inboxes.iter().any(|range| is_on_its_way(host, range.idx)))
    }

    /// Whether a session of this shard has the subscription, and a machine here knows it.
    pub(super) fn has_subscription(&self, receiver: Receiver) -> bool {
        let Receiver::Inbox { range, inbox, subscription } = receiver else { return false };
        self.inboxes[self.local(range)].machine.has_subscription(inbox, subscription)
    }

    fn send_frame(&mut self, to: NodeId, frame: Vec<u8>) {
        let others = self.cluster.iter().flat_map(|cluster| &cluster.nodes.others);
        // Of a node that was started again, the latest process.
        let node = others.filter(|node| node.id == to).map(|node| node.idx).max();
        if let Some(node) = node {
            self.send_remote(Via::To(node), None, &super::wire::Remote::Raft { frame });
        }
    }

    /// A frame of another node's replicas, for those here that it concerns. False if it cannot be read.
    pub(super) fn hear_frame(&mut self, node: NodeIdx, frame: &[u8]) -> bool {
        let id = self.cluster.as_ref().and_then(|cluster| cluster.nodes.get(node)).map(|node| node.id);
        let (Some(from), true) = (id, self.reigns.is_some()) else { return true };
        let shards = self.shards;
        let home = |range: RangeId| RangeIdx(range.0 as u16).0 % shards;
        let Some(parts) = split_frame(frame, home) else { return false };
        for (shard, bytes) in parts {
            let message = super::message::Reign::Frame { from, bytes };
            self.send(bifro_core::ids::ShardId(shard), super::Message::Reign(message));
        }
        true
    }

    pub(super) fn receive_frame(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let Some(host) = &mut self.host else { return };
        if host.receive(now, from, bytes).is_err() {
            tracing::warn!(node = %from, "a frame of another node's replicas cannot be understood; are both of versions that work together?");
        }
    }
}

/// Where the places of messages begin that the leader of a term gives out: those of an earlier one's do not reach so far.
const fn first_place(term: u64) -> InboxSeq {
    InboxSeq(term << 40)
}

/// The number of a range of persistent sessions.
pub(super) fn inbox_range(id: RangeId) -> Option<RangeIdx> {
    id.parts().filter(|(service, _)| *service == Service::Inbox).map(|(_, range)| range)
}
