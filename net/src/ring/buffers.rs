//! The provided buffers: one anonymous mapping that holds the ring of descriptors shared with the kernel and, after it,
//! the buffers themselves.
//!
//! A buffer is offered to the kernel (which may write to it at any time), held by a [`BufferId`], which cannot be copied: that
//! is what makes [`Buffers::slice`] sound, or spare. The tail is published once per turn.
//!
//! ```text
//!             publish               completion
//!   spare ──────────────► offered ──────────────► held ──┐
//!     ▲                                         recycle  │
//!     └──────────────────────────────────────────────────┘
//! ```
//! The kernel takes what it is offered in order, so a ring with every buffer in it would go round through all of them: all
//! would be resident, and none in the cache. Only as many are offered as recent turns have needed, and the one given back
//! last is offered first; what a burst has touched is given back to the system when it is over.

use io_uring::{IoUring, types::BufRingEntry};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Group under which the buffers are registered; a ring has one.
pub(super) const BUFFER_GROUP: u16 = 0;

/// Page size assumed for placing the buffers behind the descriptor ring; larger pages only waste the difference.
const PAGE_BYTES: usize = 4096;

/// Buffers offered at least, if there are as many.
const OFFER_MIN: u16 = 32;

/// Turns over which the need is watched before fewer are offered.
const WATCH_TURNS: u16 = 256;

