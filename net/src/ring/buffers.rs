//! The provided buffers: one anonymous mapping that holds the ring of descriptors shared with the kernel and, after it,
//! the buffers themselves.
//!
//! A buffer is either in the ring (the kernel may write to it at any time) or held by a [`BufferId`], which cannot be
//! copied: that is what makes [`Buffers::slice`] sound. The tail is published once per turn.

use io_uring::{IoUring, types::BufRingEntry};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Group under which the buffers are registered; a ring has one.
pub(super) const BUFFER_GROUP: u16 = 0;

/// Page size assumed for placing the buffers behind the descriptor ring; larger pages only waste the difference.
const PAGE_BYTES: usize = 4096;

/// A received buffer on loan from the ring. Give it back with `recycle`; dropping it loses the buffer for the life of
/// the ring.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not recycled is lost to the ring"]
pub struct BufferId(u16);

/// The pool and its descriptor ring.
#[derive(Debug)]
pub(super) struct Buffers {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    /// Where the first buffer starts within the mapping.
    pool_offset: usize,
    /// Buffers in the pool, a power of two.
    count: u16,
    buffer_bytes: u32,
    /// Next descriptor to fill; wraps.
    tail: u16,
    /// Tail the kernel knows.
    published: u16,
    /// Buffers on loan.
    held: u16,
}

impl Buffers {
    /// Maps the pool and fills the descriptor ring; the kernel does not know of it until [`Self::register`].
    ///
    /// # Errors
    /// `InvalidInput` unless `count` is a power of two up to 32,768 and `buffer_bytes` is not zero; `ENOMEM`.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || buffer_bytes == 0 {
            let reason = "the number of buffers must be a power of two up to 32768 and their size not zero";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let pool_offset = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE_BYTES);
        let mapping_bytes = pool_offset + usize::from(count) * buffer_bytes as usize;
        // SAFETY: a fresh anonymous mapping, no address requested.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapping_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers =
            Self { mapping, mapping_bytes, pool_offset, count, buffer_bytes, tail: 0, published: 0, held: count };
        for id in 0..count {
            buffers.recycle(BufferId(id));
        }
        Ok(buffers)
    }

    /// Tells the kernel about the descriptor ring.
    ///
    /// # Errors
    /// As `IORING_REGISTER_PBUF_RING`.
    pub(super) fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        self.publish();
        let address = self.mapping.as_ptr() as u64;
        // SAFETY: the mapping starts page-aligned, holds `count` descriptors and is unmapped only after the ring is
        // closed with nothing in flight, or never (see `leak`).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, self.count, BUFFER_GROUP, 0) }
    }

    /// Notes that the kernel handed out buffer `id` in a completion.
    ///
    /// # Panics
    /// If the kernel names a buffer that does not exist.
    pub(super) fn take(&mut self, id: u16) -> BufferId {
        assert!(id < self.count);
        self.held += 1;
        BufferId(id)
    }

    /// Puts a buffer back; the kernel sees it at the next [`Self::publish`].
    pub(super) fn recycle(&mut self, id: BufferId) {
        assert!(id.0 < self.count, "a buffer of another ring");
        assert!(self.held > 0);
        let entry = usize::from(self.tail & (self.count - 1));
        let address = self.buffer_ptr(&id) as u64;
        // SAFETY: `entry` is within the ring. The kernel reads only descriptors between its head and the published
        // tail, and at most `count` buffers exist, so this one is not among them.
        let entry = unsafe { &mut *self.mapping.as_ptr().cast::<BufRingEntry>().add(entry) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id.0);
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Shows the kernel every buffer recycled since the last call.
    pub(super) fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        // SAFETY: the mapping starts with the first descriptor, whose reserved field is the tail; two bytes, aligned.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.mapping.as_ptr().cast()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }

    /// Buffers the kernel has or is about to be shown.
    pub(super) const fn available(&self) -> u16 {
        self.count - self.held
    }

    /// The first `len` bytes of a buffer on loan.
    ///
    /// # Panics
    /// If `len` exceeds the size of a buffer.
    pub(super) fn slice(&self, id: &BufferId, len: u32) -> &[u8] {
        assert!(id.0 < self.count, "a buffer of another ring");
        assert!(len <= self.buffer_bytes);
        // SAFETY: within the mapping, initialised (anonymous memory is zeroed), and not written by the kernel as long
        // as the `BufferId` exists, because the buffer is not in the ring.
        unsafe { std::slice::from_raw_parts(self.buffer_ptr(id), len as usize) }
    }

    /// Never unmaps: the last resort when the kernel may still write to the buffers.
    pub(super) const fn leak(&mut self) {
        self.mapping_bytes = 0;
    }

    fn buffer_ptr(&self, id: &BufferId) -> *const u8 {
        self.mapping.as_ptr().wrapping_add(self.pool_offset + usize::from(id.0) * self.buffer_bytes as usize)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.mapping_bytes > 0 {
            // SAFETY: exactly the mapping made in `new`; no slice outlives `self` and the kernel is done with it.
            unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_no_power_of_two_is_refused() {
        for (count, bytes) in [(0, 4096), (3, 4096), (8, 0)] {
            assert_eq!(Buffers::new(count, bytes).expect_err("invalid").kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn buffers_on_loan_are_counted_and_their_tail_wraps() {
        let mut buffers = Buffers::new(4, 64).expect("mapped");
        assert_eq!(buffers.available(), 4);
        for turn in 0..100_000_u32 {
            let id = buffers.take((turn % 4) as u16);
            assert_eq!(buffers.available(), 3);
            assert_eq!(buffers.slice(&id, 64).len(), 64);
            buffers.recycle(id);
            buffers.publish();
        }
        assert_eq!(buffers.available(), 4);
    }
}
