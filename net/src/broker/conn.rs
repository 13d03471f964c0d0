//! Connections: a table by ring slot, each entry small while idle.

use crate::limiter::ConnPermit;
use crate::stage::Pipeline;
use bifro_core::ids::{ReqId, Slot};
use bifro_core::time::{Instant, earlier};
use bifro_mqtt::session::Session;
use bifro_mqtt::wire::Wire;
use smallvec::SmallVec;
use std::num::NonZeroU64;

/// No time at all: an alarm that is not set.
const NEVER: Instant = Instant::from_micros(u64::MAX);

/// What the loop is to do with the ring once the turn's work is done.
#[derive(Debug)]
pub(crate) enum RingOp {
    /// Send this; nothing else is in flight on the slot.
    Send(Slot, Wire),
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

    /// Whether it is for reasons of ours that the peer is not heard.
    pub(crate) const fn are_ours(self) -> bool {
        self.0 & !Self::UNREAD != 0
    }

    pub(crate) const fn add(&mut self, reason: u8) {
        self.0 |= reason;
    }

    pub(crate) const fn remove(&mut self, reason: u8) {
        self.0 &= !reason;
    }
}

/// By when something has to have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Nothing.
    None,
    /// The client has been admitted.
    Connect(Instant),
    /// The peer reads again.
    Stall(Instant),
    /// The peer has read its last bytes.
    Linger(Instant),
}

impl Deadline {
    pub(crate) const fn at(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Connect(at) | Self::Stall(at) | Self::Linger(at) => Some(at),
        }
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

/// Bytes of packets that are not complete, or that the session does not want yet. Most connections have none.
#[derive(Debug, Default)]
pub(crate) struct Partial(Option<Box<Received>>);

/// See [`Partial`].
#[derive(Debug)]
struct Received {
    bytes: Vec<u8>,
}

impl Partial {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of memory taken.
    pub(crate) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.bytes.capacity())
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.take().map_or_else(Vec::new, |received| received.bytes)
    }

    pub(crate) fn put(&mut self, bytes: Vec<u8>) {
        self.0 = (!bytes.is_empty()).then(|| Box::new(Received { bytes }));
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) slot: Slot,
    pub(crate) session: Session,
    /// PROXY, TLS, WebSocket; none for plain MQTT.
    pub(crate) staged: Option<Box<Staged>>,
    pub(crate) partial: Partial,
    /// Bytes to send next; without allocation while there are none.
    pub(crate) wire: Wire,
    /// Bytes counted against the tenant's quota of session memory.
    pub(crate) quota_bytes: u64,
    /// Bytes the ring is sending.
    sending_bytes: u32,
    /// Bytes counted against the budget for this connection; beyond 4 GiB it is not told apart.
    pub(crate) accounted_bytes: u32,
    /// Bytes received in the turn numbered `turn`.
    pub(crate) turn_bytes: u32,
    pub(crate) turn: u32,
    /// Received buffers that wait in the bulk queue.
    pub(crate) bulk: u32,
    pub(crate) paused: PauseReasons,
    /// The ring has been told to pause.
    pub(crate) recv_paused: bool,
    pub(crate) dirty: bool,
    /// CONNACK has said success; counted as a session until it is over.
    pub(crate) admitted: bool,
    /// The session is over; what is on the wire goes out, then the socket is closed.
    pub(crate) closing: bool,
    pub(crate) congested: bool,
    /// The peer has ended its side; it may still read.
    pub(crate) ended: bool,
    /// The socket takes and gives nothing any more.
    pub(crate) broken: bool,
    /// The stages have said goodbye.
    pub(crate) stages_closed: bool,
    /// The session has asked to leave its inbox.
    pub(crate) leaving: bool,
    /// The one request the session's handshake waits for; requests are numbered from 1.
    awaited: Option<NonZeroU64>,
    pub(crate) subs: SmallVec<[SubRef; 1]>,
    /// The next two calls of the wheel that are known to come, the nearer one first.
    alarms: [Instant; 2],
    /// What the client may have sent while reading was paused is given until then to be read, before its silence counts.
    pub(crate) patience_until: Instant,
    pub(crate) deadline: Deadline,
    pub(crate) shaper: Option<Box<super::shaping::Shaper>>,
    pub(crate) permit: Option<ConnPermit>,
}

