//! The table of sockets: who occupies which slot and what the kernel is still doing on its behalf.
//!
//! ```text
//!          add              close                 nothing in flight
//! (vacant) ────► Open ─────────────► Closing ─────────────────────► (vacant, generation + 1)
//!                  │      abort         │ abort                        ▲
//!                  └──────────────► Aborting ──────────────────────────┘
//! ```
//! Invariant: a slot becomes vacant only when no kernel operation names it.

use super::sending::Sending;
use super::user_data::INDEX_MAX;
use bifro_core::ids::Slot;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// In use.
    Open,
    /// No more events; a send in flight may finish.
    Closing,
    /// No more events; everything is being cancelled.
    Aborting,
}

/// One entry. Idle connections dominate, so its size is part of the broker's memory per connection.
#[derive(Debug)]
pub(super) struct Socket {
    /// The send in flight.
    pub(super) send: Option<Box<Sending>>,
    /// None while the slot is vacant.
    fd: Option<OwnedFd>,
    generation: u32,
    pub(super) life: Life,
    /// The owner wants to receive.
    pub(super) wanted: bool,
    /// The owner asked for a pause.
    pub(super) paused: bool,
    /// A receive is with the kernel.
    pub(super) armed: bool,
    /// That receive has been asked to end.
    pub(super) cancelling: bool,
    /// The peer ended the stream or broke it: nothing more will ever be received.
    pub(super) ended: bool,
}

const _: () = assert!(size_of::<Socket>() <= 24);

impl Socket {
    const fn new(fd: Option<OwnedFd>, generation: u32) -> Self {
        Self {
            send: None,
            fd,
            generation,
            life: Life::Open,
            wanted: false,
            paused: false,
            armed: false,
            cancelling: false,
            ended: false,
        }
    }

    /// Whether a receive should be started now.
    pub(super) fn may_arm(&self) -> bool {
        self.life == Life::Open && self.wanted && !self.paused && !self.armed && !self.ended
    }

    /// Whether the kernel is done with this socket.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.armed && self.send.is_none()
    }

    /// The descriptor of an occupied slot.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_ref().expect("only occupied slots are looked up").as_raw_fd()
    }
}

/// All sockets of a ring.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    entries: Vec<Socket>,
    vacant: Vec<u32>,
}

impl Sockets {
    /// Gives `fd` a slot.
    ///
    /// # Panics
    /// At 2^24 sockets, which no descriptor limit allows.
    pub(super) fn insert(&mut self, fd: OwnedFd) -> Slot {
        let index = self.vacant.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.entries.len()).expect("bounded below");
            assert!(index <= INDEX_MAX, "the table of sockets is full");
            self.entries.push(Socket::new(None, 0));
            index
        });
        let socket = &mut self.entries[index as usize];
        assert!(socket.fd.is_none() && socket.is_quiet());
        let generation = socket.generation;
        *socket = Socket::new(Some(fd), generation);
        Slot { index, generation }
    }

    /// The occupant of `slot`, unless it has left.
    pub(super) fn occupant(&self, slot: Slot) -> Option<&Socket> {
        self.entries
            .get(slot.index as usize)
            .filter(|socket| socket.generation == slot.generation && socket.fd.is_some())
    }

    /// The occupant of `slot`, unless it has left.
    pub(super) fn occupant_mut(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.entries
            .get_mut(slot.index as usize)
            .filter(|socket| socket.generation == slot.generation && socket.fd.is_some())
    }

    /// The occupant of `slot`, which the caller has not closed.
    ///
    /// # Panics
    /// If it was closed: using a connection after closing it is a fault of the caller.
    pub(super) fn open_mut(&mut self, slot: Slot) -> &mut Socket {
        let socket = self.occupant_mut(slot).expect("the slot was closed");
        assert!(socket.life == Life::Open, "the slot was closed");
        socket
    }

    /// Empties `slot` and returns its descriptor.
    ///
    /// # Panics
    /// If the slot is vacant or the kernel still works on it.
    pub(super) fn remove(&mut self, slot: Slot) -> OwnedFd {
        let socket = self.occupant_mut(slot).expect("removed once");
        assert!(socket.is_quiet());
        socket.generation = socket.generation.wrapping_add(1);
        let fd = socket.fd.take().expect("occupied");
        self.vacant.push(slot.index);
        fd
    }

    /// Sockets that occupy a slot.
    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Forgets every send in flight without freeing it, for a kernel that does not let go.
    pub(super) fn leak_sends(&mut self) {
        for send in self.entries.iter_mut().filter_map(|socket| socket.send.take()) {
            Box::leak(send);
        }
    }
}
