//! What the driver needs to know of the configuration.

use crate::limiter::ConnLimiter;
use crate::stage::ListenerStages;
use bifro_core::client::Transport;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the driver, the same on every shard.
#[derive(Debug)]
pub struct BrokerSettings {
    /// Number of shards.
    pub shards: u16,
    /// Listeners; their index is the listener id.
    pub listeners: Vec<ListenerSettings>,
    /// Bytes waiting for one connection beyond which QoS 0 is dropped and QoS 1 and 2 wait.
    pub write_high_water_bytes: usize,
    /// A connection over its high-water mark for so long is closed; zero = never.
    pub stall_deadline: Duration,
    /// QoS 1 and 2 publishes not taken over by then fail with 0x83.
    pub publish_deadline: Duration,
    /// Memory budget of one shard in bytes.
    pub shard_budget_bytes: u64,
    /// Bytes one connection may have served per turn before others get their share.
    pub turn_bytes_per_conn: usize,
    /// How many clients the node tells to go elsewhere in a second, over all shards, when it is to go itself.
    pub drain_per_s: u32,
    /// Key for hashing client identifiers.
    pub seed: u64,
    /// Drawn by this process: what it draws itself, such as client identifiers, no other draws, though all nodes of a cluster have one seed.
    pub nonce: u64,
}

/// One listener as the driver sees it.
#[derive(Debug)]
pub struct ListenerSettings {
    /// Name for logs: protocol and address.
    pub name: String,
    /// Transport of its connections.
    pub transport: Transport,
    /// Stages before MQTT.
    pub stages: ListenerStages,
    /// Admission limits, shared by all shards.
    pub limiter: Arc<ConnLimiter>,
    /// CONNECT must have been accepted by then.
    pub connect_deadline: Duration,
    /// Largest packet before authentication.
    pub pre_auth_packet_bytes_max: u32,
}
