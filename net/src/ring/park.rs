//! Sleeping and being woken. A shard sleeps in its own ring, in one system call, and other threads end the sleep through an
//! eventfd that the ring polls.
//!
//! glommio's reactor is not asked: one of its wake-ups costs about fifteen system calls. What else runs on the executor has its
//! turn before each sleep and about every millisecond, but what it waits for must come from the shard (a waker called from the
//! loop), not from glommio's I/O or timers, which are looked at only every [`PREEMPT`](crate::cores) or so.

use super::Ring;
use super::user_data::Op;
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a busy shard goes on before the executor's other tasks have their turn.
const BUSY_SLICE: Duration = Duration::from_millis(1);

/// Wakes a parked ring from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// Ends the ring's current or next [`Ring::park`]. Costs a system call: ask only when the shard is parked.
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes, as an eventfd takes them. It fails only if the counter is about to overflow,
        // and then the reader is awake anyway.
        unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

/// The sleeping side.
#[derive(Debug)]
pub(super) struct Sleeper {
    waker: Waker,
    /// How long to look for work before sleeping.
    spin: Duration,
    /// When other tasks last could run.
    rested_at: Instant,
}

impl Sleeper {
    pub(super) fn new(spin: Duration) -> io::Result<Self> {
        // SAFETY: no pointers involved.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let eventfd = Arc::new(unsafe { OwnedFd::from_raw_fd(raw) });
        Ok(Self { waker: Waker { eventfd }, spin, rested_at: Instant::now() })
    }

    /// Lets the executor's other tasks run until they wait.
    async fn rest(&mut self) {
        glommio::executor().yield_task_queue_now().await;
        self.rested_at = Instant::now();
    }
}

impl Ring {
    /// What other threads use to end a [`Self::park`].
    pub fn waker(&self) -> Waker {
        self.sleeper.waker.clone()
    }

    /// Sleeps until something completes, a [`Waker`] is used, or `deadline` (from now) has passed; it may return early,
    /// too. With anything queued or complete it only lets other tasks run, once a millisecond. Blocks the thread. A caller
    /// that is cancelled in here must take a turn before it parks again.
    ///
    /// # Errors
    /// Only errors after which the ring is unusable.
    ///
    /// # Panics
    /// Outside a glommio executor.
    pub async fn park(&mut self, deadline: Option<Duration>) -> io::Result<()> {
        self.buffers.publish();
        if self.has_work() || deadline.is_some_and(|delay| delay.is_zero()) {
            if self.sleeper.rested_at.elapsed() >= BUSY_SLICE {
                self.sleeper.rest().await;
            }
            return Ok(());
        }
        self.sleeper.rest().await;
        if self.spin_for_work(deadline) {
            return Ok(());
        }
        self.buffers.rest(self.sleeper.rested_at);
        self.kernel.counters.sleeps += 1;
        self.kernel.wait(deadline)
    }

    /// Looks for work for the time configured. True if there is some.
    fn spin_for_work(&mut self, deadline: Option<Duration>) -> bool {
        let spin = deadline.map_or(self.sleeper.spin, |delay| delay.min(self.sleeper.spin));
        let start = Instant::now();
        loop {
            if self.has_work() {
                return true;
            }
            if spin.is_zero() || start.elapsed() >= spin {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Watches the eventfd. It is never read: every write completes the poll once more, and its counter has room for more writes
    /// than there will ever be.
    pub(super) fn arm_wake(&mut self) {
        let fd = types::Fd(self.sleeper.waker.eventfd.as_raw_fd());
        self.kernel.push(opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build(), Op::Wake);
    }

    /// Whether a turn would find something to do.
    fn has_work(&mut self) -> bool {
        let starved = !self.starved.is_empty() && self.buffers.available() > 0;
        starved || self.kernel.has_work()
    }
}
