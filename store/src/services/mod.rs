//! The services on the shards: bifro-range's machines, placed on the shards of the node, over storage or without.
//!
//! Each shard owns one [`RangeServices`] with a part of everything:
//!
//! | state | lives | kept |
//! |---|---|---|
//! | a client's inbox | in range hash(tenant, client id) | in the range's log and key-value space |
//! | owner of a client id | on the shard of the client's range, so that a detach, the unregistration behind it and the successor's attach meet in their order | no: connections end with the process |
//! | retained messages | in range hash(tenant, topic) | as an inbox |
//! | owner of a client id, in a cluster | as above, on the node that is responsible for it ([`cluster`]) | no |
//! | routes | on shard hash(tenant, first level of the filter); on every shard if that level is a wildcard | no: they follow from the inboxes' subscriptions |
//! | remembered matches | every shard, for its own publishers | no |
//!
//! Range i is on shard i mod shards. How many ranges there are is decided once, when the data directory is new, so that what they hold stays
//! where it is whatever the number of cores. Without storage there are as many as shards.
//!
//! What a request wants of another shard goes out as a [`Message`]; what it wants of its own goes through a queue of the same
//! messages that is empty again before the call returns. So both take the same code and the same order, and with a single
//! shard and no storage everything is done within the call. Over storage, whatever a machine answers waits in its range until the changes it
//! rests on are committed, durable and applied ([`ranges::Range`]).

mod cluster;
mod dict;
mod dist;
mod figures;
mod hearing;
mod inbox;
mod leading;
mod lookups;
pub mod message;
mod mutation;
mod operator;
mod placement;
mod ranges;
mod registrations;
mod reigns;
mod reliance;
mod replicas;
mod retain;
#[cfg(feature = "simulation")]
mod standing;
mod telling;
mod tenants;
#[cfg(test)]
mod tests;
mod wire;

pub use leading::FindTenant;
pub use message::Message;
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
#[cfg(not(feature = "mutations"))]
use mutation::Mutation;
pub use reliance::HearingCells;

use crate::fatal::{Fatal, Wake};
use crate::host::{Host, HostError, Node};
use crate::wal::Space;
use bifro_core::ids::{NodeIdx, RangeId, RangeIdx, ReqId, ShardId, Slot, TenantIdx, keyed_hash};
use bifro_core::limits::MATCH_CACHE_TOPICS_MAX;
use bifro_core::metrics::ShardMetrics;
use bifro_core::nodes::Nodes;
use bifro_core::ports::{Attached, Completion, Out, Services, Via};
use bifro_core::ranges::{RangeAnswer, RangeOrder};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::{Instant, earlier};
use bifro_raft::Membership;
use bifro_range::ReplyTo;
use bifro_range::dict::OwnerTable;
use bifro_range::dist::{MatchCache, RoutePartition};
use bifro_range::inbox::{InboxEffect, InboxTable, Loader};
use bifro_range::retain::{RetainEffect, RetainTable};
use hashbrown::HashMap;
use leading::State;
use ranges::{Range, Service};
use reigns::Reigns;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use tenants::Tenants;

