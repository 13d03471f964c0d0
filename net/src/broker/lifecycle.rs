//! Birth and death of connections, their timers, draining, and the tour after a reload.

use super::Broker;
use super::conn::{Conn, PauseReasons, RingOp};
use crate::limiter::ConnPermit;
use crate::stage::{Pipeline, StageError};
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::Slot;
use bifro_core::ports::Services;
use bifro_core::settings::Resource;
use bifro_core::time::Instant;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{Origin, Session};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a connection whose session is over may take to read its last bytes.
const LINGER: Duration = Duration::from_secs(3);
/// Sessions told of a reload per turn.
const RELOADS_PER_TURN: u32 = 512;
/// Share of the time until the deadline in which draining tries to be done.
const DRAIN_SHARE_PERCENT: u32 = 80;

/// Ending all sessions within a deadline, at an even rate.
#[derive(Debug)]
pub(crate) struct Drain {
    /// When the last session should have been told.
    until: Instant,
    deadline: Instant,
    next: u32,
}

impl Drain {
    pub(crate) fn new(now: Instant, deadline: Instant) -> Self {
        let until = now + deadline.since(now) * DRAIN_SHARE_PERCENT / 100;
        Self { until, deadline, next: 0 }
    }
}

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
        let staged = Pipeline::new(&settings.stages, peer)
            .map(|pipeline| Box::new(super::conn::Staged { pipeline, net: Vec::new() }));
        let deadline = self.now + settings.connect_deadline;
        self.metrics.connections.add(1);
        self.metrics.connections_accepted.add(1);
        self.conns.insert(Box::new(Conn {
            slot,
            session: Session::new(origin, self.now),
            staged,
            partial: Vec::new(),
            wire: bifro_mqtt::wire::Wire::default(),
            sending_bytes: 0,
            quota_bytes: 0,
            accounted_bytes: 0,
            turn_bytes: 0,
            turn: 0,
            bulk: 0,
            paused: PauseReasons::default(),
            recv_paused: false,
            dirty: false,
            closing: false,
            congested: false,
            peer_gone: false,
            counted: false,
            leaving: false,
            stages_closed: false,
            auth: None,
            subs: smallvec::SmallVec::new(),
            timer_at: None,
            deadline: Some(deadline),
            shaper: None,
            permit: Some(permit),
        }));
        self.schedule(slot);
    }

    /// The peer has closed or broken the connection.
    pub(super) fn handle_peer_gone(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.peer_gone = true;
        if !conn.closing {
            self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
            self.settle();
        }
        if let Some(conn) = self.conns.get_mut(slot).filter(|conn| !conn.dirty) {
            conn.dirty = true;
            self.dirty.push(slot);
        }
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
        self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
        self.settle();
    }

    /// The session is over: the rest of its bytes goes out within [`LINGER`].
    pub(super) fn begin_closing(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.closing = true;
        conn.partial = Vec::new();
        conn.deadline = Some(self.now + LINGER);
        if conn.recv_paused {
            conn.recv_paused = false;
            self.metrics.receive_paused.sub(1);
        }
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
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
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let shaper = conn.shaper.as_ref().into_iter().flat_map(|shaper| [shaper.receive_at, shaper.send_at]);
        let session = if conn.closing { None } else { conn.session.next_timeout() };
        let next = shaper.chain([session, conn.deadline]).flatten().min();
        let Some(next) = next else { return };
        if conn.timer_at.is_none_or(|at| next < at) {
            conn.timer_at = Some(next);
            self.wheel.schedule(slot, next);
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
        if self.services.next_timeout().is_some_and(|at| at <= self.now) {
            self.services.handle_timeout(self.now);
        }
        self.settle();
    }

    fn handle_conn_timer(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.timer_at.is_none_or(|at| at > self.now) {
            return;
        }
        conn.timer_at = None;
        if conn.deadline.is_some_and(|at| at <= self.now) {
            conn.deadline = None;
            self.handle_deadline(slot);
        }
        self.handle_shaper(slot);
        let Some(conn) = self.conns.get(slot) else { return };
        if !conn.closing && conn.session.next_timeout().is_some_and(|at| at <= self.now) {
            self.with_session(slot, |session, cx, out| session.handle_timeout(cx, out));
            self.settle();
        }
        self.schedule(slot);
    }

    fn handle_deadline(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.closing {
            self.ring_ops.push(RingOp::Abort(slot));
        } else if !conn.session.is_connected() {
            let mut event = Event::of(EventKind::ConnectTimeout, None, "no CONNECT was accepted in time");
            event.peer = conn.session.peer();
            self.report(event);
            self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
        } else if conn.congested {
            self.metrics.slow_disconnects.add(1);
            let detail = format!("{} bytes unread for {:?}", conn.outgoing_bytes(), self.settings.stall_deadline);
            let event = Event::of(EventKind::SubStalled, conn.session.client(), detail);
            self.report(event);
            self.with_session(slot, |session, cx, out| session.close(cx, Reason::QUOTA_EXCEEDED, None, out));
        }
        self.settle();
    }

    fn handle_shaper(&mut self, slot: Slot) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some(shaper) = &mut conn.shaper else { return };
        let receive = shaper.receive_at.take_if(|at| *at <= now).is_some();
        if shaper.send_at.take_if(|at| *at <= now).is_some() && !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
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

    /// Ends the next few sessions of a draining shard. True when the shard is done.
    pub(super) fn continue_drain(&mut self) -> bool {
        let Some(drain) = &mut self.draining else { return false };
        if self.conns.len() == 0 || self.now >= drain.deadline {
            return true;
        }
        let left = self.conns.bound().saturating_sub(drain.next);
        let ticks = u32::try_from(drain.until.since(self.now).as_millis() / 10).unwrap_or(u32::MAX);
        let (start, share) = (drain.next, left.div_ceil(ticks.max(1)).max(64));
        drain.next = start.saturating_add(share);
        for index in start..start.saturating_add(share).min(self.conns.bound()) {
            if let Some(slot) = self.conns.at(index) {
                self.with_session(slot, |session, cx, out| {
                    session.close(cx, Reason::SERVER_SHUTTING_DOWN, None, out);
                });
            }
        }
        self.settle();
        false
    }

    /// When the loop has to turn again even if nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let drain = self.draining.as_ref().map(|_| self.now + Duration::from_millis(10));
        [self.wheel.next(), self.publishes.next_deadline(), self.services.next_timeout(), drain]
            .into_iter()
            .flatten()
            .min()
    }
}
