//! The MQTT driver of one shard: connections, sessions, local fan-out and the publishes that await completion.
//!
//! [`Shard`] owns everything that belongs to one core and is never touched by another. It is split in two so that bytes can
//! be decoded where the kernel put them: the network ring with its receive buffers stays in the loop ([`Shard::run`]), and
//! [`Broker`] gets slices of them. One turn is: reap completions, feed sessions, exchange with the other shards, fire
//! timers, then hand every dirty connection's bytes to the ring as one send each.
//!
//! # Invariants
//! - A connection lives and dies on the shard that accepted it.
//! - Effects of a session are carried out in order and before the next packet of that session is decoded.
//! - Nothing here blocks, and nothing here is shared: what other shards need travels over the mesh.

mod budget;
mod command;
mod completion;
mod conn;
mod departure;
mod effects;
mod fanout;
mod flush;
mod input;
mod lifecycle;
mod peer;
mod publish;
mod settings;
mod shaping;
mod shard;
mod shared;
mod tenants;

pub use command::{Command, Reload};
pub use peer::ShardMessage;
pub use settings::{BrokerSettings, ListenerSettings};
pub use shard::{Shard, ShardParts};
pub use tenants::{TenantPolicy, TenantRegistry};

use crate::wheel::Wheel;
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

/// Where typed events go.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// Everything of a shard except its ring.
pub(crate) struct Broker<S: Services> {
    shard: ShardId,
    settings: Arc<BrokerSettings>,
    metrics: Arc<ShardMetrics>,
    events: EventSink,
    services: S,
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
    /// Acknowledgements owed to other shards' publishes.
    taken: Vec<Vec<u64>>,
    /// Connections with bytes to send, each once.
    dirty: Vec<Slot>,
    /// Ring operations the loop carries out at the end of the turn.
    ring_ops: Vec<conn::RingOp>,
    /// Connections whose session takes packets again.
    resumable: Vec<Slot>,
    /// Connections paused because the shard was over its budget.
    starved: Vec<Slot>,
    /// Number of the turn.
    turn: u32,
    wheel: Wheel<Slot>,
    due: Vec<Slot>,
    budget: budget::Budget,
    wires: flush::WirePool,
    rng: Prng,
    now: Instant,
    draining: Option<lifecycle::Drain>,
    /// Next connection to be told of a reload.
    reload_at: Option<u32>,
    /// Application bytes behind the stages of the connection at hand.
    app: Vec<u8>,
}
