//! The MQTT driver of one shard: connections, sessions, local fan-out and the publishes that await completion.
//!
//! [`Shard`] owns everything that belongs to one core and is never touched by another. It is split in two so that bytes can
//! be decoded where the kernel put them: the network ring with its receive buffers stays in the loop ([`Shard::run`]), and
//! [`Broker`] gets slices of them. One turn is: reap completions, feed sessions, exchange with the other shards, fire
//! timers, then list what the ring is to do: every dirty connection's bytes as one send, pauses, closes. So a [`Broker`] has no
//! ring inside, and its tests drive several of them by hand, in virtual time.
//!
//! # Invariants
//! - A connection lives and dies on the shard that accepted it.
//! - Effects of a session are carried out in order and before the next packet of that session is decoded.
//! - Nothing here blocks, and nothing here is shared: what other shards need travels over the mesh.
//! - A turn is bounded in bytes taken in and in messages delivered; one publish is the most by which it goes beyond.

mod again;
mod budget;
mod command;
mod completion;
mod conn;
mod delivered;
mod delivery;
mod departure;
mod drain;
mod effects;
mod evacuation;
mod exactly_once;
mod fanout;
mod flush;
mod frames;
mod input;
mod inquiry;
mod lifecycle;
mod peer;
mod publish;
mod remote;
mod settings;
mod shaping;
mod shard;
mod shared;
mod tenants;
mod uplinks;

pub use command::{Command, RangeReply, Reload};
pub use peer::ShardMessage;
pub use settings::{BrokerSettings, ListenerSettings};
pub use shard::{Shard, ShardParts};
pub use tenants::{TenantPolicy, TenantRegistry};

use crate::wheel::Wheel;
use bifro_core::delivered::Delivered;
use bifro_core::event::Event;
use bifro_core::ids::{ReqId, ShardId, Slot};
use bifro_core::metrics::ShardMetrics;
use bifro_core::plugin::{Authenticator, Authorizer};
use bifro_core::ports::{Out, Services};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_mqtt::codec::FanoutScratch;
use bifro_mqtt::session::{Effect, Tally};
use conn::ConnTable;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Resolution of timers: keep-alive and deadlines may be late by this.
const TICK: Duration = Duration::from_millis(20);

/// Where typed events go.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// What a [`Broker`] is made of.
pub(crate) struct BrokerParts<S: Services> {
    pub(crate) shard: ShardId,
    pub(crate) settings: Arc<BrokerSettings>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) events: EventSink,
    pub(crate) services: S,
    pub(crate) authenticator: Box<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tenants: Arc<TenantRegistry>,
}

/// Everything of a shard except its ring.
pub(crate) struct Broker<S: Services> {
    shard: ShardId,
    settings: Arc<BrokerSettings>,
    metrics: Arc<ShardMetrics>,
    events: EventSink,
    services: completion::Asked<S>,
    services_out: Out<S::Message>,
    authenticator: Box<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    tenants: tenants::TenantTable,
    conns: ConnTable,
    fanout: fanout::FanoutTable,
    /// Reused buffers of the fan-out: encoded shapes, and merged deliveries of overlapping subscriptions.
    scratch: FanoutScratch,
    merged: Vec<fanout::Merged>,
    publishes: publish::PublishTable,
    /// Sessions that are over and wait for the fate of their QoS 2 publishes before they leave their inbox.
    departures: departure::Departures,
    delivered: Delivered,
    /// Who waits for the completion of a request.
    requests: HashMap<ReqId, completion::Awaited>,
    next_req: u64,
    /// Effects that wait to be carried out, in order.
    effects: VecDeque<(Slot, Effect)>,
    /// What sessions count, moved into the metrics once per turn.
    tally: Tally,
    /// Where a session puts its effects during one call.
    effect_scratch: Vec<Effect>,
    /// Messages for other shards, handed to the mesh once per turn.
    to_peers: Vec<(ShardId, ShardMessage<S::Message>)>,
    /// Ways to other nodes.
    remotes: remote::Remotes,
    /// Acknowledgements owed to other shards' publishes.
    taken: Vec<Vec<u64>>,
    /// Connections with bytes to send, each once.
    dirty: Vec<Slot>,
    /// Ring operations the loop carries out at the end of the turn.
    ring_ops: VecDeque<conn::RingOp>,
    /// Connections whose session takes packets again.
    resumable: Vec<Slot>,
    /// Connections paused because the shard was over its budget, each once.
    starved: Vec<Slot>,
    /// Number of the turn.
    turn: u32,
    /// Messages delivered in this turn, and bytes taken in, in the measure of [`shard::TURN_WORK`].
    work: usize,
    wheel: Wheel<Slot>,
    due: Vec<Slot>,
    budget: budget::Budget,
    wires: flush::WirePool,
    rng: Prng,
    now: Instant,
    draining: Option<drain::Drain>,
    /// The node is to go: its clients are sent to others.
    evacuation: Option<evacuation::Evacuation>,
    /// Other shards that are draining and have no connections any more.
    peers_drained: u16,
    /// Next connection to be told of a reload.
    reload_at: Option<u32>,
    /// Application bytes behind the stages of the connection at hand.
    app: Vec<u8>,
}

