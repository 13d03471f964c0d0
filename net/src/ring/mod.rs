//! The network ring: one io_uring per shard, driven from inside a glommio task, that turns kernel completions into plain
//! [`Event`]s. It owns the shard's sockets; a [`Slot`] names one.
//!
//! The loop of a shard:
//! ```text
//! loop {
//!     ring.turn(&mut events)?;             // at most one system call: submit, collect
//!     for event in events.drain(..) { /* handle; queue sends; recycle buffers */ }
//!     ring.park(next_deadline).await?;     // returns at once if anything is queued or complete
//! }
//! ```
//! Invariants:
//! - a ring never leaves the thread that made it (`SINGLE_ISSUER`), hence `!Send`;
//! - a slot is reused, with the next generation, only when no kernel operation names its old occupant;
//! - a [`Wire`] handed to [`Ring::send`] stays put until its completion; there is one send in flight per slot;
//! - sockets are blocking descriptors: with `O_NONBLOCK` the kernel would answer `EAGAIN` instead of waiting.
//!
//! What is deliberately absent: timers other than the deadline of `park`, knowledge of bytes, limits on what a connection may
//! queue. Those belong to the driver.

mod accept;
mod buffers;
mod kernel;
mod listener;
mod park;
mod sending;
mod sockets;
mod unavailable;
mod user_data;
mod watch;

#[cfg(test)]
mod tests;

pub use buffers::BufferId;
pub use listener::{listener_tcp, listener_unix, peer_addr};
pub use park::Waker;
pub use unavailable::explain;

use accept::Acceptor;
use bifro_core::ids::Slot;
use bifro_mqtt::wire::Wire;
use buffers::{BUFFER_GROUP, Buffers};
use io_uring::{opcode, types};
use kernel::{Completion, Kernel};
use park::Sleeper;
use sending::Sending;
use sockets::{Life, Sockets};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use user_data::Op;
use watch::Watched;

/// Finished sends kept for reuse; more than one turn's worth of sends per shard rarely is in flight.
const SPARE_SENDS_MAX: usize = 256;
/// Unread bytes thrown away before a graceful close, so that the close does not turn into a reset that could destroy the
/// last bytes sent.
const DISCARD_BYTES: usize = 1 << 20;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submission queue entries, up to 32,768. A full queue costs one more system call, nothing else.
    pub entries: u32,
    /// Completion queue entries, up to 65,536, at least `entries`.
    pub cq_entries: u32,
    /// Receive buffers, a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes of one receive buffer, and so the most one event carries.
    pub buffer_bytes: u32,
    /// How long [`Ring::park`] looks for work before it sleeps. Zero saves power, about 100 µs saves wake-up latency.
    pub spin: Duration,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { entries: 4096, cq_entries: 16_384, buffers: 1024, buffer_bytes: 4096, spin: Duration::ZERO }
    }
}

/// What happened since the last turn.
#[derive(Debug)]
pub enum Event {
    /// A connection arrived. `TCP_NODELAY` is inherited from [`listener_tcp`].
    Accepted {
        /// As given to [`Ring::listen`].
        listener: u16,
        /// The connection, to be passed to [`Ring::add`] or dropped.
        fd: OwnedFd,
    },
    /// Accepting stopped, typically for want of descriptors. It goes on after [`Ring::resume_accept`], for which the
    /// owner should wait a little.
    AcceptFailed {
        /// As given to [`Ring::listen`].
        listener: u16,
        /// Why.
        error: io::Error,
    },
    /// Bytes arrived. The buffer must be given back with [`Ring::recycle`].
    Received {
        /// The socket.
        slot: Slot,
        /// Where the bytes are.
        buffer: BufferId,
        /// How many.
        len: u32,
    },
    /// The peer ended its side (no error) or the connection broke. Nothing more will be received; the slot stays valid,
    /// and after an orderly end writable, until [`Ring::close`] or [`Ring::abort`].
    Closed {
        /// The socket.
        slot: Slot,
        /// None at an orderly end.
        error: Option<io::Error>,
    },
    /// A send is over; the next one may start.
    Sent {
        /// The socket.
        slot: Slot,
        /// The wire as it was, for reuse.
        wire: Wire,
        /// Set if not all of it was taken by the kernel.
        error: Option<io::Error>,
    },
    /// Something arrived at a descriptor given to [`Ring::watch`].
    Readable {
        /// As given there.
        token: u16,
    },
}

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Requests to send.
    pub sends: u64,
    /// Buffers received.
    pub recvs: u64,
    /// Receives that ended for want of a buffer.
    pub enobufs: u64,
    /// Sends the kernel took only part of, resumed by the ring.
    pub short_sends: u64,
    /// Times the submission queue was full.
    pub queue_full: u64,
    /// Times [`Ring::park`] really slept.
    pub sleeps: u64,
}

