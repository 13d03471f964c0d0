//! The clock of the process: Unix time at start, advanced by the monotonic clock.

use bifro_core::time::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// Hands out [`Instant`]s that never go back. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_micros: u64,
    started: std::time::Instant,
}

impl Clock {
    /// A clock anchored to the system's time now.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        Self { started_micros, started: std::time::Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        let elapsed = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Instant::from_micros(self.started_micros.saturating_add(elapsed))
    }
}
