//! What a node takes for the time: a clock that runs a little fast or slow, and may jump ahead.

use crate::queue::Moment;
use bifro_core::time::Instant;
use std::time::Duration;

const MILLION: u128 = 1_000_000;

/// A node's clock. It never goes back while the node runs.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// When it was last touched.
    anchor: Moment,
    /// What it showed then.
    shown: Instant,
    /// Microseconds it advances per million.
    rate: u64,
}

impl Clock {
    /// A clock that shows `shown` at the beginning.
    pub(crate) fn new(shown: Instant) -> Self {
        Self { anchor: Moment(0), shown, rate: MILLION as u64 }
    }

    /// What it shows.
    pub(crate) fn read(&self, now: Moment) -> Instant {
        let passed = now.since(self.anchor).as_micros() * u128::from(self.rate) / MILLION;
        self.shown + Duration::from_micros(passed as u64)
    }

    /// The first moment at which it shows `wanted`, if nobody touches it.
    pub(crate) fn when(&self, wanted: Instant) -> Moment {
        let missing = wanted.since(self.shown).as_micros() * MILLION;
        self.anchor + Duration::from_micros(missing.div_ceil(u128::from(self.rate)) as u64)
    }

    /// Lets it run at another rate.
    pub(crate) fn set_rate(&mut self, now: Moment, rate: u64) {
        *self = Self { anchor: now, shown: self.read(now), rate };
    }

    /// Lets it jump ahead.
    pub(crate) fn jump(&mut self, now: Moment, by: Duration) {
        *self = Self { anchor: now, shown: self.read(now) + by, rate: self.rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_when_the_clock_shows_it_and_not_before() {
        let mut clock = Clock::new(Instant::from_micros(77));
        for rate in [1_000_000, 950_000, 1_049_999, 700_001] {
            clock.set_rate(Moment(1_000), rate);
            for wanted in
                (0..200_000).step_by(997).map(|micros| clock.read(Moment(1_000)) + Duration::from_micros(micros))
            {
                let due = clock.when(wanted);
                assert!(clock.read(due) >= wanted, "rate {rate}");
                assert!(due == Moment(1_000) || clock.read(Moment(due.0 - 1)) < wanted, "rate {rate}");
            }
        }
    }

    #[test]
    fn a_jump_goes_ahead_and_the_rate_stays() {
        let mut clock = Clock::new(Instant::from_micros(0));
        clock.set_rate(Moment(0), 500_000);
        clock.jump(Moment(10), Duration::from_micros(100));
        assert_eq!(clock.read(Moment(30)), Instant::from_micros(5 + 100 + 10));
    }
}
