//! The loop of one shard: ring, mesh and [`Broker`] brought together.
//!
//! A turn takes from each source what is there, up to a bound ([`TURN_WORK`]), and leaves the rest, in order, to the next turn:
//! first fresh bytes, then bytes of connections that send more than their share (the bulk queue), then the other shards. The bulk queue
//! also waits while another shard is behind ([`MeshEnd::is_peer_behind`]): a queue between shards is the same for everybody.

use super::conn::{PauseReasons, RingOp};
use super::uplinks::Uplinks;
use super::{Broker, BrokerParts, BrokerSettings, Command, EventSink, ShardMessage, TenantRegistry};
use crate::clock::Clock;
use crate::links::{Hello, Links};
use crate::mesh::{Inlet, MeshEnd};
use crate::ring::{BufferId, Event as RingEvent, Ring};
use bifro_core::ids::{ShardId, Slot};
use bifro_core::metrics::ShardMetrics;
use bifro_core::plugin::{Authenticator, Authorizer};
use bifro_core::ports::Services;
use bifro_core::time::{Instant, earlier};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Messages taken from the mesh at a time. What is left there tells its sender that this shard is behind.
const MESH_CHUNK: usize = 64;
/// Commands taken per turn.
const COMMANDS_PER_TURN: usize = 1_024;
/// What one turn does before everything produced is handed to the ring, in deliveries: some milliseconds.
pub(super) const TURN_WORK: usize = 32_768;
/// What one turn does at most for connections that send more than their share. Everybody's latency has half of a turn in it, and
/// a larger one would save them little: measured with a flood of 1 KiB messages, a turn costs 2 % of what this much work does.
const BULK_WORK: usize = TURN_WORK / 4;
/// Messages of other shards that a turn takes at least, if there are as many and they are not fan-outs worth half a turn.
const PEER_MESSAGES: usize = 128;
/// Bytes received that count as much as one delivery.
const BYTES_PER_WORK: usize = 8;
/// What a new connection counts as, in deliveries.
const ACCEPT_WORK: usize = 64;
/// How long a listener that cannot accept waits.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);
/// A shard turns at least this often, so that the admin thread sees that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// From one turn to the next, after which a shard looks first whether its links have ended: longer than [`HEARTBEAT`], and shorter than
/// it takes others to declare a node dead and go on without it.
const STOOD_STILL: Duration = Duration::from_millis(1_100);

/// How often a shard looks whether the others have recovered.
const RECOVERY_POLL: Duration = Duration::from_millis(2);

/// Names the socket of the links among what the ring watches.
const UPLINKS: u16 = 0;

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
    /// Its end of the links to other nodes, and how it greets them; none if the node stands alone.
    pub links: Option<(Links, Hello)>,
    /// Its network ring, with listeners not yet added.
    pub ring: Ring,
    /// Listening sockets, by listener.
    pub listeners: Vec<(u16, OwnedFd)>,
    /// The clock.
    pub clock: Clock,
    /// Shards of the process that have not taken in yet what an earlier process left. Clients are heard when none is left.
    pub recovering: Arc<AtomicUsize>,
}

/// One shard. See [`super`].
pub struct Shard<S: Services> {
    broker: Broker<S>,
    ring: Ring,
    mesh: MeshEnd<ShardMessage<S::Message>>,
    uplinks: Option<Uplinks>,
    inlet: Inlet<Command>,
    clock: Clock,
    beat: Box<dyn Fn()>,
    ring_events: Vec<RingEvent>,
    /// Events of the ring that wait for their turn.
    events: VecDeque<RingEvent>,
    /// Received buffers of connections that have used up their share of a turn.
    bulk: VecDeque<(Slot, BufferId, u32)>,
    /// They wait until another shard has caught up, or a node.
    bulk_waits: bool,
    peer_scratch: Vec<(ShardId, ShardMessage<S::Message>)>,
    /// Messages of other shards that wait for their turn.
    from_peers: VecDeque<(ShardId, ShardMessage<S::Message>)>,
    /// Bytes of the messages that wait for room in the mesh, roughly.
    overflow_bytes: u64,
    /// Listeners that could not accept, and when to try again.
    accept_again: Vec<(Instant, u16)>,
    /// Listeners that wait for the recovery.
    listeners: Vec<(u16, OwnedFd)>,
    recovering: Arc<AtomicUsize>,
    is_recovered: bool,
}