/// One shard's end of all services.
///
/// # Contract
/// As [`Services`] has it: one call at a time with a monotonic `now`, [`Services::drain`] after each; the mesh delivers
/// what one shard sends to another once and in order; every shard is told of a tenant
/// ([`Services::set_tenant`]) before the first of its clients is admitted on any.
pub struct RangeServices {
    shard: ShardId,
    shards: u16,
    ranges: u16,
    seed: u64,
    metrics: Arc<ShardMetrics>,
    tenants: Tenants,
    owners: OwnerTable,
    routes: RoutePartition,
    cache: MatchCache,
    /// What the shards here show each other.
    cells: Arc<HearingCells>,
    /// Other nodes; none if the node stands alone.
    cluster: Option<Box<cluster::Cluster>>,
    /// Routes this shard is having added, by the token it gave them.
    additions: Slab<dist::Addition>,
    /// Retained messages on their way to other nodes, by token, and those of other nodes on their way into their ranges.
    replications: Slab<replicas::Replication>,
    mergings: Slab<replicas::Merging>,
    /// Retained messages that another node is asked for, or that others ask for here.
    lookups: lookups::Lookups,
    /// The ranges here, in order.
    inboxes: Vec<Range<InboxTable>>,
    retained: Vec<Range<RetainTable>>,
    /// Attaches that wait for all ranges, by the token this shard gave them.
    settling: Slab<inbox::Settling>,
    /// Attaches that are to wait so.
    settlements: Vec<(ReplyTo, Box<Attached>)>,
    /// Searches this shard waits for, by request.
    searches: HashMap<ReqId, retain::Search>,
    /// The storage; none if nothing is kept.
    host: Option<Host>,
    /// Who leads which range of persistent sessions; none if this node has all of them to itself.
    reigns: Option<Box<Reigns>>,
    /// What this node is to each range of persistent sessions here, if others have replicas too.
    states: Vec<State>,
    /// Routes of the sessions that an earlier process left, to be added in the first turn, when all tenants are known.
    recovered: Vec<(RangeIdx, InboxEffect)>,
    is_recovered: bool,
    /// Something may have changed since the last turn ended; most turns deliver messages and ask nothing of the services.
    is_touched: bool,
    out: Out<Message>,
    /// Messages to this shard itself; empty between calls.
    local: VecDeque<Message>,
    /// Scratch, empty between calls.
    inbox_effects: Vec<InboxEffect>,
    retain_effects: Vec<RetainEffect>,
    /// Ranges whose effects are being carried out.
    reached: Vec<RangeId>,
    /// What the metrics have been told of dropped messages: by full queues, by expiry.
    dropped_told: (u64, u64),
    #[cfg(feature = "mutations")]
    mutation: Option<Mutation>,
}

/// Where a shard's services stand among the others.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Which shard.
    pub shard: ShardId,
    /// Of how many.
    pub shards: u16,
    /// The shard's metric cells.
    pub metrics: Arc<ShardMetrics>,
    /// The same for all shards of the node.
    pub cells: Arc<HearingCells>,
}

impl Placement {
    /// The ranges of this shard, if there are so many on all shards together.
    fn ranges(&self, ranges: u16) -> impl Iterator<Item = RangeIdx> + Clone + use<> {
        (self.shard.0..ranges).step_by(self.shards.into()).map(RangeIdx)
    }
}

/// What comes out of a hash table comes in an order that its secret decides. None of them matters, but runs of the simulator are to be equal.
fn repeat_order<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    if cfg!(feature = "simulation") {
        items.sort_by_cached_key(key);
    }
}

impl RangeServices {
    /// Services that keep nothing. `seed` is the same on all shards of the process, and secret.
    ///
    /// # Panics
    /// If the shard is not one of them.
    pub fn volatile(placement: Placement, seed: u64) -> Self {
        let ranges = placement.shards;
        Self::new(placement, ranges, seed)
    }

    /// Services over the node's storage, with everything an earlier process left. Blocks meanwhile. `tenant` finds a tenant by its name;
    /// before anything is asked of the services, all shards must have been told of all tenants that any of them found.
    ///
    /// `wake` is called by other threads when [`Services::poll`] has something, and must unpark this thread until then.
    ///
    /// # Errors
    /// [`HostError`]: what is wrong, and what to do.
    ///
    /// # Panics
    /// If the shard is not one of them.
    pub fn durable(
        placement: Placement,
        node: &Node,
        wake: Wake,
        fatal: Fatal,
        now: Instant,
        tenant: &dyn Fn(&str) -> Arc<TenantCtx>,
    ) -> Result<Self, HostError> {
        let genesis = node.genesis();
        let here = placement.ranges(genesis.ranges);
        let kinds = [Service::Inbox, Service::Retain];
        let alone = |range| kinds.map(|kind| (RangeId::of(kind, range), Membership::single(genesis.node)));
        let mut host = Host::open(node, here.clone().flat_map(alone), wake, fatal, now)?;
        host.recover(node, now);
        // All of them are led here, by now and as long as this process lives.
        drop(host.take_changes());
        let mut services = Self::new(placement, genesis.ranges, genesis.seed);
        for range in here {
            services.load_retained((node, &mut host), range, now, tenant)?;
            services.load_inboxes((node, &mut host), range, now, tenant)?;
        }
        services.host = Some(host);
        Ok(services)
    }

