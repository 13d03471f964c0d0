//! Connections: a table by ring slot, each entry small while idle.

use crate::limiter::ConnPermit;
use crate::stage::Pipeline;
use bifro_core::ids::{ReqId, Slot};
use bifro_core::time::Instant;
use bifro_mqtt::session::Session;
use bifro_mqtt::wire::Wire;
use smallvec::SmallVec;

/// What the loop is to do with the ring once the turn's work is done.
#[derive(Debug)]
pub(crate) enum RingOp {
    /// Stop receiving for now.
    Pause(Slot),
    /// Receive again.
    Resume(Slot),
    /// Close once the send in flight is done.
    Close(Slot),
    /// Close at once.
    Abort(Slot),
    /// Accept no more.
    StopListening,
}

/// Why reading of a connection is paused; it goes on when no reason is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PauseReasons(u8);

impl PauseReasons {
    /// The session takes no packets at present.
    pub(crate) const SESSION: u8 = 1;
    /// The connection has used its share of the turn.
    pub(crate) const TURN: u8 = 2;
    /// The shard is over its memory budget.
    pub(crate) const BUDGET: u8 = 4;
    /// The connection is over its bandwidth.
    pub(crate) const RATE: u8 = 8;
    /// The peer does not read the answers to what it has sent.
    pub(crate) const UNREAD: u8 = 16;

    pub(crate) const fn any(self) -> bool {
        self.0 != 0
    }

    pub(crate) const fn has(self, reason: u8) -> bool {
        self.0 & reason != 0
    }

    pub(crate) const fn add(&mut self, reason: u8) {
        self.0 |= reason;
    }

    pub(crate) const fn remove(&mut self, reason: u8) {
        self.0 &= !reason;
    }
}

/// A subscription of a transient session, as the fan-out table knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubRef {
    /// Entry of the fan-out table.
    pub(crate) entry: u32,
    /// Place among the entry's subscribers.
    pub(crate) position: u32,
}

/// The stages of a connection that is not plain MQTT, with what they want sent.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) pipeline: Box<Pipeline>,
    pub(crate) net: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) slot: Slot,
    pub(crate) session: Session,
    /// PROXY, TLS, WebSocket; none for plain MQTT.
    pub(crate) staged: Option<Box<Staged>>,
    /// Bytes of packets that are not complete, or that the session does not want yet.
    pub(crate) partial: Vec<u8>,
    /// Bytes to send next; without allocation while there are none.
    pub(crate) wire: Wire,
    /// Bytes the ring is sending.
    pub(crate) sending_bytes: usize,
    /// Bytes counted against the tenant's quota of session memory.
    pub(crate) quota_bytes: u64,
    /// Bytes counted against the budget for this connection.
    pub(crate) accounted_bytes: u64,
    /// Bytes received in the turn numbered `turn`.
    pub(crate) turn_bytes: u32,
    pub(crate) turn: u32,
    /// Received buffers that wait in the bulk queue.
    pub(crate) bulk: u32,
    pub(crate) paused: PauseReasons,
    /// The ring has been told to pause.
    pub(crate) recv_paused: bool,
    pub(crate) dirty: bool,
    /// The session is over; what is on the wire goes out, then the socket is closed.
    pub(crate) closing: bool,
    pub(crate) congested: bool,
    /// The peer has closed its side, or the socket is broken.
    pub(crate) peer_gone: bool,
    /// The stages have said goodbye.
    pub(crate) stages_closed: bool,
    /// The session counts as connected in the metrics.
    pub(crate) counted: bool,
    /// The session has asked to leave its inbox.
    pub(crate) leaving: bool,
    /// The authentication step that is under way.
    pub(crate) auth: Option<ReqId>,
    pub(crate) subs: SmallVec<[SubRef; 1]>,
    /// Next call of the wheel for this connection.
    pub(crate) timer_at: Option<Instant>,
    /// CONNECT deadline until connected; stall deadline while congested; linger deadline while closing.
    pub(crate) deadline: Option<Instant>,
    pub(crate) shaper: Option<Box<super::shaping::Shaper>>,
    pub(crate) permit: Option<ConnPermit>,
}

impl Conn {
    /// Bytes that wait to reach the peer.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        self.sending_bytes + self.wire.len() + self.staged.as_ref().map_or(0, |staged| staged.net.len())
    }

    /// Bytes this connection holds on to at present.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.outgoing_bytes() + self.partial.capacity() + self.session.queued_bytes()) as u64
    }
}

/// Connections by ring slot.
#[derive(Debug, Default)]
pub(crate) struct ConnTable {
    entries: Vec<Option<Box<Conn>>>,
    live: usize,
}

impl ConnTable {
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// Indexes in use are below this.
    pub(crate) fn bound(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("slots are 32 bits wide")
    }

    /// # Panics
    /// If the ring handed out a slot that is in use.
    pub(crate) fn insert(&mut self, conn: Box<Conn>) {
        let index = conn.slot.index as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        assert!(self.entries[index].is_none(), "the ring reuses a slot only after it was closed");
        self.entries[index] = Some(conn);
        self.live += 1;
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Conn> {
        self.entries.get(slot.index as usize)?.as_deref().filter(|conn| conn.slot == slot)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Conn> {
        self.entries.get_mut(slot.index as usize)?.as_deref_mut().filter(|conn| conn.slot == slot)
    }

    pub(crate) fn at(&self, index: u32) -> Option<Slot> {
        self.entries.get(index as usize)?.as_ref().map(|conn| conn.slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Conn>> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        let conn = entry.take_if(|conn| conn.slot == slot)?;
        self.live -= 1;
        Some(conn)
    }
}
