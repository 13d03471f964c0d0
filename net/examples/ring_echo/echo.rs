//! The echo server as a shard drives it: turn, handle, one send per connection that got something, park.

use bifro_core::ids::Slot;
use bifro_mqtt::wire::Wire;
use bifro_net::mesh::{Inlet, MeshEnd};
use bifro_net::ring::{Counters, Event, Ring};
use std::io;
use std::time::Duration;

/// Bytes a connection may have waiting before it is not read any more.
const HIGH_WATER_BYTES: usize = 256 << 10;
/// Wires kept for reuse.
const SPARE_WIRES_MAX: usize = 1024;
/// How long to wait before accepting again when descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Conn {
    /// To be sent when the send in flight is over.
    pending: Wire,
    dirty: bool,
    paused: bool,
    ended: bool,
}

struct Echo {
    ring: Ring,
    /// By index of the slot.
    conns: Vec<Conn>,
    dirty: Vec<Slot>,
    spare: Vec<Wire>,
    backed_off: bool,
}

/// Echoes until the inlet says stop.
pub(crate) async fn serve(ring: Ring, mut end: MeshEnd<()>, inlet: Inlet<()>) -> io::Result<Counters> {
    let mut echo = Echo { ring, conns: Vec::new(), dirty: Vec::new(), spare: Vec::new(), backed_off: false };
    let mut events = Vec::new();
    while inlet.pop().is_none() {
        echo.ring.turn(&mut events)?;
        for event in events.drain(..) {
            echo.handle(event);
        }
        echo.flush();
        if end.prepare_park(false) {
            if inlet.is_empty() {
                echo.ring.park(echo.backed_off.then_some(ACCEPT_PAUSE)).await?;
            }
            end.unpark();
        }
        if std::mem::take(&mut echo.backed_off) {
            echo.ring.resume_accept(0);
        }
    }
    Ok(echo.ring.counters())
}

impl Echo {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { fd, .. } => {
                let slot = self.ring.add(fd);
                let index = slot.index as usize;
                if self.conns.len() <= index {
                    self.conns.resize_with(index + 1, Conn::default);
                }
                self.conns[index] = Conn::default();
                self.ring.recv(slot);
            }
            Event::AcceptFailed { .. } => self.backed_off = true,
            Event::Received { slot, buffer, len } => {
                let conn = &mut self.conns[slot.index as usize];
                if conn.pending.bytes.capacity() == 0 {
                    conn.pending = self.spare.pop().unwrap_or_default();
                }
                conn.pending.bytes.extend_from_slice(self.ring.buffer(&buffer, len));
                self.ring.recycle(buffer);
                if conn.pending.len() > HIGH_WATER_BYTES && !conn.paused {
                    conn.paused = true;
                    self.ring.pause_recv(slot);
                }
                self.touch(slot);
            }
            Event::Closed { slot, error: None } => {
                self.conns[slot.index as usize].ended = true;
                self.touch(slot);
            }
            Event::Sent { slot, wire, error: None } => {
                self.keep(wire);
                self.touch(slot);
            }
            Event::Closed { slot, error: Some(_) } | Event::Sent { slot, error: Some(_), .. } => self.ring.abort(slot),
            // Nothing of others is watched here.
            Event::Readable { .. } => {}
        }
    }

    /// Something changed for this connection: look at it at the end of the turn.
    fn touch(&mut self, slot: Slot) {
        if !std::mem::replace(&mut self.conns[slot.index as usize].dirty, true) {
            self.dirty.push(slot);
        }
    }

    fn keep(&mut self, mut wire: Wire) {
        if self.spare.len() < SPARE_WIRES_MAX {
            wire.clear();
            self.spare.push(wire);
        }
    }

    /// One send per connection that has something to send.
    fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let conn = &mut self.conns[slot.index as usize];
            conn.dirty = false;
            if !self.ring.is_open(slot) || self.ring.is_sending(slot) {
                continue;
            }
            if !conn.pending.is_empty() {
                self.ring.send(slot, std::mem::take(&mut conn.pending));
                if std::mem::take(&mut conn.paused) {
                    self.ring.resume_recv(slot);
                }
            } else if conn.ended {
                self.ring.close(slot);
            }
        }
    }
}