    /// As [`Self::durable`], for a node whose persistent sessions have replicas on other nodes, and which leads some of their ranges or
    /// none. Retained messages are each node's own, and kept equal ([`replicas`]).
    ///
    /// # Errors
    /// As [`Self::durable`].
    ///
    /// # Panics
    /// As [`Self::durable`].
    pub fn clustered(
        placement: Placement,
        node: &Node,
        wake: Wake,
        fatal: Fatal,
        now: Instant,
        tenant: FindTenant,
    ) -> Result<Self, HostError> {
        let genesis = node.genesis();
        let here = placement.ranges(genesis.ranges);
        let both = |range| {
            let inboxes = RangeId::of(Service::Inbox, range);
            let retained = (RangeId::of(Service::Retain, range), Membership::single(genesis.node));
            [(inboxes, placement::founding(inboxes, &genesis.founders)), retained]
        };
        let mut host = Host::open(node, here.clone().flat_map(both), wake, fatal.clone(), now)?;
        host.recover(node, now);
        let mut services = Self::new(placement, genesis.ranges, genesis.seed);
        for range in here {
            services.load_retained((node, &mut host), range, now, &*tenant)?;
            services.states.push(State::Following);
        }
        services.host = Some(host);
        let cells = (services.shard.0 == 0).then(|| node.cells());
        services.reigns = Some(Box::new(Reigns::new(genesis.ranges, tenant, fatal, cells)));
        services.metrics.ranges_unled.set(genesis.ranges.into());
        services.follow_host(now);
        Ok(services.join(genesis.node))
    }

    fn load_retained(
        &mut self,
        (node, host): (&Node, &mut Host),
        range: RangeIdx,
        now: Instant,
        tenant: &dyn Fn(&str) -> Arc<TenantCtx>,
    ) -> Result<(), HostError> {
        let at = self.local(range);
        let retained = &mut self.retained[at].machine;
        *retained = RetainTable::durable();
        host.for_each(node, now, RangeId::of(Service::Retain, range), |_, record| retained.load(record, tenant))
    }

    fn load_inboxes(
        &mut self,
        (node, host): (&Node, &mut Host),
        range: RangeIdx,
        now: Instant,
        tenant: &dyn Fn(&str) -> Arc<TenantCtx>,
    ) -> Result<(), HostError> {
        let at = self.local(range);
        let mut loader = Loader::new(InboxTable::durable(range, self.seed));
        host.for_each(node, now, RangeId::of(Service::Inbox, range), |key, value| loader.load(key, value, tenant))?;
        let mut effects = Vec::new();
        self.inboxes[at].machine = loader.finish(now, None, &mut effects);
        self.recovered.extend(effects.into_iter().map(|effect| (range, effect)));
        Ok(())
    }