/// What a turn came to.
enum Turn {
    /// There was something to do, or still is.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The shard has been drained: this was the last turn.
    Drained,
}

impl<S: Services> Shard<S> {
    /// A shard that is ready to run, on the thread that made its ring.
    ///
    /// # Errors
    /// If there is no descriptor left with which to watch the links' socket.
    pub fn new(parts: ShardParts<S>) -> io::Result<Self> {
        let now = parts.clock.now();
        let mut ring = parts.ring;
        let broker = BrokerParts {
            shard: parts.shard,
            settings: parts.settings,
            metrics: parts.metrics,
            events: parts.events,
            services: parts.services,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            tenants: parts.tenants,
        };
        let uplinks = parts.links.map(|(links, me)| Uplinks::new(links, me));
        if let Some(uplinks) = &uplinks {
            ring.watch(uplinks.fd(), UPLINKS)?;
        }
        parts.mesh.set_waker(ring.waker());
        parts.inlet.attach(parts.mesh.bell());
        Ok(Self {
            broker: Broker::new(broker, now),
            ring,
            mesh: parts.mesh,
            uplinks,
            inlet: parts.inlet,
            clock: parts.clock,
            beat: parts.beat,
            ring_events: Vec::new(),
            events: VecDeque::new(),
            bulk: VecDeque::new(),
            bulk_waits: false,
            peer_scratch: Vec::new(),
            from_peers: VecDeque::new(),
            overflow_bytes: 0,
            accept_again: Vec::new(),
            listeners: parts.listeners,
            recovering: parts.recovering,
            is_recovered: false,
        })
    }

