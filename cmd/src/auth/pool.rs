//! The threads that verify passwords, and the bound on what waits for them.
//!
//! A slot is reserved before a job is made, so a full pool is an answer, not a wait. Jobs of clients that have gone are
//! skipped by the jobs themselves.

use super::error::LoadError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads and a bounded queue before them. The threads end when the pool and its last slot are gone.
#[derive(Debug)]
pub(super) struct HashPool {
    jobs: Sender<(Slot, Job)>,
    load: Arc<Load>,
}

#[derive(Debug)]
struct Load {
    taken: AtomicUsize,
    slots: usize,
    refused: AtomicU64,
}

/// The right to submit one job; given back when the job is done, or when the slot is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    load: Arc<Load>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HashPool {
    /// Starts `threads` threads; `slots` jobs at most wait or run.
    ///
    /// # Errors
    /// [`LoadError::Threads`].
    pub(super) fn start(threads: u16, slots: usize) -> Result<Self, LoadError> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("auth-hash-{index}"))
                .spawn(move || work(&queue))
                .map_err(LoadError::Threads)?;
        }
        let load = Load { taken: AtomicUsize::new(0), slots, refused: AtomicU64::new(0) };
        Ok(Self { jobs, load: Arc::new(load) })
    }

    /// A slot, or none if all are taken.
    pub(super) fn reserve(&self) -> Option<Slot> {
        let one_more = |taken| (taken < self.load.slots).then_some(taken + 1);
        if self.load.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.load.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Slot { load: Arc::clone(&self.load) })
    }

    /// Queues a job.
    pub(super) fn submit(&self, slot: Slot, job: impl FnOnce() + Send + 'static) {
        // Sending fails only when every thread has died, which no job can cause; the job is dropped then, and what it owed
        // an answer to hears of it by the drop.
        let _ = self.jobs.send((slot, Box::new(job)));
    }

    /// Jobs waiting or running.
    pub(super) fn taken(&self) -> usize {
        self.load.taken.load(Ordering::Relaxed)
    }

    /// Slots asked for in vain since the start.
    pub(super) fn refused(&self) -> u64 {
        self.load.refused.load(Ordering::Relaxed)
    }
}

fn work(queue: &Mutex<Receiver<(Slot, Job)>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((slot, job)) = next else { return };
        // A job that panics answers by its drop; the thread lives on.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a password verification panicked; the client was refused");
        }
        drop(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_slots_come_back() {
        let pool = HashPool::start(1, 2).expect("threads");
        let (release, gate) = channel::<()>();
        let (done, finished) = channel::<()>();
        let slot = pool.reserve().expect("first slot");
        let first_done = done.clone();
        pool.submit(slot, move || {
            let _ = gate.recv();
            let _ = first_done.send(());
        });
        let second = pool.reserve().expect("second slot");
        assert!(pool.reserve().is_none(), "one runs, one is reserved");
        assert_eq!((pool.taken(), pool.refused()), (2, 1));
        drop(second);
        let again = pool.reserve().expect("a slot given back");
        pool.submit(again, move || {
            let _ = done.send(());
        });
        release.send(()).expect("the first job waits");
        finished.recv().expect("first job");
        finished.recv().expect("second job");
    }

    #[test]
    fn a_panic_costs_neither_thread_nor_slot() {
        let pool = HashPool::start(1, 1).expect("threads");
        let (done, finished) = channel::<()>();
        let slot = pool.reserve().expect("slot");
        pool.submit(slot, move || {
            let _keeps_channel_open = done;
            panic!("as the test wants");
        });
        assert!(finished.recv().is_err(), "the job is gone");
        let slot = loop {
            match pool.reserve() {
                Some(slot) => break slot,
                None => thread::yield_now(),
            }
        };
        let (done, finished) = channel();
        pool.submit(slot, move || {
            let _ = done.send(7);
        });
        assert_eq!(finished.recv(), Ok(7));
    }
}
