//! Multishot accepts: armed once, re-armed when the kernel ends them.

use super::kernel::Completion;
use super::user_data::{INDEX_MAX, Op};
use super::{Event, Ring};
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A listening socket.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// None once it has stopped for good.
    fd: Option<OwnedFd>,
    listener: u16,
    /// An accept is with the kernel.
    armed: bool,
    stopping: bool,
}

impl Ring {
    /// Accepts connections from a blocking listening socket; its events carry `listener`.
    pub fn listen(&mut self, fd: OwnedFd, listener: u16) {
        let index = next_index(self.acceptors.len());
        self.acceptors.push(Acceptor { fd: Some(fd), listener, armed: false, stopping: false });
        self.arm_accept(index);
    }

    /// Accepts again after [`Event::AcceptFailed`].
    pub fn resume_accept(&mut self, listener: u16) {
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].listener == listener {
                self.arm_accept(next_index(index));
            }
        }
    }

    /// Closes every listening socket. Connections accepted but not yet reported are dropped.
    pub fn stop_listening(&mut self) {
        for index in 0..self.acceptors.len() {
            let acceptor = &mut self.acceptors[index];
            acceptor.stopping = true;
            if acceptor.armed {
                self.kernel.push_cancel(Op::Accept(next_index(index)));
            } else {
                acceptor.fd = None;
            }
        }
    }

    fn arm_accept(&mut self, index: u32) {
        let acceptor = &mut self.acceptors[index as usize];
        let Some(fd) = &acceptor.fd else { return };
        if !acceptor.armed && !acceptor.stopping {
            acceptor.armed = true;
            let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
            self.kernel.push(entry, Op::Accept(index));
        }
    }

    pub(super) fn complete_accept(&mut self, index: u32, completion: Completion, events: &mut Vec<Event>) {
        let acceptor = &mut self.acceptors[index as usize];
        let listener = acceptor.listener;
        if let Some(fd) = accepted(&completion)
            && !acceptor.stopping
        {
            events.push(Event::Accepted { listener, fd });
        }
        if completion.more() {
            return;
        }
        acceptor.armed = false;
        if acceptor.stopping {
            acceptor.fd = None;
            return;
        }
        match completion.error() {
            Some(error) if !is_passing(&error) => events.push(Event::AcceptFailed { listener, error }),
            _ => self.arm_accept(index),
        }
    }
}

/// Closes what a completion nobody will see has brought.
pub(super) fn dispose(completion: Completion) {
    if matches!(completion.op, Op::Accept(_)) {
        drop(accepted(&completion));
    }
}

fn accepted(completion: &Completion) -> Option<OwnedFd> {
    // SAFETY: a non-negative result of an accept is a new descriptor, and each completion is looked at once.
    (completion.result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(completion.result) })
}

/// Errors of one connection that died in the backlog, or of nobody; accepting simply goes on [accept(2)].
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::ECANCELED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

fn next_index(len: usize) -> u32 {
    u32::try_from(len).ok().filter(|index| *index <= INDEX_MAX).expect("listeners and polls are few")
}