    /// Runs until the shard has been drained.
    ///
    /// # Errors
    /// If the ring fails, which leaves the shard without a network.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            match self.turn()? {
                // Other tasks of the executor get their turn here, once a millisecond.
                Turn::Worked => self.ring.park(Some(Duration::ZERO)).await?,
                Turn::Idle => self.park().await?,
                Turn::Drained => {
                    self.ring.turn(&mut self.ring_events)?;
                    return Ok(());
                }
            }
        }
    }

    fn turn(&mut self) -> io::Result<Turn> {
        (self.beat)();
        self.ring.turn(&mut self.ring_events)?;
        let before = self.broker.now;
        // What has come was sent before: so it is judged by what held when it was sent, or later.
        self.broker.begin_turn(self.clock.now());
        if self.broker.now.since(before) > STOOD_STILL {
            // Other nodes may have taken this one for dead: what its clients send now must not be judged by what was known before.
            self.handle_uplinks();
        }
        self.events.extend(self.ring_events.drain(..));
        let worked = !self.events.is_empty();
        let worked = self.broker.poll_services() || worked;
        self.handle_ring_events();
        let heard = self.handle_bulk() | self.handle_peers() | self.handle_commands() | self.handle_uplinks();
        self.accept_again();
        self.listen_when_recovered();
        let drained = self.broker.continue_drain();
        self.finish_turn();
        let worked = worked || heard;
        let metrics = &self.broker.metrics;
        metrics.turns.add(u64::from(worked));
        metrics.mesh_overflow.set(self.mesh.overflow_len() as u64);
        metrics.ring_enters.set(self.ring.counters().enters);
        let has_more = self.broker.has_more() || self.uplinks.as_ref().is_some_and(Uplinks::has_more);
        Ok(match (drained, worked || has_more) {
            (true, _) => Turn::Drained,
            (false, true) => Turn::Worked,
            (false, false) => Turn::Idle,
        })
    }

    /// Hands everything that was produced to the mesh and the ring.
    fn finish_turn(&mut self) {
        self.broker.end_turn(self.overflow_bytes);
        if let Some(uplinks) = &mut self.uplinks {
            uplinks.flush(&mut self.broker);
        }
        self.send_to_peers();
        while let Some(op) = self.broker.next_ring_op() {
            match op {
                RingOp::Send(slot, wire) => self.ring.send(slot, wire),
                RingOp::Pause(slot) => self.ring.pause_recv(slot),
                RingOp::Resume(slot) => self.ring.resume_recv(slot),
                RingOp::Close(slot) => self.ring.close(slot),
                RingOp::Abort(slot) => self.ring.abort(slot),
                RingOp::StopListening => {
                    self.listeners.clear();
                    self.ring.stop_listening();
                }
            }
        }
    }

    fn handle_ring_events(&mut self) {
        // Whoever has sent more than its share gets its part of the turn even so.
        let most = if self.bulk.is_empty() { TURN_WORK } else { TURN_WORK - BULK_WORK };
        while self.broker.work < most {
            let Some(event) = self.events.pop_front() else { return };
            match event {
                RingEvent::Accepted { listener, fd } => self.accept(listener, fd),
                RingEvent::AcceptFailed { listener, error } => self.accept_failed(listener, &error),
                RingEvent::Received { slot, buffer, len } => self.received(slot, buffer, len),
                RingEvent::Closed { slot, error: None } => self.broker.handle_peer_ended(slot),
                RingEvent::Closed { slot, error: Some(_) } => self.broker.handle_broken(slot),
                RingEvent::Readable { token: _ } => {
                    if let Some(uplinks) = &mut self.uplinks {
                        uplinks.set_readable();
                    }
                }
                RingEvent::Sent { slot, wire, error } => self.broker.handle_sent(slot, wire, error.as_ref()),
            }
        }
    }

    fn received(&mut self, slot: Slot, buffer: BufferId, len: u32) {
        let (turn, share) = (self.broker.turn, self.broker.settings.turn_bytes_per_conn);
        let Some(conn) = self.broker.conns.get_mut(slot) else {
            self.ring.recycle(buffer);
            return;
        };
        if conn.turn != turn {
            (conn.turn, conn.turn_bytes) = (turn, 0);
        }
        conn.turn_bytes = conn.turn_bytes.saturating_add(len);
        if conn.bulk > 0 || conn.turn_bytes as usize > share {
            conn.bulk += 1;
            self.bulk.push_back((slot, buffer, len));
            self.broker.pause(slot, PauseReasons::TURN);
            return;
        }
        self.serve(slot, buffer, len);
    }

    fn serve(&mut self, slot: Slot, buffer: BufferId, len: u32) {
        self.broker.work += len as usize / BYTES_PER_WORK + 1;
        self.broker.receive(slot, self.ring.buffer(&buffer, len));
        self.ring.recycle(buffer);
    }

    /// Serves connections that send more than their share, in the order in which it came. They wait while another shard is
    /// behind: what others send there would have to wait behind theirs. True if any was served.
    fn handle_bulk(&mut self) -> bool {
        self.bulk_waits = !self.bulk.is_empty() && (self.mesh.is_peer_behind() || self.broker.remotes.is_node_behind());
        if self.bulk_waits {
            return false;
        }
        let most = TURN_WORK.min(self.broker.work + BULK_WORK);
        let mut worked = false;
        while self.broker.work < most {
            let Some((slot, buffer, len)) = self.bulk.pop_front() else { break };
            worked = true;
            self.serve(slot, buffer, len);
            let Some(conn) = self.broker.conns.get_mut(slot) else { continue };
            conn.bulk -= 1;
            if conn.bulk == 0 {
                self.broker.unpause(slot, PauseReasons::TURN);
                self.broker.end_if_drained(slot);
            }
        }
        worked
    }

    /// True if there was anything.
    fn handle_peers(&mut self) -> bool {
        let own = self.broker.work;
        let mut handled = 0;
        // However busy the own connections are, the other shards get half as much.
        while self.broker.work < own + TURN_WORK / 2 && (handled < PEER_MESSAGES || self.broker.work < own + own / 2) {
            if self.from_peers.is_empty() {
                self.mesh.drain(MESH_CHUNK, &mut self.peer_scratch);
                self.from_peers.extend(self.peer_scratch.drain(..));
                // What a peer has sent is not from the future: else a message would have longer to live than it was given.
                self.broker.now = self.clock.now();
            }
            let Some((from, message)) = self.from_peers.pop_front() else { break };
            self.broker.handle_peer(from, message);
            handled += 1;
        }
        handled > 0
    }

    /// True if there were any.
    fn handle_commands(&mut self) -> bool {
        for handled in 0..COMMANDS_PER_TURN {
            let Some(command) = self.inlet.pop() else { return handled > 0 };
            let nodes = if let Command::Nodes(nodes) = &command { Some(nodes.clone()) } else { None };
            self.broker.handle_command(command);
            if let (Some(nodes), Some(uplinks)) = (nodes, &mut self.uplinks) {
                uplinks.set_nodes(&nodes, &mut self.broker);
            }
        }
        true
    }

    /// True if there was anything.
    fn handle_uplinks(&mut self) -> bool {
        // As other shards: half as much as the own connections, and a good deal anyway.
        let most = (TURN_WORK / 2).max(self.broker.work / 2);
        self.uplinks.as_mut().is_some_and(|uplinks| uplinks.turn(&mut self.broker, most))
    }

    fn send_to_peers(&mut self) {
        self.broker.metrics.mesh_sent.add(self.broker.to_peers.len() as u64);
        for (shard, message) in self.broker.to_peers.drain(..) {
            let (before, bytes) = (self.mesh.overflow_len(), message.footprint_bytes());
            self.mesh.send(shard, message);
            if self.mesh.overflow_len() > before {
                self.overflow_bytes += bytes as u64;
            }
        }
        let before = self.mesh.overflow_len() as u64;
        self.mesh.flush();
        // Which messages went is the mesh's business: they are counted with their average.
        let left = self.mesh.overflow_len() as u64;
        self.overflow_bytes = (self.overflow_bytes / before.max(1)).saturating_mul(left);
    }

    fn accept(&mut self, listener: u16, fd: OwnedFd) {
        self.broker.work += ACCEPT_WORK;
        if self.broker.is_draining() {
            // Accepted before the listeners were closed; nobody would tell it to go.
            return;
        }
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

    /// Until every shard has taken in what an earlier process left, clients wait in the listeners' backlogs.
    fn listen_when_recovered(&mut self) {
        if self.listeners.is_empty() && self.is_recovered {
            return;
        }
        if !self.is_recovered && self.broker.is_recovered() {
            self.is_recovered = true;
            self.recovering.fetch_sub(1, Ordering::Release);
        }
        if self.recovering.load(Ordering::Acquire) == 0 {
            for (listener, fd) in self.listeners.drain(..) {
                self.ring.listen(fd, listener);
            }
        }
    }

    /// Tries listeners again that could not accept.
    fn accept_again(&mut self) {
        let (now, ring) = (self.broker.now, &mut self.ring);
        self.accept_again.retain(|&(at, listener)| {
            let due = at <= now;
            if due {
                ring.resume_accept(listener);
            }
            !due
        });
    }

    async fn park(&mut self) -> io::Result<()> {
        if !self.mesh.prepare_park(self.bulk_waits && !self.broker.remotes.is_node_behind()) {
            return Ok(());
        }
        if self.inlet.is_empty() && self.broker.is_storage_quiet() {
            let accept = self.accept_again.iter().map(|&(at, _)| at).min();
            let next = earlier(self.broker.next_deadline(), accept);
            let next = earlier(next, self.uplinks.as_ref().and_then(Uplinks::next_timeout));
            let most = if self.listeners.is_empty() { HEARTBEAT } else { RECOVERY_POLL };
            let delay = next.map_or(most, |at| at.since(self.broker.now).min(most));
            self.broker.metrics.parks.add(1);
            self.ring.park(Some(delay)).await?;
        }
        self.mesh.unpark();
        Ok(())
    }
}
