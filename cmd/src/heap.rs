//! What the allocator does with memory that is freed.

/// What a thread's heap may keep for later, and from which size on an allocation is the kernel's from the beginning.
///
/// A shard asks for the same large buffers turn after turn. glibc would give the end of its heap back each time 128 KiB of it are free, and have
/// the kernel fault every page in again: a quarter of what a message forwarded between nodes cost (1.16 million a second and CPU, 1.60 without).
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 16 << 20;
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 8 << 20;

/// Has every thread's heap keep what it will need again. To be called before there are other threads.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_TRIM_THRESHOLD, KEPT_BYTES), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES)] {
        // SAFETY: the call only sets numbers of the allocator, while no other thread runs. Refused, everything is as it was.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}
