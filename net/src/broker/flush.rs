//! From sessions' bytes to the ring: at most one send in flight per connection, everything else gathers behind it.

use super::Broker;
use super::conn::{PauseReasons, RingOp};
use crate::ring::Ring;
use bifro_core::ids::Slot;
use bifro_core::ports::Services;
use bifro_mqtt::wire::Wire;
use std::io;

/// Buffers kept for reuse at most.
const POOLED_WIRES_MAX: usize = 1_024;
/// A buffer larger than this is not kept.
const POOLED_WIRE_BYTES_MAX: usize = 128 << 10;

/// Write buffers between uses, so that an idle connection has none and a busy one allocates none.
#[derive(Debug, Default)]
pub(crate) struct WirePool {
    free: Vec<Wire>,
}

impl WirePool {
    /// Gives `wire` a buffer if it has none.
    pub(crate) fn supply(&mut self, wire: &mut Wire) {
        if wire.bytes.capacity() == 0
            && wire.is_empty()
            && let Some(pooled) = self.free.pop()
        {
            *wire = pooled;
        }
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, mut wire: Wire) {
        wire.clear();
        let capacity = wire.bytes.capacity();
        if capacity > 0 && capacity <= POOLED_WIRE_BYTES_MAX && self.free.len() < POOLED_WIRES_MAX {
            self.free.push(wire);
        }
    }
}

impl<S: Services> Broker<S> {
    /// Hands the bytes of all dirty connections to the ring.
    pub(super) fn flush(&mut self, ring: &mut Ring) {
        for index in 0..self.dirty.len() {
            let slot = self.dirty[index];
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.dirty = false;
                self.flush_one(ring, slot);
            }
        }
        self.dirty.clear();
    }

    fn flush_one(&mut self, ring: &mut Ring, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let held_back = conn.shaper.as_ref().is_some_and(|shaper| shaper.send_at.is_some_and(|at| at > self.now));
        if conn.sending_bytes == 0 && !conn.peer_gone && !held_back {
            let mut wire = std::mem::take(&mut conn.wire);
            if let Some(staged) = &mut conn.staged {
                // The stages cannot fail on bytes the session made; if they do, the connection is beyond help.
                let sent = wire.is_empty() || staged.pipeline.send(&wire, &mut staged.net).is_ok();
                if conn.closing && !conn.stages_closed {
                    conn.stages_closed = true;
                    staged.pipeline.close(&mut staged.net);
                }
                conn.peer_gone |= !sent;
                wire.clear();
                std::mem::swap(&mut wire.bytes, &mut staged.net);
            }
            if wire.is_empty() {
                self.wires.put(wire);
            } else {
                conn.sending_bytes = wire.len();
                if let Some(shaper) = &mut conn.shaper {
                    shaper.sent(wire.len(), self.now);
                }
                ring.send(slot, wire);
            }
        }
        if held_back {
            self.schedule(slot);
        }
        self.after_write(slot);
    }

    /// The ring has sent, or given up on, a connection's bytes.
    pub(super) fn handle_sent(&mut self, slot: Slot, wire: Wire, error: Option<&io::Error>) {
        let sent = wire.len();
        self.wires.put(wire);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.sending_bytes = 0;
        if error.is_some() {
            self.handle_peer_gone(slot);
            return;
        }
        self.metrics.sent_bytes.add(sent as u64);
        let drained = conn.wire.len() <= self.budget.high_water_bytes() / 2;
        if drained && conn.paused.has(PauseReasons::UNREAD) {
            self.unpause(slot, PauseReasons::UNREAD);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if drained && (conn.congested || conn.session.wants_writable()) {
            conn.congested = false;
            conn.deadline = conn.deadline.filter(|_| !conn.session.is_connected() || conn.closing);
            self.with_session(slot, |session, cx, out| session.handle_writable(cx, out));
            self.settle();
        } else if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn after_write(&mut self, slot: Slot) {
        self.recount(slot);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let high_water = self.budget.high_water_bytes();
        if !conn.congested && conn.outgoing_bytes() > high_water {
            conn.congested = true;
        }
        // Deliveries stop at the mark. What grows beyond it answers the peer's own requests: it may make no more until it
        // has read some.
        if conn.outgoing_bytes() > 2 * high_water && !conn.paused.has(PauseReasons::UNREAD) {
            self.pause(slot, PauseReasons::UNREAD);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.congested && conn.deadline.is_none() && !conn.closing {
            let stall = self.settings.stall_deadline;
            conn.deadline = (!stall.is_zero()).then(|| self.now + stall);
            self.schedule(slot);
            return;
        }
        let done = conn.sending_bytes == 0 && conn.outgoing_bytes() == 0;
        if conn.closing && (done || conn.peer_gone) {
            self.ring_ops.push(RingOp::Close(slot));
        }
    }
}
