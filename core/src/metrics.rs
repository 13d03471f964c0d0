//! Metric cells: each shard owns one [`ShardMetrics`], writes it without contention and lets the admin thread read it.

use core::sync::atomic::{AtomicU64, Ordering};

/// A counter or gauge with one writer: the owning shard adds by plain load and store, any thread may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`; only the owning shard may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`; only the owning shard may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets the value; only the owning shard may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value as of some moment ago.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counter or gauge, as Prometheus tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Declares a table of cells that can name itself: the fields, their kinds and their help texts.
#[macro_export]
macro_rules! metric_cells {
    ($(#[$attribute:meta])* $table:ident { $($field:ident: $kind:ident, $help:literal;)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $table { $(#[doc = $help] pub $field: $crate::metrics::Cell),* }

        impl $table {
            /// Name, kind, help and value of every cell.
            pub fn each(&self, mut visit: impl FnMut(&'static str, $crate::metrics::Kind, &'static str, u64)) {
                $(visit(stringify!($field), $crate::metrics::Kind::$kind, $help, self.$field.read());)*
            }
        }
    };
}

metric_cells! {
    /// The cells of one shard. Names follow Prometheus' conventions once `bifro_` is put before them and, for counters, `_total`
    /// behind them.
    ShardMetrics {
        connections: Gauge, "Open network connections.";
        sessions: Gauge, "Connected MQTT sessions.";
        connections_accepted: Counter, "Connections accepted.";
        connections_refused: Counter, "Connections closed by a listener limit before any byte was read.";
        connects_accepted: Counter, "CONNECT packets answered with success.";
        connects_refused: Counter, "CONNECT packets answered with a refusal.";
        disconnects: Counter, "Sessions ended, for whatever reason.";
        protocol_violations: Counter, "Connections closed because the peer broke the protocol.";
        received_bytes: Counter, "Bytes received from clients.";
        sent_bytes: Counter, "Bytes sent to clients.";
        packets_received: Counter, "MQTT packets received.";
        publishes_received: Counter, "PUBLISH packets received.";
        publishes_sent: Counter, "PUBLISH packets sent.";
        publishes_unmatched: Counter, "Messages published that nobody had subscribed to.";
        publish_timeouts: Counter, "QoS 1 and 2 publishes that were not taken over in time.";
        publish_rate_exceeded: Counter, "Publishes beyond a client's or tenant's publish rate.";
        dropped_qos0_slow: Counter, "QoS 0 messages dropped because the subscriber's connection was over its high-water mark.";
        dropped_queue_full: Counter, "Messages dropped because a session's queue was full.";
        dropped_oversize: Counter, "Messages not sent because they exceed the client's Maximum Packet Size.";
        dropped_expired: Counter, "Messages that expired before delivery.";
        dropped_permission: Counter, "Messages not delivered because permission was refused or revoked.";
        slow_disconnects: Counter, "Connections closed because their peer stopped reading.";
        write_buffer_bytes: Gauge, "Bytes waiting in write buffers.";
        memory_budget_bytes: Gauge, "Memory budget of the shard.";
        memory_used_bytes: Gauge, "Memory counted against the budget of the shard.";
        receive_paused: Gauge, "Connections whose reading is paused by back-pressure.";
        match_cache_hits: Counter, "Publishes matched from the cache.";
        match_cache_misses: Counter, "Publishes that had to ask for their match.";
        mesh_sent: Counter, "Messages sent to other shards.";
        mesh_overflow: Gauge, "Messages waiting for room in a queue to another shard.";
        turns: Counter, "Turns of the shard's loop that found work.";
        parks: Counter, "Times the shard went to sleep.";
        ring_enters: Counter, "io_uring_enter system calls of the network ring.";
        subscriptions: Gauge, "Subscriptions of live transient sessions.";
        inboxes: Gauge, "Persistent sessions held.";
        inbox_messages: Gauge, "Messages queued in persistent sessions.";
        inbox_bytes: Gauge, "Bytes of messages queued in persistent sessions.";
        inbox_resident_bytes: Gauge, "Of these, bytes in memory: messages that nobody waits for are on disk alone.";
        store_held_bytes: Gauge, "Bytes of changes in memory that are not in the key-value base yet.";
        store_stalled: Gauge, "Shards whose writes the log has not confirmed for 3 s: its disk stalls.";
        retained_messages: Gauge, "Retained messages held.";
        retained_bytes: Gauge, "Bytes of retained messages held.";
        routes: Gauge, "Routes held.";
        wills_published: Counter, "Wills published.";
        takeovers: Counter, "Sessions kicked by another connection with their client id.";
        links: Gauge, "Links of this shard to other nodes.";
        delivered_dropped: Counter, "Publishes of QoS 2 of which a shard no longer knows that its connections have them, since it has noted too many.";
        publishes_inquired: Counter, "Publishes of QoS 2 that may have been tried before, so that all nodes were asked which groups have them.";
        publishes_retried: Counter, "Publishes of QoS 1 routed again, since a range of sessions has changed its leader meanwhile.";
        inboxes_lost: Counter, "Connections closed because nobody led the range of their session for too long, or its leader had given them up.";
        inboxes_moved: Counter, "Connections that went on with their session under another leader.";
        ranges_led: Gauge, "Ranges of persistent sessions that this node leads.";
        ranges_held: Gauge, "Ranges of persistent sessions of which this node has a replica.";
        ranges_moving: Gauge, "Ranges led by this node that have not all their replicas, or not where they belong.";
        ranges_unled: Gauge, "Ranges that nobody leads, as far as a shard knows: no publish is routed until all have leaders.";
        nodes_unheard: Gauge, "Live nodes that have not told this one yet what they listen to: they are sent messages of QoS 0, and publishers of QoS 1 and 2 wait.";
        forwarded: Counter, "Messages handed to other nodes.";
        forwards_received: Counter, "Messages of other nodes taken in.";
        forwards_failed: Counter, "Messages that could not be handed to another node, or whose node did not answer.";
        link_sent_bytes: Counter, "Bytes sent to other nodes.";
        link_received_bytes: Counter, "Bytes received from other nodes.";
        drained: Counter, "Sessions told to go to another node, because this one is being drained.";
        auth_failures: Counter, "Authentications refused.";
        handshake_failures: Counter, "Connections closed during a PROXY, TLS or WebSocket handshake.";
    }
}
