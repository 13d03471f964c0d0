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

    /// The same moment on the monotonic clock of the standard library, for what reckons with that. What lies before the start is the start.
    pub fn monotonic(&self, at: Instant) -> std::time::Instant {
        self.started + at.since(Instant::from_micros(self.started_micros))
    }

    /// The reverse of [`Self::monotonic`], rounded up to the microsecond: what is due at a moment is due at what this returns.
    pub fn moment(&self, at: std::time::Instant) -> Instant {
        let micros = at.saturating_duration_since(self.started).as_nanos().div_ceil(1000);
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        Instant::from_micros(self.started_micros.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_survives_the_way_to_the_monotonic_clock_and_back() {
        let clock = Clock::start();
        let now = clock.now();
        assert_eq!(clock.moment(clock.monotonic(now)), now);
        let due = clock.monotonic(now) + Duration::from_nanos(1);
        assert!(clock.monotonic(clock.moment(due)) >= due, "never early");
    }
}
