//! Birth and death of connections, their timers, draining, and the tour after a reload.
//!
//! A session's timers rest while its connection is not read from: the client's Keep Alive may lie in what we do not read.

use super::Broker;
use super::ShardMessage;
use super::conn::{Conn, Deadline, PauseReasons, RingOp, Staged};
use super::drain::Drain;
use crate::limiter::ConnPermit;
use crate::stage::{Pipeline, StageError};
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ShardId, Slot};
use bifro_core::ports::Services;
use bifro_core::settings::Resource;
use bifro_core::time::{Instant, earlier};
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{Origin, Session};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a connection whose session is over may take to read its last bytes.
const LINGER: Duration = Duration::from_secs(3);
/// Sessions told of a reload per turn; each asks for a permission per subscription.
const RELOADS_PER_TURN: u32 = 64;
/// How often a draining shard goes on.
const DRAIN_STEP: Duration = Duration::from_millis(10);

impl<S: Services> Broker<S> {
    /// A connection was accepted and admitted.
    pub(super) fn open(&mut self, slot: Slot, listener: u16, peer: Option<SocketAddr>, permit: ConnPermit) {
        let settings = &self.settings.listeners[listener as usize];
        let origin = Origin {
            listener,
            transport: settings.transport,
            peer,
            certificate: None,
            nonce: u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64()),
            pre_auth_packet_bytes_max: settings.pre_auth_packet_bytes_max,
        };
        let deadline = Deadline::Connect(self.now + settings.connect_deadline);
        let mut conn = Box::new(Conn::new(slot, Session::new(origin, self.now), deadline));
        conn.staged =
            Pipeline::new(&settings.stages, peer).map(|pipeline| Box::new(Staged { pipeline, net: Vec::new() }));
        conn.permit = Some(permit);
        self.conns.insert(conn);
        self.metrics.connections.add(1);
        self.metrics.connections_accepted.add(1);
        self.schedule(slot);
    }

    /// The peer has ended its side in order: nothing more will come, but what has come counts, and it may still read.
    pub(super) fn handle_peer_ended(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.ended = true;
        self.end_if_drained(slot);
    }

    /// Ends the session of a peer that has ended its side, once everything it sent before has been handled.
    pub(super) fn end_if_drained(&mut self, slot: Slot) {
        if self.conns.get(slot).is_some_and(|conn| conn.ended && !conn.closing && conn.is_drained()) {
            self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
            self.settle();
        }
    }

    /// The connection is broken: nothing can be received or sent any more.
    pub(super) fn handle_broken(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.broken = true;
        if !conn.closing {
            self.with_session(slot, |session, cx, out| session.handle_broken(cx, out));
            self.settle();
        }
        self.mark_dirty(slot);
    }

    /// A stage found the peer wrong: what it has to say goes out, then the connection is closed.
    pub(super) fn stage_failed(&mut self, slot: Slot, error: &StageError) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        self.metrics.handshake_failures.add(1);
        let mut event = Event::of(EventKind::ChannelError, conn.session.client(), error.to_string());
        event.peer = conn.staged.as_ref().and_then(|staged| staged.pipeline.peer());
        // The stage has said what there was to say.
        conn.stages_closed = true;
        self.report(event);
        self.with_session(slot, |session, cx, out| session.handle_broken(cx, out));
        self.settle();
    }

    /// The session is over: the rest of its bytes goes out within [`LINGER`].
    pub(super) fn begin_closing(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.closing = true;
        conn.partial.take();
        conn.deadline = Deadline::Linger(self.now + LINGER);
        if std::mem::take(&mut conn.admitted) {
            self.metrics.sessions.sub(1);
        }
        if std::mem::take(&mut conn.recv_paused) {
            self.metrics.receive_paused.sub(1);
        }
        self.mark_dirty(slot);
        self.schedule(slot);
    }

    /// The ring is told to close; the table forgets the connection.
    pub(super) fn forget(&mut self, slot: Slot) {
        let Some(mut conn) = self.conns.remove(slot) else { return };
        self.budget.recount(&mut conn.accounted_bytes, 0);
        let quota = &self.tenants.ctx(conn.session.tenant()).quota;
        quota.recount(Resource::TotalSessionMemoryBytes, conn.quota_bytes, 0);
        self.metrics.connections.sub(1);
        self.wires.put(std::mem::take(&mut conn.wire));
    }

    /// Makes sure that the wheel calls for whatever is due next.
    pub(super) fn schedule(&mut self, slot: Slot) {
        if let Some(at) = self.conns.get_mut(slot).and_then(|conn| conn.next_alarm()) {
            self.wheel.schedule(slot, at);
        }
    }

    /// Fires what is due.
    pub(super) fn handle_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for slot in due.drain(..) {
            self.handle_conn_timer(slot);
        }
        self.due = due;
        self.expire_publishes();
        self.try_again();
        if self.services.peek().next_timeout().is_some_and(|at| at <= self.now) {
            self.services.ask().handle_timeout(self.now);
        }
        self.settle();
    }

    fn handle_conn_timer(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if !conn.take_alarm(self.now) {
            return;
        }
        if conn.deadline.at().is_some_and(|at| at <= self.now) {
            self.handle_deadline(slot);
        }
        self.handle_shaper(slot);
        let Some(conn) = self.conns.get(slot) else { return };
        if conn.session_due_at().is_some_and(|at| at <= self.now) {
            self.with_session(slot, |session, cx, out| session.handle_timeout(cx, out));
        }
        self.settle();
        self.schedule(slot);
    }

    fn handle_deadline(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        match std::mem::replace(&mut conn.deadline, Deadline::None) {
            Deadline::None => {}
            Deadline::Linger(_) => self.ring_ops.push_back(RingOp::Abort(slot)),
            Deadline::Connect(_) => {
                let mut event = Event::of(EventKind::ConnectTimeout, None, "no CONNECT was accepted in time");
                event.peer = conn.session.peer();
                self.report(event);
                self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
            }
            Deadline::Stall(_) => {
                self.metrics.slow_disconnects.add(1);
                let detail = format!("{} bytes unread for {:?}", conn.outgoing_bytes(), self.settings.stall_deadline);
                let event = Event::of(EventKind::SubStalled, conn.session.client(), detail);
                self.report(event);
                self.with_session(slot, |session, cx, out| session.close(cx, Reason::QUOTA_EXCEEDED, None, out));
            }
        }
        // A session that ends here is closing, with a deadline of its own, before that is looked at.
        self.settle();
    }

    fn handle_shaper(&mut self, slot: Slot) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some(shaper) = &mut conn.shaper else { return };
        let receive = shaper.receive_at.take_if(|at| *at <= now).is_some();
        if shaper.send_at.take_if(|at| *at <= now).is_some() {
            self.mark_dirty(slot);
        }
        if receive {
            self.unpause(slot, PauseReasons::RATE);
        }
    }

    /// Tells the next few sessions of a reload.
    pub(super) fn continue_reload(&mut self) {
        let Some(start) = self.reload_at else { return };
        let end = start.saturating_add(RELOADS_PER_TURN).min(self.conns.bound());
        for index in start..end {
            if let Some(slot) = self.conns.at(index) {
                self.with_session(slot, |session, cx, out| session.handle_reloaded(cx, out));
            }
        }
        self.reload_at = (end < self.conns.bound()).then_some(end);
        self.settle();
    }

    /// Accepts no more, and begins to end all sessions.
    pub(super) fn begin_drain(&mut self, within: Duration) {
        self.ring_ops.push_back(RingOp::StopListening);
        self.draining.get_or_insert_with(|| Drain::new(self.now, within));
        self.services.ask().hand_over(self.now);
        self.settle();
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Ends the next few sessions of a draining shard. True when the shard is done: no connection is left here, and none
    /// elsewhere whose session might need what this shard holds; or the deadline has passed.
    pub(super) fn continue_drain(&mut self) -> bool {
        let Some(drain) = &mut self.draining else { return false };
        if self.now >= drain.deadline() {
            return true;
        }
        for index in drain.advance(self.now, self.conns.bound()) {
            if let Some(slot) = self.conns.at(index) {
                self.with_session(slot, |session, cx, out| {
                    session.close(cx, Reason::SERVER_SHUTTING_DOWN, None, out);
                });
            }
        }
        self.settle();
        let Some(drain) = &mut self.draining else { return false };
        // A publisher elsewhere waits for every range that nobody leads.
        if self.conns.len() > 0 || !self.services.peek().is_handed_over() {
            return false;
        }
        if drain.announce() {
            for shard in (0..self.settings.shards).map(ShardId).filter(|&shard| shard != self.shard) {
                self.to_peers.push((shard, ShardMessage::Drained));
            }
        }
        self.peers_drained + 1 >= self.settings.shards
    }

    /// When the loop has to turn again even if nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let is_draining = self.draining.is_some() || self.is_evacuating();
        let drain = is_draining.then_some(self.now + DRAIN_STEP);
        let own = earlier(self.wheel.next(), self.publishes.next_deadline());
        earlier(earlier(own, self.services.peek().next_timeout()), drain)
    }
}