// Idle connections dominate a broker's memory, so this may only shrink.
const _: () = assert!(size_of::<Conn>() <= 344);

impl Conn {
    pub(crate) fn new(slot: Slot, session: Session, deadline: Deadline) -> Self {
        Self {
            slot,
            session,
            staged: None,
            partial: Partial::default(),
            wire: Wire::default(),
            quota_bytes: 0,
            sending_bytes: 0,
            accounted_bytes: 0,
            turn_bytes: 0,
            turn: 0,
            bulk: 0,
            paused: PauseReasons::default(),
            recv_paused: false,
            dirty: false,
            admitted: false,
            closing: false,
            congested: false,
            ended: false,
            broken: false,
            stages_closed: false,
            leaving: false,
            awaited: None,
            subs: SmallVec::new(),
            alarms: [NEVER; 2],
            patience_until: Instant::default(),
            deadline,
            shaper: None,
            permit: None,
        }
    }

    /// The session's handshake waits for the answer to `req`.
    pub(crate) const fn await_answer(&mut self, req: ReqId) {
        self.awaited = NonZeroU64::new(req.0);
    }

    /// The request the session's handshake waited for until now.
    pub(crate) fn take_awaited(&mut self) -> Option<ReqId> {
        self.awaited.take().map(|req| ReqId(req.get()))
    }

    /// Bytes the ring is sending.
    pub(crate) const fn sending_bytes(&self) -> usize {
        self.sending_bytes as usize
    }

    /// The ring is sending so many bytes.
    ///
    /// # Panics
    /// If that is 4 GiB or more; the high-water mark is far below.
    pub(crate) fn set_sending_bytes(&mut self, bytes: usize) {
        self.sending_bytes = u32::try_from(bytes).expect("bounded by the high-water mark and the largest packet");
    }

    /// Bytes that wait to reach the peer.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        self.sending_bytes() + self.wire.len() + self.staged.as_ref().map_or(0, |staged| staged.net.len())
    }

    /// Bytes this connection holds on to at present.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.outgoing_bytes() + self.partial.capacity() + self.session.queued_bytes()) as u64
    }

    /// Everything that was received has been handled, as far as it ever will be.
    pub(crate) fn is_drained(&self) -> bool {
        self.bulk == 0 && !self.paused.has(PauseReasons::SESSION)
    }

    /// When the session's timers are to be looked at. Not while reading is paused for our
    /// sake: what keeps it alive may be in what we do not read.
    pub(crate) fn session_due_at(&self) -> Option<Instant> {
        if self.closing || self.paused.are_ours() {
            return None;
        }
        self.session.next_timeout().map(|at| at.max(self.patience_until))
    }

    /// The call of the wheel that this connection needs and that is not known to come.
    pub(crate) fn next_alarm(&mut self) -> Option<Instant> {
        let shaper = self.shaper.as_deref().and_then(|shaper| earlier(shaper.receive_at, shaper.send_at));
        let next = earlier(earlier(self.session_due_at(), self.deadline.at()), shaper)?;
        if self.alarms[0] <= next {
            return None;
        }
        self.alarms = [next, self.alarms[0]];
        Some(next)
    }

    /// The wheel has called. False if this call means nothing any more.
    pub(crate) fn take_alarm(&mut self, now: Instant) -> bool {
        let rang = self.alarms[0] <= now;
        while self.alarms[0] <= now {
            self.alarms = [self.alarms[1], NEVER];
        }
        rang
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
