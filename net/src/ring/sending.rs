//! One send in flight: owns the [`Wire`] until the kernel is done with its bytes.

use bifro_mqtt::wire::Wire;
use io_uring::{opcode, squeue, types};
use std::os::fd::RawFd;

/// Pieces per request: the kernel's `IOV_MAX`. A wire of more pieces goes out in several requests.
const PIECES_MAX: usize = 1024;
/// Bytes per plain request: results are `i32`.
const REQUEST_BYTES_MAX: usize = 1 << 30;
/// Piece descriptors worth keeping for the next send.
const KEPT_PIECES: usize = 64;

/// No SIGPIPE; the kernel itself goes on after a partial send while it can.
const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// A wire on its way out. Must stay where it is (boxed) while the kernel works on it.
#[derive(Debug)]
pub(super) struct Sending {
    wire: Wire,
    sent: usize,
    pieces: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Sending {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: a message header of zeroes is valid: no name, no pieces, no control data.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { wire: Wire::default(), sent: 0, pieces: Vec::new(), header })
    }

    /// Takes the next wire.
    pub(super) fn load(&mut self, wire: Wire) {
        self.wire = wire;
        self.sent = 0;
    }

    /// Gives the wire back.
    pub(super) fn unload(&mut self) -> Wire {
        self.pieces.clear();
        self.pieces.shrink_to(KEPT_PIECES);
        std::mem::take(&mut self.wire)
    }

    /// Counts `bytes` as sent; true when nothing is left.
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        self.sent += bytes;
        assert!(self.sent <= self.wire.len());
        self.sent == self.wire.len()
    }

    /// The request for everything not yet sent.
    pub(super) fn entry(&mut self, fd: RawFd) -> squeue::Entry {
        if self.wire.cuts().is_empty() {
            let rest = &self.wire.bytes[self.sent..];
            let len = u32::try_from(rest.len().min(REQUEST_BYTES_MAX)).expect("bounded by 2^30");
            return opcode::Send::new(types::Fd(fd), rest.as_ptr(), len).flags(FLAGS).build();
        }
        let mut skip = self.sent;
        self.pieces.clear();
        for piece in self.wire.pieces() {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let rest = &piece[std::mem::take(&mut skip)..];
            // The kernel only reads through the pointer; `iovec` has no const variant.
            self.pieces.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            if self.pieces.len() == PIECES_MAX {
                break;
            }
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = self.pieces.len();
        opcode::SendMsg::new(types::Fd(fd), &self.header).flags(FLAGS.cast_unsigned()).build()
    }
}
