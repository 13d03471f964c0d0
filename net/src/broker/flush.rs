//! From sessions' bytes to the ring: at most one send in flight per connection, everything else gathers behind it.
//!
//! What the ring is to do is only listed here ([`RingOp`]); [`Shard`](super::Shard) carries it out. A connection is closed
//! when its session is over and its last bytes are out, and cut off when its socket is broken or the peer does not take them
//! in time: a close would wait for the send in flight, and a peer that never reads could make it wait for ever.

use super::Broker;
use super::conn::{Deadline, PauseReasons, RingOp};
use bifro_core::ids::Slot;
use bifro_core::ports::Services;
use bifro_mqtt::wire::Wire;
use std::io;

/// Buffers kept for reuse at most.
const POOLED_WIRES_MAX: usize = 8_192;
/// A buffer larger than this is not kept.
const POOLED_WIRE_BYTES_MAX: usize = 128 << 10;
/// Bytes of all buffers that are kept.
const POOLED_BYTES_MAX: usize = 16 << 20;

/// Write buffers between uses, so that an idle connection has none and a busy one allocates none.
#[derive(Debug, Default)]
pub(crate) struct WirePool {
    free: Vec<Wire>,
    /// Of all free buffers.
    bytes: usize,
}

impl WirePool {
    /// Gives `wire` a buffer if it has none.
    pub(crate) fn supply(&mut self, wire: &mut Wire) {
        if wire.bytes.capacity() == 0
            && wire.is_empty()
            && let Some(pooled) = self.free.pop()
        {
            self.bytes -= pooled.bytes.capacity();
            *wire = pooled;
        }
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, mut wire: Wire) {
        wire.clear();
        let capacity = wire.bytes.capacity();
        let fits = capacity <= POOLED_WIRE_BYTES_MAX && self.bytes + capacity <= POOLED_BYTES_MAX;
        if capacity > 0 && fits && self.free.len() < POOLED_WIRES_MAX {
            self.bytes += capacity;
            self.free.push(wire);
        }
    }
}

impl<S: Services> Broker<S> {
    /// Hands the bytes of all dirty connections to the ring.
    pub(super) fn flush(&mut self) {
        // Flushing may end a session, whose effects may make others dirty: the list may grow meanwhile.
        let mut index = 0;
        while let Some(&slot) = self.dirty.get(index) {
            index += 1;
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.dirty = false;
                self.flush_one(slot);
            }
        }
        self.dirty.clear();
    }

    fn flush_one(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let held_back = conn.shaper.as_ref().is_some_and(|shaper| shaper.send_at.is_some_and(|at| at > self.now));
        let mut sendable = true;
        if conn.sending_bytes() == 0 && !conn.broken && !held_back {
            let mut wire = std::mem::take(&mut conn.wire);
            if let Some(staged) = &mut conn.staged {
                sendable = wire.is_empty() || staged.pipeline.send(&wire, &mut staged.net).is_ok();
                if conn.closing && !conn.stages_closed {
                    conn.stages_closed = true;
                    staged.pipeline.close(&mut staged.net);
                }
                wire.clear();
                std::mem::swap(&mut wire.bytes, &mut staged.net);
            }
            if wire.is_empty() {
                self.wires.put(wire);
            } else {
                conn.set_sending_bytes(wire.len());
                if let Some(shaper) = &mut conn.shaper {
                    shaper.sent(wire.len(), self.now);
                }
                self.ring_ops.push_back(RingOp::Send(slot, wire));
            }
        }
        if held_back {
            self.schedule(slot);
        }
        self.after_write(slot);
        if !sendable {
            // The stages take nothing any more, say because their keys are used up: neither can the session.
            self.with_session(slot, |session, cx, out| session.handle_broken(cx, out));
            self.settle();
        }
    }

    /// The ring has sent, or given up on, a connection's bytes.
    pub(super) fn handle_sent(&mut self, slot: Slot, wire: Wire, error: Option<&io::Error>) {
        let sent = wire.len();
        self.wires.put(wire);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.set_sending_bytes(0);
        if error.is_some() {
            self.handle_broken(slot);
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
            if matches!(conn.deadline, Deadline::Stall(_)) {
                conn.deadline = Deadline::None;
            }
            self.with_session(slot, |session, cx, out| session.handle_writable(cx, out));
            self.settle();
        } else {
            self.mark_dirty(slot);
        }
    }

    fn after_write(&mut self, slot: Slot) {
        self.recount(slot);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if !conn.congested && conn.outgoing_bytes() > self.budget.high_water_bytes() {
            conn.congested = true;
        }
        // Deliveries stop at the mark. What grows beyond it answers the peer's own requests: it may make no more until it
        // has read some.
        if conn.outgoing_bytes() > 2 * self.budget.high_water_bytes() && !conn.paused.has(PauseReasons::UNREAD) {
            self.pause(slot, PauseReasons::UNREAD);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.closing {
            if conn.broken {
                self.ring_ops.push_back(RingOp::Abort(slot));
            } else if conn.outgoing_bytes() == 0 {
                self.ring_ops.push_back(RingOp::Close(slot));
            }
        } else if conn.congested && conn.deadline == Deadline::None && !self.settings.stall_deadline.is_zero() {
            conn.deadline = Deadline::Stall(self.now + self.settings.stall_deadline);
            self.schedule(slot);
        }
    }

    /// The next thing the ring has to do, in order. A connection that is closed is forgotten with this call.
    pub(super) fn next_ring_op(&mut self) -> Option<RingOp> {
        loop {
            let op = self.ring_ops.pop_front()?;
            match &op {
                // The pause may have been taken back within the turn.
                RingOp::Pause(slot) if self.conns.get(*slot).is_some_and(|conn| conn.recv_paused) => return Some(op),
                RingOp::Resume(slot)
                    if self.conns.get(*slot).is_some_and(|conn| !conn.recv_paused && !conn.closing) =>
                {
                    return Some(op);
                }
                RingOp::Close(slot) | RingOp::Abort(slot) if self.conns.get(*slot).is_some() => {
                    self.forget(*slot);
                    return Some(op);
                }
                RingOp::Send(slot, _) if self.conns.get(*slot).is_some() => return Some(op),
                RingOp::StopListening => return Some(op),
                // The connection has gone, closed by an earlier operation.
                RingOp::Send(..) | RingOp::Pause(_) | RingOp::Resume(_) | RingOp::Close(_) | RingOp::Abort(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_so_many_bytes_and_no_buffer_that_is_huge() {
        let mut pool = WirePool::default();
        let wire = |capacity| Wire::from(Vec::with_capacity(capacity));
        pool.put(wire(POOLED_WIRE_BYTES_MAX + 1));
        assert_eq!((pool.free.len(), pool.bytes), (0, 0));
        for _ in 0..1_000 {
            pool.put(wire(POOLED_WIRE_BYTES_MAX));
        }
        assert_eq!(pool.bytes, POOLED_BYTES_MAX);
        let mut supplied = Wire::default();
        pool.supply(&mut supplied);
        assert_eq!(supplied.bytes.capacity(), POOLED_WIRE_BYTES_MAX);
        assert_eq!(pool.bytes, POOLED_BYTES_MAX - POOLED_WIRE_BYTES_MAX);
    }
}