impl<S: Services> Broker<S> {
    pub(crate) fn new(parts: BrokerParts<S>, now: Instant) -> Self {
        let BrokerParts { shard, settings, metrics, events, mut services, authenticator, authorizer, tenants } = parts;
        metrics.memory_budget_bytes.set(settings.shard_budget_bytes);
        for tenant in tenants.all() {
            services.set_tenant(tenant);
        }
        Self {
            shard,
            budget: budget::Budget::new(settings.shard_budget_bytes, settings.write_high_water_bytes),
            taken: vec![Vec::new(); usize::from(settings.shards)],
            rng: Prng::new(settings.nonce).derive(u64::from(shard.0)),
            settings,
            metrics,
            events,
            services: completion::Asked::new(services),
            services_out: Out::default(),
            authenticator,
            authorizer,
            tenants: tenants::TenantTable::new(tenants),
            conns: ConnTable::default(),
            fanout: fanout::FanoutTable::default(),
            scratch: FanoutScratch::default(),
            merged: Vec::new(),
            publishes: publish::PublishTable::default(),
            departures: departure::Departures::default(),
            delivered: Delivered::default(),
            requests: HashMap::new(),
            next_req: 0,
            effects: VecDeque::new(),
            effect_scratch: Vec::new(),
            tally: Tally::default(),
            to_peers: Vec::new(),
            remotes: remote::Remotes::default(),
            dirty: Vec::new(),
            ring_ops: VecDeque::new(),
            resumable: Vec::new(),
            starved: Vec::new(),
            turn: 0,
            work: 0,
            wheel: Wheel::new(now, TICK),
            due: Vec::new(),
            wires: flush::WirePool::default(),
            now,
            draining: None,
            evacuation: None,
            peers_drained: 0,
            reload_at: None,
            app: Vec::new(),
        }
    }

    /// A turn begins: bytes, peers' messages and commands come next.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
        self.work = 0;
        self.departures.begin_turn();
        self.services.begin_turn(now);
        self.settle();
    }

    /// Looks what the storage under the services has done. True if there was anything.
    pub(crate) fn poll_services(&mut self) -> bool {
        let worked = self.services.poll(self.now);
        self.settle();
        worked
    }

    /// Whether the storage has nothing to tell.
    pub(crate) fn is_storage_quiet(&self) -> bool {
        self.services.peek().is_quiet()
    }

    /// Whether everything that an earlier process left is in its place.
    pub(crate) fn is_recovered(&self) -> bool {
        self.services.peek().is_recovered()
    }

    /// What remains of a turn once everything has come in, short of the mesh and the ring. `mesh_bytes` wait for room in the mesh.
    pub(crate) fn end_turn(&mut self, mesh_bytes: u64) {
        self.handle_timers();
        self.continue_evacuation();
        self.continue_reload();
        self.resume_sessions();
        let waiting_bytes = self.publishes.held_bytes() + self.remotes.bytes() + mesh_bytes;
        self.budget.observe(waiting_bytes, &self.metrics);
        self.relieve();
        self.settle();
        while self.services.end_turn(self.now) {
            // What is answered here may be asked for more, which nothing else would end the turn of.
            self.settle();
        }
        self.send_taken();
        self.flush();
        self.count_unheard();
        self.count_tally();
    }

    /// Whether something is left to do that nothing will wake the shard for.
    pub(crate) const fn has_more(&self) -> bool {
        self.reload_at.is_some() || !self.resumable.is_empty() || !self.dirty.is_empty()
    }
}

#[cfg(test)]
mod tests;
