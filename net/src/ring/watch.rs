//! Readiness of descriptors that somebody else reads from, such as the UDP socket of a QUIC endpoint.
//!
//! Invariant: the ring polls a duplicate that it owns, so that a poll never names a number which was closed and given to another file.

use super::kernel::Completion;
use super::user_data::{INDEX_MAX, Op};
use super::{Event, Ring};
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A descriptor that is polled for as long as the ring lives.
#[derive(Debug)]
pub(super) struct Watched {
    fd: OwnedFd,
    token: u16,
}

impl Ring {
    /// Reports [`Event::Readable`] with this token whenever something arrives at the socket or pipe `fd`, from now until the ring is
    /// dropped. What is there already is reported, too; what was reported and left unread is not reported again until more arrives, so
    /// read until `WouldBlock`, or remember that there is more.
    ///
    /// The ring keeps a duplicate: a socket stays bound until the ring is gone, too.
    ///
    /// # Errors
    /// As `dup`, typically for want of descriptors.
    pub fn watch(&mut self, fd: BorrowedFd<'_>, token: u16) -> io::Result<()> {
        let fd = fd.try_clone_to_owned()?;
        let index = u32::try_from(self.watched.len()).ok().filter(|index| *index <= INDEX_MAX);
        self.watched.push(Watched { fd, token });
        self.arm_watch(index.expect("each has a descriptor, and there are fewer of those"));
        Ok(())
    }

    fn arm_watch(&mut self, index: u32) {
        let fd = types::Fd(self.watched[index as usize].fd.as_raw_fd());
        self.kernel.push(opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build(), Op::Watch(index));
    }

    pub(super) fn complete_watch(&mut self, index: u32, completion: Completion, events: &mut Vec<Event>) {
        events.push(Event::Readable { token: self.watched[index as usize].token });
        if !completion.more() {
            self.arm_watch(index);
        }
    }
}