/// Time over which it is watched if the ring turns more slowly.
const WATCH_TIME: Duration = Duration::from_secs(1);

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
    /// Neither offered nor on loan; the last one given back is on top.
    spare: Vec<u16>,
    /// Buffers that hold memory, by number, because the kernel has written to them.
    resident: Vec<bool>,
    /// Buffers the kernel has or is about to be shown.
    offered: u16,
    /// How many are to be offered.
    offer: u16,
    /// Taken by the kernel since the last publish.
    taken: u16,
    /// Most that were taken between two publishes, of late.
    taken_peak: u16,
    /// Publishes until the peak is judged.
    watch: u16,
    /// When it was last judged, as far as [`Self::rest`] was told.
    judged_at: Option<Instant>,
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
        Ok(Self {
            mapping,
            mapping_bytes,
            pool_offset,
            count,
            buffer_bytes,
            tail: 0,
            published: 0,
            spare: (0..count).rev().collect(),
            resident: vec![false; usize::from(count)],
            offered: 0,
            offer: OFFER_MIN.min(count),
            taken: 0,
            taken_peak: 0,
            watch: WATCH_TURNS,
            judged_at: None,
        })
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
    /// If the kernel names a buffer that does not exist, or more than it was offered.
    pub(super) fn take(&mut self, id: u16) -> BufferId {
        assert!(id < self.count && self.offered > 0);
        self.offered -= 1;
        self.taken += 1;
        self.resident[usize::from(id)] = true;
        BufferId(id)
    }

    /// Puts a buffer back; the kernel sees it after some later [`Self::publish`].
    pub(super) fn recycle(&mut self, id: BufferId) {
        assert!(id.0 < self.count, "a buffer of another ring");
        assert!(self.spare.len() < usize::from(self.count - self.offered));
        self.spare.push(id.0);
    }

    /// A receive ended for want of a buffer: more are to be offered.
    pub(super) fn note_shortage(&mut self) {
        self.offer = self.offer.saturating_mul(2).min(self.count);
    }

    /// Offers the kernel as many buffers as it is to have.
    pub(super) fn publish(&mut self) {
        self.judge();
        while self.offered < self.offer
            && let Some(id) = self.spare.pop()
        {
            self.put(id);
        }
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
        self.offered
    }

    /// Fills the next descriptor of the ring.
    fn put(&mut self, id: u16) {
        let entry = usize::from(self.tail & (self.count - 1));
        let address = self.buffer_ptr(id) as u64;
        // SAFETY: `entry` is within the ring. The kernel reads only descriptors between its head and the published
        // tail, and at most `count` buffers exist, so this one is not among them.
        let entry = unsafe { &mut *self.mapping.as_ptr().cast::<BufRingEntry>().add(entry) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
    }

    /// Follows the need: more at once when a turn took more than half, fewer when no turn of late has taken an eighth.
    fn judge(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.taken_peak = self.taken_peak.max(taken);
        if taken > self.offer / 2 {
            self.note_shortage();
        }
        self.watch -= 1;
        if self.watch == 0 && self.offers_too_many() {
            self.release_spare();
        }
    }

    /// The ring is about to sleep, with nothing complete: the kernel writes to buffers only inside `io_uring_enter`
    /// (`DEFER_TASKRUN`), so that even those it has been offered may be emptied. Does so after a burst.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.offer <= OFFER_MIN || now - *self.judged_at.get_or_insert(now) < WATCH_TIME {
            return;
        }
        self.judged_at = Some(now);
        if self.offers_too_many() {
            self.release_spare();
            self.release_offered();
        }
    }

    /// Begins a new watch. True if fewer buffers are to be offered from now on.
    fn offers_too_many(&mut self) -> bool {
        self.watch = WATCH_TURNS;
        let peak = std::mem::take(&mut self.taken_peak);
        let too_many = peak < self.offer / 8 && self.offer > OFFER_MIN;
        if too_many {
            self.offer = (self.offer / 2).max(OFFER_MIN);
        }
        too_many
    }

    /// Gives the memory of the spare buffers that were used least recently back to the system.
    fn release_spare(&mut self) {
        let unused = self.spare.len().saturating_sub(usize::from(self.offer));
        for at in 0..unused {
            self.release(self.spare[at]);
        }
    }

    /// The same for buffers the kernel has been offered, but for those it will use first.
    fn release_offered(&mut self) {
        for at in self.offer..self.offered {
            let entry = self.tail.wrapping_sub(self.offered).wrapping_add(at) & (self.count - 1);
            // SAFETY: within the ring of descriptors, which only this thread writes.
            let id = unsafe { (*self.mapping.as_ptr().cast::<BufRingEntry>().add(usize::from(entry))).bid() };
            self.release(id);
        }
    }

    fn release(&mut self, id: u16) {
        if !(self.buffer_bytes as usize).is_multiple_of(PAGE_BYTES)
            || !std::mem::take(&mut self.resident[usize::from(id)])
        {
            return;
        }
        let address = self.buffer_ptr(id).cast_mut().cast();
        // SAFETY: whole pages of a private anonymous mapping that no slice refers to and that nobody writes to now: they read
        // as zeroes afterwards. Failure leaves them as they are.
        unsafe { libc::madvise(address, self.buffer_bytes as usize, libc::MADV_DONTNEED) };
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
        unsafe { std::slice::from_raw_parts(self.buffer_ptr(id.0), len as usize) }
    }

    /// Never unmaps: the last resort when the kernel may still write to the buffers.
    pub(super) const fn leak(&mut self) {
        self.mapping_bytes = 0;
    }

    fn buffer_ptr(&self, id: u16) -> *const u8 {
        self.mapping.as_ptr().wrapping_add(self.pool_offset + usize::from(id) * self.buffer_bytes as usize)
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
    use std::collections::VecDeque;

    #[test]
    fn a_count_that_is_no_power_of_two_is_refused() {
        for (count, bytes) in [(0, 4096), (3, 4096), (8, 0)] {
            assert_eq!(Buffers::new(count, bytes).expect_err("invalid").kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// One turn in which the kernel uses `taken` of what it was offered, in order, and all is given back.
    fn turn(buffers: &mut Buffers, offered: &mut VecDeque<u16>, taken: usize) {
        let from = buffers.tail;
        buffers.publish();
        let entries = buffers.mapping.as_ptr().cast::<BufRingEntry>();
        for at in 0..buffers.tail.wrapping_sub(from) {
            let entry = usize::from(from.wrapping_add(at) & (buffers.count - 1));
            // SAFETY: within the ring, and nobody else reads or writes it: no kernel has been told of it.
            offered.push_back(unsafe { (*entries.add(entry)).bid() });
        }
        let held: Vec<BufferId> = offered.drain(..taken.min(offered.len())).map(|id| buffers.take(id)).collect();
        assert_eq!(usize::from(buffers.available()), offered.len());
        for id in held {
            assert_eq!(buffers.slice(&id, 64).len(), 64);
            buffers.recycle(id);
        }
    }

    #[test]
    fn a_quiet_ring_touches_few_buffers_however_long_it_turns() {
        let mut buffers = Buffers::new(1024, 4096).expect("mapped");
        let mut offered = VecDeque::new();
        // The tail wraps several times.
        for _ in 0..200_000 {
            turn(&mut buffers, &mut offered, 1);
        }
        let resident = buffers.resident.iter().filter(|&&resident| resident).count();
        assert!(resident <= usize::from(OFFER_MIN) + 1, "{resident} buffers were used");
    }

    #[test]
    fn a_burst_is_offered_more_and_its_memory_is_given_back_afterwards() {
        let mut buffers = Buffers::new(1024, 4096).expect("mapped");
        let mut offered = VecDeque::new();
        for _ in 0..20 {
            turn(&mut buffers, &mut offered, 1024);
        }
        assert_eq!(buffers.offer, 1024, "every buffer is offered while turns take them all");
        assert!(buffers.resident.iter().all(|&resident| resident));
        for _ in 0..usize::from(WATCH_TURNS) * 6 + 1024 {
            turn(&mut buffers, &mut offered, 1);
        }
        assert_eq!(buffers.offer, OFFER_MIN);
        let resident = buffers.resident.iter().filter(|&&resident| resident).count();
        // Those spared when the offer was last halved, and those that were offered at that time.
        assert!(resident <= 3 * usize::from(OFFER_MIN), "{resident} buffers still hold memory");
    }

    #[test]
    fn a_ring_that_falls_idle_after_a_burst_gives_memory_back_though_it_hardly_turns() {
        let mut buffers = Buffers::new(1024, 4096).expect("mapped");
        let mut offered = VecDeque::new();
        for _ in 0..20 {
            turn(&mut buffers, &mut offered, 1024);
        }
        let start = Instant::now();
        for second in 0..8 {
            turn(&mut buffers, &mut offered, 1);
            buffers.rest(start + Duration::from_secs(second));
        }
        assert_eq!(buffers.offer, OFFER_MIN);
        let resident = buffers.resident.iter().filter(|&&resident| resident).count();
        assert!(resident <= 3 * usize::from(OFFER_MIN), "{resident} buffers still hold memory");
    }

    #[test]
    fn a_shortage_doubles_the_offer_up_to_all_there_are() {
        let mut buffers = Buffers::new(128, 64).expect("mapped");
        buffers.publish();
        assert_eq!(buffers.available(), OFFER_MIN);
        for expected in [64, 128, 128] {
            buffers.note_shortage();
            buffers.publish();
            assert_eq!(buffers.available(), expected);
        }
    }
}
