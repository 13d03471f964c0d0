//! From bytes to packets to the session.
//!
//! Packets are decoded where the bytes lie: in the ring's buffer, or in the connection's `partial` buffer if a packet is
//! split over receives or the session does not want packets at present. `partial` never holds more than one incomplete packet,
//! whose size the decoder has already admitted, plus what the kernel had received before reading was paused.
//!
//! Reading is paused for the reasons of [`PauseReasons`], each of which has one place that takes it back: `SESSION` in
//! [`Broker::resume_sessions`], `TURN` where the bulk queue is served, `BUDGET` in [`Broker::relieve`], `RATE` in the shaper's timer.

use super::Broker;
use super::conn::{PauseReasons, RingOp};
use bifro_core::ids::Slot;
use bifro_core::message::MessageView;
use bifro_core::ports::Services;
use bifro_core::settings::Resource;
use bifro_mqtt::codec::decode;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::session::{Cx, Outbox};
use std::time::Duration;

/// How long a client whose reading was paused has for what it sent meanwhile to arrive, before its Keep Alive is looked at.
const PATIENCE: Duration = Duration::from_secs(1);

impl<S: Services> Broker<S> {
    /// Bytes from the network.
    pub(super) fn receive(&mut self, slot: Slot, bytes: &[u8]) {
        self.metrics.received_bytes.add(bytes.len() as u64);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.closing {
            return;
        }
        let has_stages = conn.staged.is_some();
        if let Some(shaper) = &mut conn.shaper
            && shaper.received(bytes.len(), self.now)
        {
            self.pause(slot, PauseReasons::RATE);
            self.schedule(slot);
        }
        if has_stages {
            self.receive_staged(slot, bytes);
        } else {
            self.feed(slot, bytes);
        }
    }

    fn receive_staged(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some(staged) = &mut conn.staged else { return };
        let mut app = std::mem::take(&mut self.app);
        app.clear();
        let was_done = staged.pipeline.handshake_done();
        let result = staged.pipeline.receive(bytes, &mut app, &mut staged.net);
        let peer_closed = staged.pipeline.peer_closed();
        let mut admitted = true;
        if !was_done && staged.pipeline.handshake_done() {
            let peer = staged.pipeline.peer();
            conn.session.set_peer(peer, staged.pipeline.client_certificate());
            // Behind a proxy it is the client's address that counts.
            let identified = conn.permit.as_mut().zip(peer).map(|(permit, peer)| permit.identify(peer.ip()));
            admitted = identified.is_none_or(|identified| identified.is_ok());
        }
        if staged.pipeline.is_passthrough() && staged.net.is_empty() {
            conn.staged = None;
        }
        self.mark_dirty(slot);
        if admitted {
            self.feed(slot, &app);
        } else {
            self.metrics.connections_refused.add(1);
        }
        self.app = app;
        if let Err(error) = result {
            self.stage_failed(slot, &error);
        } else if !admitted {
            self.with_session(slot, |session, cx, out| session.handle_closed(cx, out));
            self.settle();
        } else if peer_closed {
            self.handle_peer_ended(slot);
        }
    }

    /// MQTT bytes, after all stages.
    pub(super) fn feed(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.partial.is_empty() {
            let consumed = self.decode_all(slot, bytes);
            let rest = &bytes[consumed..];
            if let Some(conn) = self.conns.get_mut(slot).filter(|_| !rest.is_empty()) {
                conn.partial.put(rest.to_vec());
                self.recount(slot);
            }
            return;
        }
        let mut partial = conn.partial.take();
        partial.extend_from_slice(bytes);
        let consumed = self.decode_all(slot, &partial);
        if consumed == partial.len() {
            partial = Vec::new();
        } else {
            partial.drain(..consumed);
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.partial.put(partial);
            self.recount(slot);
        }
    }

