//! What the threads of a run share: the phase, and counters. Each counter has one writer or is added to once per batch.

use crate::check::Findings;
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// Where a run stands. Only the coordinating thread moves it, and only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Phase {
    /// Clients connect and subscribe.
    Ramp = 0,
    /// Load that is not measured.
    WarmUp = 1,
    /// Load that is.
    Measure = 2,
    /// Nothing is published; what is under way is received.
    Drain = 3,
    /// The workers end.
    Stop = 4,
}

/// Two counters of a publisher, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PublisherProgress {
    /// Messages published.
    pub published: AtomicU64,
    /// Copies received, without duplicates.
    pub received: AtomicU64,
}

/// Counters of a core, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct CoreProgress {
    /// Clients connected and subscribed (or ended, in a run without phases).
    pub ready: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    /// Messages published.
    pub published: AtomicU64,
    /// Connections the broker ended, or that could not be made.
    pub disconnects: AtomicU64,
    /// Times the window of a publisher was opened although nothing had come back.
    pub stalls: AtomicU64,
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Progress {
    epoch: Instant,
    phase: AtomicU8,
    start_ns: AtomicU64,
    /// By index of the publisher.
    pub publishers: Vec<PublisherProgress>,
    /// By core.
    pub cores: Vec<CoreProgress>,
    failure: Mutex<Option<String>>,
}

impl Progress {
    /// Of a run that begins now.
    pub fn new(publishers: usize, cores: usize) -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(0),
            start_ns: AtomicU64::new(0),
            publishers: std::iter::repeat_with(PublisherProgress::default).take(publishers).collect(),
            cores: std::iter::repeat_with(CoreProgress::default).take(cores).collect(),
            failure: Mutex::new(None),
        }
    }

    /// Nanoseconds since the run began.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The phase.
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ramp,
            1 => Phase::WarmUp,
            2 => Phase::Measure,
            3 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// Moves on to `phase`.
    pub fn enter(&self, phase: Phase) {
        if phase == Phase::WarmUp {
            self.start_ns.store(self.now_ns(), Ordering::Release);
        }
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// When the load began, in nanoseconds since the run did.
    pub fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Acquire)
    }

    /// Keeps the first reason a client failed for.
    pub fn fail(&self, reason: String) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(reason);
        }
    }

    /// The first reason a client failed for.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().ok().and_then(|failure| failure.clone())
    }

    /// A counter of all cores together.
    pub fn total(&self, counter: impl Fn(&CoreProgress) -> &AtomicU64) -> u64 {
        self.cores.iter().map(|core| counter(core).load(Ordering::Relaxed)).sum()
    }
}

/// What a worker hands back.
#[derive(Debug)]
pub struct CoreResult {
    /// Latency from the intended time of sending to receipt, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Findings of its subscribers.
    pub findings: Findings,
}

/// An empty histogram of 1 ns to 100 s with three digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are valid")
}
