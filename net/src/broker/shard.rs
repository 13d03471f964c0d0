//! The loop of one shard: ring, mesh and [`Broker`] brought together.

use super::budget::Budget;
use super::conn::{ConnTable, PauseReasons, RingOp};
use super::{Broker, BrokerSettings, Command, EventSink, ShardMessage, TenantRegistry, tenants::TenantTable};
use crate::clock::Clock;
use crate::mesh::{Inlet, MeshEnd};
use crate::ring::{BufferId, Event as RingEvent, Ring};
use crate::wheel::Wheel;
use bifro_core::ids::{ShardId, Slot};
use bifro_core::metrics::ShardMetrics;
use bifro_core::plugin::{Authenticator, Authorizer};
use bifro_core::ports::{Out, Services};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Resolution of timers: keep-alive and deadlines may be late by this.
const TICK: Duration = Duration::from_millis(20);
/// Messages taken from the mesh per turn.
const MESH_PER_TURN: usize = 4_096;
/// Commands taken per turn.
const COMMANDS_PER_TURN: usize = 1_024;
/// Bytes handled between two flushes of one turn.
const BYTES_PER_FLUSH: usize = 256 << 10;
/// Receive buffers that may wait in the bulk queue.
const BULK_BUFFERS_MAX: usize = 64;
/// How long a listener that cannot accept waits.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);
/// A shard turns at least this often, so that the admin thread sees that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a shard is made of.
pub struct ShardParts<S: Services> {
    /// Which shard.
    pub shard: ShardId,
    /// Settings.
    pub settings: Arc<BrokerSettings>,
    /// Its metric cells.
    pub metrics: Arc<ShardMetrics>,
    /// Called each turn: the shard lives.
    pub beat: Box<dyn Fn()>,
    /// Where events go.
    pub events: EventSink,
    /// Its end of the services.
    pub services: S,
    /// Its authentication chain.
    pub authenticator: Box<dyn Authenticator>,
    /// Answers permission questions.
    pub authorizer: Arc<dyn Authorizer>,
    /// All tenants.
    pub tenants: Arc<TenantRegistry>,
    /// Its end of the mesh.
    pub mesh: MeshEnd<ShardMessage<S::Message>>,
    /// Commands from other threads.
    pub inlet: Inlet<Command>,
    /// Its network ring, with listeners not yet added.
    pub ring: Ring,
    /// Listening sockets, by listener.
    pub listeners: Vec<(u16, OwnedFd)>,
    /// The clock.
    pub clock: Clock,
}

/// One shard. See [`super`].
pub struct Shard<S: Services> {
    broker: Broker<S>,
    ring: Ring,
    mesh: MeshEnd<ShardMessage<S::Message>>,
    inlet: Inlet<Command>,
    clock: Clock,
    beat: Box<dyn Fn()>,
    ring_events: Vec<RingEvent>,
    /// Received buffers of connections that have used up their share of a turn.
    bulk: VecDeque<(Slot, BufferId, u32)>,
    from_peers: Vec<(ShardId, ShardMessage<S::Message>)>,
    /// Listeners that could not accept, and when to try again.
    accept_again: Vec<(Instant, u16)>,
}

impl<S: Services> Shard<S> {
    /// A shard that is ready to run, on the thread that made its ring.
    pub fn new(parts: ShardParts<S>) -> Self {
        let now = parts.clock.now();
        let mut ring = parts.ring;
        for (listener, fd) in parts.listeners {
            ring.listen(fd, listener);
        }
        parts.metrics.memory_budget_bytes.set(parts.settings.shard_budget_bytes);
        let mut services = parts.services;
        for tenant in parts.tenants.all() {
            services.set_tenant(tenant);
        }
        let seed = Prng::new(parts.settings.seed).derive(u64::from(parts.shard.0));
        let broker = Broker {
            shard: parts.shard,
            budget: Budget::new(parts.settings.shard_budget_bytes, parts.settings.write_high_water_bytes),
            taken: vec![Vec::new(); usize::from(parts.settings.shards)],
            settings: parts.settings,
            metrics: parts.metrics,
            events: parts.events,
            services,
            services_out: Out::default(),
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            tenants: TenantTable::new(parts.tenants),
            conns: ConnTable::default(),
            fanout: super::fanout::FanoutTable::default(),
            scratch: bifro_mqtt::codec::FanoutScratch::default(),
            merged: Vec::new(),
            publishes: super::publish::PublishTable::default(),
            departures: super::departure::Departures::default(),
            requests: HashMap::new(),
            next_req: 0,
            effects: VecDeque::new(),
            effect_scratch: Vec::new(),
            tally: bifro_mqtt::session::Tally::default(),
            to_peers: Vec::new(),
            dirty: Vec::new(),
            ring_ops: Vec::new(),
            resumable: Vec::new(),
            starved: Vec::new(),
            turn: 0,
            wheel: Wheel::new(now, TICK),
            due: Vec::new(),
            wires: super::flush::WirePool::default(),
            rng: seed,
            now,
            draining: None,
            reload_at: None,
            app: Vec::new(),
        };
        parts.mesh.set_waker(ring.waker());
        parts.inlet.attach(parts.mesh.bell());
        Self {
            broker,
            ring,
            mesh: parts.mesh,
            inlet: parts.inlet,
            clock: parts.clock,
            beat: parts.beat,
            ring_events: Vec::new(),
            bulk: VecDeque::new(),
            from_peers: Vec::new(),
            accept_again: Vec::new(),
        }
    }

