//! Whether the node lives (every shard turns) and whether it wants clients (not before its listeners are up, not while it
//! drains). Cells that shards and the main thread write and the admin thread reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One shard's sign of life: its executor calls [`ShardBeat::beat`] at least once a second, busy or idle, from a task that
/// would not run if the executor hung or slept through a wake-up.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardBeat {
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last_ms: AtomicU64,
}

impl Default for ShardBeat {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl ShardBeat {
    /// The shard is alive.
    pub fn beat(&self) {
        self.last_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Time since the last beat, or since the shard was made if there was none.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether the node wants clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Listeners are not up yet.
    Starting = 0,
    /// Clients are welcome.
    Ready = 1,
    /// Sessions are being ended.
    Draining = 2,
}

/// The node's phase, shared by the main thread, which sets it, and the admin thread.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// The phase the node is in.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}
