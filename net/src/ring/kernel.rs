//! The io_uring itself: queueing requests, entering the kernel, reaping completions. Knows nothing of sockets.
//!
//! Invariant: a request is either in the submission queue, in the backlog behind it, or with the kernel; order is kept.

use super::user_data::Op;
use super::{Counters, RingConfig};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// How long one wait for cancelled requests may take when a ring is dropped, before their memory is leaked instead.
const QUIESCE_WAIT: Duration = Duration::from_secs(1);

/// A completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) op: Op,
    /// Result, or a negated errno.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the request lives on and will complete again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that was used.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The result as an error, if it is one.
    pub(super) fn error(&self) -> Option<io::Error> {
        (self.result < 0).then(|| io::Error::from_raw_os_error(-self.result))
    }
}

/// One io_uring with its overflow of requests.
#[derive(Debug)]
pub(super) struct Kernel {
    ring: Uring,
    /// Requests that found the submission queue full and the kernel unwilling to take more. Bounded by what the ring
    /// can ask for: a receive, a send and their cancels per socket.
    backlog: VecDeque<squeue::Entry>,
    /// Requests whose final completion is outstanding, cancels excepted.
    in_flight: u32,
    pub(super) counters: Counters,
}

/// `IoUring` with the `Debug` it lacks.
struct Uring(IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoUring")
    }
}

impl Kernel {
    /// Sets the ring up.
    ///
    /// # Errors
    /// As `io_uring_setup`.
    pub(super) fn new(config: &RingConfig) -> io::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.cq_entries)
            .build(config.entries)?;
        Ok(Self { ring: Uring(ring), backlog: VecDeque::new(), in_flight: 0, counters: Counters::default() })
    }

    /// The ring, for registrations.
    pub(super) const fn uring(&self) -> &IoUring {
        &self.ring.0
    }

    /// Queues a request whose completions matter.
    ///
    /// The caller keeps everything the entry points to alive and in place until its final completion.
    pub(super) fn push(&mut self, entry: squeue::Entry, op: Op) {
        self.in_flight += 1;
        self.push_entry(entry.user_data(op.pack()));
    }

    /// Queues the cancellation of `op`. It completes with `ECANCELED`, or as it would have if the cancel comes too late.
    pub(super) fn push_cancel(&mut self, op: Op) {
        self.push_silent(opcode::AsyncCancel::new(op.pack()).build());
    }

    /// Queues a request whose outcome is of no interest.
    pub(super) fn push_silent(&mut self, entry: squeue::Entry) {
        self.push_entry(entry.user_data(Op::Ignored.pack()).flags(squeue::Flags::SKIP_SUCCESS));
    }

    fn push_entry(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && self.try_push(&entry) {
            return;
        }
        if self.backlog.is_empty() {
            self.counters.queue_full += 1;
            // A refusal is not lost: what stays queued is submitted by the next turn, which reports errors.
            let _ = self.submit(EnterFlags::empty());
            if self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to outlives the operation: the callers keep it in the socket table or in
        // `Ring` until the final completion, and dropping the ring waits for that or leaks it.
        unsafe { self.ring.0.submission().push(entry).is_ok() }
    }

    /// Submits what is queued and collects what is complete, in one system call, or in none if there is nothing.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        let queue = self.ring.0.submission();
        let needed = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if needed { self.submit(EnterFlags::GETEVENTS) } else { Ok(()) }
    }

    fn submit(&mut self, flags: EnterFlags) -> io::Result<()> {
        self.counters.enters += 1;
        let queued = u32::try_from(self.ring.0.submission().len()).expect("the queue has at most 32768 entries");
        // SAFETY: no argument is passed; the entries were vouched for when pushed.
        let entered = unsafe { self.ring.0.submitter().enter::<libc::sigset_t>(queued, 0, flags.bits(), None) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves every completion that is in the queue to `out`.
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>) {
        let before = out.len();
        out.extend(self.ring.0.completion().map(|entry| Completion {
            op: Op::unpack(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
        let finished = out[before..].iter().filter(|completion| completion.op != Op::Ignored && !completion.more());
        let finished = u32::try_from(finished.count()).expect("the queue has at most 65536 entries");
        self.in_flight = self.in_flight.checked_sub(finished).expect("one final completion per request");
    }

    /// Whether [`Self::enter`] or [`Self::reap`] would find something to do.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.ring.0.submission();
        let queued = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        queued || !self.backlog.is_empty() || !self.ring.0.completion().is_empty()
    }

    /// Submits what is queued and sleeps until something completes or `deadline` (from now) has passed; a signal ends it, too.
    ///
    /// # Errors
    /// Only errors that make the ring unusable.
    pub(super) fn wait(&mut self, deadline: Option<Duration>) -> io::Result<()> {
        self.counters.enters += 1;
        let timeout = deadline.map(types::Timespec::from);
        let waited = match &timeout {
            Some(timeout) => self.ring.0.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(timeout)),
            None => self.ring.0.submitter().submit_and_wait(1),
        };
        match waited {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Cancels everything and waits until the kernel is done with it, handing each completion to `dispose`. False if it
    /// is not done: then no memory the requests point to may be freed.
    pub(super) fn quiesce(&mut self, mut dispose: impl FnMut(Completion)) -> bool {
        self.push_silent(opcode::AsyncCancel2::new(types::CancelBuilder::any()).build());
        let mut reaped = Vec::new();
        loop {
            if self.enter().is_err() {
                return false;
            }
            self.reap(&mut reaped);
            reaped.drain(..).for_each(&mut dispose);
            if self.in_flight == 0 {
                return true;
            }
            let timeout = types::Timespec::from(QUIESCE_WAIT);
            let wait = types::SubmitArgs::new().timespec(&timeout);
            if self.ring.0.submitter().submit_with_args(1, &wait).is_err() {
                return false;
            }
        }
    }
}

/// Interrupted, or completions must be reaped first: the next turn goes on.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