    fn new(placement: Placement, ranges: u16, seed: u64) -> Self {
        let here = placement.ranges(ranges);
        let Placement { shard, shards, metrics, cells } = placement;
        assert!(shard.0 < shards, "{shard:?} is not one of {shards} shards");
        Self {
            shard,
            shards,
            ranges,
            seed,
            metrics,
            tenants: Tenants::default(),
            owners: OwnerTable::new(),
            routes: RoutePartition::new(),
            cache: MatchCache::new(MATCH_CACHE_TOPICS_MAX),
            cells,
            cluster: None,
            additions: Slab::new(),
            replications: Slab::new(),
            mergings: Slab::new(),
            lookups: lookups::Lookups::default(),
            inboxes: here.clone().map(|range| Range::new(range, InboxTable::new(range, seed))).collect(),
            retained: here.map(|range| Range::new(range, RetainTable::new())).collect(),
            settling: Slab::new(),
            settlements: Vec::new(),
            searches: HashMap::new(),
            host: None,
            reigns: None,
            states: Vec::new(),
            recovered: Vec::new(),
            is_recovered: false,
            is_touched: true,
            out: Out::default(),
            local: VecDeque::new(),
            inbox_effects: Vec::new(),
            retain_effects: Vec::new(),
            reached: Vec::new(),
            dropped_told: (0, 0),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }

    /// The shard that has the routes that begin with `level`; the same whichever shard asks.
    fn place(&self, tenant: TenantIdx, level: &str) -> ShardId {
        if self.shards == 1 {
            return self.shard;
        }
        let hash = keyed_hash(self.seed, &[&tenant.0.to_le_bytes(), level.as_bytes()]);
        ShardId((hash % u64::from(self.shards)) as u16)
    }

    /// The range of a client id or topic. Tenants are named, since it must be the same in the next process.
    fn range_of(&self, tenant: &TenantCtx, name: &str) -> RangeIdx {
        if self.ranges == 1 {
            return RangeIdx(0);
        }
        let hash = keyed_hash(self.seed, &[tenant.name.as_bytes(), name.as_bytes()]);
        RangeIdx((hash % u64::from(self.ranges)) as u16)
    }

    /// The shard that has a range.
    const fn home(&self, range: RangeIdx) -> ShardId {
        ShardId(range.0 % self.shards)
    }

    /// The range's place among those of this shard.
    fn local(&self, range: RangeIdx) -> usize {
        assert_eq!(self.home(range), self.shard, "requests go to where the range is");
        usize::from(range.0 / self.shards)
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    fn send(&mut self, to: ShardId, message: Message) {
        if to == self.shard {
            self.local.push_back(message);
        } else {
            self.out.sends.push((to, message));
        }
    }

    fn complete(&mut self, completion: Completion) {
        self.out.completions.push(completion);
    }

    /// Works off what this shard has told itself. Ends every call that may have sent something.
    fn settle(&mut self, now: Instant) {
        self.is_touched = true;
        loop {
            while let Some(message) = self.local.pop_front() {
                self.handle(now, self.shard, message);
            }
            if let Some((to, attached)) = self.settlements.pop() {
                self.forget_everywhere(now, to, attached);
            } else if !self.go_on_matching() {
                return;
            }
        }
    }

    fn handle(&mut self, now: Instant, from: ShardId, message: Message) {
        match message {
            Message::Dict(message) => self.handle_dict(now, message),
            Message::Dist(message) => self.handle_dist(from, message),
            Message::Inbox(message) => self.handle_inbox(now, from, message),
            Message::Retain(message) => self.handle_retain(now, from, message),
            Message::Reign(message) => self.handle_reign(now, from, message),
            Message::Asked(asked) => self.handle_asked(now, *asked),
        }
    }

    /// Calls a range's inboxes, and carries out what need not wait.
    fn with_inboxes(&mut self, range: RangeIdx, call: impl FnOnce(&mut InboxTable, &Tenants, &mut Vec<InboxEffect>)) {
        let at = self.local(range);
        let mut effects = std::mem::take(&mut self.inbox_effects);
        call(&mut self.inboxes[at].machine, &self.tenants, &mut effects);
        let answers_at_once = self.is_planted(Mutation::AnswerAtOnce);
        if let Some(host) = &mut self.host {
            if !answers_at_once {
                self.inboxes[at].gate(host, &mut effects);
            }
            self.inboxes[at].record_many(host);
        }
        self.carry_out_inbox(range, &mut effects);
        self.inbox_effects = effects;
    }

    /// Calls a range's retained messages, likewise.
    fn with_retained(
        &mut self,
        range: RangeIdx,
        call: impl FnOnce(&mut RetainTable, &Tenants, &mut Vec<RetainEffect>),
    ) {
        let at = self.local(range);
        let mut effects = std::mem::take(&mut self.retain_effects);
        call(&mut self.retained[at].machine, &self.tenants, &mut effects);
        if let Some(host) = &self.host {
            self.retained[at].gate(host, &mut effects);
        }
        self.carry_out_retain(&mut effects);
        self.retain_effects = effects;
    }

    /// New messages are to be refused for want of space; what makes room goes on.
    fn is_short_of_space(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.space() == Space::Short)
    }
}

impl Services for RangeServices {
    type Message = Message;

    fn begin_turn(&mut self, now: Instant) -> bool {
        self.look_at_time(now)
    }

