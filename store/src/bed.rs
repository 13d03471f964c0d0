//! How the storage threads sleep: without a lock for those who bring work, and without losing a wake-up.
//!
//! Both sides announce before they look: who brings work makes it visible, then looks whether the thread sleeps; the thread says
//! that it sleeps, then looks for work.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

/// A thread's bed: whoever puts work where it looks rings, and pays for a wake-up only if it sleeps.
#[derive(Debug, Default)]
pub(super) struct Bed {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bed {
    /// To be called after the work is visible.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Called by the thread itself: sleeps until rung or `timeout`, unless there is work already.
    pub(super) fn sleep(&self, timeout: Duration, has_work: impl FnOnce() -> bool) {
        self.thread.get_or_init(std::thread::current);
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !has_work() {
            std::thread::park_timeout(timeout);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