/// A shard's io_uring and sockets.
#[derive(Debug)]
pub struct Ring {
    kernel: Kernel,
    buffers: Buffers,
    sockets: Sockets,
    acceptors: Vec<Acceptor>,
    watched: Vec<Watched>,
    /// Sockets whose receive ended for want of a buffer, oldest first.
    starved: VecDeque<Slot>,
    reaped: Vec<Completion>,
    #[expect(clippy::vec_box, reason = "the kernel holds pointers into a Sending: it must not move between uses")]
    spare_sends: Vec<Box<Sending>>,
    sleeper: Sleeper,
}

impl Ring {
    /// Makes a ring that belongs to the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses; the message says what to change (kernel ≥ 6.1, `kernel.io_uring_disabled`, seccomp,
    /// `RLIMIT_MEMLOCK`). `InvalidInput` for a number of buffers that is not a power of two.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        let sleeper = Sleeper::new(config.spin)?;
        let mut buffers = Buffers::new(config.buffers, config.buffer_bytes)?;
        let kernel = Kernel::new(&config).map_err(unavailable::with_advice)?;
        buffers.register(kernel.uring()).map_err(unavailable::with_advice)?;
        let mut ring = Self {
            kernel,
            buffers,
            sockets: Sockets::default(),
            acceptors: Vec::new(),
            watched: Vec::new(),
            starved: VecDeque::new(),
            reaped: Vec::new(),
            spare_sends: Vec::new(),
            sleeper,
        };
        ring.arm_wake();
        ring.kernel.enter()?;
        Ok(ring)
    }

    /// Takes over a connected blocking stream socket. Nothing happens on it until [`Self::recv`] or [`Self::send`].
    pub fn add(&mut self, fd: OwnedFd) -> Slot {
        self.sockets.insert(fd)
    }

    /// Starts receiving; it goes on until the stream ends, is paused or closed.
    ///
    /// # Panics
    /// If the slot was closed.
    pub fn recv(&mut self, slot: Slot) {
        self.sockets.open_mut(slot).wanted = true;
        self.arm_recv(slot);
    }

    /// Stops receiving for now. Bytes that had arrived may still be reported, the end of the stream is not.
    ///
    /// # Panics
    /// If the slot was closed.
    pub fn pause_recv(&mut self, slot: Slot) {
        self.sockets.open_mut(slot).paused = true;
        self.cancel_recv(slot);
    }

    /// Undoes [`Self::pause_recv`].
    ///
    /// # Panics
    /// If the slot was closed.
    pub fn resume_recv(&mut self, slot: Slot) {
        self.sockets.open_mut(slot).paused = false;
        // If the cancelled receive has not ended yet, its end starts the next one.
        self.arm_recv(slot);
    }

    /// Sends the whole wire. Submitted by the next turn; [`Event::Sent`] returns the wire.
    ///
    /// # Panics
    /// If the slot was closed, a send is in flight on it, or the wire is empty.
    pub fn send(&mut self, slot: Slot, wire: Wire) {
        assert!(!wire.is_empty(), "nothing to send");
        let socket = self.sockets.open_mut(slot);
        assert!(socket.send.is_none(), "one send in flight per slot");
        let mut sending = self.spare_sends.pop().unwrap_or_else(Sending::new);
        sending.load(wire);
        let entry = sending.entry(socket.fd());
        socket.send = Some(sending);
        self.kernel.counters.sends += 1;
        self.kernel.push(entry, Op::Send(slot));
    }

    /// Whether a send is in flight. False for a slot that is gone.
    pub fn is_sending(&self, slot: Slot) -> bool {
        self.sockets.occupant(slot).is_some_and(|socket| socket.send.is_some())
    }

    /// Whether the slot is in use and neither closed nor aborted.
    pub fn is_open(&self, slot: Slot) -> bool {
        self.sockets.occupant(slot).is_some_and(|socket| socket.life == Life::Open)
    }

    /// Ends a connection in order: no more events, the send in flight completes, then the socket is closed. A peer that
    /// never reads can delay that without bound; [`Self::abort`] then cuts it short. Does nothing on a slot that is gone.
    pub fn close(&mut self, slot: Slot) {
        let Some(socket) = self.sockets.occupant_mut(slot) else { return };
        if socket.life == Life::Open {
            socket.life = Life::Closing;
            self.cancel_recv(slot);
            self.finish(slot);
        }
    }

    /// Ends a connection at once: no more events, everything in flight is cancelled, the socket closed. Does nothing on
    /// a slot that is gone.
    pub fn abort(&mut self, slot: Slot) {
        let Some(socket) = self.sockets.occupant_mut(slot) else { return };
        if socket.life != Life::Aborting {
            socket.life = Life::Aborting;
            let sending = socket.send.is_some();
            self.cancel_recv(slot);
            if sending {
                self.kernel.push_cancel(Op::Send(slot));
            }
            self.finish(slot);
        }
    }

    /// Submits everything queued and appends what has completed to `events`: one system call, or none if there is
    /// nothing to submit and nothing complete. Does not wait.
    ///
    /// # Errors
    /// Only errors after which the ring is unusable.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.buffers.publish();
        self.rearm_starved();
        self.kernel.enter()?;
        let mut reaped = std::mem::take(&mut self.reaped);
        self.kernel.reap(&mut reaped);
        for completion in reaped.drain(..) {
            self.complete(completion, events);
        }
        self.reaped = reaped;
        Ok(())
    }

    /// The bytes of an [`Event::Received`].
    ///
    /// # Panics
    /// If `len` exceeds the size of a buffer.
    pub fn buffer(&self, buffer: &BufferId, len: u32) -> &[u8] {
        self.buffers.slice(buffer, len)
    }

    /// Gives a buffer back. The kernel may use it again from the next turn on.
    pub fn recycle(&mut self, buffer: BufferId) {
        self.buffers.recycle(buffer);
    }

    /// What this ring has done so far.
    pub const fn counters(&self) -> Counters {
        self.kernel.counters
    }

    /// Sockets in the table, those being closed included.
    pub const fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn arm_recv(&mut self, slot: Slot) {
        let Some(socket) = self.sockets.occupant_mut(slot) else { return };
        if socket.may_arm() {
            socket.armed = true;
            let entry = opcode::RecvMulti::new(types::Fd(socket.fd()), BUFFER_GROUP).build();
            self.kernel.push(entry, Op::Recv(slot));
        }
    }

    fn cancel_recv(&mut self, slot: Slot) {
        let Some(socket) = self.sockets.occupant_mut(slot) else { return };
        if socket.armed && !socket.cancelling {
            socket.cancelling = true;
            self.kernel.push_cancel(Op::Recv(slot));
        }
    }

    /// Starts the receives that wait for a buffer, at most one per buffer there is.
    fn rearm_starved(&mut self) {
        for _ in 0..self.starved.len().min(usize::from(self.buffers.available())) {
            let slot = self.starved.pop_front().expect("counted above");
            self.arm_recv(slot);
        }
    }

    /// Vacates the slot of a closing socket once the kernel is done with it.
    fn finish(&mut self, slot: Slot) {
        let Some(socket) = self.sockets.occupant(slot) else { return };
        if socket.life == Life::Open || !socket.is_quiet() {
            return;
        }
        let discard = socket.life == Life::Closing && !socket.ended;
        let fd = self.sockets.remove(slot);
        if discard {
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing; others fail with EFAULT on null.
            unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), DISCARD_BYTES, flags) };
        }
    }

    fn complete(&mut self, completion: Completion, events: &mut Vec<Event>) {
        match completion.op {
            Op::Recv(slot) => self.complete_recv(slot, completion, events),
            Op::Send(slot) => self.complete_send(slot, completion, events),
            Op::Accept(index) => self.complete_accept(index, completion, events),
            Op::Watch(index) => self.complete_watch(index, completion, events),
            Op::Wake if !completion.more() => self.arm_wake(),
            Op::Wake | Op::Ignored => {}
        }
    }

    fn complete_recv(&mut self, slot: Slot, completion: Completion, events: &mut Vec<Event>) {
        let buffer = completion.buffer().map(|id| self.buffers.take(id));
        let Some(socket) = self.sockets.occupant_mut(slot) else {
            if let Some(buffer) = buffer {
                self.buffers.recycle(buffer);
            }
            return;
        };
        if !completion.more() {
            socket.armed = false;
            socket.cancelling = false;
        }
        let open = socket.life == Life::Open && !socket.ended;
        match (buffer, u32::try_from(completion.result)) {
            (Some(buffer), Ok(len)) if len > 0 && open => {
                self.kernel.counters.recvs += 1;
                events.push(Event::Received { slot, buffer, len });
            }
            (Some(buffer), _) => self.buffers.recycle(buffer),
            (None, _) => {}
        }
        if completion.more() {
            return;
        }
        if !open {
            return self.finish(slot);
        }
        match -completion.result {
            0 => {
                socket.ended = true;
                events.push(Event::Closed { slot, error: None });
            }
            libc::ENOBUFS => {
                self.kernel.counters.enobufs += 1;
                self.buffers.note_shortage();
                self.starved.push_back(slot);
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | i32::MIN..0 => self.arm_recv(slot),
            _ => {
                socket.ended = true;
                events.push(Event::Closed { slot, error: completion.error() });
            }
        }
    }

    fn complete_send(&mut self, slot: Slot, completion: Completion, events: &mut Vec<Event>) {
        let Some(socket) = self.sockets.occupant_mut(slot) else { return };
        let Some(mut sending) = socket.send.take() else { return };
        let sent = usize::try_from(completion.result).unwrap_or(0);
        let done = sending.advance(sent);
        let interrupted = matches!(-completion.result, libc::EINTR | libc::EAGAIN);
        if !done && (sent > 0 || interrupted) && socket.life != Life::Aborting {
            let entry = sending.entry(socket.fd());
            socket.send = Some(sending);
            self.kernel.counters.short_sends += 1;
            self.kernel.push(entry, Op::Send(slot));
            return;
        }
        let wire = sending.unload();
        if self.spare_sends.len() < SPARE_SENDS_MAX {
            self.spare_sends.push(sending);
        }
        if socket.life == Life::Open {
            let error = completion.error().or_else(|| (!done).then(|| io::ErrorKind::WriteZero.into()));
            events.push(Event::Sent { slot, wire, error });
        } else {
            self.finish(slot);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel reads from wires and writes to buffers for as long as a request lives: end them all first.
        if !self.kernel.quiesce(accept::dispose) {
            tracing::error!("the kernel did not let go of a ring's requests; leaking their memory");
            self.buffers.leak();
            self.sockets.leak_sends();
        }
    }
}