    /// Decodes and handles packets until one is incomplete, the session has enough, or it is over. Returns what was consumed.
    ///
    /// A session that has enough pauses the reading only once there is more for it: most clients wait for an answer, and are
    /// spared a cancelled receive.
    fn decode_all(&mut self, slot: Slot, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(conn) = self.conns.get_mut(slot) else { return bytes.len() };
            if conn.closing || at == bytes.len() {
                return bytes.len();
            }
            if !conn.session.wants_packets() {
                self.pause(slot, PauseReasons::SESSION);
                return at;
            }
            match decode(&bytes[at..], &conn.session.decode_options()) {
                Ok(Some((packet, length))) => {
                    at += length;
                    self.metrics.packets_received.add(1);
                    self.handle_packet(slot, packet);
                }
                Ok(None) => return at,
                Err(error) => {
                    self.with_session(slot, |session, cx, out| session.handle_malformed(cx, error, out));
                    self.settle();
                    return bytes.len();
                }
            }
        }
    }

    fn handle_packet(&mut self, slot: Slot, packet: Packet<'_>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let publishes = matches!(packet, Packet::Publish(_));
        let cx = Cx {
            now: self.now,
            tenant: self.tenants.ctx(conn.session.tenant()),
            authorizer: &*self.authorizer,
            over_budget: self.budget.is_exhausted(),
        };
        self.wires.supply(&mut conn.wire);
        let mut out = Outbox {
            wire: &mut conn.wire,
            effects: &mut self.effect_scratch,
            tally: &mut self.tally,
            congested: conn.congested,
            share: self.settings.turn_bytes_per_conn,
        };
        let request = conn.session.handle_packet(&cx, packet, &mut out);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
        // A publish moves no timer nearer.
        if !publishes && let Some(at) = conn.next_alarm() {
            self.wheel.schedule(slot, at);
        }
        let (tenant, key) = (conn.session.tenant(), conn.session.publisher_key());
        if !self.effect_scratch.is_empty() {
            self.effects.extend(self.effect_scratch.drain(..).map(|effect| (slot, effect)));
        }
        if publishes {
            self.metrics.publishes_received.add(1);
            if self.budget.is_starved() {
                self.starve(slot);
            }
        }
        if let Some(request) = request {
            let client = if request.retain { self.identity(slot).map(|identity| identity.0) } else { None };
            let view: MessageView<'_> = request.view(key);
            self.route(tenant, view, client, request.token.map(|token| (slot, token)));
        }
        self.settle();
    }

    /// Goes on with connections whose session takes packets again.
    pub(super) fn resume_sessions(&mut self) {
        while let Some(slot) = self.resumable.pop() {
            if self.conns.get(slot).is_none_or(|conn| !conn.paused.has(PauseReasons::SESSION) || conn.closing) {
                continue;
            }
            self.unpause(slot, PauseReasons::SESSION);
            self.feed(slot, &[]);
            self.end_if_drained(slot);
        }
    }

    /// Pauses a publisher until the shard has memory again.
    fn starve(&mut self, slot: Slot) {
        // It may have sent thousands before the pause holds: it is listed once.
        if self.conns.get(slot).is_some_and(|conn| !conn.paused.has(PauseReasons::BUDGET)) {
            self.pause(slot, PauseReasons::BUDGET);
            self.starved.push(slot);
        }
    }

    /// Lets publishers go on that were paused for the budget's sake.
    pub(super) fn relieve(&mut self) {
        if self.starved.is_empty() || !self.budget.is_relieved() {
            return;
        }
        for slot in std::mem::take(&mut self.starved) {
            self.unpause(slot, PauseReasons::BUDGET);
        }
    }

    pub(super) fn pause(&mut self, slot: Slot, reason: u8) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.paused.add(reason);
        if !conn.recv_paused && !conn.closing {
            conn.recv_paused = true;
            self.ring_ops.push_back(RingOp::Pause(slot));
            self.metrics.receive_paused.add(1);
        }
    }

    pub(super) fn unpause(&mut self, slot: Slot, reason: u8) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.paused.remove(reason);
        if conn.recv_paused && !conn.paused.any() {
            conn.recv_paused = false;
            self.metrics.receive_paused.sub(1);
            if !conn.closing && !conn.ended && !conn.broken {
                self.ring_ops.push_back(RingOp::Resume(slot));
            }
            conn.patience_until = self.now + PATIENCE;
            self.schedule(slot);
        }
    }

    /// Counts anew what the connection holds, against the shard's budget and, if that is limited, the tenant's quota.
    pub(super) fn recount(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let held = conn.held_bytes();
        self.budget.recount(&mut conn.accounted_bytes, held);
        let quota = &self.tenants.ctx(conn.session.tenant()).quota;
        if conn.session.is_connected() && quota.limit(Resource::TotalSessionMemoryBytes) != 0 {
            let bytes = (conn.session.memory_bytes() + conn.session.queued_bytes()) as u64;
            quota.recount(Resource::TotalSessionMemoryBytes, conn.quota_bytes, bytes);
            conn.quota_bytes = bytes;
        }
    }

    /// Puts the connection on the list of those whose bytes are handed to the ring at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: Slot) {
        if let Some(conn) = self.conns.get_mut(slot).filter(|conn| !conn.dirty) {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }
}