    fn receive(&mut self, now: Instant, from: ShardId, message: Message) {
        self.handle(now, from, message);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_dict_timeout(now);
        self.lapse_links(now);
        self.release_gone(now);
        self.ask_for_reliance(now);
        self.withdraw_reigns(now);
        self.give_up_orphaned(now);
        self.place_replicas(now);
        self.go_on_telling();
        self.give_up_lookups(now);
        self.handle_inbox_timeout(now);
        self.handle_retain_timeout(now);
        self.settle(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let inboxes = self.inboxes.iter().filter_map(|range| range.machine.next_timeout()).min();
        let retained = self.retained.iter().filter_map(|range| range.machine.next_timeout()).min();
        let host = self.host.as_ref().and_then(Host::next_timeout);
        let links = self.cluster.as_ref().and_then(|cluster| cluster.next_timeout());
        let loaded = self.has_loaded().then(Instant::default);
        let reigns = earlier(loaded, self.reigns.as_ref().and_then(|reigns| reigns.next_timeout()));
        let links = earlier(earlier(links, reigns), self.lookups.next_timeout());
        earlier(links, earlier(earlier(self.owners.next_timeout(), host), earlier(inboxes, retained)))
    }

    fn poll(&mut self, now: Instant) -> bool {
        let worked = self.host.as_mut().is_some_and(|host| host.poll(now));
        if worked {
            self.release(now);
            self.take_fetched(now);
            self.follow_host(now);
            self.settle(now);
        }
        worked
    }

    fn end_turn(&mut self, now: Instant) -> bool {
        if !std::mem::take(&mut self.is_touched) && self.is_recovered {
            return false;
        }
        self.open_loaded(now);
        self.take_fetched(now);
        if let Some(host) = &mut self.host {
            host.catch_up(now);
        }
        self.release(now);
        if let Some(host) = &mut self.host {
            self.inboxes.iter_mut().for_each(|range| range.record(host));
            self.retained.iter_mut().for_each(|range| range.record(host));
            host.end_turn(now);
            self.metrics.store_held_bytes.set(host.held_bytes());
        }
        if !self.is_recovered {
            for (range, effect) in std::mem::take(&mut self.recovered) {
                self.carry_out_inbox(range, &mut vec![effect]);
            }
            self.settle(now);
            self.is_recovered = self.additions.is_empty();
        }
        self.follow_host(now);
        self.settle(now);
        self.is_touched = self.has_loaded();
        self.tell_metrics();
        !self.out.is_empty()
    }

    fn is_quiet(&self) -> bool {
        self.host.as_ref().is_none_or(Host::is_quiet)
    }

    fn is_recovered(&self) -> bool {
        self.is_recovered
    }

    fn drain(&mut self, out: &mut Out<Message>) {
        debug_assert!(self.local.is_empty(), "every call settles");
        out.sends.append(&mut self.out.sends);
        out.remote.append(&mut self.out.remote);
        out.completions.append(&mut self.out.completions);
    }

    fn set_tenant(&mut self, tenant: Arc<TenantCtx>) {
        self.tenants.set(tenant);
    }

    fn set_nodes(&mut self, now: Instant, nodes: &Arc<Nodes>) {
        self.replace_nodes(now, nodes);
    }

    fn link_up(&mut self, now: Instant, via: Via) {
        self.begin_link(now, via);
    }

    fn link_down(&mut self, now: Instant, via: Via) {
        self.end_link(now, via);
    }

    fn receive_remote(&mut self, now: Instant, via: Via, tenant: Option<TenantIdx>, bytes: &[u8]) -> bool {
        self.handle_remote(now, via, tenant, bytes)
    }

    fn hand_over(&mut self, now: Instant) {
        self.hand_over_ranges(now);
        self.settle(now);
    }

    fn operate(&mut self, now: Instant, order: RangeOrder) -> RangeAnswer {
        self.obey(now, order)
    }

    fn is_handed_over(&self) -> bool {
        self.are_ranges_handed_over()
    }

    fn is_complete(&self) -> bool {
        self.reigns.as_ref().is_none_or(|reigns| reigns.is_complete()) || self.is_planted(Mutation::RouteUnled)
    }

    fn are_receivers_known(&self) -> bool {
        self.reigns.is_none() || self.is_complete() && self.unheard_nodes().is_empty()
    }

    fn owns_inbox(&self, conn: Slot) -> bool {
        self.has_firm_tie(conn)
    }

    fn is_replicated(&self) -> bool {
        self.reigns.is_some()
    }

    fn unheard_nodes(&self) -> &[NodeIdx] {
        self.cluster.as_ref().map_or(&[], |cluster| cluster.unheard())
    }

    fn is_followed_by(&self, node: NodeIdx, shard: ShardId) -> bool {
        self.reigns.as_ref().is_none_or(|reigns| reigns.is_followed_by(node, shard))
    }

    fn reigns_seen(&self) -> u64 {
        self.reigns.as_ref().map_or(0, |reigns| reigns.seen())
    }

    fn inbox_ranges(&self) -> u16 {
        self.ranges
    }
}
