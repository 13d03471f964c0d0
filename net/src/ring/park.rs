//! Sleeping and being woken: an eventfd that both the ring's completions and other threads signal, read through glommio so
//! that the executor's other tasks run meanwhile; and the one alarm of the shard.

use super::Ring;
use super::kernel::Kernel;
use super::user_data::Op;
use glommio::io::BufferedFile;
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
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
    /// The eventfd as glommio reads it; made at the first park, because it needs a running executor.
    file: Option<BufferedFile>,
    /// When the alarm rings, if it is set.
    alarm_at: Option<Instant>,
    /// When other tasks last could run.
    rested_at: Instant,
    /// Read by the kernel when the alarm is submitted.
    alarm_after: Box<types::Timespec>,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers involved.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let eventfd = Arc::new(unsafe { OwnedFd::from_raw_fd(raw) });
        let alarm_after = Box::default();
        Ok(Self { waker: Waker { eventfd }, file: None, alarm_at: None, rested_at: Instant::now(), alarm_after })
    }

    pub(super) fn raw_eventfd(&self) -> RawFd {
        self.waker.eventfd.as_raw_fd()
    }

    /// The alarm is over.
    pub(super) const fn alarm_rang(&mut self) {
        self.alarm_at = None;
    }

    /// Makes the alarm ring after `delay` at the latest. True if that needed a request, which must be submitted before
    /// the next call.
    fn set_alarm(&mut self, delay: Duration, kernel: &mut Kernel) -> bool {
        let at = Instant::now() + delay;
        if self.alarm_at.is_some_and(|set| set <= at) {
            return false;
        }
        *self.alarm_after = types::Timespec::from(delay);
        if self.alarm_at.replace(at).is_none() {
            kernel.push(opcode::Timeout::new(&*self.alarm_after).build(), Op::Alarm);
        } else {
            // Should it ring first, its completion ends the sleep just as well.
            kernel.push_silent(opcode::TimeoutUpdate::new(Op::Alarm.pack(), &*self.alarm_after).build());
        }
        true
    }

    async fn sleep(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let duplicate = self.waker.eventfd.try_clone()?;
            // SAFETY: the duplicate's ownership passes to the file, which closes it.
            self.file = Some(unsafe { BufferedFile::from_raw_fd(duplicate.into_raw_fd()) });
        }
        let file = self.file.as_ref().expect("made above");
        file.read_at(0, size_of::<u64>()).await?;
        self.rested_at = Instant::now();
        Ok(())
    }

    /// Lets the executor's other tasks run once if this one has had its slice. A mere yield would not do: while a task is
    /// runnable, glommio looks at no I/O and no timer before its preemption timer fires. Reading what is already there
    /// makes this task wait for exactly one look.
    async fn rest_if_due(&mut self) -> io::Result<()> {
        if self.rested_at.elapsed() < BUSY_SLICE {
            return Ok(());
        }
        self.waker.wake();
        self.sleep().await
    }
}

impl Ring {
    /// What other threads use to end a [`Self::park`].
    pub fn waker(&self) -> Waker {
        self.sleeper.waker.clone()
    }

    /// Sleeps until something completes, a [`Waker`] is used, or `deadline` (from now) has passed; it may return early,
    /// too. With anything queued or complete it only lets other tasks run, once a millisecond. A caller that is cancelled
    /// in here must take a turn before it parks again.
    ///
    /// # Errors
    /// Only errors after which the ring is unusable.
    ///
    /// # Panics
    /// Outside a glommio executor.
    pub async fn park(&mut self, deadline: Option<Duration>) -> io::Result<()> {
        self.buffers.publish();
        if self.has_work() || deadline.is_some_and(|delay| delay.is_zero()) {
            return self.sleeper.rest_if_due().await;
        }
        if let Some(delay) = deadline
            && self.sleeper.set_alarm(delay, &mut self.kernel)
        {
            self.kernel.enter()?;
        }
        self.kernel.enable_wakeups()?;
        let slept = if self.has_work() {
            Ok(())
        } else {
            self.kernel.counters.sleeps += 1;
            self.sleeper.sleep().await
        };
        self.kernel.disable_wakeups();
        slept
    }

    /// Whether a turn would find something to do.
    fn has_work(&mut self) -> bool {
        let starved = !self.starved.is_empty() && self.buffers.available() > 0;
        starved || self.kernel.has_work()
    }
}