    /// Runs until the shard has been drained.
    ///
    /// # Errors
    /// If the ring fails, which leaves the shard without a network.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let worked = self.turn()?;
            if self.broker.continue_drain() {
                self.exchange();
                self.broker.flush(&mut self.ring);
                self.apply_ring_ops();
                self.ring.turn(&mut self.ring_events)?;
                return Ok(());
            }
            if worked {
                // Other tasks of the executor get their turn here, once a millisecond.
                self.ring.park(Some(Duration::ZERO)).await?;
            } else {
                self.park().await?;
            }
        }
    }

    /// One turn. True if there was anything to do.
    fn turn(&mut self) -> io::Result<bool> {
        (self.beat)();
        self.broker.now = self.clock.now();
        self.broker.turn = self.broker.turn.wrapping_add(1);
        self.broker.departures.begin_turn();
        self.ring.turn(&mut self.ring_events)?;
        let mut worked = !self.ring_events.is_empty() || !self.bulk.is_empty();
        self.handle_ring_events()?;
        self.handle_bulk()?;
        worked |= self.handle_inboxes();
        self.broker.handle_timers();
        let (now, ring) = (self.broker.now, &mut self.ring);
        self.accept_again.retain(|&(at, listener)| {
            let due = at <= now;
            if due {
                ring.resume_accept(listener);
            }
            !due
        });
        self.broker.continue_reload();
        self.broker.resume_sessions();
        let moving = self.broker.publishes.unmatched_bytes() + self.mesh.overflow_len() as u64 * 512;
        self.broker.budget.observe(moving, &self.broker.metrics);
        self.broker.relieve();
        self.finish();
        self.broker.count_tally();
        let metrics = &self.broker.metrics;
        metrics.turns.add(u64::from(worked));
        metrics.mesh_overflow.set(self.mesh.overflow_len() as u64);
        metrics.ring_enters.set(self.ring.counters().enters);
        Ok(worked || self.broker.reload_at.is_some())
    }

    /// Hands everything that was produced to the mesh and the ring.
    fn finish(&mut self) {
        self.exchange();
        self.broker.flush(&mut self.ring);
        self.apply_ring_ops();
    }

    fn handle_ring_events(&mut self) -> io::Result<()> {
        let mut handled = 0;
        let mut events = std::mem::take(&mut self.ring_events);
        for event in events.drain(..) {
            match event {
                RingEvent::Accepted { listener, fd } => self.accept(listener, fd),
                RingEvent::AcceptFailed { listener, error } => self.accept_failed(listener, &error),
                RingEvent::Received { slot, buffer, len } => handled += self.received(slot, buffer, len) as usize,
                RingEvent::Closed { slot, .. } => self.broker.handle_peer_gone(slot),
                RingEvent::Sent { slot, wire, error } => self.broker.handle_sent(slot, wire, error.as_ref()),
                RingEvent::Readable { .. } => {}
            }
            if handled >= BYTES_PER_FLUSH {
                handled = 0;
                self.finish();
            }
        }
        self.ring_events = events;
        Ok(())
    }

    fn received(&mut self, slot: Slot, buffer: BufferId, len: u32) -> u32 {
        let (turn, share) = (self.broker.turn, self.broker.settings.turn_bytes_per_conn);
        let Some(conn) = self.broker.conns.get_mut(slot) else {
            self.ring.recycle(buffer);
            return 0;
        };
        if conn.turn != turn {
            (conn.turn, conn.turn_bytes) = (turn, 0);
        }
        conn.turn_bytes = conn.turn_bytes.saturating_add(len);
        if conn.bulk > 0 || conn.turn_bytes as usize > share {
            conn.bulk += 1;
            self.bulk.push_back((slot, buffer, len));
            self.broker.pause(slot, PauseReasons::TURN);
            return 0;
        }
        self.broker.receive(slot, self.ring.buffer(&buffer, len));
        self.ring.recycle(buffer);
        len
    }

    /// Serves connections that send more than their share: some of it each turn, all of it if buffers run short.
    fn handle_bulk(&mut self) -> io::Result<()> {
        let mut handled = 0;
        while let Some((slot, buffer, len)) = self.bulk.pop_front() {
            self.broker.receive(slot, self.ring.buffer(&buffer, len));
            self.ring.recycle(buffer);
            handled += len as usize;
            if let Some(conn) = self.broker.conns.get_mut(slot) {
                conn.bulk -= 1;
                if conn.bulk == 0 {
                    self.broker.unpause(slot, PauseReasons::TURN);
                }
            }
            if handled >= BYTES_PER_FLUSH && self.bulk.len() < BULK_BUFFERS_MAX {
                break;
            }
        }
        Ok(())
    }

    fn handle_inboxes(&mut self) -> bool {
        self.mesh.drain(MESH_PER_TURN, &mut self.from_peers);
        let mut worked = !self.from_peers.is_empty();
        for (from, message) in self.from_peers.drain(..) {
            self.broker.handle_peer(from, message);
        }
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.inlet.pop() else { break };
            worked = true;
            self.broker.handle_command(command);
        }
        worked
    }

    fn exchange(&mut self) {
        self.broker.settle();
        self.broker.send_taken();
        self.broker.metrics.mesh_sent.add(self.broker.to_peers.len() as u64);
        for (shard, message) in self.broker.to_peers.drain(..) {
            self.mesh.send(shard, message);
        }
        self.mesh.flush();
    }

    fn accept(&mut self, listener: u16, fd: OwnedFd) {
        let peer = crate::ring::peer_addr(&fd);
        let settings = &self.broker.settings.listeners[usize::from(listener)];
        let proxy = settings.stages.proxy.as_ref();
        if proxy.is_some_and(|proxy| proxy.refuses(peer.map(|peer| peer.ip()))) {
            self.broker.metrics.connections_refused.add(1);
            tracing::warn!(?peer, listener = %settings.name, "connection closed: not from a network in proxy_trusted");
            return;
        }
        // Behind a proxy the client's address is known only later.
        let address = peer.filter(|_| proxy.is_none()).map(|peer| peer.ip());
        match settings.limiter.admit(address, self.broker.now) {
            Err(refused) => {
                self.broker.metrics.connections_refused.add(1);
                tracing::debug!(?peer, %refused, "connection refused");
            }
            Ok(permit) => {
                let slot = self.ring.add(fd);
                self.broker.open(slot, listener, peer, permit);
                self.ring.recv(slot);
            }
        }
    }

    fn accept_failed(&mut self, listener: u16, error: &io::Error) {
        let name = &self.broker.settings.listeners[usize::from(listener)].name;
        tracing::error!(listener = %name, %error, "cannot accept connections; raise the limit of open files (ulimit -n)");
        self.accept_again.push((self.broker.now + ACCEPT_BACK_OFF, listener));
    }

    fn apply_ring_ops(&mut self) {
        for op in std::mem::take(&mut self.broker.ring_ops) {
            match op {
                RingOp::Pause(slot) => {
                    // The pause may have been taken back within the turn, and the connection may be gone.
                    if self.broker.conns.get(slot).is_some_and(|conn| conn.recv_paused) {
                        self.ring.pause_recv(slot);
                    }
                }
                RingOp::Resume(slot) => {
                    if self.broker.conns.get(slot).is_some_and(|conn| !conn.recv_paused && !conn.closing) {
                        self.ring.resume_recv(slot);
                    }
                }
                RingOp::Close(slot) => {
                    if self.broker.conns.get(slot).is_some() {
                        self.broker.forget(slot);
                        self.ring.close(slot);
                    }
                }
                RingOp::Abort(slot) => {
                    if self.broker.conns.get(slot).is_some() {
                        self.broker.forget(slot);
                        self.ring.abort(slot);
                    }
                }
                RingOp::StopListening => self.ring.stop_listening(),
            }
        }
    }

    async fn park(&mut self) -> io::Result<()> {
        if !self.mesh.prepare_park() {
            return Ok(());
        }
        if self.inlet.is_empty() {
            let next = self.broker.next_deadline().map_or(HEARTBEAT, |at| at.since(self.broker.now).min(HEARTBEAT));
            self.broker.metrics.parks.add(1);
            self.ring.park(Some(next)).await?;
        }
        self.mesh.unpark();
        Ok(())
    }
}
